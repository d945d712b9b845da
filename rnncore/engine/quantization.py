"""Weights of fewer bytes: what bfloat16 and int8 stand for, and how floats become them."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from .._types import Array

Precision = Literal["bfloat16", "int8"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_SMALLEST_NORMAL, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


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

    Ties go to the even neighbour. What is no normal float32 becomes 0. ValueError, which names the matrix, for what is
    to become int8 and is not finite in float32.
    """
    exact = np.asarray(array, np.float64)
    if exact.ndim != 2:
        raise ValueError(f"{name} must be a matrix; got shape {exact.shape}")
    if precision == "bfloat16":
        return Quantized((round_to_bfloat16(exact).view(np.uint32) >> np.uint32(16)).astype(np.uint16), None)
    in_range = np.abs(exact) <= _LARGEST
    if not in_range.all():
        raise ValueError(f"{name} must be finite, in float32 too, to become int8; got {exact[~in_range][0]}")
    scales = (np.abs(exact).max(axis=0, initial=0) / 127).astype(np.float32)
    scales = np.minimum(scales, np.float32(_LARGEST / 127 * (1 - 2**-23)))  # 127 times a scale must not overflow
    scales[scales < _SMALLEST_NORMAL] = 0
    values = np.divide(exact, scales, out=np.zeros_like(exact), where=scales > 0)
    return Quantized(np.rint(values).clip(-127, 127).astype(np.int8), scales)


def already_quantized(what: str, precision: str) -> ValueError:
    """Return the error of quantizing ``what`` again."""
    return ValueError(f"{what} is quantized from float weights; those of this one are {precision}")


def quantize_cell(weights: dict[str, Any], precision: Precision) -> dict[str, Any]:
    """Return the weights of a cell with Wx and Wh quantized; biases and peepholes stay."""
    return {name: quantize(name, w, precision) if name in ("Wx", "Wh") else w for name, w in weights.items()}


def is_quantized(name: str) -> bool:
    """Tell whether ``quantize`` of a layer rounds the parameter of this name: a matrix of products, or a table."""
    return name.startswith("W")


def round_to_bfloat16(exact: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the nearest values of bfloat16, which has the exponents of float32 and 8 significant bits."""
    fraction, exponent = np.frexp(exact)
    with np.errstate(over="ignore"):
        rounded = np.ldexp(np.rint(fraction * 256) / 256, exponent).astype(np.float32)
    rounded[np.abs(rounded) < _SMALLEST_NORMAL] = 0
    return rounded
