"""Break a copy of the package on purpose, and see whether its tests fail.

    python tests/mutants/run.py              # every mutant; exit status 1 if one survives
    python tests/mutants/run.py python       # those of one table: python, native

RNNCORE_TEST_SHARE=k/n takes every n-th mutant, from the k-th on. Those of the table ``native`` need a compiler, Cython
and setuptools, the others take some seconds each.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))

from mutants import native, python  # noqa: E402

import rnncore as rc  # noqa: E402

TABLES = {"python": python.MUTANTS, "native": native.MUTANTS}
FILES = ["setup.py", "pyproject.toml", "README.md", "LICENSE", "src", "rnncore", "tests", "bench"]
SHARE, SHARES = map(int, os.environ.get("RNNCORE_TEST_SHARE", "0/1").split("/"))

# How tests fail of what is no program any more: that a test noticed a wrong result it does not prove.
BROKEN = ("ImportError", "ModuleNotFoundError", "NameError", "UnboundLocalError", "AttributeError", "TypeError")


def names_of(table):
    """The mutants of a table whose turn it is, without those that this processor does not run."""
    names = list(TABLES[table])[SHARE::SHARES]
    if "avx512" in rc.available_isas() or platform.machine() == "aarch64":
        return names
    return [name for name in names if name not in native.OF_WIDE_PROCESSORS]


def group_of(table, name):
    """The part of the code that a mutant is of: C, Cython, or a module of the package."""
    file = Path(TABLES[table][name][0])
    if table == "native":
        return "C kernels" if file.suffix == ".h" else "Cython engine"
    return ".".join(file.with_suffix("").parts[1:])


def prepare(table, folder):
    """Copy the sources, with the compiled modules, or with the C that Cython makes of those that will be compiled."""
    for item in FILES:
        source = ROOT / item
        if source.is_dir():
            shutil.copytree(source, folder / item, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy2(source, folder / item)
    if table == "python":
        for module in Path(rc.__file__).parent.glob("_*.so"):
            shutil.copy2(module, folder / "rnncore")
        return
    text = (folder / "setup.py").read_text()
    assert text.count("[engine, blas]") == 1
    (folder / "setup.py").write_text(text.replace("[engine, blas]", "[engine]"))  # mutants are the same with BLAS
    subprocess.run([sys.executable, "setup.py", "-q", "--version"], cwd=folder, check=True, capture_output=True)
    assert (folder / "build/cython/src/_engine.c").exists()


def survives(table, name, prepared, folder):
    """Return what the tests say of a mutant, made in an empty folder from what ``prepare`` made; "" if one noticed."""
    file, correct, broken, *tests = TABLES[table][name]
    shutil.copytree(prepared, folder, dirs_exist_ok=True)
    text = (folder / file).read_text()
    assert text.count(correct) == 1, f"{file} no longer holds exactly one {correct!r}"
    (folder / file).write_text(text.replace(correct, broken))
    environment = os.environ | {"PYTHONPATH": str(folder)}
    if table == "native":
        # A quick build, of one instruction set where the mutants are the same on all.
        flags = "-O0" if name in native.OF_WIDE_PROCESSORS else "-O0 -DPLAIN_ONLY"
        environment |= {"RNNCORE_CFLAGS": flags, "RNNCORE_ISA": "plain"}
        build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        subprocess.run(build, cwd=folder, env=environment, capture_output=True, check=True)
    report = folder / "report.xml"
    options = ["-x", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command = [
        sys.executable,
        "-m",
        "pytest",
        *options,
        *(f"tests/{test}" for test in tests or ["engine/test_engine.py"]),
    ]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if result.returncode == 1:  # tests were collected, ran and failed
        failures = [failure.get("message", "") for failure in ElementTree.parse(report).iter("failure")]
        if any(not message.startswith(BROKEN) for message in failures):
            return ""
    return result.stdout[-2000:] + result.stderr[-2000:]


def main(tables):
    made, killed = Counter(), Counter()
    for table in tables:
        with tempfile.TemporaryDirectory() as prepared:
            prepare(table, Path(prepared))
            for name in names_of(table):
                begin = time.perf_counter()
                with tempfile.TemporaryDirectory() as folder:
                    said = survives(table, name, Path(prepared), Path(folder))
                seconds = time.perf_counter() - begin
                print(f"{'SURVIVES' if said else 'killed'} {seconds:5.1f} s  {name}\n{said}".rstrip(), flush=True)
                made[group_of(table, name)] += 1
                killed[group_of(table, name)] += not said
    width = max(map(len, made), default=0)
    print()
    for group, count in made.items():
        print(f"{group:{width}}  {count:3} mutants, {killed[group]:3} killed")
    print(f"{made.total()} mutants, {killed.total()} killed")
    return made != killed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(TABLES)))
