"""The minimal gated recurrent unit (Feng et al. 2024, "Were RNNs all we needed?"), forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .._types import Array, MinGRUGradients
from .steps import (
    Steps,
    check_option,
    clean,
    incoming,
    plan,
    project,
    project_backward,
    read_only,
    sigmoid,
    state,
    states_before,
    zero_padding,
)

# name: (candidate n of its pre-activation a, its derivative written in n)
CANDIDATES: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "identity": (lambda a: a, np.ones_like),
    "positive": (lambda a: np.where(a >= 0, a + 0.5, sigmoid(a)), lambda n: np.where(n >= 0.5, 1, n * (1 - n))),
}


class MinGRUCache(NamedTuple):
    """What :func:`mingru_backward` needs; the arrays computed by the forward pass are read-only."""

    x: Array  # (T,N,D) or ids (T,N), zero at padding
    Wx: Array  # (D,2H)
    h0: Array  # (N,H)
    gates: Array  # (T,N,2H): z n
    h: Array  # (T,N,H)
    candidate: str
    steps: Steps


def mingru_forward(
    x: ArrayLike,
    Wx: ArrayLike,
    b: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    candidate: str = "identity",
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    training: bool = True,
    checkpoint: Any = None,
) -> tuple[Array, Array, MinGRUCache | None]:
    """Run a minimal gated recurrent unit over a batch of sequences.

    With h' the state before the step, for every t::

        z = sigmoid(x Wxz + bz)
        n = g(x Wxn + bn)
        h = (1 - z) h' + z n

    g is the identity, or for "positive" g(a) = a + 0.5 where a >= 0 and sigmoid(a) below (appendix B of the paper), so
    that states stay positive. There are no recurrent weights: the gates do not depend on h'.

    Parameters
    ----------
    x : (T,N,D) floats, or (T,N) integer ids
        Input. Ids stand for one-hot rows of length D.
    Wx : (D,2H)
        Blocks z n.
    b : (2H,)
    h0 : (N,H), optional
        State before the first step; zeros by default.
    candidate : {"identity", "positive"}
    lengths, resets, reverse, training, checkpoint
        As in :func:`rnn_forward`.

    Returns
    -------
    h : (T,N,H)
        State after every step.
    h_n : (N,H)
        State after the last step computed; h0 for a row of length 0.
    cache : MinGRUCache or None
        Refers to ``x`` and ``Wx``: leave them as they are until the backward pass is done.

    Raises
    ------
    ValueError
        If ``candidate`` is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from rnncore.reference import mingru_forward
    >>> x = np.array([1.0, 2.0, 4.0]).reshape(3, 1, 1)  # T=3, N=1, D=1
    >>> h, h_n, cache = mingru_forward(x, np.array([[0.0, 1.0]]), np.zeros(2))  # z = 1/2, n = x
    >>> h.ravel()  # h = h' / 2 + x / 2
    array([0.5  , 1.25 , 2.625])
    """
    check_option("candidate", candidate, CANDIDATES)
    g, _ = CANDIDATES[candidate]
    x, Wx, b, h0 = clean(x, Wx, b, h0)
    (T, N), H = x.shape[:2], Wx.shape[1] // 2
    h0 = state(h0, N, H, Wx.dtype)
    steps = plan(T, lengths, resets, reverse)
    x = zero_padding(x, steps.valid)

    a = project(x, Wx, b)  # (T,N,2H)
    gates = np.concatenate([sigmoid(a[..., :H]), g(a[..., H:])], axis=-1)
    h = np.empty((T, N, H), Wx.dtype)
    h_t = h0
    for t in steps.order:
        h_prev = h_t if steps.resets is None else np.where(steps.resets[t], 0, h_t)
        z, n = gates[t, :, :H], gates[t, :, H:]
        h_t = (1 - z) * h_prev + z * n  # (N,H)
        if steps.valid is not None:
            h_t = np.where(steps.valid[t], h_t, h_prev)
        h[t] = h_t
    h = zero_padding(h, steps.valid)

    cache = None
    if training:
        kept = read_only(h.copy())  # a copy, because the caller may write to h
        gates = read_only(zero_padding(gates, steps.valid))
        cache = MinGRUCache(x, Wx, h0, gates, kept, candidate, steps)
    return h, h_t.copy(), cache


def mingru_backward(dh: ArrayLike | None, cache: Any, dh_n: ArrayLike | None = None) -> MinGRUGradients:
    """Compute the gradients of :func:`mingru_forward` by back-propagation through time.

    Parameters
    ----------
    dh : (T,N,H) or None
        Gradient of the loss with respect to ``h``; None means zeros.
    cache : MinGRUCache
        From ``mingru_forward``; it is not changed.
    dh_n : (N,H), optional
        Gradient with respect to ``h_n``; zeros by default.

    Returns
    -------
    MinGRUGradients
        In the dtype of ``h``.

    Examples
    --------
    >>> import numpy as np
    >>> from rnncore.reference import mingru_backward, mingru_forward
    >>> x = np.array([1.0, 2.0, 4.0]).reshape(3, 1, 1)
    >>> h, h_n, cache = mingru_forward(x, np.array([[0.0, 1.0]]), np.zeros(2))
    >>> mingru_backward(None, cache, dh_n=np.array([[1.0]])).dx.ravel()
    array([0.125, 0.25 , 0.5  ])
    """
    _, derivative = CANDIDATES[cache.candidate]
    h, steps = cache.h, cache.steps
    T, N, H = h.shape
    h_before = states_before(h, cache.h0, steps)
    dh = incoming(dh, h, steps.valid)

    da = np.zeros((T, N, 2 * H), h.dtype)
    dh_prev = state(dh_n, N, H, h.dtype)
    for t in reversed(steps.order):
        dh_t = dh[t] + dh_prev
        z, n = cache.gates[t, :, :H], cache.gates[t, :, H:]
        dz, dn = dh_t * (n - h_before[t]), dh_t * z
        da_t = np.concatenate([dz * z * (1 - z), dn * derivative(n)], axis=-1)
        dh_prev = dh_t * (1 - z)  # (N,H)
        if steps.valid is not None:
            da_t = np.where(steps.valid[t], da_t, 0)
            dh_prev = np.where(steps.valid[t], dh_prev, dh_t)
        if steps.resets is not None:
            dh_prev = np.where(steps.resets[t], 0, dh_prev)
        da[t] = da_t

    dx, dWx, db = project_backward(da, cache.x, cache.Wx)
    return MinGRUGradients(dx, dWx, db, dh_prev)
