"""scikit-learn's own checks of estimators: every one passes, or is listed here with the reason why it cannot."""

import warnings

import numpy as np
import pytest

import rnncore as rc

pytest.importorskip("sklearn")

SETTINGS = {"dtype": "float64", "hidden_size": 6, "epochs": 20, "learning_rate": 0.05, "batch_size": 1000}

# The checks give X (n, T), of which each row is a sequence of T steps of one feature, and y (n,).


class Tagger(rc.SequenceTagger):
    """A tagger that repeats the label of a row for its steps, and predicts an array."""

    def fit(self, X, y, **options):
        return super().fit(X, of_steps(X, y), **options)

    def score(self, X, y, **options):
        return super().score(X, of_steps(X, y), **options)

    def predict(self, X, **options):
        return np.array(super().predict(X, **options))

    def predict_proba(self, X, **options):
        return np.array(super().predict_proba(X, **options))


class Generator(rc.SequenceGenerator):
    """A generator that trains on the signs of X and ignores y."""

    def fit(self, X, y=None, **options):
        return super().fit(signs(X), **options)

    def score(self, X, y=None, **options):
        return super().score(signs(X), **options)

    def predict(self, X, *y, **options):
        return np.array(super().predict(signs(X), *y, **options))

    def predict_proba(self, X, *y, **options):
        return np.array(super().predict_proba(signs(X), *y, **options))


class Translator(rc.EncoderDecoder):
    """An encoder-decoder whose targets are sequences of one id."""

    def fit(self, X, y, **options):
        return super().fit(X, as_sequences(y), **options)

    def score(self, X, y, **options):
        return super().score(X, as_sequences(y), **options)

    def predict(self, X, **options):
        # The first id of each target; 0 where the end comes first.
        return np.array([np.append(ids, 0)[:1] for ids in super().predict(X, **options)])


class Transcriber(rc.SequenceTranscriber):
    """A transcriber whose sequences have one label."""

    def fit(self, X, y, **options):
        return super().fit(X, as_sequences(y), **options)

    def score(self, X, y, **options):
        return super().score(X, as_sequences(y), **options)

    def predict(self, X, **options):
        return np.array([np.append(labels, 0)[:1] for labels in super().predict(X, **options)])

    def predict_proba(self, X, **options):
        return np.array(super().predict_proba(X, **options))


def of_steps(X, y):
    return np.repeat(np.asarray(y)[:, None], np.shape(X)[1], axis=1) if np.ndim(X) == 2 and np.ndim(y) == 1 else y


def as_sequences(y):
    return np.asarray(y).astype(int)[:, None] if np.ndim(y) == 1 else y


def signs(X):
    """0 and 1 for numbers; what is no finite array stays, to be refused."""
    array = np.asarray(X)
    return (array > 0.5).astype(float) if array.dtype.kind in "iuf" and np.isfinite(array).all() else X


MODELS = {
    "classifier": rc.SequenceClassifier(**SETTINGS),
    "tagger": Tagger(**SETTINGS),
    "generator": Generator(**SETTINGS),
    "seq2seq": Translator(**SETTINGS),
    "transcriber": Transcriber(**SETTINGS),
    "language": rc.LanguageModel(),
}

WIDTH = "a row is a sequence of any length: its width is not a number of features"
WORDS = "is refused, in words that name the argument"
EXPECTED = {
    "check_dont_overwrite_parameters": "layers, params, grads, history and interrupted are public",
    "check_n_features_in": WIDTH,
    "check_n_features_in_after_fitting": WIDTH,
    "check_classifiers_train": WIDTH,
    "check_dtype_object": "the dtype says whether numbers are ids or features",
    "check_complex_data": WORDS,
    "check_estimators_empty_data_messages": WORDS,
    "check_fit2d_predict1d": WORDS,
    "check_requires_y_none": WORDS,
    "check_supervised_y_2d": WORDS,
}


@pytest.fixture(scope="module")
def results():
    """What every check says of each model: dicts with check_name, status, exception."""
    from sklearn.utils.estimator_checks import check_estimator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a language model, which takes no array, all checks but one are skipped
        options = {"expected_failed_checks": EXPECTED, "on_fail": None, "on_skip": None}
        return {name: check_estimator(model, **options) for name, model in MODELS.items()}


@pytest.mark.parametrize("name", MODELS)
def test_checks(name, results):
    assert [(r["check_name"], r["exception"]) for r in results[name] if r["status"] == "failed"] == []
    assert sum(r["status"] == "passed" for r in results[name]) >= (1 if name == "language" else 30)


def test_no_expectation_is_stale(results):
    failed = {r["check_name"] for of_model in results.values() for r in of_model if r["status"] == "xfail"}
    assert failed == EXPECTED.keys()


@pytest.mark.parametrize(
    "check",
    [
        "check_estimator_tags_renamed",
        "check_valid_tag_types",
        "check_estimator_repr",
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_mixin_order",
        "check_get_params_invariance",
        "check_set_params",
    ],
)
def test_checks_of_a_language_model(check):
    """Those that need no array; check_estimator leaves them out for an estimator of text."""
    from sklearn.utils import estimator_checks

    getattr(estimator_checks, check)("LanguageModel", rc.LanguageModel())
