"""The models as estimators of scikit-learn."""

import warnings

import numpy as np
import pytest
from support.models import GOOD, KINDS, MODELS, TEXTS, inputs_of, targets_of

import rnncore as rc


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

    def test_n_features_in(self):
        features = inputs_of("features")
        model = rc.SequenceClassifier(hidden_size=3, epochs=1).fit(features, list("pqpqpqp"))
        assert model.n_features_in_ == 2
        for kind in ("text", "tokens", "ids"):
            model = rc.SequenceClassifier("word", hidden_size=3, epochs=1).fit(inputs_of(kind), list("pqpqpqp"))
            assert not hasattr(model, "n_features_in_")

    def test_a_language_model(self):
        from sklearn.base import clone, is_classifier
        from sklearn.model_selection import GridSearchCV, cross_val_score
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer
        from sklearn.utils import get_tags
        from sklearn.utils.validation import check_is_fitted

        model = rc.LanguageModel(hidden_size=8, epochs=8, batch_size=4, random_state=0)
        tags = get_tags(model)
        assert (tags.input_tags.string, tags.input_tags.two_d_array, tags.target_tags.required) == (True, False, False)
        assert not is_classifier(model)
        assert clone(model).get_params() == model.get_params()
        sentences = ["ab ab ab", "ab ab", "ab ab ab ab"] * 6
        search = GridSearchCV(model, {"learning_rate": [1e-6, 0.05]}, cv=3, error_score="raise").fit(sentences)
        assert search.best_params_ == {"learning_rate": 0.05}
        assert search.best_score_ > search.cv_results_["mean_test_score"].min() + 0.5
        check_is_fitted(search.best_estimator_)
        wanted = []
        for n in range(3):
            held_out = sentences[6 * n : 6 * n + 6]
            wanted.append(clone(model).fit(sentences[: 6 * n] + sentences[6 * n + 6 :]).score(held_out))
        np.testing.assert_array_equal(cross_val_score(model, sentences, cv=3, error_score="raise"), wanted)
        lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
        pipeline = make_pipeline(lower, clone(model)).fit([text.upper() for text in sentences])
        assert pipeline.score(["AB AB"]) == pipeline[-1].score(["ab ab"]) == model.fit(sentences).score(["ab ab"])
        with pytest.raises(ValueError, match="^y must be None: a text is its own target; got list"):
            model.score(["ab ab"], ["ab ab"])

    def test_sample_weight_through_search_and_pipeline(self):
        """The heavy label of each text wins, so the weights arrived, cut to the rows of the fold."""
        from sklearn.model_selection import GridSearchCV
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer

        X, y, weights = ["ab", "ab", "ba", "ba"] * 4, ["p", "q", "p", "q"] * 4, np.array([9.0, 1, 1, 9] * 4)
        model = rc.SequenceClassifier(hidden_size=8, epochs=60, batch_size=16, random_state=0)
        search = GridSearchCV(model, {"learning_rate": [1e-6, 0.05]}, cv=2, error_score="raise")
        search.fit(X, y, sample_weight=weights)
        assert search.best_estimator_.predict(["ab", "ba"]).tolist() == ["p", "q"]
        pipeline = make_pipeline(FunctionTransformer(), model.set_params(learning_rate=0.05))
        pipeline.fit(X, y, sequenceclassifier__sample_weight=weights)
        assert pipeline.predict(["ab", "ba"]).tolist() == ["p", "q"]
        assert pipeline.score(X, y, sample_weight=weights) == 0.9

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
            "transcriber": [text[::2] for text in texts],
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
