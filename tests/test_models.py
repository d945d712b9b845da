"""Tagger, classifier, generator and encoder-decoder: gradients, probabilities, bad input, files, scikit-learn."""

import json
import warnings

import numpy as np
import pytest
from gradcheck import ATOL, RTOL, numeric_gradient

import rnncore as rc

MODELS = {
    "tagger": rc.SequenceTagger,
    "classifier": rc.SequenceClassifier,
    "generator": rc.SequenceGenerator,
    "seq2seq": rc.EncoderDecoder,
}
KINDS = ("text", "tokens", "ids", "features")
LABELS = {"str": ["p", "q", "rr"], "int": [3, -1, 7], "bool": [True, False], "float": [0.5, 2.0, -1.25]}
TEXTS = ["abca", "b", "", "cab", "bbacca", "ac", "ca"]

# float64, sums of tens of terms of scale 1 in another order
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


# ---- data and models ------------------------------------------------------------------------------------------------


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


def targets_of(name, kind, labels="str"):
    classes = LABELS[labels]
    if name == "tagger":
        return [[classes["abc".index(c) % len(classes)] for c in text] for text in TEXTS]
    if name == "seq2seq":
        return inputs_of("text" if kind == "features" else kind, [text[::-1] + "a" * (len(text) % 3) for text in TEXTS])
    return [classes[n % len(classes)] for n in range(len(TEXTS))]


def make(name, X, y, **settings):
    """A model that was fitted for an epoch, its parameters then moved at random, so that none is zero or symmetric."""
    common = {"hidden_size": 3, "embedding_size": 2, "epochs": 1, "batch_size": 3, "random_state": 1}
    model = MODELS[name](**common | {"dtype": "float64"} | settings).fit(X, y)
    rng = np.random.default_rng(2)
    for p in model.params.values():
        p += (0.5 * rng.normal(size=p.shape)).astype(p.dtype)
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
    return list(zip(model.predict(X), model.predict_proba(X), strict=True))


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


def padded(sequences, fill):
    """-> array (N, T, ...) with ``fill`` after the ends, lengths (N,)"""
    batch, lengths = rc.pad(sequences, padding=fill)
    return batch.swapaxes(0, 1), lengths


each_model_and_kind = pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in MODELS for kind in KINDS], ids=lambda value: value
)


# ---- gradients ------------------------------------------------------------------------------------------------------

T, N, D, V, C, K = 4, 4, 4, 5, 3, 2
LENGTHS, OTHER_LENGTHS = np.array([4, 0, 2, 3]), np.array([2, 4, 1, 3])
TRAINING = {
    "ids": [np.arange(V), [], np.arange(V)[::-1]],
    "features": [np.ones((V, D)), [], np.zeros((V, D))],
    "vectors": [np.eye(V)[:, :D], [], np.zeros((V, D))],
}
CELLS = {
    "lstm": {},
    "gru": {"cell": "gru"},
    "rnn": {"cell": "rnn"},
    "deep": {"num_layers": 2, "cell": "gru"},
    "both": {"num_layers": 2, "bidirectional": True},
    "dropout": {"num_layers": 2, "dropout": 0.4, "recurrent_dropout": 0.4},
}


def steps(rng, kind, lengths=LENGTHS):
    """A batch with garbage in its padding: NaN, or ids that mean another thing."""
    if kind == "ids":
        return rng.integers(V, size=(T, N))
    x = rng.normal(size=(T, N, D)) if kind == "features" else rng.integers(2, size=(T, N, D)).astype(float)
    x[np.arange(T)[:, None] >= lengths] = np.nan
    return x


def numbers(rng, high, lengths=LENGTHS):
    targets = rng.integers(high, size=(T, N))
    targets[np.arange(T)[:, None] >= lengths] = -7
    return targets


def check_gradients(model, *arguments):
    # A state whose masks leave units of every layer.
    state = np.random.default_rng(8).bit_generator.state

    def loss():
        # Trunk, head and recurrent layers draw their masks from one generator.
        model._rng.bit_generator.state = state
        return [np.array(model.loss_and_gradients(*arguments))]

    assert np.isfinite(loss()[0])
    gradients = {key: grad.copy() for key, grad in model.grads.items()}
    assert gradients.keys() == model.params.keys()
    for key, p in model.params.items():
        kept = p.copy()

        def loss_of(p, key=key):
            model.params[key][...] = p
            return loss()

        numeric = numeric_gradient(loss_of, {"p": kept}, "p", [np.array(1.0)])
        p[...] = kept
        assert np.abs(numeric).max() > 1e-5, f"{key} must matter"
        tolerance = RTOL * np.abs(numeric).max() + ATOL
        np.testing.assert_allclose(gradients[key], numeric, rtol=0, atol=tolerance, err_msg=key)


@pytest.mark.parametrize("settings", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("head", ["softmax", "binary", "labels"])
@pytest.mark.parametrize("kind", ["ids", "one-hot", "features"])
def test_gradients_of_the_tagger(kind, head, settings):
    rng = np.random.default_rng(3)
    settings = {"bidirectional": False, "output": "softmax" if head == "softmax" else "sigmoid"} | settings
    settings |= {"embedding_size": 0} if kind == "one-hot" else {}
    X = TRAINING["ids" if kind == "one-hot" else kind]
    if head == "labels":
        y = [np.ones((V, K), int), [], np.zeros((V, K), int)]
        targets = rng.integers(2, size=(T, N, K)).astype(float)
        targets[np.arange(T)[:, None] >= LENGTHS] = np.nan
        weights = None
    else:
        classes = C if head == "softmax" else 2
        y = [np.arange(V) % classes, [], np.arange(V) % classes]
        targets = numbers(rng, classes)
        weights = np.array([0.0, 2.5, 0.5])[np.maximum(targets, 0)]
    model = make("tagger", X, y, **settings)
    check_gradients(model, steps(rng, "features" if kind == "features" else "ids"), targets, LENGTHS, weights)


@pytest.mark.parametrize("settings", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("kind", ["ids", "features"])
def test_gradients_of_the_classifier(kind, pooling, settings):
    rng = np.random.default_rng(4)
    settings = {"bidirectional": False, "pooling": pooling} | settings
    model = make("classifier", TRAINING[kind], [0, 1, 2], **settings)
    weights = None if kind == "ids" else np.array([0.5, 1.5, 0.0, 3.0])
    check_gradients(model, steps(rng, kind), np.array([2, 0, 1, 1]), LENGTHS, weights)
    check_gradients(model, steps(rng, kind, np.full(N, T)), np.array([2, 0, 1, 1]))


@pytest.mark.parametrize("case", ["lstm", "gru", "rnn", "deep", "dropout"])
@pytest.mark.parametrize("labels", [None, [0, 1, 2]], ids=["plain", "classes"])
@pytest.mark.parametrize("kind", ["ids", "vectors"])
def test_gradients_of_the_generator(kind, labels, case):
    rng = np.random.default_rng(5)
    model = make("generator", TRAINING[kind], labels, **CELLS[case])
    assert ("start.W" in model.params) == (labels is not None)
    targets = numbers(rng, V + 1) if kind == "ids" else steps(rng, kind)
    # A class that stands twice, and one for the sequence without steps only.
    numbers_of_classes = None if labels is None else np.array([2, 0, 2, 1])
    check_gradients(model, steps(rng, kind), targets, LENGTHS, numbers_of_classes)


@pytest.mark.parametrize(
    "settings",
    [
        *({"cell": cell, "bidirectional": both} for cell in ("lstm", "gru", "rnn") for both in (False, True)),
        {"num_layers": 2, "bidirectional": True},
        {"num_layers": 2, "cell": "gru", "reverse_source": True},
        {"num_layers": 2, "dropout": 0.4, "recurrent_dropout": 0.4, "bidirectional": True},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
@pytest.mark.parametrize("kind", ["ids", "features"])
def test_gradients_of_the_encoder_decoder(kind, settings):
    rng = np.random.default_rng(6)
    model = make("seq2seq", TRAINING[kind], [np.arange(V), [], [1]], **settings)
    inputs, targets = rng.integers(V + 1, size=(T, N)), numbers(rng, V + 1, OTHER_LENGTHS)
    check_gradients(model, steps(rng, kind), inputs, targets, LENGTHS, OTHER_LENGTHS)


def test_padding_of_ids_changes_nothing():
    rng = np.random.default_rng(7)
    model = make("tagger", TRAINING["ids"], [np.arange(V), [], np.arange(V)])
    ids, targets = steps(rng, "ids"), numbers(rng, V)
    wanted = model.loss_and_gradients(ids, targets, LENGTHS)
    gradients = {key: grad.copy() for key, grad in model.grads.items()}
    ids[np.arange(T)[:, None] >= LENGTHS] += 1
    ids %= V
    assert model.loss_and_gradients(ids, targets, LENGTHS) == wanted
    for key, grad in model.grads.items():
        np.testing.assert_array_equal(grad, gradients[key])


# ---- what the models compute, by the layers one step at a time ------------------------------------------------------


def log_softmax(logits):
    return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())


def next_logits(embedding, recurrent, dense, state, inputs):
    """Logits (T, V) after each step, fed one by one."""
    rows = []
    for step in inputs:
        x = np.asarray(step)[None, None]
        h, state = recurrent(x if embedding is None else embedding(x), state)
        rows.append(dense(h)[0, 0])
    return np.array(rows)


def sum_of_log_probs(logits, ids):
    return sum(log_softmax(row)[i] for row, i in zip(logits, ids, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"cell": "gru", "num_layers": 2, "reverse_source": True},
        {"num_layers": 2, "bidirectional": True},
        {"cell": "rnn", "bidirectional": True, "embedding_size": 0},
        {"cell": "mingru", "bidirectional": True},
    ],
    ids=["lstm", "gru-2-reversed", "lstm-2-both", "rnn-both-one-hot", "mingru-both"],
)
def test_log_prob_of_the_encoder_decoder(kind, settings):
    model, X, y = make_of("seq2seq", kind, **settings)
    layers = model.layers
    wanted = []
    for source, target in zip(X, y, strict=True):
        ids = source if model.source_vocabulary is None else model.source_vocabulary.encode(source)
        ids = ids[::-1] if model.reverse_source else ids
        x = np.asarray(ids)[:, None]
        _, state = layers["encoder"](layers["source_embedding"](x) if "source_embedding" in layers else x)
        if model.bidirectional:
            states = []
            for letter, array in zip("hc", state if isinstance(state, tuple) else (state,), strict=False):
                sides = [np.concatenate([array[2 * n], array[2 * n + 1]], axis=1) for n in range(model.num_layers)]
                states.append(np.stack([layers[f"bridge_{letter}"](side) for side in sides]))
            state = tuple(states) if len(states) > 1 else states[0]
        vocabulary = model.target_vocabulary
        tokens, end = (target, 3) if vocabulary is None else (vocabulary.encode(target), vocabulary.eos_id)
        decoder = layers.get("target_embedding"), layers["decoder"], layers["output"]
        wanted.append(sum_of_log_probs(next_logits(*decoder, state, [end, *tokens]), [*tokens, end]))
    np.testing.assert_allclose(model.log_prob(X, y), wanted, **CLOSE)


@pytest.mark.parametrize("classes", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("settings", [{}, {"cell": "gru", "num_layers": 2}], ids=["lstm", "gru-2"])
def test_log_prob_of_the_generator(kind, classes, settings):
    X, y = inputs_of(kind, binary=True), targets_of("generator", kind) if classes else None
    model = make("generator", X, y, level="word" if kind == "tokens" else "char", **settings)
    layers = model.layers
    wanted = []
    for n, sequence in enumerate(X):
        state = None
        if classes:
            start = layers["start"](np.array([sorted(LABELS["str"]).index(y[n])]))
            start = start.reshape(-1, model.num_layers, 1, 3)  # h, and c
            state = start[0] if settings else tuple(start)
        parts = layers.get("embedding"), layers["recurrent"], layers["output"], state
        if kind == "features":
            shifted = np.vstack([np.zeros((1, 2)), sequence])[:-1]
            logits = next_logits(*parts, shifted).reshape(-1, 2)
            p = 1 / (1 + np.exp(-logits))
            wanted.append(np.log(np.where(sequence == 1, p, 1 - p)).sum())
            continue
        ids, end = sequence, 3
        if model.vocabulary is not None:
            ids, end = model.vocabulary.encode(sequence), model.vocabulary.eos_id
        wanted.append(sum_of_log_probs(next_logits(*parts, [end, *ids]), [*ids, end]))
    np.testing.assert_allclose(model.log_prob(X, y), wanted, **CLOSE)
    count = sum(map(len, X)) + (0 if kind == "features" else len(X))
    np.testing.assert_allclose(model.score(X, y), np.sum(wanted) / count, **CLOSE)


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("settings", [{}, {"cell": "gru", "num_layers": 2}, {"bidirectional": False}])
def test_probabilities_of_the_classifier(pooling, settings):
    model, X, _ = make_of("classifier", "features", pooling=pooling, **settings)
    both = model.bidirectional
    for x, p in zip(X, model.predict_proba(X), strict=True):
        h, _ = model.layers["recurrent"](x[:, None])
        pooled = np.zeros(6 if both else 3)
        if len(x) and pooling == "mean":
            pooled = h[:, 0].mean(axis=0)
        elif len(x):
            pooled = np.append(h[-1, 0, :3], h[0, 0, 3:])
        np.testing.assert_allclose(p, np.exp(log_softmax(model.layers["output"](pooled))), **CLOSE)


@pytest.mark.parametrize("head", ["softmax", "binary", "labels", "one"])
def test_probabilities_of_the_tagger(head):
    X = inputs_of("features")
    y = {
        "softmax": targets_of("tagger", "features"),
        "binary": targets_of("tagger", "features", "bool"),
        "labels": [np.column_stack([np.arange(len(x)) % 2, np.arange(len(x)) % 3 == 0]).astype(int) for x in X],
        "one": [["always"] * len(x) for x in X],
    }[head]
    model = make("tagger", X, y, output="softmax" if head == "softmax" else "sigmoid", epochs=20, learning_rate=0.1)
    assert (
        model.classes_.tolist()
        == {
            "softmax": ["p", "q", "rr"],
            "binary": [False, True],
            "labels": [0, 1],
            "one": ["always"],
        }[head]
    )
    for x, p, predicted in zip(X, model.predict_proba(X), model.predict(X), strict=True):
        h, _ = model.layers["recurrent"](x[:, None])
        logits = model.layers["output"](h)[:, 0]
        if head == "softmax":
            wanted = np.array([np.exp(log_softmax(row)) for row in logits]).reshape(-1, 3)
        else:
            wanted = 1 / (1 + np.exp(-logits))
            wanted = {"binary": np.hstack([1 - wanted, wanted]), "labels": wanted, "one": 1 - wanted}[head]
        np.testing.assert_allclose(p, wanted, **CLOSE)
        likeliest = model.classes_[wanted.argmax(axis=1)] if head != "labels" else (wanted >= 0.5).astype(int)
        np.testing.assert_array_equal(predicted, likeliest, strict=True)
    right = np.concatenate([np.ravel(p == np.array(w)) for p, w in zip(model.predict(X), y, strict=True) if len(w)])
    assert model.score(X, y) == right.mean()


def test_a_single_class_is_certain():
    model = rc.SequenceTagger(output="sigmoid", hidden_size=4, epochs=30, learning_rate=0.1, random_state=0)
    model.fit(TEXTS, [["always"] * len(text) for text in TEXTS])
    assert min(p.min() for p in model.predict_proba(TEXTS) if len(p)) > 0.9


@pytest.mark.parametrize("label", [3, -1])
def test_generated_sequences_are_those_of_the_layers(label):
    """Temperature 0: what is likeliest at each step, by log_prob of all continuations."""
    model, _, _ = make_of("generator", "ids", "int", cell="gru")
    ids = [0, 2]
    while len(ids) < 12:
        ends = model.log_prob([ids], [label])[0]
        proba = model.predict_proba([ids], [label])[0][-1]
        token = int(proba.argmax())
        if token == 3:
            break
        ids.append(token)
        assert np.isfinite(ends)
    got = model.generate(10, label=label, seed=[0, 2], temperature=0)
    assert got.tolist() == ids[2:]
    vectors, _, _ = make_of("generator", "features", "int")
    piece = np.array([[1, 0]])
    for row in vectors.generate(6, label=label, seed=piece, temperature=0):
        np.testing.assert_array_equal(row, vectors.predict([np.vstack([piece, [[0, 0]]])], [label])[0][-1])
        piece = np.vstack([piece, row])


def test_generated_frequencies():
    """All logits from the bias: the draws are independent and their frequencies known."""
    n = 20_000
    model, _, _ = make_of("generator", "features", "int")
    for key, p in model.params.items():
        p[...] = [0.8, -0.5] if key == "output.b" else 0
    for temperature in (1.0, 0.5):
        wanted = 1 / (1 + np.exp(-np.array([0.8, -0.5]) / temperature))
        got = model.generate(n, label=3, temperature=temperature, random_state=0).mean(axis=0)
        # Five standard deviations of a mean of n draws.
        assert (np.abs(got - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / n)).all()
    model, _, _ = make_of("generator", "text", "int")
    for key, p in model.params.items():
        # <unk>, <eos>, c, b, a in some order: the tokens of the vocabulary decide
        p[...] = [9.0, -np.inf, 0.8, -0.5, 0.1] if key == "output.b" else 0
    text = model.generate(n, label=3, random_state=0)
    tokens = model.vocabulary.tokens[2:]
    wanted = np.exp([0.8, -0.5, 0.1]) / np.exp([0.8, -0.5, 0.1]).sum()
    got = np.array([text.count(token) for token in tokens]) / n
    assert len(text) == n
    assert (np.abs(got - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / n)).all()


# ---- consistency ----------------------------------------------------------------------------------------------------


@each_model_and_kind
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_sequence_does_not_depend_on_the_others(name, kind, dtype):
    model, X, y = make_of(name, kind, dtype=dtype)
    together = results_of(model, X, y)
    for n in range(len(X)):
        assert_equal(results_of(model, X[n : n + 1], y[n : n + 1]), together[n : n + 1])
    # More than go into one batch, in another order.
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(X)), 30))
    many = results_of(model, [X[n] for n in order], [y[n] for n in order])
    assert_equal(many, [together[n] for n in order])


@pytest.mark.parametrize("settings", [{"pooling": "mean"}, {"pooling": "mean", "bidirectional": False}])
def test_pooled_sequences_do_not_depend_on_the_others(settings):
    for size in (1, 4):
        model, X, y = make_of("classifier", "features", hidden_size=size, **settings)
        X = [np.resize(x, (13 * len(x), 2)) for x in X]
        together = results_of(model, X, y)
        for n in range(len(X)):
            assert_equal(results_of(model, X[n : n + 1], y[n : n + 1]), together[n : n + 1])


@each_model_and_kind
def test_probabilities_sum_to_one(name, kind):
    model, X, y = make_of(name, kind)
    if name == "seq2seq":
        # Sequences of at most 12 steps: all that end before, and those that go on.
        log_probs = model.log_prob(X, y)
        assert (log_probs < 0).all()
        return
    proba = model.predict_proba(X, y) if name == "generator" else model.predict_proba(X)
    steps = [len(x) for x in X]
    if (name, kind) == ("generator", "features"):
        assert [p.shape for p in proba] == [(n, 2) for n in steps]
        assert all(((p > 0) & (p < 1)).all() for p in proba)
        return
    rows = np.vstack(list(proba))
    np.testing.assert_allclose(rows.sum(axis=1), 1, **CLOSE)
    assert (rows > 0).all()
    if name != "classifier":
        assert [len(p) for p in proba] == [n + (name == "generator") for n in steps]


@each_model_and_kind
def test_no_sequences_and_empty_ones(name, kind):
    model, X, y = make_of(name, kind)
    assert results_of(model, [], []) == []
    empty = results_of(model, [X[2]] * 2, [y[2]] * 2)
    assert_equal(empty, [results_of(model, X, y)[2]] * 2)
    assert np.isfinite(np.asarray(empty[0][-1])).all()
    if name == "seq2seq":
        assert model.log_prob([], []).shape == (0,)
    elif name == "classifier":
        assert model.predict([]).shape == (0,)
        assert model.predict_proba([]).shape == (0, 3)
    elif name == "tagger":
        assert model.predict_proba([X[2]])[0].shape == (0, 3)
        assert model.predict([X[2]])[0].dtype == model.classes_.dtype
    wanted = "one step" if name in ("generator", "tagger") else "one sequence"
    with pytest.raises(ValueError, match=f"^X must hold at least {wanted}; got none"):
        model.score([], [])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["ids", "features"])
def test_padded_arrays_equal_lists(name, kind):
    settings = {"dtype": "float32", "hidden_size": 4, "epochs": 2, "batch_size": 3, "random_state": 0}
    X, y = inputs_of(kind, binary=name == "generator"), targets_of(name, kind, "int")
    wanted = MODELS[name](**settings).fit(X, y, validation=(X, y))
    # What stands in the padding is not looked at.
    batch, lengths = padded(X, 77 if kind == "ids" else np.nan)
    targets = padded(y, -5)[0] if name == "tagger" else y
    model = MODELS[name](**settings).fit(batch, targets, lengths=lengths, validation=(batch, targets, lengths))
    assert_same_parameters(model, wanted)
    assert model.history[-1]["held_out"] == wanted.history[-1]["held_out"]
    if name == "generator":
        np.testing.assert_array_equal(model.log_prob(batch, y, lengths=lengths), model.log_prob(X, y))
    else:
        for got, w in zip(model.predict(batch, lengths=lengths), model.predict(X), strict=True):
            np.testing.assert_array_equal(got, w)
    assert model.score(batch, targets, lengths=lengths) == model.score(X, y)
    full = batch[[4]]
    assert len(model.predict(full, y[4:5]) if name == "generator" else model.predict(full)) == 1


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("level", "X", "unknown", "unk"),
    [
        ("char", ["ab", "ba", "abab"], ["aXb", "Ybb"], ["a\ufffdb", "\ufffdbb"]),
        ("word", ["ab cd", "cd", "ab ab"], ["ab Xx cd", "Yy ab"], ["ab <unk> cd", "<unk> ab"]),
        ("word", [["a", "b"], ["b"], ["c", "a"]], [["a", "X", "c"], ["Y Z"]], [["a", "<unk>", "c"], ["<unk>"]]),
    ],
    ids=["characters", "words", "tokens"],
)
def test_what_was_not_in_training_is_unknown(name, level, X, unknown, unk):
    y = {"tagger": [[n % 2 for n in range(len(x.split() if level == "word" and isinstance(x, str) else x))] for x in X]}
    y = y.get(name, X if name == "seq2seq" else [0, 1, 0])
    model = make(name, X, y, level=level)
    labels = X[:2] if name == "seq2seq" else [0, 1]
    assert_equal(results_of(model, unknown, labels), results_of(model, unk, labels))
    other = results_of(model, X[:1] + unknown[1:], labels)[0]
    assert not all(np.array_equal(a, b) for a, b in zip(other, results_of(model, unknown, labels)[0], strict=True))


def test_words_of_a_text_with_lines():
    """A newline is a token of its own, as the vocabulary has it."""
    X, y = ["a b\nc", "b"], [[0, 1, 2, 0], [1]]
    model = make("tagger", X, y, level="word")
    assert [len(labels) for labels in model.predict(X)] == [4, 1]
    with pytest.raises(ValueError, match=r"^y\[0\] must have 4 labels, one a step of its sequence; got 3"):
        model.fit(X, [[0, 1, 0], [1]])


def test_settings_matter_from_the_next_fit_on(tmp_path):
    changes = {"hidden_size": 9, "num_layers": 2, "embedding_size": 7, "dtype": "float32", "cell": "gru"}
    own = {
        "tagger": {"output": "sigmoid", "bidirectional": False},
        "classifier": {"pooling": "mean", "bidirectional": False},
        "generator": {},
        "seq2seq": {"reverse_source": True, "bidirectional": True},
    }
    for name in MODELS:
        model, X, y = make_of(name, "text")
        wanted = results_of(model, X, y)
        model.set_params(**changes | own[name])
        assert_equal(results_of(model, X, y), wanted)
        model.save(tmp_path / "model.npz")
        assert_equal(results_of(rc.load(tmp_path / "model.npz"), X, y), wanted)


# ---- bad input ------------------------------------------------------------------------------------------------------


def is_as_before(model, before):
    """The same arrays with the same values, and nothing else changed."""
    if before is None:
        with pytest.raises(ValueError, match="^the model has no parameters yet: call fit first"):
            model.predict(["ab"])
        assert (model.params, model.layers, model.history) == (None, None, [])
        return
    params, values, history = before
    assert model.params is params
    assert model.history == history
    for key, p in params.items():
        np.testing.assert_array_equal(p, values[key])


GOOD = {name: (inputs_of("text"), targets_of(name, "text")) for name in MODELS}
STEPS = [["p"] * len(text) for text in TEXTS]
BAD_FITS = {
    "not a list": ("classifier", {"X": "abc"}, TypeError, r"X must be a list of sequences, or a padded array; got str"),
    "nothing": ("tagger", {"X": None}, TypeError, r"X must be a list of sequences, or a padded array; got NoneType"),
    "one row": ("classifier", {"X": np.ones(3)}, ValueError, r"X must be .* \(N, T\) or \(N, T, D\); got \(3,\)"),
    "empty": ("classifier", {"X": [], "y": []}, ValueError, "X must hold at least one sequence; got none"),
    "empty generator": ("generator", {"X": [], "y": None}, ValueError, "X must hold at least one sequence; got none"),
    "a number": (
        "classifier",
        {"X": [*TEXTS[:6], 3]},
        ValueError,
        r"X\[6\] must be \(T,\) or \(T, D\); got shape \(\)",
    ),
    "a number to tag": ("tagger", {"X": [*TEXTS[:6], 3]}, ValueError, r"X\[6\] must be \(T,\) or \(T, D\)"),
    "None among them": ("seq2seq", {"X": [None, *TEXTS[1:]]}, TypeError, r"X\[0\] must be str, .*; got NoneType"),
    "two kinds": ("classifier", {"X": [[1, 2], *TEXTS[1:]]}, TypeError, r"X\[1\] must be integers \(T,\).*; got str"),
    "features, text": (
        "classifier",
        {"X": [np.ones((2, 3)), *TEXTS[1:]]},
        TypeError,
        r"X\[1\] must be numbers \(T, D\).*; got str",
    ),
    "text, features": (
        "classifier",
        {"X": [*TEXTS[:6], np.ones((2, 3))]},
        TypeError,
        r"X\[6\] must be str.*; got numbers \(T, D\)",
    ),
    "text, tokens": ("seq2seq", {"y": [*TEXTS[:6], ["a"]]}, TypeError, r"y\[6\] must be str.*; got a list of str"),
    "tokens of characters": (
        "classifier",
        {"X": [list(text) for text in TEXTS]},
        ValueError,
        "X holds lists of tokens, so level must be 'word'; got 'char'",
    ),
    "widths": (
        "classifier",
        {"X": [*[np.ones((2, 3))] * 6, np.ones((2, 4))]},
        ValueError,
        r"X\[6\] must have 3 features a step as in training; got 4",
    ),
    "NaN": (
        "classifier",
        {"X": [*[np.ones((2, 2))] * 6, np.array([[0, 1], [2, np.nan]])]},
        ValueError,
        r"X\[6\] must be finite; got nan at step 1, feature 1",
    ),
    "negative id": (
        "classifier",
        {"X": [[0, 1]] * 6 + [[-2]]},
        ValueError,
        r"X\[6\] must hold ids in \[0, 2\).*; got -2",
    ),
    "negative ids only": ("classifier", {"X": [[-2]] * 7}, ValueError, r"X\[0\] must hold ids .*; got -2"),
    "not 0 or 1": (
        "generator",
        {"X": [*[np.ones((2, 2))] * 6, np.array([[0, 0.5]])]},
        ValueError,
        r"X\[6\] must hold 0 and 1 for every label of a step; got 0.5",
    ),
    "features to write": ("seq2seq", {"y": [np.ones((2, 2))] * 7}, TypeError, "y must hold str, .*; got features"),
    "lengths of a list": (
        "classifier",
        {"lengths": [1] * 7},
        ValueError,
        "lengths belong to a padded array; X is a list",
    ),
    "too many lengths": (
        "classifier",
        {"X": np.ones((7, 3), int), "lengths": [1] * 6},
        ValueError,
        r"lengths must be \(N,\) = \(7,\); got \(6,\)",
    ),
    "long length": (
        "classifier",
        {"X": np.ones((7, 3), int), "lengths": [4] * 7},
        ValueError,
        r"lengths must lie in \[0, T\] = \[0, 3\]; got 4",
    ),
    "real lengths": (
        "classifier",
        {"X": np.ones((7, 3), int), "lengths": [1.5] * 7},
        TypeError,
        "lengths must be integers; got dtype float64",
    ),
    "few labels": ("classifier", {"y": ["p"] * 6}, ValueError, r"y must have one label a sequence, \(7,\); got \(6,\)"),
    "few classes": ("generator", {"y": ["p"] * 6}, ValueError, r"y must have one label a sequence, \(7,\); got \(6,\)"),
    "few targets": ("seq2seq", {"y": TEXTS[:6]}, ValueError, "y must have one sequence for each of 7 in X; got 6"),
    "few tags": ("tagger", {"y": STEPS[:6]}, ValueError, "y must have one sequence of labels .* 7 .*; got 6"),
    "ragged tags": (
        "tagger",
        {"y": [*STEPS[:4], ["p"] * 5, *STEPS[5:]]},
        ValueError,
        r"y\[4\] must have 6 labels.*got 5",
    ),
    "tags that are none": ("tagger", {"y": [3] * 7}, TypeError, r"y\[0\] must be .*; got int"),
    "no tags": ("tagger", {"y": None}, TypeError, "y must be a list of label sequences; got NoneType"),
    "no labels": ("classifier", {"y": None}, (TypeError, ValueError), "y must be labels"),
    "labels of two axes": ("classifier", {"y": np.ones((7, 2))}, ValueError, r"y must be labels \(n,\).*got \(7, 2\)"),
    "labels that are NaN": ("classifier", {"y": [1.0] * 6 + [np.nan]}, ValueError, "y must be finite; got nan"),
    "nothing to tag": (
        "tagger",
        {"X": ["", ""], "y": [[], []]},
        ValueError,
        "y must hold at least one label; got none",
    ),
    "share": ("classifier", {"validation": 1.5}, ValueError, r"validation must be in \(0, 1\), or data; got 1.5"),
    "share of nothing": ("classifier", {"validation": 0.0}, ValueError, "validation must be .*; got 0.0"),
    "small share": (
        "tagger",
        {"validation": 0.01},
        ValueError,
        "validation = 0.01 of 7 sequences leaves none on one side",
    ),
    "rare class": (
        "classifier",
        {"y": ["p"] * 6 + ["rare"], "validation": 0.2},
        ValueError,
        "validation = 0.2 splits every class, but class 'rare' has one example",
    ),
    "validation": ("classifier", {"validation": "abc"}, TypeError, r"validation must be a share, .*; got str"),
    "validation of one": (
        "classifier",
        {"validation": (TEXTS,)},
        TypeError,
        r"validation must be a share, \(X, y\) or",
    ),
    "empty validation": ("classifier", {"validation": ([], [])}, ValueError, "validation X must hold at least one"),
    "validation X": (
        "classifier",
        {"validation": (["a", [1]], ["p", "q"])},
        TypeError,
        r"validation X\[1\] must be str as in training; got integers",
    ),
    "validation label": (
        "classifier",
        {"validation": (["a", "b"], ["p", "new"])},
        ValueError,
        r"validation y must hold labels of the training data \('p', 'q', 'rr'\); got 'new'",
    ),
    "validation tag": (
        "tagger",
        {"validation": (["a", "b"], [["p"], ["new"]])},
        ValueError,
        r"validation y\[1\] must hold labels of the training data \('p', 'q', 'rr'\); got 'new'",
    ),
    "validation without y": ("generator", {"validation": (["a"], None)}, ValueError, "validation y must be classes"),
    "callback": ("classifier", {"callback": 3}, TypeError, "callback must be a function or a list of functions; got 3"),
    "callbacks": ("classifier", {"callback": [print, 3]}, TypeError, "callback must be .*; got .*3"),
}


@pytest.mark.parametrize("fitted", [False, True], ids=["new", "fitted"])
@pytest.mark.parametrize("case", BAD_FITS)
def test_fit_refuses(case, fitted):
    name, arguments, error, message = BAD_FITS[case]
    X, y = GOOD[name]
    model, before = MODELS[name](hidden_size=3, epochs=1, random_state=0), None
    if fitted:
        model.fit(X, y)
        before = model.params, {key: p.copy() for key, p in model.params.items()}, [dict(r) for r in model.history]
        wanted = results_of(model, X, y)
    with pytest.raises(error, match=f"^{message}"):
        model.fit(**{"X": X, "y": y} | arguments)
    is_as_before(model, before)
    if fitted:
        assert_equal(results_of(model, X, y), wanted)


def test_fit_refuses_labels_that_do_not_go_together():
    model = rc.SequenceTagger(hidden_size=3, output="sigmoid", epochs=1)
    ones = np.ones((2, 2), int)
    for y, message in [
        ([["p", "q"], ["r", "p"]], r"output = 'sigmoid' takes two classes, .*; y has 3"),
        ([ones, ones[:, :1]], r"y\[1\] must be \(T, 2\), as y\[0\]; got \(2, 1\)"),
        ([ones, ["p", "q"]], r"y\[1\] must be \(T, 2\), as y\[0\]; got \(2,\)"),
        ([["p", "q"], ones], r"y\[1\] must be labels \(T,\), as y\[0\]; got \(2, 2\)"),
        ([ones, 2 * ones], r"y\[1\] must hold 0 and 1 for every label; got int64 \(2, 2\)"),
        ([ones, ones[:1]], r"y\[1\] must have 2 labels, one a step of its sequence; got 1"),
    ]:
        with pytest.raises(ValueError, match=f"^{message}"):
            model.fit(["ab", "ba"], y)
        is_as_before(model, None)
    model.set_params(class_weight="balanced")
    with pytest.raises(ValueError, match="^class_weight needs one class a step; y holds several labels"):
        model.fit(["ab", "ba"], [ones, ones])
    model.set_params(class_weight=None, output="softmax")
    with pytest.raises(ValueError, match=r"^y\[0\] must be labels \(n,\)"):
        model.fit(["ab", "ba"], [ones, ones])


def test_settings_that_need_data():
    X, y = GOOD["classifier"]
    with pytest.raises(ValueError, match="^patience needs validation data in fit, .*; got none"):
        rc.SequenceClassifier(patience=2).fit(X, y)
    with pytest.raises(ValueError, match=r"^class_weight must hold labels of the training data .*; got 'z'"):
        rc.SequenceClassifier(class_weight={"z": 2}).fit(X, y)
    with pytest.raises(ValueError, match="init must be one of 'orthogonal', 'uniform'; got 'zz'"):
        rc.SequenceClassifier(cell_options={"init": "zz"}).fit(X, y)


def uses(name):
    """Every method of a fitted model that takes X, as function of (X, y)."""
    predicts = {"predict": False, "score": True}
    predicts |= {"seq2seq": {"log_prob": True}, "generator": {"log_prob": True}}.get(name, {"predict_proba": False})
    if name == "generator":
        return dict.fromkeys([*predicts, "predict_proba"], True)
    return predicts


@each_model_and_kind
def test_uses_refuse(name, kind):
    model, X, y = make_of(name, kind)
    wrong = {
        "text": ([1, 2], TypeError, r"must be str as in training; got integers \(T,\)"),
        "tokens": ("ab", TypeError, "must be a list of str as in training; got str"),
        "ids": (np.ones((4, 2)), TypeError, r"must be integers \(T,\) as in training; got numbers \(T, D\)"),
        "features": ([1, 0, 1, 1], TypeError, r"must be numbers \(T, D\) as in training; got integers"),
    }
    cases = [wrong[kind]]
    if kind == "ids":
        cases += [([0, 1, 2, 3], ValueError, r"must hold ids in \[0, 3\), those of training; got 3")]
        cases += [([0, -1, 2, 1], ValueError, r"must hold ids in \[0, 3\), those of training; got -1")]
    if kind == "features":
        cases += [(np.ones((4, 3)), ValueError, "must have 2 features a step as in training; got 3")]
        cases += [(np.full((4, 2), -np.inf), ValueError, "must be finite; got -inf at step 0, feature 0")]
    for method, takes_y in uses(name).items():
        for value, error, message in cases:
            arguments = ([X[1], value], [y[1], y[0]])[: 1 + takes_y]
            with pytest.raises(error, match=rf"^X\[1\] {message}"):
                getattr(model, method)(*arguments)
        with pytest.raises(TypeError, match=r"^X must be a list of sequences, or a padded array; got str"):
            getattr(model, method)("ab", *y[:takes_y])
        with pytest.raises(ValueError, match="^the model has no parameters yet: call fit first"):
            getattr(MODELS[name](), method)(*(X, y)[: 1 + takes_y])
        if takes_y:
            with pytest.raises(ValueError, match=r"^y must have one .*; got .*1"):
                getattr(model, method)(X, y[:1])
    with pytest.raises(ValueError, match="^the model has no parameters yet: call fit first"):
        MODELS[name]().save("nowhere")


def test_scores_of_labels_that_training_did_not_have():
    """A prediction cannot be right there; that is all."""
    model, X, y = make_of("classifier", "text")
    assert model.score(X, ["new"] * len(X)) == 0
    assert model.score(X, [1] * len(X)) == 0
    tagger, X, y = make_of("tagger", "text")
    assert tagger.score(X, [["new"] * len(x) for x in X]) == 0
    with pytest.raises(ValueError, match=r"^y\[1\] must have 1 labels"):
        tagger.score(X, [y[0]] * len(X))
    several = make("tagger", ["ab", "ba"], [np.eye(2, dtype=int)] * 2, output="sigmoid")
    with pytest.raises(ValueError, match=r"^y\[1\] must be \(2, 2\).*; got \(2,\)"):
        several.score(["ab", "ba"], [np.eye(2, dtype=int), [0, 1]])


def test_generate_refuses():
    plain = make("generator", TEXTS, None)
    with_classes, _, _ = make_of("generator", "text")
    vectors, _, _ = make_of("generator", "features")
    for model, options, error, message in [
        (plain, {"n": -1}, ValueError, "n must be at least 0; got -1"),
        (plain, {"n": 2.5}, TypeError, "n must be an integer; got 2.5"),
        (plain, {"temperature": -1}, ValueError, "temperature must be at least 0 and finite; got -1"),
        (plain, {"top_k": 0}, ValueError, "top_k must be at least 1; got 0"),
        (plain, {"top_p": 1.5}, ValueError, r"top_p must be in \(0, 1\]; got 1.5"),
        (plain, {"label": "p"}, ValueError, "label must be None: the training sequences have no classes; got 'p'"),
        (plain, {"seed": [1, 2]}, TypeError, r"seed must be str as in training; got integers \(T,\)"),
        (with_classes, {}, ValueError, "label must be one of classes_; got None"),
        (with_classes, {"label": "new"}, ValueError, r"label must hold labels .* \('p', 'q', 'rr'\); got 'new'"),
        (vectors, {"label": "p", "top_k": 2}, ValueError, "top_k and top_p choose among tokens"),
        (vectors, {"label": "p", "top_p": 0.5}, ValueError, "top_k and top_p choose among tokens"),
        (vectors, {"label": "p", "seed": np.ones((2, 3))}, ValueError, "seed must have 2 features a step .*; got 3"),
        (vectors, {"label": "p", "seed": np.full((2, 2), 0.5)}, ValueError, "seed must hold 0 and 1 .*; got 0.5"),
    ]:
        with pytest.raises(error, match=f"^{message}"):
            model.generate(**{"n": 5} | options)
    with pytest.raises(ValueError, match="^y must be None, as in training"):
        plain.log_prob(TEXTS, ["p"] * len(TEXTS))
    with pytest.raises(ValueError, match="^y must be classes, as in training"):
        with_classes.score(TEXTS)
    assert plain.generate(0) == ""
    assert vectors.generate(0, label="p").shape == (0, 2)


def test_beams_refuse():
    model, X, _ = make_of("seq2seq", "text")
    for options, error, message in [
        ({"beam_width": 0}, ValueError, "beam_width must be at least 1; got 0"),
        ({"beam_width": 1.5}, TypeError, "beam_width must be an integer; got 1.5"),
        ({"length_penalty": -1}, ValueError, "length_penalty must be at least 0 and finite; got -1"),
        ({"max_length": 0}, ValueError, "max_length must be at least 1; got 0"),
    ]:
        for call in (lambda o: model.predict(X, **o), lambda o: model.beam_search("ab", **o)):
            with pytest.raises(error, match=f"^{message}"):
                call(options)
    with pytest.raises(TypeError, match=r"^source must be str as in training; got integers"):
        model.beam_search([1, 2])


SETTINGS = [
    ("level", "byte", ValueError),
    ("level", None, ValueError),
    ("cell", "mlp", ValueError),
    ("cell", ["lstm"], ValueError),
    ("hidden_size", 0, ValueError),
    ("hidden_size", 2.5, TypeError),
    ("num_layers", 0, ValueError),
    ("num_layers", None, TypeError),
    ("embedding_scale", 0, ValueError),
    ("embedding_size", -1, ValueError),
    ("embedding_size", "8", TypeError),
    ("dropout", 1.0, ValueError),
    ("dropout", "half", ValueError),
    ("recurrent_dropout", -0.1, ValueError),
    ("cell_options", {"batch_first": True}, ValueError),
    ("cell_options", 5, TypeError),
    ("cell_options", [1], TypeError),
    ("max_vocabulary", 2, ValueError),
    ("epochs", 0, ValueError),
    ("batch_size", -2, ValueError),
    ("optimizer", "lbfgs", ValueError),
    ("learning_rate", 0, ValueError),
    ("learning_rate", np.nan, ValueError),
    ("learning_rate_decay", -1, ValueError),
    ("clip_norm", 0, ValueError),
    ("patience", 0, ValueError),
    ("warm_start", "yes", TypeError),
    ("dtype", "int8", ValueError),
    ("dtype", "real", (TypeError, ValueError)),
    ("dtype", None, (TypeError, ValueError)),
    ("random_state", -1, ValueError),
    ("random_state", "zero", TypeError),
    ("bidirectional", 2, TypeError),
    ("class_weight", "equal", TypeError),
    ("class_weight", {"p": -1}, ValueError),
    ("class_weight", {"p": "q"}, ValueError),
    ("class_weight", 3, TypeError),
    ("pooling", "max", ValueError),
    ("output", "linear", ValueError),
    ("reverse_source", "yes", TypeError),
]


@pytest.mark.parametrize(("setting", "value", "error"), SETTINGS, ids=lambda v: v if isinstance(v, str) else repr(v))
def test_settings_refuse(setting, value, error):
    tried = 0
    for cls in (*MODELS.values(), rc.LanguageModel):
        model = cls()
        if setting not in model.get_params():
            continue
        tried += 1
        with pytest.raises(error, match=f"^{setting}.*(got|may hold)"):
            cls(**{setting: value})
        before = model.get_params()
        with pytest.raises(error, match=f"^{setting}"):
            model.set_params(**{"epochs": 3, "learning_rate": 0.5, setting: value})
        assert model.get_params() == before
    assert tried


def test_unknown_settings():
    for cls in MODELS.values():
        with pytest.raises(ValueError, match=f"^{cls.__name__} has the settings level, cell, .*; got 'size'"):
            cls().set_params(size=3)
        with pytest.raises(TypeError, match="size"):
            cls(size=3)
        model = cls()
        assert model.set_params(hidden_size=7, cell="gru") is model
        assert (model.hidden_size, model.get_params()["cell"]) == (7, "gru")


# ---- files ----------------------------------------------------------------------------------------------------------


def assert_loaded(path, model, X, y):
    loaded = rc.load(path)
    assert type(loaded) is type(model)
    assert_same_parameters(loaded, model)
    assert loaded.history == model.history
    assert loaded.get_params() == model.get_params()
    assert_equal(results_of(loaded, X, y), results_of(model, X, y))
    return loaded


@pytest.mark.parametrize(
    ("name", "kind", "labels"),
    [(n, k, labels) for n in MODELS for k in KINDS for labels in (LABELS if n != "seq2seq" else ["str"])],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_files(name, kind, labels, dtype, tmp_path):
    model, X, y = make_of(name, kind, labels, dtype=dtype)
    path = tmp_path / "model.npz"
    model.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]
    with np.load(path, allow_pickle=False) as file:
        assert {key: file[key].dtype.kind for key in file} == {
            "header": "U",
            **{f"array/{key}": "f" for key in model.params},
        }
    loaded = assert_loaded(path, model, X, y)
    if name != "seq2seq":
        assert loaded.classes_.tolist() == sorted(LABELS[labels])
        assert loaded.classes_.dtype == model.classes_.dtype
    # It goes on, too.
    loaded.set_params(warm_start=True).fit(X, y)
    assert loaded.history[-1]["epoch"] == 2


@pytest.mark.parametrize("name", ["tagger", "classifier"])
@pytest.mark.parametrize(
    ("labels", "class_weight"),
    [
        ("int", {3: 2.0, -1: 0.5, 7: 0}),
        ("int", {np.int64(3): np.float32(2.0)}),
        ("bool", {True: 3.0}),
        ("float", {0.5: 2.0}),
        ("str", {"rr": 4}),
        ("str", "balanced"),
    ],
    ids=str,
)
def test_files_with_class_weights(name, labels, class_weight, tmp_path):
    model, X, y = make_of(name, "text", labels, class_weight=class_weight)
    model.save(tmp_path / "model.npz")
    loaded = assert_loaded(tmp_path / "model.npz", model, X, y)
    assert type(loaded.class_weight) is type(class_weight)
    for each in (model, loaded):
        each.fit(X, y)
    assert_same_parameters(model, loaded)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tagger", {"output": "sigmoid", "bidirectional": False, "num_layers": 2}),
        ("classifier", {"pooling": "mean", "cell": "gru", "cell_options": {"form": "reset_after"}}),
        ("generator", {"cell": "rnn", "cell_options": {"activation": "relu"}, "clip_norm": None}),
        ("seq2seq", {"bidirectional": True, "reverse_source": True, "num_layers": 2}),
        ("seq2seq", {"embedding_size": 0, "cell": "gru", "random_state": np.random.default_rng(0)}),
    ],
)
def test_files_with_settings(name, settings, tmp_path):
    model, X, y = make_of(name, "text", "bool", **settings)
    model.save(tmp_path / "model.npz")
    if isinstance(model.random_state, np.random.Generator):
        model.random_state = None  # is not in files
    assert_loaded(tmp_path / "model.npz", model, X, y)


def test_files_with_several_labels(tmp_path):
    X, y = TEXTS, [np.arange(3 * len(text)).reshape(-1, 3) % 2 for text in TEXTS]
    model = make("tagger", X, y, output="sigmoid")
    model.save(tmp_path / "model.npz")
    loaded = assert_loaded(tmp_path / "model.npz", model, X, y)
    assert loaded.score(X, y) == model.score(X, y)


def rewrite(path, change):
    """Change the header of a file."""
    with np.load(path) as file:
        contents = dict(file)
    header = json.loads(str(contents["header"]))
    change(header)
    contents["header"] = np.array(json.dumps(header))
    np.savez(path, **contents)


def test_a_language_model_of_version_1(tmp_path):
    path, text = tmp_path / "model.npz", "the cat sat on the mat. " * 10
    model = rc.LanguageModel(hidden_size=5, cell="gru", epochs=1, batch_size=4, learning_rate=0.01, seed=0).fit(text)
    model.save(path)
    old = "level cell hidden_size num_layers embedding_size dropout cell_options max_vocabulary epochs batch_size"
    old = (old + " chunk_length optimizer learning_rate clip_norm dtype seed").split()

    def as_version_1(header):
        header["version"] = 1
        settings = header["description"]["settings"]
        header["description"]["settings"] = {key: settings[key] for key in old}

    rewrite(path, as_version_1)
    loaded = rc.load(path)
    assert_same_parameters(loaded, model)
    assert loaded.get_params() == model.get_params()
    assert loaded.sample(20, seed=1) == model.sample(20, seed=1)
    assert loaded.log_prob(text) == model.log_prob(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h.update(version=3), "has version 3 of the format; this rnncore reads versions 1 and 2"),
        (lambda h: h.update(model="Oracle"), "model must be one of LanguageModel, .*; got 'Oracle'"),
        (lambda h: h.update(model=["x"]), "model must be one of LanguageModel, .*; got"),
        (lambda h: h.update(model="SequenceClassifier"), "is damaged"),
        (lambda h: h.update(description=[]), "is damaged"),
        (lambda h: h["description"].pop("settings"), "is damaged"),
        (lambda h: h["description"].pop("inputs"), "is damaged"),
        (lambda h: h["description"].update(inputs=None), "is damaged"),
        (lambda h: h["description"].update(labels=5), "is damaged"),
        (lambda h: h["description"].update(history=5), "is damaged"),
        (lambda h: h["description"]["inputs"].update(kind="sound"), "is damaged: kind must be one of"),
        (lambda h: h["description"]["inputs"].update(kind="ids"), "is damaged: vocabulary does not go with"),
        (lambda h: h["description"]["inputs"].update(size=9), "is damaged: size must be that of the vocabulary"),
        (lambda h: h["description"]["inputs"].update(vocabulary={"level": "char"}), "is damaged"),
        (lambda h: h["description"]["labels"].update(dtype="nothing"), "is damaged"),
        (lambda h: h["description"]["labels"].update(values=["p"]), "is damaged"),
        (lambda h: h["description"]["labels"].update(values=3), "is damaged"),
        (lambda h: h["description"]["settings"].update(hidden_size=0), "is damaged: hidden_size must be"),
        (lambda h: h["description"]["settings"].update(hidden_size=4), r"is damaged: .* must be .*; got"),
        (lambda h: h["description"]["settings"].update(hidden_size=10**11), "is damaged"),
        (lambda h: h["description"]["settings"].update(cell_options=5), "is damaged: cell_options"),
        (lambda h: h["description"]["settings"].update(colour="red"), "is damaged"),
        (lambda h: h["description"]["settings"].update(class_weight=[["p", 1, 2]]), "is damaged"),
        (lambda h: h["description"]["settings"].update(class_weight=[[["p"], 1]]), "is damaged"),
    ],
)
def test_damaged_descriptions(change, message, tmp_path):
    path = tmp_path / "model.npz"
    model, _, _ = make_of("tagger", "text")
    model.save(path)
    rewrite(path, change)
    with pytest.raises(ValueError, match=f"^{path}:? {message}"):
        rc.load(path)


@pytest.mark.parametrize("name", MODELS)
def test_embedding_scale(name):
    """Only the embeddings change, by that factor."""
    settings = {"hidden_size": 3, "embedding_size": 4, "epochs": 1, "learning_rate": 1e-30, "random_state": 0}
    plain, scaled = (MODELS[name](**settings, embedding_scale=scale).fit(*GOOD[name]) for scale in (1, 0.25))
    assert any("embedding" in key for key in plain.params)
    for key, p in plain.params.items():
        # The one update made biases 1e-30.
        np.testing.assert_allclose(scaled.params[key], p * (0.25 if "embedding" in key else 1), atol=1e-25, err_msg=key)


# ---- scikit-learn ---------------------------------------------------------------------------------------------------


class TestScikitLearn:
    @pytest.fixture(autouse=True)
    def needs(self):
        pytest.importorskip("sklearn")

    @pytest.mark.parametrize("name", MODELS)
    def test_clone(self, name):
        from sklearn.base import clone

        settings = {"cell": "gru", "cell_options": {"form": "reset_after"}, "learning_rate": np.float32(0.25)}
        settings |= {"class_weight": {"p": 3, "q": 1}} if name in ("tagger", "classifier") else {}
        model = MODELS[name](**settings)
        # What was given is what is there.
        for setting, value in settings.items():
            assert model.get_params()[setting] is value
        model.fit(*GOOD[name])
        assert model.get_params()["cell_options"] is settings["cell_options"]
        copy = clone(model)
        assert copy.get_params() == model.get_params()
        assert copy.params is None

    @pytest.mark.parametrize("name", MODELS)
    def test_tags(self, name):
        from sklearn.base import is_classifier
        from sklearn.utils import get_tags
        from sklearn.utils.validation import check_is_fitted

        model = MODELS[name]()
        assert get_tags(model).estimator_type == ("classifier" if name == "classifier" else None)
        assert is_classifier(model) == (name == "classifier")
        assert get_tags(model).target_tags.required == (name != "generator")
        with pytest.raises(ValueError, match="not fitted"):
            check_is_fitted(model)
        check_is_fitted(MODELS[name](hidden_size=3, epochs=1).fit(*GOOD[name]))

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("name", MODELS)
    def test_grid_search(self, name, kind):
        from sklearn.model_selection import GridSearchCV

        texts = ["abca", "bb", "cab", "", "bbacca", "ac"] * 3
        X = inputs_of(kind, texts, binary=name == "generator")
        y = {
            "tagger": [[c == "a" for c in text] for text in texts],
            "classifier": ["with" if "a" in text else "without" for text in texts],
            "seq2seq": [text[::-1] for text in texts],
            "generator": None,
        }[name]
        model = MODELS[name]("word" if kind == "tokens" else "char", epochs=6, batch_size=4, random_state=0)
        grid = {"hidden_size": [2, 12], "learning_rate": [1e-6, 0.05]}
        search = GridSearchCV(model, grid, cv=3, error_score="raise").fit(X, y)
        if name != "seq2seq":
            assert search.best_params_["learning_rate"] == 0.05
        assert len(search.cv_results_["params"]) == 4
        assert search.best_estimator_.hidden_size == search.best_params_["hidden_size"]
        assert len(search.predict(X)) == len(X)

    def test_folds_of_a_classifier_hold_every_class(self, monkeypatch):
        from sklearn.model_selection import cross_val_score

        seen = []
        fit = rc.SequenceClassifier.fit

        def fit_and_tell(self, X, y, **options):
            seen.append(sorted(y))
            return fit(self, X, y, **options)

        monkeypatch.setattr(rc.SequenceClassifier, "fit", fit_and_tell)
        X, y = ["ab"] * 9, ["p"] * 6 + ["q"] * 3  # plain thirds would leave one without "q"
        scores = cross_val_score(rc.SequenceClassifier(hidden_size=2, epochs=1), X, y, cv=3)
        assert scores.shape == (3,)
        assert seen == [["p"] * 4 + ["q"] * 2] * 3

    @pytest.mark.parametrize("name", MODELS)
    def test_cross_validation(self, name):
        from sklearn.model_selection import KFold, cross_val_score

        X, y = (list(column) * 3 for column in GOOD[name])
        model = MODELS[name](hidden_size=3, epochs=1, random_state=0)
        folds = KFold(3, shuffle=True, random_state=0)
        scores = cross_val_score(model, X, y, cv=folds, error_score="raise")
        wanted = []
        for rows, held_out in folds.split(X):
            part = MODELS[name](hidden_size=3, epochs=1, random_state=0)
            part.fit([X[n] for n in rows], [y[n] for n in rows])
            wanted.append(part.score([X[n] for n in held_out], [y[n] for n in held_out]))
        np.testing.assert_array_equal(scores, wanted)

    def test_pipeline(self):
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
            model = make_pipeline(lower, rc.SequenceTagger(hidden_size=3, epochs=1, random_state=0))
            model.fit([text.upper() for text in TEXTS], targets_of("tagger", "text"))
        assert [len(labels) for labels in model.predict(TEXTS)] == [len(text) for text in TEXTS]
