"""Weights of fewer bytes: what bfloat16 and int8 stand for, and how floats become them."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from .._types import Array

Precision = Literal["bfloat16", "int8"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)


class Quantized(NamedTuple):
    """A matrix of weights in bfloat16 or int8."""

    values: NDArray[Any]  # (K, M) uint16, the upper halves of floats: bfloat16; or int8 in [-127, 127]
    scales: NDArray[np.float32] | None  # (M,), of int8 only: a value stands for value * scale of its column

    @property
    def precision(self) -> str:
        return "bfloat16" if self.scales is None else "int8"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def widen(self, dtype: np.dtype[Any]) -> Array:
        """The floats (K, M) that it stands for."""
        if self.scales is None:
            words = self.values.astype(np.uint32) << np.uint32(16)
            return words.view(np.float32).astype(dtype)
        return self.values.astype(dtype) * self.scales.astype(dtype)


def quantize(name: str, array: Array, precision: Precision) -> Quantized:
    """Return a matrix (K, M) in bfloat16, rounded to the nearest, or in int8, with the largest of a column as 127.

    Ties go to the even neighbour. What is no normal float32 becomes 0. ValueError, which names the matrix, for an
    infinity or NaN that is to become int8.
    """
    exact = np.asarray(array, np.float64)
    if precision == "bfloat16":
        return Quantized((round_to_bfloat16(exact).view(np.uint32) >> np.uint32(16)).astype(np.uint16), None)
    if not np.isfinite(exact).all():
        raise ValueError(f"{name} must be finite to become int8; got {exact[~np.isfinite(exact)][0]}")
    scales = (np.abs(exact).max(axis=0, initial=0) / 127).astype(np.float32)
    scales[scales < _SMALLEST_NORMAL] = 0
    values = np.divide(exact, scales, out=np.zeros_like(exact), where=scales > 0)
    return Quantized(np.rint(values).clip(-127, 127).astype(np.int8), scales)


def round_to_bfloat16(exact: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the nearest values of bfloat16, which has the exponents of float32 and 8 significant bits."""
    fraction, exponent = np.frexp(exact)
    with np.errstate(over="ignore"):
        rounded = np.ldexp(np.rint(fraction * 256) / 256, exponent).astype(np.float32)
    rounded[np.abs(rounded) < _SMALLEST_NORMAL] = 0
    return rounded
