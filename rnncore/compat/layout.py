"""Convert other code's array layouts to rnncore's: batch first, one example per column, one matrix per gate.

Weights are read on every call; converted copies live as long as the call and its cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from .. import checks
from .._types import Array
from ..engine.arrays import as_array, as_floating, as_ids
from ..gates import join_blocks, split_blocks


def swap(array: Any) -> Array:
    """Swap batch-first and time-major: a view with the first two axes exchanged."""
    return np.swapaxes(array, 0, 1)


def real(name: str, value: Array, letters: str, shape: tuple[Any, ...] | None = None) -> Array:
    """Return a floating array, integers as float64, after checking its number of axes and, if given, its shape.

    Examples
    --------
    >>> real("dh", np.zeros((2, 5)), "NTH", (2, 3, 5))
    Traceback (most recent call last):
    ...
    ValueError: dh must be (N, T, H) = (2, 3, 5); got (2, 5)
    """
    (array,) = floats(as_array(name, value))
    array = as_floating(name, array)
    if array.ndim != len(letters) or (shape is not None and array.shape != shape):
        wanted = f"({', '.join(letters)}{',' * (len(letters) == 1)})" + (f" = {shape}" if shape is not None else "")
        raise ValueError(f"{name} must be {wanted}; got {array.shape}")
    return array


#: Dtype kinds of real numbers.
_REAL = frozenset("biuf")


def floats(*arrays: Any) -> list[Array]:
    """Convert integer arrays to float64; the engine checks the rest, and says what is no array."""
    return [_float64(array) for array in arrays]


def _float64(value: Any) -> Any:
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        return value
    return array.astype(np.float64) if array.dtype.kind in "biu" else array


def numbers(name: str, value: Any) -> Array:
    """Return an array of real numbers; TypeError for another dtype."""
    array = as_array(name, value)
    if array.dtype.kind not in _REAL:
        raise TypeError(f"{name} must hold real numbers; got dtype {array.dtype}")
    return array


def sized(name: str, value: Array, axes: tuple[Any, ...], sizes: dict[str, int]) -> Array:
    """Return an array after checking its axes by name: a name has the same length everywhere.

    ``sizes`` maps names of axes to lengths; new names are added to it.

    Examples
    --------
    >>> sizes = {}
    >>> sized("Wax", np.zeros((5, 3)), ("n_a", "n_x"), sizes).shape, sizes["n_a"], sizes["n_x"]
    ((5, 3), 5, 3)
    >>> sized("a0", np.zeros((4, 10)), ("n_a", "m"), sizes)
    Traceback (most recent call last):
    ...
    ValueError: a0 must be (n_a, m) = (5, m); got (4, 10)
    """
    array = numbers(name, value)
    lengths = _lengths((axes,), (array.shape,), tuple(sizes.items()))
    if lengths is None:
        wanted = ", ".join(str(sizes.get(axis, axis)) for axis in axes)
        raise ValueError(f"{name} must be ({', '.join(axes)}) = ({wanted}); got {array.shape}")
    sizes.update(lengths)
    return array


@lru_cache(maxsize=1024)  # the checks would take longer than a step of a small model
def _lengths(axes: tuple[Any, ...], shapes: tuple[Any, ...], sizes: tuple[Any, ...]) -> dict[str, int] | None:
    """Return the lengths of all named axes; None if they contradict each other or ``sizes``, (name, length) pairs."""
    lengths = {"1": 1, **dict(sizes)}
    for names, shape in zip(axes, shapes, strict=True):
        if len(names) != len(shape) or any(
            lengths.setdefault(*pair) != pair[1] for pair in zip(names, shape, strict=True)
        ):
            return None
    return lengths


def sized_values(
    parameters: dict[str, Array],
    axes: Mapping[str, tuple[str, ...]],
    sizes: dict[str, Any] | None = None,
    **others: Any,
) -> list[Array]:
    """Apply :func:`sized` to the values of a dict and ``others``: ``axes`` has the axes of each key -> list of arrays

    The axis "1" has length 1.

    Examples
    --------
    >>> sized_values({"Wax": np.zeros((5, 3))}, {"Wax": ("n_a", "n_x"), "ba": ("n_a", "1")})
    Traceback (most recent call last):
    ...
    KeyError: "parameters must have 'ba' (n_a, 1); its keys are Wax"
    """
    sizes = {} if sizes is None else sizes
    checks.instance("parameters", parameters, Mapping, "a dict of arrays")
    try:
        arrays = [as_array(key, others[key] if key in others else parameters[key]) for key in axes]
    except KeyError as error:
        (key,), keys = error.args, ", ".join(map(str, parameters))
        raise KeyError(f"parameters must have {key!r} ({', '.join(axes[key])}); its keys are {keys}") from None
    lengths = _lengths(tuple(axes.values()), tuple(array.shape for array in arrays), tuple(sizes.items()))
    if lengths is None or not {array.dtype.kind for array in arrays} <= _REAL:
        for key, array in zip(axes, arrays, strict=True):
            sized(key, array, axes[key], sizes)  # says what is wrong
    sizes.update(lengths or {})
    return arrays


def cotangent(name: str, value: Any, letters: str, shape: tuple[Any, ...]) -> Array:
    """:func:`real`, but a number is broadcast to the shape: sums of gradients often start as 0."""
    array = numbers(name, value)
    return np.full(shape, float(array)) if array.ndim == 0 else real(name, array, letters, shape)


def parts(cache: Any, count: int, maker: str, name: str = "cache") -> tuple[Any, ...]:
    """Return a cache, a tuple of so many parts; TypeError, which says where it must come from, for anything else."""
    if not isinstance(cache, (tuple, list)) or len(cache) != count:
        raise TypeError(f"{name} must come from {maker}; got {type(cache).__name__}")
    return tuple(cache)


def transposed(columns: Array) -> Array:
    """(n, m), a matrix that acts on columns -> float64 (m, n), a view if possible."""
    return np.asarray(columns, np.float64).T


def rows(columns: Array) -> Array:
    """(n, m), one example per column -> float64 (m, n), C-contiguous."""
    return np.array(numbers("a step of the cache", columns).T, np.float64, order="C")


def row(*columns: Any) -> Array:
    """Concatenate columns (H, 1), one per gate -> float64 (G*H,), a view if possible."""
    rows = [np.asarray(column, np.float64).reshape(-1) for column in columns]
    return rows[0] if len(rows) == 1 else np.concatenate(rows)


def stack(matrices: list[Array]) -> Array:
    """One matrix per gate, each (H, K) and acting on columns -> (K, G*H), acting on rows; C-contiguous float64.

    Examples
    --------
    >>> stack([np.array([[1, 2]]), np.array([[3, 4]])])
    array([[1., 3.],
           [2., 4.]])
    """
    arrays = [np.asarray(matrix) for matrix in matrices]
    for array in arrays[1:]:
        if array.shape != arrays[0].shape:
            raise ValueError(f"the matrices of all gates must be {arrays[0].shape}; got {array.shape}")
    return join_blocks(arrays, np.float64, columns=True)


def unstack(weights: Array, G: int) -> list[Array]:
    """The inverse of :func:`stack`: (K, G*H) -> list of G fresh C-contiguous matrices (H, K)."""
    return [block.copy() for block in split_blocks(weights, G, columns=True)]


def clean_ids(name: str, ids: list[int], V: int) -> Array:
    """Return int64 ids (T,) in [0, V); TypeError or ValueError for anything else."""
    ids = as_array(name, ids)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise TypeError(f"{name} must be a sequence of integer ids; got shape {ids.shape}, dtype {ids.dtype}")
    return as_ids(ids.astype(np.int64, copy=False), V, name, "V")
