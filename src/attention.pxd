"""Attention of every step over a memory: scores, their softmax, and the mean of the memory that they weigh.

Row n of the batch attends to memory[:lengths_memory[n], n] alone: each row by itself, cut into shares for threads.
"""

from cython cimport floating
from libc.stdint cimport int64_t

from call cimport *
from kernels cimport *
from plan cimport *
from products cimport *
from shares cimport *
from threads cimport is_interrupted


cdef struct Attention:
    Shares shares                    # with (T, S) values and work of products, for each piece
    const kernel_table *kernels
    Py_ssize_t T, N, S, E, A
    bint is_double, backward
    const int64_t *lengths           # (N,): steps that ask
    const int64_t *memory_lengths    # (N,)
    const void *q                    # (T, N, A)
    const void *k                    # (S, N, A): keys; NULL: the memory itself, A = E
    const void *v                    # (A,), with keys
    const void *memory               # (S, N, E)
    void *weights                    # (T, N, S), zeros
    void *context                    # (T, N, E), zeros
    const void *dcontext             # (T, N, E)
    void *dq                         # zeros, as all that follow
    void *dk
    void *dv                         # (N, A): of each row
    void *dmemory


# Values of scores, times A where they are additive, between two looks for an interrupt.
cdef enum:
    SCORES_BETWEEN_LOOKS = 1 << 22


cdef inline Py_ssize_t steps_between_looks(const Attention *f) noexcept nogil:
    return max(<Py_ssize_t>1, SCORES_BETWEEN_LOOKS // (f.S * (1 if f.k == NULL else f.A)))


cdef inline Matrix row_major(const void *values, Py_ssize_t row_step) noexcept nogil:
    cdef Matrix matrix
    matrix.values, matrix.row_step, matrix.column_step = <void *>values, row_step, 1
    return matrix


cdef inline void attend_row(const Attention *f, Py_ssize_t n, const floating *q, const floating *k,
                            const floating *memory, floating *weights, floating *context) noexcept nogil:
    cdef const kernel_table *t = f.kernels
    cdef Py_ssize_t T = f.lengths[n], S = f.memory_lengths[n], A = f.A, E = f.E, N = f.N
    cdef Matrix rows = row_major(memory, N * E)
    cdef Py_ssize_t some = steps_between_looks(f), step = 0, steps
    cdef Factor of_scores = factor(t, E, S, 1, 0, transpose(rows), <floating **>NULL)
    cdef Factor of_context = factor(t, S, E, 1, 0, rows, <floating **>NULL)
    if k == NULL:
        # scores (T,S) = q (T,E) memory' (E,S)
        product_from(t, T, q, N * E, &of_scores, NULL, 0, weights, N * f.S, NULL)
    while step < T and not is_interrupted():
        steps = min(some, T - step)
        if k != NULL:
            t.additive_scores(steps, S, A, q + step * N * A, N * A, k, N * A, f.v, weights + step * N * f.S, N * f.S)
        t.softmax_rows(steps, S, weights + step * N * f.S, N * f.S)
        step += steps
    # context (T,E) = weights (T,S) memory (S,E)
    product_from(t, T, weights, N * f.S, &of_context, NULL, 0, context, N * E, NULL)


cdef inline void add_outer_product(const kernel_table *t, Py_ssize_t T, Py_ssize_t m, Py_ssize_t M, const floating *A,
                                   Py_ssize_t lda, const floating *B, Py_ssize_t ldb, floating *C, Py_ssize_t ldc,
                                   floating *work) noexcept nogil:
    """C (m, M) += A' B over T rows"""
    cdef weight_gradient out
    out.adds, out.m, out.M, out.A, out.lda, out.C, out.ldc = True, m, M, A, lda, C, ldc
    weight_gradients_of(t, T, M, B, ldb, &out, 1, <floating *>NULL, work)


cdef inline void attend_row_backward(const Attention *f, Py_ssize_t n, const floating *q, const floating *k,
                                     const floating *memory, const floating *weights, const floating *dcontext,
                                     floating *dq, floating *dk, floating *dv, floating *dmemory,
                                     floating *work) noexcept nogil:
    cdef const kernel_table *t = f.kernels
    cdef Py_ssize_t T = f.lengths[n], S = f.memory_lengths[n], A = f.A, E = f.E, N = f.N
    cdef Matrix rows = row_major(memory, N * E)
    cdef Factor of_dweights = factor(t, E, S, 1, 0, transpose(rows), <floating **>NULL)
    cdef Factor of_dq = factor(t, S, E, 1, 0, rows, <floating **>NULL)
    cdef Py_ssize_t some = steps_between_looks(f), step = 0, steps
    cdef floating *dscores = work
    work += padded(f.T * f.S)
    # d weights (T,S) = dcontext (T,E) memory' (E,S);   dmemory (S,E) += weights' dcontext
    product_from(t, T, dcontext, N * E, &of_dweights, NULL, 0, dscores, S, NULL)
    add_outer_product(t, T, S, E, weights, N * f.S, dcontext, N * E, dmemory, N * E, work)
    while step < T and not is_interrupted():
        steps = min(some, T - step)
        t.softmax_rows_backward(steps, S, weights + step * N * f.S, N * f.S, dscores + step * S, S)
        if k != NULL:
            t.additive_backward(steps, S, A, q + step * N * A, N * A, k, N * A, f.v, dscores + step * S, S,
                                dq + step * N * A, N * A, dk, N * A, dv)
        step += steps
    if k != NULL:
        return
    # dq (T,E) = dscores (T,S) memory (S,E);   dmemory (S,E) += dscores' q
    product_from(t, T, dscores, S, &of_dq, NULL, 0, dq, N * E, NULL)
    add_outer_product(t, T, S, E, dscores, S, q, N * E, dmemory, N * E, work)


cdef inline void attend(const Attention *f, Py_ssize_t n, floating *work) noexcept nogil:
    cdef Py_ssize_t query = n * f.A, memory = n * f.E
    if f.lengths[n] == 0 or f.memory_lengths[n] == 0:
        return
    if not f.backward:
        attend_row(f, n, <const floating *>f.q + query, <const floating *>at(f.k, query, work),
                   <const floating *>f.memory + memory, <floating *>f.weights + n * f.S,
                   <floating *>f.context + memory)
        return
    attend_row_backward(f, n, <const floating *>f.q + query, <const floating *>at(f.k, query, work),
                        <const floating *>f.memory + memory, <const floating *>f.weights + n * f.S,
                        <const floating *>f.dcontext + memory, <floating *>f.dq + query,
                        <floating *>at(f.dk, query, work), <floating *>at(f.dv, query, work),
                        <floating *>f.dmemory + memory, work)


cdef inline void run_attention_piece(void *context, int piece) noexcept nogil:
    cdef const Attention *f = <const Attention *>context
    cdef char *work = f.shares.work + piece * f.shares.work_size
    cdef Py_ssize_t n
    for n in range(first_row(&f.shares, f.N, piece), first_row(&f.shares, f.N, piece + 1)):
        if f.is_double:
            attend(f, n, <double *>work)
        else:
            attend(f, n, <float *>work)


cdef inline int run_attention(Attention *f, const CostRule *rule, int max_threads) except -1:
    cdef double flops = 2. * f.T * f.N * f.S * (f.A * (1 if f.k == NULL else 20) + f.E) * (3 if f.backward else 1)
    cdef Py_ssize_t values = padded(f.T * f.S) + gradients_work(f.S, f.T, f.E) if f.backward else 0
    f.shares.work_size = values * (sizeof(double) if f.is_double else sizeof(float))
    return run_shares(&f.shares, run_attention_piece, f.N, flops, rule, max_threads)
