"""The operators of ONNX: against ONNX Runtime, the equations in NumPy, and numbers computed by hand."""

import copy
import importlib
import itertools
import math
import pickle

import numpy as np
import pytest
from support.compare import assert_near

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import helper, numpy_helper  # noqa: E402
from support.onnx import GATES, LENGTHS, VALUES, D, H, N, T, inputs_of, make, runtime, with_values  # noqa: E402

from rnncore.interop.onnx import Operator, from_onnx, step_by_step  # noqa: E402

DIRECTIONS = ("forward", "reverse", "bidirectional")


class Loop(Operator):
    """The same on the equations in NumPy, whatever the engine could do."""

    backend = "reference"


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


def assert_as_runtime(operator, arguments, opset=17):
    model = node_model(operator, arguments, opset)
    wanted = runtime(model, arguments)
    assert_near(operator.run(**arguments), wanted, "float32")
    assert_near(from_onnx(model).run(**arguments), wanted, "float32")
    looped = copy.copy(operator)
    looped.__class__ = Loop
    assert_near(looped.run(**arguments), wanted, "float32")


# ---- against ONNX Runtime ------------------------------------------------------------------------------------------


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


# ---- against the equations -----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("op_type", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("layout", [0, 1])
def test_one_native_call_has_the_bits_of_the_long_way(op_type, direction, layout):
    """Without lengths of its own, a call is one native call; lengths of T lead the long way round."""
    operator = make(op_type, {"direction": direction, "layout": layout})
    given = inputs_of(operator) | {"sequence_lens": None}
    for rows in (1, 3):
        cut = {k: None if a is None else (a[:, :rows] if layout == 0 else a[:rows]) for k, a in given.items()}
        whole = np.full(rows, cut["X"].shape[layout])
        for some in (cut, {"X": cut["X"]}, {"X": cut["X"], "initial_h": cut["initial_h"]}):
            results = operator.run(**some)
            for actual, wanted in zip(results, operator.run(**some | {"sequence_lens": whole}), strict=True):
                np.testing.assert_array_equal(actual, wanted)
                assert actual.flags.c_contiguous or layout
        state = tuple(a.swapaxes(0, 1) if layout else a for k, a in cut.items() if k.startswith("initial"))
        state = state if op_type == "LSTM" else state[0]
        for actual, wanted in zip(operator(cut["X"], state), operator(cut["X"], state, whole), strict=True):
            np.testing.assert_array_equal(actual, wanted)


def test_weights_are_constants():
    W = np.ones((1, 4, 2), "f4")
    operator = Operator("RNN", W, np.ones((1, 4, 4), "f4"))
    before = operator.run(np.ones((1, 1, 2), "f4"))[0]
    W[...] = 0
    for own in (operator, copy.deepcopy(operator), pickle.loads(pickle.dumps(operator))):
        np.testing.assert_array_equal(own.run(np.ones((1, 1, 2), "f4"))[0], before)
    with pytest.raises(AttributeError, match="W is a constant of the node: make another Operator"):
        operator.W = W
    with pytest.raises(ValueError, match="read-only"):
        operator.R[...] = 0


def test_dtypes():
    for more in ({}, {"clip": 2.0}):
        operator = make("LSTM", more, dtype="float16", P=True)
        arguments = inputs_of(operator, dtype="float16")
        assert [a.dtype for a in operator.run(**arguments)] == ["float32"] * 3
        weights = {name: getattr(operator, name).astype("float64") for name in "WRBP"}
        exact = Operator("LSTM", **weights, attributes=operator.attributes)
        wanted = exact.run(**arguments)
        assert [a.dtype for a in wanted] == ["float64"] * 3
        assert_near(operator.run(**arguments), [a.astype("float32") for a in wanted], "float32")
        swapped = make("LSTM", more, dtype=">f4", P=True)
        assert_near(
            swapped.run(**inputs_of(swapped, dtype=">f4")),
            make("LSTM", more, P=True).run(**inputs_of(operator)),
            "float32",
        )


def only_biases(op_type, Wb, Rb, R=None, **options):
    G = GATES[op_type]
    R = np.zeros((1, G, 1)) if R is None else np.reshape(R, (1, G, 1))
    return Operator(op_type, np.zeros((1, G, 1)), R, np.concatenate([Wb, Rb])[None].astype(float), **options)


# ---- by hand -------------------------------------------------------------------------------------------------------


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
    P = np.array([[np.log(3) / 0.5, np.log(3) / 0.79, -np.log(4) / 0.5]])
    lstm = Operator("LSTM", lstm.W, lstm.R, lstm.B, P, attributes=affine)
    lstm.__class__ = cls
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


# ---- what an operator says of itself -------------------------------------------------------------------------------


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


def test_copies_and_pickles():
    operator = make("LSTM", {"direction": "bidirectional", **with_values(["HardSigmoid", "Tanh", "Tanh"] * 2)}, P=True)
    arguments = inputs_of(operator)
    for other in (copy.deepcopy(operator), pickle.loads(pickle.dumps(operator))):
        assert_near(other.run(**arguments), operator.run(**arguments), "float32")
