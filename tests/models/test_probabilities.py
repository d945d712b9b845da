"""What the models compute, by the layers one step at a time."""

import numpy as np
import pytest
from support.models import CLOSE, KINDS, LABELS, TEXTS, inputs_of, make, make_of, targets_of

import rnncore as rc


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


def test_probabilities_of_large_logits():
    model, X, _ = make_of("classifier", "text", dtype="float64")
    before = model.predict_proba(X)
    model.params["output.b"] += 1e4
    np.testing.assert_allclose(model.predict_proba(X), before, rtol=1e-10)  # 1e4 takes away four digits


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
