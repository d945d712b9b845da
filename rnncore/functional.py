"""The cells as functions: clean the arguments, allocate the results, make one native call.

All argument checks of the engine stand here and nowhere else; native code trusts what it gets.
"""

import math
from dataclasses import dataclass, replace
from functools import wraps
from itertools import pairwise, zip_longest
from typing import NamedTuple

import numpy as np

from . import _engine, checks
from .engine.cells import GRU, LSTM, RNN
from .reference import GRUGradients, LSTMGradients, RNNGradients

__all__ = ["gru_backward", "gru_forward", "lstm_backward", "lstm_forward", "rnn_backward", "rnn_forward"]

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


# ---- what native code needs to know of a cell: (kind, G, activation, variant, update, places) ------------------------


def rnn_cell(activation):
    return RNN.variant(activation).native


def gru_cell(form, update, gate_order="rzn"):
    return GRU.variant(form, update, gate_order).native


def lstm_cell(has_peephole, peephole_output, output_activation, gate_order="ifgo"):
    return LSTM.variant(has_peephole, peephole_output, output_activation, gate_order).native


# ---- cleaning ---------------------------------------------------------------------------------------------------


def as_real(name, value):
    """Any array of float16, float32 or float64, in whatever byte order and layout."""
    array = np.asarray(value)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise TypeError(f"{name} must be an array of float32 or float64; got dtype {array.dtype}")
    return array


def _is_dense(array, dtype):
    """Whether native code can read the array as it is; the dtype is in native byte order."""
    return array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned


def _is_dense_matrix(array, dtype):
    """The same for a matrix of weights, which may be in Fortran order: the transpose of a dense one."""
    return _is_dense(array, dtype) or _is_dense(array.T, dtype)


def _takes(array, shape, dtype, is_dense=_is_dense):
    """Whether native code can write into ``array``, as an array of that shape and dtype."""
    return type(array) is np.ndarray and array.shape == shape and is_dense(array, dtype) and array.flags.writeable


def _dense(array, dtype):
    """A view of the array where native code can read it as it is, a copy where it cannot.

    A view, because the caller may give its own array another shape.
    """
    if _is_dense(array, dtype):
        return array.view()
    return np.array(array, dtype, order="C")


def _dense_matrix(array, dtype):
    return array.view() if _is_dense_matrix(array, dtype) else np.array(array, dtype, order="C")


def _dense_weights(Wx, Wh, b, ids, dtype):
    """Where there are ids, native code takes rows of Wx."""
    Wx = _dense_matrix(Wx, dtype) if ids is None else _dense(Wx, dtype)
    return Wx, _dense_matrix(Wh, dtype), _dense(b, dtype)


def _like(make, matrix):
    """A new matrix of the shape, and with the order in memory, of this one."""
    return make(matrix.shape, matrix.dtype) if matrix.flags.c_contiguous else make(matrix.shape[::-1], matrix.dtype).T


def _working_dtype(*arrays):
    return _FLOAT64 if any(array.dtype.itemsize == 8 for array in arrays) else _FLOAT32


def _check_shape(name, array, letters, wanted):
    if array.shape != wanted:
        raise ValueError(f"{name} must be {letters} = {wanted}; got {array.shape}")


def _clean_input(x):
    """-> x (T,N,D), None or None, ids (T,N)."""
    array = np.asarray(x)
    if array.dtype.kind in "iu":
        if array.ndim != 2:
            raise ValueError(f"x of integers holds ids and must be (T, N); got shape {array.shape}")
        return None, array
    array = as_real("x", array).view()
    if array.ndim != 3:
        raise ValueError(f"x must be (T, N, D), or (T, N) of integer ids; got shape {array.shape}")
    return array, None


def _check_range(name, array, letters, low, high):
    """Integers in low..high, both included."""
    if array.size:
        smallest, largest = int(array.min()), int(array.max())
        if smallest < low or largest > high:
            raise ValueError(f"{name} must lie in {letters}; got {smallest if smallest < low else largest}")


def clean_ids(ids, size, name="ids in x", letter="D"):
    """-> int64 ids, all in [0, size): a copy, made before the check, that nobody else can change after it."""
    copy = np.array(ids, order="C")
    if copy.dtype == np.int64 and _engine.are_ids(copy.reshape(-1), size):
        return copy
    _check_range(name, copy, f"[0, {letter}) = [0, {size})", 0, size - 1)
    return copy.astype(np.int64, copy=False)


def clean_lengths(lengths, T, N):
    """-> int64 lengths (N,), all in 0..T."""
    array = np.asarray(lengths)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"lengths must be integers; got dtype {array.dtype}")
    _check_shape("lengths", array, "(N,)", (N,))
    array = array.copy()
    _check_range("lengths", array, f"[0, T] = [0, {T}]", 0, T)
    return array.astype(np.int64, copy=False)


def _clean_resets(resets, T, N):
    array = np.asarray(resets)
    if array.dtype != np.bool_:
        raise TypeError(f"resets must be bool; got dtype {array.dtype}")
    _check_shape("resets", array, "(T, N)", (T, N))
    return array.copy() if array.any() else None


class PackedTokens(NamedTuple):
    """A ragged batch as native code has it, and PyTorch's ``PackedSequence``: all arrays of tokens are (L, .).

    ``x`` of the forward functions may be one: ``h``, ``dh`` and ``dx`` are (L, .) then; rows of states are in packed
    order, that of falling length.
    """

    tokens: np.ndarray  # (L, D): the rows of step 0, those of step 1, ...
    rows: np.ndarray  # (T,) integers, falling, at least 1: rows that run at each step


@dataclass(slots=True)
class _Packing:
    """Where the tokens of a ragged batch are: rows by falling length, time-major, no gaps. So are the caller's."""

    rows: np.ndarray  # (T',): rows running at each step, T' the longest length
    offset: np.ndarray  # (T',): first token of each step

    @classmethod
    def of(cls, x):
        """-> that of PackedTokens; ValueError, TypeError if they are none."""
        rows, tokens = np.asarray(x.rows), np.asarray(x.tokens)
        if rows.dtype.kind not in "iu" or rows.ndim != 1 or tokens.ndim != 2:
            raise TypeError(f"tokens must be (L, D), rows (T,) integers; got {tokens.shape}, {rows.shape} {rows.dtype}")
        rows, L = rows.astype(np.int64), len(tokens)
        in_range = not len(rows) or (rows[0] <= L and rows[-1] >= 1 and (rows[1:] <= rows[:-1]).all())
        if not in_range or rows.sum() != L:
            raise ValueError(f"rows must fall, be at least 1 and add up to the number of tokens, {L}; got {rows}")
        return cls(rows, np.cumsum(rows) - rows)

    @property
    def count(self):
        return int(self.offset[-1] + self.rows[-1]) if len(self.rows) else 0  # L

    def shape(self, T, N, K):
        """Of an array of all tokens as the caller has it."""
        return self.count, K

    def take(self, array, tokens, dtype):
        """These tokens, a slice, of the caller's array -> (count, K)"""
        return _dense(array[tokens], dtype)

    def put(self, array, tokens, values):
        """values (count, K) into the caller's array"""
        array[tokens] = values

    def sort(self, states):
        """(N, H) in the order of the batch -> in packed order; unsort the other way round."""
        return states

    unsort = sort


@dataclass(slots=True)
class _Scattering(_Packing):
    """The tokens of a caller who has them padded, (T, N, K), and the rows in any order."""

    order: np.ndarray  # (N,): packed row -> row of the batch
    index: np.ndarray  # (L,): token -> position in the flattened (T, N)

    @classmethod
    def of(cls, lengths, N):
        order = np.argsort(-lengths, kind="stable")
        longest = int(lengths.max(initial=0))
        rows = N - np.cumsum(np.bincount(lengths, minlength=longest))[:longest]
        offset = np.concatenate([[0], np.cumsum(rows)[:-1]]) if longest else rows
        step = np.repeat(np.arange(longest), rows)
        index = step * N + order[np.arange(len(step)) - offset[step]]
        return cls(rows, offset, order, index)

    def shape(self, T, N, K):
        return T, N, K

    def pack(self, array):
        """(T, N) -> (L,)"""
        return array.reshape(-1)[self.index]

    def take(self, array, tokens, dtype):
        T, N, K = array.shape
        index = self.index[tokens]
        if array.flags.c_contiguous:
            rows = np.take(array.reshape(T * N, K), index, axis=0)
        else:
            rows = array[index // N, index % N]
        return np.asarray(rows, dtype, order="C")

    def put(self, array, tokens, values):
        T, N, K = array.shape
        array.reshape(T * N, K)[self.index[tokens]] = values

    def sort(self, states):
        return states[self.order]

    def unsort(self, states):
        result = np.empty_like(states)
        result[self.order] = states
        return result


# ---- what a forward pass keeps ------------------------------------------------------------------------------------


@dataclass(slots=True, repr=False, eq=False)
class Cache:
    """What the backward pass needs of the forward pass.

    Weights and, where no copy was needed, ``x`` are kept by reference: change them after ``backward``, not before.

    Attributes
    ----------
    h : ndarray (T, N, H) or None
        States, zero at padded steps; read-only. None with ``checkpoint``, as the others. (L, H) of PackedTokens.
    gates : ndarray (T, N, G*H) or None
        Activated gates, blocks as in the weights (RNN: the state); read-only.
    c : ndarray (T, N, H) or None
        Cell states of an LSTM; read-only.
    """

    kind: str
    _cell: tuple
    _shape: tuple  # T, N, D, H
    _dtype: np.dtype
    _packing: _Packing | None
    _resets: np.ndarray | None
    _reverse: bool
    _x: np.ndarray | None
    _ids: np.ndarray | None
    _weights: tuple  # Wx, Wh, b, bhn, peephole
    _segments: list  # (first step, last step + 1) in order of computation
    # With one segment all it computed, with several the states h0, c0 that each of them starts from.
    _kept: tuple | None = None
    _states: list | None = None

    @classmethod
    def of(cls, kind, cell, weights, x, h, h0, gates=None, c=None, c0=None):
        """That of a forward pass of weights (Wx, Wh, b) whose values the caller kept, all of one dtype.

        x (T, N, D), h, c (T, N, H), gates (T, N, G*H), h0, c0 (N, H), those that the cell has. ValueError if one is
        missing or shapes do not go together.
        """
        needed = {"rnn": (h, h0), "gru": (h, h0, gates), "lstm": (h, h0, gates, c, c0)}[kind]
        if any(array is None for array in needed):
            name = next(
                name for name, array in zip(("h", "h0", "gates", "c", "c0"), needed, strict=False) if array is None
            )
            raise ValueError(f"{name} must be there for the cache of {kind}_forward; got None")
        G, (T, N, D), (Wx, Wh, b), dtype = cell[1], x.shape, weights, x.dtype
        if not _engine.fits(G, x, Wx, Wh, b, h0, c0, None, None):
            arrays, dtype, _ = _clean(G, N, x, Wx, Wh, b, h0, c0, None, None)
            Wx, Wh, b = _dense_weights(*(arrays[name] for name in ("Wx", "Wh", "b")), None, dtype)
            x, h0, c0 = (None if a is None else _dense(a, dtype) for a in (x, h0, c0))
        H = len(Wh)
        for name, array, blocks in (("h", h, 1), ("gates", gates, G), ("c", c, 1)):
            if array is not None and array.shape != (T, N, blocks * H):
                _check_shape(name, array, f"(T, N, {blocks}H)" if blocks > 1 else "(T, N, H)", (T, N, blocks * H))
        gates, c, h = (None if a is None else _dense(a, dtype).reshape(T * N, a.shape[2]) for a in (gates, c, h))
        weights, kept = (Wx, Wh, b, None, None), (x, h0, c0, gates, c, None, h)
        return cls(kind, cell, (T, N, D, H), dtype, None, None, False, None, None, weights, [(0, T)], kept)

    def with_weights(self, Wx, Wh, b):
        """The same with other weights of the same shapes, for gradients that see them change after the forward pass."""
        for name, kept, new in zip(("Wx", "Wh", "b"), self._weights, (Wx, Wh, b), strict=False):
            _check_shape(name, as_real(name, new), "as in the forward pass", kept.shape)
        weights = _dense_weights(np.asarray(Wx), np.asarray(Wh), np.asarray(b), self._ids, self._dtype)
        return replace(self, _weights=(*weights, *self._weights[3:]))

    def give(self):
        """-> dict of h and, where there are such, gates and c, (T, N, .): writable, for who takes the cache apart."""
        arrays, (T, N) = {"h": self._kept[_H], "gates": self._kept[_GATES], "c": self._kept[_C]}, self._shape[:2]
        return {name: a.reshape(T, N, a.shape[1]) for name, a in arrays.items() if a is not None}

    @property
    def hidden_size(self):
        return self._shape[3]

    def let_go(self):
        """-> what it keeps, a tuple of arrays and None, x first; from now on it holds neither that nor Wx and Wh."""
        kept, self._kept = self._kept, None
        self._weights = (None, None, *self._weights[2:])
        return kept

    def held(self, Wx, Wh, kept):
        """A cache that let go, with that again, or with copies. ValueError if a shape or a dtype is not what it was."""
        (T, N, D, H), G = self._shape, self._cell[1]
        L = T * N if self._packing is None else self._packing.count
        x = (T, N, D) if self._packing is None else (L, D)
        shapes = x, (N, H), (N, H), (L, G * H), (L, H), (L, H), (L, H), (D, G * H), (H, G * H)
        for array, shape in zip((*kept, Wx, Wh), shapes, strict=True):
            if array is not None and (array.shape != shape or array.dtype != self._dtype):
                raise ValueError(f"what was kept must be {shape} {self._dtype}; got {array.shape} {array.dtype}")
        kept = tuple(None if array is None else _dense(array, self._dtype) for array in kept)
        weights = *(_dense_matrix(array, self._dtype) for array in (Wx, Wh)), *self._weights[2:]
        return replace(self, _weights=weights, _kept=kept)

    def _view(self, index):
        tokens = None if self._kept is None else self._kept[index]
        if tokens is None:
            return None
        (T, N), K = self._shape[:2], tokens.shape[-1]
        if self._packing is None:
            view = tokens.reshape(T, N, K)
        else:
            view = np.zeros(self._packing.shape(T, N, K), tokens.dtype)
            self._packing.put(view, slice(None), tokens)
        view.flags.writeable = False
        return view

    @property
    def h(self):
        return self._view(_H)

    @property
    def gates(self):
        return self._view(_H if self.kind == "rnn" else _GATES)

    @property
    def c(self):
        return self._view(_C)

    @property
    def _irregular(self):
        """Whether the state before a step is anything but the state of the step before it."""
        return self._packing is not None or self._resets is not None

    @property
    def _reset_form(self):
        return self._cell[3] if self.kind == "gru" else None

    def _tokens(self, begin, end):
        """The tokens of steps begin .. end - 1, as a slice."""
        if self._packing is None:
            return slice(begin * self._shape[1], end * self._shape[1])
        offset, L = self._packing.offset, self._packing.count
        return slice(*(int(offset[step]) if step < len(offset) else L for step in (begin, end)))

    def _piece(self, array, begin, end):
        """The tokens of some steps of an array (T, N, K), dense: (steps, N, K), or (tokens, K) where it is ragged."""
        if array is None:
            return None
        if self._packing is None:
            return _dense(array if end - begin == len(array) else array[begin:end], self._dtype)
        return self._packing.take(array, self._tokens(begin, end), self._dtype)

    def _arguments(self, x, begin, end):
        """What native code needs to know of some steps, up to the input; x are their tokens."""
        tokens, N = self._tokens(begin, end), self._shape[1]
        rows = offset = None
        if self._packing is not None:
            rows = self._packing.rows[begin:end]
            offset = self._packing.offset[begin:end] - self._packing.offset[begin]
        resets = None if self._resets is None else self._resets[tokens]
        ids = None if self._ids is None else self._ids[tokens]
        return self._cell, (end - begin, N, rows, offset, resets, self._reverse), self._weights, x, ids

    def _keepsakes(self, L):
        """Arrays for what the backward pass needs of L tokens: gates, c, m."""
        H, G, dtype = self._shape[3], self._cell[1], self._dtype
        return (
            None if self.kind == "rnn" else _empty((L, G * H), dtype),
            _empty((L, H), dtype) if self.kind == "lstm" else None,
            _empty((L, H), dtype) if self._reset_form == _RESET_AFTER else None,
        )

    def __repr__(self):
        T, N, D, H = self._shape
        return f"<{self.kind} cache: T={T} N={N} D={D} H={H} {self._dtype}>"


# ``Cache._kept``: x, h0, c0, gates, c, m, h of all tokens, in the order in which native code takes them.
_GATES, _C, _H = 3, 4, 6
_RESET_BEFORE, _RESET_AFTER = _engine.FORMS["reset_before"], _engine.FORMS["reset_after"]


# ---- memory ---------------------------------------------------------------------------------------------------------


def _empty(shape, dtype):
    """np.empty, from memory that goes round where the array is large: see _engine.Block."""
    size = math.prod(shape) * dtype.itemsize
    if size < 1 << 16:  # the allocator keeps small ones itself
        return np.empty(shape, dtype)
    return np.frombuffer(_engine.Block(size), dtype, math.prod(shape)).reshape(shape)


def _zeros(shape, dtype):
    array = _empty(shape, dtype)
    array.fill(0)
    return array


# ---- the two native calls -----------------------------------------------------------------------------------------

# An input that must be copied for native code is copied so many tokens at a time where nothing is kept.
_PIECE_TOKENS = 4096


def _cut(steps, count, reverse):
    """Steps in ``count`` nearly equal segments, in order of computation."""
    bounds = [steps * k // count for k in range(count + 1)]
    segments = list(pairwise(bounds))
    return segments[::-1] if reverse else segments


class _Inference:
    """A forward call that keeps nothing and whose arguments fit as they are: in two microseconds to the native call."""

    __slots__ = ("c_n", "h", "h_n", "job")

    def __init__(self, kind, cell, x, Wx, Wh, b, h0, c0, bhn, peephole, reverse):
        T, N, _ = x.shape
        H, dtype = len(Wh), x.dtype
        self.h, self.h_n = _empty((T, N, H), dtype), np.empty((N, H), dtype)
        self.c_n = np.empty((N, H), dtype) if kind == "lstm" else None
        if bhn is None and kind == "gru" and cell[3] == _RESET_AFTER:
            bhn = np.zeros(H, dtype)
        batch, weights = (T, N, None, None, None, reverse), (Wx, Wh, b, bhn, peephole)
        self.job = (cell, batch, weights, x, None, h0, c0, None, None, None, self.h, self.h_n, self.c_n)

    @property
    def kind(self):
        """Calls of one kind make the same native calls: they can run side by side."""
        return type(self), self.h.dtype

    def jobs(self):
        return ((_engine.forward, self.job),)

    def result(self):
        return self.h, self.h_n if self.c_n is None else (self.h_n, self.c_n), None


def _forward(kind, cell, x, Wx, Wh, b, h0, c0, bhn, peephole, lengths, resets, reverse, training, checkpoint):
    plain = lengths is None and resets is None and _engine.fits(cell[1], x, Wx, Wh, b, h0, c0, bhn, peephole)
    if plain and not training and checkpoint is None and x.ndim == 3 and x.size and b.size:
        return _Inference(kind, cell, x, Wx, Wh, b, h0, c0, bhn, peephole, bool(reverse))
    return _Forward(
        *(kind, cell, x, Wx, Wh, b, h0, c0, bhn, peephole, lengths, resets, reverse, training, checkpoint, plain)
    )


class _Forward:
    """One forward call: cleans its arguments, says what native code has to do, gives the results."""

    def __init__(
        self,
        kind,
        cell,
        x,
        Wx,
        Wh,
        b,
        h0,
        c0,
        bhn,
        peephole,
        lengths,
        resets,
        reverse,
        training,
        checkpoint,
        plain,
    ):
        G, packing, ids = cell[1], None, None
        if isinstance(x, PackedTokens):
            if lengths is not None or resets is not None:
                raise ValueError("lengths and resets do not go together with PackedTokens")
            packing = _Packing.of(x)
        if plain:
            (T, N), (D, H), dtype = x.shape[:2], (len(Wx), len(Wh)), Wx.dtype
            if x.ndim == 2:
                x, ids = None, clean_ids(x, D).reshape(-1)
            if training:
                x, Wx, Wh, b, bhn, peephole = (
                    None if array is None else array.view() for array in (x, Wx, Wh, b, bhn, peephole)
                )
        else:
            if packing is not None:
                x, T, N = as_real("x", x.tokens).view(), len(packing.rows), int(packing.rows.max(initial=0))
            else:
                x, ids = _clean_input(x)
                T, N = (ids if x is None else x).shape[:2]
            arrays, dtype, (D, H) = _clean(G, N, x, Wx, Wh, b, h0, c0, bhn, peephole)
            if lengths is not None:
                lengths = clean_lengths(lengths, T, N)
                if (lengths != T).any():
                    packing = _Scattering.of(lengths, N)
            if resets is not None:
                resets = _clean_resets(resets, T, N)
            if resets is not None:
                resets = np.ascontiguousarray(resets if packing is None else packing.pack(resets))
                resets = resets.reshape(-1).view(np.int8)
            if ids is not None:
                ids = clean_ids(ids if packing is None else packing.pack(ids), D).reshape(-1)
            h0, c0 = arrays.get("h0"), arrays.get("c0")
            Wx, Wh, b = _dense_weights(*(arrays[name] for name in ("Wx", "Wh", "b")), ids, dtype)
            bhn, peephole = (_dense(arrays[name], dtype) if name in arrays else None for name in ("bhn", "peephole"))
        if bhn is None and kind == "gru" and cell[3] == _RESET_AFTER:
            bhn = np.zeros(H, dtype)

        self.training, self.packing, self.dtype = training, packing, dtype
        steps = T if packing is None else len(packing.rows)
        tokens = T * N if packing is None else packing.count
        self.empty = not tokens * H
        count = 1
        if checkpoint is not None:
            count = checkpoint_segments(checkpoint, steps)
        elif not training and ids is None and (packing is not None or not _is_dense(x, dtype)):
            count = max(1, -(-tokens // _PIECE_TOKENS))
        weights = Wx, Wh, b, bhn, peephole
        segments = [(0, steps)] if count == 1 else _cut(steps, min(count, max(steps, 1)), reverse)
        self.cache = Cache(kind, cell, (T, N, D, H), dtype, packing, resets, bool(reverse), x, ids, weights, segments)
        self.h0 = self.initial(h0)
        self.c0 = self.initial(c0) if kind == "lstm" else None
        self.h_n, self.c_n = self.h0.copy(), None if self.c0 is None else self.c0.copy()
        self.h = _empty((T, N, H), dtype) if packing is None else _zeros(packing.shape(T, N, H), dtype)

    @property
    def kind(self):
        return type(self), self.dtype, len(self.cache._segments), self.empty

    def initial(self, state):
        """A copy: callers carry the state on in place."""
        if state is None:
            return np.zeros((self.cache._shape[1], self.cache._shape[3]), self.dtype)
        return np.array(state if self.packing is None else self.packing.sort(state), self.dtype, order="C")

    def jobs(self):
        """Pairs of a native function and its arguments; the results are there when the last one is done."""
        cache, packing = self.cache, self.packing
        H = cache._shape[3]
        checkpointed = self.training and len(cache._segments) > 1
        if checkpointed:
            cache._states = []
        keeps = self.training and not checkpointed
        for begin, end in cache._segments:
            h0, c0 = self.h0, self.c0
            if len(cache._segments) > 1:
                # What the segment before this one left.
                h0, c0 = self.h_n.copy(), None if c0 is None else self.c_n.copy()
            if checkpointed:
                cache._states.append((h0, c0))
            x = cache._piece(cache._x, begin, end)
            tokens = cache._tokens(begin, end)
            L = tokens.stop - tokens.start
            # What the cache keeps is its own: the caller may write into the result.
            h = _empty((L, H), self.dtype) if keeps or packing is not None else self.h[begin:end]
            kept = cache._keepsakes(L) if keeps else (None, None, None)
            if not self.empty:
                yield (
                    _engine.forward,
                    (*cache._arguments(x, begin, end), h0, c0, *kept, h, self.h_n, self.c_n),
                )
            if keeps:
                cache._x, cache._kept = None, (x, h0, c0, *kept, h)
            if packing is not None:
                packing.put(self.h, tokens, h)
            elif keeps:
                self.h.reshape(L, H)[...] = h

    def result(self):
        h_n, c_n = self.h_n, self.c_n
        if self.packing is not None:
            h_n, c_n = self.packing.unsort(h_n), None if c_n is None else self.packing.unsort(c_n)
        return self.h, h_n if c_n is None else (h_n, c_n), self.cache if self.training else None


def checkpoint_segments(checkpoint, steps):
    """-> number of segments, at most one a step."""
    if checkpoint is True:
        return max(1, math.isqrt(steps))
    if checkpoint is False:
        raise TypeError("checkpoint must be None, True or a number of segments; got False")
    return max(1, min(checks.integer("checkpoint", checkpoint, least=1), steps))


def _clean(G, N, x, Wx, Wh, b, h0, c0, bhn, peephole):
    """x (..., D), or None where there are ids -> dict of the other arrays that are there, dtype, (D, H)."""
    arrays = {"Wx": as_real("Wx", Wx), "Wh": as_real("Wh", Wh), "b": as_real("b", b)}
    optional = {"h0": h0, "c0": c0, "bhn": bhn, "peephole": peephole}
    arrays |= {name: as_real(name, value) for name, value in optional.items() if value is not None}

    blocks = f"{G}H" if G > 1 else "H"
    Wx = arrays["Wx"]
    if Wx.ndim != 2 or Wx.shape[1] % G or (x is not None and Wx.shape[0] != x.shape[-1]):
        of_x = "" if x is None else f" with D = {x.shape[-1]} as in x"
        raise ValueError(f"Wx must be (D, {blocks}){of_x}; got {Wx.shape}")
    D, H = Wx.shape[0], Wx.shape[1] // G
    _check_shape("Wh", arrays["Wh"], f"(H, {blocks})", (H, G * H))
    _check_shape("b", arrays["b"], f"({blocks},)", (G * H,))
    for name, letters, wanted in (
        ("h0", "(N, H)", (N, H)),
        ("c0", "(N, H)", (N, H)),
        ("bhn", "(H,)", (H,)),
        ("peephole", "(3, H)", (3, H)),
    ):
        if name in arrays:
            _check_shape(name, arrays[name], letters, wanted)
    return arrays, _working_dtype(*arrays.values(), *(() if x is None else (x,))), (D, H)


def _clean_cotangent(name, value, letters, wanted, dtype):
    if value is None:
        return None
    array = as_real(name, value)
    _check_shape(name, array, letters, wanted)
    return array.astype(dtype, copy=False)


class _Backward:
    """One backward call, as _Forward."""

    def __init__(self, kind, cache, dh, dh_n, dc_n=None):
        if not isinstance(cache, Cache) or cache.kind != kind:
            raise TypeError(f"cache must come from {kind}_forward with training=True; got {cache!r}")
        if cache._kept is None and cache._states is None:
            raise ValueError("cache is empty: it has let go of what it kept")
        T, N, _, H = cache._shape
        dtype, packing = cache._dtype, cache._packing
        self.cache = cache
        shape = (T, N, H) if packing is None else packing.shape(T, N, H)
        self.dh = _clean_cotangent("dh", dh, "(T, N, H)" if len(shape) == 3 else "(L, H)", shape, dtype)
        self.dh0 = self.carried("dh_n", dh_n)
        self.dc0 = self.carried("dc_n", dc_n) if kind == "lstm" else None
        self.empty = not H * (T * N if packing is None else packing.count)
        self.needs_dx = cache._ids is None
        self.dx = self.dweights = None

    def add_into(self, arrays):
        """Add the gradients of the weights to these arrays, by name, where native code can; -> whether it can.

        ValueError if one is of another shape: then the cache is not of the layer that they belong to.
        """
        weights = dict(zip(("dWx", "dWh", "db", "dbhn", "dpeephole"), self.cache._weights, strict=True))
        for name, array in arrays.items():
            wanted = None if weights[name] is None else weights[name].shape
            if array.shape != wanted:
                raise ValueError(f"{name} must be {wanted} as the cache says; the gradient to add to is {array.shape}")
        if any(weight is not None and name not in arrays for name, weight in weights.items()):
            return False
        for name, array in arrays.items():
            by_columns = name == "dWh" or (name == "dWx" and self.cache._ids is None)
            is_dense = _is_dense_matrix if by_columns else _is_dense
            if not _takes(array, array.shape, self.cache._dtype, is_dense):
                return False
        self.dweights = tuple(map(arrays.get, weights))
        return True

    def fresh(self):
        # Written as a whole by the first native call, if there is one.
        make = _zeros if self.empty else _empty
        Wx, Wh, *vectors = self.cache._weights
        return (
            _like(make if self.cache._ids is None else _zeros, Wx),
            _like(make, Wh),
            *(None if vector is None else np.zeros_like(vector) for vector in vectors),
        )

    @property
    def kind(self):
        return type(self), self.cache._dtype, len(self.cache._segments), self.cache._kept is None, self.empty

    def carried(self, name, d_n):
        _, N, _, H = self.cache._shape
        d_n = _clean_cotangent(name, d_n, "(N, H)", (N, H), self.cache._dtype)
        if d_n is None:
            return np.zeros((N, H), self.cache._dtype)
        return np.array(d_n if self.cache._packing is None else self.cache._packing.sort(d_n), order="C")

    def jobs(self):
        cache, packing, dtype = self.cache, self.cache._packing, self.cache._dtype
        T, N, D, H = cache._shape
        adds = self.dweights is not None
        if not adds:
            self.dweights = self.fresh()
        if self.needs_dx:
            shape = (T, N, D) if packing is None else packing.shape(T, N, D)
            self.dx = (_empty if packing is None and not self.empty else _zeros)(shape, dtype)
        if self.empty:
            return
        for index in reversed(range(len(cache._segments))):
            begin, end = cache._segments[index]
            tokens = cache._tokens(begin, end)
            L = tokens.stop - tokens.start
            kept = cache._kept
            if kept is None:
                h0, c0 = cache._states[index]
                x = cache._piece(cache._x, begin, end)
                kept = (x, h0, c0, *cache._keepsakes(L), _empty((L, H), dtype))
                final = h0.copy(), None if c0 is None else c0.copy()
                yield _engine.forward, (*cache._arguments(x, begin, end), *kept[1:], *final)
            dx = self.dx
            if dx is not None:
                dx = _empty((L, D), dtype) if packing is not None else dx[begin:end]
            yield (
                _engine.backward,
                (
                    *cache._arguments(kept[0], begin, end),
                    *kept[1:],
                    cache._piece(self.dh, begin, end),
                    _empty((L, cache._cell[1] * H), dtype),  # dgates
                    _empty((L, H), dtype) if cache._reset_form == _RESET_AFTER else None,  # dm
                    _empty((L, H), dtype) if cache._reset_form == _RESET_BEFORE else None,  # r h'
                    _empty((L, H), dtype) if cache._irregular else None,  # h before each step
                    _empty((L, H), dtype) if cache._irregular and self.dweights[4] is not None else None,  # c before
                    dx,
                    adds,
                    *self.dweights,
                    self.dh0,
                    self.dc0,
                ),
            )
            adds = True
            if packing is not None and dx is not None:
                packing.put(self.dx, tokens, dx)

    def result(self):
        packing, dh0, dc0 = self.cache._packing, self.dh0, self.dc0
        if packing is not None:
            dh0, dc0 = packing.unsort(dh0), None if dc0 is None else packing.unsort(dc0)
        dWx, dWh, db, dbhn, dpeephole = self.dweights
        if self.cache.kind == "lstm":
            return LSTMGradients(self.dx, dWx, dWh, db, dh0, dc0, dpeephole)
        if self.cache.kind == "gru":
            return GRUGradients(self.dx, dWx, dWh, db, dh0, dbhn)
        return RNNGradients(self.dx, dWx, dWh, db, dh0)


def _native(prepare):
    """The public function that runs the call which ``prepare`` describes."""

    @wraps(prepare)
    def function(*args, **kwargs):
        call = prepare(*args, **kwargs)
        for native, arguments in call.jobs():
            native(arguments)
        return call.result()

    return function


def side_by_side(function, arguments, into=None, needs_dx=True):
    """Call one of the public functions with each of one or two dicts of arguments, at the same time where that can be.

    ``into``: for each backward call the arrays that the gradients of its weights are added to, by name. ``needs_dx``:
    whether backward calls compute ``dx``; it is None otherwise.
    -> list of the results
    """
    calls = [function.__wrapped__(**keywords) for keywords in arguments]
    for call in calls if not needs_dx else ():
        call.needs_dx = False
    added = [call.add_into(arrays) for call, arrays in zip(calls, into or (), strict=False)]
    if len(calls) == 2 and calls[0].kind == calls[1].kind:
        for jobs in zip_longest(*(call.jobs() for call in calls)):
            jobs[0][0](*(arguments for _, arguments in jobs))
    else:
        for call in calls:
            for native, job in call.jobs():
                native(job)
    results = [call.result() for call in calls]
    for result, arrays, done in zip(results, into or (), added, strict=False):
        if not done:
            for name, array in arrays.items():
                array += getattr(result, name)
    return results


# ---- other native functions ---------------------------------------------------------------------------------------


def affine_forward(x, W, b):
    """x (L, D) W (D, K) + b (K,) -> (L, K)"""
    x, W, b, dtype = _clean_affine(x, W, b)
    (L, D), K = x.shape, W.shape[1]
    if 0 in (L, D, K):
        return np.zeros((L, K), dtype) + b
    y = _empty((L, K), dtype)
    _engine.affine(x, W, b, y, None, None, None, None, None, None)
    return y


def affine_backward(x, W, dy, dW, db):
    """-> dx (L, D) of x (L, D), W (D, K), dy (L, K); adds to dW (D, K) and db (K,) in place."""
    x, W, _, dtype = _clean_affine(x, W, None)
    _check_shape("dy", dy, "(L, K)", (len(x), W.shape[1]))
    _check_shape("dW", dW, "(D, K)", W.shape)
    _check_shape("db", db, "(K,)", W.shape[1:])
    if 0 in (*x.shape, W.shape[1]):
        return np.zeros(x.shape, dtype)
    dx = _empty(x.shape, dtype)
    gradients = _room_for_gradients(dW, db, W.shape, dtype)
    _engine.affine(x, W, None, _dense(dy, dtype), None, None, None, dx, *gradients)
    _add(dW, db, gradients)
    return dx


def softmax_head(x, W, b, targets, weights, dW=None, db=None):
    """Cross-entropy of softmax(x W + b), and its gradients, without an array of all logits.

    x (L, D), W (D, K), b (K,); targets (L,) int64 in [0, K); weights (L,) float64 scale the gradients only, and where
    one is 0 the row counts for nothing; both dense. -> losses (L,) float64, dx (L, D); adds to dW and db in place.
    Without dW and db there are no gradients: dx is None.
    """
    x, W, b, dtype = _clean_affine(x, W, b)
    if dW is not None:
        _check_shape("dW", dW, "(D, K)", W.shape)
        _check_shape("db", db, "(K,)", W.shape[1:])
    losses, dx = np.zeros(len(x)), None if dW is None else _empty(x.shape, dtype)
    if len(x) == 0:
        return losses, dx
    gradients = (None, None) if dW is None else _room_for_gradients(dW, db, W.shape, dtype)
    _engine.affine(x, W, b, None, targets, weights, losses, dx, *gradients)
    _add(dW, db, gradients)
    return losses, dx


def _clean_affine(x, W, b):
    """-> x, W and b, dense (W in C or Fortran order) and of one dtype, and that; b may be None."""
    arrays = [as_real(name, a) for name, a in (("x", x), ("W", W), ("b", b)) if a is not None]
    x, W = arrays[:2]
    _check_shape("W", W, "(D, K)", (x.shape[1], W.shape[-1]))
    if b is not None:
        _check_shape("b", arrays[2], "(K,)", W.shape[1:])
    dtype = _working_dtype(*arrays)
    b = None if b is None else _dense(arrays[2], dtype)
    return _dense(x, dtype), _dense_matrix(W, dtype), b, dtype


def _room_for_gradients(dW, db, shape, dtype):
    """Arrays that native code adds gradients to: dW and db themselves, or others that :func:`_add` adds to them."""
    if _takes(dW, shape, dtype, _is_dense_matrix) and _takes(db, shape[1:], dtype):
        return dW, db
    return _zeros(shape, dtype), np.zeros(shape[1:], dtype)


def _add(dW, db, gradients):
    if gradients[0] is not dW:
        dW += gradients[0]
        db += gradients[1]


def time_first(array):
    """(n, m, T) -> (T, m, n), C-contiguous, in the array's dtype, float32 or float64."""
    if not _is_dense(array, array.dtype) or not array.dtype.isnative:
        return np.array(array.transpose(2, 1, 0), array.dtype.newbyteorder("="), order="C")
    result = _empty(array.shape[::-1], array.dtype)
    _engine.time_first(array, result)
    return result


def square_sum(array):
    """Sum of the squares of a float32 or float64 array, in float64."""
    return _engine.square_sum(_dense(array, array.dtype.newbyteorder("=")).reshape(-1)) if array.size else 0.0


def optimizer_step(rule, constants, g, p, *state):
    """One step of a rule of :data:`_engine.RULES` for a parameter p and its state, in place.

    g is anything of p's shape; p and the state are float32 or float64, of one shape and dtype. constants: rate, scale
    of g, decay and share of g in the first state, decay and share of g**2 in the second, epsilon.
    """
    if not p.size:
        return
    dtype = p.dtype.newbyteorder("=")
    scale = constants[1]
    if scale < np.finfo(dtype).tiny:
        # It would lose digits, or become zero.
        g, constants = np.asarray(g, np.float64) * scale, (constants[0], 1.0, *constants[2:])
    own = [_dense(array, dtype).reshape(-1) for array in (p, *state)]
    g = _dense(g, dtype).reshape(-1)
    if np.may_share_memory(g, own[0]):
        g = g.copy()
    m = own[1] if rule in ("momentum", "adam") else None
    v = own[-1] if rule in ("squares", "adam") else None
    _engine.optimizer_step(_engine.RULES[rule], constants, g, own[0], m, v)
    for array, dense in zip((p, *state), own, strict=True):
        if not _is_dense(array, dtype):
            array[...] = dense.reshape(array.shape)


def scatter_add(ids, rows, table):
    """table (V, D) += rows (L, D) at ids (L,), where an id may come many times; in place."""
    ids = clean_ids(ids, len(table), "ids", "V")
    _check_shape("rows", rows, "(L, D)", (len(ids), table.shape[1]))
    if rows.size:
        _engine.scatter_add(ids, _dense(rows, table.dtype), table)


def softmax_cross_entropy_rows(logits, targets, weights):
    """Losses (...) float64 of logits (..., V), which become ``weights`` times the gradients in place.

    All are C-contiguous; targets int64 in [0, V) and apart from logits, weights float64, both (...). Where a weight
    is 0 nothing is read and all is 0.
    """
    losses = np.zeros(targets.size)
    if logits.size:
        rows = logits.reshape(targets.size, logits.shape[-1])
        _engine.softmax_cross_entropy(rows, targets.reshape(-1), weights.reshape(-1), losses)
    return losses.reshape(targets.shape)


def _check_stack(cells, D, H):
    """Shapes of a stack of cells (cell, Wx, Wh, b, bhn, peephole) that takes D values and has states of H."""
    for (_, G, *_), Wx, Wh, b, bhn, peephole in cells:
        _check_shape("Wx", Wx, f"(D, {G}H)", (D, G * H))
        _check_shape("Wh", Wh, f"(H, {G}H)", (H, G * H))
        _check_shape("b", b, f"({G}H,)", (G * H,))
        if bhn is not None:
            _check_shape("bhn", bhn, "(H,)", (H,))
        if peephole is not None:
            _check_shape("peephole", peephole, "(3, H)", (3, H))
        D = H


def make_stream(cells, D, dtype, h, c):
    """A native stream over copies of ``cells`` that keeps its state in h, c (layers, N, H); see layers.Stream."""
    _check_stack(cells, D, h.shape[2])
    cells = [
        (cell, *(None if a is None else np.array(a, dtype, order="C") for a in weights)) for cell, *weights in cells
    ]
    return _engine.Stream(cells, h.shape[1], h, c)


def sample_ids(cells, embedding, Wy, by, h, c, first, uniforms, *, temperature, top_k, top_p, banned, stop):
    """Feed a stack of cells its own draws: one id for each value of ``uniforms``, fewer if ``stop`` is drawn.

    Parameters
    ----------
    cells : list of (cell, Wx, Wh, b, bhn, peephole)
        Bottom first; ``cell`` from :func:`rnn_cell`, :func:`gru_cell` or :func:`lstm_cell`.
    embedding : array (V, E) or None
        Rows that ids stand for; None feeds the ids to the first cell.
    Wy, by : arrays (H, V), (V,)
        Output layer.
    h, c : arrays (layers, H), dense, float32 or float64
        State, in whose dtype all is computed; updated in place to that after the last draw was fed back, but for the
        last one drawn.
    first : int
        Id that is fed first.
    uniforms : float64 array (n,)
        One number in [0, 1) a draw.
    temperature : float
        Divides the logits; 0 takes the largest.
    top_k : int
        Draw among the k likeliest; 0 for all.
    top_p : float
        Draw among the likeliest that together reach this probability; 1 for all.
    banned : sequence of int
        Ids that are never drawn.
    stop : int
        Id that ends the sequence and is kept as its last, -1 for none.

    Returns
    -------
    ids : int64 array

    Raises
    ------
    ValueError
        A logit is NaN or infinite.
    """
    H, V = Wy.shape
    _check_stack(cells, V if embedding is None else embedding.shape[1], H)
    _check_shape("by", by, "(V,)", (V,))
    if embedding is not None:
        _check_shape("embedding", embedding, "(V, E)", (V, embedding.shape[1]))
    for name, state in (("h", h), ("c", c)):
        if state is not None:
            _check_shape(name, state, "(layers, H)", (len(cells), H))
    if not 0 <= first < V:
        raise ValueError(f"first must lie in [0, V) = [0, {V}); got {first}")
    ids = np.empty(len(uniforms), np.int64)
    flags = np.zeros(V, np.int8)
    flags[banned] = 1
    dtype = h.dtype
    cells = [(cell, *(None if a is None else _dense(a, dtype) for a in weights)) for cell, *weights in cells]
    embedding, Wy, by = (None if a is None else _dense(a, dtype) for a in (embedding, Wy, by))
    stack = _engine.Stream(cells, 1, *(None if state is None else state[:, None] for state in (h, c)))
    drawn = _engine.sample["float" if Wy.dtype == _FLOAT32 else "double"](
        stack,
        embedding,
        Wy,
        by,
        first,
        uniforms,
        temperature,
        top_k,
        top_p,
        flags,
        stop,
        ids,
        np.empty(H + V, Wy.dtype),
    )
    if drawn < 0:
        raise ValueError("the output of the model is not finite: it cannot be sampled from")
    return ids[:drawn]


# ---- public -------------------------------------------------------------------------------------------------------

_COMMON = """
    x : array (T, N, D), or integer array (T, N)
        Inputs; integers are ids in [0, D) and mean one-hot rows, at the cost of a row gather.
    Wx : array (D, {G}H)
        Input weights.
    Wh : array (H, {G}H)
        Recurrent weights.
    b : array ({G}H,)
        Bias.
    h0 : array (N, H), optional
        Initial state; zeros if not given."""

_OPTIONS = """
    lengths : integer array (N,), optional
        Valid steps of each row, in any order, 0..T. Later steps are not computed: ``h`` is 0 there, and what stands
        in ``x`` there changes nothing.
    resets : bool array (T, N), optional
        The state is zeroed before these steps.
    reverse : bool, default False
        Run from the last valid step to the first; outputs stay at their own time index.
    training : bool, default True
        Keep what the backward pass needs. With False nothing is kept and ``cache`` is None.
    checkpoint : True or int, optional
        Keep only the states at the start of so many segments of the sequence, and let the backward pass compute each
        segment again (Chen et al. 2016, "Training deep nets with sublinear memory cost"). True takes the square root
        of T: memory grows with it, time by about a third, and all results are the same bits."""

_RAISES = """
    Raises
    ------
    ValueError
        A shape, an option, an id or a length is wrong; the message says what was wanted and what came.
    TypeError
        An array is not of a floating dtype (ids and lengths: not integer; resets: not bool).
"""


def _document(function, **values):
    """Put the parts that all cells share into a docstring."""
    text = function.__doc__
    for name, part in (("COMMON", _COMMON), ("OPTIONS", _OPTIONS), ("RAISES", _RAISES)):
        text = text.replace(f"\n    {name}\n", f"{part}\n")
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    function.__doc__ = text


@_native
def rnn_forward(
    x,
    Wx,
    Wh,
    b,
    h0=None,
    *,
    activation="tanh",
    lengths=None,
    resets=None,
    reverse=False,
    training=True,
    checkpoint=None,
):
    """Simple recurrent network over a sequence: ``h = act(x Wx + h' Wh + b)``.

    Equations, in the notation of the course too: :func:`rnncore.reference.rnn_forward`. Dtype: all float32 or all
    float64; mixed arguments promote as in NumPy, float16 is computed in float32.

    Parameters
    ----------
    COMMON
    activation : {"tanh", "relu", "identity"}
    OPTIONS

    Returns
    -------
    h : ndarray (T, N, H)
        State after each step.
    h_n : ndarray (N, H)
        State after the last valid step of each row; ``h0`` where the length is 0.
    cache : Cache or None
        For :func:`rnn_backward`.

    RAISES

    Examples
    --------
    >>> import numpy as np, rnncore as rc
    >>> rng = np.random.default_rng(0)
    >>> x, Wx, Wh, b = (rng.normal(size=s) for s in [(7, 2, 3), (3, 5), (5, 5), (5,)])
    >>> h, h_n, cache = rc.rnn_forward(x, Wx, Wh, b)
    >>> h.shape, bool((h[-1] == h_n).all())
    ((7, 2, 5), True)
    """
    cell = rnn_cell(activation)
    options = lengths, resets, reverse, training, checkpoint
    return _forward("rnn", cell, x, Wx, Wh, b, h0, None, None, None, *options)


@_native
def rnn_backward(dh, cache, dh_n=None):
    """Gradients of :func:`rnn_forward` by back-propagation through time.

    Parameters
    ----------
    dh : array (T, N, H) or None
        Gradient of the loss with respect to ``h``; None is zero. Computed in the dtype of the forward pass.
    cache : Cache
        From :func:`rnn_forward`; not changed, so it can be used again.
    dh_n : array (N, H), optional
        Gradient with respect to ``h_n``.

    Returns
    -------
    RNNGradients
        dx (T, N, D), or None for ids; dWx (D, H); dWh (H, H); db (H,); dh0 (N, H).

    Raises
    ------
    ValueError, TypeError
        As :func:`rnn_forward`; TypeError for a cache of another cell.

    Examples
    --------
    >>> import numpy as np, rnncore as rc
    >>> h, h_n, cache = rc.rnn_forward(np.ones((4, 1, 2)), np.ones((2, 3)), np.eye(3), np.zeros(3))
    >>> rc.rnn_backward(np.ones_like(h), cache).dWh.shape
    (3, 3)
    """
    return _Backward("rnn", cache, dh, dh_n)


@_native
def gru_forward(
    x,
    Wx,
    Wh,
    b,
    h0=None,
    *,
    form="reset_before",
    update="new",
    bhn=None,
    gate_order="rzn",
    lengths=None,
    resets=None,
    reverse=False,
    training=True,
    checkpoint=None,
):
    """Gated recurrent unit over a sequence; gate blocks r z n (simplified: z n).

    ``r, z = sigmoid(x Wx + h' Wh + b)``, then the candidate

    * "reset_before" (Cho et al. 2014, the course): ``n = tanh(x Wxn + (r h') Whn + bn)``
    * "reset_after" (PyTorch, Keras, cuDNN): ``n = tanh(x Wxn + bn + r (h' Whn + bhn))``
    * "simplified" (the course; G = 2): ``n = tanh(x Wxn + h' Whn + bn)``

    and ``h = z n + (1-z) h'`` for update "new", ``h = (1-z) n + z h'`` for "old". Equations, in the notation of the
    course too: :func:`rnncore.reference.gru_forward`. Dtypes as in :func:`rnn_forward`.

    Parameters
    ----------
    COMMON
    form : {"reset_before", "reset_after", "simplified"}
    update : {"new", "old"}
        What z weighs.
    bhn : array (H,), optional
        Recurrent bias of the candidate, "reset_after" only; zeros if not given.
    gate_order : {"rzn", "zrn"}
        Order of the gate blocks in the weights, in ``cache.gates`` and in the gradients; without r where there is none.
        The weights are read as they lie.
    OPTIONS

    Returns
    -------
    h : ndarray (T, N, H)
        State after each step.
    h_n : ndarray (N, H)
        State after the last valid step of each row; ``h0`` where the length is 0.
    cache : Cache or None
        For :func:`gru_backward`.

    RAISES

    Examples
    --------
    >>> import numpy as np, rnncore as rc
    >>> rng = np.random.default_rng(0)
    >>> x, Wx, Wh, b = (rng.normal(size=s) for s in [(7, 2, 3), (3, 15), (5, 15), (15,)])
    >>> h, h_n, cache = rc.gru_forward(x, Wx, Wh, b, lengths=[7, 4])
    >>> h.shape, cache.gates.shape, bool((h[3, 1] == h_n[1]).all())
    ((7, 2, 5), (7, 2, 15), True)
    """
    cell = gru_cell(form, update, gate_order)
    if bhn is not None and form != "reset_after":
        raise ValueError(f"bhn belongs to form='reset_after'; got form={form!r}")
    options = lengths, resets, reverse, training, checkpoint
    return _forward("gru", cell, x, Wx, Wh, b, h0, None, bhn, None, *options)


@_native
def gru_backward(dh, cache, dh_n=None):
    """Gradients of :func:`gru_forward` by back-propagation through time.

    Parameters
    ----------
    dh : array (T, N, H) or None
        Gradient of the loss with respect to ``h``; None is zero. Computed in the dtype of the forward pass.
    cache : Cache
        From :func:`gru_forward`; not changed, so it can be used again.
    dh_n : array (N, H), optional
        Gradient with respect to ``h_n``.

    Returns
    -------
    GRUGradients
        dx (T, N, D), or None for ids; dWx (D, GH); dWh (H, GH); db (GH,); dh0 (N, H); dbhn (H,), or None unless
        the form is "reset_after".

    Raises
    ------
    ValueError, TypeError
        As :func:`gru_forward`; TypeError for a cache of another cell.

    Examples
    --------
    >>> import numpy as np, rnncore as rc
    >>> h, h_n, cache = rc.gru_forward(np.ones((4, 1, 2)), np.ones((2, 9)), np.ones((3, 9)), np.zeros(9))
    >>> rc.gru_backward(np.ones_like(h), cache).dWx.shape
    (2, 9)
    """
    return _Backward("gru", cache, dh, dh_n)


@_native
def lstm_forward(
    x,
    Wx,
    Wh,
    b,
    h0=None,
    c0=None,
    *,
    peephole=None,
    peephole_output="current",
    output_activation="tanh",
    gate_order="ifgo",
    lengths=None,
    resets=None,
    reverse=False,
    training=True,
    checkpoint=None,
):
    """Long short-term memory over a sequence; gate blocks i f g o.

    ``i, f, o = sigmoid(x Wx + h' Wh + b)``, ``g = tanh(.)``, ``c = f c' + i g``, ``h = o tanh(c)``. Equations, in the
    notation of the course too: :func:`rnncore.reference.lstm_forward`. Dtypes as in :func:`rnn_forward`.

    Parameters
    ----------
    COMMON
    c0 : array (N, H), optional
        Initial cell state; zeros if not given.
    peephole : array (3, H), optional
        Peephole weights, rows i f o: i and f see ``c'``.
    peephole_output : {"current", "previous"}
        Whether o sees ``c`` (Gers, ONNX) or ``c'`` (the course).
    output_activation : {"tanh", "identity"}
        ``h = o tanh(c)``, or the variant ``h = o c``.
    gate_order : str, default "ifgo"
        Order of the gate blocks in the weights, in ``cache.gates`` and in the gradients: these letters in any order, as
        "ifog" or "fgio". The weights are read as they lie.
    OPTIONS

    Returns
    -------
    h : ndarray (T, N, H)
        State after each step.
    (h_n, c_n) : ndarrays (N, H)
        States after the last valid step of each row; ``h0``, ``c0`` where the length is 0.
    cache : Cache or None
        For :func:`lstm_backward`.

    RAISES

    Examples
    --------
    >>> import numpy as np, rnncore as rc
    >>> rng = np.random.default_rng(0)
    >>> ids = rng.integers(27, size=(7, 2))
    >>> Wx, Wh, b = (rng.normal(size=s).astype("float32") for s in [(27, 20), (5, 20), (20,)])
    >>> h, (h_n, c_n), cache = rc.lstm_forward(ids, Wx, Wh, b)
    >>> h.shape, h.dtype, cache.c.shape
    ((7, 2, 5), dtype('float32'), (7, 2, 5))
    """
    cell = lstm_cell(peephole is not None, peephole_output, output_activation, gate_order)
    options = lengths, resets, reverse, training, checkpoint
    return _forward("lstm", cell, x, Wx, Wh, b, h0, c0, None, peephole, *options)


@_native
def lstm_backward(dh, cache, dh_n=None, dc_n=None):
    """Gradients of :func:`lstm_forward` by back-propagation through time.

    Parameters
    ----------
    dh : array (T, N, H) or None
        Gradient of the loss with respect to ``h``; None is zero. Computed in the dtype of the forward pass.
    cache : Cache
        From :func:`lstm_forward`; not changed, so it can be used again.
    dh_n, dc_n : array (N, H), optional
        Gradients with respect to ``h_n`` and ``c_n``.

    Returns
    -------
    LSTMGradients
        dx (T, N, D), or None for ids; dWx (D, 4H); dWh (H, 4H); db (4H,); dh0, dc0 (N, H); dpeephole (3, H), or
        None without peephole.

    Raises
    ------
    ValueError, TypeError
        As :func:`lstm_forward`; TypeError for a cache of another cell.

    Examples
    --------
    >>> import numpy as np, rnncore as rc
    >>> h, state, cache = rc.lstm_forward(np.ones((4, 1, 2)), np.ones((2, 12)), np.ones((3, 12)), np.zeros(12))
    >>> rc.lstm_backward(np.ones_like(h), cache).dc0.shape
    (1, 3)
    """
    return _Backward("lstm", cache, dh, dh_n, dc_n)


_document(rnn_forward, G="")
_document(gru_forward, G="G")
_document(lstm_forward, G="4")
