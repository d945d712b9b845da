"""Layers and cells for inference, whose weights are packed once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .. import checks
from .._types import Array, StateLike
from ..engine import arrays, calls, cells, native
from .stack import Stack
from .stream import Stream

__all__ = ["Frozen", "FrozenCell", "freeze"]


class Frozen(Stack):
    """Recurrent layers for inference, made by ``layer.freeze()``.

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
        weights: list[dict[str, Array]],
        bidirectional: bool,
        batch_first: bool,
        dtype: DTypeLike,
    ) -> None:
        """``weights``: those of each cell by name, layer by layer, forward before reverse."""
        self.variant = variant
        self.input_size, self.hidden_size = input_size, hidden_size
        self.bidirectional, self.batch_first, self.dtype = bidirectional, batch_first, np.dtype(dtype)
        self.num_layers = len(weights) // self.directions
        self._packed = [
            native.pack_cell(variant, own, self.layer_input_size(place // self.directions), hidden_size, self.dtype)
            for place, own in enumerate(weights)
        ]
        in_order = [(variant, packed, place % self.directions == 1) for place, packed in enumerate(self._packed)]
        self.native = native.open_stack(in_order, self.directions)

    def __reduce__(self) -> tuple[Any, ...]:
        weights = [packed.by_name() for packed in self._packed]
        sizes = self.input_size, self.hidden_size
        return Frozen, (self.variant, *sizes, weights, self.bidirectional, self.batch_first, self.dtype)

    def __repr__(self) -> str:
        names = ("bidirectional", "batch_first")
        options = "".join(f", {name}=True" for name in names if getattr(self, name))
        return f"<frozen {self.variant.cell.label}({self.input_size}, {self.hidden_size}, {self.num_layers}{options})>"

    def freeze(self) -> Frozen:
        """Return itself."""
        return self

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
        return packed.by_name() | {"packed": packed}

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        """Raise TypeError: frozen layers cannot be trained."""
        raise TypeError("frozen layers cannot be trained: call forward and backward of the layer they came from")

    backward = forward

    @property
    def params(self) -> Any:
        """Raise AttributeError: the weights are packed and cannot be changed."""
        raise AttributeError("frozen layers have no params or grads: change those of the layer and freeze it again")

    grads = params


class FrozenCell:
    """One cell for inference, made by :func:`freeze`."""

    def __init__(self, variant: cells.Variant, weights: dict[str, Array]) -> None:
        D, H = weights["Wx"].shape[0], weights["b"].shape[0] // len(variant.gates)
        self._variant = variant
        self._packed = native.pack_cell(variant, weights, D, H, arrays.working_dtype(*weights.values()))
        self._native = native.open_stack([(variant, self._packed, False)], 1, state_axes=2)

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenCell, (self._variant, self._packed.by_name())

    def __repr__(self) -> str:
        return f"<frozen {self._variant!r}>"

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
            **self._packed.by_name(),
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
    weights, _, (_, H) = arrays.clean_arguments(variant, 0, None, given, {})
    if variant.has_bhn:
        weights.setdefault("bhn", np.zeros(H, weights["b"].dtype))
    return FrozenCell(variant, weights)
