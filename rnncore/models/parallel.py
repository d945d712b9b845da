"""Predictions in the processes of joblib: those of this machine, or of a cluster that joblib drives."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from .. import checks
from ..engine import settings

# More tasks than workers: what a lost or slow worker leaves undone goes to others.
TASKS_PER_WORKER = 8

# In a worker: the model that the last task came with, by digest, so that a process unpickles a model once.
_received: dict[str, Any] = {}


def count_workers(n_jobs: int | None) -> int:
    """Return how many processes ``n_jobs`` asks for: 1 is none but this one.

    None is what ``joblib.parallel_config`` says, but 1 within a task of joblib.
    """
    if n_jobs is not None:
        n_jobs = checks.integer("n_jobs", n_jobs, least=-sys.maxsize)
    if n_jobs is None:
        parallel = sys.modules.get("joblib.parallel")  # nobody has configured what is not imported
        if parallel is None or parallel.get_active_backend()[0].nesting_level:
            return 1
    elif n_jobs == 0:
        raise ValueError("n_jobs must be 1, 2, ..., or -1 for all cores, -2 for all but one, ...; got 0")
    elif n_jobs == 1:
        return 1
    return int(_joblib().effective_n_jobs(n_jobs))


def _without_grads(layer: Any) -> Any:
    layer = copy.copy(layer)
    layer.grads = {}
    return layer


class _Parcel:
    """Holds data of a task. Dask spreads large arguments over the workers' memories, where they are lost with a worker;
    what is in an object goes with the task, and again with its repetition."""

    __slots__ = ("content",)

    def __init__(self, content: Any) -> None:
        self.content = content


def _joblib() -> Any:
    try:
        import joblib
    except ModuleNotFoundError:
        raise ModuleNotFoundError("n_jobs needs joblib: pip install joblib") from None
    return joblib


def run(
    model: Any, method: str, count: int, part: Callable[[int], Any], options: Sequence[Any], n_jobs: Any, workers: int
) -> list[Any]:
    """Return what a method of the model says of ``count`` parts of the data, in order.

    Task k has parts k, k + tasks, ...: parts are in order of length, so that tasks take about as long.
    """
    joblib = _joblib()
    layers = model.layers if model._precision else {name: _without_grads(one) for name, one in model.layers.items()}
    light = model._with_layers(layers, model._precision)
    light.history, light.schedule = [], None
    pickled: Any = np.frombuffer(pickle.dumps((light, tuple(options)), protocol=5), np.uint8)
    digest, sender = hashlib.sha256(pickled).hexdigest(), (os.getpid(), workers)
    tasks = min(count, workers * TASKS_PER_WORKER)
    parallel = joblib.Parallel(n_jobs=n_jobs)
    with _spread(parallel._backend, pickled):
        found = parallel(
            joblib.delayed(_run_task)(
                pickled, digest, sender, method, _Parcel([part(number) for number in range(task, count, tasks)])
            )
            for task in range(tasks)
        )
    return [found[number % tasks][number // tasks] for number in range(count)]


@contextmanager
def _spread(backend: Any, array: Any) -> Iterator[None]:
    """Put an array on all workers of Dask, which otherwise have it from one to the next, and lose it with that one."""
    if not hasattr(backend, "data_futures"):
        yield
        return
    backend.data_futures[id(array)] = backend.client.scatter(array, broadcast=True, hash=False)
    try:
        yield
    finally:
        del backend.data_futures[id(array)]


def _run_task(pickled: Any, digest: str, sender: tuple[int, int], method: str, parcel: _Parcel) -> list[Any]:
    received = _received.get(digest)
    if received is None:
        received = pickle.loads(pickled)
        _received.clear()
        _received[digest] = received
    model, options = received
    pid, workers = sender
    is_alone = os.getpid() == pid or settings.threads_are_set()
    threads = max(1, settings.usable_cores() // workers)
    with nullcontext() if is_alone else settings.default_threads(threads):
        frozen = model._frozen()
        return [getattr(model, method)(frozen, *part, *options) for part in parcel.content]
