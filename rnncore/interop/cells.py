"""What the layouts of other frameworks have in common: cells as dicts of rnncore's arrays, checks of others' arrays.

A cell is Wx (D, G*H), Wh (H, G*H), b (G*H,), and bhn (H,) of a GRU with "reset_after". On its way from one framework to
another a GRU has the update "old".
"""

import numpy as np

from ..layers import GRU, LSTM, RNN

#: Class by the number of gate blocks.
LAYERS = {1: RNN, 3: GRU, 4: LSTM}


def check_expressible(layer, framework, **known):
    """TypeError if ``layer`` is not recurrent, ValueError if it has a setting that the framework does not know.

    ``known`` are the values of settings that it knows. No framework has peepholes, or an LSTM whose output is not tanh.
    """
    if not isinstance(layer, (RNN, GRU, LSTM)):
        raise TypeError(f"layer must be an RNN, GRU or LSTM; got {type(layer).__name__}")
    for name, values in ({"peephole": (False,), "output_activation": ("tanh",)} | known).items():
        value = getattr(layer, name, values[0])
        if value not in values:
            raise ValueError(f"{framework} has no {type(layer).__name__} with {name}={value!r}")


def check_shape(name, array, letters, shape):
    """-> ``array``; ValueError if its shape is another."""
    if array.shape != shape:
        raise ValueError(f"{name} must be {letters} = {shape}; got {array.shape}")
    return array


def multiple(count):
    """H, 2H, 3H ..., as it stands in messages."""
    return "H" if count == 1 else f"{count}H"


def side(name, letters, shape, axis):
    """-> the length of one side of a matrix; ValueError if it is no matrix."""
    if len(shape) != 2:
        raise ValueError(f"{name} must be {letters}; got {shape}")
    return shape[axis]


def gates_and_size(name, letters, shape, axis):
    """-> G and H of recurrent weights, H along ``axis`` and G*H along the other one."""
    H, wide = side(name, letters, shape, axis), shape[1 - axis]
    if H < 1 or wide % H or wide // H not in LAYERS:
        raise ValueError(f"{name} must be {letters}, G = 1 (RNN), 3 (GRU) or 4 (LSTM); got {shape}")
    return wide // H, H


def common_dtype(arrays):
    """-> float32 or float64, that of all arrays of floats in a dict; ValueError if they have several."""
    names = {}
    for name, array in arrays.items():
        names.setdefault(array.dtype.newbyteorder("="), []).append(name)
    if len(names) > 1:
        got = "; ".join(f"{dtype}: {', '.join(of_dtype)}" for dtype, of_dtype in names.items())
        raise ValueError(f"arrays must have one dtype, or dtype must say which is meant; got {got}")
    (dtype,) = names
    return np.promote_types(dtype, np.float32)


def join_biases(bias_ih, bias_hh, G, H):
    """Two biases (G*H,) of a cell -> dict of b (G*H,) and, of a GRU, bhn (H,)."""
    b = np.add(bias_ih, bias_hh, dtype=np.float64)
    if LAYERS[G] is not GRU:
        return {"b": b}
    # n = tanh(x Wxn + bn + r * (h' Whn + bhn)): r keeps the two apart.
    b[2 * H :] = bias_ih[2 * H :]
    return {"b": b, "bhn": bias_hh[2 * H :]}


def split_bias(cell):
    """-> two biases (G*H,), the second one zero but for ``bhn``: the inverse of :func:`join_biases`."""
    bias_hh = np.zeros_like(cell["b"])
    if "bhn" in cell:
        bias_hh[-len(cell["bhn"]) :] = cell["bhn"]
    return cell["b"], bias_hh


def build(cells, G, D, H, num_layers, **options):
    """-> the layer with these cells."""
    layer = LAYERS[G](D, H, num_layers, init="uniform", **options)
    write(layer, cells)
    return layer


def read(layer, number, direction):
    """-> copies of the arrays of one cell, a GRU with the update "old"."""
    return _exchange_update(layer, layer.weights(number, direction))


def write(layer, cells):
    """Copy cells, bottom first and forward before reverse, into ``params`` of the layer, whose shapes they have."""
    # All copies are made first: cells may be views of the very same params.
    cells = iter([_exchange_update(layer, cell) for cell in cells])
    for number in range(layer.num_layers):
        for direction in range(layer.directions):
            cell = next(cells)
            for name, array in layer.weights(number, direction).items():
                array[...] = cell[name]


def _exchange_update(layer, cell):
    """-> copies of a cell's arrays, between the layer's update and "old"."""
    cell = {name: np.array(array, layer.dtype, order="C") for name, array in cell.items()}
    if getattr(layer, "update", "old") == "new":
        z = slice(layer.hidden_size, 2 * layer.hidden_size)
        for name in ("Wx", "Wh", "b"):
            # 1 - sigmoid(a) = sigmoid(-a)
            cell[name][..., z] *= -1
    return cell


def reorder(weights, given, wanted):
    """Gate blocks along the last axis, (..., G*H), from one order of letters to another."""
    blocks = np.split(weights, len(given), axis=-1)
    return np.concatenate([blocks[given.index(gate)] for gate in wanted], axis=-1)
