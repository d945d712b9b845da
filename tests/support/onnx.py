"""Random operators of ONNX, and ONNX Runtime to run them."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from rnncore.interop.onnx import Operator  # noqa: E402

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
T, N, D, H = 6, 3, 4, 5
LENGTHS = np.array([2, 6, 5], np.int32)


def make(op_type, attributes=None, *, B=True, P=False, dtype="float32", scale=0.5, cls=Operator, seed=0, **options):
    """An operator with random weights."""
    rng = np.random.default_rng(seed)
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


def runtime(model, arguments):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, arguments)


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
