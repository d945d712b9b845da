"""What the recurrent operators of ONNX are: their types, gates, activations and attributes."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import checks
from .._types import Array
from ..engine.cells import GRU, LSTM, RNN, Cell

__all__ = ["ACTIVATIONS", "ENGINE_ACTIVATIONS", "ENGINE_FUNCTIONS", "KINDS", "PEEPHOLE_ROWS", "VALUES", "Kind"]


class Kind(NamedTuple):
    """Fixed properties of an operator type."""

    cell: Cell
    gates: str  # blocks of W, R and B, by rnncore's letters
    activations: tuple[str, ...]  # of one direction: f, g, h
    flag: str | None  # the attribute that only it has

    @property
    def states(self) -> str:
        return self.cell.states


KINDS = {
    "RNN": Kind(RNN, "h", ("Tanh",), None),
    "GRU": Kind(GRU, "zrn", ("Sigmoid", "Tanh"), "linear_before_reset"),
    "LSTM": Kind(LSTM, "iofg", ("Sigmoid", "Tanh", "Tanh"), "input_forget"),
}

# Reorders the rows of a peephole from rnncore's i f o to the i o f of P, and back.
PEEPHOLE_ROWS = [0, 2, 1]


# ---- activations ------------------------------------------------------------------------------------------------


#: Further parameters of the functions, in this order.
VALUES = ("activation_alpha", "activation_beta")


class _Activation(NamedTuple):
    """function(a, alpha, beta), with as many of the two as ``defaults`` has; None means no default."""

    name: str
    function: Callable[..., Array]
    defaults: tuple[float | None, ...] = ()


ACTIVATIONS = {
    activation.name.lower(): activation
    for activation in (
        _Activation("Relu", lambda a: np.maximum(a, 0)),
        _Activation("Tanh", np.tanh),
        _Activation("Sigmoid", lambda a: 0.5 * (1 + np.tanh(0.5 * a))),
        _Activation("Affine", lambda a, alpha, beta: alpha * a + beta, (1.0, 0.0)),
        _Activation("LeakyRelu", lambda a, alpha: np.where(a >= 0, a, alpha * a), (0.01,)),
        _Activation("ThresholdedRelu", lambda a, alpha: np.where(a >= alpha, a, 0), (1.0,)),
        _Activation("ScaledTanh", lambda a, alpha, beta: alpha * np.tanh(beta * a), (None, None)),
        _Activation("HardSigmoid", lambda a, alpha, beta: np.clip(alpha * a + beta, 0, 1), (0.2, 0.5)),
        _Activation("Elu", lambda a, alpha: np.where(a >= 0, a, alpha * np.expm1(np.minimum(a, 0))), (1.0,)),
        _Activation("Softsign", lambda a: a / (1 + np.abs(a))),
        _Activation("Softplus", lambda a: np.logaddexp(0, a)),
    )
}

# The functions that the engine computes, and rnncore's names for them.
_IDENTITY = ("Affine", (1.0, 0.0))
ENGINE_ACTIVATIONS = {("Tanh", ()): "tanh", ("Relu", ()): "relu", _IDENTITY: "identity"}
ENGINE_FUNCTIONS: dict[str, list[Any]] = {
    "RNN": [(f,) for f in ENGINE_ACTIVATIONS],
    "GRU": [(("Sigmoid", ()), ("Tanh", ()))],
    "LSTM": [(("Sigmoid", ()), ("Tanh", ()), h) for h in (("Tanh", ()), _IDENTITY)],
}


def functions_of(kind: Kind, attributes: dict[str, Any], directions: int) -> list[Any]:
    """Return (name, parameters) of f, g, h for each direction; ValueError for a wrong name or number."""
    count = len(kind.activations)
    names = attributes.get("activations") or kind.activations * directions
    if kind is KINDS["RNN"] and directions == 1 and len(names) == 2:
        names = names[:1]
    if len(names) != count * directions:
        raise ValueError(f"activations must be {count} for each direction, {count * directions}; got {len(names)}")
    values = {attribute: attributes.get(attribute, ()) for attribute in VALUES}
    takers, functions = dict.fromkeys(VALUES, 0), []
    for name in names:
        activation = ACTIVATIONS.get(name.lower())
        if activation is None:
            known = ", ".join(a.name for a in ACTIVATIONS.values())
            raise ValueError(f"activations must be of {known}; got {name!r}")
        parameters = []
        for attribute, default in zip(VALUES, activation.defaults, strict=False):
            given = values[attribute][takers[attribute] :][:1]
            takers[attribute] += 1
            if not given and default is None:
                raise ValueError(f"{attribute} must have a value for {activation.name}, which has no default")
            parameters.append(given[0] if given else default)
        functions.append((activation.name, tuple(parameters)))
    for attribute, count_of in takers.items():
        if 0 < count_of < len(values[attribute]):
            raise ValueError(f"{attribute} must be at most {count_of}, one a function; got {len(values[attribute])}")
    return [tuple(functions[d * count : (d + 1) * count]) for d in range(directions)]


# ---- attributes -------------------------------------------------------------------------------------------------


def _list_of(convert: Callable[..., Any]) -> Callable[..., Any]:
    def clean(name: str, value: list[Any]) -> list[Any]:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{name} must be a list; got {value!r}")
        return [convert(name, item) for item in value]

    return clean


def _float(name: str, value: float) -> float:
    """Round to float32, as in the model."""
    if not isinstance(value, numbers.Real):
        raise ValueError(f"{name} must be a number; got {value!r}")
    with np.errstate(over="ignore"):
        return float(np.float32(checks.real(name, value)))


def _string(name: str, value: bytes | str) -> str:
    if not isinstance(value, (str, bytes)):
        raise ValueError(f"{name} must be a str; got {value!r}")
    return value.decode() if isinstance(value, bytes) else value


def _direction(name: str, value: bytes | str) -> str:
    return checks.choice(name, _string(name, value), ("forward", "reverse", "bidirectional"))


def _layout(name: str, value: int) -> int:
    if value not in (0, 1):
        raise ValueError(f"{name} must be 0 or 1; got {value!r}")
    return int(value)


def _flag(name: str, value: int) -> int:
    return checks.integer(name, value, least=0)


_ATTRIBUTES: dict[str, checks.Rule] = {
    "activation_alpha": _list_of(_float),
    "activation_beta": _list_of(_float),
    "activations": _list_of(_string),
    "clip": lambda name, value: checks.positive(name, _float(name, value)),
    "direction": _direction,
    "hidden_size": lambda name, value: checks.integer(name, value, least=1),
    "layout": _layout,
    "linear_before_reset": _flag,
    "input_forget": _flag,
}


def clean_attributes(op_type: str, attributes: dict[str, Any]) -> dict[str, Any]:
    """Check the attributes; return them as plain values, in the given order."""
    checks.instance("attributes", attributes, Mapping, "a dict")
    flags = {kind.flag for kind in KINDS.values()} - {KINDS[op_type].flag}
    for name in attributes:
        if name not in _ATTRIBUTES or name in flags:
            known = ", ".join(name for name in _ATTRIBUTES if name not in flags)
            raise ValueError(f"attributes of {op_type} are {known}; got {name!r}")
    return {name: _ATTRIBUTES[name](name, value) for name, value in attributes.items()}
