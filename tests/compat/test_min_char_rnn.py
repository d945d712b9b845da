"""min-char-rnn and its relatives against the loops in NumPy and central differences."""

import copy

import numpy as np
import pytest
from originals import min_char_rnn as plain
from support.compare import assert_equal_bits
from support.gradcheck import check_gradients

from rnncore.compat import min_char_rnn
from rnncore.compat.min_char_rnn import GRU, LSTM, char_gru_loss, char_lstm_loss, char_rnn_loss

SIZES = [(5, 4, 6), (3, 1, 4), (2, 3, 1), (7, 9, 12), (4, 2, 0)]  # V H T
BATCHES = [(7, 2, 3, 5), (1, 1, 1, 1), (4, 3, 2, 1), (1, 5, 4, 3), (6, 1, 1, 4)]  # n b I d


def close(actual, wanted):
    np.testing.assert_allclose(actual, wanted, rtol=1e-10, atol=1e-10, strict=True)


RNN_KEYS = ["Wxh", "Whh", "Why", "bh", "by"]
LSTM_KEYS = ["Wf", "bf", "Wi", "bi", "Wcc", "bcc", "Wo", "bo", "Wy", "by"]
GRU_KEYS = ["Wy", "Wh", "Wr", "Wz", "Uh", "Ur", "Uz", "by", "bh", "br", "bz"]
# function, the loop, number of states, keys in order
FAMILIES = {
    "rnn": (char_rnn_loss, plain.char_rnn_loss, 1, RNN_KEYS),
    "lstm": (char_lstm_loss, plain.char_lstm_loss, 2, LSTM_KEYS),
    "gru": (char_gru_loss, plain.char_gru_loss, 1, GRU_KEYS),
}


def shape(family, key, V, H):
    if key[0] == "b":
        return (V if key == "by" else H, 1)
    if key in ("Wy", "Why"):
        return V, H
    if family == "lstm":
        return H, V + H
    return (H, H) if key[0] == "U" or key == "Whh" else (H, V)


def problem(family, V, H, T, scale=1.0):
    rng = np.random.default_rng(0)
    _, _, states, keys = FAMILIES[family]
    p = {key: scale * rng.normal(size=shape(family, key, V, H)) for key in keys}
    inputs, targets = rng.integers(V, size=(2, T)).tolist()
    return inputs, targets, [rng.normal(size=(H, 1)) for _ in range(states)], p


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sizes", SIZES)
def test_losses(family, sizes):
    function, loop, count, keys = FAMILIES[family]
    inputs, targets, state, p = problem(family, *sizes, scale=3.0)
    arguments = [*state, *p.values()]
    for array in arguments:
        array.flags.writeable = False
    loss, *gradients = function(inputs, targets, *arguments)
    wanted, *known = loop(inputs, targets, *arguments)
    assert isinstance(loss, np.float64)
    close(loss, np.float64(wanted))
    assert len(gradients) == len(keys) + count
    for mine, other in zip(gradients, known, strict=True):
        close(mine, other)
        assert mine.flags.writeable
        assert not any(np.shares_memory(mine, array) for array in arguments)


@pytest.mark.parametrize("family", FAMILIES)
def test_numeric_gradients(family):
    function, _, _, keys = FAMILIES[family]
    inputs, targets, state, p = problem(family, 4, 3, 5)
    gradients = function(inputs, targets, *state, *p.values())[1 : 1 + len(keys)]
    assert max(np.abs(g).max() for g in gradients) < 5
    check_gradients(
        lambda **p: (np.array(function(inputs, targets, *state, *(p[key] for key in keys))[0]),),
        p,
        [np.array(1.0)],
        dict(zip(keys, gradients, strict=True)),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_live_weights_strides_and_large_logits(family):
    function, loop, _, keys = FAMILIES[family]
    inputs, targets, state, p = problem(family, 5, 4, 6)
    known = function(inputs, targets, *state, *p.values())
    strided = [np.repeat(np.asfortranarray(value), 2, axis=0)[::2] for value in (*state, *p.values())]
    for mine, other in zip(function(inputs, np.array(targets), *strided), known, strict=True):
        assert_equal_bits(mine, other)
    p[keys[0]] *= -1
    p["by"][:] = 0.0
    wanted = loop(inputs, targets, *state, *p.values())
    p["by"] += 2000.0  # the same probabilities, which the loop could not compute
    for mine, other in zip(function(inputs, targets, *state, *p.values()), wanted, strict=True):
        close(mine, other)


@pytest.mark.parametrize("family", FAMILIES)
def test_refuses(family):
    function = FAMILIES[family][0]
    _, _, state, p = problem(family, 5, 4, 6)
    for inputs, targets in (([5], [0]), ([-1], [0]), ([0], [5]), ([0, 1], [1])):
        with pytest.raises(ValueError):
            function(inputs, targets, *state, *p.values())
    for inputs in ([None], [0.5], [[1]]):
        with pytest.raises(TypeError):
            function(inputs, [0], *state, *p.values())


# ---- batches --------------------------------------------------------------------------------------------------------


def batch(sizes, G):
    n, b, I, d = sizes  # noqa: E741
    rng = np.random.default_rng(0)
    shapes = {"X": (n, b, I), "W": (1 + I + d, G * d), "c0": (b, d), "h0": (b, d), "dH": (n, b, d)}
    return {key: rng.normal(size=s) for key, s in (shapes | {"dc": (b, d), "dh": (b, d)}).items()}


@pytest.mark.parametrize("sizes", BATCHES)
def test_batched_lstm(sizes):
    p = batch(sizes, 4)
    X, W, c0, h0 = (p[key] for key in ("X", "W", "c0", "h0"))
    *outputs, cache = LSTM.forward(X, W, c0, h0)
    *wanted, known = plain.LSTM.forward(X, W, c0, h0)
    for mine, other in zip(outputs, wanted, strict=True):
        close(mine, other)
    gradients = plain.LSTM.backward(p["dH"], known, p["dc"], p["dh"])
    for mine, other in zip(LSTM.backward(p["dH"], cache, p["dc"], p["dh"]), gradients, strict=True):
        close(mine, other)
    for key in ("WLSTM", "Hout", "IFOGf", "IFOG", "C", "Ct", "Hin", "c0", "h0"):
        close(cache[key], known[key])
    with pytest.raises(KeyError):
        cache["nothing"]
    (Hout, *_, cache), (wanted, *_, known) = LSTM.forward(X, W), plain.LSTM.forward(X, W)
    close(Hout, wanted)
    for mine, other in zip(LSTM.backward(p["dH"], cache), plain.LSTM.backward(p["dH"], known), strict=True):
        close(mine, other)


def same_dict(mine, known):
    assert set(mine) == set(known) | {"X", "engine"}
    for key, value in known.items():
        close(mine[key], value)


KEYS = ("WLSTM", "Hout", "IFOGf", "IFOG", "C", "Ct", "Hin", "c0", "h0")
USES = {
    "in": lambda cache: [key in cache for key in (*KEYS, "nothing")],
    "get": lambda cache: [cache.get(key) for key in KEYS],
    "get nothing": lambda cache: [cache.get("nothing"), cache.get("nothing", 7), cache.get("Ct", 7)],
    "setdefault": lambda cache: [cache.setdefault("Ct", 7), cache.setdefault("new", 7), cache["new"]],
    "pop": lambda cache: [cache.pop("Ct"), "Ct" in cache, cache.get("Ct"), cache.pop("Ct", 7)],
    "write": lambda cache: [cache.__setitem__("Ct", 7), cache["Ct"], cache.copy()["Ct"], "Ct" in cache],
}


def test_the_cache_of_the_batched_lstm_is_the_dict_of_the_original():
    p = batch((4, 2, 3, 5), 4)

    def caches():
        return (kind.forward(p["X"], p["W"], p["c0"], p["h0"])[-1] for kind in (LSTM, plain.LSTM))

    for use in USES.values():
        for mine, other in zip(*map(use, caches()), strict=True):
            if isinstance(other, np.ndarray):
                close(mine, other)
            else:
                assert mine == other
    for whole in (
        dict,
        lambda cache: {**cache},
        lambda cache: cache.copy(),
        copy.copy,
        lambda cache: cache | {},
        lambda cache: {} | cache,
        lambda cache: dict(cache.items()),
        lambda cache: dict(zip(cache.keys(), cache.values(), strict=True)),
        lambda cache: {key: cache[key] for key in reversed(cache)},
    ):
        mine, known = caches()
        gradients = LSTM.backward(p["dH"], mine)
        same_dict(whole(mine), known)
        for found, wanted in zip(LSTM.backward(p["dH"], whole(mine)), gradients, strict=True):
            np.testing.assert_array_equal(found, wanted)
    mine, known = caches()
    assert len(mine) == len(known) + 2
    mine, known = caches()
    del mine["Ct"]
    assert "Ct" not in mine
    assert "Ct" not in list(mine)
    with pytest.raises(KeyError):
        mine["Ct"]
    mine, known = caches()
    assert "Ct" in repr(mine)
    mine, known = caches()
    mine.clear()
    assert not mine
    assert "Ct" not in mine
    other = {}
    other.update(next(caches()))
    same_dict(other, known)


@pytest.mark.parametrize("sizes", BATCHES)
def test_batched_gru(sizes):
    p = batch(sizes, 3)
    X, W, h0 = (p[key] for key in ("X", "W", "h0"))
    *outputs, cache = GRU.forward(X, W, h0)
    *wanted, known = plain.GRU.forward(X, W, h0)
    for mine, other in zip(outputs, wanted, strict=True):
        close(mine, other)
    close(GRU.forward(X, W)[0], plain.GRU.forward(X, W)[0])
    gradients = GRU.backward(p["dH"], cache, p["dh"])
    for mine, other in zip(gradients, plain.GRU.backward(p["dH"], known, p["dh"]), strict=True):
        close(mine, other)
    gradients = dict(zip(("X", "W", "h0"), gradients, strict=True))
    check_gradients(
        lambda X, W, h0: plain.GRU.forward(X, W, h0)[:2], {"X": X, "W": W, "h0": h0}, [p["dH"], p["dh"]], gradients
    )


def test_batched_numeric_gradients_and_chunks():
    p = batch((6, 2, 3, 4), 4)
    arguments = {key: p[key] for key in ("X", "W", "c0", "h0")}
    Hout, Cn, Hn, cache = LSTM.forward(**{"WLSTM" if key == "W" else key: v for key, v in arguments.items()})
    whole = LSTM.backward(p["dH"], cache, p["dc"], p["dh"])
    check_gradients(
        lambda X, W, c0, h0: LSTM.forward(X, W, c0, h0)[:3],
        arguments,
        [p["dH"], p["dc"], p["dh"]],
        dict(zip(arguments, whole, strict=True)),
    )
    first = LSTM.forward(p["X"][:2], p["W"], p["c0"], p["h0"])
    second = LSTM.forward(p["X"][2:], p["W"], first[1], first[2])
    dX2, dW2, dc, dh = LSTM.backward(p["dH"][2:], second[3], p["dc"], p["dh"])
    dX1, dW1, dc, dh = LSTM.backward(p["dH"][:2], first[3], dc, dh)
    for mine, other in zip((np.concatenate([dX1, dX2]), dW1 + dW2, dc, dh), whole, strict=True):
        close(mine, other)


def test_batched_weights_are_live_and_results_fresh():
    p = batch((4, 2, 3, 5), 4)
    X, W = p["X"], p["W"]
    Hout, Cn, Hn, cache = LSTM.forward(X, W, p["c0"], p["h0"])
    wanted = LSTM.backward(p["dH"], cache)
    for result in (Hout, Cn, Hn):
        result[...] = 7
    for gradient, known in zip(LSTM.backward(p["dH"], cache), wanted, strict=True):
        np.testing.assert_array_equal(gradient, known)
    odd = [np.repeat(np.asfortranarray(value), 2, axis=1)[:, ::2] for value in (X, W, p["c0"], p["h0"])]
    np.testing.assert_array_equal(LSTM.forward(*odd)[0], cache["Hout"])
    dx = LSTM.backward(p["dH"][:], cache)[0]
    W *= 2
    assert not np.allclose(LSTM.backward(p["dH"], cache)[0], dx)
    close(LSTM.forward(X, W)[0], plain.LSTM.forward(X, W)[0])
    cache["WLSTM"] = np.zeros((1 + 3 + 6, 24))
    with pytest.raises(ValueError, match="WLSTM"):
        LSTM.backward(p["dH"], cache)
    for wrong in (W[:-1], W[:, :-1], W[0]):
        with pytest.raises(ValueError, match="1 \\+ I \\+ d"):
            LSTM.forward(X, wrong)
    with pytest.raises(ValueError, match="X must be"):
        LSTM.forward(X[0], W)


def test_batched_init():
    W = LSTM.init(3, 5)
    assert W.shape == (9, 20)
    assert W[0].tolist() == [0.0] * 5 + [3.0] * 5 + [0.0] * 10
    assert not LSTM.init(3, 5, 0)[0].any()
    assert GRU.init(3, 5).shape == (9, 15)
    assert not GRU.init(3, 5)[0].any()
    assert min_char_rnn.CLIP == 5
