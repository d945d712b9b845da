"""The command line of the comparison."""

from __future__ import annotations

import argparse
import datetime
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain, groupby
from pathlib import Path

import numpy as np

from .. import _engine
from ..config import processor
from ..engine.cells import CELLS
from ..files import replacing
from . import mine
from .competitors import has
from .measure import bandwidth, peak
from .modes import MODES
from .report import Record, summary

PINNED = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "RNNCORE_NUM_THREADS")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of ``rnncore bench``."""
    description = (
        "Time the engine beside NumPy, PyTorch, ONNX Runtime, OpenVINO (those installed) and the limits of the machine."
    )
    parser = argparse.ArgumentParser(prog="rnncore bench", description=description)
    parser.add_argument("--cell", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--dtype", nargs="+", choices=["float32", "float64"], default=["float32"])
    parser.add_argument("--mode", nargs="+", choices=MODES, default=["forward", "train"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.3, help="for each call of each workload")
    parser.add_argument("--short", action="store_true", help="few workloads, a tenth of a second each")
    parser.add_argument("--real", action="store_true", help="forward, train: layers of models in production instead")
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file")
    own = (
        "instead: your own calls; FUNCTION returns (original, replacement), callables, or a dict of such pairs by name"
    )
    parser.add_argument("--mine", metavar="MODULE:FUNCTION", help=own)
    return parser


def run_pinned(arguments: argparse.Namespace, argv: Sequence[str]) -> int | None:
    """Run again in a process whose threads are pinned, unless those of this one are.

    BLAS reads its variables when it is loaded. Returns None, or the exit code of that process.
    """
    if all(os.environ.get(name) == str(arguments.threads) for name in PINNED):
        return None
    environment = {**os.environ, **dict.fromkeys(PINNED, str(arguments.threads))}
    # The same package, whatever the current directory.
    paths = [str(Path(__file__).parents[2]), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return subprocess.call([sys.executable, "-P", "-m", "rnncore.bench", *argv], env=environment)


def _describe_run(threads: int) -> dict[str, str | int]:
    installed = [package for package in ("torch", "onnxruntime", "openvino") if has(package)]
    return {
        "date": str(datetime.date.today()),
        "processor": processor(),
        "instruction set": _engine.get_isa(),
        "threads": threads,
        "numpy": np.__version__,
        **{package: importlib.import_module(package).__version__ for package in installed},
    }


def _measure_mode(arguments: argparse.Namespace, mode: str) -> list[Record]:
    """Measure a mode and print its records as they come, a summary after each group of them."""
    records = chain.from_iterable(MODES[mode](arguments, mode, dtype) for dtype in arguments.dtype)
    done = []
    for (cell, dtype), group in groupby(records, lambda record: (record.cell, record.dtype)):
        of_group: list[Record] = []
        for record in group:
            if not of_group:
                print(f"\n{cell} {dtype} {mode}, {record.unit}")
            of_group.append(record)
            print(record, flush=True)
        print(*summary(of_group), sep="\n", flush=True)
        done += of_group
    return done


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; return the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.threads < 1:
        parser.error(f"--threads must be at least 1; got {arguments.threads}")
    code = run_pinned(arguments, argv)
    if code is not None:
        return code
    if arguments.mine:
        try:
            return mine.run(arguments.mine, arguments.seconds)
        except ValueError as error:
            parser.error(str(error))
    if arguments.short:
        arguments.seconds = min(arguments.seconds, 0.1)
    head = _describe_run(arguments.threads)
    print(", ".join(f"{name} {value}" for name, value in head.items()))
    for dtype in arguments.dtype:
        rates = ", ".join(f"{size >> 10:,} KB {bandwidth(size) / 1e9:.0f}" for size in (1 << 18, 1 << 20, 1 << 22))
        print(f"limits: large {dtype} product {peak(dtype) / 1e9:.0f} GFLOP/s; reading GB/s: {rates}")
    print("ms, us: less is better; /s: more is better; N x: times as fast as")
    records = [record for mode in arguments.mode for record in _measure_mode(arguments, mode)]
    if arguments.json:
        content = {**head, "records": [asdict(record) for record in records]}
        with replacing(arguments.json) as file:
            file.write(json.dumps(content, indent=1).encode() + b"\n")
    return 0
