"""What layers refuse."""

import numpy as np
import pytest
from support.compare import literally
from support.layers import D, H, N, T, each_cell, join, make_layer, make_state

import rnncore as rc

# ---- errors --------------------------------------------------------------------------------------------------------


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


@each_cell
def test_caches_of_other_layers(rng, kind):
    layers = {
        (num_layers, directions): make_layer(rng, kind, num_layers=num_layers, bidirectional=directions == 2)
        for num_layers in (1, 2, 3)
        for directions in (1, 2)
    }
    for own, layer in layers.items():
        for other, maker in layers.items():
            _, _, cache = maker.forward(rng.normal(size=(T, N, D)))
            dy = np.zeros((T, N, layer.output_size))
            if own == other:
                layer.backward(dy, cache)
                continue
            wanted = "cache must be of num_layers x directions = {} x {}, as the layer is; got {} x {}"
            with pytest.raises(ValueError, match=literally(wanted.format(*own, *other))):
                layer.backward(dy, cache)
    assert all(np.abs(g).max() == 0 for layer in layers.values() for g in layer.grads.values())


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
