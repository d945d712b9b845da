"""The recurrent operators of ONNX: RNN, GRU and LSTM of operator sets 7, 14 and 22, read, run and written.

:func:`from_onnx` makes an :class:`Operator` of a node and its weights, with every attribute of the specification
(https://onnx.ai/onnx/operators). It runs on rnncore's engine where that has the cell; coupled gates, clipping and other
activations run through the equations in plain NumPy, :func:`step_by_step`. :func:`to_onnx` writes a model of a layer.

Where the specification leaves something open:

* ``activation_alpha`` and ``activation_beta`` go, in order, to the functions that take such a value, as in ONNX
  Runtime. Those that are missing have the defaults of the operators of that name: Affine 1 and 0, ThresholdedRelu 1,
  where ONNX Runtime takes 0. ScaledTanh has no defaults. Names count in any case of letters.
* ``clip`` bounds what enters f and g, the sums of products and bias. Ct goes into h as it is, as in ONNX Runtime.
* ``input_forget`` makes f = 1 - i; weights, bias and peephole of f count for nothing.
* Where ``sequence_lens`` is 0 the final state is the initial one; ONNX Runtime gives 0.
* An RNN in one direction may list two activations, which the schema has as default: the first counts.
* float16 is computed in float32; bfloat16 is a TypeError.
"""

import copy
import math
import numbers
import os
from typing import NamedTuple

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper, numpy_helper

from .. import checks, functional, layers
from .cells import check_shape, read, reorder

__all__ = ["Operator", "from_onnx", "operators", "step_by_step", "to_onnx"]


class _Kind(NamedTuple):
    """What one of the three operators is."""

    gates: str  # blocks of W, R and B, by rnncore's letters
    engine_gates: str  # the same in rnncore's own order
    activations: tuple  # of one direction: f, g, h
    states: str
    flag: str | None  # the attribute that it alone has
    layer: type


_KINDS = {
    "RNN": _Kind("h", "h", ("Tanh",), "h", None, layers.RNN),
    "GRU": _Kind("zrn", "rzn", ("Sigmoid", "Tanh"), "h", "linear_before_reset", layers.GRU),
    "LSTM": _Kind("iofg", "ifgo", ("Sigmoid", "Tanh", "Tanh"), "hc", "input_forget", layers.LSTM),
}

_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")

# Rows of a peephole i f o, as rnncore has them, in the order i o f of P, and the other way round.
_PEEPHOLE_ROWS = [0, 2, 1]


# ---- activations ------------------------------------------------------------------------------------------------


#: What functions take beside their argument, in this order.
_VALUES = ("activation_alpha", "activation_beta")


class _Activation(NamedTuple):
    """function(a, alpha, beta), as many of the two as ``defaults`` has; None is no default."""

    name: str
    function: object
    defaults: tuple = ()


_ACTIVATIONS = {
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

# What the engine computes, by the name of rnncore.
_IDENTITY = ("Affine", (1.0, 0.0))
_ENGINE_ACTIVATIONS = {("Tanh", ()): "tanh", ("Relu", ()): "relu", _IDENTITY: "identity"}
_ENGINE_FUNCTIONS = {
    "RNN": [(f,) for f in _ENGINE_ACTIVATIONS],
    "GRU": [(("Sigmoid", ()), ("Tanh", ()))],
    "LSTM": [(("Sigmoid", ()), ("Tanh", ()), h) for h in (("Tanh", ()), _IDENTITY)],
}


def _functions(kind, attributes, directions):
    """-> for each direction a tuple of (name, parameters) for f, g, h. ValueError for a wrong name or number."""
    count = len(kind.activations)
    names = attributes.get("activations") or kind.activations * directions
    if kind is _KINDS["RNN"] and directions == 1 and len(names) == 2:
        names = names[:1]
    if len(names) != count * directions:
        raise ValueError(f"activations must be {count} for each direction, {count * directions}; got {len(names)}")
    values = {attribute: attributes.get(attribute, ()) for attribute in _VALUES}
    takers, functions = dict.fromkeys(_VALUES, 0), []
    for name in names:
        activation = _ACTIVATIONS.get(name.lower())
        if activation is None:
            known = ", ".join(a.name for a in _ACTIVATIONS.values())
            raise ValueError(f"activations must be of {known}; got {name!r}")
        parameters = []
        for attribute, default in zip(_VALUES, activation.defaults, strict=False):
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


def _list_of(convert):
    def clean(name, value):
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{name} must be a list; got {value!r}")
        return [convert(name, item) for item in value]

    return clean


def _float(name, value):
    """As the model has it: float32."""
    if not isinstance(value, numbers.Real):
        raise ValueError(f"{name} must be a number; got {value!r}")
    return float(np.float32(value))


def _string(name, value):
    if not isinstance(value, (str, bytes)):
        raise ValueError(f"{name} must be a str; got {value!r}")
    return value.decode() if isinstance(value, bytes) else value


def _direction(name, value):
    return checks.choice(name, _string(name, value), ("forward", "reverse", "bidirectional"))


def _layout(name, value):
    if value not in (0, 1):
        raise ValueError(f"{name} must be 0 or 1; got {value!r}")
    return int(value)


def _flag(name, value):
    return checks.integer(name, value, least=0)


_ATTRIBUTES = {
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


def _clean_attributes(op_type, attributes):
    """-> dict of plain values, in the order given."""
    flags = {kind.flag for kind in _KINDS.values()} - {_KINDS[op_type].flag}
    for name in attributes:
        if name not in _ATTRIBUTES or name in flags:
            known = ", ".join(name for name in _ATTRIBUTES if name not in flags)
            raise ValueError(f"attributes of {op_type} are {known}; got {name!r}")
    return {name: _ATTRIBUTES[name](name, value) for name, value in attributes.items()}


# ---- the operator -----------------------------------------------------------------------------------------------


class Operator:
    """One RNN, GRU or LSTM node with its weights, all in the layout of ONNX.

    G is 1, 3 or 4; gate blocks are z r h of a GRU and i o f c of an LSTM, the rows of P i o f.

    Parameters
    ----------
    op_type : {"RNN", "GRU", "LSTM"}
    W : array (directions, G*H, D)
    R : array (directions, G*H, H)
    B : array (directions, 2*G*H), optional
        Bias of the input, then of the state; zeros if not given.
    P : array (directions, 3*H), optional
        Peephole weights, LSTM only.
    attributes : dict, optional
        activation_alpha, activation_beta, activations, clip, direction, hidden_size, layout; linear_before_reset of a
        GRU, input_forget of an LSTM.
    name : str
    sequence_lens, initial_h, initial_c : array, optional
        Defaults of :meth:`run` and of a call.

    Attributes
    ----------
    op_type, W, R, B, P, name, sequence_lens, initial_h, initial_c
        As given: arrays are not copied, and read on every call.
    attributes : dict
        What the node says, floats rounded to float32, and hidden_size, which ONNX Runtime demands; a copy.
    direction : {"forward", "reverse", "bidirectional"}
    layout : {0, 1}
    input_size, hidden_size, directions : int
        D, H and 1 or 2.
    backend : {"engine", "reference"}
        What computes: rnncore's engine, or :func:`step_by_step`.
    reason : str
        The attributes that keep it from the engine; "" if there are none.

    Raises
    ------
    ValueError
        A shape, an attribute or an activation is wrong, or belongs to another operator.
    TypeError
        An array does not hold float16, float32 or float64 (sequence_lens: integers).

    Examples
    --------
    >>> W, R = np.full((1, 3, 1), np.log(3)), np.zeros((1, 3, 1))
    >>> gru = Operator("GRU", W, R)  # z = 3/4, n = tanh(log 3) = 4/5, h = n / 4
    >>> Y, Y_h = gru.run(np.ones((1, 1, 1)))
    >>> Y.shape, Y_h.round(6)
    ((1, 1, 1, 1), array([[[0.2]]]))
    >>> Operator("GRU", W, R, attributes={"clip": 0.5})
    <GRU: D=1 H=1 forward, on the reference for its clip>
    """

    def __init__(
        self,
        op_type,
        W,
        R,
        B=None,
        P=None,
        *,
        attributes=None,
        name="",
        sequence_lens=None,
        initial_h=None,
        initial_c=None,
    ):
        self.op_type, self.name = checks.choice("op_type", op_type, tuple(_KINDS)), name
        self._kind = _KINDS[op_type]
        self._attributes = _clean_attributes(op_type, attributes or {})
        self.direction = self._attributes.get("direction", "forward")
        self.directions = 2 if self.direction == "bidirectional" else 1
        self.layout = self._attributes.get("layout", 0)
        self._functions = _functions(self._kind, self._attributes, self.directions)

        self.W, self.R = functional.as_real("W", W), functional.as_real("R", R)
        self.B, self.P = (None if a is None else functional.as_real(n, a) for n, a in (("B", B), ("P", P)))
        dirs, G = self.directions, len(self._kind.gates)
        blocks = f"{G}*H" if G > 1 else "H"
        if self.W.ndim != 3 or self.R.ndim != 3 or 0 in (*self.W.shape, *self.R.shape):
            raise ValueError(f"W and R must have 3 axes and no empty one; got {self.W.shape} and {self.R.shape}")
        H = self._attributes.setdefault("hidden_size", self.R.shape[2])
        self.hidden_size, self.input_size = H, self.W.shape[2]
        check_shape("W", self.W, f"(directions, {blocks}, D)", (dirs, G * H, self.input_size))
        check_shape("R", self.R, f"(directions, {blocks}, H)", (dirs, G * H, H))
        if self.B is not None:
            check_shape("B", self.B, f"(directions, {2 * G}*H)", (dirs, 2 * G * H))
        for argument, value in (("P", P), ("initial_c", initial_c)):
            if value is not None and op_type != "LSTM":
                raise ValueError(f"{argument} belongs to LSTM; this is {op_type}")
        if self.P is not None:
            check_shape("P", self.P, "(directions, 3*H)", (dirs, 3 * H))

        self.sequence_lens = None if sequence_lens is None else np.asarray(sequence_lens)
        self._lengths(None, np.iinfo(np.int32).max, np.size(sequence_lens))
        self.initial_h = None if initial_h is None else functional.as_real("initial_h", initial_h)
        self.initial_c = None if initial_c is None else functional.as_real("initial_c", initial_c)
        for state in (self.initial_h, self.initial_c):
            if state is not None:
                self._initial({}, state.shape[1 - self.layout] if state.ndim == 3 else 0)

    @property
    def attributes(self):
        return copy.deepcopy(self._attributes)

    @property
    def reason(self):
        known = _ENGINE_FUNCTIONS[self.op_type]
        reasons = {
            "activations": any(functions not in known for functions in self._functions),
            "clip": "clip" in self._attributes,
            "input_forget": self._attributes.get("input_forget", 0) != 0,
        }
        return ", ".join(name for name, applies in reasons.items() if applies)

    @property
    def backend(self):
        return "reference" if self.reason else "engine"

    def __repr__(self):
        name = f" {self.name!r}" if self.name else ""
        size = f"D={self.input_size} H={self.hidden_size} {self.direction}{' batch-first' * self.layout}"
        where = f"on the {self.backend}" + (f" for its {self.reason}" if self.reason else "")
        return f"<{self.op_type}{name}: {size}, {where}>"

    def run(self, X, sequence_lens=None, initial_h=None, initial_c=None):
        """The outputs of the node, as ONNX has them.

        Parameters
        ----------
        X : array (T, N, D); layout 1: (N, T, D)
        sequence_lens : integer array (N,), optional
            Valid steps of each row; without them, and without the node's own, all are valid.
        initial_h, initial_c : array (directions, N, H), optional; layout 1: (N, directions, H)
            Without them, and without the node's own, zeros.

        Returns
        -------
        Y : ndarray (T, directions, N, H); layout 1: (N, T, directions, H)
            States after each step, 0 beyond each row's length.
        Y_h, and Y_c of an LSTM : ndarray (directions, N, H); layout 1: (N, directions, H)
            States after the last step that is computed.

        Raises
        ------
        ValueError, TypeError
            A shape, dtype or length is wrong.
        """
        x = self._time_major("X", X)
        T, N, _ = x.shape
        if initial_c is not None and "c" not in self._kind.states:
            raise ValueError(f"initial_c belongs to LSTM; this is {self.op_type}")
        states = {"h": initial_h, "c": initial_c}
        given = {s: self._state(f"initial_{s}", a, N, self.layout) for s, a in states.items() if a is not None}
        outputs, finals = self._forward(x, self._lengths(sequence_lens, T, N), given)
        Y = np.stack(outputs, axis=1)
        if self.layout:
            return Y.transpose(2, 0, 1, 3), *(state.swapaxes(0, 1) for state in finals)
        return Y, *finals

    def __call__(self, x, state=None, lengths=None):
        """The node as a layer of rnncore.

        Parameters
        ----------
        x : array (T, N, D); layout 1: (N, T, D)
        state : array (directions, N, H), or tuple (h, c) of two for an LSTM, optional
            As returned; without it and without the node's own, zeros.
        lengths : integer array (N,), optional

        Returns
        -------
        y : ndarray (T, N, directions * H); layout 1: (N, T, directions * H)
        state : like ``state``

        Raises
        ------
        ValueError, TypeError
            A shape, dtype or length is wrong.
        """
        x = self._time_major("x", x)
        T, N, _ = x.shape
        given = {}
        if state is not None:
            arrays = state if len(self._kind.states) > 1 else (state,)
            if not isinstance(arrays, (tuple, list)) or len(arrays) != len(self._kind.states):
                raise TypeError(f"state of an LSTM must be a tuple (h, c); got {type(state).__name__}")
            given = {s: self._state(f"state {s}", a, N, 0) for s, a in zip(self._kind.states, arrays, strict=True)}
        outputs, finals = self._forward(x, self._lengths(lengths, T, N, "lengths"), given)
        y = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=2)
        return y.swapaxes(0, 1) if self.layout else y, finals if len(finals) > 1 else finals[0]

    def to_layer(self):
        """A layer of rnncore with copies of the weights: to train it further, or to stream.

        Returns
        -------
        RNN, GRU or LSTM
            ``batch_first`` with layout 1; float64 if an array of the operator is, float32 otherwise.

        Raises
        ------
        ValueError
            No layer computes this; the message names the attribute.
        """
        if self.reason:
            raise ValueError(f"no {self.op_type} layer of rnncore has such {self.reason}")
        if self.direction == "reverse":
            raise ValueError("no layer of rnncore has the direction 'reverse' alone")
        if len(set(self._functions)) > 1:
            raise ValueError("activations of a layer of rnncore must be the same in both directions")
        for name in ("sequence_lens", "initial_h", "initial_c"):
            constant = getattr(self, name)
            if constant is not None and (name == "sequence_lens" or constant.any()):
                raise ValueError(f"{name} is a constant of the node; a layer of rnncore takes it with every call")
        cells = [self._cell(direction) for direction in range(self.directions)]
        order = self._kind.engine_gates
        options = {name: value for name, value in cells[0].items() if isinstance(value, str) and name != "gate_order"}
        if self.P is not None:
            options["peephole"] = True
        layer = self._kind.layer(
            self.input_size,
            self.hidden_size,
            bidirectional=self.directions == 2,
            batch_first=bool(self.layout),
            dtype=np.promote_types(self._dtype, np.float32),
            **options,
        )
        for direction, cell in enumerate(cells):
            for name, array in layer.weights(0, direction).items():
                blocks = name in ("Wx", "Wh", "b")
                array[...] = reorder(cell[name], self._kind.gates, order) if blocks else cell[name]
        return layer

    @property
    def _dtype(self):
        """Of all the arrays together."""
        own = (self.W, self.R, self.B, self.P, self.initial_h, self.initial_c)
        return np.result_type(*(array.dtype for array in own if array is not None))

    # -- arguments of a call: time-major, states (directions, N, H)

    def _time_major(self, name, value):
        x = functional.as_real(name, value)
        if x.ndim != 3 or x.shape[2] != self.input_size:
            axes = "(N, T, D)" if self.layout else "(T, N, D)"
            raise ValueError(f"{name} must be {axes} with D = {self.input_size}; got {x.shape}")
        return x.swapaxes(0, 1) if self.layout else x

    def _lengths(self, value, T, N, name="sequence_lens"):
        """-> int64 (N,), or None; those of the node where none are given."""
        if value is None:
            value, name = self.sequence_lens, "sequence_lens"
        if value is None:
            return None
        try:
            return functional.clean_lengths(value, T, N)
        except (TypeError, ValueError) as error:
            raise type(error)(str(error).replace("lengths", name, 1)) from None

    def _state(self, name, value, N, layout):
        """-> (directions, N, H) of a state that is (N, directions, H) with layout 1."""
        array = functional.as_real(name, value)
        letters, wanted = ["directions", "N", "H"], [self.directions, N, self.hidden_size]
        if layout:
            letters[:2], wanted[:2] = letters[1::-1], wanted[1::-1]
        check_shape(name, array, f"({', '.join(letters)})", tuple(wanted))
        return array.swapaxes(0, 1) if layout else array

    def _initial(self, given, N):
        """-> dict of the states by letter, those of the node where none are given."""
        own = {"h": self.initial_h, "c": self.initial_c}
        missing = {s: a for s, a in own.items() if a is not None and s not in given}
        return given | {s: self._state(f"initial_{s}", a, N, self.layout) for s, a in missing.items()}

    # -- computation

    def _forward(self, x, lengths, states):
        """x (T, N, D), states (directions, N, H) -> outputs [(T, N, H)], final states [(directions, N, H)]"""
        states = self._initial(states, x.shape[1])
        calls = [
            {
                "x": x,
                **{f"{s}0": array[direction] for s, array in states.items()},
                "lengths": lengths,
                "reverse": self.direction == "reverse" or direction == 1,
            }
            for direction in range(self.directions)
        ]
        if self.backend == "engine":
            cell = getattr(functional, f"{self.op_type.lower()}_forward")
            arguments = [{**self._cell(d), **call, "training": False} for d, call in enumerate(calls)]
            results = functional.side_by_side(cell, arguments)
        else:
            results = [step_by_step(self, d, **call) for d, call in enumerate(calls)]
        outputs, finals, _ = zip(*results, strict=True)
        finals = [(final,) if len(self._kind.states) == 1 else final for final in finals]
        return outputs, tuple(np.stack(values) for values in zip(*finals, strict=True))

    def _biases(self, direction):
        """-> Wb, Rb (G*H,) each, at least float32"""
        dtype = np.promote_types(self._dtype, np.float32)
        if self.B is None:
            return np.zeros((2, self.W.shape[1]), dtype)
        return self.B[direction].reshape(2, -1).astype(dtype, copy=False)

    def _cell(self, direction):
        """The weights and options of one direction, as the engine's function takes them; blocks as they lie in ONNX."""
        H, functions = self.hidden_size, self._functions[direction]
        Wb, Rb = self._biases(direction)
        cell = {"Wx": self.W[direction].T, "Wh": self.R[direction].T, "b": Wb + Rb}
        if self.op_type == "RNN":
            return cell | {"activation": _ENGINE_ACTIVATIONS[functions[0]]}
        cell["gate_order"] = self._kind.gates
        if self.op_type == "GRU":
            cell |= {"update": "old", "form": "reset_before"}
            if self._attributes.get("linear_before_reset", 0):
                cell["b"][2 * H :] = Wb[2 * H :]
                cell |= {"form": "reset_after", "bhn": Rb[2 * H :]}
            return cell
        if self.P is not None:
            cell["peephole"] = self.P[direction].reshape(3, H)[_PEEPHOLE_ROWS]
        return cell | {"output_activation": _ENGINE_ACTIVATIONS[functions[2]]}


def step_by_step(operator, direction, x, h0=None, c0=None, lengths=None, reverse=False):
    """The equations of the operators, in plain NumPy: what every :class:`Operator` is held to.

    With f, g, h the functions of ``activations``, Wb, Rb the halves of B and (.) elementwise, for every t::

        RNN     Ht = f(Xt W^T + Ht-1 R^T + Wb + Rb)

        GRU     zt = f(Xt Wz^T + Ht-1 Rz^T + Wbz + Rbz)
                rt = f(Xt Wr^T + Ht-1 Rr^T + Wbr + Rbr)
                ht = g(Xt Wh^T + (rt (.) Ht-1) Rh^T + Rbh + Wbh)       linear_before_reset = 0
                ht = g(Xt Wh^T + rt (.) (Ht-1 Rh^T + Rbh) + Wbh)       otherwise
                Ht = (1 - zt) (.) ht + zt (.) Ht-1

        LSTM    it = f(Xt Wi^T + Ht-1 Ri^T + Pi (.) Ct-1 + Wbi + Rbi)
                ft = f(Xt Wf^T + Ht-1 Rf^T + Pf (.) Ct-1 + Wbf + Rbf)  input_forget = 0
                ft = 1 - it                                            otherwise
                ct = g(Xt Wc^T + Ht-1 Rc^T + Wbc + Rbc)
                Ct = ft (.) Ct-1 + it (.) ct
                ot = f(Xt Wo^T + Ht-1 Ro^T + Po (.) Ct + Wbo + Rbo)
                Ht = ot (.) h(Ct)

    Source: the specification of the operators, https://onnx.ai/onnx/operators. ``clip`` bounds what enters f and g.

    Parameters
    ----------
    operator : Operator
    direction : {0, 1}
        Whose weights.
    x : array (T, N, D)
    h0, c0 : array (N, H), optional
    lengths : integer array (N,), optional
    reverse : bool
        From the last valid step of each row to the first.

    Returns
    -------
    h : ndarray (T, N, H)
        0 beyond each row's length.
    h_n : ndarray (N, H); of an LSTM (h_n, c_n)
    cache : None

    Examples
    --------
    >>> coupled = Operator("LSTM", np.zeros((1, 4, 1)), np.zeros((1, 4, 1)), attributes={"input_forget": 1})
    >>> h, (h_n, c_n), _ = step_by_step(coupled, 0, np.zeros((2, 1, 1)), c0=np.ones((1, 1)))
    >>> float(c_n[0, 0])  # i = f = 1/2, the cell gate is 0
    0.25
    """
    x, h0, c0, lengths = (None if array is None else np.asarray(array) for array in (x, h0, c0, lengths))
    dtype = np.result_type(np.float32, operator._dtype, *(array.dtype for array in (x, h0, c0) if array is not None))
    (T, N, _), H, attributes = x.shape, operator.hidden_size, operator.attributes
    W, R = operator.W[direction].astype(dtype), operator.R[direction].astype(dtype)
    Wb, Rb = operator._biases(direction).astype(dtype)
    P = np.zeros(3 * H) if operator.P is None else operator.P[direction]
    p_i, p_o, p_f = P.reshape(3, H).astype(dtype)
    h, c = (np.zeros((N, H), dtype) if s is None else s.astype(dtype) for s in (h0, c0))
    bound = attributes.get("clip", math.inf)

    def activation(index, a):
        name, parameters = operator._functions[direction][index]
        return _ACTIVATIONS[name.lower()].function(a, *parameters)

    def f(a):
        return activation(0, np.clip(a, -bound, bound))

    def g(a):
        return activation(1, np.clip(a, -bound, bound))

    valid = np.arange(T)[:, None, None] < (np.full(N, T) if lengths is None else lengths)[:, None]  # (T, N, 1)
    x = np.where(valid, x, 0).astype(dtype)
    Y = np.zeros((T, N, H), dtype)
    for t in reversed(range(T)) if reverse else range(T):
        a = x[t] @ W.T + Wb  # (N, G*H) = (N, D) (D, G*H)
        u = h @ R.T + Rb  # (N, G*H) = (N, H) (H, G*H)
        C = c
        if operator.op_type == "RNN":
            H_t = f(a + u)
        elif operator.op_type == "GRU":
            (a_z, a_r, a_h), (u_z, u_r, u_h) = np.split(a, 3, axis=1), np.split(u, 3, axis=1)
            z, r = f(a_z + u_z), f(a_r + u_r)
            if attributes.get("linear_before_reset", 0):
                u_h = r * u_h
            else:
                u_h = (r * h) @ R[2 * H :].T + Rb[2 * H :]
            H_t = (1 - z) * g(a_h + u_h) + z * h
        else:
            a_i, a_o, a_f, a_c = np.split(a + u, 4, axis=1)
            i = f(a_i + p_i * c)
            forget = 1 - i if attributes.get("input_forget", 0) else f(a_f + p_f * c)
            C = forget * c + i * g(a_c)
            H_t = f(a_o + p_o * C) * activation(2, C)
        h, c = np.where(valid[t], H_t, h), np.where(valid[t], C, c)
        Y[t] = np.where(valid[t], h, 0)
    return Y, (h, c) if operator.op_type == "LSTM" else h, None


# ---- reading ----------------------------------------------------------------------------------------------------


def operators(source, *, weights=None):
    """All recurrent nodes of a model, in the order of the graph, but for those in the bodies of Loop, Scan and If.

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
    graph = _Graph(source, weights)
    return [graph.operator(node) for node in graph.recurrent]


def from_onnx(source, name=None, *, weights=None):
    """The RNN, GRU or LSTM node of a model.

    Weights are initializers, Constant nodes, or one of these behind Identity nodes. So are ``sequence_lens`` and the
    initial states that become defaults of the operator; where they are computed, or inputs of the model, they are
    arguments of every call. Operators of other domains than ONNX's are not looked at.

    Parameters
    ----------
    source : ModelProto, GraphProto, NodeProto, str or path
    name : str, optional
        Name of the node, or of its first output, where there are several.
    weights : dict of str to array, optional
        Arrays by the names that they have in the graph: all weights of a NodeProto, those that a model takes as inputs.

    Returns
    -------
    Operator

    Raises
    ------
    ValueError
        There is no such node, or there are several; a weight is missing or computed in the graph; or as
        :class:`Operator` says, and then the message begins with the node.
    TypeError
        ``source`` is none of these, or weights are not of float16, float32 or float64.
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
    graph = _Graph(source, weights)
    chosen = [node for node in graph.recurrent if name is None or name in (node.name, _label(node))]
    if len(chosen) != 1:
        names = ", ".join(repr(_label(node)) for node in graph.recurrent)
        if name is None:
            raise ValueError(f"the graph has {len(chosen)} recurrent nodes, name must say which: {names}")
        raise ValueError(f"name must be that of one recurrent node of {names}; got {name!r}, which {len(chosen)} have")
    return graph.operator(chosen[0])


def _label(node):
    """The name of a node, or that of its first output."""
    return node.name or next(filter(None, node.output), "")


class _Graph:
    """The recurrent nodes of a graph, and the constants that they read."""

    def __init__(self, source, weights):
        if isinstance(source, (str, os.PathLike)):
            try:
                source = onnx.load(source)
            except DecodeError as error:
                raise ValueError(f"{os.fspath(source)} is no ONNX model: {error}") from None
        if isinstance(source, onnx.NodeProto):
            if weights is None:
                raise ValueError(
                    "a NodeProto has no weights: weights must be a dict of arrays by the names of its inputs"
                )
            source = helper.make_graph([source], "node", [], [])
        if isinstance(source, onnx.ModelProto):
            source = source.graph
        if not isinstance(source, onnx.GraphProto):
            raise TypeError(f"source must be a ModelProto, GraphProto, NodeProto or path; got {type(source).__name__}")
        self.recurrent = [node for node in source.node if node.op_type in _KINDS and node.domain in ("", "ai.onnx")]
        if not self.recurrent:
            raise ValueError("the graph has no RNN, GRU or LSTM node")
        self.weights = dict(weights or {})
        unread = sorted(self.weights.keys() - {name for node in source.node for name in node.input})
        if unread:
            raise ValueError(f"weights has {', '.join(map(repr, unread))}, which no node of the graph reads")
        self.initializers = {tensor.name: tensor for tensor in source.initializer}
        self.producers = {name: node for node in source.node for name in node.output}

    def constant(self, name):
        """-> array, or None if the graph does not say what it is."""
        if name in self.weights:
            return np.asarray(self.weights[name])
        tensor, node = self.initializers.get(name), self.producers.get(name)
        if tensor is None and node is not None:
            if node.op_type == "Identity":
                return self.constant(node.input[0])
            if node.op_type == "Constant":
                tensor = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        if tensor is None:
            return None
        if onnx.external_data_helper.uses_external_data(tensor):
            raise ValueError(f"{name!r} lies in another file: load the model with onnx.load, or give its path")
        return np.array(numpy_helper.to_array(tensor))

    def weight(self, argument, name):
        """-> array; None where the node has no such input."""
        if not name:
            return None
        array = self.constant(name)
        if array is None:
            node = self.producers.get(name)
            origin = "is not among the initializers" if node is None else f"comes from a {node.op_type} node"
            raise ValueError(f"{argument} must be a constant, or in weights; {name!r} {origin}")
        return array

    def operator(self, node):
        attributes = {}
        try:
            known = _INPUTS if node.op_type == "LSTM" else _INPUTS[:6]
            if len(node.input) > len(known):
                raise ValueError(f"inputs must be at most {len(known)}; got {len(node.input)}")
            names = dict(zip(known, node.input, strict=False))
            for argument in ("W", "R"):
                if not names.get(argument):
                    raise ValueError(f"{argument} must be there; the inputs are {', '.join(map(repr, node.input))}")
            for attribute in node.attribute:
                attributes[attribute.name] = helper.get_attribute_value(attribute)
            arrays = {argument: self.weight(argument, names.get(argument)) for argument in ("W", "R", "B", "P")}
            states = ("sequence_lens", "initial_h", "initial_c")
            defaults = {argument: self.constant(names[argument]) for argument in states if names.get(argument)}
            return Operator(node.op_type, **arrays, **defaults, attributes=attributes, name=_label(node))
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{node.op_type} {_label(node)!r}: {error}") from None


# ---- writing ----------------------------------------------------------------------------------------------------

#: From here on the operators have ``layout``, and Split its sizes as an input.
_FIRST_OPSET = 14

#: Types of the attributes that may be empty lists.
_LISTS = {
    "activation_alpha": onnx.AttributeProto.FLOATS,
    "activation_beta": onnx.AttributeProto.FLOATS,
    "activations": onnx.AttributeProto.STRINGS,
}


def to_onnx(layer, *, opset=17, name="rnncore", with_state=True, with_lengths=False):
    """A model that computes what a layer, or an operator, does in inference.

    Inputs and outputs, with dynamic T and N:

    ========================  ============================================  ===========================
    X                         (T, N, D), or (N, T, D) if ``batch_first``
    sequence_lens             (N,) int32                                    with_lengths
    initial_h, initial_c      (num_layers * directions, N, H)               with_state; c of an LSTM
    Y                         (T, N, H * directions), or (N, T, .)
    h_n, c_n                  (num_layers * directions, N, H)               c_n of an LSTM
    ========================  ============================================  ===========================

    Each layer is one node, ``lstm_0``, ``lstm_1`` and so on; ``batch_first`` becomes Transpose nodes, for ONNX Runtime
    has no ``layout`` 1. A GRU with the update "new" is written with the z block negated, for 1 - sigmoid(a) is
    sigmoid(-a). The identity is Affine. Dropout is for training, and not written.

    An operator is written as one node, with its attributes, and its outputs Y, Y_h, Y_c as ONNX has them. Its own
    ``sequence_lens`` and initial states become initializers: defaults of the inputs of that name, or constants without
    such inputs.

    Parameters
    ----------
    layer : RNN, GRU, LSTM or Operator
    opset : int, default 17
        Version of the operator set, 14 or later; the version of the format is the oldest that has it.
    name : str, default "rnncore"
        Of the graph.
    with_state : bool, default True
        Whether initial states are inputs; otherwise they are zeros.
    with_lengths : bool, default False
        Whether ``sequence_lens`` is an input; otherwise all steps are valid.

    Returns
    -------
    ModelProto
        In the dtype of the layer. ONNX Runtime's kernels on the CPU have float32 only.

    Raises
    ------
    ValueError
        ONNX cannot say what the layer computes: the GRU form "simplified", or peepholes with ``peephole_output``
        "previous"; or ``opset`` is not known.
    TypeError
        ``layer`` is something else.

    Examples
    --------
    >>> model = to_onnx(layers.LSTM(3, 5, num_layers=2, batch_first=True, seed=0), with_state=False)
    >>> [node.op_type for node in model.graph.node]  # doctest: +NORMALIZE_WHITESPACE
    ['Transpose', 'LSTM', 'Transpose', 'Reshape', 'LSTM', 'Transpose', 'Reshape', 'Concat', 'Concat']
    >>> [output.name for output in model.graph.output]
    ['Y', 'h_n', 'c_n']
    """
    opset, newest = checks.integer("opset", opset, least=_FIRST_OPSET), onnx.defs.onnx_opset_version()
    if opset > newest:
        raise ValueError(f"opset must be at most {newest}, which the installed onnx knows; got {opset}")
    if not isinstance(name, str) or not name:
        raise ValueError(f"name must be a str, and not empty; got {name!r}")
    if isinstance(layer, Operator):
        writer = _Writer(layer._dtype)
        _write_operator(writer, layer, with_state, with_lengths)
    elif isinstance(layer, (layers.RNN, layers.GRU, layers.LSTM)):
        writer = _Writer(layer.dtype)
        _write_layer(writer, layer, with_state, with_lengths)
    else:
        raise TypeError(f"layer must be an RNN, GRU or LSTM layer or an Operator; got {type(layer).__name__}")
    graph = helper.make_graph(writer.nodes, name, writer.inputs, writer.outputs, writer.initializers)
    opsets = [helper.make_opsetid("", opset)]
    ir_version = helper.find_min_ir_version_for(opsets)
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, producer_name="rnncore")


class _Writer:
    """The parts of a graph; names of tensors are given by the caller."""

    def __init__(self, dtype):
        self.dtype = dtype.newbyteorder("=")
        self.element = helper.np_dtype_to_tensor_dtype(self.dtype)
        self.nodes, self.inputs, self.outputs, self.initializers = [], [], [], []

    def input(self, name, shape, element=None):
        self.inputs.append(helper.make_tensor_value_info(name, element or self.element, shape))
        return name

    def output(self, name, shape):
        self.outputs.append(helper.make_tensor_value_info(name, self.element, shape))
        return name

    def constant(self, name, array, dtype=None):
        """-> the name; "" for None, which stands for an input that is not there."""
        if array is None:
            return ""
        self.initializers.append(numpy_helper.from_array(np.array(array, dtype or self.dtype, order="C"), name))
        return name

    def node(self, op_type, inputs, outputs, name=None, **attributes):
        while not inputs[-1]:
            inputs = inputs[:-1]
        self.nodes.append(helper.make_node(op_type, inputs, outputs, name=name, **attributes))
        return outputs[0]

    def operator(self, operator, X, states, outputs, suffix=""):
        """The node of an operator: states are the names of sequence_lens, initial_h and initial_c."""
        W, R, B, P = (self.constant(n + suffix, getattr(operator, n)) for n in ("W", "R", "B", "P"))
        self.node(operator.op_type, [X, W, R, B, *states, P], outputs, operator.name)
        self.nodes[-1].attribute.extend(
            helper.make_attribute(name, value, attr_type=_LISTS.get(name))
            for name, value in operator.attributes.items()
        )


def _write_operator(writer, operator, with_state, with_lengths):
    letters = operator._kind.states
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


def _write_layer(writer, layer, with_state, with_lengths):
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
    joined = writer.constant("joined", [0, 0, dirs * H], np.int64)  # 0 is the axis as it was
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


def _operator_of(layer, index):
    """One layer of a stack, both directions, as an operator of layout 0."""
    op_type = next(op_type for op_type, kind in _KINDS.items() if isinstance(layer, kind.layer))
    kind, options, dirs, H = _KINDS[op_type], layer.options(), layer.directions, layer.hidden_size
    if options.get("form") == "simplified":
        raise ValueError("ONNX has no GRU of the form 'simplified': its GRU has a reset gate")
    peephole = op_type == "LSTM" and layer.peephole
    if peephole and layer.peephole_output != "current":
        raise ValueError(
            f"ONNX has no LSTM with peephole_output {layer.peephole_output!r}: its o sees the current cell"
        )

    attributes = {"direction": "bidirectional" if layer.bidirectional else "forward", "hidden_size": H}
    if options.get("form") == "reset_after":
        attributes["linear_before_reset"] = 1
    # The one function that the engine has a choice of is the last.
    chosen = options.get("activation", options.get("output_activation", "tanh"))
    last, parameters = next(function for function, name in _ENGINE_ACTIVATIONS.items() if name == chosen)
    activations = (*kind.activations[:-1], last)
    if activations != kind.activations:
        attributes["activations"] = list(activations * dirs)
    for name, value in zip(_VALUES, parameters, strict=False):
        attributes[name] = [value] * dirs

    weights = {"W": [], "R": [], "B": [], "P": []}
    for direction in range(dirs):
        cell = read(layer, index, direction)
        Wx, Wh, Wb = (reorder(cell[name], kind.engine_gates, kind.gates) for name in ("Wx", "Wh", "b"))
        Rb = np.zeros_like(Wb)
        if "bhn" in cell:
            Rb[2 * H :] = cell["bhn"]
        weights["W"].append(Wx.T)
        weights["R"].append(Wh.T)
        weights["B"].append(np.concatenate([Wb, Rb]))
        if peephole:
            weights["P"].append(cell["peephole"][_PEEPHOLE_ROWS].reshape(-1))
    arrays = {name: np.stack(values) for name, values in weights.items() if values}
    return Operator(op_type, **arrays, attributes=attributes, name=f"{op_type.lower()}_{index}")
