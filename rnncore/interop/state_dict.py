"""Convert weights to and from the arrays in state dicts of PyTorch's recurrent modules; needs NumPy only.

For every layer l, and again with the suffix ``_reverse`` if there are two directions::

    weight_ih_l   (G*H, D)    Wx_l = weight_ih_l.T; above layer 0, D is H * directions
    weight_hh_l   (G*H, H)    Wh_l = weight_hh_l.T
    bias_ih_l     (G*H,)      b_l = bias_ih_l + bias_hh_l
    bias_hh_l     (G*H,)      except the n block of a GRU: b_l = bias_ih_l, bhn_l = bias_hh_l

G tells the cell: 1 RNN, 3 GRU, 4 LSTM. Gate blocks are in rnncore's order, r z n and i f g o. PyTorch's GRU has the
form "reset_after" and the update "old"; a GRU with the update "new" and a negated z block has the same outputs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import checks
from .._types import Array
from ..engine.arrays import as_floating, check_shape
from .cells import (
    FRAMEWORK_VARIANTS,
    LABELS,
    build,
    cell_and_size,
    check_expressible,
    common_dtype,
    join_biases,
    multiple,
    read,
    side,
    split_bias,
    write,
)

__all__ = ["from_layer", "load", "to_layer"]

_NAME = re.compile(r"(?:weight|bias)_(?:ih|hh)_l(0|[1-9][0-9]*)(_reverse)?")


def to_layer(
    arrays: dict[str, Array],
    *,
    prefix: str = "",
    nonlinearity: str = "tanh",
    batch_first: bool = False,
    dropout: float = 0.0,
    dtype: str | None = None,
) -> Any:
    """Make the layer that has these weights.

    Parameters
    ----------
    arrays : mapping of str to array
        ``weight_ih_l0`` (G*H, D), ``weight_hh_l0`` (G*H, H), ``bias_ih_l0`` and ``bias_hh_l0`` (G*H,), and so on for
        ``_l1`` and ``_reverse``. Biases are zero if there are none.
    prefix : str, default ""
        Use only the keys that start with it, for example ``"encoder.rnn."``.
    nonlinearity : {"tanh", "relu"}
        For an RNN.
    batch_first : bool, default False
    dropout : float, default 0
    dtype : {"float32", "float64"}, optional
        Default: that of the arrays, float32 for float16.

    Returns
    -------
    RNN, GRU or LSTM
        With copies of the weights.

    Raises
    ------
    ValueError
        A key is missing or unknown, a shape is wrong, the arrays have several dtypes and ``dtype`` is not given, or the
        module has projections (``proj_size``).
    TypeError
        An array does not hold floats.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> shapes = {"weight_ih_l0": (20, 3), "weight_hh_l0": (20, 5), "bias_ih_l0": 20, "bias_hh_l0": 20}
    >>> to_layer({f"rnn.{name}": rng.normal(size=shape) for name, shape in shapes.items()}, prefix="rnn.")
    LSTM(3, 5, 1)
    """
    checks.choice("nonlinearity", nonlinearity, ("tanh", "relu"))
    arrays = _select(arrays, prefix)
    matches = [match for name in arrays if (match := _NAME.fullmatch(name))]
    numbers = sorted({int(match[1]) for match in matches})
    if numbers[-1] >= len(numbers):
        raise ValueError(f"layers must be numbered from 0 without a gap; got {', '.join(map(str, numbers))}")
    num_layers, directions = len(numbers), 1 + any(match[2] for match in matches)
    _check_names(arrays, prefix, num_layers, directions)
    cell, H = cell_and_size(f"{prefix}weight_hh_l0", "(G*H, H)", arrays["weight_hh_l0"].shape, 1)
    variant = FRAMEWORK_VARIANTS[cell]
    G = len(variant.gates)
    if nonlinearity != "tanh" and "activation" not in cell.options:
        raise ValueError(f"nonlinearity {nonlinearity!r} belongs to an RNN; the arrays have {G} gate blocks")
    D = side(f"{prefix}weight_ih_l0", f"({multiple(G)}, D)", arrays["weight_ih_l0"].shape, 1)
    cells = _cells(arrays, prefix, num_layers, directions, variant, D, H)
    if dtype is None:
        dtype = common_dtype({prefix + name: array for name, array in arrays.items()})
    options = dict[str, Any](cell.framework_options or {}) | (
        {"activation": nonlinearity} if "activation" in cell.options else {}
    )
    options |= {"bidirectional": directions == 2, "batch_first": batch_first, "dropout": dropout, "dtype": dtype}
    return build(cells, cell, D, H, num_layers, **options)


def load(layer: Any, arrays: dict[str, Array], *, prefix: str = "") -> None:
    """Copy these weights into an existing layer; the arrays of ``layer.params`` keep their identity and dtype.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
    arrays : mapping of str to array
        As for :func:`to_layer`, with the layer's sizes.
    prefix : str, default ""
        Use only the keys that start with it.

    Raises
    ------
    ValueError
        A key is missing or unknown, a shape is wrong, or PyTorch has no equivalent. The layer is unchanged.
    TypeError
        An array does not hold floats, or ``layer`` is not recurrent. The layer is unchanged.

    Examples
    --------
    >>> from rnncore import GRU
    >>> gru, other = (GRU(3, 5, form="reset_after", seed=seed) for seed in (0, 1))
    >>> load(gru, from_layer(other))
    >>> bool((gru.params["Wh_0"] == other.params["Wh_0"]).all())
    True
    """
    _check_expressible(layer)
    arrays = _select(arrays, prefix)
    stack = layer.num_layers, layer.directions
    _check_names(arrays, prefix, *stack)
    write(layer, _cells(arrays, prefix, *stack, layer.variant, layer.input_size, layer.hidden_size))


def from_layer(layer: Any) -> dict[str, Array]:
    """Return the weights of a layer with the names and in the layout of PyTorch's modules.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
        ``recurrent_dropout`` and ``checkpoint`` are ignored.

    Returns
    -------
    dict of str to ndarray
        C-contiguous copies in the layer's dtype. ``bias_hh`` is zero, except for the n block of a GRU, ``bhn``.

    Raises
    ------
    ValueError
        PyTorch has no equivalent: ``form`` of a GRU other than "reset_after", an LSTM with ``peephole`` or
        ``output_activation="identity"``, an RNN with ``activation="identity"``.
    TypeError
        ``layer`` is not recurrent.

    Examples
    --------
    >>> from rnncore import LSTM
    >>> for name, array in from_layer(LSTM(3, 5, bidirectional=True)).items():
    ...     print(name, array.shape)
    weight_ih_l0 (20, 3)
    weight_hh_l0 (20, 5)
    bias_ih_l0 (20,)
    bias_hh_l0 (20,)
    weight_ih_l0_reverse (20, 3)
    weight_hh_l0_reverse (20, 5)
    bias_ih_l0_reverse (20,)
    bias_hh_l0_reverse (20,)
    """
    _check_expressible(layer)
    arrays = {}
    for k in range(layer.num_layers):
        for direction, suffix in enumerate(_suffixes(k, layer.directions)):
            cell = read(layer, k, direction)
            arrays["weight_ih" + suffix] = cell["Wx"].T.copy()
            arrays["weight_hh" + suffix] = cell["Wh"].T.copy()
            arrays["bias_ih" + suffix], arrays["bias_hh" + suffix] = split_bias(cell)
    return arrays


def _check_expressible(layer: Any) -> None:
    check_expressible(layer, "PyTorch", activation=("tanh", "relu"), form=("reset_after",))


def _suffixes(number: int, directions: int) -> list[str]:
    return [f"_l{number}", f"_l{number}_reverse"][:directions]


def is_name(name: str) -> bool:
    """Whether this is one of PyTorch's names, without prefix."""
    return _NAME.fullmatch(name) is not None


# ---- reading arrays ---------------------------------------------------------------------------------------------


def _select(arrays: dict[str, Array], prefix: str) -> dict[str, Array]:
    """Return the arrays whose keys start with ``prefix``, by the rest of the key; all must be PyTorch's names."""
    if not isinstance(arrays, Mapping):
        raise TypeError(f"arrays must be a mapping of names to arrays; got {type(arrays).__name__}")
    checks.instance("prefix", prefix, str, "a str")
    if wrong := [key for key in arrays if not isinstance(key, str)]:
        raise TypeError(f"keys of arrays must be str; got {wrong[0]!r}")
    selected = {key.removeprefix(prefix): arrays[key] for key in arrays if key.startswith(prefix)}
    if not selected:
        raise ValueError(f"arrays must have keys that start with {prefix!r}; got {', '.join(arrays) or 'none'}")
    for name in selected:
        if name.startswith("weight_hr_l"):
            raise ValueError(f"{prefix}{name} is a projection (proj_size): rnncore has no such layer")
        if not is_name(name):
            raise ValueError(f"{prefix}{name} is no weight of an {LABELS} (prefix chooses one of many modules)")
    return {name: as_floating(prefix + name, value) for name, value in selected.items()}


def _check_names(arrays: dict[str, Array], prefix: str, num_layers: int, directions: int) -> None:
    kinds = ["weight_ih", "weight_hh"]
    if any(name.startswith("bias") for name in arrays):
        kinds += ["bias_ih", "bias_hh"]
    wanted = [kind + suffix for k in range(num_layers) for suffix in _suffixes(k, directions) for kind in kinds]
    if missing := [prefix + name for name in wanted if name not in arrays]:
        raise ValueError(f"arrays must have {', '.join(missing)} too")
    if surplus := [prefix + name for name in arrays if name not in wanted]:
        raise ValueError(f"the layer has no {', '.join(surplus)}")


def _cells(
    arrays: dict[str, Array], prefix: str, num_layers: int, directions: int, variant: Any, D: int, H: int
) -> list[dict[str, Array]]:
    """Check every shape; return the arrays of the cells as :func:`write` takes them."""
    G = len(variant.gates)
    columns = [("D", D)] + [(multiple(directions), directions * H)] * (num_layers - 1)
    rows = multiple(G)
    cells = []
    for k, (side_letters, side_size) in enumerate(columns):
        for suffix in _suffixes(k, directions):
            wanted = {
                "weight_ih" + suffix: (f"({rows}, {side_letters})", (G * H, side_size)),
                "weight_hh" + suffix: (f"({rows}, H)", (G * H, H)),
                "bias_ih" + suffix: (f"({rows},)", (G * H,)),
                "bias_hh" + suffix: (f"({rows},)", (G * H,)),
            }
            for name, (letters, shape) in wanted.items():
                if name in arrays:
                    check_shape(prefix + name, arrays[name], letters, shape)
            weight_ih, weight_hh, bias_ih, bias_hh = (
                arrays[name] if name in arrays else np.zeros(shape) for name, (_, shape) in wanted.items()
            )
            cells.append({"Wx": weight_ih.T, "Wh": weight_hh.T} | join_biases(variant, bias_ih, bias_hh))
    return cells
