"""min-char-rnn and its relatives against plain NumPy steps and central differences."""

import numpy as np
import pytest
from gradcheck import check_gradients

from rnncore.compat import min_char_rnn
from rnncore.compat.min_char_rnn import GRU, LSTM, char_gru_loss, char_lstm_loss, char_rnn_loss

SIZES = [(5, 4, 6), (3, 1, 4), (2, 3, 1), (7, 9, 12), (4, 2, 0)]  # V H T
BATCHES = [(7, 2, 3, 5), (1, 1, 1, 1), (4, 3, 2, 1), (1, 5, 4, 3), (6, 1, 1, 4)]  # n b I d


def close(actual, wanted):
    np.testing.assert_allclose(actual, wanted, rtol=1e-10, atol=1e-10, strict=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(axis=0))
    return e / e.sum(axis=0)


def one_hot(V, ix):
    return np.eye(V)[:, ix : ix + 1]


# ---- plain NumPy: a step and its gradient; the loop over characters is the same for all cells -----------------------


def rnn_step(x, state, p):
    (h_prev,) = state
    h = np.tanh(p["Wxh"] @ x + p["Whh"] @ h_prev + p["bh"])

    def backward(dh):
        dz = (1 - h**2) * dh
        return (p["Whh"].T @ dz,), {"Wxh": dz @ x.T, "Whh": dz @ h_prev.T, "bh": dz}

    return (h,), backward


def lstm_step(x, state, p):
    h_prev, c_prev = state
    z = np.concatenate([x, h_prev])
    f, i, o = (sigmoid(p[f"W{g}"] @ z + p[f"b{g}"]) for g in "fio")
    cc = np.tanh(p["Wcc"] @ z + p["bcc"])
    c = f * c_prev + i * cc
    h = o * np.tanh(c)

    def backward(dh, dc):
        dc = dc + dh * o * (1 - np.tanh(c) ** 2)
        d = {"f": dc * c_prev * f * (1 - f), "i": dc * cc * i * (1 - i), "cc": dc * i * (1 - cc**2)}
        d["o"] = dh * np.tanh(c) * o * (1 - o)
        dz = sum(p[f"W{g}"].T @ d[g] for g in d)
        return (dz[len(x) :], dc * f), {f"W{g}": d[g] @ z.T for g in d} | {f"b{g}": d[g] for g in d}

    return (h, c), backward


def gru_step(x, state, p):
    (h_prev,) = state
    r, z = (sigmoid(p[f"W{g}"] @ x + p[f"U{g}"] @ h_prev + p[f"b{g}"]) for g in "rz")
    n = np.tanh(p["Wh"] @ x + p["Uh"] @ (r * h_prev) + p["bh"])
    h = z * h_prev + (1 - z) * n

    def backward(dh):
        dn = dh * (1 - z) * (1 - n**2)
        dz = dh * (h_prev - n) * z * (1 - z)
        drh = p["Uh"].T @ dn
        dr = drh * h_prev * r * (1 - r)
        g = {"Wh": dn @ x.T, "Wr": dr @ x.T, "Wz": dz @ x.T, "bh": dn, "br": dr, "bz": dz}
        g |= {"Uh": dn @ (r * h_prev).T, "Ur": dr @ h_prev.T, "Uz": dz @ h_prev.T}
        return (dh * z + drh * r + p["Ur"].T @ dr + p["Uz"].T @ dz,), g

    return (h,), backward


def plain(step, inputs, targets, state, p, Wy="Wy"):
    """-> loss, gradients by name, last state"""
    total, loss, trace = {key: np.zeros_like(value) for key, value in p.items()}, 0, []
    for ix, target in zip(inputs, targets, strict=True):
        state, backward = step(one_hot(len(p["by"]), ix), state, p)
        y = softmax(p[Wy] @ state[0] + p["by"])
        loss -= np.log(y[target, 0])
        trace.append((state[0], backward, y - one_hot(len(y), target)))
    carried = tuple(np.zeros_like(s) for s in state)
    for h, backward, dy in reversed(trace):
        total[Wy] += dy @ h.T
        total["by"] += dy
        carried, g = backward(carried[0] + p[Wy].T @ dy, *carried[1:])
        for key, value in g.items():
            total[key] += value
    return loss, total, state


RNN_KEYS = ["Wxh", "Whh", "Why", "bh", "by"]
LSTM_KEYS = ["Wf", "bf", "Wi", "bi", "Wcc", "bcc", "Wo", "bo", "Wy", "by"]
GRU_KEYS = ["Wy", "Wh", "Wr", "Wz", "Uh", "Ur", "Uz", "by", "bh", "br", "bz"]
# function, step, number of states, keys in order, name of the output matrix, clips
FAMILIES = {
    "rnn": (char_rnn_loss, rnn_step, 1, RNN_KEYS, "Why", True),
    "lstm": (char_lstm_loss, lstm_step, 2, LSTM_KEYS, "Wy", True),
    "gru": (char_gru_loss, gru_step, 1, GRU_KEYS, "Wy", False),
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
    _, _, states, keys, _, _ = FAMILIES[family]
    p = {key: scale * rng.normal(size=shape(family, key, V, H)) for key in keys}
    inputs, targets = rng.integers(V, size=(2, T)).tolist()
    return inputs, targets, [rng.normal(size=(H, 1)) for _ in range(states)], p


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sizes", SIZES)
def test_losses(family, sizes):
    function, step, count, keys, Wy, clips = FAMILIES[family]
    inputs, targets, state, p = problem(family, *sizes, scale=3.0)
    arguments = [*state, *p.values()]
    for array in arguments:
        array.flags.writeable = False
    loss, *gradients = function(inputs, targets, *arguments)
    wanted, g, last = plain(step, inputs, targets, tuple(state), p, Wy)
    assert isinstance(loss, np.float64)
    close(loss, np.float64(wanted))
    assert len(gradients) == len(keys) + count
    for key, gradient in zip(keys, gradients, strict=False):
        close(gradient, np.clip(g[key], -5, 5) if clips else g[key])
        assert gradient.flags.writeable
    for mine, other in zip(gradients[len(keys) :], last, strict=True):
        close(mine, other)
        assert not np.shares_memory(mine, state[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_numeric_gradients(family):
    function, _, count, keys, _, _ = FAMILIES[family]
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
    function, step, _, keys, Wy, _ = FAMILIES[family]
    inputs, targets, state, p = problem(family, 5, 4, 6)
    known = function(inputs, targets, *state, *p.values())
    strided = [np.repeat(np.asfortranarray(value), 2, axis=0)[::2] for value in (*state, *p.values())]
    for mine, other in zip(function(inputs, np.array(targets), *strided), known, strict=True):
        np.testing.assert_array_equal(mine, other)
    p[keys[0]] *= -1
    p["by"][:] = 2000.0
    loss, *gradients = function(inputs, targets, *state, *p.values())
    wanted, _, _ = plain(step, inputs, targets, tuple(state), p, Wy)
    close(loss, np.float64(wanted))
    assert all(np.isfinite(g).all() for g in gradients)


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


def plain_lstm(X, W, c0, h0):
    d, h, c, hs = W.shape[1] // 4, h0, c0, []
    for x in X:
        z = np.concatenate([np.ones((len(x), 1)), x, h], axis=1) @ W
        i, f, o = (sigmoid(z[:, k * d : (k + 1) * d]) for k in range(3))
        c = f * c + i * np.tanh(z[:, 3 * d :])
        h = o * np.tanh(c)
        hs.append(h)
    return np.stack(hs), c, h


def plain_lstm_backward(dH, X, W, c0, h0, dcn, dhn):
    n, I = len(X), X.shape[2]  # noqa: E741
    dX, dW, dh, dc = np.zeros_like(X), np.zeros_like(W), dhn, dcn
    for t in reversed(range(n)):
        h_prev, c_prev = (plain_lstm(X[:t], W, c0, h0)[k] if t else v for k, v in ((2, h0), (1, c0)))
        row = np.concatenate([np.ones((len(h0), 1)), X[t], h_prev], axis=1)
        i, f, o, g = np.split(row @ W, 4, axis=1)
        i, f, o, g = sigmoid(i), sigmoid(f), sigmoid(o), np.tanh(g)
        c = f * c_prev + i * g
        dh = dh + dH[t]
        dc = dc + dh * o * (1 - np.tanh(c) ** 2)
        do = dh * np.tanh(c) * o * (1 - o)
        dz = np.concatenate([dc * g * i * (1 - i), dc * c_prev * f * (1 - f), do, dc * i * (1 - g**2)], axis=1)
        dW += row.T @ dz
        back = dz @ W.T
        dX[t], dh, dc = back[:, 1 : 1 + I], back[:, 1 + I :], dc * f
    return dX, dW, dc, dh


def plain_gru(X, W, h0):
    d, h, hs = W.shape[1] // 3, h0, []
    for x in X:
        one = np.ones((len(x), 1))
        zr = sigmoid(np.concatenate([one, x, h], axis=1) @ W[:, : 2 * d])
        z, r = zr[:, :d], zr[:, d:]
        h = (1 - z) * h + z * np.tanh(np.concatenate([one, x, r * h], axis=1) @ W[:, 2 * d :])
        hs.append(h)
    return np.stack(hs), h


def batch(sizes, G):
    n, b, I, d = sizes  # noqa: E741
    rng = np.random.default_rng(0)
    shapes = {"X": (n, b, I), "W": (1 + I + d, G * d), "c0": (b, d), "h0": (b, d), "dH": (n, b, d)}
    return {key: rng.normal(size=s) for key, s in (shapes | {"dc": (b, d), "dh": (b, d)}).items()}


@pytest.mark.parametrize("sizes", BATCHES)
def test_batched_lstm(sizes):
    p = batch(sizes, 4)
    X, W, c0, h0 = (p[key] for key in ("X", "W", "c0", "h0"))
    Hout, Cn, Hn, cache = LSTM.forward(X, W, c0, h0)
    for mine, other in zip((Hout, Cn, Hn), plain_lstm(X, W, c0, h0), strict=True):
        close(mine, other)
    mine = LSTM.backward(p["dH"], cache, p["dc"], p["dh"])
    other = plain_lstm_backward(p["dH"], X, W, c0, h0, p["dc"], p["dh"])
    for gradient, known in zip(mine, other, strict=True):
        close(gradient, known)
    for key in ("WLSTM", "Hout", "IFOGf", "IFOG", "C", "Ct", "Hin", "c0", "h0"):
        cache[key]
    d = sizes[-1]
    close(cache["IFOGf"][..., : 3 * d], sigmoid(cache["IFOG"][..., : 3 * d]))
    close(cache["IFOGf"][..., 3 * d :], np.tanh(cache["IFOG"][..., 3 * d :]))
    close(cache["IFOGf"][..., 2 * d : 3 * d] * cache["Ct"], cache["Hout"])
    with pytest.raises(KeyError):
        cache["nothing"]
    zero = np.zeros_like(c0)
    Hout, *_, cache = LSTM.forward(X, W)
    close(Hout, plain_lstm(X, W, zero, zero)[0])
    for gradient, known in zip(
        LSTM.backward(p["dH"], cache), plain_lstm_backward(p["dH"], X, W, zero, zero, zero, zero), strict=True
    ):
        close(gradient, known)


@pytest.mark.parametrize("sizes", BATCHES)
def test_batched_gru(sizes):
    p = batch(sizes, 3)
    X, W, h0 = (p[key] for key in ("X", "W", "h0"))
    Hout, Hn, cache = GRU.forward(X, W, h0)
    for mine, other in zip((Hout, Hn), plain_gru(X, W, h0), strict=True):
        close(mine, other)
    close(GRU.forward(X, W)[0], plain_gru(X, W, np.zeros_like(h0))[0])
    gradients = dict(zip(("X", "W", "h0"), GRU.backward(p["dH"], cache, p["dh"]), strict=True))
    check_gradients(lambda X, W, h0: plain_gru(X, W, h0), {"X": X, "W": W, "h0": h0}, [p["dH"], p["dh"]], gradients)


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
    close(LSTM.forward(X, W)[0], plain_lstm(X, W, 0 * p["c0"], 0 * p["h0"])[0])
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
