"""Layers: recurrent (stacked, bidirectional), embedding, dense. They hold parameters, gradients and nothing else.

Every layer has ``params`` and ``grads``, dicts with the same keys whose arrays keep their identity: change them in
place. ``forward`` returns a cache for ``backward``, which adds into ``grads``; calling a layer is inference.
"""

import math
from typing import NamedTuple

import numpy as np

from . import checks, functional
from .engine import cells

__all__ = ["GRU", "LSTM", "RNN", "Dense", "Embedding", "Stream", "dropout_mask"]

_INITIALISATIONS = ("orthogonal", "uniform")


# ---- initial values ---------------------------------------------------------------------------------------------


def glorot_uniform(rng, rows, columns):
    """Uniform in +-sqrt(6 / (rows + columns)) (Glorot and Bengio 2010)."""
    limit = np.sqrt(6 / max(rows + columns, 1))
    return rng.uniform(-limit, limit, (rows, columns))


def orthogonal(rng, size):
    """A random orthogonal matrix, uniform among all of them (Saxe, McClelland and Ganguli 2014)."""
    q, r = np.linalg.qr(rng.normal(size=(size, size)))
    return q * np.where(np.diag(r) < 0, -1, 1)


# ---- dropout ----------------------------------------------------------------------------------------------------


def dropout_mask(rng, shape, share, dtype):
    """What values are multiplied by in training, so that their mean stays (Srivastava et al. 2014, inverted).

    Parameters
    ----------
    rng : numpy.random.Generator
    shape : tuple of int
    share : float in [0, 1)
        Probability of a zero.
    dtype : numpy dtype

    Returns
    -------
    ndarray of ``shape``
        0, or 1 / (1 - share).

    Examples
    --------
    >>> dropout_mask(np.random.default_rng(5), (2, 3), 0.5, np.dtype("float32"))
    array([[0., 0., 2.],
           [0., 2., 0.]], dtype=float32)
    """
    keep = 1 - share
    return (rng.random(shape, np.float32) < keep).astype(dtype) / dtype.type(keep)


# ---- what all layers share --------------------------------------------------------------------------------------


def _dtype(value):
    dtype = np.dtype(value)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype must be float32 or float64; got {dtype}")
    return dtype


class _Layer:
    """Parameters by name, a gradient of the same shape for each."""

    def __init__(self, dtype):
        self.dtype = _dtype(dtype)
        self.params = {}
        self.grads = {}

    def _add(self, name, value):
        self.params[name] = np.ascontiguousarray(value, self.dtype)
        self.grads[name] = np.zeros_like(self.params[name])

    def zero_grad(self):
        """Set all gradients to zero, in place."""
        for grad in self.grads.values():
            grad.fill(0)


class Embedding(_Layer):
    """Rows of a table: ``y = W[ids]``.

    Parameters
    ----------
    size : int
        V, number of rows.
    dimension : int
        E, length of a row.
    dtype : {"float32", "float64"}
    seed : int, numpy.random.Generator or None

    Examples
    --------
    >>> embedding = Embedding(10, 4, seed=0)
    >>> embedding(np.array([[3, 1], [0, 9]])).shape
    (2, 2, 4)
    """

    def __init__(self, size, dimension, *, dtype="float32", seed=None):
        super().__init__(dtype)
        self.size = checks.integer("size", size, least=1)
        self.dimension = checks.integer("dimension", dimension, least=1)
        self._add("W", np.random.default_rng(seed).normal(size=(self.size, self.dimension)))

    def __call__(self, ids):
        """ids (...) integer -> (..., E)"""
        return self.forward(ids)[0]

    def forward(self, ids):
        """ids (...) integer -> y (..., E), cache. ValueError for an id outside [0, V), TypeError for another dtype."""
        ids = np.asarray(ids)
        if ids.dtype.kind not in "iu":
            raise TypeError(f"ids must be integers; got dtype {ids.dtype}")
        ids = functional.clean_ids(ids, self.size, "ids", "V")
        return np.take(self.params["W"], ids, axis=0), ids

    def backward(self, dy, cache):
        """Add the gradient of the rows used, dy (..., E), into ``grads["W"]``."""
        dy = _like("dy", dy, (*cache.shape, self.dimension), self.dtype)
        functional.scatter_add(cache.reshape(-1), dy.reshape(cache.size, self.dimension), self.grads["W"])


class Dense(_Layer):
    """Affine map of the last axis: ``y = x W + b``.

    Parameters
    ----------
    input_size, output_size : int
    dtype : {"float32", "float64"}
    seed : int, numpy.random.Generator or None

    Examples
    --------
    >>> dense = Dense(4, 3, seed=0)
    >>> y, cache = dense.forward(np.ones((7, 2, 4)))
    >>> dense.backward(np.ones_like(y), cache).shape
    (7, 2, 4)
    """

    def __init__(self, input_size, output_size, *, dtype="float32", seed=None):
        super().__init__(dtype)
        self.input_size = checks.integer("input_size", input_size, least=1)
        self.output_size = checks.integer("output_size", output_size, least=1)
        self._add("W", glorot_uniform(np.random.default_rng(seed), self.input_size, self.output_size))
        self._add("b", np.zeros(self.output_size))

    def weights(self):
        """-> W (input_size, output_size), b (output_size,) from ``params``. ValueError for other shapes."""
        W, b = self.params["W"], self.params["b"]
        if W.shape != (self.input_size, self.output_size) or b.shape != (self.output_size,):
            wanted = f"{(self.input_size, self.output_size)} and {(self.output_size,)}"
            raise ValueError(f"params W and b must be {wanted}; got {W.shape} and {b.shape}")
        return W, b

    def __call__(self, x):
        """x (..., input_size) -> (..., output_size)"""
        return self.forward(x)[0]

    def forward(self, x):
        """x (..., input_size) -> y (..., output_size), cache"""
        x = functional.as_real("x", x).astype(self.dtype, copy=False)
        if x.ndim < 1 or x.shape[-1] != self.input_size:
            raise ValueError(f"x must be (..., input_size) = (..., {self.input_size}); got {x.shape}")
        rows = x.reshape(math.prod(x.shape[:-1]), self.input_size)
        y = functional.affine_forward(rows, *self.weights())
        return y.reshape(*x.shape[:-1], self.output_size), x

    def backward(self, dy, cache):
        """dy (..., output_size) -> dx (..., input_size); adds into ``grads``."""
        dy = _like("dy", dy, (*cache.shape[:-1], self.output_size), self.dtype)
        rows = cache.reshape(math.prod(cache.shape[:-1]), self.input_size)
        dy = dy.reshape(len(rows), self.output_size)
        W, _ = self.weights()
        dx = functional.affine_backward(rows, W, dy, self.grads["W"], self.grads["b"])
        return dx.reshape(cache.shape)


def _like(name, value, shape, dtype):
    array = functional.as_real(name, value)
    if array.shape != shape:
        raise ValueError(f"{name} must be {shape}; got {array.shape}")
    return array.astype(dtype, copy=False)


# ---- recurrent layers -------------------------------------------------------------------------------------------


class LayerCache(NamedTuple):
    """What ``backward`` needs: ``cells[layer][direction]`` are the caches of the functions, with their gates."""

    shape: tuple  # (T, N)
    cells: list
    masks: list  # of dropout, between the layers: (T, N, H * directions)
    recurrent_masks: list  # of recurrent dropout, for every layer and direction: (H,); empty without

    @property
    def gates(self):
        """Activated gates (T, N, G*H) of every layer and direction, in the order of the state; read-only.

        Blocks are those of the layer's ``gate_names``, 0 beyond each row's length; None with ``checkpoint``.
        """
        return [cell.gates for directions in self.cells for cell in directions]


class _Recurrent(_Layer):
    """A stack of one cell, in one direction or both.

    A subclass says what gate blocks its cell has and how to call it. States are handled as tuples of arrays
    (num_layers * directions, N, H), layer by layer, forward before reverse.
    """

    gate_names = ("h",)
    state_names = ("h",)
    cell_name = "rnn"
    cell = cells.RNN

    #: Where the cell's functions come from; :mod:`rnncore.reference` serves as well.
    backend = functional

    def __init__(
        self,
        input_size,
        hidden_size,
        num_layers=1,
        *,
        bidirectional,
        batch_first,
        dropout,
        recurrent_dropout,
        checkpoint,
        init,
        dtype,
        seed,
    ):
        super().__init__(dtype)
        self.input_size = checks.integer("input_size", input_size, least=1)
        self.hidden_size = checks.integer("hidden_size", hidden_size, least=1)
        self.num_layers = checks.integer("num_layers", num_layers, least=1)
        self.bidirectional, self.batch_first = bool(bidirectional), bool(batch_first)
        self.dropout = checks.share("dropout", dropout)
        self.recurrent_dropout = checks.share("recurrent_dropout", recurrent_dropout)
        self.checkpoint = checkpoint
        if checkpoint is not None:
            functional.checkpoint_segments(checkpoint, 1)
        if init not in _INITIALISATIONS:
            raise ValueError(f"init must be one of {', '.join(map(repr, _INITIALISATIONS))}; got {init!r}")
        self._rng = np.random.default_rng(seed)
        for layer in range(self.num_layers):
            for suffix in self._suffixes(layer):
                size = self.input_size if layer == 0 else self.output_size
                for name, value in self._initial(size, init).items():
                    self._add(name + suffix, value)

    @property
    def gates(self):
        return len(self.gate_names)  # G

    @property
    def directions(self):
        return 2 if self.bidirectional else 1

    @property
    def output_size(self):
        return self.hidden_size * self.directions

    def _suffixes(self, layer):
        return [f"_{layer}", f"_{layer}_reverse"][: self.directions]

    def _initial(self, size, init):
        """-> the parameters of one cell by name."""
        D, H, G, rng = size, self.hidden_size, self.gates, self._rng
        if init == "uniform":
            # As PyTorch: all of them uniform in +-1/sqrt(H).
            shapes = {"Wx": (D, G * H), "Wh": (H, G * H), "b": (G * H,)} | self._extra_shapes()
            limit = H**-0.5
            return {name: rng.uniform(-limit, limit, shape) for name, shape in shapes.items()}
        return {
            "Wx": np.concatenate([glorot_uniform(rng, D, H) for _ in range(G)], axis=1),
            "Wh": np.concatenate([orthogonal(rng, H) for _ in range(G)], axis=1),
            "b": np.zeros(G * H),
        } | {name: np.zeros(shape) for name, shape in self._extra_shapes().items()}

    def _extra_shapes(self):
        """Shapes of the parameters that the cell has beyond Wx, Wh, b."""
        return {}

    def options(self):
        """Keyword arguments of the cell's forward function that do not change from call to call."""
        return {}

    def _description(self):
        """The cell as native code knows it; ValueError for an unknown option."""
        raise NotImplementedError

    def weights(self, layer, direction):
        """-> dict of the parameters of one cell, by the names of the arguments of its forward function."""
        suffix = self._suffixes(layer)[direction]
        return {name: self.params[name + suffix] for name in self._names()}

    def cells(self):
        """The stack, bottom first, as :func:`rnncore.functional.sample_ids` takes it. One direction only."""
        if self.bidirectional:
            raise ValueError("a bidirectional layer needs the whole sequence: it cannot go step by step")
        return [
            (
                self._description(),
                *map(self.weights(layer, 0).get, ("Wx", "Wh", "b", "bhn", "peephole")),
            )
            for layer in range(self.num_layers)
        ]

    def stream(self, batch_size=1):
        """A copy of the layer for one step at a time: audio, control, games.

        Parameters
        ----------
        batch_size : int, default 1
            N, sequences side by side.

        Returns
        -------
        Stream
            Its weights are those of this moment: what happens to the layer later does not reach it.

        Raises
        ------
        ValueError
            The layer is bidirectional: it needs the whole sequence.
        """
        return Stream(self, batch_size)

    def __call__(self, x, state=None, lengths=None):
        """Inference: nothing is kept, no dropout.

        Parameters
        ----------
        x : array (T, N, input_size), or integer ids (T, N); (N, T, ...) if ``batch_first``
        state : array or tuple of arrays (num_layers * directions, N, H), optional
            As returned; zeros if not given. LSTM: (h, c).
        lengths : integer array (N,), optional

        Returns
        -------
        y : ndarray (T, N, H * directions), or (N, T, ...)
            States of the top layer, forward and reverse side by side; 0 beyond each row's length.
        state : like ``state``
            After the last valid step of each row.

        Raises
        ------
        ValueError, TypeError
            A shape, dtype, id or length is wrong.
        """
        y, state, _ = self._run(x, state, lengths, training=False)
        return y, state

    def forward(self, x, state=None, lengths=None):
        """As calling the layer, and keep what :meth:`backward` needs; with dropout.

        Returns
        -------
        y, state
        cache : LayerCache
        """
        return self._run(x, state, lengths, training=True)

    def time_major(self, x):
        """-> x (T, N, input_size) of the layer's dtype, or ids (T, N). ValueError, TypeError as calling the layer."""
        x = np.asarray(x)
        if x.dtype.kind not in "iu":
            x = functional.as_real("x", x)
            if x.ndim != 3 or x.shape[2] != self.input_size:
                axes = "(N, T, input_size)" if self.batch_first else "(T, N, input_size)"
                raise ValueError(f"x must be {axes} with input_size = {self.input_size}; got {x.shape}")
            x = x.astype(self.dtype, copy=False)
        elif x.ndim != 2:
            raise ValueError(f"x of integers holds ids and must have two axes; got shape {x.shape}")
        return x.swapaxes(0, 1) if self.batch_first else x

    def _run(self, x, state, lengths, training):
        y = self.time_major(x)
        T, N = y.shape[:2]
        states = self.split_state(state, N)
        finals, cells, masks, recurrent_masks = [], [], [], []
        for layer in range(self.num_layers):
            weights = [self.weights(layer, direction) for direction in range(self.directions)]
            if training and self.recurrent_dropout:
                for arrays in weights:
                    m = dropout_mask(self._rng, (self.hidden_size,), self.recurrent_dropout, self.dtype)
                    arrays["Wh"] = m[:, None] * arrays["Wh"]  # (h' * m) Wh = h' (diag(m) Wh)
                    recurrent_masks.append(m)
            results = self._call(
                "forward",
                [
                    {
                        "x": y,
                        **weights[direction],
                        **{name + "0": s[layer * self.directions + direction] for name, s in states.items()},
                        **self.options(),
                        "lengths": lengths,
                        "reverse": bool(direction),
                        "training": training,
                        "checkpoint": self.checkpoint if training else None,
                    }
                    for direction in range(self.directions)
                ],
            )
            outputs, layer_finals, caches = zip(*results, strict=True)
            finals += [final if isinstance(final, tuple) else (final,) for final in layer_finals]
            y = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=2)
            cells.append(caches)
            if training and self.dropout and layer < self.num_layers - 1:
                masks.append(dropout_mask(self._rng, y.shape, self.dropout, self.dtype))
                y = y * masks[-1]
        state = tuple(np.stack(values) for values in zip(*finals, strict=True))
        y = y.swapaxes(0, 1) if self.batch_first else y
        cache = LayerCache((T, N), cells, masks, recurrent_masks) if training else None
        return y, self._join_state(state), cache

    def _call(self, function, arguments, into=None):
        """The cell's forward or backward function for each direction: at the same time, where the backend can.

        into: where the gradients of the weights go, for each direction; they are in the results where it is None.
        """
        function = getattr(self.backend, f"{self.cell_name}_{function}")
        if self.backend is functional:
            return functional.side_by_side(function, arguments, into)
        results = [function(**keywords) for keywords in arguments]
        for gradients, arrays in zip(results, into or (), strict=False):
            for name, array in arrays.items():
                array += getattr(gradients, name)
        return results

    def backward(self, dy, cache, dstate=None):
        """Add the gradients of all parameters into ``grads``.

        Parameters
        ----------
        dy : array like y, or None for zeros
        cache : LayerCache
            From :meth:`forward`.
        dstate : like ``state``, optional
            Gradient with respect to the returned state.

        Returns
        -------
        dx : ndarray like x, or None for ids
        dstate : like ``state``
            Gradient with respect to the state given.

        Raises
        ------
        ValueError, TypeError
            A shape or dtype is wrong.
        """
        if not isinstance(cache, LayerCache):
            raise TypeError(f"cache must come from forward; got {type(cache).__name__}")
        T, N = cache.shape
        if dy is not None:
            dy = self.time_major_gradient(dy, T, N)
        dfinals = self.split_state(dstate, N, "dstate")
        H = self.hidden_size
        dinitials = [None] * (self.num_layers * self.directions)
        for layer in reversed(range(self.num_layers)):
            if cache.masks and layer < self.num_layers - 1:
                dy = dy * cache.masks[layer]
            dx = None
            into = [
                {f"d{name}": self.grads[name + suffix] for name in self._names()} for suffix in self._suffixes(layer)
            ]
            masks = cache.recurrent_masks[layer * self.directions :][: self.directions]
            # The gradients of diag(m) Wh are to be scaled before they are added.
            of_scaled = [arrays | {"dWh": np.zeros_like(arrays["dWh"])} for arrays in into] if masks else into
            results = self._call(
                "backward",
                [
                    {
                        "dh": None if dy is None else dy[:, :, direction * H : (direction + 1) * H],
                        "cache": cache.cells[layer][direction],
                        **{f"d{name}_n": d[layer * self.directions + direction] for name, d in dfinals.items()},
                    }
                    for direction in range(self.directions)
                ],
                of_scaled,
            )
            for m, own, scaled in zip(masks, into, of_scaled, strict=False):
                own["dWh"] += m[:, None] * scaled["dWh"]
            for direction, gradients in enumerate(results):
                index = layer * self.directions + direction
                dinitials[index] = tuple(getattr(gradients, f"d{name}0") for name in self.state_names)
                if gradients.dx is not None:
                    dx = gradients.dx if dx is None else dx + gradients.dx
            dy = dx
        dstate = tuple(np.stack(values) for values in zip(*dinitials, strict=True))
        if dx is not None and self.batch_first:
            dx = dx.swapaxes(0, 1)
        return dx, self._join_state(dstate)

    def time_major_gradient(self, dy, T, N):
        """-> dy (T, N, H * directions) of the layer's dtype. ValueError, TypeError for another shape or dtype."""
        dy = _like("dy", dy, (*((N, T) if self.batch_first else (T, N)), self.output_size), self.dtype)
        return dy.swapaxes(0, 1) if self.batch_first else dy

    def _names(self):
        return ("Wx", "Wh", "b", *self._extra_shapes())

    def split_state(self, state, N, argument="state"):
        """-> dict of the arrays (num_layers * directions, N, H) by name; empty for None."""
        if state is None:
            return {}
        arrays = state if len(self.state_names) > 1 else (state,)
        if len(self.state_names) > 1 and not (isinstance(state, (tuple, list)) and len(state) == 2):
            raise TypeError(f"{argument} of an LSTM must be a tuple (h, c); got {type(state).__name__}")
        result = {}
        for name, array in zip(self.state_names, arrays, strict=True):
            array = functional.as_real(f"{argument} {name}", array)
            wanted = (self.num_layers * self.directions, N, self.hidden_size)
            if array.shape != wanted:
                raise ValueError(
                    f"{argument} {name} must be (num_layers * directions, N, H) = {wanted}; got {array.shape}"
                )
            result[name] = array.astype(self.dtype, copy=False)
        return result

    def _join_state(self, arrays):
        return arrays if len(self.state_names) > 1 else arrays[0]

    def __repr__(self):
        options = "".join(f", {name}={value!r}" for name, value in self._described().items())
        return f"{type(self).__name__}({self.input_size}, {self.hidden_size}, {self.num_layers}{options})"

    def _described(self):
        return {
            name: getattr(self, name)
            for name in ("bidirectional", "batch_first", "dropout", "recurrent_dropout", "checkpoint")
            if getattr(self, name)
        }


class Stream:
    """Recurrent layers one step at a time, made by ``layer.stream(batch_size)``.

    The weights are packed once and kept; a step allocates nothing but its result, or nothing at all with ``out``. The
    steps have the same bits as the sequence in one call. One thread at a time may use a stream.

    Attributes
    ----------
    batch_size, input_size, hidden_size : int
        N, D and H.
    state : array (num_layers, N, H), or tuple (h, c) of two for an LSTM
        A copy; assign to it to go on from another state.

    Examples
    --------
    >>> lstm = LSTM(3, 5, num_layers=2, seed=0)
    >>> stream = lstm.stream()
    >>> x = np.random.default_rng(0).normal(size=(7, 1, 3)).astype("float32")
    >>> steps = np.stack([stream.step(x_t) for x_t in x])
    >>> bool((steps == lstm(x)[0]).all())
    True
    """

    def __init__(self, layer, batch_size=1):
        cells = layer.cells()
        self.batch_size = checks.integer("batch_size", batch_size, least=1)
        self.input_size, self.hidden_size, self.dtype = layer.input_size, layer.hidden_size, layer.dtype
        shape = (layer.num_layers, self.batch_size, layer.hidden_size)
        self._state = tuple(np.zeros(shape, self.dtype) for _ in layer.state_names)
        h, c = (*self._state, None)[:2]
        self._native = functional.make_stream(cells, self.input_size, self.dtype, h, c)

    def step(self, x, out=None):
        """Advance every sequence by one step.

        Parameters
        ----------
        x : array (N, D), or integer ids (N,)
        out : array (N, H) of the layer's dtype, C-contiguous, optional
            Where the result goes; must not be ``x``.

        Returns
        -------
        ndarray (N, H)
            State of the top layer: ``out``, or a fresh array.

        Raises
        ------
        ValueError, TypeError
            A shape or dtype is wrong, or an id out of range.
        """
        N, D, H, dtype = self.batch_size, self.input_size, self.hidden_size, self.dtype
        if out is None:
            out = np.empty((N, H), dtype)
        if self._native.try_step(x, out):
            return out
        # Something is wrong, or has to be converted.
        if not (isinstance(out, np.ndarray) and out.shape == (N, H) and out.dtype == dtype):
            got = f"{out.shape} {out.dtype}" if isinstance(out, np.ndarray) else type(out).__name__
            raise ValueError(f"out must be an array (N, H) = {(N, H)} of {dtype}; got {got}")
        if not (out.flags.carray and not np.may_share_memory(x, out)):
            raise ValueError("out must be C-contiguous, writable, and apart from x")
        x = np.asarray(x)
        if x.dtype.kind in "iu":
            if x.shape != (N,):
                raise ValueError(f"x of integers holds ids and must be (N,) = ({N},); got {x.shape}")
            self._native.step(None, functional.clean_ids(x, D), out)
        else:
            x = _like("x", x, (N, D), dtype)
            self._native.step(np.array(x, dtype, order="C"), None, out)
        return out

    @property
    def state(self):
        copies = tuple(s.copy() for s in self._state)
        return copies if len(copies) > 1 else copies[0]

    @state.setter
    def state(self, value):
        values = value if len(self._state) > 1 else (value,)
        if not isinstance(values, (tuple, list)) or len(values) != len(self._state):
            raise TypeError(f"state of an LSTM must be a tuple (h, c); got {type(value).__name__}")
        shape = self._state[0].shape
        values = [_like(f"state {name}", v, shape, self.dtype) for name, v in zip("hc", values, strict=False)]
        for own, new in zip(self._state, values, strict=True):
            own[...] = new

    def reset(self):
        """Set the state to zero."""
        for own in self._state:
            own.fill(0)


class RNN(_Recurrent):
    """Simple recurrent layers: ``h = act(x Wx + h' Wh + b)``.

    Parameters ``Wx_l (D, H)``, ``Wh_l (H, H)``, ``b_l (H,)`` for layer l, with ``_reverse`` behind them for the other
    direction. Equations: :func:`rnncore.reference.rnn_forward`.

    Parameters
    ----------
    input_size, hidden_size : int
        D and H.
    num_layers : int, default 1
    activation : {"tanh", "relu", "identity"}
    bidirectional : bool, default False
        A second cell runs in reverse; outputs are side by side, (T, N, 2H).
    batch_first : bool, default False
        Sequences come and go as (N, T, .).
    dropout : float, default 0
        Share of the values between layers that ``forward`` sets to zero.
    recurrent_dropout : float, default 0
        Share of the units that ``forward`` hides from the product with ``Wh``, drawn once a call for every layer and
        direction: the same for all steps and rows (Gal and Ghahramani 2016, "A theoretically grounded application of
        dropout in recurrent neural networks").
    checkpoint : True or int, optional
        Segments of the sequence that ``backward`` computes again instead of ``forward`` keeping them: long sequences
        in little memory, with the same bits; see :func:`rnncore.rnn_forward`.
    init : {"orthogonal", "uniform"}
        Recurrent weights orthogonal and input weights Glorot-uniform, biases zero; or all uniform in +-1/sqrt(H).
    dtype : {"float32", "float64"}
    seed : int, numpy.random.Generator or None
        For the initial parameters, then for dropout.

    Examples
    --------
    >>> rnn = RNN(3, 5, activation="relu", seed=0)
    >>> y, h = rnn(np.zeros((7, 2, 3)))
    >>> y.shape, h.shape
    ((7, 2, 5), (1, 2, 5))
    """

    def __init__(
        self,
        input_size,
        hidden_size,
        num_layers=1,
        *,
        activation="tanh",
        bidirectional=False,
        batch_first=False,
        dropout=0.0,
        recurrent_dropout=0.0,
        checkpoint=None,
        init="orthogonal",
        dtype="float32",
        seed=None,
    ):
        self.activation = activation
        self._description()
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bidirectional=bidirectional,
            batch_first=batch_first,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            checkpoint=checkpoint,
            init=init,
            dtype=dtype,
            seed=seed,
        )

    def _description(self):
        return functional.rnn_cell(self.activation)

    def options(self):
        return {"activation": self.activation}


class GRU(_Recurrent):
    """Gated recurrent layers; gate blocks r z n (simplified: z n).

    Parameters ``Wx_l (D, GH)``, ``Wh_l (H, GH)``, ``b_l (GH,)``, and ``bhn_l (H,)`` for "reset_after". Equations:
    :func:`rnncore.reference.gru_forward`.

    Parameters
    ----------
    input_size, hidden_size : int
        D and H.
    num_layers : int, default 1
    form : {"reset_before", "reset_after", "simplified"}
    update : {"new", "old"}
        "new": h = z n + (1-z) h' (the course); "old": h = (1-z) n + z h' (PyTorch).
    bidirectional, batch_first, dropout, recurrent_dropout, checkpoint, init, dtype, seed
        As in :class:`RNN`.

    Examples
    --------
    >>> gru = GRU(3, 5, bidirectional=True, seed=0)
    >>> y, h = gru(np.zeros((7, 2, 3)), lengths=[7, 4])
    >>> y.shape, h.shape
    ((7, 2, 10), (2, 2, 5))
    """

    cell_name = "gru"
    cell = cells.GRU

    def __init__(
        self,
        input_size,
        hidden_size,
        num_layers=1,
        *,
        form="reset_before",
        update="new",
        bidirectional=False,
        batch_first=False,
        dropout=0.0,
        recurrent_dropout=0.0,
        checkpoint=None,
        init="orthogonal",
        dtype="float32",
        seed=None,
    ):
        self.form, self.update = form, update
        self._description()
        self.gate_names = ("z", "n") if form == "simplified" else ("r", "z", "n")
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bidirectional=bidirectional,
            batch_first=batch_first,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            checkpoint=checkpoint,
            init=init,
            dtype=dtype,
            seed=seed,
        )

    def _description(self):
        return functional.gru_cell(self.form, self.update)

    def _extra_shapes(self):
        return {"bhn": (self.hidden_size,)} if self.form == "reset_after" else {}

    def options(self):
        return {"form": self.form, "update": self.update}


class LSTM(_Recurrent):
    """Long short-term memory layers; gate blocks i f g o, state (h, c).

    Parameters ``Wx_l (D, 4H)``, ``Wh_l (H, 4H)``, ``b_l (4H,)``, and ``peephole_l (3, H)`` with ``peephole=True``.
    Equations: :func:`rnncore.reference.lstm_forward`.

    Parameters
    ----------
    input_size, hidden_size : int
        D and H.
    num_layers : int, default 1
    peephole : bool, default False
    peephole_output : {"current", "previous"}
        The cell state that the output gate sees.
    output_activation : {"tanh", "identity"}
    forget_bias : float, default 1
        Added to the f block of ``b`` at the start (Jozefowicz, Zaremba and Sutskever 2015).
    bidirectional, batch_first, dropout, recurrent_dropout, checkpoint, init, dtype, seed
        As in :class:`RNN`.

    Examples
    --------
    >>> lstm = LSTM(3, 5, num_layers=2, seed=0)
    >>> y, (h, c), cache = lstm.forward(np.zeros((7, 2, 3)))
    >>> dx, (dh, dc) = lstm.backward(np.ones_like(y), cache)
    >>> dx.shape, dh.shape, lstm.grads["Wh_1"].shape
    ((7, 2, 3), (2, 2, 5), (5, 20))
    """

    cell_name = "lstm"
    cell = cells.LSTM
    gate_names = ("i", "f", "g", "o")
    state_names = ("h", "c")

    def __init__(
        self,
        input_size,
        hidden_size,
        num_layers=1,
        *,
        peephole=False,
        peephole_output="current",
        output_activation="tanh",
        forget_bias=1.0,
        bidirectional=False,
        batch_first=False,
        dropout=0.0,
        recurrent_dropout=0.0,
        checkpoint=None,
        init="orthogonal",
        dtype="float32",
        seed=None,
    ):
        self.peephole, self.forget_bias = bool(peephole), float(forget_bias)
        self.peephole_output, self.output_activation = peephole_output, output_activation
        self._description()
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bidirectional=bidirectional,
            batch_first=batch_first,
            dropout=dropout,
            recurrent_dropout=recurrent_dropout,
            checkpoint=checkpoint,
            init=init,
            dtype=dtype,
            seed=seed,
        )

    def _initial(self, size, init):
        values = super()._initial(size, init)
        values["b"][self.hidden_size : 2 * self.hidden_size] += self.forget_bias
        return values

    def _description(self):
        return functional.lstm_cell(self.peephole, self.peephole_output, self.output_activation)

    def _extra_shapes(self):
        return {"peephole": (3, self.hidden_size)} if self.peephole else {}

    def options(self):
        return {"peephole_output": self.peephole_output, "output_activation": self.output_activation}


Recurrent = _Recurrent
RECURRENT = {layer.cell.name: layer for layer in (RNN, GRU, LSTM)}
