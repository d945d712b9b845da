"""Memory stays flat, and calls that run out of it change nothing: short runs of bench/leaks.py and bench/faults.py."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

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
    return subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)


@linux_only
def test_memory_stays_flat():
    result = run("leaks.py", "--short")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("%") == 14


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
