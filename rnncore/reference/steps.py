"""What the three cells share: arguments, the order of the steps, and everything outside the recurrence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .._types import Array
from .int8 import Int8Matrix


def check_option(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def clean(x: Any, *arrays: Any) -> tuple[Any, ...]:
    """Give all arrays the dtype NumPy promotes their floats to, at least float32. None, ids and int8 values stay."""
    x, given = np.asarray(x), [a if a is None or isinstance(a, Int8Matrix) else np.asarray(a) for a in arrays]
    floats = [a.dtype for a in (x, *given) if a is not None and a.dtype.kind == "f"]
    dtype = np.result_type(np.float32, *floats)
    return (
        x if is_ids(x) else x.astype(dtype, copy=False),
        *(None if a is None else a.astype(dtype, copy=False) for a in given),
    )


def is_ids(x: Array) -> bool:
    """Tell ids (T,N), which stand for one-hot rows, from features (T,N,D)."""
    return x.ndim == 2 and x.dtype.kind in "iu"


def state(s: ArrayLike | None, N: int, H: int, dtype: Any) -> Array:
    """Copy a state, or its gradient, (N,H); None means zeros."""
    return np.zeros((N, H), dtype) if s is None else np.array(s, dtype)


def sigmoid(a: Array) -> Array:
    """1 / (1 + exp(-a)), written so that nothing overflows."""
    return 0.5 * (1 + np.tanh(0.5 * a))


def blocks(a: Array, order: str, gates: str) -> list[Array]:
    """Views of the gate blocks of ``a (..., G*H)``, which lie in one order of letters and are wanted in another."""
    H = a.shape[-1] // len(order)
    return [a[..., order.index(k) * H : (order.index(k) + 1) * H] for k in gates]


def join(values: list[Array], order: str, gates: str) -> Array:
    """The inverse of :func:`blocks`: values (..., H) of the gates -> (..., G*H) with the blocks in ``order``."""
    return np.concatenate([values[gates.index(k)] for k in order], axis=-1)


def read_only(a: Array) -> Array:
    """Forbid writing to ``a``, an array that belongs to a cache."""
    a.flags.writeable = False
    return a


# ---- which steps are computed, and in which order ----------------------------------------------------------


class Steps(NamedTuple):
    """The steps of one call; None stands for "everywhere" in ``valid`` and "nowhere" in ``resets``."""

    order: range  # t in order of computation
    valid: Array | None  # (T,N,1) bool: t < lengths[n]
    resets: Array | None  # (T,N,1) bool: zero the state before step t


def plan(T: int, lengths: ArrayLike | None, resets: ArrayLike | None, reverse: bool) -> Steps:
    """Return the Steps of a call."""
    order = range(T - 1, -1, -1) if reverse else range(T)
    valid = None
    if lengths is not None:
        valid = (np.arange(T)[:, None] < np.asarray(lengths))[:, :, None]
    if resets is not None:
        resets = np.asarray(resets, dtype=bool)[:, :, None]
        if valid is not None:
            resets = resets & valid
    return Steps(order, valid, resets)


def zero_padding(a: Array, valid: Array | None) -> Array:
    """Zero ``a (T,N,...)`` at the steps beyond a row's length, whatever stands there."""
    if valid is None:
        return a
    return np.where(valid if a.ndim == 3 else valid[:, :, 0], a, 0)


def states_before(h: Array, h0: Array, steps: Steps) -> Array:
    """Return the state that every step started from (T,N,H), from the states ``h (T,N,H)`` they left."""
    before = np.empty_like(h)
    h_t = h0
    for t in steps.order:
        h_prev = h_t if steps.resets is None else np.where(steps.resets[t], 0, h_t)
        h_t = h[t] if steps.valid is None else np.where(steps.valid[t], h[t], h_prev)
        before[t] = h_prev
    return before


# ---- the products over all T*N rows ------------------------------------------------------------------------


def rows(a: Array) -> Array:
    """View ``a (T,N,K)`` as (T*N, K)."""
    T, N, K = a.shape
    return a.reshape(T * N, K)


def project(x: Array, Wx: Array, b: Array) -> Array:
    """Return x Wx + b for all steps, (T,N,G*H)."""
    if is_ids(x):
        return Wx[x] + b
    # One product over T*N rows: matmul on three axes would run T small ones.
    return (rows(x) @ Wx + b).reshape(*x.shape[:2], Wx.shape[1])


def project_backward(da: Array, x: Array, Wx: Array) -> tuple[Array | None, Array, Array]:
    """Return dx (None for ids), dWx, db from the gradient ``da (T,N,G*H)`` of x Wx + b."""
    da_rows = rows(da)
    db = da_rows.sum(axis=0)
    if is_ids(x):
        dWx = np.zeros_like(Wx)
        np.add.at(dWx, x.reshape(-1), da_rows)
        return None, dWx, db
    dWx = rows(x).T @ da_rows  # (D,G*H) = (D,T*N) (T*N,G*H)
    dx = (da_rows @ Wx.T).reshape(x.shape)  # (T*N,D) = (T*N,G*H) (G*H,D)
    return dx, dWx, db


def incoming(dh: ArrayLike | None, h: Array, valid: Array | None) -> Array:
    """Return the gradient of the output ``h`` in its dtype; None means zeros, padding gives none."""
    return np.zeros_like(h) if dh is None else zero_padding(np.asarray(dh, h.dtype), valid)
