"""Arrays on their way to native code: checks, conversions and allocation.

All checks of array arguments are here; native code trusts what it gets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import _engine
from .._types import Array
from .cells import Variant

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


# ---- checks -----------------------------------------------------------------------------------------------------


def as_array(name: str, value: Any) -> Array:
    """Return an array of any dtype; TypeError or ValueError, which names it, for what NumPy makes none of.

    It is a view of the caller's own array, which can be given another shape: by another thread, or while the next
    argument is converted. What is checked here is what is used.
    """
    try:
        return np.asarray(value).view()
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name} must be an array: {error}") from error


def check_shape(name: str, array: Array | _engine.QuantizedMatrix, letters: str, wanted: tuple[int, ...]) -> None:
    """Raise ValueError unless the array has this shape; ``letters`` are its axes, for the message."""
    if not isinstance(array, (np.ndarray, _engine.QuantizedMatrix)):
        raise TypeError(f"{name} must be an ndarray; got {type(array).__name__}")
    if array.shape != wanted:
        hint = transposed_hint(name) if name in ("Wx", "Wh") and array.shape == wanted[::-1] else ""
        raise ValueError(f"{name} must be {letters} = {wanted}; got {array.shape}{hint}")


def check_gradient(name: str, array: Array, letters: str, wanted: tuple[int, ...]) -> None:
    """Raise TypeError or ValueError unless floats of this shape can be added to the array in place."""
    check_shape(name, array, letters, wanted)
    check_writable(name, array)


def check_writable(name: str, array: Array) -> None:
    """Raise TypeError or ValueError unless floats can be written into the array in place."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be an ndarray; got {type(array).__name__}")
    if array.dtype.kind != "f":
        raise TypeError(f"{name} must be an array of floats, it is updated in place; got dtype {array.dtype}")
    if not array.flags.writeable:
        raise ValueError(f"{name} must be writeable, it is updated in place; got a read-only array")


def transposed_hint(name: str) -> str:
    """Say what to do with an array whose transpose is wanted."""
    return f": pass {name}.T (see 'A NumPy model of your own' in the documentation)"


def as_floating(name: str, value: ArrayLike) -> Array:
    """Return an array of float16, float32 or float64, in any byte order and layout; TypeError for another dtype."""
    array = as_array(name, value)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise TypeError(f"{name} must be an array of float32 or float64; got dtype {array.dtype}")
    return array


def as_shaped(name: str, value: ArrayLike, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return a floating array of this shape, converted to this dtype."""
    array = as_floating(name, value)
    if array.shape != shape:
        raise ValueError(f"{name} must be {shape}; got {array.shape}")
    return converted(array, dtype)


def as_input(x: ArrayLike) -> tuple[Array | None, Array | None]:
    """Return features (T, N, D) and None, or None and ids (T, N)."""
    array = as_array("x", x)
    if array.dtype.kind in "iu":
        if array.ndim != 2:
            raise ValueError(f"x of integers holds ids and must be (T, N); got shape {array.shape}")
        return None, array
    array = as_floating("x", array)
    if array.ndim != 3:
        raise ValueError(f"x must be (T, N, D), or (T, N) of integer ids; got shape {array.shape}")
    return array, None


def as_ids(ids: ArrayLike, size: int, name: str = "ids in x", letter: str = "D") -> NDArray[np.int64]:
    """Return int64 ids, all in [0, size): a copy made before the check, which nobody else can change after it."""
    copy = np.array(ids, order="C")
    if copy.dtype == np.int64 and _engine.are_ids(copy.reshape(-1), size):
        return copy
    _check_range(name, copy, f"[0, {letter}) = [0, {size})", 0, size - 1)
    return copy.astype(np.int64, copy=False)


def as_lengths(lengths: ArrayLike, T: int, N: int, name: str = "lengths") -> NDArray[np.int64]:
    """Return int64 lengths (N,), all in 0..T."""
    array = as_array(name, lengths)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"{name} must be integers; got dtype {array.dtype}")
    check_shape(name, array, "(N,)", (N,))
    array = array.copy()
    _check_range(name, array, f"[0, T] = [0, {T}]", 0, T)
    return array.astype(np.int64, copy=False)


def as_resets(resets: ArrayLike, T: int, N: int) -> NDArray[np.bool_] | None:
    """Return a copy of the flags (T, N), or None if none is set."""
    array = as_array("resets", resets)
    if array.dtype != np.bool_:
        raise TypeError(f"resets must be bool; got dtype {array.dtype}")
    check_shape("resets", array, "(T, N)", (T, N))
    return array.copy() if array.any() else None


def as_cotangent(
    name: str, value: ArrayLike | None, letters: str, wanted: tuple[int, ...], dtype: np.dtype[Any]
) -> Array | None:
    """Return a gradient with respect to an output, converted to this dtype; None for None."""
    if value is None:
        return None
    array = as_floating(name, value)
    check_shape(name, array, letters, wanted)
    return converted(array, dtype)


def _check_range(name: str, array: Array, letters: str, low: int, high: int) -> None:
    """Raise ValueError unless all integers are in low..high, inclusive."""
    if array.size:
        smallest, largest = int(array.min()), int(array.max())
        if smallest < low or largest > high:
            raise ValueError(f"{name} must lie in {letters}; got {smallest if smallest < low else largest}")


def clean_arguments(
    variant: Variant,
    N: int,
    x: Array | None,
    weights: dict[str, Any],
    states: dict[str, Any],
) -> tuple[dict[str, Array], np.dtype[Any], tuple[int, int]]:
    """Check weights and states against x (..., D), which is None if there are ids. States and some weights may be None.

    Returns
    -------
    arrays : dict of name to array
    dtype : dtype to compute in
    (D, H)
    """
    given = {array.name: weights.get(array.name) for array in variant.weights}
    optional = {array.name for array in variant.weights if array.optional} | states.keys()
    arrays = {
        name: as_floating(name, value)  # type: ignore[arg-type]  # that None is an error is its to say
        for name, value in (given | states).items()
        if value is not None or name not in optional
    }
    G, Wx = len(variant.gates), arrays["Wx"]
    if Wx.ndim != 2 or Wx.shape[1] % G or (x is not None and Wx.shape[0] != x.shape[-1]):
        of_x = "" if x is None else f" with D = {x.shape[-1]} as in x"
        transposed = x is not None and Wx.ndim == 2 and Wx.shape[1] == x.shape[-1] and Wx.shape[0] % G == 0
        hint = transposed_hint("Wx") if transposed else ""
        raise ValueError(f"Wx must be (D, {f'{G}H' if G > 1 else 'H'}){of_x}; got {Wx.shape}{hint}")
    D, H = Wx.shape[0], Wx.shape[1] // G
    for array in variant.weights:
        if array.name in arrays:
            check_shape(array.name, arrays[array.name], variant.letters(array), variant.shape(array, D=D, H=H))
    _check_states(arrays, states, (N, H))
    return arrays, working_dtype(*arrays.values(), *(() if x is None else (x,))), (D, H)


def clean_for_packed(
    packed: _engine.Weights, N: int, x: Array | None, states: dict[str, Any]
) -> tuple[dict[str, Array], np.dtype[Any], tuple[int, int]]:
    """Check what goes with weights that are only packed, which are right: see :func:`clean_arguments`."""
    assert packed.b is not None
    assert packed.packed is not None
    D, H = packed.packed.sizes
    if x is not None and x.shape[-1] != D:
        raise ValueError(f"x must be (T, N, D) with D = {D}; got {x.shape}")
    if x is not None and packed.packed.takes_ids_only:
        raise ids_only(D)
    arrays = {name: as_floating(name, value) for name, value in states.items() if value is not None}
    _check_states(arrays, states, (N, H))
    return arrays | packed.by_name(), packed.b.dtype, (D, H)


def ids_only(D: int) -> ValueError:
    """Return the error of inputs that are not ids, for weights in int8 with too many rows for products."""
    return ValueError(f"x must be ids, because int8 sums at most {_engine.LARGEST_QUANTIZED} products; D is {D}")


def _check_states(arrays: dict[str, Array], names: Iterable[str], wanted: tuple[int, int]) -> None:
    for name in names:
        if name in arrays:
            check_shape(name, arrays[name], "(N, H)", wanted)


# ---- layout and dtype -------------------------------------------------------------------------------------------


def working_dtype(*arrays: Array) -> np.dtype[Any]:
    """Return the dtype to compute in: float64 if any array is, else float32."""
    return FLOAT64 if any(array.dtype.itemsize == 8 for array in arrays) else FLOAT32


def converted(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return the array in a floating dtype; what does not fit becomes infinite, without a warning."""
    if array.dtype.itemsize <= dtype.itemsize:
        return array.astype(dtype, copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(dtype)


def add(sums: Array, terms: Array) -> None:
    """Add to an array of perhaps a narrower dtype; what does not fit becomes infinite, without a warning."""
    with np.errstate(over="ignore", invalid="ignore"):
        sums += terms


def is_dense(array: Array, dtype: np.dtype[Any]) -> bool:
    """Tell whether native code can read the array in place: this dtype, C order, aligned, native byte order."""
    return bool(array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned)


def is_dense_matrix(array: Array, dtype: np.dtype[Any]) -> bool:
    """The same for a matrix of weights, which may be in Fortran order too."""
    return is_dense(array, dtype) or is_dense(array.T, dtype)


def is_writable(
    array: object,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    dense: Callable[[Array, np.dtype[Any]], bool] = is_dense,
) -> bool:
    """Tell whether native code can write into ``array`` in place, as an array of this shape and dtype."""
    return type(array) is np.ndarray and array.shape == shape and dense(array, dtype) and bool(array.flags.writeable)


def first_of_shards(arrays: dict[str, Array], shards: int, rows: int) -> tuple[dict[str, Array], int]:
    """Return the first of arrays (shards, ...), by name, and how many values after it the next one begins.

    ValueError unless that is the same for all, and the rows of a batch can be shared so.
    """
    if rows % shards:
        raise ValueError(f"a batch of {rows} rows cannot be cut into {shards} equal shards")
    steps = {array.strides[0] for array in arrays.values()}
    sizes = {(len(array), array.itemsize) for array in arrays.values()}
    if len(steps) != 1 or len(sizes) != 1 or sizes.pop()[0] != shards:
        raise ValueError(f"the gradients of {shards} shards must be equally far apart; got {sorted(steps)} bytes")
    return {name: array[0] for name, array in arrays.items()}, steps.pop() // next(iter(arrays.values())).itemsize


def as_dense(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return a view if native code can read the array in place, otherwise a copy.

    A view, because the caller may give its own array another shape.
    """
    if is_dense(array, dtype):
        return array.view()
    return np.array(converted(array, dtype) if array.dtype.itemsize > dtype.itemsize else array, dtype, order="C")


def as_dense_matrix(array: Array, dtype: np.dtype[Any]) -> Array:
    return array.view() if is_dense_matrix(array, dtype) else np.array(array, dtype, order="C")


# ---- allocation -------------------------------------------------------------------------------------------------


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return an uninitialised array, in pooled memory if it is large: see _engine.Block."""
    size = math.prod(shape) * dtype.itemsize
    if size < _engine.SMALLEST_POOLED:
        return np.empty(shape, dtype)
    try:
        block: Any = _engine.Block(size)  # it has the buffer protocol
    except (MemoryError, OverflowError):
        return np.empty(shape, dtype)  # its message says shape and dtype
    return np.frombuffer(block, dtype, math.prod(shape)).reshape(shape)


def zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    array = empty(shape, dtype)
    array.fill(0)
    return array


def matrix_like(make: Callable[[tuple[int, ...], np.dtype[Any]], Array], matrix: Array) -> Array:
    """Make a new matrix of the shape and memory order of this one."""
    return make(matrix.shape, matrix.dtype) if matrix.flags.c_contiguous else make(matrix.shape[::-1], matrix.dtype).T
