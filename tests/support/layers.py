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
    """The tuple of a state as the layer takes it; None stays."""
    return state if state is None or len(layer.state_names) > 1 else state[0]


def split(layer, state):
    return state if len(layer.state_names) > 1 else (state,)


def results_of(layer, x, state, lengths, dy, dstate):
    """-> dict of the output, of every final state, and of the gradients of x, of every state and of every parameter."""
    layer.zero_grad()
    y, final, cache = layer.forward(x, join(layer, state), lengths)
    return {"y": y, **named(layer, "final", final), **backward_of(layer, dy, cache, dstate)}


def backward_of(layer, dy, cache, dstate):
    """-> dict of the gradients of x, of every state and, added to those in the layer, of every parameter."""
    dx, dinitial = layer.backward(dy, cache, join(layer, dstate))
    gradients = {"x": dx, **named(layer, "state", dinitial), **layer.grads}
    return {name: None if g is None else g.copy() for name, g in gradients.items()}


def named(layer, word, state):
    return {f"{word} {k}": array for k, array in enumerate(split(layer, state))}


def gradients_of(layer, *given):
    """-> dict of the gradients of x, of every state and of every parameter."""
    results = results_of(layer, *given)
    return {name: g for name, g in results.items() if name != "y" and not name.startswith("final")}
