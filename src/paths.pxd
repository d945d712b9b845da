"""Losses of whole sequences, which sum over paths of labels, and the best path: each sequence by itself."""

from libc.stdint cimport int64_t

from kernels cimport *
from memory cimport *
from plan cimport *
from shares cimport *
from threads cimport *


# ---- connectionist temporal classification --------------------------------------------------------------------------

# Operations of a state in a frame, forward and backward.
cdef enum:
    CTC_FLOPS = 100


cdef struct CTC:
    Shares shares
    const kernel_table *kernels
    Py_ssize_t N, V, blank
    size_t item
    const char *logits           # (T, N, V)
    const int64_t *lengths       # (N,)
    const int64_t *labels        # of all sequences, one after the other
    const int64_t *begins        # (N+1,): of the labels of each sequence
    const double *weights        # (N,): of the gradients
    double *losses               # (N,)
    char *dlogits                # (T, N, V), zeros; NULL: no gradients


cdef inline void run_ctc_piece(void *context, int piece) noexcept nogil:
    cdef const CTC *f = <const CTC *>context
    cdef Py_ssize_t n, first, L
    for n in range(first_row(&f.shares, f.N, piece), first_row(&f.shares, f.N, piece + 1)):
        first, L = f.begins[n], f.begins[n + 1] - f.begins[n]
        f.losses[n] = f.kernels.ctc(
            f.lengths[n], f.V, f.logits + n * f.V * f.item, f.N * f.V, L, f.labels + first, f.blank, f.weights[n],
            NULL if f.dlogits == NULL else f.dlogits + n * f.V * f.item,
            <double *>(f.shares.work + piece * f.shares.work_size))


cdef inline int run_ctc(CTC *f, const CostRule *rule, int max_threads) except -1:
    cdef double flops = 0
    cdef Py_ssize_t n, L, values = 0
    for n in range(f.N):
        L = f.begins[n + 1] - f.begins[n]
        values = max(values, padded(ctc_work(f.lengths[n], f.V, L, f.dlogits != NULL)))
        flops += <double>CTC_FLOPS * f.lengths[n] * (f.V / 8 + 2 * L + 1)
    f.shares.work_size = values * sizeof(double)
    return run_shares(&f.shares, run_ctc_piece, f.N, flops, rule, max_threads)


# ---- conditional random fields --------------------------------------------------------------------------------------

cdef struct CRF:
    const kernel_table *kernels
    Py_ssize_t T, N, K
    size_t item
    const char *emissions        # (T, N, K)
    const int64_t *lengths       # (N,)
    const double *A              # (K, K)
    int64_t *tags                # (T, N); NULL: none are given
    const double *weights        # (N,): of the gradients
    double *losses               # (N,); NULL: the tags of the best path are wanted
    char *demissions             # (T, N, K), zeros; NULL: no gradients
    double *dA                   # (K, K), added to, or NULL


cdef inline void run_crf_row(const CRF *f, Py_ssize_t n, double *work) noexcept nogil:
    cdef Py_ssize_t offset = n * f.K * f.item
    if f.losses == NULL:
        f.kernels.viterbi(f.lengths[n], f.K, f.emissions + offset, f.N * f.K, f.A, f.tags + n, f.N, work)
        return
    f.losses[n] = f.kernels.crf(
        f.lengths[n], f.K, f.emissions + offset, f.N * f.K, f.A, NULL if f.tags == NULL else f.tags + n, f.N,
        f.weights[n], NULL if f.demissions == NULL else f.demissions + offset, f.dA, work)


cdef inline int run_crf(CRF *f) except -1:
    """All rows in one thread, in order: the sums of dA have the same bits for any number of threads."""
    cdef block memory
    cdef computation rows
    cdef bint interrupted
    cdef Py_ssize_t n
    take_memory(max(crf_work(f.T, f.K, f.demissions != NULL), viterbi_work(f.T, f.K)) * sizeof(double), &memory)
    with nogil:
        begin_computation(&rows)
        for n in range(f.N):
            run_crf_row(f, n, <double *>memory.start)
        interrupted = end_computation(&rows)
    give_block(memory)
    return -1 if interrupted else 0  # the exception of the signal handler is set
