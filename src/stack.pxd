"""Layers of cells with packed weights, one on the other: a sequence in one direction or both, or one step at a time."""

from libc.stdint cimport int64_t
from libc.string cimport memcpy

from call cimport *
from forward cimport *
from kernels cimport begin_flush_subnormals, end_flush_subnormals
from memory cimport *
from plan cimport *
from run cimport *


cdef inline void *after(void *start, Py_ssize_t size) noexcept nogil:
    """`size` bytes further; NULL stays NULL."""
    return NULL if start == NULL else <char *>start + size


# ---- a sequence -----------------------------------------------------------------------------------------------------

cdef inline int run_layers(const Call *calls, Py_ssize_t count, int directions, bint double_precision, Py_ssize_t T,
                           Py_ssize_t N, void *x, void *h0, void *c0, void *y, void *h_n, void *c_n,
                           const CostRule *rule, int max_threads) except -1:
    """Run x (T,N,D) through `count` cells, layer by layer, forward before reverse.

    calls: one for each cell, without arrays. y (T,N,H * directions); states (count,N,H): h0, c0 may be NULL for zeros,
    c_n is NULL for cells without.
    """
    cdef Pair pair
    cdef Call *f
    cdef block memory
    cdef size_t item = sizeof(double) if double_precision else sizeof(float)
    cdef Py_ssize_t i, row, H = calls[0].layer.H
    cdef Py_ssize_t size = T * N * H * directions * item, state = N * H * item
    cdef Py_ssize_t between = min(count // directions - 1, <Py_ssize_t>2)
    cdef int direction
    cdef char *outputs
    cdef char *apart               # outputs of the directions, each (T,N,H)
    pair.backward, pair.count, pair.is_double = False, directions, double_precision
    # Outputs of one layer below the top and of the next, and those of the directions of one.
    take_memory((between + directions - 1) * size, &memory)
    try:
        for i in range(0, count, directions):
            outputs = <char *>(y if i + directions == count else after(memory.start, i // directions % 2 * size))
            apart = outputs if directions == 1 or T * N == 1 else <char *>after(memory.start, between * size)
            for direction in range(directions):
                f = &pair.calls[direction]
                f[0] = calls[i + direction]
                f.batch.T, f.batch.N, f.batch.count = T, N, N
                f.x, f.h = x, apart + direction * T * state
                f.h0, f.h_n = after(h0, (i + direction) * state), after(h_n, (i + direction) * state)
                f.c0, f.c_n = after(c0, (i + direction) * state), after(c_n, (i + direction) * state)
            run_pair(&pair, rule, max_threads)
            if apart != outputs:
                for row in range(T * N):
                    for direction in range(directions):
                        memcpy(outputs + (row * directions + direction) * H * item,
                               apart + (direction * T * N + row) * H * item, H * item)
            x = outputs
    finally:
        give_block(memory)
    return 0


# ---- one step -------------------------------------------------------------------------------------------------------

cdef inline Py_ssize_t set_states(Call *calls, Py_ssize_t count, Py_ssize_t N, size_t item, void *h,
                                  void *c) noexcept nogil:
    """Give calls the states h, c (count,N,H), c NULL for cells without, that their steps replace; plans for a thread.

    Returns the values of the scratch that they share.
    """
    cdef Py_ssize_t i, scratch = 0
    for i in range(count):
        calls[i].batch.N = calls[i].batch.count = N
        single_plan(&calls[i].plan, &calls[i].layer, &calls[i].batch)
        calls[i].h0 = calls[i].h_n = after(h, i * N * calls[i].layer.H * item)
        calls[i].c0 = calls[i].c_n = after(c, i * N * calls[i].layer.H * item)
        choose_packing(&calls[i])
        scratch = max(scratch, set_forward_scratch(&calls[i], item))
    return scratch


cdef inline void begin_layers(Call *calls, Group *groups, Member *members, Py_ssize_t count, bint double_precision,
                              void *scratch) noexcept nogil:
    """Get calls, with a group and a member each, ready for step_layers, after set_states."""
    cdef Py_ssize_t i
    for i in range(count):
        calls[i].groups, calls[i].members = groups + i, members + i
        if double_precision:
            begin_forward(&calls[i], <double *>scratch)
        else:
            begin_forward(&calls[i], <float *>scratch)


cdef inline void step_layers(Call *calls, Py_ssize_t count, bint double_precision, void *x, const int64_t *ids,
                             void *out) noexcept nogil:
    """Step with x (N,D), or ids (N,); out (N,H) is the new state of the top layer."""
    cdef Py_ssize_t i
    cdef unsigned long long saved = begin_flush_subnormals()
    for i in range(count):
        # The new state goes to out, then replaces the old one, which is the input of the next layer.
        calls[i].x, calls[i].ids, calls[i].h = x, ids, out
        begin_groups(&calls[i])
        if double_precision:
            forward_steps(&calls[i], calls[i].groups, <double *>NULL)
        else:
            forward_steps(&calls[i], calls[i].groups, <float *>NULL)
        x = calls[i].h0
        ids = NULL
    end_flush_subnormals(saved)
