"""The functions of CS231n assignment 3 against plain NumPy, step by step, written from the assignment's equations."""

import numpy as np
import pytest
from layouts import assert_near, backwards, contiguous, sparse, time_first, transposed
from problems import TOLERANCE

from rnncore.compat import cs231n

SIZES = [(3, 5, 4, 6), (1, 7, 3, 5), (4, 1, 2, 3), (2, 4, 3, 1), (1, 1, 1, 1), (5, 17, 20, 33)]  # N T D H


def logistic(x):
    return 1 / (1 + np.exp(-x))


def plain_rnn(x, h0, Wx, Wh, b, dh):
    N, T, D = x.shape
    h, states = np.zeros((N, T, len(Wh))), [h0]
    for t in range(T):
        states.append(np.tanh(x[:, t] @ Wx + states[-1] @ Wh + b))
        h[:, t] = states[-1]
    dx, carried, dWx, dWh, db = np.zeros((N, T, D)), np.zeros(h0.shape), 0 * Wx, 0 * Wh, 0 * b
    for t in reversed(range(T)):
        da = (dh[:, t] + carried) * (1 - states[t + 1] ** 2)
        dx[:, t], carried = da @ Wx.T, da @ Wh.T
        dWx, dWh, db = dWx + x[:, t].T @ da, dWh + states[t].T @ da, db + da.sum(axis=0)
    return h, (dx, carried, dWx, dWh, db)


def plain_lstm(x, h0, Wx, Wh, b, dh, c0=None, dc_n=0):
    N, T, D = x.shape
    H = len(Wh)
    hs, cs, gates = [h0], [np.zeros((N, H)) if c0 is None else c0], []
    for t in range(T):
        a = x[:, t] @ Wx + hs[-1] @ Wh + b
        i, f, o = (logistic(a[:, k * H : (k + 1) * H]) for k in range(3))
        g = np.tanh(a[:, 3 * H :])
        gates.append((i, f, o, g))
        cs.append(f * cs[-1] + i * g)
        hs.append(o * np.tanh(cs[-1]))
    dx, carried, dc, dWx, dWh, db = np.zeros((N, T, D)), np.zeros((N, H)), dc_n, 0 * Wx, 0 * Wh, 0 * b
    for t in reversed(range(T)):
        (i, f, o, g), q, d = gates[t], np.tanh(cs[t + 1]), dh[:, t] + carried
        dc = dc + d * o * (1 - q**2)
        parts = dc * g * i * (1 - i), dc * cs[t] * f * (1 - f), d * q * o * (1 - o), dc * i * (1 - g**2)
        da, dc = np.hstack(parts), dc * f
        dx[:, t], carried = da @ Wx.T, da @ Wh.T
        dWx, dWh, db = dWx + x[:, t].T @ da, dWh + hs[t].T @ da, db + da.sum(axis=0)
    h = np.stack(hs[1:], axis=1) if T else np.zeros((N, 0, H))
    return h, (dx, carried, dWx, dWh, db), cs[-1], dc


def problem(sizes, G, dtype, lay=contiguous):
    """-> x, h0, Wx, Wh, b, dh in some layout, read-only, and in float64."""
    N, T, D, H = sizes
    rng = np.random.default_rng([*sizes, G])
    shapes = (N, T, D), (N, H), (D, G * H), (H, G * H), (G * H,), (N, T, H)
    scales = 1, 1, D**-0.5, H**-0.5, 1, 1
    arrays = [lay((rng.normal(size=s) * scale).astype(dtype)) for s, scale in zip(shapes, scales, strict=True)]
    for array in arrays:
        array.flags.writeable = False
    return arrays, [a.astype(np.float64) for a in arrays]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("lay", [contiguous, transposed, backwards, sparse])
def test_sequences(sizes, dtype, lay):
    for forward, backward, plain, G in (
        (cs231n.rnn_forward, cs231n.rnn_backward, plain_rnn, 1),
        (cs231n.lstm_forward, cs231n.lstm_backward, plain_lstm, 4),
    ):
        (*inputs, dh), exact = problem(sizes, G, dtype, lay)
        h, cache = forward(*inputs)
        wanted, gradients, *_ = plain(*exact)
        assert_near([h], [wanted], dtype)
        h[...] = 7  # the result is the caller's
        for _ in range(2):
            found = backward(dh, cache)
            assert_near(found, gradients, dtype)
            for array in found:
                array[...] = 7


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("sizes", [(3, 1, 4, 6), (1, 1, 3, 5), (2, 1, 3, 1)])
@pytest.mark.parametrize("lay", [contiguous, transposed, backwards, sparse])
def test_steps(sizes, dtype, lay):
    (x, h0, Wx, Wh, b, dh), exact = problem(sizes, 1, dtype, lay)
    next_h, cache = cs231n.rnn_step_forward(x[:, 0], h0, Wx, Wh, b)
    h, (dx, *gradients) = plain_rnn(*exact)
    assert_near([next_h], [h[:, 0]], dtype)
    assert_near(cs231n.rnn_step_backward(dh[:, 0], cache), [dx[:, 0], *gradients], dtype)

    (x, h0, Wx, Wh, b, dh), exact = problem(sizes, 4, dtype, lay)
    rng = np.random.default_rng(5)
    c0, dc = rng.normal(size=(2, *h0.shape)).astype(dtype)
    kept = dc.copy()
    next_h, next_c, cache = cs231n.lstm_step_forward(x[:, 0], h0, c0, Wx, Wh, b)
    h, (dx, dh0, *gradients), c, dc0 = plain_lstm(*exact, c0.astype(float), dc.astype(float))
    assert_near([next_h, next_c], [h[:, 0], c], dtype)
    next_h[...] = next_c[...] = 7
    assert_near(cs231n.lstm_step_backward(dh[:, 0], dc, cache), [dx[:, 0], dh0, dc0, *gradients], dtype)
    assert (dc == kept).all()
    gradients = cs231n.lstm_step_backward(dh[:, 0], 0, cache)
    assert_near(gradients, cs231n.lstm_step_backward(dh[:, 0], np.zeros_like(dc), cache), dtype)


def line(low, high, *shape):
    return np.linspace(low, high, num=int(np.prod(shape))).reshape(shape)


def test_known_answers_of_the_assignment():
    N, D, H = 3, 10, 4
    next_h, _ = cs231n.rnn_step_forward(
        *(line(-0.4, 0.7, N, D), line(-0.2, 0.5, N, H), line(-0.1, 0.9, D, H)),
        line(-0.3, 0.7, H, H),
        line(-0.2, 0.4, H),
    )
    np.testing.assert_allclose(next_h[0], [-0.58172089, -0.50182032, -0.41232771, -0.31410098], rtol=0, atol=5e-9)
    N, D, H = 3, 4, 5
    next_h, _, _ = cs231n.lstm_step_forward(
        *(line(-0.4, 1.2, N, D), line(-0.3, 0.7, N, H), line(-0.4, 0.9, N, H)),
        *(line(-2.1, 1.3, D, 4 * H), line(-0.7, 2.2, H, 4 * H), line(0.3, 0.7, 4 * H)),
    )
    wanted = [0.24635157, 0.28610883, 0.32240467, 0.35525807, 0.38474904]
    np.testing.assert_allclose(next_h[0], wanted, rtol=0, atol=5e-9)


def test_no_step_and_no_sequence():
    for N, T in ((2, 0), (0, 3), (0, 0)):
        for forward, backward, G in (
            (cs231n.rnn_forward, cs231n.rnn_backward, 1),
            (cs231n.lstm_forward, cs231n.lstm_backward, 4),
        ):
            (*inputs, dh), _ = problem((N, T, 3, 5), G, "float64")
            h, cache = forward(*inputs)
            dx, dh0, *dweights = backward(dh, cache)
            assert h.shape == (N, T, 5)
            assert dx.shape == (N, T, 3)
            assert dh0.shape == (N, 5)
            assert not any(d.any() for d in dweights)
        out, cache = cs231n.temporal_affine_forward(np.zeros((N, T, 3)), np.ones((3, 5)), np.ones(5))
        dx, dw, db = cs231n.temporal_affine_backward(out, cache)
        assert (out.shape, dx.shape, dw.any(), db.any()) == ((N, T, 5), (N, T, 3), False, False)
        loss, dx = cs231n.temporal_softmax_loss(out, np.zeros((N, T), int), np.ones((N, T), bool))
        assert (loss, dx.shape) == (0, (N, T, 5))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("lay", [contiguous, time_first, transposed, backwards, sparse])
@pytest.mark.parametrize("other", [contiguous, time_first])
def test_heads(dtype, lay, other):
    rng = np.random.default_rng(3)
    N, T, D, M = 3, 4, 5, 6
    x, w, b, dout = (rng.normal(size=s).astype(dtype) for s in [(N, T, D), (D, M), (M,), (N, T, M)])
    out, cache = cs231n.temporal_affine_forward(lay(x), other(w), b)
    assert_near([out], [np.einsum("ntd,dm->ntm", x, w) + b], dtype)
    out[...] = 7
    wanted = np.einsum("ntm,dm->ntd", dout, w), np.einsum("ntd,ntm->dm", x, dout), dout.sum(axis=(0, 1))
    for _ in range(2):
        assert_near(cs231n.temporal_affine_backward(other(dout), cache), wanted, dtype)

    w2 = rng.normal(size=(T * D, M)).astype(dtype)
    out, cache = cs231n.affine_forward(lay(x), w2, b)
    assert_near([out], [x.reshape(N, -1) @ w2 + b], dtype)
    d = dout[:, 0]
    assert_near(
        cs231n.affine_backward(d, cache), [(d @ w2.T).reshape(x.shape), x.reshape(N, -1).T @ d, d.sum(axis=0)], dtype
    )

    y, mask = rng.integers(M, size=(N, T)), rng.random((N, T)) < 0.6
    y[~mask] = -9
    loss, dx = cs231n.temporal_softmax_loss(lay(dout), other(y), other(mask))
    p = np.exp(dout.astype(float))
    p /= p.sum(axis=2, keepdims=True)
    wanted = -sum(np.log(p[n, t, y[n, t]]) for n in range(N) for t in range(T) if mask[n, t]) / N
    assert loss == pytest.approx(wanted, rel=TOLERANCE[dtype])
    for n, t in zip(*np.nonzero(mask), strict=True):
        p[n, t, y[n, t]] -= 1
    assert_near([dx], [p * mask[..., None] / N], dtype)


def test_star_import_brings_all_of_the_assignment():
    names = {}
    exec("from rnncore.compat.cs231n import *", names)
    kinds = "rnn_step", "rnn", "lstm_step", "lstm", "word_embedding", "temporal_affine", "affine"
    wanted = {f"{kind}_{way}" for kind in kinds for way in ("forward", "backward")}
    assert set(names) - {"__builtins__"} == wanted | {"sigmoid", "temporal_softmax_loss"}


def test_sigmoid():
    x = np.random.default_rng(0).normal(size=(3, 4)) * 30
    np.testing.assert_allclose(cs231n.sigmoid(x), logistic(x), rtol=1e-12)
    assert cs231n.sigmoid(np.array([-1e4, 1e4])).tolist() == [0, 1]
    assert cs231n.sigmoid(np.array([0, 1])).tolist() == [0.5, logistic(1)]
    assert cs231n.sigmoid(x.astype("float32")).dtype == np.float32


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_words(dtype):
    rng = np.random.default_rng(1)
    W, ids = rng.normal(size=(5, 3)).astype(dtype), rng.integers(5, size=(4, 6)).astype(np.int32)
    out, cache = cs231n.word_embedding_forward(ids, W)
    assert_near([out], [W[ids]], dtype)
    out[...] = 7
    ids[0] = (ids[0] + 1) % 5  # the cache keeps its own
    ids[0] = (ids[0] - 1) % 5
    dout = rng.normal(size=(4, 6, 3)).astype(dtype)
    wanted = np.zeros((5, 3))
    np.add.at(wanted, ids, dout)
    assert_near([cs231n.word_embedding_backward(time_first(dout), cache)], [wanted], dtype)
    assert cs231n.word_embedding_forward(ids[:, 0], W)[0].shape == (4, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: cs231n.lstm_forward(a["x"][0], *a["rest"]), r"x must be \(N, T, D\); got \(3, 4\)"),
        (lambda a: cs231n.lstm_forward(a["x"], a["h0"].T, *a["w"]), r"h0 must be \(N, H\) = \(2, 5\); got \(5, 2\)"),
        (
            lambda a: cs231n.lstm_forward(a["x"], a["h0"], a["w"][0].T, *a["w"][1:]),
            r"Wx must be \(D, 4H\) with D = 4 as in x; got \(20, 4\)",
        ),
        (
            lambda a: cs231n.lstm_forward(a["x"], a["h0"], a["w"][0], a["w"][1].T, a["w"][2]),
            r"Wh must be \(H, 4H\) = \(5, 20\); got \(20, 5\)",
        ),
        (
            lambda a: cs231n.lstm_step_forward(a["x"][:, 0], a["h0"].T, a["h0"], *a["w"]),
            r"prev_h must be \(N, H\) = \(2, 5\); got \(5, 2\)",
        ),
        (
            lambda a: cs231n.lstm_step_forward(a["x"][:, 0], a["h0"], a["h0"].T, *a["w"]),
            r"prev_c must be \(N, H\) = \(2, 5\); got \(5, 2\)",
        ),
        (
            lambda a: cs231n.lstm_backward(np.ones((3, 2, 5)), cs231n.lstm_forward(a["x"], *a["rest"])[1]),
            r"dh must be \(N, T, H\) = \(2, 3, 5\); got \(3, 2, 5\)",
        ),
        (
            lambda a: cs231n.temporal_affine_forward(a["x"], np.ones((5, 4)), np.ones(5)),
            r"w must be \(D, K\) = \(4, 4\); got \(5, 4\)",
        ),
        (
            lambda a: cs231n.temporal_softmax_loss(a["x"], np.zeros((3, 2), int), np.ones((2, 3))),
            r"y must be \(N, T\) = \(2, 3\); got \(3, 2\)",
        ),
        (
            lambda a: cs231n.temporal_softmax_loss(a["x"], np.full((2, 3), 4), np.ones((2, 3))),
            r"y must lie in \[0, V\) = \[0, 4\); got 4",
        ),
        (
            lambda a: cs231n.word_embedding_forward(np.array([[-1]]), np.ones((3, 2))),
            r"ids in x must lie in \[0, V\) = \[0, 3\); got -1",
        ),
    ],
)
def test_errors_speak_batch_first(call, message):
    rest = np.ones((2, 5)), np.ones((4, 20)), np.ones((5, 20)), np.ones(20)
    with pytest.raises(ValueError, match=message):
        call({"x": np.ones((2, 3, 4)), "h0": rest[0], "w": rest[1:], "rest": rest})


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_a_captioning_model_learns(cell):
    """As CaptioningRNN.loss and .sample of the assignment use the functions."""
    rng = np.random.default_rng(0)
    N, F, V, E, H, T, G = 6, 7, 11, 8, 12, 5, 4 if cell == "lstm" else 1
    shapes = {"W_proj": (F, H), "b_proj": (H,), "W_embed": (V, E), "Wx": (E, G * H), "Wh": (H, G * H), "b": (G * H,)}
    shapes |= {"W_vocab": (H, V), "b_vocab": (V,)}
    params = {k: (rng.normal(size=s) / np.sqrt(s[0])).astype("float32") for k, s in shapes.items()}
    features = rng.normal(size=(N, F)).astype("float32")
    captions = rng.integers(1, V, size=(N, T + 1))
    captions[:, 0] = 1
    captions[2:, -1] = 0
    forward, backward = getattr(cs231n, f"{cell}_forward"), getattr(cs231n, f"{cell}_backward")
    curve = []
    for _ in range(150):
        p, y = params, captions[:, 1:]
        h0, cache0 = cs231n.affine_forward(features, p["W_proj"], p["b_proj"])
        words, cache1 = cs231n.word_embedding_forward(captions[:, :-1], p["W_embed"])
        h, cache2 = forward(words, h0, p["Wx"], p["Wh"], p["b"])
        scores, cache3 = cs231n.temporal_affine_forward(h, p["W_vocab"], p["b_vocab"])
        loss, dscores = cs231n.temporal_softmax_loss(scores, y, y != 0)
        grads = {}
        dh, grads["W_vocab"], grads["b_vocab"] = cs231n.temporal_affine_backward(dscores, cache3)
        dwords, dh0, grads["Wx"], grads["Wh"], grads["b"] = backward(dh, cache2)
        grads["W_embed"] = cs231n.word_embedding_backward(dwords, cache1)
        _, grads["W_proj"], grads["b_proj"] = cs231n.affine_backward(dh0, cache0)
        for name in params:
            assert grads[name].dtype == np.float32
            params[name] -= 0.2 * grads[name]
        curve.append(loss)
    assert curve[-1] < 0.2 * curve[0]

    h, c, word = (
        cs231n.affine_forward(features, p["W_proj"], p["b_proj"])[0],
        np.zeros((N, H), "float32"),
        captions[:, 0],
    )
    drawn = []
    for _ in range(T):
        x, _ = cs231n.word_embedding_forward(word, p["W_embed"])
        if cell == "rnn":
            h, _ = cs231n.rnn_step_forward(x, h, p["Wx"], p["Wh"], p["b"])
        else:
            h, c, _ = cs231n.lstm_step_forward(x, h, c, p["Wx"], p["Wh"], p["b"])
        word = cs231n.affine_forward(h, p["W_vocab"], p["b_vocab"])[0].argmax(axis=1)
        drawn.append(word)
    wanted = captions[:, 1:]
    assert (np.stack(drawn, axis=1) == wanted)[wanted != 0].mean() > 0.9
