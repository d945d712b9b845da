"""Gradients of whole stacks against central differences; a layer learns."""

import numpy as np
import pytest
from support.gradcheck import check_gradients
from support.layers import (
    CLOSE,
    RECURRENT,
    D,
    H,
    N,
    T,
    each_cell,
    every_layer,
    gradients_of,
    join,
    make_layer,
    make_state,
    split,
    with_recurrent_weights,
)

import rnncore as rc
from rnncore import functional, reference


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
    check_gradients(f, arguments, cotangents, gradients, directions=3)


# ---- gradients of recurrent layers ---------------------------------------------------------------------------------


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


# ---- learning ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["rnn-tanh", "gru-reset_before-new", "lstm-plain-current-tanh", "lstm-peephole-current-tanh"]
)
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
