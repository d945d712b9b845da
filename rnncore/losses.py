"""Losses per step, masked by length, together with their gradient."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from . import checks
from ._types import Array
from .engine import native
from .engine.arrays import as_array, as_floating, as_lengths, converted
from .layers import Dense
from .layers.simple import QuantizedDense

__all__ = ["fused_softmax_cross_entropy", "sigmoid_cross_entropy", "softmax_cross_entropy"]

Reduction = Literal["mean", "sum", "none"]


def sigmoid(x: Array) -> Array:
    """``1 / (1 + exp(-x))`` of an array of any shape, without overflow for large values of either sign."""
    decay = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, decay) / (1 + decay)


def softmax_cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    out: Array | None = None,
) -> tuple[Any, Array]:
    """``-log softmax(y)[target]`` at every valid step, and its gradient ``softmax(y) - onehot(target)``.

    Parameters
    ----------
    logits : float array (T, N, V), or any (..., V) without lengths
    targets : integer array (T, N), or (...)
        Ids in [0, V).
    lengths : integer array (N,), optional
        Steps t >= lengths[n] count for nothing: what stands in ``logits`` and ``targets`` there does not matter.
    weights : array (T, N), or (...), optional
        How much each step counts, finite and >= 0; all the same if None. A step of weight 0 is as good as padded.
    reduction : {"mean", "sum", "none"}
        "mean" is ``sum(weights * loss) / sum(weights)`` over the valid steps, 0 if there are none, "sum" is
        ``sum(weights * loss)``. With "none" ``weights * loss`` of every step comes back, and the gradient is that
        of their sum.
    out : array like logits, optional
        Where the gradient goes; may be ``logits`` itself, which saves its memory.

    Returns
    -------
    loss : float (nats), or float64 array (T, N) for "none"
        inf where the logit of the target is -inf; NaN at a step with NaN, inf, or -inf alone.
    dlogits : ndarray like logits
        Gradient of the loss; 0 at padded steps, NaN where the loss is.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype, target, length, weight or reduction is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> loss, dlogits = softmax_cross_entropy(np.zeros((1, 1, 4)), np.array([[2]]))
    >>> round(loss, 4), dlogits[0, 0].tolist()
    (1.3863, [0.25, 0.25, -0.75, 0.25])

    Rare classes count more:

    >>> targets = np.array([[2], [1]])
    >>> weights = np.array([1.0, 3.0, 1.0, 1.0])[targets]
    >>> _, dlogits = softmax_cross_entropy(np.zeros((2, 1, 4)), targets, weights=weights)
    >>> dlogits[1, 0].tolist()
    [0.1875, -0.5625, 0.1875, 0.1875]
    """
    given, logits = logits, as_floating("logits", logits)
    V = logits.shape[-1] if logits.ndim else 0
    targets, weights, scale = _clean_targets("logits", logits, targets, V, lengths, weights, reduction)
    if out is None:
        out = np.empty_like(logits, dtype=np.result_type(logits, np.float32), order="C")
    else:
        _check_out(out, logits.shape)
    rows = out.view().reshape(targets.size, V)
    if out is not given:
        rows[...] = converted(logits.reshape(rows.shape), rows.dtype)
    losses = native.softmax_cross_entropy_rows(rows, targets, weights * scale)
    return _reduce(losses, weights, scale, reduction), out


def fused_softmax_cross_entropy(
    dense: Dense,
    x: ArrayLike,
    targets: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
    training: bool = True,
) -> tuple[Any, Array | None]:
    """:func:`softmax_cross_entropy` of the output of a :class:`rnncore.Dense` layer, and its backward pass, in one.

    The logits exist for some rows at a time only, so that a large vocabulary needs no (T, N, V) array.

    Parameters
    ----------
    dense : Dense
        Output layer; the gradients are added to ``dense.grads``.
    x : float array (T, N, H), or any (..., H) without lengths
        Its input.
    targets, lengths, weights, reduction
        As in :func:`softmax_cross_entropy`.
    training : bool, default True
        False computes the loss only.

    Returns
    -------
    loss : float (nats), or float64 array (T, N) for "none"
    dx : ndarray like x, or None
        Gradient of the loss; 0 at padded steps.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype, target, length, weight or reduction is wrong.

    Examples
    --------
    >>> import numpy as np, rnncore as rc
    >>> dense = rc.Dense(3, 4, seed=0)
    >>> loss, dx = fused_softmax_cross_entropy(dense, np.zeros((2, 1, 3)), np.array([[2], [1]]))
    >>> round(loss, 4), dx.shape, dense.grads["b"].tolist()
    (1.3863, (2, 1, 3), [0.25, -0.25, -0.25, 0.25])
    """
    training = checks.flag("training", training)
    if training:
        checks.instance("dense", dense, Dense, "a Dense layer, which has gradients")
    else:
        checks.instance("dense", dense, (Dense, QuantizedDense), "a Dense layer")
    x = converted(as_floating("x", x), dense.dtype)
    if x.ndim < 1 or x.shape[-1] != dense.input_size:
        raise ValueError(f"x must be (..., input_size) = (..., {dense.input_size}); got {x.shape}")
    targets, weights, scale = _clean_targets("x", x, targets, dense.output_size, lengths, weights, reduction)
    if not weights.all():
        # What stands at steps that do not count may be NaN, which a weight of 0 does not take out of a sum.
        x = np.where((weights != 0)[..., None], x, dense.dtype.type(0))
    losses, dx = native.softmax_head(
        x.reshape(targets.size, dense.input_size),
        *dense.weights(),
        targets.reshape(-1),
        (weights * scale).reshape(-1),
        *((dense.grads["W"], dense.grads["b"], dense.shards) if training else ()),
    )
    loss = _reduce(losses.reshape(targets.shape), weights, scale, reduction)
    return loss, None if dx is None else dx.reshape(x.shape)


def sigmoid_cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    reduction: Reduction = "mean",
) -> tuple[Any, Array]:
    """``-t log sigmoid(y) - (1-t) log(1 - sigmoid(y))`` summed over the labels of a step, and its gradient.

    Parameters
    ----------
    logits : float array (T, N, K), or any (..., K) without lengths
        K labels a step that do not exclude each other; K = 1 is the binary label of the course.
    targets : array like logits
        Probabilities in [0, 1]; 0 and 1 for labels.
    lengths : integer array (N,), optional
        Steps t >= lengths[n] count for nothing.
    weights, reduction
        As in :func:`softmax_cross_entropy`.

    Returns
    -------
    loss : float (nats), or float64 array (T, N) for "none"
    dlogits : ndarray like logits
        Gradient of the loss; 0 at padded steps.

    Raises
    ------
    ValueError, TypeError
        A shape, dtype, target, length, weight or reduction is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> loss, dlogits = sigmoid_cross_entropy(np.zeros((1, 1, 1)), np.ones((1, 1, 1)))
    >>> round(loss, 4), dlogits.tolist()
    (0.6931, [[[-0.5]]])
    """
    logits = as_floating("logits", logits)
    targets = as_array("targets", targets)
    if targets.dtype.kind not in "biuf":
        raise TypeError(f"targets must be numbers in [0, 1]; got dtype {targets.dtype}")
    if targets.shape != logits.shape or logits.ndim < 1:
        raise ValueError(f"targets must have the shape of logits, {logits.shape}; got {targets.shape}")
    weights, scale = _weights(logits.shape[:-1], lengths, weights, reduction)
    valid = (weights != 0)[..., None]
    y = np.where(valid, logits, 0).astype(np.result_type(logits, np.float32), copy=False)
    t = np.where(valid, targets, 0)
    wrong = ~((t >= 0) & (t <= 1))
    if wrong.any():
        raise ValueError(f"targets must lie in [0, 1]; got {t[wrong].flat[0]}")
    t = t.astype(y.dtype)
    # log(1 + exp(y)) - t y, written so that exp never overflows
    decay = np.exp(-np.abs(y))
    with np.errstate(invalid="ignore", over="ignore"):  # of infinite logits
        losses = (np.maximum(y, 0) - t * y + np.log1p(decay)).sum(axis=-1, dtype=np.float64)
    dlogits = (np.where(y >= 0, 1, decay) / (1 + decay) - t) * (weights * scale)[..., None].astype(y.dtype)
    return _reduce(losses, weights, scale, reduction), dlogits


def _clean_targets(
    name: str,
    array: Array,
    targets: ArrayLike,
    V: int,
    lengths: ArrayLike | None,
    weights: ArrayLike | None,
    reduction: str,
) -> tuple[Array, Array, float]:
    """Return int64 targets in the shape of the steps, 0 where they do not count, the weights and the scale."""
    targets = as_array("targets", targets)
    if targets.dtype.kind not in "iu":
        raise TypeError(f"targets must be integer ids; got dtype {targets.dtype}")
    shape = array.shape[:-1]
    if not array.ndim or targets.shape != shape:
        raise ValueError(f"targets must have the shape of {name} without its last axis, {shape}; got {targets.shape}")
    weights, scale = _weights(shape, lengths, weights, reduction)
    targets = np.where(weights != 0, targets, 0)  # a copy, so that what is checked is what is used
    wrong = (targets < 0) | (targets >= V)
    if (wrong & (weights != 0)).any():
        raise ValueError(f"targets must lie in [0, V) = [0, {V}); got {int(targets[wrong].flat[0])}")
    return targets.astype(np.int64, order="C"), weights, scale


def _check_out(out: Any, shape: Any) -> None:
    fits = isinstance(out, np.ndarray) and out.shape == shape and out.dtype in (np.float32, np.float64)
    if fits and not out.flags.writeable:
        raise ValueError("out must be writeable; got a read-only array")
    if not fits or not out.flags.carray:
        got = f"{out.shape} {out.dtype}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ValueError(f"out must be a C-contiguous float array of shape {shape}; got {got}")


def _weights(
    shape: tuple[int, int], lengths: ArrayLike | None, weights: ArrayLike | None, reduction: str
) -> tuple[Array, float]:
    """Return the float64 weight of every step, 0 where it does not count, and the factor of loss and gradient."""
    checks.choice("reduction", reduction, get_args(Reduction))
    valid = np.ones(shape, dtype=bool)
    if lengths is not None:
        if len(shape) != 2:
            raise ValueError(f"lengths need logits of shape (T, N, V); got {len(shape) + 1} axes")
        T, N = shape
        valid[:] = np.arange(T)[:, None] < as_lengths(lengths, T, N)
    weights = valid if weights is None else as_array("weights", weights)
    if weights.dtype.kind not in "biuf":
        raise TypeError(f"weights must be real numbers; got dtype {weights.dtype}")
    if weights.shape != shape:
        raise ValueError(f"weights must have the shape of the steps, {shape}; got {weights.shape}")
    weights = np.where(valid, weights, 0).astype(np.float64, order="C")
    wrong = ~((weights >= 0) & (weights < np.inf))
    if wrong.any():
        raise ValueError(f"weights must be finite and not negative; got {weights[wrong].flat[0]}")
    scale = 1.0
    if reduction == "mean":
        weights /= weights.max(initial=0) or 1  # a mean asks for ratios only; the sum is now >= 1 or 0, and finite
        scale = 1 / max(weights.sum(), 1)
    return weights, scale


def _reduce(losses: Array, weights: Array, scale: float, reduction: str) -> Any:
    with np.errstate(over="ignore"):  # losses of float64 logits of size 1e308
        losses *= weights
        return losses if reduction == "none" else float(losses.sum() * scale)
