"""What a forward pass saves for the backward pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import _engine
from .._types import Array
from .arrays import as_dense, as_dense_matrix, as_floating, check_shape, clean_arguments
from .cells import Variant
from .packing import Packing, packing_of_tokens


@dataclass(slots=True, repr=False, eq=False)
class Cache:
    """What the backward pass needs of the forward pass.

    Holds the weights and, where no copy was needed, ``x`` by reference: do not change them before ``backward``.

    Attributes
    ----------
    h : ndarray (T, N, H) or None
        States, zero at padded steps; read-only. None with ``checkpoint``, as the others. (L, H) for PackedTokens.
    gates : ndarray (T, N, G*H) or None
        Activated gates, blocks as in the weights (RNN: the state); read-only.
    c : ndarray (T, N, H) or None
        Cell states of an LSTM; read-only.
    """

    variant: Variant
    _shape: tuple[int, int, int, int]  # T, N, D, H
    _dtype: np.dtype[Any]
    _packing: Packing | None
    _resets: Array | None
    _reverse: bool
    _x: Array | None
    _ids: Array | None
    _weights: _engine.Weights
    _segments: list[tuple[int, int]]  # (first step, last step + 1), in order of computation
    # With one segment the call, whose arrays are all that was computed; with several the states h0, c0 of each.
    _call: _engine.ForwardCall | None = None
    _states: list[tuple[Array, Array | None]] | None = None
    _mask: Array | None = None  # recurrent_mask (N, H), its rows as those of the packing

    # ---- from arrays, and back ----------------------------------------------------------------------------------

    @classmethod
    def from_arrays(
        cls,
        variant: Variant,
        weights: tuple[Array, Array, Array],
        *,
        x: Array,
        h: Array | None,
        h0: Array | None,
        gates: Array | None = None,
        c: Array | None = None,
        c0: Array | None = None,
    ) -> Cache:
        """Build the cache of a forward pass whose values the caller kept.

        Parameters
        ----------
        variant : Variant
        weights : tuple of arrays
            Wx, Wh, b. As the rest, float32 or float64.
        x : array (T, N, D)
        h, c : array (T, N, H)
        h0, c0 : array (N, H)
        gates : array (T, N, G*H)
            Those of them that the cell has.

        Raises
        ------
        ValueError
            An array is missing, or shapes do not match.
        """
        given = {"h": h, "h0": h0, "gates": gates, "c": c, "c0": c0}
        needed = {"h", *(f"{state}0" for state in variant.cell.states), *(array.name for array in variant.saved)}
        for name, array in given.items():
            if name in needed and array is None:
                raise ValueError(f"{name} must be there for the cache of {variant.cell.name}_forward; got None")
        (T, N, D), (Wx, Wh, b), dtype, G = x.shape, weights, x.dtype, len(variant.gates)
        if not _engine.fits(variant.native, x, Wx, Wh, b, h0, c0, None, None):
            arrays, dtype, _ = clean_arguments(variant, N, x, {"Wx": Wx, "Wh": Wh, "b": b}, {"h0": h0, "c0": c0})
            Wx, Wh, b = as_dense_matrix(arrays["Wx"], dtype), as_dense_matrix(arrays["Wh"], dtype), arrays["b"]
            b, x, h0, c0 = (None if a is None else as_dense(a, dtype) for a in (b, x, h0, c0))
        H = len(Wh)
        tokens = {}
        for name, blocks in (("h", 1), ("gates", G), ("c", 1)):
            if (array := given[name]) is not None:
                check_shape(name, array, f"(T, N, {blocks}H)" if blocks > 1 else "(T, N, H)", (T, N, blocks * H))
                tokens[name] = as_dense(array, dtype).reshape(T * N, blocks * H)
        own = _engine.Weights(Wx, Wh, b)
        call = _engine.ForwardCall(variant.native, own, _engine.Batch(T, N), x=x, h0=h0, c0=c0, **tokens)
        return cls(variant, (T, N, D, H), dtype, None, None, False, None, None, own, [(0, T)], call)

    @classmethod
    def detached(cls, variant: Variant, x: Array, rows: Any, hidden_size: int, reverse: bool) -> Cache:
        """Build what :meth:`detach` leaves of a cache, for :meth:`attach`; ``rows`` (T,) of packed tokens, or None.

        Its biases are zeros: no gradient depends on their values.
        """
        packing = None if rows is None else packing_of_tokens(x, rows)
        T, N = x.shape[:2] if rows is None else (len(rows), int(rows[0]))
        H = hidden_size
        bhn = np.zeros(H, x.dtype) if variant.has_bhn else None
        own = _engine.Weights(b=np.zeros(len(variant.gates) * H, x.dtype), bhn=bhn)
        return cls(variant, (T, N, x.shape[-1], H), x.dtype, packing, None, reverse, None, None, own, [(0, T)])

    def with_weights(self, Wx: Array, Wh: Array, b: Array) -> Cache:
        """Copy with other weights of the same shapes, for gradients that see weights change after the forward pass."""
        own = self._weights.by_name()
        for name, new in (("Wx", Wx), ("Wh", Wh), ("b", b)):
            array = as_floating(name, new)
            check_shape(name, array, "as in the forward pass", own[name].shape)
            dense = as_dense_matrix if name == "Wh" or (name == "Wx" and self._ids is None) else as_dense
            own[name] = dense(array, self._dtype)
        return self._with(_engine.Weights(**own), None if self._call is None else self._call.saved())

    def _with(self, weights: _engine.Weights, saved: dict[str, Array | None] | None) -> Cache:
        call = None if saved is None else self.call(0, self._segments[0][1], weights=weights, **saved)
        return replace(self, _weights=weights, _call=call)

    def take(self) -> dict[str, Array]:
        """Return h and, where there are such, gates and c, (T, N, .): writable, for callers that consume the cache."""
        if self._call is None:
            raise ValueError("cache is empty: its arrays were detached")
        (T, N), saved = self._shape[:2], self._call.saved()
        arrays = {name: saved[name] for name in ("h", "gates", "c")}
        return {name: a.reshape(T, N, a.shape[1]) for name, a in arrays.items() if a is not None}

    def detach(self) -> tuple[Array | None, ...]:
        """Detach and return the saved arrays, x first. The cache keeps neither them nor Wx and Wh."""
        if self._call is None:
            raise ValueError("cache is empty: its arrays were detached")
        saved, self._call = self._call.saved(), None
        own = self._weights.by_name()
        self._weights = _engine.Weights(**{name: a for name, a in own.items() if name not in ("Wx", "Wh")})
        return tuple(saved.values())

    def attach(self, Wx: Array, Wh: Array, saved: tuple[Array | None, ...]) -> Cache:
        """Rebuild a detached cache from its arrays or copies of them; ValueError for another shape or dtype."""
        (T, N, D, H), G = self._shape, len(self.variant.gates)
        L = T * N if self._packing is None else self._packing.count
        x = (T, N, D) if self._packing is None else (L, D)
        shapes = x, (N, H), (N, H), (L, G * H), (L, H), (L, H), (L, H), (D, G * H), (H, G * H)
        for array, shape in zip((*saved, Wx, Wh), shapes, strict=True):
            if array is not None and (array.shape != shape or array.dtype != self._dtype):
                raise ValueError(f"a saved array must be {shape} {self._dtype}; got {array.shape} {array.dtype}")
        names = ("x", "h0", "c0", "gates", "c", "m", "h")
        arrays = {n: None if a is None else as_dense(a, self._dtype) for n, a in zip(names, saved, strict=True)}
        Wx, Wh = (as_dense_matrix(array, self._dtype) for array in (Wx, Wh))
        return self._with(_engine.Weights(Wx, Wh, **self._weights.by_name()), arrays)

    # ---- what it shows ------------------------------------------------------------------------------------------

    @property
    def hidden_size(self) -> int:
        return self._shape[3]

    @property
    def h(self) -> Array | None:
        return self._view("h")

    @property
    def gates(self) -> Array | None:
        return self._view("gates" if any(array.name == "gates" for array in self.variant.saved) else "h")

    @property
    def c(self) -> Array | None:
        return self._view("c")

    def _view(self, name: str) -> Array | None:
        tokens = None if self._call is None else self._call.saved()[name]
        if tokens is None:
            return None
        (T, N), K = self._shape[:2], tokens.shape[-1]
        if self._packing is None:
            view: Array = tokens.reshape(T, N, K)
        else:
            view = np.zeros(self._packing.shape(T, N, K), tokens.dtype)
            self._packing.put(view, slice(None), tokens)
        view.flags.writeable = False
        return view

    def __repr__(self) -> str:
        T, N, D, H = self._shape
        return f"<{self.variant.cell.name} cache: T={T} N={N} D={D} H={H} {self._dtype}>"

    # ---- for the calls ------------------------------------------------------------------------------------------

    def tokens(self, begin: int, end: int) -> slice:
        """The tokens of steps begin .. end - 1."""
        if self._packing is None:
            return slice(begin * self._shape[1], end * self._shape[1])
        return self._packing.tokens(begin, end)

    def steps_of(self, array: Array, begin: int, end: int) -> Array:
        """Steps of a caller's array (T, N, K), dense: (steps, N, K), or (tokens, K) of a packed batch."""
        if self._packing is None:
            return as_dense(array if end - begin == len(array) else array[begin:end], self._dtype)
        return self._packing.take(array, self.tokens(begin, end), self._dtype)

    def input_of(self, begin: int, end: int) -> Array | None:
        return None if self._x is None else self.steps_of(self._x, begin, end)

    def call(
        self, begin: int, end: int, weights: _engine.Weights | None = None, **arrays: Array | None
    ) -> _engine.ForwardCall:
        """The native call for some steps."""
        rows = offset = resets = ids = None
        if self._packing is not None:
            rows, offset = self._packing.rows[begin:end], self._packing.offset[begin:end]
            offset = offset - offset[:1]
        if self._resets is not None:
            resets = self._resets[self.tokens(begin, end)]
        if self._ids is not None:
            ids = self._ids[self.tokens(begin, end)]
        batch = _engine.Batch(end - begin, self._shape[1], rows, offset, resets, self._reverse, self._mask)
        return _engine.ForwardCall(self.variant.native, weights or self._weights, batch, ids=ids, **arrays)
