"""Training ends before a parameter becomes infinite or NaN, and names it; the model is that of the update before."""

import numpy as np
import pytest
from support import ranks
from support.training import CLASSES, TEXTS, assert_same, each_model, fit, make, parameters

import rnncore as rc

SETTINGS = {"epochs": 3, "dropout": 0.2, "optimizer": "adam", "dtype": "float32"}
BAD = 6  # the update, in the second epoch or, of the language model, the first


def spoil(model, monkeypatch, value=np.nan):
    """Put a value into one element of a gradient at one update. -> name of the parameter"""
    name = next(name for name in model.grads if ".Wh_0" in name)
    method, count = model._update, [0]

    def update(batch):
        result = method(batch)
        count[0] += 1
        if count[0] == BAD:
            model.grads[name].reshape(-1)[3] = value
        return result

    monkeypatch.setattr(model, "_update", update)
    return name


def spoiled(name, monkeypatch, value=np.nan, **settings):
    """-> a model whose `fit` will go wrong, its parameter's name"""
    model = fit(make(name, **SETTINGS | settings | {"epochs": 1}), callback=lambda at: True).set_params(
        epochs=3, warm_start=True
    )
    return model, spoil(model, monkeypatch, value)


@pytest.mark.parametrize("clip_norm", [5.0, None])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
@each_model
def test_fit_names_the_parameter_and_the_update(name, value, clip_norm, monkeypatch):
    model, spoiled_name = spoiled(name, monkeypatch, value, clip_norm=clip_norm)
    seen = []
    kind = "NaN" if np.isnan(value) else "infinite"
    epoch = 2 if name == "language" else 3
    wanted = (
        f"^update {BAD}, in epoch {epoch}: parameter '{spoiled_name}' would become infinite or "
        f"NaN: its gradient is {kind}. The parameters are those before this update. A lower learning_rate"
    )
    with pytest.raises(ValueError, match=wanted):
        fit(model, callback=lambda at: seen.append(parameters(model)))
    assert len(seen) == len(model.losses) == BAD - 1
    assert_same(model.params, seen[-1])


@each_model
def test_the_run_goes_on_from_the_update_before(name, monkeypatch, tmp_path):
    """In this process and from a file, with the bits of a run in which nothing happened."""
    whole = fit(make(name, **SETTINGS | {"epochs": 1}), callback=lambda at: True)
    fit(whole.set_params(epochs=3, warm_start=True), True)
    model, _ = spoiled(name, monkeypatch)
    with pytest.raises(ValueError, match=f"^update {BAD}, "):
        fit(model, True)
    monkeypatch.undo()
    model.save(tmp_path / "model.npz", training=True)
    for again in (rc.load(tmp_path / "model.npz"), model):
        fit(again, True, resume=True)
        assert_same(again.params, whole.params)
        assert again.losses == whole.losses


@pytest.mark.parametrize(("dtype", "rate"), [("float32", 1e30), ("float32", 3e38), ("float64", 1.7e308)])
@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adagrad", "adam"])
@each_model
def test_learning_rates_that_are_far_too_large(name, optimizer, dtype, rate):
    """Gradients that vanish may go unnoticed; parameters that are not finite do not."""
    model, said = make(name, epochs=3, optimizer=optimizer, learning_rate=rate, clip_norm=None, dtype=dtype), None
    try:
        fit(model)
    except ValueError as error:
        said = str(error)
    for p in model.params.values():
        assert np.isfinite(p).all()
    if said or (rate > 1e30 and optimizer in ("rmsprop", "adagrad")):
        assert said.startswith(f"update {len(model.losses) + 1}, in epoch ")


def test_a_step_that_is_too_large():
    """With finite gradients."""
    model = make("tagger", optimizer="rmsprop", learning_rate=3e38, dtype="float32")
    with pytest.raises(
        ValueError,
        match=r"^update 1, in epoch 1: parameter 'embedding.W' would become infinite or NaN: the "
        r"step is too large with learning_rate 3e\+38: it is infinite",
    ):
        fit(model)
    assert model._optimizer.iterations == 0


def test_infinite_data_are_named_before_training():
    features = [np.ones((len(text), 2)) for text in TEXTS]
    features[4][1, 1] = np.inf
    weight = np.ones(len(TEXTS))
    weight[3] = np.nan
    with pytest.raises(ValueError, match=r"^X\[4\] must be finite"):
        make("classifier").fit(features, CLASSES)
    with pytest.raises(ValueError, match="^sample_weight"):
        make("classifier").fit(TEXTS, CLASSES, sample_weight=weight)


def test_all_ranks_raise_the_same_error(tmp_path):
    """And each of them can go on: the error of one is not taken for news of a later run."""
    found = ranks.run_on_ranks(2, ranks.with_large_rate, tmp_path)
    assert found[0] == found[1]
    assert found[0]["error"].startswith("update 2, in epoch 1: parameter ")
    assert found[0]["finite"]
    assert len(found[0]["losses"]) == 10
