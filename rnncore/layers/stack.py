"""The loop over the layers of a stack."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["run_stack"]

X = TypeVar("X")
Final = TypeVar("Final")


def run_stack(
    num_layers: int, x: X, run: Callable[[int, X], tuple[X, Final]], between: Callable[[X], X]
) -> tuple[X, list[Final]]:
    """Run layers, each on the output of the one below.

    Parameters
    ----------
    num_layers : int
    x : input of layer 0
    run : function
        ``run(layer, x)`` returns the output of that layer, all directions side by side, and its final state.
    between : function
        Applied to the output of every layer but the last: dropout.

    Returns
    -------
    y : output of the last layer
    finals : list of the final states, one a layer
    """
    finals = []
    for layer in range(num_layers):
        x, final = run(layer, x)
        finals.append(final)
        if layer < num_layers - 1:
            x = between(x)
    return x, finals
