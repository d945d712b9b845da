"""Read, run and write the RNN, GRU and LSTM operators of ONNX models, in operator sets 7, 14 and 22.

:func:`from_onnx` makes an :class:`Operator` from a node and its weights. All attributes of the specification are
supported; :mod:`rnncore.interop.onnx_operator` explains them. :func:`to_onnx` writes a layer as a model.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .. import checks, layers
from .._types import Array
from .cells import FRAMEWORK_VARIANTS, LABELS, read, reorder
from .onnx_attributes import ENGINE_ACTIVATIONS, KINDS, PEEPHOLE_ROWS, VALUES
from .onnx_graph import Graph
from .onnx_operator import Operator, step_by_step

__all__ = ["Operator", "from_onnx", "operators", "step_by_step", "to_onnx"]

# ---- reading ----------------------------------------------------------------------------------------------------


def operators(source: Any, *, weights: Any = None) -> list[Operator]:
    """Read all recurrent nodes of a model, those in the bodies of If, Loop and Scan too, in the order of the graph.

    Parameters
    ----------
    source, weights
        As in :func:`from_onnx`.

    Returns
    -------
    list of Operator

    Raises
    ------
    ValueError, TypeError, OSError
        As :func:`from_onnx`.

    Examples
    --------
    >>> operators(to_onnx(layers.GRU(3, 5, num_layers=2, form="reset_after", update="old", seed=0)))
    [<GRU 'gru_0': D=3 H=5 forward, on the engine>, <GRU 'gru_1': D=5 H=5 forward, on the engine>]
    """
    graph = Graph(source, weights)
    return [graph.operator(scope, node) for scope, node in graph.nodes]


def from_onnx(source: Any, name: str | None = None, *, weights: Any = None) -> Operator:
    """Read the RNN, GRU or LSTM node of a model.

    Weights are constants: initializers or Constant nodes, also behind nodes that only move data (Slice, Concat,
    Reshape, Transpose, Cast and the like). Constant ``sequence_lens`` and initial states become defaults of the
    operator; if they are computed, or inputs of the model, pass them to every call. The weights of ONNX Runtime's
    DynamicQuantizeLSTM are taken as the floats that they stand for; :meth:`Operator.quantize` runs them in int8.
    Other operators outside ONNX's own domain are ignored.

    Parameters
    ----------
    source : ModelProto, GraphProto, NodeProto, str or path
    name : str, optional
        Name of the node, or of its first output; needed if there are several nodes. A node in a body has the path to
        it, ``If_0/then_branch/LSTM_0``, which is needed where names are not unique.
    weights : dict of str to array, optional
        Arrays by their names in the graph: all weights of a NodeProto, or those that a model takes as inputs.

    Returns
    -------
    Operator

    Raises
    ------
    ValueError
        No node matches, or several do; a weight is missing or computed in the graph; or :class:`Operator` raises it,
        and the message begins with the node.
    TypeError
        ``source`` is none of these, or weights are not float16, float32 or float64.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> lstm = layers.LSTM(3, 5, bidirectional=True, seed=0)
    >>> operator = from_onnx(to_onnx(lstm))
    >>> operator
    <LSTM 'lstm_0': D=3 H=5 bidirectional, on the engine>
    >>> x = np.random.default_rng(0).normal(size=(7, 2, 3)).astype("float32")
    >>> bool((operator(x)[0] == lstm(x)[0]).all())
    True
    """
    graph = Graph(source, weights)
    chosen = [(scope, node) for scope, node in graph.nodes if name is None or name in graph.names(scope, node)]
    if len(chosen) != 1:
        names = ", ".join(repr(graph.names(*found)[0]) for found in graph.nodes)
        if name is None:
            count = len(chosen)
            raise ValueError(
                f"the graph has {count} recurrent nodes, name must say which (operators gives all): {names}"
            )
        raise ValueError(f"name must be that of one recurrent node of {names}; got {name!r}, which {len(chosen)} have")
    return graph.operator(*chosen[0])


# ---- writing ----------------------------------------------------------------------------------------------------

#: The first operator set whose operators have ``layout``, and whose Split takes its sizes as an input.
_FIRST_OPSET = 14

#: Types of the attributes that may be empty lists.
_LISTS = {
    "activation_alpha": onnx.AttributeProto.FLOATS,
    "activation_beta": onnx.AttributeProto.FLOATS,
    "activations": onnx.AttributeProto.STRINGS,
}


def to_onnx(
    layer: Any, *, opset: int = 17, name: str = "rnncore", with_state: bool = False, with_lengths: bool = False
) -> Any:
    """Make a model that computes the same as a layer, or an operator, in inference.

    Inputs and outputs, with dynamic T and N:

    ========================  ============================================  ===========================
    X                         (T, N, D), or (N, T, D) if ``batch_first``
    sequence_lens             (N,) int32                                    with_lengths
    initial_h, initial_c      (num_layers * directions, N, H)               with_state; c of an LSTM
    Y                         (T, N, H * directions), or (N, T, .)
    h_n, c_n                  (num_layers * directions, N, H)               c_n of an LSTM
    ========================  ============================================  ===========================

    Each layer is one node, ``lstm_0``, ``lstm_1`` and so on. ``batch_first`` becomes Transpose nodes, because ONNX
    Runtime does not support ``layout`` 1. A GRU with the update "new" is written with the z block negated, because
    1 - sigmoid(a) is sigmoid(-a). The identity is written as Affine. Dropout is not written.

    An operator is written as one node, with its attributes and ONNX's outputs Y, Y_h, Y_c. Its own ``sequence_lens``
    and initial states become initializers: defaults of the inputs of the same name, or constants if there are none.

    Parameters
    ----------
    layer : RNN, GRU, LSTM or Operator
    opset : int, default 17
        Version of the operator set, 14 or later; the format version is the oldest that supports it.
    name : str, default "rnncore"
        Name of the graph.
    with_state : bool, default False
        Whether initial states are inputs; otherwise they are zeros.
    with_lengths : bool, default False
        Whether ``sequence_lens`` is an input; otherwise all steps are valid.

    Returns
    -------
    ModelProto
        In the dtype of the layer. ONNX Runtime's CPU kernels support float32 only.

    Raises
    ------
    ValueError
        ONNX cannot express the layer: the GRU form "simplified", or peepholes with ``peephole_output`` "previous"; or
        ``opset`` is not supported.
    TypeError
        ``layer`` is something else.

    Examples
    --------
    >>> model = to_onnx(layers.LSTM(3, 5, num_layers=2, batch_first=True, seed=0))
    >>> [node.op_type for node in model.graph.node]  # doctest: +NORMALIZE_WHITESPACE
    ['Transpose', 'LSTM', 'Transpose', 'Reshape', 'LSTM', 'Transpose', 'Reshape', 'Concat', 'Concat']
    >>> [output.name for output in model.graph.output]
    ['Y', 'h_n', 'c_n']
    """
    if not isinstance(name, str) or not name.isprintable():
        raise TypeError(f"name must be a printable str; got {name!r}")
    with_state, with_lengths = checks.flag("with_state", with_state), checks.flag("with_lengths", with_lengths)
    opset, newest = checks.integer("opset", opset, least=_FIRST_OPSET), onnx.defs.onnx_opset_version()
    if opset > newest:
        raise ValueError(f"opset must be at most {newest}, which the installed onnx knows; got {opset}")
    if not isinstance(name, str) or not name:
        raise ValueError(f"name must be a str, and not empty; got {name!r}")
    if isinstance(layer, Operator):
        writer = _Writer(layer.dtype)
        _write_operator(writer, layer, with_state, with_lengths)
    elif isinstance(layer, layers.Recurrent) and layer.cell in FRAMEWORK_VARIANTS:
        writer = _Writer(layer.dtype)
        _write_layer(writer, layer, with_state, with_lengths)
    else:
        raise TypeError(f"layer must be an {LABELS} layer or an Operator; got {type(layer).__name__}")
    graph = helper.make_graph(writer.nodes, name, writer.inputs, writer.outputs, writer.initializers)
    opsets = [helper.make_opsetid("", opset)]
    ir_version = helper.find_min_ir_version_for(opsets)
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, producer_name="rnncore")


class _Writer:
    """Collects the parts of a graph; the caller names the tensors."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype.newbyteorder("=")
        self.element = helper.np_dtype_to_tensor_dtype(self.dtype)
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.initializers: list[Any] = []

    def input(self, name: str, shape: list[Any], element: int | None = None) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, element or self.element, shape))
        return name

    def output(self, name: str, shape: list[Any]) -> str:
        self.outputs.append(helper.make_tensor_value_info(name, self.element, shape))
        return name

    def constant(self, name: str, array: Array | list[int] | None, dtype: type[Any] | None = None) -> str:
        """Add a constant and return its name; "" for None, a missing input."""
        if array is None:
            return ""
        self.initializers.append(numpy_helper.from_array(np.array(array, dtype or self.dtype, order="C"), name))
        return name

    def node(
        self, op_type: str, inputs: list[str], outputs: list[str], name: str | None = None, **attributes: Any
    ) -> str:
        while not inputs[-1]:
            inputs = inputs[:-1]
        self.nodes.append(helper.make_node(op_type, inputs, outputs, name=name, **attributes))
        return outputs[0]

    def operator(self, operator: Operator, X: str, states: list[str], outputs: list[str], suffix: str = "") -> None:
        """Add the node of an operator; states are the names of sequence_lens, initial_h and initial_c."""
        W, R, B, P = (self.constant(n + suffix, getattr(operator, n)) for n in ("W", "R", "B", "P"))
        self.node(operator.op_type, [X, W, R, B, *states, P], outputs, operator.name)
        self.nodes[-1].attribute.extend(
            helper.make_attribute(name, value, attr_type=_LISTS.get(name))
            for name, value in operator.attributes.items()
        )


def _write_operator(writer: _Writer, operator: Operator, with_state: bool, with_lengths: bool) -> None:
    letters = operator.kind.states
    dirs, H = operator.directions, operator.hidden_size
    if operator.layout:
        axes, Y, hidden = ["N", "T"], ["N", "T", dirs, H], ["N", dirs, H]
    else:
        axes, Y, hidden = ["T", "N"], ["T", dirs, "N", H], [dirs, "N", H]
    X = writer.input("X", [*axes, operator.input_size])
    lengths = writer.constant("sequence_lens", operator.sequence_lens, np.int32)
    if with_lengths:
        lengths = writer.input("sequence_lens", ["N"], onnx.TensorProto.INT32)
    states = [writer.constant(f"initial_{s}", getattr(operator, f"initial_{s}")) for s in letters]
    if with_state:
        states = [writer.input(f"initial_{s}", hidden) for s in letters]
    outputs = [writer.output("Y", Y), *(writer.output(f"Y_{s}", hidden) for s in letters)]
    writer.operator(operator, X, [lengths, *states], outputs)


def _write_layer(writer: _Writer, layer: Any, with_state: bool, with_lengths: bool) -> None:
    stack = [_operator_of(layer, index) for index in range(layer.num_layers)]
    dirs, H, letters = layer.directions, layer.hidden_size, layer.state_names
    axes = ["N", "T"] if layer.batch_first else ["T", "N"]
    hidden = [len(stack) * dirs, "N", H]

    y = writer.input("X", [*axes, layer.input_size])
    lengths = writer.input("sequence_lens", ["N"], onnx.TensorProto.INT32) if with_lengths else ""
    initial = [[writer.input(f"initial_{s}", hidden) if with_state else ""] * len(stack) for s in letters]
    writer.output("Y", [*axes, dirs * H])
    finals = [[writer.output(f"{s}_n", hidden)] for s in letters]
    if len(stack) > 1:
        finals = [[f"{s}_n_{index}" for index in range(len(stack))] for s in letters]
        if with_state:
            sizes = writer.constant("sizes", [dirs] * len(stack), np.int64)
            for names in initial:
                whole, names[:] = names[0], [f"{names[0]}_{index}" for index in range(len(stack))]
                writer.node("Split", [whole, sizes], names, axis=0)
    if layer.batch_first:
        y = writer.node("Transpose", [y], ["X_time_major"], perm=[1, 0, 2])
    joined = writer.constant("joined", [0, 0, dirs * H], np.int64)  # 0 keeps the axis
    for index, operator in enumerate(stack):
        last = index == len(stack) - 1
        outputs = [f"Y_{index}", *(names[index] for names in finals)]
        writer.operator(operator, y, [lengths, *(names[index] for names in initial)], outputs, f"_{index}")
        # (T, directions, N, H) -> (T, N, directions, H) or (N, T, directions, H) -> (., ., directions * H)
        perm = [2, 0, 1, 3] if last and layer.batch_first else [0, 2, 1, 3]
        y = writer.node("Transpose", [outputs[0]], [f"Y_{index}_transposed"], perm=perm)
        y = writer.node("Reshape", [y, joined], ["Y" if last else f"X_{index + 1}"])
    if len(stack) > 1:
        for s, names in zip(letters, finals, strict=True):
            writer.node("Concat", names, [f"{s}_n"], axis=0)


def _operator_of(layer: Any, index: int) -> Operator:
    """Convert one layer of a stack, all its directions, to an operator of layout 0."""
    op_type = next(op_type for op_type, kind in KINDS.items() if kind.cell is layer.cell)
    kind, options, dirs, H = KINDS[op_type], layer.options(), layer.directions, layer.hidden_size
    if options.get("form") == "simplified":
        raise ValueError("ONNX has no GRU of the form 'simplified': its GRU has a reset gate")
    peephole = layer.variant.options.get("peephole", False)
    if peephole and layer.peephole_output != "current":
        raise ValueError(
            f"ONNX has no LSTM with peephole_output {layer.peephole_output!r}: its o sees the current cell"
        )

    attributes = {"direction": "bidirectional" if layer.bidirectional else "forward", "hidden_size": H}
    if options.get("form") == "reset_after":
        attributes["linear_before_reset"] = 1
    # The engine offers a choice for the last function only.
    chosen = options.get("activation", options.get("output_activation", "tanh"))
    last, parameters = next(function for function, name in ENGINE_ACTIVATIONS.items() if name == chosen)
    activations = (*kind.activations[:-1], last)
    if activations != kind.activations:
        attributes["activations"] = list(activations * dirs)
    for name, value in zip(VALUES, parameters, strict=False):
        attributes[name] = [value] * dirs

    weights: dict[str, list[Array]] = {"W": [], "R": [], "B": [], "P": []}
    for direction in range(dirs):
        cell = read(layer, index, direction)
        Wx, Wh, Wb = (reorder(cell[name], layer.cell.gates, kind.gates) for name in ("Wx", "Wh", "b"))
        Rb = np.zeros_like(Wb)
        if "bhn" in cell:
            Rb[2 * H :] = cell["bhn"]
        weights["W"].append(Wx.T)
        weights["R"].append(Wh.T)
        weights["B"].append(np.concatenate([Wb, Rb]))
        if peephole:
            weights["P"].append(cell["peephole"][PEEPHOLE_ROWS].reshape(-1))
    arrays = {name: np.stack(values) for name, values in weights.items() if values}
    return Operator(op_type, **arrays, attributes=attributes, name=f"{op_type.lower()}_{index}")
