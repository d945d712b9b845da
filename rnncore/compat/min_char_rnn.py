"""karpathy's ``min-char-rnn.py``, its LSTM and GRU descendants, and his batched LSTM with its GRU fork, on the engine.

``lossFun`` in these scripts reads the weights from globals; here they are arguments. To convert a script::

    from rnncore.compat.min_char_rnn import char_rnn_loss

    def lossFun(inputs, targets, hprev):
        return char_rnn_loss(inputs, targets, hprev, Wxh, Whh, Why, bh, by)

Where the functions differ from the originals:

* Every softmax subtracts the maximum: logits above 709 give probabilities, not NaN.
* An id outside the vocabulary raises ValueError; in the originals, a negative id counts from the end.
* All results are fresh arrays; ``dWxh`` is in Fortran order. The original batched ``forward`` returns its final states
  as views of its cache.
* The batched classes as published are Python 2. Entries of the LSTM's cache that ``backward`` here does not need are
  computed on demand, IFOG from the weights as they are then.

Arguments are never written to, and weights are read on every call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import numpy as np

from .. import checks, functional
from .._types import Array
from ..engine import calls, cells, native
from ..engine.cache import Cache
from .layout import clean_ids, numbers, row, sized, sized_values, stack, transposed, unstack

__all__ = ["GRU", "LSTM", "char_gru_loss", "char_lstm_loss", "char_rnn_loss"]

#: The originals clip every entry of every gradient to +-CLIP.
CLIP = 5

#: Axes of each function's arguments, in the same order.
_MATRIX, _STATE, _OUTPUT = ("H", "V"), ("H", "1"), {"Wy": ("V", "H"), "by": ("V", "1")}
_RNN_AXES = {"hprev": _STATE, "Wxh": _MATRIX, "Whh": ("H", "H"), "Why": ("V", "H"), "bh": _STATE, "by": ("V", "1")}
_LSTM_AXES = {
    f"{kind}{gate}": axes for gate in ("f", "i", "cc", "o") for kind, axes in (("W", ("H", "V + H")), ("b", _STATE))
}
_LSTM_AXES = {"hprev": _STATE, "cprev": _STATE} | _LSTM_AXES | _OUTPUT
_GRU_AXES = {"hprev": _STATE, "Wy": ("V", "H")} | {f"W{gate}": _MATRIX for gate in "hrz"}
_GRU_AXES |= {f"U{gate}": ("H", "H") for gate in "hrz"} | {"by": ("V", "1")} | {f"b{gate}": _STATE for gate in "hrz"}


# ---- one text at a time, by characters ------------------------------------------------------------------------------


def char_rnn_loss(
    inputs: list[int], targets: list[int], hprev: Array, Wxh: Array, Whh: Array, Why: Array, bh: Array, by: Array
) -> tuple[Any, ...]:
    """``lossFun`` of ``min-char-rnn.py``: summed cross-entropy of one text and its gradients, clipped to +-5.

    Parameters
    ----------
    inputs, targets : sequences of T ints
        Ids in [0, V).
    hprev : array (H, 1)
    Wxh, Whh, Why : arrays (H, V), (H, H), (V, H)
    bh, by : arrays (H, 1), (V, 1)

    Returns
    -------
    loss : float64
    dWxh, dWhh, dWhy, dbh, dby : ndarrays like the weights
    h : ndarray (H, 1)
        The last state.

    Examples
    --------
    >>> Wxh, Whh, Why, bh, by = (np.zeros(shape) for shape in [(3, 4), (3, 3), (4, 3), (3, 1), (4, 1)])
    >>> loss, *gradients, h = char_rnn_loss([0, 1], [1, 2], np.zeros((3, 1)), Wxh, Whh, Why, bh, by)
    >>> round(float(loss), 4), gradients[4].ravel().tolist()
    (2.7726, [0.5, -0.5, -0.5, 0.5])
    """
    arguments = dict(zip(_RNN_AXES, (hprev, Wxh, Whh, Why, bh, by), strict=True))
    hprev, Wxh, Whh, Why, bh, by = sized_values(arguments, _RNN_AXES)
    ids = clean_ids("inputs", inputs, Wxh.shape[1])
    loss, (dtable, *gradients), h = rnn_step(ids, targets, hprev, stack([Wxh]), Whh, Why, bh, by)
    return loss, dtable.T, *gradients, h


def char_lstm_loss(
    inputs: list[int],
    targets: list[int],
    hprev: Array,
    cprev: Array,
    Wf: Array,
    bf: Array,
    Wi: Array,
    bi: Array,
    Wcc: Array,
    bcc: Array,
    Wo: Array,
    bo: Array,
    Wy: Array,
    by: Array,
) -> tuple[Any, ...]:
    """``lossFun`` of eliben's ``min-char-lstm.py``: summed cross-entropy and its gradients, clipped to +-5.

    Parameters
    ----------
    inputs, targets : sequences of T ints
        Ids in [0, V).
    hprev, cprev : arrays (H, 1)
    Wf, Wi, Wcc, Wo : arrays (H, V + H)
        Act on the column [x; h].
    bf, bi, bcc, bo : arrays (H, 1)
    Wy, by : arrays (V, H), (V, 1)

    Returns
    -------
    loss : float64
    dWf, dbf, dWi, dbi, dWcc, dbcc, dWo, dbo, dWy, dby : ndarrays like the weights
    h, c : ndarrays (H, 1)
        The last states.
    """
    arguments = dict(zip(_LSTM_AXES, (hprev, cprev, Wf, bf, Wi, bi, Wcc, bcc, Wo, bo, Wy, by), strict=True))
    sizes: dict[str, int] = {}
    sized("hprev", hprev, _STATE, sizes), sized("by", by, ("V", "1"), sizes)
    sizes["V + H"] = sizes["V"] + sizes["H"]
    hprev, cprev, Wf, bf, Wi, bi, Wcc, bcc, Wo, bo, Wy, by = sized_values(arguments, _LSTM_AXES, sizes)
    V, W, b = sizes["V"], stack([Wi, Wf, Wcc, Wo]), row(bi, bf, bcc, bo)
    ids = clean_ids("inputs", inputs, V)
    h, (h_n, c_n), cache = functional.lstm_forward(ids[:, None], W[:V], W[V:], b, row(hprev)[None], row(cprev)[None])
    loss, dh, dWy, dby = _head(h, Wy, by, targets)
    g = functional.lstm_backward(dh, cache)
    dWi, dWf, dWcc, dWo = unstack(np.concatenate([g.dWx, g.dWh]), 4)
    dbi, dbf, dbcc, dbo = g.db.reshape(4, -1, 1).copy()
    gradients = dWf, dbf, dWi, dbi, dWcc, dbcc, dWo, dbo, dWy, dby
    for gradient in gradients:
        np.clip(gradient, -CLIP, CLIP, out=gradient)
    return loss, *gradients, h_n.T, c_n.T


def char_gru_loss(
    inputs: list[int],
    targets: list[int],
    hprev: Array,
    Wy: Array,
    Wh: Array,
    Wr: Array,
    Wz: Array,
    Uh: Array,
    Ur: Array,
    Uz: Array,
    by: Array,
    bh: Array,
    br: Array,
    bz: Array,
) -> tuple[Any, ...]:
    """``lossFun`` of erikvdplas' ``gru`` (``main.py``); the gradients are not clipped.

    ``n = tanh(Wh x + Uh (r h') + bh)``, ``h = z h' + (1-z) n``.

    Parameters
    ----------
    inputs, targets : sequences of T ints
        Ids in [0, V).
    hprev : array (H, 1)
    Wy : array (V, H)
    Wh, Wr, Wz : arrays (H, V)
    Uh, Ur, Uz : arrays (H, H)
    by, bh, br, bz : arrays (V, 1), and (H, 1)

    Returns
    -------
    loss : float64
    dWy, dWh, dWr, dWz, dUh, dUr, dUz, dby, dbh, dbr, dbz : ndarrays like the weights
    h : ndarray (H, 1)
        The last state.
    """
    arguments = dict(zip(_GRU_AXES, (hprev, Wy, Wh, Wr, Wz, Uh, Ur, Uz, by, bh, br, bz), strict=True))
    hprev, Wy, Wh, Wr, Wz, Uh, Ur, Uz, by, bh, br, bz = sized_values(arguments, _GRU_AXES)
    weights = stack([Wr, Wz, Wh]), stack([Ur, Uz, Uh]), row(br, bz, bh)
    ids = clean_ids("inputs", inputs, len(weights[0]))
    h, h_n, cache = functional.gru_forward(ids[:, None], *weights, row(hprev)[None], update="old")
    loss, dh, dWy, dby = _head(h, Wy, by, targets)
    g = functional.gru_backward(dh, cache)
    dWr, dWz, dWh = unstack(g.dWx, 3)
    dUr, dUz, dUh = unstack(g.dWh, 3)
    dbr, dbz, dbh = (gradient.copy() for gradient in g.db.reshape(3, -1, 1))
    return loss, dWy, dWh, dWr, dWz, dUh, dUr, dUz, dby, dbh, dbr, dbz, h_n.T


def rnn_step(
    ids: Array, targets: list[int], hprev: Array, table: Array, Whh: Array, Why: Array, bh: Array, by: Array
) -> tuple[float, tuple[Array, ...], Array]:
    """Compute loss, clipped gradients and last state of one text, for ``min-char-rnn`` and Dinosaurus Island.

    ids (T,) in [0, D); table (D, H): the columns of Wxh as rows, C-contiguous; the others as in :func:`char_rnn_loss`
    -> loss, (dtable (D, H), dWhh, dWhy, dbh, dby), h (H, 1); the gradients are views of one array
    """
    (D, H), V = table.shape, np.shape(Why)[0]
    h, h_n, cache = functional.rnn_forward(ids[:, None], table, transposed(Whh), row(bh), row(hprev)[None])
    together = np.zeros((D + H + V + 1) * H + V)
    dtable, dWhh, dWhy, dbh, dby = _parts(together, (D, H), (H, H), (V, H), (H, 1), (V, 1))
    loss, dh, _, _ = _head(h, Why, by, targets, dWhy, dby)
    into = {"dWx": dtable, "dWh": dWhh.T, "db": dbh.reshape(-1)}
    calls.backward_side_by_side(cells.RNN, [{"dh": dh, "cache": cache}], [into])
    np.clip(together, -CLIP, CLIP, out=together)
    return loss, (dtable, dWhh, dWhy, dbh, dby), h_n.T


def _parts(array: Array, *shapes: Any) -> Iterator[Any]:
    """Split a flat array into consecutive views of these shapes."""
    begin = 0
    for rows, columns in shapes:
        end = begin + rows * columns
        yield array[begin:end].reshape(rows, columns)
        begin = end


def _head(
    h: Array, Wy: Array, by: Array, targets: list[int], dWy: Array | None = None, dby: Array | None = None
) -> tuple[Any, Array, Array, Array]:
    """h (T, 1, H) -> loss, dh (T, 1, H), dWy (V, H), dby (V, 1); the last two, if given, must start as zeros."""
    (T, _, H), V = h.shape, np.shape(Wy)[0]
    targets = list(checks.sequence("targets", targets))
    if len(targets) < T:
        raise ValueError(f"targets must be as many as inputs, {T}; got {len(targets)}")
    targets = clean_ids("targets", targets[:T], V)
    if dWy is None or dby is None:
        dWy, dby = np.zeros((V, H)), np.zeros((V, 1))
    gradients = dWy.T, dby.reshape(-1)
    losses, dh_rows = native.softmax_head(h.reshape(T, H), transposed(Wy), row(by), targets, np.ones(T), *gradients)
    return losses.sum(), np.asarray(dh_rows).reshape(T, 1, H), dWy, dby


# ---- batches, time first --------------------------------------------------------------------------------------------


class _LSTMCache(dict[str, Any]):
    """The dict of the original, with X and what ``LSTM.backward`` needs besides.

    The entries that backward does not need are computed when they are asked for: one by its key, all of them by what
    goes through the dict.
    """

    _missing = frozenset({"Hin", "IFOG", "IFOGf", "Ct"})

    def __missing__(self, key: str) -> Array:
        if key not in self._missing:
            raise KeyError(key)
        if key == "Hin":
            X, before = self["X"], np.concatenate([self["h0"][None], self["Hout"]])[:-1]
            value = np.concatenate([np.ones((*X.shape[:2], 1)), X, before], axis=-1)
        elif key == "IFOG":
            value = self["Hin"] @ self["WLSTM"]
        elif key == "IFOGf":
            value = self["engine"].gates
        else:
            value = np.tanh(self["C"])
        self[key] = value
        return value

    def __contains__(self, key: object) -> bool:
        return key in self._missing or super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default

    def complete(self) -> None:
        """Compute the entries that are missing."""
        for key in self._missing:
            self[key]
        self._missing = frozenset()


def _completed(name: str) -> Callable[..., Any]:
    """The method of a dict, on a cache in which no entry is missing."""
    method = getattr(dict, name)

    @wraps(method)
    def call(self: _LSTMCache, *arguments: Any, **options: Any) -> Any:
        self.complete()
        return method(self, *arguments, **options)

    return call


for _name in (
    *("__delitem__", "__eq__", "__iter__", "__len__", "__ne__", "__or__", "__repr__", "__reversed__", "__ror__"),
    *("clear", "copy", "items", "keys", "pop", "popitem", "setdefault", "values"),
):
    setattr(_LSTMCache, _name, _completed(_name))


class LSTM:
    """karpathy's batched LSTM (gist 587454dc0146a6ae21fc): blocks i f o g, input row [1, x, h].

    Examples
    --------
    >>> WLSTM = LSTM.init(3, 5)
    >>> Hout, Cn, Hn, cache = LSTM.forward(np.ones((7, 2, 3)), WLSTM)
    >>> dX, dWLSTM, dc0, dh0 = LSTM.backward(np.ones_like(Hout), cache)
    >>> Hout.shape, dWLSTM.shape
    ((7, 2, 5), (9, 20))
    """

    @staticmethod
    def init(input_size: int, hidden_size: int, fancy_forget_bias_init: int = 3) -> Array:
        """Draw WLSTM (1 + I + d, 4d) from NumPy's global generator; row 0 is the bias, 0 except for the forget gate."""
        input_size, hidden_size = _sizes(input_size, hidden_size)
        fancy = checks.finite("fancy_forget_bias_init", fancy_forget_bias_init)
        WLSTM = np.random.randn(1 + input_size + hidden_size, 4 * hidden_size)  # noqa: NPY002
        WLSTM /= np.sqrt(input_size + hidden_size)
        WLSTM[0] = 0
        WLSTM[0, hidden_size : 2 * hidden_size] = fancy
        return WLSTM

    @staticmethod
    def forward(
        X: Array, WLSTM: Array, c0: Array | None = None, h0: Array | None = None
    ) -> tuple[Array, Array, Array, dict[str, Any]]:
        """X (n, b, I), WLSTM (1 + I + d, 4d), c0 and h0 (b, d) or None -> Hout (n, b, d), Cn, Hn (b, d), cache.

        cache is a dict with the keys of the original: WLSTM, Hout, IFOGf, IFOG, C, Ct, Hin, c0, h0.
        """
        X = numbers("X", X).astype(np.float64)
        Wx, Wh, b = _weights("WLSTM", WLSTM, X, 4)
        c0, h0 = (_state(name, state, X.shape[1], len(Wh)) for name, state in (("c0", c0), ("h0", h0)))
        Hout, (Hn, Cn), cache = functional.lstm_forward(X, Wx, Wh, b, h0, c0, gate_order="ifog")
        assert cache is not None  # a training call returns a cache
        return Hout, Cn, Hn, _LSTMCache(WLSTM=WLSTM, X=X, Hout=cache.h, C=cache.c, c0=c0, h0=h0, engine=cache)

    @staticmethod
    def backward(
        dHout_in: Array, cache: dict[str, Any], dcn: Array | None = None, dhn: Array | None = None
    ) -> tuple[Array, ...]:
        """dHout_in (n, b, d), dcn and dhn (b, d) or None -> dX (n, b, I), dWLSTM (1 + I + d, 4d), dc0, dh0 (b, d)."""
        return _backward(cells.LSTM, dHout_in, cache, "WLSTM", 4, dh_n=dhn, dc_n=dcn)


class GRU:
    """The GRU fork of :class:`LSTM`: blocks z r c, input row [1, x, h].

    ``c = tanh(x Wxc + (r h') Whc + bc)``, ``h = (1-z) h' + z c``.

    Examples
    --------
    >>> WGRU = GRU.init(3, 5)
    >>> Hout, Hn, cache = GRU.forward(np.ones((7, 2, 3)), WGRU)
    >>> dX, dWGRU, dh0 = GRU.backward(np.ones_like(Hout), cache)
    >>> Hout.shape, dWGRU.shape
    ((7, 2, 5), (9, 15))
    """

    @staticmethod
    def init(input_size: int, hidden_size: int) -> Array:
        """Draw WGRU (1 + I + d, 3d) from NumPy's global generator; row 0 is the bias, 0."""
        input_size, hidden_size = _sizes(input_size, hidden_size)
        WGRU = np.random.randn(1 + input_size + hidden_size, 3 * hidden_size)  # noqa: NPY002
        WGRU /= np.sqrt(input_size + hidden_size)
        WGRU[0] = 0
        return WGRU

    @staticmethod
    def forward(X: Array, WGRU: Array, h0: Array | None = None) -> tuple[Array, Array, dict[str, Any]]:
        """X (n, b, I), WGRU (1 + I + d, 3d), h0 (b, d) or None -> Hout (n, b, d), Hn (b, d), cache (a dict)."""
        X = numbers("X", X).astype(np.float64)
        Wx, Wh, b = _weights("WGRU", WGRU, X, 3)
        h0 = _state("h0", h0, X.shape[1], len(Wh))
        Hout, Hn, cache = functional.gru_forward(X, Wx, Wh, b, h0, gate_order="zrn")
        assert cache is not None  # a training call returns a cache
        return Hout, Hn, {"WGRU": WGRU, "X": X, "Hout": cache.h, "h0": h0, "engine": cache}

    @staticmethod
    def backward(dH: Array, cache: dict[str, Any], dhn: Array | None = None) -> tuple[Array, ...]:
        """dH (n, b, d), dhn (b, d) or None -> dX (n, b, I), dWGRU (1 + I + d, 3d), dh0 (b, d)."""
        return _backward(cells.GRU, dH, cache, "WGRU", 3, dh_n=dhn)


def _sizes(input_size: int, hidden_size: int) -> tuple[int, int]:
    input_size = checks.integer("input_size", input_size, least=1)
    hidden_size = checks.integer("hidden_size", hidden_size, least=1)
    checks.addressable(["input_size", "hidden_size"], [(1 + input_size + hidden_size, 4 * hidden_size)])
    return input_size, hidden_size


def _weights(name: str, W: Array, X: Array, G: int) -> tuple[Array, Array, Array]:
    """Split W (1 + I + d, G*d) into views Wx (I, G*d), Wh (d, G*d), b (G*d,)."""
    if X.ndim != 3:
        raise ValueError(f"X must be (n, b, I); got {X.shape}")
    W = numbers(name, W)
    end, shape = 1 + X.shape[2], W.shape
    if len(shape) != 2 or shape[1] % G or shape[0] != end + shape[1] // G:
        raise ValueError(f"{name} must be (1 + I + d, {G}d) with I = {X.shape[2]} as in X; got {shape}")
    W = np.asarray(W, np.float64)
    return W[1:end], W[end:], W[0]


def _state(name: str, state: Array | None, b: int, d: int) -> Array:
    return np.zeros((b, d)) if state is None else numbers(name, state).astype(np.float64)


def _cotangent(name: str, value: Array | None) -> Array | None:
    return None if value is None else numbers(name, value).astype(np.float64, copy=False)


def _backward(cell: Any, dH: Array, cache: dict[str, Any], name: str, G: int, **carried: Any) -> tuple[Array, ...]:
    """Return dX, dW, [dc0,] dh0, computed with the current weights, as in the originals."""
    keys = {name, "X", "engine"}
    if not isinstance(cache, dict) or not all(key in cache for key in keys) or not isinstance(cache["engine"], Cache):
        raise TypeError(f"cache must come from forward; got {type(cache).__name__}")
    weights = _weights(name, cache[name], numbers("X", cache["X"]), G)
    with checks.named(Wx=name, Wh=name, b=name):
        kept = cache["engine"].with_weights(*weights)
    end = 1 + len(weights[0])
    dW = np.zeros((end + len(weights[1]), len(weights[2])))
    into = {"dWx": dW[1:end], "dWh": dW[end:], "db": dW[0]}
    with checks.named(dh="dHout_in" if name == "WLSTM" else "dH", dh_n="dhn", dc_n="dcn"):
        arguments = {"cache": kept} | {key: _cotangent(key, value) for key, value in {"dh": dH, **carried}.items()}
        (g,) = calls.backward_side_by_side(cell, [arguments], [into])
    return g.dx, dW, *((g.dc0,) if hasattr(g, "dc0") else ()), g.dh0
