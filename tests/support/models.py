"""Small models of every kind, and data for them."""

import numpy as np
import pytest

import rnncore as rc

MODELS = {
    "tagger": rc.SequenceTagger,
    "classifier": rc.SequenceClassifier,
    "generator": rc.SequenceGenerator,
    "seq2seq": rc.EncoderDecoder,
    "transcriber": rc.SequenceTranscriber,
}

KINDS = ("text", "tokens", "ids", "features")
LABELS = {"str": ["p", "q", "rr"], "int": [3, -1, 7], "bool": [True, False], "float": [0.0, 2.0, -1.0]}
TEXTS = ["abca", "b", "", "cab", "bbacca", "ac", "ca"]

# float64, sums of tens of terms of scale 1 in another order
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def inputs_of(kind, texts=TEXTS, binary=False):
    """The texts, or ids or features that stand for their characters."""
    if kind == "text":
        return list(texts)
    if kind == "tokens":
        return [list(text) for text in texts]
    ids = [np.array(["abc".index(c) for c in text], int) for text in texts]
    if kind == "ids":
        return ids
    table = [[1, 0], [0, 1], [1, 1]] if binary else [[0.3, -1.2], [0.9, 0.1], [-0.7, 2.0]]
    return [np.array(table, float)[i] for i in ids]


def targets_of(name, kind, labels="str", texts=TEXTS):
    classes = LABELS[labels]
    if name == "tagger":
        return [[classes["abc".index(c) % len(classes)] for c in text] for text in texts]
    if name == "transcriber":
        # Every other label, so that repetitions fit.
        return [[classes["abc".index(c) % len(classes)] for c in text[::2]] for text in texts]
    if name == "seq2seq":
        return inputs_of("text" if kind == "features" else kind, [text[::-1] + "a" * (len(text) % 3) for text in texts])
    return [classes[n % len(classes)] for n in range(len(texts))]


def make(name, X, y, *, spread=0.5, **settings):
    """A model that was fitted for an epoch, its parameters then moved at random, so that none is zero or symmetric."""
    common = {"hidden_size": 3, "embedding_size": 2, "epochs": 1, "batch_size": 3, "random_state": 1}
    model = MODELS[name](**common | {"dtype": "float64"} | settings).fit(X, y)
    rng = np.random.default_rng(2)
    for p in model.params.values():
        p += (spread * rng.normal(size=p.shape)).astype(p.dtype)
    return model


def make_of(name, kind, labels="str", **settings):
    X, y = inputs_of(kind, binary=name == "generator"), targets_of(name, kind, labels)
    return make(name, X, y, **{"level": "word" if kind == "tokens" else "char"} | settings), X, y


def results_of(model, X, y):
    """-> for every sequence all that the model says of it."""
    if isinstance(model, rc.EncoderDecoder):
        return list(zip(model.predict(X), model.predict(X, beam_width=3), model.log_prob(X, y), strict=True))
    if isinstance(model, rc.SequenceGenerator):
        return list(zip(model.predict(X, y), model.predict_proba(X, y), model.log_prob(X, y), strict=True))
    results = [model.predict(X), model.predict_proba(X)]
    if isinstance(model, rc.SequenceTranscriber):
        results += [model.predict(X, beam_width=3), model.log_prob(X, y)]
    return list(zip(*results, strict=True))


def assert_equal(got, wanted):
    """To the bit, and of the same type."""
    for g, w in zip(got, wanted, strict=True):
        for one, other in zip(g, w, strict=True):
            assert type(one) is type(other)
            assert np.asarray(one).dtype == np.asarray(other).dtype
            np.testing.assert_array_equal(one, other)


def assert_same_parameters(model, other):
    assert model.params.keys() == other.params.keys()
    for key, p in model.params.items():
        np.testing.assert_array_equal(p, other.params[key], err_msg=key, strict=True)


each_model_and_kind = pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in MODELS for kind in KINDS], ids=lambda value: value
)

T, N, D, V, C, K = 4, 4, 4, 5, 3, 2
LENGTHS, OTHER_LENGTHS = np.array([4, 0, 2, 3]), np.array([2, 4, 1, 3])


def steps(rng, kind, lengths=LENGTHS):
    """A batch with garbage in its padding: NaN, or ids that mean another thing."""
    if kind == "ids":
        return rng.integers(V, size=(T, N))
    x = rng.normal(size=(T, N, D)) if kind == "features" else rng.integers(2, size=(T, N, D)).astype(float)
    x[np.arange(T)[:, None] >= lengths] = np.nan
    return x


GOOD = {name: (inputs_of("text"), targets_of(name, "text")) for name in MODELS}
