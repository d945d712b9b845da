"""Valid calls of everything public: for each callable, its arguments by name.

A recipe is a list of scenarios, dicts of parameter name to a function that makes a valid value; parameters with a
default may be left out. The names of RECIPES are those of callables, or of a class or module: then its entry is what
the callables within share.
"""

import numpy as np

import rnncore as rc
from rnncore.interop import state_dict

from .context import D, H, N, T, V, arrays, copy_of, ids, one_of, real, value
from .recipes_compat import COMPAT, COMPAT_RECEIVERS
from .recipes_models import MODEL_RECEIVERS, MODELS

FLAG = one_of(False, True)

# ---- cells ------------------------------------------------------------------------------------------------------

STEPS = {
    "h0": real(N, H),
    "lengths": ids(T + 1, N),
    "resets": lambda c: c.ids(2, T, N) == 1,
    "reverse": FLAG,
    "training": one_of(True, True, False),
    "checkpoint": one_of(None, True, 2),
}


def packed(c):
    from rnncore.engine.packing import PackedTokens

    return PackedTokens(c.array(3, D), np.array([2, 1]))


def cell(G, **others):
    """Scenarios for features, ids and packed tokens, of a cell of G gates."""
    weights = {"Wx": real(D, G * H), "Wh": real(H, G * H), "b": real(G * H), "recurrent_mask": real(N, H)}
    return [
        {"x": real(T, N, D), **weights, **STEPS, **others},
        {"x": ids(D, T, N), **weights, **STEPS, **others},
        {"x": packed, **weights, **others},
    ]


def without(scenarios, *names):
    return [{name: make for name, make in scenario.items() if name not in names} for scenario in scenarios]


def lstm(c):
    return c.array(T, N, D), c.array(D, 4 * H), c.array(H, 4 * H), c.array(4 * H)


def cache_of(name, G, **options):
    """The cache of a forward pass, with features or ids, with lengths, or of checkpoints."""

    def make(c):
        x = c.array(T, N, D) if c.rng.random() < 0.7 else c.ids(D, T, N)
        weights = [c.array(D, G * H), c.array(H, G * H), c.array(G * H)]
        if name == "mingru":
            del weights[1]
        steps = c.rng.choice(({}, {}, {"lengths": c.ids(T + 1, N)}, {"checkpoint": 2}, {"reverse": True}))
        return getattr(rc, f"{name}_forward")(x, *weights, **options, **steps)[2]

    return make


def backward(name, G, **options):
    return [{"dh": real(T, N, H), "dh_n": real(N, H), "cache": cache_of(name, G, **options)}]


LSTM = {
    "c0": real(N, H),
    "peephole": real(3, H),
    "peephole_output": one_of("current", "previous"),
    "output_activation": one_of("tanh", "identity"),
    "gate_order": one_of("ifgo", "fgio"),
}
WEIGHTS = {"Wx": real(D, 4 * H), "Wh": real(H, 4 * H), "b": real(4 * H)}


def by_gate(*shape):
    return lambda c: {gate: c.array(*shape) for gate in "ifgo"}


CELLS = {
    "rnn_forward": cell(1, activation=one_of("tanh", "relu", "identity")),
    "gru_forward": [
        *cell(3, update=one_of("new", "old"), gate_order=one_of("rzn", "zrn")),
        *cell(3, form=value("reset_after"), bhn=real(H)),
        *cell(2, form=value("simplified")),
    ],
    "lstm_forward": cell(4, **LSTM),
    "mingru_forward": without(cell(2, candidate=one_of("identity", "positive")), "Wh", "recurrent_mask"),
    "rnn_backward": backward("rnn", 1),
    "gru_backward": backward("gru", 3) + backward("gru", 3, form="reset_after"),
    "lstm_backward": [{**scenario, "dc_n": real(N, H)} for scenario in backward("lstm", 4)],
    "mingru_backward": backward("mingru", 2),
    "freeze": [
        {
            "cell": value("lstm"),
            **WEIGHTS,
            "peephole": real(3, H),
            "precision": one_of(None, "bfloat16", "int8"),
            "options": one_of({}, {"gate_order": "fgio"}, {"output_activation": "identity"}),
        },
        {"cell": value("gru"), "Wx": real(D, 3 * H), "Wh": real(H, 3 * H), "b": real(3 * H), "options": value({})},
    ],
    "FrozenCell.__call__": [
        {key: STEPS[key] for key in ("lengths", "resets", "reverse")}
        | {"x": make, "state": lambda c: (c.array(N, H), c.array(N, H))}
        for make in (real(T, N, D), ids(D, T, N))
    ],
    "join_gates": [
        {
            "Wx": by_gate(D, H),
            "Wh": by_gate(H, H),
            "b": by_gate(H),
            "columns": value(False),
            "gate_order": one_of(None, "ifgo"),
        }
    ],
    "split_gates": [WEIGHTS | {"columns": value(False), "gate_order": one_of(None, "ifgo")}],
}

# ---- layers -----------------------------------------------------------------------------------------------------


def recurrent(cls, **options):
    """Functions that make a layer of each kind: they are called once."""
    kinds = ({}, {"bidirectional": True}, {"num_layers": 2, "dtype": "float64"}, {"batch_first": True, "dropout": 0.5})
    return [lambda kind=kind: cls(D, H, **kind, **options, seed=0) for kind in kinds]


LAYERS = {
    "RNN": recurrent(rc.RNN) + recurrent(rc.RNN, recurrent_dropout=0.5),
    "GRU": recurrent(rc.GRU) + recurrent(rc.GRU, form="reset_after", checkpoint=2),
    "LSTM": recurrent(rc.LSTM) + recurrent(rc.LSTM, peephole=True),
    "MinGRU": recurrent(rc.MinGRU),
    "Dense": [lambda: rc.Dense(D, H, seed=0), lambda: rc.Dense(D, H, dtype="float64", seed=0)],
    "Embedding": [lambda: rc.Embedding(V, D, seed=0)],
    "Attention": [lambda: rc.Attention(H, D, seed=0), lambda: rc.Attention(H, D, "additive", size=3, seed=0)],
    "Frozen": [lambda: rc.LSTM(D, H, seed=0).freeze(), lambda: rc.GRU(D, H, 2, seed=0).quantize("int8")],
    "FrozenCell": [lambda: rc.freeze("lstm", np.ones((D, 4 * H)), np.ones((H, 4 * H)), np.ones(4 * H))],
    "layers.simple.QuantizedDense": [lambda: rc.Dense(D, H, seed=0).quantize("int8")],
    "layers.simple.QuantizedEmbedding": [lambda: rc.Embedding(V, D, seed=0).quantize("bfloat16")],
    "layers.attention.QuantizedAttention": [lambda: rc.Attention(H, D, seed=0).quantize("int8")],
}


def layer_of(*names):
    makers = [make for name in names for make in LAYERS[name]]
    return lambda c: copy_of(c.rng.choice(makers))(c)


def layer_x(c):
    layer = c.receiver
    x = c.array(T, N, D) if c.rng.random() < 0.7 else c.ids(D, T, N)
    return x.swapaxes(0, 1) if getattr(layer, "batch_first", False) else x


def layer_state(c):
    layer = c.receiver
    shape = layer.num_layers * layer.directions, N, H
    arrays = tuple(c.array(*shape) for _ in layer.state_names)
    return arrays if len(arrays) > 1 else arrays[0]


def layer_cache(c):
    return c.receiver.forward(layer_x(c))[2]


def layer_dy(c):
    y = c.array(T, N, c.receiver.output_size)
    return y.swapaxes(0, 1) if c.receiver.batch_first else y


SEQUENCE = {"x": layer_x, "state": layer_state, "lengths": ids(T + 1, N)}
RECURRENT = {
    "__call__": [SEQUENCE],
    "forward": [SEQUENCE],
    "backward": [{"dy": layer_dy, "cache": layer_cache, "dstate": layer_state}],
    "quantize": [
        {"precision": one_of("bfloat16", "int8")},
        {"precision": value("int8"), "calibration": layer_x},
    ],
    "split_state": [{"state": layer_state, "N": value(N), "argument": value("state")}],
    "stream": [{"batch_size": value(2)}],
    "time_major": [{"x": layer_x}],
}
CONSTRUCTOR = {
    "input_size": value(D),
    "hidden_size": value(H),
    "num_layers": value(2),
    "bidirectional": FLAG,
    "batch_first": FLAG,
    "dropout": value(0.25),
    "recurrent_dropout": value(0.25),
    "checkpoint": one_of(None, 2, True),
    "init": one_of("orthogonal", "uniform"),
    "dtype": one_of("float32", "float64"),
    "seed": value(0),
    "activation": one_of("tanh", "relu"),
    "form": one_of("reset_before", "reset_after", "simplified"),
    "update": one_of("new", "old"),
    "peephole": FLAG,
    "peephole_output": one_of("current", "previous"),
    "output_activation": one_of("tanh", "identity"),
    "forget_bias": value(1.0),
    "candidate": one_of("identity", "positive"),
}
QUERIES = {
    "queries": real(T, N, H),
    "memory": real(V, N, D),
    "lengths": ids(T + 1, N),
    "memory_lengths": ids(V + 1, N),
    "keys": lambda c: c.array(V, N, 3) if c.receiver.score == "additive" else None,
}
PRECISION = [{"precision": one_of("bfloat16", "int8")}]
DENSE_X = [{"x": real(T, N, D)}, {"x": real(D)}, {"x": real(2, D)}]
ROWS = [{"ids": ids(V, T, N)}, {"ids": ids(V, 3)}]

LAYER_RECIPES = {
    **{name: [CONSTRUCTOR] for name in ("RNN", "GRU", "LSTM")},
    "MinGRU": [CONSTRUCTOR | {"recurrent_dropout": value(0.0)}],
    **{
        f"{name}.{key}": recipe
        for name in ("RNN", "GRU", "LSTM", "MinGRU", "Frozen")
        for key, recipe in RECURRENT.items()
    },
    "Dense": [{"input_size": value(D), "output_size": value(H), "dtype": one_of("float32", "f8"), "seed": value(0)}],
    "Dense.__call__": DENSE_X,
    "Dense.forward": DENSE_X,
    "Dense.backward": [{"dy": real(T, N, H), "cache": lambda c: c.receiver.forward(c.array(T, N, D))[1]}],
    "Dense.quantize": PRECISION,
    "Embedding": [{"size": value(V), "dimension": value(D), "dtype": one_of("float32", "f8"), "seed": value(0)}],
    "Embedding.__call__": ROWS,
    "Embedding.forward": ROWS,
    "Embedding.backward": [{"dy": real(T, N, D), "cache": lambda c: c.receiver.forward(c.ids(V, T, N))[1]}],
    "Embedding.quantize": PRECISION,
    "Attention": [
        {
            "query_size": value(H),
            "memory_size": value(D),
            "score": one_of("multiplicative", "additive"),
            "size": value(3),
            "dtype": one_of("float32", "f8"),
            "seed": value(0),
        }
    ],
    "Attention.__call__": [QUERIES],
    "Attention.forward": [QUERIES],
    "Attention.backward": [
        {
            "dcontext": real(T, N, D),
            "cache": lambda c: c.receiver.forward(c.array(T, N, H), c.array(V, N, D))[2],
        }
    ],
    "Attention.keys": [{"memory": real(V, N, D)}],
    "Attention.quantize": PRECISION,
    "layers.attention.QuantizedAttention.__call__": [QUERIES],
    "layers.attention.QuantizedAttention.keys": [{"memory": real(V, N, D)}],
    "layers.attention.QuantizedAttention.quantize": PRECISION,
    "layers.simple.QuantizedDense.__call__": DENSE_X,
    "layers.simple.QuantizedDense.quantize": PRECISION,
    "layers.simple.QuantizedEmbedding.__call__": ROWS,
    "layers.simple.QuantizedEmbedding.quantize": PRECISION,
    "layers.stream.Stream": [{"layer": layer_of("Frozen"), "batch_size": value(N)}],
    "layers.stream.Stream.step": [
        {"x": make, "out": lambda c: np.zeros((N, H), c.receiver.dtype)} for make in (real(N, D), ids(D, N))
    ],
    "layers.stream.Stream.state=": [
        {
            "value": lambda c: (
                tuple(s.copy() for s in c.receiver.state) if isinstance(c.receiver.state, tuple) else c.receiver.state
            )
        }
    ],
    "gate_activations": [
        {"layer": lambda c: set_receiver(c, layer_of("LSTM", "GRU")), **SEQUENCE},
    ],
    "gradient_flow": [
        {"layer": lambda c: set_receiver(c, layer_of("LSTM", "GRU", "RNN")), "dy": layer_dy, **SEQUENCE},
    ],
}


def set_receiver(c, make):
    """For functions whose other arguments go with a layer that they are given."""
    c.receiver = make(c)
    return c.receiver


# ---- losses, optimisers, text -----------------------------------------------------------------------------------

STEP_LOSS = {
    "targets": ids(V, T, N),
    "lengths": ids(T + 1, N),
    "weights": lambda c: np.abs(c.array(T, N)),
    "reduction": one_of("mean", "sum", "none"),
}
CRF = {"emissions": real(T, N, V), "transitions": real(V, V), "lengths": ids(T + 1, N)}
OPTIMIZER = {
    "params": arrays(W=(D, H), b=(H,)),
    "learning_rate": value(0.1),
    **{name: value(0.5) for name in ("momentum", "beta1", "beta2", "decay")},
    "epsilon": value(1e-8),
}
GRADS = arrays(W=(D, H), b=(H,))
NAMES = ("SGD", "Adagrad", "Adam", "RMSProp")


def text_of(c):
    return c.rng.choice(("abcab", "", "cab", ["a", "b"], ["ab", "c", "zz"]))


def vocabulary():
    return rc.Vocabulary("abc")


def out_like_logits(c):
    return np.zeros((T, N, V), c.rng.choice(("f4", "f8")))


FUNCTIONS = {
    "softmax_cross_entropy": [{"logits": real(T, N, V), "out": out_like_logits, **STEP_LOSS}],
    "sigmoid_cross_entropy": [{**STEP_LOSS, "logits": real(T, N, V), "targets": lambda c: c.ids(2, T, N, V) * 1.0}],
    "fused_softmax_cross_entropy": [
        {
            **STEP_LOSS,
            "dense": copy_of(lambda: rc.Dense(D, V, seed=0)),
            "x": real(T, N, D),
            "training": FLAG,
        }
    ],
    "ctc_loss": [
        {
            "logits": real(T, N, V),
            "targets": lambda c: [c.ids(V - 1, 1) + 1 for _ in range(N)],
            "lengths": lambda c: c.ids(T, N) + 1,
            "blank": value(0),
            "weights": lambda c: np.abs(c.array(N)),
            "reduction": one_of("mean", "sum", "none"),
            "zero_infinity": FLAG,
            "training": FLAG,
        }
    ],
    "crf_loss": [
        {
            **CRF,
            "tags": ids(V, T, N),
            "weights": lambda c: np.abs(c.array(N)),
            "reduction": one_of("mean", "sum", "none"),
            "training": FLAG,
        }
    ],
    "crf_marginals": [CRF],
    "viterbi": [CRF],
    **{name: [OPTIMIZER] for name in NAMES},
    **{f"{name}.step": [{"grads": GRADS, "clip_norm": value(1.0)}] for name in NAMES},
    **{f"{name}.learning_rate=": [{"value": value(0.1)}] for name in NAMES},
    "clip_by_global_norm": [
        {"grads": GRADS, "max_norm": value(1.0)},
        {"grads": lambda c: [c.array(3)], "max_norm": value(1.0)},
    ],
    "clip_by_value": [{"grads": GRADS, "limit": value(0.5)}],
    "distributed.reduce": [
        {"comm": value(None), "grads": GRADS, "loss_sum": value(1.5), "weight": value(2.0), "timeout": value(60.0)}
    ],
    "distributed.RankError": [{"message": value("rank 1 failed"), "ranks": value((1,))}],
    "Vocabulary": [{"tokens": lambda c: ["a", "b", "c"], "level": value("char")}],
    "Vocabulary.decode": [{"ids": ids(5, 4)}],
    "Vocabulary.encode": [{"text": text_of}],
    "Vocabulary.one_hot": [{"ids": ids(5, T, N), "dtype": one_of("float32", "f8")}],
    "Vocabulary.from_text": [
        {
            "text": lambda c: c.rng.choice(("abca", ["abc", "ca"])),
            "level": one_of("char", "word"),
            "max_size": value(4),
            "min_count": value(1),
        }
    ],
    "Vocabulary.from_state": [{"state": lambda c: vocabulary().state()}],
    "batches_by_length": [
        {"lengths": ids(T + 1, 7), "batch_size": value(2), "rng": lambda c: np.random.default_rng(0)}
    ],
    "pad": [
        {"sequences": lambda c: [c.array(3, 2), c.array(1, 2)], "dtype": one_of(None, "f8"), "padding": value(0.0)}
    ],
    "streams": [{"ids": ids(V, 12), "batch_size": value(3)}],
    "set_num_threads": [{"n": one_of(1, 2)}],
    "use_isa": [{"name": one_of(*rc.available_isas())}],
    "metrics.bleu": [
        {
            "references": lambda c: [[list("abcde")], [list("ab")]],
            "candidates": lambda c: [list("abcd"), list("ab")],
            "order": value(2),
        }
    ],
    "metrics.edit_distance": [{"wanted": lambda c: [1, 2, 3], "predicted": lambda c: [2, 3]}],
    "metrics.label_error_rate": [{"wanted": lambda c: [[1, 2], [3]], "predicted": lambda c: [[2], [3, 3]]}],
    "metrics.entities": [{"tags": lambda c: ["B-a", "I-a", "O"]}],
    "metrics.entity_score": [
        {"wanted": lambda c: [["B-a", "O"]], "predicted": lambda c: [["B-a", "B-b"]], "kind": one_of(None, "a")}
    ],
    "testing.Pair": [{"original": value(1.0), "replacement": value(0.5)}],
    "testing.assert_gradients": [
        {
            "loss": lambda c: lambda: 1.0,
            "parameters": lambda c: {"W": np.zeros(2)},
            "gradients": lambda c: {"W": np.zeros(2)},
            "directions": one_of(None, 1),
            **{name: value(1e-5) for name in ("step", "rtol", "atol")},
            "random_state": value(0),
        }
    ],
    "testing.assert_same_results": [
        {"found": lambda c: {"a": np.ones(2)}, "wanted": lambda c: {"a": np.ones(2)}, "tolerance": value(1e-3)}
    ],
    "testing.benchmark_pair": [
        {
            "original": lambda c: lambda: 1.0,
            "replacement": lambda c: lambda: 1.0,
            "seconds": value(1e-5),
            "tolerance": value(1e-3),
        }
    ],
    "testing.interleaved_medians": [{"calls": lambda c: [lambda: 1.0, lambda: 2.0], "seconds": value(1e-5)}],
}

# ---- other libraries --------------------------------------------------------------------------------------------


def keras_arrays(c):
    return [[c.array(D, 3 * H), c.array(H, 3 * H), c.array(2, 3 * H)]]


def gru_after():
    return rc.GRU(D, H, form="reset_after", update="old", seed=0)


def onnx_model():
    from rnncore.interop import onnx

    return onnx.to_onnx(rc.LSTM(D, H, seed=0)).SerializeToString()


def onnx_file(c):
    return c.file(copy_of(onnx_model)(c))


def operator():
    from rnncore.interop import onnx

    rng = np.random.default_rng(0)
    return onnx.Operator("LSTM", rng.normal(size=(1, 4 * H, D)), rng.normal(size=(1, 4 * H, H)))


def coupled():
    from rnncore.interop import onnx

    rng = np.random.default_rng(0)
    W, R = rng.normal(size=(1, 4 * H, D)), rng.normal(size=(1, 4 * H, H))
    return onnx.Operator("LSTM", W, R, attributes={"input_forget": 1, "clip": 0.5})


OPERATORS = [copy_of(operator), copy_of(coupled)]


def saved_layer(c):
    from rnncore.interop import safetensors

    from .context import saved

    return c.file(saved(_save_layer) if safetensors else b"")


def _save_layer(path):
    from rnncore.interop import safetensors

    safetensors.save(gru_after(), path)


def a_path(c):
    return str(c.directory / "written")


INTEROP = {
    "interop.keras.from_keras": [
        {
            "sources": keras_arrays,
            "cell": one_of(None, "gru"),
            "activation": one_of(None, "tanh"),
            "reset_after": one_of(None, True),
            "bidirectional": one_of(None, False),
            "batch_first": FLAG,
            "dtype": one_of(None, "float32"),
        }
    ],
    "interop.keras.to_keras": [{"layer": copy_of(gru_after), "number": one_of(None, 0)}],
    "interop.state_dict.from_layer": [{"layer": copy_of(gru_after)}],
    "interop.state_dict.load": [
        {"layer": copy_of(gru_after), "arrays": lambda c: state_dict.from_layer(gru_after()), "prefix": value("")}
    ],
    "interop.state_dict.to_layer": [
        {
            "arrays": lambda c: state_dict.from_layer(gru_after()),
            "prefix": value(""),
            "nonlinearity": one_of("tanh", "relu"),
            "batch_first": FLAG,
            "dropout": value(0.0),
            "dtype": one_of(None, "float64"),
        }
    ],
    "interop.safetensors.load": [{"path": saved_layer, "prefix": value("")}],
    "interop.safetensors.load_into": [{"layer": copy_of(gru_after), "path": saved_layer, "prefix": value("")}],
    "interop.safetensors.save": [{"layer": copy_of(gru_after), "path": a_path}],
    "interop.onnx.Operator": [
        {
            "op_type": value("LSTM"),
            "W": real(1, 4 * H, D),
            "R": real(1, 4 * H, H),
            "B": real(1, 8 * H),
            "P": real(1, 3 * H),
            "attributes": lambda c: {"hidden_size": H, "direction": "forward", "layout": 0, "clip": 0.5},
            "name": value("node"),
            "sequence_lens": lambda c: c.ids(T + 1, N).astype(np.int32),
            "initial_h": real(1, N, H),
            "initial_c": real(1, N, H),
        }
    ],
    "interop.onnx.Operator.__call__": [
        {"x": real(T, N, D), "state": lambda c: (c.array(1, N, H), c.array(1, N, H)), "lengths": ids(T + 1, N)}
    ],
    "interop.onnx.Operator.quantize": PRECISION,
    "interop.onnx.Operator.run": [
        {
            "X": real(T, N, D),
            "sequence_lens": lambda c: c.ids(T + 1, N).astype(np.int32),
            "initial_h": real(1, N, H),
            "initial_c": real(1, N, H),
        }
    ],
    "interop.onnx.from_onnx": [{"source": onnx_file, "name": value(None), "weights": value(None)}],
    "interop.onnx.operators": [{"source": onnx_file, "weights": value(None)}],
    "interop.onnx.step_by_step": [
        {
            "operator": lambda c: c.rng.choice(OPERATORS)(c),
            "direction": value(0),
            "x": real(T, N, D),
            "h0": real(N, H),
            "c0": real(N, H),
            "lengths": ids(T + 1, N),
            "reverse": FLAG,
        }
    ],
    "interop.onnx.to_onnx": [
        {
            "layer": layer_of("LSTM", "GRU"),
            "opset": value(17),
            "name": value("model"),
            "with_state": FLAG,
            "with_lengths": FLAG,
        }
    ],
}

RECIPES = CELLS | LAYER_RECIPES | FUNCTIONS | INTEROP | MODELS | COMPAT


def stream(c):
    return layer_of("Frozen")(c).stream(N)


def optimizer(name):
    return lambda c: getattr(rc, name)({"W": c.array(D, H), "b": c.array(H)})


RECEIVERS = {
    **{name: layer_of(name) for name in LAYERS},
    **{name: optimizer(name) for name in NAMES},
    "Vocabulary": copy_of(vocabulary),
    "layers.stream.Stream": stream,
    "interop.onnx.Operator": lambda c: c.rng.choice(OPERATORS)(c),
    **MODEL_RECEIVERS,
    **COMPAT_RECEIVERS,
}
