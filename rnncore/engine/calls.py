"""Forward and backward calls: clean the arguments, allocate the results, make the native calls.

A call is prepared, run and asked for its result. Its ``jobs`` are pairs of a native function and a record: one, or
with checkpoints several. Two calls of one signature run side by side, each job of one with the same job of the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import _engine, checks
from .._types import Array
from .arrays import (
    add,
    as_cotangent,
    as_dense,
    as_dense_matrix,
    as_ids,
    as_input,
    as_lengths,
    as_resets,
    check_writable,
    clean_arguments,
    clean_for_packed,
    empty,
    first_of_shards,
    is_dense,
    is_dense_matrix,
    is_writable,
    matrix_like,
    zeros,
)
from .cache import Cache
from .cells import Cell, Variant
from .packing import PackedTokens, packing_of_lengths, unpack

# Where nothing is saved, an input that must be copied is copied about so many tokens at a time.
_PIECE_TOKENS = 4096

Job = tuple[Callable[..., None], Any]


# ---- forward ----------------------------------------------------------------------------------------------------


class _Inference:
    """A forward call that saves nothing and whose arguments need no conversion: two microseconds to the native call."""

    __slots__ = ("c_n", "h", "h_n", "record")

    def __init__(
        self,
        variant: Variant,
        x: Array,
        Wx: Array,
        Wh: Array | None,
        b: Array,
        h0: Array | None,
        c0: Any,
        bhn: Array | None,
        peephole: Any,
        reverse: bool,
        packed: _engine.Weights | None,
    ) -> None:
        T, N, _ = x.shape
        dtype, H = x.dtype, b.shape[0] // len(variant.gates)
        self.h, self.h_n = empty((T, N, H), dtype), np.empty((N, H), dtype)
        self.c_n = np.empty((N, H), dtype) if len(variant.cell.states) > 1 else None
        if bhn is None and variant.has_bhn:
            bhn = np.zeros(H, dtype)
        self.record = _engine.ForwardCall(
            variant.native,
            _engine.Weights(Wx, Wh, b, bhn, peephole) if packed is None else packed,
            _engine.Batch(T, N, None, None, None, reverse),
            x=x,
            h0=h0,
            c0=c0,
            h=self.h,
            h_n=self.h_n,
            c_n=self.c_n,
        )

    @property
    def signature(self) -> tuple[Any, ...]:
        return type(self), self.h.dtype

    def jobs(self) -> tuple[Job, ...]:
        return ((_engine.forward, self.record),)

    def result(self) -> tuple[Array, Any, None]:
        return self.h, self.h_n if self.c_n is None else (self.h_n, self.c_n), None


class _Forward:
    """Any forward call."""

    def __init__(
        self,
        variant: Variant,
        x: Any,
        weights: dict[str, Any],
        states: dict[str, Any],
        mask: Any,
        lengths: Any,
        resets: Any,
        reverse: Any,
        training: Any,
        checkpoint: Any,
        fits: bool,
        packed: _engine.Weights | None,
    ) -> None:
        ids = None
        packing: Any = None
        if isinstance(x, PackedTokens) and not (lengths is None and resets is None):
            raise ValueError("lengths and resets do not go together with PackedTokens")
        if fits:
            own = _engine.Weights(**weights)
            (T, N), dtype = x.shape[:2], weights["b"].dtype
            D, H = weights["Wx"].shape[0], weights["b"].shape[0] // len(variant.gates)
            if x.ndim == 2:
                ids = as_ids(x, D).reshape(-1)
                x = None
            x, own = None if x is None else x.view(), own.views()
            states = {name: None if state is None else state.view() for name, state in states.items()}
        else:
            if isinstance(x, PackedTokens):
                x, packing = unpack(x)
                T, N = len(packing.rows), int(packing.rows.max(initial=0))
            else:
                x, ids = as_input(x)
                T, N = (ids if x is None else x).shape[:2]  # type: ignore[union-attr]
            states |= {"recurrent_mask": mask}
            if packed is not None and weights["Wx"] is None:
                arrays, dtype, (D, H) = clean_for_packed(packed, N, x, states)
            else:
                arrays, dtype, (D, H) = clean_arguments(variant, N, x, weights, states)
            if lengths is not None:
                lengths = as_lengths(lengths, T, N)
                if (lengths != T).any():
                    packing = packing_of_lengths(lengths, N)
            if resets is not None:
                resets = as_resets(resets, T, N)
            if resets is not None:
                resets = np.ascontiguousarray(resets if packing is None else packing.pack(resets))
                resets = resets.reshape(-1).view(np.int8)
            if ids is not None:
                ids = as_ids(ids if packing is None else packing.pack(ids), D).reshape(-1)
            states = {name: arrays.get(name) for name in states}
            mask = states.pop("recurrent_mask")
            # Ids read rows of Wx, which must be in C order then.
            in_any_order = ("Wh",) if x is None else ("Wx", "Wh")
            weights = {
                name: (as_dense_matrix if name in in_any_order else as_dense)(arrays[name], dtype)
                for name in weights
                if name in arrays
            }
            own = _engine.Weights(**weights)
        if packed is not None and packed.b is not None and packed.b.dtype == dtype:
            own = packed
        if variant.has_bhn and own.bhn is None:
            own = _engine.Weights(**own.by_name(), bhn=np.zeros(H, dtype))

        self.training, self.packing, self.dtype = training, packing, dtype
        # First, so that a result too large for memory is refused before the segments of its steps are counted out.
        self.h = empty((T, N, H), dtype) if packing is None else zeros(packing.shape(T, N, H), dtype)
        steps = T if packing is None else len(packing.rows)
        tokens = T * N if packing is None else packing.count
        self.is_empty = not tokens * H
        count = 1
        if checkpoint is not None:
            count = checkpoint_segments(checkpoint, steps)
        elif not training and x is not None and (packing is not None or not is_dense(x, dtype)):
            count = max(1, -(-tokens // _PIECE_TOKENS))
        if self.is_empty:
            count = 1  # steps may be many all the same
        segments = [(0, steps)] if count == 1 else _cut(steps, min(count, max(steps, 1)), reverse)
        self.cache = Cache(variant, (T, N, D, H), dtype, packing, resets, bool(reverse), x, ids, own, segments)
        if mask is not None:
            self.cache._mask = self._rows(mask)
        self.h0 = self._initial(states["h0"])
        self.c0 = self._initial(states["c0"]) if len(variant.cell.states) > 1 else None
        self.h_n, self.c_n = self.h0.copy(), None if self.c0 is None else self.c0.copy()

    @property
    def signature(self) -> tuple[Any, ...]:
        return type(self), self.dtype, len(self.cache._segments), self.is_empty

    def _initial(self, state: Array | None) -> Array:
        """A state (N, H), a copy because callers carry the state on in place; zeros for None."""
        if state is None:
            return np.zeros((self.cache._shape[1], self.cache._shape[3]), self.dtype)
        return self._rows(state)

    def _rows(self, array: Array) -> Array:
        """A copy of an array (N, .), its rows as those of the packing."""
        return np.array(array if self.packing is None else self.packing.sort(array), self.dtype, order="C")

    def jobs(self) -> Iterator[Job]:
        cache, packing, variant = self.cache, self.packing, self.cache.variant
        H = cache._shape[3]
        checkpointed = self.training and len(cache._segments) > 1
        if checkpointed:
            cache._states = []
        saves = self.training and not checkpointed
        for begin, end in cache._segments:
            h0, c0 = self.h0, self.c0
            if len(cache._segments) > 1:
                # What the segment before this one left.
                h0, c0 = self.h_n.copy(), None if self.c_n is None else self.c_n.copy()
            if checkpointed:
                assert cache._states is not None
                cache._states.append((h0, c0))
            tokens = cache.tokens(begin, end)
            L = tokens.stop - tokens.start
            # What the cache saves is its own: the caller may write into the result.
            h = empty((L, H), self.dtype) if saves or packing is not None else self.h[begin:end]
            saved = _empty_tokens(variant.saved_blocks, L, H, self.dtype) if saves else {}
            record = cache.call(
                begin, end, x=cache.input_of(begin, end), h0=h0, c0=c0, h=h, h_n=self.h_n, c_n=self.c_n, **saved
            )
            if not self.is_empty:
                yield _engine.forward, record
            if saves:
                cache._x, cache._call = None, record
            if packing is not None:
                packing.put(self.h, tokens, h)
            elif saves:
                self.h.reshape(L, H)[...] = h

    def result(self) -> tuple[Array, Any, Cache | None]:
        h_n, c_n = self.h_n, self.c_n
        if self.packing is not None:
            h_n, c_n = self.packing.unsort(h_n), None if c_n is None else self.packing.unsort(c_n)
        return self.h, h_n if c_n is None else (h_n, c_n), self.cache if self.training else None


def prepare_forward(
    variant: Variant,
    x: Array,
    Wx: Any,
    Wh: Any = None,  # a cell may have no recurrent weights
    b: Any = None,
    h0: Array | None = None,
    c0: Array | None = None,
    bhn: Any = None,
    peephole: Any = None,
    lengths: ArrayLike | None = None,
    resets: Any = None,
    reverse: bool = False,
    training: bool = True,
    checkpoint: Any = None,
    recurrent_mask: Any = None,
    packed: _engine.Weights | None = None,
) -> _Inference | _Forward:
    """Check the arguments of a forward function and allocate its results.

    ``packed`` are the same weights as :func:`rnncore.engine.weights.pack_cell` returns them, for inference. Quantized
    ones are nowhere else: then ``Wx`` and ``Wh`` are None.
    """
    if not (isinstance(reverse, bool) and isinstance(training, bool)):
        reverse, training = checks.flag("reverse", reverse), checks.flag("training", training)
    if checkpoint is not None and not isinstance(checkpoint, bool):
        # Before the arrays are looked at, which what converts it may change.
        checkpoint = checks.integer("checkpoint", checkpoint, least=1)
    plain = lengths is None and resets is None and recurrent_mask is None
    fits = plain and _engine.fits(variant.native, x, Wx, Wh, b, h0, c0, bhn, peephole)
    if fits and not training and checkpoint is None and x.ndim == 3 and x.size and b.size:
        return _Inference(variant, x, Wx, Wh, b, h0, c0, bhn, peephole, bool(reverse), packed)
    weights = {"Wx": Wx, "Wh": Wh, "b": b, "bhn": bhn, "peephole": peephole}
    states, steps = {"h0": h0, "c0": c0}, (lengths, resets, reverse)
    return _Forward(variant, x, weights, states, recurrent_mask, *steps, training, checkpoint, fits, packed)


def checkpoint_segments(checkpoint: bool | int, steps: int) -> int:
    """Return the number of segments that ``checkpoint`` asks for, at most one a step."""
    if checkpoint is True:
        return max(1, math.isqrt(steps))
    if checkpoint is False:
        raise TypeError("checkpoint must be None, True or a number of segments; got False")
    return max(1, min(checks.integer("checkpoint", checkpoint, least=1), steps))


def _cut(steps: int, count: int, reverse: bool) -> list[tuple[int, int]]:
    """Cut the steps into ``count`` nearly equal segments, in order of computation."""
    segments = list(pairwise(steps * k // count for k in range(count + 1)))
    return segments[::-1] if reverse else segments


def _empty_tokens(blocks: tuple[tuple[str, int], ...], L: int, H: int, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Allocate arrays of tokens (L, blocks * H), by name."""
    return {name: empty((L, count * H), dtype) for name, count in blocks}


# ---- backward ---------------------------------------------------------------------------------------------------


class _Backward:
    """A backward call."""

    def __init__(self, cell: Cell, dh: Any, cache: Any, dh_n: Any = None, dc_n: Any = None) -> None:
        if not isinstance(cache, Cache) or cache.variant.cell is not cell:
            raise TypeError(f"cache must come from {cell.name}_forward with training=True; got {cache!r}")
        if cache._call is None and cache._states is None:
            raise ValueError("cache is empty: its arrays were detached")
        T, N, _, H = cache._shape
        dtype, packing = cache._dtype, cache._packing
        self.cache = cache
        shape = (T, N, H) if packing is None else packing.shape(T, N, H)
        self.dh = as_cotangent("dh", dh, "(T, N, H)" if len(shape) == 3 else "(L, H)", shape, dtype)
        self.dh0 = self._final("dh_n", dh_n)
        self.dc0 = self._final("dc_n", dc_n) if len(cell.states) > 1 else None
        self.is_empty = not H * (T * N if packing is None else packing.count)
        self.needs_dx = cache._ids is None
        self.dx: Array | None = None
        self.dweights: _engine.Weights | None = None
        self.shards, self.shard_step = 1, 0

    def add_shards_into(self, arrays: dict[str, Array], shards: int) -> bool:
        """As add_into, with arrays of a leading axis: row n of the batch adds to those of shard ``n % shards``."""
        if self.cache._packing is not None:
            raise ValueError("shards need rows of the same length")
        first, self.shard_step = first_of_shards(arrays, shards, self.cache._shape[1])
        if not self.add_into(first):
            raise ValueError("shards need gradients of the dtype and order of the weights")
        self.shards = shards
        return True

    def add_into(self, arrays: dict[str, Array]) -> bool:
        """Let native code add the gradients of the weights to these arrays, by name; return whether it can.

        ValueError for another shape: the cache is not of the layer that the arrays belong to.
        """
        weights = self.cache._weights.by_name()
        for name, array in arrays.items():
            check_writable(name, array)
        arrays = {name: array.view() if type(array) is np.ndarray else array for name, array in arrays.items()}
        for name, array in arrays.items():
            wanted = weights[name[1:]].shape if name[1:] in weights else None
            if array.shape != wanted:
                raise ValueError(f"{name} must be {wanted} as the cache says; the gradient to add to is {array.shape}")
        if any(f"d{name}" not in arrays for name in weights):
            return False
        for name, array in arrays.items():
            in_any_order = name == "dWh" or (name == "dWx" and self.cache._ids is None)
            if not is_writable(array, array.shape, self.cache._dtype, is_dense_matrix if in_any_order else is_dense):
                return False
        self.dweights = _engine.Weights(**{name: arrays[f"d{name}"] for name in weights})
        return True

    def _fresh_gradients(self) -> _engine.Weights:
        # The first native call, if there is one, writes the matrices as a whole, except dWx of ids.
        make = zeros if self.is_empty else empty
        gradients = {}
        for name, weight in self.cache._weights.by_name().items():
            if name == "Wx" or name == "Wh":
                written = name == "Wh" or self.cache._ids is None
                gradients[name] = matrix_like(make if written else zeros, weight)
            else:
                gradients[name] = np.zeros(weight.shape, weight.dtype)
        return _engine.Weights(**gradients)

    @property
    def signature(self) -> tuple[Any, ...]:
        cache = self.cache
        return type(self), cache._dtype, len(cache._segments), cache._call is None, self.is_empty

    def _final(self, name: str, value: Any) -> Array:
        """A copy of the gradient with respect to a final state; it becomes that of the initial state in place."""
        _, N, _, H = self.cache._shape
        d_n = as_cotangent(name, value, "(N, H)", (N, H), self.cache._dtype)
        if d_n is None:
            return np.zeros((N, H), self.cache._dtype)
        return np.array(d_n if self.cache._packing is None else self.cache._packing.sort(d_n), order="C")

    def jobs(self) -> Iterator[Job]:
        cache, packing, dtype, variant = self.cache, self.cache._packing, self.cache._dtype, self.cache.variant
        T, N, D, H = cache._shape
        adds = self.dweights is not None
        if self.dweights is None:
            self.dweights = self._fresh_gradients()
        if self.needs_dx:
            shape = (T, N, D) if packing is None else packing.shape(T, N, D)
            self.dx = (empty if packing is None and not self.is_empty else zeros)(shape, dtype)
        if self.is_empty:
            return
        for index in reversed(range(len(cache._segments))):
            begin, end = cache._segments[index]
            tokens = cache.tokens(begin, end)
            L = tokens.stop - tokens.start
            call = cache._call
            if call is None:
                assert cache._states is not None
                h0, c0 = cache._states[index]
                call = cache.call(
                    begin,
                    end,
                    x=cache.input_of(begin, end),
                    h0=h0,
                    c0=c0,
                    h=empty((L, H), dtype),
                    h_n=h0.copy(),
                    c_n=None if c0 is None else c0.copy(),
                    **_empty_tokens(variant.saved_blocks, L, H, dtype),
                )
                yield _engine.forward, call
            dx = self.dx
            if dx is not None:
                dx = empty((L, D), dtype) if packing is not None else dx[begin:end]
            dh = None if self.dh is None else cache.steps_of(self.dh, begin, end)
            yield (
                _engine.backward,
                _engine.BackwardCall(
                    call,
                    self.dweights,
                    adds,
                    dh=dh,
                    dx=dx,
                    dh0=self.dh0,
                    dc0=self.dc0,
                    shards=self.shards,
                    shard_step=self.shard_step,
                ),
            )
            adds = True
            if packing is not None and dx is not None:
                packing.put(self.dx, tokens, dx)  # type: ignore[arg-type]

    def result(self) -> Any:
        packing, dh0, dc0 = self.cache._packing, self.dh0, self.dc0
        if packing is not None:
            dh0, dc0 = packing.unsort(dh0), None if dc0 is None else packing.unsort(dc0)
        assert self.dweights is not None
        found: dict[str, Array | None] = {f"d{name}": array for name, array in self.dweights.by_name().items()}
        found |= {"dx": self.dx, "dh0": dh0, "dc0": dc0}
        gradients = self.cache.variant.cell.gradients
        return gradients(*map(found.get, gradients._fields))


# ---- running ----------------------------------------------------------------------------------------------------


def _run(call: Any) -> Any:
    for native, record in call.jobs():
        native(record)
    return call.result()


def forward(variant: Variant, *arguments: Any, **options: Any) -> tuple[Array, Any, Cache | None]:
    """Run a forward call: arguments as in :func:`prepare_forward`."""
    return _run(prepare_forward(variant, *arguments, **options))


def backward(cell: Cell, dh: Any, cache: Any, dh_n: Any = None, dc_n: Any = None) -> Any:
    """Run a backward call."""
    return _run(_Backward(cell, dh, cache, dh_n, dc_n))


def forward_side_by_side(variant: Variant, arguments: Sequence[dict[str, Any]]) -> list[Any]:
    """Run one or two forward calls, given as dicts of arguments, at the same time where possible."""
    calls = [prepare_forward(variant, **keywords) for keywords in arguments]
    _run_side_by_side(calls)
    return [call.result() for call in calls]


def backward_side_by_side(
    cell: Cell,
    arguments: Sequence[dict[str, Any]],
    into: Sequence[dict[str, Array]] | None = None,
    needs_dx: bool = True,
    shards: int = 1,
) -> list[Any]:
    """Run one or two backward calls, given as dicts of arguments, at the same time where possible.

    Parameters
    ----------
    cell : Cell
    arguments : list of dict
    into : list of dict of name to array, optional
        For each call, the arrays that the gradients of the weights are added to.
    needs_dx : bool
        Whether to compute ``dx``; otherwise it is None.
    shards : int
        If not 1, the arrays of ``into`` have a leading axis: see ``_Backward.add_shards_into``.
    """
    calls = [_Backward(cell, **keywords) for keywords in arguments]
    for call in calls if not needs_dx else ():
        call.needs_dx = False
    added = [
        call.add_into(arrays) if shards == 1 else call.add_shards_into(arrays, shards)
        for call, arrays in zip(calls, into or (), strict=False)
    ]
    _run_side_by_side(calls)
    results = [call.result() for call in calls]
    for result, arrays, done in zip(results, into or (), added, strict=False):
        if not done:
            for name, array in arrays.items():
                add(array, getattr(result, name))
    return results


def _run_side_by_side(calls: Sequence[Any]) -> None:
    if len(calls) == 2 and calls[0].signature == calls[1].signature:
        for (native, first), (_, second) in zip(*(call.jobs() for call in calls), strict=True):
            native(first, second)
    else:
        for call in calls:
            for native, record in call.jobs():
                native(record)
