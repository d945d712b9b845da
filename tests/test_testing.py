"""The tools for a model of one's own: what is right passes, what is wrong is named."""

import re

import numpy as np
import pytest
from support.compare import literally

import rnncore as rc
from rnncore.testing import Pair, assert_gradients, assert_same_results, benchmark_pair


@pytest.fixture
def model():
    """-> loss, parameters, gradients of an LSTM, with a cotangent for every output"""
    rng = np.random.default_rng(0)
    x, dh, dh_n, dc_n = (rng.normal(size=s) for s in [(5, 2, 3), (5, 2, 4), (2, 4), (2, 4)])
    params = {"Wx": rng.normal(size=(3, 16)), "Wh": rng.normal(size=(4, 16)), "b": rng.normal(size=16)}

    def loss():
        h, (h_n, c_n), _ = rc.reference.lstm_forward(x, **params)
        return float((h * dh).sum() + (h_n * dh_n).sum() + (c_n * dc_n).sum())

    grads = rc.reference.lstm_backward(dh, rc.reference.lstm_forward(x, **params)[2], dh_n, dc_n)
    return loss, params, {"Wx": grads.dWx, "Wh": grads.dWh, "b": grads.db}


@pytest.mark.parametrize("directions", [5, None])
def test_right_gradients_pass(model, directions):
    loss, params, grads = model
    before = {name: p.copy() for name, p in params.items()}
    assert_gradients(loss, params, grads, directions=directions)
    assert all((params[name] == before[name]).all() for name in params)


@pytest.mark.parametrize("directions", [5, None])
@pytest.mark.parametrize("change", ["one entry", "doubled", "transposed block", "NaN"])
def test_wrong_gradients_are_named(model, directions, change):
    loss, params, grads = model
    wrong = grads["Wh"] = grads["Wh"].copy()
    if change == "one entry":
        wrong[1, 2] += 1e-3
    elif change == "doubled":
        wrong *= 2
    elif change == "transposed block":
        wrong[:, :4] = wrong[:, :4].T.copy()
    else:
        wrong[0, 0] = np.nan
    with pytest.raises(AssertionError, match="^the gradient of Wh is wrong") as error:
        assert_gradients(loss, params, grads, directions=directions)
    if change == "one entry" and directions is None:
        assert "at (1, 2)" in str(error.value)


def test_parameters_are_restored_after_an_error(model):
    _, params, grads = model
    before = params["Wx"].copy()

    def loss():
        raise RuntimeError("no loss")

    with pytest.raises(RuntimeError, match="no loss"):
        assert_gradients(loss, params, grads)
    assert (params["Wx"] == before).all()


def test_what_cannot_be_checked(model):
    loss, params, grads = model
    with pytest.raises(ValueError, match=literally("gradients must have the names of parameters, ['W']; got ['V']")):
        assert_gradients(loss, {"W": params["Wx"]}, {"V": grads["Wx"]})
    with pytest.raises(TypeError, match=literally("gradients['W'] must be real numbers; got dtype <U1")):
        rc.testing.assert_gradients(lambda: 0.0, {"W": np.zeros(3)}, {"W": np.array(["a", "b", "c"])})
    with pytest.raises(ValueError, match=literally("gradients['W'] must be (3, 16); got (16,)")):
        assert_gradients(loss, {"W": params["Wx"]}, {"W": grads["b"]})
    for parameter, found in ((params["Wx"].astype("float32"), "float32"), ([1.0], "list")):
        with pytest.raises(
            TypeError, match=literally(f"parameters['W'] must be a writable float64 array; got {found}")
        ):
            assert_gradients(loss, {"W": parameter}, {"W": grads["Wx"]})


SAME = [
    (1, 1.0),
    (None, None),
    ((np.ones(2), [3]), [np.ones(2), (3,)]),
    ({"a": np.array([np.nan, np.inf])}, {"a": np.array([np.nan, np.inf])}),
    (np.float32(1.00001), np.float64(1)),
    (np.array(["x", "y"]), ["x", "y"]),
    ([1, 2], np.array([1, 2])),
]
DIFFERENT = [
    (1.0, 1.001, "result differs by 0.001; allowed: 1e-10"),
    (np.ones(2), np.ones(3), "result must be (3,); got (2,)"),
    ((1, 2), (1,), "result must have 1 parts; got 2"),
    (1, (1,), "result must have 1 parts; got int"),
    ({"a": 1}, {"b": 1}, "result must have the keys ['b']; got ['a']"),
    ({"a": (1, 5)}, {"a": (1, 2)}, "result['a'][1] differs by 3; allowed: 2e-10"),
    (None, 1, "result is None, and should be 1"),
    (np.nan, 1.0, "result differs by nan; allowed: 1e-10"),
    (np.inf, 1.0, "result differs by inf; allowed: 1e-10"),
]


@pytest.mark.parametrize(("found", "wanted"), SAME)
def test_same_results(found, wanted):
    assert_same_results(found, wanted)


@pytest.mark.parametrize(("found", "wanted", "message"), DIFFERENT)
def test_different_results(found, wanted, message):
    with pytest.raises(AssertionError, match=literally(message)):
        assert_same_results(found, wanted)


def test_a_pair_is_timed():
    calls = []
    pair = benchmark_pair(lambda: calls.append("o"), lambda: calls.append("r"), seconds=0.001)
    assert calls[:4] == ["r", "o", "o", "r"]  # compared, warmed up
    rounds = [(a, b) for a, b in zip(calls[4::2], calls[5::2], strict=True)]
    assert len(rounds) >= 5
    assert set(rounds) == {("o", "r"), ("r", "o")}
    assert pair.speedup == pair.original / pair.replacement > 0
    assert re.fullmatch(r"original \S+ us, replacement \S+ us: \S+ times as fast", str(pair))
    assert str(Pair(2.5, 0.0125)) == "original 2.5 s, replacement 12.5 ms: 200.00 times as fast"


def test_a_pair_that_differs_is_not_timed():
    calls = []
    with pytest.raises(AssertionError, match="result differs by 1"):
        benchmark_pair(lambda: 1.0, lambda: calls.append(1) or 2.0)
    assert len(calls) == 1


@pytest.mark.parametrize("seconds", [np.inf, np.nan, -1, "1"])
def test_times_without_an_end(seconds):
    with pytest.raises(ValueError, match="^seconds must be at least 0 and finite; got "):
        benchmark_pair(lambda: 1.0, lambda: 1.0, seconds=seconds)


def test_what_cannot_be_called():
    with pytest.raises(TypeError, match=literally("replacement must be callable; got int")):
        benchmark_pair(lambda: 1.0, 3)
    with pytest.raises(TypeError, match=literally("loss must be callable; got float")):
        assert_gradients(1.0, {}, {})
