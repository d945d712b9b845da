"""Every model against the same network in PyTorch: the loss of a batch and the gradient of every parameter."""

import numpy as np
import pytest
from support.compare import TOLERANCE

import rnncore as rc
from rnncore.bench.twins import TorchModel

torch = pytest.importorskip("torch")

GRU = {"cell": "gru", "cell_options": {"form": "reset_after", "update": "old"}}
TEXTS = ["abcab", "ba", "caabcb", "c", "bb", "cabb"]
LETTERS = np.array([[0.3, -1.2], [0.9, 0.1], [-0.7, 2.0]])
FEATURES = [LETTERS[[ord(c) - ord("a") for c in text]] for text in TEXTS]
CLASSES = [3, 1, 2, 1, 3, 3]
STEPS = [list(text) for text in TEXTS]
NOTES = [(features > 0).astype(int) for features in FEATURES]

CASES = {
    "classifier": (rc.SequenceClassifier, TEXTS, CLASSES, {}),
    "classifier-mean": (rc.SequenceClassifier, FEATURES, CLASSES, {"pooling": "mean", "num_layers": 2}),
    "classifier-gru": (rc.SequenceClassifier, TEXTS, CLASSES, {"class_weight": {3: 0.2, 1: 3, 2: 1}, **GRU}),
    "classifier-forward": (rc.SequenceClassifier, TEXTS, CLASSES, {"bidirectional": False, "embedding_size": 0}),
    "tagger": (rc.SequenceTagger, TEXTS, STEPS, {"num_layers": 2}),
    "tagger-crf": (rc.SequenceTagger, TEXTS, STEPS, {"output": "crf", "num_layers": 2}),
    "tagger-crf-weights": (
        *(rc.SequenceTagger, TEXTS, STEPS),
        {"output": "crf", "class_weight": {"a": 5, "b": 0.5, "c": 1}},
    ),
    "tagger-weights": (rc.SequenceTagger, FEATURES, STEPS, {"class_weight": "balanced", "cell": "rnn"}),
    "tagger-binary": (rc.SequenceTagger, TEXTS, [[c == "a" for c in text] for text in TEXTS], {"output": "sigmoid"}),
    "tagger-labels": (rc.SequenceTagger, TEXTS, NOTES, {"output": "sigmoid", **GRU}),
    "generator": (rc.SequenceGenerator, TEXTS, None, {}),
    "generator-classes": (rc.SequenceGenerator, TEXTS, CLASSES, {"num_layers": 2}),
    "generator-classes-gru": (rc.SequenceGenerator, TEXTS, CLASSES, {"num_layers": 2, **GRU}),
    "generator-notes": (rc.SequenceGenerator, NOTES, None, {}),
    "transcriber": (rc.SequenceTranscriber, TEXTS, [text[::2] for text in TEXTS], {"num_layers": 2}),
    "transcriber-gru": (
        rc.SequenceTranscriber,
        FEATURES,
        [text[::2] for text in TEXTS],
        {**GRU, "bidirectional": False},
    ),
    "encoder-decoder": (rc.EncoderDecoder, TEXTS, TEXTS[::-1], {"num_layers": 2}),
    "encoder-decoder-both": (rc.EncoderDecoder, TEXTS, TEXTS[::-1], {"num_layers": 2, "bidirectional": True}),
    "encoder-decoder-additive": (rc.EncoderDecoder, TEXTS, TEXTS[::-1], {"attention": "additive"}),
    "encoder-decoder-multiplicative": (
        *(rc.EncoderDecoder, FEATURES, TEXTS[::-1]),
        {"attention": "multiplicative", "bidirectional": True, "num_layers": 2},
    ),
    "encoder-decoder-gru": (rc.EncoderDecoder, FEATURES, TEXTS[::-1], {"bidirectional": True, **GRU}),
}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "sample_weight"])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients(case, weighted, dtype):
    kind, X, y, settings = CASES[case]
    settings = {"hidden_size": 5, "embedding_size": 4, "epochs": 1, "dtype": dtype, "random_state": 0} | settings
    model = kind(**settings).fit(X, y)
    examples, _ = model._prepare(X, y, None, [2, 1, 0.5, 3, 1, 4] if weighted else None, None)
    rng = np.random.default_rng(1)
    for p in model.params.values():
        p[...] = 0.5 * rng.normal(size=p.shape)
    (batch,) = model._batches(examples, len(X))
    loss = model.loss_and_gradients(*batch.arguments)

    other = TorchModel(model)
    theirs = other.loss(*map(other.tensor, batch.arguments))
    theirs.backward()
    np.testing.assert_allclose(loss, theirs.item(), rtol=TOLERANCE[dtype])
    gradients = other.arrays(of=lambda p: torch.zeros_like(p) if p.grad is None else p.grad)
    for name, wanted in gradients.items():
        scale = max(np.abs(wanted).max(), 0.1)
        np.testing.assert_allclose(model.grads[name], wanted, rtol=0, atol=TOLERANCE[dtype] * scale, err_msg=name)
    for name, value in other.arrays().items():
        np.testing.assert_array_equal(value, model.params[name], err_msg=name)
