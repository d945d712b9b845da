"""The operators of ONNX: against ONNX Runtime, the equations in NumPy, and numbers computed by hand."""

import copy
import importlib
import itertools
import math
import pickle
import re
from functools import partial

import numpy as np
import pytest
from layouts import assert_near

import rnncore as rc

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import helper, numpy_helper  # noqa: E402

from rnncore.interop.onnx import Operator, from_onnx, operators, step_by_step, to_onnx  # noqa: E402

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
DIRECTIONS = ("forward", "reverse", "bidirectional")
T, N, D, H = 6, 3, 4, 5
LENGTHS = np.array([2, 6, 5], np.int32)


class Loop(Operator):
    """The same on the equations in NumPy, whatever the engine could do."""

    backend = "reference"


def make(op_type, attributes=None, *, B=True, P=False, dtype="float32", scale=0.5, cls=Operator, **options):
    """An operator with random weights."""
    rng = np.random.default_rng(0)
    G, dirs = GATES[op_type], 2 if (attributes or {}).get("direction") == "bidirectional" else 1

    def normal(*shape):
        return (rng.normal(size=shape) * scale).astype(dtype)

    W, R = normal(dirs, G * H, D), normal(dirs, G * H, H)
    biases, peepholes = normal(dirs, 2 * G * H), normal(dirs, 3 * H)
    return cls(op_type, W, R, biases if B else None, peepholes if P else None, attributes=attributes, **options)


def inputs_of(operator, *, lengths=True, state=True, dtype="float32"):
    """-> the arguments of ``run``"""
    rng = np.random.default_rng(1)
    x, hidden = (T, N, D), (operator.directions, N, H)
    if operator.layout:
        x, hidden = (N, T, D), (N, operator.directions, H)
    arguments = {"X": rng.normal(size=x).astype(dtype)}
    if lengths:
        arguments["sequence_lens"] = LENGTHS
    for letter in ("h", "c") if state and operator.op_type == "LSTM" else "h" * state:
        arguments[f"initial_{letter}"] = rng.normal(size=hidden).astype(dtype)
    return arguments


def node_model(operator, arguments, opset=17):
    """A model of one node, written without the module: weights are initializers, the arguments inputs."""
    weights = {name: getattr(operator, name) for name in "WRBP" if getattr(operator, name) is not None}
    names = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"]
    names = names if operator.op_type == "LSTM" else names[:6]
    names = [name if name in weights or name in arguments else "" for name in names]
    outputs = ["Y", "Y_h", "Y_c"][: 3 if operator.op_type == "LSTM" else 2]
    node = helper.make_node(operator.op_type, names, outputs, **operator.attributes)
    element = helper.np_dtype_to_tensor_dtype
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info(name, element(a.dtype), a.shape) for name, a in arguments.items()],
        [helper.make_tensor_value_info(name, element(operator.W.dtype), None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))


def runtime(model, arguments):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, arguments)


def assert_as_runtime(operator, arguments, opset=17):
    model = node_model(operator, arguments, opset)
    wanted = runtime(model, arguments)
    assert_near(operator.run(**arguments), wanted, "float32")
    assert_near(from_onnx(model).run(**arguments), wanted, "float32")
    looped = copy.copy(operator)
    looped.__class__ = Loop
    assert_near(looped.run(**arguments), wanted, "float32")


# ---- against ONNX Runtime ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    ("op_type", "own"), [("RNN", {}), ("GRU", {}), ("GRU", {"linear_before_reset": 1}), ("LSTM", {})], ids=str
)
@pytest.mark.parametrize("B", [True, False], ids=["bias", "plain"])
def test_inputs(op_type, own, direction, B):
    """Every optional input there or not."""
    for lengths, state, P in itertools.product((True, False), (True, False), {False, op_type == "LSTM"}):
        operator = make(op_type, {"direction": direction, **own}, B=B, P=P)
        assert operator.backend == "engine"
        assert_as_runtime(operator, inputs_of(operator, lengths=lengths, state=state))


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("clip", [None, 0.3], ids=["free", "clipped"])
@pytest.mark.parametrize("flag", [0, 1])
@pytest.mark.parametrize("op_type", ["RNN", "GRU", "LSTM", "LSTM peephole"])
def test_clip_and_flags(op_type, flag, clip, direction):
    op_type, _, P = op_type.partition(" ")
    name = {"RNN": None, "GRU": "linear_before_reset", "LSTM": "input_forget"}[op_type]
    attributes = {"direction": direction} | ({name: flag} if name else {}) | ({"clip": clip} if clip else {})
    for B, lengths in itertools.product((True, False), repeat=2):
        operator = make(op_type, attributes, B=B, P=bool(P))
        assert operator.backend == ("reference" if clip or (flag and op_type == "LSTM") else "engine")
        assert_as_runtime(operator, inputs_of(operator, lengths=lengths))


# With values of their own, since ONNX Runtime has other defaults.
VALUES = {
    "Relu": (),
    "Tanh": (),
    "Sigmoid": (),
    "Affine": (0.6, 0.2),
    "LeakyRelu": (0.15,),
    "ThresholdedRelu": (0.1,),
    "ScaledTanh": (0.9, 1.3),
    "HardSigmoid": (0.3, 0.4),
    "Elu": (0.7,),
    "Softsign": (),
    "Softplus": (),
}


def with_values(names):
    """-> the attributes of these functions, with different values for each of them."""
    attributes = {"activations": list(names)}
    for which, attribute in enumerate(("activation_alpha", "activation_beta")):
        values = [VALUES[name][which] * (1 + 0.1 * place) for place, name in enumerate(names) if VALUES[name][which:]]
        if values:
            attributes[attribute] = values
    return attributes


@pytest.mark.parametrize("function", VALUES)
@pytest.mark.parametrize(("op_type", "place"), [("RNN", 0), *itertools.product(["GRU"], (0, 1))], ids=str)
def test_activations(op_type, place, function):
    names = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"]}[op_type]
    names[place] = function
    operator = make(op_type, with_values(names), scale=0.3)  # a gate that is not bounded lets the state grow
    assert_as_runtime(operator, inputs_of(operator))


@pytest.mark.parametrize("function", VALUES)
@pytest.mark.parametrize("place", range(3))
def test_activations_of_an_lstm(place, function):
    names = ["Sigmoid", "Tanh", "Tanh"]
    names[place] = function
    operator = make("LSTM", with_values(names), P=True, scale=0.3)
    assert_as_runtime(operator, inputs_of(operator))


@pytest.mark.parametrize("op_type", GATES)
@pytest.mark.parametrize("more", [{}, {"clip": 0.4}], ids=str)
def test_other_functions_in_each_direction(op_type, more):
    names = {
        "RNN": ["LeakyRelu", "Elu"],
        "GRU": ["HardSigmoid", "ScaledTanh", "Sigmoid", "Elu"],
        "LSTM": ["HardSigmoid", "ScaledTanh", "Affine", "Affine", "Elu", "ScaledTanh"],
    }[op_type]
    operator = make(op_type, {"direction": "bidirectional", **with_values(names), **more})
    assert_as_runtime(operator, inputs_of(operator))


def test_functions_of_the_engine_in_each_direction():
    names = ["Relu", "Affine"]
    operator = make("RNN", {"direction": "bidirectional", "activations": names, "activation_alpha": [1.0]})
    assert operator.backend == "engine"
    assert_as_runtime(operator, inputs_of(operator))
    names = ["Sigmoid", "Tanh", "Tanh", "Sigmoid", "Tanh", "Affine"]
    operator = make("LSTM", {"direction": "bidirectional", "activations": names, "activation_alpha": [1.0]}, P=True)
    assert operator.backend == "engine"
    assert_as_runtime(operator, inputs_of(operator))


@pytest.mark.parametrize("op_type", GATES)
@pytest.mark.parametrize("opset", [7, 14, 22])
def test_versions_of_the_operators(op_type, opset):
    operator = make(op_type, {"direction": "bidirectional"})
    assert_as_runtime(operator, inputs_of(operator), opset)


@pytest.mark.parametrize("cls", [Operator, Loop])
@pytest.mark.parametrize("op_type", GATES)
def test_examples_of_the_specification(op_type, cls, monkeypatch):
    """Those that the backends of ONNX are tested with: nodes, inputs, and outputs that the package computes itself."""
    module = importlib.import_module(f"onnx.backend.test.case.node.{op_type.lower()}")
    seen = []

    def check(node, inputs, outputs, name):
        given = dict(zip(filter(None, node.input), inputs, strict=True))
        X = given.pop("X")
        operator = from_onnx(node, weights=given)
        operator.__class__ = cls
        results = dict(zip(("Y", "Y_h", "Y_c"), operator.run(X), strict=False))
        named = [kind for kind, output in zip(("Y", "Y_h", "Y_c"), node.output, strict=False) if output]
        assert_near([results[kind] for kind in named], outputs, "float32")
        seen.append(name)

    monkeypatch.setattr(module, "expect", check)
    for name, example in vars(getattr(module, op_type)).items():
        if name.startswith("export"):
            example.__func__()
    assert len(seen) >= 4


# ---- against the equations --------------------------------------------------------------------------------------

ON_THE_ENGINE = [
    ("RNN", {}),
    ("RNN", {"activations": ["Relu"]}),
    ("RNN", {"activations": ["Affine"]}),
    ("RNN", {"activations": ["Tanh", "Tanh"]}),
    ("GRU", {}),
    ("GRU", {"linear_before_reset": 1}),
    ("LSTM", {}),
    ("LSTM", {"input_forget": 0, "activations": ["sigmoid", "TANH", "tanh"]}),
    ("LSTM", {"activations": ["Sigmoid", "Tanh", "Affine"], "activation_alpha": [1.0], "activation_beta": [0.0]}),
]


def doubled(attributes, direction):
    """The attributes for this direction: lists once more for the other one."""
    if direction != "bidirectional":
        return {"direction": direction, **attributes}
    return {"direction": direction} | {
        name: value * 2 if isinstance(value, list) and value != ["Tanh", "Tanh"] else value
        for name, value in attributes.items()
    }


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(("op_type", "attributes"), ON_THE_ENGINE, ids=str)
def test_engine_is_the_equations(op_type, attributes, direction, layout):
    attributes = {**doubled(attributes, direction), "layout": layout}
    for B, P, lengths, state in itertools.product(
        (True, False), {False, op_type == "LSTM"}, (True, False), (True, False)
    ):
        operator, loop = (make(op_type, attributes, B=B, P=P, dtype="float64", cls=cls) for cls in (Operator, Loop))
        assert operator.backend == "engine"
        arguments = inputs_of(operator, lengths=lengths, state=state, dtype="float64")
        assert_near(operator.run(**arguments), loop.run(**arguments), "float64")


@pytest.mark.parametrize("more", [{}, {"clip": 0.4}], ids=["engine", "reference"])
@pytest.mark.parametrize("op_type", GATES)
def test_layout(op_type, more):
    """Layout 1 is layout 0 with the axes in another order."""
    attributes = {"direction": "bidirectional", **more}
    first, second = (make(op_type, {**attributes, "layout": k}, dtype="float64") for k in (0, 1))
    arguments = inputs_of(first, dtype="float64")
    swapped = {name: a if a.ndim == 1 else a.swapaxes(0, 1) for name, a in arguments.items()}
    (Y, *finals), (Y_1, *finals_1) = first.run(**arguments), second.run(**swapped)
    assert Y.shape == (T, 2, N, H)
    assert_near([Y_1], [Y.transpose(2, 0, 1, 3)], "float64")
    assert_near(finals_1, [state.swapaxes(0, 1) for state in finals], "float64")


@pytest.mark.parametrize("more", [{}, {"clip": 0.4}], ids=["engine", "reference"])
@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("op_type", GATES)
def test_call_is_run(op_type, direction, layout, more):
    """Called as a layer of rnncore: directions side by side, the state as (directions, N, H)."""
    operator = make(op_type, {"direction": direction, "layout": layout, **more})
    arguments = inputs_of(operator)
    Y, *finals = operator.run(**arguments)
    states = [arguments["initial_h"], arguments.get("initial_c")][: len(finals)]
    if layout:
        finals, states = ([s.swapaxes(0, 1) for s in group] for group in (finals, states))
        wanted = Y.reshape(N, T, -1)
    else:
        wanted = Y.transpose(0, 2, 1, 3).reshape(T, N, -1)
    state = tuple(states) if op_type == "LSTM" else states[0]
    y, state = operator(arguments["X"], state, LENGTHS)
    assert_near([y, *(state if op_type == "LSTM" else [state])], [wanted, *finals], "float32")


@pytest.mark.parametrize("more", [{}, {"clip": 0.4}], ids=["engine", "reference"])
@pytest.mark.parametrize("op_type", GATES)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_what_is_padding_counts_for_nothing(op_type, direction, more):
    operator = make(op_type, {"direction": direction, **more})
    arguments = inputs_of(operator) | {"sequence_lens": np.array([0, 4, 6])}
    wanted = operator.run(**arguments)
    for row, length in enumerate([0, 4, 6]):
        assert not wanted[0][length:, :, row].any()
        arguments["X"][length:, row] = np.inf
    assert_near(operator.run(**arguments), wanted, "float32")
    for final, initial in zip(wanted[1:], ("initial_h", "initial_c"), strict=False):
        assert (final[:, 0] == arguments[initial][:, 0]).all()


@pytest.mark.parametrize("cls", [Operator, Loop])
@pytest.mark.parametrize("op_type", GATES)
def test_no_steps_and_no_rows(op_type, cls):
    operator = make(op_type, {"direction": "bidirectional"}, cls=cls)
    given = inputs_of(operator, lengths=False)
    Y, *finals = operator.run(**given | {"X": given["X"][:0]})
    assert Y.shape == (0, 2, N, H)
    assert_near(finals, list(given.values())[1:], "float32")
    Y, *finals = operator.run(given["X"][:, :0])
    assert [Y.shape, *(a.shape for a in finals)] == [(T, 2, 0, H)] + [(2, 0, H)] * len(finals)


def test_dtypes():
    for more in ({}, {"clip": 2.0}):
        operator = make("LSTM", more, dtype="float16", P=True)
        arguments = inputs_of(operator, dtype="float16")
        assert [a.dtype for a in operator.run(**arguments)] == ["float32"] * 3
        exact = make("LSTM", more, dtype="float16", P=True)
        for name in "WRBP":
            setattr(exact, name, getattr(exact, name).astype("float64"))
        wanted = exact.run(**arguments)
        assert [a.dtype for a in wanted] == ["float64"] * 3
        assert_near(operator.run(**arguments), [a.astype("float32") for a in wanted], "float32")
        swapped = make("LSTM", more, dtype=">f4", P=True)
        assert_near(
            swapped.run(**inputs_of(swapped, dtype=">f4")),
            make("LSTM", more, P=True).run(**inputs_of(operator)),
            "float32",
        )


# ---- by hand ----------------------------------------------------------------------------------------------------


def only_biases(op_type, Wb, Rb, R=None, **options):
    G = GATES[op_type]
    R = np.zeros((1, G, 1)) if R is None else np.reshape(R, (1, G, 1))
    return Operator(op_type, np.zeros((1, G, 1)), R, np.concatenate([Wb, Rb])[None].astype(float), **options)


@pytest.mark.parametrize("cls", [Operator, Loop])
def test_lstm_by_hand(cls):
    # i = 3/4, o = 1/4, f = 4/5, c = tanh(log 2) = 3/5: C = 4/5 * 1/2 + 3/4 * 3/5
    logits = np.log([3, 1 / 3, 4, 2])
    affine = {"activations": ["Sigmoid", "Tanh", "Affine"]}
    lstm = only_biases("LSTM", logits - 1, np.ones(4), attributes=affine)
    lstm.__class__ = cls
    given = {"X": np.zeros((1, 1, 1)), "initial_c": np.full((1, 1, 1), 0.5)}
    Y, Y_h, Y_c = (a.item() for a in lstm.run(**given))
    assert Y_c == pytest.approx(0.85)
    assert Y == Y_h == pytest.approx(0.85 / 4)

    # Pi C' = log 3 makes i = 9/10, Po C = log 3 makes o = 1/2, Pf C' = -log 4 makes f = 1/2: C = 1/4 + 27/50
    lstm.P = np.array([[np.log(3) / 0.5, np.log(3) / 0.79, -np.log(4) / 0.5]])
    Y, _, Y_c = (a.item() for a in lstm.run(**given))
    assert Y_c == pytest.approx(0.79)
    assert Y == pytest.approx(0.79 / 2)


def test_coupled_gates_by_hand():
    # f = 1 - i = 1/4: C = 1/4 * 1/2 + 3/4 * 3/5
    lstm = only_biases("LSTM", np.log([3, 1 / 3, 4, 2]), np.zeros(4), attributes={"input_forget": 1})
    Y, _, Y_c = (a.item() for a in lstm.run(np.zeros((1, 1, 1)), initial_c=np.full((1, 1, 1), 0.5)))
    assert Y_c == pytest.approx(0.575)
    assert Y == pytest.approx(math.tanh(0.575) / 4)


@pytest.mark.parametrize("cls", [Operator, Loop])
def test_gru_by_hand(cls):
    # z = 1/4, r = 1/2, h' = 1, Rh = Rbh = log 2, Wbh = 0
    for linear_before_reset, wanted in (
        (0, 5 / 6),  # h = tanh(3/2 log 2) = 7/9: 3/4 * 7/9 + 1/4
        (1, 7 / 10),  # h = tanh(log 2) = 3/5: 3/4 * 3/5 + 1/4
    ):
        Wb, Rb = [np.log(1 / 3), 0, 0], [0, 0, np.log(2)]
        gru = only_biases("GRU", Wb, Rb, [0, 0, np.log(2)], attributes={"linear_before_reset": linear_before_reset})
        gru.__class__ = cls
        Y, Y_h = gru.run(np.zeros((1, 1, 1)), initial_h=np.ones((1, 1, 1)))
        assert Y.item() == Y_h.item() == pytest.approx(wanted)


def test_clip_by_hand():
    # W x = log 9 is clipped to log 3, before the sigmoid: 3/4
    rnn = Operator(
        "RNN",
        np.full((1, 1, 1), np.log(9)),
        np.zeros((1, 1, 1)),
        attributes={"clip": math.log(3), "activations": ["Sigmoid"]},
    )
    assert rnn.run(np.ones((1, 1, 1)))[0].item() == pytest.approx(0.75)
    assert rnn.run(-np.ones((1, 1, 1)))[0].item() == pytest.approx(0.25)


LOG2 = math.log(2)


@pytest.mark.parametrize(
    ("name", "values", "points"),
    [
        ("Relu", (), {-2: 0, 3: 3}),
        ("Tanh", (), {LOG2: 0.6}),
        ("Sigmoid", (), {-LOG2: 1 / 3, -2000: 0, 2000: 1}),
        ("Affine", (), {-2: -2}),
        ("Affine", (2.0, 0.5), {-2: -3.5, 3: 6.5}),
        ("LeakyRelu", (), {-2: -0.02, 3: 3}),
        ("LeakyRelu", (0.25,), {-2: -0.5}),
        ("ThresholdedRelu", (), {0.5: 0, 1: 1, 3: 3, -2: 0}),
        ("ThresholdedRelu", (0.25,), {0.5: 0.5, 0.125: 0}),
        ("ScaledTanh", (3.0, 0.5), {2 * LOG2: 1.8}),
        ("HardSigmoid", (), {2: 0.9, -3: 0, 9: 1}),
        ("HardSigmoid", (0.5, 0.25), {1: 0.75, -1: 0}),
        ("Elu", (), {-LOG2: -0.5, 3: 3, 2000: 2000}),
        ("Elu", (4.0,), {-LOG2: -2}),
        ("Softsign", (), {-3: -0.75, 1: 0.5}),
        ("Softplus", (), {0: LOG2, math.log(3): 2 * LOG2, 2000: 2000, -2000: 0}),
    ],
)
def test_functions_by_hand(name, values, points):
    attributes = {"activations": [name]}
    attributes |= {key: [v] for key, v in zip(("activation_alpha", "activation_beta"), values, strict=False)}
    rnn = Operator("RNN", np.ones((1, 1, 1)), np.zeros((1, 1, 1)), attributes=attributes)
    for point, wanted in points.items():
        x = np.full((1, 1, 1), point, float)
        (h, *_) = step_by_step(rnn, 0, x)
        tolerance = 1e-7 if values or name == "LeakyRelu" or name == "HardSigmoid" else 1e-12  # float32 attributes
        assert h.item() == pytest.approx(wanted, rel=tolerance, abs=1e-12)
        assert rnn.run(x)[0].item() == pytest.approx(wanted, rel=tolerance, abs=1e-12)


def test_values_go_to_the_functions_that_take_them():
    """Sigmoid takes none, Elu an alpha, Affine both; the last Elu has the default."""
    attributes = {
        "direction": "bidirectional",
        "activations": ["Sigmoid", "Elu", "Affine", "Sigmoid", "Tanh", "Elu"],
        "activation_alpha": [2.0, 3.0],
        "activation_beta": [4.0],
    }
    forward, reverse = make("LSTM", attributes)._functions
    assert forward == (("Sigmoid", ()), ("Elu", (2.0,)), ("Affine", (3.0, 4.0)))
    assert reverse == (("Sigmoid", ()), ("Tanh", ()), ("Elu", (1.0,)))


# ---- what an operator says of itself ----------------------------------------------------------------------------


def test_backend_and_reason():
    assert repr(make("LSTM", {"direction": "reverse"}, name="top")) == "<LSTM 'top': D=4 H=5 reverse, on the engine>"
    for op_type, attributes, reason in (
        ("GRU", {"clip": 1.0}, "clip"),
        ("LSTM", {"input_forget": 1}, "input_forget"),
        ("RNN", {"activations": ["Elu"]}, "activations"),
        (
            "LSTM",
            {"activations": ["Sigmoid", "Tanh", "Affine"], "activation_alpha": [2.0], "clip": 1.0},
            "activations, clip",
        ),
    ):
        operator = make(op_type, attributes)
        assert (operator.backend, operator.reason) == ("reference", reason)
        assert repr(operator) == f"<{op_type}: D=4 H=5 forward, on the reference for its {reason}>"
    assert "batch-first" in repr(make("GRU", {"layout": 1}))


def test_attributes_are_a_copy():
    operator = make("LSTM", {"activations": ["Sigmoid", "Tanh", "Tanh"], "clip": 0.1, "layout": 1})
    assert operator.attributes["clip"] == float(np.float32(0.1))
    operator.attributes["activations"][0] = "Relu"
    assert operator.attributes["activations"][0] == "Sigmoid"
    assert (operator.input_size, operator.hidden_size, operator.directions, operator.layout) == (D, H, 1, 1)


def test_weights_are_read_on_every_call():
    operator = make("GRU")
    arguments = inputs_of(operator)
    before = operator.run(**arguments)[0]
    operator.W *= 2
    assert np.abs(operator.run(**arguments)[0] - before).max() > 0.01


def test_copies_and_pickles():
    operator = make("LSTM", {"direction": "bidirectional", **with_values(["HardSigmoid", "Tanh", "Tanh"] * 2)}, P=True)
    arguments = inputs_of(operator)
    for other in (copy.deepcopy(operator), pickle.loads(pickle.dumps(operator))):
        assert_near(other.run(**arguments), operator.run(**arguments), "float32")


# ---- reading ----------------------------------------------------------------------------------------------------


def graph_of(nodes, initializers=(), inputs=("X",)):
    """A graph without shapes: what reading needs."""
    inputs = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in inputs]
    return helper.make_graph(nodes, "graph", inputs, [], [numpy_helper.from_array(a, n) for n, a in initializers])


def weights_of(operator):
    return [(name, getattr(operator, name)) for name in "WRBP" if getattr(operator, name) is not None]


def test_constants_of_every_kind():
    """An initializer, a Constant, an Identity of each, an absent input."""
    operator = make("LSTM", P=True)
    arrays = dict(weights_of(operator))
    constant = helper.make_node("Constant", [], ["r"], value=numpy_helper.from_array(arrays["R"]))
    graph = graph_of(
        [
            constant,
            helper.make_node("Identity", ["r"], ["r2"]),
            helper.make_node("Identity", ["r2"], ["r3"]),
            helper.make_node("Identity", ["p"], ["p2"]),
            helper.make_node("LSTM", ["X", "w", "r3", "", "", "", "", "p2"], ["", "Y_h"]),
        ],
        [("w", arrays["W"]), ("p", arrays["P"])],
    )
    got = from_onnx(graph)
    assert got.name == "Y_h"
    assert got.B is None
    for name in "WRP":
        assert (getattr(got, name) == arrays[name]).all()
        assert getattr(got, name).flags.writeable


def test_defaults_are_constants_of_the_model():
    operator = make("LSTM", P=True)
    given = inputs_of(operator)
    X = given.pop("X")
    node = helper.make_node(
        "LSTM", ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"], ["Y"], name="top"
    )
    got = from_onnx(graph_of([node], [*weights_of(operator), *given.items()]))
    assert_near(got.run(X), operator.run(X, **given), "float32")
    others = {name: np.roll(a, 1, axis=-1) for name, a in given.items()}
    assert_near(got.run(X, **others), operator.run(X, **others), "float32")
    y, state = got(X)
    assert_near([y, *state], [operator.run(X, **given)[0][:, 0], *operator.run(X, **given)[1:]], "float32")
    assert_near(
        [got(X, (given["initial_h"] * 2, given["initial_c"]))[0]],
        [operator.run(X, LENGTHS, given["initial_h"] * 2, given["initial_c"])[0][:, 0]],
        "float32",
    )
    with pytest.raises(ValueError, match=r"sequence_lens must be \(N,\) = \(2,\); got \(3,\)"):
        got.run(X[:, :2])
    computed = from_onnx(graph_of([node], weights_of(operator), ["X", *given]))
    assert computed.sequence_lens is computed.initial_h is computed.initial_c is None


def test_a_node_and_its_weights():
    operator = make("GRU", {"linear_before_reset": 1})
    node = helper.make_node("GRU", ["X", "w", "r", "b"], ["Y"], linear_before_reset=1)
    weights = {"w": operator.W, "r": operator.R, "b": operator.B}
    got = from_onnx(node, weights=weights)
    assert got.W is operator.W
    arguments = inputs_of(operator)
    assert_near(got.run(**arguments), operator.run(**arguments), "float32")
    # A model whose weights are inputs.
    got = from_onnx(graph_of([node], inputs=["X", "w", "r", "b"]), weights=weights)
    assert_near(got.run(**arguments), operator.run(**arguments), "float32")
    with pytest.raises(ValueError, match="a NodeProto has no weights: weights must be a dict"):
        from_onnx(node)
    with pytest.raises(ValueError, match=r"GRU 'Y': B must be a constant, or in weights; 'b' is not among the init"):
        from_onnx(node, weights={"w": operator.W, "r": operator.R})
    with pytest.raises(ValueError, match="weights has 'bias', which no node of the graph reads"):
        from_onnx(node, weights={**weights, "bias": operator.B})


def two_nodes():
    first, second = make("GRU"), make("RNN")
    nodes = [
        helper.make_node("Relu", ["X"], ["x"]),
        helper.make_node("LSTM", ["X", "W", "R"], ["custom"], domain="com.example"),
        helper.make_node("GRU", ["x", "gW", "gR", "gB"], ["g"], name="lower"),
        helper.make_node("RNN", ["x", "rW", "rR", "rB"], ["r"]),
    ]
    arrays = [(f"{letter}{n}", a) for letter, op in (("g", first), ("r", second)) for n, a in weights_of(op)]
    return helper.make_model(graph_of(nodes, arrays))


def test_one_of_several_nodes(tmp_path):
    model = two_nodes()
    assert [(op.op_type, op.name) for op in operators(model)] == [("GRU", "lower"), ("RNN", "r")]
    assert from_onnx(model, "lower").op_type == "GRU"
    assert from_onnx(model, name="r").op_type == "RNN"
    with pytest.raises(
        ValueError, match="the graph has 2 recurrent nodes, name must say which .operators gives all.: 'lower', 'r'"
    ):
        from_onnx(model)
    with pytest.raises(
        ValueError, match="name must be that of one recurrent node of 'lower', 'r'; got 'g', which 0 have"
    ):
        from_onnx(model, "g")
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    assert (from_onnx(path, "r").W == from_onnx(str(path), "r").W).all()
    path.write_bytes(b"no model")
    with pytest.raises(ValueError, match="model.onnx is no ONNX model"):
        from_onnx(path)
    with pytest.raises(FileNotFoundError):
        from_onnx(tmp_path / "other.onnx")


def test_nothing_to_read():
    with pytest.raises(ValueError, match="the graph has no RNN, GRU or LSTM node"):
        from_onnx(helper.make_model(graph_of([helper.make_node("Relu", ["X"], ["Y"])])))
    with pytest.raises(TypeError, match="source must be a ModelProto, GraphProto, NodeProto or path; got int"):
        operators(3)


def read(node=None, drop=(), extra=(), **changes):
    """A GRU node read after some changes: of its weights, its inputs, its attributes."""
    arrays = dict(weights_of(make("GRU"))) | {n: changes.pop(n) for n in "WRB" if n in changes}
    inputs = ["X", *(("" if name in changes.get("absent", ()) else name) for name in "WRB")]
    changes.pop("absent", None)
    node = helper.make_node("GRU", inputs, ["Y"], name="top", **changes)
    return from_onnx(graph_of([*extra, node], [(n, a) for n, a in arrays.items() if n not in drop]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop": "W"}, "W must be a constant, or in weights; 'W' is not among the initializers"),
        ({"absent": "R"}, "R must be there; the inputs are 'X', 'W', '', 'B'"),
        ({"drop": "R", "extra": [helper.make_node("Cast", ["q"], ["R"], to=1)]}, "R must be .* comes from a Cast node"),
        ({"W": np.zeros((1, 14, 4), "f")}, r"W must be \(directions, 3\*H, D\) = \(1, 15, 4\); got \(1, 14, 4\)"),
        ({"R": np.zeros((1, 12, 5), "f")}, r"R must be \(directions, 3\*H, H\) = \(1, 15, 5\); got \(1, 12, 5\)"),
        ({"R": np.zeros((15, 5), "f")}, r"W and R must have 3 axes and no empty one; got \(1, 15, 4\) and \(15, 5\)"),
        ({"B": np.zeros((1, 15), "f")}, r"B must be \(directions, 6\*H\) = \(1, 30\); got \(1, 15\)"),
        ({"hidden_size": 6}, r"W must be \(directions, 3\*H, D\) = \(1, 18, 4\); got \(1, 15, 4\)"),
        ({"direction": "bidirectional"}, r"W must be \(directions, 3\*H, D\) = \(2, 15, 4\)"),
        ({"direction": "backward"}, "direction must be one of 'forward', 'reverse', 'bidirectional'; got 'backward'"),
        ({"layout": 2}, "layout must be 0 or 1; got 2"),
        ({"clip": 0.0}, "clip must be above 0 and finite; got 0.0"),
        ({"clip": -1.0}, "clip must be above 0 and finite; got -1.0"),
        ({"clip": "x"}, "clip must be a number; got b'x'"),
        ({"activations": 3}, "activations must be a list; got 3"),
        ({"activations": [3, 4]}, "activations must be a str; got 3"),
        ({"activations": ["Sigmoid"]}, "activations must be 2 for each direction, 2; got 1"),
        ({"activations": ["Sigmoid", "Gelu"]}, "activations must be of Relu, Tanh, .*, Softplus; got 'Gelu'"),
        ({"activations": ["Elu", "Tanh"], "activation_alpha": [1.0, 2.0]}, "activation_alpha must be at most 1, one a"),
        (
            {"activations": ["Tanh", "ScaledTanh"]},
            "activation_alpha must have a value for ScaledTanh, which has no def",
        ),
        (
            {"activations": ["Tanh", "ScaledTanh"], "activation_alpha": [1.0]},
            "activation_beta must have a value for ScaledTanh",
        ),
        ({"input_forget": 1}, "attributes of GRU are .*, linear_before_reset; got 'input_forget'"),
        ({"output_sequence": 1}, "attributes of GRU are .* got 'output_sequence'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_is_wrong_with_a_node(changes, message):
    with pytest.raises(ValueError, match="^GRU 'top': " + message):
        read(**changes)


def test_more_that_is_wrong():
    with pytest.raises(ValueError, match="op_type must be one of 'RNN', 'GRU', 'LSTM'; got 'lstm'"):
        Operator("lstm", 0, 0)
    with pytest.raises(ValueError, match=r"P must be \(directions, 3\*H\) = \(1, 15\); got \(1, 20\)"):
        Operator("LSTM", np.zeros((1, 20, 4)), np.zeros((1, 20, 5)), P=np.zeros((1, 20)))
    for name in ("P", "initial_c"):
        with pytest.raises(ValueError, match=f"{name} belongs to LSTM; this is RNN"):
            Operator("RNN", np.zeros((1, 5, 4)), np.zeros((1, 5, 5)), **{name: np.zeros((1, 15))})
    with pytest.raises(TypeError, match="W must be an array of float32 or float64; got dtype int"):
        Operator("RNN", np.zeros((1, 5, 4), int), np.zeros((1, 5, 5)))
    with pytest.raises(TypeError, match="GRU 'top': W must be an array of float32 or float64; got dtype int"):
        read(W=np.zeros((1, 15, 4), int))
    node = helper.make_node("GRU", ["X", "W", "R", "", "", "", "c"], ["Y"])
    with pytest.raises(ValueError, match="GRU 'Y': inputs must be at most 6; got 7"):
        from_onnx(graph_of([node], weights_of(make("GRU"))))
    for name, value, message in (
        ("initial_h", np.zeros((2, N, H)), r"initial_h must be \(directions, N, H\) = \(1, 3, 5\); got \(2, 3, 5\)"),
        ("initial_h", np.zeros((N, H)), r"initial_h must be \(directions, N, H\) = \(1, 0, 5\); got \(3, 5\)"),
        ("initial_c", np.zeros((1, N, 4)), r"initial_c must be \(directions, N, H\) = \(1, 3, 5\); got \(1, 3, 4\)"),
        ("sequence_lens", np.array([2, -1]), r"sequence_lens must lie in \[0, T\]"),
    ):
        with pytest.raises(ValueError, match=message):
            make("LSTM", **{name: value})
    tensor = numpy_helper.from_array(make("GRU").W, "W")
    onnx.external_data_helper.set_external_data(tensor, "elsewhere.bin")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    graph = graph_of([helper.make_node("GRU", ["X", "W", "R"], ["Y"])], [("R", make("GRU").R)])
    graph.initializer.append(tensor)
    with pytest.raises(ValueError, match="'W' lies in another file: load the model with onnx.load, or give its path"):
        from_onnx(graph)


@pytest.mark.parametrize("layout", [0, 1])
def test_what_is_wrong_with_a_call(layout):
    operator = make("LSTM", {"layout": layout})
    X = inputs_of(operator)["X"]
    axes, hidden = ("(N, T, D)", "(N, directions, H)") if layout else ("(T, N, D)", "(directions, N, H)")
    with pytest.raises(
        ValueError, match=rf"X must be {re.escape(axes)} with D = 4; got \({X.shape[0]}, {X.shape[1]}, 3\)"
    ):
        operator.run(X[..., :3])
    with pytest.raises(ValueError, match=f"x must be {re.escape(axes)} with D = 4"):
        operator(X[0])
    with pytest.raises(TypeError, match="X must be an array of float32 or float64; got dtype int"):
        operator.run(X.astype(int))
    for name in ("initial_h", "initial_c"):
        with pytest.raises(ValueError, match=f"{name} must be {re.escape(hidden)}"):
            operator.run(X, **{name: np.zeros((N, H))})
    with pytest.raises(ValueError, match=r"state c must be \(directions, N, H\) = \(1, 3, 5\); got \(3, 1, 5\)"):
        operator(X, (np.zeros((1, N, H)), np.zeros((N, 1, H))))
    for state in (np.zeros((1, N, H)), (np.zeros((1, N, H)),)):
        with pytest.raises(TypeError, match=r"state of an LSTM must be a tuple \(h, c\)"):
            operator(X, state)
    with pytest.raises(ValueError, match=r"sequence_lens must lie in \[0, T\] = \[0, 6\]; got 7"):
        operator.run(X, [7, 1, 1])
    with pytest.raises(TypeError, match="lengths must be integers; got dtype float64"):
        operator(X, lengths=[1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="initial_c belongs to LSTM; this is GRU"):
        make("GRU").run(inputs_of(make("GRU"))["X"], initial_c=np.zeros((1, N, H)))


# ---- writing ----------------------------------------------------------------------------------------------------

LAYERS = {
    **{f"rnn-{a}": partial(rc.RNN, activation=a) for a in ("tanh", "relu", "identity")},
    **{
        f"gru-{form}-{update}": partial(rc.GRU, form=form, update=update)
        for form in ("reset_before", "reset_after")
        for update in ("new", "old")
    },
    "lstm": rc.LSTM,
    "lstm-peephole": partial(rc.LSTM, peephole=True),
    "lstm-identity": partial(rc.LSTM, output_activation="identity"),
    "lstm-peephole-identity": partial(rc.LSTM, peephole=True, output_activation="identity"),
}


def make_layer(name, **options):
    layer = LAYERS[name](D, H, **options)
    rng = np.random.default_rng(5)
    for array in layer.params.values():
        array[...] = rng.normal(size=array.shape) * 0.5
    return layer


def feed_layer(layer, dtype="float32"):
    """-> x, state, what the model takes"""
    rng = np.random.default_rng(6)
    x = rng.normal(size=(N, T, D) if layer.batch_first else (T, N, D)).astype(dtype)
    hidden = (layer.num_layers * layer.directions, N, H)
    states = [rng.normal(size=hidden).astype(dtype) for _ in layer.state_names]
    named = {f"initial_{s}": a for s, a in zip(layer.state_names, states, strict=True)}
    return x, tuple(states) if len(states) > 1 else states[0], {"X": x, **named}


def flat(y, state):
    return [y, *(state if isinstance(state, tuple) else [state])]


@pytest.mark.parametrize("batch_first", [False, True], ids=["time_major", "batch_first"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_layer_in_onnx_runtime(name, num_layers, bidirectional, batch_first):
    layer = make_layer(name, num_layers=num_layers, bidirectional=bidirectional, batch_first=batch_first, dropout=0.3)
    x, state, feeds = feed_layer(layer)
    for with_state, with_lengths in itertools.product((True, False), repeat=2):
        model = to_onnx(layer, with_state=with_state, with_lengths=with_lengths)
        onnx.checker.check_model(model, full_check=True)
        given = feeds if with_state else {"X": x}
        given = given | ({"sequence_lens": LENGTHS} if with_lengths else {})
        assert {i.name for i in model.graph.input} == set(given)
        assert [o.name for o in model.graph.output] == ["Y", *(f"{s}_n" for s in layer.state_names)]
        wanted = layer(x, state if with_state else None, LENGTHS if with_lengths else None)
        assert_near(runtime(model, given), flat(*wanted), "float32")


def test_lengths_of_time_and_batch_are_dynamic():
    layer = make_layer("lstm", num_layers=2, bidirectional=True)
    model = to_onnx(layer)
    for shape in ((1, 1, D), (9, 4, D)):
        x = np.random.default_rng(0).normal(size=shape).astype("float32")
        assert_near(runtime(model, {"X": x}), flat(*layer(x)), "float32")


@pytest.mark.parametrize("opset", [14, 17, 21, 22])
def test_opsets(opset):
    layer = make_layer("gru-reset_after-old", num_layers=2, batch_first=True)
    x, state, feeds = feed_layer(layer)
    model = to_onnx(layer, with_state=True, opset=opset, name="voice")
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == opset
    assert (model.graph.name, model.producer_name) == ("voice", "rnncore")
    assert_near(runtime(model, feeds), flat(*layer(x, state)), "float32")


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
@pytest.mark.parametrize("name", LAYERS)
def test_operators_are_the_layer(name, bidirectional):
    """What is written is read again: layer by layer, in float64, on the engine."""
    layer = make_layer(name, num_layers=2, bidirectional=bidirectional, dtype="float64")
    model = to_onnx(layer)
    onnx.checker.check_model(model, full_check=True)
    x, state, _ = feed_layer(layer, "float64")
    stack = operators(model)
    cell = name.split("-")[0]
    assert [(op.name, op.backend) for op in stack] == [(f"{cell}_0", "engine"), (f"{cell}_1", "engine")]
    y, dirs = x, layer.directions
    for index, operator in enumerate(stack):
        part = slice(index * dirs, (index + 1) * dirs)
        y, _ = operator(y, tuple(s[part] for s in state) if cell == "lstm" else state[part], LENGTHS)
    assert_near([y], [layer(x, state, LENGTHS)[0]], "float64")
    upper = make_layer(name, bidirectional=bidirectional, dtype="float64")
    assert from_onnx(model, f"{cell}_0").to_layer()(x)[0].shape == upper(x)[0].shape


@pytest.mark.parametrize("batch_first", [False, True], ids=["time_major", "batch_first"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
@pytest.mark.parametrize("name", LAYERS)
def test_to_layer(name, bidirectional, batch_first):
    layer = make_layer(name, bidirectional=bidirectional, dtype="float64")
    written = from_onnx(to_onnx(layer))
    # The layout is that of the node, here another one than was written.
    weights = {n: getattr(written, n) for n in "WRBP"}
    operator = Operator(written.op_type, **weights, attributes=written.attributes | {"layout": int(batch_first)})
    other = operator.to_layer()
    assert (type(other), other.dtype, other.bidirectional) == (type(layer), layer.dtype, bidirectional)
    assert other.batch_first == batch_first
    x, state, _ = feed_layer(layer, "float64")
    wanted = flat(*layer(x, state, LENGTHS))
    if batch_first:
        x, wanted[0] = x.swapaxes(0, 1), wanted[0].swapaxes(0, 1)
    assert_near(flat(*other(x, state, LENGTHS)), wanted, "float64")
    if "new" not in name:
        assert other.options() == layer.options()
        for key, array in layer.params.items():
            np.testing.assert_allclose(other.params[key], array, atol=1e-15)
    operator.W[...] = 0
    assert all(array.any() for key, array in other.params.items() if key.startswith("Wx"))


ODD = [
    ("RNN", {"activations": ["Affine"], "activation_alpha": [0.5], "activation_beta": [0.25], "clip": 3.0}),
    ("RNN", {"activation_alpha": [], "activations": ["Softplus"], "direction": "reverse", "hidden_size": 5}),
    ("GRU", {"linear_before_reset": 1, "layout": 1, "hidden_size": 5}),
    ("GRU", {"activations": [], "activation_beta": [1.0]}),  # as if there were none
    ("GRU", {"direction": "bidirectional", **with_values(["HardSigmoid", "Elu", "Sigmoid", "ScaledTanh"])}),
    ("LSTM", {"input_forget": 1, "clip": 0.7, "direction": "bidirectional", "layout": 1}),
    ("LSTM", {"direction": "reverse", **with_values(["Softsign", "LeakyRelu", "ThresholdedRelu"])}),
    ("LSTM", {"direction": "bidirectional", "layout": 0, "input_forget": 0, "clip": 0.1}),
]


@pytest.mark.parametrize("B", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize("defaults", [True, False], ids=["defaults", "free"])
@pytest.mark.parametrize(("op_type", "attributes"), ODD, ids=str)
def test_operator_round_trip(op_type, attributes, defaults, B):
    operator = make(op_type, attributes, B=B, P=B and op_type == "LSTM", name="top")
    given = inputs_of(operator)
    X = given.pop("X")
    if defaults:
        operator = make(op_type, attributes, B=B, P=B and op_type == "LSTM", name="top", **given)
        given = {}
    for with_state, with_lengths in itertools.product((True, False), repeat=2):
        model = to_onnx(operator, with_state=with_state, with_lengths=with_lengths)
        onnx.checker.check_model(model, full_check=True)
        other = from_onnx(model)
        assert other.attributes == operator.attributes
        assert list(other.attributes) == list(operator.attributes)
        assert (other.name, other.backend, other.B is None, other.P is None) == (
            "top",
            operator.backend,
            operator.B is None,
            operator.P is None,
        )
        assert_near(other.run(X, **given), operator.run(X, **given), "float32")
        if operator.layout or (not defaults and not (with_state and with_lengths)):
            continue
        # Defaults are constants of the model, or may be left out: ONNX Runtime needs no more than X.
        assert_near(runtime(model, {"X": X, **given}), operator.run(X, **given), "float32")


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4"])
def test_dtype_of_a_model(dtype):
    operator = make("LSTM", {"clip": 1.0}, P=True, dtype=dtype)
    model = to_onnx(operator)
    onnx.checker.check_model(model, full_check=True)
    other = from_onnx(model)
    for name in "WRBP":
        assert getattr(other, name).dtype == np.dtype(dtype).newbyteorder("=")
        assert (getattr(other, name) == getattr(operator, name)).all()


def test_what_onnx_cannot_say():
    with pytest.raises(ValueError, match="ONNX has no GRU of the form 'simplified': its GRU has a reset gate"):
        to_onnx(rc.GRU(D, H, form="simplified"))
    with pytest.raises(ValueError, match="ONNX has no LSTM with peephole_output 'previous'"):
        to_onnx(rc.LSTM(D, H, peephole=True, peephole_output="previous"))
    to_onnx(rc.LSTM(D, H, peephole_output="previous"))  # without peepholes it means nothing
    with pytest.raises(TypeError, match="layer must be an RNN, GRU or LSTM layer or an Operator; got Dense"):
        to_onnx(rc.Dense(D, H))
    with pytest.raises(ValueError, match="opset must be at least 14; got 13"):
        to_onnx(rc.RNN(D, H), opset=13)
    with pytest.raises(ValueError, match="opset must be at most [0-9]+, which the installed onnx knows; got 999"):
        to_onnx(rc.RNN(D, H), opset=999)
    with pytest.raises(ValueError, match="name must be a str, and not empty; got ''"):
        to_onnx(rc.RNN(D, H), name="")


def test_what_has_no_layer():
    for op_type, attributes, message in (
        ("GRU", {"clip": 1.0}, "no GRU layer of rnncore has such clip"),
        ("LSTM", {"input_forget": 1}, "no LSTM layer of rnncore has such input_forget"),
        ("LSTM", {"activations": ["Relu", "Tanh", "Tanh"]}, "no LSTM layer of rnncore has such activations"),
        ("RNN", {"direction": "reverse"}, "no layer of rnncore has the direction 'reverse' alone"),
        ("RNN", {"direction": "bidirectional", "activations": ["Tanh", "Relu"]}, "activations of a layer .* the same"),
    ):
        with pytest.raises(ValueError, match=message):
            make(op_type, attributes).to_layer()
    for name, value in (
        ("sequence_lens", LENGTHS),
        ("initial_h", np.ones((1, N, H))),
        ("initial_c", np.ones((1, N, H))),
    ):
        with pytest.raises(ValueError, match=f"{name} is a constant of the node; a layer of rnncore takes it"):
            make("LSTM", **{name: value}).to_layer()
    make("LSTM", initial_h=np.zeros((1, N, H))).to_layer()
