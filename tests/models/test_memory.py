"""Memory that runs out while a model is fitted, saved or loaded leaves a model and files that can be used."""

import itertools

import numpy as np
import pytest
from support.training import assert_same, each_model, fit, make, parameters

import rnncore as rc
from rnncore import _engine
from rnncore.models import storage

#: Native functions that allocate: they fail before they have changed anything (bench/faults.py).
ALLOCATING = ("forward", "backward", "affine", "attention", "ctc", "crf", "Block")


class Failing:
    """Lets the native call number `last` raise MemoryError."""

    def __init__(self, patch, last):
        self.calls, self.last = 0, last
        for name in ALLOCATING:
            patch.setattr(_engine, name, self.wrapped(getattr(_engine, name)))

    def wrapped(self, function):
        def call(*arguments, **keywords):
            self.calls += 1
            if self.calls == self.last:
                raise MemoryError(f"call {self.last}")
            return function(*arguments, **keywords)

        return call


@each_model
def test_a_run_that_runs_out_of_memory_goes_on(name, monkeypatch, tmp_path):
    """The parameters are those of the last whole update, and what goes on has the bits of a run that did not stop."""
    settings = {"epochs": 2, "dropout": 0.3, "num_layers": 2, "accumulation": 2}
    whole, after = make(name, **settings), []
    fit(whole, True, callback=lambda _: after.append(parameters(whole)))
    stopped = 0
    for last in itertools.accumulate(itertools.count(1)):
        model = make(name, **settings)
        with monkeypatch.context() as patch:
            failing = Failing(patch, last)
            try:
                fit(model, True)
            except MemoryError as error:
                assert str(error) == f"call {last}"
        if failing.calls < last:
            break
        updates = len(model._position.losses)
        if updates:
            assert_same(model.params, after[updates - 1])
        model.save(tmp_path / "model.npz", training=True)
        for going_on in (rc.load(tmp_path / "model.npz"), model):
            fit(going_on, True, resume=True)
            assert_same(going_on.params, whole.params)
        stopped += 1
    assert stopped > 5


def test_a_save_that_runs_out_of_memory_keeps_the_file(monkeypatch, tmp_path):
    model = fit(make("language"))
    path = tmp_path / "model.npz"
    model.save(path)
    before = path.read_bytes()
    params = parameters(model)

    def failing(file, **content):
        file.write(b"half a file")
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", failing)
        with pytest.raises(MemoryError):
            model.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.npz"]
    assert_same(model.params, params)
    fit(model)
    model.save(path)
    assert_same(rc.load(path).params, model.params)


def test_a_load_that_runs_out_of_memory_says_so(monkeypatch, tmp_path):
    """And not that the file is damaged."""
    path = tmp_path / "model.npz"
    fit(make("tagger")).save(path)

    def failing(content):
        raise MemoryError

    monkeypatch.setattr(storage, "_as_array", failing)
    with pytest.raises(MemoryError):
        rc.load(path)
