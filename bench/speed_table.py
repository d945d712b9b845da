"""Engine against reference, one thread: the table of the README.

    python bench/speed_table.py [--cell lstm gru ...] [--dtype float32 float64] [--shape 100x1x64x64] [--seconds 0.5]

Each figure is the ratio of medians over interleaved rounds, reference over engine: how many times faster the engine is.
"""

import argparse
import datetime
import os

# BLAS reads it when NumPy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import rnncore as rc
from rnncore import reference
from rnncore.bench.competitors import make_call
from rnncore.bench.measure import flops
from rnncore.bench.workloads import SHAPES, VARIANTS, make_problem
from rnncore.config import processor
from rnncore.testing import interleaved_medians


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--dtype", nargs="+", choices=["float32", "float64"], default=["float32", "float64"])
    shapes = {"x".join(map(str, shape)): shape for shape in SHAPES}
    parser.add_argument("--shape", nargs="+", choices=shapes, default=list(shapes), help="T, N, D and H")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each call of each shape")
    arguments = parser.parse_args()

    rc.set_num_threads(1)
    isa = rc.available_isas()[-1]
    print(
        f"{datetime.date.today()}, {processor()}, 1 thread, {isa}, NumPy {np.__version__}. "
        "Times faster than the reference: forward / forward + backward (GFLOP/s of the engine)\n"
    )
    columns = [(cell, dtype) for cell in arguments.cell for dtype in arguments.dtype]
    print("| T N D H | " + " | ".join(f"{cell} {dtype}" for cell, dtype in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for shape in map(shapes.get, arguments.shape):
        cells = []
        for cell, dtype in columns:
            problem, ratios, rates = make_problem(VARIANTS[cell], shape, dtype), [], []
            for backward in (False, True):
                calls = [make_call(module, problem, backward) for module in (reference, rc)]
                slow, fast = interleaved_medians(calls, arguments.seconds)
                ratios.append(f"{slow / fast:.1f}")
                rates.append(f"{flops(VARIANTS[cell], shape, backward) / fast / 1e9:.0f}")
            cells.append(f"{' / '.join(ratios)} ({' / '.join(rates)})")
        print(f"| {' '.join(map(str, shape))} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
