"""A sequence gives the same alone and in company, as list and as padded array."""

import numpy as np
import pytest
from support.models import (
    CLOSE,
    MODELS,
    assert_equal,
    assert_same_parameters,
    each_model_and_kind,
    inputs_of,
    make,
    make_of,
    results_of,
    targets_of,
)

import rnncore as rc

# ---- consistency ---------------------------------------------------------------------------------------------------


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
def test_pooled_sequences_do_not_depend_on_the_others(rng, settings):
    """Not even their sums over many steps."""
    for size in (1, 4):
        model, X, y = make_of("classifier", "features", hidden_size=size, batch_size=64, **settings)
        X = [rng.normal(size=(count, 2)) for count in range(30, 90)]
        together = model.predict_proba(X)
        for x, wanted in zip(X, together, strict=True):
            np.testing.assert_array_equal(model.predict_proba([x])[0], wanted)


@pytest.mark.parametrize("name", ["generator", "seq2seq", "transcriber"])
def test_scores_of_long_sequences_do_not_depend_on_the_others(rng, name):
    model, _, _ = make_of(name, "text", batch_size=64)
    X = ["".join(rng.choice(list("abc"), size=count)) for count in range(30, 60)]
    y = targets_of(name, "text", texts=X)
    together = model.log_prob(X, y)
    alone = [model.log_prob([x], [label])[0] for x, label in zip(X, y, strict=True)]
    np.testing.assert_array_equal(alone, together)


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


def padded(sequences, fill):
    """-> array (N, T, ...) with ``fill`` after the ends, lengths (N,)"""
    batch, lengths = rc.pad(sequences, padding=fill)
    return batch.swapaxes(0, 1), lengths


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
    y["transcriber"] = [[0], [1], [0]]
    y = y.get(name, X if name == "seq2seq" else [0, 1, 0])
    model = make(name, X, y, level=level)
    labels = X[:2] if name == "seq2seq" else y[:2] if name == "transcriber" else [0, 1]
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
        "transcriber": {"bidirectional": False},
    }
    for name in MODELS:
        model, X, y = make_of(name, "text")
        wanted = results_of(model, X, y)
        model.set_params(**changes | own[name])
        assert_equal(results_of(model, X, y), wanted)
        model.save(tmp_path / "model.npz")
        assert_equal(results_of(rc.load(tmp_path / "model.npz"), X, y), wanted)
