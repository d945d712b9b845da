"""Recurrent layers: stacked, in one direction or both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .. import checks, functional
from .._types import Array, Seed, StateLike
from ..engine import calls, cells
from ..engine.arrays import as_floating
from ..engine.quantization import Precision
from .base import Layer, dropout_mask, glorot_uniform, orthogonal
from .frozen import Frozen, observe, quantize_layers
from .stack import Stack
from .stream import Stream

__all__ = ["GRU", "LSTM", "RNN", "MinGRU"]

Init = Literal["orthogonal", "uniform"]
Checkpoint = Literal[True] | int | None


class LayerCache(NamedTuple):
    """What :meth:`Recurrent.backward` needs: ``cells[layer][direction]`` are the caches of the functions."""

    shape: tuple[int, int]  # (T, N)
    cells: list[tuple[Any, ...]]
    masks: list[Array]  # of dropout, between the layers: (T, N, H * directions)
    recurrent_masks: list[Array]  # of recurrent dropout, for every layer and direction: (N, H); empty without

    @property
    def gates(self) -> list[Array | None]:
        """Activated gates (T, N, G*H) of every layer and direction, in the order of the state; read-only.

        Blocks are those of the layer's ``gate_names``, 0 beyond each row's length; None with ``checkpoint``.
        """
        return [cell.gates for directions in self.cells for cell in directions]


class Recurrent(Stack, Layer):
    """A stack of one cell, in one direction or both.

    A subclass names its cell in the table and takes the cell's options.

    Attributes
    ----------
    input_size, hidden_size, num_layers, output_size : int
        D, H, the number of layers, and H times the number of directions.
    params, grads : dict of str to ndarray
    cell_name : str
        "lstm", "gru", ...
    gate_names, state_names : tuple of str
        Gate blocks in the order of the weights; states in the order in which they are given and returned.
    """

    cell: ClassVar[cells.Cell]

    #: Keyword arguments of the constructor that only layers of this cell have, and ``init``.
    settings: ClassVar[tuple[str, ...]]

    size_names = "input_size", "hidden_size"

    #: A module with the functions of the cells; :mod:`rnncore.reference` serves as well.
    backend: Any = functional

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        *,
        bidirectional: bool,
        batch_first: bool,
        dropout: float,
        recurrent_dropout: float,
        checkpoint: Checkpoint,
        init: Init,
        dtype: DTypeLike,
        seed: Seed,
    ) -> None:
        super().__init__(dtype)
        self.options()  # ValueError for an unknown option
        self.input_size = checks.integer("input_size", input_size, least=1)
        self.hidden_size = checks.integer("hidden_size", hidden_size, least=1)
        self.num_layers = checks.integer("num_layers", num_layers, least=1)
        self.bidirectional = checks.flag("bidirectional", bidirectional)
        self.batch_first = checks.flag("batch_first", batch_first)
        self.dropout = checks.share("dropout", dropout)
        self.recurrent_dropout = checks.share("recurrent_dropout", recurrent_dropout)
        if recurrent_dropout and not any(array.name == "Wh" for array in self.cell.weights):
            wanted = f"0 for {type(self).__name__}, which has no recurrent weights"
            raise ValueError(f"recurrent_dropout must be {wanted}; got {recurrent_dropout}")
        self.checkpoint = checkpoint
        if checkpoint is not None:
            calls.checkpoint_segments(checkpoint, 1)
        checks.choice("init", init, ("orthogonal", "uniform"))
        upper = self.variant.shapes(self.output_size, self.hidden_size)
        checks.addressable(["hidden_size", "num_layers"], upper.values(), self.num_layers - 1)
        self._rng = checks.generator("seed", seed)
        for layer in range(self.num_layers):
            for suffix in self._suffixes(layer):
                size = self.layer_input_size(layer)
                self._add(self.variant.shapes(size, self.hidden_size), partial(self._initial, size, init), suffix)

    # ---- what it is ---------------------------------------------------------------------------------------------

    @property
    def variant(self) -> cells.Variant:  # type: ignore[override]  # options can be changed
        """The cell with the layer's options; ValueError for an unknown one."""
        return self.cell.variant(*(getattr(self, name) for name in self.cell.options))

    def options(self) -> dict[str, str]:
        """Keyword arguments of the cell's forward function that do not change from call to call."""
        return {name: word for name, word in self.variant.options.items() if isinstance(word, str)}

    def weights(self, layer: int, direction: int) -> dict[str, Array]:
        """Return the parameters of one cell, by the names of the arguments of its forward function."""
        suffix = self._suffixes(layer)[direction]
        return {array.name: self.params[array.name + suffix] for array in self.variant.weights}

    def all_weights(self) -> list[dict[str, Array]]:
        """Return those of every cell: layer by layer, forward before reverse."""
        return [
            {name: as_floating(name, array) for name, array in self.weights(layer, direction).items()}
            for layer in range(self.num_layers)
            for direction in range(self.directions)
        ]

    def _initial(self, size: int, init: Init) -> dict[str, Array]:
        """Draw the parameters of one cell."""
        H, rng, blocks = self.hidden_size, self._rng, range(self.num_gates)
        shapes = self.variant.shapes(size, H)
        if init == "uniform":
            # As PyTorch: all of them uniform in +-1/sqrt(H).
            return {name: rng.uniform(-(H**-0.5), H**-0.5, shape) for name, shape in shapes.items()}
        values = {name: np.zeros(shape) for name, shape in shapes.items()}
        values["Wx"] = np.concatenate([glorot_uniform(rng, size, H) for _ in blocks], axis=1)
        if "Wh" in values:
            values["Wh"] = np.concatenate([orthogonal(rng, H) for _ in blocks], axis=1)
        return values

    def __repr__(self) -> str:
        names = ("bidirectional", "batch_first", "dropout", "recurrent_dropout", "checkpoint")
        options = "".join(f", {name}={getattr(self, name)!r}" for name in names if getattr(self, name))
        return f"{type(self).__name__}({self.input_size}, {self.hidden_size}, {self.num_layers}{options})"

    # ---- forward ------------------------------------------------------------------------------------------------

    def freeze(self) -> Frozen:
        """Return a copy of the layer for inference: its weights are packed once, not in every call.

        Returns
        -------
        Frozen
            Called as the layer is, with the same bits. Later changes of the layer do not reach it.

        Examples
        --------
        >>> lstm = LSTM(3, 5, seed=0)
        >>> frozen = lstm.freeze()
        >>> x = np.ones((7, 2, 3), "float32")
        >>> bool((frozen(x)[0] == lstm(x)[0]).all())
        True
        """
        return self.with_weights({name: self._param(name) for name in self.params})

    def quantize(self, precision: Precision, calibration: ArrayLike | None = None) -> Frozen:
        """Return a copy of the layer for inference whose weights take a half or a quarter of the bytes.

        Only ``Wx`` and ``Wh`` are rounded. Gates, states and everything between are computed in the layer's dtype. A
        step of few sequences takes as long as its weights take to read, so fewer bytes are less time.

        Parameters
        ----------
        precision : {"bfloat16", "int8"}
            * "bfloat16": the upper halves of floats, rounded to the nearest. The result has the bits of the layer with
              its ``Wx`` and ``Wh`` rounded so, except after ``use_isa("blas")``.
            * "int8": integers with a scale for each column (a hidden unit of a gate), the largest of a column as 127.
              Inputs and states are rounded to int8 as well where they meet them, and the sums of products, in 32 bits,
              are exact. The scale of a state is that of its own largest value, at every step and for every sequence.
        calibration : array like ``x`` of the layer, optional
            Inputs to run in float: the largest input of each layer becomes 127, and what exceeds it later is cut off.
            Without it the inputs of each step of each sequence have a scale of their own, as the states have. For int8.

        Returns
        -------
        Frozen
            Called as the layer is, with ``precision`` and ``nbytes``. It cannot be trained.

        Raises
        ------
        ValueError
            A weight is not finite (int8), the layer is too wide for sums in 32 bits (131,072; an input of ids may be
            wider), or ``calibration`` is given for bfloat16 or not finite.

        Notes
        -----
        :class:`rnncore.reference.Int8Matrix` is the specification of the products in int8.

        Examples
        --------
        >>> lstm = LSTM(64, 128, seed=0)
        >>> small = lstm.quantize("int8")
        >>> small
        <int8 LSTM(64, 128, 1)>
        >>> x = np.random.default_rng(0).normal(size=(20, 1, 64)).astype("float32")
        >>> y, exact = small(x)[0], lstm(x)[0]
        >>> bool(np.linalg.norm(y - exact) < 0.02 * np.linalg.norm(exact)), round(lstm.nbytes / small.nbytes, 1)
        (True, 3.8)
        """
        weights = self.all_weights()
        observed = None if calibration is None else observe(self, weights, calibration)
        return quantize_layers(self, weights, precision, observed)

    def with_weights(self, weights: dict[str, Any], x_scales: Sequence[float] = ()) -> Frozen:
        names = [array.name for array in self.variant.weights]
        own = [{name: weights[name + suffix] for name in names} for suffix in self._all_suffixes()]
        sizes = self.input_size, self.hidden_size
        return Frozen(self.variant, *sizes, own, self.bidirectional, self.batch_first, self.dtype, x_scales)

    def stream(self, batch_size: int = 1) -> Stream:
        """Return a copy of the layer that runs one step at a time: audio, control, games.

        Parameters
        ----------
        batch_size : int, default 1
            N, sequences side by side.

        Returns
        -------
        Stream
            Its weights are frozen: later changes of the layer do not reach it.

        Raises
        ------
        ValueError
            The layer is bidirectional: it needs the whole sequence.
        """
        self.check_one_direction()
        return Stream(self.freeze(), batch_size)

    def _infer(self, x: ArrayLike, state: StateLike | None, lengths: ArrayLike | None) -> tuple[Array, Any]:
        y, state, _ = self._run(x, state, lengths, self.weights, training=False)
        return y, state

    def forward(
        self, x: ArrayLike, state: StateLike | None = None, lengths: ArrayLike | None = None
    ) -> tuple[Array, Any, LayerCache]:
        """Run the layer with dropout, and save what :meth:`backward` needs. Arguments as in calling the layer.

        Returns
        -------
        y, state
        cache : LayerCache
        """
        masks: list[Array] = []
        recurrent_masks: list[Array] = []

        def weights(layer: int, direction: int) -> dict[str, Array]:
            found = self.weights(layer, direction)
            if self.recurrent_dropout:
                shape = (np.shape(x)[0 if self.batch_first else 1], self.hidden_size)
                found["recurrent_mask"] = dropout_mask(self._rng, shape, self.recurrent_dropout, self.dtype)
                recurrent_masks.append(found["recurrent_mask"])
            return found

        def drop(y: Array) -> Array:
            masks.append(dropout_mask(self._rng, y.shape, self.dropout, self.dtype))
            return y * masks[-1]

        between = drop if self.dropout else None
        y, state, caches = self._run(x, state, lengths, weights, between, training=True, checkpoint=self.checkpoint)
        T, N = y.shape[1::-1] if self.batch_first else y.shape[:2]
        return y, state, LayerCache((T, N), caches, masks, recurrent_masks)

    def _forward_cells(self, arguments: list[dict[str, Any]]) -> list[Any]:
        if self.backend is functional:
            return super()._forward_cells(arguments)
        function = getattr(self.backend, f"{self.cell.name}_forward")
        return [function(**keywords, **self.options()) for keywords in arguments]

    # ---- backward -----------------------------------------------------------------------------------------------

    def backward(
        self, dy: ArrayLike | None, cache: LayerCache, dstate: StateLike | None = None
    ) -> tuple[Array | None, Any]:
        """Add the gradients of all parameters to ``grads``, and return those of the inputs.

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
            Gradient with respect to the initial state.

        Raises
        ------
        ValueError, TypeError
            A shape or dtype is wrong.

        Notes
        -----
        Memory that runs out, and Ctrl-C, may leave a part of the gradients in ``grads``: call :meth:`zero_grad`.
        """
        if not isinstance(cache, LayerCache):
            raise TypeError(f"cache must come from forward; got {type(cache).__name__}")
        found = [len(directions) for directions in cache.cells]
        if found != [self.directions] * self.num_layers:
            wanted = f"of num_layers x directions = {self.num_layers} x {self.directions}, as the layer is"
            raise ValueError(f"cache must be {wanted}; got {len(found)} x {max(found, default=0)}")
        T, N = cache.shape
        dx = None if dy is None else self.time_major_gradient(dy, T, N)
        dfinals = self.split_state(dstate, N, "dstate")
        dinitials: list[Any] = [None] * (self.num_layers * self.directions)
        for layer in reversed(range(self.num_layers)):
            if cache.masks and layer < self.num_layers - 1:
                assert dx is not None
                dx = dx * cache.masks[layer]
            results = self._backward_layer(layer, dx, cache, dfinals)
            dx = None
            for direction, gradients in enumerate(results):
                index = layer * self.directions + direction
                dinitials[index] = tuple(getattr(gradients, f"d{name}0") for name in self.state_names)
                if gradients.dx is not None:
                    with np.errstate(over="ignore", invalid="ignore"):
                        dx = gradients.dx if dx is None else dx + gradients.dx
        dstate = self._join_state(tuple(np.stack(values) for values in zip(*dinitials, strict=True)))
        return dx.swapaxes(0, 1) if dx is not None and self.batch_first else dx, dstate

    def _backward_layer(self, layer: int, dy: Array | None, cache: LayerCache, dfinals: dict[str, Array]) -> list[Any]:
        """The gradients of the cells of one layer; those of the parameters are added to ``grads``."""
        H, directions = self.hidden_size, range(self.directions)
        places = [layer * self.directions + direction for direction in directions]
        into = [
            {f"d{array.name}": self.grads[array.name + suffix] for array in self.variant.weights}
            for suffix in self._suffixes(layer)
        ]
        arguments = [
            {
                "dh": None if dy is None else dy[:, :, direction * H : (direction + 1) * H],
                "cache": cache.cells[layer][direction],
                **{f"d{name}_n": array[place] for name, array in dfinals.items()},
            }
            for direction, place in zip(directions, places, strict=True)
        ]
        return self._backward_cells(arguments, into)

    def _backward_cells(self, arguments: list[dict[str, Any]], into: list[dict[str, Array]]) -> list[Any]:
        """Run the cell of each direction backward, and add the gradients of its weights to the arrays in ``into``."""
        if self.backend is functional:
            return calls.backward_side_by_side(self.cell, arguments, into, shards=self.shards)
        if self.shards > 1:
            raise ValueError(f"shards need the engine; the backend of the layer is {self.backend.__name__}")
        function = getattr(self.backend, f"{self.cell.name}_backward")
        results = [function(**keywords) for keywords in arguments]
        for gradients, sums in zip(results, into, strict=True):
            for name, array in sums.items():
                array += getattr(gradients, name)
        return results


class RNN(Recurrent):
    """Simple recurrent layers: ``h = act(x Wx + h' Wh + b)``.

    Parameters ``Wx_l (D, H)``, ``Wh_l (H, H)``, ``b_l (H,)`` for layer l, with the suffix ``_reverse`` for the other
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
        Inputs and outputs are (N, T, .).
    dropout : float, default 0
        Fraction of the values between layers that ``forward`` sets to zero.
    recurrent_dropout : float, default 0
        Fraction of the recurrent connections that ``forward`` drops: units hidden from the product with ``Wh``, drawn
        anew in every call for every row, layer and direction, the same for all steps (Gal and Ghahramani 2016, "A
        theoretically grounded application of dropout in recurrent neural networks").
    checkpoint : True or int, optional
        Segments of the sequence that ``backward`` recomputes, so that ``forward`` need not save them: long sequences
        in little memory, with the same bits; see :func:`rnncore.rnn_forward`.
    init : {"orthogonal", "uniform"}
        Recurrent weights orthogonal and input weights Glorot-uniform, biases zero; or all uniform in +-1/sqrt(H).
    dtype : {"float32", "float64"}
    seed : int, numpy.random.Generator or None
        Draws the initial parameters, then dropout.

    Examples
    --------
    >>> rnn = RNN(3, 5, activation="relu", seed=0)
    >>> y, h = rnn(np.zeros((7, 2, 3)))
    >>> y.shape, h.shape
    ((7, 2, 5), (1, 2, 5))
    """

    cell = cells.RNN
    settings = (*cell.options, "init")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        activation: Literal["tanh", "relu", "identity"] = "tanh",
        bidirectional: bool = False,
        batch_first: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        checkpoint: Checkpoint = None,
        init: Init = "orthogonal",
        dtype: DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        self.activation = activation
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


class GRU(Recurrent):
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

    cell = cells.GRU
    settings = (*cell.options, "init")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        form: Literal["reset_before", "reset_after", "simplified"] = "reset_before",
        update: Literal["new", "old"] = "new",
        bidirectional: bool = False,
        batch_first: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        checkpoint: Checkpoint = None,
        init: Init = "orthogonal",
        dtype: DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        self.form, self.update = form, update
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


class LSTM(Recurrent):
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
        The cell state that the peephole of the output gate sees: c, or c before the step.
    output_activation : {"tanh", "identity"}
    forget_bias : float, default 1
        Added to the f block of the initial ``b`` (Jozefowicz, Zaremba and Sutskever 2015).
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

    cell = cells.LSTM
    settings = (*cell.options, "forget_bias", "init")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        peephole: bool = False,
        peephole_output: Literal["current", "previous"] = "current",
        output_activation: Literal["tanh", "identity"] = "tanh",
        forget_bias: float = 1.0,
        bidirectional: bool = False,
        batch_first: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        checkpoint: Checkpoint = None,
        init: Init = "orthogonal",
        dtype: DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        self.peephole = checks.flag("peephole", peephole)
        self.forget_bias = checks.finite("forget_bias", forget_bias)
        self.peephole_output, self.output_activation = peephole_output, output_activation
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

    def _initial(self, size: int, init: Init) -> dict[str, Array]:
        values = super()._initial(size, init)
        values["b"][self.hidden_size : 2 * self.hidden_size] += self.forget_bias
        return values


class MinGRU(Recurrent):
    """Minimal gated recurrent layers: ``z = sigmoid(x Wx + b)``, ``n = g(x Wx + b)``, ``h = (1 - z) h' + z n``.

    Parameters ``Wx_l (D, 2H)``, blocks z n, and ``b_l (2H,)``; there are no recurrent weights. Source: Feng et al.
    2024, "Were RNNs all we needed?". Equations: :func:`rnncore.reference.mingru_forward`.

    Parameters
    ----------
    input_size, hidden_size : int
        D and H.
    num_layers : int, default 1
    candidate : {"identity", "positive"}
        See :func:`rnncore.mingru_forward`.
    bidirectional, batch_first, dropout, checkpoint, init, dtype, seed
        As in :class:`RNN`.
    recurrent_dropout : float
        Only 0: no recurrent connections could be dropped.

    Examples
    --------
    >>> mingru = MinGRU(3, 5, num_layers=2, seed=0)
    >>> y, h = mingru(np.zeros((7, 2, 3)))
    >>> y.shape, h.shape, sorted(mingru.params)
    ((7, 2, 5), (2, 2, 5), ['Wx_0', 'Wx_1', 'b_0', 'b_1'])
    """

    cell = cells.MinGRU
    settings = (*cell.options, "init")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        candidate: Literal["identity", "positive"] = "identity",
        bidirectional: bool = False,
        batch_first: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        checkpoint: Checkpoint = None,
        init: Init = "orthogonal",
        dtype: DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        self.candidate = candidate
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


#: The layer class of each cell, by the cell's name.
RECURRENT: dict[str, Any] = {layer.cell.name: layer for layer in (RNN, GRU, LSTM, MinGRU)}
