"""The layers of "Deep Learning from Scratch 2" against the loops in NumPy."""

import numpy as np
import pytest
from originals import dlfs2 as originals
from support.compare import TOLERANCE, assert_near
from support.layouts import backwards, contiguous, time_first, transposed

from rnncore.compat import dlfs2

SIZES = [
    (3, 5, 4, 6),
    (1, 7, 3, 5),
    (4, 1, 2, 3),
    (2, 4, 3, 1),
    (1, 1, 1, 1),
    (12, 1, 4, 6),
    (5, 17, 20, 33),
]  # N T D H
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
LAYERS = {kind: getattr(dlfs2, f"Time{kind}") for kind in GATES}


def plain(kind, xs, weights, dhs, *states):
    """-> hs, h, c (None but for an LSTM), dxs, dh, [dWx, dWh, db] of the loop, from zeros where a state is not given"""
    layer = getattr(originals, f"Time{kind}")(*weights, stateful=True)
    layer.set_state(*states)
    hs, dxs = layer.forward(xs), layer.backward(dhs)
    return hs, layer.h, getattr(layer, "c", None), dxs, layer.dh, layer.grads


def weights_of(kind, D, H, dtype, lay=contiguous, seed=0):
    rng, G = np.random.default_rng([seed, D, H]), GATES[kind]
    Wx, Wh, b = (rng.normal(size=s) * max(s[0], 1) ** -0.5 for s in [(D, G * H), (H, G * H), (G * H,)])
    return lay(Wx.astype(dtype)), lay(Wh.astype(dtype)), b.astype(dtype)


def exact(*arrays):
    return [a.astype(np.float64) for a in arrays]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("lay", [contiguous, transposed, backwards, time_first])
def test_time_layers(kind, sizes, dtype, lay):
    N, T, D, H = sizes
    weights = weights_of(kind, D, H, dtype, lay)
    rng = np.random.default_rng(2)
    xs, dhs = (lay(rng.normal(size=(N, T, K)).astype(dtype)) for K in (D, H))
    for array in (xs, dhs, *weights):
        array.flags.writeable = False
    layer = LAYERS[kind](*weights)
    assert all(a is b for a, b in zip(layer.params, weights, strict=True))
    grads = list(layer.grads)
    hs, h, c, dxs, dh, dweights = plain(kind, *exact(xs), exact(*weights), *exact(dhs))
    for _ in range(2):  # not stateful: the second time is as the first
        found = layer.forward(xs)
        assert_near([found, layer.h], [hs, h], dtype)
        if kind == "LSTM":
            assert_near([layer.c], [c], dtype)
        found[...] = 7
        assert_near([layer.backward(dhs), layer.dh, *layer.grads], [dxs, dh, *dweights], dtype)
        assert all(a is b for a, b in zip(layer.grads, grads, strict=True))
        for grad in grads:
            grad *= 0.5  # as clip_grads


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", LAYERS)
def test_stateful_chunks(kind, dtype):
    weights, rng = weights_of(kind, 4, 6, dtype), np.random.default_rng(3)
    xs, dhs = (rng.normal(size=(3, 8, K)).astype(dtype) for K in (4, 6))
    layer = LAYERS[kind](*weights, stateful=True)
    h = c = None
    for chunk in (slice(0, 3), slice(3, 4), slice(4, 8)):
        hs, h, c, dxs, dh, dweights = plain(kind, *exact(xs[:, chunk]), exact(*weights), *exact(dhs[:, chunk]), h, c)
        assert_near([layer.forward(xs[:, chunk])], [hs], dtype)
        assert_near([layer.backward(dhs[:, chunk]), layer.dh, *layer.grads], [dxs, dh, *dweights], dtype)
    assert_near([layer.h], [h], dtype)
    layer.reset_state()
    assert layer.h is None
    assert layer.forward(xs[:1]).shape == (1, 8, 6)  # another batch size, after a reset
    layer.set_state(h)  # in float64: the layer stays in its own dtype
    assert_near([layer.forward(xs)], [plain(kind, *exact(xs), exact(*weights), *exact(dhs), h)[0]], dtype)


def test_set_state_of_both():
    weights, rng = exact(*weights_of("LSTM", 4, 6, "float64")), np.random.default_rng(4)
    xs, dhs, h, c = (rng.normal(size=s) for s in [(3, 5, 4), (3, 5, 6), (3, 6), (3, 6)])
    layer = dlfs2.TimeLSTM(*weights, stateful=True)
    layer.set_state(h, c)
    wanted = plain("LSTM", xs, weights, dhs, h, c)
    assert_near([layer.forward(xs), layer.backward(dhs), layer.dh], [wanted[0], wanted[3], wanted[4]], "float64")


@pytest.mark.parametrize("kind", LAYERS)
def test_a_state_of_batch_one_serves_all(kind):
    weights, rng = weights_of(kind, 4, 6, "float64"), np.random.default_rng(5)
    xs, dhs, h = (rng.normal(size=s) for s in [(3, 5, 4), (3, 5, 6), (1, 6)])
    layer = LAYERS[kind](*weights, stateful=True)
    layer.set_state(h)
    hs, _, _, dxs, dh, dweights = plain(kind, xs, weights, dhs, h.repeat(3, axis=0))
    assert_near([layer.forward(xs), layer.backward(dhs), layer.dh, *layer.grads], [hs, dxs, dh, *dweights], "float64")


@pytest.mark.parametrize("kind", LAYERS)
def test_weights_are_read_live(kind):
    weights, rng = weights_of(kind, 4, 6, "float64"), np.random.default_rng(6)
    xs, dhs = rng.normal(size=(3, 5, 4)), rng.normal(size=(3, 5, 6))
    layer = LAYERS[kind](*weights)
    before = layer.forward(xs)
    for param in layer.params:
        param *= 0.5
    changed = layer.forward(xs)
    assert np.abs(changed - before).max() > 1e-3
    assert_near([changed], [plain(kind, xs, weights, dhs)[0]], "float64")
    other = weights_of(kind, 4, 6, "float64", seed=9)
    layer.params[0] = other[0]
    wanted = plain(kind, xs, [other[0], *weights[1:]], dhs)
    assert_near([layer.forward(xs), layer.backward(dhs), *layer.grads], [wanted[0], wanted[3], *wanted[5]], "float64")


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("N", [3, 12])
def test_cells(kind, dtype, N):
    weights, rng = weights_of(kind, 4, 6, dtype), np.random.default_rng(7)
    x, h, c, dh, dc = (rng.normal(size=(N, K)).astype(dtype) for K in (4, 6, 6, 6, 6))
    layer, known = (getattr(module, kind)(*w) for module, w in ((dlfs2, weights), (originals, exact(*weights))))
    states, cotangents = ([h, c], [dh, dc]) if kind == "LSTM" else ([h], [dh])
    found, wanted = layer.forward(x, *states), known.forward(*exact(x, *states))
    assert_near(found if kind == "LSTM" else [found], wanted if kind == "LSTM" else [wanted], dtype)
    grads = list(layer.grads)
    assert_near(layer.backward(*cotangents), known.backward(*exact(*cotangents)), dtype)
    assert_near(grads, known.grads, dtype)
    if kind == "LSTM":  # sums of gradients start as 0
        assert_near(layer.backward(dh, 0), known.backward(*exact(dh), 0), dtype)
        assert_near(grads, known.grads, dtype)
    if kind == "GRU":
        assert_near([layer.dWx, layer.dWh, layer.db], known.grads, dtype)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("N", [2, 12])
def test_a_step_keeps_what_its_backward_pass_needs(kind, N):
    """The caller may write into what it passed in and what it got."""
    weights, rng = weights_of(kind, 4, 6, "float64"), np.random.default_rng(11)
    x, h, c, dh = (rng.normal(size=(N, K)) for K in (4, 6, 6, 6))
    states = [h, c] if kind == "LSTM" else [h]
    layer, known = (getattr(module, kind)(*weights) for module in (dlfs2, originals))
    known.forward(x.copy(), *(state.copy() for state in states))
    new = layer.forward(x, *states)
    for array in (*(new if kind == "LSTM" else [new]), *states):
        array[...] = 7
    found, wanted = (a.backward(dh, 0) if kind == "LSTM" else a.backward(dh) for a in (layer, known))
    assert_near(found[1:2], wanted[1:2], "float64")
    assert_near(layer.grads[1:], known.grads[1:], "float64")


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("stateful", [False, True])
def test_both_directions(dtype, stateful):
    one, two = (weights_of("LSTM", 4, 6, dtype, seed=s) for s in (1, 2))
    rng = np.random.default_rng(8)
    xs, dhs = rng.normal(size=(3, 5, 4)).astype(dtype), rng.normal(size=(3, 5, 12)).astype(dtype)
    layer = dlfs2.TimeBiLSTM(*one, *two, stateful=stateful)
    assert all(a is b for a, b in zip(layer.params, [*one, *two], strict=True))
    grads, states = list(layer.grads), [None] * 4
    for _ in range(2):
        (x, d) = exact(xs, dhs)
        a = plain("LSTM", x, exact(*one), d[..., :6], *states[:2])
        b = plain("LSTM", x[:, ::-1], exact(*two), d[:, ::-1, 6:], *states[2:])
        assert_near([layer.forward(xs)], [np.concatenate([a[0], b[0][:, ::-1]], axis=2)], dtype)
        assert_near([layer.backward(dhs), *grads], [a[3] + b[3][:, ::-1], *a[5], *b[5]], dtype)
        states = [a[1], a[2], b[1], b[2]] if stateful else states
    layer.params[3] = one[0]
    b = plain("LSTM", x[:, ::-1], exact(one[0], *two[1:]), d[:, ::-1, 6:], *states[2:])
    assert_near([layer.forward(xs)[..., 6:]], [b[0][:, ::-1]], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("lay", [contiguous, transposed, backwards, time_first])
def test_heads(dtype, tied, lay):
    rng = np.random.default_rng(9)
    N, T, D, V = 3, 4, 5, 6
    embed_W, W, b = (rng.normal(size=s).astype(dtype) for s in [(V, D), (D, V), (V,)])
    ids, dout = rng.integers(V, size=(N, T)), lay(rng.normal(size=(N, T, V)).astype(dtype))
    embedding, affine = dlfs2.TimeEmbedding(embed_W), dlfs2.TimeAffine(embed_W.T if tied else W, b)
    W = affine.params[0]
    assert np.shares_memory(W, embed_W) == tied
    for _ in range(2):
        vectors = embedding.forward(lay(ids))
        assert_near([vectors, affine.forward(lay(vectors))], [embed_W[ids], embed_W[ids] @ W + b], dtype)
        dx = affine.backward(dout)
        wanted = dout @ W.T, np.einsum("ntd,ntv->dv", embed_W[ids], dout), dout.sum(axis=(0, 1))
        assert_near([dx, *affine.grads], wanted, dtype)
        assert embedding.backward(lay(dx)) is None
        table = np.zeros((V, D))
        np.add.at(table, ids, dx)
        assert_near(embedding.grads, [table], dtype)
        embed_W *= 0.5  # both see it
    embedding.params[0] = embed_W + 1
    assert_near([embedding.forward(ids)], [embed_W[ids] + 1], dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("lay", [contiguous, transposed, backwards, time_first])
def test_loss(dtype, lay):
    rng = np.random.default_rng(10)
    xs, ts = rng.normal(size=(3, 4, 5)).astype(dtype) * 3, rng.integers(5, size=(3, 4))
    p = np.exp(xs.astype(float))
    p /= p.sum(axis=2, keepdims=True)
    onehot, layer = np.eye(5, dtype=int)[ts], dlfs2.TimeSoftmaxWithLoss()
    for labels, mask in (
        (ts, np.ones((3, 4), bool)),
        (onehot, np.ones((3, 4), bool)),
        (np.where(ts == ts[0, 0], -1, ts), ts != ts[0, 0]),
    ):
        wanted = -np.log((p * onehot).sum(axis=2))[mask].mean()
        assert layer.forward(lay(xs), lay(labels)) == pytest.approx(wanted, rel=TOLERANCE[dtype])
        gradient = (p - onehot) * mask[..., None] / mask.sum()
        for dout in (1, 1, 2.5):
            dx = layer.backward(dout) if dout != 1 else layer.backward()
            assert_near([dx], [gradient * dout], dtype)
            dx[...] = 7
    assert layer.forward(xs, np.full((3, 4), -1)) == 0
    assert not layer.backward().any()


def test_dropout():
    xs = np.random.default_rng(0).normal(size=(3, 4, 5)).astype("float32")
    layer = dlfs2.TimeDropout(0.3)
    np.random.seed(0)  # noqa: NPY002
    out = layer.forward(xs)
    np.random.seed(0)  # noqa: NPY002
    mask = (np.random.rand(3, 4, 5) > 0.3).astype("float32") / 0.7  # noqa: NPY002
    assert_near([out, layer.backward(xs)], [xs * mask, xs * mask], "float32")
    layer.train_flg = False
    out = layer.forward(xs)
    assert (out == xs).all()
    assert not np.shares_memory(out, xs)
    with pytest.raises(ValueError, match=r"dropout_ratio must be in \[0, 1\); got 1"):
        dlfs2.TimeDropout(1)


@pytest.mark.parametrize("kind", LAYERS)
def test_no_step_and_no_sequence(kind):
    weights = weights_of(kind, 4, 6, "float32")
    for N, T in ((2, 0), (0, 3)):
        layer = LAYERS[kind](*weights)
        hs = layer.forward(np.zeros((N, T, 4), "float32"))
        assert hs.shape == (N, T, 6)
        assert layer.backward(hs).shape == (N, T, 4)
        assert not any(grad.any() for grad in layer.grads)


def test_integers_and_other_floats_become_the_dtype_of_the_weights():
    weights = weights_of("GRU", 4, 6, "float32")
    layer, xs = dlfs2.TimeGRU(*weights), np.eye(4, dtype=int)[np.array([[0, 3], [2, 1]])]
    assert_near([layer.forward(xs)], [layer.forward(xs.astype("float32"))], "float32")
    assert_near([layer.forward(xs.astype("float64"))], [layer.forward(xs.astype("float32"))], "float32")


def test_errors_speak_batch_first():
    weights = weights_of("LSTM", 4, 6, "float32")
    layer, xs = dlfs2.TimeLSTM(*weights, stateful=True), np.zeros((2, 3, 4), "float32")
    with pytest.raises(RuntimeError, match="backward needs a forward pass"):
        layer.backward(xs)
    layer.forward(xs)
    with pytest.raises(ValueError, match=r"dhs must be \(N, T, H\) = \(2, 3, 6\); got \(3, 2, 6\)"):
        layer.backward(np.zeros((3, 2, 6)))
    with pytest.raises(ValueError, match=r"xs must be \(N, T, D\); got \(3, 4\)"):
        layer.forward(xs[0])
    with pytest.raises(ValueError, match=r"state h must be \(N, H\) = \(5, 6\); got \(2, 6\)"):
        layer.forward(np.zeros((5, 3, 4)))
    with pytest.raises(ValueError, match=r"Wx must be \(D, 4H\) with D = 5 as in x; got \(4, 24\)"):
        layer.forward(np.zeros((2, 3, 5)))
    with pytest.raises(ValueError, match=r"Wh must be \(H, 4H\) = \(6, 24\); got \(24, 6\)"):
        dlfs2.TimeLSTM(weights[0], weights[1].T, weights[2]).forward(xs)
    with pytest.raises(ValueError, match=r"h_prev must be \(N, H\) = \(2, 6\); got \(6, 2\)"):
        dlfs2.LSTM(*weights).forward(xs[:, 0], np.zeros((6, 2)), np.zeros((2, 6)))
    with pytest.raises(ValueError, match=r"ids in xs must lie in \[0, V\) = \[0, 4\); got 4"):
        dlfs2.TimeEmbedding(np.ones((4, 2))).forward(np.array([[4]]))
    with pytest.raises(ValueError, match=r"ts must be \(N, T\) = \(2, 3\) or"):
        dlfs2.TimeSoftmaxWithLoss().forward(xs, np.zeros((3, 2), int))
    with pytest.raises(ValueError, match=r"ts must lie in \[0, V\) = \[0, 4\); got 4"):
        dlfs2.TimeSoftmaxWithLoss().forward(xs, np.full((2, 3), 4))
    with pytest.raises(ValueError, match=r"W must be \(D, K\) = \(4, 2\); got \(3, 2\)"):
        dlfs2.TimeAffine(np.ones((3, 2)), np.ones(2)).forward(xs)


def clip_grads(grads, max_norm):
    norm = np.sqrt(sum((g.astype(float) ** 2).sum() for g in grads))
    for g in grads:
        g *= min(1, max_norm / (norm + 1e-6))


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("tied", [False, True])
def test_a_language_model_learns(kind, tied):
    """As Rnnlm and BetterRnnlm of the book, with its trainer's loop."""
    rng = np.random.default_rng(0)
    V, H, N, T = 9, 16, 4, 6
    embed_W = (rng.normal(size=(V, H)) / 4).astype("float32")
    layers = [
        dlfs2.TimeEmbedding(embed_W),
        LAYERS[kind](*weights_of(kind, H, H, "float32"), stateful=True),
        dlfs2.TimeAffine(
            embed_W.T if tied else (rng.normal(size=(H, V)) / 4).astype("float32"), np.zeros(V, "float32")
        ),
    ]
    head = dlfs2.TimeSoftmaxWithLoss()
    params, grads = ([array for layer in layers for array in getattr(layer, name)] for name in ("params", "grads"))
    text, curve = np.tile(rng.integers(V, size=13), 40), []
    for step in range(200):
        at = (np.arange(N)[:, None] * 97 + step * T + np.arange(T)) % (len(text) - 1)
        xs = text[at]
        for layer in layers:
            xs = layer.forward(xs)
        curve.append(head.forward(xs, text[at + 1]))
        dout = head.backward()
        for layer in reversed(layers):
            dout = layer.backward(dout)
        step_params, step_grads = params[:], grads[:]
        if tied:  # remove_duplicate
            step_grads[0] += step_grads[4].T
            del step_params[4], step_grads[4]
        clip_grads(step_grads, 5)
        for param, grad in zip(step_params, step_grads, strict=True):
            param -= 0.5 * grad
    assert np.mean(curve[-10:]) < 0.3 * curve[0]
    if tied:
        assert np.shares_memory(layers[0].params[0], layers[2].params[0])

    layers[1].reset_state()  # Rnnlm.generate: one step of one sequence at a time
    for word in text[:5]:
        xs = np.array([[word]])
        for layer in layers:
            xs = layer.forward(xs)
    assert xs.shape == (1, 1, V)


def test_models_of_the_book_find_numpy_in_the_import():
    names = {}
    exec("from rnncore.compat.dlfs2 import *", names)
    assert names["np"] is np
