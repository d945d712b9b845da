"""States, resets, lengths, direction: the meaning of every edge along the time axis."""

import numpy as np
import pytest
from support.compare import TOLERANCE, assert_identical, assert_same
from support.functions import (
    D,
    H,
    N,
    T,
    both_directions,
    every_dtype,
    every_path,
    every_variant,
    forward,
    in_chunks,
    problem,
)
from support.problems import run

import rnncore as rc
from rnncore import reference
from rnncore.engine import cells

# ---- states --------------------------------------------------------------------------------------------------------


@every_dtype
@every_variant
def test_what_is_not_given_is_zero(rng, variant, dtype):
    cell, arguments, cotangents = problem(rng, variant, dtype, lengths=True)
    states = [name for name in ("h0", "c0", "bhn") if name in arguments]
    zeros = {name: np.zeros_like(arguments[name]) for name in states}
    for absent in [[name] for name in states] + [states]:
        without = {name: a for name, a in arguments.items() if name not in absent}
        expected = run(rc, cell, arguments | {name: zeros[name] for name in absent}, cotangents)
        assert_identical(run(rc, cell, without, cotangents), expected)
        assert_identical(run(rc, cell, without | dict.fromkeys(absent), cotangents), expected)
    for name in cotangents:
        expected = run(rc, cell, arguments, cotangents | {name: np.zeros_like(cotangents[name])})
        assert_identical(run(rc, cell, arguments, cotangents | {name: None}), expected)


@pytest.mark.parametrize("edges", ["plain", "lengths", "lengths resets mask", "ids lengths"])
@both_directions
@every_variant
def test_chunks_that_carry_the_state_equal_one_call(rng, variant, reverse, edges):
    options = dict.fromkeys(edges.replace("plain", "").split(), True)
    cell, arguments, cotangents = problem(rng, variant, reverse=reverse, **options)
    expected = run(rc, cell, arguments, cotangents)
    for cuts in ([1], [3, 4], [1, 2, 3, 4, 5, 6], [0, 5, 5]):
        actual = in_chunks(cell, arguments, cotangents, cuts, reverse)
        assert_same(actual, expected, TOLERANCE["float64"], f"{cuts=}")


@both_directions
@every_path
def test_resets_equal_cutting_the_sequence(rng, variant, reverse):
    """Every row alone, in pieces between its resets that start from zero."""
    cell, arguments, cotangents = problem(rng, variant, resets=True, reverse=reverse)
    resets = arguments.pop("resets")
    resets[:, 0] = [False, False, True, True, False, False, False]
    resets[:, 1] = [True, False, False, False, False, False, True]
    resets[:, 2] = False
    actual = run(rc, cell, arguments | {"resets": resets}, cotangents)

    expected = {name: np.zeros_like(a) for name, a in actual.items() if a is not None}
    states = cells.CELLS[cell].states
    for n in range(N):
        # A reset before t starts a piece at t, or in reverse ends one behind t.
        cuts = sorted({t + reverse for t in np.flatnonzero(resets[:, n])} | {0, T})
        spans = [slice(*pair) for pair in zip(cuts[:-1], cuts[1:], strict=True)]
        for span in spans:
            first_step = span.stop - 1 if reverse else span.start
            is_first = first_step == (T - 1 if reverse else 0)
            is_last = span.start == 0 if reverse else span.stop == T
            from_start = is_first and not resets[first_step, n]
            part = {"x": arguments["x"][span, n : n + 1]}
            part |= {s + "0": arguments[s + "0"][n : n + 1] if from_start else None for s in states}
            d = {f"d{s}_n": cotangents[f"d{s}_n"][n : n + 1] if is_last else None for s in states}
            got = run(rc, cell, arguments | part, {"dh": cotangents["dh"][span, n : n + 1], **d})
            for name in ("h", "gates", "dx"):
                expected[name][span, n] = got[name][:, 0]
            for name in set(expected) - {"h", "gates", "dx", "h_n", "c_n", "dh0", "dc0"}:
                expected[name] += got[name]
            for s in states:
                if is_last:
                    expected[s + "_n"][n] = got[s + "_n"][0]
                if from_start:
                    expected[f"d{s}0"][n] = got[f"d{s}0"][0]
    actual = {name: a for name, a in actual.items() if a is not None}
    assert_same(actual, expected, TOLERANCE["float64"])


@every_path
def test_resets_nowhere_and_everywhere(rng, variant):
    cell, arguments, cotangents = problem(rng, variant)
    nowhere = np.zeros((T, N), bool)
    expected = run(rc, cell, arguments, cotangents)
    assert_same(run(rc, cell, arguments | {"resets": nowhere}, cotangents), expected, TOLERANCE["float64"])

    actual = run(rc, cell, arguments | {"resets": ~nowhere}, cotangents)
    single = arguments | {"x": arguments["x"].reshape(1, T * N, D), "h0": None}
    if cell == "lstm":
        single["c0"] = None
    h, _, _ = forward(cell, single)
    np.testing.assert_allclose(actual["h"], h.reshape(T, N, H), rtol=0, atol=TOLERANCE["float64"])
    np.testing.assert_array_equal(actual["dh0"], np.zeros((N, H)))
    if "Wh" in arguments:
        np.testing.assert_array_equal(actual["dWh"], np.zeros_like(arguments["Wh"]))


@both_directions
@every_variant
def test_length_zero_hands_the_state_through(rng, variant, reverse):
    cell, arguments, cotangents = problem(rng, variant, reverse=reverse)
    for lengths in ([0, 4, 7], [4, 0, 0], [0, 0, 0]):
        empty = np.flatnonzero(np.array(lengths) == 0)
        results = run(rc, cell, arguments | {"lengths": lengths}, cotangents)
        for s in ("h", "c") if cell == "lstm" else ("h",):
            np.testing.assert_array_equal(results[f"{s}_n"][empty], arguments[f"{s}0"][empty])
            np.testing.assert_array_equal(results[f"d{s}0"][empty], cotangents[f"d{s}_n"][empty])
        for name in ("h", "gates", "dx"):
            np.testing.assert_array_equal(results[name][:, empty], 0, err_msg=name)
    for name in ("dWx", "dWh", "db", "dbhn", "dpeephole"):  # of the last: no row runs at all
        if results.get(name) is not None:
            np.testing.assert_array_equal(results[name], 0, err_msg=name)


@both_directions
@every_variant
def test_lengths_equal_shorter_sequences(rng, variant, reverse):
    """Every row alone and cut to its length."""
    cell, arguments, cotangents = problem(rng, variant, reverse=reverse)
    lengths = np.array([4, 7, 1])
    results = run(rc, cell, arguments | {"lengths": lengths}, cotangents)
    sums = {}
    for n, length in enumerate(lengths):
        row = {name: arguments[name][n : n + 1] for name in ("h0", "c0") if name in arguments}
        row["x"] = arguments["x"][:length, n : n + 1]
        d = {name: d[:length, n : n + 1] if name == "dh" else d[n : n + 1] for name, d in cotangents.items()}
        for name, wanted in run(rc, cell, arguments | row, d).items():
            if wanted is None:
                continue
            if name in ("h", "gates", "dx"):
                got = results[name][:length, n : n + 1]
                np.testing.assert_array_equal(results[name][length:, n], 0, err_msg=f"{name} in the padding")
            elif name in ("h_n", "c_n", "dh0", "dc0"):
                got = results[name][n : n + 1]
            else:
                sums[name] = sums.get(name, 0) + wanted
                continue
            assert_same({name: got}, {name: wanted}, TOLERANCE["float64"], f"{n=}")
    assert_same({name: results[name] for name in sums}, sums, TOLERANCE["float64"])


# ---- sizes of zero -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edges", ["plain", "lengths", "lengths resets reverse"])
@pytest.mark.parametrize("zero", ["T", "N", "D", "H", "TN", "TD", "NH", "DH", "TNDH"])
@every_path
def test_sizes_of_zero(rng, variant, zero, edges):
    sizes = {"T": 4, "N": 3, "D": 2, "H": 5} | dict.fromkeys(zero, 0)
    options = dict.fromkeys(edges.replace("plain", "").split(), True)
    with np.errstate(divide="ignore"):  # the scale of no weights
        cell, arguments, cotangents = problem(rng, variant, **sizes, **options)
    expected = run(reference, cell, arguments, cotangents)
    actual = run(rc, cell, arguments, cotangents)
    assert {k: np.shape(a) for k, a in actual.items()} == {k: np.shape(a) for k, a in expected.items()}
    assert_same(actual, expected, TOLERANCE["float64"])


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (0, 0)])
@every_path
def test_no_ids(rng, variant, shape):
    sizes = {"T": shape[0], "N": shape[1]}
    cell, arguments, cotangents = problem(rng, variant, ids=True, **sizes)
    expected = run(reference, cell, arguments, cotangents)
    actual = run(rc, cell, arguments, cotangents)
    assert actual["dx"] is None
    assert_same(actual, expected, TOLERANCE["float64"])
    for name in set(actual) & {"dWx", "dWh", "db"}:
        np.testing.assert_array_equal(actual[name], 0)


# ---- the same computation, asked for in another way ----------------------------------------------------------------


@pytest.mark.parametrize("edges", ["plain", "lengths", "resets", "lengths resets"])
@every_variant
def test_reverse_equals_flipping(rng, variant, edges):
    options = dict.fromkeys(edges.replace("plain", "").split(), True)
    cell, arguments, cotangents = problem(rng, variant, **options)
    lengths = arguments.get("lengths", np.full(N, T))
    t = np.arange(T)[:, None]
    time = np.where(t < lengths, lengths - 1 - t, t)

    def flip(a):
        return a[time, np.arange(N)]

    flipped = arguments | {name: flip(arguments[name]) for name in ("x", "resets") if name in arguments}
    wanted = run(rc, cell, flipped, cotangents | {"dh": flip(cotangents["dh"])})
    wanted |= {name: flip(wanted[name]) for name in ("h", "gates", "dx")}
    actual = run(rc, cell, arguments | {"reverse": True}, cotangents)
    assert_same(actual, wanted, TOLERANCE["float64"])


@pytest.mark.parametrize("edges", ["plain", "lengths", "lengths resets reverse"])
@every_dtype
@every_variant
def test_ids_equal_one_hot_rows(rng, variant, dtype, edges):
    options = dict.fromkeys(edges.replace("plain", "").split(), True)
    cell, arguments, cotangents = problem(rng, variant, dtype, T=9, D=3, ids=True, **options)
    actual = run(rc, cell, arguments, cotangents)
    one_hot = np.eye(3, dtype=dtype)[arguments["x"]]
    expected = run(rc, cell, arguments | {"x": one_hot}, cotangents)
    assert actual["dx"] is None
    assert_same(actual, expected | {"dx": None}, TOLERANCE[dtype])
