"""What happens in ``fit``: history, callbacks, early stopping, interrupts, warm starts, weights, held-out data."""

from collections import Counter

import numpy as np
import pytest
from support.training import (
    LINES,
    MODELS,
    TAGS,
    TEXTS,
    assert_same,
    differ,
    each_model,
    fit,
    make,
    parameters,
    scripted,
    tokens_of,
)

import rnncore as rc
from rnncore.models.data import Labels, class_weights
from rnncore.models.training import Progress

# ---- history and callbacks ------------------------------------------------------------------------------------------


@each_model
@pytest.mark.parametrize("held_out", [False, True])
def test_history_and_progress(name, held_out):
    seen = []
    model = fit(make(name, epochs=3), held_out, callback=seen.append)
    updates = -(-len(TEXTS) // 5) if name != "language" else -(-(len(LINES) // 5) // 9)
    assert all(isinstance(at, Progress) for at in seen)
    assert [at.update for at in seen] == list(range(1, 3 * updates + 1))
    assert {at.updates for at in seen} == {3 * updates}
    assert [at.epoch for at in seen] == list(np.repeat([1, 2, 3], updates))
    assert [at.tokens for at in seen] == sorted(at.tokens for at in seen)
    assert seen[-1].tokens == 3 * tokens_of(name)
    assert all(np.isfinite(at.loss) for at in seen)
    assert {type(at.optimizer) for at in seen} == {rc.Adam}
    # The held-out loss comes with the last update of an epoch.
    assert [n for n, at in enumerate(seen) if at.held_out is not None] == (
        [updates - 1, 2 * updates - 1, 3 * updates - 1] if held_out else []
    )
    assert [n for n, at in enumerate(seen) if at.epoch_ends] == [updates - 1, 2 * updates - 1, 3 * updates - 1]
    assert all(at.record is model.history[at.epoch - 1] for at in seen)
    assert [record["epoch"] for record in model.history] == [1, 2, 3]
    for record, at in zip(model.history, seen[updates - 1 :: updates], strict=True):
        assert set(record) == {"epoch", "loss", "held_out", "updates", "tokens", "seconds", "learning_rate"}
        assert record["updates"] == updates
        assert record["held_out"] == at.held_out
        assert record["tokens"] == tokens_of(name)
        assert record["learning_rate"] == 0.002
        assert record["seconds"] > 0
        assert all(value is None or type(value) in (int, float) for value in record.values())
    assert not model.interrupted
    assert model.losses == [at.loss for at in seen]


@each_model
def test_loss_of_an_epoch_is_the_mean_of_all_steps(name):
    """With a rate that changes nothing: the loss of the data, whatever the batches."""
    model = fit(make(name, epochs=1, learning_rate=1e-14))
    _, X, y = MODELS[name]
    one_each = ("classifier", "transcriber")  # a loss for each sequence
    steps = len(TEXTS) if name in one_each else tokens_of(name) - (sum(map(len, X)) if name == "seq2seq" else 0)
    if name == "tagger":
        nats = fit_score(name, model, X, y) * steps
    elif name == "classifier":
        nats = -np.log(model.predict_proba(X)[np.arange(len(X)), [int(label == "q") for label in y]]).sum()
    elif name == "language":
        # Five streams, each from a state of zeros.
        cut = len(LINES) // 5
        nats = -sum(model.log_prob(LINES[n * cut : (n + 1) * cut]) for n in range(5))
    else:
        nats = -model.log_prob(X, y).sum()
    np.testing.assert_allclose(model.history[0]["loss"], nats / steps, rtol=1e-9)
    if name != "language":
        again = fit(make(name, epochs=1, learning_rate=1e-14), validation=(X, y))
        np.testing.assert_allclose(again.history[0]["held_out"], nats / steps, rtol=1e-9)


@each_model
def test_every_callback_hears_of_every_update(name):
    first, second, third = [], [], []
    model = make(name)
    fit(model, callback=[first.append, lambda at: second.append(at) or at.update == 3, third.append])
    assert first == second == third
    assert [at.update for at in first] == [1, 2, 3]
    # Training ended there: no further update.
    other, kept = make(name), []
    fit(other, callback=lambda at: kept.append(parameters(other)) if at.update == 3 else None)
    assert_same(model.params, kept[0])
    assert not model.interrupted


@each_model
def test_callback_changes_the_learning_rate(name):
    def slow(at):
        at.optimizer.learning_rate = 0.25 if at.epoch == 1 else 1e-14

    model, kept = make(name, epochs=3, optimizer="sgd"), []
    fit(model, callback=[slow, lambda at: kept.append((at.epoch, parameters(model))) and None])
    assert [record["learning_rate"] for record in model.history] == [0.002, 0.25, 1e-14]
    last_of_first = [params for epoch, params in kept if epoch == 1][-1]
    first_of_second = next(params for epoch, params in kept if epoch == 2)
    assert differ(last_of_first, first_of_second)
    for key, p in model.params.items():
        np.testing.assert_allclose(p, first_of_second[key], rtol=0, atol=1e-11)


@each_model
def test_learning_rate_decay(name):
    decayed = fit(make(name, epochs=3, learning_rate=0.5, learning_rate_decay=0.1, optimizer="sgd"))
    rates = [record["learning_rate"] for record in decayed.history]
    np.testing.assert_allclose(rates, [0.5, 0.05, 0.005])

    def by_hand(at):
        # Heard after an update, so that it holds from the next on.
        at.optimizer.learning_rate = rates[min(at.update // (at.updates // 3), 2)]

    assert_same(fit(make(name, epochs=3, learning_rate=0.5, optimizer="sgd"), callback=by_hand).params, decayed.params)


def test_progress_bar(capsys):
    pytest.importorskip("tqdm")
    fit(make("tagger"), True, progress=True)
    shown = capsys.readouterr().err
    assert "10/10" in shown
    assert "epoch 2, loss " in shown
    assert "held-out " in shown
    fit(make("tagger"))
    assert capsys.readouterr() == ("", "")


# ---- when training ends ---------------------------------------------------------------------------------------------


@each_model
def test_patience_goes_back_to_the_best_epoch(name, monkeypatch):
    model, kept = make(name, epochs=20, patience=3), {}
    scripted(model, monkeypatch, [3.0, 2.0, 2.5, 1.0, 1.0, 1.5, 1.2, *[0.1] * 13])
    fit(model, True, callback=lambda at: kept.update({at.epoch: parameters(model)}))
    # The fourth is the best, equal is not better, and three epochs later it is over.
    assert [record["held_out"] for record in model.history] == [3.0, 2.0, 2.5, 1.0, 1.0, 1.5, 1.2]
    assert_same(model.params, kept[4])
    assert differ(kept[4], kept[7])
    assert not model.interrupted


@each_model
def test_all_epochs_end_at_the_best_with_patience_only(name, monkeypatch):
    for patience, best in ((9, 2), (None, 4)):
        model, kept = make(name, epochs=4, patience=patience), {}
        scripted(model, monkeypatch, [3.0, 1.0, 2.0, 2.5])
        fit(model, True, callback=lambda at, kept=kept, model=model: kept.update({at.epoch: parameters(model)}))
        assert len(model.history) == 4
        assert_same(model.params, kept[best])


@each_model
def test_a_callback_that_stops_leaves_the_best_epoch_if_there_is_patience(name, monkeypatch):
    for patience, best in ((9, 2), (None, 4)):
        model, kept = make(name, epochs=9, patience=patience), {}
        scripted(model, monkeypatch, [3.0, 1.0, 2.0, 0.5])

        def stop(at, kept=kept, model=model):
            kept[at.epoch] = parameters(model)
            return at.epoch == 4

        fit(model, True, callback=stop)
        assert len(model.history) == 4
        assert_same(model.params, kept[best])


@each_model
def test_held_out_losses_that_are_no_numbers(name, monkeypatch):
    """None is the best; patience ends the run all the same."""
    model, kept = make(name, epochs=9, patience=2), {}
    scripted(model, monkeypatch, [np.nan] * 9)
    fit(model, True, callback=lambda at: kept.update({at.epoch: parameters(model)}))
    assert len(model.history) == 2
    assert_same(model.params, kept[2])


@each_model
@pytest.mark.parametrize("held_out", [True, False])
def test_interrupt(name, held_out, monkeypatch):
    """In the middle of the fourth epoch: back to the second, the best, or the parameters of the moment."""
    model, kept = make(name, epochs=9), {}
    scripted(model, monkeypatch, [3.0, 1.0, 2.0])

    def interrupt(at):
        kept[at.epoch] = parameters(model)
        if at.epoch == 4:
            raise KeyboardInterrupt

    assert fit(model, held_out, callback=interrupt) is model
    assert model.interrupted
    assert [record["epoch"] for record in model.history] == [1, 2, 3, 4]
    assert model.history[-1]["held_out"] is None
    assert_same(model.params, kept[2 if held_out else 4])
    assert differ(kept[2], kept[4])
    # The next run is not interrupted.
    scripted(model, monkeypatch, [1.0] * 9)
    assert not fit(model, held_out).interrupted


@each_model
def test_interrupt_before_the_first_epoch_ended(name):
    def interrupt(at):
        if at.update == 2:
            kept.append(parameters(model))
            raise KeyboardInterrupt

    model, kept = make(name), []
    fit(model, True, callback=interrupt)
    assert model.interrupted
    assert_same(model.params, kept[0])


@each_model
def test_interrupt_while_the_best_epoch_ends(name, monkeypatch):
    """The epoch that was scored last counts, though a callback did not come back from it."""
    seen = {}

    def interrupt(progress):
        seen[progress.epoch] = parameters(model)
        if progress.epoch == 2 and progress.held_out is not None:
            raise KeyboardInterrupt

    model = make(name, epochs=5)
    scripted(model, monkeypatch, [3.0, 2.0])
    fit(model, held_out=True, callback=interrupt)
    assert model.interrupted
    assert_same(model.params, seen[2])


@each_model
def test_errors_of_a_callback_come_out(name):
    def fail(at):
        raise ZeroDivisionError("of the callback")

    with pytest.raises(ZeroDivisionError, match="of the callback"):
        fit(make(name), callback=fail)


# ---- going on -------------------------------------------------------------------------------------------------------


@each_model
@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize("settings", [{}, {"dropout": 0.3, "recurrent_dropout": 0.2, "learning_rate_decay": 0.5}])
def test_warm_start_goes_on(name, optimizer, settings):
    """Generator and optimiser carry on: twice one epoch is one fit of two, to the bit."""
    at_once = fit(make(name, optimizer=optimizer, **settings))
    model = fit(make(name, optimizer=optimizer, epochs=1, warm_start=True, **settings))
    arrays = model.params
    fit(model)
    assert model.params is arrays
    assert_same(model.params, at_once.params)
    for record, wanted in zip(model.history, at_once.history, strict=True):
        assert record | {"seconds": 0} == wanted | {"seconds": 0}
    # Without it all starts anew.
    model.set_params(warm_start=False)
    fit(model)
    assert model.params is not arrays
    assert [record["epoch"] for record in model.history] == [1]


@each_model
def test_warm_start_takes_new_settings_of_training_only(name):
    model = fit(make(name, warm_start=True, learning_rate=0.01, learning_rate_decay=0.5))
    fit(model)
    fit(model.set_params(learning_rate=0.3))
    assert [record["learning_rate"] for record in model.history] == [0.01, 0.005, 0.0025, 0.00125, 0.3, 0.15]
    before = parameters(model)
    fit(model.set_params(optimizer="sgd", learning_rate=1e-30))
    assert model.history[-1]["learning_rate"] == 0.5e-30
    assert_same(model.params, before)
    with pytest.raises(ValueError, match="warm_start goes on with hidden_size = 4 of the layers; got 5"):
        fit(model.set_params(hidden_size=5))
    assert_same(model.params, before)
    assert fit(model.set_params(warm_start=False)).params["output.W"].shape[0] in (5, 10)


def test_labels_and_ids_of_the_held_out_share_are_known():
    """A rare one may stand on that side only."""
    ids = [np.array([0, 1, 2])] * 9 + [np.array([7, 1, 0])]
    tags = [["O", "O", "O"]] * 9 + [["B", "O", "O"]]
    for seed in range(8):
        model = rc.SequenceTagger(hidden_size=3, epochs=1, random_state=seed).fit(ids, tags, validation=0.2)
        assert model.classes_.tolist() == ["B", "O"]
        assert model.predict([np.array([7])])[0].shape == (1,)


def test_warm_start_keeps_vocabulary_and_classes():
    model = fit(make("classifier", warm_start=True))
    vocabulary = model.vocabulary
    model.fit(["xyz", "a"], ["p", "p"])
    assert model.vocabulary is vocabulary
    assert model.classes_.tolist() == ["p", "q"]
    kept = parameters(model)
    with pytest.raises(ValueError, match=r"^y must hold labels of the training data \('p', 'q'\); got 'r'"):
        model.fit(["a"], ["r"])
    assert_same(model.params, kept)
    assert [record["epoch"] for record in model.history] == [1, 2, 3, 4]


@each_model
def test_the_same_seed_gives_the_same_bits(name):
    key = "seed" if name == "language" else "random_state"
    settings = {"dropout": 0.2, "num_layers": 2}
    one, again, other = (fit(make(name, **settings | {key: seed})).params for seed in (3, 3, 4))
    assert_same(one, again)
    assert differ(one, other)
    assert_same(one, fit(make(name, **settings | {key: np.random.default_rng(3)})).params)
    # A second fit of one model is the same again, unless the generator is one that goes on.
    model = make(name, **settings)
    assert_same(parameters(fit(model)), fit(model).params)
    model = make(name, **settings | {key: np.random.default_rng(3)})
    assert differ(parameters(fit(model)), fit(model).params)
    assert differ(parameters(fit(make(name, **{key: None}))), fit(make(name, **{key: None})).params)


@each_model
def test_clip_norm(name):
    """SGD of rate 1: the norm of all steps together is that of the clipped gradients."""
    norms, before = [], {}

    def measure(at):
        now = parameters(model)
        norms.append(np.sqrt(sum(((now[key] - before[key]) ** 2).sum() for key in now)) if before else None)
        before.update(now)

    model = make(name, optimizer="sgd", learning_rate=1.0, clip_norm=1e-3)
    fit(model, callback=measure)
    np.testing.assert_allclose(norms[1:], 1e-3, rtol=1e-6)
    norms.clear()
    before.clear()
    fit(model.set_params(clip_norm=None, learning_rate=1e-3), callback=measure)
    assert max(norms[1:]) < 1e-2
    assert np.std(norms[1:]) > 1e-6


# ---- batches and held-out data --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tagger", "classifier", "generator", "seq2seq", "transcriber"])
def test_every_sequence_is_in_one_batch_of_an_epoch(name, monkeypatch):
    _, X, y = MODELS[name]
    model, seen = make(name, epochs=2, batch_size=4), []
    original = type(model)._batch
    monkeypatch.setattr(type(model), "_batch", lambda self, e, rows: seen.append((e, rows)) or original(self, e, rows))
    fit(model)
    epochs = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    orders = []
    for epoch in epochs:
        rows = np.concatenate([rows for _, rows in epoch])
        assert sorted(rows.tolist()) == list(range(len(X)))
        assert sorted(map(len, (rows for _, rows in epoch))) == [3, *[4] * 5]
        orders.append(rows.tolist())
        padding = sum((e.lengths[rows].max() - e.lengths[rows]).sum() for e, rows in epoch)
        assert padding < 0.2 * sum(e.lengths.sum() for e, _ in epoch[:1])
    assert orders[0] != orders[1]


def spied_split(model, X, y, share, monkeypatch):
    """-> what was trained on, and what was held out, as pairs (x, y)"""
    sides = {}
    original = type(model)._encode

    def spy(self, X, y, names, *, weights=None, training=False):
        sides[training] = list(zip(X, [None] * len(X) if y is None else list(y), strict=True))
        return original(self, X, y, names, weights=weights, training=training)

    monkeypatch.setattr(type(model), "_encode", spy)
    model.fit(X, y, validation=share)
    monkeypatch.undo()
    return sides[True], sides[False]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.9])
def test_a_share_of_every_class_is_held_out(share, monkeypatch):
    X = [f"{'ab'[n % 2]}{'c' * (n // 2)}" for n in range(36)]
    y = ["common"] * 20 + ["less"] * 10 + ["rare"] * 4 + ["two"] * 2
    for name in ("classifier", "generator"):
        model = make(name, epochs=1)
        trained, held_out = spied_split(model, X, y, share, monkeypatch)
        assert sorted(trained + held_out) == sorted(zip(X, y, strict=True))
        counts = Counter(label for _, label in held_out)
        # At least one of each, and at least one is left.
        assert counts == {c: min(max(round(n * share), 1), n - 1) for c, n in Counter(y).items()}
        assert model.history[0]["held_out"] > 0
        other = spied_split(make(name, epochs=1, random_state=8), X, y, share, monkeypatch)[1]
        assert sorted(other) != sorted(held_out)


@pytest.mark.parametrize("name", ["tagger", "generator", "seq2seq", "transcriber"])
def test_a_share_is_held_out(name, monkeypatch):
    X, y = MODELS[name][1:]
    y = None if name == "generator" else y
    model = make(name, epochs=1)
    trained, held_out = spied_split(model, X, y, 0.3, monkeypatch)
    assert (len(trained), len(held_out)) == (16, 7)
    wanted = [(x, None if y is None else list(t)) for x, t in zip(X, y or X, strict=True)]
    found = [(x, None if y is None else list(t)) for x, t in trained + held_out]
    assert sorted(found, key=lambda pair: pair[0]) == sorted(wanted, key=lambda pair: pair[0])
    # The vocabulary is that of the training side.
    vocabulary = model.source_vocabulary if name == "seq2seq" else model.vocabulary
    assert set(vocabulary.tokens[2:]) == set("".join(x for x, _ in trained))
    # The loss that is told is that of the held-out side, with the parameters as they are.
    hx, hy = [x for x, _ in held_out], [t for _, t in held_out]
    told = fit_score(name, model, hx, None if y is None else hy)
    np.testing.assert_allclose(model.history[0]["held_out"], told, rtol=1e-9)


def fit_score(name, model, X, y):
    if name == "tagger":
        pairs = zip(model.predict_proba(X), y, strict=True)
        return -np.mean(np.log(np.concatenate([p[np.arange(len(p)), np.array(t, int)] for p, t in pairs if len(t)])))
    steps = len(X) if name == "transcriber" else sum(len(x) + 1 for x in (X if name == "generator" else y))
    return -model.log_prob(X, y).sum() / steps


def test_held_out_data_as_padded_arrays():
    ids = [np.array(["abc".index(c) for c in text], int) for text in TEXTS]
    batch, lengths = rc.pad(ids, padding=99)
    tags, _ = rc.pad([np.array(t, int) for t in TAGS], padding=-1)
    one = make("tagger").fit(ids, TAGS, validation=(ids[:9], TAGS[:9]))
    other = make("tagger").fit(ids, TAGS, validation=(batch.T[:9], tags.T[:9].astype(int), lengths[:9]))
    assert [r["held_out"] for r in one.history] == [r["held_out"] for r in other.history]
    with pytest.raises(ValueError, match=r"^validation X\[0\] must hold ids in|^validation y\[0\] must"):
        make("tagger").fit(ids, TAGS, validation=(batch.T[:9], tags.T[:9]))


# ---- weights of classes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "weights"),
    [
        ({True: 3.0, False: 0.5}, (0.5, 3.0)),
        ({True: 4}, (1.0, 4.0)),
        ({False: 0}, (0.0, 1.0)),
        ("balanced", None),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("name", "options"),
    [("tagger", {"output": "softmax"}), ("tagger", {"output": "sigmoid"}), ("classifier", {})],
    ids=["softmax", "sigmoid", "classifier"],
)
def test_class_weights_are_weights_of_the_loss(name, options, setting, weights):
    y = TAGS if name == "tagger" else ["a" in text for text in TEXTS]
    flat = np.concatenate([np.array(t, int) for t in y]) if name == "tagger" else np.array(y, int)
    if weights is None:
        weights = len(flat) / (2 * np.bincount(flat))
        pytest.importorskip("sklearn")
        from sklearn.utils.class_weight import compute_class_weight

        np.testing.assert_allclose(weights, compute_class_weight("balanced", classes=np.array([0, 1]), y=flat))
        np.testing.assert_allclose(class_weights("balanced", Labels(np.array([0, 1])), flat), weights)
    # One batch and a rate of nothing: the loss of the data at the first parameters.
    settings = {"epochs": 1, "learning_rate": 1e-14, "batch_size": 100, **options}
    model = make(name, class_weight=setting, **settings).fit(TEXTS, y, validation=(TEXTS, y))
    proba = model.predict_proba(TEXTS)
    nats = -np.log((np.concatenate(proba) if name == "tagger" else proba)[np.arange(len(flat)), flat])
    of_steps = np.array(weights)[flat]
    np.testing.assert_allclose(model.history[0]["loss"], (of_steps * nats).sum() / of_steps.sum(), rtol=1e-9)
    # The held-out loss, and scores, count every step alike.
    np.testing.assert_allclose(model.history[0]["held_out"], nats.mean(), rtol=1e-9)
    # In several batches each weighs as much as its steps: the mean stays that of the data.
    several = make(name, class_weight=setting, **settings | {"batch_size": 4}).fit(TEXTS, y)
    np.testing.assert_allclose(several.history[0]["loss"], model.history[0]["loss"], rtol=1e-9)


@pytest.mark.parametrize("name", ["tagger", "classifier"])
def test_class_weights_change_what_is_learned(name):
    y = TAGS if name == "tagger" else ["a" in text for text in TEXTS]
    for favourite in (True, False):
        model = make(name, class_weight={favourite: 1.0, not favourite: 0.0}, epochs=30, learning_rate=0.05)
        predicted = model.fit(TEXTS, y).predict(TEXTS)
        assert set(np.ravel(np.concatenate(predicted) if name == "tagger" else predicted)) == {favourite}


# ---- settings -------------------------------------------------------------------------------------------------------


@each_model
def test_settings_are_used_by_the_next_fit(name):
    model = fit(make(name))
    before, kept = model.get_params(), parameters(model)
    with pytest.raises(ValueError, match="has the settings .*; got 'colour'"):
        model.set_params(hidden_size=9, colour=1)
    assert model.get_params() == before
    # In any order; two that only go together are wrong until both are set.
    model.set_params(cell_options={"form": "simplified"})
    with pytest.raises(ValueError, match="cell_options of 'lstm'"):
        fit(model)
    assert_same(model.params, kept)
    fit(model.set_params(cell="gru"))
    assert all(p.shape[-1] == 2 * model.hidden_size for key, p in model.params.items() if "Wh" in key)
