"""Convert weights from Keras' ``get_weights`` and for its ``set_weights``; Keras itself is not needed.

For a layer of H units; for a ``Bidirectional`` layer twice, forward then backward::

    kernel            (D, G*H)        Wx
    recurrent_kernel  (H, G*H)        Wh
    bias              (G*H,)          b
                      (2, 3H)         GRU, reset_after: b is the sum of the rows, but in block h b is row 0, bhn row 1

Gate blocks are z r h in a GRU (r z n in rnncore) and i f c o in an LSTM (i f g o in rnncore). A GRU has the update
"old"; its form is "reset_after" with ``reset_after``, "reset_before" without.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import checks
from .._types import Array
from ..engine.arrays import as_floating, check_shape
from ..engine.cells import CELLS, GRU, LSTM, RNN
from ..layers import Recurrent
from .cells import (
    FRAMEWORK_VARIANTS,
    build,
    cell_and_size,
    check_expressible,
    common_dtype,
    join_biases,
    multiple,
    read,
    reorder,
    side,
    split_bias,
)

__all__ = ["from_keras", "to_keras"]

#: Keras' names of activations and rnncore's.
_ACTIVATIONS = {"tanh": "tanh", "relu": "relu", "linear": "identity"}


class _Kind(NamedTuple):
    """A cell as Keras has it."""

    name: str  # of its class
    gates: str  # in the order of its blocks


_KINDS = {RNN: _Kind("SimpleRNN", "h"), GRU: _Kind("GRU", "zrn"), LSTM: _Kind("LSTM", "ifgo")}
_CELLS = {kind.name: cell.name for cell, kind in _KINDS.items()}


def from_keras(
    *sources: Any,
    cell: str | None = None,
    activation: str | None = None,
    reset_after: bool | None = None,
    bidirectional: bool | str | None = None,
    batch_first: bool = True,
    dtype: str | None = None,
) -> Recurrent:
    """Make a stack of layers with the weights of Keras layers.

    Settings are inferred from the arrays or from ``get_config``; those given must agree. Settings that do not change
    the weights are not carried over: ``return_sequences``, ``return_state``, ``stateful``, ``dropout``,
    ``recurrent_dropout``, masking, initialisers, regularisers and constraints.

    Parameters
    ----------
    *sources : list of arrays, or Keras layer
        One for each layer, bottom first. Either the arrays of ``get_weights``: kernel, recurrent kernel and (with
        ``use_bias``) bias. Or a SimpleRNN, GRU or LSTM layer, or a Bidirectional one around one of these with
        ``merge_mode="concat"``.
    cell : {"rnn", "gru", "lstm"}, optional
        Default: inferred from the width of the recurrent kernel.
    activation : {"tanh", "relu", "linear"}, optional
        For a SimpleRNN. Default: that of the Keras layer; "tanh" for arrays.
    reset_after : bool, optional
        For a GRU. Default: inferred; for arrays without bias True, as in Keras.
    bidirectional : bool, optional
        Default: inferred from the number of arrays.
    batch_first : bool, default True
        As in Keras.
    dtype : {"float32", "float64"}, optional
        Default: that of the arrays, float32 for float16.

    Returns
    -------
    RNN, GRU or LSTM
        With copies of the weights.

    Raises
    ------
    ValueError
        A shape, the number of arrays or a setting is wrong, two sources differ, the arrays have several dtypes and
        ``dtype`` is not given, or rnncore has no equivalent: ``go_backwards``, another activation, another
        ``merge_mode``.
    TypeError
        A source is none of these, or an array does not hold floats.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> below = [rng.normal(size=shape) for shape in [(3, 15), (5, 15), (2, 15)]]
    >>> above = [rng.normal(size=shape) for shape in [(5, 15), (5, 15), (2, 15)]]
    >>> gru = from_keras(below, above)
    >>> gru, gru.form, gru.update
    (GRU(3, 5, 2, batch_first=True), 'reset_after', 'old')
    """
    settings = {
        "cell": checks.optional(checks.choice, choices=_CELLS.values())("cell", cell),
        "activation": checks.optional(checks.choice, choices=_ACTIVATIONS)("activation", activation),
        "reset_after": checks.optional(checks.flag)("reset_after", reset_after),
        "bidirectional": checks.optional(checks.flag)("bidirectional", bidirectional),
    }
    if not sources:
        raise TypeError("from_keras takes at least one list of arrays or Keras layer")
    weights = []
    for number, source in enumerate(sources):
        arrays, said = _open(f"source {number}", source)
        for name, value in said:
            if settings[name] is None:
                settings[name] = value
            elif settings[name] != value:
                raise ValueError(f"source {number} has {name}={value!r}, not {settings[name]!r}")
        weights.append(arrays)
    cell, activation = settings["cell"], settings["activation"] or "tanh"
    known = CELLS[cell].options
    if activation != "tanh" and "activation" not in known:
        raise ValueError(f"activation {activation!r} belongs to a SimpleRNN; the sources have cell={cell!r}")
    if "form" not in known and settings["reset_after"] is not None:
        raise ValueError(f"reset_after belongs to a GRU; the sources have cell={cell!r}")
    reset_after = "form" in known and settings["reset_after"] is not False
    D, H, cells = _cells(CELLS[cell], weights, 2 if reset_after else 1)
    if dtype is None:
        dtype = common_dtype(dict(pair for source in weights for arrays in source for pair in arrays))
    chosen = {"activation": _ACTIVATIONS[activation], "form": "reset_after" if reset_after else "reset_before"}
    options: dict[str, Any] = dict(CELLS[cell].framework_options or {}) | {
        name: word for name, word in chosen.items() if name in known
    }
    options |= {"bidirectional": settings["bidirectional"], "batch_first": batch_first, "dtype": dtype}
    return build(cells, CELLS[cell], D, H, len(sources), **options)


def to_keras(layer: Recurrent, number: int | None = None) -> list[Array]:
    """Return the weights of one layer of a stack, for ``set_weights`` of a Keras layer.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
    number : int, optional
        Index of the layer, 0 at the bottom; not needed if there is only one.

    Returns
    -------
    list of ndarray
        Kernel (D, G*H), recurrent kernel (H, G*H) and bias (G*H,). The bias is (2, 3H) for a GRU with the form
        "reset_after", which is ``reset_after=True`` in Keras. A bidirectional layer has the three again, for
        ``Bidirectional``. C-contiguous copies in the layer's dtype.

    Raises
    ------
    ValueError
        ``number`` is needed or out of range, or Keras has no equivalent: a GRU with the form "simplified", an LSTM with
        ``peephole`` or ``output_activation="identity"``.
    TypeError
        ``layer`` is not recurrent, or ``number`` is not an integer.

    Examples
    --------
    >>> from rnncore import GRU
    >>> [array.shape for array in to_keras(GRU(3, 5, num_layers=2, form="reset_after"), 1)]
    [(5, 15), (5, 15), (2, 15)]
    """
    check_expressible(layer, "Keras", form=("reset_before", "reset_after"))
    if number is None:
        if layer.num_layers > 1:
            raise ValueError(f"number must say which of the {layer.num_layers} layers is meant")
        number = 0
    number = checks.integer("number", number, least=0)
    if number >= layer.num_layers:
        raise ValueError(f"number must be below num_layers = {layer.num_layers}; got {number}")
    arrays = []
    for direction in range(layer.directions):
        cell = read(layer, number, direction)
        bias = np.stack(split_bias(cell)) if "bhn" in cell else cell["b"]
        own, theirs = layer.variant.gates, _KINDS[layer.cell].gates
        arrays += [reorder(array, own, theirs) for array in (cell["Wx"], cell["Wh"], bias)]
    return arrays


def _open(where: str, source: Any) -> tuple[list[list[Any]], list[tuple[Any, ...]]]:
    """Return the arrays (name, array) of each direction, and the settings of the source as (keyword, value)."""
    said = []
    if hasattr(source, "get_weights") and hasattr(source, "get_config"):
        said += _described(where, type(source).__name__, source.get_config())
        source = source.get_weights()
        if not source:
            raise ValueError(f"{where} has no weights yet: build the layer first")
    if not isinstance(source, (list, tuple)):
        raise TypeError(f"{where} must be a list of arrays or a Keras layer; got {type(source).__name__}")
    if len(source) not in (2, 3, 4, 6):
        raise ValueError(f"{where} must have 2 or 3 arrays, with both directions 4 or 6; got {len(source)}")
    directions = 2 if len(source) > 3 else 1
    kinds = ("kernel", "recurrent_kernel", "bias")[: len(source) // directions]
    names = [f"{turn}{kind} of {where}" for turn in ("", "backward ")[:directions] for kind in kinds]
    arrays = [(name, as_floating(name, array)) for name, array in zip(names, source, strict=True)]
    (name, recurrent), *bias = arrays[1 : len(kinds)]
    cell, _ = cell_and_size(name, "(H, G*H)", recurrent.shape, 0)
    said += [("cell", cell.name), ("bidirectional", directions == 2)]
    if "form" in cell.options and bias:
        said.append(("reset_after", bias[0][1].ndim == 2))
    return [arrays[: len(kinds)], arrays[len(kinds) :]][:directions], said


def _described(where: str, kind: str, config: dict[str, Any], go_backwards: bool = False) -> list[tuple[str, Any]]:
    """Return the settings in the class and config of a layer; ValueError for those that rnncore does not support."""
    if kind == "Bidirectional":
        _check(where, config, merge_mode=("concat",))
        forward = _described(where, config["layer"]["class_name"], config["layer"]["config"])
        backward = config.get("backward_layer")
        if backward and forward != _described(where, backward["class_name"], backward["config"], go_backwards=True):
            raise ValueError(f"{where} must have the same kind of layer in both directions")
        return forward
    if kind not in _CELLS:
        raise TypeError(f"{where} must be a SimpleRNN, GRU, LSTM or Bidirectional layer; got {kind}")
    said: list[tuple[str, Any]] = [("cell", _CELLS[kind])]
    _check(where, config, go_backwards=(go_backwards,))
    if kind == "SimpleRNN":
        _check(where, config, activation=tuple(_ACTIVATIONS))
        said.append(("activation", config["activation"]))
    else:
        _check(where, config, activation=("tanh",), recurrent_activation=("sigmoid",))
    if "reset_after" in config:
        said.append(("reset_after", bool(config["reset_after"])))
    return said


def _check(where: str, config: dict[str, Any], **known: Any) -> None:
    for name, values in known.items():
        if config.get(name) not in values:
            raise ValueError(f"{where} must have {name} {' or '.join(map(repr, values))}; got {config.get(name)!r}")


def _cells(cell: Any, sources: list[list[list[Any]]], bias_rows: int) -> tuple[int, int, list[dict[str, Any]]]:
    """Lists of (name, array), for each source and direction -> D, H, and the cells in rnncore's layout."""
    (kernel_name, kernel), (_, recurrent) = sources[0][0][:2]
    variant, H = FRAMEWORK_VARIANTS[cell], len(recurrent)
    G, own, theirs = len(variant.gates), variant.gates, _KINDS[cell].gates
    columns = multiple(G)
    D = side(kernel_name, f"(D, {columns})", kernel.shape, 0)
    rows, size = "D", D
    cells = []
    for source in sources:
        rules: list[tuple[str, tuple[int, ...]]] = [
            (f"({rows}, {columns})", (size, G * H)),
            (f"(H, {columns})", (H, G * H)),
        ]
        rules.append((f"(2, {columns})", (2, G * H)) if bias_rows == 2 else (f"({columns},)", (G * H,)))
        for arrays in source:
            for (name, array), rule in zip(arrays, rules, strict=False):
                check_shape(name, array, *rule)
            kernel, recurrent, *bias = (reorder(array, theirs, own) for _, array in arrays)
            bias = bias[0].reshape(bias_rows, G * H) if bias else np.zeros((bias_rows, G * H))
            biases = join_biases(variant, *bias) if bias_rows == 2 else {"b": bias[0]}
            cells.append({"Wx": kernel, "Wh": recurrent} | biases)
        rows, size = multiple(len(source)), len(source) * H
    return D, H, cells
