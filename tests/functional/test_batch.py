"""The rows of a batch are independent, to the bit."""

import numpy as np
import pytest
from support.compare import TOLERANCE, assert_equal_bits, assert_identical, assert_same
from support.functions import (
    ROW_AXIS,
    D,
    N,
    T,
    backward,
    both_directions,
    every_dtype,
    every_path,
    every_variant,
    final_states,
    forward,
    in_chunks,
    problem,
    take_rows,
)
from support.problems import run

import rnncore as rc
from rnncore.engine import cells

# ---- the batch -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edges", ["plain", "lengths", "lengths resets reverse mask", "ids lengths"])
@every_dtype
@every_variant
def test_permuting_the_batch_permutes_the_results(rng, variant, dtype, edges):
    options = dict.fromkeys(edges.replace("plain", "").split(), True)
    cell, arguments, cotangents = problem(rng, variant, dtype, N=6, **options)
    order = np.array([3, 0, 5, 1, 4, 2])
    expected = take_rows(run(rc, cell, arguments, cotangents), order)
    actual = run(rc, cell, take_rows(arguments, order), take_rows(cotangents, order))
    assert_same(actual, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 1e30])
@both_directions
@every_dtype
@every_path
def test_what_stands_in_the_padding_changes_nothing(rng, variant, dtype, reverse, garbage):
    """In x, in the gradient of the output and in resets: not a bit."""
    cell, arguments, cotangents = problem(rng, variant, dtype, lengths=True, resets=True, reverse=reverse)
    expected = run(rc, cell, arguments, cotangents)
    padding = np.arange(T)[:, None] >= arguments["lengths"]
    assert padding.any()
    arguments["x"][padding] = garbage
    cotangents["dh"][padding] = garbage
    arguments["resets"][padding] ^= True
    assert_identical(run(rc, cell, arguments, cotangents), expected)


@every_path
def test_ids_in_the_padding_may_be_anything(rng, variant):
    cell, arguments, cotangents = problem(rng, variant, lengths=True, ids=True)
    expected = run(rc, cell, arguments, cotangents)
    padding = np.arange(T)[:, None] >= arguments["lengths"]
    for garbage in (-1, D, 2**62):
        arguments["x"][padding] = garbage
        assert_identical(run(rc, cell, arguments, cotangents), expected)


@pytest.mark.parametrize("edges", ["plain", "lengths", "reverse"])
@every_dtype
@every_variant
def test_nan_stays_in_its_row(rng, variant, dtype, edges):
    cell, arguments, cotangents = problem(rng, variant, dtype, N=5, reverse=edges == "reverse")
    if edges == "lengths":
        arguments["lengths"] = np.array([4, 6, 3, 7, 0])
    expected = run(rc, cell, arguments, cotangents)
    row, others = 1, [0, 2, 3, 4]
    per_row = [name for name in expected if name in ROW_AXIS and expected[name] is not None]
    for name in ("x", "h0", "c0", "dh"):
        if name not in arguments and name not in cotangents:
            continue
        given = arguments | cotangents
        given[name] = given[name].copy()
        given[name][(3, row) if ROW_AXIS[name] else row] = np.nan
        actual = run(rc, cell, {k: given[k] for k in arguments}, {k: given[k] for k in cotangents})
        assert_same(
            take_rows({k: actual[k] for k in per_row}, others),
            take_rows({k: expected[k] for k in per_row}, others),
            TOLERANCE[dtype],
            f"NaN in {name}",
        )
        if name == "dh":
            assert np.isnan(actual["dx"][3, row]).all() or variant == "rnn-relu"
            continue
        # It is seen from the step on where it came in, and not before it.
        length = arguments["lengths"][row] if "lengths" in arguments else T
        steps = np.arange(T)
        if name == "x":
            touched = steps <= 3 if edges == "reverse" else (steps >= 3) & (steps < length)
        else:
            touched = steps < length
        assert np.isnan(actual["h"][touched, row]).all()
        assert not np.isnan(actual["h"][~touched, row]).any()
        assert np.isnan(actual["h_n"][row]).all()


@every_path
def test_a_reset_ends_nan(rng, variant):
    cell, arguments, cotangents = problem(rng, variant)
    arguments["resets"] = np.zeros((T, N), bool)
    arguments["resets"][4] = True
    expected = run(rc, cell, arguments, cotangents)
    arguments["x"][2, 1] = np.nan
    actual = run(rc, cell, arguments, cotangents)
    for name in ("h", "gates", "dx"):
        np.testing.assert_allclose(actual[name][4:], expected[name][4:], rtol=0, atol=TOLERANCE["float64"])
    np.testing.assert_allclose(actual["h_n"], expected["h_n"], rtol=0, atol=TOLERANCE["float64"])
    assert np.isnan(actual["h"][2:4, 1]).all()


# ---- the same bits -------------------------------------------------------------------------------------------------


@both_directions
@every_dtype
@every_path
@pytest.mark.parametrize(("N", "D", "H"), [(3, 4, 5), (9, 33, 70), (33, 20, 130)])
def test_a_row_does_not_depend_on_its_company(rng, variant, dtype, reverse, N, D, H):
    """Each row alone, and without its padding: the same states to the last bit."""
    cell, arguments, _ = problem(rng, variant, dtype, N=N, D=D, H=H, lengths=True, reverse=reverse)
    h, state, _ = forward(cell, arguments)
    for n, length in enumerate(arguments["lengths"]):
        row = take_rows(arguments, [n]) | {"lengths": None}
        row["x"] = row["x"][:length]
        h_row, state_row, _ = forward(cell, row)
        assert_equal_bits(h[:length, [n]], h_row, err_msg=f"{n=}")
        for got, wanted in zip(final_states(cell, state), final_states(cell, state_row), strict=True):
            assert_equal_bits(got[[n]], wanted, err_msg=f"{n=}")


@both_directions
@every_dtype
@every_path
@pytest.mark.parametrize(("N", "D", "H"), [(3, 4, 5), (9, 33, 70), (33, 20, 130)])
def test_chunks_give_the_same_bits(rng, variant, dtype, reverse, N, D, H):
    cell, arguments, cotangents = problem(rng, variant, dtype, N=N, D=D, H=H, lengths=True, reverse=reverse)
    expected = run(rc, cell, arguments, cotangents)
    for cuts in ([3, 4], [1, 2, 3, 4, 5, 6]):
        actual = in_chunks(cell, arguments, cotangents, cuts, reverse)
        for name in ("h", *(f"{state}_n" for state in cells.CELLS[cell].states)):
            if expected[name] is not None:
                assert_equal_bits(actual[name], expected[name], err_msg=f"{name} {cuts=}")


@every_dtype
@every_variant
def test_every_call_gives_the_same_bits(rng, variant, dtype):
    cell, arguments, cotangents = problem(rng, variant, dtype, lengths=True)
    expected = run(rc, cell, arguments, cotangents)
    assert_identical(run(rc, cell, arguments, cotangents), expected)
    _, _, cache = forward(cell, arguments)
    first = backward(cell, cache, cotangents)._asdict()
    backward(cell, cache, {name: 3 * d for name, d in cotangents.items()})
    assert_identical(backward(cell, cache, cotangents)._asdict(), first)
    assert_identical(first, {name: expected[name] for name in first})


@pytest.mark.parametrize("lengths", [False, True])
@every_dtype
@every_variant
def test_inference_keeps_nothing_and_gives_the_same(rng, variant, dtype, lengths):
    for reverse in (False, True):
        cell, arguments, _ = problem(rng, variant, dtype, lengths=lengths, resets=True, reverse=reverse)
        h, state, cache = forward(cell, arguments)
        h_inference, state_inference, nothing = forward(cell, arguments, training=False)
        assert cache is not None
        assert nothing is None
        tolerance = TOLERANCE[dtype] * max(1, np.abs(h).max())
        np.testing.assert_allclose(h_inference, h, rtol=0, atol=tolerance)
        for got, wanted in zip(final_states(cell, state_inference), final_states(cell, state), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance)
