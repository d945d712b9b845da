"""Connectionist temporal classification (Graves et al. 2006), in log space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._types import Array


def ctc_loss(
    logits: ArrayLike,
    targets: Sequence[ArrayLike],
    lengths: ArrayLike | None = None,
    blank: int = 0,
    *,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    zero_infinity: bool = False,
    training: bool = True,
) -> tuple[Any, Array | None]:
    """Return the loss of labels whose place in the frames is unknown, and its gradient.

    Equations, for a sequence of labels l (L,), s = blank l_0 blank l_1 ... l_{L-1} blank (S = 2L+1,), and
    p_t = softmax(y_t)::

        a_t(j) = (a_{t-1}(j) + a_{t-1}(j-1) + [s_j is no blank and not s_{j-2}] a_{t-1}(j-2)) p_t(s_j)
        b_t(j) = sum over the states i that may follow j of b_{t+1}(i) p_{t+1}(s_i)
        P = a_{T-1}(S-1) + a_{T-1}(S-2),     loss = -log P
        d loss / d y_t(v) = p_t(v) - sum over j with s_j = v of a_t(j) b_t(j) / P

    Parameters
    ----------
    logits : array (T, N, V)
    targets : list of N integer arrays (L,)
    lengths : integer array (N,), optional
    blank : int
    weights : array (N,), optional
    reduction : {"mean", "sum", "none"}
    zero_infinity, training : bool

    Returns
    -------
    loss : float, or array (N,) for "none"
    dlogits : array (T, N, V), or None without training
    """
    y = np.asarray(logits)
    y = y.astype(np.result_type(y, np.float32))
    T, N, _ = y.shape
    steps = np.full(N, T) if lengths is None else np.asarray(lengths)
    weight = np.ones(N) if weights is None else np.asarray(weights, float)
    scale = 1 / (weight.sum() or 1) if reduction == "mean" else 1.0
    losses, dlogits = np.zeros(N), np.zeros_like(y)
    for n in range(N):
        if weight[n] == 0:
            continue
        loss, gradient = _one(y[: steps[n], n].astype(np.float64), np.asarray(targets[n], int), blank)
        if np.isinf(loss) and zero_infinity:
            continue
        losses[n] = weight[n] * loss
        dlogits[: steps[n], n] = weight[n] * scale * gradient
    loss = losses if reduction == "none" else float(losses.sum() * scale)
    return loss, dlogits if training else None


def _one(y: Array, labels: Array, blank: int) -> tuple[float, Array]:
    """Loss and gradient of one sequence."""
    T, S = len(y), 2 * len(labels) + 1
    log_p = y - np.logaddexp.reduce(y, axis=1, keepdims=True)
    s = np.full(S, blank)
    s[1::2] = labels
    may_skip = np.zeros(S, bool)
    may_skip[2:] = (s[2:] != blank) & (s[2:] != s[:-2])

    def shifted(values: Array, by: int) -> Array:
        moved = np.full(S, -np.inf)
        if by > 0:
            moved[by:] = values[: max(S - by, 0)]
        else:
            moved[:by] = values[-by:]
        return moved

    a, b = np.full((T, S), -np.inf), np.full((T, S), -np.inf)
    before = np.where(np.arange(S) == 0, 0.0, -np.inf)
    for t in range(T):
        skipped = np.where(may_skip, shifted(before, 2), -np.inf)
        a[t] = before = np.logaddexp.reduce([before, shifted(before, 1), skipped]) + log_p[t, s]
    log_P = np.logaddexp.reduce(before[-2:]) if T else before[-1]
    if log_P == -np.inf:
        return np.inf, np.full_like(y, np.nan)
    after = np.where(np.arange(S) >= S - 2, 0.0, -np.inf)
    for t in reversed(range(T)):
        b[t] = after
        q = after + log_p[t, s]
        skipped = shifted(np.where(may_skip, q, -np.inf), -2)
        after = np.logaddexp.reduce([q, shifted(q, -1), skipped])
    gradient = np.exp(log_p)
    shares = np.exp(a + b - log_P)
    for t in range(T):
        np.add.at(gradient[t], s, -shares[t])
    return -float(log_P), gradient
