"""The recurrent nodes of an ONNX graph, those in the bodies of If, Loop and Scan too, and the constants they read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from .. import checks
from .._types import Array
from ..files import open_file
from .onnx_attributes import KINDS
from .onnx_operator import Operator

__all__ = ["Graph", "Scope"]

_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
_STANDARD = ("", "ai.onnx")

#: ONNX Runtime's LSTM with weights of 8 bits: (directions, D, 4*H), with their scales and zero points behind the inputs
#: of LSTM.
QUANTIZED = "DynamicQuantizeLSTM"
_QUANTIZED_INPUTS = (*_INPUTS, "W_scale", "W_zero_point", "R_scale", "R_zero_point")

#: Operators that move or convert data: their results are constants if their inputs are.
_MOVING = {
    "Cast",
    "Concat",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Shape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}

# Folded constants together may be so many times the size of the graph's own, and this much.
_LARGEST_GROWTH, _SMALL = 16, 1 << 20


def _label(node: Any) -> str:
    """Return the name of a node, or that of its first output."""
    return node.name or next(filter(None, node.output), "")


def _is_recurrent(node: Any) -> bool:
    return (node.op_type in KINDS and node.domain in _STANDARD) or node.op_type == QUANTIZED


@dataclass
class Scope:
    """A graph: the model's own, or a body, which also sees the names of the graph around it."""

    graph: Any
    path: str = ""  # of the node it belongs to, with the attribute: "If_0/then_branch/"
    outer: Scope | None = None
    known: dict[str, Array | None] = field(default_factory=dict)  # constants that were asked for

    def __post_init__(self) -> None:
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        self.producers = {name: node for node in self.graph.node for name in node.output if name}
        self.own = self.initializers.keys() | self.producers.keys() | {value.name for value in self.graph.input}

    def home(self, name: str) -> Scope | None:
        """The innermost scope that has a value of this name."""
        return self if name in self.own or self.outer is None else self.outer.home(name)

    def inside(self) -> Iterator[Scope]:
        """This scope and those of all bodies in it."""
        yield self
        for node in self.graph.node:
            for attribute in node.attribute:
                for body in (attribute.g, *attribute.graphs):
                    if body.node:
                        yield from Scope(body, f"{self.path}{_label(node)}/{attribute.name}/", self).inside()


def _load(path: str | os.PathLike[str]) -> Any:
    open_file(path).close()  # errors of the file system, which name the path
    try:
        model = onnx.load(path)
        if not model.opset_import:
            raise ValueError("it does not say of which operator sets it is")
    except Exception as error:  # whatever protobuf and onnx raise for a file, and for those with its data
        raise ValueError(f"{os.fspath(path)} is no ONNX model, or is damaged: {error}") from error
    return model


class Graph:
    """The recurrent nodes of a graph, in order, and the constants that they read."""

    def __init__(self, source: Any, weights: Any) -> None:
        self._place = ""  # begins messages
        if isinstance(source, (str, os.PathLike)):
            path = checks.path("source", source)
            self._place, source = f"{path}: ", _load(path)
        if isinstance(source, onnx.NodeProto):
            if weights is None:
                raise ValueError(
                    "a NodeProto has no weights: weights must be a dict of arrays by the names of its inputs"
                )
            source = helper.make_graph([source], "node", [], [])
        self._opsets = [helper.make_opsetid("", onnx.defs.onnx_opset_version())]
        functions: list[Any] = []
        if isinstance(source, onnx.ModelProto):
            self._opsets = [opset for opset in source.opset_import if opset.domain in _STANDARD] or self._opsets
            functions, source = list(source.functions), source.graph
        if not isinstance(source, onnx.GraphProto):
            raise TypeError(f"source must be a ModelProto, GraphProto, NodeProto or path; got {type(source).__name__}")
        scopes = list(Scope(source).inside())
        self.nodes = [(scope, node) for scope in scopes for node in scope.graph.node if _is_recurrent(node)]
        if not self.nodes:
            raise ValueError(self._place + _nothing(scopes, functions))
        checks.instance("weights", weights, (Mapping, NoneType), "a dict of arrays")
        self.weights = dict(weights or {})
        read = {name for scope in scopes for node in scope.graph.node for name in node.input}
        if unread := sorted(self.weights.keys() - read):
            raise ValueError(f"weights has {', '.join(map(repr, unread))}, which no node of the graph reads")
        self._room = _LARGEST_GROWTH * source.ByteSize() + _SMALL

    def names(self, scope: Scope, node: Any) -> tuple[str, str, str]:
        """The name of a node with the path to it, without it, and as the node has it."""
        return scope.path + _label(node), _label(node), node.name

    def constant(self, scope: Scope | None, name: str) -> Array | None:
        """Return a constant that a scope sees, or None if it is not one."""
        if name in self.weights:
            return np.asarray(self.weights[name])
        home = None if scope is None else scope.home(name)
        if home is None or name not in home.own:
            return None
        if name not in home.known:
            home.known[name] = None  # a cycle, which is not valid, ends here
            home.known[name] = self._compute(home, name)
        return home.known[name]

    def _compute(self, scope: Scope, name: str) -> Array | None:
        tensor, node = scope.initializers.get(name), scope.producers.get(name)
        if tensor is None and node is not None and node.domain in _STANDARD:
            if node.op_type == "Constant":
                return self._constant_node(node, name)
            return self._fold(scope, node, name) if node.op_type in _MOVING else None
        return None if tensor is None else self._array(tensor, name)

    def _constant_node(self, node: Any, name: str) -> Array | None:
        tensor = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        if tensor is not None:
            return self._array(tensor, name)
        values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        for kind, dtype in (("float", np.float32), ("int", np.int64)):
            for attribute in (f"value_{kind}", f"value_{kind}s"):
                if attribute in values:
                    return np.array(values[attribute], dtype)
        return None

    def _array(self, tensor: Any, name: str) -> Array:
        if onnx.external_data_helper.uses_external_data(tensor):
            raise ValueError(f"{name!r} lies in another file: load the model with onnx.load, or give its path")
        try:
            return np.array(numpy_helper.to_array(tensor))
        except Exception as error:  # an unknown type, or a shape that is not that of the data
            raise ValueError(f"{name!r} is no array: {error}") from error

    def _fold(self, scope: Scope, node: Any, name: str) -> Array | None:
        """Compute a node that only moves data, if all its inputs are constants; every output is remembered."""
        inputs = {read: self.constant(scope, read) for read in node.input if read}
        if any(array is None for array in inputs.values()):
            return None
        if _size(node, inputs) > self._room:
            raise ValueError(f"{name!r} is a constant far larger than the graph that it comes from")
        values = [helper.make_tensor_value_info(read, onnx.TensorProto.UNDEFINED, None) for read in inputs]
        results = [onnx.ValueInfoProto(name=written) for written in node.output]
        model = helper.make_model(helper.make_graph([node], "fold", values, results), opset_imports=self._opsets)
        try:
            found = ReferenceEvaluator(model).run(None, inputs)
        except Exception as error:  # whatever the evaluator makes of a node that is not valid
            raise ValueError(
                f"{node.op_type} {scope.path + _label(node)!r} of constants is not valid: {error}"
            ) from None
        arrays = dict(zip(node.output, map(np.asarray, found), strict=True))
        self._room -= sum(array.nbytes for array in arrays.values())
        if self._room < 0:
            raise ValueError(f"{name!r} is a constant far larger than the graph that it comes from")
        scope.known.update(arrays)
        return arrays[name]

    def _weight(self, scope: Scope, argument: str, name: Any) -> Array | None:
        """Return an array of weights; None if the node has no such input."""
        if not name:
            return None
        array = self.constant(scope, name)
        if array is None:
            home = scope.home(name)
            node = None if home is None else home.producers.get(name)
            origin = "is not among the initializers" if node is None else f"comes from a {node.op_type} node"
            raise ValueError(f"{argument} must be a constant, or in weights; {name!r} {origin}")
        return array

    def operator(self, scope: Scope, node: Any) -> Operator:
        """The operator of a recurrent node; ValueError or TypeError begins with its name."""
        quantized, attributes = node.op_type == QUANTIZED, {}
        try:
            known = _QUANTIZED_INPUTS if quantized else _INPUTS if node.op_type == "LSTM" else _INPUTS[:6]
            if len(node.input) > len(known):
                raise ValueError(f"inputs must be at most {len(known)}; got {len(node.input)}")
            names = dict(zip(known, node.input, strict=False))
            for argument in ("W", "R"):
                if not names.get(argument):
                    raise ValueError(f"{argument} must be there; the inputs are {', '.join(map(repr, node.input))}")
            for attribute in node.attribute:
                attributes[attribute.name] = helper.get_attribute_value(attribute)
            arrays: dict[str, Any] = {
                argument: self._weight(scope, argument, names.get(argument))
                for argument in known
                if argument not in ("X", "sequence_lens", "initial_h", "initial_c")
            }
            if quantized:
                for argument in ("W", "R"):
                    scale, zero = (arrays.pop(f"{argument}_{part}", None) for part in ("scale", "zero_point"))
                    arrays[argument] = _dequantized(argument, arrays[argument], scale, zero)
            defaults: dict[str, Any] = {
                argument: self.constant(scope, names[argument])
                for argument in ("sequence_lens", "initial_h", "initial_c")
                if names.get(argument)
            }
            op_type = "LSTM" if quantized else node.op_type
            return Operator(op_type, **arrays, **defaults, attributes=attributes, name=self.names(scope, node)[0])
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{self._place}{node.op_type} {self.names(scope, node)[0]!r}: {error}") from None


def _size(node: Any, inputs: dict[str, Any]) -> int:
    """Bytes of the result of a node that may repeat its inputs; 0 if it does not."""
    read = [inputs[name] for name in node.input if name]
    if node.op_type == "Concat":
        return sum(array.nbytes for array in read)
    if node.op_type == "Gather" and len(read) == 2 and read[0].ndim:
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        length = read[0].shape[axis] if -read[0].ndim <= axis < read[0].ndim else 1
        return int(read[1].size) * int(read[0].nbytes // max(length, 1))
    return 0


def _dequantized(argument: str, values: Array, scale: Array | None, zero: Array | None) -> Array:
    """Floats (directions, 4*H, K) of 8 bits (directions, K, 4*H), a scale and zero point a direction or column."""
    if values.dtype not in (np.int8, np.uint8) or values.ndim != 3:
        raise ValueError(f"{argument} must be (directions, ., 4*H) of 8 bits; got {values.shape} {values.dtype}")
    parts = {"scale": np.ones(1, np.float32) if scale is None else scale, "zero_point": zero}
    if zero is None:
        parts["zero_point"] = np.zeros_like(parts["scale"])
    wide = {}
    for name, array in parts.items():
        assert array is not None
        if array.shape not in ((), (1,), values.shape[:1], values.shape[::2]):
            wanted = f"(directions,) or (directions, 4*H) = {values.shape[::2]}"
            raise ValueError(f"{argument}_{name} must be {wanted}; got {array.shape}")
        wide[name] = array.astype(np.float32).reshape(array.shape[0] if array.ndim else 1, 1, -1)
    return ((values.astype(np.float32) - wide["zero_point"]) * wide["scale"]).swapaxes(1, 2)


def _nothing(scopes: list[Scope], functions: list[Any]) -> str:
    """What to say of a model without a recurrent node."""
    found = sorted({node.op_type for scope in scopes for node in scope.graph.node})
    names = f"{', '.join(found[:8])}{', ...' if len(found) > 8 else ''}"
    message = f"the graph has no RNN, GRU or LSTM node, nor have the bodies in it; its nodes are {names or 'none'}"
    for function in functions:
        if any(_is_recurrent(node) for node in function.node):
            message += (
                f"; its function {function.name!r} has one: call onnx.inliner.inline_local_functions(model) first"
            )
    return message
