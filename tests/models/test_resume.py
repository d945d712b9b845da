"""A run that ends early and goes on gives the bits of one that does not; so does one that goes on from a file."""

import json
import os
import signal

import numpy as np
import pytest
from support.training import CLASSES, LINES, MODELS, TAGS, TEXTS, assert_same, differ, each_model, fit, make, parameters

import rnncore as rc
import rnncore.models
from rnncore.models import training
from rnncore.models.position import get_random

SETTINGS = {
    "plain": {},
    "all": {"dropout": 0.3, "recurrent_dropout": 0.2, "learning_rate_decay": 0.5, "accumulation": 2, "patience": 3},
    "cosine": {"schedule": "cosine", "warm_up": 3, "optimizer": "sgd", "num_layers": 2, "dropout": 0.2},
    "plateau": {"schedule": "plateau", "optimizer": "rmsprop", "learning_rate": 0.3, "dropout": 0.2},
}
each_settings = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
EPOCHS = 3


def run(name, settings, held_out=True, **options):
    model = make(name, epochs=EPOCHS, **settings)
    return fit(model, held_out or "plateau" in settings.values() or "patience" in settings, **options)


def assert_same_run(model, whole):
    assert_same(model.params, whole.params)
    for kind, state in whole._optimizer.state.items():
        assert_same(model._optimizer.state[kind], state)
    records = [
        [{key: value for key, value in record.items() if key != "seconds"} for record in one.history]
        for one in (model, whole)
    ]
    assert records[0] == records[1]
    assert model._optimizer.learning_rate == whole._optimizer.learning_rate
    assert model._position.losses == whole._position.losses
    assert get_random(model._rng) == get_random(whole._rng)


def stopping_at(update):
    return lambda at: at.update == update


@each_model
@each_settings
def test_a_run_that_a_callback_ends_goes_on(name, settings):
    """After every update in turn, in this process."""
    seen = []
    whole = run(name, settings, callback=seen.append)
    for update in range(1, len(seen)):
        model = run(name, settings, callback=stopping_at(update))
        assert differ(model.params, whole.params)
        rest = []
        fit(model, True, callback=rest.append, resume=True)
        assert_same_run(model, whole)
        assert [at[:6] for at in rest] == [at[:6] for at in seen[update:]]
        assert not model.interrupted


@each_model
@each_settings
def test_a_run_goes_on_from_a_file(name, settings, tmp_path):
    """Which a callback wrote after every update in turn: also where the process was killed."""

    def save(at):
        model.save(tmp_path / f"{at.update}.npz", training=True)

    model = make(name, epochs=EPOCHS, **settings)
    updates = len(fit(model, True, callback=save)._position.losses)
    for update in range(1, updates + 1):
        loaded = rc.load(tmp_path / f"{update}.npz")
        assert loaded.random_state == model.random_state
        fit(loaded, True, resume=True)
        assert_same_run(loaded, model)


@pytest.fixture
def _sigint_is_heard():
    """Where tests run in the background of a shell, SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_sigint_is_heard")
@each_model
@pytest.mark.parametrize("where", ["_update", "_step", "score", "batches", "callback"])
def test_an_interrupted_run_goes_on(name, where, monkeypatch, tmp_path):
    """Wherever Ctrl-C comes: in the gradient, where dropout was drawn already, in scoring, or between two updates."""
    settings = SETTINGS["all"]
    whole = run(name, settings)
    for count in range(1, 9):
        model, calls = make(name, epochs=EPOCHS, **settings), [0]

        def interrupt(calls=calls, count=count):
            calls[0] += 1
            if calls[0] == count:
                os.kill(os.getpid(), signal.SIGINT)

        def interrupted(function, interrupt=interrupt):
            def call(*arguments, **options):
                result = function(*arguments, **options)
                interrupt()
                return result

            return call

        method = {
            "_update": "_update",
            "score": "_nats" if name == "language" else "_mean_loss",
            "batches": "_chunks" if name == "language" else "_batches",
        }
        with monkeypatch.context() as patch:
            if where == "_step":
                patch.setattr(training.Run, "_step", interrupted(training.Run._step))
            elif where != "callback":
                patch.setattr(model, method[where], interrupted(getattr(model, method[where])))
            fit(model, True, callback=(lambda at, interrupt=interrupt: interrupt()) if where == "callback" else None)
        assert model.interrupted == (calls[0] >= count)
        if not model.interrupted:
            break
        model.save(tmp_path / "model.npz", training=True)
        for going_on in (rc.load(tmp_path / "model.npz"), model):
            fit(going_on, True, resume=True)
            assert_same_run(going_on, whole)
            assert not going_on.interrupted
    assert count > 2


@each_model
def test_more_epochs(name, tmp_path):
    """A run that ended goes on if it is given more epochs, and else is what it was."""
    whole = run(name, SETTINGS["all"])
    model = fit(make(name, epochs=1, **SETTINGS["all"]), True)
    model.save(tmp_path / "model.npz", training=True)
    model = rc.load(tmp_path / "model.npz").set_params(epochs=EPOCHS)
    fit(model, True, resume=True)
    assert_same_run(model, whole)
    fit(model, True, resume=True)
    assert_same_run(model, whole)


@each_model
def test_a_warm_start_goes_on_from_a_file(name, tmp_path):
    settings = {"warm_start": True, "dropout": 0.3, "learning_rate_decay": 0.7}
    model = fit(make(name, **settings))
    model.save(tmp_path / "model.npz", training=True)
    loaded = rc.load(tmp_path / "model.npz")
    assert_same_run(fit(loaded), fit(model))
    model.save(tmp_path / "plain.npz")
    plain = rc.load(tmp_path / "plain.npz")
    fit(model)
    assert differ(fit(plain).params, model.params)  # without the optimiser


@pytest.mark.parametrize("kind", ["MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"])
def test_random_generators_of_all_kinds(kind, tmp_path):
    """The held-out share and the order of the batches are those of the generator that the run began with."""
    settings = {"hidden_size": 3, "epochs": 4, "batch_size": 4, "dropout": 0.4}

    def start(**options):
        rng = np.random.Generator(getattr(np.random, kind)(5))
        rng.random(3, np.float32)
        model = rc.SequenceTagger(random_state=rng, **settings)
        return model.fit(TEXTS, TAGS, validation=0.3, **options)

    whole = start()
    start(callback=stopping_at(6)).save(tmp_path / "model.npz", training=True)
    model = rc.load(tmp_path / "model.npz")
    assert model.random_state is None
    assert type(model._rng.bit_generator).__name__ == kind
    assert_same_run(model.fit(TEXTS, TAGS, validation=0.3, resume=True), whole)


def test_best_and_last_parameters(monkeypatch, tmp_path):
    """The file has the parameters of the best epoch, and goes on from the last ones."""
    whole = make("classifier", epochs=6)
    losses = [3.0, 1.0, 2.0, 2.5, 0.5, 4.0]
    monkeypatch.setattr(rc.SequenceClassifier, "_mean_loss", lambda self, *data: losses[len(self.history) - 1])
    kept = {}
    fit(whole, True, callback=lambda at: kept.update({at.epoch: parameters(whole)}))

    def interrupt(at):
        if at.epoch == 4:
            raise KeyboardInterrupt

    model = fit(make("classifier", epochs=6), True, callback=interrupt)
    assert_same(model.params, kept[2])
    model.save(tmp_path / "model.npz", training=True)
    model = rc.load(tmp_path / "model.npz")
    assert_same(model.params, kept[2])
    fit(model, True, resume=True, callback=lambda at: at.epoch == 5 and at.epoch_ends)
    assert_same(model.params, kept[5])
    fit(model, True, resume=True)
    assert_same_run(model, whole)


def test_errors(tmp_path):
    model = make("classifier")
    with pytest.raises(ValueError, match="resume goes on with a run of this model.*; the model was not fitted"):
        fit(model, resume=True)
    with pytest.raises(ValueError, match="the model has no parameters yet"):
        model.save(tmp_path / "model.npz", training=True)
    fit(model, callback=stopping_at(2)).save(tmp_path / "model.npz")
    loaded = rc.load(tmp_path / "model.npz")
    with pytest.raises(ValueError, match="resume goes on with a run of this model.*; this model was loaded without"):
        fit(loaded, resume=True)
    with pytest.raises(ValueError, match="training=True keeps a run, and this model has none"):
        loaded.save(tmp_path / "other.npz", training=True)
    assert not (tmp_path / "other.npz").exists()
    for X, y in ((TEXTS[1:], CLASSES[1:]), (["b" + text[1:] for text in TEXTS], CLASSES), (TEXTS, CLASSES[::-1])):
        with pytest.raises(ValueError, match="resume needs the data of the run"):
            model.fit(X, y, resume=True)
    with pytest.raises(ValueError, match="resume needs the data of the run"):
        model.fit(TEXTS, CLASSES, sample_weight=[2] * len(TEXTS), resume=True)
    with pytest.raises(ValueError, match="resume goes on with hidden_size = 4 of the layers; got 5"):
        fit(model.set_params(hidden_size=5), resume=True)
    model.set_params(hidden_size=4)
    for name, was in (("batch_size", 5), ("accumulation", 1)):
        with pytest.raises(ValueError, match=f"resume goes on with {name} = {was} of the run; got 7"):
            fit(model.set_params(**{name: 7}), resume=True)
        model.set_params(**{name: was})
    with pytest.raises(TypeError, match="resume must be True or False; got 'yes'"):
        fit(model, resume="yes")
    language = fit(make("language"), callback=stopping_at(1))
    with pytest.raises(ValueError, match="resume needs the data of the run"):
        language.fit(LINES[1:], resume=True)
    with pytest.raises(ValueError, match="resume goes on with chunk_length = 9 of the run; got 8"):
        fit(language.set_params(chunk_length=8), resume=True)
    # Nothing of this has changed the run.
    assert_same_run(fit(model, resume=True), fit(make("classifier")))


def test_damaged_training_state(tmp_path):
    """Of arrays names, shapes and dtypes, and of numbers their kinds: ValueError that names the file."""
    model = fit(make("classifier"), True, callback=stopping_at(7))
    model.save(tmp_path / "model.npz", training=True)
    with np.load(tmp_path / "model.npz") as file:
        contents = dict(file)
    keys = [key for key in contents if key.startswith("array/training/")]
    assert len(keys) == 3 * len(model.params) + 1  # m and v of Adam, the best parameters, and the losses

    def is_refused(**changes):
        np.savez(tmp_path / "damaged.npz", **{key: a for key, a in (contents | changes).items() if a is not None})
        with pytest.raises(ValueError, match=r"damaged.npz is damaged"):
            rc.load(tmp_path / "damaged.npz")

    for key in keys:
        is_refused(**{key: None})
        if not key.endswith("losses"):
            is_refused(**{key: contents[key][..., :-1]})
            is_refused(**{key: contents[key].astype(np.float16)})
    header = json.loads(str(contents["header"]))
    position = header["description"]["training"]["position"]
    wrong = {"random": {"bit_generator": "PCG64"}, "begin_random": None, "epoch_random": 3, "best": "low"}
    wrong |= dict.fromkeys(("epochs", "data", "tokens", "best_update", "since_best"), -1)
    for name, value in wrong.items():
        before, position[name] = position[name], value
        is_refused(header=np.array(json.dumps(header)))
        position[name] = before


def test_kinds_of_models_are_all_here():
    assert {kind.__name__ for kind, _, _ in MODELS.values()} == set(rnncore.models.__all__) - {"compare", "load"}
