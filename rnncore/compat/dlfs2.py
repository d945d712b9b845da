"""The layers of "Deep Learning from Scratch 2", ``common/time_layers.py``, on the engine.

Write ``from rnncore.compat.dlfs2 import *`` in place of ``from common.time_layers import *``: the book's models,
trainers and optimizers run unchanged. Arrays are batch-first, xs (N, T, D) and hs (N, T, H). Gate blocks are f g i o
for the LSTM and z r h for the GRU. In the GRU, the reset gate is applied before the product and z weighs the candidate.

``params`` holds the arrays that were passed in, not copies. Every forward pass reads them: change them in place or
replace them in the list. ``grads`` holds arrays that are made once; every backward pass overwrites them in place.

What differs, where the original is wrong or wasteful:

* Results have the dtype of the weights: float64 weights give float64, where the original rounds ``hs``, ``dxs`` and
  embeddings to float32. float32 weights give float32, as in the book.
* A state of batch 1 is broadcast to a batch of N in training too; the original's backward pass fails. Any other state
  of the wrong shape raises ValueError.
* ``layers`` stays None and ``cache`` is opaque: there is no cell object per step.
* ``TimeSoftmaxWithLoss``: ``backward`` may be called again, with the same result. A batch without labels has loss 0,
  not NaN. The loss is a Python float.
* Word ids below 0, and labels below 0 other than -1, raise ValueError; NumPy counts them from the end.
* ``TimeEmbedding`` reads ``params[0]``, so replacing it there takes effect; ``W`` is that array.
* ``TimeDropout`` in evaluation (``train_flg = False``) returns a copy, and its backward pass is the identity.
* A sequence (N, T, .) may be returned as a view of time-major memory; ``reshape`` then copies it.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from .. import checks, losses
from .._types import Array
from ..engine import calls, cells, native
from ..engine.arrays import as_array, as_ids, check_gradient, converted
from . import layout

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "TimeAffine",
    "TimeBiLSTM",
    "TimeDropout",
    "TimeEmbedding",
    "TimeGRU",
    "TimeLSTM",
    "TimeRNN",
    "TimeSoftmaxWithLoss",
    "np",  # the book's models get it from this import
]


_WEIGHTS = "Wx", "Wh", "b"
_RNN = cells.RNN.variant("tanh")
_LSTM = cells.LSTM.variant(False, "current", "tanh", "fgio")
_GRU = cells.GRU.variant("reset_before", "new", "zrn")


class _Layer:
    """Base of the layers with parameters; the gradient arrays keep their identity."""

    _labels: ClassVar[tuple[str, ...]] = ("W", "b")

    def __init__(self, *params: Any) -> None:
        self.params = list(params)
        self.grads = [np.zeros_like(p, order="C") for p in layout.floats(*self._arrays())]

    def _arrays(self) -> list[Array]:
        """The parameters, which the caller may have replaced, as arrays of numbers."""
        return [layout.numbers(name, p) for name, p in zip(self._labels, self.params, strict=False)]

    @property
    def _dtype(self) -> np.dtype[Any]:
        """Dtype to compute in: that of the weights, float32 for float16."""
        return np.result_type(*self._arrays(), np.float32)

    def _check_gradients(self) -> None:
        for name, grad, param in zip(self._labels, self.grads, self._arrays(), strict=True):
            check_gradient(f"d{name}", grad, "the shape of the parameter", param.shape)


class _Recurrent(_Layer):
    """Base of the recurrent layers: one time-major engine call forward, one backward."""

    _labels = _WEIGHTS
    _cell: cells.Variant
    _names: ClassVar[dict[str, str]] = {}
    cache: Any

    def __init__(self, Wx: Array, Wh: Array, b: Array) -> None:
        super().__init__(Wx, Wh, b)
        self.cache: Any = None

    def _arguments(self, x: Array, states: Any, **options: Any) -> dict[str, Any]:
        """Keywords of the engine's forward function, in the weights' dtype: x (T, N, D), states h0, c0 or None."""
        arrays: dict[str, Any] = {"x": x, **dict(zip(_WEIGHTS, self._arrays(), strict=True))}
        for name, state in zip(("h0", "c0"), states, strict=False):
            state = None if state is None else layout.numbers(self._names.get(name, name), state)
            if state is not None and state.shape[:1] == (1,) != x.shape[1:2]:
                state = np.broadcast_to(state, (x.shape[1], *state.shape[1:]))
            arrays[name] = state
        dtype = self._dtype
        return {
            **{name: a if a is None else converted(layout.numbers(name, a), dtype) for name, a in arrays.items()},
            **options,
        }

    def _forward(self, x: Array, states: Any) -> tuple[Any, ...]:
        """Return hs (T, N, H) and the final states."""
        with checks.named(**self._names):
            return self._keep(*calls.forward(self._cell, **self._arguments(x, states)))

    def _keep(self, hs: Array, states: Array | tuple[Array, Array], cache: Any) -> tuple[Any, ...]:
        self.cache = cache, (hs.shape[1], hs.shape[0], hs.shape[2])
        return hs, states if isinstance(states, tuple) else (states,)

    def _opened(self) -> tuple[Any, tuple[int, int, int]]:
        """Return the engine's cache and (N, T, H)."""
        if self.cache is None:
            raise RuntimeError("backward needs a forward pass before it")
        return self.cache

    def _write(self, grads: Any) -> Any:
        self._check_gradients()
        for grad, value in zip(self.grads, (grads.dWx, grads.dWh, grads.db), strict=True):
            grad[...] = converted(value, grad.dtype)
        return grads


class _Step(_Recurrent):
    """Base of the layers that compute one step: x (N, D), states (N, H)."""

    _names = {"h0": "h_prev", "c0": "c_prev"}

    def _step(self, x: Array, *states: Any) -> tuple[Array, ...]:
        _, states = self._forward(layout.real("x", x, "ND")[None], states)
        return states

    def _back(self, **cotangents: Any) -> Any:
        cache, (N, _, H) = self._opened()
        cotangents = [layout.cotangent(name, value, "NH", (N, H)) for name, value in cotangents.items()]
        return self._write(calls.backward(self._cell.cell, None, cache, *cotangents))


class RNN(_Step):
    """One step of a tanh RNN: Wx (D, H), Wh (H, H), b (H,).

    Examples
    --------
    >>> import numpy as np
    >>> layer = RNN(np.ones((2, 1)), np.eye(1), np.zeros(1))
    >>> layer.forward(np.ones((1, 2)), np.zeros((1, 1))).round(4)
    array([[0.964]])
    """

    _cell = _RNN

    def forward(self, x: Array, h_prev: Array) -> Array:
        """x (N, D), h_prev (N, H) -> h_next (N, H)"""
        return self._step(x, h_prev)[0]

    def backward(self, dh_next: Array) -> tuple[Array, Array]:
        """dh_next (N, H) -> dx (N, D), dh_prev (N, H)"""
        grads = self._back(dh_next=dh_next)
        return grads.dx[0], grads.dh0


class GRU(RNN):
    """One step of a GRU: Wx (D, 3H), Wh (H, 3H), b (3H,), blocks z r h; same methods as :class:`RNN`.

    Examples
    --------
    >>> import numpy as np
    >>> layer = GRU(np.zeros((2, 3)), np.zeros((1, 3)), np.zeros(3))
    >>> layer.forward(np.ones((1, 2)), np.ones((1, 1)))
    array([[0.5]])
    """

    _cell = _GRU
    dWx, dWh, db = (property(lambda self, index=index: self.grads[index]) for index in range(3))  # type: ignore[misc]


class LSTM(_Step):
    """One step of an LSTM: Wx (D, 4H), Wh (H, 4H), b (4H,), blocks f g i o.

    Examples
    --------
    >>> import numpy as np
    >>> layer = LSTM(np.zeros((2, 4)), np.zeros((1, 4)), np.zeros(4))
    >>> h, c = layer.forward(np.ones((1, 2)), np.zeros((1, 1)), np.ones((1, 1)))
    >>> c
    array([[0.5]])
    """

    _cell = _LSTM

    def forward(self, x: Array, h_prev: Array, c_prev: Array) -> tuple[Array, ...]:
        """x (N, D), h_prev, c_prev (N, H) -> h_next, c_next (N, H)"""
        return self._step(x, h_prev, c_prev)

    def backward(self, dh_next: Array, dc_next: Array | int) -> tuple[Array, Array, Array]:
        """dh_next, dc_next (N, H) -> dx (N, D), dh_prev, dc_prev (N, H)"""
        grads = self._back(dh_next=dh_next, dc_next=dc_next)
        return grads.dx[0], grads.dh0, grads.dc0


class _Time(_Recurrent):
    """Base of the layers that compute a sequence: (N, T, D) -> (N, T, H).

    Attributes
    ----------
    h : ndarray (N, H) or None
        State after the last forward pass; the next one starts from it if ``stateful``.
    dh : ndarray (N, H) or None
        Gradient with respect to the state that the last forward pass started from.
    """

    _names = {"x": "xs", "h0": "state h", "c0": "state c"}
    _states: tuple[str, ...] = ("h",)

    def __init__(self, Wx: Array, Wh: Array, b: Array, stateful: bool = False) -> None:
        super().__init__(Wx, Wh, b)
        self.layers, self.dh, self.stateful = None, None, stateful
        self.reset_state()

    def forward(self, xs: Array) -> Array:
        """xs (N, T, D) -> hs (N, T, H)"""
        xs = layout.swap(layout.real("xs", xs, "NTD"))
        return self._finish(*self._forward(xs, self._initial()))

    def _initial(self) -> list[None]:
        return [getattr(self, name) if self.stateful else None for name in self._states]

    def _finish(self, hs: Array, states: tuple[Array, ...]) -> Array:
        for name, state in zip(self._states, states, strict=True):
            setattr(self, name, state)
        return layout.swap(hs)

    def backward(self, dhs: Array) -> Array:
        """dhs (N, T, H) -> dxs (N, T, D)"""
        return self._received(calls.backward(self._cell.cell, **self._cotangent(dhs)))

    def _cotangent(self, dhs: Array) -> dict[str, Any]:
        cache, shape = self._opened()
        return {"dh": layout.swap(layout.cotangent("dhs", dhs, "NTH", shape)), "cache": cache}

    def _received(self, grads: Any) -> Array:
        self.dh = self._write(grads).dh0
        return layout.swap(grads.dx)

    def set_state(self, h: Array) -> None:
        """Start the next forward pass of a stateful layer from h (N, H)."""
        self.h = h

    def reset_state(self) -> None:
        """Start the next forward pass from zeros."""
        for name in self._states:
            setattr(self, name, None)


class TimeRNN(_Time):
    """A tanh RNN over a sequence: Wx (D, H), Wh (H, H), b (H,).

    Examples
    --------
    >>> import numpy as np
    >>> layer = TimeRNN(np.ones((3, 4)), np.eye(4), np.zeros(4), stateful=True)
    >>> hs = layer.forward(np.ones((2, 5, 3)))
    >>> layer.backward(np.ones_like(hs)).shape, layer.h.shape, layer.dh.shape
    ((2, 5, 3), (2, 4), (2, 4))
    """

    _cell = _RNN


class TimeGRU(_Time):
    """A GRU over a sequence: Wx (D, 3H), Wh (H, 3H), b (3H,), blocks z r h.

    Examples
    --------
    >>> import numpy as np
    >>> layer = TimeGRU(np.ones((3, 12)), np.ones((4, 12)), np.zeros(12))
    >>> layer.forward(np.ones((2, 5, 3))).shape
    (2, 5, 4)
    """

    _cell = _GRU


class TimeLSTM(_Time):
    """An LSTM over a sequence: Wx (D, 4H), Wh (H, 4H), b (4H,), blocks f g i o; its cell state is ``c``.

    Examples
    --------
    >>> import numpy as np
    >>> layer = TimeLSTM(np.ones((3, 16)), np.ones((4, 16)), np.zeros(16))
    >>> layer.forward(np.ones((2, 5, 3))).shape, layer.c.shape
    ((2, 5, 4), (2, 4))
    """

    _cell = _LSTM
    _states = ("h", "c")

    def set_state(self, h: Array, c: Array | None = None) -> None:
        """Start the next forward pass of a stateful layer from h, c (N, H); c is zero if None."""
        self.h, self.c = h, c


class TimeBiLSTM:
    """A forward and a backward LSTM over a sequence: 2H outputs, those of the forward one first.

    The two run in parallel if there are threads.

    Examples
    --------
    >>> import numpy as np
    >>> weights = np.ones((3, 16)), np.ones((4, 16)), np.zeros(16)
    >>> TimeBiLSTM(*weights, *weights).forward(np.ones((2, 5, 3))).shape
    (2, 5, 8)
    """

    def __init__(
        self, Wx1: Array, Wh1: Array, b1: Array, Wx2: Array, Wh2: Array, b2: Array, stateful: bool = False
    ) -> None:
        with checks.named(Wx="Wx1", Wh="Wh1", b="b1"):
            self.forward_lstm = TimeLSTM(Wx1, Wh1, b1, stateful)
        with checks.named(Wx="Wx2", Wh="Wh2", b="b2"):
            self.backward_lstm = TimeLSTM(Wx2, Wh2, b2, stateful)
        self.params = self.forward_lstm.params + self.backward_lstm.params
        self.grads = self.forward_lstm.grads + self.backward_lstm.grads

    @property
    def _both(self) -> tuple[TimeLSTM, TimeLSTM]:
        """Both LSTMs, updated to the arrays that are in ``params`` now."""
        self.forward_lstm.params[:], self.backward_lstm.params[:] = self.params[:3], self.params[3:]
        return self.forward_lstm, self.backward_lstm

    def forward(self, xs: Array) -> Array:
        """xs (N, T, D) -> hs (N, T, 2H)"""
        xs = layout.swap(layout.real("xs", xs, "NTD"))
        both = self._both
        with checks.named(**_Time._names):
            results = calls.forward_side_by_side(
                _LSTM,
                [lstm._arguments(xs, lstm._initial(), reverse=lstm is both[1]) for lstm in both],
            )
        hs = [lstm._finish(*lstm._keep(*result)) for lstm, result in zip(both, results, strict=True)]
        return layout.swap(np.concatenate([layout.swap(h) for h in hs], axis=2))

    def backward(self, dhs: Array) -> Array:
        """dhs (N, T, 2H) -> dxs (N, T, D)"""
        both = self._both
        widths = [lstm._opened()[1][2] for lstm in both]
        N, T, _ = both[0]._opened()[1]
        dhs = layout.cotangent("dhs", dhs, "NTH", (N, T, sum(widths)))
        parts = dhs[..., : widths[0]], dhs[..., widths[0] :]
        results = calls.backward_side_by_side(
            cells.LSTM, [lstm._cotangent(part) for lstm, part in zip(both, parts, strict=True)]
        )
        dxs, other = (lstm._received(grads) for lstm, grads in zip(both, results, strict=True))
        dxs += other
        return dxs


class TimeEmbedding(_Layer):
    """Look up rows of W (V, D) by word id.

    Examples
    --------
    >>> import numpy as np
    >>> layer = TimeEmbedding(np.arange(6.0).reshape(3, 2))
    >>> out = layer.forward(np.array([[0, 2, 2]]))
    >>> layer.backward(np.ones_like(out))
    >>> layer.grads[0][:, 0]
    array([1., 0., 2.])
    """

    _labels = ("W",)

    def __init__(self, W: Array) -> None:
        super().__init__(W)
        self.layers: Any = None
        self._ids: Any = None

    @property
    def W(self) -> Any:
        return self.params[0]

    def forward(self, xs: Array) -> Array:
        """xs (N, T), ids in [0, V) -> out (N, T, D)"""
        W, xs = layout.real("W", self.params[0], "VD"), as_array("xs", xs)
        if xs.dtype.kind not in "biu":
            raise TypeError(f"xs must be integer ids; got dtype {xs.dtype}")
        if xs.ndim != 2:
            raise ValueError(f"xs must be (N, T); got {xs.shape}")
        self._ids = as_ids(layout.swap(xs), len(W), "ids in xs", "V")
        return layout.swap(np.take(W, self._ids, axis=0))

    def backward(self, dout: Array) -> None:
        """dout (N, T, D) -> None; gradients of repeated words add up"""
        if self._ids is None:
            raise RuntimeError("backward needs a forward pass before it")
        (T, N), (grad,) = self._ids.shape, self.grads
        self._check_gradients()
        dout = layout.swap(layout.cotangent("dout", dout, "NTD", (N, T, grad.shape[1])))
        is_native = grad.dtype in (np.float32, np.float64) and grad.dtype.isnative and grad.flags.c_contiguous
        table = grad if is_native else np.zeros(grad.shape, np.float64)
        table[...] = 0
        native.scatter_add(self._ids.reshape(-1), dout.reshape(N * T, grad.shape[1]), table)
        if table is not grad:
            grad[...] = converted(table, grad.dtype)


class TimeAffine(_Layer):
    """The same affine map at every step: W (D, M), b (M,). W may be a transposed view of an embedding.

    Examples
    --------
    >>> import numpy as np
    >>> layer = TimeAffine(np.ones((4, 3)), np.zeros(3))
    >>> out = layer.forward(np.ones((2, 5, 4)))
    >>> layer.backward(out).shape, layer.grads[1].tolist()
    ((2, 5, 4), [40.0, 40.0, 40.0])
    """

    def __init__(self, W: Array, b: Array) -> None:
        super().__init__(W, b)
        self.x: Any = None

    def forward(self, x: Array) -> Array:
        """x (N, T, D) -> (N, T, M)"""
        W, b = (layout.real(name, p, axes) for name, p, axes in zip("Wb", self.params, ("DM", "M"), strict=True))
        x = layout.swap(layout.real("x", x, "NTD")).astype(self._dtype, copy=False)
        out = native.affine_forward(x.reshape(x.shape[0] * x.shape[1], x.shape[2]), W, b)
        self.x = layout.swap(x)
        return layout.swap(out.reshape(*x.shape[:2], out.shape[1]))

    def backward(self, dout: Array) -> Array:
        """dout (N, T, M) -> dx (N, T, D)"""
        if self.x is None:
            raise RuntimeError("backward needs a forward pass before it")
        W, b = (layout.real(name, p, axes) for name, p, axes in zip("Wb", self.params, ("DM", "M"), strict=True))
        x = layout.swap(self.x)
        T, N, D = x.shape
        dout = layout.swap(layout.cotangent("dout", dout, "NTM", (N, T, len(b))))
        self._check_gradients()
        for grad in self.grads:
            grad[...] = 0
        dx = native.affine_backward(x.reshape(T * N, D), W, dout.reshape(T * N, len(b)), *self.grads)
        return layout.swap(dx.reshape(T, N, D))


class TimeSoftmaxWithLoss:
    """Softmax and cross-entropy, averaged over the steps whose label is not ``ignore_label``, -1.

    Examples
    --------
    >>> import numpy as np
    >>> layer = TimeSoftmaxWithLoss()
    >>> round(layer.forward(np.zeros((1, 2, 4)), np.array([[3, -1]])), 4)
    1.3863
    >>> layer.backward()[0].tolist()
    [[0.25, 0.25, 0.25, -0.75], [0.0, 0.0, 0.0, 0.0]]
    """

    def __init__(self) -> None:
        self.params: list[Array] = []
        self.grads: list[Array] = []
        self.cache: Any = None
        self.ignore_label = -1

    def forward(self, xs: Array, ts: Array) -> float:
        """Scores xs (N, T, V), labels ts (N, T) or one-hot (N, T, V) -> loss, a float"""
        xs, ts = layout.real("xs", xs, "NTV"), layout.numbers("ts", ts)
        if ts.shape not in (xs.shape, xs.shape[:2]):
            raise ValueError(f"ts must be (N, T) = {xs.shape[:2]} or (N, T, V) = {xs.shape}; got {ts.shape}")
        if ts.ndim == 3:
            ts = ts.argmax(axis=2)
        xs, ts = layout.swap(xs), layout.swap(ts)
        with checks.named(targets="ts", logits="xs"):
            loss, self.cache = losses.softmax_cross_entropy(xs, ts, weights=ts != self.ignore_label)
        return loss

    def backward(self, dout: float = 1) -> Array:
        """Return the gradient of ``dout * loss``, (N, T, V)."""
        if self.cache is None:
            raise RuntimeError("backward needs a forward pass before it")
        with np.errstate(over="ignore", invalid="ignore"):
            return layout.swap(self.cache * self.cache.dtype.type(checks.real("dout", dout)))


class TimeDropout:
    """Inverted dropout: scales in training. The mask is drawn from NumPy's global generator, as in the book.

    Examples
    --------
    >>> import numpy as np
    >>> layer = TimeDropout(0.5)
    >>> sorted(set(layer.forward(np.ones((2, 50, 4))).ravel().tolist()))
    [0.0, 2.0]
    """

    def __init__(self, dropout_ratio: float = 0.5) -> None:
        dropout_ratio = checks.share("dropout_ratio", dropout_ratio)
        self.params: list[Array] = []
        self.grads: list[Array] = []
        self.dropout_ratio, self.train_flg = dropout_ratio, True
        self.mask: Any = None

    def forward(self, xs: Array) -> Array:
        """xs of any shape -> the same shape"""
        (xs,), self.mask = layout.floats(layout.numbers("xs", xs)), None
        if not self.train_flg:
            return xs.copy(order="K")
        kept = np.random.rand(*xs.shape) > self.dropout_ratio  # noqa: NPY002 - the same draws as in the book
        self.mask = np.empty_like(xs)
        np.multiply(kept, 1 / (1 - self.dropout_ratio), out=self.mask, casting="same_kind")
        with np.errstate(invalid="ignore", over="ignore"):  # of what is infinite
            return xs * self.mask

    def backward(self, dout: Array) -> Array:
        """dout -> gradient with respect to the input of the last forward pass"""
        dout = layout.numbers("dout", dout)
        if self.mask is not None and dout.shape != self.mask.shape:
            raise ValueError(f"dout must be {self.mask.shape} as in the forward pass; got {dout.shape}")
        with np.errstate(invalid="ignore", over="ignore"):
            return dout.copy(order="K") if self.mask is None else dout * self.mask
