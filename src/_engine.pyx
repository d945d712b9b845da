"""The time loops: a whole sequence through one layer, forward and backward, in one call without the GIL.

Trusts its arguments; rnncore.functional checks and allocates. The tokens of a batch are *packed*: rows (sequences) in
order of falling length, time-major without gaps, so that step t is `rows_at(t)` rows at `offset_at(t)` and no step
needs a mask. L is the number of tokens, T N where all rows are of one length; then packed and plain are the same array.
"""

from cython cimport floating
from libc.math cimport exp
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy, memset

from blas cimport multiply
from kernels cimport *


# ---- instruction sets -----------------------------------------------------------------------------------------------

cdef const instruction_set *active = NULL


def available_isas():
    return [instruction_sets[k].name.decode() for k in range(instruction_set_count)
            if instruction_sets[k].is_supported()]


def use_isa(name):
    global active
    for k in range(instruction_set_count):
        if instruction_sets[k].name.decode() == name and instruction_sets[k].is_supported():
            active = &instruction_sets[k]
            return
    raise ValueError(f"name must be one of {available_isas()}; got {name!r}")


def current_isa():
    return active.name.decode()


# The words of the Python interface.
KINDS = {"rnn": CELL_RNN, "gru": CELL_GRU, "lstm": CELL_LSTM}
ACTIVATIONS = {"tanh": ACTIVATION_TANH, "relu": ACTIVATION_RELU, "identity": ACTIVATION_IDENTITY}
OUTPUT_ACTIVATIONS = {"tanh": ACTIVATION_TANH, "identity": ACTIVATION_IDENTITY}
FORMS = {"reset_before": FORM_RESET_BEFORE, "reset_after": FORM_RESET_AFTER, "simplified": FORM_SIMPLIFIED}
UPDATES = {"new": UPDATE_NEW, "old": UPDATE_OLD}
PEEPHOLES = {"current": PEEPHOLE_CURRENT, "previous": PEEPHOLE_PREVIOUS}


cdef inline const kernel_table *kernels_for(floating *type_tag) noexcept nogil:
    return active.f32 if floating is float else active.f64


# ---- what describes a layer and a batch -----------------------------------------------------------------------------

cdef struct Cell:
    int kind               # CELL_*
    int gates              # G, number of gate blocks
    int activation         # ACTIVATION_*: of the state (RNN) or of the cell state (LSTM)
    int variant            # FORM_* (GRU), PEEPHOLE_* (LSTM)
    int update             # UPDATE_* (GRU)


cdef struct Layer:
    Cell cell
    Py_ssize_t D, H
    const void *Wx         # (D, G H)
    const void *Wh         # (H, G H)
    const void *b          # (G H,)
    const void *bhn        # (H,), GRU with FORM_RESET_AFTER
    const void *peephole   # (3, H), LSTM with a peephole


cdef struct Batch:
    Py_ssize_t T, N
    const int64_t *rows    # (T,) falling, or NULL: N rows at every step
    const int64_t *offset  # (T,) first token of each step
    const char *resets     # (L,) state zeroed before this token, or NULL
    bint reverse


cdef inline Py_ssize_t rows_at(const Batch *s, Py_ssize_t t) noexcept nogil:
    return s.N if s.rows == NULL else s.rows[t]


cdef inline Py_ssize_t offset_at(const Batch *s, Py_ssize_t t) noexcept nogil:
    return t * s.N if s.rows == NULL else s.offset[t]


cdef inline Py_ssize_t token_count(const Batch *s) noexcept nogil:
    return offset_at(s, s.T - 1) + rows_at(s, s.T - 1)


cdef inline Py_ssize_t time_of(const Batch *s, Py_ssize_t step) noexcept nogil:
    """The time index of the step-th step in order of computation."""
    return s.T - 1 - step if s.reverse else step


cdef inline const char *resets_at(const Batch *s, Py_ssize_t t) noexcept nogil:
    """The reset flags of step t, or NULL if none is set."""
    cdef Py_ssize_t row, offset = offset_at(s, t)
    if s.resets != NULL:
        for row in range(rows_at(s, t)):
            if s.resets[offset + row]:
                return s.resets + offset
    return NULL


cdef inline floating *at(const floating *block, Py_ssize_t offset) noexcept nogil:
    """block + offset, where an array that the cell does not have stays NULL."""
    return NULL if block == NULL else <floating *>block + offset


cdef inline void zero_rows(const char *flags, Py_ssize_t n, Py_ssize_t H, floating *rows) noexcept nogil:
    cdef Py_ssize_t row
    for row in range(n):
        if flags[row]:
            memset(rows + row * H, 0, H * sizeof(floating))


cdef inline const floating *state_before(const Batch *s, Py_ssize_t step, Py_ssize_t H, const floating *states,
                                         const floating *initial, floating *scratch) noexcept nogil:
    """The state (n, H) that a step starts from, n = rows_at(its time).

    `states` is the block that the step before it wrote, `initial` (N, H) the state at the start. Rows that were not yet
    running (reverse, ragged) start from `initial`; reset rows start from zero; both are put together in `scratch`.
    """
    cdef Py_ssize_t t = time_of(s, step), n = rows_at(s, t)
    cdef Py_ssize_t running = rows_at(s, time_of(s, step - 1)) if step > 0 else 0
    cdef const char *resets = resets_at(s, t)
    if resets == NULL and running == 0:
        return initial
    if resets == NULL and running >= n:
        return states
    running = min(running, n)
    if running > 0:
        memcpy(scratch, states, running * H * sizeof(floating))
    memcpy(scratch + running * H, initial + running * H, (n - running) * H * sizeof(floating))
    if resets != NULL:
        zero_rows(resets, n, H, scratch)
    return scratch


# ---- forward --------------------------------------------------------------------------------------------------------

# The input projection of so many rows at a time is one product whose result is still in cache when its steps come.
cdef enum:
    PROJECTION_ROWS = 128


cdef inline Py_ssize_t steps_per_projection(Py_ssize_t N) noexcept nogil:
    return max(<Py_ssize_t>1, PROJECTION_ROWS // N)


def forward_scratch(int kind, int gates, Py_ssize_t T, Py_ssize_t N, Py_ssize_t H, bint keep):
    """Number of values that `forward` needs as scratch."""
    cdef Py_ssize_t size = 3 * N * H
    if not keep:
        size += 2 * N * H
        if kind != CELL_RNN:
            size += min(T, steps_per_projection(N)) * N * gates * H
    return size


cdef void step_forward(const Layer *w, Py_ssize_t n, const floating *h_prev, const floating *c_prev, floating *gates,
                       floating *c, floating *m, floating *rh, floating *h) noexcept nogil:
    """One step: gates (n, G H) hold x Wx + b and become the activated gates (RNN: gates is h)."""
    cdef Py_ssize_t H = w.H, GH = w.cell.gates * w.H
    cdef const floating *Wh = <const floating *>w.Wh
    cdef const kernel_table *k = kernels_for(h)
    if w.cell.kind == CELL_RNN:
        # h (n,H) = act(x Wx + b + h' (n,H) Wh (H,H))
        multiply(False, False, n, H, H, h_prev, H, Wh, H, <floating>1, h, H)
        k.rnn_forward(n * H, w.cell.activation, h)
    elif w.cell.kind == CELL_LSTM:
        # gates (n,4H) += h' (n,H) Wh (H,4H)
        multiply(False, False, n, GH, H, h_prev, H, Wh, GH, <floating>1, gates, GH)
        k.lstm_forward(n, H, w.cell.variant, w.cell.activation, gates, c_prev, w.peephole, c, h)
    elif w.cell.variant == FORM_RESET_BEFORE:
        # r, z (n,2H) += h' (n,H) Wh[:, :2H];   n (n,H) += (r h') (n,H) Wh[:, 2H:]
        multiply(False, False, n, 2 * H, H, h_prev, H, Wh, GH, <floating>1, gates, GH)
        k.gru_gates(n, H, w.cell.gates, gates, h_prev, rh)
        multiply(False, False, n, H, H, rh, H, Wh + 2 * H, GH, <floating>1, gates + 2 * H, GH)
        k.gru_update(n, H, w.cell.gates, w.cell.update, gates, NULL, h_prev, h)
    elif w.cell.variant == FORM_RESET_AFTER:
        # r, z (n,2H) += h' (n,H) Wh[:, :2H];   m (n,H) = bhn + h' (n,H) Wh[:, 2H:]
        multiply(False, False, n, 2 * H, H, h_prev, H, Wh, GH, <floating>1, gates, GH)
        k.fill_rows(n, H, w.bhn, NULL, NULL, m)
        multiply(False, False, n, H, H, h_prev, H, Wh + 2 * H, GH, <floating>1, m, H)
        k.gru_gates(n, H, w.cell.gates, gates, h_prev, NULL)
        k.gru_update(n, H, w.cell.gates, w.cell.update, gates, m, h_prev, h)
    else:
        # z, n (n,2H) += h' (n,H) Wh (H,2H)
        multiply(False, False, n, GH, H, h_prev, H, Wh, GH, <floating>1, gates, GH)
        k.gru_gates(n, H, w.cell.gates, gates, h_prev, NULL)
        k.gru_update(n, H, w.cell.gates, w.cell.update, gates, NULL, h_prev, h)


cdef void sequence_forward(const Layer *w, const Batch *s, const floating *x, const int64_t *ids, const floating *h0,
                           const floating *c0, floating *gates, floating *c, floating *m, floating *h, floating *h_n,
                           floating *c_n, floating *scratch) noexcept nogil:
    """h (L,H) and final states h_n, c_n (N,H), which hold h0, c0 on entry.

    gates (L,GH), c (L,H), m (L,H) are kept for the backward pass, or NULL: then nothing is kept.
    """
    cdef Py_ssize_t H = w.H, GH = w.cell.gates * w.H, NH = s.N * w.H
    cdef Py_ssize_t step, t, n, low, high, begin = 0, chunk_end = 0, first_token = 0, running
    cdef const kernel_table *k = kernels_for(h)
    cdef bint keep = gates != NULL
    cdef floating *h_scratch = scratch
    cdef floating *c_scratch = scratch + NH
    cdef floating *rh = scratch + 2 * NH
    cdef floating *spare = scratch + 3 * NH
    cdef const floating *h_prev = h0
    cdef const floating *c_prev = c0
    cdef floating *gates_t = NULL
    cdef floating *c_t = NULL
    cdef floating *m_t = NULL
    cdef floating *projected
    if w.cell.kind == CELL_RNN:
        projected = h
        keep = True
    elif keep:
        projected = gates
    else:
        projected = spare + 2 * NH
    for step in range(s.T):
        if step == chunk_end:
            # gates (rows of several steps, GH) = x Wx + b
            chunk_end = min(s.T, step + steps_per_projection(s.N))
            low = time_of(s, chunk_end - 1 if s.reverse else step)
            high = time_of(s, step if s.reverse else chunk_end - 1)
            begin = offset_at(s, low)
            n = offset_at(s, high) + rows_at(s, high) - begin
            first_token = 0 if keep else begin
            gates_t = projected + (begin - first_token) * GH
            if ids != NULL:
                k.fill_rows(n, GH, w.b, w.Wx, ids + begin, gates_t)
            else:
                k.fill_rows(n, GH, w.b, NULL, NULL, gates_t)
                multiply(False, False, n, GH, w.D, x + begin * w.D, w.D, <const floating *>w.Wx, GH, <floating>1,
                         gates_t, GH)
        t = time_of(s, step)
        n = rows_at(s, t)
        begin = offset_at(s, t)
        h_prev = state_before(s, step, H, h_prev, h0, h_scratch)
        if w.cell.kind == CELL_LSTM:
            c_prev = state_before(s, step, H, c_prev, c0, c_scratch)
            c_t = c + begin * H if keep else spare + (step & 1) * NH
        elif w.cell.variant == FORM_RESET_AFTER:
            m_t = m + begin * H if keep else spare
        gates_t = projected + (begin - first_token) * GH
        step_forward(w, n, h_prev, c_prev, gates_t, c_t, m_t, rh, h + begin * H)
        h_prev = h + begin * H
        c_prev = c_t
        # Rows that end with this step leave their state behind.
        running = 0 if step == s.T - 1 else rows_at(s, time_of(s, step + 1))
        if running < n:
            memcpy(h_n + running * H, h_prev + running * H, (n - running) * H * sizeof(floating))
            if w.cell.kind == CELL_LSTM:
                memcpy(c_n + running * H, c_prev + running * H, (n - running) * H * sizeof(floating))


# ---- backward -------------------------------------------------------------------------------------------------------

cdef void step_backward(const Layer *w, Py_ssize_t n, const floating *h_prev, const floating *c_prev,
                        const floating *gates, const floating *c, const floating *m, const floating *h, floating *dh,
                        floating *dc, floating *dgates, floating *dm, floating *drh, floating *rh,
                        floating *dpeephole) noexcept nogil:
    """The step of step_forward in reverse: dh (n,H) and dc hold dL/dh, dL/dc, and become dL/dh', dL/dc'."""
    cdef Py_ssize_t H = w.H, GH = w.cell.gates * w.H
    cdef const floating *Wh = <const floating *>w.Wh
    cdef const kernel_table *k = kernels_for(dh)
    if w.cell.kind == CELL_RNN:
        k.rnn_backward(n * H, w.cell.activation, h, dh, dgates)
        # dh' (n,H) = da (n,H) Wh' (H,H)
        multiply(False, True, n, H, H, dgates, H, Wh, H, <floating>0, dh, H)
    elif w.cell.kind == CELL_LSTM:
        k.lstm_backward(n, H, w.cell.variant, w.cell.activation, gates, c_prev, c, w.peephole, dh, dc, dgates,
                        dpeephole)
        # dh' (n,H) = dgates (n,4H) Wh' (4H,H)
        multiply(False, True, n, H, GH, dgates, GH, Wh, GH, <floating>0, dh, H)
    elif w.cell.variant == FORM_RESET_BEFORE:
        k.gru_update_backward(n, H, w.cell.gates, w.cell.update, gates, NULL, h_prev, dh, dgates, NULL)
        # d(r h') (n,H) = dn (n,H) Wh[:, 2H:]';   dh' (n,H) += dr,dz (n,2H) Wh[:, :2H]'
        multiply(False, True, n, H, H, dgates + 2 * H, GH, Wh + 2 * H, GH, <floating>0, drh, H)
        k.gru_reset_backward(n, H, gates, h_prev, drh, dh, dgates, rh)
        multiply(False, True, n, H, 2 * H, dgates, GH, Wh, GH, <floating>1, dh, H)
    elif w.cell.variant == FORM_RESET_AFTER:
        k.gru_update_backward(n, H, w.cell.gates, w.cell.update, gates, m, h_prev, dh, dgates, dm)
        # dh' (n,H) += dm (n,H) Wh[:, 2H:]' + dr,dz (n,2H) Wh[:, :2H]'
        multiply(False, True, n, H, H, dm, H, Wh + 2 * H, GH, <floating>1, dh, H)
        multiply(False, True, n, H, 2 * H, dgates, GH, Wh, GH, <floating>1, dh, H)
    else:
        k.gru_update_backward(n, H, w.cell.gates, w.cell.update, gates, NULL, h_prev, dh, dgates, NULL)
        # dh' (n,H) += dz,dn (n,2H) Wh' (2H,H)
        multiply(False, True, n, H, GH, dgates, GH, Wh, GH, <floating>1, dh, H)


cdef void product_with_states_before(const Batch *s, Py_ssize_t H, Py_ssize_t columns, const floating *h0,
                                     const floating *h, const floating *h_before, const floating *a, Py_ssize_t lda,
                                     floating *out, Py_ssize_t ldout) noexcept nogil:
    """out (H, columns) = sum over all tokens of h_before (H,) a (columns,).

    h_before (L,H) is NULL where it is h shifted by one step: h0 for the first step, h for all others.
    """
    cdef Py_ssize_t first, rest, shifted, L = token_count(s)
    if h_before != NULL:
        multiply(True, False, H, columns, L, h_before, H, a, lda, <floating>0, out, ldout)
        return
    first = L - s.N if s.reverse else 0
    rest = 0 if s.reverse else s.N
    shifted = s.N if s.reverse else 0
    multiply(True, False, H, columns, s.N, h0, H, a + first * lda, lda, <floating>0, out, ldout)
    multiply(True, False, H, columns, L - s.N, h + shifted * H, H, a + rest * lda, lda, <floating>1, out, ldout)


cdef void sequence_backward(const Layer *w, const Batch *s, const floating *x, const int64_t *ids, const floating *h0,
                            const floating *c0, const floating *gates, const floating *c, const floating *m,
                            const floating *h, const floating *dh, floating *dgates, floating *dm, floating *rh,
                            floating *h_before, floating *dx, floating *dWx, floating *dWh, floating *db,
                            floating *dbhn, floating *dpeephole, floating *dh0, floating *dc0,
                            floating *scratch) noexcept nogil:
    """All gradients of one layer. dh0, dc0 (N,H) hold dL/dh_n, dL/dc_n on entry; db, dbhn, dpeephole hold zeros, and
    dWx too where x is ids. dgates (L,GH), dm, rh and h_before (L,H) are filled for the products after the loop."""
    cdef Py_ssize_t H = w.H, GH = w.cell.gates * w.H, NH = s.N * w.H, L = token_count(s)
    cdef Py_ssize_t step, t, n, begin, before
    cdef const kernel_table *k = kernels_for(dh0)
    cdef floating *h_scratch = scratch
    cdef floating *c_scratch = scratch + NH
    cdef floating *drh = scratch + 2 * NH
    cdef const floating *h_prev
    cdef const floating *c_prev = NULL
    cdef const char *resets
    for step in range(s.T - 1, -1, -1):
        t = time_of(s, step)
        n = rows_at(s, t)
        begin = offset_at(s, t)
        before = offset_at(s, time_of(s, step - 1)) if step > 0 else 0
        h_prev = state_before(s, step, H, h + before * H, h0, h_scratch)
        if w.cell.kind == CELL_LSTM:
            c_prev = state_before(s, step, H, c + before * H, c0, c_scratch)
        if h_before != NULL:
            memcpy(h_before + begin * H, h_prev, n * H * sizeof(floating))
        if dh != NULL:
            k.add(n * H, dh + begin * H, dh0)
        step_backward(w, n, h_prev, c_prev, at(gates, begin * GH), at(c, begin * H), at(m, begin * H), h + begin * H,
                      dh0, dc0, dgates + begin * GH, at(dm, begin * H), drh, at(rh, begin * H), dpeephole)
        resets = resets_at(s, t)
        if resets != NULL:
            zero_rows(resets, n, H, dh0)
            if w.cell.kind == CELL_LSTM:
                zero_rows(resets, n, H, dc0)

    # dx (L,D) = dgates (L,GH) Wx' (GH,D);   dWx (D,GH) = x' (D,L) dgates (L,GH)
    if ids != NULL:
        k.scatter_add(L, GH, ids, dgates, dWx)
    else:
        multiply(False, True, L, w.D, GH, dgates, GH, <const floating *>w.Wx, GH, <floating>0, dx, w.D)
        multiply(True, False, w.D, GH, L, x, w.D, dgates, GH, <floating>0, dWx, GH)
    k.column_sums(L, GH, dgates, db)
    # dWh (H,GH) = h'' (H,L) dgates (L,GH), with r h' or dm in the candidate's block of a GRU
    if w.cell.kind == CELL_GRU and w.cell.variant == FORM_RESET_BEFORE:
        product_with_states_before(s, H, 2 * H, h0, h, h_before, dgates, GH, dWh, GH)
        multiply(True, False, H, H, L, rh, H, dgates + 2 * H, GH, <floating>0, dWh + 2 * H, GH)
    elif w.cell.kind == CELL_GRU and w.cell.variant == FORM_RESET_AFTER:
        product_with_states_before(s, H, 2 * H, h0, h, h_before, dgates, GH, dWh, GH)
        product_with_states_before(s, H, H, h0, h, h_before, dm, H, dWh + 2 * H, GH)
        k.column_sums(L, H, dm, dbhn)
    else:
        product_with_states_before(s, H, GH, h0, h, h_before, dgates, GH, dWh, GH)


# ---- called by rnncore.functional -----------------------------------------------------------------------------------

cdef inline const void *address2(const floating[:, ::1] a) noexcept nogil:
    if a is None or a.shape[0] == 0 or a.shape[1] == 0:
        return NULL
    return &a[0, 0]


cdef inline const void *address1(const floating[::1] a) noexcept nogil:
    if a is None or a.shape[0] == 0:
        return NULL
    return &a[0]


cdef inline const int64_t *address_ids(const int64_t[::1] a) noexcept nogil:
    if a is None or a.shape[0] == 0:
        return NULL
    return &a[0]


cdef inline void describe(Layer *layer, Batch *batch, tuple cell, const floating[:, ::1] Wx, const floating[:, ::1] Wh,
                          const floating[::1] b, const floating[::1] bhn, const floating[:, ::1] peephole,
                          Py_ssize_t T, Py_ssize_t N, const int64_t[::1] rows, const int64_t[::1] offset,
                          const char[::1] resets, bint reverse):
    layer.cell.kind, layer.cell.gates, layer.cell.activation, layer.cell.variant, layer.cell.update = cell
    layer.D = Wx.shape[0]
    layer.H = Wh.shape[0]
    layer.Wx = address2(Wx)
    layer.Wh = address2(Wh)
    layer.b = address1(b)
    layer.bhn = address1(bhn)
    layer.peephole = address2(peephole)
    batch.T = T
    batch.N = N
    batch.rows = address_ids(rows)
    batch.offset = address_ids(offset)
    batch.resets = NULL
    if resets is not None:
        batch.resets = &resets[0]
    batch.reverse = reverse


def forward(tuple cell, Py_ssize_t T, Py_ssize_t N, const int64_t[::1] rows, const int64_t[::1] offset,
            const char[::1] resets, bint reverse, const floating[:, ::1] x, const int64_t[::1] ids,
            const floating[:, ::1] Wx, const floating[:, ::1] Wh, const floating[::1] b, const floating[::1] bhn,
            const floating[:, ::1] peephole, const floating[:, ::1] h0, const floating[:, ::1] c0,
            floating[:, ::1] gates, floating[:, ::1] c, floating[:, ::1] m, floating[:, ::1] h,
            floating[:, ::1] h_n, floating[:, ::1] c_n, floating[::1] scratch):
    """See sequence_forward; cell is (kind, G, activation, variant, update). Needs T, N, H > 0 and a token."""
    cdef Layer layer
    cdef Batch batch
    cdef unsigned long long saved
    describe(&layer, &batch, cell, Wx, Wh, b, bhn, peephole, T, N, rows, offset, resets, reverse)
    with nogil:
        saved = begin_flush_subnormals()
        sequence_forward(&layer, &batch, <const floating *>address2(x), address_ids(ids), &h0[0, 0],
                         <const floating *>address2(c0), <floating *>address2(gates), <floating *>address2(c),
                         <floating *>address2(m), &h[0, 0], &h_n[0, 0], <floating *>address2(c_n), &scratch[0])
        end_flush_subnormals(saved)


def backward(tuple cell, Py_ssize_t T, Py_ssize_t N, const int64_t[::1] rows, const int64_t[::1] offset,
             const char[::1] resets, bint reverse, const floating[:, ::1] x, const int64_t[::1] ids,
             const floating[:, ::1] Wx, const floating[:, ::1] Wh, const floating[::1] b, const floating[::1] bhn,
             const floating[:, ::1] peephole, const floating[:, ::1] h0, const floating[:, ::1] c0,
             const floating[:, ::1] gates, const floating[:, ::1] c, const floating[:, ::1] m,
             const floating[:, ::1] h, const floating[:, ::1] dh, floating[:, ::1] dgates, floating[:, ::1] dm,
             floating[:, ::1] rh, floating[:, ::1] h_before, floating[:, ::1] dx, floating[:, ::1] dWx,
             floating[:, ::1] dWh, floating[::1] db, floating[::1] dbhn, floating[:, ::1] dpeephole,
             floating[:, ::1] dh0, floating[:, ::1] dc0, floating[::1] scratch):
    """See sequence_backward. Needs T, N, H > 0 and a token."""
    cdef Layer layer
    cdef Batch batch
    cdef unsigned long long saved
    describe(&layer, &batch, cell, Wx, Wh, b, bhn, peephole, T, N, rows, offset, resets, reverse)
    with nogil:
        saved = begin_flush_subnormals()
        sequence_backward(&layer, &batch, <const floating *>address2(x), address_ids(ids), &h0[0, 0],
                          <const floating *>address2(c0), <const floating *>address2(gates),
                          <const floating *>address2(c), <const floating *>address2(m), &h[0, 0],
                          <const floating *>address2(dh), &dgates[0, 0], <floating *>address2(dm),
                          <floating *>address2(rh), <floating *>address2(h_before), <floating *>address2(dx),
                          <floating *>address2(dWx), &dWh[0, 0], &db[0], <floating *>address1(dbhn),
                          <floating *>address2(dpeephole), &dh0[0, 0], <floating *>address2(dc0), &scratch[0])
        end_flush_subnormals(saved)


def softmax_cross_entropy(floating[:, ::1] logits, const int64_t[::1] targets, const double[::1] weights,
                          double[::1] losses):
    """In place: logits (rows,V) become their gradients; losses (rows,) are written. Needs rows, V > 0."""
    cdef unsigned long long saved
    with nogil:
        saved = begin_flush_subnormals()
        kernels_for(&logits[0, 0]).softmax_cross_entropy(logits.shape[0], logits.shape[1], &logits[0, 0], &targets[0],
                                                         &weights[0], &losses[0])
        end_flush_subnormals(saved)


def scatter_add(const int64_t[::1] ids, const floating[:, ::1] rows, floating[:, ::1] table):
    """table (V,D)[ids] += rows (L,D). Needs L, D > 0."""
    with nogil:
        kernels_for(&table[0, 0]).scatter_add(rows.shape[0], rows.shape[1], &ids[0], &rows[0, 0], &table[0, 0])


# ---- sampling -------------------------------------------------------------------------------------------------------

cdef struct Candidate:
    double weight
    Py_ssize_t id


cdef int by_falling_weight(const void *a, const void *b) noexcept nogil:
    cdef const Candidate *p = <const Candidate *>a
    cdef const Candidate *q = <const Candidate *>b
    if p.weight != q.weight:
        return -1 if p.weight > q.weight else 1
    return -1 if p.id < q.id else 1


cdef Py_ssize_t draw(const floating *logits, Py_ssize_t V, double temperature, Py_ssize_t top_k, double top_p,
                     Py_ssize_t banned, double uniform, Candidate *candidates) noexcept nogil:
    """One id from softmax(logits / temperature), or -1 if that is not defined."""
    cdef Py_ssize_t j, kept = 0, best = -1
    cdef double total = 0, reached = 0
    for j in range(V):
        if j != banned:
            if logits[j] != logits[j]:
                return -1
            if best < 0 or logits[j] > logits[best]:
                best = j
    if best < 0 or logits[best] - logits[best] != 0:
        return -1
    if temperature == 0:
        return best
    for j in range(V):
        if j != banned:
            candidates[kept].id = j
            candidates[kept].weight = exp((<double>logits[j] - <double>logits[best]) / temperature)
            total += candidates[kept].weight
            kept += 1
    if 0 < top_k < kept or top_p < 1:
        qsort(candidates, kept, sizeof(Candidate), by_falling_weight)
        if 0 < top_k < kept:
            kept = top_k
        # The shortest run of the likeliest that reaches top_p of all.
        for j in range(kept):
            reached += candidates[j].weight
            if reached >= top_p * total:
                kept = j + 1
                break
        total = reached
    uniform *= total
    reached = 0
    for j in range(kept):
        reached += candidates[j].weight
        if reached > uniform:
            return candidates[j].id
    return best


def sample(list cells, const floating[:, ::1] embedding, const floating[:, ::1] Wy, const floating[::1] by,
           floating[:, ::1] h, floating[:, ::1] c, int64_t first, const double[::1] uniforms, double temperature,
           Py_ssize_t top_k, double top_p, Py_ssize_t banned, Py_ssize_t stop, int64_t[::1] ids):
    """See functional.sample_ids. Returns the number of ids drawn, or -1 if the logits are not finite."""
    cdef Py_ssize_t count = len(cells), H = Wy.shape[0], V = Wy.shape[1], n = uniforms.shape[0], l, drawn = 0
    cdef Layer *layers = <Layer *>malloc(count * sizeof(Layer))
    cdef Candidate *candidates = <Candidate *>malloc(V * sizeof(Candidate))
    # h of one step (H), logits (V), and scratch of the widest cell
    cdef floating *work = <floating *>malloc((H + V + forward_scratch(CELL_LSTM, 4, 1, 1, H, False)) * sizeof(floating))
    cdef Batch batch
    cdef int64_t token = first
    cdef const int64_t *ids_in
    cdef const floating *x
    cdef floating *c_l
    cdef unsigned long long saved
    try:
        if layers == NULL or candidates == NULL or work == NULL:
            raise MemoryError
        for l in range(count):
            cell, Wx, Wh, b, bhn, peephole = cells[l]
            describe[floating](&layers[l], &batch, cell, Wx, Wh, b, bhn, peephole, 1, 1, None, None, None, False)
        with nogil:
            saved = begin_flush_subnormals()
            while drawn < n:
                ids_in = NULL
                x = NULL
                if embedding is None:
                    ids_in = &token
                else:
                    x = &embedding[token, 0]
                for l in range(count):
                    c_l = NULL if c is None else &c[l, 0]
                    sequence_forward(&layers[l], &batch, x, ids_in, &h[l, 0], c_l, <floating *>NULL, <floating *>NULL,
                                     <floating *>NULL, work, &h[l, 0], c_l, work + H + V)
                    x = &h[l, 0]
                    ids_in = NULL
                # logits (V,) = by + h (H,) Wy (H,V)
                memcpy(work + H, &by[0], V * sizeof(floating))
                multiply(False, False, 1, V, H, x, H, &Wy[0, 0], V, <floating>1, work + H, V)
                token = draw(work + H, V, temperature, top_k, top_p, banned, uniforms[drawn], candidates)
                if token < 0:
                    drawn = -1
                    break
                ids[drawn] = token
                drawn += 1
                if token == stop:
                    break
            end_flush_subnormals(saved)
    finally:
        free(layers)
        free(candidates)
        free(work)
    return drawn


def _start():
    import os
    *_, widest = available_isas()
    try:
        use_isa(os.environ.get("RNNCORE_ISA", widest))
    except ValueError as error:
        raise ValueError(f"environment variable RNNCORE_ISA: {error}") from None


_start()
