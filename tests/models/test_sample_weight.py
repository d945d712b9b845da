"""``sample_weight``: a weight of 2 is the sequence twice, a weight of 0 is no sequence."""

import numpy as np
import pytest
from support.models import CLOSE, MODELS, TEXTS, assert_same_parameters, each_model_and_kind, inputs_of, targets_of

import rnncore as rc

# One batch of an epoch: the order of its rows, which differs, changes a sum in the last bits only.
SETTINGS = {"hidden_size": 3, "embedding_size": 2, "epochs": 5, "learning_rate": 0.05, "batch_size": 100}
SETTINGS |= {"dtype": "float64", "random_state": 1}
LOOSE = {"rtol": 1e-9, "atol": 1e-9}  # Adam divides by gradients, small ones too
WEIGHTS = np.array([2, 0, 1, 3, 1, 1, 2])  # leave the order of the vocabulary as it is: a c b


def data(name, kind):
    return inputs_of(kind, binary=name == "generator"), targets_of(name, kind)


def fitted(name, kind, X, y, sample_weight=None, validation=None, **settings):
    model = MODELS[name](level="word" if kind == "tokens" else "char", **SETTINGS | settings)
    return model.fit(X, y, sample_weight=sample_weight, validation=validation)


def repeated(column, counts):
    return [column[n] for n, count in enumerate(counts) for _ in range(count)]


@each_model_and_kind
def test_a_weight_is_a_count(name, kind):
    X, y = data(name, kind)
    one = fitted(name, kind, X, y, WEIGHTS)
    other = fitted(name, kind, repeated(X, WEIGHTS), repeated(y, WEIGHTS))
    plain = fitted(name, kind, X, y)
    assert one.params.keys() == other.params.keys()
    for key, p in other.params.items():
        np.testing.assert_allclose(one.params[key], p, **LOOSE, err_msg=key)
    np.testing.assert_allclose(
        [record["loss"] for record in one.history], [record["loss"] for record in other.history], **LOOSE
    )
    assert any(
        p.shape != one.params[key].shape or abs(p - one.params[key]).max() > 0.01 for key, p in plain.params.items()
    )


@each_model_and_kind
def test_a_sequence_of_weight_zero_is_absent(name, kind):
    """To the bit: not in the vocabulary, not among the classes, in no batch."""
    X, y = data(name, kind)
    strange = inputs_of(kind, ["cccc"], binary=name == "generator") if kind != "text" else ["zz"]
    target = [["new"] * len(strange[0])] if name == "tagger" else ["zz"] if name == "seq2seq" else ["new"]
    target = target if name != "seq2seq" or kind in ("text", "features") else strange
    for settings in ({}, {"batch_size": 2}):
        model = fitted(name, kind, [*strange, *X], [*target, *y], [0, 1, 1, 1, 1, 1, 1, 1], **settings)
        assert_same_parameters(model, fitted(name, kind, X, y, np.ones(7), **settings))


@pytest.mark.parametrize("name", ["classifier", "tagger"])
@pytest.mark.parametrize("class_weight", ["balanced", {"p": 3.0, "q": 0.5}])
def test_with_class_weights(name, class_weight):
    """Their product; "balanced" counts weights."""
    X, y = data(name, "text")
    one = fitted(name, "text", X, y, WEIGHTS, class_weight=class_weight)
    other = fitted(name, "text", repeated(X, WEIGHTS), repeated(y, WEIGHTS), class_weight=class_weight)
    for key, p in other.params.items():
        np.testing.assert_allclose(one.params[key], p, **LOOSE, err_msg=key)


def test_labels_that_do_not_exclude_each_other():
    X, y = TEXTS, [np.arange(2 * len(text)).reshape(-1, 2) // 2 % 2 for text in TEXTS]
    one = fitted("tagger", "text", X, y, WEIGHTS, output="sigmoid")
    other = fitted("tagger", "text", repeated(X, WEIGHTS), repeated(y, WEIGHTS), output="sigmoid")
    for key, p in other.params.items():
        np.testing.assert_allclose(one.params[key], p, **LOOSE, err_msg=key)
    y[TEXTS.index("")] = []  # which has no second axis
    np.testing.assert_allclose(
        one.score(X, y, sample_weight=WEIGHTS), one.score(*(repeated(c, WEIGHTS) for c in (X, y)))
    )


@each_model_and_kind
def test_scores(name, kind):
    X, y = data(name, kind)
    model = fitted(name, kind, X, y, epochs=1)
    wanted = model.score(repeated(X, WEIGHTS), repeated(y, WEIGHTS))
    np.testing.assert_allclose(model.score(X, y, sample_weight=WEIGHTS), wanted, **CLOSE)
    for scale in (1e-9, 1e9):
        assert model.score(X, y, sample_weight=np.full(7, scale)) == pytest.approx(model.score(X, y), rel=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_the_held_out_fraction_has_weights(name, monkeypatch):
    X, y = (list(column) * 3 for column in data(name, "text"))
    weights = np.arange(1.0, 22.0)
    sides = {}
    original = MODELS[name]._encode

    def spy(self, X, y, names, *, weights=None, training=False):
        sides[training] = X, y, weights
        return original(self, X, y, names, weights=weights, training=training)

    monkeypatch.setattr(MODELS[name], "_encode", spy)
    model = fitted(name, "text", X, y, weights, validation=0.4, epochs=1)
    monkeypatch.undo()
    assert sorted([*sides[True][2], *sides[False][2]]) == weights.tolist()
    X, y, weights = sides[False]
    told = model.history[0]["held_out"]
    counted = [repeated(column, weights.astype(int)) for column in (X, y)]
    again = model.set_params(warm_start=True, learning_rate=1e-30).fit(X, y, validation=tuple(counted))
    np.testing.assert_allclose(told, again.history[1]["held_out"], **CLOSE)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1] * 6, r"sample_weight must be \(N,\) = \(7,\), a number for each sequence; got \(6,\) of dtype int64"),
        (np.ones((7, 1)), r"sample_weight must be \(N,\) = \(7,\), .*; got \(7, 1\)"),
        (2.0, r"sample_weight must be \(N,\) = \(7,\), .*; got \(\)"),
        (["a"] * 7, r"sample_weight must be .*; got \(7,\) of dtype <U1"),
        ([1] * 6 + [-1], "sample_weight must be at least 0 and finite; got -1.0"),
        ([1] * 6 + [np.nan], "sample_weight must be at least 0 and finite; got nan"),
        ([1] * 6 + [np.inf], "sample_weight must be at least 0 and finite; got inf"),
        ([0] * 7, "sample_weight must hold a weight above 0; got zeros only"),
    ],
)
@pytest.mark.parametrize("name", MODELS)
def test_refuses(name, weights, message):
    X, y = data(name, "text")
    model = MODELS[name](**SETTINGS)
    with pytest.raises(ValueError, match=f"^{message}"):
        model.fit(X, y, sample_weight=weights)
    assert model.params is None
    model.fit(X, y)
    with pytest.raises(ValueError, match=f"^{message}"):
        model.score(X, y, sample_weight=weights)


def test_a_tagger_scores_no_step():
    X, y = data("tagger", "text")
    model = fitted("tagger", "text", X, y)
    with pytest.raises(ValueError, match="^X must hold at least one step; got none"):
        model.score(X, y, sample_weight=[int(not text) for text in TEXTS])


def test_losses_take_weights_of_steps():
    """Of the generator and the encoder-decoder, where they are new; the others' are tested with class weights."""
    for name in ("generator", "seq2seq"):
        model = fitted(name, "text", *data(name, "text"))
        examples = model._scored(*data(name, "text"), None)
        *arguments, _ = model._batch(examples, np.arange(7)).arguments
        weights = np.ones((len(arguments[0]) if name == "generator" else len(arguments[2]), 7))
        plain = model.loss_and_gradients(*arguments)
        assert model.loss_and_gradients(*arguments, weights) == pytest.approx(plain, rel=1e-12)
        weights[0] = 0
        assert model.loss_and_gradients(*arguments, weights) != pytest.approx(plain, rel=1e-3)


def test_a_heavy_sequence_outvotes_the_others():
    X, y = ["ab"] * 5, ["p"] * 4 + ["q"]
    settings = {"hidden_size": 4, "epochs": 60, "learning_rate": 0.05, "random_state": 0}
    assert rc.SequenceClassifier(**settings).fit(X, y).predict(["ab"]).tolist() == ["p"]
    assert rc.SequenceClassifier(**settings).fit(X, y, sample_weight=[1, 1, 1, 1, 9]).predict(["ab"]).tolist() == ["q"]
