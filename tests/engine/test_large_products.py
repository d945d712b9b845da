"""Products that are cut into slices, between which a call looks for an interrupt: the same as those that are not."""

import numpy as np
import pytest
from support.compare import assert_equal_bits, assert_near

import rnncore as rc


def random(rng, *shape):
    return rng.normal(size=shape) / np.sqrt(shape[-2] if len(shape) > 1 else 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("precision", [None, "frozen", "bfloat16", "int8"])
def test_rows_of_a_wide_step_are_those_of_a_narrow_one(rng, precision, dtype):
    """300 x 520 x 2080 multiplications a step are too many for one slice, a third of them not."""
    layer = rc.LSTM(40, 520, dtype=dtype, seed=0)
    if precision is not None:
        layer = layer.freeze()
    if precision in ("bfloat16", "int8"):
        layer = layer.quantize(precision)
    x = rng.normal(size=(3, 300, 40)).astype(dtype)
    whole, _ = layer(x)
    for begin in (0, 100, 200):
        part, _ = layer(x[:, begin : begin + 100])
        assert_equal_bits(whole[:, begin : begin + 100], part)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gradients_of_many_rows_columns_and_tokens(rng, dtype, order):
    """dWx (4500, 1200) is summed over 600 tokens, and dx (600, 4500) over 1200 columns."""
    x, Wx, Wh, b = random(rng, 1, 600, 4500), random(rng, 4500, 1200), random(rng, 300, 1200), random(rng, 1200)
    dh = rng.normal(size=(1, 600, 300))
    expected = rc.reference.lstm_backward(dh, rc.reference.lstm_forward(x, Wx, Wh, b)[2])
    x, Wx, Wh, b, dh = (
        np.asarray(array, dtype, order=order if array.ndim == 2 else "C") for array in (x, Wx, Wh, b, dh)
    )
    found = rc.lstm_backward(dh, rc.lstm_forward(x, Wx, Wh, b)[2])
    assert_near(found[:6], expected[:6], dtype)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_dense_layer_of_many_rows(rng, dtype, order):
    x, W, dy = rng.normal(size=(3000, 70)), random(rng, 70, 3000), rng.normal(size=(3000, 3000))
    dense = rc.Dense(70, 3000, dtype=dtype, seed=0)
    dense.params["W"] = np.asarray(W, dtype, order=order)
    dense.grads["W"] = np.zeros((70, 3000), dtype, order=order)
    y, cache = dense.forward(x.astype(dtype))
    dx = dense.backward(dy.astype(dtype), cache)
    found = y, dx, *dense.grads.values()
    assert_near(found, (x @ W, dy @ W.T, x.T @ dy, dy.sum(axis=0)), dtype)


@pytest.mark.parametrize("score", ["multiplicative", "additive"])
def test_attention_over_a_long_memory(rng, score):
    """A hundred steps at a time, each product in one slice, have the same bits; sums of their gradients come near."""
    attention = rc.Attention(60, 300, score, dtype="float64", seed=0)
    q, memory, dcontext = rng.normal(size=(700, 1, 60)), rng.normal(size=(900, 1, 300)), rng.normal(size=(700, 1, 300))
    context, weights, cache = attention.forward(q, memory)
    dq, dmemory = attention.backward(dcontext, cache)
    sum_of_dmemory = np.zeros_like(dmemory)
    for t in range(0, 700, 100):
        part, part_weights, cache = attention.forward(q[t : t + 100], memory)
        part_dq, part_dmemory = attention.backward(dcontext[t : t + 100], cache)
        sum_of_dmemory += part_dmemory
        assert_equal_bits(context[t : t + 100], part)
        assert_equal_bits(weights[t : t + 100], part_weights)
        assert_near([dq[t : t + 100]], [part_dq], "float64")
    assert_near([dmemory], [sum_of_dmemory], "float64")
