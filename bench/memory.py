"""Peak memory of forward and backward: python bench/memory.py [--shape 200x64x64x256] [--threads 1 2]

Each figure is from a fresh process: how much its peak of resident memory grows in one call of forward and backward over
arguments that are there already, in values of the dtype over T N H. Linux.
"""

import argparse
import math
import subprocess
import sys

from rnncore.config import processor

MEASURED = """
import sys
import rnncore as rc
from rnncore import functional
from rnncore.bench.competitors import make_call
from rnncore.bench.workloads import VARIANTS, make_problem

def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

cell, threads, dtype, *shape = sys.argv[1:]
rc.set_num_threads(int(threads))
make_call(functional, make_problem(VARIANTS[cell], (2, 2, 3, 4), dtype), True)()
call = make_call(functional, make_problem(VARIANTS[cell], tuple(map(int, shape)), dtype), True)
open("/proc/self/clear_refs", "w").write("5")  # the peak begins here
before = kilobytes("VmRSS")
results = call()
print(kilobytes("VmHWM") - before)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", nargs="+", default=["lstm", "gru", "rnn", "mingru"])
    parser.add_argument("--dtype", nargs="+", default=["float32", "float64"], choices=["float32", "float64"])
    parser.add_argument("--shape", default="200x64x64x256", help="T, N, D and H (default: %(default)s)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    T, N, _, H = shape = [int(size) for size in arguments.shape.split("x")]
    print(f"{processor()}; peak of forward and backward in values over T N H, T N D H = {arguments.shape}")
    for dtype in arguments.dtype:
        item = 4 if dtype == "float32" else 8
        for cell in arguments.cell:
            figures = []
            for threads in arguments.threads:
                command = [sys.executable, "-P", "-c", MEASURED, cell, str(threads), dtype, *map(str, shape)]
                values = 1024 * int(subprocess.check_output(command, text=True)) / item
                figures.append(f"{threads} thread{'s' * (threads > 1)} {values / math.prod((T, N, H)):.1f}")
            print(f"{dtype} {cell:>6}: {', '.join(figures)}", flush=True)


if __name__ == "__main__":
    main()
