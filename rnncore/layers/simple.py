"""Layers without a state: embedding and dense."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .. import checks
from .._types import Array, Seed
from ..engine import arrays, native
from .base import Layer, glorot_uniform

__all__ = ["Dense", "Embedding"]


class Embedding(Layer):
    """Look up rows of a table: ``y = W[ids]``.

    Parameters
    ----------
    size : int
        V, number of rows.
    dimension : int
        E, length of a row.
    dtype : {"float32", "float64"}
    seed : int, numpy.random.Generator or None

    Examples
    --------
    >>> embedding = Embedding(10, 4, seed=0)
    >>> embedding(np.array([[3, 1], [0, 9]])).shape
    (2, 2, 4)
    """

    def __init__(self, size: int, dimension: int, *, dtype: DTypeLike = "float32", seed: Seed = None) -> None:
        super().__init__(dtype)
        self.size = checks.integer("size", size, least=1)
        self.dimension = checks.integer("dimension", dimension, least=1)
        shape = (self.size, self.dimension)
        self._add({"W": shape}, lambda: {"W": np.random.default_rng(seed).normal(size=shape)})

    def __call__(self, ids: ArrayLike) -> Array:
        """Return the rows (..., E) for integer ids (...)."""
        return self.forward(ids)[0]

    def forward(self, ids: ArrayLike) -> tuple[Array, Array]:
        """Return the rows (..., E) for integer ids (...), and a cache for :meth:`backward`.

        Raises
        ------
        ValueError
            An id is outside [0, V).
        TypeError
            The ids are not integers.
        """
        array = np.asarray(ids)
        if array.dtype.kind not in "iu":
            raise TypeError(f"ids must be integers; got dtype {array.dtype}")
        array = arrays.as_ids(array, self.size, "ids", "V")
        return np.take(self.params["W"], array, axis=0), array

    def backward(self, dy: ArrayLike, cache: Array) -> None:
        """Add dy (..., E), the gradient of the rows that were used, to ``grads["W"]``."""
        dy = arrays.as_shaped("dy", dy, (*cache.shape, self.dimension), self.dtype)
        dW = self.grads["W"]
        arrays.check_shape("dW", dW, "(V, E)", (self.size, self.dimension))
        native.scatter_add(cache.reshape(-1), dy.reshape(cache.size, self.dimension), dW)


class Dense(Layer):
    """Map the last axis: ``y = x W + b``.

    Parameters
    ----------
    input_size, output_size : int
    dtype : {"float32", "float64"}
    seed : int, numpy.random.Generator or None

    Examples
    --------
    >>> dense = Dense(4, 3, seed=0)
    >>> y, cache = dense.forward(np.ones((7, 2, 4)))
    >>> dense.backward(np.ones_like(y), cache).shape
    (7, 2, 4)
    """

    def __init__(self, input_size: int, output_size: int, *, dtype: DTypeLike = "float32", seed: Seed = None) -> None:
        super().__init__(dtype)
        self.input_size = checks.integer("input_size", input_size, least=1)
        self.output_size = checks.integer("output_size", output_size, least=1)
        shape, biases = (self.input_size, self.output_size), (self.output_size,)
        self._add(
            {"W": shape, "b": biases},
            lambda: {"W": glorot_uniform(np.random.default_rng(seed), *shape), "b": np.zeros(biases)},
        )

    def weights(self) -> tuple[Array, Array]:
        """Return W (input_size, output_size) and b (output_size,) from ``params``; ValueError for other shapes."""
        W, b = self.params["W"], self.params["b"]
        if W.shape != (self.input_size, self.output_size) or b.shape != (self.output_size,):
            wanted = f"{(self.input_size, self.output_size)} and {(self.output_size,)}"
            raise ValueError(f"params W and b must be {wanted}; got {W.shape} and {b.shape}")
        return W, b

    def __call__(self, x: ArrayLike) -> Array:
        """Map x (..., input_size) to y (..., output_size)."""
        return self.forward(x)[0]

    def forward(self, x: ArrayLike) -> tuple[Array, Array]:
        """Map x (..., input_size) to y (..., output_size), and return y and a cache for :meth:`backward`."""
        x = arrays.as_floating("x", x).astype(self.dtype, copy=False)
        if x.ndim < 1 or x.shape[-1] != self.input_size:
            raise ValueError(f"x must be (..., input_size) = (..., {self.input_size}); got {x.shape}")
        rows = x.reshape(math.prod(x.shape[:-1]), self.input_size)
        y = native.affine_forward(rows, *self.weights())
        return y.reshape(*x.shape[:-1], self.output_size), x

    def backward(self, dy: ArrayLike, cache: Array) -> Array:
        """Return dx (..., input_size) for dy (..., output_size); add the gradients of W and b to ``grads``."""
        dy = arrays.as_shaped("dy", dy, (*cache.shape[:-1], self.output_size), self.dtype)
        rows = cache.reshape(math.prod(cache.shape[:-1]), self.input_size)
        dy = dy.reshape(len(rows), self.output_size)
        W, _ = self.weights()
        dx = native.affine_backward(rows, W, dy, self.grads["W"], self.grads["b"])
        return dx.reshape(cache.shape)
