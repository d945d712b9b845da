"""Linear-chain conditional random fields (Lafferty, McCallum and Pereira 2001), in log space."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._types import Array


def crf_loss(
    emissions: ArrayLike,
    transitions: ArrayLike,
    tags: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    reduction: str = "mean",
    training: bool = True,
) -> tuple[Any, Array | None, Array | None]:
    """Return the loss of tags, and its gradients.

    Equations, with emissions y_t (K,) and transitions A (K, K), all in log space::

        a_0 = y_0,   a_t(j) = y_t(j) + log sum_i exp(a_{t-1}(i) + A(i, j))
        b_{T-1} = 0,   b_t(i) = log sum_j exp(A(i, j) + y_{t+1}(j) + b_{t+1}(j))
        log Z = log sum_j exp(a_{T-1}(j)),   loss = log Z - sum_t y_t(tag_t) - sum_t A(tag_{t-1}, tag_t)
        P(tag_t = j) = exp(a_t(j) + b_t(j) - log Z)
        P(tag_{t-1} = i, tag_t = j) = exp(a_{t-1}(i) + A(i, j) + y_t(j) + b_t(j) - log Z)
        d loss / d y_t(j) = P(tag_t = j) - [tag_t = j]

    Parameters
    ----------
    emissions : array (T, N, K)
    transitions : array (K, K)
    tags : integer array (T, N)
    lengths : integer array (N,), optional
    weights : array (N,), optional
    reduction : {"mean", "sum", "none"}
    training : bool

    Returns
    -------
    loss : float, or array (N,) for "none"
    demissions : array (T, N, K), or None without training
    dtransitions : array (K, K), or None
    """
    y, A, wanted = np.asarray(emissions), np.asarray(transitions), np.asarray(tags)
    dtype = np.result_type(y, A, np.float32)
    y, A = y.astype(np.float64), A.astype(np.float64)
    T, N, _ = y.shape
    steps = np.full(N, T) if lengths is None else np.asarray(lengths)
    weight = np.ones(N) if weights is None else np.asarray(weights, float)
    scale = 1 / (weight.sum() or 1) if reduction == "mean" else 1.0
    losses, dy, dA = np.zeros(N), np.zeros_like(y), np.zeros_like(A)
    for n in range(N):
        L, tag = steps[n], wanted[: steps[n], n]
        if L == 0 or weight[n] == 0:
            continue
        log_Z, marginals, pairs = _sums(y[:L, n], A)
        score = y[np.arange(L), n, tag].sum() + A[tag[:-1], tag[1:]].sum()
        losses[n] = weight[n] * (log_Z - score)
        marginals[np.arange(L), tag] -= 1
        np.add.at(pairs, (tag[:-1], tag[1:]), -1)
        dy[:L, n] = weight[n] * scale * marginals
        dA += weight[n] * scale * pairs
    loss = losses if reduction == "none" else float(losses.sum() * scale)
    return (loss, dy.astype(dtype), dA.astype(dtype)) if training else (loss, None, None)


def crf_marginals(emissions: ArrayLike, transitions: ArrayLike, lengths: ArrayLike | None = None) -> Array:
    """Return the probability of every tag at every step.

    Parameters
    ----------
    emissions, transitions, lengths
        As in :func:`crf_loss`.

    Returns
    -------
    array (T, N, K)
    """
    y, A = np.asarray(emissions), np.asarray(transitions, np.float64)
    T, N, _ = y.shape
    steps = np.full(N, T) if lengths is None else np.asarray(lengths)
    result = np.zeros_like(y)
    for n in range(N):
        if steps[n]:
            result[: steps[n], n] = _sums(y[: steps[n], n].astype(np.float64), A)[1]
    return result


def viterbi(emissions: ArrayLike, transitions: ArrayLike, lengths: ArrayLike | None = None) -> Array:
    """Return the tags of the highest score: s_t(j) = y_t(j) + max_i (s_{t-1}(i) + A(i, j)).

    Parameters
    ----------
    emissions, transitions, lengths
        As in :func:`crf_loss`.

    Returns
    -------
    integer array (T, N)
    """
    y, A = np.asarray(emissions), np.asarray(transitions)
    T, N, K = y.shape
    steps = np.full(N, T) if lengths is None else np.asarray(lengths)
    tags = np.zeros((T, N), np.int64)
    for n in range(N):
        if steps[n] == 0:
            continue
        score, best = y[0, n], np.zeros((T, K), int)
        for t in range(1, steps[n]):
            candidates = score[:, None] + A
            best[t] = candidates.argmax(axis=0)
            score = y[t, n] + candidates.max(axis=0)
        tags[steps[n] - 1, n] = score.argmax()
        for t in reversed(range(1, steps[n])):
            tags[t - 1, n] = best[t, tags[t, n]]
    return tags


def _sums(y: Array, A: Array) -> tuple[float, Array, Array]:
    """Return log Z, P(tag_t = j) (T, K), and the sum over t of P(tag_{t-1} = i, tag_t = j) (K, K)."""
    T = len(y)
    a, b = np.zeros_like(y), np.zeros_like(y)
    a[0] = y[0]
    for t in range(1, T):
        a[t] = y[t] + np.logaddexp.reduce(a[t - 1][:, None] + A, axis=0)
    for t in reversed(range(T - 1)):
        b[t] = np.logaddexp.reduce(A + y[t + 1] + b[t + 1], axis=1)
    log_Z = np.logaddexp.reduce(a[-1])
    pairs = np.zeros_like(A)
    for t in range(1, T):
        pairs += np.exp(a[t - 1][:, None] + A + y[t] + b[t] - log_Z)
    return float(log_Z), np.exp(a + b - log_Z), pairs
