"""The recurrent operators of ONNX, RNN, GRU and LSTM of operator sets 7, 14 and 22, with weights and all attributes.

An :class:`Operator` runs on rnncore's engine if the engine has the cell. Coupled gates, clipping and other activations
fall back to the equations in plain NumPy, :func:`step_by_step`. :mod:`rnncore.interop.onnx` reads and writes models;
this module does not need the onnx package. Source: https://onnx.ai/onnx/operators. Where that leaves something open:

* Values of ``activation_alpha`` and ``activation_beta`` go, in order, to the functions that take one, as in ONNX
  Runtime. Missing values default to those of the operators with the same name: Affine 1 and 0, ThresholdedRelu 1 (ONNX
  Runtime uses 0). ScaledTanh has no defaults. Function names are case-insensitive.
* ``clip`` bounds the inputs of f and g, the sums of products and bias. Ct enters h unclipped, as in ONNX Runtime.
* ``input_forget`` makes f = 1 - i; weights, bias and peephole of f are ignored.
* If ``sequence_lens`` is 0, the final state is the initial one; ONNX Runtime returns 0.
* An RNN in one direction may list two activations, the default of the schema; only the first is used.
* float16 is computed in float32; bfloat16 raises TypeError.
"""

from __future__ import annotations

import copy
import functools
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .. import checks, layers
from .._types import Array
from ..engine import calls, native
from ..engine.arrays import as_array, as_floating, as_lengths, check_shape
from ..engine.quantization import PRECISIONS, Precision, quantize_cell
from ..engine.weights import pack_cell
from .cells import reorder
from .onnx_attributes import (
    ACTIVATIONS,
    ENGINE_ACTIVATIONS,
    ENGINE_FUNCTIONS,
    KINDS,
    PEEPHOLE_ROWS,
    clean_attributes,
    functions_of,
)

__all__ = ["Operator", "step_by_step"]


# ---- the operator -----------------------------------------------------------------------------------------------

_CONSTANTS = ("W", "R", "B", "P", "sequence_lens", "initial_h", "initial_c")


def _constant(array: Array) -> Array:
    """A copy that cannot be written."""
    array = array.copy()
    array.flags.writeable = False
    return array


class Operator:
    """One RNN, GRU or LSTM node with its weights, all in the layout of ONNX.

    G is 1, 3 or 4. Gate blocks are z r h for a GRU and i o f c for an LSTM; the rows of P are i o f.

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
        activation_alpha, activation_beta, activations, clip, direction, hidden_size, layout; linear_before_reset for a
        GRU, input_forget for an LSTM.
    name : str
    sequence_lens, initial_h, initial_c : array, optional
        Defaults for :meth:`run` and for a call.

    Attributes
    ----------
    op_type, W, R, B, P, name, sequence_lens, initial_h, initial_c
        As given, read-only copies: the weights of a node are constants, and packed at the first call.
    attributes : dict
        A copy of the node's, floats rounded to float32, with hidden_size, which ONNX Runtime requires.
    direction : {"forward", "reverse", "bidirectional"}
    layout : {0, 1}
    input_size, hidden_size, directions : int
        D, H and 1 or 2.
    dtype : numpy dtype
        Common dtype of all arrays.
    backend : {"engine", "reference"}
        What runs the operator: rnncore's engine, or :func:`step_by_step`.
    reason : str
        The attributes that the engine does not support; "" if there are none.
    precision : {"bfloat16", "int8"} or None
        What :meth:`quantize` has rounded W and R to for the engine; they are still as given here.

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
        op_type: str,
        W: Array,
        R: Array,
        B: Array | None = None,
        P: Array | None = None,
        *,
        attributes: dict[str, Any] | None = None,
        name: str = "",
        sequence_lens: Any = None,
        initial_h: Any = None,
        initial_c: Any = None,
    ) -> None:
        self.op_type, self.name = checks.choice("op_type", op_type, tuple(KINDS)), name
        self.kind = KINDS[op_type]
        self._attributes = clean_attributes(op_type, {} if attributes is None else attributes)
        self.direction = self._attributes.get("direction", "forward")
        self.directions = 2 if self.direction == "bidirectional" else 1
        self.layout = self._attributes.get("layout", 0)
        self._functions = functions_of(self.kind, self._attributes, self.directions)

        self.W, self.R = _constant(as_floating("W", W)), _constant(as_floating("R", R))
        self.B, self.P = (None if a is None else _constant(as_floating(n, a)) for n, a in (("B", B), ("P", P)))
        dirs, G = self.directions, len(self.kind.gates)
        blocks = f"{G}*H" if G > 1 else "H"
        if self.W.ndim != 3 or self.R.ndim != 3 or 0 in (*self.W.shape, *self.R.shape):
            raise ValueError(f"W and R must have 3 axes and no empty one; got {self.W.shape} and {self.R.shape}")
        self._attributes.setdefault("hidden_size", self.R.shape[2])
        H = int(self._attributes["hidden_size"])
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

        self.sequence_lens = None if sequence_lens is None else _constant(as_array("sequence_lens", sequence_lens))
        count = 1 if self.sequence_lens is None else self.sequence_lens.size
        self._lengths(None, np.iinfo(np.int32).max, count)
        self.initial_h = None if initial_h is None else _constant(as_floating("initial_h", initial_h))
        self.initial_c = None if initial_c is None else _constant(as_floating("initial_c", initial_c))
        for state in (self.initial_h, self.initial_c):
            if state is not None:
                self._initial({}, state.shape[1 - self.layout] if state.ndim == 3 else 0)

    precision: Precision | None = None

    def quantize(self, precision: Precision) -> Operator:
        """Return a copy that runs with W and R in bfloat16 or int8, as layers do: see ``quantize`` of the layers.

        Raises
        ------
        ValueError
            The precision is unknown, the operator runs on the reference, or a weight is not finite (int8).

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> lstm = Operator("LSTM", rng.normal(size=(1, 32, 6)), rng.normal(size=(1, 32, 8)))
        >>> lstm.quantize("int8")
        <LSTM: D=6 H=8 forward, on the engine in int8>
        """
        checks.choice("precision", precision, PRECISIONS)
        if self.reason:
            raise ValueError(f"an operator that runs on the reference, for its {self.reason}, cannot be quantized")
        operator = copy.copy(self)
        operator.precision = precision
        operator._cells  # noqa: B018  # packed now, so that its errors come now
        return operator

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _CONSTANTS and hasattr(self, name):
            raise AttributeError(f"{name} is a constant of the node: make another Operator")
        super().__setattr__(name, value)

    @property
    def attributes(self) -> dict[str, Any]:
        return copy.deepcopy(self._attributes)

    @property
    def reason(self) -> str:
        known = ENGINE_FUNCTIONS[self.op_type]
        reasons = {
            "activations": any(functions not in known for functions in self._functions),
            "clip": "clip" in self._attributes,
            "input_forget": self._attributes.get("input_forget", 0) != 0,
        }
        return ", ".join(name for name, applies in reasons.items() if applies)

    @property
    def backend(self) -> str:
        return "reference" if self.reason else "engine"

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        size = f"D={self.input_size} H={self.hidden_size} {self.direction}{' batch-first' * self.layout}"
        where = f"on the {self.backend}" + (f" for its {self.reason}" if self.reason else "")
        where += f" in {self.precision}" if self.precision else ""
        return f"<{self.op_type}{name}: {size}, {where}>"

    def run(
        self,
        X: Array,
        sequence_lens: Array | None = None,
        initial_h: Array | None = None,
        initial_c: Array | None = None,
    ) -> tuple[Array, ...]:
        """Compute the outputs of the node, in the layout of ONNX.

        Parameters
        ----------
        X : array (T, N, D); layout 1: (N, T, D)
        sequence_lens : integer array (N,), optional
            Valid steps of each row. Default: the node's own, or else all.
        initial_h, initial_c : array (directions, N, H), optional; layout 1: (N, directions, H)
            Default: the node's own, or else zeros.

        Returns
        -------
        Y : ndarray (T, directions, N, H); layout 1: (N, T, directions, H)
            States after each step, 0 beyond each row's length.
        Y_h, and Y_c of an LSTM : ndarray (directions, N, H); layout 1: (N, directions, H)
            States after the last computed step.

        Raises
        ------
        ValueError, TypeError
            A shape, dtype or length is wrong.
        """
        states = {"h": initial_h, "c": initial_c}
        if sequence_lens is None and self._runs_whole and (initial_c is None or "c" in self.kind.states):
            found = self._native.try_run(X, tuple(states.values()) if "c" in self.kind.states else initial_h)
            if found is not None:
                y, state = found
                split = y.reshape(*y.shape[:2], self.directions, self.hidden_size)
                Y = np.ascontiguousarray(split.swapaxes(1, 2))
                return (Y, *state) if isinstance(state, tuple) else (Y, state)
        x = self._time_major("X", X)
        T, N, _ = x.shape
        if initial_c is not None and "c" not in self.kind.states:
            raise ValueError(f"initial_c belongs to LSTM; this is {self.op_type}")
        given = {s: self._state(f"initial_{s}", a, N, self.layout) for s, a in states.items() if a is not None}
        outputs, finals = self._forward(x, self._lengths(sequence_lens, T, N), given)
        Y = np.stack(outputs, axis=1)
        if self.layout:
            return Y.transpose(2, 0, 1, 3), *(state.swapaxes(0, 1) for state in finals)
        return Y, *finals

    def __call__(
        self, x: Array, state: Array | tuple[Array, Array] | None = None, lengths: ArrayLike | None = None
    ) -> tuple[Any, ...]:
        """Run the node like a layer of rnncore.

        Parameters
        ----------
        x : array (T, N, D); layout 1: (N, T, D)
        state : array (directions, N, H), or tuple (h, c) of two for an LSTM, optional
            As returned. Default: the node's own, or else zeros.
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
        if lengths is None and self._runs_whole:
            found = self._native.try_run(x, state)
            if found is not None:
                return found
        x = self._time_major("x", x)
        T, N, _ = x.shape
        given = {}
        if state is not None:
            arrays = state if len(self.kind.states) > 1 else (state,)
            if not isinstance(arrays, (tuple, list)) or len(arrays) != len(self.kind.states):
                raise TypeError(f"state of an LSTM must be a tuple (h, c); got {type(state).__name__}")
            given = {s: self._state(f"state {s}", a, N, 0) for s, a in zip(self.kind.states, arrays, strict=True)}
        outputs, finals = self._forward(x, self._lengths(lengths, T, N, "lengths"), given)
        y = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=2)
        return y.swapaxes(0, 1) if self.layout else y, finals if len(finals) > 1 else finals[0]

    def to_layer(self) -> layers.Recurrent:
        """Make a layer of rnncore with copies of the weights, to train it further or to stream.

        Returns
        -------
        RNN, GRU or LSTM
            ``batch_first`` with layout 1; float64 if an array of the operator is, float32 otherwise.

        Raises
        ------
        ValueError
            No layer of rnncore computes this; the message names the attribute.
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
        order = self.kind.cell.gates
        options: dict[str, Any] = {
            name: value for name, value in cells[0].items() if isinstance(value, str) and name != "gate_order"
        }
        if self.P is not None:
            options["peephole"] = True
        layer = layers.RECURRENT[self.kind.cell.name](
            self.input_size,
            self.hidden_size,
            bidirectional=self.directions == 2,
            batch_first=bool(self.layout),
            dtype=np.promote_types(self.dtype, np.float32),
            **options,
        )
        for direction, cell in enumerate(cells):
            for name, array in layer.weights(0, direction).items():
                blocks = name in ("Wx", "Wh", "b")
                array[...] = reorder(cell[name], self.kind.gates, order) if blocks else cell[name]
        return layer

    @property
    def dtype(self) -> np.dtype[Any]:
        """Common dtype of all arrays."""
        own = (self.W, self.R, self.B, self.P, self.initial_h, self.initial_c)
        return np.result_type(*(array.dtype for array in own if array is not None))

    # -- arguments of a call: time-major, states (directions, N, H)

    def _time_major(self, name: str, value: Array) -> Array:
        x = as_floating(name, value)
        if x.ndim != 3 or x.shape[2] != self.input_size:
            axes = "(N, T, D)" if self.layout else "(T, N, D)"
            raise ValueError(f"{name} must be {axes} with D = {self.input_size}; got {x.shape}")
        return x.swapaxes(0, 1) if self.layout else x

    def _lengths(self, value: ArrayLike | None, T: int, N: int, name: str = "sequence_lens") -> Array | None:
        """Return int64 lengths (N,) or None; by default those of the node."""
        if value is None:
            value, name = self.sequence_lens, "sequence_lens"
        if value is None:
            return None
        try:
            return as_lengths(value, T, N)
        except (TypeError, ValueError) as error:
            raise type(error)(str(error).replace("lengths", name, 1)) from None

    def _state(self, name: str, value: Any, N: int, layout: int) -> Array:
        """Return a state as (directions, N, H); with layout 1 it is given as (N, directions, H)."""
        array = as_floating(name, value)
        letters, wanted = "(directions, N, H)", (self.directions, N, self.hidden_size)
        if layout:
            letters, wanted = "(N, directions, H)", (N, self.directions, self.hidden_size)
        check_shape(name, array, letters, wanted)
        return array.swapaxes(0, 1) if layout else array

    def _initial(self, given: dict[str, Array], N: int) -> dict[str, Array]:
        """Return the initial states by letter; by default those of the node."""
        own = {"h": self.initial_h, "c": self.initial_c}
        missing = {s: a for s, a in own.items() if a is not None and s not in given}
        return given | {s: self._state(f"initial_{s}", a, N, self.layout) for s, a in missing.items()}

    # -- computation

    def _forward(self, x: Array, lengths: ArrayLike | None, states: dict[str, Array]) -> tuple[Any, ...]:
        """x (T, N, D), states (directions, N, H) -> outputs [(T, N, H)], final states [(directions, N, H)]"""
        states = self._initial(states, x.shape[1])
        runs = [
            {
                "x": x,
                **{f"{s}0": array[direction] for s, array in states.items()},
                "lengths": lengths,
                "reverse": self.direction == "reverse" or direction == 1,
            }
            for direction in range(self.directions)
        ]
        if self.backend == "engine":
            variants = [variant for variant, _ in self._cells]
            arguments = [
                {"Wx": None, **packed.by_name(), "packed": packed, **run, "training": False}
                for (_, packed), run in zip(self._cells, runs, strict=True)
            ]
            if len(set(variants)) == 1:
                results = calls.forward_side_by_side(variants[0], arguments)
            else:
                results = [calls.forward(v, **keywords) for v, keywords in zip(variants, arguments, strict=True)]
        else:
            results = [step_by_step(self, d, **run) for d, run in enumerate(runs)]
        outputs, finals, _ = zip(*results, strict=True)
        finals = [(final,) if len(self.kind.states) == 1 else final for final in finals]
        return outputs, tuple(np.stack(values) for values in zip(*finals, strict=True))

    def _biases(self, direction: int) -> Array:
        """Return Wb and Rb, (G*H,) each, at least float32."""
        dtype = np.promote_types(self.dtype, np.float32)
        if self.B is None:
            return np.zeros((2, self.W.shape[1]), dtype)
        return self.B[direction].reshape(2, -1).astype(dtype, copy=False)

    @functools.cached_property
    def _cells(self) -> list[tuple[Any, Any]]:
        """The engine's variant of every direction, and its weights, packed at the first call."""
        dtype = np.promote_types(self.dtype, np.float32)
        cells = []
        for direction in range(self.directions):
            variant, weights = self._variant(direction)
            if self.precision:
                weights = quantize_cell(weights, self.precision)
            cells.append((variant, pack_cell(variant, weights, self.input_size, self.hidden_size, dtype)))
        return cells

    @functools.cached_property
    def _native(self) -> Any:
        in_reverse = self.direction == "reverse"
        in_order = [(*cell, in_reverse or direction == 1) for direction, cell in enumerate(self._cells)]
        return native.open_stack(in_order, self.directions)

    @functools.cached_property
    def _runs_whole(self) -> bool:
        """Whether a call without lengths is one native call: time-major, nothing of the node's own to add."""
        own = (self.sequence_lens, self.initial_h, self.initial_c)
        return self.backend == "engine" and not self.layout and all(array is None for array in own)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_cells", "_native", "_runs_whole")}

    def _variant(self, direction: int) -> tuple[Any, dict[str, Any]]:
        """Return the engine's variant of one direction, and its weights by name."""
        arguments = self._cell(direction)
        weights = {name: value for name, value in arguments.items() if not isinstance(value, str)}
        words = arguments | {"peephole": "peephole" in weights}
        options = self.kind.cell.options
        variant = self.kind.cell.variant(
            *(words.get(name, choices[0]) for name, choices in options.items()), self.kind.gates
        )
        return variant, weights

    def _cell(self, direction: int) -> dict[str, Any]:
        """Return the weights and options of one direction for the engine's function; blocks are in ONNX's order."""
        H, functions = self.hidden_size, self._functions[direction]
        Wb, Rb = self._biases(direction)
        cell = {"Wx": self.W[direction].T, "Wh": self.R[direction].T, "b": Wb + Rb}
        if self.op_type == "RNN":
            return cell | {"activation": ENGINE_ACTIVATIONS[functions[0]]}
        cell["gate_order"] = self.kind.gates
        if self.op_type == "GRU":
            cell |= {"update": "old", "form": "reset_before"}
            if self._attributes.get("linear_before_reset", 0):
                cell["b"][2 * H :] = Wb[2 * H :]
                cell |= {"form": "reset_after", "bhn": Rb[2 * H :]}
            return cell
        if self.P is not None:
            cell["peephole"] = self.P[direction].reshape(3, H)[PEEPHOLE_ROWS]
        return cell | {"output_activation": ENGINE_ACTIVATIONS[functions[2]]}


@np.errstate(over="ignore", invalid="ignore")  # of values that are infinite or no numbers
def step_by_step(
    operator: Any,
    direction: int,
    x: Array,
    h0: Any = None,
    c0: Any = None,
    lengths: Array | None = None,
    reverse: bool = False,
) -> tuple[Any, ...]:
    """Compute the equations of the operators in plain NumPy: the reference for every :class:`Operator`.

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

    Source: the specification of the operators, https://onnx.ai/onnx/operators. ``clip`` bounds the inputs of f and g.

    Parameters
    ----------
    operator : Operator
    direction : {0, 1}
        The direction whose weights to use.
    x : array (T, N, D)
    h0, c0 : array (N, H), optional
    lengths : integer array (N,), optional
    reverse : bool
        Run from the last valid step of each row to the first.

    Returns
    -------
    h : ndarray (T, N, H)
        0 beyond each row's length.
    h_n : ndarray (N, H); for an LSTM (h_n, c_n)
    cache : None

    Examples
    --------
    >>> coupled = Operator("LSTM", np.zeros((1, 4, 1)), np.zeros((1, 4, 1)), attributes={"input_forget": 1})
    >>> h, (h_n, c_n), _ = step_by_step(coupled, 0, np.zeros((2, 1, 1)), c0=np.ones((1, 1)))
    >>> float(c_n[0, 0])  # i = f = 1/2, the cell gate is 0
    0.25
    """
    checks.instance("operator", operator, Operator, "an Operator")
    direction = checks.integer("direction", direction, least=0, most=operator.directions - 1)
    x, reverse = as_floating("x", x), checks.flag("reverse", reverse)
    if x.ndim != 3 or x.shape[2] != operator.input_size:
        raise ValueError(f"x must be (T, N, D) with D = {operator.input_size}; got {x.shape}")
    h0, c0 = (None if s is None else as_floating(name, s) for name, s in (("h0", h0), ("c0", c0)))
    for name, state in (("h0", h0), ("c0", c0)):
        if state is not None:
            check_shape(name, state, "(N, H)", (x.shape[1], operator.hidden_size))
    lengths = None if lengths is None else as_lengths(lengths, *x.shape[:2])
    dtype = np.result_type(np.float32, operator.dtype, *(array.dtype for array in (x, h0, c0) if array is not None))
    (T, N, _), H, attributes = x.shape, operator.hidden_size, operator.attributes
    W, R = operator.W[direction].astype(dtype), operator.R[direction].astype(dtype)
    Wb, Rb = operator._biases(direction).astype(dtype)
    P = np.zeros(3 * H) if operator.P is None else operator.P[direction]
    p_i, p_o, p_f = P.reshape(3, H).astype(dtype)
    h, c = (np.zeros((N, H), dtype) if s is None else s.astype(dtype) for s in (h0, c0))
    bound = attributes.get("clip", math.inf)

    def activation(index: int, a: Array) -> Array:
        name, parameters = operator._functions[direction][index]
        return ACTIVATIONS[name.lower()].function(a, *parameters)

    def f(a: Array) -> Array:
        return activation(0, np.clip(a, -bound, bound))

    def g(a: Array) -> Array:
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
