"""Recurrent layers in every shape, trained, frozen and quantized."""

import copy
import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.compare import TOLERANCE, assert_identical, assert_same
from support.layers import backward_of, join, named, plain_results, results_of
from support.layouts import LAYOUTS
from support.machines import Machine
from support.strategies import assert_same_unless_chaotic, disturbed, layer_calls, layouts, machines, more

import rnncore as rc
from rnncore import reference
from rnncore.engine.quantization import round_to_bfloat16

WITHOUT_DROPOUT = {"dropout": 0.0, "recurrent_dropout": 0.0}
PRECISIONS = ["trained", "frozen", "bfloat16", "int8"]

each_precision = st.sampled_from(PRECISIONS)


def as_numpy_layer(call):
    """The layer in float64, computed by the reference."""
    layer = call.layer("float64")
    layer.backend = reference
    return layer


def as_float64(value):
    """An array of floats, or a tuple of them, in float64; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(map(as_float64, value))
    return value.astype("f8") if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


def in_precision(layer, precision):
    """The layer for inference."""
    if precision == "trained":
        return layer
    return layer.freeze() if precision == "frozen" else layer.quantize(precision)


def infer(layer, x, state=None, lengths=None):
    y, final = layer(x, join(layer, state), lengths)
    return {"y": y, **named(layer, "final", final)}


def take_rows(call, results, rows):
    """The rows of a batch of every result that has them."""
    axes = {"y": int(not call.batch_first), "x": int(not call.batch_first)}
    return {
        name: a if a is None else np.take(a, rows, axes.get(name, 1))
        for name, a in results.items()
        if name in axes or name.startswith(("final", "state"))
    }


def given_rows(call, x, state, lengths, dy, dstate, rows):
    """The arguments of some rows of the batch."""
    axis = int(not call.batch_first)
    x, dy = (np.take(a, rows, axis) for a in (x, dy))
    state, dstate = (None if s is None else tuple(a[:, rows] for a in s) for s in (state, dstate))
    return x, state, None if lengths is None else lengths[rows], dy, dstate


def in_time(call, array):
    """The array with time first, or back."""
    return array.swapaxes(0, 1) if call.batch_first else array


# ---- training -------------------------------------------------------------------------------------------------------


@more(2)
@given(layer_calls(), machines(rc.available_isas()), layouts)
def test_engine_equals_reference(call, machine, layout):
    x, state, lengths, dy, dstate = call.arguments()
    exact = as_float64(x), as_float64(state), lengths, as_float64(dy), as_float64(dstate)
    if layout:
        x, dy = (LAYOUTS[layout](a) for a in (x, dy))
    layer, plain = call.layer(), call.layer("float64")
    with machine:
        y, final, cache = layer.forward(x, join(layer, state), lengths)
        actual = {"y": y, **named(layer, "final", final), **backward_of(layer, dy, cache, dstate)}
    expected = plain_results(plain, cache, *exact)

    def expected_of_disturbed():
        for value in plain.params.values():
            value[...] = disturbed(value, call.dtype)
        return plain_results(plain, cache, disturbed(exact[0], call.dtype), *exact[1:])

    if call.has_kink and call.dtype == "float32":
        expected = {name: a for name, a in expected.items() if name == "y" or name.startswith("final")}
        actual = {name: actual[name] for name in expected}
    assert_same_unless_chaotic(actual, expected, call.dtype, expected_of_disturbed)
    assert all(a is None or a.dtype == call.dtype for a in actual.values())


@given(layer_calls(), machines(), layouts)
def test_threads_layouts_and_checkpoints_change_no_bit(call, machine, layout):
    x, state, lengths, dy, dstate = call.arguments()
    with Machine(machine.isa):
        expected = results_of(call.layer(checkpoint=None), x, state, lengths, dy, dstate)
    if layout:
        x, dy = (LAYOUTS[layout](a) for a in (x, dy))
    with machine:
        assert_identical(results_of(call.layer(), x, state, lengths, dy, dstate), expected)


@given(layer_calls(**WITHOUT_DROPOUT), machines())
def test_permuting_the_batch_permutes_results_and_gradients(call, machine):
    arguments, order = call.arguments(), call.rng.permutation(call.N)
    with machine:
        expected = results_of(call.layer(), *arguments)
        actual = results_of(call.layer(), *given_rows(call, *arguments, order))
    assert_identical(take_rows(call, actual, np.arange(call.N)), take_rows(call, expected, order))
    parameters = call.layer().params
    assert_same(*({n: side[n] for n in parameters} for side in (actual, expected)), TOLERANCE[call.dtype])


@given(layer_calls(lengths=True), machines(), st.sampled_from([np.nan, np.inf, 1e30]))
def test_what_stands_in_the_padding_changes_nothing(call, machine, garbage):
    x, state, lengths, dy, dstate = call.arguments()
    with machine:
        expected = results_of(call.layer(), x, state, lengths, dy, dstate)
        padding = in_time(call, np.arange(call.T)[:, None] >= lengths)
        x[padding] = call.rng.choice([-1, call.D, 2**62]) if call.ids else garbage
        dy[padding] = garbage
        assert_identical(results_of(call.layer(), x, state, lengths, dy, dstate), expected)


@given(layer_calls(state=True), machines(), st.integers(-9, 9))
def test_gradients_are_linear_in_the_cotangents(call, machine, power):
    x, state, lengths, dy, dstate = call.arguments()
    rng, layer = call.rng, call.layer()
    u = [dy, *dstate]
    v = [rng.normal(size=d.shape).astype(call.dtype) for d in u]
    a, b = rng.uniform(-2, 2, size=2).astype(call.dtype)
    factor = np.dtype(call.dtype).type(2.0**power)
    with machine:
        _, _, cache = layer.forward(x, join(layer, state), lengths)

        def gradients(cotangents):
            layer.zero_grad()
            return backward_of(layer, cotangents[0], cache, tuple(cotangents[1:]))

        of_u, of_v = gradients(u), gradients(v)
        of_sum = gradients([a * d + b * e for d, e in zip(u, v, strict=True)])
        scaled = gradients([factor * d for d in u])
    combined = {name: None if d is None else a * d + b * of_v[name] for name, d in of_u.items()}
    assert_same(of_sum, combined, TOLERANCE[call.dtype])
    for name, gradient in of_u.items():
        if gradient is not None:
            # Exact, except for what falls below the smallest numbers on its way through the steps.
            np.testing.assert_allclose(scaled[name], factor * gradient, rtol=0, atol=1e-30, err_msg=name)


@given(layer_calls(ids=True), machines())
def test_ids_are_one_hot_rows(call, machine):
    x, *others = call.arguments()
    with machine:
        actual = results_of(call.layer(), x, *others)
        expected = results_of(call.layer(), np.eye(call.D, dtype=call.dtype)[x], *others)
    assert actual.pop("x") is None
    del expected["x"]
    assert_identical(actual, expected)


@given(layer_calls(lengths=False, batch_first=False, **WITHOUT_DROPOUT), machines(), st.sampled_from([2, 4]))
def test_gradients_of_shards_are_those_of_their_rows(call, machine, shards):
    arguments, layer = call.arguments(), call.layer()
    rows = np.arange(call.N // shards * shards)
    sizes = [p.size for p in layer.params.values()]
    ends = np.cumsum([0, *sizes])
    flat = np.zeros((shards, ends[-1]), call.dtype)
    parts = {
        name: flat[:, begin:end].reshape(shards, *p.shape)
        for (name, p), begin, end in zip(layer.params.items(), ends[:-1], ends[1:], strict=True)
    }
    with machine:
        with layer.adding_by_shards(parts, shards):
            x, state, lengths, dy, dstate = given_rows(call, *arguments, rows)
            _, _, cache = layer.forward(x, join(layer, state), lengths)
            layer.backward(dy, cache, join(layer, dstate))
        for shard in range(shards):
            wanted = results_of(layer, *given_rows(call, *arguments, rows[shard::shards]))
            assert_identical(
                {name: part[shard] for name, part in parts.items()}, {name: wanted[name] for name in parts}
            )


# ---- inference ------------------------------------------------------------------------------------------------------


@given(layer_calls(**WITHOUT_DROPOUT), machines())
def test_inference_and_frozen_layers_have_the_bits_of_training(call, machine):
    x, state, lengths, *_ = call.arguments()
    layer = call.layer()
    with machine:
        y, final, _ = layer.forward(x, join(layer, state), lengths)
        expected = {"y": y, **named(layer, "final", final)}
        assert_identical(infer(layer, x, state, lengths), expected)
        assert_identical(infer(layer.freeze(), x, state, lengths), expected)


@given(layer_calls(), machines())
def test_bfloat16_has_the_bits_of_rounded_weights(call, machine):
    x, state, lengths, *_ = call.arguments()
    layer, rounded = call.layer(), call.layer()
    for name, value in rounded.params.items():
        if name.startswith("W"):
            value[...] = round_to_bfloat16(value.astype("f8"))
    with machine:
        expected = infer(rounded, x, state, lengths)
        assert_identical(infer(layer.quantize("bfloat16"), x, state, lengths), expected)


@given(layer_calls(dtype="float64"), machines(rc.available_isas()))
def test_int8_is_that_of_the_reference(call, machine):
    """A value is rounded the other way only where it is as close to a tie as the errors of float64 are large."""
    x, state, lengths, *_ = call.arguments()
    plain = as_numpy_layer(call)
    for name, value in plain.params.items():
        if name.startswith("W"):
            plain.params[name] = reference.Int8Matrix.rounded(value)
    with machine:
        actual = infer(call.layer().quantize("int8"), x, state, lengths)
    assert_same(actual, infer(plain, x, state, lengths), TOLERANCE["float64"])


@more(2)
@given(layer_calls(bidirectional=False), machines(), each_precision, st.floats(0, 1), st.booleans())
def test_calls_and_steps_that_carry_the_state_are_one_call(call, machine, precision, share, steps):
    x, state, lengths, *_ = call.arguments()
    x, cut = in_time(call, x), round(share * call.T)
    with machine:
        layer = in_precision(call.layer(batch_first=False), precision)
        expected = infer(layer, x, state, lengths)
        first_lengths = None if lengths is None else np.minimum(lengths, cut)
        first = infer(layer, x[:cut], state, first_lengths)
        between = tuple(first[f"final {k}"] for k in range(len(layer.state_names)))
        second = infer(layer, x[cut:], between, None if lengths is None else lengths - first_lengths)
        second["y"] = np.concatenate([first["y"], second["y"]])
        assert_identical(second, expected)
        if steps and lengths is None and call.N * call.T:
            stream = layer.stream(call.N)
            if state is not None:
                stream.state = join(layer, state)
            y = np.stack([stream.step(x_t) for x_t in x])
            assert_identical({"y": y, **named(layer, "final", stream.state)}, expected)


@more(2)
@given(layer_calls(), machines(), each_precision)
def test_rows_do_not_depend_on_others_threads_or_padding(call, machine, precision):
    arguments = call.arguments()
    x, state, lengths, *_ = arguments
    with Machine(machine.isa):
        layer = in_precision(call.layer(), precision)
        expected = infer(layer, x, state, lengths)
    rows = call.rng.permutation(call.N)[: call.rng.integers(call.N + 1)]
    with machine:
        if lengths is not None:
            x[in_time(call, np.arange(call.T)[:, None] >= lengths)] = -1 if call.ids else np.nan
        assert_identical(infer(layer, x, state, lengths), expected)
        actual = infer(layer, *given_rows(call, *arguments, rows)[:3])
    assert_identical(actual, take_rows(call, expected, rows))


@given(layer_calls(), machines(), each_precision)
def test_copies_and_pickles_have_the_same_bits(call, machine, precision):
    x, state, lengths, *_ = call.arguments()
    with machine:
        layer = in_precision(call.layer(), precision)
        expected = infer(layer, x, state, lengths)
        for other in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), copy.copy(layer)):
            assert_identical(infer(other, x, state, lengths), expected)


@given(layer_calls(ids=True), machines(), st.sampled_from(["frozen", "bfloat16"]))
def test_ids_of_frozen_layers_are_one_hot_rows(call, machine, precision):
    x, state, lengths, *_ = call.arguments()
    with machine:
        layer = in_precision(call.layer(), precision)
        one_hot = np.eye(call.D, dtype=call.dtype)[x]
        assert_identical(infer(layer, x, state, lengths), infer(layer, one_hot, state, lengths))


@given(layer_calls(dtype="float32"), machines(), each_precision)
def test_arguments_of_other_dtypes_are_converted(call, machine, precision):
    x, state, lengths, *_ = call.arguments()
    with machine:
        layer = in_precision(call.layer(), precision)
        expected = infer(layer, x, state, lengths)
        wide = x if call.ids else x.astype(">f8")
        wide_state = None if state is None else tuple(a.astype("f8")[..., ::-1].copy()[..., ::-1] for a in state)
        assert_identical(infer(layer, wide, wide_state, lengths), expected)
