"""What goes on inside recurrent layers, in numbers; :mod:`rnncore.plots` draws them."""

import copy

import numpy as np

from . import functional
from .engine import arrays
from .layers import GRU, LSTM, RNN

__all__ = ["gate_activations", "gradient_flow"]


def gradient_flow(layer, x, dy=None, state=None, lengths=None):
    """How much of the gradient reaches each step: the norm of dL/dh_t, for every layer and direction.

    It shows whether gradients vanish or explode on their way back in time (Bengio, Simard and Frasconi 1994, "Learning
    long-term dependencies with gradient descent is difficult"; Pascanu, Mikolov and Bengio 2013, "On the difficulty of
    training recurrent neural networks"). dL/dh_t is the total derivative by the output of a layer and direction at
    step t, by all ways: through later steps, layers above and, at the top, y. There is no dropout, and the gradients
    in ``layer.grads`` stay as they are.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
    x : array (T, N, input_size), or integer ids (T, N); (N, T, ...) if ``batch_first``
    dy : array (T, N, H * directions), or (N, T, ...), optional
        Gradient of the loss with respect to the layer's output. If not given, the loss is the sum of the final outputs
        of the top layer: 1 at the last valid step of each row, at step 0 in the reverse half, 0 elsewhere.
    state : like the layer's, optional
        Initial state; zeros if not given.
    lengths : integer array (N,), optional
        Steps beyond a row's length give and get nothing.

    Returns
    -------
    ndarray (num_layers * directions, T) float64
        Norms over batch and units, in the order of the state: layer by layer, forward before reverse.

    Raises
    ------
    ValueError, TypeError
        As calling the layer; TypeError for a layer of another kind.

    Examples
    --------
    >>> import rnncore as rc
    >>> rnn = rc.RNN(2, 1, activation="identity", seed=0)
    >>> rnn.params["Wh_0"][...] = 0.5
    >>> rc.gradient_flow(rnn, np.ones((4, 1, 2)))
    array([[0.125, 0.25 , 0.5  , 1.   ]])
    """
    _check_layer(layer)
    x = layer.time_major(x)
    T, N = x.shape[:2]
    directions = layer.directions
    states = layer.split_state(state, N)
    lengths = np.full(N, T) if lengths is None else arrays.as_lengths(lengths, T, N)
    dy = _sum_of_final_outputs(layer, T, lengths) if dy is None else layer.time_major_gradient(dy, T, N)

    y, caches = x, []
    for index in range(layer.num_layers):
        runs = []
        for direction in range(directions):
            initial = {f"{name}0": s[index * directions + direction] for name, s in states.items()}
            runs.append(_forward(layer, index, direction, y, initial, lengths))
        outputs, layer_caches = zip(*runs, strict=True)
        y = np.concatenate(outputs, axis=2)
        caches += layer_caches

    norms = np.zeros((layer.num_layers * directions, T))
    for index in reversed(range(layer.num_layers)):
        halves = np.split(dy, directions, axis=2)
        # dy of the layer below
        dy = np.zeros((T, N, layer.output_size), layer.dtype) if index else None
        for direction, dh in enumerate(halves):
            place = index * directions + direction
            norms[place] = _backward(layer, index, direction, dh, caches[place], lengths, dy)
    return norms


def gate_activations(layer, x, state=None, lengths=None):
    """What every gate does at every step: which units open where.

    There is no dropout. :func:`rnncore.plots.gates` draws one row of one of the arrays, after Karpathy, Johnson and
    Fei-Fei 2015, "Visualizing and understanding recurrent networks".

    Parameters
    ----------
    layer : RNN, GRU or LSTM
    x, state, lengths
        As in calling the layer.

    Returns
    -------
    list of dict of str to ndarray (T, N, H)
        By the layer's ``gate_names`` (LSTM also ``c``, the cell state), for every layer and direction in the order of
        the state; 0 beyond each row's length.

    Raises
    ------
    ValueError, TypeError
        As calling the layer; TypeError for a layer of another kind.

    Examples
    --------
    >>> import rnncore as rc
    >>> lstm = rc.LSTM(3, 5, num_layers=2, seed=0)
    >>> top = rc.gate_activations(lstm, np.ones((7, 1, 3)))[-1]
    >>> {name: values.shape for name, values in top.items()}
    {'i': (7, 1, 5), 'f': (7, 1, 5), 'g': (7, 1, 5), 'o': (7, 1, 5), 'c': (7, 1, 5)}
    """
    _check_layer(layer)
    still = copy.copy(layer)  # of the same arrays
    still.dropout, still.recurrent_dropout, still.checkpoint, still.backend = 0.0, 0.0, None, functional
    _, _, cache = still.forward(x, state, lengths)
    found = []
    for cell in (cell for directions in cache.cells for cell in directions):
        blocks = np.split(cell.gates, len(layer.gate_names), axis=2)
        values = dict(zip(layer.gate_names, blocks, strict=True))
        found.append(values | ({"c": cell.c} if layer.cell_name == "lstm" else {}))
    return found


def _check_layer(layer):
    if not isinstance(layer, (RNN, GRU, LSTM)):
        raise TypeError(f"layer must be an RNN, GRU or LSTM; got {type(layer).__name__}")


def _sum_of_final_outputs(layer, T, lengths):
    """-> dy (T, N, H * directions)"""
    dy = np.zeros((T, len(lengths), layer.output_size), layer.dtype)
    (rows,) = np.nonzero(lengths)
    dy[lengths[rows] - 1, rows, : layer.hidden_size] = 1
    dy[:1, rows, layer.hidden_size :] = 1
    return dy


def _steps(T, direction):
    return range(T)[:: -1 if direction else 1]


def _forward(layer, index, direction, x, state, lengths):
    """-> h (T, N, H) and a cache for each step of one cell; state: its initial state by argument."""
    function = getattr(functional, f"{layer.cell_name}_forward")
    arguments = layer.weights(index, direction) | layer.options()
    T, N = x.shape[:2]
    h, caches = np.zeros((T, N, layer.hidden_size), layer.dtype), [None] * T
    for t in _steps(T, direction):
        valid = np.clip(lengths - t, 0, 1)
        h[t : t + 1], final, caches[t] = function(x[t : t + 1], **arguments, **state, lengths=valid)
        final = final if isinstance(final, tuple) else (final,)
        state = {f"{name}0": s for name, s in zip(layer.state_names, final, strict=True)}
    return h, caches


def _backward(layer, index, direction, dy, caches, lengths, dx):
    """-> norms (T,) of one cell; adds its share to dx (T, N, D), if that is wanted."""
    function = getattr(functional, f"{layer.cell_name}_backward")
    # Not wanted, but summed in one place: a fresh array a step costs more than the step.
    sums = {f"d{name}": np.zeros_like(value) for name, value in layer.weights(index, direction).items()}
    T, N = dy.shape[:2]
    norms = np.zeros(T)
    carried = {f"d{name}_n": np.zeros((N, layer.hidden_size), layer.dtype) for name in layer.state_names}
    for t in reversed(_steps(T, direction)):
        # dL/dh_t = dy_t + what the step after it gives back
        dh = np.where((t < lengths)[:, None], dy[t] + carried["dh_n"], 0)
        norms[t] = np.linalg.norm(dh.astype(np.float64))
        arguments = {"dh": dy[t : t + 1], "cache": caches[t], **carried}
        (gradients,) = functional.side_by_side(function, [arguments], [sums])
        carried = {f"d{name}_n": getattr(gradients, f"d{name}0") for name in layer.state_names}
        if dx is not None:
            dx[t] += gradients.dx[0]
    return norms
