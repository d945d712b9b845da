"""Recurrent layers with random parameters, and their gradients against central differences."""

import pytest
from support.compare import TOLERANCE

import rnncore as rc

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
