"""Embedding and Dense."""

import itertools

import numpy as np
import pytest
from support.compare import TOLERANCE
from support.gradcheck import check_gradients
from support.isas import DEFAULT
from support.layers import every_dtype

import rnncore as rc


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
        rc.use_isa(DEFAULT)
