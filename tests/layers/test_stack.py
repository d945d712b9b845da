"""What a stack computes: layers, directions, states, padding, dtypes, gates."""

import numpy as np
import pytest
from support.compare import TOLERANCE
from support.layers import (
    CLOSE,
    RECURRENT,
    D,
    H,
    N,
    T,
    each_cell,
    every_dtype,
    every_layer,
    gradients_of,
    join,
    make_layer,
    make_state,
    split,
)

import rnncore as rc
from rnncore import functional, reference

# ---- what a stack is -----------------------------------------------------------------------------------------------


@every_dtype
@every_layer
def test_stack_written_out_with_the_reference(rng, kind, dtype):
    """Two layers, both directions, ragged: cell by cell with the reference's functions in float64."""
    layer = make_layer(rng, kind, dtype, num_layers=2, bidirectional=True)
    x, lengths, state = rng.normal(size=(T, N, D)), [4, 0, 5], make_state(rng, layer)
    forward = getattr(reference, f"{layer.cell_name}_forward")
    options = {k: v for k, v in RECURRENT[kind][1].items() if k != "peephole"}
    y, finals = x, []
    for k in range(2):
        outputs = []
        for direction, suffix in enumerate((f"_{k}", f"_{k}_reverse")):
            weights = {
                name.removesuffix(suffix): value.astype("float64")
                for name, value in layer.params.items()
                if name in {n + suffix for n in ("Wx", "Wh", "b", "bhn", "peephole")}
            }
            initial = {n + "0": s[2 * k + direction] for n, s in zip("hc", state, strict=False)}
            h, final, _ = forward(y, **weights, **initial, **options, lengths=lengths, reverse=direction == 1)
            outputs.append(h)
            finals.append(np.stack(split(layer, final)))
        y = np.concatenate(outputs, axis=2)
    tolerance = {"rtol": 0, "atol": TOLERANCE[dtype] * max(1, np.abs(y).max(), np.abs(finals).max())}
    for run in (layer, lambda *a: layer.forward(*a)[:2]):
        actual, final = run(x, join(layer, state), lengths)
        assert actual.dtype == dtype
        np.testing.assert_allclose(actual, y, **tolerance)
        np.testing.assert_allclose(np.stack(split(layer, final)), np.stack(finals, 1), **tolerance)
        assert all(s.dtype == dtype for s in split(layer, final))


@every_dtype
@every_layer
def test_backend_may_be_the_reference(rng, kind, dtype):
    layer = make_layer(rng, kind, dtype, num_layers=2, bidirectional=True)
    x, lengths = rng.normal(size=(T, N, D)), [4, 0, 5]
    state, dstate = make_state(rng, layer), make_state(rng, layer)
    dy = rng.normal(size=(T, N, 2 * H))
    results = []
    for backend in (layer.backend, reference):
        layer.backend = backend
        y, final, _ = layer.forward(x, join(layer, state), lengths)
        gradients = gradients_of(layer, x, state, lengths, dy, dstate)
        results.append({"y": y, **dict(zip("hc", split(layer, final), strict=False)), **gradients})
    engine, wanted = results
    assert engine.keys() == wanted.keys()
    for name, value in wanted.items():
        assert engine[name].dtype == dtype
        atol = TOLERANCE[dtype] * np.abs(value).max(initial=1)
        np.testing.assert_allclose(engine[name], value, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("cuts", [[2], [1, 2, 3, 4]])
@every_layer
def test_chunks_that_carry_the_state_equal_one_call(rng, kind, cuts):
    layer = make_layer(rng, kind, num_layers=2)
    x, lengths = rng.normal(size=(T, N, D)), np.array([4, 1, 5])
    state, dstate = make_state(rng, layer), make_state(rng, layer)
    dy = rng.normal(size=(T, N, H))
    y, final = layer(x, join(layer, state), lengths)
    expected = gradients_of(layer, x, state, lengths, dy, dstate)

    spans = [slice(*pair) for pair in zip([0, *cuts], [*cuts, T], strict=True)]
    carried, outputs, caches = join(layer, state), [], []
    for span in spans:
        valid = np.clip(lengths - span.start, 0, span.stop - span.start)
        output, carried, cache = layer.forward(x[span], carried, valid)
        outputs.append(output)
        caches.append(cache)
    np.testing.assert_allclose(np.concatenate(outputs), y, **CLOSE)
    np.testing.assert_allclose(np.stack(split(layer, carried)), np.stack(split(layer, final)), **CLOSE)

    layer.zero_grad()
    carried, dx = join(layer, dstate), []
    for span, cache in zip(spans[::-1], caches[::-1], strict=True):
        d, carried = layer.backward(dy[span], cache, carried)
        dx.insert(0, d)
    actual = {"x": np.concatenate(dx), **layer.grads}
    actual |= {f"state {k}": d for k, d in enumerate(split(layer, carried))}
    for name, wanted in expected.items():
        atol = CLOSE["atol"] * np.abs(wanted).max(initial=1)
        np.testing.assert_allclose(actual[name], wanted, rtol=0, atol=atol, err_msg=name)


@each_cell
def test_padding_changes_nothing(rng, kind):
    layer = make_layer(rng, kind, num_layers=2, bidirectional=True)
    x, dy, lengths = rng.normal(size=(T, N, D)), rng.normal(size=(T, N, 2 * H)), np.array([4, 0, 5])
    state, dstate = make_state(rng, layer), make_state(rng, layer)
    y, _ = layer(x, join(layer, state), lengths)
    expected = gradients_of(layer, x, state, lengths, dy, dstate)
    padding = np.arange(T)[:, None] >= lengths
    np.testing.assert_array_equal(y[padding], 0)
    np.testing.assert_array_equal(expected["x"][padding], 0)
    x[padding], dy[padding] = np.nan, np.inf
    np.testing.assert_array_equal(layer(x, join(layer, state), lengths)[0], y)
    for name, actual in gradients_of(layer, x, state, lengths, dy, dstate).items():
        np.testing.assert_array_equal(actual, expected[name], err_msg=name)


@each_cell
def test_arguments_are_not_written_and_results_are_fresh(rng, kind):
    layer = make_layer(rng, kind, num_layers=2, bidirectional=True, dropout=0.5)
    x, state = rng.normal(size=(T, N, D)), make_state(rng, layer)
    dy, dstate = rng.normal(size=(T, N, 2 * H)), make_state(rng, layer)
    inputs = [x, *state, dy, *dstate]
    for a in inputs:
        a.flags.writeable = False
    y, final, cache = layer.forward(x, join(layer, state))
    layer.backward(dy, cache, join(layer, dstate))
    expected = {name: g.copy() for name, g in layer.grads.items()}
    y.fill(np.nan)
    for s in split(layer, final):
        s.fill(np.nan)
    layer.zero_grad()
    dx, dinitial = layer.backward(dy, cache, join(layer, dstate))
    for result in (y, dx, *split(layer, final), *split(layer, dinitial)):
        assert not any(np.shares_memory(result, a) for a in [*inputs, *layer.grads.values()])
    for name, g in layer.grads.items():
        np.testing.assert_array_equal(g, expected[name], err_msg=name)


@each_cell
def test_a_buffer_of_states_may_be_used_again_before_backward(rng, kind):
    layer = make_layer(rng, kind, num_layers=2)
    x, dy, buffer = rng.normal(size=(T, N, D)), rng.normal(size=(T, N, H)), make_state(rng, layer)
    expected = gradients_of(layer, x, buffer, None, dy, tuple(np.zeros_like(s) for s in buffer))
    layer.zero_grad()
    _, final, cache = layer.forward(x, join(layer, buffer))
    for s, value in zip(buffer, split(layer, final), strict=True):
        s[...] = value
    layer.backward(dy, cache)
    for name, g in layer.grads.items():
        np.testing.assert_allclose(g, expected[name], **CLOSE, err_msg=name)


# ---- gates ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [functional, reference], ids=["engine", "reference"])
@every_layer
def test_gates_of_every_layer_and_direction(rng, kind, backend):
    """In the order of the state: a later state follows from the gates and the one before it."""
    layer = make_layer(rng, kind, num_layers=2, bidirectional=True)
    layer.backend = backend
    _, final, cache = layer.forward(rng.normal(size=(T, N, D)), lengths=[5, 3, 0])
    assert len(layer.gate_names) == layer.num_gates
    assert len(cache.gates) == 4
    for place, gates in enumerate(cache.gates):
        assert gates.shape == (T, N, layer.num_gates * H)
        np.testing.assert_array_equal(gates[3:, 1], 0)
        blocks = dict(zip(layer.gate_names, np.split(gates[:, 0], layer.num_gates, axis=1), strict=True))
        if place % 2:
            blocks = {name: block[::-1] for name, block in blocks.items()}
        h = c = np.zeros(H)
        for t in range(T):
            gate = {name: block[t] for name, block in blocks.items()}
            if isinstance(layer, rc.LSTM):
                c = gate["f"] * c + gate["i"] * gate["g"]
                h = gate["o"] * (np.tanh(c) if layer.output_activation == "tanh" else c)
            elif isinstance(layer, rc.GRU):
                z = gate["z"] if layer.update == "new" else 1 - gate["z"]
                h = z * gate["n"] + (1 - z) * h
            elif isinstance(layer, rc.MinGRU):
                h = gate["z"] * gate["n"] + (1 - gate["z"]) * h
            else:
                h = gate["h"]
        np.testing.assert_allclose(h, split(layer, final)[0][place, 0], **CLOSE)


def test_names_of_gates():
    assert rc.RNN(2, 3).gate_names == ("h",)
    assert rc.LSTM(2, 3).gate_names == ("i", "f", "g", "o")
    for form, names in (("reset_before", "rzn"), ("reset_after", "rzn"), ("simplified", "zn")):
        assert rc.GRU(2, 3, form=form).gate_names == tuple(names)


def test_gates_are_not_kept_with_checkpoint(rng):
    layer = rc.LSTM(2, 3, num_layers=2, checkpoint=2)
    _, _, cache = layer.forward(rng.normal(size=(T, N, 2)))
    assert cache.gates == [None, None]


# ---- dtypes --------------------------------------------------------------------------------------------------------


@every_dtype
@each_cell
def test_a_layer_computes_in_its_own_dtype(rng, kind, dtype):
    layer = make_layer(rng, kind, dtype, num_layers=2, bidirectional=True, dropout=0.5)
    for other in ("float16", "float32", "float64"):
        x, dy = rng.normal(size=(T, N, D)).astype(other), rng.normal(size=(T, N, 2 * H)).astype(other)
        state = tuple(s.astype(other) for s in make_state(rng, layer))
        y, final, cache = layer.forward(x, join(layer, state))
        dx, dinitial = layer.backward(dy, cache, join(layer, state))
        results = [y, dx, *split(layer, final), *split(layer, dinitial), *layer.grads.values()]
        assert {a.dtype for a in results} == {np.dtype(dtype)}
        y, final = layer(x, join(layer, state))
        y_cast, final_cast = layer(x.astype(dtype), join(layer, tuple(s.astype(dtype) for s in state)))
        np.testing.assert_array_equal(y, y_cast)
        np.testing.assert_array_equal(np.stack(split(layer, final)), np.stack(split(layer, final_cast)))
