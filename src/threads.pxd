"""Cython's view of threads.h, where the contract stands."""


cdef extern from "threads.h" nogil:
    enum:
        MAX_THREADS

    ctypedef struct job:
        int (*next_phase)(void *context) noexcept nogil
        void (*run_piece)(void *context, int piece) noexcept nogil
        void *context

    ctypedef struct team:
        pass

    int take_team(int wanted, team **t)

    bint run_job(team *t, const job *j)

    void leave_team(team *t, int size)

    void set_core_count(int count)

    ctypedef struct computation:
        pass

    void begin_computation(computation *c)
    bint end_computation(computation *c)
    bint is_interrupted()

    void set_interrupts(bint (*is_raised)() noexcept nogil)
