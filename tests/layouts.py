"""Arrays as callers have them: the same values in other places of memory; and how near a result must be."""

import numpy as np
from problems import TOLERANCE


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


def assert_near(got, wanted, dtype):
    """Arrays of this dtype and of the shapes wanted, within the tolerance of the dtype relative to their scale."""
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == dtype
        assert a.shape == b.shape
        assert np.abs(a - b).max(initial=0) <= TOLERANCE[dtype] * max(1, np.abs(b).max(initial=0))
