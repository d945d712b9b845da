"""Ctrl-C during a call: the thread that called asks Python now and then, and all threads leave their time loops.

Members of a group must leave after the same step, or they would wait for each other for ever: their leader writes the
last step of all before they meet, and everybody reads it afterwards. Steps are counted in order of computation; a
leader that is ahead writes a later step, which nobody takes for an earlier one.
"""

from libc.stdint cimport int64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from call cimport *
from plan cimport *


cdef enum:
    NANOSECONDS_BETWEEN_LOOKS = 100_000_000
    STEPS_BETWEEN_LOOKS = 8


cdef extern from "Python.h":
    int PyErr_CheckSignals() noexcept


cdef inline bint handler_raised() noexcept with gil:
    """Run the handlers of signals that have come, in the main thread; an exception of theirs stays set."""
    return PyErr_CheckSignals() != 0


cdef inline int64_t nanoseconds() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return time.tv_sec * <int64_t>1_000_000_000 + time.tv_nsec


cdef inline void look_for_interrupt(const Call *f, const Part *p, Py_ssize_t step) noexcept nogil:
    """Before the members of a group meet in a step."""
    cdef Interrupt *interrupt = f.interrupt
    if interrupt == NULL or not p.leads:
        return
    if p.asks and step % STEPS_BETWEEN_LOOKS == 0 and nanoseconds() >= interrupt.next_look:
        interrupt.found = interrupt.found or handler_raised()
        interrupt.next_look = nanoseconds() + NANOSECONDS_BETWEEN_LOOKS
    if interrupt.found and p.last_step[0] > step:
        p.last_step[0] = step


cdef inline bint is_last_step(const Call *f, const Part *p, Py_ssize_t step) noexcept nogil:
    """After the members of a group have met."""
    return f.interrupt != NULL and step >= p.last_step[0]
