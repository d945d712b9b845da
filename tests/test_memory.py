"""Large arrays go round: what a user still holds is never written again, and what is kept stays bounded."""

import os

import numpy as np
import pytest

import rnncore as rc
from rnncore import _engine


def problem(rng, T=30, N=8, D=16, H=64):
    shapes = [(T, N, D), (D, 4 * H), (H, 4 * H), (4 * H,), (T, N, H)]
    return [(0.2 * rng.normal(size=shape)).astype("float32") for shape in shapes]


def test_results_outlive_their_cache():
    """Everything a call gave stays as it was while later calls of the same and other sizes come and go."""
    rng = np.random.default_rng(0)
    held = []
    for step in range(12):
        x, Wx, Wh, b, dh = problem(rng, T=30 + step % 3)
        h, (h_n, c_n), cache = rc.lstm_forward(x, Wx, Wh, b)
        gradients = rc.lstm_backward(dh, cache)
        arrays = [h, h_n, c_n, cache.gates[3:5], cache.c, cache.h[::2], *(g for g in gradients if g is not None)]
        held.append([(array, array.copy()) for array in arrays])
        if step % 4 == 3:
            del held[0]
    for arrays in held:
        for array, copy in arrays:
            np.testing.assert_array_equal(array, copy)


def test_results_can_be_written_and_are_apart():
    x, Wx, Wh, b, dh = problem(np.random.default_rng(0))
    h, _, cache = rc.lstm_forward(x, Wx, Wh, b)
    wanted = rc.lstm_backward(dh, cache).dWh
    h[...] = np.nan
    np.testing.assert_array_equal(rc.lstm_backward(dh, cache).dWh, wanted)
    assert not np.isnan(cache.h).any()


def test_a_block_serves_again():
    def address(block):
        return np.frombuffer(block, np.uint8).ctypes.data

    size = 3_000_064
    block = _engine.Block(size)
    where = address(block)
    assert where % 64 == 0
    view = np.frombuffer(block, np.uint8)[10:20]
    del block
    other = _engine.Block(size)
    assert address(other) != where  # the view still holds the first
    del view, other
    again = [_engine.Block(size) for _ in range(2)]
    assert where in [address(block) for block in again]


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads the size of the process from /proc")
def test_memory_stays_flat_over_many_shapes():
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    rng = np.random.default_rng(0)
    sizes = []
    for step in range(600):
        T, N, H = (int(v) for v in rng.integers(1, 60, size=3))
        x, Wx, Wh, b, dh = problem(rng, T, N, 16, H)
        h, _, cache = rc.lstm_forward(x, Wx, Wh, b)
        rc.lstm_backward(dh, cache)
        if step in (299, 599):
            sizes.append(resident())
    # The kept blocks may still fill up; a leak of every call's memory would be hundreds of megabytes.
    assert sizes[1] - sizes[0] < 64 << 20, sizes
