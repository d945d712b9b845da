"""What all layers have in common: parameters and gradients by name, initial values, dropout."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from .. import checks
from .._types import Array
from ..engine.arrays import as_floating, check_writable, converted
from ..engine.quantization import PRECISIONS, Precision, is_quantized, quantize

__all__ = ["Layer", "blank_layers", "dropout_mask", "glorot_uniform", "orthogonal"]

NO_TRAINING = "quantized layers cannot be trained: call forward and backward of the layer they came from"

# Bytes that further parameters may take within blank_layers; None outside.
_room: ContextVar[int | None] = ContextVar("room", default=None)


def glorot_uniform(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """Draw a matrix uniformly from +-sqrt(6 / (rows + columns)) (Glorot and Bengio 2010)."""
    limit = np.sqrt(6 / max(rows + columns, 1))
    return rng.uniform(-limit, limit, (rows, columns))


def orthogonal(rng: np.random.Generator, size: int) -> Array:
    """Draw an orthogonal matrix, uniformly among all of them (Saxe, McClelland and Ganguli 2014)."""
    q, r = np.linalg.qr(rng.normal(size=(size, size)))
    matrix: Array = q * np.where(np.diag(r) < 0, -1, 1)
    return matrix


def dropout_mask(rng: np.random.Generator, shape: tuple[int, ...], share: float, dtype: np.dtype[Any]) -> Array:
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


@contextmanager
def blank_layers(room: int) -> Iterator[None]:
    """Let the layers that are made in the block draw nothing: zeros, for parameters that come from a file.

    Parameters
    ----------
    room : int
        Bytes that all of them may be, by the size of the file. ValueError for more, before memory is taken.

    Examples
    --------
    >>> from rnncore import Dense
    >>> with blank_layers(4 * (2 * 3 + 3)):
    ...     Dense(2, 3).params["W"].any(), Dense(2, 300)
    Traceback (most recent call last):
    ValueError: the parameters of Dense must be at most 0 bytes in a file of this size; got 3600
    """
    token = _room.set(room)
    try:
        yield
    finally:
        _room.reset(token)


class Layer:
    """Parameters by name, and a gradient of the same shape for each.

    Attributes
    ----------
    params, grads : dict of str to ndarray
        With the same keys. The arrays keep their identity: change them in place.
    dtype : numpy dtype
        float32 or float64.
    """

    size_names: ClassVar[tuple[str, ...]] = ("size",)  # of the arguments that the shapes of the parameters follow from
    shards = 1  # that backward adds to: see adding_by_shards

    def __init__(self, dtype: DTypeLike) -> None:
        self.dtype: np.dtype[Any] = np.dtype(checks.floating_dtype("dtype", dtype))
        self.params: dict[str, Array] = {}
        self.grads: dict[str, Array] = {}

    def _add(self, shapes: dict[str, tuple[int, ...]], draw: Callable[[], dict[str, Array]], suffix: str = "") -> None:
        """Add parameters of these shapes: what ``draw`` returns, or zeros within :func:`blank_layers`."""
        room = _room.get()
        if room is None:
            checks.addressable(self.size_names, shapes.values())
            values = draw()
        else:
            needed = sum(map(math.prod, shapes.values())) * self.dtype.itemsize
            if needed > room:
                wanted = f"at most {room} bytes in a file of this size"
                raise ValueError(f"the parameters of {type(self).__name__} must be {wanted}; got {needed}")
            _room.set(room - needed)
            values = {name: np.zeros(shape, self.dtype) for name, shape in shapes.items()}
        for name, value in values.items():
            self.params[name + suffix] = np.ascontiguousarray(converted(np.asarray(value), self.dtype))
            self.grads[name + suffix] = np.zeros_like(self.params[name + suffix])

    @contextmanager
    def adding_by_shards(self, grads: dict[str, Array], shards: int) -> Iterator[None]:
        """Let row n of a batch add to the gradients of shard ``n % shards`` in the block, arrays (shards, ...) by name.

        For recurrent layers with rows of the same length, embeddings, and Dense below the softmax.
        """
        before = self.grads
        self.grads, self.shards = grads, shards
        try:
            yield
        finally:
            self.grads, self.shards = before, 1

    def quantize(self, precision: Precision) -> Any:
        """Return a copy of the layer for inference whose matrices take a half or a quarter of the bytes.

        Parameters
        ----------
        precision : {"bfloat16", "int8"}
            As of the recurrent layers.

        Raises
        ------
        ValueError
            The precision is unknown, or a matrix that is to become int8 is not finite.
        """
        checks.choice("precision", precision, PRECISIONS)
        return self.with_weights(
            {
                name: quantize(name, self._param(name), precision) if is_quantized(name) else self._param(name).copy()
                for name in self.params
            }
        )

    def with_weights(self, weights: dict[str, Any]) -> Any:
        """Return a copy of the layer for inference with these parameters, by name; matrices are Quantized."""
        raise NotImplementedError

    def _param(self, name: str) -> Array:
        """Return a parameter, which the caller may have replaced; TypeError if it is no array of floats."""
        return as_floating(name, self.params[name])

    def arrays(self) -> dict[str, Any]:
        """Return the parameters by name."""
        return dict(self.params)

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters."""
        return sum(array.nbytes for array in self.params.values())

    def zero_grad(self) -> None:
        """Set all gradients to zero, in place."""
        for name, grad in self.grads.items():
            check_writable(f"grads[{name!r}]", grad)
            grad.fill(0)
