"""The time loops: a whole sequence through one layer, forward and backward, in one call without the GIL.

Trusts its arguments; rnncore.functional checks and allocates. The tokens of a batch are *packed*: rows (sequences) in
order of falling length, time-major without gaps, so that step t is `rows_at(t)` rows at `offset_at(t)` and no step
needs a mask. L is the number of tokens, T N where all rows are of one length; then packed and plain are the same array.
"""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_WRITABLE,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cython cimport floating
from libc.math cimport exp
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy, memmove, memset

from kernels cimport *


cdef extern from "stdlib.h" nogil:
    void *aligned_alloc(size_t alignment, size_t size)


# ---- instruction sets -----------------------------------------------------------------------------------------------

cdef const instruction_set *active = NULL


def available_isas():
    """Instruction sets that the kernels are compiled for and this machine runs, plainest first.

    Returns
    -------
    list of str

    Examples
    --------
    >>> available_isas()[0]
    'plain'
    """
    return [instruction_sets[k].name.decode() for k in range(instruction_set_count)
            if instruction_sets[k].is_supported()]


def use_isa(name):
    """Use the kernels of one instruction set in all calls from now on, in all threads.

    The widest one is used at the start, or that of the environment variable ``RNNCORE_ISA``.

    Parameters
    ----------
    name : str
        One of :func:`available_isas`.

    Raises
    ------
    ValueError
        This machine does not run it, or there is no such name.

    Examples
    --------
    >>> use_isa(available_isas()[-1])
    """
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


# ---- what describes a layer and a batch -----------------------------------------------------------------------------

cdef struct Cell:
    int kind               # CELL_*
    int gates              # G, number of gate blocks
    int activation         # ACTIVATION_*: of the state (RNN) or of the cell state (LSTM)
    int variant            # FORM_* (GRU), PEEPHOLE_* (LSTM)
    int update             # UPDATE_* (GRU)


# A right-hand factor (K, M) of many products: packed, or as it lies.
cdef struct Factor:
    Py_ssize_t K, M
    const void *values
    Py_ssize_t ld          # distance between rows where it is not packed, 0 where it is


cdef struct Layer:
    const kernel_table *kernels
    Cell cell
    Py_ssize_t D, H
    const void *Wx         # (D, G H)
    const void *Wh         # (H, G H)
    const void *b          # (G H,)
    const void *bhn        # (H,), GRU with FORM_RESET_AFTER
    const void *peephole   # (3, H), LSTM with a peephole
    # The same weights as factors, set by prepare_forward or, transposed, by prepare_backward. Wh is in two parts: the
    # columns that multiply h' itself, and a GRU's candidate, which sees r h' or stands alone in m.
    Factor x_factor, gates_factor, candidate_factor


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


# ---- products -------------------------------------------------------------------------------------------------------

cdef inline Py_ssize_t packed_size(Py_ssize_t K, Py_ssize_t M) noexcept nogil:
    return K * ((M + LARGEST_PANEL - 1) // LARGEST_PANEL * LARGEST_PANEL)


cdef inline Factor factor(const kernel_table *k, bint transposed, Py_ssize_t K, Py_ssize_t M, const floating *B,
                          Py_ssize_t ldb, floating **room) noexcept nogil:
    """B (K,M), or the transpose of B (M,K), packed into *room, which moves on; or as it lies where room is NULL."""
    cdef Factor f
    f.K = K
    f.M = M
    f.values = B
    f.ld = ldb
    if room != NULL:
        k.pack(K, M, B, 1 if transposed else ldb, ldb if transposed else 1, room[0])
        f.values = room[0]
        f.ld = 0
        room[0] += packed_size(K, M)
    return f


cdef inline void product(const kernel_table *k, Py_ssize_t m, const floating *A, Py_ssize_t lda, const Factor *f,
                         floating *C, Py_ssize_t ldc) noexcept nogil:
    """C (m,M) += A (m,K) B (K,M)"""
    if f.ld == 0:
        k.multiply_packed(m, f.K, f.M, A, lda, f.values, C, ldc)
    else:
        k.multiply(m, f.K, f.M, A, lda, f.values, f.ld, C, ldc)


cdef Py_ssize_t transposed_work(Py_ssize_t m, Py_ssize_t K, Py_ssize_t M) noexcept nogil:
    """Values of scratch that serve multiply_transposed on every instruction set."""
    cdef Py_ssize_t work = 0
    cdef int i
    for i in range(instruction_set_count):
        work = max(work, instruction_sets[i].f32.multiply_transposed_work(m, K, M),
                   instruction_sets[i].f64.multiply_transposed_work(m, K, M))
    return work


cdef inline Py_ssize_t gated_columns(const Layer *w) noexcept nogil:
    """Columns of gates_factor."""
    return 2 * w.H if w.cell.kind == CELL_GRU and w.cell.variant != FORM_SIMPLIFIED else w.cell.gates * w.H


cdef void prepare_forward(Layer *w, bint ids, floating **room) noexcept nogil:
    """Set the factors of the forward pass: packed into *room, or as the weights lie where room is NULL.

    Wx is left as it lies where the input is ids, which take rows of it.
    """
    cdef Py_ssize_t GH = w.cell.gates * w.H, columns = gated_columns(w)
    cdef const floating *Wh = <const floating *>w.Wh
    w.gates_factor = factor(w.kernels, False, w.H, columns, Wh, GH, room)
    w.candidate_factor = factor(w.kernels, False, w.H, GH - columns, Wh + columns, GH, room)
    w.x_factor = factor(w.kernels, False, w.D, GH, <const floating *>w.Wx, GH, NULL if ids else room)


cdef inline Py_ssize_t prepared_size(Py_ssize_t gates, Py_ssize_t D, Py_ssize_t H, bint ids) noexcept nogil:
    """Room that prepare_forward needs."""
    return packed_size(H, gates * H) + packed_size(H, H) + (0 if ids else packed_size(D, gates * H))


cdef void prepare_backward(Layer *w, floating **room) noexcept nogil:
    """Set the recurrent factors of the backward pass, transposed, packed into *room."""
    cdef Py_ssize_t GH = w.cell.gates * w.H, columns = gated_columns(w)
    cdef const floating *Wh = <const floating *>w.Wh
    w.gates_factor = factor(w.kernels, True, columns, w.H, Wh, GH, room)
    w.candidate_factor = factor(w.kernels, True, GH - columns, w.H, Wh + columns, GH, room)


# ---- forward --------------------------------------------------------------------------------------------------------

# The input projection of so many rows at a time is one product whose result is still in cache when its steps come.
cdef enum:
    PROJECTION_ROWS = 128

# Packing costs as much as the products of some thirty rows. It pays from so many steps on, since a step of few rows
# reads packed weights at twice the speed, or from so many tokens on.
cdef enum:
    PACK_STEPS = 8
    PACK_TOKENS = 64


cdef inline bint packing_pays(Py_ssize_t T, Py_ssize_t N) noexcept nogil:
    return T >= PACK_STEPS or T * N >= PACK_TOKENS


cdef inline Py_ssize_t steps_per_projection(Py_ssize_t N) noexcept nogil:
    return max(<Py_ssize_t>1, PROJECTION_ROWS // N)


def forward_scratch(int kind, int gates, Py_ssize_t T, Py_ssize_t N, Py_ssize_t D, Py_ssize_t H, bint ids, bint keep):
    """Number of values that `forward` needs as scratch."""
    cdef Py_ssize_t size = 3 * N * H
    if not keep:
        size += 2 * N * H
        if kind != CELL_RNN:
            size += min(T, steps_per_projection(N)) * N * gates * H
    if packing_pays(T, N):
        size += prepared_size(gates, D, H, ids)
    return size


cdef void step_forward(const Layer *w, Py_ssize_t n, const floating *h_prev, const floating *c_prev, floating *gates,
                       floating *c, floating *m, floating *rh, floating *h) noexcept nogil:
    """One step: gates (n, G H) hold x Wx + b and become the activated gates (RNN: gates is h)."""
    cdef Py_ssize_t H = w.H, GH = w.cell.gates * w.H
    cdef const kernel_table *k = w.kernels
    # gates (n,GH) += h' (n,H) Wh (H,GH), of a GRU with reset gate only r, z (n,2H)
    product(k, n, h_prev, H, &w.gates_factor, gates, GH)
    if w.cell.kind == CELL_RNN:
        k.rnn_forward(n * H, w.cell.activation, h)
    elif w.cell.kind == CELL_LSTM:
        k.lstm_forward(n, H, w.cell.variant, w.cell.activation, gates, c_prev, w.peephole, c, h)
    elif w.cell.variant == FORM_RESET_BEFORE:
        # n (n,H) += (r h') (n,H) Wh[:, 2H:]
        k.gru_gates(n, H, w.cell.gates, gates, h_prev, rh)
        product(k, n, rh, H, &w.candidate_factor, gates + 2 * H, GH)
        k.gru_update(n, H, w.cell.gates, w.cell.update, gates, NULL, h_prev, h)
    elif w.cell.variant == FORM_RESET_AFTER:
        # m (n,H) = bhn + h' (n,H) Wh[:, 2H:]
        k.fill_rows(n, H, w.bhn, NULL, NULL, m)
        product(k, n, h_prev, H, &w.candidate_factor, m, H)
        k.gru_gates(n, H, w.cell.gates, gates, h_prev, NULL)
        k.gru_update(n, H, w.cell.gates, w.cell.update, gates, m, h_prev, h)
    else:
        k.gru_gates(n, H, w.cell.gates, gates, h_prev, NULL)
        k.gru_update(n, H, w.cell.gates, w.cell.update, gates, NULL, h_prev, h)


cdef void sequence_forward(const Layer *w, const Batch *s, const floating *x, const int64_t *ids, const floating *h0,
                           const floating *c0, floating *gates, floating *c, floating *m, floating *h, floating *h_n,
                           floating *c_n, floating *scratch) noexcept nogil:
    """h (L,H) and final states h_n, c_n (N,H), which hold h0, c0 on entry; after prepare_forward.

    gates (L,GH), c (L,H), m (L,H) are kept for the backward pass, or NULL: then nothing is kept.
    """
    cdef Py_ssize_t H = w.H, GH = w.cell.gates * w.H, NH = s.N * w.H
    cdef Py_ssize_t step, t, n, low, high, begin = 0, chunk_end = 0, first_token = 0, running
    cdef const kernel_table *k = w.kernels
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
    cdef floating *projected = gates if keep else spare + 2 * NH
    if w.cell.kind == CELL_RNN:
        projected = h
        keep = True
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
                product(k, n, x + begin * w.D, w.D, &w.x_factor, gates_t, GH)
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

def backward_scratch(int gates, Py_ssize_t L, Py_ssize_t N, Py_ssize_t D, Py_ssize_t H):
    """Number of values that `backward` needs as scratch."""
    cdef Py_ssize_t GH = gates * H
    return 3 * N * H + max(transposed_work(max(D, H), L, GH), packed_size(GH, H) + packed_size(H, H), packed_size(GH, D))


cdef void step_backward(const Layer *w, Py_ssize_t n, const floating *h_prev, const floating *c_prev,
                        const floating *gates, const floating *c, const floating *m, const floating *h, floating *dh,
                        floating *dc, floating *dgates, floating *dm, floating *drh, floating *rh,
                        floating *dpeephole) noexcept nogil:
    """The step of step_forward in reverse: dh (n,H) and dc hold dL/dh, dL/dc, and become dL/dh', dL/dc'."""
    cdef Py_ssize_t H = w.H, GH = w.cell.gates * w.H
    cdef const kernel_table *k = w.kernels
    if w.cell.kind == CELL_RNN:
        k.rnn_backward(n * H, w.cell.activation, h, dh, dgates)
        memset(dh, 0, n * H * sizeof(floating))
    elif w.cell.kind == CELL_LSTM:
        k.lstm_backward(n, H, w.cell.variant, w.cell.activation, gates, c_prev, c, w.peephole, dh, dc, dgates,
                        dpeephole)
        memset(dh, 0, n * H * sizeof(floating))
    elif w.cell.variant == FORM_RESET_BEFORE:
        k.gru_update_backward(n, H, w.cell.gates, w.cell.update, gates, NULL, h_prev, dh, dgates, NULL)
        # d(r h') (n,H) = dn (n,H) Wh[:, 2H:]'
        memset(drh, 0, n * H * sizeof(floating))
        product(k, n, <const floating *>dgates + 2 * H, GH, &w.candidate_factor, drh, H)
        k.gru_reset_backward(n, H, gates, h_prev, drh, dh, dgates, rh)
    elif w.cell.variant == FORM_RESET_AFTER:
        k.gru_update_backward(n, H, w.cell.gates, w.cell.update, gates, m, h_prev, dh, dgates, dm)
        # dh' (n,H) += dm (n,H) Wh[:, 2H:]'
        product(k, n, <const floating *>dm, H, &w.candidate_factor, dh, H)
    else:
        k.gru_update_backward(n, H, w.cell.gates, w.cell.update, gates, NULL, h_prev, dh, dgates, NULL)
    # dh' (n,H) += dgates (n,GH) Wh' (GH,H), of a GRU with reset gate only dr, dz (n,2H)
    product(k, n, <const floating *>dgates, GH, &w.gates_factor, dh, H)


cdef void product_with_states_before(const kernel_table *k, const Batch *s, Py_ssize_t H, Py_ssize_t columns,
                                     const floating *h0, const floating *h, const floating *h_before,
                                     const floating *a, Py_ssize_t lda, floating *out, Py_ssize_t ldout,
                                     floating *work) noexcept nogil:
    """out (H, columns) += sum over all tokens of h_before (H,) a (columns,).

    h_before (L,H) is NULL where it is h shifted by one step: h0 for the first step, h for all others.
    """
    cdef Py_ssize_t first, rest, shifted, L = token_count(s)
    if h_before != NULL:
        k.multiply_transposed(H, L, columns, h_before, H, a, lda, out, ldout, work)
        return
    first = L - s.N if s.reverse else 0
    rest = 0 if s.reverse else s.N
    shifted = s.N if s.reverse else 0
    k.multiply_transposed(H, s.N, columns, h0, H, a + first * lda, lda, out, ldout, work)
    k.multiply_transposed(H, L - s.N, columns, h + shifted * H, H, a + rest * lda, lda, out, ldout, work)


cdef void sequence_backward(Layer *w, const Batch *s, const floating *x, const int64_t *ids, const floating *h0,
                            const floating *c0, const floating *gates, const floating *c, const floating *m,
                            const floating *h, const floating *dh, floating *dgates, floating *dm, floating *rh,
                            floating *h_before, floating *dx, floating *dWx, floating *dWh, floating *db,
                            floating *dbhn, floating *dpeephole, floating *dh0, floating *dc0,
                            floating *scratch) noexcept nogil:
    """All gradients of one layer. dh0, dc0 (N,H) hold dL/dh_n, dL/dc_n on entry, all other gradients zeros.

    dgates (L,GH), dm, rh and h_before (L,H) are filled for the products after the loop.
    """
    cdef Py_ssize_t H = w.H, GH = w.cell.gates * w.H, NH = s.N * w.H, L = token_count(s)
    cdef Py_ssize_t step, t, n, begin, before, columns = gated_columns(w)
    cdef const kernel_table *k = w.kernels
    cdef floating *h_scratch = scratch
    cdef floating *c_scratch = scratch + NH
    cdef floating *drh = scratch + 2 * NH
    cdef floating *work = scratch + 3 * NH
    cdef floating *room = work
    cdef const floating *h_prev
    cdef const floating *c_prev = NULL
    cdef const char *resets
    prepare_backward(w, &room)
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
        step_backward(w, n, h_prev, c_prev, <const floating *>at(gates, begin * GH),
                      <const floating *>at(c, begin * H), <const floating *>at(m, begin * H), h + begin * H, dh0, dc0,
                      dgates + begin * GH, at(dm, begin * H), drh, at(rh, begin * H), dpeephole)
        resets = resets_at(s, t)
        if resets != NULL:
            zero_rows(resets, n, H, dh0)
            if w.cell.kind == CELL_LSTM:
                zero_rows(resets, n, H, dc0)

    # dx (L,D) = dgates (L,GH) Wx' (GH,D);   dWx (D,GH) = x' (D,L) dgates (L,GH)
    if ids != NULL:
        k.scatter_add(L, GH, ids, dgates, dWx)
    else:
        room = work
        w.x_factor = factor(k, True, GH, w.D, <const floating *>w.Wx, GH, &room)
        product(k, L, <const floating *>dgates, GH, &w.x_factor, dx, w.D)
        k.multiply_transposed(w.D, L, GH, x, w.D, dgates, GH, dWx, GH, work)
    k.column_sums(L, GH, dgates, db)
    # dWh (H,GH) = h'' (H,L) dgates (L,GH), with r h' or dm in the candidate's block of a GRU
    product_with_states_before(k, s, H, columns, h0, h, h_before, <const floating *>dgates, GH, dWh, GH, work)
    if rh != NULL:
        k.multiply_transposed(H, L, H, rh, H, dgates + 2 * H, GH, dWh + 2 * H, GH, work)
    if dm != NULL:
        product_with_states_before(k, s, H, H, h0, h, h_before, <const floating *>dm, H, dWh + 2 * H, GH, work)
        k.column_sums(L, H, dm, dbhn)


# ---- memory ---------------------------------------------------------------------------------------------------------

cdef struct Memory:
    void *start
    size_t size


# Freed blocks that wait for the next call, oldest first; guarded by the GIL.
cdef enum:
    MOST_KEPT = 16
cdef size_t LARGEST_KEPT = 1 << 28
cdef Memory[MOST_KEPT] kept
cdef int kept_count = 0
cdef size_t kept_size = 0


cdef Memory take_kept(int index) noexcept:
    global kept_count, kept_size
    cdef Memory taken = kept[index]
    kept_count -= 1
    kept_size -= taken.size
    memmove(&kept[index], &kept[index + 1], (kept_count - index) * sizeof(Memory))
    return taken


cdef class Block:
    """Memory with the buffer protocol that outlives its arrays: freed, it serves the next block of about its size.

    Fresh memory costs a page fault every 4 KB, a fifth of a training step at T=64 N=32 H=256. At most 256 MB are kept.
    """
    cdef Memory memory

    def __cinit__(self, size_t size):
        cdef int i, best = -1
        size = (size + 63) // 64 * 64
        for i in range(kept_count):
            if size <= kept[i].size <= 2 * size and (best < 0 or kept[i].size < kept[best].size):
                best = i
        if best >= 0:
            self.memory = take_kept(best)
            return
        self.memory.size = size
        self.memory.start = aligned_alloc(64, size)
        if self.memory.start == NULL:
            raise MemoryError(f"cannot allocate {size} bytes")

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.memory.start, self.memory.size, 0, flags)

    def __dealloc__(self):
        global kept_count, kept_size
        if self.memory.start == NULL:
            return
        if self.memory.size > LARGEST_KEPT:
            free(self.memory.start)
            return
        while kept_count == MOST_KEPT or kept_size + self.memory.size > LARGEST_KEPT:
            free(take_kept(0).start)
        kept[kept_count] = self.memory
        kept_count += 1
        kept_size += self.memory.size


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
    # Read once a call: use_isa may change `active` from another thread.
    layer.kernels = active.f32 if floating is float else active.f64
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
    cdef floating *room = NULL
    if packing_pays(T, N):
        # Behind what sequence_forward itself needs: see forward_scratch.
        room = &scratch[scratch.shape[0] - prepared_size(layer.cell.gates, layer.D, layer.H, x is None)]
    with nogil:
        saved = begin_flush_subnormals()
        prepare_forward[floating](&layer, x is None, NULL if room == NULL else &room)
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
    cdef const kernel_table *k = active.f32 if floating is float else active.f64
    with nogil:
        saved = begin_flush_subnormals()
        k.softmax_cross_entropy(logits.shape[0], logits.shape[1], &logits[0, 0], &targets[0], &weights[0], &losses[0])
        end_flush_subnormals(saved)


def affine_scratch(Py_ssize_t L, Py_ssize_t D, Py_ssize_t K):
    """Number of values that `affine_forward` and `affine_backward` need as scratch."""
    return max(transposed_work(D, L, K), packed_size(D, K), packed_size(K, D))


def affine_forward(const floating[:, ::1] x, const floating[:, ::1] W, const floating[::1] b, floating[:, ::1] y,
                   floating[::1] scratch):
    """y (L,K) = x (L,D) W (D,K) + b. Needs L, D, K > 0."""
    cdef const kernel_table *k = active.f32 if floating is float else active.f64
    cdef floating *room = &scratch[0]
    cdef Py_ssize_t L = x.shape[0], D = x.shape[1], K = W.shape[1]
    cdef Factor f
    cdef unsigned long long saved
    with nogil:
        saved = begin_flush_subnormals()
        f = factor(k, False, D, K, &W[0, 0], K, &room if packing_pays(1, L) else NULL)
        k.fill_rows(L, K, &b[0], NULL, NULL, &y[0, 0])
        product(k, L, &x[0, 0], D, &f, &y[0, 0], K)
        end_flush_subnormals(saved)


def affine_backward(const floating[:, ::1] x, const floating[:, ::1] W, const floating[:, ::1] dy,
                    floating[:, ::1] dx, floating[:, ::1] dW, floating[::1] db, floating[::1] scratch):
    """dx (L,D) += dy W',  dW (D,K) += x' dy,  db (K,) += sum of dy (L,K). Needs L, D, K > 0."""
    cdef const kernel_table *k = active.f32 if floating is float else active.f64
    cdef floating *room = &scratch[0]
    cdef Py_ssize_t L = x.shape[0], D = x.shape[1], K = W.shape[1]
    cdef Factor f
    cdef unsigned long long saved
    with nogil:
        saved = begin_flush_subnormals()
        f = factor(k, True, K, D, &W[0, 0], K, &room)
        product(k, L, &dy[0, 0], K, &f, &dx[0, 0], D)
        k.multiply_transposed(D, L, K, &x[0, 0], D, &dy[0, 0], K, &dW[0, 0], K, &scratch[0])
        k.column_sums(L, K, &dy[0, 0], &db[0])
        end_flush_subnormals(saved)


def scatter_add(const int64_t[::1] ids, const floating[:, ::1] rows, floating[:, ::1] table):
    """table (V,D)[ids] += rows (L,D). Needs L, D > 0."""
    cdef const kernel_table *k = active.f32 if floating is float else active.f64
    with nogil:
        k.scatter_add(rows.shape[0], rows.shape[1], &ids[0], &rows[0, 0], &table[0, 0])


# ---- streaming ------------------------------------------------------------------------------------------------------

cdef class Stream:
    """A stack of cells with packed weights of its own, one step a call. See rnncore.layers.Stream."""
    cdef Layer *layers
    cdef Batch batch
    cdef Py_ssize_t count, H
    cdef bint is_double
    cdef list cells                       # hold what the pointers in layers point to
    cdef char[::1] packed, h, c, scratch

    def __cinit__(self, list cells, Py_ssize_t N, Py_ssize_t H, bint is_double, char[::1] packed, char[::1] h,
                  char[::1] c, char[::1] scratch):
        """cells as functional.sample_ids takes them, with arrays that nobody else changes; bytes of the packed weights
        (packed_weights values a cell), of h and c (cells, N, H), c None where there is none, and of scratch."""
        self.count = len(cells)
        self.H = H
        self.is_double = is_double
        self.cells, self.packed, self.h, self.c, self.scratch = cells, packed, h, c, scratch
        self.layers = <Layer *>malloc(self.count * sizeof(Layer))
        if self.layers == NULL:
            raise MemoryError
        if is_double:
            describe_stack[double](self.layers, &self.batch, cells, N, <double *>&packed[0])
        else:
            describe_stack[float](self.layers, &self.batch, cells, N, <float *>&packed[0])

    def __dealloc__(self):
        free(self.layers)

    def step(self, x, const int64_t[::1] ids, out):
        """x (N,D), or ids (N,) and x None -> out (N,H), the state of the top layer; all checked before."""
        cdef Py_buffer source, target
        source.buf = NULL
        PyObject_GetBuffer(out, &target, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
        try:
            if x is not None:
                PyObject_GetBuffer(x, &source, PyBUF_C_CONTIGUOUS)
            try:
                if self.is_double:
                    stack_step(self.layers, self.count, &self.batch, <const double *>source.buf, address_ids(ids),
                               <double *>&self.h[0], <double *>(NULL if self.c is None else &self.c[0]),
                               <double *>target.buf, <double *>&self.scratch[0])
                else:
                    stack_step(self.layers, self.count, &self.batch, <const float *>source.buf, address_ids(ids),
                               <float *>&self.h[0], <float *>(NULL if self.c is None else &self.c[0]),
                               <float *>target.buf, <float *>&self.scratch[0])
            finally:
                if x is not None:
                    PyBuffer_Release(&source)
        finally:
            PyBuffer_Release(&target)


def packed_weights(int gates, Py_ssize_t D, Py_ssize_t H):
    """Number of values of the packed weights of one cell."""
    return prepared_size(gates, D, H, False)


cdef describe_stack(Layer *layers, Batch *batch, list cells, Py_ssize_t N, floating *room):
    """Set the layers of a stack that runs one step at a time; the weights are packed into room, unless it is NULL."""
    cdef Py_ssize_t l
    for l in range(len(cells)):
        cell, Wx, Wh, b, bhn, peephole = cells[l]
        describe[floating](&layers[l], batch, cell, Wx, Wh, b, bhn, peephole, 1, N, None, None, None, False)
        prepare_forward(&layers[l], False, &room)


cdef void stack_step(const Layer *layers, Py_ssize_t count, const Batch *batch, const floating *x, const int64_t *ids,
                     floating *h, floating *c, floating *out, floating *scratch) noexcept nogil:
    """One step of all layers: states h, c (count,N,H) are replaced; out (N,H) is the state of the top layer."""
    cdef Py_ssize_t l, NH = batch.N * layers[0].H
    cdef unsigned long long saved = begin_flush_subnormals()
    for l in range(count):
        # The new state is written to out, then over the old one.
        sequence_forward(&layers[l], batch, x, ids, h, c, <floating *>NULL, <floating *>NULL, <floating *>NULL, out, h, c,
                         scratch)
        x = h
        ids = NULL
        h += NH
        if c != NULL:
            c += NH
    end_flush_subnormals(saved)


# ---- sampling -------------------------------------------------------------------------------------------------------

cdef struct Candidate:
    double weight
    Py_ssize_t id


cdef int by_falling_weight(const void *a, const void *b) noexcept nogil:
    cdef const Candidate *p = <const Candidate *>a
    cdef const Candidate *q = <const Candidate *>b
    if p.weight != q.weight:
        return -1 if p.weight > q.weight else 1
    return (p.id > q.id) - (p.id < q.id)


cdef void select_largest(Candidate *candidates, Py_ssize_t count, Py_ssize_t k) noexcept nogil:
    """Bring the k first of `count` in the order of by_falling_weight to the front, in any order (Hoare's selection)."""
    cdef Py_ssize_t low = 0, high = count - 1, i, j
    cdef Candidate pivot, other
    while low < high:
        pivot = candidates[(low + high) // 2]
        i = low
        j = high
        while i <= j:
            while by_falling_weight(&candidates[i], &pivot) < 0:
                i += 1
            while by_falling_weight(&pivot, &candidates[j]) < 0:
                j -= 1
            if i <= j:
                other = candidates[i]
                candidates[i] = candidates[j]
                candidates[j] = other
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            return


cdef Py_ssize_t draw(const floating *logits, Py_ssize_t V, double temperature, Py_ssize_t top_k, double top_p,
                     const char *banned, double uniform, Candidate *candidates) noexcept nogil:
    """One id from softmax(logits / temperature), or -1 if that is not defined."""
    cdef Py_ssize_t j, kept = 0, best = -1, all_
    cdef double total = 0, reached = 0, bound
    for j in range(V):
        if not banned[j]:
            if logits[j] != logits[j]:
                return -1
            if best < 0 or logits[j] > logits[best]:
                best = j
    if best < 0 or logits[best] - logits[best] != 0:
        return -1
    if temperature == 0:
        return best
    for j in range(V):
        if not banned[j]:
            candidates[kept].id = j
            candidates[kept].weight = exp((<double>logits[j] - <double>logits[best]) / temperature)
            total += candidates[kept].weight
            kept += 1
    if not total > 0:
        return -1
    if 0 < top_k < kept or top_p < 1:
        if 0 < top_k < kept:
            select_largest(candidates, kept, top_k)
            kept = top_k
        elif top_p < 1:
            # All those below this bound together weigh less than 1 - top_p: none of them is needed.
            bound = (1 - top_p) * total / kept
            all_ = kept
            kept = 0
            for j in range(all_):
                if candidates[j].weight >= bound:
                    candidates[kept] = candidates[j]
                    kept += 1
        qsort(candidates, kept, sizeof(Candidate), by_falling_weight)
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
           Py_ssize_t top_k, double top_p, const char[::1] banned, Py_ssize_t stop, int64_t[::1] ids,
           floating[::1] packed, floating[::1] scratch):
    """See functional.sample_ids. Returns the number of ids drawn, or -1 if the logits are not finite."""
    cdef Py_ssize_t count = len(cells), H = Wy.shape[0], V = Wy.shape[1], n = uniforms.shape[0], drawn = 0
    cdef Layer *layers = <Layer *>malloc(count * sizeof(Layer))
    cdef Candidate *candidates = <Candidate *>malloc(V * sizeof(Candidate))
    # The state of the top layer (H), the logits (V), then what a step needs.
    cdef floating *top = &scratch[0]
    cdef floating *logits = top + H
    cdef floating *c0 = NULL if c is None else &c[0, 0]
    cdef Batch batch
    cdef int64_t token = first
    cdef const floating *x = NULL
    try:
        if layers == NULL or candidates == NULL:
            raise MemoryError
        describe_stack(layers, &batch, cells, 1, &packed[0])
        with nogil:
            while drawn < n:
                if embedding is not None:
                    x = &embedding[token, 0]
                stack_step(layers, count, &batch, x, NULL if x != NULL else &token, &h[0, 0], c0, top, logits + V)
                # logits (V,) = by + h (H,) Wy (H,V)
                memcpy(logits, &by[0], V * sizeof(floating))
                layers[0].kernels.multiply(1, H, V, top, H, &Wy[0, 0], V, logits, V)
                token = draw(logits, V, temperature, top_k, top_p, &banned[0], uniforms[drawn], candidates)
                if token < 0:
                    drawn = -1
                    break
                ids[drawn] = token
                drawn += 1
                if token == stop:
                    break
    finally:
        free(layers)
        free(candidates)
    return drawn


def _start():
    import os
    *_, widest = available_isas()
    try:
        use_isa(os.environ.get("RNNCORE_ISA", widest))
    except ValueError as error:
        raise ValueError(f"environment variable RNNCORE_ISA: {error}") from None


_start()
