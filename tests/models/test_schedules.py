"""Learning rates over a run, and batches that are accumulated into one update."""

import numpy as np
import pytest
from support.training import TEXTS, each_model, fit, make, parameters, scripted

import rnncore as rc


def rates_of(model, **options):
    """Learning rates of the updates of plain gradient descent: what the parameters moved by, over the gradient."""
    rates = []
    before = {}

    def measure(at):
        moved = {key: before[key] - p for key, p in model.params.items()} if before else None
        if moved is not None:
            key = "output.b"
            rates.append(float(np.abs(moved[key]).max() / np.abs(model.grads[key]).max()))
        before.update(parameters(model))

    fit(model, callback=measure, **options)
    return rates


@each_model
def test_schedules(name):
    settings = {"epochs": 4, "optimizer": "sgd", "clip_norm": None, "learning_rate": 0.01}
    count = len(rates_of(make(name, **settings))) + 1
    cosine = rates_of(make(name, schedule="cosine", warm_up=4, **settings))
    wanted = [
        0.01 * u / 4 if u <= 4 else 0.005 * (1 + np.cos(np.pi * (u - 5) / (count - 4))) for u in range(2, count + 1)
    ]
    np.testing.assert_allclose(cosine, wanted, rtol=1e-6, atol=1e-9)
    seen = []

    def halves(update, updates):
        seen.append((update, updates))
        return 0.5**update

    np.testing.assert_allclose(
        rates_of(make(name, schedule=halves, **settings)), [0.01 * 0.5**u for u in range(2, count + 1)], rtol=1e-6
    )
    assert set(seen) == {(u, count) for u in range(1, count + 1)}


@each_model
def test_plateau(name, monkeypatch):
    model = make(name, epochs=8, schedule="plateau", learning_rate=1.0, optimizer="sgd")
    scripted(model, monkeypatch, [3, 2, 2, 2.5, 2.5, 2.1, 1, 0.5])
    fit(model, held_out=True)
    assert [record["learning_rate"] for record in model.history] == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25]
    with pytest.raises(ValueError, match="schedule 'plateau' needs validation data in fit"):
        fit(make(name, schedule="plateau"))


@each_model
def test_accumulated_batches_are_one(name):
    """All batches of an epoch in one update: as one batch of everything."""
    if name == "language":
        sizes = [{"batch_size": 5, "chunk_length": 60}] * 2  # a single chunk
    else:
        sizes = [{"batch_size": 4, "accumulation": 6}, {"batch_size": 100}]
    one, other = (fit(make(name, epochs=3, learning_rate=0.01, optimizer="sgd", **size)) for size in sizes)
    for key, p in one.params.items():
        np.testing.assert_allclose(p, other.params[key], rtol=1e-9, atol=1e-12, err_msg=key)
    np.testing.assert_allclose(one.history[-1]["loss"], other.history[-1]["loss"], rtol=1e-9)


def test_a_schedule_may_reach_zero_but_not_go_below():
    model = fit(make("tagger", schedule=lambda update, updates: 1 - update / updates))
    assert all(np.isfinite(p).all() for p in model.params.values())
    with pytest.raises(ValueError, match="the value of schedule must be at least 0 and finite; got -1"):
        fit(make("tagger", schedule=lambda update, updates: -1))


def test_an_interrupt_in_an_update_leaves_the_rate(monkeypatch):
    model = make("tagger", schedule="cosine", learning_rate=0.01, warm_start=True)
    steps = []
    original = rc.Adam.step

    def interrupted(self, *arguments, **options):
        steps.append(self.learning_rate)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return original(self, *arguments, **options)

    monkeypatch.setattr(rc.Adam, "step", interrupted)
    fit(model)
    assert model.interrupted
    assert steps[2] < 0.01
    assert model._optimizer.learning_rate == 0.01


@pytest.mark.parametrize("weight", [1e-60, 1e60])
def test_accumulation_takes_any_weights(weight):
    settings = {"accumulation": 3, "dtype": "float32", "epochs": 2}
    plain, weighted = make("tagger", **settings), make("tagger", **settings)
    fit(plain)
    fit(weighted, sample_weight=np.full(len(TEXTS), weight))
    for key, p in weighted.params.items():
        np.testing.assert_allclose(p, plain.params[key], rtol=1e-4, atol=1e-5, err_msg=key)


def test_accumulation_counts_updates():
    model, seen = make("tagger", epochs=2, batch_size=4, accumulation=4), []
    fit(model, callback=seen.append)
    assert [at.update for at in seen] == [1, 2, 3, 4]  # six batches an epoch: four, then two
    assert {at.updates for at in seen} == {4}
    assert seen[-1].tokens == 2 * sum(map(len, TEXTS))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "linear"}, "schedule must be one of 'cosine', 'plateau'; got 'linear'"),
        ({"warm_up": -1}, "warm_up must be at least 0; got -1"),
        ({"accumulation": 0}, "accumulation must be at least 1; got 0"),
    ],
)
def test_wrong_schedules(settings, message):
    with pytest.raises(ValueError, match=message):
        fit(make("tagger", **settings))
