"""Layers and cells for inference, whose weights are packed once, as they are or in bfloat16 or int8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .. import checks
from .._types import Array, StateLike
from ..engine import arrays, calls, cells, native
from ..engine.quantization import PRECISIONS, Precision, Quantized, already_quantized, quantize_cell
from ..engine.weights import pack_cell, unpack_cell
from .stack import Stack
from .stream import Stream

__all__ = ["Frozen", "FrozenCell", "freeze"]


class Frozen(Stack):
    """Recurrent layers for inference, made by ``layer.freeze()`` or ``layer.quantize(precision)``.

    Its weights are copies, packed once as the kernels read them. A call packs nothing, which is most of the work of a
    short one, and gives the same bits as the layer. The layer may go on training: what it learns does not reach this
    copy. Several threads may call one at once. It can be pickled and copied; its memory is returned with the last
    reference to it.

    Attributes
    ----------
    input_size, hidden_size, num_layers, output_size : int
        D, H, the number of layers, and H times the number of directions.
    bidirectional, batch_first : bool
    dtype : numpy dtype
        Of inputs, states and outputs.
    precision : str
        Of the weights: "float32" or "float64", "bfloat16" or "int8".
    nbytes : int
    x_scales : tuple of float
        What the inputs of each layer are divided by before they become int8; 0 for a scale of each step.
    cell_name : str
        "lstm", "gru", ...
    gate_names, state_names : tuple of str
        As those of the layer.

    Examples
    --------
    >>> from rnncore import LSTM
    >>> frozen = LSTM(3, 5, num_layers=2, seed=0).freeze()
    >>> state = None
    >>> for x_t in np.ones((4, 1, 1, 3), "float32"):  # one step of one sequence at a time
    ...     y, state = frozen(x_t, state)
    >>> y.shape, state[0].shape
    ((1, 1, 5), (2, 1, 5))
    """

    def __init__(
        self,
        variant: cells.Variant,
        input_size: int,
        hidden_size: int,
        weights: list[dict[str, Any]],
        bidirectional: bool,
        batch_first: bool,
        dtype: DTypeLike,
        x_scales: Sequence[float] = (),
    ) -> None:
        """``weights``: those of each cell by name, layer by layer, forward before reverse; Wx and Wh may be Quantized.

        ``x_scales``: what the inputs of each layer are divided by before they become int8.
        """
        self.variant = variant
        self.input_size, self.hidden_size = input_size, hidden_size
        self.bidirectional, self.batch_first = bidirectional, batch_first
        self.dtype = np.dtype(checks.floating_dtype("dtype", dtype))
        self.num_layers = len(weights) // self.directions
        self.x_scales = tuple(x_scales) or (0.0,) * self.num_layers
        self._packed, self._scales = [], []
        for place, own in enumerate(weights):
            layer = place // self.directions
            sizes = self.layer_input_size(layer), hidden_size
            self._packed.append(pack_cell(variant, own, *sizes, self.dtype, self.x_scales[layer], layer == 0))
            self._scales.append({name: w.scales for name, w in own.items() if isinstance(w, Quantized)})
        in_order = [(variant, packed, place % self.directions == 1) for place, packed in enumerate(self._packed)]
        self.native = native.open_stack(in_order, self.directions)

    def __reduce__(self) -> tuple[Any, ...]:
        shape = self.variant, self.input_size, self.hidden_size, self._weights()
        return Frozen, (*shape, self.bidirectional, self.batch_first, self.dtype, self.x_scales)

    def __repr__(self) -> str:
        names = ("bidirectional", "batch_first")
        options = "".join(f", {name}=True" for name in names if getattr(self, name))
        kind = "frozen" if self.precision == self.dtype.name else self.precision
        return f"<{kind} {self.variant.cell.label}({self.input_size}, {self.hidden_size}, {self.num_layers}{options})>"

    def freeze(self) -> Frozen:
        """Return itself."""
        return self

    def quantize(self, precision: Precision, calibration: ArrayLike | None = None) -> Frozen:
        """Return a copy whose weights take fewer bytes: see ``quantize`` of the layer.

        Raises
        ------
        ValueError
            The weights are in bfloat16 or int8 already.
        """
        if self.precision != self.dtype.name:
            raise already_quantized("a layer", self.precision)
        weights = self._weights()
        observed = None if calibration is None else observe(self, weights, calibration)
        return quantize_layers(self, weights, precision, observed)

    def arrays(self) -> dict[str, Any]:
        """Return the weights by the names of the layer's parameters, those in bfloat16 or int8 Quantized."""
        pairs = zip(self._all_suffixes(), self._weights(), strict=True)
        return {name + suffix: weight for suffix, own in pairs for name, weight in own.items()}

    def _weights(self) -> list[dict[str, Any]]:
        """Return the weights of every cell."""
        pairs = zip(self._packed, self._scales, strict=True)
        return [unpack_cell(self.variant, packed, scales) for packed, scales in pairs]

    @property
    def precision(self) -> str:
        """Of the weights: "float32" or "float64", "bfloat16" or "int8"."""
        scales = self._scales[0]
        return self.dtype.name if not scales else "bfloat16" if scales["Wx"] is None else "int8"

    @property
    def nbytes(self) -> int:
        """Bytes of the weights, with the scales of int8."""
        total, columns = 0, len(self.gate_names) * self.hidden_size
        for place, packed in enumerate(self._packed):
            total += sum(array.nbytes for array in packed.by_name().values())
            rows = {"Wx": self.layer_input_size(place // self.directions), "Wh": self.hidden_size}
            for name, scales in self._scales[place].items():
                total += rows[name] * columns * 2 if scales is None else rows[name] * columns + scales.nbytes
        return total

    def stream(self, batch_size: int = 1) -> Stream:
        """Return a stream over these weights: see ``stream`` of the layer."""
        self.check_one_direction()
        return Stream(self, batch_size)

    def _infer(self, x: ArrayLike, state: StateLike | None, lengths: ArrayLike | None) -> tuple[Array, Any]:
        if lengths is None and not self.batch_first:
            found = self.native.try_run(x, state)
            if found is not None:
                return found
        y, state, _ = self._run(x, state, lengths, self._arguments, training=False)
        return y, state

    def _arguments(self, layer: int, direction: int) -> dict[str, Any]:
        packed = self._packed[layer * self.directions + direction]
        return {"Wx": None, **packed.by_name(), "packed": packed}

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """Raise TypeError: frozen layers cannot be trained."""
        raise TypeError("frozen layers cannot be trained: call forward and backward of the layer they came from")

    backward = zero_grad = forward

    @property
    def params(self) -> Any:
        """Raise AttributeError: the weights are packed and cannot be changed."""
        raise AttributeError("frozen layers have no params or grads: change those of the layer and freeze it again")

    grads = params


def quantize_layers(
    stack: Stack, weights: list[dict[str, Any]], precision: Precision, observed: Observed | None = None
) -> Frozen:
    """Return a stack with the weights of its cells in fewer bytes, and scales for inputs such as those observed."""
    checks.choice("precision", precision, PRECISIONS)
    if observed is not None and precision != "int8":
        raise ValueError(f"calibration sets the scales of int8 inputs: it must be None for {precision}")
    return Frozen(
        stack.variant,
        stack.input_size,
        stack.hidden_size,
        [quantize_cell(own, precision) for own in weights],
        stack.bidirectional,
        stack.batch_first,
        stack.dtype,
        () if observed is None else observed.found_scales(),
    )


def observe(stack: Stack, weights: list[dict[str, Any]], x: ArrayLike | None = None) -> Observed:
    """Return a copy of a stack that notes its inputs, and let it read x."""
    options = stack.bidirectional, stack.batch_first, stack.dtype
    observed = Observed(stack.variant, stack.input_size, stack.hidden_size, weights, *options)
    if x is not None:
        with checks.named(x="calibration"):
            observed(x)
    return observed


class Observed(Frozen):
    """Layers that note how large the inputs of each of them are, to set the scales of int8."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._largest = [0.0] * self.num_layers

    def _infer(self, x: ArrayLike, state: StateLike | None, lengths: ArrayLike | None) -> tuple[Array, Any]:
        above = iter(range(1, self.num_layers))
        self._note(0, self.time_major(x))
        y, state, _ = self._run(
            x, state, lengths, self._arguments, lambda y: self._note(next(above), y), training=False
        )
        return y, state

    def _note(self, layer: int, x: Array) -> Array:
        if x.dtype.kind == "f":  # the rows that ids stand for are not divided by anything
            largest = float(np.abs(x).max(initial=0))
            if not np.isfinite(largest):
                raise ValueError("calibration must be finite, and so must be what the layers make of it")
            self._largest[layer] = max(self._largest[layer], largest)
        return x

    def found_scales(self) -> list[float]:
        """Return the x_scales with which the largest input of each layer becomes 127; 0 for no normal number."""
        tiny = float(np.finfo(self.dtype).tiny)
        return [0.0 if largest / 127 < tiny else largest / 127 for largest in self._largest]


class FrozenCell:
    """One cell for inference, made by :func:`freeze`."""

    def __init__(self, variant: cells.Variant, weights: dict[str, Any]) -> None:
        """Wx and Wh may be Quantized."""
        D, H = weights["Wx"].shape[0], weights["b"].shape[0] // len(variant.gates)
        self._variant = variant
        self._packed = pack_cell(variant, weights, D, H, weights["b"].dtype)
        self._scales = {name: weight.scales for name, weight in weights.items() if isinstance(weight, Quantized)}
        self._native = native.open_stack([(variant, self._packed, False)], 1, state_axes=2)

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenCell, (self._variant, unpack_cell(self._variant, self._packed, self._scales))

    def __repr__(self) -> str:
        precision = "" if not self._scales else "bfloat16 " if self._scales["Wx"] is None else "int8 "
        return f"<frozen {precision}{self._variant!r}>"

    def __call__(
        self,
        x: ArrayLike,
        state: StateLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        resets: ArrayLike | None = None,
        reverse: bool = False,
    ) -> tuple[Array, Any]:
        """Run the cell: ``h`` and the final state, as the forward function returns them.

        Parameters
        ----------
        x : array (T, N, D), or integer ids (T, N)
        state : array h0 (N, H), or tuple (h0, c0) for an LSTM, optional
            As returned; default zeros.
        lengths, resets, reverse
            As of the forward function.

        Returns
        -------
        h : ndarray (T, N, H)
        state : ndarray h_n (N, H), or tuple (h_n, c_n) for an LSTM

        Raises
        ------
        ValueError, TypeError
            A shape, dtype, id or length is wrong.
        """
        if not isinstance(reverse, bool):
            reverse = checks.flag("reverse", reverse)
        if lengths is None and resets is None and not reverse:
            found = self._native.try_run(x, state)
            if found is not None:
                return found
        names = self._variant.cell.states
        if len(names) > 1 and state is not None and not (isinstance(state, (tuple, list)) and len(state) == len(names)):
            wanted = f"a tuple ({', '.join(name + '0' for name in names)})"
            raise TypeError(f"state of an {self._variant.cell.label} must be {wanted}; got {type(state).__name__}")
        states: Any = state if state is not None and len(names) > 1 else (state,) * len(names)
        h, final, _ = calls.forward(
            self._variant,
            x,
            **{"Wx": None, **self._packed.by_name()},
            **{f"{name}0": value for name, value in zip(names, states, strict=True)},
            lengths=lengths,
            resets=resets,
            reverse=reverse,
            training=False,
            packed=self._packed,
        )
        return h, final


def freeze(
    cell: str,
    Wx: ArrayLike,
    Wh: ArrayLike | None,
    b: ArrayLike,
    *,
    bhn: ArrayLike | None = None,
    peephole: ArrayLike | None = None,
    precision: Precision | None = None,
    **options: Any,
) -> FrozenCell:
    """Pack the weights of a cell once, for many calls of inference.

    A forward function reads its weights anew in every call, since they may have changed. Where they do not, this saves
    most of the time of a short call. The bits are the same.

    Parameters
    ----------
    cell : {"rnn", "gru", "lstm", "mingru"}
    Wx, Wh, b, bhn, peephole : arrays
        As of the cell's forward function. They are copied: later changes do not reach the result.
    precision : {"bfloat16", "int8"}, optional
        Round ``Wx`` and ``Wh``, as ``quantize`` of the layers does; then ``x`` is taken in the dtype of the weights.
    **options
        As of the cell's forward function: ``activation``; ``form``, ``update``; ``peephole_output``,
        ``output_activation``; ``candidate``; ``gate_order``.

    Returns
    -------
    frozen : FrozenCell
        Call it as ``h, state = frozen(x, state=None, lengths=None, resets=None, reverse=False)``, with ``state`` h0, or
        (h0, c0) for an LSTM. It can be pickled and copied, and several threads may call it at once.

    Raises
    ------
    ValueError, TypeError
        The cell or an option is unknown, or the shape or dtype of an array is wrong.

    Examples
    --------
    >>> import rnncore as rc
    >>> rng = np.random.default_rng(0)
    >>> Wx, Wh, b = rng.normal(size=(3, 20)), rng.normal(size=(5, 20)), np.zeros(20)
    >>> frozen = rc.freeze("lstm", Wx, Wh, b)
    >>> x, state = rng.normal(size=(4, 1, 3)), None
    >>> for t in range(4):  # one step a call
    ...     h, state = frozen(x[t : t + 1], state)
    >>> bool((h[0] == rc.lstm_forward(x, Wx, Wh, b, training=False)[0][-1]).all())
    True
    """
    checks.choice("cell", cell, tuple(cells.CELLS))
    table = cells.CELLS[cell]
    if "peephole" in table.options:
        options["peephole"] = peephole is not None
    given = {"Wx": Wx, "Wh": Wh, "b": b, "bhn": bhn, "peephole": peephole}
    variant = table.choose(**options)
    wanted = {array.name for array in variant.weights}
    for name in ("Wh", "bhn", "peephole"):
        if given[name] is not None and name not in wanted:
            raise ValueError(f"{name} must be None for {variant}")
    if precision is not None:
        checks.choice("precision", precision, PRECISIONS)
    weights, dtype, (_, H) = arrays.clean_arguments(variant, 0, None, given, {})
    own: dict[str, Any] = {name: weight.astype(dtype, copy=False) for name, weight in weights.items()}
    if variant.has_bhn:
        own.setdefault("bhn", np.zeros(H, dtype))
    if precision is not None:
        own = quantize_cell(own, precision)
    return FrozenCell(variant, own)
