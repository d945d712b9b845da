"""Short runs of bench/leaks.py and bench/faults.py: memory stays flat, and calls that run out of it change nothing."""

import importlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "bench"

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
with_faults = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or not any(map(shutil.which, ("cc", "gcc", "clang"))),
    reason="needs the GNU C library and a C compiler",
)


def run(program, *arguments):
    paths = os.pathsep.join(filter(None, [str(BENCH), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-W", "ignore", BENCH / program, *arguments]  # a warning of forks with threads
    return subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment, check=False)


@linux_only
@with_faults
@pytest.mark.parametrize("kind", ["engine", "numpy", "threads"])
def test_calls_that_run_out_of_memory(kind):
    result = run("faults.py", "--quick", "--kinds", kind)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 crashes, 0 wrong" in result.stdout.splitlines()[-1]


@linux_only
@with_faults
def test_calls_while_the_interpreter_runs_out_of_memory():
    pytest.importorskip("_testcapi")
    for case in ("lstm lengths", "Adam", "fused softmax", "int8 stream"):
        result = run("faults.py", "--quick", "--kinds", "python", "--only", case)
        assert result.returncode == 0, result.stdout + result.stderr


@linux_only
def test_memory_stays_flat():
    result = run("leaks.py", "--short")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("%") == 14


class Scripted:
    """Faults that a case makes itself, by their number."""

    kind = "engine"

    def __init__(self):
        self.first, self.allocated = 0, 3

    def begin(self, first, last):
        self.first = first

    def end(self):
        self.first, before = 0, self.first
        return before == 1

    def live(self):
        return self.allocated


@linux_only
@pytest.mark.parametrize(
    ("accident", "message"),
    [
        ("none", None),
        ("another error", "raises Traceback"),
        ("half a change", "what was given is changed"),
        ("another result", "the result has other bits"),
        ("a block kept", "1 allocations are left"),
        ("worse later", "other bits in the call after"),
    ],
)
def test_what_goes_wrong_is_found(accident, message):
    """Of one call that fails at its only allocation."""
    faults = importlib.import_module("faults")
    scripted, given, worse = Scripted(), np.zeros(3), []

    def call():
        if scripted.first == 1:
            if accident == "another error":
                raise KeyError("x")
            if accident == "another result":
                return np.ones(2)
            given[1] += accident == "half a change"
            scripted.allocated += accident == "a block kept"
            worse.extend(["worse"] * (accident == "worse later"))
            raise MemoryError
        return np.array([2.5, 1.5 + len(worse)])

    run = faults.Run(faults.Case(call, [given]), scripted)
    assert run.all_points(1, 1, lambda _: None) == 1
    if message is None:
        assert not run.wrong
    else:
        assert message in run.wrong[0]
