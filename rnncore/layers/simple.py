"""Layers without a state: embedding and dense, and both for inference in bfloat16 or int8."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .. import checks
from .._types import Array, Seed
from ..engine import arrays, native
from ..engine.quantization import Precision, Quantized, already_quantized
from ..engine.weights import pack_matrix, read_rows, unpack_matrix
from .base import NO_TRAINING, Layer, glorot_uniform

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

    size_names = "size", "dimension"

    def __init__(self, size: int, dimension: int, *, dtype: DTypeLike = "float32", seed: Seed = None) -> None:
        super().__init__(dtype)
        self.size = checks.integer("size", size, least=1)
        self.dimension = checks.integer("dimension", dimension, least=1)
        shape = (self.size, self.dimension)
        self._add({"W": shape}, lambda: {"W": checks.generator("seed", seed).normal(size=shape)})

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
        array = _as_rows(ids, self.size)
        return np.take(self.table(), array, axis=0), array

    def with_weights(self, weights: dict[str, Any]) -> QuantizedEmbedding:
        return QuantizedEmbedding(weights, self.dtype)

    def table(self) -> Array:
        """Return the rows of the table, (V, E); ValueError for another shape of ``params["W"]``."""
        W = self._param("W")
        arrays.check_shape("W", W, "(V, E)", (self.size, self.dimension))
        return W

    def backward(self, dy: ArrayLike, cache: Array) -> None:
        """Add dy (..., E), the gradient of the rows that were used, to ``grads["W"]``."""
        cache = _integers("cache", cache)
        dy = arrays.as_shaped("dy", dy, (*cache.shape, self.dimension), self.dtype)
        if self.shards == 1:
            self._scatter_add(dy, cache, self.grads["W"])
            return
        for shard, dW in enumerate(self.grads["W"]):
            self._scatter_add(dy[:, shard :: self.shards], cache[:, shard :: self.shards], dW)

    def _scatter_add(self, dy: Array, ids: Array, dW: Array) -> None:
        arrays.check_gradient("dW", dW, "(V, E)", (self.size, self.dimension))
        native.scatter_add(ids.reshape(-1), dy.reshape(ids.size, self.dimension), dW)


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

    size_names = "input_size", "output_size"

    def __init__(self, input_size: int, output_size: int, *, dtype: DTypeLike = "float32", seed: Seed = None) -> None:
        super().__init__(dtype)
        self.input_size = checks.integer("input_size", input_size, least=1)
        self.output_size = checks.integer("output_size", output_size, least=1)
        shape, biases = (self.input_size, self.output_size), (self.output_size,)
        self._add(
            {"W": shape, "b": biases},
            lambda: {"W": glorot_uniform(checks.generator("seed", seed), *shape), "b": np.zeros(biases)},
        )

    def with_weights(self, weights: dict[str, Any]) -> QuantizedDense:
        return QuantizedDense(weights, self.dtype)

    def weights(self) -> tuple[Array, Array]:
        """Return W (input_size, output_size) and b (output_size,) from ``params``; ValueError for other shapes."""
        W, b = self._param("W"), self._param("b")
        if W.shape != (self.input_size, self.output_size) or b.shape != (self.output_size,):
            wanted = f"{(self.input_size, self.output_size)} and {(self.output_size,)}"
            raise ValueError(f"params W and b must be {wanted}; got {W.shape} and {b.shape}")
        return W, b

    def __call__(self, x: ArrayLike) -> Array:
        """Map x (..., input_size) to y (..., output_size)."""
        return self.forward(x)[0]

    def forward(self, x: ArrayLike) -> tuple[Array, Array]:
        """Map x (..., input_size) to y (..., output_size), and return y and a cache for :meth:`backward`."""
        x = arrays.converted(arrays.as_floating("x", x), self.dtype)
        return _map_last_axis(x, *self.weights()), x

    def backward(self, dy: ArrayLike, cache: Array) -> Array:
        """Return dx (..., input_size) for dy (..., output_size); add the gradients of W and b to ``grads``."""
        cache = arrays.converted(arrays.as_floating("cache", cache), self.dtype)
        if cache.ndim < 1 or cache.shape[-1] != self.input_size:
            raise ValueError(f"cache must be (..., input_size) = (..., {self.input_size}); got {cache.shape}")
        dy = arrays.as_shaped("dy", dy, (*cache.shape[:-1], self.output_size), self.dtype)
        rows = cache.reshape(math.prod(cache.shape[:-1]), self.input_size)
        dy = dy.reshape(len(rows), self.output_size)
        W, _ = self.weights()
        dx = native.affine_backward(rows, W, dy, self.grads["W"], self.grads["b"])
        return dx.reshape(cache.shape)


# ---- in bfloat16 or int8 ----------------------------------------------------------------------------------------


class _QuantizedLayer:
    """A layer for inference whose matrix W is packed in bfloat16 or int8, made by ``layer.quantize(precision)``.

    Attributes
    ----------
    precision : {"bfloat16", "int8"}
    nbytes : int
        Bytes of the parameters, with the scales of int8.
    dtype : numpy dtype
        Of results.
    """

    def __init__(self, weights: dict[str, Any], dtype: np.dtype[Any], multiplies: bool) -> None:
        W: Quantized = weights["W"]
        self.dtype, self._scales = dtype, W.scales
        self.precision, self.nbytes = W.precision, sum(weight.nbytes for weight in weights.values())
        self._W = pack_matrix("W", W, dtype, multiplies)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.arrays(), self.dtype)

    def __repr__(self) -> str:
        return f"<{self.precision} {type(self).__name__.removeprefix('Quantized')}{self._W.shape}>"

    def arrays(self) -> dict[str, Any]:
        """Return the parameters by name, W Quantized."""
        return {"W": unpack_matrix(self._W, self._scales)}

    def quantize(self, precision: Precision) -> Any:
        """Raise ValueError: the layer is quantized."""
        raise already_quantized("a layer", self.precision)

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """Raise TypeError: quantized layers cannot be trained."""
        raise TypeError(NO_TRAINING)

    backward = zero_grad = forward


class QuantizedEmbedding(_QuantizedLayer):
    """Look up rows of a table in bfloat16 or int8: made by ``embedding.quantize(precision)``."""

    def __init__(self, weights: dict[str, Any], dtype: np.dtype[Any]) -> None:
        super().__init__(weights, dtype, multiplies=False)
        self.size, self.dimension = self._W.shape

    def table(self) -> Any:
        """Return the table, packed."""
        return self._W

    def __call__(self, ids: ArrayLike) -> Array:
        """Return the rows (..., E) for integer ids (...); errors as those of the layer it came from."""
        array = _as_rows(ids, self.size)
        return read_rows(self._W, array.reshape(-1)).reshape(*array.shape, self.dimension)


class QuantizedDense(_QuantizedLayer):
    """Map the last axis by a matrix in bfloat16 or int8: made by ``dense.quantize(precision)``."""

    def __init__(self, weights: dict[str, Any], dtype: np.dtype[Any]) -> None:
        super().__init__(weights, dtype, multiplies=True)
        self._b = np.array(weights["b"], dtype)
        self._b.flags.writeable = False
        self.input_size, self.output_size = self._W.shape

    def arrays(self) -> dict[str, Any]:
        return super().arrays() | {"b": self._b}

    def weights(self) -> tuple[Any, Array]:
        """Return W, packed, and b (output_size,)."""
        return self._W, self._b

    def __call__(self, x: ArrayLike) -> Array:
        """Map x (..., input_size) to y (..., output_size)."""
        return _map_last_axis(arrays.converted(arrays.as_floating("x", x), self.dtype), *self.weights())


# ---- what both kinds do -----------------------------------------------------------------------------------------


def _integers(name: str, values: ArrayLike) -> Array:
    array = arrays.as_array(name, values)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers; got dtype {array.dtype}")
    return array


def _as_rows(ids: ArrayLike, size: int) -> Array:
    """Return int64 ids in [0, size), of any shape."""
    return arrays.as_ids(_integers("ids", ids), size, "ids", "V")


def _map_last_axis(x: Array, W: Any, b: Array) -> Array:
    """x (..., D) W (D, K) + b (K,)"""
    D, K = W.shape
    if x.ndim < 1 or x.shape[-1] != D:
        raise ValueError(f"x must be (..., input_size) = (..., {D}); got {x.shape}")
    rows = x.reshape(math.prod(x.shape[:-1]), D)
    return native.affine_forward(rows, W, b).reshape(*x.shape[:-1], K)
