"""What a user can change behind the library's back must raise or have no effect; it must never reach native code."""

import numpy as np
import pytest
from support.compare import literally
from support.layouts import set_shape

import rnncore as rc
from rnncore import _engine, functional
from rnncore.compat import dinosaurus
from rnncore.engine import calls, cells
from rnncore.layers import stream


def test_ids_in_the_cache_of_an_embedding():
    embedding = rc.Embedding(4, 3)
    y, cache = embedding.forward(np.array([[0, 3]]))
    cache[0, 0] = 10**12
    with pytest.raises(ValueError, match=r"ids must lie in \[0, V\) = \[0, 4\); got 1000000000000"):
        embedding.backward(np.ones_like(y), cache)


@pytest.mark.parametrize(("name", "wrong"), [("b", (1,)), ("W", (4, 2)), ("W", (1, 3)), ("W", (12,))])
def test_parameters_of_another_shape(name, wrong):
    dense = rc.Dense(4, 3, dtype="float64")
    y, cache = dense.forward(np.ones((5, 4)))
    kept = dense.params[name]
    dense.params[name] = np.zeros(wrong)
    with pytest.raises((ValueError, IndexError)):
        dense(np.ones((5, 4)))
    dense.params[name] = kept
    dense.grads[name] = np.zeros(wrong)
    with pytest.raises(ValueError, match=rf"^d{name} must be "):
        dense.backward(np.ones_like(y), cache)


def test_array_of_another_shape_after_the_forward_pass():
    rng = np.random.default_rng(0)
    x, Wx, Wh, b = (rng.normal(size=s) for s in [(6, 2, 3), (3, 20), (5, 20), (20,)])
    h, _, cache = rc.lstm_forward(x, Wx, Wh, b)
    wanted = rc.lstm_backward(h, cache)
    for array, shape in [(x, (36,)), (Wx, (60, 1)), (Wh, (100,)), (b, (4, 5))]:
        set_shape(array, shape)
    for got, expected in zip(rc.lstm_backward(h, cache), wanted, strict=True):
        if expected is not None:
            np.testing.assert_array_equal(got, expected)


def test_resets_overwritten_before_the_backward_pass():
    rng = np.random.default_rng(0)
    x, Wx, Wh, b = (rng.normal(size=s) for s in [(6, 2, 3), (3, 5), (5, 5), (5,)])
    resets = rng.random((6, 2)) < 0.5
    h, _, cache = rc.rnn_forward(x, Wx, Wh, b, resets=resets)
    wanted = rc.rnn_backward(h, cache).dWh
    resets[...] = ~resets
    np.testing.assert_array_equal(rc.rnn_backward(h, cache).dWh, wanted)


def test_settings_of_a_trained_model():
    model = rc.LanguageModel(hidden_size=6, num_layers=2, embedding_size=0, seed=0).build(rc.Vocabulary("abc"))
    wanted = model.sample(20, seed=0)
    model.hidden_size, model.num_layers = 400, 1
    assert model.sample(20, seed=0) == wanted
    model.layers["recurrent"].params["Wh_1"] = np.zeros((2, 8), "float32")
    with pytest.raises(ValueError, match=r"Wh must be \(H, 4H\) = \(6, 24\); got \(2, 8\)"):
        model.sample(20)


def test_targets_in_the_memory_of_the_logits():
    buffer = np.zeros((3, 4))
    targets = buffer.view(np.int64)[:, 0]
    loss, dlogits = rc.softmax_cross_entropy(buffer, targets, out=buffer)
    np.testing.assert_allclose(loss, np.log(4))
    np.testing.assert_allclose(dlogits, (np.full((3, 4), 0.25) - [1, 0, 0, 0]) / 3)


def test_gradient_into_unaligned_memory():
    logits = np.zeros((3, 4))
    out = np.frombuffer(bytearray(12 * 8 + 1), np.uint8)[1:].view(np.float64).reshape(3, 4)
    with pytest.raises(ValueError, match="^out must be"):
        rc.softmax_cross_entropy(logits, np.zeros(3, int), out=out)


# Parameters and gradients that the user replaced


def as_of(kind, array):
    """An array of the same values that native code cannot take as it is."""
    if kind == "fortran":
        return np.asfortranarray(array)
    if kind == "strided":
        return np.repeat(array, 2, axis=-1)[..., ::2]
    return array.astype({"wide": "f8", "half": "f2", "swapped": array.dtype.newbyteorder()}[kind])


KINDS = ["fortran", "strided", "wide", "half", "swapped"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["params", "grads"])
@pytest.mark.parametrize("cell", ["RNN", "GRU", "LSTM"])
def test_layers_with_replaced_arrays(cell, part, kind):
    """All of them, in one direction of two: the results are those of the plain arrays."""
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(9, 3, 5)).astype("f4"), rng.normal(size=(9, 3, 12)).astype("f4")
    results = []
    for replaced in (False, True):
        layer = getattr(rc, cell)(5, 6, bidirectional=True, seed=0)
        arrays = getattr(layer, part)
        for name in arrays:
            arrays[name][...] = arrays[name].astype("f2")
            if replaced and name.endswith("_reverse"):
                arrays[name] = as_of(kind, arrays[name])
        y, _, cache = layer.forward(x)
        dx, _ = layer.backward(dy, cache)
        results.append([y, dx, layer(x)[0], *layer.grads.values()])
    for got, wanted in zip(*results[::-1], strict=True):
        np.testing.assert_allclose(got, wanted, atol=2e-2 if (part, kind) == ("grads", "half") else 1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["params", "grads"])
def test_dense_layers_with_replaced_arrays(part, kind):
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(9, 3, 5)).astype("f4"), rng.normal(size=(9, 3, 40)).astype("f4")
    targets, lengths = rng.integers(40, size=(9, 3)), [9, 2, 5]
    results = []
    for replaced in (False, True):
        dense = rc.Dense(5, 40, seed=0)
        arrays = getattr(dense, part)
        for name in list(arrays)[::-1]:
            arrays[name][...] = arrays[name].astype("f2")
            if replaced:
                arrays[name] = as_of(kind, arrays.pop(name))  # and in another order
        y, cache = dense.forward(x)
        dx = dense.backward(dy, cache)
        loss, fused_dx = rc.fused_softmax_cross_entropy(dense, x, targets, lengths)
        results.append([y, dx, loss, fused_dx, dense.grads["W"], dense.grads["b"]])
    for got, wanted in zip(*results[::-1], strict=True):
        np.testing.assert_allclose(got, wanted, atol=2e-2 if (part, kind) == ("grads", "half") else 1e-5)


def misaligned(array):
    buffer = np.zeros(array.nbytes + 1, np.uint8)
    copy = buffer[1:].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@pytest.mark.parametrize("kind", [*KINDS, "misaligned", "memmap"])
def test_embeddings_with_replaced_gradients(kind, monkeypatch, tmp_path):
    """Gradients are added to what is there, in native code only where it can write."""

    def scatter_add(ids, rows, table):
        assert type(table) is np.ndarray
        assert table.flags.carray
        assert table.dtype == rows.dtype
        native_scatter_add(ids, rows, table)

    native_scatter_add = _engine.scatter_add
    monkeypatch.setattr(_engine, "scatter_add", scatter_add)
    rng = np.random.default_rng(0)
    ids, start = rng.integers(5, size=(9, 3)), rng.normal(size=(5, 4)).astype("f2")
    dy = rng.normal(size=(9, 3, 4))
    results = []
    for replaced in (False, True):
        embedding = rc.Embedding(5, 4, seed=0)
        grad = embedding.grads["W"]
        grad[...] = start
        if replaced and kind == "misaligned":
            grad = embedding.grads["W"] = misaligned(grad)
        elif replaced and kind == "memmap":
            mapped = np.memmap(tmp_path / "gradient", "f4", "w+", shape=grad.shape)
            mapped[...] = grad
            grad = embedding.grads["W"] = mapped
        elif replaced:
            grad = embedding.grads["W"] = as_of(kind, grad)
        embedding.backward(as_of(kind, dy.astype("f4")) if kind in KINDS else dy, embedding.forward(ids)[1])
        assert embedding.grads["W"] is grad
        results.append(np.array(grad, "f8"))
    assert np.abs(results[0] - start).max() > 1
    np.testing.assert_allclose(results[1], results[0], atol=2e-2 if kind == "half" else 1e-5)


@pytest.mark.parametrize("shape", [(20,), (), (4, 5), (6, 4), (5, 4, 1)])
def test_gradients_of_an_embedding_of_another_shape(shape):
    embedding = rc.Embedding(5, 4, seed=0)
    y, cache = embedding.forward(np.array([1, 3]))
    embedding.grads["W"] = np.zeros(shape, "f4")
    with pytest.raises(ValueError, match=literally(f"dW must be (V, E) = (5, 4); got {shape}")):
        embedding.backward(np.ones_like(y), cache)
    embedding.grads["W"] = np.broadcast_to(np.float32(0), (5, 4))
    with pytest.raises(ValueError, match="read-only"):
        embedding.backward(np.ones_like(y), cache)


def test_gradients_of_another_shape_are_refused():
    rng = np.random.default_rng(0)
    one, other = rc.LSTM(3, 50), rc.LSTM(40, 50)
    y, _, cache = other.forward(rng.normal(size=(6, 2, 40)))
    with pytest.raises(ValueError, match=r"dWx must be \(40, 200\) as the cache says; .* is \(3, 200\)"):
        one.backward(y, cache)
    other.grads["Wh_0"] = np.zeros((1, 1), "f4")
    with pytest.raises(ValueError, match="dWh must be"):
        other.backward(y, cache)
    assert not any(g.any() for layer in (one, other) for g in layer.grads.values())
    dense = rc.Dense(40, 50)
    for name in ("W", "b"):
        kept = dense.grads[name]
        dense.grads[name] = np.zeros((1, 50), "f4")[: kept.ndim]
        with pytest.raises(ValueError, match=f"d{name} must be"):
            rc.fused_softmax_cross_entropy(dense, rng.normal(size=(6, 40)), np.zeros(6, int))
        dense.grads[name] = kept
    dense.params["W"] = np.zeros((2, 2), "f4")
    with pytest.raises(ValueError, match="params W and b must be"):
        rc.fused_softmax_cross_entropy(dense, rng.normal(size=(6, 40)), np.zeros(6, int))


def test_read_only_gradients_are_not_written():
    layer = rc.GRU(3, 4, seed=0)
    y, _, cache = layer.forward(np.ones((5, 2, 3)))
    layer.grads["Wh_0"].flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        layer.backward(y, cache)


@pytest.mark.parametrize("training", [False, True])
def test_a_batch_without_a_token(training):
    layer = rc.LSTM(3, 5, bidirectional=True, seed=0)
    x = np.ones((4, 2, 3))
    for options in ({"lengths": [0, 0]}, {}):
        x = x if options else x[:0].astype("f2")
        y, _, *cache = (layer.forward if training else layer)(x, **options)
        assert y.shape == (len(x), 2, 10)
        assert not y.any()
        for kept in cache:
            dx, _ = layer.backward(y, kept)
            assert dx.shape == x.shape
    state = rc.lstm_forward(x, np.ones((3, 20)), np.ones((5, 20)), np.ones(20), training=training)[1]
    assert not state[0].any()


@pytest.mark.parametrize("kind", KINDS)
def test_sampling_with_replaced_arrays(kind):
    def draw(replaced):
        model = rc.LanguageModel(hidden_size=6, embedding_size=3, seed=0).build(rc.Vocabulary("abc"))
        for layer in model.layers.values():
            for name, array in layer.params.items():
                array[...] = (3 * array).astype("f2")
                if replaced:
                    layer.params[name] = as_of(kind, array)
        return model.sample(40, seed=0)

    assert draw(True) == draw(False)


def test_optimiser_state_of_another_shape_is_refused():
    optimizer = rc.Adam({"W": np.ones(5000)})
    optimizer.state["m"]["W"] = np.zeros(1)
    with pytest.raises(ValueError, match=r"state\['m'\]\['W'\] must be \(5000,\)"):
        optimizer.step({"W": np.ones(5000)})
    W = np.ones(3)
    optimizer = rc.SGD({"W": W})
    W.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        optimizer.step({"W": np.ones(3)})


def test_optimisers_with_overlapping_and_tiny_values():
    buffer = np.arange(64, dtype="f4")
    p, g = buffer[1:], buffer[:-1]
    wanted = p - g
    rc.SGD({"p": p}, learning_rate=1.0).step({"p": g})
    np.testing.assert_array_equal(p, wanted)
    # A scale that float32 does not hold.
    once, twice, g = np.ones(4, "f4"), np.ones(4, "f4"), np.full(4, 3e38, "f4")
    rc.SGD({"p": once}, learning_rate=1e30).step({"p": g}, clip_norm=1e-7)
    clipped = g.copy()
    rc.clip_by_global_norm([clipped], 1e-7)
    rc.SGD({"p": twice}, learning_rate=1e30).step({"p": clipped})
    np.testing.assert_allclose(once, twice, rtol=1e-6)


@pytest.mark.parametrize("options", [{"lengths": [4, 3]}, {"resets": np.eye(4, 2, dtype=bool)}, {}], ids=str)
def test_input_of_another_shape_between_the_passes_of_a_checkpoint(options):
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(4, 2, 200)), [rng.normal(size=shape) for shape in [(200, 3), (3, 3), (3,)]]
    if options:
        given = x
    else:
        x = x.reshape(8, 200)[:5].copy()
        given = functional.PackedTokens(x, np.array([3, 2]))
    h, _, cache = rc.rnn_forward(given, *weights, checkpoint=2, **options)
    wanted = rc.rnn_backward(h, cache)
    set_shape(x, (x.size, 1, 1))
    for got, expected in zip(rc.rnn_backward(h, cache), wanted, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_peephole_and_bhn_of_another_shape_between_the_passes():
    rng = np.random.default_rng(0)
    x, Wx, Wh, b, peephole = (rng.normal(size=s) for s in [(6, 2, 3), (3, 20), (5, 20), (20,), (3, 5)])
    h, _, cache = rc.lstm_forward(x, Wx, Wh, b, peephole=peephole)
    wanted = rc.lstm_backward(h, cache).dpeephole
    set_shape(peephole, (15,))
    np.testing.assert_array_equal(rc.lstm_backward(h, cache).dpeephole, wanted)


def test_other_weights_in_a_cache_of_ids():
    rng = np.random.default_rng(0)
    ids, Wx, Wh, b = rng.integers(5, size=(6, 2)), *(rng.normal(size=s) for s in [(5, 12), (3, 12), (12,)])
    for checkpoint in (None, 2):
        h, _, cache = rc.lstm_forward(ids, Wx, Wh, b, checkpoint=checkpoint)
        wanted = rc.lstm_backward(h, cache)
        other = cache.with_weights(np.asfortranarray(Wx), np.asfortranarray(Wh), b)
        for got, expected in zip(rc.lstm_backward(h, other), wanted, strict=True):
            np.testing.assert_array_equal(got, expected)
        with pytest.raises(ValueError, match=r"Wh must be as in the forward pass = \(3, 12\); got \(3, 9\)"):
            cache.with_weights(Wx, Wh[:, :9], b)


def test_caches_put_together_by_hand():
    rng = np.random.default_rng(0)
    x, Wx, Wh, b = (rng.normal(size=s) for s in [(6, 2, 3), (3, 20), (5, 20), (20,)])
    h0 = c0 = np.zeros((2, 5))
    h, _, whole = rc.lstm_forward(x, Wx, Wh, b, h0, c0)
    parts = {"x": x, "h": h, "h0": h0, "gates": whole.gates, "c": whole.c, "c0": c0}
    variant = cells.LSTM.variant()
    made = functional.Cache.from_arrays(variant, (Wx, Wh, b), **parts)
    for got, expected in zip(rc.lstm_backward(h, made), rc.lstm_backward(h, whole), strict=True):
        np.testing.assert_array_equal(got, expected)
    for name in ("h", "h0", "gates", "c", "c0"):
        with pytest.raises(ValueError, match=f"^{name} must be there for the cache of lstm_forward; got None"):
            functional.Cache.from_arrays(variant, (Wx, Wh, b), **parts | {name: None})
        with pytest.raises(ValueError, match=f"^{name} must be "):
            functional.Cache.from_arrays(variant, (Wx, Wh, b), **parts | {name: parts[name][..., :-1]})
    made.detach()
    with pytest.raises(ValueError, match="cache is empty"):
        rc.lstm_backward(h, made)


def test_gradients_added_to_some_arrays_only():
    rng = np.random.default_rng(0)
    x, Wx, Wh, b = (rng.normal(size=s) for s in [(6, 2, 3), (3, 5), (5, 5), (5,)])
    h, _, cache = rc.rnn_forward(x, Wx, Wh, b)
    dWx = np.ones((3, 5))
    (g,) = calls.backward_side_by_side(cells.RNN, [{"dh": h, "cache": cache}], [{"dWx": dWx}])
    np.testing.assert_array_equal(dWx, 1 + rc.rnn_backward(h, cache).dWx)
    assert g.dWh.shape == (5, 5)
    with pytest.raises(ValueError, match="dbhn must be None as the cache says"):
        calls.backward_side_by_side(cells.RNN, [{"dh": h, "cache": cache}], [{"dbhn": np.zeros(5)}])


# Arrays that change in the middle of a call


class Saboteur:
    """An array that gives others another shape and other values while it is converted."""

    def __init__(self, array, *others):
        self.array, self.others = array, others

    def __array__(self, dtype=None, copy=None):
        for other in self.others:
            set_shape(other, (other.size, 1))
        return self.array

    __index__ = __array__


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm", "mingru"])
@pytest.mark.parametrize("name", ["lengths", "resets", "h0"])
def test_arrays_of_another_shape_in_the_middle_of_a_call(cell, name):
    rng = np.random.default_rng(0)
    G = {"rnn": 1, "gru": 3, "lstm": 4, "mingru": 2}[cell]
    arrays = {"x": (6, 2, 200), "Wx": (200, 3 * G), "Wh": (3, 3 * G), "b": (3 * G,)}
    arrays = {key: rng.normal(size=shape) for key, shape in arrays.items() if (cell, key) != ("mingru", "Wh")}
    value = {"lengths": np.array([6, 4]), "resets": rng.random((6, 2)) < 0.5, "h0": rng.normal(size=(2, 3))}[name]
    forward = getattr(rc, f"{cell}_forward")
    wanted = forward(**arrays, **{name: value}, training=False)[0]
    got = forward(**arrays, **{name: Saboteur(value, *arrays.values())}, training=False)[0]
    np.testing.assert_array_equal(got, wanted)


def test_arrays_of_another_shape_while_an_option_is_converted():
    arrays = {"x": np.ones((6, 2, 200)), "Wx": np.ones((200, 6)), "b": np.ones(6)}
    with pytest.raises(ValueError, match=r"^x must be \(T, N, D\)"):
        rc.mingru_forward(**arrays, checkpoint=Saboteur(2, *arrays.values()), training=False)


@pytest.mark.parametrize("function", [rc.crf_marginals, rc.viterbi])
def test_scores_of_another_shape_in_the_middle_of_a_call(function):
    rng = np.random.default_rng(0)
    emissions, transitions, lengths = rng.normal(size=(5, 3, 40)), rng.normal(size=(40, 40)), np.array([5, 2, 4])
    wanted = function(emissions, transitions, lengths)
    got = function(emissions, transitions, Saboteur(lengths, emissions, transitions))
    np.testing.assert_array_equal(got, wanted)


def test_gradient_into_an_array_of_another_shape_in_the_middle_of_a_call():
    out, logits = np.zeros((2, 40)), np.random.default_rng(0).normal(size=(2, 40))
    loss, dlogits = rc.softmax_cross_entropy(logits, [1, 39])
    got = rc.softmax_cross_entropy(logits, Saboteur(np.array([1, 39]), logits), out=out)
    assert got[0] == loss
    assert got[1] is out
    np.testing.assert_array_equal(out, dlogits)


# What attention keeps, and what streams and layers say of themselves


@pytest.mark.parametrize("score", ["additive", "multiplicative"])
def test_caches_of_attention_taken_apart(score):
    rng = np.random.default_rng(0)
    attention = rc.Attention(5, 4, score, seed=0)
    context, _, cache = attention.forward(rng.normal(size=(3, 2, 5)), rng.normal(size=(6, 2, 4)))
    for name in ("queries", "memory", "q", "weights", *(["keys"] if score == "additive" else [])):
        with pytest.raises(ValueError, match=r"in the cache must be \("):
            attention.backward(context, cache._replace(**{name: getattr(cache, name)[..., :-1]}))
    for name, wrong in (("steps", 1000), ("memory_steps", -1)):
        with pytest.raises(ValueError, match="must lie in"):
            attention.backward(context, cache._replace(**{name: np.full(2, wrong)}))
    with pytest.raises(TypeError, match="cache must be what forward of the layer returned; got tuple"):
        attention.backward(context, tuple(cache))
    assert not any(grad.any() for grad in attention.grads.values())


def test_arrays_of_another_shape_between_the_passes_of_attention():
    rng = np.random.default_rng(0)
    attention = rc.Attention(5, 4, dtype="float64", seed=0)
    queries, memory = rng.normal(size=(3, 2, 5)), rng.normal(size=(6, 2, 4))
    context, weights, cache = attention.forward(queries, memory)
    wanted = attention.backward(context, cache)
    for array in (queries, memory, weights):
        set_shape(array, (array.size, 1, 1))
    for got, expected in zip(attention.backward(context, cache), wanted, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_parameters_of_attention_of_another_shape():
    attention = rc.Attention(5, 4, seed=0)
    attention.params["W"] = np.zeros((5, 400), "f4")
    with pytest.raises(ValueError, match=literally("W must be (5, 4); got (5, 400)")):
        attention(np.zeros((3, 2, 5)), np.zeros((6, 2, 4)))
    attention = rc.Attention(5, 4, seed=0)
    attention.memory_size = 400
    with pytest.raises(ValueError, match="memory must be"):
        attention(np.zeros((3, 2, 5)), np.zeros((6, 2, 400)))


@pytest.mark.parametrize("name", ["batch_size", "input_size", "hidden_size", "dtype"])
def test_sizes_of_a_stream_cannot_be_set(name):
    stream = rc.GRU(4, 5, seed=0).stream(2)
    with pytest.raises(AttributeError):
        setattr(stream, name, 1)


def test_dtype_of_a_layer_that_was_set():
    layer = rc.GRU(40, 50, seed=0)
    layer.dtype = np.dtype("int8")
    with pytest.raises(ValueError, match="dtype must be float32 or float64; got int8"):
        layer.freeze()


# What is no array, or no array of these numbers

RAGGED = [[1.0, 2.0], [3.0]]


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("x", lambda bad: rc.rnn_forward(bad, np.ones((2, 3)), np.ones((3, 3)), np.ones(3))),
        ("Wh", lambda bad: rc.rnn_forward(np.ones((2, 1, 2)), np.ones((2, 3)), bad, np.ones(3))),
        ("lengths", lambda bad: rc.LSTM(2, 3)(np.ones((2, 1, 2)), lengths=bad)),
        ("targets", lambda bad: rc.softmax_cross_entropy(np.ones((2, 3)), bad)),
        ("weights", lambda bad: rc.softmax_cross_entropy(np.ones((2, 3)), [0, 1], weights=bad)),
        ("tags", lambda bad: rc.crf_loss(np.ones((2, 1, 3)), np.ones((3, 3)), bad)),
        ("ids", lambda bad: rc.Vocabulary("abc").decode(bad)),
        ("calibration", lambda bad: rc.LSTM(2, 3).quantize("int8", bad)),
        ("memory_lengths", lambda bad: rc.Attention(2, 2)(np.ones((1, 1, 2)), np.ones((1, 1, 2)), None, bad)),
        (r"grads\['W'\]", lambda bad: rc.SGD({"W": np.ones(2)}).step({"W": bad})),
        (
            "dh",
            lambda bad: rc.rnn_backward(bad, rc.rnn_forward(np.ones((2, 1, 2)), *map(np.ones, [(2, 3), (3, 3), 3]))[2]),
        ),
    ],
)
def test_ragged_lists_are_named(name, call):
    with pytest.raises(ValueError, match=f"^{name} must be an array: "):
        call(RAGGED)


def test_values_beyond_float32_become_infinite_without_a_warning():
    x = np.full((2, 1, 3), 1e300)
    for layer in (rc.Dense(3, 2), rc.LSTM(3, 2), rc.Dense(3, 2).quantize("int8")):
        layer(x)
    dense = rc.Dense(3, 2)
    dense.grads["W"] = dense.grads["W"].astype("f2")
    y, cache = dense.forward(np.full((2, 3), 1e30))
    dense.backward(np.full_like(y, 1e30), cache)
    assert np.isinf(dense.grads["W"]).all()


@pytest.mark.parametrize(
    "wrong", [None, 3, "text", [[0.0] * 3] * 2, np.zeros((2, 3), int), np.zeros((2, 3), object)], ids=str
)
def test_gradients_that_floats_cannot_be_added_to(wrong):
    dense = rc.Dense(2, 3)
    y, cache = dense.forward(np.ones((1, 2)))
    dense.grads["W"] = wrong
    with pytest.raises(TypeError, match="dW must be an "):
        dense.backward(y, cache)
    with pytest.raises(TypeError, match=r"grads\['W'\] must be an "):
        dense.zero_grad()
    rnn = rc.RNN(2, 3)
    y, _, cache = rnn.forward(np.ones((1, 1, 2)))
    rnn.grads["Wx_0"] = wrong
    with pytest.raises(TypeError, match="dWx must be an "):
        rnn.backward(y, cache)


@pytest.mark.parametrize("score", ["additive", "multiplicative"])
def test_dtype_of_attention_that_was_set(score):
    rng = np.random.default_rng(0)
    attention = rc.Attention(5, 4, score, seed=0)
    context, _, cache = attention.forward(rng.normal(size=(3, 2, 5)), rng.normal(size=(6, 2, 4)))
    wanted = attention.backward(context, cache)
    attention.dtype = np.dtype("f2")
    for got, expected in zip(attention.backward(context, cache), wanted, strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-2)


def test_parameters_of_an_optimiser_in_half_precision():
    optimizer = rc.SGD({"W": np.zeros(200)})
    optimizer.params["W"] = np.zeros(200, "f2")
    with pytest.raises(TypeError, match=r"^params\['W'\] must be a float32 or float64 array; got dtype float16"):
        optimizer.step({"W": np.ones(200)})


def test_many_steps_of_no_sequence_with_checkpoints():
    x, weights = np.zeros((2**40, 0, 2)), [np.ones((2, 12)), np.ones((3, 12)), np.ones(12)]
    h, _, cache = rc.lstm_forward(x, *weights, checkpoint=True)
    assert h.shape == (2**40, 0, 3)
    assert len(cache._segments) == 1
    assert not rc.lstm_backward(h, cache).dWx.any()


@pytest.mark.parametrize("wrong", [None, 3, "text", np.zeros((2, 3), complex)], ids=str)
def test_parameters_that_are_no_floats(wrong):
    dense, rnn, optimizer = rc.Dense(2, 3), rc.RNN(2, 3), rc.SGD({"W": np.zeros(2)})
    dense.params["W"] = rnn.params["Wx_0"] = optimizer.params["W"] = wrong
    for call in (dense, dense.forward, lambda x: dense.quantize("int8")):
        with pytest.raises(TypeError, match="^W must be an array of float"):
            call(np.ones((1, 2)))
    for call in (rnn.freeze, lambda: rnn.quantize("int8")):
        with pytest.raises(TypeError, match="^Wx(_0)? must be an array of float"):
            call()
    with pytest.raises(TypeError, match=r"^params\['W'\] must be a float32 or float64 array"):
        optimizer.step({"W": np.zeros(2)})


def test_objects_of_another_kind():
    x = np.ones((2, 1, 3))
    for call, message in [
        (
            lambda: rc.fused_softmax_cross_entropy(3, x, [[0], [1]]),
            "dense must be a Dense layer, which has gradients; got int",
        ),
        (lambda: stream.Stream(rc.LSTM(3, 4)), "layer must be a frozen layer, as layer.freeze() returns it; got LSTM"),
        (lambda: rc.LanguageModel().build("abc"), "vocabulary must be a Vocabulary; got str"),
        (lambda: rc.LSTM(3, 4, bidirectional="yes"), "bidirectional must be True or False; got 'yes'"),
        (lambda: rc.Dense(3, 4, seed="a"), "seed must be an int >= 0, a numpy.random.Generator or None; got 'a'"),
        (lambda: rc.pad([[1]], dtype="nothing"), "dtype must be a NumPy dtype; got 'nothing'"),
    ]:
        with pytest.raises(TypeError, match=literally(message)):
            call()


def test_sizes_beyond_all_memory():
    for call in (
        lambda: rc.Dense(2**62, 2**62),
        lambda: rc.LSTM(2**40, 2**40),
        lambda: rc.LSTM(3, 4).stream(2**62),
    ):
        with pytest.raises(ValueError, match=r"_size must ask for less than 2\*\*63 bytes"):
            call()
    with pytest.raises(MemoryError):
        dinosaurus.softmax(np.broadcast_to(1.0, (2**50, 1)))
    with pytest.raises(ValueError, match=f"input_size must be at most {2**63 - 1}"):
        rc.Dense(10**30, 2)


def test_read_only_output():
    out = np.zeros((2, 3))
    out.flags.writeable = False
    with pytest.raises(ValueError, match=literally("out must be writeable; got a read-only array")):
        rc.softmax_cross_entropy(np.ones((2, 3)), [0, 1], out=out)
