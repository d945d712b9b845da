"""Tools for a model of one's own: check its gradients, and compare it with the code that replaces its loop."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import checks
from ._types import Array
from .engine.arrays import as_array

__all__ = ["Pair", "assert_gradients", "assert_same_results", "benchmark_pair", "interleaved_medians"]

#: Largest difference by the narrower dtype, relative to the largest value, or to 1: what two right computations of a
#: hundred steps, which sum in different orders, stay within.
TOLERANCE = {"float64": 1e-10, "float32": 1e-4, "float16": 1e-2}


# ---- gradients --------------------------------------------------------------------------------------------------


def assert_gradients(
    loss: Callable[[], float],
    parameters: Mapping[str, Array],
    gradients: Mapping[str, npt.ArrayLike],
    *,
    directions: int | None = 5,
    step: float = 1e-5,
    rtol: float = 1e-6,
    atol: float = 1e-8,
    random_state: int = 0,
) -> None:
    """Assert that gradients are the derivatives of a loss.

    Compares them with central differences, (L(p + s v) - L(p - s v)) / 2s, along random directions v of each
    parameter: a single wrong entry shows in every direction.

    Parameters
    ----------
    loss : callable
        Returns the loss of the current parameters; takes no arguments. It must use `parameters` themselves, and the
        same data and random numbers in every call.
    parameters : mapping of str to float64 array
        Changed in place while the loss is computed, and restored.
    gradients : mapping of str to array
        dL/dp by the same names, each of the shape of its parameter.
    directions : int or None
        Random directions for each parameter, two calls of `loss` for each. None: every single entry, which also says
        which one is wrong.
    step : float
        s, the distance of the two points from p.
    rtol, atol : float
        Largest error, relative to the largest derivative of the parameter, and absolute. With `step` 1e-5 the
        differences themselves are good to about 1e-9 of a loss of size 1.
    random_state : int
        Seed of the directions.

    Raises
    ------
    AssertionError
        A gradient is wrong; the message names the parameter and shows both values.
    TypeError, ValueError
        A parameter is not a float64 array that can be written to, or the names or shapes do not match.

    Examples
    --------
    >>> W, x = np.array([[1.0, -2.0]]), np.array([0.5, 2.0])
    >>> def loss():
    ...     return (W @ x)[0] ** 2
    >>> assert_gradients(loss, {"W": W}, {"W": 2 * (W @ x) * x[None]})
    >>> assert_gradients(loss, {"W": W}, {"W": (W @ x) * x[None]}, directions=None)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    AssertionError: the gradient of W is wrong: at (0, 0) it is -1.75, the loss says -3.5... (2 of 2 differ)
    """
    checks.callable_("loss", loss)
    checks.instance("parameters", parameters, Mapping, "a dict of arrays")
    checks.instance("gradients", gradients, Mapping, "a dict of arrays")
    if set(parameters) != set(gradients):
        raise ValueError(f"gradients must have the names of parameters, {sorted(parameters)}; got {sorted(gradients)}")
    given = {name: as_array(f"gradients[{name!r}]", gradients[name]) for name in parameters}
    for name, parameter in parameters.items():
        if not isinstance(parameter, np.ndarray) or parameter.dtype != np.float64 or not parameter.flags.writeable:
            found = parameter.dtype if isinstance(parameter, np.ndarray) else type(parameter).__name__
            raise TypeError(f"parameters[{name!r}] must be a writable float64 array; got {found}")
        if given[name].shape != parameter.shape:
            raise ValueError(f"gradients[{name!r}] must be {parameter.shape}; got {given[name].shape}")
        if given[name].dtype.kind not in "biuf":
            raise TypeError(f"gradients[{name!r}] must be real numbers; got dtype {given[name].dtype}")
    rng = checks.generator("random_state", random_state)
    directions = None if directions is None else checks.integer("directions", directions, least=1)
    step, rtol, atol = (
        checks.positive("step", step),
        checks.not_negative("rtol", rtol),
        checks.not_negative("atol", atol),
    )
    for name, parameter in parameters.items():
        if directions is None:
            places = list(np.ndindex(parameter.shape))
            vectors = np.eye(parameter.size).reshape(parameter.size, *parameter.shape)
        else:
            places = []
            vectors = rng.normal(size=(directions, *parameter.shape))
            vectors /= np.sqrt((vectors**2).sum(axis=tuple(range(1, vectors.ndim)), keepdims=True))
        claimed = np.array([np.vdot(vector, given[name]) for vector in vectors])
        numeric = np.array([_derivative(loss, parameter, vector, step) for vector in vectors])
        # A NaN is no difference: it must not pass.
        wrong = ~(np.abs(claimed - numeric) <= rtol * np.abs(numeric).max(initial=0) + atol)
        if wrong.any():
            first = int(np.argmax(wrong))
            where = f"at {places[first]}" if places else "along a random direction"
            raise AssertionError(
                f"the gradient of {name} is wrong: {where} it is {claimed[first]:.9g}, "
                f"the loss says {numeric[first]:.9g} ({wrong.sum()} of {len(vectors)} differ)"
            )


def _derivative(loss: Callable[[], float], parameter: Array, vector: Array, step: float) -> float:
    saved = parameter.copy()
    values = []
    try:
        for side in (step, -step):
            parameter[...] = saved + side * vector
            values.append(float(loss()))
    finally:
        parameter[...] = saved
    return (values[0] - values[1]) / (2 * step)


# ---- results ----------------------------------------------------------------------------------------------------


def assert_same_results(found: Any, wanted: Any, tolerance: float | None = None) -> None:
    """Assert that two results are equal up to rounding.

    Parameters
    ----------
    found, wanted : array, number, None, or dicts, lists and tuples of them
        A tuple, a named tuple and a list are alike, and an array and a list of its values.
    tolerance : float, optional
        Largest difference, relative to the largest value of the array in `wanted`, or to 1. By default 1e-10 in
        float64, 1e-4 where one of the two is float32.

    Raises
    ------
    AssertionError
        The message names the part that differs, and by how much.

    Examples
    --------
    >>> assert_same_results((np.ones(2), {"c": 1.0}), [np.ones(2), {"c": 1.0 + 1e-15}])
    >>> assert_same_results({"h": np.zeros(2)}, {"h": np.array([0.0, 0.5])})
    Traceback (most recent call last):
        ...
    AssertionError: result['h'] differs by 0.5; allowed: 1e-10
    """
    tolerance = checks.optional(checks.not_negative)("tolerance", tolerance)
    _compare(found, wanted, tolerance, "result")


def _compare(found: Any, wanted: Any, tolerance: float | None, name: str) -> None:
    if isinstance(wanted, Mapping):
        keys = sorted(found, key=str) if isinstance(found, Mapping) else type(found).__name__
        if keys != sorted(wanted, key=str):
            raise AssertionError(f"{name} must have the keys {sorted(wanted, key=str)}; got {keys}")
        for key in wanted:
            _compare(found[key], wanted[key], tolerance, f"{name}[{key!r}]")
    elif isinstance(wanted, list | tuple) and not isinstance(found, np.ndarray):
        if not isinstance(found, list | tuple) or len(found) != len(wanted):
            count = len(found) if isinstance(found, list | tuple) else type(found).__name__
            raise AssertionError(f"{name} must have {len(wanted)} parts; got {count}")
        for k, (a, b) in enumerate(zip(found, wanted, strict=True)):
            _compare(a, b, tolerance, f"{name}[{k}]")
    elif wanted is None or found is None:
        if found is not wanted:
            raise AssertionError(f"{name} is {found!r}, and should be {wanted!r}")
    else:
        _compare_arrays(as_array(name, found), as_array(name, wanted), tolerance, name)


def _compare_arrays(found: Array, wanted: Array, tolerance: float | None, name: str) -> None:
    if found.shape != wanted.shape:
        raise AssertionError(f"{name} must be {wanted.shape}; got {found.shape}")
    if found.dtype.kind not in "fiub" or wanted.dtype.kind not in "fiub":
        if found.dtype.kind != wanted.dtype.kind or not np.array_equal(found, wanted):
            raise AssertionError(f"{name} differs: {found!r}, and should be {wanted!r}")
        return
    if tolerance is None:
        tolerance = max(TOLERANCE.get(array.dtype.name, TOLERANCE["float64"]) for array in (found, wanted))
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    finite = np.abs(b[np.isfinite(b)])
    difference = np.abs(np.where(same, 0.0, a) - np.where(same, 0.0, b)).max(initial=0)
    allowed = tolerance * max(1.0, finite.max(initial=0))
    if not difference <= allowed:  # NaN too
        raise AssertionError(f"{name} differs by {difference:.3g}; allowed: {allowed:.3g}")


# ---- times ------------------------------------------------------------------------------------------------------


def interleaved_medians(
    calls: Sequence[Callable[[], Any]], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Call all in rounds for ``seconds`` each, at least five times; return the median seconds of each.

    Each round has a random order: a call that always follows one with the same arrays finds them in cache. Every call
    is made once before, unmeasured. On a busy machine the clock ``time.thread_time`` counts only what calls on one
    thread compute.
    """
    seconds = checks.not_negative("seconds", seconds)
    calls = [checks.callable_(f"calls[{n}]", call) for n, call in enumerate(checks.sequence("calls", calls))]
    checks.callable_("clock", clock)
    if not calls:
        raise ValueError("calls must hold at least one; got none")
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    order = random.Random(0)
    begin = time.perf_counter()
    while len(times[0]) < 5 or time.perf_counter() - begin < seconds * len(calls):
        for place in order.sample(range(len(calls)), len(calls)):
            start = clock()
            calls[place]()
            times[place].append(clock() - start)
    return [float(np.median(seen)) for seen in times]


@dataclass(frozen=True)
class Pair:
    """Median seconds of two calls that do the same; printed as their times and ratio."""

    original: float
    replacement: float

    @property
    def speedup(self) -> float:
        """How many times as fast the replacement is."""
        return self.original / self.replacement

    def __str__(self) -> str:
        times = f"original {_duration(self.original)}, replacement {_duration(self.replacement)}"
        return f"{times}: {self.speedup:.2f} times as fast"


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def benchmark_pair(
    original: Callable[[], Any],
    replacement: Callable[[], Any],
    *,
    seconds: float = 0.5,
    tolerance: float | None = None,
) -> Pair:
    """Check that two calls return the same, then time them in turn.

    Rounds are interleaved, so that a machine that gets slower in between slows both; the medians of the rounds count.
    Pin the threads of the BLAS first (``OMP_NUM_THREADS=1``, set before NumPy is imported) to compare one thread with
    one thread.

    Parameters
    ----------
    original, replacement : callable
        Take no arguments and return what they compute: arrays, or dicts, lists and tuples of arrays.
    seconds : float
        How long to measure each of the two, at least five rounds.
    tolerance : float, optional
        Of :func:`assert_same_results`.

    Returns
    -------
    Pair
        ``original`` and ``replacement`` in seconds, and ``speedup``.

    Raises
    ------
    AssertionError
        The two return different results.

    Examples
    --------
    >>> import rnncore as rc
    >>> x, Wx, Wh, b = np.ones((9, 2, 3)), np.ones((3, 16)), np.ones((4, 16)), np.zeros(16)
    >>> pair = benchmark_pair(
    ...     lambda: rc.reference.lstm_forward(x, Wx, Wh, b)[:2], lambda: rc.lstm_forward(x, Wx, Wh, b)[:2], seconds=0.01
    ... )
    >>> print(pair)  # doctest: +ELLIPSIS
    original ..., replacement ...: ... times as fast
    """
    checks.callable_("original", original), checks.callable_("replacement", replacement)
    assert_same_results(replacement(), original(), tolerance)
    return Pair(*interleaved_medians([original, replacement], seconds))
