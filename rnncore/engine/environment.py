"""What the environment says at the start: the instruction set and the number of threads."""

from __future__ import annotations

import os

from .. import _engine

__all__ = ["usable_cores"]


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


def _read() -> None:
    try:
        _engine.use_isa(os.environ.get("RNNCORE_ISA", _engine.current_isa()))
    except ValueError as error:
        raise ValueError(f"environment variable RNNCORE_ISA: {error}") from None
    try:
        _engine.set_num_threads(int(os.environ.get("RNNCORE_NUM_THREADS", usable_cores())))
    except ValueError as error:
        raise ValueError(f"environment variable RNNCORE_NUM_THREADS: {error}") from None


_read()
