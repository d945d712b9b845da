"""Weights in int8, and products with them: what layers quantized to int8 compute."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._types import Array

LARGEST = 127


class Int8Matrix:
    """A matrix (K, M) of int8 with a scale for each column, in place of an array as Wx or Wh of a forward function.

    With q the values, s (M,) the scales and t the scale of a row of a (N, K)::

        W = q * s                              s = max |W| of a column / 127
        a @ W = (p q) * (t * s)                t = max |a| of the row / 127,  p = round(a / t)

    The sums p q are of integers. Without a common ``row_scale`` each row of a has its own scale, as here.

    Parameters
    ----------
    values : int8 array (K, M)
    scales : array (M,)
    dtype : {"float32", "float64"}
        Of what it is multiplied with.
    row_scale : float, optional
        t for all rows; what exceeds 127 t is cut off.

    Examples
    --------
    >>> W = Int8Matrix.rounded(np.array([[0.5, -2.0], [1.0, 0.25]]))
    >>> W.values.tolist(), (127 * W.scales).tolist()
    ([[64, -127], [127, 16]], [1.0, 2.0])
    >>> (np.array([[1.0, -0.5]]) @ W).round(3)  # close to 0, -2.125
    array([[ 0.   , -2.127]])
    """

    __array_ufunc__ = None  # NumPy leaves ``a @ W`` to this class

    def __init__(self, values: Array, scales: Array, dtype: Any = np.float64, row_scale: float = 0.0) -> None:
        self.values, self.scales, self.dtype, self.row_scale = values, scales, np.dtype(dtype), row_scale
        self.shape = values.shape

    @classmethod
    def rounded(cls, W: ArrayLike, row_scale: float = 0.0) -> Int8Matrix:
        """Round a matrix (K, M) to the nearest values, ties to even."""
        W = np.asarray(W)
        scales = (np.abs(W.astype(np.float64)).max(axis=0, initial=0) / LARGEST).astype(np.float32)
        scales[scales < np.finfo(np.float32).tiny] = 0
        values = np.divide(W, scales, out=np.zeros(W.shape), where=scales > 0)
        return cls(np.rint(values).clip(-LARGEST, LARGEST).astype(np.int8), scales, W.dtype, row_scale)

    def astype(self, dtype: Any, copy: bool = False) -> Int8Matrix:
        """The same values, for products in another dtype."""
        return Int8Matrix(self.values, self.scales, dtype, self.row_scale)

    def __getitem__(self, index: Any) -> Any:
        """Some of the columns, ``W[:, first:end]``; or rows for an array of ids, as floats."""
        if isinstance(index, tuple):
            return Int8Matrix(self.values[index], self.scales[index[1]], self.dtype, self.row_scale)
        return self.values[index].astype(self.dtype) * self.scales.astype(self.dtype)

    def __rmatmul__(self, a: Array) -> Array:
        p, t = quantize_rows(a.astype(self.dtype, copy=False), self.row_scale)
        sums = p.astype(np.int64) @ self.values.astype(np.int64)  # exact
        product: Array = sums.astype(self.dtype) * (t[:, None] * self.scales.astype(self.dtype))
        return product


def quantize_rows(a: Array, row_scale: float = 0.0) -> tuple[NDArray[np.int8], Array]:
    """Return p (N, K) and t (N,) with a (N, K) about p * t.

    A row whose scale would be no normal number is 0 with scale 0; one that is not finite is 0 with scale NaN.

    Examples
    --------
    >>> quantize_rows(np.array([[1.27, -0.5], [0.0, 0.0]]))
    (array([[127, -50],
           [  0,   0]], dtype=int8), array([0.01, 0.  ]))
    """
    largest = np.abs(a).max(axis=1, initial=0)
    t = np.full_like(largest, row_scale) if row_scale else largest / a.dtype.type(LARGEST)
    t = np.where(np.isfinite(largest), np.where(t < np.finfo(a.dtype).tiny, 0, t), np.nan).astype(a.dtype)
    usable = (t > 0)[:, None]
    p = np.divide(a, t[:, None], out=np.zeros_like(a), where=usable)
    return np.rint(p).clip(-LARGEST, LARGEST).astype(np.int8), t
