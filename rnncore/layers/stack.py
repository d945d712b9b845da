"""Stacks of a cell: layer upon layer, in one direction or both. What trained and frozen layers have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._types import Array, StateLike
from ..engine import arrays, calls, cells

__all__ = ["Stack"]


class Stack:
    """A stack of one cell, in one direction or both, without its weights.

    States are handled as tuples of arrays (num_layers * directions, N, H), layer by layer, forward before reverse.
    """

    variant: cells.Variant
    input_size: int
    hidden_size: int
    num_layers: int
    bidirectional: bool
    batch_first: bool
    dtype: np.dtype[Any]

    # ---- what it is ---------------------------------------------------------------------------------------------

    @property
    def cell_name(self) -> str:
        return self.variant.cell.name

    @property
    def gate_names(self) -> tuple[str, ...]:
        return tuple(self.variant.gates)

    @property
    def state_names(self) -> tuple[str, ...]:
        return tuple(self.variant.cell.states)

    @property
    def num_gates(self) -> int:
        """G"""
        return len(self.variant.gates)

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        return self.hidden_size * self.directions

    def layer_input_size(self, layer: int) -> int:
        """D of the cells of a layer."""
        return self.input_size if layer == 0 else self.output_size

    def _suffixes(self, layer: int) -> list[str]:
        """What the names of the parameters of each direction end in."""
        return [f"_{layer}", f"_{layer}_reverse"][: self.directions]

    def _all_suffixes(self) -> list[str]:
        """Those of every cell: layer by layer, forward before reverse."""
        return [suffix for layer in range(self.num_layers) for suffix in self._suffixes(layer)]

    def check_one_direction(self) -> None:
        """Raise ValueError if the stack cannot go step by step."""
        if self.bidirectional:
            raise ValueError(
                "a bidirectional layer needs the whole sequence: it cannot go step by step "
                "(see 'Frozen layers and streams' in the documentation)"
            )

    # ---- arguments ----------------------------------------------------------------------------------------------

    def time_major(self, x: ArrayLike) -> Array:
        """Return x (T, N, input_size) in the layer's dtype, or ids (T, N).

        Raises
        ------
        ValueError, TypeError
            As calling the layer.
        """
        array = arrays.as_array("x", x)
        if array.dtype.kind not in "iu":
            array = arrays.as_floating("x", array)
            if array.ndim != 3 or array.shape[2] != self.input_size:
                axes = "(N, T, input_size)" if self.batch_first else "(T, N, input_size)"
                raise ValueError(f"x must be {axes} with input_size = {self.input_size}; got {array.shape}")
            array = arrays.converted(array, self.dtype)
        elif array.ndim != 2:
            raise ValueError(f"x of integers holds ids and must have two axes; got shape {array.shape}")
        return array.swapaxes(0, 1) if self.batch_first else array

    def time_major_gradient(self, dy: ArrayLike, T: int, N: int) -> Array:
        """Return dy (T, N, H * directions) in the layer's dtype; ValueError or TypeError for another shape or dtype."""
        shape = (*((N, T) if self.batch_first else (T, N)), self.output_size)
        array = arrays.as_shaped("dy", dy, shape, self.dtype)
        return array.swapaxes(0, 1) if self.batch_first else array

    def split_state(self, state: StateLike | None, N: int, argument: str = "state") -> dict[str, Array]:
        """Return the arrays (num_layers * directions, N, H) of a state by name; none for None."""
        if state is None:
            return {}
        names = self.state_names
        values: Any = state if len(names) > 1 else (state,)
        if len(names) > 1 and not (isinstance(state, (tuple, list)) and len(state) == len(names)):
            wanted = f"a tuple ({', '.join(names)})"
            label = self.variant.cell.label
            raise TypeError(f"{argument} of an {label} must be {wanted}; got {type(state).__name__}")
        result = {}
        for name, value in zip(names, values, strict=True):
            array = arrays.as_floating(f"{argument} {name}", value)
            shape = (self.num_layers * self.directions, N, self.hidden_size)
            arrays.check_shape(f"{argument} {name}", array, "(num_layers * directions, N, H)", shape)
            result[name] = arrays.converted(array, self.dtype)
        return result

    def _join_state(self, states: tuple[Array, ...]) -> Any:
        return states if len(states) > 1 else states[0]

    # ---- forward ------------------------------------------------------------------------------------------------

    def __call__(
        self, x: ArrayLike, state: StateLike | None = None, lengths: ArrayLike | None = None
    ) -> tuple[Array, Any]:
        """Run the layer for inference: saves nothing, no dropout.

        Parameters
        ----------
        x : array (T, N, input_size), or integer ids (T, N); (N, T, ...) if ``batch_first``
        state : array or tuple of arrays (num_layers * directions, N, H), optional
            As returned; default zeros. LSTM: (h, c).
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
        return self._infer(x, state, lengths)

    def _infer(self, x: ArrayLike, state: StateLike | None, lengths: ArrayLike | None) -> tuple[Array, Any]:
        raise NotImplementedError

    def _run(
        self,
        x: ArrayLike,
        state: StateLike | None,
        lengths: ArrayLike | None,
        weights: Callable[[int, int], dict[str, Any]],
        between: Callable[[Array], Array] | None = None,
        **options: Any,
    ) -> tuple[Array, Any, list[tuple[Any, ...]]]:
        """Run layers, each on the output of the one below.

        Parameters
        ----------
        x, state, lengths
            As calling the layer.
        weights : function
            ``weights(layer, direction)`` returns those arguments of the cell's forward function.
        between : function, optional
            Applied to the output of every layer but the last: dropout.
        **options
            Further arguments of the cell's forward function.

        Returns
        -------
        y, state
            As calling the layer.
        caches : list of tuple
            Of every layer, one for each direction.
        """
        x = self.time_major(x)
        states = self.split_state(state, x.shape[1])
        finals: list[tuple[Array, ...]] = []
        kept = []
        for layer in range(self.num_layers):
            if layer and between is not None:
                x = between(x)
            arguments = []
            for direction in range(self.directions):
                index = layer * self.directions + direction
                initial = {f"{name}0": array[index] for name, array in states.items()}
                arguments.append(
                    {
                        "x": x,
                        **weights(layer, direction),
                        **initial,
                        "reverse": bool(direction),
                        "lengths": lengths,
                        **options,
                    }
                )
            outputs, ends, caches = zip(*self._forward_cells(arguments), strict=True)
            kept.append(caches)
            finals += [end if isinstance(end, tuple) else (end,) for end in ends]
            x = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=2)
        final_state = self._join_state(tuple(np.stack(values) for values in zip(*finals, strict=True)))
        return x.swapaxes(0, 1) if self.batch_first else x, final_state, kept

    def _forward_cells(self, arguments: list[dict[str, Any]]) -> list[Any]:
        """Run the cell of each direction, at the same time where possible."""
        return calls.forward_side_by_side(self.variant, arguments)
