"""The README's table "you have ..., change this line": every line runs, in a script of the kind that people have."""

import re
from pathlib import Path

import numpy as np
import pytest

import rnncore as rc
from rnncore.interop.state_dict import from_layer

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")

# The line, and what follows it in the script. Names of the script that the line needs are made before it.
NUMPY = {
    "CS231n": (
        "from rnncore.compat.cs231n import *",
        """
        x, h0, Wx, Wh, b = (rng.normal(size=shape) for shape in [(2, 7, 3), (2, 5), (3, 20), (5, 20), (20,)])
        h, cache = lstm_forward(x, h0, Wx, Wh, b)
        scores, cache_affine = temporal_affine_forward(h, rng.normal(size=(5, 4)), np.zeros(4))
        loss, dscores = temporal_softmax_loss(scores, np.ones((2, 7), int), np.ones((2, 7), bool))
        dh, dW_vocab, db_vocab = temporal_affine_backward(dscores, cache_affine)
        dx, dh0, dWx, dWh, db = lstm_backward(dh, cache)
        assert (loss > 0, dx.shape, dWh.shape) == (True, x.shape, Wh.shape)
        """,
    ),
    "Deep Learning from Scratch 2": (
        "from rnncore.compat.dlfs2 import *",
        """
        layers = [
            TimeEmbedding(rng.normal(size=(9, 3)).astype("f")),
            TimeLSTM(*(rng.normal(size=shape).astype("f") for shape in [(3, 20), (5, 20), (20,)]), stateful=True),
            TimeAffine(rng.normal(size=(5, 9)).astype("f"), np.zeros(9, "f")),
        ]
        loss_layer, xs = TimeSoftmaxWithLoss(), rng.integers(9, size=(2, 7))
        losses = []
        for step in range(5):
            out = xs[:, :-1]
            for layer in layers:
                out = layer.forward(out)
            losses.append(loss_layer.forward(out, xs[:, 1:]))
            dout = loss_layer.backward()
            for layer in reversed(layers):
                dout = layer.backward(dout)
            for layer in layers:
                for param, grad in zip(layer.params, layer.grads):
                    param -= 0.5 * grad
        assert losses[-1] < losses[0]
        """,
    ),
    "Coursera, Building an RNN": (
        "from rnncore.compat.coursera import *",
        """
        parameters = {f"W{gate}": rng.normal(size=(5, 8)) for gate in "fico"}
        parameters |= {f"b{gate}": rng.normal(size=(5, 1)) for gate in "fico"}
        parameters |= {"Wy": rng.normal(size=(2, 5)), "by": rng.normal(size=(2, 1))}
        a, y, c, caches = lstm_forward(rng.normal(size=(3, 10, 7)), rng.normal(size=(5, 10)), parameters)
        gradients = lstm_backward(rng.normal(size=(5, 10, 4)), caches)
        assert (y.shape, gradients["dx"].shape, gradients["dWf"].shape) == ((2, 10, 7), (3, 10, 4), (5, 8))
        """,
    ),
    "Coursera, Dinosaurus Island": (
        "from rnncore.compat.dinosaurus import *",
        """
        parameters, a_prev, losses = initialize_parameters(20, 27, 27), np.zeros((20, 1)), []
        for j in range(100):
            loss, gradients, a_prev = optimize([None, 3, 1, 20], [3, 1, 20, 0], a_prev, parameters)
            losses.append(loss)
        assert losses[-1] < losses[0]
        """,
    ),
    "min-char-rnn": (
        (
            "from rnncore.compat.min_char_rnn import char_rnn_loss; "
            "lossFun = lambda *a: char_rnn_loss(*a, Wxh, Whh, Why, bh, by)"
        ),
        """
        Wxh, Whh, Why = (0.01 * rng.normal(size=shape) for shape in [(20, 9), (20, 20), (9, 20)])
        bh, by, hprev, losses = np.zeros((20, 1)), np.zeros((9, 1)), np.zeros((20, 1)), []
        for n in range(20):
            loss, dWxh, dWhh, dWhy, dbh, dby, hprev = lossFun([1, 2, 3], [2, 3, 1], hprev)
            losses.append(loss)
            for param, dparam in zip([Wxh, Whh, Why, bh, by], [dWxh, dWhh, dWhy, dbh, dby]):
                param -= 0.1 * dparam
        assert losses[-1] < losses[0]
        """,
    ),
    "batched LSTM": (
        "from rnncore.compat.min_char_rnn import LSTM",
        """
        WLSTM = LSTM.init(3, 5)
        Hout, Cn, Hn, cache = LSTM.forward(rng.normal(size=(7, 2, 3)), WLSTM)
        dX, dWLSTM, dc0, dh0 = LSTM.backward(np.ones_like(Hout), cache)
        assert (dX.shape, dWLSTM.shape) == ((7, 2, 3), WLSTM.shape)
        """,
    ),
    "a NumPy model of your own": (
        'import rnncore as rc; h, (h_n, c_n), cache = rc.lstm_forward(x, Wx, Wh, b, gate_order="ifog")',
        """
        assert rc.lstm_backward(np.ones_like(h), cache).dWh.shape == Wh.shape
        """,
    ),
    "with one matrix for each gate": (
        "Wx, Wh, b = rc.join_gates(Wxs, Whs, bs)",
        """
        assert (Wx.shape, Wh.shape, b.shape) == ((3, 20), (5, 20), (20,))
        assert rc.lstm_forward(x, Wx, Wh, b)[0].shape == (7, 2, 5)
        """,
    ),
    "a state dict of arrays, without PyTorch": (
        'from rnncore.interop.state_dict import to_layer; layer = to_layer(state_dict, prefix="rnn.")',
        """
        assert layer(x)[0].shape == (7, 2, 5)
        """,
    ),
    "weights of a Keras layer": (
        "from rnncore.interop.keras import from_keras; layer = from_keras(weights)",
        """
        assert layer(rng.normal(size=(2, 7, 3)))[0].shape == (2, 7, 5)
        """,
    ),
}
FRAMEWORKS = {
    "a PyTorch model, on the CPU": (
        "torch",
        "from rnncore.interop.torch import GRU",
        """
        y, h_n = GRU(3, 5, num_layers=2)(torch.ones(7, 2, 3))
        y.sum().backward()
        """,
    ),
    "one that exists already": (
        "torch",
        "import rnncore.interop.torch; rnncore.interop.torch.replace(model)",
        """
        model[0](torch.ones(7, 2, 3))[0].sum().backward()
        assert type(model[0]) is rnncore.interop.torch.GRU
        """,
    ),
    "weights of a PyTorch module": (
        "torch",
        "from rnncore.interop.torch import from_torch; layer = from_torch(model[0])",
        """
        assert np.allclose(layer(np.ones((7, 2, 3)))[0], model[0](torch.ones(7, 2, 3))[0].detach(), atol=1e-6)
        """,
    ),
    "an ONNX model": (
        "onnx",
        'from rnncore.interop.onnx import from_onnx; layer = from_onnx("model.onnx")',
        """
        assert layer(np.ones((7, 2, 3), "f"))[0].shape == (7, 2, 5)
        """,
    ),
    "a safetensors file": (
        "safetensors",
        'from rnncore.interop.safetensors import load; layer = load("weights.safetensors")',
        """
        assert layer(np.ones((7, 2, 3), "f"))[0].shape == (7, 2, 5)
        """,
    ),
}


def run(line, script, **names):
    names |= {"np": np, "rng": np.random.default_rng(0)}
    exec(line, names)
    exec(re.sub("^ {8}", "", script, flags=re.MULTILINE), names)


@pytest.mark.parametrize("name", NUMPY)
def test_numpy(name):
    rng = np.random.default_rng(1)
    x, Wx, Wh, b = (rng.normal(size=shape) for shape in [(7, 2, 3), (3, 20), (5, 20), (20,)])
    names = {"rc": rc, "x": x, "Wx": Wx, "Wh": Wh, "b": b, "weights": [Wx, Wh, b]}
    names |= dict(zip(("Wxs", "Whs", "bs"), rc.split_gates(Wx, Wh, b), strict=True))
    names["state_dict"] = {f"rnn.{name}": array for name, array in from_layer(rc.LSTM(3, 5)).items()}
    run(*NUMPY[name], **names)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_frameworks(name, tmp_path, monkeypatch):
    library, line, script = FRAMEWORKS[name]
    module = pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    names = {library: module}
    if library == "torch":
        names["model"] = module.nn.Sequential(module.nn.GRU(3, 5))
    elif library == "onnx":
        from rnncore.interop.onnx import to_onnx

        module.save(to_onnx(rc.GRU(3, 5)), "model.onnx")
    else:
        from rnncore.interop.safetensors import save

        save(rc.GRU(3, 5), "weights.safetensors")
    run(line, script, **names)


def test_the_table_has_these_lines():
    """And no others; a line may stand there in two pieces of code."""
    (table,) = re.findall(r"\| you have \|.*\n\|---.*\n((?:\|.*\n)+)", README)
    rows = [row.strip("|").split("|") for row in table.splitlines()]
    found = {row[0].strip(): "; ".join(re.findall(r"`([^`]+)`", row[1])) for row in rows}
    assert found == {name: line for name, (*_, line, _) in {**NUMPY, **FRAMEWORKS}.items()}
