"""Timing of calls, and the limits of the machine and of a workload.

A workload cannot take less than its products at the rate of large products, or its weights read once a step at the
bandwidth at which an array of their size is read. Both are measured in the same run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from .. import _engine
from ..engine import native
from ..engine.cells import Variant
from ..testing import interleaved_medians
from .workloads import Shape

Call = Callable[[], Any]


def measure(calls: dict[str, Call], seconds: float) -> dict[str, float]:
    """Return the median seconds of each call by name."""
    return dict(zip(calls, interleaved_medians(list(calls.values()), seconds), strict=True))


def shortest(call: Call, seconds: float = 0.15) -> float:
    """Return the shortest time of a call, called again and again for ``seconds``."""
    least, end = math.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        least = min(least, time.perf_counter() - start)
    return least


@cache
def peak(dtype: str) -> float:
    """Return the flops per second of the fastest large product, the engine's or NumPy's."""
    rates = []
    for size in (256, 512, 1024):
        rng = np.random.default_rng(0)
        a, b = (rng.normal(size=(size, size)).astype(dtype) for _ in range(2))
        zeros = np.zeros(size, dtype)
        rates += [2 * size**3 / shortest(call) for call in (lambda: native.affine_forward(a, b, zeros), lambda: a @ b)]  # noqa: B023
    return max(rates)


@cache
def bandwidth(size: int) -> float:
    """Return the bytes per second at which an array of about ``size`` bytes is read repeatedly."""
    a = np.ones(max(size // 4, 1024), np.float32)
    repeats = max(1, (1 << 24) // a.nbytes)
    return repeats * a.nbytes / shortest(lambda: [_engine.read(a) for _ in range(repeats)])


def flops(variant: Variant, shape: Shape, backward: bool) -> int:
    """Count the flops of the products, three times as many with the backward pass.

    2 T N (D + H) G H, or 2 T N D G H for a cell without recurrent weights.
    """
    T, N, _, _ = shape
    return 2 * T * N * sum(math.prod(size) for size in _matrices(variant, shape).values()) * (3 if backward else 1)


def limit(variant: Variant, shape: Shape, dtype: str, backward: bool, threads: int) -> float:
    """Return the seconds that no implementation can beat: products at the peak, recurrent weights read once a step.

    Each of several threads reads its own part of the weights, from its own cache.
    """
    T, N, _, _ = shape
    item, sizes = np.dtype(dtype).itemsize, {name: math.prod(s) for name, s in _matrices(variant, shape).items()}
    inputs, recurrent = sizes["Wx"], sizes.get("Wh", 0)
    step = 0.0
    if recurrent:
        read = recurrent * item / bandwidth(recurrent * item // threads) / threads
        step = max(read, 2 * N * recurrent / peak(dtype))
    project = max(2 * T * N * inputs / peak(dtype), inputs * item / bandwidth(inputs * item))
    weights_gradient = 2 * T * N * (inputs + recurrent) / peak(dtype)
    return (T * step + project) * (2 if backward else 1) + (weights_gradient if backward else 0)


def bytes_limit(variant: Variant, shape: Shape, item: int) -> float:
    """Return the seconds that reading weights of so many bytes takes: Wh once a step, Wx once a call."""
    T, _, _, _ = shape
    sizes = {name: math.prod(size) * item for name, size in _matrices(variant, shape).items()}
    return sum(size / bandwidth(size) * (T if name == "Wh" else 1) for name, size in sizes.items())


def _matrices(variant: Variant, shape: Shape) -> dict[str, tuple[int, ...]]:
    _, _, D, H = shape
    shapes = variant.shapes(D, H)
    return {name: shapes[name] for name in ("Wx", "Wh") if name in shapes}
