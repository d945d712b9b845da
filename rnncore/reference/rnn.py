"""The simple recurrent network (Elman 1990), forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .._types import Array, RNNGradients
from .steps import (
    Steps,
    check_option,
    clean,
    incoming,
    plan,
    project,
    project_backward,
    read_only,
    rows,
    state,
    states_before,
    zero_padding,
)

# name: (activation of a, its derivative written in h = activation(a))
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "tanh": (np.tanh, lambda h: 1 - h * h),
    "relu": (lambda a: np.maximum(a, 0), lambda h: (h > 0).astype(h.dtype)),
    "identity": (lambda a: a, np.ones_like),
}


class RNNCache(NamedTuple):
    """What :func:`rnn_backward` needs; the arrays computed by the forward pass are read-only."""

    x: Array  # (T,N,D) or ids (T,N), zero at padding
    Wx: Array  # (D,H)
    Wh: Array  # (H,H)
    h0: Array  # (N,H)
    mask: Any  # (N,H), or 1
    gates: Array  # (T,N,H), the same array as h
    h: Array  # (T,N,H)
    activation: str
    steps: Steps


def rnn_forward(
    x: ArrayLike,
    Wx: ArrayLike,
    Wh: ArrayLike,
    b: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    activation: str = "tanh",
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    training: bool = True,
    checkpoint: Any = None,
    recurrent_mask: ArrayLike | None = None,
) -> Any:
    """Run a simple recurrent network over a batch of sequences.

    With h' the state before the step, for every t::

        here     h = act(x Wx + h' Wh + b)
        course   a<t> = g(Waa a<t-1> + Wax x<t> + ba)

    The course writes a<t> for h and keeps examples in columns, so Wax = Wx.T, Waa = Wh.T and ba is b as a
    column.
    The network is that of Elman, "Finding structure in time", Cognitive Science 14 (1990), with tanh.

    Parameters
    ----------
    x : (T,N,D) floats, or (T,N) integer ids
        Input. Ids stand for one-hot rows of length D.
    Wx : (D,H)
    Wh : (H,H)
    b : (H,)
    h0 : (N,H), optional
        State before the first step; zeros by default.
    activation : {"tanh", "relu", "identity"}
    lengths : (N,) integers in 0..T, optional
        Row n ends after ``lengths[n]`` steps. Later steps are not computed: their output is 0 and
        nothing in ``x`` there matters.
    resets : (T,N) bool, optional
        Zero the state of row n before step t.
    reverse : bool
        Run from the last step (of each row) to the first; outputs stay at their own t.
    training : bool
        Keep what :func:`rnn_backward` needs.
    checkpoint : True or int, optional
        For the signature of :func:`rnncore.rnn_forward`; the reference has one way, and keeps everything.
    recurrent_mask : (N,H), optional
        Factors of h' where it multiplies Wh, the same at every step; no gradient.

    Returns
    -------
    h : (T,N,H)
        State after every step.
    h_n : (N,H)
        State after the last step computed; h0 for a row of length 0.
    cache : RNNCache or None
        Refers to ``x``, ``Wx`` and ``Wh``: leave them as they are until the backward pass is done.

    Raises
    ------
    ValueError
        If ``activation`` is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from rnncore.reference import rnn_forward
    >>> x = np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)  # T=3, N=1, D=1
    >>> Wx, Wh, b = np.array([[1.0]]), np.array([[0.5]]), np.array([0.0])
    >>> h, h_n, cache = rnn_forward(x, Wx, Wh, b, activation="identity")
    >>> h.ravel()  # 1, 2 + 0.5 * 1, 3 + 0.5 * 2.5
    array([1.  , 2.5 , 4.25])
    """
    check_option("activation", activation, ACTIVATIONS)
    act, _ = ACTIVATIONS[activation]
    x, Wx, Wh, b, h0, mask = clean(x, Wx, Wh, b, h0, recurrent_mask)
    mask = 1 if mask is None else mask
    (T, N), H = x.shape[:2], Wh.shape[0]
    h0 = state(h0, N, H, Wh.dtype)
    steps = plan(T, lengths, resets, reverse)
    x = zero_padding(x, steps.valid)

    a = project(x, Wx, b)  # (T,N,H)
    h = np.empty((T, N, H), Wh.dtype)
    h_t = h0
    for t in steps.order:
        h_prev = h_t if steps.resets is None else np.where(steps.resets[t], 0, h_t)
        h_t = act(a[t] + (mask * h_prev) @ Wh)  # (N,H)
        if steps.valid is not None:
            h_t = np.where(steps.valid[t], h_t, h_prev)
        h[t] = h_t
    h = zero_padding(h, steps.valid)

    cache = None
    if training:
        kept = read_only(h.copy())  # a copy, because the caller may write to h
        cache = RNNCache(x, Wx, Wh, h0, mask, kept, kept, activation, steps)
    return h, h_t.copy(), cache


def rnn_backward(dh: ArrayLike | None, cache: Any, dh_n: ArrayLike | None = None) -> RNNGradients:
    """Gradients of :func:`rnn_forward` by backpropagation through time.

    Parameters
    ----------
    dh : (T,N,H) or None
        Gradient of the loss with respect to ``h``; None means zeros.
    cache : RNNCache
        From ``rnn_forward``; it is not changed.
    dh_n : (N,H), optional
        Gradient with respect to ``h_n``; zeros by default.

    Returns
    -------
    RNNGradients
        In the dtype of ``h``.

    Examples
    --------
    >>> import numpy as np
    >>> from rnncore.reference import rnn_backward, rnn_forward
    >>> x = np.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    >>> Wx, Wh, b = np.array([[1.0]]), np.array([[0.5]]), np.array([0.0])
    >>> h, h_n, cache = rnn_forward(x, Wx, Wh, b, activation="identity")
    >>> rnn_backward(None, cache, dh_n=np.array([[1.0]])).dx.ravel()
    array([0.25, 0.5 , 1.  ])
    """
    _, derivative = ACTIVATIONS[cache.activation]
    h, Wh, steps = cache.h, cache.Wh, cache.steps
    T, N, H = h.shape
    h_prev = states_before(h, cache.h0, steps)
    dh = incoming(dh, h, steps.valid)

    da = np.empty_like(h)
    dh_prev = state(dh_n, N, H, h.dtype)
    for t in reversed(steps.order):
        dh_t = dh[t] + dh_prev
        da_t = dh_t * derivative(h[t])
        dh_prev = cache.mask * (da_t @ Wh.T)  # (N,H)
        if steps.valid is not None:
            da_t = np.where(steps.valid[t], da_t, 0)
            dh_prev = np.where(steps.valid[t], dh_prev, dh_t)
        if steps.resets is not None:
            dh_prev = np.where(steps.resets[t], 0, dh_prev)
        da[t] = da_t

    dWh = rows(cache.mask * h_prev).T @ rows(da)  # (H,H) = (H,T*N) (T*N,H)
    dx, dWx, db = project_backward(da, cache.x, cache.Wx)
    return RNNGradients(dx, dWx, dWh, db, dh_prev)
