"""The records of a call.

Design
------
(a) Python checks, converts and allocates; native code trusts its arguments and runs a whole sequence without the GIL.
(b) The tokens of a batch are *packed*: rows (sequences) in order of falling length, time-major without gaps. Step t is
    `rows_at(t)` rows from `offset_at(t)` on, and no step needs a mask. L is the number of tokens. Where all rows have
    the same length, L = T N and the packed array is the plain one.
(c) A call is a job of *phases*: packing, the time loop, sums. A phase has *pieces*, which threads run at the same time:
    *groups* of rows of the batch, which run the time loop apart, times *members* of a group, which share its hidden
    units, so that each step is a phase. See plan.pxd and threads.h.
(d) Who computes an element does not change it: every element of a product is one chain of multiply-adds in order of k,
    and sums over tokens run in the order of the backward pass. Results have the same bits for any number of threads.
(e) `void *` points to the element type of the call, float or double; functions are fused over `floating` and cast. An
    array that a cell does not have is NULL.
"""

from cython cimport floating
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from cells cimport cell_variant, has_Wh
from kernels cimport LARGEST_QUANTIZED, PRECISION_INT8, kernel_table
from threads cimport MAX_THREADS


# A matrix (K, M) in C order (column_step 1) or Fortran order (row_step 1).
cdef struct Matrix:
    void *values
    Py_ssize_t row_step, column_step


# A right-hand factor (K, blocks M) of many products, packed or in place.
cdef struct Factor:
    Py_ssize_t K, M
    int blocks
    Py_ssize_t step        # distance between the columns of two blocks, in the matrix and in the product
    Matrix matrix          # the first block, in place
    void *packed           # the blocks, packed_step bytes apart, or NULL
    size_t packed_step
    int precision          # PRECISION_*, of what is packed
    double scale           # of int8: what the rows that it multiplies are divided by, or 0 for a scale of each row


cdef struct Layer:
    const kernel_table *kernels
    cell_variant cell
    Py_ssize_t D, H
    int precision          # PRECISION_*: only PRECISION_FULL has Wx and Wh in place
    double x_scale         # of int8: Factor.scale of Wx
    Matrix Wx              # (D, G H), in C order if there are ids
    Matrix Wh              # (H, G H)
    const void *b          # (G H,)
    const void *bhn        # (H,), GRU with FORM_RESET_AFTER
    const void *peephole   # (3, H), LSTM with a peephole


# Rows first .. first + count - 1 of a batch of N rows.
cdef struct BatchRows:
    Py_ssize_t T, N
    Py_ssize_t first, count
    const int64_t *rows      # (T,) falling: rows of the whole batch at each step, or NULL: N at every step
    const int64_t *offset    # (T,) first token of each step
    const char *resets       # (L,) state zeroed before this token, or NULL
    const void *mask         # (N, H) factors of h' where it multiplies Wh, or NULL: see masked_state
    bint reverse


# How the work is cut: the rows of the batch into `groups`, the hidden units of each group into `members`.
cdef struct Plan:
    int groups, members
    Py_ssize_t units                         # of a member; the last one may have fewer
    Py_ssize_t[MAX_THREADS + 1] first_row    # of each group


# Hidden units first .. first + units - 1. Wh is in two factors: `gates` has the columns that multiply h' itself;
# `candidate` the candidate's columns of a GRU, which multiply r h' or whose product goes to m.
cdef struct Member:
    Py_ssize_t first, units
    Factor x, gates, candidate


# A step of a group.
cdef struct Step:
    Py_ssize_t index       # in order of computation
    Py_ssize_t n           # its rows, tokens begin .. begin + n - 1
    Py_ssize_t begin
    const void *h_prev     # (n, H); c_prev as well
    const void *c_prev
    const void *h_masked   # (n, H) what multiplies Wh: h_prev, or its product with the mask; forward
    void *gates            # (n, G H), forward; c, m and h (n, H) as well
    void *c
    void *m
    void *h
    const char *resets     # (n,), or NULL: see resets_at; backward


# The rows of a group, and what its members do next: a stage of a step (see steps.pxd).
cdef struct Group:
    BatchRows batch
    void *scratch
    bint running           # whether there is something left to do
    Step step
    int stage
    # forward
    Py_ssize_t projection_end              # steps before this one have x Wx + b
    Py_ssize_t projection, projected_rows  # first of the tokens projected last, and how many in this step
    # backward
    bint ends              # the last stage of step `ended`, then
    bint begins            # the first one of `step`
    Step ended


# Steps first .. end - 1 of a computation, and their tokens begin .. begin + count - 1.
cdef struct Chunk:
    Py_ssize_t first, end, begin, count


# What the threads of a call do in a phase.
cdef enum Phase:
    STARTING, PACKING, STEPPING, SUMMING


# One sequence call of one layer.
cdef struct Call:
    Layer layer
    BatchRows batch
    Plan plan
    Phase phase
    Group *groups                # of the plan; members as well
    Member *members
    bint packs_x, packs_h        # whether Wx, Wh are packed, or read in place
    void *packed                 # Wx and Wh packed once for all calls (see forward.pxd), or NULL
    bint has_packed              # whether this call reads them
    void *x                      # (L, D), or
    const int64_t *ids           # (L,)
    void *h0                     # (N, H), c0 as well; NULL for zeros where nothing is saved
    void *c0
    void *gates                  # (L, G H) activated gates, saved for the backward pass; so are c, m (L, H)
    void *c
    void *m
    void *h                      # (L, H)
    void *h_n                    # (N, H), h0 on entry; c_n as well
    void *c_n
    void *dh                     # (L, H)
    Py_ssize_t chunk_tokens      # tokens of a chunk of steps at most: see backward.pxd
    Chunk chunk
    Factor Wx_transposed         # for dx
    void *dgates                 # (chunk_tokens, G H), for the sums over a chunk; the next four are (chunk_tokens, H)
    void *dm
    void *rh
    void *h_before
    void *c_before
    void *dx                     # (L, D), or NULL if not wanted
    bint adds                    # dWh and, unless there are ids, dWx are added to; other weight gradients always are
    int shards                   # row n of the batch adds to the gradients of the weights of shard n % shards, which
    Py_ssize_t shard_step        # are so many values after those of the shard before; N is a multiple of shards
    Matrix dWx                   # shaped and ordered as the weights
    Matrix dWh
    void *db
    void *dbhn
    void *dpeephole
    void *dh0                    # (N, H): dL/dh_n on entry, dL/dh0 on return; dc0 as well
    void *dc0
    void *work                   # of each piece: of the sums, or of quantized products
    Py_ssize_t packed_size, group_size, work_size   # values of its scratch: see forward.pxd, backward.pxd


cdef inline Py_ssize_t gate_columns(const Layer *w) noexcept nogil:
    """G H"""
    return w.cell.num_gates * w.H


cdef inline Py_ssize_t recurrent_columns(const Layer *w) noexcept nogil:
    """Columns of Wh: G H, or 0 for a cell without."""
    return gate_columns(w) if has_Wh(&w.cell) else 0


cdef inline bint takes_ids_only(const Layer *w) noexcept nogil:
    """Whether Wx has too many rows for sums in 32 bits."""
    return w.precision == PRECISION_INT8 and w.D > LARGEST_QUANTIZED


# ---- arrays ---------------------------------------------------------------------------------------------------------

cdef inline floating *at(const void *array, Py_ssize_t offset, floating *type_) noexcept nogil:
    """array + offset; NULL stays NULL."""
    return NULL if array == NULL else <floating *>array + offset


cdef inline Py_ssize_t padded(Py_ssize_t count) noexcept nogil:
    """Round a number of values up so that no two scratch arrays share a cache line."""
    return (count + 15) // 16 * 16


cdef inline void zero_rows(const char *flags, Py_ssize_t n, Py_ssize_t M, floating *rows, Py_ssize_t ld) noexcept nogil:
    """Zero the first M values of the flagged rows."""
    cdef Py_ssize_t row
    for row in range(n):
        if flags[row]:
            memset(rows + row * ld, 0, M * sizeof(floating))


cdef inline void copy_rows(Py_ssize_t n, Py_ssize_t M, const floating *source, floating *target,
                           Py_ssize_t ld) noexcept nogil:
    cdef Py_ssize_t row
    for row in range(n):
        memcpy(target + row * ld, source + row * ld, M * sizeof(floating))


cdef inline void multiply_rows(Py_ssize_t n, Py_ssize_t M, const floating *a, const floating *b, floating *target,
                               Py_ssize_t ld) noexcept nogil:
    """target = a b, elementwise: the first M values of n rows."""
    cdef Py_ssize_t row, j
    for row in range(n):
        for j in range(M):
            target[row * ld + j] = a[row * ld + j] * b[row * ld + j]


# ---- steps of a batch -----------------------------------------------------------------------------------------------

cdef inline Py_ssize_t rows_at(const BatchRows *s, Py_ssize_t t) noexcept nogil:
    return s.count if s.rows == NULL else max(<Py_ssize_t>0, min(s.count, s.rows[t] - s.first))


cdef inline Py_ssize_t offset_at(const BatchRows *s, Py_ssize_t t) noexcept nogil:
    return (t * s.N if s.rows == NULL else s.offset[t]) + s.first


cdef inline Py_ssize_t token_count(const BatchRows *s) noexcept nogil:
    """L, the tokens of all N rows."""
    return s.T * s.N if s.rows == NULL else s.offset[s.T - 1] + s.rows[s.T - 1]


cdef inline Py_ssize_t time_of(const BatchRows *s, Py_ssize_t step) noexcept nogil:
    """Time index of a step, counted in order of computation."""
    return s.T - 1 - step if s.reverse else step


cdef inline const char *resets_at(const BatchRows *s, Py_ssize_t t) noexcept nogil:
    """The reset flags of time t, or NULL if none is set."""
    cdef Py_ssize_t row, offset = offset_at(s, t)
    if s.resets != NULL:
        for row in range(rows_at(s, t)):
            if s.resets[offset + row]:
                return s.resets + offset
    return NULL


cdef inline const floating *state_before(const BatchRows *s, Py_ssize_t step, Py_ssize_t H, const floating *states,
                                         const floating *initial, floating *scratch) noexcept nogil:
    """The state (n, H) that a step starts from, n = rows_at(its time).

    `states` is the block that the previous step wrote, `initial` (count, H) the state at the start. Rows that were not
    running yet (reverse, ragged) start from `initial`, reset rows from zero; such a mix is assembled in `scratch`.
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
        zero_rows(resets, n, H, scratch, H)
    return scratch


cdef inline const floating *masked_state(const BatchRows *s, Py_ssize_t n, Py_ssize_t H, const floating *state,
                                         floating *scratch) noexcept nogil:
    """The state (n, H) times the mask, in `scratch`; without a mask the state."""
    if s.mask == NULL:
        return state
    multiply_rows(n, H, state, <const floating *>s.mask + s.first * H, scratch, H)
    return scratch
