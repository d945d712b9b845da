"""Recurrent layers with random parameters, and their gradients against central differences."""

import numpy as np
import pytest
from support.compare import TOLERANCE
from support.problems import VARIANTS

import rnncore as rc
from rnncore import reference

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


def plain_results(layer, cache, x, state, lengths, dy, dstate):
    """`results_of`, by a loop over the functions of the reference; ``cache`` is asked for the masks of dropout only."""
    forward, backward = (getattr(reference, f"{layer.cell_name}_{way}") for way in ("forward", "backward"))
    names, directions, H = layer.state_names, range(layer.directions), layer.hidden_size
    if layer.batch_first:
        x, dy = x.swapaxes(0, 1), dy.swapaxes(0, 1)
    suffixes = [f"_{k}{'_reverse' if d else ''}" for k in range(layer.num_layers) for d in directions]
    finals, caches = [], []
    for k in range(layer.num_layers):
        outputs = []
        for place in (k * layer.directions + d for d in directions):
            weights = {name: layer.params[name + suffixes[place]] for name in layer.variant.shapes(1, 1)}
            initial = {} if state is None else {f"{n}0": s[place] for n, s in zip(names, state, strict=True)}
            mask = {"recurrent_mask": cache.recurrent_masks[place]} if cache.recurrent_masks else {}
            options = {"lengths": lengths, "reverse": place % layer.directions == 1, **layer.options()}
            h, final, of_cell = forward(x, **weights, **initial, **mask, **options)
            outputs.append(h)
            finals.append(split(layer, final))
            caches.append(of_cell)
        x = np.concatenate(outputs, axis=2)
        if cache.masks and k < layer.num_layers - 1:
            x = x * cache.masks[k]
    results = {"y": x} | {f"final {k}": np.stack(parts) for k, parts in enumerate(zip(*finals, strict=True))}
    dinitials = [None] * len(suffixes)
    for k in reversed(range(layer.num_layers)):
        if cache.masks and k < layer.num_layers - 1:
            dy = dy * cache.masks[k]
        dx = None
        for d in directions:
            place = k * layer.directions + d
            dfinals = {} if dstate is None else {f"d{n}_n": s[place] for n, s in zip(names, dstate, strict=True)}
            gradients = backward(dy[..., d * H : (d + 1) * H], caches[place], **dfinals)
            results |= {name + suffixes[place]: getattr(gradients, f"d{name}") for name in layer.variant.shapes(1, 1)}
            dinitials[place] = [getattr(gradients, f"d{n}0") for n in names]
            if gradients.dx is not None:
                dx = gradients.dx if dx is None else dx + gradients.dx
        dy = dx
    results |= {f"state {k}": np.stack(parts) for k, parts in enumerate(zip(*dinitials, strict=True))}
    results["x"] = dx
    if layer.batch_first:
        results |= {name: results[name].swapaxes(0, 1) for name in ("x", "y") if results[name] is not None}
    return results
