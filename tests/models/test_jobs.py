"""Predictions shared by processes of joblib: the results of one, in order, to the bit."""

import sys

import numpy as np
import pytest
from support.jobs import read_log, traced
from support.training import CLASSES, MODELS, TEXTS, fit, make

import rnncore as rc
from rnncore.models import parallel

joblib = pytest.importorskip("joblib")

# name -> methods, and whether they take targets
METHODS = {
    "tagger": [("predict", False), ("predict_proba", False), ("score", True)],
    "classifier": [("predict", False), ("predict_proba", False), ("score", True)],
    "generator": [("log_prob", True), ("predict_proba", True), ("predict", True), ("score", True)],
    "seq2seq": [("log_prob", True), ("predict", False), ("score", True)],
    "transcriber": [("log_prob", True), ("predict_proba", False), ("predict", False), ("score", True)],
    "language": [("log_prob", False), ("score", False)],
}
CASES = [(name, method, targets) for name, methods in METHODS.items() for method, targets in methods]
TIMES = 12  # more sequences than a batch


def data_of(name):
    _, X, y = MODELS[name]
    return (list(TEXTS) * TIMES, None) if name == "language" else (list(X) * TIMES, list(y) * TIMES)


def same(a, b):
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return np.array_equal(a, b)


@pytest.fixture(scope="module")
def models():
    found = {name: fit(make(name, dtype="float32", batch_size=16)) for name in MODELS}
    found["crf"] = fit(make("tagger", output="crf", dtype="float32"))
    return found


@pytest.mark.parametrize(("name", "method", "targets"), [*CASES, ("crf", "predict", False)])
def test_jobs_give_the_same_results(name, method, targets, models):
    model = models[name]
    X, y = data_of("tagger" if name == "crf" else name)
    arguments = (X, y) if targets else (X,)
    wanted = getattr(model, method)(*arguments)
    assert same(getattr(model, method)(*arguments, n_jobs=2), wanted)


def test_options_reach_the_workers(models):
    X, _ = data_of("transcriber")
    wanted = models["transcriber"].predict(X, beam_width=3, insertion_bonus=0.7)
    assert models["transcriber"].predict(X, beam_width=3, insertion_bonus=0.7, n_jobs=2) == wanted
    wanted = models["seq2seq"].predict(X, beam_width=3, length_penalty=0.2, max_length=4)
    assert models["seq2seq"].predict(X, beam_width=3, length_penalty=0.2, max_length=4, n_jobs=2) == wanted


def test_a_quantized_model(models):
    X, _ = data_of("classifier")
    small = models["classifier"].quantize("int8")
    assert same(small.predict_proba(X, n_jobs=2), small.predict_proba(X))


def test_a_schedule_stays_here(models):
    X, _ = data_of("classifier")
    model = fit(make("classifier", schedule=lambda update, updates: 1.0))
    assert same(model.predict_proba(X, n_jobs=2), model.predict_proba(X))


def test_few_sequences(models):
    """Fewer than a batch, and none."""
    model = models["classifier"]
    for X in (TEXTS[:3], []):
        assert same(model.predict_proba(X, n_jobs=2), model.predict_proba(X))
    assert model.predict_proba([]).shape == (0, 2)


def test_the_context_of_joblib_counts(models, monkeypatch):
    assert parallel.count_workers(None) == 1
    with joblib.parallel_config("loky", n_jobs=2):
        assert parallel.count_workers(None) == 2
        X, _ = data_of("classifier")
        wanted = models["classifier"].predict_proba(X, n_jobs=1)
        assert same(models["classifier"].predict_proba(X), wanted)
        # In a task of joblib there are no further ones.
        assert joblib.Parallel()(joblib.delayed(parallel.count_workers)(None) for _ in range(2)) == [1, 1]
    assert parallel.count_workers(-1) == joblib.cpu_count()
    for wrong, error in [(0, ValueError), (1.5, TypeError), ("2", TypeError)]:
        with pytest.raises(error, match="n_jobs must be"):
            models["classifier"].predict(TEXTS, n_jobs=wrong)
    monkeypatch.setitem(sys.modules, "joblib", None)
    with pytest.raises(ModuleNotFoundError, match="pip install joblib"):
        models["classifier"].predict(TEXTS, n_jobs=2)


def test_threads_of_this_process(models):
    """The threading backend leaves the number of threads alone."""
    X, _ = data_of("tagger")
    before = rc.get_num_threads()
    with joblib.parallel_config("threading", n_jobs=2):
        found = models["tagger"].predict_proba(X)
    assert same(found, models["tagger"].predict_proba(X))
    assert rc.get_num_threads() == before


def test_a_model_travels_once_a_worker(tmp_path):
    model = traced(tmp_path)
    X, _ = data_of("language")
    wanted = model.log_prob(X, n_jobs=1)
    assert same(model.log_prob(X, n_jobs=2), wanted)
    processes = read_log(model, "model")
    assert len(processes) == len(set(processes)) <= 2
    assert set(read_log(model, "batch")) == set(processes)


def test_a_grid_search_scores_in_its_own_processes():
    """The settings are searched in parallel; the predictions in a task are not cut again."""
    model_selection = pytest.importorskip("sklearn.model_selection")
    model = rc.SequenceClassifier(hidden_size=4, epochs=1, random_state=0)
    found = [
        model_selection.GridSearchCV(model, {"hidden_size": [3, 5]}, cv=2, n_jobs=n_jobs).fit(TEXTS, CLASSES)
        for n_jobs in (1, 2)
    ]
    np.testing.assert_array_equal(*(search.cv_results_["mean_test_score"] for search in found))
