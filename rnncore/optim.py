"""Clipping of gradients, and optimisers that update NumPy arrays in place.

Letters in the equations: p parameter, g gradient of the loss with respect to p, a learning rate,
t step, counted from 1. All operations are elementwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from . import checks
from ._types import Array
from .engine import native
from .engine.arrays import as_array, check_writable

__all__ = ["SGD", "Adagrad", "Adam", "Optimizer", "RMSProp", "clip_by_global_norm", "clip_by_value"]


# The largest step of SGD with momentum is about their product; it must be below half a unit in the last place of the
# largest float32, 1e31, to which it may be added.
LARGE_NORM, LARGE_RATE = 1e15, 1e6


class NotFiniteError(ValueError):
    """A parameter would become infinite or NaN."""


Gradients = Mapping[str, Array] | Iterable[Array | None]


def clip_by_value(grads: Gradients, limit: float) -> None:
    """Bring every element into ``[-limit, limit]``, in place. NaN stays NaN.

    Parameters
    ----------
    grads : dict of ndarray, or iterable of ndarray
        None instead of an array is passed over.
    limit : float
        More than 0.

    Raises
    ------
    TypeError
        An entry of `grads` is not a floating-point array.
    ValueError
        ``limit <= 0``, or an array is read-only.

    Examples
    --------
    >>> grads = {"W": np.array([-7.0, 0.5, 3.0])}
    >>> clip_by_value(grads, 2)
    >>> grads["W"]
    array([-2. ,  0.5,  2. ])
    """
    limit = _number("limit", limit, above=0)
    for grad in _arrays(grads):
        with np.errstate(over="ignore"):  # beyond all numbers of the dtype
            np.clip(grad, -limit, limit, out=grad)


def clip_by_global_norm(grads: Gradients, max_norm: float) -> float:
    """Shrink all gradients by one factor, in place, such that their common norm is at most `max_norm`.

        norm = sqrt(sum of g**2 over all elements of all arrays)
        g <- g * max_norm / norm        if norm > max_norm

    The norm is summed in float64, so the squares of float32 gradients cannot overflow. Where it is infinite
    or NaN no factor makes sense: the arrays are left as they are, and the caller sees it in the result.
    After Pascanu, Mikolov and Bengio, *On the difficulty of training recurrent neural networks*, ICML 2013.

    Parameters
    ----------
    grads : dict of ndarray, or iterable of ndarray
        None instead of an array is passed over.
    max_norm : float
        More than 0.

    Returns
    -------
    norm : float
        Before clipping.

    Raises
    ------
    TypeError
        An entry of `grads` is not a floating-point array.
    ValueError
        ``max_norm <= 0``, or an array is read-only.

    Examples
    --------
    >>> grads = {"W": np.array([[3.0, 0.0]]), "b": np.array([4.0])}
    >>> clip_by_global_norm(grads, 1)
    5.0
    >>> grads["W"], grads["b"]
    (array([[0.6, 0. ]]), array([0.8]))
    """
    max_norm = _number("max_norm", max_norm, above=0)
    arrays = _arrays(grads)
    norm = _norm(arrays)
    if max_norm < norm < math.inf:
        scale = max_norm / norm
        for grad in arrays:
            # A scale below the normal numbers of the array's dtype would lose digits there.
            dtype = grad.dtype.type if scale >= np.finfo(grad.dtype).tiny else np.float64
            np.multiply(grad, scale, out=grad, dtype=dtype, casting="same_kind")
    return norm


class Optimizer:
    """Base of the optimisers: checks, state arrays, the loop over the parameters.

    A subclass names its state arrays in the call of ``__init__`` and writes one method, ``_rule``.

    Parameters
    ----------
    params : dict of str to ndarray
        float32 or float64. The arrays are kept by reference and updated in place, in their own dtype;
        the dict is read once, here.
    learning_rate : float

    Attributes
    ----------
    params : dict of str to ndarray
    learning_rate : float           may be changed between steps.
    iterations : int                number of steps made.
    state : dict                    ``state[kind][name]`` is an array like ``params[name]``, zero at first.

    Raises
    ------
    TypeError
        `params` is not a dict of float32 or float64 arrays.
    ValueError
        A parameter is read-only, a number is out of its range.
    """

    def __init__(self, params: Mapping[str, Array], learning_rate: float, kinds: tuple[Any, ...] = ()) -> None:
        if not isinstance(params, Mapping):
            raise TypeError(f"params must be a dict of arrays; got {type(params).__name__}")
        for name, p in params.items():
            _check_array(f"params[{name!r}]", p, (np.float32, np.float64), "a float32 or float64 array")
        self.learning_rate = learning_rate
        self.iterations = 0
        self.params = dict(params)
        self.state = {kind: {name: np.zeros_like(p) for name, p in params.items()} for kind in kinds}
        self._kinds = tuple(kinds)

    @property
    def learning_rate(self) -> float:
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate = _number("learning_rate", value, above=0)

    def step(
        self, grads: Mapping[str, Array], *, clip_norm: float | None = None, check_finite: bool = False
    ) -> float | None:
        """Make one step: update every parameter in place, in one pass over it.

        Nothing is changed if `grads` is refused. `grads` is not written to.

        Parameters
        ----------
        grads : dict of str to ndarray
            Keys and shapes of `params`.
        clip_norm : float, optional
            Make the step with the gradients that :func:`clip_by_global_norm` would leave.
        check_finite : bool
            Refuse a step after which a parameter, or what the optimiser remembers of it, would be infinite or NaN.

        Returns
        -------
        norm : float or None
            Of all gradients, before clipping; None without `clip_norm`.

        Raises
        ------
        TypeError
            `grads` is not a dict, or an entry is not real numbers.
        ValueError
            A key is missing or unknown, a shape differs, ``clip_norm <= 0``, a result is refused by `check_finite`.
        """
        grads = self._check(grads)
        check_finite = checks.flag("check_finite", check_finite)
        limit = math.inf if clip_norm is None else _number("clip_norm", clip_norm, above=0)
        norm = None if clip_norm is None and not check_finite else _norm(grads.values())
        scale = limit / norm if norm is not None and limit < norm < math.inf else 1.0
        if check_finite and norm is not None:
            if not norm < math.inf:
                _check_finite("its gradient is", grads)
            # Smaller steps from finite numbers, by finite gradients, end at finite numbers.
            if not (norm * scale < LARGE_NORM and self.learning_rate < LARGE_RATE):
                self._step_or_restore(grads, scale)
                return None if clip_norm is None else norm
        self._step(grads, scale)
        return None if clip_norm is None else norm

    def _step(self, grads: Mapping[str, Array], scale: float) -> None:
        rule, constants = self._rule(scale)
        states = [self.state[kind] for kind in self._kinds]
        updates = [(grads[name], p, *(state[name] for state in states)) for name, p in self.params.items()]
        native.optimizer_step(rule, constants, updates)
        self.iterations += 1

    def _step_or_restore(self, grads: Mapping[str, Array], scale: float) -> None:
        """Make the step, or raise with everything as before."""
        arrays = [self.params, *self.state.values()]
        before = [{name: array.copy() for name, array in kind.items()} for kind in arrays]
        self._step(grads, scale)
        try:
            _check_finite(f"the step is too large with learning_rate {self.learning_rate:g}: it is", self.params)
            for kind, state in self.state.items():
                _check_finite(f"the optimiser's {kind} of it is", state)
        except NotFiniteError:
            self.iterations -= 1
            for kind, saved in zip(arrays, before, strict=True):
                for name, array in kind.items():
                    array[...] = saved[name]
            raise

    def _rule(self, scale: float) -> tuple[str, tuple[float, ...]]:
        """Return the rule of native.optimizer_step and its constants, for gradients times ``scale``."""
        raise NotImplementedError

    def _check(self, grads: Mapping[str, Array]) -> dict[str, Array]:
        if not isinstance(grads, Mapping):
            raise TypeError(f"grads must be a dict of arrays; got {type(grads).__name__}")
        missing = [name for name in self.params if name not in grads]
        extra = [name for name in grads if name not in self.params]
        if missing or extra:
            raise ValueError(f"grads must have the keys of params; missing {missing}, extra {extra}")
        grads = {name: as_array(f"grads[{name!r}]", grads[name]) for name in self.params}
        for name, p in self.params.items():
            g = grads[name]
            _check_array(f"params[{name!r}]", p, (np.float32, np.float64), "a float32 or float64 array")
            if g.shape != p.shape:
                raise ValueError(f"grads[{name!r}] must be {p.shape} like params[{name!r}]; got {g.shape}")
            if g.dtype.kind not in "fiu":
                raise TypeError(f"grads[{name!r}] must be real numbers; got dtype {g.dtype}")
            for kind in self._kinds:
                memory = self.state[kind][name]
                if memory.shape != p.shape or memory.dtype != p.dtype:
                    raise ValueError(
                        f"state[{kind!r}][{name!r}] must be {p.shape} {p.dtype} like params[{name!r}]; "
                        f"got {memory.shape} {memory.dtype}"
                    )
        return grads


class SGD(Optimizer):
    """Stochastic gradient descent, with classical momentum if wanted.

        p <- p - a g                                    momentum m = 0
        v <- m v + g        p <- p - a v                otherwise

    Robbins and Monro 1951; momentum: Polyak 1964, in the form of PyTorch, where a change of the learning rate
    acts at once (Sutskever et al. 2013 keep a inside v).

    Parameters
    ----------
    params, learning_rate
        See `Optimizer`.
    momentum : float, default 0.0
        In ``[0, 1)``.

    Examples
    --------
    >>> W = np.array([1.0, 2.0])
    >>> SGD({"W": W}, learning_rate=0.5).step({"W": np.array([1.0, -2.0])})
    >>> W
    array([0.5, 3. ])
    """

    def __init__(self, params: Mapping[str, Array], learning_rate: float = 0.01, momentum: float = 0.0) -> None:
        self.momentum = _number("momentum", momentum, least=0, below=1)
        super().__init__(params, learning_rate, ("v",) if self.momentum else ())

    def _rule(self, scale: float) -> tuple[str, tuple[float, ...]]:
        return "momentum" if self.momentum else "sgd", (self.learning_rate, scale, self.momentum, 1.0, 0.0, 0.0, 0.0)


class RMSProp(Optimizer):
    """Gradient divided by a running average of its magnitude.

        v <- d v + (1 - d) g**2        p <- p - a g / (sqrt(v) + epsilon)

    Tieleman and Hinton, *Neural Networks for Machine Learning*, lecture 6.5, 2012; epsilon as in PyTorch.

    Parameters
    ----------
    params, learning_rate
        See `Optimizer`.
    decay : float, default 0.9
        d, in ``[0, 1)``. PyTorch calls it alpha.
    epsilon : float, default 1e-8
        More than 0.

    Examples
    --------
    >>> W = np.array([1.0, 2.0])
    >>> RMSProp({"W": W}, learning_rate=0.1, decay=0.75).step({"W": np.array([0.3, -5.0])})
    >>> W.round(6)
    array([0.8, 2.2])
    """

    def __init__(
        self, params: Mapping[str, Array], learning_rate: float = 1e-3, decay: float = 0.9, epsilon: float = 1e-8
    ) -> None:
        self.decay = _number("decay", decay, least=0, below=1)
        self.epsilon = _number("epsilon", epsilon, above=0)
        super().__init__(params, learning_rate, ("v",))

    def _rule(self, scale: float) -> tuple[str, tuple[float, ...]]:
        return "squares", (self.learning_rate, scale, 0.0, 0.0, self.decay, 1 - self.decay, self.epsilon)


class Adagrad(Optimizer):
    """Gradient divided by the root of the sum of all its squares so far.

        v <- v + g**2        p <- p - a g / (sqrt(v) + epsilon)

    Duchi, Hazan and Singer, *Adaptive subgradient methods for online learning and stochastic optimization*,
    JMLR 12, 2011; epsilon as in PyTorch.

    Parameters
    ----------
    params, learning_rate
        See `Optimizer`.
    epsilon : float, default 1e-8
        More than 0.

    Examples
    --------
    >>> W = np.array([1.0, 2.0])
    >>> Adagrad({"W": W}, learning_rate=0.1).step({"W": np.array([0.3, -5.0])})
    >>> W.round(6)
    array([0.9, 2.1])
    """

    def __init__(self, params: Mapping[str, Array], learning_rate: float = 1e-2, epsilon: float = 1e-8) -> None:
        self.epsilon = _number("epsilon", epsilon, above=0)
        super().__init__(params, learning_rate, ("v",))

    def _rule(self, scale: float) -> tuple[str, tuple[float, ...]]:
        return "squares", (self.learning_rate, scale, 0.0, 0.0, 1.0, 1.0, self.epsilon)


class Adam(Optimizer):
    """Running averages of the gradient and of its square, both corrected for their start at zero.

        m <- b1 m + (1 - b1) g             m_hat = m / (1 - b1**t)
        v <- b2 v + (1 - b2) g**2          v_hat = v / (1 - b2**t)
        p <- p - a m_hat / (sqrt(v_hat) + epsilon)

    Kingma and Ba, *Adam: a method for stochastic optimization*, ICLR 2015, algorithm 1.

    Parameters
    ----------
    params, learning_rate
        See `Optimizer`.
    beta1, beta2 : float, default 0.9, 0.999
        b1 and b2, in ``[0, 1)``.
    epsilon : float, default 1e-8
        More than 0.

    Examples
    --------
    >>> W = np.array([1.0, 2.0])
    >>> Adam({"W": W}, learning_rate=0.1).step({"W": np.array([0.3, -5.0])})
    >>> W.round(6)
    array([0.9, 2.1])
    """

    def __init__(
        self,
        params: Mapping[str, Array],
        learning_rate: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        self.beta1 = _number("beta1", beta1, least=0, below=1)
        self.beta2 = _number("beta2", beta2, least=0, below=1)
        self.epsilon = _number("epsilon", epsilon, above=0)
        super().__init__(params, learning_rate, ("m", "v"))

    def _rule(self, scale: float) -> tuple[str, tuple[float, ...]]:
        # a m_hat / (sqrt(v_hat) + eps) = (a r / (1 - b1**t)) m / (sqrt(v) + r eps),  r = sqrt(1 - b2**t)
        step = self.iterations + 1
        r = math.sqrt(1 - self.beta2**step)
        rate = self.learning_rate * r / (1 - self.beta1**step)
        return "adam", (rate, scale, self.beta1, 1 - self.beta1, self.beta2, 1 - self.beta2, r * self.epsilon)


def _check_finite(why: str, arrays: Mapping[str, Array]) -> None:
    """Raise NotFiniteError that names the first parameter whose array holds an infinity or NaN, and why."""
    names = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if names:
        kind = "NaN" if np.isnan(arrays[names[0]]).any() else "infinite"
        others = f"; so would {', '.join(map(repr, names[1:]))}" if names[1:] else ""
        raise NotFiniteError(f"parameter {names[0]!r} would become infinite or NaN: {why} {kind}{others}")


def _norm(arrays: Any) -> float:
    """sqrt of the sum of all squares, in float64."""
    return math.sqrt(sum(_square_sum(array) for array in arrays))


def _square_sum(array: Array) -> float:
    if array.dtype in (np.float32, np.float64):
        return native.square_sum(array)
    return native.square_sum(array.astype(np.float64))


def _arrays(grads: Gradients) -> list[Array]:
    wanted = "a dict or an iterable of arrays"
    if isinstance(grads, np.ndarray):
        raise TypeError(f"grads must be {wanted}; got ndarray")
    named = grads.items() if isinstance(grads, Mapping) else enumerate(checks.iterable("grads", grads, wanted))
    named = [(name, grad) for name, grad in named if grad is not None]
    for name, grad in named:
        _check_array(f"grads[{name!r}]", grad, np.floating, "a floating-point array")
    return [grad for _, grad in named]


def _check_array(name: str, array: Array, types: tuple[type[Any], type[Any]] | type[Any], wanted: str) -> None:
    checks.instance(name, array, np.ndarray, wanted)
    if not issubclass(array.dtype.type, types):
        raise TypeError(f"{name} must be {wanted}; got dtype {array.dtype}")
    check_writable(name, array)


def _number(
    name: str, value: float, *, above: int | None = None, least: int | None = None, below: float = math.inf
) -> float:
    """value as a float, finite and above < value, least <= value, value < below."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number; got {type(value).__name__}") from None
    except OverflowError:
        number = math.inf
    if above is not None and not above < number < below:
        raise ValueError(f"{name} must be more than {above} and finite; got {value}")
    if least is not None and not least <= number < below:
        raise ValueError(f"{name} must be in [{least}, {below}); got {value}")
    return number
