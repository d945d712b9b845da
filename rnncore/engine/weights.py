"""Weights that are packed once for many calls: of cells, and of single matrices in bfloat16 or int8."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _engine
from .._types import Array
from .arrays import FLOAT32, FLOAT64, check_shape, empty
from .cells import Variant
from .quantization import Quantized


def pack_cell(
    variant: Variant,
    weights: dict[str, Any],
    D: int,
    H: int,
    dtype: np.dtype[Any],
    x_scale: float = 0.0,
    may_have_ids: bool = True,
) -> _engine.Weights:
    """Copy the weights of a cell, by name, and pack them; ValueError for shapes that do not match.

    Wx and Wh may be Quantized, both in one precision. In int8 inputs are then divided by ``x_scale`` and rounded, or by
    a scale of each row if that is 0. Only where inputs ``may_have_ids`` may Wx have too many rows for products.
    """
    own: dict[str, Array] = {}
    quantized: dict[str, Quantized] = {}
    for array in variant.weights:
        name, value = array.name, weights[array.name]
        values = value.values if isinstance(value, Quantized) else value
        check_shape(name, values, variant.letters(array), variant.shape(array, D=D, H=H))
        if isinstance(value, Quantized):
            if name == "Wh" or not may_have_ids:
                _check_sums(name, value)
            quantized[name] = value
        else:
            own[name] = np.array(value, dtype, order="C")
            own[name].flags.writeable = False
    packed = _engine.Weights(**own)
    if quantized:
        none = Quantized(None, None)  # type: ignore[arg-type]  # of a cell without recurrent weights
        Wx, Wh = (_dense_values(quantized.get(name, none)) for name in ("Wx", "Wh"))
        packed.pack_quantized(variant.native, Wx, Wh, x_scale)
    else:
        packed.pack(variant.native)
    return packed


def unpack_cell(variant: Variant, packed: _engine.Weights, scales: dict[str, Any]) -> dict[str, Any]:
    """Return the weights of a packed cell by name, those in ``scales`` Quantized with these scales (None: bfloat16)."""
    weights: dict[str, Any] = packed.by_name()
    if packed.packed is not None and scales:
        for name, rows in zip(("Wx", "Wh"), packed.packed.sizes, strict=True):
            if name in scales:
                columns = len(variant.gates) * packed.packed.sizes[1]
                floats = np.empty((rows, columns), weights["b"].dtype)
                packed.packed.read(name == "Wh", np.arange(rows), floats)
                weights[name] = _narrowed(floats, scales[name])
    return weights


def pack_matrix(name: str, matrix: Quantized, dtype: np.dtype[Any], multiplies: bool = True) -> _engine.QuantizedMatrix:
    """Pack a matrix (K, M) for :func:`affine_forward`, and for :func:`read_rows`; dtype is that of the results."""
    if multiplies:
        _check_sums(name, matrix)
    values, scales = _dense_values(matrix)
    return _engine.QuantizedMatrix(values, scales, dtype == FLOAT64)


def read_rows(matrix: _engine.QuantizedMatrix, ids: NDArray[np.int64]) -> Array:
    """Return the rows (L, M) of a packed matrix (K, M) for ids (L,) in [0, K), as floats."""
    rows = empty((len(ids), matrix.shape[1]), FLOAT64 if matrix.is_double else FLOAT32)
    if rows.size:
        matrix.read(ids, rows)
    return rows


def unpack_matrix(matrix: _engine.QuantizedMatrix, scales: Any) -> Quantized:
    """The inverse of :func:`pack_matrix`; scales as they were packed."""
    return _narrowed(read_rows(matrix, np.arange(matrix.shape[0])), scales)


def _narrowed(floats: Array, scales: Any) -> Quantized:
    """The values that were widened to these floats."""
    if scales is None:
        return Quantized((floats.astype(np.float32).view(np.uint32) >> np.uint32(16)).astype(np.uint16), None)
    values = np.divide(floats, scales, out=np.zeros_like(floats), where=scales > 0)
    return Quantized(np.rint(values).astype(np.int8), scales)


def _check_sums(name: str, matrix: Quantized) -> None:
    if matrix.scales is not None and len(matrix.values) > _engine.LARGEST_QUANTIZED:
        wanted = f"at most {_engine.LARGEST_QUANTIZED} rows in int8, for sums in 32 bits"
        raise ValueError(f"{name} must have {wanted}; got {len(matrix.values)}")


def _dense_values(matrix: Quantized) -> Any:
    values, scales = matrix
    return (
        None if values is None else np.ascontiguousarray(values),
        None if scales is None else np.ascontiguousarray(scales, np.float32),
    )
