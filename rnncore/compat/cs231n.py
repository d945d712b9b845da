"""The functions of CS231n assignment 3, ``rnn_layers.py``, on the engine.

With ``from rnncore.compat.cs231n import *`` in place of a student's functions, ``CaptioningRNN`` runs on the engine.
Arguments, their order and results are those of the assignment. Arrays are batch-first, x (N, T, D) and h (N, T, H);
gate blocks are i f o g. Weights are read on every call, inputs are never written to, and results belong to the caller.
A cache is an opaque tuple for the backward function; its entries differ between solutions.

What differs, where the original is wrong or solutions disagree:

* Results have the dtype of the inputs, and so has ``dW`` of the word embedding. In most solutions float32 inputs give
  float64, because of a buffer of zeros. Mixed inputs promote as in NumPy.
* Unlike one solution, ``lstm_step_backward`` does not modify the caller's ``dnext_c``.
* ``dh0`` is an array for T = 0 too; ``temporal_softmax_loss`` of an empty batch is 0, not NaN.
* ``sigmoid`` of integers returns floats, not values truncated to 0 or 1.
* Word ids and labels below 0 raise ValueError; NumPy counts them from the end. Scores and labels where the mask is 0
  are ignored.
* A sequence (N, T, .) may be returned as a view of time-major memory; ``reshape`` then copies it. The gradient of a
  weight in Fortran order is in Fortran order.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from .. import checks, functional, losses
from .._types import Array
from ..engine import native
from ..engine.arrays import as_array, as_ids
from . import layout

__all__ = [
    "affine_backward",
    "affine_forward",
    "lstm_backward",
    "lstm_forward",
    "lstm_step_backward",
    "lstm_step_forward",
    "rnn_backward",
    "rnn_forward",
    "rnn_step_backward",
    "rnn_step_forward",
    "sigmoid",
    "temporal_affine_backward",
    "temporal_affine_forward",
    "temporal_softmax_loss",
    "word_embedding_backward",
    "word_embedding_forward",
]

_lstm_forward = functools.partial(functional.lstm_forward, gate_order="ifog")


def _opened(cache: Any, maker: str) -> tuple[Any, tuple[int, ...]]:
    """Return the engine's cache and the shape of the outputs."""
    cache, shape = layout.parts(cache, 2, maker)
    sizes = checks.sequence("the shape in the cache", shape)
    return cache, tuple(checks.integer("the shape in the cache", size, least=0) for size in sizes)


def rnn_step_forward(
    x: Array, prev_h: Array, Wx: Array, Wh: Array, b: Array
) -> tuple[Array, tuple[Any, tuple[Any, ...]]]:
    """Compute one step of a tanh RNN.

    x (N, D), prev_h (N, H), Wx (D, H), Wh (H, H), b (H,) -> next_h (N, H), cache

    Examples
    --------
    >>> import numpy as np
    >>> next_h, cache = rnn_step_forward(np.ones((1, 2)), np.zeros((1, 1)), np.ones((2, 1)), np.eye(1), np.zeros(1))
    >>> next_h.round(4)
    array([[0.964]])
    """
    x = layout.real("x", x, "ND")
    with checks.named(h0="prev_h"):
        _, next_h, cache = functional.rnn_forward(x[None], *layout.floats(Wx, Wh, b, prev_h))
    return next_h, (cache, next_h.shape)


def rnn_step_backward(dnext_h: Array, cache: tuple[Any, tuple[int, int]]) -> tuple[Array, ...]:
    """dnext_h (N, H), cache of :func:`rnn_step_forward` -> dx (N, D), dprev_h (N, H), dWx, dWh, db"""
    cache, shape = _opened(cache, "rnn_step_forward")
    grads = functional.rnn_backward(None, cache, layout.cotangent("dnext_h", dnext_h, "NH", shape))
    assert grads.dx is not None  # features have a gradient, ids have none
    return grads.dx[0], grads.dh0, grads.dWx, grads.dWh, grads.db


def rnn_forward(x: Array, h0: Array, Wx: Array, Wh: Array, b: Array) -> tuple[Array, tuple[Any, tuple[Any, ...]]]:
    """Run a tanh RNN over a sequence.

    x (N, T, D), h0 (N, H), Wx (D, H), Wh (H, H), b (H,) -> h (N, T, H), cache

    Examples
    --------
    >>> import numpy as np
    >>> h, cache = rnn_forward(np.ones((2, 5, 3)), np.zeros((2, 4)), np.ones((3, 4)), np.eye(4), np.zeros(4))
    >>> dx, dh0, dWx, dWh, db = rnn_backward(np.ones_like(h), cache)
    >>> h.shape, dx.shape, dWx.shape
    ((2, 5, 4), (2, 5, 3), (3, 4))
    """
    x = layout.swap(layout.real("x", x, "NTD"))
    h, _, cache = functional.rnn_forward(x, *layout.floats(Wx, Wh, b, h0))
    h = layout.swap(h)
    return h, (cache, h.shape)


def rnn_backward(dh: Array, cache: tuple[Any, tuple[int, int, int]]) -> tuple[Array, ...]:
    """dh (N, T, H), gradient of every step's output, cache -> dx (N, T, D), dh0 (N, H), dWx, dWh, db"""
    cache, shape = _opened(cache, "rnn_forward")
    grads = functional.rnn_backward(layout.swap(layout.cotangent("dh", dh, "NTH", shape)), cache)
    return layout.swap(grads.dx), grads.dh0, grads.dWx, grads.dWh, grads.db


def lstm_step_forward(
    x: Array, prev_h: Array, prev_c: Array, Wx: Array, Wh: Array, b: Array
) -> tuple[Array, Array, tuple[Any, tuple[Any, ...]]]:
    """Compute one step of an LSTM, gate blocks i f o g.

    x (N, D), prev_h and prev_c (N, H), Wx (D, 4H), Wh (H, 4H), b (4H,) -> next_h, next_c (N, H), cache

    Examples
    --------
    >>> import numpy as np
    >>> zeros = np.zeros((1, 1))
    >>> next_h, next_c, cache = lstm_step_forward(zeros, zeros, np.ones((1, 1)), *np.zeros((2, 1, 4)), np.zeros(4))
    >>> next_c
    array([[0.5]])
    """
    x = layout.real("x", x, "ND")
    with checks.named(h0="prev_h", c0="prev_c"):
        _, (next_h, next_c), cache = _lstm_forward(x[None], *layout.floats(Wx, Wh, b, prev_h, prev_c))
    return next_h, next_c, (cache, next_h.shape)


def lstm_step_backward(dnext_h: Array, dnext_c: Array | int, cache: tuple[Any, tuple[int, int]]) -> tuple[Array, ...]:
    """dnext_h, dnext_c (N, H), cache of :func:`lstm_step_forward` -> dx, dprev_h, dprev_c, dWx, dWh, db"""
    cache, shape = _opened(cache, "lstm_step_forward")
    dnext_h = layout.cotangent("dnext_h", dnext_h, "NH", shape)
    dnext_c = layout.cotangent("dnext_c", dnext_c, "NH", shape)
    grads = functional.lstm_backward(None, cache, dnext_h, dnext_c)
    assert grads.dx is not None  # features have a gradient, ids have none
    return grads.dx[0], grads.dh0, grads.dc0, grads.dWx, grads.dWh, grads.db


def lstm_forward(x: Array, h0: Array, Wx: Array, Wh: Array, b: Array) -> tuple[Array, tuple[Any, tuple[Any, ...]]]:
    """Run an LSTM over a sequence, gate blocks i f o g; the cell state starts at zero.

    x (N, T, D), h0 (N, H), Wx (D, 4H), Wh (H, 4H), b (4H,) -> h (N, T, H), cache

    Examples
    --------
    >>> import numpy as np
    >>> h, cache = lstm_forward(np.ones((2, 5, 3)), np.zeros((2, 4)), np.ones((3, 16)), np.ones((4, 16)), np.zeros(16))
    >>> dx, dh0, dWx, dWh, db = lstm_backward(np.ones_like(h), cache)
    >>> h.shape, dx.shape, dWx.shape
    ((2, 5, 4), (2, 5, 3), (3, 16))
    """
    x = layout.swap(layout.real("x", x, "NTD"))
    h, _, cache = _lstm_forward(x, *layout.floats(Wx, Wh, b, h0))
    h = layout.swap(h)
    return h, (cache, h.shape)


def lstm_backward(dh: Array, cache: tuple[Any, tuple[int, int, int]]) -> tuple[Array, ...]:
    """dh (N, T, H), gradient of every step's output, cache -> dx (N, T, D), dh0 (N, H), dWx, dWh, db"""
    cache, shape = _opened(cache, "lstm_forward")
    grads = functional.lstm_backward(layout.swap(layout.cotangent("dh", dh, "NTH", shape)), cache)
    return layout.swap(grads.dx), grads.dh0, grads.dWx, grads.dWh, grads.db


def word_embedding_forward(x: Array, W: Array) -> tuple[Array, tuple[Array, tuple[Any, ...], np.dtype[Any]]]:
    """Look up rows of W (V, D) by integer ids x, (N, T) or any shape -> out (N, T, D), cache

    Examples
    --------
    >>> import numpy as np
    >>> out, cache = word_embedding_forward(np.array([[0, 2, 2]]), np.arange(6.0).reshape(3, 2))
    >>> out[0, 1], word_embedding_backward(np.ones_like(out), cache)[:, 0]
    (array([4., 5.]), array([1., 0., 2.]))
    """
    W, x = layout.real("W", W, "VD"), as_array("x", x)
    if x.dtype.kind not in "biu":
        raise TypeError(f"x must be integer ids; got dtype {x.dtype}")
    ids = as_ids(x, len(W), "ids in x", "V")
    return np.take(W, ids, axis=0), (ids, W.shape, W.dtype)


def word_embedding_backward(dout: Array, cache: tuple[Array, tuple[int, int], np.dtype[Any]]) -> Array:
    """dout (N, T, D), cache -> dW (V, D); gradients of repeated words add up"""
    ids, shape, dtype = layout.parts(cache, 3, "word_embedding_forward")
    V, D = layout.parts(shape, 2, "word_embedding_forward")
    ids = as_array("cache", ids)
    if ids.dtype.kind not in "biu":
        raise TypeError(f"cache must hold integer ids; got dtype {ids.dtype}")
    ids = as_ids(ids, checks.integer("V in the cache", V, least=0), "ids in the cache", "V")
    shape = (*ids.shape, D)
    dout = layout.numbers("dout", dout)
    if dout.shape != shape:
        raise ValueError(f"dout must be (N, T, D) = {shape}; got {dout.shape}")
    dW = np.zeros((V, D), np.result_type(dtype, np.float32))
    native.scatter_add(ids.reshape(-1), dout.reshape(ids.size, D), dW)
    return dW


def sigmoid(x: Array) -> Array:
    """Logistic function of an array; large values of either sign do not overflow.

    Examples
    --------
    >>> import numpy as np
    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0]))
    array([0. , 0.5, 1. ])
    """
    return losses.sigmoid(layout.numbers("x", x))


def affine_forward(x: Array, w: Array, b: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    """Affine map: x (N, d1, ..., dk), flattened to (N, D), w (D, M), b (M,) -> out (N, M), cache

    Examples
    --------
    >>> import numpy as np
    >>> out, cache = affine_forward(np.ones((2, 3, 4)), np.ones((12, 5)), np.zeros(5))
    >>> dx, dw, db = affine_backward(out, cache)
    >>> float(out[0, 0]), dx.shape, dw.shape
    (12.0, (2, 3, 4), (12, 5))
    """
    x = as_array("x", x)
    if x.ndim < 1:
        raise ValueError("x must be (N, d1, ..., dk); got a number")
    x = layout.real("x", x, "N" + "d" * (x.ndim - 1))
    return _affine(x.reshape(len(x), math.prod(x.shape[1:])), w, b), (x, w, b)


def affine_backward(dout: Array, cache: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    """dout (N, M), cache -> dx of x's shape, dw (D, M), db (M,)"""
    x, w, b = map(layout.numbers, "xwb", layout.parts(cache, 3, "affine_forward"))
    dout = layout.cotangent("dout", dout, "NM", (len(x), len(b)))
    dx, dw, db = _affine_gradients(x.reshape(len(x), len(w)), w, b, dout)
    return dx.reshape(x.shape), dw, db


def temporal_affine_forward(x: Array, w: Array, b: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    """Apply the same affine map at every step: x (N, T, D), w (D, M), b (M,) -> out (N, T, M), cache

    Examples
    --------
    >>> import numpy as np
    >>> out, cache = temporal_affine_forward(np.ones((2, 3, 4)), np.ones((4, 5)), np.zeros(5))
    >>> dx, dw, db = temporal_affine_backward(out, cache)
    >>> out.shape, dx.shape, dw.shape, db.tolist()
    ((2, 3, 5), (2, 3, 4), (4, 5), [24.0, 24.0, 24.0, 24.0, 24.0])
    """
    x = layout.real("x", x, "NTD")
    N, T, D = x.shape
    rows = _as_it_lies(x, x)
    out = _affine(rows.reshape(N * T, D), w, b)
    return _as_it_lies(out.reshape(*rows.shape[:2], out.shape[1]), x), (x, w, b)


def temporal_affine_backward(dout: Array, cache: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    """dout (N, T, M), cache -> dx (N, T, D), dw (D, M), db (M,)"""
    x, w, b = map(layout.numbers, "xwb", layout.parts(cache, 3, "temporal_affine_forward"))
    N, T, D = layout.real("x", x, "NTD").shape
    dout = _as_it_lies(layout.cotangent("dout", dout, "NTM", (N, T, len(b))), x)
    rows = _as_it_lies(x, x)
    dx, dw, db = _affine_gradients(rows.reshape(N * T, D), w, b, dout.reshape(N * T, len(b)))
    return _as_it_lies(dx.reshape(rows.shape), x), dw, db


def _as_it_lies(array: Array, x: Array) -> Array:
    """Swap the first two axes if x is time-major in memory, so that its rows need no copy."""
    return layout.swap(array) if layout.swap(x).flags.c_contiguous and not x.flags.c_contiguous else array


def _affine(rows: Array, w: Array, b: Array) -> Array:
    with checks.named(W="w"):
        return native.affine_forward(rows, layout.real("w", w, "DM"), layout.real("b", b, "M"))


def _affine_gradients(rows: Array, w: Array, b: Array, dout: Array) -> tuple[Array, Array, Array]:
    dtype = np.result_type(rows, w, b, np.float32)
    dw, db = np.zeros(np.shape(w), dtype), np.zeros(np.shape(b), dtype)
    return native.affine_backward(rows, layout.real("w", w, "DM"), dout, dw, db), dw, db


def temporal_softmax_loss(x: Array, y: Array, mask: Array, verbose: bool = False) -> tuple[float, Array]:
    """Cross-entropy of the steps where the mask is set, summed over time and averaged over the batch.

    Parameters
    ----------
    x : array (N, T, V)
        Scores.
    y : integer array (N, T)
        Labels in [0, V).
    mask : bool array (N, T)
        Steps that count; numbers are weights.
    verbose : bool
        Print the shape of the gradient.

    Returns
    -------
    loss : float
    dx : ndarray (N, T, V)

    Examples
    --------
    >>> import numpy as np
    >>> loss, dx = temporal_softmax_loss(np.zeros((1, 2, 4)), np.array([[3, 0]]), np.array([[True, False]]))
    >>> round(loss, 4), dx[0].tolist()
    (1.3863, [[0.25, 0.25, 0.25, -0.75], [0.0, 0.0, 0.0, 0.0]])
    """
    x = layout.real("x", x, "NTV")
    weights = layout.real("mask", mask, "NT", x.shape[:2]) / max(len(x), 1)
    y = as_array("y", y)
    if y.shape != x.shape[:2]:
        raise ValueError(f"y must be (N, T) = {x.shape[:2]}; got {y.shape}")
    with checks.named(targets="y", weights="mask"):
        loss, dx = losses.softmax_cross_entropy(
            *(_as_it_lies(array, x) for array in (x, y)), weights=_as_it_lies(weights, x), reduction="sum"
        )
    if checks.flag("verbose", verbose):
        print("dx_flat: ", (x.shape[0] * x.shape[1], x.shape[2]))
    return loss, _as_it_lies(dx, x)
