"""Building an RNN step by step: the functions of the deep learning course (course 5, week 1), on the engine.

Signatures, dict keys, the order of results and the caches are those of all editions: ``caches = (list, x)`` with one
tuple per step, (a_next, a_prev, xt, parameters) or (a_next, c_next, a_prev, c_prev, ft, it, cct, ot, xt, parameters).
Results are float64 and may be transposed views of fresh arrays. Inputs are never written to. The backward functions
use the values in the cache, and the weights in its ``parameters``, as they are at the time of the call. A list of steps
that was cut or assembled by hand works too.

Where the functions differ from solved notebooks, the notebooks are wrong:

* ``lstm_backward`` propagates through time: every step passes its gradients on to the step before. Most notebooks
  before 2021 (v1, v2, v3) sum the gradients of single steps; ``carry=False`` reproduces their numbers.
* ``y_pred`` subtracts the maximum of each column before ``exp``, not of the whole matrix, so it is never 0/0.
* ``lstm_cell_backward`` uses the weights in the cache; one popular copy reads globals.
* ``lstm_forward`` returns ``a`` and ``c`` as two arrays; one copy returns c as a.

The functions of Dinosaurus Island, some with the same names, are in :mod:`rnncore.compat.dinosaurus`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from itertools import repeat
from typing import Any

import numpy as np

from .. import checks, functional
from .._types import Array
from ..engine import cells, native
from ..engine.cache import Cache
from .layout import numbers, parts, row, rows, sized, sized_values, stack, transposed, unstack

__all__ = [
    "lstm_backward",
    "lstm_cell_backward",
    "lstm_cell_forward",
    "lstm_forward",
    "rnn_backward",
    "rnn_cell_backward",
    "rnn_cell_forward",
    "rnn_forward",
]

#: The gates in the engine's order, i f g o: their letters in the keys and their positions in a step's tuple.
_GATES, _PLACES = "ifco", (5, 4, 6, 7)

#: Axes of the values in ``parameters`` and of the other arguments of the forward functions.
_RNN_AXES = {"Wax": ("n_a", "n_x"), "Waa": ("n_a", "n_a"), "ba": ("n_a", "1")}
_LSTM_AXES = {f"W{gate}": ("n_a", "n_a + n_x") for gate in _GATES} | {f"b{gate}": ("n_a", "1") for gate in _GATES}
_CELL_AXES, _SEQUENCE_AXES = {"xt": ("n_x", "m")}, {"x": ("n_x", "m", "T_x")}
_RNN_OUTPUT_AXES, _LSTM_OUTPUT_AXES = ({key: ("n_y", "n_a"), "by": ("n_y", "1")} for key in ("Wya", "Wy"))
_STATE = "n_a", "m"
_RNN_CELL_AXES = _CELL_AXES | _RNN_AXES | _RNN_OUTPUT_AXES | {"a_prev": _STATE}
_RNN_FORWARD_AXES = _SEQUENCE_AXES | _RNN_AXES | _RNN_OUTPUT_AXES | {"a0": _STATE}
_LSTM_CELL_AXES = _CELL_AXES | _LSTM_AXES | _LSTM_OUTPUT_AXES | {"a_prev": _STATE, "c_prev": _STATE}
_LSTM_FORWARD_AXES = _SEQUENCE_AXES | _LSTM_AXES | _LSTM_OUTPUT_AXES | {"a0": _STATE}


# ---- RNN ------------------------------------------------------------------------------------------------------------


def rnn_cell_forward(
    xt: Array, a_prev: Array, parameters: dict[str, Array]
) -> tuple[Array, Array, tuple[Array, Array, Array, dict[str, Any]]]:
    """Compute one step ``a = tanh(Wax x + Waa a' + ba)``, ``y = softmax(Wya a + by)``.

    Parameters
    ----------
    xt : array (n_x, m)
    a_prev : array (n_a, m)
    parameters : dict
        Wax (n_a, n_x), Waa (n_a, n_a), Wya (n_y, n_a), ba (n_a, 1), by (n_y, 1).

    Returns
    -------
    a_next : ndarray (n_a, m)
    yt_pred : ndarray (n_y, m)
    cache : tuple (a_next, a_prev, xt, parameters)
    """
    x, *weights, Wya, by, a = sized_values(parameters, _RNN_CELL_AXES, xt=xt, a_prev=a_prev)
    h, _, _ = functional.rnn_forward(rows(x)[None], *_rnn_weights(*weights), rows(a), training=False)
    a_next = h[0].T
    return a_next, _predict(Wya, by, h)[:, :, 0], (a_next, a_prev, xt, parameters)


def rnn_forward(x: Array, a0: Array, parameters: dict[str, Array]) -> tuple[Array, Array, tuple[_Steps, Array]]:
    """Run :func:`rnn_cell_forward` over a sequence.

    Parameters
    ----------
    x : array (n_x, m, T_x)
    a0 : array (n_a, m)
    parameters : dict
        As for one step.

    Returns
    -------
    a : ndarray (n_a, m, T_x)
    y_pred : ndarray (n_y, m, T_x)
    caches : tuple (list of T_x step caches, x)

    Examples
    --------
    >>> shapes = {"Wax": (5, 3), "Waa": (5, 5), "Wya": (2, 5), "ba": (5, 1), "by": (2, 1)}
    >>> parameters = {key: np.ones(shape) for key, shape in shapes.items()}
    >>> a, y_pred, caches = rnn_forward(np.ones((3, 10, 4)), np.zeros((5, 10)), parameters)
    >>> a.shape, y_pred.shape, len(caches[0]), len(caches[0][3])
    ((5, 10, 4), (2, 10, 4), 4, 4)
    >>> gradients = rnn_backward(np.ones(a.shape), caches)
    >>> sorted(gradients), gradients["dx"].shape
    (['dWaa', 'dWax', 'da0', 'dba', 'dx'], (3, 10, 4))
    """
    given, *weights, Wya, by, h0 = sized_values(parameters, _RNN_FORWARD_AXES, x=x, a0=a0)
    given = given.view()  # the caller may reshape its own array in place
    h, _, cache = functional.rnn_forward(_time_first(given), *_rnn_weights(*weights), rows(h0))
    assert cache is not None  # a training call returns a cache
    kept = cache.take()["h"]
    a = list(kept.transpose(0, 2, 1))
    steps = zip(a, [a0, *a[:-1]], _inputs(given), repeat(parameters))
    return _as_given(h), _predict(Wya, by, h), (_Steps(steps, given, a0, h=kept), x)


def rnn_cell_backward(da_next: Array, cache: tuple[Array, Array, Array, dict[str, Array]]) -> dict[str, Array]:
    """Gradients of :func:`rnn_cell_forward`.

    da_next (n_a, m), cache of the step -> dict dxt (n_x, m), da_prev (n_a, m), dWax, dWaa, dba.
    """
    cache = parts(cache, 4, "rnn_cell_forward")
    gradients = _rnn_gradients(rows(_of_a_step("da_next", da_next, cache))[None], _Run([cache], _RNN))
    dx, da_prev = gradients.pop("dx"), gradients.pop("da0")
    return {"dxt": dx[:, :, 0], "da_prev": da_prev, **gradients}


def rnn_backward(da: Array, caches: tuple[Any, ...]) -> dict[str, Array]:
    """Gradients of :func:`rnn_forward` by back-propagation through time.

    Parameters
    ----------
    da : array (n_a, m, T)
        T may be less than T_x, for a loss of the first T steps.
    caches : tuple (list of step caches, x)

    Returns
    -------
    dict
        dx (n_x, m, T), da0 (n_a, m), dWax, dWaa, dba like the parameters.
    """
    steps = _steps_of(caches, 4, "rnn_forward")
    dh = _time_first(_of_steps(da, steps))
    run = _Run.of(steps, len(dh), _RNN)
    if run is not None:
        return _rnn_gradients(dh, run)
    return _step_by_step(dh, steps, lambda da, _, step: rnn_cell_backward(da, step), True)


def _rnn_weights(Wax: Array, Waa: Array, ba: Array) -> tuple[Array, Array, Array]:
    """Return Wx, Wh, b in the engine's layout."""
    return transposed(Wax), transposed(Waa), row(ba)


def _rnn_gradients(dh: Array, run: _Run) -> dict[str, Array]:
    weights = _rnn_weights(*sized_values(run.parameters, _RNN_AXES))
    g = functional.rnn_backward(dh, run.cache(cells.RNN, weights))
    dWax, dWaa, dba = g.dWx.T, g.dWh.T, g.db[:, None]
    return {"dx": _as_given(g.dx), "da0": g.dh0.T, "dWax": dWax, "dWaa": dWaa, "dba": dba}


# ---- LSTM -----------------------------------------------------------------------------------------------------------


def lstm_cell_forward(
    xt: Array, a_prev: Array, c_prev: Array, parameters: dict[str, Array]
) -> tuple[Array, Array, Array, tuple[Any, ...]]:
    """Compute one step: ``f, i, o = sigmoid(W [a'; x] + b)``, ``cc = tanh(.)``, ``c = f c' + i cc``, ``a = o tanh(c)``.

    Parameters
    ----------
    xt : array (n_x, m)
    a_prev, c_prev : arrays (n_a, m)
    parameters : dict
        Wf, Wi, Wc, Wo (n_a, n_a + n_x), bf, bi, bc, bo (n_a, 1), Wy (n_y, n_a), by (n_y, 1).

    Returns
    -------
    a_next, c_next : ndarrays (n_a, m)
    yt_pred : ndarray (n_y, m)
    cache : tuple (a_next, c_next, a_prev, c_prev, ft, it, cct, ot, xt, parameters)
    """
    sizes: dict[str, int] = {}
    arrays = sized_values(parameters, _LSTM_CELL_AXES, sizes, xt=xt, a_prev=a_prev, c_prev=c_prev)
    x, *weights, Wy, by, h0, c0 = arrays
    h, _, cache = functional.lstm_forward(rows(x)[None], *_lstm_weights(weights, sizes), rows(h0), rows(c0))
    assert cache is not None  # a training call returns a cache
    kept = cache.take()
    a_next, c_next = h[0].T, kept["c"][0].T
    it, ft, cct, ot = _gates(kept["gates"])
    y = _predict(Wy, by, h)[:, :, 0]
    return a_next, c_next, y, (a_next, c_next, a_prev, c_prev, ft[0], it[0], cct[0], ot[0], xt, parameters)


def lstm_forward(x: Array, a0: Array, parameters: dict[str, Array]) -> tuple[Array, Array, Array, tuple[_Steps, Array]]:
    """Run :func:`lstm_cell_forward` over a sequence, from c = 0.

    Parameters
    ----------
    x : array (n_x, m, T_x)
    a0 : array (n_a, m)
    parameters : dict
        As for one step.

    Returns
    -------
    a : ndarray (n_a, m, T_x)
    y : ndarray (n_y, m, T_x)
    c : ndarray (n_a, m, T_x)
    caches : tuple (list of T_x step caches, x)

    Examples
    --------
    >>> parameters = {"Wy": np.ones((2, 5)), "by": np.zeros((2, 1))}
    >>> for gate in "fico":
    ...     parameters |= {f"W{gate}": np.ones((5, 8)), f"b{gate}": np.zeros((5, 1))}
    >>> a, y, c, caches = lstm_forward(np.ones((3, 10, 7)), np.zeros((5, 10)), parameters)
    >>> a.shape, y.shape, c.shape, len(caches[0]), len(caches[0][0])
    ((5, 10, 7), (2, 10, 7), (5, 10, 7), 7, 10)
    >>> lstm_backward(np.ones((5, 10, 4)), caches)["dx"].shape
    (3, 10, 4)
    """
    sizes: dict[str, int] = {}
    given, *weights, Wy, by, h0 = sized_values(parameters, _LSTM_FORWARD_AXES, sizes, x=x, a0=a0)
    given = given.view()  # the caller may reshape its own array in place
    h, _, cache = functional.lstm_forward(_time_first(given), *_lstm_weights(weights, sizes), rows(h0))
    assert cache is not None  # a training call returns a cache
    kept = cache.take()
    c0 = np.zeros(h.shape[1:]).T
    a, c = (list(kept[name].transpose(0, 2, 1)) for name in ("h", "c"))
    it, ft, cct, ot = _gates(kept["gates"])
    steps = zip(a, c, [a0, *a[:-1]], [c0, *c[:-1]], ft, it, cct, ot, _inputs(given), repeat(parameters))
    y = _predict(Wy, by, h)
    return _as_given(h), y, _as_given(kept["c"].copy()), (_Steps(steps, given, a0, c0, **kept), x)


def lstm_cell_backward(da_next: Array, dc_next: Array, cache: tuple[Any, ...]) -> dict[str, Array]:
    """Gradients of :func:`lstm_cell_forward`.

    da_next, dc_next (n_a, m), cache of the step -> dict dxt (n_x, m), da_prev, dc_prev (n_a, m), and dWf, dbf, dWi,
    dbi, dWc, dbc, dWo, dbo.
    """
    cache = parts(cache, 10, "lstm_cell_forward")
    da_next, dc_next = (
        rows(_of_a_step(name, value, cache)) for name, value in (("da_next", da_next), ("dc_next", dc_next))
    )
    gradients = _lstm_gradients(da_next[None], _Run([cache], _LSTM), dc_next)
    dx, da_prev = gradients.pop("dx"), gradients.pop("da0")
    return {"dxt": dx[:, :, 0], "da_prev": da_prev, "dc_prev": gradients.pop("dc0"), **gradients}


def lstm_backward(da: Array, caches: tuple[Any, ...], *, carry: bool = True) -> dict[str, Array]:
    """Gradients of :func:`lstm_forward` by back-propagation through time.

    Parameters
    ----------
    da : array (n_a, m, T)
        T may be less than T_x, for a loss of the first T steps.
    caches : tuple (list of step caches, x)
    carry : bool, default True
        False sums the gradients of single steps, treating each as the last one. Notebooks before 2021 print these
        numbers, but they are not the gradients of any loss of the sequence.

    Returns
    -------
    dict
        dx (n_x, m, T), da0 (n_a, m), dWf, dbf, dWi, dbi, dWc, dbc, dWo, dbo like the parameters.
    """
    carry = checks.flag("carry", carry)
    steps = _steps_of(caches, 10, "lstm_forward")
    dh = _time_first(_of_steps(da, steps))
    run = _Run.of(steps, len(dh), _LSTM)
    if run is None:
        return _step_by_step(dh, steps, lstm_cell_backward, carry)
    if carry or not len(dh):
        gradients = _lstm_gradients(dh, run)
    else:
        # The steps are independent: compute them as one step of a batch T times as large.
        T, m, n_a = dh.shape
        gradients = _lstm_gradients(dh.reshape(1, T * m, n_a), run.side_by_side())
        gradients["dx"] = _as_given(gradients["dx"][:, :, 0].T.reshape(T, m, -1))
        gradients["da0"] = gradients["da0"][:, :m].copy()
    del gradients["dc0"]
    return gradients


def _lstm_weights(arrays: list[Array], sizes: dict[str, int]) -> tuple[Array, Array, Array]:
    """W and b of all gates -> Wx, Wh, b of the engine"""
    n_a, columns = sizes["n_a"], sizes["n_a + n_x"]
    if sizes.setdefault("n_x", columns - n_a) != columns - n_a:
        raise ValueError(f"W{_GATES[0]} must be (n_a, n_a + n_x) = {(n_a, n_a + sizes['n_x'])}; got {(n_a, columns)}")
    W = stack(arrays[:4])
    return W[n_a:], W[:n_a], row(*arrays[4:])


def _gates(gates: Array) -> list[list[Array]]:
    """gates (T, m, 4 n_a) -> four lists of T views (n_a, m)."""
    T, m, K = gates.shape
    return [list(gate) for gate in gates.reshape(T, m, 4, K // 4).transpose(2, 0, 3, 1)]


def _lstm_gradients(dh: Array, run: _Run, dc_n: Array | None = None) -> dict[str, Array]:
    sizes: dict[str, int] = {}
    weights = _lstm_weights(sized_values(run.parameters, _LSTM_AXES, sizes), sizes)
    cache = run.cache(cells.LSTM, weights)
    g = functional.lstm_backward(dh, cache, dc_n=dc_n)
    gradients = {"dx": _as_given(g.dx), "da0": g.dh0.T, "dc0": g.dc0.T}
    dW = dict(zip(_GATES, unstack(np.concatenate([g.dWh, g.dWx]), 4), strict=True))
    db = dict(zip(_GATES, g.db.reshape(4, -1, 1), strict=True))
    for gate in "fico":
        gradients[f"dW{gate}"], gradients[f"db{gate}"] = dW[gate], db[gate]
    return gradients


# ---- caches ---------------------------------------------------------------------------------------------------------

# Positions in a step's tuple: a_next, a_prev, c_next, c_prev, xt.
_RNN, _LSTM = (0, 1, None, None, 2), (0, 2, 1, 3, 8)


class _Steps(list[Any]):
    """List of step caches that are views of time-major arrays h, gates, c; keeps these arrays too."""

    __slots__ = ("a0", "arrays", "c0", "made", "x")

    def __init__(self, steps: Any, x: Array, a0: Array, c0: Array | None = None, **arrays: Any) -> None:
        super().__init__(steps)
        self.made, self.x, self.a0, self.c0, self.arrays = tuple(self), x, a0, c0, arrays

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        # In a copy the steps would no longer be views of the arrays.
        return list, (list(self),)

    def untouched(self, T: int) -> bool:
        """Whether the first T steps are still the ones it was made with."""
        return all(map(operator.is_, self[:T], self.made))


class _Run:
    """T steps in the engine's layout, each of which starts from the final state of the one before."""

    def __init__(self, steps: list[Any], places: tuple[Any, ...], whole: _Steps | None = None) -> None:
        """steps: at least one tuple; whole: the _Steps that begin with them, untouched."""
        a, a_prev, c, c_prev, xt = places
        first, T = steps[0], len(steps)
        self.parameters = first[-1]
        self.h0, self.c0 = rows(first[a_prev]), None if c is None else rows(first[c_prev])
        self.gates = self.c = None
        if whole is not None:
            self.x = _time_first(whole.x[:, :, :T])
            self.h, self.gates, self.c = map(whole.arrays.get, ("h", "gates", "c"))
            return
        self.x, self.h = (np.stack([rows(step[place]) for step in steps]) for place in (xt, a))
        if c is not None:
            self.c = np.stack([rows(step[c]) for step in steps])
            gates = ([rows(step[place]) for place in _PLACES] for step in steps)
            self.gates = np.stack([np.concatenate(gate, axis=1) for gate in gates])

    @classmethod
    def of(cls, steps: _Steps | list[Any], T: int, places: tuple[Any, ...]) -> _Run | None:
        """Make a run of the first T steps; None if they are not consecutive or have different parameters."""
        if T > len(steps) or not len(steps):
            raise ValueError(f"da has {T} steps, caches {len(steps)}")
        if isinstance(steps, _Steps) and steps.untouched(max(T, 1)):
            return cls(steps[:T] or steps[:1], places, steps)._first(T)
        a, a_prev, c, c_prev, _ = places
        for before, step in zip(steps[: T - 1] if T else [], steps[1:T], strict=True):
            pairs = [(before[a], step[a_prev])] + ([] if c is None else [(before[c], step[c_prev])])
            if step[-1] is not before[-1] or not all(p is q or np.array_equal(p, q) for p, q in pairs):
                return None
        return cls(steps[:T] or steps[:1], places)._first(T)

    def _first(self, T: int) -> _Run:
        for name in ("x", "h", "gates", "c"):
            array = getattr(self, name)
            setattr(self, name, None if array is None else array[:T])
        return self

    def side_by_side(self) -> _Run:
        """Turn the T steps into one step of T*m rows, in place; return self."""
        before = {"h0": ("h", self.h0), "c0": ("c", self.c0)}
        for name, (states, first) in before.items():
            value = np.concatenate([np.asarray(first)[None], getattr(self, states)[:-1]])
            setattr(self, name, value.reshape(-1, value.shape[-1]))
        for name in ("x", "h", "gates", "c"):
            value = getattr(self, name)
            setattr(self, name, np.ascontiguousarray(value).reshape(1, -1, value.shape[-1]))
        return self

    def cache(self, cell: Any, weights: tuple[Array, Array, Array]) -> Cache:
        """Build the cache of the engine's forward pass, with these weights."""
        saved = {name: getattr(self, name) for name in ("x", "h", "h0", "gates", "c", "c0")}
        return Cache.from_arrays(cell.variant(), weights, **saved)


def _step_by_step(
    dh: Array, steps: _Steps | list[Any], cell_backward: Callable[..., Any], carry: bool
) -> dict[str, Array]:
    """Run the backward pass one step at a time, for steps that do not form one run; dh (T, m, n_a)."""
    T, (m, n_a) = len(dh), dh.shape[1:]
    da_carried, dc_carried = np.zeros((n_a, m)), np.zeros((n_a, m))
    total: dict[str, Array] = {}
    dx: list[Any] = [None] * T
    for t in reversed(range(T)):
        g = cell_backward(dh[t].T + da_carried, dc_carried, steps[t])
        dx[t], da_prev, dc_prev = g.pop("dxt"), g.pop("da_prev"), g.pop("dc_prev", None)
        if carry:
            da_carried, dc_carried = da_prev, dc_prev
        for key, gradient in g.items():
            total[key] = total[key] + gradient if key in total else gradient
    return {"dx": np.stack(dx, axis=2), "da0": da_prev, **total}


# ---- layout ---------------------------------------------------------------------------------------------------------


def _of_a_step(name: str, value: Array, step: tuple[Any, ...]) -> Array:
    """Return the gradient (n_a, m) of an output of a step; a number is broadcast."""
    n_a, m = np.shape(step[0])
    array = numbers(name, value)
    return np.full((n_a, m), array) if array.ndim == 0 else sized(name, array, ("n_a", "m"), {"n_a": n_a, "m": m})


def _steps_of(caches: tuple[Any, ...], count: int, maker: str) -> _Steps | list[Any]:
    """Return the list of steps, tuples of so many parts."""
    steps, _ = parts(caches, 2, maker, "caches")
    if isinstance(steps, _Steps):
        return steps
    checks.instance("caches[0]", steps, list, "a list of steps")
    return [parts(step, count, maker, f"caches[0][{t}]") for t, step in enumerate(steps)]


def _of_steps(da: Array, steps: _Steps | list[Any]) -> Array:
    """Return da (n_a, m, T)."""
    if not len(steps):
        return numbers("da", da)
    n_a, m = np.shape(steps[0][0])
    return sized("da", da, ("n_a", "m", "T"), {"n_a": n_a, "m": m})


def _time_first(array: Array) -> Array:
    """(n, m, T) -> float64 (T, m, n), C-contiguous"""
    return native.time_first(np.asarray(array, np.float64))


def _as_given(array: Any) -> Array:
    """(T, m, n) -> (n, m, T), a view"""
    return array.transpose(2, 1, 0)


def _inputs(x: Array) -> list[Array]:
    """x (n_x, m, T) -> list of T views (n_x, m)"""
    return list(np.asarray(x).transpose(2, 0, 1))


@np.errstate(over="ignore", invalid="ignore")  # of what is infinite
def _predict(W: Array, b: Array, h: Array) -> Array:
    """softmax(W a + b) over the first axis: W (n_y, n_a), b (n_y, 1), h (T, m, n_a) -> (n_y, m, T)"""
    T, m, n_a = h.shape
    y = np.asarray(W, np.float64) @ h.reshape(T * m, n_a).T
    y += np.asarray(b)
    y -= np.maximum.reduce(y)
    np.exp(y, out=y)
    y /= np.add.reduce(y)
    return y.reshape(len(y), T, m).transpose(0, 2, 1)
