"""Packing of ragged batches: rows in order of falling length, tokens time-major without gaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._types import Array
from .arrays import as_array, as_dense, as_floating


class PackedTokens(NamedTuple):
    """A ragged batch, already packed as native code wants it, and as PyTorch's ``PackedSequence`` is.

    The forward functions take one as ``x``. Then ``h``, ``dh`` and ``dx`` are (L, .), and rows of states are in packed
    order, that of falling length.
    """

    tokens: Array  # (L, D): the rows of step 0, those of step 1, ...
    rows: Array  # (T,) integers, falling, at least 1: rows that run at each step


@dataclass(slots=True)
class Packing:
    """Where the tokens of a packed batch are; the caller has them packed, too."""

    rows: NDArray[np.int64]  # (T',): rows running at each step, T' the greatest length
    offset: NDArray[np.int64]  # (T',): first token of each step

    @property
    def count(self) -> int:
        """Number of tokens, L."""
        return int(self.offset[-1] + self.rows[-1]) if len(self.rows) else 0

    def tokens(self, begin: int, end: int) -> slice:
        """The tokens of steps begin .. end - 1."""
        return slice(*(int(self.offset[step]) if step < len(self.offset) else self.count for step in (begin, end)))

    def shape(self, T: int, N: int, K: int) -> tuple[int, ...]:
        """Shape of the caller's array of all tokens."""
        return self.count, K

    def take(self, array: Array, tokens: slice, dtype: np.dtype[Any]) -> Array:
        """Read these tokens of the caller's array: (count, K)."""
        return as_dense(array[tokens], dtype)

    def put(self, array: Array, tokens: slice, values: Array) -> None:
        """Write values (count, K) into the caller's array."""
        array[tokens] = values

    def sort(self, states: Array) -> Array:
        """Bring states (N, H) from the caller's order of rows into packed order."""
        return states

    def unsort(self, states: Array) -> Array:
        """The inverse of :meth:`sort`."""
        return states


@dataclass(slots=True)
class PaddedPacking(Packing):
    """The same for a caller whose arrays are padded, (T, N, K), with rows in any order."""

    order: NDArray[np.int64]  # (N,): packed row -> row of the batch
    index: NDArray[np.int64]  # (L,): token -> position in the flattened (T, N)

    def shape(self, T: int, N: int, K: int) -> tuple[int, ...]:
        return T, N, K

    def pack(self, array: Array) -> Array:
        """(T, N) -> (L,)"""
        packed: Array = array.reshape(-1)[self.index]
        return packed

    def take(self, array: Array, tokens: slice, dtype: np.dtype[Any]) -> Array:
        T, N, K = array.shape
        index = self.index[tokens]
        if array.flags.c_contiguous:
            rows = np.take(array.reshape(T * N, K), index, axis=0)
        else:
            rows = array[index // N, index % N]
        return np.asarray(rows, dtype, order="C")

    def put(self, array: Array, tokens: slice, values: Array) -> None:
        T, N, K = array.shape
        array.reshape(T * N, K)[self.index[tokens]] = values

    def sort(self, states: Array) -> Array:
        sorted_states: Array = states[self.order]
        return sorted_states

    def unsort(self, states: Array) -> Array:
        result = np.empty_like(states)
        result[self.order] = states
        return result


def packing_of_tokens(tokens: Array, rows: Array) -> Packing:
    """The packing of :class:`PackedTokens`; ValueError or TypeError if they are not valid."""
    if rows.dtype.kind not in "iu" or rows.ndim != 1 or tokens.ndim != 2:
        raise TypeError(f"tokens must be (L, D), rows (T,) integers; got {tokens.shape}, {rows.shape} {rows.dtype}")
    L = len(tokens)
    rows = rows.astype(np.int64)
    in_range = not len(rows) or (rows[0] <= L and rows[-1] >= 1 and (rows[1:] <= rows[:-1]).all())
    if not in_range or rows.sum() != L:
        raise ValueError(f"rows must fall, be at least 1 and add up to the number of tokens, {L}; got {rows}")
    return Packing(rows, np.cumsum(rows) - rows)


def packing_of_lengths(lengths: NDArray[np.int64], N: int) -> PaddedPacking:
    """The packing of a padded batch with these lengths (N,)."""
    order = np.argsort(-lengths, kind="stable")
    longest = int(lengths.max(initial=0))
    rows = N - np.cumsum(np.bincount(lengths, minlength=longest))[:longest]
    offset = np.concatenate([[0], np.cumsum(rows)[:-1]]) if longest else rows
    step = np.repeat(np.arange(longest), rows)
    index = step * N + order[np.arange(len(step)) - offset[step]]
    return PaddedPacking(rows, offset, order, index)


def unpack(x: PackedTokens) -> tuple[Array, Packing]:
    """Return the tokens (L, D) and their packing; each array is converted once, then checked."""
    tokens, rows = as_array("tokens", x.tokens), as_array("rows", x.rows)
    packing = packing_of_tokens(tokens, rows)
    return as_floating("x", tokens), packing
