"""Operators read from ONNX models."""

import importlib.util
import pathlib
import pickle
import re
import tempfile

import numpy as np
import pytest
from support.compare import assert_near

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import helper, numpy_helper  # noqa: E402
from support.onnx import LENGTHS, H, N, inputs_of, make  # noqa: E402

from rnncore.interop.onnx import Operator, from_onnx, operators  # noqa: E402


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
    np.testing.assert_array_equal(got.W, operator.W)
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
    relu = helper.make_node("Relu", ["X"], ["Y"])
    with pytest.raises(ValueError, match="no RNN, GRU or LSTM node, nor have the bodies in it; its nodes are Relu$"):
        from_onnx(helper.make_model(graph_of([relu])))
    gru = helper.make_node("GRU", ["X", "W", "R"], ["Y"], hidden_size=H)
    function = helper.make_function("own", "Cell", ["X", "W", "R"], ["Y"], [gru], [helper.make_opsetid("", 17)])
    with pytest.raises(ValueError, match=r"function 'Cell' has one: call onnx.inliner.inline_local_functions\(model\)"):
        from_onnx(helper.make_model(graph_of([relu]), functions=[function]))
    with pytest.raises(TypeError, match="source must be a ModelProto, GraphProto, NodeProto or path; got int"):
        operators(3)


# ---- bodies and folded constants -----------------------------------------------------------------------------------


def scattered(operator, tail=""):
    """Nodes and initializers that put an LSTM's weights together from pieces, as exporters leave them."""
    parts = {name + tail: getattr(operator, name) for name in "WRB"}
    W, R, B = (name + tail for name in "WRB")
    i, rest = np.split(parts[W][0], [H], axis=0)
    wide = np.concatenate([np.zeros_like(parts[R]), parts[R]], axis=2)
    initializers = [("wi" + tail, i), ("wr" + tail, rest.T.copy()), ("rr" + tail, wide), ("b" + tail, parts[B][0])]
    initializers += [
        (f"{n}{tail}", np.array([v], "i8")) for n, v in (("axis", 0), ("from", H), ("to", 9**9), ("ax", 2))
    ]
    return [
        helper.make_node("Transpose", ["wr" + tail], ["wt" + tail], perm=[1, 0]),
        helper.make_node("Concat", ["wi" + tail, "wt" + tail], ["wc" + tail], axis=0),
        helper.make_node("Unsqueeze", ["wc" + tail, "axis" + tail], [W]),
        helper.make_node("Slice", [f"{n}{tail}" for n in ("rr", "from", "to", "ax")], [R]),
        helper.make_node("Split", ["b" + tail], ["b1" + tail, "b2" + tail], axis=0, num_outputs=2),
        helper.make_node("Concat", ["b1" + tail, "b2" + tail], ["bc" + tail], axis=0),
        helper.make_node("Unsqueeze", ["bc" + tail, "axis" + tail], [B]),
        helper.make_node("LSTM", ["X", W, R, B], ["", "Y" + tail], name="cell", hidden_size=H),
    ], initializers


def branching_model(*twins):
    """If(flag): two LSTMs of one name; the weights of the second stand in the graph around its body."""
    bodies = []
    for operator, tail in zip(twins, ("_a", "_b"), strict=True):
        nodes, initializers = scattered(operator, tail)
        bodies.append((nodes, [numpy_helper.from_array(a, n) for n, a in initializers], "Y" + tail))
    (nodes, own, y), (other, outer, z) = bodies
    result = lambda name: [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)]  # noqa: E731
    then = helper.make_graph(nodes, "then", [], result(y), own)
    orelse = helper.make_graph(other[-1:], "else", [], result(z))
    flag = helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, [])
    X = helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, ["T", "N", "D"])
    branch = helper.make_node("If", ["flag"], ["Y"], name="choice", then_branch=then, else_branch=orelse)
    graph = helper.make_graph([*other[:-1], branch], "graph", [flag, X], result("Y"), outer)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_nodes_in_bodies_and_weights_put_together_from_pieces():
    twins = make("LSTM"), make("LSTM", seed=7)
    model = branching_model(*twins)
    by_name = {operator.name: operator for operator in operators(model)}
    found = [by_name.pop(f"choice/{branch}/cell") for branch in ("then_branch", "else_branch")]
    assert not by_name
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    X = inputs_of(twins[0])["X"]
    for operator, twin, flag in zip(found, twins, (True, False), strict=True):
        for name in "WRB":
            np.testing.assert_array_equal(getattr(operator, name), getattr(twin, name))
        assert_near([operator.run(X)[1]], session.run(None, {"X": X, "flag": np.array(flag)}), "float32")
    assert from_onnx(model, "choice/else_branch/cell").name == "choice/else_branch/cell"
    with pytest.raises(ValueError, match="'choice/then_branch/cell'.*; got 'cell', which 2 have"):
        from_onnx(model, "cell")


def test_computed_weights_say_where_they_come_from():
    operator = make("GRU")
    nodes = [helper.make_node("Mul", ["w", "X"], ["W"]), helper.make_node("GRU", ["X", "W", "R"], ["Y"])]
    with pytest.raises(ValueError, match="GRU 'Y': W must be a constant, or in weights; 'W' comes from a Mul node"):
        from_onnx(graph_of(nodes, [("w", operator.W), ("R", operator.R)]))
    wrong = [helper.make_node("Transpose", ["w"], ["W"], perm=[0, 0, 1]), nodes[1]]
    with pytest.raises(ValueError, match="GRU 'Y': Transpose 'W' of constants is not valid"):
        from_onnx(graph_of(wrong, [("w", operator.W), ("R", operator.R)]))


def test_a_small_graph_with_a_huge_constant_is_refused():
    doubling = [helper.make_node("Concat", [f"w{k}", f"w{k}"], [f"w{k + 1}"], axis=0) for k in range(40)]
    nodes = [*doubling, helper.make_node("GRU", ["X", "w40", "R"], ["Y"])]
    with pytest.raises(ValueError, match="is a constant far larger than the graph that it comes from"):
        from_onnx(graph_of(nodes, [("w0", np.ones((1, 9, 9), "f4"))]))


@pytest.mark.parametrize("per_channel", [False, True])
def test_quantized_weights_are_taken_as_floats(per_channel):
    """onnxruntime.quantization's LSTM: its integer weights as floats; its inputs are rounded too: nearly the same."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    operator, path = make("LSTM", {"direction": "bidirectional"}), "model.onnx"
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node(
                    "LSTM", ["X", "W", "R", "B"], ["Y"], name="top", hidden_size=H, direction="bidirectional"
                )
            ],
            "graph",
            [helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, ["T", "N", operator.input_size])],
            [helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, None)],
            [numpy_helper.from_array(a, n) for n, a in weights_of(operator)],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        onnx.save(model, path / "float.onnx")
        # To 7 bits: sums of two products of 8 bits overflow in ONNX Runtime where the processor has no VNNI.
        quantization.quantize_dynamic(
            *(path / "float.onnx", path / "int8.onnx"),
            per_channel=per_channel,
            reduce_range=True,
            op_types_to_quantize=["LSTM"],
        )
        quantized = onnx.load(path / "int8.onnx")
    assert [node.op_type for node in quantized.graph.node] == ["DynamicQuantizeLSTM"]
    (found,) = operators(quantized)
    assert found.op_type == "LSTM"
    for name in "WR":
        step = np.abs(getattr(operator, name)).max() / 63
        assert 0 < np.abs(getattr(found, name) - getattr(operator, name)).max() < 1.01 * step
    X = inputs_of(operator)["X"]
    session = onnxruntime.InferenceSession(quantized.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(found.run(X)[0], session.run(None, {"X": X})[0], atol=0.05)
    small = found.quantize("int8")
    assert 0 < np.abs(small.run(X)[0] - found.run(X)[0]).max() < 0.05
    padded = small.run(X[:, :2], np.array([2, len(X)]))[0]
    np.testing.assert_array_equal(padded[:2, :, :1], small.run(X[:2, :1])[0])
    np.testing.assert_array_equal(padded[:, :, 1:], small.run(X[:, 1:2])[0])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(small)).run(X)[0], small.run(X)[0])
    layer = small.quantize("bfloat16")  # from the weights as given
    np.testing.assert_allclose(layer.run(X)[0], found.run(X)[0], atol=0.02)


def test_quantize_refuses_what_runs_on_the_reference():
    operator = Operator("GRU", np.ones((1, 3, 1)), np.ones((1, 3, 1)), attributes={"clip": 0.5})
    with pytest.raises(ValueError, match="runs on the reference, for its clip, cannot be quantized"):
        operator.quantize("int8")
    with pytest.raises(ValueError, match="precision must be one of"):
        Operator("GRU", np.ones((1, 3, 1)), np.ones((1, 3, 1))).quantize("int4")
    with pytest.raises(ValueError, match="Wx must be finite"):
        Operator("GRU", np.full((1, 3, 1), np.inf), np.ones((1, 3, 1))).quantize("int8")


def test_silero_vad():
    """Four nodes in bodies of bodies, weights put together by Slice, Concat and Unsqueeze."""
    silero = importlib.util.find_spec("silero_vad")
    if silero is None:
        pytest.skip("silero-vad is not installed")
    found = operators(pathlib.Path(silero.origin).parent / "data" / "silero_vad.onnx")
    assert [(op.op_type, op.input_size, op.hidden_size) for op in found] == [("LSTM", 128, 128)] * 4
    for operator in found:
        Y, Y_h, _ = operator.run(np.ones((1, 1, 128), "f4"))
        np.testing.assert_array_equal(Y[0], Y_h)


# ---- errors --------------------------------------------------------------------------------------------------------


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
