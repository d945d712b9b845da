"""A job of one phase: the rows of a batch, cut into shares for threads, each with scratch of its own."""

from memory cimport *
from plan cimport *
from threads cimport *


# The first member of the struct that describes such a job.
cdef struct Shares:
    int pieces
    bint began
    char *work                   # work_size bytes for each piece
    size_t work_size


cdef inline int next_share_phase(void *context) noexcept nogil:
    cdef Shares *shares = <Shares *>context
    cdef bint ends = shares.began
    shares.began = True
    return 0 if ends else shares.pieces


cdef inline Py_ssize_t first_row(const Shares *shares, Py_ssize_t rows, int piece) noexcept nogil:
    """Where the share of a piece begins, or after the last piece ends."""
    return rows * piece // shares.pieces


cdef inline int run_shares(Shares *shares, void (*run_piece)(void *context, int piece) noexcept nogil,
                           Py_ssize_t rows, double flops, const CostRule *rule, int max_threads) except -1:
    """Run the job whose struct begins with `shares`, which has its work_size."""
    cdef team *threads = NULL
    cdef block memory
    cdef job phase
    cdef bint interrupted = False
    cdef int wanted = <int>min(<Py_ssize_t>threads_for(flops, rule, max_threads), rows), size = 1
    if wanted > 1:
        size = take_team(wanted, &threads)
    shares.pieces, shares.began = size, False
    try:
        take_memory(size * shares.work_size, &memory)
        shares.work = <char *>memory.start
        phase.next_phase, phase.run_piece, phase.context = next_share_phase, run_piece, shares
        with nogil:
            interrupted = run_job(threads, &phase)
        give_block(memory)
    finally:
        if wanted > 1:
            leave_team(threads, size)
    return -1 if interrupted else 0  # the exception of the signal handler is set
