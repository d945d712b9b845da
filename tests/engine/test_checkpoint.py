"""Segments computed again in the backward pass: the same bits, in memory that does not grow with the sequence."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from support.compare import assert_equal_bits
from support.problems import VARIANTS, make_cotangents, make_problem

import rnncore as rc


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_bits_for_any_number_of_segments(variant, dtype):
    rng = np.random.default_rng(0)
    names = ("lengths", "resets", "reverse", "ids", "mask")
    for chosen in itertools.product([False, True], repeat=5):
        T, N, D, H = 23, 4, 5, 9
        cell, arguments = make_problem(rng, variant, T, N, D, H, dtype, **dict(zip(names, chosen, strict=True)))
        cotangents = make_cotangents(rng, cell, T, N, H, dtype)
        forward, backward = (getattr(rc, f"{cell}_{direction}") for direction in ("forward", "backward"))
        h, state, cache = forward(**arguments)
        expected = [h, *np.atleast_3d(state), *backward(cache=cache, **cotangents)]
        for checkpoint in (True, 1, 2, 7, 23, 1000):
            h, state, cache = forward(**arguments, checkpoint=checkpoint)
            for _ in range(2):  # a cache serves again
                actual = [h, *np.atleast_3d(state), *backward(cache=cache, **cotangents)]
                for got, wanted in zip(actual, expected, strict=True):
                    assert_equal_bits(got, wanted, err_msg=f"{chosen} {checkpoint}")


@pytest.mark.parametrize("T", [0, 1])
def test_nothing_to_cut(T):
    rng = np.random.default_rng(0)
    _, arguments = make_problem(rng, "lstm-plain-current-tanh", T, 3, 4, 5)
    h, (h_n, _), cache = rc.lstm_forward(**arguments, checkpoint=True)
    gradients = rc.lstm_backward(np.ones_like(h), cache)
    assert h.shape == (T, 3, 5)
    assert gradients.dx.shape == (T, 3, 4)
    assert T or (h_n == arguments["h0"]).all()


def test_layers_take_it():
    x = np.random.default_rng(0).normal(size=(30, 3, 4)).astype("float32")
    results = []
    for checkpoint in (None, True, 4):
        layer = rc.LSTM(4, 6, num_layers=2, bidirectional=True, checkpoint=checkpoint, seed=0)
        y, _, cache = layer.forward(x, lengths=[30, 2, 17])
        dx, _ = layer.backward(np.cos(y), cache)
        results.append([y, dx, *layer.grads.values()])
        assert (cache.cells[0][0].gates is None) == (checkpoint is not None)
    for actual in results[1:]:
        for got, wanted in zip(actual, results[0], strict=True):
            assert_equal_bits(got, wanted)


@pytest.mark.parametrize("wrong", [False, 0, -1, 2.5, "4"])
def test_wrong_numbers_of_segments(wrong):
    _, arguments = make_problem(np.random.default_rng(0), "rnn-tanh")
    with pytest.raises((TypeError, ValueError), match="checkpoint must be"):
        rc.rnn_forward(**arguments, checkpoint=wrong)
    with pytest.raises((TypeError, ValueError), match="checkpoint must be"):
        rc.RNN(3, 4, checkpoint=wrong)


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
def test_a_long_sequence_in_little_memory():
    """Beyond x, h, dh and dx: gates of one segment of 316 steps and 316 states, not 100,000 of each."""
    code = """
import resource
import numpy as np
import rnncore as rc
T, N, D, H = 100_000, 1, 4, 64
rng = np.random.default_rng(0)
x, dh = (rng.normal(size=(T, N, k)).astype("f4") for k in (D, H))
Wx, Wh, b = (0.1 * rng.normal(size=s).astype("f4") for s in [(D, 4 * H), (H, 4 * H), (4 * H,)])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
h, _, cache = rc.lstm_forward(x, Wx, Wh, b, checkpoint=True)
gradients = rc.lstm_backward(dh, cache)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 - h.nbytes - gradients.dx.nbytes)
"""
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 8 << 20  # the gates alone would be 100 MB
