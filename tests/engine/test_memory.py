"""Large arrays go round: what a user still holds is never written again, and what is kept stays bounded."""

import os
import subprocess
import sys

import numpy as np
import pytest
from support.problems import VARIANTS, make_problem

import rnncore as rc
from rnncore import _engine
from rnncore.engine import calls


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


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_keeps_gates_states_and_no_more(variant):
    T, N, H = 40, 6, 32
    cell, arguments = make_problem(np.random.default_rng(0), variant, T, N, 5, H, "float32")
    _, _, cache = getattr(rc, f"{cell}_forward")(**arguments)
    G = len(VARIANTS[variant].gates)
    saved = cache._call.saved()
    del saved["x"]
    h0, c0 = saved.pop("h0"), saved.pop("c0")
    assert sum(array.nbytes for array in saved.values() if array is not None) <= (G + 2) * T * N * H * 4
    assert sum(array.nbytes for array in (h0, c0) if array is not None) <= 2 * N * H * 4


@pytest.mark.parametrize("variant", VARIANTS)
def test_inference_in_pieces_has_the_same_bits(variant, monkeypatch):
    """An input that must be copied is copied piece by piece."""
    rng = np.random.default_rng(0)
    for lengths, resets, reverse in np.ndindex(2, 2, 2):
        options = {"lengths": bool(lengths), "resets": bool(resets), "reverse": bool(reverse), "mask": bool(resets)}
        cell, arguments = make_problem(rng, variant, 23, 4, 5, 6, "float32", **options)
        arguments["x"] = np.asfortranarray(arguments["x"])
        forward = getattr(rc, f"{cell}_forward")
        h, state, _ = forward(**arguments)
        for tokens in (4096, 9, 1):
            monkeypatch.setattr(calls, "_PIECE_TOKENS", tokens)
            other, other_state, _ = forward(**arguments, training=False)
            np.testing.assert_array_equal(other, h)
            np.testing.assert_array_equal(other_state, state)


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
@pytest.mark.parametrize("options", ["", "lengths=[T, T // 2]", "x=x[::-1]"])
def test_inference_needs_its_output_and_little_more(options):
    code = f"""
import resource
import numpy as np
import rnncore as rc
T, N, D, H = 50_000, 2, 64, 64
rng = np.random.default_rng(0)
x = rng.normal(size=(T, N, D)).astype("f4")
Wx, Wh, b = (0.1 * rng.normal(size=s).astype("f4") for s in [(D, 4 * H), (H, 4 * H), (4 * H,)])
options = dict(x=x) | dict({options})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
h = rc.lstm_forward(Wx=Wx, Wh=Wh, b=b, training=False, **options)[0]
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 - h.nbytes)
"""
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    # The output is 26 MB, and so would a copy of the input be; index arrays of a ragged batch are 3 MB.
    assert int(result.stdout) < 12 << 20


UNABLE = "Unable to allocate 768. GiB for an array with shape (68719476736, 1, 3) and data type float32\n"


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
@pytest.mark.parametrize(
    ("T", "H", "options", "message"),
    [
        (2**36, 3, "training=False", UNABLE),
        (2**36, 3, "checkpoint=2**20", UNABLE),
        (2**36, 3, "training=False, lengths=[7]", UNABLE),
        (2**59, 100, "training=False", "array is too big; "),
    ],
)
def test_a_result_too_large_is_refused_at_once(T, H, options, message):
    """Before anything is counted out for the steps of x, which takes no memory itself."""
    code = f"""
import resource
import numpy as np
import rnncore as rc
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
x = np.broadcast_to(np.float32(0), ({T}, 1, 1))
Wx, Wh, b = (np.zeros(s, "f4") for s in [(1, 4 * {H}), ({H}, 4 * {H}), (4 * {H},)])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    rc.lstm_forward(x, Wx, Wh, b, {options})
except (MemoryError, ValueError) as error:
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before), error)
"""
    command = [sys.executable, "-P", "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    kilobytes, found = result.stdout.split(" ", 1)
    assert int(kilobytes) < 10_000
    assert found.startswith(message)


LIMITED = """
import resource
import numpy as np
import rnncore as rc
from rnncore import _engine

def limit(megabytes):
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (megabytes << 20),) * 2)

"""


def run_limited(code):
    """Run code that may call limit(megabytes): so much more address space than it has."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-c", LIMITED + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS")
def test_the_pool_is_given_back_when_memory_runs_out():
    code = """
held = [_engine.Block(12 << 20) for _ in range(16)]
del held
limit(50)
block = _engine.Block(200 << 20)
print(len(np.frombuffer(block, np.uint8)) >> 20)
"""
    result = run_limited(code)
    assert result.stdout == "200\n", result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS")
@pytest.mark.parametrize(
    ("layers", "bidirectional", "outputs"), [(1, False, 1), (2, False, 2), (1, True, 2), (4, True, 4)]
)
def test_a_frozen_stack_needs_no_more_outputs_than_it_has_layers(layers, bidirectional, outputs):
    """Its result, two more below the top at most, and in both directions those of each before they are side by side."""
    code = f"""
T, H = 8000, {500 if bidirectional else 1000}
layer = rc.MinGRU(2, H, {layers}, bidirectional={bidirectional}, seed=0).freeze()
x = np.ones((T, 1, 2), "float32")
y, _ = layer(x[:100])
limit(31 * {outputs} + 24)
print(layer(x)[0].nbytes >> 20, np.array_equal(layer(x)[0][:9, :, :H], y[:9, :, :H]))
"""
    result = run_limited(code)
    assert result.stdout == "30 True\n", result.stderr
