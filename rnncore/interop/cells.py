"""Shared by the conversions to other frameworks: cells as dicts of rnncore's arrays, and checks of foreign arrays.

A cell is Wx (D, G*H), Wh (H, G*H), b (G*H,), and bhn (H,) for a GRU with "reset_after". Between frameworks, a GRU
always has the update "old".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._types import Array
from ..engine.cells import CELLS, Cell, Variant
from ..layers import RECURRENT, Recurrent

#: The cells that other frameworks have, with the options that they use.
FRAMEWORK_VARIANTS: dict[Cell, Variant] = {
    cell: cell.choose(**cell.framework_options) for cell in CELLS.values() if cell.framework_options is not None
}
_BY_GATES = {len(variant.gates): cell for cell, variant in FRAMEWORK_VARIANTS.items()}
_LABELS = [cell.label for cell in FRAMEWORK_VARIANTS]

#: "RNN, GRU or LSTM"
LABELS = f"{', '.join(_LABELS[:-1])} or {_LABELS[-1]}"


def check_expressible(layer: object, framework: str, **known: tuple[Any, ...]) -> None:
    """Raise TypeError unless ``layer`` is recurrent, ValueError if the framework lacks its cell or a setting.

    ``known`` has the values that it supports, by setting. PyTorch and Keras support no peepholes, and only tanh as the
    output activation of an LSTM.
    """
    if not isinstance(layer, Recurrent):
        raise TypeError(f"layer must be an {LABELS}; got {type(layer).__name__}")
    if layer.cell not in FRAMEWORK_VARIANTS:
        raise ValueError(f"{framework} has no {layer.cell.label}")
    for name, values in ({"peephole": (False,), "output_activation": ("tanh",)} | known).items():
        value = getattr(layer, name, values[0])
        if value not in values:
            raise ValueError(f"{framework} has no {type(layer).__name__} with {name}={value!r}")


def multiple(count: int) -> str:
    """Return H, 2H, 3H ..., for messages."""
    return "H" if count == 1 else f"{count}H"


def side(name: str, letters: str, shape: tuple[int, ...], axis: int) -> int:
    """Return the length of one side of a matrix; ValueError if it is not a matrix."""
    if len(shape) != 2:
        raise ValueError(f"{name} must be {letters}; got {shape}")
    return shape[axis]


def cell_and_size(name: str, letters: str, shape: tuple[int, ...], axis: int) -> tuple[Cell, int]:
    """Return the cell that recurrent weights belong to, and H: H is along ``axis``, G*H along the other one."""
    H, wide = side(name, letters, shape, axis), shape[1 - axis]
    if H < 1 or wide % H or wide // H not in _BY_GATES:
        *known, last = (f"{G} ({cell.label})" for G, cell in _BY_GATES.items())
        raise ValueError(f"{name} must be {letters}, G = {', '.join(known)} or {last}; got {shape}")
    return _BY_GATES[wide // H], H


def common_dtype(arrays: dict[str, Array]) -> np.dtype[Any]:
    """Return the one dtype of all arrays, float32 for float16; ValueError if they have several."""
    names: dict[Any, list[str]] = {}
    for name, array in arrays.items():
        names.setdefault(array.dtype.newbyteorder("="), []).append(name)
    if len(names) > 1:
        got = "; ".join(f"{dtype}: {', '.join(of_dtype)}" for dtype, of_dtype in names.items())
        raise ValueError(f"arrays must have one dtype, or dtype must say which is meant; got {got}")
    (dtype,) = names
    return np.promote_types(dtype, np.float32)


def join_biases(variant: Variant, bias_ih: Array, bias_hh: Array) -> dict[str, Array]:
    """Join the two biases (G*H,) of a cell into b (G*H,) and, for a GRU, bhn (H,)."""
    b = np.add(bias_ih, bias_hh, dtype=np.float64)
    if not variant.has_bhn:
        return {"b": b}
    # n = tanh(x Wxn + bn + r * (h' Whn + bhn)): r keeps the two biases apart.
    H = len(b) // len(variant.gates)
    b[-H:] = bias_ih[-H:]
    return {"b": b, "bhn": bias_hh[-H:]}


def split_bias(cell: dict[str, Array]) -> tuple[Array, Array]:
    """Split the bias of a cell into two (G*H,), the second one zero except for ``bhn``."""
    bias_hh = np.zeros_like(cell["b"])
    if "bhn" in cell:
        bias_hh[-len(cell["bhn"]) :] = cell["bhn"]
    return cell["b"], bias_hh


def build(cells: list[dict[str, Array]], cell: Cell, D: int, H: int, num_layers: int, **options: Any) -> Any:
    """Build the layer that has the weights of these cells."""
    layer = RECURRENT[cell.name](D, H, num_layers, init="uniform", **options)
    write(layer, cells)
    return layer


def read(layer: Recurrent, number: int, direction: int) -> dict[str, Array]:
    """Copy the arrays of one cell; a GRU's are converted to the update "old"."""
    return _exchange_update(layer, layer.weights(number, direction))


def write(layer: Recurrent, cells: list[dict[str, Array]]) -> None:
    """Copy cells, bottom first and forward before reverse, into ``layer.params``; shapes must match."""
    # All copies are made first, because cells may be views of the same params.
    copies = iter([_exchange_update(layer, cell) for cell in cells])
    for number in range(layer.num_layers):
        for direction in range(layer.directions):
            cell = next(copies)
            for name, array in layer.weights(number, direction).items():
                array[...] = cell[name]


def _exchange_update(layer: Recurrent, cell: dict[str, Array]) -> dict[str, Array]:
    """Copy a cell's arrays, converted between the layer's update and "old"; it is its own inverse."""
    cell = {name: np.array(array, layer.dtype, order="C") for name, array in cell.items()}
    if getattr(layer, "update", "old") == "new":
        z = slice(layer.hidden_size, 2 * layer.hidden_size)
        for name in ("Wx", "Wh", "b"):
            # 1 - sigmoid(a) = sigmoid(-a)
            cell[name][..., z] *= -1
    return cell


def reorder(weights: Array, given: str, wanted: str) -> Array:
    """Reorder the gate blocks along the last axis, (..., G*H), from one order of letters to another."""
    blocks = np.split(weights, len(given), axis=-1)
    return np.concatenate([blocks[given.index(gate)] for gate in wanted], axis=-1)
