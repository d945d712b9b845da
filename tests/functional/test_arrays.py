"""Arrays as callers have them: layouts, packed tokens, dtypes."""

import numpy as np
import pytest
from support.compare import assert_equal_bits, assert_identical, assert_near, literally
from support.functions import (
    D,
    H,
    N,
    T,
    backward,
    both_directions,
    cast,
    every_cell,
    every_dtype,
    every_path,
    every_variant,
    final_states,
    floats_of,
    forward,
    problem,
)
from support.layouts import LAYOUTS, whole_memory
from support.problems import make_cotangents, run

import rnncore as rc
from rnncore import _engine, functional
from rnncore.engine import calls, cells

# ---- layouts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@every_dtype
@every_cell
def test_layouts_give_the_same_and_are_not_written(rng, variant, dtype, layout, ragged):
    cell, arguments, cotangents = problem(rng, variant, dtype, lengths=ragged, resets=ragged)
    expected = run(rc, cell, arguments, cotangents)

    laid_out = {name: LAYOUTS[layout](a) if isinstance(a, np.ndarray) else a for name, a in arguments.items()}
    cotangents = {name: LAYOUTS[layout](d) for name, d in cotangents.items()}
    arrays = [a for a in (*laid_out.values(), *cotangents.values()) if isinstance(a, np.ndarray)]
    before = [whole_memory(a) for a in arrays]
    assert_identical(run(rc, cell, laid_out, cotangents), expected)
    assert [whole_memory(a) for a in arrays] == before


@pytest.mark.parametrize("threads", [1, 3])
@every_dtype
@every_path
@pytest.mark.parametrize(("T", "N", "D", "H"), [(1, 1, 7, 20), (5, 1, 33, 70), (40, 9, 70, 33), (3, 2, 130, 100)])
def test_weights_by_columns_give_the_same_bits(rng, variant, dtype, threads, T, N, D, H, restore_threads):
    """And their gradients lie as they do, new ones and those that are added to."""
    cell, arguments, cotangents = problem(rng, variant, dtype, T, N, D, H, lengths=T > 5)
    expected = run(rc, cell, arguments, cotangents)
    matrices = [name for name in ("Wx", "Wh") if name in arguments]
    by_columns = arguments | {name: np.asfortranarray(arguments[name]) for name in matrices}
    if threads > 1:
        _engine.set_cost_rule(flops=1, rows=2, products=1, units=16, cores=64)
        rc.set_num_threads(threads)
    actual = run(rc, cell, by_columns, cotangents)
    assert_identical(actual, expected)
    assert all(actual[f"d{name}"].flags.f_contiguous for name in matrices)
    assert_equal_bits(forward(cell, by_columns, training=False)[0], expected["h"])
    sums = {f"d{name}": np.full_like(by_columns[name], 3) for name in (*matrices, "b")}
    together = {name: array.copy(order="K") for name, array in sums.items()}
    _, _, cache = forward(cell, by_columns)
    (gradients,) = calls.backward_side_by_side(cells.CELLS[cell], [{"cache": cache, **cotangents}], [together])
    assert_equal_bits(gradients.dx, expected["dx"])
    for name, array in together.items():
        assert_near([array], [sums[name] + expected[name]], dtype)


# ---- tokens that come packed ---------------------------------------------------------------------------------------


@both_directions
@every_dtype
@every_path
@pytest.mark.parametrize("checkpoint", [None, 3])
def test_packed_tokens_equal_a_ragged_batch(rng, variant, dtype, reverse, checkpoint):
    cell, arguments, cotangents = problem(rng, variant, dtype, T=9, N=5, reverse=reverse)
    arguments |= {"lengths": np.array([9, 7, 7, 2, 1]), "checkpoint": checkpoint}
    h, state, cache = forward(cell, arguments)
    gradients = backward(cell, cache, cotangents)._asdict()

    running = np.arange(9)[:, None] < arguments["lengths"]
    packed = functional.PackedTokens(arguments["x"][running], running.sum(axis=1))
    options = arguments | {"x": packed, "lengths": None}
    for training in (False, True):
        h_packed, state_packed, cache = forward(cell, options, training=training)
        assert_equal_bits(h_packed, h[running])
        for got, wanted in zip(final_states(cell, state_packed), final_states(cell, state), strict=True):
            assert_equal_bits(got, wanted)
    if checkpoint is None:
        assert_equal_bits(cache.h, h[running])
    actual = backward(cell, cache, cotangents, dh=cotangents["dh"][running])._asdict()
    assert_identical(actual, gradients | {"dx": gradients["dx"][running]})


def test_wrong_packed_tokens(rng):
    cell, arguments, cotangents = problem(rng, "gru-reset_before-new")
    tokens = rng.normal(size=(6, D))
    for rows, message in [
        ([2, 3, 1], "rows must fall, be at least 1 and add up to the number of tokens, 6; got [2 3 1]"),
        ([3, 2, 2], "rows must fall, be at least 1 and add up to the number of tokens, 6; got [3 2 2]"),
        ([3, 3, 0], "rows must fall, be at least 1 and add up to the number of tokens, 6; got [3 3 0]"),
        (
            [2**62] * 4,
            f"rows must fall, be at least 1 and add up to the number of tokens, 6; got {np.array([2**62] * 4)}",
        ),
    ]:
        with pytest.raises(ValueError, match=literally(message)):
            forward(cell, arguments, x=functional.PackedTokens(tokens, np.array(rows)))
    with pytest.raises(TypeError, match="rows"):
        forward(cell, arguments, x=functional.PackedTokens(tokens, np.array([3.0, 3.0])))
    packed = functional.PackedTokens(tokens, np.array([3, 2, 1]))
    with pytest.raises(ValueError, match="lengths and resets"):
        forward(cell, arguments, x=packed, lengths=[3, 2, 1])
    with pytest.raises(ValueError, match=literally(f"Wx must be (D, 3H) with D = {D} as in x; got {(D + 1, 3 * H)}")):
        forward(cell, arguments, x=packed, Wx=np.zeros((D + 1, 3 * H)))
    _, _, cache = forward(cell, arguments, x=packed)
    with pytest.raises(ValueError, match=literally(f"dh must be (L, H) = {(6, H)}; got {(T, N, H)}")):
        backward(cell, cache, cotangents)


@pytest.mark.parametrize("layout", LAYOUTS)
@every_cell
def test_layouts_of_ids(rng, variant, layout):
    cell, arguments, cotangents = problem(rng, variant, ids=True, lengths=True)
    expected = run(rc, cell, arguments, cotangents)
    ids = LAYOUTS[layout](arguments["x"])
    before = whole_memory(ids)
    assert_identical(run(rc, cell, arguments | {"x": ids}, cotangents), expected)
    assert whole_memory(ids) == before


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", ">i4", "uint64"])
@every_cell
def test_integer_dtypes_of_ids_and_lengths(rng, variant, dtype):
    cell, arguments, cotangents = problem(rng, variant, ids=True, lengths=True)
    expected = run(rc, cell, arguments, cotangents)
    small = {name: arguments[name].astype(dtype) for name in ("x", "lengths")}
    assert_identical(run(rc, cell, arguments | small, cotangents), expected)


@every_dtype
@every_cell
def test_memory_mapped_arrays(rng, variant, dtype, tmp_path):
    cell, arguments, cotangents = problem(rng, variant, dtype, lengths=True)
    expected = run(rc, cell, arguments, cotangents)

    def mapped(name, a):
        if not isinstance(a, np.ndarray):
            return a
        a.tofile(tmp_path / name)
        return np.memmap(tmp_path / name, a.dtype, "r", shape=a.shape)

    arguments = {name: mapped(name, a) for name, a in arguments.items()}
    cotangents = {name: mapped(name, d) for name, d in cotangents.items()}
    actual = run(rc, cell, arguments, cotangents)
    assert_identical(actual, expected)
    assert not any(isinstance(a, np.memmap) for a in actual.values())


@pytest.mark.parametrize("ids", [False, True])
@every_cell
def test_lists(rng, variant, ids):
    cell, arguments, cotangents = problem(rng, variant, ids=ids, lengths=True, resets=True)
    expected = run(rc, cell, arguments, cotangents)
    lists = {name: a.tolist() if isinstance(a, np.ndarray) else a for name, a in arguments.items()}
    cotangents = {name: d.tolist() for name, d in cotangents.items()}
    assert_identical(run(rc, cell, lists, cotangents), expected)


@pytest.mark.parametrize("ragged", [False, True])
@every_dtype
@every_cell
def test_arrays_with_strides_of_zero(rng, variant, dtype, ragged):
    """np.broadcast_to along the first or the last axis, as the gradient of a sum over time is."""
    cell, arguments, cotangents = problem(rng, variant, dtype, lengths=ragged)
    for axis in (0, -1):
        zero_strided = {
            name: np.broadcast_to(a.take([0], axis), a.shape)
            for name, a in (arguments | cotangents).items()
            if isinstance(a, np.ndarray) and a.dtype.kind == "f"
        }
        copies = {name: a.copy() for name, a in zero_strided.items()}

        def pick(a, given):
            return {name: a.get(name, value) for name, value in given.items()}

        expected = run(rc, cell, pick(copies, arguments), pick(copies, cotangents))
        actual = run(rc, cell, pick(zero_strided, arguments), pick(zero_strided, cotangents))
        assert_identical(actual, expected)
        for name, a in zero_strided.items():
            np.testing.assert_array_equal(a, copies[name])


# ---- dtypes --------------------------------------------------------------------------------------------------------


@every_variant
def test_float16_is_computed_in_float32(rng, variant):
    cell, arguments, cotangents = problem(rng, variant, "float16", lengths=True)
    actual = run(rc, cell, arguments, cotangents)
    expected = run(rc, cell, cast(arguments, "float32"), cast(cotangents, "float32"))
    assert_identical(actual, expected)
    assert actual["h"].dtype == np.float32


@every_variant
def test_mixed_dtypes_promote(rng, variant):
    """One float64 argument among float32 or float16 ones, whichever it is, and all is float64."""
    cell, arguments, cotangents = problem(rng, variant, "float32")
    for name in floats_of(arguments):
        for others in ("float32", "float16"):
            mixed = cast(arguments, others)
            mixed[name] = arguments[name].astype("float64")
            expected = run(rc, cell, cast(mixed, "float64"), cast(cotangents, "float64"))
            actual = run(rc, cell, mixed, cotangents)
            assert_identical(actual, expected)
            assert actual["h"].dtype == np.float64
        mixed = cast(arguments, "float16")
        mixed[name] = arguments[name].astype("float32")
        expected = run(rc, cell, cast(mixed, "float32"), cotangents)
        assert_identical(run(rc, cell, mixed, cotangents), expected)


@every_dtype
@every_cell
def test_ids_do_not_promote(rng, variant, dtype):
    cell, arguments, cotangents = problem(rng, variant, dtype, ids=True)
    for integer in ("uint8", "int64"):
        results = run(rc, cell, arguments | {"x": arguments["x"].astype(integer)}, cotangents)
        assert {a.dtype for a in results.values() if a is not None} == {np.dtype(dtype)}


@every_dtype
@every_cell
def test_cotangents_take_the_dtype_of_the_forward_pass(rng, variant, dtype):
    for ragged in (False, True):
        cell, arguments, _ = problem(rng, variant, dtype, lengths=ragged)
        for other in ("float16", "float32", "float64"):
            cotangents = make_cotangents(rng, cell, T, N, H, other)
            actual = run(rc, cell, arguments, cotangents)
            assert_identical(actual, run(rc, cell, arguments, cast(cotangents, dtype)))
            assert {a.dtype for a in actual.values() if a is not None} == {np.dtype(dtype)}
