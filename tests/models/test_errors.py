"""What models refuse; a model whose fit failed is as it was before."""

import contextlib
import copy
import sys

import numpy as np
import pytest
from support.models import (
    GOOD,
    MODELS,
    TEXTS,
    assert_equal,
    assert_same_parameters,
    each_model_and_kind,
    make,
    make_of,
    results_of,
)

import rnncore as rc


def is_as_before(model, before):
    """The same arrays with the same values, and nothing else changed."""
    if before is None:
        with pytest.raises(ValueError, match="^the model has no parameters yet: call fit first"):
            model.predict(["ab"])
        assert (model.params, model.layers, len(model.history)) == (None, None, 0)
        return
    params, values, history = before
    assert model.params is params
    assert model.history == history
    for key, p in params.items():
        np.testing.assert_array_equal(p, values[key])


@pytest.mark.parametrize("name", MODELS)
def test_a_callback_cannot_begin_anew(name):
    """The model that it is in goes on as if nothing had been; copies may do what they want."""
    X, y = GOOD[name]

    def begin_anew(progress):
        with pytest.raises(RuntimeError, match="the model is being trained: a callback of fit cannot"):
            model.fit(["zz"] * 7, y)
        copy.deepcopy(model).fit(X, y)

    plain, model = (MODELS[name](hidden_size=3, epochs=2, random_state=0) for _ in range(2))
    plain.fit(X, y)
    model.fit(X, y, callback=begin_anew)
    assert_same_parameters(model, plain)
    model.fit(X, y)
    for error in (ZeroDivisionError, KeyboardInterrupt):

        def fail(progress, error=error):
            raise error

        with contextlib.suppress(ZeroDivisionError):
            model.fit(X, y, callback=fail)
        model.fit(X, y)


def test_a_callback_cannot_build_a_language_model():
    text = "the cat sat on the mat. " * 10

    def build(progress):
        for characters in ("the cat", "other"):
            with pytest.raises(RuntimeError, match="the model is being trained: a callback of fit cannot call its"):
                model.build(rc.Vocabulary.from_text(characters))
        with pytest.raises(RuntimeError, match="the model is being trained"):
            model.fit(text)

    plain, model = (rc.LanguageModel(hidden_size=4, epochs=1, batch_size=4, seed=0) for _ in range(2))
    assert_same_parameters(model.fit(text, callback=build), plain.fit(text))
    model.build(rc.Vocabulary("ab"))


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
        r"X\[6\] must be finite \(no NaN, no inf\); got nan at step 1, feature 1",
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
    "an array without an axis": (
        "tagger",
        {"y": np.array(3)},
        TypeError,
        "y must be a list of label seq.*; got ndarray",
    ),
    "no labels": ("classifier", {"y": None}, (TypeError, ValueError), "y must be labels"),
    "labels of two axes": ("classifier", {"y": np.ones((7, 2))}, ValueError, r"y must be labels \(n,\).*got \(7, 2\)"),
    "continuous labels": (
        "classifier",
        {"y": [1.0] * 6 + [0.5]},
        ValueError,
        "y must hold classes: str or whole numbers; got the continuous 0.5",
    ),
    "continuous classes": ("generator", {"y": np.arange(7) / 2}, ValueError, "y must hold classes: .*; got the .* 0.5"),
    "continuous tags": (
        "tagger",
        {"y": [[0.25] * len(text) for text in TEXTS]},
        ValueError,
        "y must hold classes: .*; got the continuous 0.25",
    ),
    "no features": (
        "classifier",
        {"X": [np.ones((2, 0))] * 7},
        ValueError,
        r"X\[0\] must have at least one feature a step; got \(2, 0\)",
    ),
    "padded without features": (
        "generator",
        {"X": np.ones((7, 3, 0))},
        ValueError,
        r"X\[0\] must have at least one feature a step; got \(3, 0\)",
    ),
    "no step": ("classifier", {"X": [[]] * 7}, ValueError, "X must hold at least one step to train on; got none"),
    "features without a step": (
        "classifier",
        {"X": [np.ones((0, 3))] * 7},
        ValueError,
        "X must hold at least one step to train on; got none",
    ),
    "widths without a step": (
        "classifier",
        {"X": [*[np.ones((2, 3))] * 6, np.ones((0, 4))]},
        ValueError,
        r"X\[6\] must have 3 features a step as in training; got 4",
    ),
    "rows without a step": (
        "generator",
        {"X": np.ones((7, 0)), "y": None},
        ValueError,
        "X must hold at least one step to train on; got none",
    ),
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
        cases += [(np.full((4, 2), -np.inf), ValueError, r"must be finite \(.*\); got -inf at step 0, feature 0")]
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
        # The constructor and set_params store what they are given: scikit-learn's clone depends on it.
        for wrong in (cls(**{setting: value}), cls().set_params(**{setting: value})):
            assert wrong.get_params()[setting] is value
            with pytest.raises(error, match=f"^{setting}.*(got|may hold)"):
                wrong.fit(["ab", "ba"], ["pq", "qp"])
            with pytest.raises(error, match=f"^{setting}.*(got|may hold)"):
                wrong.check_settings()
            assert wrong.params is None
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


@pytest.mark.parametrize("cls", [*MODELS.values(), rc.LanguageModel])
@pytest.mark.parametrize("library", ["as it is", "missing"])
def test_use_before_fit(cls, library, monkeypatch):
    """An error of scikit-learn's class where it is installed, and of the same kinds where it is not."""
    wanted = None
    if library == "missing":
        monkeypatch.setitem(sys.modules, "sklearn.exceptions", None)
    else:
        wanted = pytest.importorskip("sklearn.exceptions").NotFittedError
    uses = {"save": ("nowhere",), "score": ("ab", "ab"), "log_prob": ("ab", "ab"), "predict": ("ab",)}
    uses |= {"sample": (3,), "generate": (3,), "perplexity": ("ab",), "beam_search": ("ab",)}
    tried = 0
    for method, arguments in uses.items():
        if not hasattr(cls, method):
            continue
        tried += 1
        with pytest.raises(ValueError, match="^the model has no parameters yet: call fit first") as error:
            getattr(cls(), method)(*arguments[: 1 if cls is rc.LanguageModel else None])
        assert error.type.__name__ == "NotFittedError"
        assert issubclass(error.type, AttributeError)
        assert wanted is None or error.type is wanted
    assert tried > 2
    for attribute in ("classes_", "n_features_in_"):
        assert not hasattr(cls(), attribute)


def test_settings_that_are_used_after_fit():
    """set_params after fit: what is used without another fit is checked where it is used."""
    model = rc.LanguageModel(hidden_size=3, epochs=1, batch_size=2).fit("abcabc")
    with pytest.raises(ValueError, match="^chunk_length must be at least 1; got -1"):
        model.set_params(chunk_length=-1).log_prob("abc")
    with pytest.raises(ValueError, match="^batch_size must be at least 1; got 0"):
        model.set_params(batch_size=0, chunk_length=8).score("abc")
    for name, method in {
        "tagger": "predict",
        "classifier": "predict",
        "generator": "log_prob",
        "seq2seq": "log_prob",
    }.items():
        model, X, y = make_of(name, "text")
        with pytest.raises(TypeError, match="^batch_size must be an integer; got 'many'"):
            getattr(model.set_params(batch_size="many"), method)(*(X, y)[: 1 + (method == "log_prob")])


def test_build_checks_the_settings():
    model = rc.LanguageModel(chunk_length=0)
    with pytest.raises(ValueError, match="^chunk_length must be at least 1; got 0"):
        model.build(rc.Vocabulary("abc"))
    assert model.params is None
