"""One time step of each cell, forward above backward: products of a member, the cell's kernels, products.

A step has one stage, or more where a product needs what all members of the group have computed: they meet between two
stages, and after the last one.
"""

from cython cimport floating

from call cimport *
from cells cimport *
from products cimport *


cdef inline Py_ssize_t gated_columns(const Layer *w) noexcept nogil:
    """Columns of Wh that multiply h' itself: all but the candidate's of a GRU with a reset gate."""
    if w.cell.type == CELL_GRU and w.cell.form != FORM_SIMPLIFIED:
        return 2 * w.H
    return recurrent_columns(w)


cdef inline bint state_is_gate(const Layer *w) noexcept nogil:
    """Whether the pre-activations become the state in place: such a cell has no array of gates."""
    return w.cell.type == CELL_RNN


cdef inline bint resets_before_product(const Layer *w) noexcept nogil:
    return w.cell.type == CELL_GRU and w.cell.form == FORM_RESET_BEFORE


cdef inline int forward_stages(const Layer *w) noexcept nogil:
    return 2 if resets_before_product(w) else 1


cdef inline int backward_stages(const Layer *w) noexcept nogil:
    return 3 if resets_before_product(w) else 2


cdef inline void step_forward(const Layer *w, const Member *p, int stage, Py_ssize_t n, const floating *h_prev,
                              const floating *h_masked, const floating *c_prev, floating *gates, floating *c,
                              floating *m, floating *rh, floating *h, floating *work) noexcept nogil:
    """One stage of a step: gates (n, G H) hold x Wx + b and become the activated gates (RNN: gates is h).

    h_masked is what multiplies Wh; everything else reads h_prev. `work`: see product_from.
    """
    cdef Py_ssize_t H = w.H, GH = gate_columns(w), u = p.first, units = p.units
    cdef int G = w.cell.num_gates
    cdef const int *places = <const int *>w.cell.places
    cdef const kernel_table *k = w.kernels
    gates += u
    h += u
    if stage == 0 and has_Wh(&w.cell):
        # gates (n,GH) += h' (n,H) Wh (H,GH); for a GRU with a reset gate only r, z (n,2H)
        product(k, n, h_masked, H, &p.gates, gates, GH, work)
    if w.cell.type == CELL_RNN:
        k.cells.rnn_forward(n, units, H, w.cell.activation, h)
    elif w.cell.type == CELL_LSTM:
        k.cells.lstm_forward(n, units, H, w.cell.peephole_output, w.cell.output_activation, places, gates, c_prev + u,
                             at(w.peephole, u, h), c + u, h)
    elif w.cell.type == CELL_GRU and w.cell.form == FORM_RESET_BEFORE and stage == 0:
        k.cells.gru_gates(n, units, H, G, places, gates, h_masked + u, rh + u)
    elif w.cell.type == CELL_GRU and w.cell.form == FORM_RESET_BEFORE:
        # n (n,H) += (r h') (n,H) Wh[:, 2H:]
        product(k, n, <const floating *>rh, H, &p.candidate, gates + 2 * H, GH, work)
        k.cells.gru_update(n, units, H, G, w.cell.update, places, gates, NULL, h_prev + u, h)
    elif w.cell.type == CELL_GRU and w.cell.form == FORM_RESET_AFTER:
        # m (n,H) = bhn + h' (n,H) Wh[:, 2H:]
        product_from(k, n, h_masked, H, &p.candidate, <const floating *>w.bhn + u, 0, m + u, H, work)
        k.cells.gru_gates(n, units, H, G, places, gates, h_prev + u, NULL)
        k.cells.gru_update(n, units, H, G, w.cell.update, places, gates, m + u, h_prev + u, h)
    elif w.cell.type == CELL_GRU and w.cell.form == FORM_SIMPLIFIED:
        k.cells.gru_gates(n, units, H, G, places, gates, h_prev + u, NULL)
        k.cells.gru_update(n, units, H, G, w.cell.update, places, gates, NULL, h_prev + u, h)
    elif w.cell.type == CELL_MINGRU:
        k.cells.mingru_forward(n, units, H, w.cell.candidate, places, gates, h_prev + u, h)


cdef inline void step_backward(const Layer *w, const Member *p, int stage, Py_ssize_t n, const floating *h_prev,
                               const floating *c_prev, const floating *gates, const floating *c, const floating *m,
                               const floating *h, const floating *mask, floating *dh, floating *dc, floating *dgates,
                               floating *dm, floating *drh, floating *rh) noexcept nogil:
    """step_forward in reverse: dh (n,H) and dc hold dL/dh, dL/dc and become dL/dh', dL/dc'.

    The last stage reads dgates, dm and the mask (n,H), NULL for none, and writes dh; drh is its scratch.
    """
    cdef Py_ssize_t H = w.H, GH = gate_columns(w), u = p.first, units = p.units
    cdef int G = w.cell.num_gates
    cdef const int *places = <const int *>w.cell.places
    cdef const kernel_table *k = w.kernels
    cdef floating *through_Wh
    cdef const floating *start
    dh += u
    if stage == 0:
        if w.cell.type == CELL_RNN:
            k.cells.rnn_backward(n, units, H, w.cell.activation, h + u, dh, dgates + u)
        elif w.cell.type == CELL_LSTM:
            k.cells.lstm_backward(n, units, H, w.cell.peephole_output, w.cell.output_activation, places, gates + u,
                                  c_prev + u, c + u, at(w.peephole, u, dh), dh, dc + u, dgates + u)
        elif w.cell.type == CELL_GRU:
            k.cells.gru_update_backward(n, units, H, G, w.cell.update, places, gates + u, at(m, u, dh), h_prev + u, dh,
                                        dgates + u, at(dm, u, dh))
        elif w.cell.type == CELL_MINGRU:
            k.cells.mingru_backward(n, units, H, w.cell.candidate, places, gates + u, h_prev + u, dh, dgates + u)
    elif stage == 1 and resets_before_product(w):
        # d(r h') (n,H) = dn (n,H) Wh[:, 2H:]'
        product_from(k, n, <const floating *>dgates + 2 * H, GH, &p.candidate, NULL, 0, drh + u, H, NULL)
        if mask != NULL:
            multiply_rows(n, units, drh + u, mask + u, drh + u, H)
        k.cells.gru_reset_backward(n, units, H, places, gates + u, h_prev + u, drh + u, dh, dgates + u, rh + u)
        if mask != NULL:
            multiply_rows(n, units, rh + u, mask + u, rh + u, H)
    elif w.cell.type == CELL_GRU:
        # dh' (n,H) += dm (n,H) Wh[:, 2H:]' + dr, dz (n,2H) Wh[:, :2H]';  dgates (n,2H) Wh' if simplified
        through_Wh = dh if mask == NULL else drh + u
        start = dh if mask == NULL else NULL
        if w.cell.form == FORM_RESET_AFTER:
            product_from(k, n, <const floating *>dm, H, &p.candidate, start, H, through_Wh, H, NULL)
            start = through_Wh
        product_from(k, n, <const floating *>dgates, GH, &p.gates, start, H, through_Wh, H, NULL)
        if mask != NULL:
            multiply_rows(n, units, through_Wh, mask + u, through_Wh, H)
            k.add(n, units, through_Wh, H, dh, H)
    elif has_Wh(&w.cell):
        # dh' (n,H) = dgates (n,GH) Wh'
        product_from(k, n, <const floating *>dgates, GH, &p.gates, NULL, 0, dh, H, NULL)
        if mask != NULL:
            multiply_rows(n, units, dh, mask + u, dh, H)
