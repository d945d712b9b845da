"""What all layers have in common: parameters and gradients by name, initial values, dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import DTypeLike

from .._types import Array

__all__ = ["Layer", "dropout_mask", "glorot_uniform", "orthogonal"]


def glorot_uniform(rng: Generator, rows: int, columns: int) -> Array:
    """Draw a matrix uniformly from +-sqrt(6 / (rows + columns)) (Glorot and Bengio 2010)."""
    limit = np.sqrt(6 / max(rows + columns, 1))
    return rng.uniform(-limit, limit, (rows, columns))


def orthogonal(rng: Generator, size: int) -> Array:
    """Draw an orthogonal matrix, uniformly among all of them (Saxe, McClelland and Ganguli 2014)."""
    q, r = np.linalg.qr(rng.normal(size=(size, size)))
    matrix: Array = q * np.where(np.diag(r) < 0, -1, 1)
    return matrix


def dropout_mask(rng: Generator, shape: tuple[int, ...], share: float, dtype: np.dtype[Any]) -> Array:
    """Draw the factors of inverted dropout, which keep the mean of what they multiply (Srivastava et al. 2014).

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : tuple of int
    share : float in [0, 1)
        Probability of a zero.
    dtype : numpy dtype

    Returns
    -------
    ndarray of ``shape``
        0, or 1 / (1 - share).

    Examples
    --------
    >>> dropout_mask(np.random.default_rng(5), (2, 3), 0.5, np.dtype("float32"))
    array([[0., 0., 2.],
           [0., 2., 0.]], dtype=float32)
    """
    keep = 1 - share
    mask: Array = (rng.random(shape, np.float32) < keep).astype(dtype) / dtype.type(keep)
    return mask


class Layer:
    """Parameters by name, and a gradient of the same shape for each.

    Attributes
    ----------
    params, grads : dict of str to ndarray
        With the same keys. The arrays keep their identity: change them in place.
    dtype : numpy dtype
        float32 or float64.
    """

    def __init__(self, dtype: DTypeLike) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        if self.dtype not in (np.float32, np.float64):
            raise ValueError(f"dtype must be float32 or float64; got {self.dtype}")
        self.params: dict[str, Array] = {}
        self.grads: dict[str, Array] = {}

    def _add(self, name: str, value: Array) -> None:
        self.params[name] = np.ascontiguousarray(value, self.dtype)
        self.grads[name] = np.zeros_like(self.params[name])

    def zero_grad(self) -> None:
        """Set all gradients to zero, in place."""
        for grad in self.grads.values():
            grad.fill(0)
