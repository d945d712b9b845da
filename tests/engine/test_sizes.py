"""Sizes at the edges: a million steps, hundreds of thousands of rows or tokens, one unit, shapes that no memory has.

RNNCORE_TEST_LARGE=1 adds arrays of more than 2**31 elements, which need up to 20 GiB and some minutes.
"""

import gc
import os

import numpy as np
import pytest
from support.compare import assert_equal_bits, literally
from support.functions import CELLS
from support.isas import OWN
from support.problems import make_cotangents, make_problem, run

import rnncore as rc
from rnncore import _engine

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


@pytest.mark.parametrize("variant", CELLS)
def test_a_million_steps(rng, variant):
    """The same bits as in pieces that carry the state and, backward, its gradient."""
    needs(2)
    T, H = 1_000_000, 3
    cell, arguments = make_problem(rng, variant, T, 1, 2, H, "float32")
    cotangents = make_cotangents(rng, cell, T, 1, H, "float32")
    whole = run(rc, cell, arguments, cotangents)
    forward, backward = getattr(rc, f"{cell}_forward"), getattr(rc, f"{cell}_backward")
    states = [name for name in ("h0", "c0") if name in arguments]
    cuts = [0, 300_001, 655_360, T]
    spans = [slice(*pair) for pair in zip(cuts, cuts[1:], strict=False)]
    caches, carried = [], {name: arguments[name] for name in states}
    for span in spans:
        h, final, cache = forward(**{**arguments, **carried, "x": arguments["x"][span]})
        assert_equal_bits(h, whole["h"][span])
        caches.append(cache)
        carried = dict(zip(states, final if cell == "lstm" else (final,), strict=True))
    gradients = {f"d{name[0]}_n": cotangents[f"d{name[0]}_n"] for name in states}
    for span, cache in zip(reversed(spans), reversed(caches), strict=True):
        found = backward(cotangents["dh"][span], cache, **gradients)
        assert_equal_bits(found.dx, whole["dx"][span])
        gradients = {f"d{name[0]}_n": getattr(found, f"d{name}") for name in states}
    for name in states:
        assert_equal_bits(gradients[f"d{name[0]}_n"], whole[f"d{name}"])


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
