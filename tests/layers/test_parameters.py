"""Parameters and their gradients, initial values."""

import numpy as np
import pytest
from support.layers import (
    RECURRENT,
    D,
    N,
    T,
    every_dtype,
    every_layer,
    join,
    make_layer,
    make_state,
    with_recurrent_weights,
)

import rnncore as rc


def every_kind_of_layer():
    yield rc.Embedding(6, 3, dtype="float64", seed=0), np.array([[1, 4], [4, 0]])
    yield rc.Dense(2, 3, dtype="float64", seed=0), np.ones((2, 3, 2))
    for layer_class, options in RECURRENT.values():
        layer = layer_class(2, 3, num_layers=2, bidirectional=True, dtype="float64", seed=0, **options)
        yield layer, np.ones((4, 2, 2))


# ---- parameters and gradients --------------------------------------------------------------------------------------


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


def gate_blocks(layer, name):
    return np.split(layer.params[name], layer.num_gates, axis=-1)


# ---- initial values ------------------------------------------------------------------------------------------------


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
