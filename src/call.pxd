"""The records of a call.

Design
------
(a) Python checks, converts and allocates; native code trusts its arguments and runs a whole sequence without the GIL.
(b) The tokens of a batch are *packed*: rows (sequences) in order of falling length, time-major without gaps. Step t is
    `rows_at(t)` rows from `offset_at(t)` on, and no step needs a mask. L is the number of tokens. Where all rows have
    the same length, L = T N and the packed array is the plain one.
(c) A call is cut into *parts*, one for each thread: *groups* of rows of the batch, which never meet, times *members* of
    a group, which share its hidden units and meet after every step. See plan.pxd.
(d) Who computes an element does not change it: every element of a product is one chain of multiply-adds in order of k,
    and sums over tokens run in the order of the backward pass. Results have the same bits for any number of threads.
(e) `void *` points to the element type of the call, float or double; functions are fused over `floating` and cast. An
    array that a cell does not have is NULL.
"""

from cython cimport floating
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from cells cimport cell_variant
from kernels cimport kernel_table
from threads cimport MAX_THREADS, barrier


# A matrix (K, M) in C order (column_step 1) or Fortran order (row_step 1).
cdef struct Matrix:
    void *values
    Py_ssize_t row_step, column_step


cdef struct Layer:
    const kernel_table *kernels
    cell_variant cell
    Py_ssize_t D, H
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
    bint reverse


# How the work is cut: the rows of the batch into `groups`, the hidden units of each group into `members`.
cdef struct Plan:
    int groups, members
    Py_ssize_t units                         # of a member; the last one may have fewer
    Py_ssize_t[MAX_THREADS + 1] first_row    # of each group


# Shared by the threads of a call: see interrupt.pxd.
cdef struct Interrupt:
    int64_t next_look      # nanoseconds: when Python is asked next
    int found


# One sequence call of one layer.
cdef struct Call:
    Layer layer
    BatchRows batch
    Plan plan
    bint packs_x, packs_h        # whether Wx, Wh are packed, or read in place
    void *packed                 # Wx and Wh packed once for all calls (see forward.pxd), or NULL
    bint has_packed              # whether this call reads them
    barrier *barriers            # of all threads, then of each group
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
    void *dgates                 # (chunk_tokens, G H), for the sums over a chunk; the next four are (chunk_tokens, H)
    void *dm
    void *rh
    void *h_before
    void *c_before
    void *dx                     # (L, D), or NULL if not wanted
    bint adds                    # dWh and, unless there are ids, dWx are added to; other weight gradients always are
    Matrix dWx                   # shaped and ordered as the weights
    Matrix dWh
    void *db
    void *dbhn
    void *dpeephole
    void *dh0                    # (N, H): dL/dh_n on entry, dL/dh0 on return; dc0 as well
    void *dc0
    Interrupt *interrupt         # NULL: none is looked for
    bint asks                    # whether its first thread is the one that called
    Py_ssize_t *last_steps       # of each group; after the first interrupt
    void *scratch
    Py_ssize_t packed_size, member_size   # values in its parts: see set_forward_scratch, set_backward_scratch


cdef inline Py_ssize_t gate_columns(const Layer *w) noexcept nogil:
    """G H"""
    return w.cell.num_gates * w.H


cdef inline Py_ssize_t recurrent_columns(const Layer *w) noexcept nogil:
    """Columns of Wh: G H, or 0 for a cell without."""
    return 0 if w.Wh.values == NULL else gate_columns(w)


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
