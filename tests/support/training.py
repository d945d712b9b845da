"""Models on small data, and what tests of ``fit`` ask of them."""

import numpy as np
import pytest

import rnncore as rc

rng = np.random.default_rng(0)
TEXTS = ["".join(rng.choice(list("abc"), size=n)) for n in rng.integers(0, 9, size=23)]
TAGS = [[c == "a" for c in text] for text in TEXTS]
CLASSES = ["pq"["a" in text] for text in TEXTS]
LINES = "the cat sat on the mat. " * 12

# name -> (class, X, y)
MODELS = {
    "tagger": (rc.SequenceTagger, TEXTS, TAGS),
    "classifier": (rc.SequenceClassifier, TEXTS, CLASSES),
    "generator": (rc.SequenceGenerator, TEXTS, CLASSES),
    "seq2seq": (rc.EncoderDecoder, TEXTS, [text[::-1] for text in TEXTS]),
    "transcriber": (rc.SequenceTranscriber, TEXTS, [text[::2] for text in TEXTS]),
    "language": (rc.LanguageModel, LINES, None),
}
each_model = pytest.mark.parametrize("name", MODELS)


def make(name, **settings):
    defaults = {"hidden_size": 4, "epochs": 2, "batch_size": 5, "dtype": "float64"}
    defaults |= {"seed" if name == "language" else "random_state": 3}
    defaults |= {"chunk_length": 9} if name == "language" else {}
    return MODELS[name][0](**defaults | settings)


def fit(model, held_out=False, **options):
    """On the data of the model; held_out: the same data again, reversed."""
    _, X, y = next(entry for entry in MODELS.values() if entry[0] is type(model))
    if isinstance(model, rc.LanguageModel):
        return model.fit(X, X[::-1] if held_out else None, **options)
    return model.fit(X, y, **({"validation": (X[::2], y[::2])} if held_out else {}), **options)


def parameters(model):
    return {key: p.copy() for key, p in model.params.items()}


def assert_same(params, others):
    assert params.keys() == others.keys()
    for key, p in params.items():
        np.testing.assert_array_equal(p, others[key], err_msg=key)


def differ(params, others):
    return any(not np.array_equal(p, others[key]) for key, p in params.items())


def tokens_of(name):
    """Steps of an epoch."""
    count = sum(map(len, TEXTS))
    ends = {"generator": len(TEXTS), "seq2seq": count + len(TEXTS), "language": len(LINES) // 5 * 5 - count}
    return count + ends.get(name, 0)


def scripted(model, monkeypatch, losses):
    """Held-out losses as they are wanted, epoch by epoch."""
    losses = iter(losses)
    method = "_nats" if isinstance(model, rc.LanguageModel) else "_mean_loss"
    monkeypatch.setattr(model, method, lambda *data: next(losses))
