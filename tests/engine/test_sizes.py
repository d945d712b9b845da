"""Sizes at the edges: a million steps, hundreds of thousands of rows or tokens, one unit, shapes that no memory has.

RNNCORE_TEST_LARGE=1 adds arrays of more than 2**31 elements, which need 10 to 20 GiB and some minutes.
"""

import math
import os
from itertools import pairwise

import numpy as np
import pytest
from support.compare import assert_equal_bits
from support.functions import CELLS
from support.layers import each_cell, make_layer
from support.problems import make_cotangents, make_problem, run

import rnncore as rc
from rnncore.engine import native
from rnncore.engine.quantization import Quantized
from rnncore.engine.weights import pack_matrix, read_rows

GIB = 1 << 30


def needs(gibibytes):
    """Skip a test unless so much memory is free."""
    try:
        with open("/proc/meminfo") as file:
            free = next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable"))
    except OSError:
        free = 0
    if free < gibibytes * GIB:
        pytest.skip(f"needs {gibibytes} GiB of free memory")


# ---- long, wide and narrow ------------------------------------------------------------------------------------------


@each_cell
def test_a_million_steps(rng, kind):
    """The same bits as in pieces that carry the state and, backward, its gradient."""
    needs(2)
    T = 1_000_000
    layer = make_layer(rng, kind, "float32")
    x, dy = (rng.normal(size=(T, 1, width)).astype("f4") for width in (layer.input_size, layer.hidden_size))
    y, final, cache = layer.forward(x)
    dx, dinitial = layer.backward(dy, cache)
    wanted = {name: value.copy() for name, value in layer.grads.items()}
    layer.zero_grad()
    cuts = [0, 300_001, 655_360, T]
    spans, caches, state = [slice(*cut) for cut in pairwise(cuts)], [], None
    for span in spans:
        part, state, cache = layer.forward(x[span], state)
        assert_equal_bits(part, y[span])
        caches.append(cache)
    assert_equal_bits(state, final)
    dstate = None
    for span, cache in zip(reversed(spans), reversed(caches), strict=True):
        part, dstate = layer.backward(dy[span], cache, dstate)
        assert_equal_bits(part, dx[span])
    assert_equal_bits(dstate, dinitial)
    for name, value in wanted.items():
        assert_equal_bits(layer.grads[name], value, err_msg=name)


@pytest.mark.parametrize("variant", CELLS)
def test_a_hundred_thousand_rows(rng, variant):
    """Each has the bits that it has in a small batch."""
    needs(1)
    T, N, H = 2, 100_000, 4
    cell, arguments = make_problem(rng, variant, T, N, 3, H, "float32", lengths=True)
    cotangents = make_cotangents(rng, cell, T, N, H, "float32")
    whole = run(rc, cell, arguments, cotangents)
    by_row = {"x": 1, "lengths": 0, "h0": 0, "c0": 0, "dh": 1, "dh_n": 0, "dc_n": 0}
    for first, last in [(0, 5), (65_533, 65_540), (99_990, N)]:
        rows = slice(first, last)
        part, cotangent = (
            {
                name: value[(slice(None),) * by_row[name] + (rows,)] if name in by_row else value
                for name, value in given.items()
            }
            for given in (arguments, cotangents)
        )
        found = run(rc, cell, part, cotangent)
        for name in ("h", "gates", "dx"):
            assert_equal_bits(found[name], whole[name][:, rows], err_msg=name)
        for name in found.keys() & {"h_n", "c_n", "dh0", "dc0"}:
            assert_equal_bits(found[name], whole[name][rows], err_msg=name)


@pytest.mark.parametrize("variant", CELLS)
@pytest.mark.parametrize(
    ("D", "H", "gibibytes"), [(100_000, 2, 1), (3, 1, 1), (2, 4096, 3)], ids=["wide input", "one unit", "wide layer"]
)
def test_widths(rng, variant, D, H, gibibytes):
    """Forward and backward against a product of the whole and one cell of the reference."""
    needs(gibibytes)
    T, N = 2, 3
    cell, arguments = make_problem(rng, variant, T, N, D, H, "float32")
    cotangents = make_cotangents(rng, cell, T, N, H, "float32")
    found, wanted = run(rc, cell, arguments, cotangents), run(rc.reference, cell, arguments, cotangents)
    for name, value in wanted.items():
        if value is not None:
            scale = max(1, np.abs(value).max())
            np.testing.assert_allclose(found[name], value, rtol=0, atol=2e-5 * scale, err_msg=name)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM", "MinGRU"])
def test_fifty_layers(rng, kind):
    """The same bits as fifty layers of one, each on the output of the one below."""
    layer = getattr(rc, kind)(3, 5, 50, seed=0)
    x, dy = rng.normal(size=(6, 2, 3)).astype("f4"), rng.normal(size=(6, 2, 5)).astype("f4")
    y, _, cache = layer.forward(x)
    dx, _ = layer.backward(dy, cache)
    singles, caches, h = [], [], x
    for number in range(50):
        single = getattr(rc, kind)(layer.layer_input_size(number), 5)
        for name, value in single.params.items():
            value[...] = layer.params[name.replace("_0", f"_{number}")]
        h, _, kept = single.forward(h)
        singles.append(single)
        caches.append(kept)
    assert_equal_bits(y, h)
    for frozen in (layer.freeze(), layer):
        assert_equal_bits(frozen(x)[0], y)
    for number in reversed(range(50)):
        dy, _ = singles[number].backward(dy, caches[number])
        for name, value in singles[number].grads.items():
            assert_equal_bits(layer.grads[name.replace("_0", f"_{number}")], value, err_msg=f"{name} {number}")
    assert_equal_bits(dx, dy)


# ---- large vocabularies ---------------------------------------------------------------------------------------------

V = 200_000


def test_embedding_and_head_of_a_large_vocabulary(rng):
    needs(2)
    E = 6
    embedding, dense = rc.Embedding(V, E, seed=0), rc.Dense(E, V, seed=1)
    ids = rng.integers(V, size=(4, 5))
    ids[0, :3] = 0, V - 1, 131_072
    x, cache = embedding.forward(ids)
    assert_equal_bits(x, embedding.params["W"][ids])
    logits, _ = dense.forward(x)
    wanted = x.astype("f8") @ dense.params["W"].astype("f8") + dense.params["b"]
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=2e-5)
    loss, dx = rc.fused_softmax_cross_entropy(dense, x, ids)
    exact = np.exp(wanted - wanted.max(axis=-1, keepdims=True))
    p = exact / exact.sum(axis=-1, keepdims=True)
    assert abs(loss + np.log(np.take_along_axis(p, ids[..., None], -1)).mean()) < 1e-4
    np.put_along_axis(p, ids[..., None], np.take_along_axis(p, ids[..., None], -1) - 1, -1)
    np.testing.assert_allclose(dx, p @ dense.params["W"].T.astype("f8") / ids.size, rtol=0, atol=2e-6)
    np.testing.assert_allclose(dense.grads["b"], p.sum(axis=(0, 1)) / ids.size, rtol=0, atol=2e-6)
    embedding.backward(dx, cache)
    table = np.zeros((V, E))
    np.add.at(table, ids, dx)
    np.testing.assert_allclose(embedding.grads["W"], table, rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_quantized_layers_of_a_large_vocabulary(rng, precision):
    needs(2)
    E = 6
    ids = np.array([[0, V - 1, 131_071], [131_072, 7, V - 2]])
    embedding, dense = rc.Embedding(V, E, seed=0).quantize(precision), rc.Dense(E, V, seed=1).quantize(precision)
    x = embedding(ids)
    assert_equal_bits(x, embedding.arrays()["W"].widen(np.dtype("f4"))[ids])
    logits = dense(x)
    wide = x.astype("f8") @ dense.arrays()["W"].widen(np.dtype("f8"))
    # int8 rounds the rows of x to 1 of 127 steps.
    atol = 1e-5 if precision == "bfloat16" else np.abs(x).max() / 254 * np.abs(wide).max() * 3
    np.testing.assert_allclose(logits, wide, rtol=0, atol=atol)


@pytest.mark.parametrize("precision", [None, "bfloat16", "int8"])
@pytest.mark.parametrize("embedding_size", [0, 5])
def test_sampling_from_a_large_vocabulary(rng, precision, embedding_size):
    """Ids beyond 131,072, the largest sum of int8, are looked up all the same."""
    needs(4)
    characters = [chr(code) for code in range(0x20, 0x20 + V + 0x800) if not 0xD800 <= code < 0xE000][:V]
    model = rc.LanguageModel(hidden_size=4, embedding_size=embedding_size, seed=0).build(rc.Vocabulary(characters))
    for value in model.params.values():
        value[...] = rng.normal(size=value.shape)
    if precision:
        model = model.quantize(precision)
    text = model.sample(40, prompt=characters[-1], seed=3)
    assert len(text) == 40
    assert any(characters.index(c) > 131_072 for c in text)
    assert model.sample(40, prompt=characters[-1], seed=3) == text
    greedy = model.sample(3, prompt=characters[-1], temperature=0)
    assert len(greedy) == 3


# ---- shapes that no memory has --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: rc.LSTM(2**40, 2**40), ("input_size", "hidden_size")),
        (lambda: rc.GRU(3, 2**62), ("input_size", "hidden_size")),
        (lambda: rc.RNN(2**70, 3), ("input_size", "hidden_size")),
        (lambda: rc.MinGRU(2**31, 2**31, 3), ("input_size", "hidden_size")),
        (lambda: rc.Dense(2**40, 2**40), ("input_size", "output_size")),
        (lambda: rc.Embedding(2**62, 2**5), ("size", "dimension")),
        (lambda: rc.Attention(2**40, 2**40), ("query_size", "memory_size")),
        (lambda: rc.LSTM(3, 4, 2**62), ("num_layers",)),
        (lambda: rc.LSTM(3, 4).stream(2**62), ("batch_size",)),
    ],
)
def test_sizes_beyond_all_memory_are_refused(make, names):
    with pytest.raises((ValueError, MemoryError)) as found:
        make()
    assert any(name in str(found.value) for name in names), found.value


# ---- more than 2**31 elements ---------------------------------------------------------------------------------------

large = pytest.mark.skipif(
    "RNNCORE_TEST_LARGE" not in os.environ, reason="RNNCORE_TEST_LARGE=1 runs it: 20 GiB, minutes"
)


def filled(*shape, dtype="float32"):
    """Numbers that repeat after a prime number of elements: an offset that is wrong by a power of two finds others."""
    block = (0.3 * np.random.default_rng(0).normal(size=999_983)).astype("f4")
    if dtype != "float32":
        block = (100 * block).astype(dtype)
    array = np.empty(math.prod(shape), dtype)
    assert array.size > 2**31
    for begin in range(0, array.size, block.size):
        array[begin : begin + block.size] = block[: array.size - begin]
    return array.reshape(shape)


@pytest.fixture(params=["own", "blas"])
def backend(request, restore_isa):
    if request.param == "blas":
        if "blas" not in rc.available_isas():
            pytest.skip("no BLAS")
        rc.use_isa("blas")


@large
@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_a_large_input(rng, cell):
    needs(10)
    T, N, D, H = (1 << 20) + 7, 64, 33, 1
    G = {"rnn": 1, "gru": 3}[cell]
    x = filled(T, N, D)
    weights = [rng.normal(size=shape).astype("f4") for shape in [(D, G * H), (H, G * H), (G * H,)]]
    forward = getattr(rc, f"{cell}_forward")
    h, h_n, _ = forward(x, *weights, training=False)
    for begin, end in [(0, 300), (T // 2, T // 2 + 300), (T - 300, T)]:
        part = forward(x[begin:end], *weights, h[begin - 1] if begin else None, training=False)[0]
        assert_equal_bits(part, h[begin:end])
    assert_equal_bits(h_n, h[-1])


@large
@pytest.mark.parametrize(("T", "N"), [(1 << 21, 1), (64, 33_000)])
def test_a_large_result(rng, T, N):
    """Of a minGRU: it has no recurrent weights, whose products would take minutes."""
    needs(10)
    H = 1025
    x = rng.normal(size=(T, N, 1)).astype("f4")
    Wx, b = rng.normal(size=(1, 2 * H)).astype("f4"), rng.normal(size=2 * H).astype("f4")
    h, h_n, _ = rc.mingru_forward(x, Wx, b, training=False)
    assert h.size > 2**31
    rows = slice(max(0, N - 3), N)
    begin = max(0, T - 5)
    part, last, _ = rc.mingru_forward(x[begin:, rows], Wx, b, h[begin - 1, rows] if begin else None, training=False)
    assert_equal_bits(part, h[begin:, rows])
    assert_equal_bits(last, h_n[rows])


@large
@pytest.mark.usefixtures("backend")
def test_large_weights(rng):
    """Rows that ids look up, and a product with an input that is zero but for a few places."""
    needs(10)
    D, H = (1 << 21) + 5, 1025
    Wx = filled(D, H)
    Wh, b = (0.02 * rng.normal(size=(H, H))).astype("f4"), rng.normal(size=H).astype("f4")
    places = np.array([0, 1, 2_095_105, 2_095_106, D - 2, D - 1])  # around element 2**31
    ids = places[[[4, 0], [5, 3], [2, 1]]]
    few = Wx[places]
    h = rc.rnn_forward(ids, Wx, Wh, b, training=False)[0]
    assert_equal_bits(h, rc.rnn_forward(np.searchsorted(places, ids), few, Wh, b, training=False)[0])
    x = np.zeros((2, 1, D), "f4")
    x[..., places] = rng.normal(size=(2, 1, len(places)))
    h = rc.rnn_forward(x, Wx, Wh, b, training=False)[0]
    assert_equal_bits(h, rc.rnn_forward(np.ascontiguousarray(x[..., places]), few, Wh, b, training=False)[0])


@large
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_a_large_quantized_table(precision):
    needs(10)
    V, E = (1 << 21) + 5, 1025
    values = filled(V, E, dtype="int8" if precision == "int8" else "uint16")
    scales = np.linspace(0.5, 2, E).astype("f4") if precision == "int8" else None
    packed = pack_matrix("W", Quantized(values, scales), np.dtype("f4"), multiplies=False)
    ids = np.array([V - 1, 0, 2_095_105, 2_095_106, V - 2, 1])
    assert_equal_bits(read_rows(packed, ids), Quantized(values[ids], scales).widen(np.dtype("f4")))


@large
def test_large_gradients_of_looked_up_rows(rng):
    needs(20)
    D, H = (1 << 21) + 5, 1025
    Wx = filled(D, H)
    Wh, b = (0.02 * rng.normal(size=(H, H))).astype("f4"), rng.normal(size=H).astype("f4")
    ids = np.array([[D - 1, 0], [D - 2, D - 1], [2_095_106, D - 1]])
    places = np.unique(ids)
    dh = rng.normal(size=(*ids.shape, H)).astype("f4")
    _, _, cache = rc.rnn_forward(np.searchsorted(places, ids), Wx[places], Wh, b)
    wanted = rc.rnn_backward(dh, cache)
    _, _, cache = rc.rnn_forward(ids, Wx, Wh, b)
    found = rc.rnn_backward(dh, cache)
    assert_equal_bits(found.dWx[places], wanted.dWx)
    assert_equal_bits(found.dWh, wanted.dWh)
    found.dWx[places] = 0
    assert not any(rows.any() for rows in np.array_split(found.dWx, 64))


@large
def test_losses_of_large_logits(rng):
    needs(10)
    T, N, V = 1100, 20, 100_001
    logits = filled(T, N, V)
    targets = rng.integers(V, size=(T, N))
    end = logits[-1:].copy()
    labels = [rng.integers(1, V, size=5) for _ in range(N)]
    lengths = np.full(N, T)
    lengths[1:] = 9
    ctc, _ = rc.ctc_loss(logits, labels, lengths, training=False, reduction="none")
    row, _ = rc.ctc_loss(logits[:, :1].copy(), labels[:1], training=False, reduction="none")
    assert_equal_bits(ctc[:1], row)
    losses, gradients = rc.softmax_cross_entropy(logits, targets, reduction="none", out=logits)
    assert gradients is logits
    found, wanted = rc.softmax_cross_entropy(end, targets[-1:], reduction="none")
    assert_equal_bits(losses[-1:], found)
    assert_equal_bits(gradients[-1:], wanted)


@large
def test_sums_of_large_arrays():
    needs(10)
    V, E = (1 << 21) + 5, 1025
    table = filled(V, E)
    exact = sum(float(np.square(rows, dtype="f8").sum()) for rows in np.array_split(table, 64))
    assert abs(native.square_sum(table) / exact - 1) < 1e-9
    ids, rows = np.array([V - 1, 3, V - 1]), np.ones((3, E), "f4")
    last, third, other = table[[V - 1, 3, V - 2]]
    native.scatter_add(ids, rows, table)
    assert_equal_bits(table[[V - 1, 3, V - 2]], [last + 1 + 1, third + 1, other])
