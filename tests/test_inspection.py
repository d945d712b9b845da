"""Gradient flow: against perturbed states of the reference, hand-cut sequences, and a network whose answer is known."""

import re

import numpy as np
import pytest

import rnncore as rc
from rnncore import reference

T, N, D, H = 5, 3, 2, 4
CELLS = {
    "RNN": (rc.RNN, {}),
    **{f"GRU-{form}": (rc.GRU, {"form": form}) for form in ("reset_before", "reset_after", "simplified")},
    "LSTM": (rc.LSTM, {}),
    "LSTM-peephole": (rc.LSTM, {"peephole": True}),
    "MinGRU": (rc.MinGRU, {"candidate": "positive"}),
}
every_cell = pytest.mark.parametrize("kind", CELLS)


def make_layer(rng, kind, dtype="float64", **options):
    layer_class, cell_options = CELLS[kind]
    layer = layer_class(D, H, dtype=dtype, **cell_options, **options)
    for value in layer.params.values():
        value[...] = rng.normal(scale=0.6, size=value.shape)
    return layer


def dropout_options(kind):
    """Both kinds of dropout; the recurrent one only where there are recurrent weights."""
    return {"dropout": 0.5} if kind == "MinGRU" else {"dropout": 0.5, "recurrent_dropout": 0.5}


def make_state(rng, layer):
    return tuple(rng.normal(size=(layer.num_layers * layer.directions, N, H)) for _ in layer.state_names)


def join(layer, state):
    return state if len(layer.state_names) == 2 else state[0]


def output(layer, x, state, lengths, place=None, step=None, added=0):
    """y of the reference, one step and row at a time; ``added`` (N, H) to h of one layer and direction at one step."""
    forward = getattr(reference, f"{layer.cell_name}_forward")
    options = {name: getattr(layer, name) for name in ("form", "candidate") if hasattr(layer, name)}
    for k in range(layer.num_layers):
        outputs = []
        for direction, end in enumerate(("", "_reverse")[: layer.directions]):
            here = k * layer.directions + direction
            weights = {n.removesuffix(f"_{k}{end}"): v for n, v in layer.params.items() if n.endswith(f"_{k}{end}")}
            h = np.zeros((T, N, H))
            for n in range(N):
                carried = [s[here, n : n + 1] for s in state]
                for t in list(range(lengths[n]))[:: -1 if direction else 1]:
                    initial = dict(zip(("h0", "c0"), carried, strict=False))
                    _, final, _ = forward(x[t : t + 1, n : n + 1], **weights, **options, **initial)
                    carried = list(final) if isinstance(final, tuple) else [final]
                    if (here, t) == (place, step):
                        carried[0] = carried[0] + added[n]
                    h[t, n] = carried[0][0]
            outputs.append(h)
        x = np.concatenate(outputs, axis=2)
    return x


def numeric_flow(layer, x, state, lengths, dy, eps=1e-5):
    norms = np.zeros((layer.num_layers * layer.directions, T))
    for place, t in np.ndindex(norms.shape):
        gradient = np.zeros((N, H))
        for unit in range(H):
            added = np.zeros((N, H))
            added[:, unit] = eps  # rows do not meet
            up, down = (output(layer, x, state, lengths, place, t, sign * added) for sign in (1, -1))
            gradient[:, unit] = (dy * (up - down)).sum(axis=(0, 2)) / (2 * eps)
        norms[place, t] = np.linalg.norm(gradient)
    return norms


@pytest.mark.parametrize("lengths", [None, [3, 0, 5]], ids=["full", "ragged"])
@every_cell
def test_against_perturbed_states(rng, kind, lengths):
    layer = make_layer(rng, kind, num_layers=2, bidirectional=True)
    x, dy, state = rng.normal(size=(T, N, D)), rng.normal(size=(T, N, 2 * H)), make_state(rng, layer)
    full = [T] * N if lengths is None else lengths
    np.testing.assert_allclose(output(layer, x, state, full), layer(x, join(layer, state), lengths)[0], atol=1e-12)
    norms = rc.gradient_flow(layer, x, dy, join(layer, state), lengths)
    assert norms.dtype == np.float64
    assert norms.shape == (4, T)
    np.testing.assert_allclose(norms, numeric_flow(layer, x, state, full, dy), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_loss_not_given_is_the_sum_of_the_final_outputs(rng, bidirectional):
    layer = make_layer(rng, "LSTM", num_layers=2, bidirectional=bidirectional)
    x, lengths = rng.normal(size=(T, N, D)), [3, 0, 5]
    dy = np.zeros((T, N, layer.output_size))
    dy[2, 0, :H] = dy[4, 2, :H] = 1
    dy[0, [0, 2], H:] = 1
    np.testing.assert_array_equal(
        rc.gradient_flow(layer, x, lengths=lengths), rc.gradient_flow(layer, x, dy, None, lengths)
    )


@every_cell
def test_one_layer_equals_the_sequence_cut_by_hand(rng, kind):
    """With the sequence cut after step t, dL/dh_t is dy_t and the gradient of the second part's initial state."""
    layer = make_layer(rng, kind)
    x, dy, state = rng.normal(size=(T, N, D)), rng.normal(size=(T, N, H)), make_state(rng, layer)
    expected = []
    for cut in range(1, T + 1):
        _, carried = layer(x[:cut], join(layer, state))
        _, _, cache = layer.forward(x[cut:], carried)
        _, d = layer.backward(dy[cut:], cache)
        dh = d[0] if isinstance(d, tuple) else d
        expected.append(np.linalg.norm(dy[cut - 1] + dh[0]))
    norms = rc.gradient_flow(layer, x, dy, join(layer, state))
    np.testing.assert_allclose(norms, [expected], rtol=1e-12)


def test_half_the_identity_halves_the_gradient_every_step():
    layer = rc.RNN(D, H, activation="identity", dtype="float64", seed=0)
    layer.params["Wh_0"][...] = 0.5 * np.eye(H)
    norms = rc.gradient_flow(layer, np.ones((T, 1, D)))
    np.testing.assert_array_equal(norms, [2 * 0.5 ** np.arange(T)[::-1]])  # sqrt(H) = 2


@every_cell
def test_layer_and_arguments_stay_as_they_are(rng, kind):
    layer = make_layer(rng, kind, num_layers=2, bidirectional=True, **dropout_options(kind))
    for grad in layer.grads.values():
        grad[...] = rng.normal(size=grad.shape)
    kept = {name: a.copy() for name, a in layer.grads.items()}, {name: a.copy() for name, a in layer.params.items()}
    x, dy, state = rng.normal(size=(T, N, D)), rng.normal(size=(T, N, 2 * H)), make_state(rng, layer)
    for array in (x, dy, *state):
        array.flags.writeable = False
    norms = rc.gradient_flow(layer, x, dy, join(layer, state))
    np.testing.assert_array_equal(rc.gradient_flow(layer, x, dy, join(layer, state)), norms)  # nothing is drawn
    for arrays, before in zip((layer.grads, layer.params), kept, strict=True):
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, before[name], err_msg=name)


@every_cell
def test_padding_changes_nothing(rng, kind):
    layer = make_layer(rng, kind, num_layers=2, bidirectional=True)
    x, dy, lengths = rng.normal(size=(T, N, D)), rng.normal(size=(T, N, 2 * H)), np.array([4, 0, 3])
    norms = rc.gradient_flow(layer, x, dy, None, lengths)
    np.testing.assert_array_equal(norms[:, 4], 0)
    padding = np.arange(T)[:, None] >= lengths
    x[padding], dy[padding] = np.nan, np.inf
    np.testing.assert_array_equal(rc.gradient_flow(layer, x, dy, None, lengths), norms)


def test_ids_batch_first_and_float32(rng):
    layer = make_layer(rng, "GRU-reset_after", "float32", num_layers=2, bidirectional=True)
    swapped = make_layer(rng, "GRU-reset_after", "float32", num_layers=2, bidirectional=True, batch_first=True)
    for name, value in swapped.params.items():
        value[...] = layer.params[name]
    ids, dy = rng.integers(D, size=(T, N)), rng.normal(size=(T, N, 2 * H))
    norms = rc.gradient_flow(layer, ids, dy)
    assert norms.dtype == np.float64
    np.testing.assert_array_equal(rc.gradient_flow(layer, np.eye(D)[ids], dy), norms)
    np.testing.assert_array_equal(rc.gradient_flow(swapped, ids.T, dy.swapaxes(0, 1)), norms)


@pytest.mark.parametrize("T, N", [(0, 3), (4, 0), (0, 0)])
@every_cell
def test_nothing_flows_through_nothing(rng, kind, T, N):
    layer = make_layer(rng, kind, num_layers=2, bidirectional=True)
    np.testing.assert_array_equal(rc.gradient_flow(layer, np.zeros((T, N, D))), np.zeros((4, T)))


def test_wrong_arguments(rng):
    layer, x = make_layer(rng, "RNN"), np.zeros((T, N, D))
    for arguments, error, message in (
        ((rc.Dense(2, 3), x), TypeError, "layer must be an RNN, GRU, LSTM or MinGRU; got Dense"),
        ((layer, x[0]), ValueError, f"x must be (T, N, input_size) with input_size = {D}; got {(N, D)}"),
        ((layer, x, np.zeros((T, N, 1))), ValueError, f"dy must be {(T, N, H)}; got {(T, N, 1)}"),
        ((layer, x, None, None, [1, 2]), ValueError, f"lengths must be (N,) = {(N,)}; got (2,)"),
        ((layer, x, None, None, [1, 2, 6]), ValueError, f"lengths must lie in [0, T] = [0, {T}]; got 6"),
        (
            (layer, x, None, np.zeros((2, N, H))),
            ValueError,
            f"state h must be (num_layers * directions, N, H) = {(1, N, H)}",
        ),
        ((layer, np.full((T, N), D)), ValueError, f"ids in x must lie in [0, D) = [0, {D}); got {D}"),
    ):
        with pytest.raises(error, match=f"^{re.escape(message)}"):
            rc.gradient_flow(*arguments)


@every_cell
@pytest.mark.parametrize("backend", [rc.functional, reference])
def test_gate_activations_are_those_of_inference(rng, kind, backend):
    """Dropout and checkpoints of the layer change nothing; the state that the gates give is the output."""
    dropped = dropout_options(kind) | {"checkpoint": 2}
    layer = make_layer(rng, kind, num_layers=2, bidirectional=True, seed=0, **dropped)
    layer.backend = backend
    x, lengths, state = rng.normal(size=(T, N, D)), [T, 0, 3], join(layer, make_state(rng, layer))
    found = rc.gate_activations(layer, x, state, lengths)
    assert len(found) == 4
    y, _ = layer(x, state, lengths)
    h0 = np.asarray(state if layer.state_names == ("h",) else state[0])
    for direction, values in enumerate(found[2:]):
        assert set(values) == {*layer.gate_names} | ({"c"} if layer.cell_name == "lstm" else set())
        h = y[..., direction * H : (direction + 1) * H]
        for n, length in enumerate(lengths):
            own = {name: value[:, n] for name, value in values.items()}
            assert all((value[length:] == 0).all() for value in own.values())
            own, h_n = {name: value[:length] for name, value in own.items()}, h[:length, n]
            before = np.concatenate([h0[2 + direction, n][None], h_n[:-1]])[:length]
            if direction:
                before = np.concatenate([h_n[1:], h0[3, n][None]])[:length]
            if layer.cell_name == "lstm":
                wanted = own["o"] * np.tanh(own["c"])
            elif layer.cell_name in ("gru", "mingru"):
                wanted = own["z"] * own["n"] + (1 - own["z"]) * before
            else:
                wanted = own["h"]
            np.testing.assert_allclose(h_n, wanted, atol=1e-12)
    assert {name: getattr(layer, name) for name in dropped} == dropped
    with pytest.raises(TypeError, match="layer must be an RNN, GRU, LSTM or MinGRU; got Dense"):
        rc.gate_activations(rc.Dense(2, 3), x)
