"""A tagger with a conditional random field: labels that depend on their neighbours, forbidden ones, files, weights."""

import itertools

import numpy as np
import pytest
from support.models import TEXTS, assert_equal, assert_same_parameters, inputs_of, make, results_of

import rnncore as rc
from rnncore.models.tagger import may_follow

TAGS = [[{"a": "B-p", "b": "I-p", "c": "O"}[c] for c in text] for text in ("abbcab", "ab", "", "cca", "aab")]
SENTENCES = ["abbcab", "ab", "", "cca", "aab"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["text", "tokens", "ids", "features"])
def test_a_sequence_does_not_depend_on_the_others(kind, dtype, tmp_path):
    settings = {"output": "crf", "dtype": dtype, "level": "word" if kind == "tokens" else "char"}
    X, y = inputs_of(kind), [[c == "a" for c in text] for text in TEXTS]
    model = make("tagger", X, y, **settings)
    together = results_of(model, X, y)
    for n in range(len(X)):
        assert_equal(results_of(model, X[n : n + 1], y[n : n + 1]), together[n : n + 1])
    for _, p in together:
        np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    model.save(tmp_path / "model.npz")
    assert_equal(results_of(rc.load(tmp_path / "model.npz"), X, y), together)


def test_predictions_are_the_best_paths():
    model = make("tagger", SENTENCES, TAGS, output="crf")
    h, _ = model._trunk(model._input_format.encode("X", ["abca"])[0][:, None])
    emissions, A = model._head.emissions(h)[:, 0], model.params["transitions.A"]
    assert np.abs(A).max() > 0.1

    def score(path):
        return emissions[np.arange(4), path].sum() + A[path[:-1], path[1:]].sum()

    best = max(itertools.product(range(3), repeat=4), key=lambda path: score(np.array(path)))
    assert model.predict(["abca"])[0].tolist() == model.classes_[list(best)].tolist()


def test_the_loss_is_a_mean_over_steps(rng):
    model = make("tagger", SENTENCES, TAGS, output="crf")
    lengths, inputs, tags = np.array([4, 0, 1]), rng.integers(2, 5, size=(4, 3)), rng.integers(3, size=(4, 3))
    h, _ = model._trunk(inputs, None, lengths)
    losses, _, _ = rc.crf_loss(model._head.emissions(h), model.params["transitions.A"], tags, lengths, reduction="none")
    assert model.loss_and_gradients(inputs, tags, lengths) == pytest.approx(losses.sum() / lengths.sum(), rel=1e-6)


def test_forbidden_labels_are_never_predicted():
    model = make("tagger", SENTENCES, TAGS, output="crf", scheme="iob")
    inside = model.classes_.tolist().index("I-p")
    model.params["output.b"][inside] += 4
    texts = ["".join(letters) for letters in itertools.product("abc", repeat=4)]
    predicted = model.predict(texts)
    assert all(may_follow(a, b) for tags in predicted for a, b in itertools.pairwise(["O", *tags]))
    assert any("I-p" in tags for tags in predicted)
    np.testing.assert_array_equal([p[0, inside] for p in model.predict_proba(texts)], 0)
    free = make("tagger", SENTENCES, TAGS, output="crf")
    free.params["output.b"][inside] += 4
    assert not all(may_follow(a, b) for tags in free.predict(texts) for a, b in itertools.pairwise(["O", *tags]))
    with pytest.raises(ValueError, match=r"y\[0\] must not hold 'I-p' after 'O' \(scheme 'iob'\); got it at 0"):
        rc.SequenceTagger(output="crf", scheme="iob", epochs=1, hidden_size=3).fit(["ab"], [["I-p", "O"]])


@pytest.mark.parametrize(
    ("pair", "right"),
    [("O I-p", False), ("B-p I-p", True), ("I-p I-p", True), ("B-q I-p", False), ("O B-p", True), ("I-p O", True)],
)
def test_may_follow(pair, right):
    assert may_follow(*pair.split()) is right


def test_it_learns_what_single_steps_cannot_say():
    """The label of every other step is that before it turned over: emissions alone know nothing of it."""
    rng = np.random.default_rng(0)
    y = [[(start + t) % 2 for t in range(6)] for start in rng.integers(2, size=60)]
    X = [np.array([[float(row[0]) if t == 0 else 0.0] for t in range(6)]) for row in y]
    settings = {"hidden_size": 1, "cell": "rnn", "bidirectional": False, "epochs": 60, "learning_rate": 0.1}
    model = rc.SequenceTagger(output="crf", random_state=0, **settings).fit(X, y)
    assert model.score(X, y) == 1
    A = model.params["transitions.A"]
    assert A[0, 1] > A[0, 0] + 1
    assert A[1, 0] > A[1, 1] + 1


def test_weights_are_counts():
    settings = {
        "output": "crf",
        "hidden_size": 3,
        "epochs": 4,
        "batch_size": 100,
        "dtype": "float64",
        "random_state": 1,
    }
    counts = [2, 1, 1, 0, 3]
    one = rc.SequenceTagger(**settings).fit(SENTENCES, TAGS, sample_weight=counts)
    rows = [n for n, count in enumerate(counts) for _ in range(count)]
    other = rc.SequenceTagger(**settings).fit([SENTENCES[n] for n in rows], [TAGS[n] for n in rows])
    for key, p in other.params.items():
        np.testing.assert_allclose(one.params[key], p, rtol=1e-9, atol=1e-9, err_msg=key)
    again = rc.SequenceTagger(**settings).fit(SENTENCES, TAGS, sample_weight=counts)
    assert_same_parameters(again, one)


def test_empty_sequences_of_any_weight():
    X, y = [["a", "b"], ["b", "a"], [], []], [["O", "P"], ["P", "O"], [], []]
    settings = {"output": "crf", "hidden_size": 4, "batch_size": 2, "epochs": 2, "dtype": "float64", "random_state": 0}
    models = [rc.SequenceTagger("word", **settings).fit(X, y, sample_weight=[w] * 4) for w in (1.0, 5.0, 1e-60, 1e200)]
    for model in models[1:]:
        for key, p in model.params.items():
            np.testing.assert_allclose(p, models[0].params[key], rtol=1e-9, atol=1e-12, err_msg=key)


def test_class_weights_are_margins():
    """One input and no transitions: the score of P over O, d, is where the two kinds of steps pull alike.

    With the shares 1/4 and 3/4 and the weight 6, sigmoid(log 6 - d) / 4 = 3 sigmoid(d) / 4: exp(d) = sqrt(6) - 2.
    Without weights it is 1/3.
    """
    X, y = [["w"]] * 40, [["P"]] * 10 + [["O"]] * 30
    settings = {"hidden_size": 2, "epochs": 300, "batch_size": 40, "learning_rate": 0.02, "dtype": "float64"}
    model = rc.SequenceTagger("word", output="crf", class_weight={"P": 6, "O": 1}, random_state=0, **settings)
    p = model.fit(X, y, validation=(X, y)).predict_proba([["w"]])[0]
    odds = 6**0.5 - 2
    np.testing.assert_allclose(p, [[1 / (1 + odds), odds / (1 + odds)]], atol=1e-4)
    assert model.classes_.tolist() == ["O", "P"]
    # What is scored has no margins.
    np.testing.assert_allclose(model.history[-1]["held_out"], -np.log(p[0]) @ [0.75, 0.25], rtol=1e-6)


def test_settings_of_the_next_fit_do_not_spoil_the_file(tmp_path):
    model = make("tagger", SENTENCES, TAGS, output="crf", scheme="iob")
    wanted = model.predict(SENTENCES)
    model.set_params(output="softmax", class_weight="balanced")
    model.save(tmp_path / "model.npz")
    for got, want in zip(rc.load(tmp_path / "model.npz").predict(SENTENCES), wanted, strict=True):
        np.testing.assert_array_equal(got, want)
    with pytest.raises(ValueError, match="scheme needs output='crf'"):
        model.fit(SENTENCES, TAGS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheme": "iob"}, "scheme needs output='crf'; got 'softmax'"),
        ({"output": "crf", "class_weight": {"O": 0}}, "class_weight must be above 0 with output='crf'; got 0"),
        ({"output": "crf", "scheme": "bio2"}, "scheme must be one of 'iob'; got 'bio2'"),
        ({"output": "CRF"}, "output must be one of 'softmax', 'sigmoid', 'crf'; got 'CRF'"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        rc.SequenceTagger(hidden_size=3, epochs=1, **settings).fit(SENTENCES, TAGS)
