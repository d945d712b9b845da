"""Running calls: one, or two side by side, as a job of a team of threads."""

from libc.string cimport memset

from backward cimport *
from call cimport *
from forward cimport *
from memory cimport *
from plan cimport *
from threads cimport *


# One call, or two side by side.
cdef struct Pair:
    Call[2] calls
    int[2] pieces          # of their phases
    int count
    bint backward, is_double


cdef inline int next_phase_of_call(const Pair *pair, Call *f) noexcept nogil:
    if pair.backward:
        return next_backward_phase(f, <double *>NULL) if pair.is_double else next_backward_phase(f, <float *>NULL)
    return next_forward_phase(f, <double *>NULL) if pair.is_double else next_forward_phase(f, <float *>NULL)


cdef inline int next_phase(void *context) noexcept nogil:
    """Of both calls together."""
    cdef Pair *pair = <Pair *>context
    cdef int i, pieces = 0
    for i in range(pair.count):
        pair.pieces[i] = next_phase_of_call(pair, &pair.calls[i])
        pieces += pair.pieces[i]
    return pieces


cdef inline void run_piece(void *context, int piece) noexcept nogil:
    cdef const Pair *pair = <const Pair *>context
    cdef const Call *f = &pair.calls[0]
    if piece >= pair.pieces[0]:
        f = &pair.calls[1]
        piece -= pair.pieces[0]
    if pair.backward:
        if pair.is_double:
            run_backward_piece(f, piece, <double *>NULL)
        else:
            run_backward_piece(f, piece, <float *>NULL)
    elif pair.is_double:
        run_forward_piece(f, piece, <double *>NULL)
    else:
        run_forward_piece(f, piece, <float *>NULL)


cdef inline int make_plans(Pair *pair, const CostRule *rule, int size) noexcept nogil:
    """Make the plans for a team of that size, and return the number of their pieces."""
    cdef int i, needed = 0
    for i in range(pair.count):
        # Two calls share the team.
        make_plan(&pair.calls[i].plan, &pair.calls[i].layer, &pair.calls[i].batch, rule,
                  max(1, (size + pair.count - 1 - i) // pair.count))
        needed += plan_size(&pair.calls[i].plan)
    return needed


cdef inline Py_ssize_t set_scratch(const Pair *pair, Call *f, size_t item) noexcept nogil:
    """Set the sizes of the scratch of a call and return its number of values."""
    if pair.backward:
        return set_backward_scratch(f)
    choose_packing(f)
    return set_forward_scratch(f, item) + 2 * padded(f.batch.N * f.layer.H)  # for state_or_zeros


cdef inline void begin_call(const Pair *pair, Call *f, char *scratch, size_t item) noexcept nogil:
    if not pair.backward:
        f.h0 = state_or_zeros(f, f.h0, &scratch, item)
        if f.c_n != NULL:
            f.c0 = state_or_zeros(f, f.c0, &scratch, item)
    f.phase = STARTING
    if pair.backward:
        if pair.is_double:
            begin_backward(f, <double *>scratch)
        else:
            begin_backward(f, <float *>scratch)
    elif pair.is_double:
        begin_forward(f, <double *>scratch)
    else:
        begin_forward(f, <float *>scratch)


cdef inline size_t aligned(size_t size) noexcept nogil:
    """Round a number of bytes up to whole cache lines."""
    return (size + 63) // 64 * 64


cdef inline int run_with(Pair *pair, team *threads) except -1:
    """Make the scratch of the plans, then run."""
    cdef size_t item = sizeof(double) if pair.is_double else sizeof(float)
    cdef size_t[2] groups, members, values
    cdef size_t size = 0
    cdef block memory
    cdef char *room
    cdef Call *f
    cdef job steps
    cdef bint interrupted
    cdef int i
    for i in range(pair.count):
        f = &pair.calls[i]
        groups[i] = aligned(f.plan.groups * sizeof(Group))
        members[i] = aligned(f.plan.members * sizeof(Member))
        values[i] = padded(set_scratch(pair, f, item)) * item
        size += groups[i] + members[i] + values[i]
    take_memory(size, &memory)
    room = <char *>memory.start
    for i in range(pair.count):
        f = &pair.calls[i]
        f.groups = <Group *>room
        f.members = <Member *>(room + groups[i])
        begin_call(pair, f, room + groups[i] + members[i], item)
        room += groups[i] + members[i] + values[i]
    steps.next_phase, steps.run_piece, steps.context = next_phase, run_piece, pair
    with nogil:
        interrupted = run_job(threads, &steps)
    give_block(memory)
    return -1 if interrupted else 0  # the exception of the signal handler is set


cdef inline int run_pair(Pair *pair, const CostRule *rule, int max_threads) except -1:
    """Make the plans, and run with as many threads as they have work for."""
    cdef double flops = 0
    cdef int i, wanted, size
    cdef team *threads = NULL
    for i in range(pair.count):
        flops += flops_of(&pair.calls[i].layer, &pair.calls[i].batch, pair.calls[i].ids != NULL)
    wanted = threads_for(2 * flops if pair.backward else flops, rule, max_threads)
    if wanted > 1:
        wanted = min(wanted, make_plans(pair, rule, wanted))
    if wanted == 1:
        make_plans(pair, rule, 1)
        return run_with(pair, NULL)
    size = take_team(wanted, &threads)
    try:
        if size < wanted:
            make_plans(pair, rule, size)
        return run_with(pair, threads)
    finally:
        leave_team(threads, size)
