"""The functions of the cells, with every option: equal to the reference, and the identities that hold to the bit."""

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.compare import TOLERANCE, assert_equal_bits, assert_identical, assert_same
from support.functions import backward, cast, final_states, floats_of, forward, in_chunks, take_rows
from support.layouts import whole_memory
from support.machines import Machine
from support.problems import run
from support.strategies import assert_same_unless_chaotic, calls, disturbed, laid_out, layouts, machines, more, seeds

import rnncore as rc
from rnncore import functional, reference
from rnncore.engine.quantization import round_to_bfloat16

# Sums over the rows of a batch or the chunks of a sequence, whose order decides the last bits.
SUMS = ("dWx", "dWh", "db", "dbhn", "dpeephole")

mixed_layouts = layouts | st.just("mixed")


def outcome(call, arguments, cotangents, module=rc):
    """All results and gradients; the gates only without checkpoints, with which they are not kept."""
    results = run(module, call.variant.cell.name, arguments, cotangents)
    if call.checkpoint is not None:
        del results["gates"]
    return results


def assert_bits_but_sums(call, actual, expected):
    """The same bits, and sums to rounding."""
    sums = [name for name in SUMS if name in expected]
    assert_identical(*({n: a for n, a in side.items() if n not in sums} for side in (actual, expected)))
    assert_same(*({n: side[n] for n in sums} for side in (actual, expected)), TOLERANCE[call.dtype])


@more(3)
@given(calls(), machines(rc.available_isas()), mixed_layouts)
def test_engine_equals_reference(call, machine, layout):
    _, arguments, cotangents = call.problem()
    exact = cast(arguments, "f8"), cast(cotangents, "f8")
    expected = outcome(call, *exact, reference)

    def expected_of_disturbed():
        inputs = {name: disturbed(a, call.dtype) for name, a in exact[0].items()}
        return outcome(call, inputs, exact[1], reference)

    with machine:
        given = laid_out(arguments, layout, call.seed), laid_out(cotangents, layout, call.seed)
        actual = outcome(call, *given)
    if call.has_kink and call.dtype == "float32":
        expected = {name: expected[name] for name in expected if not name.startswith("d")}
        actual = {name: actual[name] for name in expected}
    assert_same_unless_chaotic(actual, expected, call.dtype, expected_of_disturbed)
    assert all(a is None or a.dtype == call.dtype for a in actual.values())


@more(2)
@given(calls(), machines(), mixed_layouts)
def test_threads_layouts_and_checkpoints_change_no_bit(call, machine, layout):
    _, arguments, cotangents = call.problem()
    with Machine(machine.isa):
        expected = outcome(call, arguments | {"checkpoint": None}, cotangents)
    placed = laid_out(arguments, layout, call.seed), laid_out(cotangents, layout, call.seed)
    arrays = [a for given in placed for a in given.values() if isinstance(a, np.ndarray)]
    before = [whole_memory(a) for a in arrays]
    with machine:
        actual = outcome(call, *placed)
    assert_identical(actual, expected)
    assert [whole_memory(a) for a in arrays] == before
    if layout == "Fortran order" and "Wh" in arguments:
        assert actual["dWh"].flags.f_contiguous  # as the weights are


@given(calls(), machines(), st.lists(st.sampled_from(["f2", "f4", "f8"]), min_size=12, max_size=12))
def test_mixed_dtypes_promote(call, machine, kinds):
    _, arguments, cotangents = call.problem()
    for name, kind in zip(floats_of(arguments), kinds, strict=False):
        arguments[name] = arguments[name].astype(kind)
    wide = any(arguments[name].itemsize == 8 for name in floats_of(arguments))
    with machine:
        expected = outcome(call, cast(arguments, "f8" if wide else "f4"), cotangents)
        actual = outcome(call, arguments, cotangents)
    assert_identical(actual, expected)
    assert actual["h"].dtype == ("f8" if wide else "f4")


@given(calls(), machines())
def test_inference_has_the_bits_of_training(call, machine):
    cell, arguments, _ = call.problem()
    with machine:
        h, state, _ = forward(cell, arguments)
        h_inference, state_inference, nothing = forward(cell, arguments, training=False)
    assert nothing is None
    names = ["h_n", "c_n"][: len(final_states(cell, state))]
    actual = dict(zip(names, final_states(cell, state_inference), strict=True)) | {"h": h_inference}
    assert_identical(actual, dict(zip(names, final_states(cell, state), strict=True)) | {"h": h})


@given(calls(least=1, mask=False, checkpoint=None, left_out=frozenset()), machines(), st.booleans())
def test_frozen_cells_have_the_bits_of_the_function(call, machine, rounds):
    cell, arguments, _ = call.problem()
    names = call.variant.cell.states
    state = tuple(arguments[f"{name}0"] for name in names)
    weights = {name: arguments[name] for name in call.variant.shapes(call.D, call.H)} | {"Wh": arguments.get("Wh")}
    options = {name: word for name, word in arguments.items() if isinstance(word, str)}
    of_call = {name: arguments[name] for name in ("lengths", "resets", "reverse") if name in arguments}
    with machine:
        frozen = rc.freeze(cell, **weights, **options, precision="bfloat16" if rounds else None)
        if rounds:
            for name in arguments.keys() & {"Wx", "Wh"}:
                arguments[name] = round_to_bfloat16(arguments[name].astype("f8")).astype(call.dtype)
        h, final, _ = forward(cell, arguments, training=False)
        for one in (frozen, pickle.loads(pickle.dumps(frozen))):
            actual = one(arguments["x"], state if len(state) > 1 else state[0], **of_call)
            assert_equal_bits(actual[0], h)
            for got, wanted in zip(final_states(cell, actual[1]), final_states(cell, final), strict=True):
                assert_equal_bits(got, wanted)


@more(2)
@given(calls(left_out=frozenset()), machines(), st.lists(st.floats(0, 1), min_size=1, max_size=3))
def test_calls_that_carry_the_state_are_one_call(call, machine, cuts):
    cell, arguments, cotangents = call.problem()
    cuts = sorted(round(share * call.T) for share in cuts)
    with machine:
        expected = outcome(call, arguments, cotangents)
        actual = in_chunks(cell, arguments, cotangents, cuts, call.reverse)
    assert_bits_but_sums(call, {name: actual[name] for name in expected}, expected)


@more(2)
@given(calls(), machines())
def test_permuting_the_batch_permutes_the_results(call, machine):
    _, arguments, cotangents = call.problem()
    order = call.rng.permutation(call.N)
    with machine:
        expected = take_rows(outcome(call, arguments, cotangents), order)
        actual = outcome(call, take_rows(arguments, order), take_rows(cotangents, order))
    assert_bits_but_sums(call, actual, expected)


@given(calls(), machines())
def test_a_part_of_the_batch_gives_its_part_of_the_results(call, machine):
    _, arguments, cotangents = call.problem()
    rows = np.flatnonzero(call.rng.random(call.N) < 0.5)
    with machine:
        expected = take_rows(outcome(call, arguments, cotangents), rows)
        actual = outcome(call, take_rows(arguments, rows), take_rows(cotangents, rows))
    assert_identical(
        *(
            {n: a for n, a in side.items() if not n.startswith("d") or n in ("dx", "dh0", "dc0")}
            for side in (actual, expected)
        )
    )


@more(2)
@given(calls(lengths=True), machines(), st.sampled_from([np.nan, np.inf, -np.inf, 1e30]))
def test_what_stands_in_the_padding_changes_nothing(call, machine, garbage):
    _, arguments, cotangents = call.problem()
    with machine:
        expected = outcome(call, arguments, cotangents)
        padding = np.arange(call.T)[:, None] >= arguments["lengths"]
        arguments["x"][padding] = garbage if arguments["x"].ndim == 3 else call.rng.choice([-1, call.D, 2**62])
        if cotangents["dh"] is not None:
            cotangents["dh"][padding] = garbage
        if call.resets:
            arguments["resets"][padding] ^= True
        assert_identical(outcome(call, arguments, cotangents), expected)


@more(2)
@given(calls(), machines(), st.integers(-9, 9), seeds)
def test_gradients_are_linear_in_the_cotangents(call, machine, power, seed):
    cell, arguments, u = call.problem()
    rng = np.random.default_rng(seed)
    v = {name: None if d is None else rng.normal(size=d.shape).astype(d.dtype) for name, d in u.items()}
    a, b = rng.uniform(-2, 2, size=2).astype(call.dtype)

    def combined(a, u, b, v):
        return {name: None if d is None else a * d + b * v[name] for name, d in u.items()}

    with machine:
        _, _, cache = forward(cell, arguments)
        of_u, of_v = (backward(cell, cache, given)._asdict() for given in (u, v))
        of_sum = backward(cell, cache, combined(a, u, b, v))._asdict()
        factor = np.dtype(call.dtype).type(2.0**power)
        scaled = backward(cell, cache, combined(factor, u, 0, v))._asdict()
    assert_same(of_sum, combined(a, of_u, b, of_v), TOLERANCE[call.dtype])
    for name, gradient in of_u.items():
        if gradient is not None:
            # Exact, except for what falls below the smallest numbers on its way through the steps.
            np.testing.assert_allclose(scaled[name], factor * gradient, rtol=0, atol=1e-30, err_msg=name)


def in_order(array, order, wanted):
    """Blocks of columns of gates in another order."""
    blocks = np.split(array, len(order), axis=-1)
    return np.concatenate([blocks[order.index(letter)] for letter in wanted], axis=-1)


@given(calls(least=1), machines())
def test_orders_of_gates_are_orders_of_blocks(call, machine):
    """The same bits forward; backward, sums over the gates are in the order of the blocks."""
    _, arguments, cotangents = call.problem()
    variant, weights = call.variant, arguments.keys() & {"Wx", "Wh", "b"}
    plain = arguments | {name: in_order(arguments[name], variant.gate_order, variant.gates) for name in weights}
    plain.pop("gate_order", None)
    with machine:
        expected = outcome(call, plain, cotangents)
        actual = outcome(call, arguments, cotangents)
    for name in actual.keys() & {"gates", *(f"d{name}" for name in weights)}:
        actual[name] = in_order(actual[name], variant.gate_order, variant.gates)
    assert_same(actual, expected, TOLERANCE[call.dtype])
    forward_only = [name for name in expected if not name.startswith("d")]
    assert_identical(*({name: side[name] for name in forward_only} for side in (actual, expected)))


@given(calls(least=1, ids=True), machines())
def test_ids_are_one_hot_rows(call, machine):
    _, arguments, cotangents = call.problem()
    with machine:
        actual = outcome(call, arguments, cotangents)
        one_hot = np.eye(call.D, dtype=call.dtype)[arguments["x"]]
        expected = outcome(call, arguments | {"x": one_hot}, cotangents)
    assert actual.pop("dx") is None
    del expected["dx"]
    assert_identical(actual, expected)


@given(calls(least=1, lengths=True, resets=False, ids=False), machines())
def test_packed_tokens_are_a_padded_batch(call, machine):
    cell, arguments, cotangents = call.problem()
    lengths = np.maximum(np.sort(arguments["lengths"])[::-1], 1)  # packed tokens have no row without one
    running = np.arange(lengths.max())[:, None] < lengths
    T = len(running)
    packed = arguments | {
        "x": functional.PackedTokens(arguments["x"][:T][running], running.sum(axis=1)),
        "lengths": None,
    }
    tokens = cotangents | {"dh": None if cotangents["dh"] is None else cotangents["dh"][:T][running]}
    with machine:
        expected = outcome(call, arguments | {"lengths": lengths}, cotangents)
        actual = outcome(call, packed, tokens)
    expected |= {name: expected[name][:T][running] for name in ("h", "gates", "dx") if name in expected}
    if "gates" in actual and actual["gates"] is not None:
        actual["gates"] = actual["gates"].reshape(expected["gates"].shape)
    assert_identical(actual, expected)
