"""The gated recurrent unit (Cho et al. 2014) in its three forms, forward and backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .._types import Array, GRUGradients
from .steps import (
    Steps,
    blocks,
    check_option,
    clean,
    incoming,
    join,
    plan,
    project,
    project_backward,
    read_only,
    rows,
    sigmoid,
    state,
    states_before,
    zero_padding,
)

FORMS = ("reset_before", "reset_after", "simplified")
UPDATES = ("new", "old")
GATE_ORDERS = ("rzn", "zrn")
GATES = {2: "rz", 1: "zz"}  # without a reset gate, r is z and stays unused


class GRUCache(NamedTuple):
    """What :func:`gru_backward` needs; the arrays computed by the forward pass are read-only."""

    x: Array  # (T,N,D) or ids (T,N), zero at padding
    Wx: Array  # (D,G*H)
    Wh: Array  # (H,G*H)
    h0: Array  # (N,H)
    mask: Any  # (N,H), or 1
    gates: Array  # (T,N,G*H), in gate_order
    h: Array  # (T,N,H)
    m: Array | None  # (T,N,H), h' Whn + bhn of reset_after
    form: str
    update: str
    gate_order: str
    steps: Steps


def sigmoid_gates(form: str, gate_order: str) -> Any:
    """Their letters, in the order of their blocks."""
    return "z" if form == "simplified" else gate_order[:2]


def gru_forward(
    x: ArrayLike,
    Wx: ArrayLike,
    Wh: ArrayLike,
    b: ArrayLike,
    h0: ArrayLike | None = None,
    *,
    form: str = "reset_before",
    update: str = "new",
    bhn: ArrayLike | None = None,
    gate_order: str = "rzn",
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    training: bool = True,
    checkpoint: Any = None,
    recurrent_mask: ArrayLike | None = None,
) -> Any:
    """Run a gated recurrent unit over a batch of sequences.

    With h' the state before the step and * elementwise, for every t::

        r = sigmoid(x Wxr + h' Whr + br)
        z = sigmoid(x Wxz + h' Whz + bz)
        n = tanh(x Wxn + (r * h') Whn + bn)           form "reset_before"
        n = tanh(x Wxn + bn + r * (h' Whn + bhn))     form "reset_after"
        n = tanh(x Wxn + h' Whn + bn)                 form "simplified", which has no r
        h = z * n + (1 - z) * h'                      update "new": z weighs the new value
        h = (1 - z) * n + z * h'                      update "old": z weighs the old state

    In the course's notation, which is reset_before with update "new"::

        Gamma_r = sigmoid(Wr [c<t-1>, x<t>] + br)
        Gamma_u = sigmoid(Wu [c<t-1>, x<t>] + bu)
        c~<t>   = tanh(Wc [Gamma_r * c<t-1>, x<t>] + bc)
        c<t>    = Gamma_u * c~<t> + (1 - Gamma_u) * c<t-1>        a<t> = c<t>

    Gamma_u is z, Gamma_r is r, c~ is n, and c = a is h. The course keeps examples in columns and both weights
    of a gate in one matrix: Wu = [Whz.T, Wxz.T]. Its simplified GRU drops Gamma_r.

    The cell is that of Cho et al. 2014, arXiv:1406.1078, with biases; their z weighs the old state.
    PyTorch and Keras compute reset_after with update "old".

    Parameters
    ----------
    x : (T,N,D) floats, or (T,N) integer ids
        Input. Ids stand for one-hot rows of length D.
    Wx : (D,G*H)
        Blocks r z n, or as ``gate_order`` says, G=3; simplified: z n, G=2.
    Wh : (H,G*H)
    b : (G*H,)
    h0 : (N,H), optional
        State before the first step; zeros by default.
    form : {"reset_before", "reset_after", "simplified"}
    update : {"new", "old"}
    bhn : (H,), optional
        The recurrent bias of n, only for reset_after; zeros by default.
    gate_order : {"rzn", "zrn"}
        Order of the gate blocks in the weights, the cache and the gradients.
    lengths : (N,) integers in 0..T, optional
        Row n ends after ``lengths[n]`` steps. Later steps are not computed: their output is 0 and
        nothing in ``x`` there matters.
    resets : (T,N) bool, optional
        Zero the state of row n before step t.
    reverse : bool
        Run from the last step (of each row) to the first; outputs stay at their own t.
    training : bool
        Keep what :func:`gru_backward` needs.
    checkpoint : True or int, optional
        For the signature of :func:`rnncore.gru_forward`; the reference has one way, and keeps everything.
    recurrent_mask : (N,H), optional
        Factors of h' where it multiplies Wh, also in r * h', the same at every step; no gradient.

    Returns
    -------
    h : (T,N,H)
        State after every step.
    h_n : (N,H)
        State after the last step computed; h0 for a row of length 0.
    cache : GRUCache or None
        Refers to ``x``, ``Wx`` and ``Wh``: leave them as they are until the backward pass is done.

    Raises
    ------
    ValueError
        If ``form``, ``update`` or ``gate_order`` is unknown, or ``bhn`` comes with a form that has no such bias.

    Examples
    --------
    >>> import numpy as np
    >>> from rnncore.reference import gru_forward
    >>> x = np.zeros((1, 1, 1))  # T=1, N=1, D=1; r = 1/2, z = 3/4, n = 3/5 come from the biases
    >>> Wx, Wh, b = np.zeros((1, 3)), np.zeros((1, 3)), np.log([1.0, 3.0, 2.0])
    >>> h, h_n, cache = gru_forward(x, Wx, Wh, b, h0=np.ones((1, 1)))
    >>> cache.gates.round(6)
    array([[[0.5 , 0.75, 0.6 ]]])
    >>> h.round(6)  # 3/4 * 3/5 + 1/4 * 1
    array([[[0.7]]])
    """
    check_option("form", form, FORMS)
    check_option("update", update, UPDATES)
    check_option("gate_order", gate_order, GATE_ORDERS)
    if bhn is not None and form != "reset_after":
        raise ValueError(f"bhn belongs to form 'reset_after'; got form {form!r}")
    x, Wx, Wh, b, h0, bhn, mask = clean(x, Wx, Wh, b, h0, bhn, recurrent_mask)
    mask = 1 if mask is None else mask
    (T, N), H = x.shape[:2], Wh.shape[0]
    h0 = state(h0, N, H, Wh.dtype)
    bhn = np.zeros(H, Wh.dtype) if bhn is None else bhn
    steps = plan(T, lengths, resets, reverse)
    x = zero_padding(x, steps.valid)

    k = Wh.shape[1] - H  # columns of the sigmoid gates: 2H (r z), or H (z)
    order = sigmoid_gates(form, gate_order)
    Wh_rz, Wh_n = Wh[:, :k], Wh[:, k:]
    gates = project(x, Wx, b)  # (T,N,G*H); step t replaces its pre-activations by the gates
    h = np.empty((T, N, H), Wh.dtype)
    ms: Any = np.zeros((T, N, H), Wh.dtype) if training and form == "reset_after" else None
    h_t = h0
    for t in steps.order:
        h_prev = h_t if steps.resets is None else np.where(steps.resets[t], 0, h_t)
        a_rz, a_n = gates[t, :, :k], gates[t, :, k:]
        masked = mask * h_prev  # what multiplies Wh
        rz = sigmoid(a_rz + masked @ Wh_rz)
        r, z = blocks(rz, order, GATES[len(order)])
        if form == "reset_before":
            n = np.tanh(a_n + (r * masked) @ Wh_n)
        elif form == "reset_after":
            m = masked @ Wh_n + bhn
            n = np.tanh(a_n + r * m)
        else:
            n = np.tanh(a_n + masked @ Wh_n)
        if update == "new":
            h_t = z * n + (1 - z) * h_prev
        else:
            h_t = (1 - z) * n + z * h_prev
        if steps.valid is not None:
            h_t = np.where(steps.valid[t], h_t, h_prev)
        h[t] = h_t
        if training:
            gates[t, :, :k], gates[t, :, k:] = rz, n
            if form == "reset_after":
                ms[t] = m
    h = zero_padding(h, steps.valid)

    cache = None
    if training:
        gates = read_only(zero_padding(gates, steps.valid))
        kept = read_only(h.copy())  # a copy, because the caller may write to h
        ms = None if ms is None else read_only(ms)
        cache = GRUCache(x, Wx, Wh, h0, mask, gates, kept, ms, form, update, gate_order, steps)
    return h, h_t.copy(), cache


def gru_backward(dh: ArrayLike | None, cache: Any, dh_n: ArrayLike | None = None) -> GRUGradients:
    """Gradients of :func:`gru_forward` by backpropagation through time.

    Parameters
    ----------
    dh : (T,N,H) or None
        Gradient of the loss with respect to ``h``; None means zeros.
    cache : GRUCache
        From ``gru_forward``; it is not changed.
    dh_n : (N,H), optional
        Gradient with respect to ``h_n``; zeros by default.

    Returns
    -------
    GRUGradients
        In the dtype of ``h``.

    Examples
    --------
    >>> import numpy as np
    >>> from rnncore.reference import gru_backward, gru_forward
    >>> x, Wx, Wh, b = np.zeros((1, 1, 1)), np.zeros((1, 3)), np.zeros((1, 3)), np.log([1.0, 3.0, 2.0])
    >>> h, h_n, cache = gru_forward(x, Wx, Wh, b, h0=np.ones((1, 1)))
    >>> gru_backward(np.ones((1, 1, 1)), cache).dh0.round(6)  # 1 - z
    array([[0.25]])
    """
    h, Wh, steps, form = cache.h, cache.Wh, cache.steps, cache.form
    T, N, H = h.shape
    k = Wh.shape[1] - H
    order = sigmoid_gates(form, cache.gate_order)
    Wh_rz, Wh_n = Wh[:, :k], Wh[:, k:]
    h_prev = states_before(h, cache.h0, steps)
    dh = incoming(dh, h, steps.valid)

    da = np.empty_like(cache.gates)
    dh_prev = state(dh_n, N, H, h.dtype)
    for t in reversed(steps.order):
        rz, n = cache.gates[t, :, :k], cache.gates[t, :, k:]
        r, z = blocks(rz, order, GATES[len(order)])
        dh_t = dh[t] + dh_prev
        if cache.update == "new":
            dz, dn, dh_prev = dh_t * (n - h_prev[t]), dh_t * z, dh_t * (1 - z)
        else:
            dz, dn, dh_prev = dh_t * (h_prev[t] - n), dh_t * (1 - z), dh_t * z
        da_n = dn * (1 - n * n)
        if form == "reset_before":
            drh = cache.mask * (da_n @ Wh_n.T)  # gradient of r * h', (N,H)
            drz = join([drh * h_prev[t], dz], order, "rz")
            dh_prev += drh * r
        elif form == "reset_after":
            drz = join([da_n * cache.m[t], dz], order, "rz")
            dh_prev += cache.mask * ((da_n * r) @ Wh_n.T)
        else:
            drz = dz
            dh_prev += cache.mask * (da_n @ Wh_n.T)
        da_rz = drz * rz * (1 - rz)
        dh_prev += cache.mask * (da_rz @ Wh_rz.T)
        da[t, :, :k], da[t, :, k:] = da_rz, da_n
        if steps.valid is not None:
            dh_prev = np.where(steps.valid[t], dh_prev, dh_t)
        if steps.resets is not None:
            dh_prev = np.where(steps.resets[t], 0, dh_prev)
    da = zero_padding(da, steps.valid)

    r, _ = blocks(cache.gates[:, :, :k], order, GATES[len(order)])
    da_n = da[:, :, k:]
    dbhn = None
    dWh, masked = np.empty_like(Wh), cache.mask * h_prev
    dWh[:, :k] = rows(masked).T @ rows(da[:, :, :k])  # (H,2H) = (H,T*N) (T*N,2H)
    if form == "reset_before":
        dWh[:, k:] = rows(r * masked).T @ rows(da_n)
    elif form == "reset_after":
        dm = rows(da_n * r)  # gradient of h' Whn + bhn
        dWh[:, k:] = rows(masked).T @ dm
        dbhn = dm.sum(axis=0)
    else:
        dWh[:, k:] = rows(masked).T @ rows(da_n)
    dx, dWx, db = project_backward(da, cache.x, cache.Wx)
    return GRUGradients(dx, dWx, dWh, db, dh_prev, dbhn)
