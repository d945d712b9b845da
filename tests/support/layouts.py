"""Arrays as callers have them: the same values in other places of memory."""

import warnings

import numpy as np


def contiguous(a):
    return a


def transposed(a):
    return a.T.copy().T


def backwards(a):
    """Negative strides along every axis."""
    turn = (slice(None, None, -1),) * a.ndim
    return a[turn].copy()[turn]


def time_first(a):
    return np.swapaxes(np.swapaxes(a, 0, 1).copy(), 0, 1)


def sparse(a):
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def strided(a, axis):
    """Every second entry along an axis of an array twice as long; NaN (True, 99) in the gaps."""
    shape = list(a.shape)
    shape[axis] *= 2
    gap = {"f": np.nan, "b": True, "i": 99}[a.dtype.kind]
    buffer = np.full(shape, gap, a.dtype)
    view = buffer[tuple(slice(None, None, 2) if k == axis % a.ndim else slice(None) for k in range(a.ndim))]
    view[...] = a
    return view


def negative(a, axis):
    return np.flip(np.ascontiguousarray(np.flip(a, axis)), axis)


def misaligned(a):
    buffer = bytearray(a.nbytes + 1)
    view = np.ndarray(a.shape, a.dtype, buffer, offset=1)
    view[...] = a
    assert not view.flags.aligned or a.itemsize == 1 or not a.size
    return view


def read_only(a):
    copy = a.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS = {
    "read-only": read_only,
    "strided last axis": lambda a: strided(a, -1),
    "strided first axis": lambda a: strided(a, 0),
    "Fortran order": lambda a: np.copy(a, order="F"),
    "negative first axis": lambda a: negative(a, 0),
    "negative last axis": lambda a: negative(a, -1),
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder("S")),
    "misaligned": misaligned,
    "swapped axes": lambda a: np.swapaxes(np.ascontiguousarray(np.swapaxes(a, 0, -1)), 0, -1),
    "ndarray subclass": lambda a: np.ma.masked_array(a.copy()),
}


def whole_memory(a):
    """The bytes of the array that owns the memory that `a` looks at, gaps included."""
    while isinstance(a.base, np.ndarray):
        a = a.base
    return a.tobytes()


def set_shape(a, shape):
    """Give the array itself another shape, as callers still can: NumPy 2.5 warns of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        a.shape = shape
