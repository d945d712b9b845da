"""Layers and operators written as ONNX models."""

import itertools
from functools import partial

import numpy as np
import pytest
from support.compare import assert_near

import rnncore as rc

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from support.onnx import LENGTHS, D, H, N, T, inputs_of, make, runtime, with_values  # noqa: E402

from rnncore.interop.onnx import Operator, from_onnx, operators, to_onnx  # noqa: E402

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
    assert not any(np.shares_memory(operator.W, array) for array in other.params.values())


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
