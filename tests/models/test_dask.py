"""Predictions and searches on a cluster of Dask: the bits of one process, also if a worker is killed."""

import os
import signal
import threading
import time

import numpy as np
import pytest
from support.jobs import read_log, traced
from support.training import CLASSES, TEXTS

import rnncore as rc

joblib = pytest.importorskip("joblib")
distributed = pytest.importorskip("distributed")


@pytest.fixture
def cluster():
    """Two workers that are processes."""
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options, silence_logs=50) as cluster, distributed.Client(cluster):
        yield cluster


@pytest.mark.filterwarnings("ignore")  # of Dask's own
def test_log_prob_on_a_cluster(cluster, tmp_path):
    """And a second time, when the workers have the model."""
    model = traced(tmp_path)
    texts = list(TEXTS) * 12
    wanted = model.log_prob(texts, n_jobs=1)
    with joblib.parallel_config("dask"):
        for _ in range(2):
            np.testing.assert_array_equal(model.log_prob(texts), wanted)
    processes = read_log(model, "model")
    assert len(processes) == len(set(processes)) <= 2
    assert set(read_log(model, "batch")) == set(processes)


@pytest.mark.filterwarnings("ignore")
def test_a_worker_is_killed_in_the_middle(cluster, tmp_path):
    model = traced(tmp_path, seconds=0.05)
    texts = list(TEXTS) * 12
    wanted = model.log_prob(texts, n_jobs=1)
    killed = []

    def kill_the_first():
        while len(read_log(model, "batch")) < 3:
            time.sleep(0.01)
        killed.append(read_log(model, "batch")[0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_the_first)
    killer.start()
    with joblib.parallel_config("dask"):
        found = model.log_prob(texts)
    killer.join(timeout=30)
    assert killed
    np.testing.assert_array_equal(found, wanted)
    done = read_log(model, "batch")
    assert len(done) > done.index(killed[0])
    assert set(done) - set(killed)


@pytest.mark.filterwarnings("ignore")
def test_grid_search_on_a_cluster(cluster):
    model_selection = pytest.importorskip("sklearn.model_selection")
    model = rc.SequenceClassifier(hidden_size=4, epochs=1, random_state=0)
    searches = [model_selection.GridSearchCV(model, {"hidden_size": [3, 5]}, cv=2) for _ in range(2)]
    searches[0].fit(TEXTS, CLASSES)
    with joblib.parallel_config("dask"):
        searches[1].fit(TEXTS, CLASSES)
    np.testing.assert_array_equal(*(search.cv_results_["mean_test_score"] for search in searches))
    np.testing.assert_array_equal(*(search.predict(TEXTS) for search in searches))
