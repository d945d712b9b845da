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


def set_shape(a, shape):
    """Give the array itself another shape, as callers still can: NumPy 2.5 warns of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        a.shape = shape
