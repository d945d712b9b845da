"""What a process sets once, or reads from the environment: the instruction set and the number of threads."""

from __future__ import annotations

import os
import platform
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from operator import index

from .. import _engine

__all__ = ["available_isas", "get_num_threads", "set_num_threads", "use_isa"]


# ---- instruction sets -----------------------------------------------------------------------------------------------


def available_isas() -> list[str]:
    """List the instruction sets that the kernels are compiled for and this machine runs, narrowest first.

    ``"blas"``, after ``"plain"``, is there where SciPy is: see :func:`use_isa`.

    Returns
    -------
    list of str

    Examples
    --------
    >>> available_isas()[0]
    'plain'
    """
    names = _own_isas()
    return names[:1] + ["blas"] * _has_blas() + names[1:]


def _own_isas() -> list[str]:
    return [name for name in _engine.compiled_isas() if name != "blas" and _engine.is_supported(name)]


def _has_blas() -> bool:
    """Tell whether SciPy is there, and the extension module that takes its products."""
    return ("scipy" in sys.modules or find_spec("scipy") is not None) and find_spec("rnncore._blas") is not None


def _default_isa() -> str:
    """The widest set; on Apple's processors, for which there is none, BLAS: SciPy brings Apple's own."""
    if sys.platform == "darwin" and platform.machine() == "arm64" and _has_blas():
        return "blas"
    return _own_isas()[-1]


def use_isa(name: str) -> None:
    """Use the kernels of one instruction set in all later calls, in all threads.

    The default is the widest one, or the one named by the environment variable ``RNNCORE_ISA``. ``"blas"`` takes the
    steps of the cells from the widest set, and the products from the BLAS that SciPy brings. SciPy is loaded when it is
    chosen, and uses threads of its own: set ``OPENBLAS_NUM_THREADS=1``. BLAS sums in an order that depends on the
    sizes, so the promises of equal bits do not hold with it. It is the default on Apple's processors.

    Parameters
    ----------
    name : str
        One of :func:`available_isas`.

    Raises
    ------
    ValueError
        This machine does not run it, or there is no such name.

    Examples
    --------
    >>> use_isa(available_isas()[-1])
    """
    if not isinstance(name, str) or name not in available_isas():
        raise ValueError(f"name must be one of {available_isas()}; got {name!r}")
    if name == "blas" and name not in _engine.compiled_isas():
        from .. import _blas

        widest = _own_isas()[-1]
        _engine.add_isa(name, _blas.make_entry(*(_engine.kernels_of(widest, double) for double in (False, True))))
    _engine.set_isa(name)


# ---- threads --------------------------------------------------------------------------------------------------------


def usable_cores() -> int:
    """Return the number of cores that the process may use, by its affinity and its container's quota (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
            cores = min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or no quota ("max")
        pass
    return cores


def set_num_threads(n: int) -> None:
    """Use at most n threads in each later call; never more than 64, nor more than there are cores to spare.

    The default is the number of cores that the process (and its container) may use, or the environment variable
    ``RNNCORE_NUM_THREADS``. A call takes one thread for each 12 million floating-point operations. Each thread gets
    rows of the batch, at least four; further threads share the hidden units, where each has at least 50,000
    multiplications a step; the two directions of a layer run side by side. Calls from several Python threads at once
    share the cores. A thread that other processes keep from its core is left out for 10 to 160 milliseconds.
    Threads fall asleep a tenth of a millisecond after a call. The number of threads does not change a single bit of
    any result.

    Parameters
    ----------
    n : int

    Raises
    ------
    TypeError, ValueError
        n is not an integer, or below 1.

    Examples
    --------
    >>> before = get_num_threads()
    >>> set_num_threads(1)
    >>> get_num_threads()
    1
    >>> set_num_threads(before)
    """
    try:
        number = index(n)
    except TypeError:
        raise TypeError(f"n must be an integer; got {n!r}") from None
    if number < 1:
        raise ValueError(f"n must be at least 1; got {number}")
    global _are_set
    _are_set = True
    _engine.set_max_threads(number)


def get_num_threads() -> int:
    """Return the number of threads that a call may use: see :func:`set_num_threads`.

    Returns
    -------
    int

    Examples
    --------
    >>> get_num_threads() >= 1
    True
    """
    return _engine.get_max_threads()


_are_set = False


def threads_are_set() -> bool:
    """Return whether the number of threads is not the default: the user or the environment has set it."""
    return _are_set


@contextmanager
def default_threads(n: int) -> Iterator[None]:
    """Let n be the default number of threads in the block."""
    before = get_num_threads()
    _engine.set_max_threads(n)
    try:
        yield
    finally:
        if not _are_set:
            _engine.set_max_threads(before)


def get_isa() -> str:
    """Return the instruction set in use."""
    return _engine.get_isa()


# ---- the environment ------------------------------------------------------------------------------------------------


def _read_environment() -> None:
    try:
        use_isa(os.environ.get("RNNCORE_ISA", _default_isa()))
    except ValueError as error:
        raise ValueError(f"environment variable RNNCORE_ISA: {error}") from None
    cores = usable_cores()
    _engine.set_usable_cores(cores)
    _engine.set_max_threads(cores)
    try:
        if "RNNCORE_NUM_THREADS" in os.environ:
            set_num_threads(int(os.environ["RNNCORE_NUM_THREADS"]))
    except ValueError as error:
        raise ValueError(f"environment variable RNNCORE_NUM_THREADS: {error}") from None


_read_environment()


# ---- interrupts -----------------------------------------------------------------------------------------------------

# Python runs the handlers of signals in the main thread; in a child that is the one that forked.
_engine.set_main_thread(threading.main_thread().ident)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _engine.set_main_thread(threading.get_ident()))
