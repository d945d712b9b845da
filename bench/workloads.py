"""The shapes that every bench uses, why each matters, and the arguments of a call."""

import os
import platform
import statistics
import time
from pathlib import Path

# BLAS reads these when it is loaded: benches import this module before NumPy. One thread unless the caller says else.
for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402

# (T, N, D, H): reason
SHAPES = {
    (1, 1, 64, 128): "one step of one sequence: control, games, sampling",
    (100, 1, 64, 64): "a small model on a stream",
    (100, 1, 256, 256): "one sequence; weights in the second-level cache",
    (100, 1, 512, 512): "one sequence; weights beyond the second-level cache",
    (50, 8, 128, 128): "a small batch",
    (100, 16, 64, 32): "a batch of a small model: time series",
    (100, 32, 256, 256): "a character language model",
    (50, 64, 512, 512): "a large batch",
    (32, 64, 1024, 1024): "all product",
}

CELLS = {
    "rnn": (1, {}),
    "gru": (3, {}),
    "gru-reset_after": (3, {"form": "reset_after", "update": "old"}),
    "lstm": (4, {}),
}


def flops(cell, shape, backward):
    """Multiplications and additions of the products: 2 T N (D+H) G H, three times that with the backward pass."""
    T, N, D, H = shape
    return 2 * T * N * (D + H) * CELLS[cell][0] * H * (3 if backward else 1)


def make_arrays(cell, shape, dtype):
    """-> x (T,N,D), Wx (D,GH), Wh (H,GH), b (GH,), dh (T,N,H), the same for every call."""
    T, N, D, H = shape
    G = CELLS[cell][0]
    rng = np.random.default_rng(0)
    sizes = [((T, N, D), 1), ((D, G * H), D**-0.5), ((H, G * H), H**-0.5), ((G * H,), 0.1), ((T, N, H), 1)]
    return [(scale * rng.normal(size=size)).astype(dtype) for size, scale in sizes]


def make_call(module, cell, shape, dtype, backward):
    """-> a function without arguments: one forward call (inference), or one forward and one backward call."""
    x, Wx, Wh, b, dh = make_arrays(cell, shape, dtype)
    options = CELLS[cell][1]
    name = cell.partition("-")[0]
    forward = getattr(module, f"{name}_forward")
    backward_function = getattr(module, f"{name}_backward")

    def infer():
        return forward(x, Wx, Wh, b, training=False, **options)[0]

    def train():
        _, _, cache = forward(x, Wx, Wh, b, **options)
        return backward_function(dh, cache)

    return train if backward else infer


def interleaved_medians(calls, seconds):
    """Median seconds of each call, all called in turn until `seconds` have passed for each, at least five times."""
    times = [[] for _ in calls]
    for call in calls:
        call()
    begin = time.perf_counter()
    while len(times[0]) < 5 or time.perf_counter() - begin < seconds * len(calls):
        for call, seen in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            seen.append(time.perf_counter() - start)
    return [statistics.median(seen) for seen in times]


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
