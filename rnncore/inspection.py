"""Measure what happens inside recurrent layers; :mod:`rnncore.plots` draws the results."""

from __future__ import annotations

import copy
import types
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import functional
from ._types import Array, StateLike
from .engine import calls
from .engine.arrays import as_floating, as_lengths
from .engine.cache import Cache
from .engine.cells import CELLS
from .layers import Recurrent

__all__ = ["gate_activations", "gradient_flow"]


def gradient_flow(
    layer: Recurrent,
    x: ArrayLike,
    dy: ArrayLike | None = None,
    state: StateLike | None = None,
    lengths: ArrayLike | None = None,
) -> Array:
    """Measure how much of the gradient reaches each step: the norm of dL/dh_t, for every layer and direction.

    Shows whether gradients vanish or explode on their way back in time (Bengio, Simard and Frasconi 1994, "Learning
    long-term dependencies with gradient descent is difficult"; Pascanu, Mikolov and Bengio 2013, "On the difficulty of
    training recurrent neural networks"). dL/dh_t is the total derivative with respect to the output of a layer and
    direction at step t: through later steps, the layers above and, at the top, y. Runs without dropout and leaves
    ``layer.grads`` unchanged.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
    x : array (T, N, input_size), or integer ids (T, N); (N, T, ...) if ``batch_first``
    dy : array (T, N, H * directions), or (N, T, ...), optional
        Gradient of the loss with respect to the layer's output. Default: that of the sum of the final outputs of the
        top layer, 1 at the last valid step of each row, at step 0 in the reverse half, 0 elsewhere.
    state : like the layer's, optional
        Initial state; default zeros.
    lengths : integer array (N,), optional
        Steps beyond a row's length have no gradient.

    Returns
    -------
    ndarray (num_layers * directions, T) float64
        Norms over batch and units, in the order of the state: layer by layer, forward before reverse.

    Raises
    ------
    ValueError, TypeError
        As when calling the layer; TypeError for a layer of another kind.

    Examples
    --------
    >>> import rnncore as rc
    >>> rnn = rc.RNN(2, 1, activation="identity", seed=0)
    >>> rnn.params["Wh_0"][...] = 0.5
    >>> rc.gradient_flow(rnn, np.ones((4, 1, 2)))
    array([[0.125, 0.25 , 0.5  , 1.   ]])
    """
    _check_layer(layer)
    T, N = layer.time_major(x).shape[:2]
    lengths = np.full(N, T) if lengths is None else as_lengths(lengths, T, N)
    if dy is None:
        dy = _sum_of_final_outputs(layer, T, lengths)
        dy = dy.swapaxes(0, 1) if layer.batch_first else dy
    stepwise = _plain_copy(layer)
    stepwise.grads = {name: np.zeros_like(layer.params[name]) for name in layer.grads}
    recorder = _StepByStep(layer)
    stepwise._forward_cells = recorder.forward_cells  # type: ignore[method-assign]
    stepwise._backward_cells = recorder.backward_cells  # type: ignore[method-assign]
    _, _, cache = stepwise.forward(x, state, lengths)
    stepwise.backward(dy, cache)
    # The backward pass runs from the top layer to the bottom one.
    norms = np.reshape(recorder.norms, (layer.num_layers, layer.directions, T))
    return norms[::-1].reshape(layer.num_layers * layer.directions, T)


def gate_activations(
    layer: Recurrent, x: ArrayLike, state: StateLike | None = None, lengths: ArrayLike | None = None
) -> list[dict[str, Array]]:
    """Return the activation of every gate at every step.

    Runs without dropout. :func:`rnncore.plots.gates` draws one row of one of the arrays, after Karpathy, Johnson and
    Fei-Fei 2015, "Visualizing and understanding recurrent networks".

    Parameters
    ----------
    layer : RNN, GRU or LSTM
    x, state, lengths
        As when calling the layer.

    Returns
    -------
    list of dict of str to ndarray (T, N, H)
        By the layer's ``gate_names`` (LSTM also ``c``, the cell state), for every layer and direction in the order of
        the state; 0 beyond each row's length.

    Raises
    ------
    ValueError, TypeError
        As when calling the layer; TypeError for a layer of another kind.

    Examples
    --------
    >>> import rnncore as rc
    >>> lstm = rc.LSTM(3, 5, num_layers=2, seed=0)
    >>> top = rc.gate_activations(lstm, np.ones((7, 1, 3)))[-1]
    >>> {name: values.shape for name, values in top.items()}
    {'i': (7, 1, 5), 'f': (7, 1, 5), 'g': (7, 1, 5), 'o': (7, 1, 5), 'c': (7, 1, 5)}
    """
    _check_layer(layer)
    _, _, cache = _plain_copy(layer).forward(x, state, lengths)
    found = []
    for cell in (cell for directions in cache.cells for cell in directions):
        blocks = np.split(cell.gates, layer.num_gates, axis=2)
        values = dict(zip(layer.gate_names, blocks, strict=True))
        found.append(values | {name: getattr(cell, name) for name in layer.state_names if name != "h"})
    return found


def _plain_copy(layer: Recurrent) -> Recurrent:
    """Copy a layer, sharing its arrays, to run it on the engine without dropout and checkpoints."""
    plain = copy.copy(layer)
    plain.dropout, plain.recurrent_dropout, plain.checkpoint, plain.backend = 0.0, 0.0, None, functional
    return plain


def _check_layer(layer: object) -> None:
    if not isinstance(layer, Recurrent):
        *names, last = (cell.label for cell in CELLS.values())
        raise TypeError(f"layer must be an {', '.join(names)} or {last}; got {type(layer).__name__}")


def _sum_of_final_outputs(layer: Recurrent, T: int, lengths: Array) -> Array:
    """Return dy (T, N, H * directions) for the sum of each row's final outputs."""
    dy = np.zeros((T, len(lengths), layer.output_size), layer.dtype)
    (rows,) = np.nonzero(lengths)
    dy[lengths[rows] - 1, rows, : layer.hidden_size] = 1
    dy[:1, rows, layer.hidden_size :] = 1
    return dy


class _StepByStep:
    """Runs the cells of a layer one step per call, and records the norms of dL/dh_t."""

    def __init__(self, layer: Recurrent) -> None:
        self.variant, self.dtype = layer.variant, layer.dtype
        self.norms: list[Array] = []  # (T,) for every cell, in order of the backward pass

    def forward_cells(self, arguments: list[dict[str, Any]]) -> list[Any]:
        return [self._forward(**keywords) for keywords in arguments]

    def backward_cells(self, arguments: list[dict[str, Any]], into: list[dict[str, Array]]) -> list[Any]:
        return [self._backward(**keywords, into=arrays) for keywords, arrays in zip(arguments, into, strict=True)]

    def _forward(
        self, x: Array, lengths: Array, reverse: bool, training: bool, checkpoint: None, **arguments: Array
    ) -> tuple[Array, Any, Any]:
        (T, N), H, states = (
            x.shape[:2],
            as_floating("b", arguments["b"]).size // len(self.variant.gates),
            self.variant.cell.states,
        )
        h = np.zeros((T, N, H), self.dtype)
        caches: list[Cache | None] = [None] * T
        final: Any = tuple(arguments.get(f"{name}0", np.zeros((N, H), self.dtype)) for name in states)
        for t in range(T)[:: -1 if reverse else 1]:
            arguments |= {f"{name}0": s for name, s in zip(states, final, strict=True)}
            valid = np.clip(lengths - t, 0, 1)
            h[t : t + 1], final, caches[t] = calls.forward(self.variant, x=x[t : t + 1], lengths=valid, **arguments)
            final = final if isinstance(final, tuple) else (final,)
        return h, final, (caches, lengths, reverse, x.shape)

    @np.errstate(over="ignore", invalid="ignore")  # of gradients that are not finite
    def _backward(self, dh: Array, cache: Any, into: dict[str, Array], **carried: Array) -> Any:
        cell, (caches, lengths, reverse, shape) = self.variant.cell, cache
        T, N, H = dh.shape
        norms, dx = np.zeros(T), np.zeros(shape, self.dtype) if len(shape) == 3 else None
        carried = {f"d{name}_n": np.zeros((N, H), self.dtype) for name in cell.states} | carried
        for t in range(T)[:: 1 if reverse else -1]:
            # dL/dh_t = dh_t + the gradient that the next step passes back
            total = np.where((t < lengths)[:, None], dh[t] + carried["dh_n"], 0)
            norms[t] = np.linalg.norm(total.astype(np.float64))
            arguments = {"dh": dh[t : t + 1], "cache": caches[t], **carried}
            (gradients,) = calls.backward_side_by_side(cell, [arguments], [into])
            carried = {f"d{name}_n": getattr(gradients, f"d{name}0") for name in cell.states}
            if dx is not None:
                dx[t] = gradients.dx[0]
        self.norms.append(norms)
        initial = {f"d{name}0": carried[f"d{name}_n"] for name in cell.states}
        return types.SimpleNamespace(dx=dx, **initial)
