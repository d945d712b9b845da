"""Long short-term memory (Hochreiter and Schmidhuber 1997), forward and backward."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .._types import Array, LSTMGradients
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

PEEPHOLE_OUTPUTS = ("current", "previous")
OUTPUT_ACTIVATIONS = ("tanh", "identity")
GATES = "ifgo"


class LSTMCache(NamedTuple):
    """What :func:`lstm_backward` needs; the arrays computed by the forward pass are read-only."""

    x: Array  # (T,N,D) or ids (T,N), zero at padding
    Wx: Array  # (D,4H)
    Wh: Array  # (H,4H)
    h0: Array  # (N,H)
    mask: Any  # (N,H), or 1
    c0: Array  # (N,H)
    peephole: Array | None  # (3,H), rows i f o
    gates: Array  # (T,N,4H), in gate_order
    c: Array  # (T,N,H)
    h: Array  # (T,N,H)
    peephole_output: str
    output_activation: str
    gate_order: str
    steps: Steps


def lstm_forward(
    x: ArrayLike,
    Wx: ArrayLike,
    Wh: ArrayLike,
    b: ArrayLike,
    h0: ArrayLike | None = None,
    c0: ArrayLike | None = None,
    *,
    peephole: ArrayLike | None = None,
    peephole_output: str = "current",
    output_activation: str = "tanh",
    gate_order: str = "ifgo",
    lengths: ArrayLike | None = None,
    resets: ArrayLike | None = None,
    reverse: bool = False,
    training: bool = True,
    checkpoint: Any = None,
    recurrent_mask: ArrayLike | None = None,
) -> tuple[Array, tuple[Array, Array], LSTMCache | None]:
    """Run a long short-term memory over a batch of sequences.

    With h', c' the state before the step and * elementwise, for every t::

        i = sigmoid(x Wxi + h' Whi + bi + pi * c')
        f = sigmoid(x Wxf + h' Whf + bf + pf * c')
        g = tanh   (x Wxg + h' Whg + bg)
        c = f * c' + i * g
        o = sigmoid(x Wxo + h' Who + bo + po * c)      po * c' if peephole_output is "previous"
        h = o * tanh(c)                                o * c   if output_activation is "identity"

    The terms with p are there only if ``peephole`` is given. In the course's notation::

        c~<t>   = tanh(Wc [a<t-1>, x<t>] + bc)
        Gamma_u = sigmoid(Wu [a<t-1>, x<t>] + bu)
        Gamma_f = sigmoid(Wf [a<t-1>, x<t>] + bf)
        Gamma_o = sigmoid(Wo [a<t-1>, x<t>] + bo)
        c<t>    = Gamma_u * c~<t> + Gamma_f * c<t-1>
        a<t>    = Gamma_o * tanh(c<t>)

    a is h, c~ is g, and Gamma_u (update), Gamma_f, Gamma_o are i, f, o. The course keeps examples in columns
    and both weights of a gate in one matrix: Wf = [Whf.T, Wxf.T]. Its variant a<t> = Gamma_o * c<t> is
    output_activation "identity". With peepholes it shows c<t-1> to every gate: peephole_output "previous".

    The cell is that of Hochreiter and Schmidhuber, "Long short-term memory" (1997), with the forget gate of
    Gers, Schmidhuber and Cummins, "Learning to forget" (2000), and the peepholes of Gers, Schraudolph and
    Schmidhuber, "Learning precise timing with LSTM recurrent networks" (2002), whose output gate sees the
    current cell.

    Parameters
    ----------
    x : (T,N,D) floats, or (T,N) integer ids
        Input. Ids stand for one-hot rows of length D.
    Wx : (D,4H)
        Blocks i f g o, or as ``gate_order`` says.
    Wh : (H,4H)
    b : (4H,)
    h0, c0 : (N,H), optional
        State before the first step; zeros by default.
    peephole : (3,H), optional
        Rows pi pf po.
    peephole_output : {"current", "previous"}
        The cell that o sees.
    output_activation : {"tanh", "identity"}
    gate_order : str
        Order of the gate blocks in the weights, the cache and the gradients: the letters i f g o in any order.
    lengths : (N,) integers in 0..T, optional
        Row n ends after ``lengths[n]`` steps. Later steps are not computed: their output is 0 and
        nothing in ``x`` there matters.
    resets : (T,N) bool, optional
        Zero the state (h and c) of row n before step t.
    reverse : bool
        Run from the last step (of each row) to the first; outputs stay at their own t.
    training : bool
        Keep what :func:`lstm_backward` needs.
    checkpoint : True or int, optional
        For the signature of :func:`rnncore.lstm_forward`; the reference has one way, and keeps everything.
    recurrent_mask : (N,H), optional
        Factors of h' where it multiplies Wh, the same at every step; no gradient.

    Returns
    -------
    h : (T,N,H)
        State after every step.
    (h_n, c_n) : (N,H) each
        State after the last step computed; (h0, c0) for a row of length 0.
    cache : LSTMCache or None
        Refers to ``x``, ``Wx``, ``Wh`` and ``peephole``: leave them as they are until the backward pass is
        done.

    Raises
    ------
    ValueError
        If ``peephole_output``, ``output_activation`` or ``gate_order`` is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from rnncore.reference import lstm_forward
    >>> x = np.zeros((1, 1, 1))  # T=1, N=1, D=1; i = 3/4, f = 4/5, g = 3/5, o = 1/4 come from the biases
    >>> Wx, Wh, b = np.zeros((1, 4)), np.zeros((1, 4)), np.log([3, 4, 2, 1 / 3])
    >>> h, (h_n, c_n), cache = lstm_forward(x, Wx, Wh, b, c0=np.array([[0.5]]), output_activation="identity")
    >>> cache.gates.round(6)
    array([[[0.75, 0.8 , 0.6 , 0.25]]])
    >>> c_n.round(6), h.round(6)  # 4/5 * 1/2 + 3/4 * 3/5, and a quarter of it
    (array([[0.85]]), array([[[0.2125]]]))
    """
    check_option("peephole_output", peephole_output, PEEPHOLE_OUTPUTS)
    check_option("output_activation", output_activation, OUTPUT_ACTIVATIONS)
    if not isinstance(gate_order, str) or sorted(gate_order) != sorted(GATES):
        raise ValueError(f"gate_order must be the letters i f g o in some order; got {gate_order!r}")
    x, Wx, Wh, b, h0, c0, peephole, mask = clean(x, Wx, Wh, b, h0, c0, peephole, recurrent_mask)
    mask = 1 if mask is None else mask
    (T, N), H = x.shape[:2], Wh.shape[0]
    h0, c0 = state(h0, N, H, Wh.dtype), state(c0, N, H, Wh.dtype)
    steps = plan(T, lengths, resets, reverse)
    x = zero_padding(x, steps.valid)

    gates = project(x, Wx, b)  # (T,N,4H); step t replaces its pre-activations by the gates
    h, c = np.empty((T, N, H), Wh.dtype), np.empty((T, N, H), Wh.dtype)
    h_t, c_t = h0, c0
    for t in steps.order:
        h_prev, c_prev = h_t, c_t
        if steps.resets is not None:
            h_prev = np.where(steps.resets[t], 0, h_t)
            c_prev = np.where(steps.resets[t], 0, c_t)
        a_i, a_f, a_g, a_o = blocks(gates[t] + (mask * h_prev) @ Wh, gate_order, GATES)  # (N,H) each
        if peephole is not None:
            a_i = a_i + peephole[0] * c_prev
            a_f = a_f + peephole[1] * c_prev
        i, f, g = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g)
        c_t = f * c_prev + i * g
        if peephole is not None:
            a_o = a_o + peephole[2] * (c_t if peephole_output == "current" else c_prev)
        o = sigmoid(a_o)
        h_t = o * (np.tanh(c_t) if output_activation == "tanh" else c_t)
        if steps.valid is not None:
            h_t = np.where(steps.valid[t], h_t, h_prev)
            c_t = np.where(steps.valid[t], c_t, c_prev)
        h[t] = h_t
        if training:
            c[t] = c_t
            gates[t] = join([i, f, g, o], gate_order, GATES)
    h = zero_padding(h, steps.valid)

    cache = None
    if training:
        gates, c = (read_only(zero_padding(a, steps.valid)) for a in (gates, c))
        kept = read_only(h.copy())  # a copy, because the caller may write to h
        options = peephole_output, output_activation, gate_order
        cache = LSTMCache(x, Wx, Wh, h0, mask, c0, peephole, gates, c, kept, *options, steps)
    return h, (h_t.copy(), c_t.copy()), cache


def lstm_backward(
    dh: ArrayLike | None, cache: Any, dh_n: ArrayLike | None = None, dc_n: ArrayLike | None = None
) -> LSTMGradients:
    """Gradients of :func:`lstm_forward` by backpropagation through time.

    Parameters
    ----------
    dh : (T,N,H) or None
        Gradient of the loss with respect to ``h``; None means zeros.
    cache : LSTMCache
        From ``lstm_forward``; it is not changed.
    dh_n, dc_n : (N,H), optional
        Gradients with respect to ``h_n`` and ``c_n``; zeros by default.

    Returns
    -------
    LSTMGradients
        In the dtype of ``h``.

    Examples
    --------
    >>> import numpy as np
    >>> from rnncore.reference import lstm_backward, lstm_forward
    >>> x, Wx, Wh, b = np.zeros((1, 1, 1)), np.zeros((1, 4)), np.zeros((1, 4)), np.log([3, 4, 2, 1 / 3])
    >>> h, (h_n, c_n), cache = lstm_forward(x, Wx, Wh, b)
    >>> lstm_backward(None, cache, dc_n=np.ones((1, 1))).dc0.round(6)  # f
    array([[0.8]])
    """
    h, c, Wh, steps, peephole = cache.h, cache.c, cache.Wh, cache.steps, cache.peephole
    T, N, H = h.shape
    h_prev = states_before(h, cache.h0, steps)
    c_prev = states_before(c, cache.c0, steps)
    c_seen = c if cache.peephole_output == "current" else c_prev  # by the output gate
    tanh_c = np.tanh(c)
    dh = incoming(dh, h, steps.valid)

    da = np.empty_like(cache.gates)
    dh_prev, dc_prev = state(dh_n, N, H, h.dtype), state(dc_n, N, H, h.dtype)
    for t in reversed(steps.order):
        i, f, g, o = blocks(cache.gates[t], cache.gate_order, GATES)
        dh_t, dc_next = dh[t] + dh_prev, dc_prev
        if cache.output_activation == "tanh":
            do, dc_t = dh_t * tanh_c[t], dc_next + dh_t * o * (1 - tanh_c[t] * tanh_c[t])
        else:
            do, dc_t = dh_t * c[t], dc_next + dh_t * o
        da_o = do * o * (1 - o)
        if peephole is not None and cache.peephole_output == "current":
            dc_t += da_o * peephole[2]
        da_i = dc_t * g * i * (1 - i)
        da_f = dc_t * c_prev[t] * f * (1 - f)
        da_g = dc_t * i * (1 - g * g)
        dc_prev = dc_t * f
        if peephole is not None:
            dc_prev += da_i * peephole[0] + da_f * peephole[1]
            if cache.peephole_output == "previous":
                dc_prev += da_o * peephole[2]
        da[t] = join([da_i, da_f, da_g, da_o], cache.gate_order, GATES)
        dh_prev = cache.mask * (da[t] @ Wh.T)  # (N,H) = (N,4H) (4H,H)
        if steps.valid is not None:
            dh_prev = np.where(steps.valid[t], dh_prev, dh_t)
            dc_prev = np.where(steps.valid[t], dc_prev, dc_next)
        if steps.resets is not None:
            dh_prev = np.where(steps.resets[t], 0, dh_prev)
            dc_prev = np.where(steps.resets[t], 0, dc_prev)
    da = zero_padding(da, steps.valid)

    dpeephole = None
    if peephole is not None:
        da_i, da_f, da_o = blocks(da, cache.gate_order, "ifo")
        over_rows = (0, 1)
        dpeephole = np.stack(
            [(da_i * c_prev).sum(over_rows), (da_f * c_prev).sum(over_rows), (da_o * c_seen).sum(over_rows)]
        )
    dWh = rows(cache.mask * h_prev).T @ rows(da)  # (H,4H) = (H,T*N) (T*N,4H)
    dx, dWx, db = project_backward(da, cache.x, cache.Wx)
    return LSTMGradients(dx, dWx, dWh, db, dh_prev, dc_prev, dpeephole)
