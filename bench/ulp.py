"""Errors of sigmoid, tanh and exp in units in the last place: python bench/ulp.py [--every 1] [--samples 1000000000]

In float32 of every n-th of all 2**32 numbers, infinities, NaN and subnormals too; in float64 of random numbers: with
random bits, of random bits with exponents that matter, and evenly in the range where the function is not constant.
All instruction sets of the machine. exp is that of a softmax, for x <= 0.

All of float32 and 10**9 numbers of float64 take about an hour on one core.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from rnncore.config import processor

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.ulp import FUNCTIONS, Errors, has_wider

CHUNK = 1 << 15  # numbers at a time: they stay in the cache


def all_float32(every: int):
    """Yield arrays of every n-th float32."""
    for first in range(0, 2**32, CHUNK * every):
        yield np.arange(first, min(first + CHUNK * every, 2**32), every, dtype=np.uint64).astype("u4").view("f4")


def random_float64(samples: int, seed: int = 0):
    """Yield arrays of random float64, `samples` in all."""
    rng = np.random.default_rng(seed)
    for count in range(samples, 0, -CHUNK):
        bits = rng.integers(2**64, size=min(count, CHUNK), dtype=np.uint64)
        near = (len(bits) + 3) // 4
        exponents = rng.integers(1023 - 60, 1023 + 11, size=near, dtype=np.uint64)
        bits[:near] = (bits[:near] & np.uint64(~(0x7FF << 52) % 2**64)) | exponents << np.uint64(52)
        x = bits.view("f8")
        x[near : 2 * near] = rng.uniform(-40, 40, size=len(x[near : 2 * near]))
        x[2 * near : 3 * near] = rng.uniform(-750, 750, size=len(x[2 * near : 3 * near]))
        yield x


def bar(chunks, total: int, name: str):
    """Show the progress, where tqdm is installed."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return chunks
    return tqdm(chunks, total=-(-total // CHUNK), desc=name, mininterval=5, disable=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(FUNCTIONS), choices=list(FUNCTIONS))
    parser.add_argument("--dtype", nargs="+", default=["float32", "float64"], choices=["float32", "float64"])
    parser.add_argument("--every", type=int, default=997, help="1: all float32 (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=10**7, help="of float64 (default: %(default)s)")
    arguments = parser.parse_args()
    print(processor())
    print(f"{'function':>8} {'dtype':>8} {'set':>7} {'inputs':>13} {'largest error':>13}  at x, where it gives")
    for dtype in arguments.dtype:
        if not has_wider(dtype):
            print(f"{dtype}: not here, long double is no wider")
            continue
        count = -(-(2**32) // arguments.every) if dtype == "float32" else arguments.samples
        for function in arguments.only:
            errors = Errors(function, dtype)
            chunks = all_float32(arguments.every) if dtype == "float32" else random_float64(arguments.samples)
            for x in bar(chunks, count, f"{function} {dtype}"):
                errors.add(-np.abs(x) if function == "exp" else x)
            for isa, (error, at, got) in errors.worst.items():
                where = f"{error:8.3f} ulp  {float(at)!r}, {float(got)!r}"
                print(f"{function:>8} {dtype:>8} {isa:>7} {errors.inputs:13,d} {where}", flush=True)


if __name__ == "__main__":
    main()
