"""The functions of CS231n assignment 3 against the loops in NumPy and the numbers of the assignment."""

import numpy as np
import pytest
from originals import cs231n as plain
from support.compare import TOLERANCE, assert_near
from support.layouts import backwards, contiguous, sparse, time_first, transposed

from rnncore.compat import cs231n

SIZES = [(3, 5, 4, 6), (1, 7, 3, 5), (4, 1, 2, 3), (2, 4, 3, 1), (1, 1, 1, 1), (5, 17, 20, 33)]  # N T D H


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
    for forward, backward, plain_forward, plain_backward, G in (
        (cs231n.rnn_forward, cs231n.rnn_backward, plain.rnn_forward, plain.rnn_backward, 1),
        (cs231n.lstm_forward, cs231n.lstm_backward, plain.lstm_forward, plain.lstm_backward, 4),
    ):
        (*inputs, dh), (*exact, exact_dh) = problem(sizes, G, dtype, lay)
        h, cache = forward(*inputs)
        wanted, kept = plain_forward(*exact)
        gradients = plain_backward(exact_dh, kept)
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
    (x, *rest, dh), (exact_x, *exact, exact_dh) = problem(sizes, 1, dtype, lay)
    next_h, cache = cs231n.rnn_step_forward(x[:, 0], *rest)
    wanted, known = plain.rnn_step_forward(exact_x[:, 0], *exact)
    assert_near([next_h], [wanted], dtype)
    gradients = plain.rnn_step_backward(exact_dh[:, 0], known)
    assert_near(cs231n.rnn_step_backward(dh[:, 0], cache), gradients, dtype)

    (x, h0, *weights, dh), (exact_x, exact_h0, *exact, exact_dh) = problem(sizes, 4, dtype, lay)
    rng = np.random.default_rng(5)
    c0, dc = rng.normal(size=(2, *h0.shape)).astype(dtype)
    kept = dc.copy()
    next_h, next_c, cache = cs231n.lstm_step_forward(x[:, 0], h0, c0, *weights)
    *wanted, known = plain.lstm_step_forward(exact_x[:, 0], exact_h0, c0.astype(float), *exact)
    assert_near([next_h, next_c], wanted, dtype)
    next_h[...] = next_c[...] = 7
    gradients = plain.lstm_step_backward(exact_dh[:, 0], dc.astype(float), known)
    assert_near(cs231n.lstm_step_backward(dh[:, 0], dc, cache), gradients, dtype)
    assert (dc == kept).all()
    gradients = cs231n.lstm_step_backward(dh[:, 0], 0, cache)
    assert_near(gradients, cs231n.lstm_step_backward(dh[:, 0], np.zeros_like(dc), cache), dtype)


def line(low, high, *shape):
    return np.linspace(low, high, num=int(np.prod(shape))).reshape(shape)


@pytest.mark.parametrize("module", [cs231n, plain])
def test_known_answers_of_the_assignment(module):
    N, D, H = 3, 10, 4
    next_h, _ = module.rnn_step_forward(
        *(line(-0.4, 0.7, N, D), line(-0.2, 0.5, N, H), line(-0.1, 0.9, D, H)),
        line(-0.3, 0.7, H, H),
        line(-0.2, 0.4, H),
    )
    np.testing.assert_allclose(next_h[0], [-0.58172089, -0.50182032, -0.41232771, -0.31410098], rtol=0, atol=5e-9)
    N, D, H = 3, 4, 5
    next_h, _, _ = module.lstm_step_forward(
        *(line(-0.4, 1.2, N, D), line(-0.3, 0.7, N, H), line(-0.4, 0.9, N, H)),
        *(line(-2.1, 1.3, D, 4 * H), line(-0.7, 2.2, H, 4 * H), line(0.3, 0.7, 4 * H)),
    )
    wanted = [0.24635157, 0.28610883, 0.32240467, 0.35525807, 0.38474904]
    np.testing.assert_allclose(next_h[0], wanted, rtol=0, atol=5e-9)


@pytest.mark.parametrize("module", [cs231n, plain])
@pytest.mark.parametrize(
    ("cell", "features", "wanted"), [("rnn", (-1.5, 0.3), 9.83235591003), ("lstm", (-0.5, 1.7), 9.82445935443)]
)
def test_known_losses_of_the_captioning_model(module, cell, features, wanted):
    N, D, W, H, V, T = 10, 20, 30, 40, 3, 13
    params = plain.captioning_parameters(lambda *shape: line(-1.4, 1.3, *shape), V, D, W, H, cell)
    captions = (np.arange(N * T) % V).reshape(N, T)
    loss, grads = plain.captioning_loss(module, cell, params, line(*features, N, D), captions)
    assert loss == pytest.approx(wanted, rel=0, abs=5e-12)
    assert {name: g.shape for name, g in grads.items()} == {name: p.shape for name, p in params.items()}


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
    exact_x, exact_w, exact_b, exact_dout = (a.astype(np.float64) for a in (x, w, b, dout))
    out, cache = cs231n.temporal_affine_forward(lay(x), other(w), b)
    wanted, known = plain.temporal_affine_forward(exact_x, exact_w, exact_b)
    assert_near([out], [wanted], dtype)
    out[...] = 7
    for _ in range(2):
        gradients = plain.temporal_affine_backward(exact_dout, known)
        assert_near(cs231n.temporal_affine_backward(other(dout), cache), gradients, dtype)

    w2 = rng.normal(size=(T * D, M)).astype(dtype)
    out, cache = cs231n.affine_forward(lay(x), w2, b)
    wanted, known = plain.affine_forward(exact_x, w2.astype(np.float64), exact_b)
    assert_near([out], [wanted], dtype)
    gradients = plain.affine_backward(exact_dout[:, 0], known)
    assert_near(cs231n.affine_backward(dout[:, 0], cache), gradients, dtype)

    y, mask = rng.integers(M, size=(N, T)), rng.random((N, T)) < 0.6
    y[~mask] = -9
    loss, dx = cs231n.temporal_softmax_loss(lay(dout), other(y), other(mask))
    wanted, gradient = plain.temporal_softmax_loss(exact_dout, np.where(mask, y, 0), mask)
    assert loss == pytest.approx(wanted, rel=TOLERANCE[dtype])
    assert_near([dx], [gradient], dtype)


def test_star_import_brings_all_of_the_assignment():
    names = {}
    exec("from rnncore.compat.cs231n import *", names)
    kinds = "rnn_step", "rnn", "lstm_step", "lstm", "word_embedding", "temporal_affine", "affine"
    wanted = {f"{kind}_{way}" for kind in kinds for way in ("forward", "backward")}
    assert set(names) - {"__builtins__"} == wanted | {"sigmoid", "temporal_softmax_loss"}


def test_sigmoid():
    x = np.random.default_rng(0).normal(size=(3, 4)) * 30
    np.testing.assert_allclose(cs231n.sigmoid(x), plain.sigmoid(x), rtol=1e-12)
    assert cs231n.sigmoid(np.array([-1e4, 1e4])).tolist() == [0, 1]
    assert cs231n.sigmoid(np.array([0, 1])).tolist() == [0.5, 1 / (1 + np.exp(-1))]
    assert cs231n.sigmoid(x.astype("float32")).dtype == np.float32


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_words(dtype):
    rng = np.random.default_rng(1)
    W, ids = rng.normal(size=(5, 3)).astype(dtype), rng.integers(5, size=(4, 6)).astype(np.int32)
    out, cache = cs231n.word_embedding_forward(ids, W)
    wanted, known = plain.word_embedding_forward(ids.copy(), W.astype(np.float64))
    assert_near([out], [wanted], dtype)
    out[...] = 7
    ids[0] = (ids[0] + 1) % 5  # the cache keeps its own
    ids[0] = (ids[0] - 1) % 5
    dout = rng.normal(size=(4, 6, 3)).astype(dtype)
    wanted = plain.word_embedding_backward(dout.astype(np.float64), known)
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
    N, F, V, E, H, T = 6, 7, 11, 8, 12, 5
    params = plain.captioning_parameters(
        lambda *shape: (rng.normal(size=shape) / np.sqrt(shape[0])).astype("float32"), V, F, E, H, cell
    )
    features = rng.normal(size=(N, F)).astype("float32")
    captions = rng.integers(1, V, size=(N, T + 1))
    captions[:, 0] = 1
    captions[2:, -1] = 0
    curve = []
    for _ in range(150):
        loss, grads = plain.captioning_loss(cs231n, cell, params, features, captions)
        for name in params:
            assert grads[name].dtype == np.float32
            params[name] -= 0.2 * grads[name]
        curve.append(loss)
    assert curve[-1] < 0.2 * curve[0]

    p, word, c = params, captions[:, 0], np.zeros((N, H), "float32")
    h, _ = cs231n.affine_forward(features, p["W_proj"], p["b_proj"])
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
