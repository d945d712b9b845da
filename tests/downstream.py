"""Code of a user: it runs, and a strict type checker finds what is wrong in its last lines and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import rnncore as rc
from rnncore.compat import coursera, cs231n, dlfs2
from rnncore.interop import keras, state_dict

Float32 = NDArray[np.float32]

rng = np.random.default_rng(0)


def normal(*shape: int) -> Float32:
    return rng.normal(size=shape).astype(np.float32)


# The six functions.
x, Wx, Wh, b = normal(7, 2, 3), normal(3, 20), normal(5, 20), normal(20)
h, (h_n, c_n), cache = rc.lstm_forward(x, Wx, Wh, b, lengths=[7, 3])
gradients = rc.lstm_backward(np.ones_like(h), cache, dc_n=c_n)
total = float(gradients.dWx.sum() + h_n.sum())
h, h_gru, gru_cache = rc.gru_forward(x, Wx[:, :15], Wh[:, :15], b[:15], form="reset_after", update="old")
dWh: NDArray[np.generic] = rc.gru_backward(h, gru_cache).dWh
h, h_rnn, rnn_cache = rc.rnn_forward(x, Wx[:, :5], Wh[:, :5], b[:5], activation="relu", training=False)

# Weights gate by gate.
joined = rc.join_gates({"z": x[0], "n": x[0]}, None, {"z": x[0, 0], "n": x[0, 0]})
parts = rc.split_gates(Wx, Wh, b, gate_order="ifog")
bias_of_f: NDArray[np.generic] = parts[2]["f"]

# Layers.
layer = rc.LSTM(3, 5, num_layers=2, bidirectional=True, dropout=0.1, seed=0)
y, state, layer_cache = layer.forward(x)
dx, dstate = layer.backward(np.ones_like(y), layer_cache)
dense = rc.Dense(10, 4)
optimizer = rc.Adam({**layer.params, **dense.params}, learning_rate=1e-3)
norm = optimizer.step({**layer.grads, **dense.grads}, clip_norm=5.0)
stream = rc.GRU(3, 5).stream(batch_size=2)
step: NDArray[np.generic] = stream.step(x[0])

# Losses, text, models, metrics.
loss, dlogits = rc.softmax_cross_entropy(normal(7, 2, 4), rng.integers(4, size=(7, 2)))
vocabulary = rc.Vocabulary.from_text("some text", level="char")
ids: NDArray[np.int64] = vocabulary.encode("text")
model = rc.LanguageModel(cell="gru", hidden_size=8, epochs=1).fit("some text " * 100)
text: str = model.sample(10)
classifier = rc.SequenceClassifier(level="word").fit(["a b", "c d"], ["+", "-"])
accuracy: float = classifier.score(["a b"], ["+"])
score: float = rc.metrics.bleu([[["a", "b"]]], [["a", "b"]])

# Drop-ins and the bridges to frameworks.
hs, cs_cache = cs231n.lstm_forward(x, normal(7, 5), Wx, Wh, b)
time_lstm = dlfs2.TimeLSTM(Wx, Wh, b, stateful=True)
parameters = {"Wax": normal(5, 3), "Waa": normal(5, 5), "ba": normal(5, 1), "Wya": normal(4, 5), "by": normal(4, 1)}
a, y_hat, caches = coursera.rnn_forward(normal(3, 2, 7), normal(5, 2), parameters)
other = state_dict.to_layer(state_dict.from_layer(layer))
arrays = keras.to_keras(rc.GRU(3, 5))

if TYPE_CHECKING:
    # The checker must object to each line: an ignored error that is not there is an error itself.
    rc.lstm_forward(x, Wx, Wh, b, output_activation="relu")  # type: ignore[arg-type]
    rc.gru_forward(x, Wx, Wh)  # type: ignore[call-arg]
    rc.RNN(3, 5, activation="swish")  # type: ignore[arg-type]
    rc.Adam(layer.params, rate=1e-3)  # type: ignore[call-arg]
    rc.LanguageModel(level="syllable")  # type: ignore[arg-type]
    wrong: str = rc.metrics.bleu([], [])  # type: ignore[assignment]
