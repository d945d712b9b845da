"""What a call returns and keeps, and extreme numbers in it."""

import numpy as np
import pytest
from support.compare import TOLERANCE, assert_identical, assert_same
from support.functions import (
    D,
    H,
    N,
    T,
    backward,
    cast,
    every_cell,
    every_dtype,
    every_path,
    every_variant,
    final_states,
    floats_of,
    forward,
    in_new_python,
    problem,
)
from support.problems import VARIANTS, run

import rnncore as rc
from rnncore import reference
from rnncore.engine import cells

# ---- who owns what -------------------------------------------------------------------------------------------------


@every_dtype
@every_cell
def test_weights_are_read_live(rng, variant, dtype):
    cell, arguments, cotangents = problem(rng, variant, dtype)
    before = run(rc, cell, arguments, cotangents)
    for name in set(floats_of(arguments)) - {"x"}:
        arguments[name][...] = rng.normal(size=arguments[name].shape)
        copies = {k: a.copy() if isinstance(a, np.ndarray) else a for k, a in arguments.items()}
        actual = run(rc, cell, arguments, cotangents)
        assert_identical(actual, run(rc, cell, copies, cotangents))
        assert np.abs(actual["h"] - before["h"]).max() > 1e-3, name
        before = actual


@pytest.mark.parametrize("edges", ["plain", "lengths", "resets", "reverse"])
@every_path
def test_results_are_fresh(rng, variant, edges):
    """Whatever is written into results changes neither inputs nor any later result."""
    options = dict.fromkeys(edges.replace("plain", "").split(), True)
    cell, arguments, cotangents = problem(rng, variant, **options)
    inputs = [a for a in (*arguments.values(), *cotangents.values()) if isinstance(a, np.ndarray)]
    before = [a.copy() for a in inputs]
    h, state, cache = forward(cell, arguments)
    expected = backward(cell, cache, cotangents)._asdict()
    kept = {"h": cache.h.copy(), "gates": cache.gates.copy()}
    results = [h, *final_states(cell, state), *(g for g in expected.values() if g is not None)]
    copies = {name: None if g is None else g.copy() for name, g in expected.items()}

    for k, a in enumerate(results):
        assert type(a) is np.ndarray
        assert a.flags.writeable
        assert a.flags.c_contiguous
        for other in [*results[:k], *inputs, cache.h, cache.gates]:
            assert not np.shares_memory(a, other)
        a.fill(np.nan)
    assert_identical(backward(cell, cache, cotangents)._asdict(), copies)
    assert_identical({"h": cache.h, "gates": cache.gates}, kept)
    for a, b in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("lengths", [False, True])
@every_path
def test_a_buffer_of_states_may_be_used_again_before_backward(rng, variant, lengths):
    """state[...] = h_n, as one does between chunks: the cache has its own."""
    cell, arguments, cotangents = problem(rng, variant, lengths=lengths)
    expected = run(rc, cell, arguments, cotangents)
    _, state, cache = forward(cell, arguments)
    for name, s in zip(("h0", "c0"), final_states(cell, state), strict=False):
        arguments[name][...] = s
    actual = backward(cell, cache, cotangents)._asdict()
    assert_identical(actual, {name: expected[name] for name in actual})


def test_ids_that_are_overwritten_before_backward_do_not_crash(tmp_path):
    """Native code indexes by them without another check."""
    code = """
import numpy as np
import rnncore as rc

def quietly(f, *arguments):
    try:
        return f(*arguments)
    except (IndexError, ValueError):
        return None

ids = np.arange(6).reshape(3, 2)
h, h_n, cache = rc.rnn_forward(ids, np.ones((6, 5)), np.ones((5, 5)), np.ones(5))
embedding = rc.Embedding(6, 5)
y, embedding_cache = embedding.forward(ids)
ids[...] = 10**12
quietly(rc.rnn_backward, h, cache)
quietly(embedding.backward, y, embedding_cache)
print("alive")
"""
    result = in_new_python(tmp_path, code)
    assert result.stdout == "alive\n", (result.returncode, result.stderr)


@every_path
def test_states_are_fresh_where_nothing_runs(rng, variant):
    for sizes, lengths in (({"T": 0}, None), ({}, np.zeros(N, int))):
        cell, arguments, cotangents = problem(rng, variant, **sizes)
        _, state, cache = forward(cell, arguments, lengths=lengths)
        gradients = backward(cell, cache, cotangents)
        for name, s in zip(("h", "c"), final_states(cell, state), strict=False):
            assert not np.shares_memory(s, arguments[f"{name}0"])
            d = getattr(gradients, f"d{name}0")
            assert not np.shares_memory(d, cotangents[f"d{name}_n"])
            np.testing.assert_array_equal(s, arguments[f"{name}0"])
            np.testing.assert_array_equal(d, cotangents[f"d{name}_n"])


@pytest.mark.parametrize("edges", ["plain", "lengths", "lengths resets reverse"])
@every_dtype
@every_variant
def test_cache_shows_states_and_gates(rng, variant, dtype, edges):
    options = dict.fromkeys(edges.replace("plain", "").split(), True)
    cell, arguments, _ = problem(rng, variant, dtype, **options)
    h, _, cache = forward(cell, arguments)
    exact = cast(arguments, "float64")
    _, _, wanted = getattr(reference, f"{cell}_forward")(**exact)
    names = ["h", "gates", *(["c"] if cell == "lstm" else [])]
    shown = {name: getattr(cache, name) for name in names}
    assert_same(shown, {name: getattr(wanted, name) for name in names}, TOLERANCE[dtype])
    np.testing.assert_array_equal(cache.h, h)
    padding = np.arange(T)[:, None] >= arguments.get("lengths", np.full(N, T))
    for name, a in shown.items():
        assert a.dtype == dtype
        np.testing.assert_array_equal(a[padding], 0)
        with pytest.raises(ValueError, match="read-only"):
            a[0, 0, 0] = 1
        with pytest.raises(AttributeError):
            setattr(cache, name, a)
    if cell != "lstm":
        assert cache.c is None
    assert repr(cache) == f"<{cell} cache: T={T} N={N} D={D} H={H} {dtype}>"


def test_cached_gates_satisfy_the_equations(rng):
    """Without the reference: c and h follow from the gates, block by block in the documented order."""
    close = {"rtol": 0, "atol": TOLERANCE["float64"]}
    cell, arguments, _ = problem(rng, "lstm-plain-current-tanh")
    h, _, cache = forward(cell, arguments)
    i, f, g, o = np.split(cache.gates, 4, axis=2)
    c_before = np.concatenate([arguments["c0"][None], cache.c[:-1]])
    np.testing.assert_allclose(cache.c, f * c_before + i * g, **close)
    np.testing.assert_allclose(h, o * np.tanh(cache.c), **close)

    for update in ("new", "old"):
        for form, G in (("reset_before", 3), ("simplified", 2)):
            cell, arguments, _ = problem(rng, f"gru-{form}-{update}")
            h, _, cache = forward(cell, arguments)
            *_, z, n = np.split(cache.gates, G, axis=2)
            h_before = np.concatenate([arguments["h0"][None], h[:-1]])
            share = z if update == "new" else 1 - z
            np.testing.assert_allclose(h, share * n + (1 - share) * h_before, **close)


# ---- numbers -------------------------------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("variant", [v for v in VARIANTS if not v.startswith(("rnn-relu", "rnn-identity", "mingru"))])
def test_big_preactivations_saturate(rng, variant, dtype):
    """Gates at 0, 1 and -1: exp does not overflow, and nothing turns into NaN."""
    cell, arguments, cotangents = problem(rng, variant, dtype)
    for size in (1e4, 1e30):
        for name in ("x", "Wx", "b", "Wh"):
            scaled = arguments | {name: (arguments[name] * size).astype(dtype)}
            exact = run(reference, cell, cast(scaled, "float64"), cast(cotangents, "float64"))
            actual = run(rc, cell, scaled, cotangents)
            assert all(np.isfinite(a).all() for a in actual.values() if a is not None), name
            # Only what does not itself grow with the scale compares to one tolerance.
            shown = ["h", "gates", *(f"{state}_n" for state in cells.CELLS[cell].states)]
            assert_same({k: actual[k] for k in shown}, {k: exact[k] for k in shown}, TOLERANCE[dtype], name)
            assert np.abs(actual["gates"]).max() <= 1


@every_dtype
def test_infinite_biases_switch_gates_off_and_on(rng, dtype):
    cell, arguments, cotangents = problem(rng, "lstm-plain-current-tanh", dtype)
    b = arguments["b"]
    b[:H], b[H : 2 * H], b[2 * H : 3 * H] = -np.inf, np.inf, np.inf  # i = 0, f = 1, g = 1
    results = run(rc, cell, arguments, cotangents)
    np.testing.assert_array_equal(results["c_n"], arguments["c0"])
    expected = run(reference, cell, cast(arguments, "float64"), cast(cotangents, "float64"))
    assert_same(results, expected, TOLERANCE[dtype])


@every_dtype
@every_path
def test_tiny_values(rng, variant, dtype):
    """Subnormal numbers may count as zero, but as nothing else."""
    cell, arguments, cotangents = problem(rng, variant, dtype)
    tiny = np.finfo(dtype).tiny / 8
    arguments |= {name: np.full_like(arguments[name], tiny) for name in floats_of(arguments)}
    zero = {name: np.zeros_like(arguments[name]) for name in floats_of(arguments)}
    expected = run(rc, cell, arguments | zero, cotangents)
    assert_same(run(rc, cell, arguments, cotangents), expected, TOLERANCE[dtype])
    # The floating-point mode of the caller is as it was.
    assert np.array([tiny], dtype)[0] * np.array([1], dtype)[0] != 0


@pytest.mark.parametrize("update", ["new", "old"])
def test_gru_keeps_a_candidate_beside_a_large_state(update):
    """h = z n + (1-z) h' with z = 1 is n, whatever h' was: h' + z (n - h') would lose digits of n."""
    z = 1e3 if update == "new" else -1e3
    h, _, _ = rc.gru_forward(
        np.ones((1, 1, 1), "f4"),
        np.zeros((1, 3), "f4"),
        np.zeros((1, 3), "f4"),
        np.array([0, z, 0.5], "f4"),
        np.full((1, 1), 1e6, "f4"),
        update=update,
    )
    np.testing.assert_allclose(h, np.tanh(0.5), rtol=1e-6)
