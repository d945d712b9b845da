"""Recurrent layers one step at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from .. import checks
from .._types import Array, State, StateLike
from ..engine import arrays, native

if TYPE_CHECKING:
    from .frozen import Frozen

__all__ = ["Stream"]


class Stream:
    """Frozen layers one step at a time, made by ``layer.stream(batch_size)``.

    A step allocates only its result, or nothing with ``out``. Steps have the
    same bits as the sequence in one call. Only one thread at a time may use a stream.

    Attributes
    ----------
    batch_size, input_size, hidden_size : int
        N, D and H.
    state : array (num_layers, N, H), or tuple (h, c) of two for an LSTM
        A copy; assign to it to continue from another state.

    Examples
    --------
    >>> from rnncore import LSTM
    >>> lstm = LSTM(3, 5, num_layers=2, seed=0)
    >>> stream = lstm.stream()
    >>> x = np.random.default_rng(0).normal(size=(7, 1, 3)).astype("float32")
    >>> steps = np.stack([stream.step(x_t) for x_t in x])
    >>> bool((steps == lstm(x)[0]).all())
    True
    """

    def __init__(self, layer: Frozen, batch_size: int = 1) -> None:
        from .frozen import Frozen

        checks.instance("layer", layer, Frozen, "a frozen layer, as layer.freeze() returns it")
        shape = (layer.num_layers, checks.integer("batch_size", batch_size, least=1), layer.hidden_size)
        checks.addressable(["batch_size"], [shape])
        self._state = tuple(np.zeros(shape, layer.dtype) for _ in layer.state_names)
        self._input_size, self._takes_ids_only = layer.input_size, layer.native.takes_ids_only
        self._native = native.open_stream(layer.native, *self._state)

    @property
    def batch_size(self) -> int:
        return self._state[0].shape[1]

    @property
    def input_size(self) -> int:
        return self._input_size

    @property
    def hidden_size(self) -> int:
        return self._state[0].shape[2]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._state[0].dtype

    def step(self, x: ArrayLike, out: Array | None = None) -> Array:
        """Advance every sequence by one step.

        Parameters
        ----------
        x : array (N, D), or integer ids (N,)
        out : array (N, H) of the layer's dtype, C-contiguous, optional
            Receives the result; must not overlap ``x``.

        Returns
        -------
        ndarray (N, H)
            State of the top layer: ``out``, or a new array.

        Raises
        ------
        ValueError, TypeError
            A shape or dtype is wrong, or an id out of range.
        """
        (_, N, H), D, dtype = self._state[0].shape, self._input_size, self._state[0].dtype
        if out is None:
            out = np.empty((N, H), dtype)
        if self._native.try_step(x, out):
            return out
        # An argument is wrong, or needs conversion.
        if not (isinstance(out, np.ndarray) and out.shape == (N, H) and out.dtype == dtype):
            got = f"{out.shape} {out.dtype}" if isinstance(out, np.ndarray) else type(out).__name__
            raise ValueError(f"out must be an array (N, H) = {(N, H)} of {dtype}; got {got}")
        array = arrays.as_array("x", x)
        if not out.flags.carray or np.may_share_memory(array, out):
            raise ValueError("out must be C-contiguous, writable, and apart from x")
        if array.dtype.kind in "iu":
            if array.shape != (N,):
                raise ValueError(f"x of integers holds ids and must be (N,) = ({N},); got {array.shape}")
            self._native.step(None, arrays.as_ids(array, D), out)
        else:
            array = arrays.as_shaped("x", array, (N, D), dtype)
            if self._takes_ids_only:
                raise arrays.ids_only(D)
            self._native.step(np.array(array, dtype, order="C"), None, out)
        return out

    @property
    def state(self) -> State:
        """A copy of the state: an array (num_layers, N, H), or a tuple of two for an LSTM."""
        copies = tuple(s.copy() for s in self._state)
        return copies if len(copies) > 1 else copies[0]

    @state.setter
    def state(self, value: StateLike) -> None:
        values = value if len(self._state) > 1 else (value,)
        if not isinstance(values, (tuple, list)) or len(values) != len(self._state):
            raise TypeError(f"state of an LSTM must be a tuple (h, c); got {type(value).__name__}")
        shape = self._state[0].shape
        states = [arrays.as_shaped(f"state {s}", v, shape, self.dtype) for s, v in zip("hc", values, strict=False)]
        for own, new in zip(self._state, states, strict=True):
            own[...] = new

    def reset(self) -> None:
        """Set the state to zero."""
        for own in self._state:
            own.fill(0)
