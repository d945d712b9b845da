"""Ctrl-C during a call: the thread that called asks Python now and then, and all threads leave their time loops."""

from libc.stdint cimport int64_t

from call cimport *


cdef enum:
    NANOSECONDS_BETWEEN_LOOKS = 100_000_000
    STEPS_BETWEEN_LOOKS = 8


cdef extern from "Python.h":
    int PyErr_CheckSignals() noexcept


cdef extern from "system.h" nogil:
    int64_t nanoseconds()
    bint is_set(const int *flag)
    void set_flag(int *flag)


cdef inline bint handler_raised() noexcept with gil:
    """Run the handlers of signals that have come, in the main thread; an exception of theirs stays set."""
    return PyErr_CheckSignals() != 0


cdef inline void look_for_interrupt(Interrupt *interrupt) noexcept nogil:
    """In the thread that called."""
    if nanoseconds() >= interrupt.next_look and not is_set(&interrupt.found):
        if handler_raised():
            set_flag(&interrupt.found)
        interrupt.next_look = nanoseconds() + NANOSECONDS_BETWEEN_LOOKS


cdef inline bint is_interrupted(const Call *f, Py_ssize_t step, bint calls) noexcept nogil:
    """Whether to leave the time loop before a step; `calls` in the thread that called."""
    if f.interrupt == NULL:
        return False
    if calls and step % STEPS_BETWEEN_LOOKS == 0:
        look_for_interrupt(f.interrupt)
    return is_set(&f.interrupt.found)
