"""Layers: gradients of whole stacks against central differences, states, dropout, initial values, errors."""

import itertools
import re

import numpy as np
import pytest
from gradcheck import check_gradients
from problems import TOLERANCE

import rnncore as rc
from rnncore import functional, reference

T, N, D, H = 5, 3, 2, 4

RECURRENT = {
    "RNN-tanh": (rc.RNN, {}),
    "RNN-relu": (rc.RNN, {"activation": "relu"}),
    **{
        f"GRU-{form}-{update}": (rc.GRU, {"form": form, "update": update})
        for form in ("reset_before", "reset_after", "simplified")
        for update in ("new", "old")
    },
    "LSTM": (rc.LSTM, {}),
    "LSTM-identity": (rc.LSTM, {"output_activation": "identity"}),
    "LSTM-current": (rc.LSTM, {"peephole": True, "peephole_output": "current"}),
    "LSTM-previous": (rc.LSTM, {"peephole": True, "peephole_output": "previous"}),
    "MinGRU": (rc.MinGRU, {}),
    "MinGRU-positive": (rc.MinGRU, {"candidate": "positive"}),
}
every_layer = pytest.mark.parametrize("kind", RECURRENT)
each_cell = pytest.mark.parametrize("kind", ["RNN-tanh", "GRU-reset_after-old", "LSTM-current", "MinGRU-positive"])
with_recurrent_weights = [kind for kind, (cell, _) in RECURRENT.items() if "Wh_0" in cell(D, H).params]
every_dtype = pytest.mark.parametrize("dtype", TOLERANCE)
CLOSE = {"rtol": 0, "atol": TOLERANCE["float64"]}


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def literally(text):
    return f"^{re.escape(text)}$"


def make_layer(rng, kind, dtype="float64", **options):
    """A layer whose parameters, biases and peepholes included, are all random."""
    layer_class, cell_options = RECURRENT[kind]
    layer = layer_class(D, H, **{"dtype": dtype, "seed": 1, **cell_options, **options})
    for value in layer.params.values():
        value[...] = rng.normal(scale=0.6, size=value.shape)
    return layer


def make_state(rng, layer, N=N):
    """One random array for each state the layer has, as the tuple that `join` takes."""
    shape = (layer.num_layers * layer.directions, N, layer.hidden_size)
    return tuple(rng.normal(size=shape) for _ in layer.state_names)


def join(layer, state):
    return state if isinstance(layer, rc.LSTM) else state[0]


def split(layer, state):
    return state if isinstance(layer, rc.LSTM) else (state,)


def gradients_of(layer, x, state, lengths, dy, dstate):
    """-> dict of the gradients of x, of every state and of every parameter."""
    layer.zero_grad()
    _, _, cache = layer.forward(x, join(layer, state), lengths)
    dx, dinitial = layer.backward(dy, cache, join(layer, dstate))
    names = [f"state {k}" for k in range(len(state))]
    gradients = {"x": dx, **dict(zip(names, split(layer, dinitial), strict=True)), **layer.grads}
    return {name: None if g is None else g.copy() for name, g in gradients.items()}


def check_layer(rng, layer, x, lengths=None, before=lambda: None):
    """Numeric gradients of x (unless ids), states and parameters; cotangents on y and all final states."""
    state = make_state(rng, layer)
    named = {f"state {k}": s for k, s in enumerate(state)} | layer.params
    if x.dtype.kind == "f":
        named["x"] = x

    def f(**values):
        for name, value in layer.params.items():
            value[...] = values[name]
        before()
        states = tuple(values[f"state {k}"] for k in range(len(state)))
        y, final, _ = layer.forward(values.get("x", x), join(layer, states), lengths)
        return [y, *split(layer, final)]

    arguments = {name: value.copy() for name, value in named.items()}
    cotangents = [rng.normal(size=output.shape) for output in f(**arguments)]
    before()
    gradients = gradients_of(layer, x, state, lengths, cotangents[0], tuple(cotangents[1:]))
    if x.dtype.kind != "f":
        assert gradients.pop("x") is None
    check_gradients(f, arguments, cotangents, gradients)


# ---- gradients of recurrent layers -------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [None, [3, 0, 5]], ids=["full", "ragged"])
@pytest.mark.parametrize("num_layers, bidirectional", [(1, False), (2, False), (1, True), (2, True)])
@every_layer
def test_gradients(rng, kind, num_layers, bidirectional, lengths):
    layer = make_layer(rng, kind, num_layers=num_layers, bidirectional=bidirectional)
    check_layer(rng, layer, rng.normal(size=(T, N, D)), lengths)


@each_cell
def test_gradients_of_three_layers(rng, kind):
    layer = make_layer(rng, kind, num_layers=3, bidirectional=True)
    check_layer(rng, layer, rng.normal(size=(T, N, D)), [3, 5, 2])


@each_cell
def test_gradients_batch_first(rng, kind):
    layer = make_layer(rng, kind, num_layers=2, bidirectional=True, batch_first=True)
    check_layer(rng, layer, rng.normal(size=(N, T, D)), [3, 1, 5])


@pytest.mark.parametrize("batch_first", [False, True])
@each_cell
def test_gradients_with_ids(rng, kind, batch_first):
    layer = make_layer(rng, kind, num_layers=2, bidirectional=True, batch_first=batch_first)
    ids = rng.integers(D, size=(N, T) if batch_first else (T, N))
    check_layer(rng, layer, ids, [3, 1, 5])


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 3, "dropout": 0.4},
        {"num_layers": 2, "dropout": 0.4, "recurrent_dropout": 0.3},
        {"num_layers": 2, "recurrent_dropout": 0.5, "checkpoint": 2},
    ],
    ids=["between", "both", "recurrent"],
)
@pytest.mark.parametrize("backend", [functional, reference], ids=["engine", "reference"])
@every_layer
def test_gradients_of_dropout_use_the_mask_of_the_forward_pass(rng, kind, backend, options):
    """Differences are taken with the generator set back, so that every forward pass drops the same."""
    generator = np.random.default_rng(3)
    if kind not in with_recurrent_weights:
        options = {name: value for name, value in options.items() if name != "recurrent_dropout"}
    layer = make_layer(rng, kind, bidirectional=True, seed=generator, **options)
    layer.backend = backend
    start = generator.bit_generator.state

    def set_back():
        generator.bit_generator.state = start

    check_layer(rng, layer, rng.normal(size=(T, N, D)), [3, 1, 5], before=set_back)


@each_cell
def test_batch_first_only_swaps_axes(rng, kind):
    for ids in (False, True):
        layer = make_layer(rng, kind, num_layers=2, bidirectional=True)
        swapped = make_layer(rng, kind, num_layers=2, bidirectional=True, batch_first=True)
        for name, value in swapped.params.items():
            value[...] = layer.params[name]
        x = rng.integers(D, size=(T, N)) if ids else rng.normal(size=(T, N, D))
        state, dstate = make_state(rng, layer), make_state(rng, layer)
        dy, lengths = rng.normal(size=(T, N, 2 * H)), [2, 5, 4]
        y, final = layer(x, join(layer, state), lengths)
        y_swapped, final_swapped = swapped(x.swapaxes(0, 1), join(layer, state), lengths)
        np.testing.assert_array_equal(y_swapped.swapaxes(0, 1), y)
        for a, b in zip(split(layer, final), split(layer, final_swapped), strict=True):
            np.testing.assert_array_equal(b, a)
        expected = gradients_of(layer, x, state, lengths, dy, dstate)
        actual = gradients_of(swapped, x.swapaxes(0, 1), state, lengths, dy.swapaxes(0, 1), dstate)
        if not ids:
            actual["x"] = actual["x"].swapaxes(0, 1)
        for name, wanted in expected.items():
            if wanted is None:
                assert actual[name] is None
            else:
                np.testing.assert_array_equal(actual[name], wanted, err_msg=name)


@each_cell
def test_gradients_not_given_are_zero(rng, kind):
    layer = make_layer(rng, kind, num_layers=2, bidirectional=True)
    x, state, dstate = rng.normal(size=(T, N, D)), make_state(rng, layer), make_state(rng, layer)
    zeros, dy = tuple(np.zeros_like(s) for s in state), rng.normal(size=(T, N, 2 * H))
    for given, explicit in (((None, dstate), (0 * dy, dstate)), ((dy, None), (dy, zeros))):
        layer.zero_grad()
        _, _, cache = layer.forward(x, join(layer, state), [5, 2, 4])
        dx, dinitial = layer.backward(given[0], cache, given[1] and join(layer, given[1]))
        actual = {name: g.copy() for name, g in layer.grads.items()} | {"x": dx}
        actual |= {f"state {k}": d for k, d in enumerate(split(layer, dinitial))}
        expected = gradients_of(layer, x, state, [5, 2, 4], *explicit)
        assert actual.keys() == expected.keys()
        for name, wanted in expected.items():
            np.testing.assert_allclose(actual[name], wanted, **CLOSE, err_msg=name)


@each_cell
def test_the_state_not_given_is_zero(rng, kind):
    layer = make_layer(rng, kind, num_layers=2, bidirectional=True)
    x = rng.normal(size=(T, N, D))
    zeros = tuple(np.zeros((4, N, H)) for _ in layer.state_names)
    y, final = layer(x)
    y_zeros, final_zeros = layer(x, join(layer, zeros))
    np.testing.assert_array_equal(y, y_zeros)
    np.testing.assert_array_equal(np.stack(split(layer, final)), np.stack(split(layer, final_zeros)))


# ---- what a stack is ---------------------------------------------------------------------------------------


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


# ---- parameters and gradients ------------------------------------------------------------------------------


def every_kind_of_layer():
    yield rc.Embedding(6, 3, dtype="float64", seed=0), np.array([[1, 4], [4, 0]])
    yield rc.Dense(2, 3, dtype="float64", seed=0), np.ones((2, 3, 2))
    for layer_class, options in RECURRENT.values():
        layer = layer_class(2, 3, num_layers=2, bidirectional=True, dtype="float64", seed=0, **options)
        yield layer, np.ones((4, 2, 2))


def test_params_and_grads_keep_keys_and_identity(rng):
    for layer, x in every_kind_of_layer():
        for value in layer.params.values():
            value[...] = rng.uniform(0.1, 0.5, size=value.shape)  # all positive, so that no relu is off
        params, grads = dict(layer.params), dict(layer.grads)
        values = {name: value.copy() for name, value in params.items()}
        assert params.keys() == grads.keys()
        y, *_, cache = layer.forward(x)
        dy = rng.normal(size=y.shape)
        for times in (1, 2):  # added, not overwritten
            layer.backward(dy, cache)
            if times == 1:
                once = {name: g.copy() for name, g in layer.grads.items()}
                assert all(np.abs(g).max() > 0 for name, g in once.items())
        for name, g in layer.grads.items():
            np.testing.assert_allclose(g, 2 * once[name], rtol=1e-12, err_msg=name)
        layer(x)
        layer.zero_grad()
        assert layer.params.keys() == params.keys()
        assert layer.grads.keys() == grads.keys()
        for name, value in params.items():
            assert layer.params[name] is value
            assert layer.grads[name] is grads[name]
            assert value.shape == grads[name].shape
            assert value.dtype == grads[name].dtype == np.float64
            np.testing.assert_array_equal(value, values[name])
            np.testing.assert_array_equal(grads[name], 0)


def test_names_and_shapes_of_parameters():
    lstm = rc.LSTM(2, 3, num_layers=2, bidirectional=True, peephole=True)
    cell = {"Wx": (2, 12), "Wh": (3, 12), "b": (12,), "peephole": (3, 3)}
    upper = cell | {"Wx": (6, 12)}
    expected = {n + s: shape for s in ("_0", "_0_reverse") for n, shape in cell.items()}
    expected |= {n + s: shape for s in ("_1", "_1_reverse") for n, shape in upper.items()}
    assert {name: value.shape for name, value in lstm.params.items()} == expected
    gru = rc.GRU(2, 3, form="reset_after")
    assert {name: value.shape for name, value in gru.params.items()} == {
        "Wx_0": (2, 9),
        "Wh_0": (3, 9),
        "b_0": (9,),
        "bhn_0": (3,),
    }
    assert rc.GRU(2, 3, form="simplified").params["Wx_0"].shape == (2, 6)
    assert rc.RNN(2, 3).params["Wx_0"].shape == (2, 3)


@every_layer
def test_parameters_are_read_live(rng, kind):
    layer = make_layer(rng, kind, num_layers=2, bidirectional=True)
    x, state = rng.normal(size=(T, N, D)), make_state(rng, layer)
    for name, value in layer.params.items():
        before, _ = layer(x, join(layer, state))
        value += rng.normal(size=value.shape)
        after, _ = layer(x, join(layer, state))
        assert np.abs(after - before).max() > 1e-4, name


# ---- dropout -----------------------------------------------------------------------------------------------


def identity_stack(num_layers, size, **options):
    """A recurrent stack that hands its input through: only dropout can change it."""
    layer = rc.RNN(size, size, num_layers, activation="identity", dtype="float64", **options)
    for name, value in layer.params.items():
        value[...] = np.eye(size) if name.startswith("Wx") else 0
    return layer


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_dropout_acts_between_layers_and_scales(rng, num_layers):
    dropout = 0.3
    layer = identity_stack(num_layers, 30, dropout=dropout, seed=5)
    x = rng.uniform(1, 2, size=(40, 20, 30))
    y, _, _ = layer.forward(x)
    factor = y / x
    kept = factor > 0
    np.testing.assert_allclose(factor[kept], (1 - dropout) ** (1 - num_layers), rtol=1e-12)
    # 24000 draws: the share is good to 0.003, five times that is allowed.
    share = (1 - dropout) ** (num_layers - 1)
    assert abs(kept.mean() - share) < 0.016
    if num_layers > 1:  # each step, row and unit on its own
        for axes in ((1, 2), (0, 2), (0, 1)):
            shares = kept.mean(axis=axes)
            assert 0 < shares.std() < 0.1
        assert (kept[0] != kept[1]).any()
        assert (kept[:, 0] != kept[:, 1]).any()
        again, _, _ = layer.forward(x)
        assert ((again > 0) != kept).any()
    np.testing.assert_array_equal(layer(x)[0], x)  # inference: off


def test_dropout_leaves_final_states_of_its_own_layer(rng):
    """What is dropped is what the next layer sees, not the state."""
    layer = identity_stack(2, 30, dropout=0.5, seed=5)
    x = rng.uniform(1, 2, size=(4, 5, 30))
    y, h, _ = layer.forward(x)
    np.testing.assert_array_equal(h[0], x[-1])
    np.testing.assert_array_equal(h[1], y[-1])
    assert (y == 0).any()


def test_seeds_reproduce_dropout(rng):
    x = rng.uniform(1, 2, size=(4, 5, 30))
    runs = []
    for seed in (5, 5, np.random.default_rng(5), 6):
        layer = identity_stack(2, 30, dropout=0.5, seed=seed)
        runs.append(np.stack([layer.forward(x)[0], layer.forward(x)[0]]))
    np.testing.assert_array_equal(runs[1], runs[0])
    np.testing.assert_array_equal(runs[2], runs[0])
    assert (runs[3] != runs[0]).any()


@pytest.mark.parametrize("backend", [functional, reference], ids=["engine", "reference"])
@pytest.mark.parametrize("kind", with_recurrent_weights)
def test_recurrent_dropout_is_one_mask_of_the_rows_of_Wh_for_all_steps(rng, kind, backend):
    layer = make_layer(rng, kind, num_layers=2, bidirectional=True, recurrent_dropout=0.5)
    layer.backend = backend
    scaled = make_layer(rng, kind, num_layers=2, bidirectional=True)
    x, lengths, state = rng.normal(size=(T, N, D)), [4, 0, 5], make_state(rng, layer)
    dy, dstate = rng.normal(size=(T, N, 2 * H)), make_state(rng, layer)
    y, final, cache = layer.forward(x, join(layer, state), lengths)
    dx, dinitial = layer.backward(dy, cache, join(layer, dstate))
    masks = dict(zip(("_0", "_0_reverse", "_1", "_1_reverse"), cache.recurrent_masks, strict=True))
    for name, value in scaled.params.items():
        value[...] = layer.params[name]
    for end, m in masks.items():
        assert m.shape == (H,)
        assert set(m) <= {0, 2}
        scaled.params["Wh" + end] *= m[:, None]
    assert len({m.tobytes() for m in masks.values()}) > 1
    y_scaled, final_scaled = scaled(x, join(layer, state), lengths)
    np.testing.assert_allclose(y, y_scaled, **CLOSE)
    np.testing.assert_allclose(np.stack(split(layer, final)), np.stack(split(layer, final_scaled)), **CLOSE)
    expected = gradients_of(scaled, x, state, lengths, dy, dstate)
    for end, m in masks.items():
        expected["Wh" + end] *= m[:, None]
    actual = {"x": dx, **layer.grads} | {f"state {k}": d for k, d in enumerate(split(layer, dinitial))}
    assert actual.keys() == expected.keys()
    for name, wanted in expected.items():
        atol = CLOSE["atol"] * np.abs(wanted).max(initial=1)
        np.testing.assert_allclose(actual[name], wanted, rtol=0, atol=atol, err_msg=name)


@each_cell
def test_no_recurrent_dropout_is_as_without_the_argument(rng, kind):
    x, dy = rng.normal(size=(T, N, D)), rng.normal(size=(T, N, 2 * H))
    runs = []
    for options in ({}, {"recurrent_dropout": 0}):
        layer = make_layer(np.random.default_rng(0), kind, num_layers=2, bidirectional=True, dropout=0.5, **options)
        y, _, cache = layer.forward(x)
        assert cache.recurrent_masks == []
        dx, _ = layer.backward(dy, cache)
        runs.append([y, dx, *layer.grads.values()])
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", with_recurrent_weights)
def test_inference_has_no_recurrent_dropout(rng, kind):
    layer = make_layer(rng, kind, num_layers=2, recurrent_dropout=0.5)
    plain = make_layer(rng, kind, num_layers=2)
    for name, value in plain.params.items():
        value[...] = layer.params[name]
    x = rng.normal(size=(T, N, D))
    np.testing.assert_array_equal(layer(x)[0], plain(x)[0])
    stream = layer.stream(N)
    np.testing.assert_array_equal([stream.step(x_t) for x_t in x], plain(x)[0])
    assert np.abs(layer.forward(x)[0] - plain(x)[0]).max() > 1e-3
    for name, value in plain.params.items():
        np.testing.assert_array_equal(layer.params[name], value)


def test_recurrent_masks_are_drawn_anew_every_call_and_keep_the_mean():
    layer = rc.RNN(1, 1000, 2, bidirectional=True, recurrent_dropout=0.3, dtype="float32", seed=5)
    calls = [layer.forward(np.ones((2, 1, 1)))[2].recurrent_masks for _ in range(2)]
    masks = [m for call in calls for m in call]
    assert len({m.tobytes() for m in masks}) == 8
    for m in masks:
        assert m.dtype == np.float32
        assert set(m) == {np.float32(0), np.float32(1) / np.float32(0.7)}
        assert abs((m > 0).mean() - 0.7) < 0.06  # 1000 draws: four standard deviations


def test_dropout_is_in_the_description():
    layer = rc.GRU(2, 3, dropout=0.25, recurrent_dropout=0.5)
    assert repr(layer) == "GRU(2, 3, 1, dropout=0.25, recurrent_dropout=0.5)"
    assert "dropout" not in repr(rc.GRU(2, 3))


# ---- gates -------------------------------------------------------------------------------------------------


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


# ---- initial values ----------------------------------------------------------------------------------------


def gate_blocks(layer, name):
    return np.split(layer.params[name], layer.num_gates, axis=-1)


@every_dtype
@every_layer
def test_orthogonal_initialisation(kind, dtype):
    layer_class, options = RECURRENT[kind]
    layer = layer_class(50, 40, num_layers=2, bidirectional=True, dtype=dtype, seed=3, **options)
    tolerance = {"rtol": 0, "atol": 1e-12 if dtype == "float64" else 1e-6}
    blocks = []
    for suffix, size in (("_0", 50), ("_0_reverse", 50), ("_1", 80), ("_1_reverse", 80)):
        for block in gate_blocks(layer, "Wh" + suffix) if kind in with_recurrent_weights else ():
            np.testing.assert_allclose(block.T @ block, np.eye(40), **tolerance)
            blocks.append(block)
        limit = np.sqrt(6 / (size + 40))
        for block in gate_blocks(layer, "Wx" + suffix):
            assert block.shape == (size, 40)
            assert 0.95 * limit < np.abs(block).max() <= limit * (1 + 1e-6)
            assert abs(block.mean()) < 0.05 * limit
            # the uniform's standard deviation is limit / sqrt(3)
            np.testing.assert_allclose(block.std(), limit / np.sqrt(3), rtol=0.05)
        b = layer.params["b" + suffix]
        expected = np.zeros(layer.num_gates * 40)
        if layer_class is rc.LSTM:
            expected[40:80] = 1  # i f g o
        np.testing.assert_array_equal(b, expected)
        for name in ("bhn", "peephole"):
            if name + suffix in layer.params:
                np.testing.assert_array_equal(layer.params[name + suffix], 0)
    for k, block in enumerate(blocks):  # no two are the same
        assert all(np.abs(block - other).max() > 0.1 for other in blocks[:k])
    assert all(value.dtype == dtype for value in [*layer.params.values(), *layer.grads.values()])


def test_orthogonal_matrices_are_uniform_among_all():
    """The diagonal of Q from a plain QR would have one sign."""
    diagonals = [np.diag(rc.RNN(1, 8, seed=seed).params["Wh_0"]) for seed in range(40)]
    share = (np.array(diagonals) > 0).mean(axis=0)
    assert (0.2 < share).all()  # 40 draws of 1/2: four standard deviations
    assert (share < 0.8).all()


@every_layer
def test_uniform_initialisation(kind):
    layer_class, options = RECURRENT[kind]
    layer = layer_class(50, 100, init="uniform", seed=3, **options)
    for name, value in layer.params.items():
        value = value.copy()
        if name == "b_0" and layer_class is rc.LSTM:
            value[100:200] -= 1
        assert 0.09 < np.abs(value).max() <= 0.1 + 1e-6, name  # 1 / sqrt(100)
        assert np.abs(value.mean()) < 0.03, name


def test_forget_bias():
    for bias in (0.0, 2.5):
        layer = rc.LSTM(2, 3, num_layers=2, bidirectional=True, forget_bias=bias)
        for suffix in ("_0", "_0_reverse", "_1", "_1_reverse"):
            np.testing.assert_array_equal(layer.params["b" + suffix], [0] * 3 + [bias] * 3 + [0] * 6)


@pytest.mark.parametrize("init", ["orthogonal", "uniform"])
@every_layer
def test_seeds_reproduce_initial_values(kind, init):
    layer_class, options = RECURRENT[kind]

    def make(seed):
        return layer_class(2, 3, num_layers=2, init=init, seed=seed, **options).params

    first, same, generator, other = make(0), make(0), make(np.random.default_rng(0)), make(1)
    for name, value in first.items():
        np.testing.assert_array_equal(same[name], value)
        np.testing.assert_array_equal(generator[name], value)
        if name.startswith("W"):
            assert (np.abs(other[name] - value) > 1e-4).mean() > 0.9
    fresh = make(None), make(None)
    assert np.abs(fresh[0]["Wx_0"] - fresh[1]["Wx_0"]).max() > 1e-3


def test_initial_values_of_embedding_and_dense():
    embedding = rc.Embedding(200, 50, seed=0)
    assert embedding.params["W"].dtype == np.float32
    np.testing.assert_allclose(embedding.params["W"].std(), 1, rtol=0.03)  # 10000 draws: 0.7 % is one sigma
    np.testing.assert_allclose(embedding.params["W"].mean(), 0, atol=0.04)
    dense = rc.Dense(60, 90, dtype="float64", seed=0)
    assert dense.params["W"].dtype == np.float64
    assert 0.19 < np.abs(dense.params["W"]).max() <= 0.2  # sqrt(6 / 150)
    np.testing.assert_array_equal(dense.params["b"], np.zeros(90))
    for make in (lambda seed: rc.Embedding(4, 5, seed=seed), lambda seed: rc.Dense(4, 5, seed=seed)):
        np.testing.assert_array_equal(make(1).params["W"], make(1).params["W"])
        assert np.abs(make(1).params["W"] - make(2).params["W"]).max() > 0.01


# ---- embedding and dense -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (3,), (4, 3), (2, 3, 2), (0, 3)])
def test_embedding(rng, shape):
    layer = rc.Embedding(5, 3, dtype="float64", seed=0)
    ids = rng.integers(4, size=shape)  # row 4 is not used
    y, cache = layer.forward(ids)
    np.testing.assert_array_equal(y, layer.params["W"][ids])
    np.testing.assert_array_equal(layer(ids), y)
    dy = rng.normal(size=y.shape)

    def f(W):
        return [W[ids]]

    layer.backward(dy, cache)
    check_gradients(f, {"W": layer.params["W"]}, [dy], {"W": layer.grads["W"]})
    np.testing.assert_array_equal(layer.grads["W"][4], 0)
    assert not np.shares_memory(y, layer.params["W"])


def test_embedding_adds_up_repeated_ids_in_float32(rng):
    layer = rc.Embedding(3, 4, seed=0)
    ids = np.array([2, 0, 2, 2])
    _, cache = layer.forward(ids)
    dy = rng.normal(size=(4, 4))
    layer.backward(dy, cache)
    expected = [dy[1], 0 * dy[0], dy[0] + dy[2] + dy[3]]
    np.testing.assert_allclose(layer.grads["W"], expected, rtol=0, atol=TOLERANCE["float32"])
    assert layer.grads["W"].dtype == np.float32


@pytest.mark.parametrize("shape", [(), (3,), (4, 3), (2, 3, 2), (0, 3)])
@every_dtype
def test_dense(rng, shape, dtype):
    layer = rc.Dense(4, 3, dtype=dtype, seed=0)
    layer.params["b"][...] = rng.normal(size=3)
    x = rng.normal(size=(*shape, 4))
    arguments = {"x": x} | {name: value.astype("float64") for name, value in layer.params.items()}

    def f(x, W, b):
        return [np.einsum("...d,dk->...k", x, W) + b]

    y, cache = layer.forward(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, f(**arguments)[0], rtol=0, atol=TOLERANCE[dtype])
    np.testing.assert_array_equal(layer(x), y)
    dy = rng.normal(size=y.shape)
    dx = layer.backward(dy, cache)
    assert dx.dtype == dtype
    gradients = {"x": dx, **layer.grads}
    if dtype == "float64":
        check_gradients(f, arguments, [dy], gradients)
    else:
        check_gradients(f, arguments, [dy], gradients, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


LAYOUTS = {
    "read-only": lambda a: np.broadcast_to(a, a.shape),
    "Fortran order": np.asfortranarray,
    "swapped axes": lambda a: a.swapaxes(0, 1).copy().swapaxes(0, 1),
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "negative strides": lambda a: np.flip(np.flip(a).copy()),
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder("S")),
    "misaligned": lambda a: np.frombuffer(b"!" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    "list": lambda a: a.tolist(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dense_and_embedding_take_any_layout(rng, layout):
    dense, embedding = rc.Dense(4, 3, dtype="float64", seed=0), rc.Embedding(6, 3, dtype="float64", seed=0)
    x, ids, dy = rng.normal(size=(2, 5, 4)), rng.integers(6, size=(2, 5)), rng.normal(size=(2, 5, 3))

    def run(layer, given, dy):
        layer.zero_grad()
        y, cache = layer.forward(given)
        dx = layer.backward(dy, cache)
        return [y, dx, *(g.copy() for g in layer.grads.values())]

    for layer, given in ((dense, x), (embedding, ids)):
        expected = run(layer, given, dy)
        for actual, wanted in zip(run(layer, *map(LAYOUTS[layout], (given, dy))), expected, strict=True):
            if wanted is None:
                assert actual is None
            else:
                np.testing.assert_array_equal(actual, wanted)
    spread = np.broadcast_to(dy[:1, :1, :1], dy.shape)  # strides of zero, the gradient of a sum
    expected = run(dense, x, spread.copy())
    for actual, wanted in zip(run(dense, x, spread), expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize("isa", rc.available_isas())
@every_dtype
def test_dense_of_every_size(rng, dtype, isa):
    """The tails of blocks; gradients are added to what is there."""
    try:
        rc.use_isa(isa)
        for rows, D, K in itertools.product([1, 2, 7, 65], [1, 3, 16, 67], [1, 5, 33, 130]):
            layer = rc.Dense(D, K, dtype=dtype, seed=0)
            for arrays in (layer.params, layer.grads):
                for value in arrays.values():
                    value[...] = rng.normal(size=value.shape)
            x, dy = rng.normal(size=(rows, D)).astype(dtype), rng.normal(size=(rows, K)).astype(dtype)
            W, b, dW, db = (a.astype("float64") for d in (layer.params, layer.grads) for a in d.values())
            y, cache = layer.forward(x)
            dx = layer.backward(dy, cache)
            exact = x.astype("float64"), dy.astype("float64")
            expected = {
                "y": exact[0] @ W + b,
                "dx": exact[1] @ W.T,
                "dW": dW + exact[0].T @ exact[1],
                "db": db + exact[1].sum(axis=0),
            }
            actual = {"y": y, "dx": dx, "dW": layer.grads["W"], "db": layer.grads["b"]}
            for name, wanted in expected.items():
                atol = TOLERANCE[dtype] * np.abs(wanted).max(initial=1)
                message = f"{name} {rows=} {D=} {K=}"
                np.testing.assert_allclose(actual[name], wanted, rtol=0, atol=atol, err_msg=message)
    finally:
        rc.use_isa(rc.available_isas()[-1])


# ---- dtypes ------------------------------------------------------------------------------------------------


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


# ---- learning ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["RNN-tanh", "GRU-reset_before-new", "LSTM", "LSTM-current"])
def test_learns_to_remember_the_first_symbol(kind):
    """Noise in between, and sequences of different lengths: only the carried state can solve it."""
    layer_class, options = RECURRENT[kind]
    rng = np.random.default_rng(0)
    V, hidden, batch = 4, 16, 32
    embedding, layer = rc.Embedding(V, 8, seed=1), layer_class(8, hidden, num_layers=2, seed=2, **options)
    dense = rc.Dense(hidden, V, seed=3)
    layers = {"embedding": embedding, "layer": layer, "dense": dense}
    params = {f"{n} {k}": v for n, one in layers.items() for k, v in one.params.items()}
    grads = {f"{n} {k}": v for n, one in layers.items() for k, v in one.grads.items()}
    optimizer = rc.Adam(params, learning_rate=0.01)
    losses = []
    for _ in range(250):
        ids, lengths = rng.integers(V, size=(8, batch)), rng.integers(4, 9, size=batch)
        x, embedding_cache = embedding.forward(ids)
        _, state, cache = layer.forward(x, None, lengths)
        h = split(layer, state)[0]
        logits, dense_cache = dense.forward(h[-1])
        loss, dlogits = rc.softmax_cross_entropy(logits, ids[0])
        losses.append(loss)
        for one in layers.values():
            one.zero_grad()
        dstate = tuple(np.zeros_like(s) for s in split(layer, state))
        dstate[0][-1] = dense.backward(dlogits, dense_cache)
        dx, _ = layer.backward(None, cache, join(layer, dstate))
        embedding.backward(dx, embedding_cache)
        optimizer.step(grads)
    assert losses[0] > 1  # ln 4 = 1.39 is chance
    assert np.mean(losses[-10:]) < 0.1


# ---- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer_class", [rc.RNN, rc.GRU, rc.LSTM, rc.MinGRU])
def test_wrong_arguments_of_recurrent_layers(layer_class):
    for name, position in (("input_size", 0), ("hidden_size", 1), ("num_layers", 2)):
        for wrong in (0, -1):
            sizes = [2, 3, 1]
            sizes[position] = wrong
            with pytest.raises(ValueError, match=literally(f"{name} must be at least 1; got {wrong}")):
                layer_class(*sizes)
        for wrong in (2.0, "3", None):
            sizes[position] = wrong
            with pytest.raises(TypeError, match=literally(f"{name} must be an integer; got {wrong!r}")):
                layer_class(*sizes)
    for name in ("dropout", "recurrent_dropout"):
        for wrong in (1, -0.1, 1.5, float("nan"), "0.5"):
            with pytest.raises(ValueError, match=literally(f"{name} must be in [0, 1); got {wrong!r}")):
                layer_class(2, 3, **{name: wrong})
    for wrong in ("int32", "float16", "longdouble", bool):
        name = np.dtype(wrong)
        with pytest.raises(ValueError, match=literally(f"dtype must be float32 or float64; got {name}")):
            layer_class(2, 3, dtype=wrong)
    for wrong in ("glorot", None):
        message = literally(f"init must be one of 'orthogonal', 'uniform'; got {wrong!r}")
        with pytest.raises(ValueError, match=message):
            layer_class(2, 3, init=wrong)
    with pytest.raises(TypeError):
        layer_class(2, 3, 1, True)
    with pytest.raises(TypeError, match="unknown"):
        layer_class(2, 3, unknown=1)


@pytest.mark.parametrize(
    ("layer_class", "option", "choices"),
    [
        (rc.RNN, "activation", "'tanh', 'relu', 'identity'"),
        (rc.GRU, "form", "'reset_before', 'reset_after', 'simplified'"),
        (rc.GRU, "update", "'new', 'old'"),
        (rc.LSTM, "peephole_output", "'current', 'previous'"),
        (rc.LSTM, "output_activation", "'tanh', 'identity'"),
    ],
)
def test_unknown_options(layer_class, option, choices):
    for wrong in ("sigmoid", None):
        with pytest.raises(ValueError, match=literally(f"{option} must be one of {choices}; got {wrong!r}")):
            layer_class(2, 3, **{option: wrong})


def test_wrong_sizes_of_embedding_and_dense():
    for layer_class, names in (
        (rc.Embedding, ("size", "dimension")),
        (rc.Dense, ("input_size", "output_size")),
    ):
        for position, name in enumerate(names):
            sizes = [2, 3]
            sizes[position] = 0
            with pytest.raises(ValueError, match=literally(f"{name} must be at least 1; got 0")):
                layer_class(*sizes)
            sizes[position] = 1.5
            with pytest.raises(TypeError, match=literally(f"{name} must be an integer; got 1.5")):
                layer_class(*sizes)
        with pytest.raises(ValueError, match=literally("dtype must be float32 or float64; got int64")):
            layer_class(2, 3, dtype="int64")


@each_cell
def test_wrong_inputs(rng, kind):
    for batch_first, axes in ((False, "(T, N, input_size)"), (True, "(N, T, input_size)")):
        layer = make_layer(rng, kind, batch_first=batch_first)
        for wrong in [(), (D,), (T, D), (T, N, D + 1), (T, N, 1), (T, N, D, 1)]:
            message = literally(f"x must be {axes} with input_size = {D}; got {wrong}")
            for call in (layer, layer.forward):
                with pytest.raises(ValueError, match=message):
                    call(np.zeros(wrong))
    for wrong in [(), (T,), (T, N, D)]:
        message = literally(f"x of integers holds ids and must have two axes; got shape {wrong}")
        with pytest.raises(ValueError, match=message):
            layer(np.zeros(wrong, int))
    with pytest.raises(ValueError, match=literally(f"ids in x must lie in [0, D) = [0, {D}); got {D}")):
        layer(np.full((T, N), D))
    for dtype in ("bool", "object", "complex128"):
        message = literally(f"x must be an array of float32 or float64; got dtype {dtype}")
        with pytest.raises(TypeError, match=message):
            layer(np.zeros((T, N, D), dtype))


@each_cell
def test_wrong_lengths(rng, kind):
    for batch_first in (False, True):
        layer = make_layer(rng, kind, num_layers=2, bidirectional=True, batch_first=batch_first)
        x = np.zeros((N, T, D) if batch_first else (T, N, D))
        message = literally(f"lengths must lie in [0, T] = [0, {T}]; got {T + 1}")
        with pytest.raises(ValueError, match=message):
            layer(x, lengths=[1, T + 1, 2])
        with pytest.raises(ValueError, match=literally(f"lengths must be (N,) = {(N,)}; got {(N + 1,)}")):
            layer.forward(x, lengths=np.ones(N + 1, int))
        with pytest.raises(TypeError, match=literally("lengths must be integers; got dtype float64")):
            layer(x, lengths=np.ones(N))


@each_cell
def test_wrong_states(rng, kind):
    layer = make_layer(rng, kind, num_layers=2, bidirectional=True)
    x, dy = rng.normal(size=(T, N, D)), rng.normal(size=(T, N, 2 * H))
    right = make_state(rng, layer)
    _, _, cache = layer.forward(x)

    def state_with(wrong, position):
        return join(layer, tuple(wrong if k == position else s for k, s in enumerate(right)))

    calls = {
        "state": [lambda s: layer(x, s), lambda s: layer.forward(x, s)],
        "dstate": [lambda s: layer.backward(dy, cache, s)],
    }
    for argument, functions in calls.items():
        for function in functions:
            for position, name in enumerate(layer.state_names):
                for shape in [(N, H), (2, N, H), (4, N + 1, H), (4, N, H + 1), (4, 1, H), (4, N, H, 1)]:
                    wanted = f"(num_layers * directions, N, H) = {(4, N, H)}"
                    message = f"{argument} {name} must be {wanted}; got {shape}"
                    with pytest.raises(ValueError, match=literally(message)):
                        function(state_with(np.zeros(shape), position))
                message = f"{argument} {name} must be an array of float32 or float64; got dtype int64"
                with pytest.raises(TypeError, match=literally(message)):
                    function(state_with(np.zeros((4, N, H), "int64"), position))
            if isinstance(layer, rc.LSTM):
                for wrong in (right[0], (right[0],), (*right, right[0])):
                    with pytest.raises(TypeError, match=f"^{argument} of an LSTM must be a tuple "):
                        function(wrong)
    assert all(np.abs(g).max() == 0 for g in layer.grads.values())


@each_cell
def test_wrong_gradients_of_outputs(rng, kind):
    """The message names dy, and nothing was added into the gradients when it comes."""
    for batch_first in (False, True):
        for num_layers in (1, 2):
            layer = make_layer(rng, kind, num_layers=num_layers, bidirectional=True, batch_first=batch_first)
            y, _, cache = layer.forward(rng.normal(size=(N, T, D) if batch_first else (T, N, D)))
            a, b, c = y.shape
            for wrong in [
                (),
                (c,),
                (a, b),
                (a, b, c - 1),
                (a, b, c, 1),
                (a, b, 1),
                (a + 1, b, c),
                (a, b + 1, c),
            ]:
                with pytest.raises(ValueError, match="^dy must "):
                    layer.backward(np.zeros(wrong), cache)
            message = literally("dy must be an array of float32 or float64; got dtype int64")
            with pytest.raises(TypeError, match=message):
                layer.backward(np.zeros(y.shape, "int64"), cache)
            assert all(np.abs(g).max() == 0 for g in layer.grads.values())


def test_wrong_inputs_of_embedding():
    layer = rc.Embedding(5, 3, seed=0)
    for wrong in (-1, 5, 2**40):
        with pytest.raises(ValueError, match=literally(f"ids must lie in [0, V) = [0, 5); got {wrong}")):
            layer(np.array([[1, wrong]]))
    for dtype in ("float64", "bool", "object"):
        with pytest.raises(TypeError, match=literally(f"ids must be integers; got dtype {dtype}")):
            layer(np.zeros((2, 2), dtype))
    _, cache = layer.forward(np.array([[1, 2]]))
    for wrong in [(2, 3), (1, 2, 1), (1, 2, 4), (1, 1, 3), (2, 1, 3)]:
        with pytest.raises(ValueError, match=literally(f"dy must be (1, 2, 3); got {wrong}")):
            layer.backward(np.zeros(wrong), cache)
    message = literally("dy must be an array of float32 or float64; got dtype int64")
    with pytest.raises(TypeError, match=message):
        layer.backward(np.zeros((1, 2, 3), "int64"), cache)
    np.testing.assert_array_equal(layer.grads["W"], 0)


def test_wrong_inputs_of_dense():
    layer = rc.Dense(4, 3, seed=0)
    for wrong in [(), (3,), (2, 1), (4, 3)]:
        message = literally(f"x must be (..., input_size) = (..., 4); got {wrong}")
        with pytest.raises(ValueError, match=message):
            layer(np.zeros(wrong))
    message = literally("x must be an array of float32 or float64; got dtype int64")
    with pytest.raises(TypeError, match=message):
        layer(np.zeros((2, 4), "int64"))
    _, cache = layer.forward(np.zeros((2, 5, 4)))
    for wrong in [(2, 5, 4), (2, 5, 1), (10, 3), (5, 2, 3), (1, 5, 3)]:
        with pytest.raises(ValueError, match=literally(f"dy must be (2, 5, 3); got {wrong}")):
            layer.backward(np.zeros(wrong), cache)
    assert all(np.abs(g).max() == 0 for g in layer.grads.values())
