"""Cython's view of threads.h, where the contract stands."""


cdef extern from "threads.h" nogil:
    enum:
        MAX_THREADS

    int take_team(int wanted)

    void run_team(int size, void (*body)(void *context, int member) noexcept nogil, void *context)

    void leave_team(int size)

    ctypedef struct barrier:
        pass

    void wait_for_all(barrier *b, int size)
