"""Recurrent layers with random parameters, and their gradients against central differences."""

import pytest
from support.compare import TOLERANCE
from support.problems import VARIANTS

import rnncore as rc

T, N, D, H = 5, 3, 2, 4

#: Every combination of options of every cell, as VARIANTS without other orders of the gates: the layer class, options.
RECURRENT = {
    name: (getattr(rc, variant.cell.label), variant.options)
    for name, variant in VARIANTS.items()
    if not name.endswith(variant.cell.gate_orders[1:])
}

every_layer = pytest.mark.parametrize("kind", RECURRENT)
each_cell = pytest.mark.parametrize(
    "kind", ["rnn-tanh", "gru-reset_after-old", "lstm-peephole-current-tanh", "mingru-positive"]
)
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
