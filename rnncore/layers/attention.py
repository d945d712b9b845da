"""Attention: a mean of the steps of one sequence for every step of another, by how well the two go together."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .. import checks
from .._types import Array, Seed
from ..engine import arrays, native
from ..engine.quantization import Precision, Quantized, already_quantized
from .base import NO_TRAINING, Layer, glorot_uniform

__all__ = ["Attention"]

SCORES = ("additive", "multiplicative")


class Attention(Layer):
    """Weigh the steps of a memory for every query, and return their mean.

    ``weights(t, .) = softmax(score(query_t, memory_.))`` and ``context_t = sum_s weights(t, s) memory_s``. The score is

    * "multiplicative": ``query W memory'`` (Luong, Pham and Manning 2015, "general")
    * "additive": ``v . tanh(query Wq + memory Wk + b)`` (Bahdanau, Cho and Bengio 2015)

    Parameters
    ----------
    query_size, memory_size : int
        H and E.
    score : {"multiplicative", "additive"}
    size : int, optional
        A, the width of the additive score; H if not given.
    dtype : {"float32", "float64"}
    seed : int, numpy.random.Generator or None

    Examples
    --------
    >>> attention = Attention(4, 6, seed=0)
    >>> context, weights = attention(np.ones((3, 2, 4)), np.ones((5, 2, 6)), memory_lengths=[5, 2])
    >>> context.shape, weights.shape, weights[0, 1].round(3).tolist()
    ((3, 2, 6), (3, 2, 5), [0.5, 0.5, 0.0, 0.0, 0.0])
    """

    size_names = "query_size", "memory_size", "size"

    def __init__(
        self,
        query_size: int,
        memory_size: int,
        score: Literal["multiplicative", "additive"] = "multiplicative",
        *,
        size: int | None = None,
        dtype: DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        super().__init__(dtype)
        self.query_size = checks.integer("query_size", query_size, least=1)
        self.memory_size = checks.integer("memory_size", memory_size, least=1)
        self.score = checks.choice("score", score, SCORES)
        self.size = self.query_size if size is None else checks.integer("size", size, least=1)
        H, E, A = self.query_size, self.memory_size, self.size
        shapes: dict[str, tuple[int, ...]] = {"W": (H, E)}
        if self.score == "additive":
            shapes = {"Wq": (H, A), "Wk": (E, A), "b": (A,), "v": (A,)}
        self._shapes = shapes

        def draw() -> dict[str, Array]:
            rng = checks.generator("seed", seed)
            values = {name: glorot_uniform(rng, *shape) for name, shape in shapes.items() if len(shape) == 2}
            if self.score == "additive":
                values |= {"b": np.zeros(A), "v": glorot_uniform(rng, A, 1)[:, 0]}
            return values

        self._add(shapes, draw)

    def with_weights(self, weights: dict[str, Any]) -> QuantizedAttention:
        return QuantizedAttention(self, weights)

    def keys(self, memory: Array) -> Array | None:
        """Return what the additive score needs of a memory (S, N, E), (S, N, A): made once for many calls."""
        if self.score == "multiplicative":
            return None
        memory = arrays.converted(arrays.as_floating("memory", memory), self.dtype)
        if memory.ndim != 3 or memory.shape[2] != self.memory_size:
            raise ValueError(f"memory must be (S, N, memory_size) = (S, N, {self.memory_size}); got {memory.shape}")
        return _affine(memory, self._param("Wk"), self._param("b"))

    def _param(self, name: str) -> Array:
        return arrays.as_shaped(name, self.params[name], self._shapes[name], self.dtype)

    def __call__(
        self,
        queries: ArrayLike,
        memory: ArrayLike,
        lengths: ArrayLike | None = None,
        memory_lengths: ArrayLike | None = None,
        *,
        keys: Array | None = None,
    ) -> tuple[Array, Array]:
        """Return the context (T, N, E) and the weights (T, N, S); arguments as in :meth:`forward`."""
        context, weights, _ = self._attend(queries, memory, lengths, memory_lengths, keys)
        return context, weights

    def forward(
        self,
        queries: ArrayLike,
        memory: ArrayLike,
        lengths: ArrayLike | None = None,
        memory_lengths: ArrayLike | None = None,
        *,
        keys: Array | None = None,
    ) -> tuple[Array, Array, Any]:
        """Attend to a memory.

        Parameters
        ----------
        queries : float array (T, N, H)
        memory : float array (S, N, E)
            Finite, also where it is padded.
        lengths, memory_lengths : integer arrays (N,), optional
            Steps from there on do not ask, whatever stands in them, and are not looked at.
        keys : array, optional
            ``self.keys(memory)``.

        Returns
        -------
        context : ndarray (T, N, E)
            0 at padded steps, and for a memory of length 0.
        weights : ndarray (T, N, S)
            Sum to 1 over the valid steps of the memory; 0 elsewhere.
        cache
            For :meth:`backward`.

        Raises
        ------
        ValueError, TypeError
            A shape, dtype or length is wrong.
        """
        return self._attend(queries, memory, lengths, memory_lengths, keys)

    def _attend(
        self, queries: Any, memory: Any, lengths: Any, memory_lengths: Any, keys: Array | None
    ) -> tuple[Array, Array, Any]:
        # Views, because the caller may give its own arrays another shape before the backward pass.
        queries = arrays.converted(arrays.as_floating("queries", queries), self.dtype).view()
        memory = arrays.converted(arrays.as_floating("memory", memory), self.dtype).view()
        if queries.ndim != 3 or queries.shape[2] != self.query_size:
            raise ValueError(f"queries must be (T, N, query_size) = (T, N, {self.query_size}); got {queries.shape}")
        if memory.ndim != 3 or memory.shape[1:] != (queries.shape[1], self.memory_size):
            wanted = f"(S, N, memory_size) = (S, {queries.shape[1]}, {self.memory_size})"
            raise ValueError(f"memory must be {wanted}; got {memory.shape}")
        T, N, _ = queries.shape
        S = len(memory)
        steps = np.full(N, T) if lengths is None else arrays.as_lengths(lengths, T, N)
        memory_steps = (
            np.full(N, S) if memory_lengths is None else arrays.as_lengths(memory_lengths, S, N, "memory_lengths")
        )
        if self.score == "multiplicative":
            q, v = _affine(queries, self._param("W")), None
            if keys is not None:
                raise ValueError(f"keys belong to the additive score; got {type(keys).__name__}")
        else:
            q, v = _affine(queries, self._param("Wq")), self._param("v")
            keys = self.keys(memory) if keys is None else arrays.as_shaped("keys", keys, (S, N, self.size), self.dtype)
        weights, context = native.attend(steps, memory_steps, q, keys, v, memory)
        return context, weights, AttentionCache(queries, memory, steps, memory_steps, q, keys, weights.view())

    def backward(self, dcontext: ArrayLike, cache: Any) -> tuple[Array, Array]:
        """Return dqueries (T, N, H) and dmemory (S, N, E) for dcontext (T, N, E); add to ``grads``."""
        queries, memory, steps, memory_steps, q, keys, weights = self._checked(cache)
        dcontext = arrays.as_shaped("dcontext", dcontext, (*queries.shape[:2], self.memory_size), self.dtype)
        v = None if self.score == "multiplicative" else self._param("v")
        for name, shape in self._shapes.items():
            arrays.check_gradient(f"d{name}", self.grads[name], "the shape of the parameter", shape)
        queries = _without_padding(queries, steps)
        dq, dk, dv, dmemory = native.attend_backward(steps, memory_steps, q, keys, v, memory, weights, dcontext)
        if self.score == "multiplicative":
            return _affine_backward(queries, self._param("W"), dq, self.grads["W"]), dmemory
        self.grads["v"] += dv.sum(axis=0)
        dmemory += _affine_backward(memory, self._param("Wk"), dk, self.grads["Wk"], self.grads["b"])
        return _affine_backward(queries, self._param("Wq"), dq, self.grads["Wq"]), dmemory

    def _checked(self, cache: AttentionCache) -> AttentionCache:
        """Return a cache whose arrays, which the caller can reach, have shapes and lengths that go together."""
        checks.instance("cache", cache, AttentionCache, "what forward of the layer returned")
        arrays.as_floating("weights in the cache", cache.weights)
        if cache.weights.ndim != 3:
            raise ValueError(f"weights in the cache must be (T, N, S); got {cache.weights.shape}")
        T, N, S = cache.weights.shape
        additive = self.score == "additive"
        A = self.size if additive else self.memory_size
        shapes = {"queries": (T, N, self.query_size), "memory": (S, N, self.memory_size), "q": (T, N, A)}
        shapes |= {"weights": (T, N, S)} | ({"keys": (S, N, A)} if additive else {})
        clean: dict[str, Any] = {
            name: arrays.as_shaped(f"{name} in the cache", getattr(cache, name), shape, self.dtype)
            for name, shape in shapes.items()
        }
        clean.setdefault("keys", None)
        steps, memory_steps = (
            arrays.as_lengths(cache.steps, T, N),
            arrays.as_lengths(cache.memory_steps, S, N, "memory_steps"),
        )
        return AttentionCache(steps=steps, memory_steps=memory_steps, **clean)


class AttentionCache(NamedTuple):
    """What the forward pass keeps for the backward pass."""

    queries: Array  # (T, N, H)
    memory: Array  # (S, N, E)
    steps: Array  # (N,), those that ask
    memory_steps: Array  # (N,), those that are looked at
    q: Array  # (T, N, A)
    keys: Any  # (S, N, A), or None
    weights: Array  # (T, N, S)


class QuantizedAttention(Attention):
    """Attention for inference, its matrices rounded to bfloat16 or int8: made by ``attention.quantize(precision)``.

    It is computed in floats: its matrices are small, and most of its work is done without them.
    """

    def __init__(self, attention: Attention, weights: dict[str, Any]) -> None:
        self.__dict__.update(attention.__dict__)
        self._weights, self.grads = weights, {}
        self.params = {n: w.widen(self.dtype) if isinstance(w, Quantized) else w for n, w in weights.items()}
        for array in self.params.values():
            array.flags.writeable = False
        self.precision = next(w.precision for w in weights.values() if isinstance(w, Quantized))

    def __repr__(self) -> str:
        return f"<{self.precision} Attention({self.query_size}, {self.memory_size}, {self.score!r})>"

    def arrays(self) -> dict[str, Any]:
        """Return the parameters by name, those that are matrices Quantized."""
        return self._weights

    @property
    def nbytes(self) -> int:
        return sum(weight.nbytes for weight in self._weights.values())

    def quantize(self, precision: Precision) -> Any:
        """Raise ValueError: the layer is quantized."""
        raise already_quantized("a layer", self.precision)

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """Raise TypeError: quantized layers cannot be trained."""
        raise TypeError(NO_TRAINING)

    backward = zero_grad = forward


def _without_padding(x: Array, steps: Array) -> Array:
    """x (T, N, K) with 0 from ``steps[n]`` on: a product with gradients, which are 0 there, would not lose a NaN."""
    padding = np.arange(len(x))[:, None] >= steps
    return np.where(padding[..., None], x.dtype.type(0), x) if padding.any() else x


def _affine(x: Array, W: Array, b: Array | None = None) -> Array:
    """x (..., D) W (D, K) + b"""
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    y = native.affine_forward(rows, W, np.zeros(W.shape[1], W.dtype) if b is None else b)
    return y.reshape(*x.shape[:-1], W.shape[1])


def _affine_backward(x: Array, W: Array, dy: Array, dW: Array, db: Array | None = None) -> Array:
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    db = np.zeros(W.shape[1], W.dtype) if db is None else db
    return native.affine_backward(rows, W, dy.reshape(len(rows), W.shape[1]), dW, db).reshape(x.shape)
