"""Running calls: one, or two side by side, on a team of threads."""

from cpython.pyport cimport PY_SSIZE_T_MAX
from libc.string cimport memset

from backward cimport *
from call cimport *
from forward cimport *
from interrupt cimport *
from kernels cimport begin_flush_subnormals, end_flush_subnormals
from memory cimport *
from plan cimport *
from threads cimport *


# One call, or two side by side.
cdef struct Pair:
    Call[2] calls
    int count, size
    bint backward, is_double


cdef inline void run_part_of_call(const Pair *pair, int which, int member) noexcept nogil:
    cdef const Call *f = &pair.calls[which]
    if member >= plan_size(&f.plan):
        return
    if pair.is_double:
        if pair.backward:
            backward_part(f, member, <double *>f.scratch)
        else:
            forward_part(f, member, <double *>f.scratch)
    elif pair.backward:
        backward_part(f, member, <float *>f.scratch)
    else:
        forward_part(f, member, <float *>f.scratch)


cdef inline void run_part(void *context, int member) noexcept nogil:
    cdef const Pair *pair = <const Pair *>context
    cdef unsigned long long saved = begin_flush_subnormals()
    cdef int first = plan_size(&pair.calls[0].plan)
    if pair.size == 1:
        run_part_of_call(pair, 0, 0)
        if pair.count == 2:
            run_part_of_call(pair, 1, 0)
    elif member < first:
        run_part_of_call(pair, 0, member)
    else:
        run_part_of_call(pair, 1, member - first)
    end_flush_subnormals(saved)


cdef inline int make_plans(Pair *pair, const CostRule *rule, int size) noexcept nogil:
    """Make the plans for a team of at most that size, and return the size that they need."""
    cdef int i, needed = 0
    for i in range(pair.count):
        # Two calls share the team.
        make_plan(&pair.calls[i].plan, &pair.calls[i].layer, &pair.calls[i].batch, rule,
                  max(1, (size + 1 - i) // pair.count if pair.count == 2 else size))
        needed += plan_size(&pair.calls[i].plan)
    return 1 if size == 1 else needed


cdef inline int run_pair(Pair *pair, const CostRule *rule, int max_threads) except -1:
    """Make the plans, the scratch and the barriers, then run."""
    cdef double flops = 0
    cdef int i, wanted, granted, barriers = 0
    cdef Py_ssize_t values = 0
    cdef Py_ssize_t[2] needed
    cdef size_t item = sizeof(double) if pair.is_double else sizeof(float)
    cdef Interrupt interrupt
    cdef Py_ssize_t *last_steps
    cdef block memory
    cdef char *room
    cdef char *states
    cdef Call *f
    for i in range(pair.count):
        flops += flops_of(&pair.calls[i].layer, &pair.calls[i].batch, pair.calls[i].ids != NULL)
    wanted = make_plans(pair, rule, threads_for(2 * flops if pair.backward else flops, rule, max_threads))
    granted = take_team(wanted)
    try:
        # A smaller team than was wanted has other plans, which may need fewer threads still.
        pair.size = make_plans(pair, rule, granted) if granted < wanted else wanted
        for i in range(pair.count):
            f = &pair.calls[i]
            if pair.backward:
                needed[i] = set_backward_scratch(f)
            else:
                choose_packing(f)
                needed[i] = set_forward_scratch(f) + 2 * padded(f.batch.N * f.layer.H)  # for state_or_zeros
            values += padded(needed[i])
            barriers += 1 + f.plan.groups
        take_memory(values * item + 2 * barriers * sizeof(barrier), &memory)
        memset(memory.start, 0, barriers * sizeof(barrier))
        last_steps = <Py_ssize_t *>(<char *>memory.start + barriers * sizeof(barrier))
        room = <char *>memory.start + 2 * barriers * sizeof(barrier)
        interrupt.found = False
        interrupt.next_look = nanoseconds() + NANOSECONDS_BETWEEN_LOOKS
        pair.calls[0].barriers = <barrier *>memory.start
        pair.calls[1].barriers = pair.calls[0].barriers + 1 + pair.calls[0].plan.groups
        for i in range(barriers):
            last_steps[i] = PY_SSIZE_T_MAX
        for i in range(pair.count):
            f = &pair.calls[i]
            f.interrupt, f.asks = &interrupt, i == 0 or pair.size == 1
            f.last_steps = last_steps + (f.barriers - pair.calls[0].barriers)
            states = room
            room += padded(needed[i]) * item
            if not pair.backward:
                f.h0 = state_or_zeros(f, f.h0, &states, item)
                if f.c_n != NULL:
                    f.c0 = state_or_zeros(f, f.c0, &states, item)
            f.scratch = <void *>place_chunk(f, <size_t>states, item) if pair.backward else states
        with nogil:
            run_team(pair.size, run_part, pair)
        give_block(memory)
        if interrupt.found:
            return -1  # the exception of the signal handler is set
    finally:
        leave_team(granted)
    return 0
