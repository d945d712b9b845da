"""Subnormal numbers count as zero in all native calls, so that they cost nothing; `bench/subnormals.py` measures it."""

import platform

import numpy as np
import pytest
from support.functions import every_dtype

import rnncore as rc

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64", "aarch64", "arm64"), reason="needs a processor with flush to zero"
)

T, N, D = 40, 8, 5


def tiny(shape, dtype):
    """Subnormal numbers of both signs."""
    signs = np.random.default_rng(0).choice([-1, 1], size=shape)
    return (signs * np.finfo(dtype).tiny / 8).astype(dtype)


def ones(*shape, dtype):
    return np.ones(shape, dtype)


def cell(dtype):
    arguments = tiny((T, N, D), dtype), ones(D, D, dtype=dtype), np.zeros((D, D), dtype), np.zeros(D, dtype)
    h, _, cache = rc.rnn_forward(*arguments, activation="identity")
    return [h, *rc.rnn_backward(tiny(h.shape, dtype), cache)]


def dense(dtype):
    layer = rc.Dense(D, D, dtype=dtype, seed=0)
    x = tiny((T, N, D), dtype)
    _, cache = layer.forward(ones(T, N, D, dtype=dtype))
    return [layer(x), layer.backward(x, cache), *layer.grads.values()]


def embedding(dtype):
    layer = rc.Embedding(3, D, dtype=dtype, seed=0)
    _, cache = layer.forward(np.zeros((T, N), int))
    layer.backward(tiny((T, N, D), dtype), cache)
    return [layer.grads["W"]]


def attention(dtype):
    layer = rc.Attention(D, D, "additive", dtype=dtype, seed=0)
    query = ones(T, N, D, dtype=dtype)
    context, _, cache = layer.forward(query, tiny((T, N, D), dtype))
    return [layer.backward(tiny(context.shape, dtype), cache)[0]]


def softmax(dtype):
    options = {"weights": tiny_weights(dtype), "reduction": "sum"}
    return [rc.softmax_cross_entropy(ones(T, N, D, dtype=dtype), np.zeros((T, N), int), **options)[1]]


def tiny_weights(dtype):
    return np.full((T, N), np.finfo(dtype).tiny / 8)


def ctc(dtype):
    return [rc.ctc_loss(ones(T, N, D, dtype=dtype), [[1]] * N, weights=tiny_weights(dtype)[0], reduction="sum")[1]]


def crf(dtype):
    tags, weights = np.zeros((T, N), int), tiny_weights(dtype)[0]
    emissions, transitions = ones(T, N, D, dtype=dtype), np.zeros((D, D), dtype)
    return [rc.crf_loss(emissions, transitions, tags, weights=weights, reduction="sum")[1]]


def norm(dtype):
    return [np.array(rc.clip_by_global_norm([tiny(50, dtype)], 1.0))]


def optimizers(dtype):
    for kind in (rc.SGD, rc.RMSProp, rc.Adagrad, rc.Adam):
        p = tiny(50, dtype)
        kind({"p": p}).step({"p": np.zeros(50, dtype)})
        yield p


@pytest.mark.parametrize("threads", [1, 4])
@every_dtype
@pytest.mark.parametrize("call", [cell, dense, embedding, attention, softmax, ctc, crf, norm, optimizers])
def test_subnormal_numbers_are_zero(call, dtype, threads, restore_threads):
    rc.set_num_threads(threads)
    for array in call(dtype):
        np.testing.assert_array_equal(array, 0)
    # NumPy still computes with them.
    assert (tiny(3, dtype) * ones(3, dtype=dtype) != 0).all()
