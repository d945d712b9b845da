"""The models, with random settings, on random sequences."""

import copy
import pickle
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from support.compare import TOLERANCE, assert_same
from support.gradcheck import EPS
from support.machines import Machine
from support.models import (
    KINDS,
    LABELS,
    MODELS,
    assert_equal,
    assert_same_parameters,
    inputs_of,
    make,
    results_of,
    targets_of,
)
from support.strategies import assert_same_unless_chaotic, disturbed, dtypes, machines, more, seeds, variants

import rnncore as rc
from rnncore import reference

SETTINGS = {
    "tagger": {"bidirectional": st.booleans(), "output": st.sampled_from(["softmax", "crf"])},
    "classifier": {"bidirectional": st.booleans(), "pooling": st.sampled_from(["last", "mean"])},
    "generator": {},
    "seq2seq": {
        "bidirectional": st.booleans(),
        "reverse_source": st.booleans(),
        "attention": st.sampled_from([None, "additive", "multiplicative"]),
    },
    "transcriber": {"bidirectional": st.booleans()},
}
TRAINING = {
    "batch_size": st.integers(1, 8),
    "optimizer": st.sampled_from(["adam", "rmsprop", "adagrad", "sgd"]),
    "accumulation": st.integers(1, 3),
    "clip_norm": st.sampled_from([None, 1e-2, 5.0]),
    "epochs": st.integers(1, 2),
    "schedule": st.sampled_from([None, "cosine"]),
    "warm_up": st.integers(0, 3),
}


@st.composite
def settings_of(draw, **others):
    """Settings of the network and of training, of any model."""
    variant = draw(variants())
    options = variant.options | draw(init_of(variant.cell.name))
    fields = {
        "hidden_size": st.integers(1, 9) | st.sampled_from([33, 64]),
        "num_layers": st.integers(1, 2),
        "embedding_size": st.sampled_from([None, 0, 1, 5]),
        "dropout": st.sampled_from([0.0, 0.3]),
        "recurrent_dropout": st.just(0.0) if variant.cell.name == "mingru" else st.sampled_from([0.0, 0.3]),
        "dtype": dtypes,
    }
    found = draw(st.fixed_dictionaries(fields | TRAINING | others))
    return {"cell": variant.cell.name, "cell_options": options} | found


def init_of(cell):
    fields = {"init": st.sampled_from(["orthogonal", "uniform"])}
    return st.fixed_dictionaries(fields | ({"forget_bias": st.sampled_from([0.0, 1.0])} if cell == "lstm" else {}))


@dataclass(frozen=True)
class Case:
    """A model and its data."""

    name: str
    kind: str
    settings: dict
    labels: str
    texts: list
    seed: int

    @property
    def rng(self):
        return np.random.default_rng(self.seed)

    def data(self):
        X = inputs_of(self.kind, self.texts, binary=self.name == "generator")
        return X, targets_of(self.name, self.kind, self.labels, self.texts)

    def model(self, **changes):
        settings = {"level": "word" if self.kind == "tokens" else "char", "random_state": self.seed, **self.settings}
        # Recurrent weights that let no state grow without bounds.
        spread = 0.5 / np.sqrt(self.settings["hidden_size"])
        return make(self.name, *self.data(), spread=spread, **settings | changes)


@st.composite
def cases(draw, names=tuple(MODELS), kinds=KINDS, **fixed):
    name = draw(st.sampled_from(names))
    settings, labels = draw(settings_of(**SETTINGS[name])), draw(st.sampled_from(list(LABELS)))
    if name == "tagger" and labels == "bool" and draw(st.booleans()):
        settings["output"] = "sigmoid"
    settings |= fixed
    texts = draw(st.lists(st.text("abc", max_size=12), min_size=2, max_size=6))
    texts[0] += "abca"  # all three, so that no vocabulary and no set of classes lacks one
    return Case(name, draw(st.sampled_from(kinds)), settings, labels, texts, draw(seeds))


def reload(model):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.npz")
        model.save(path)
        return rc.load(path)


def quantized(model, precision):
    return model if precision is None else model.quantize(precision)


precisions = st.sampled_from([None, None, "bfloat16", "int8"])


# ---- inference ------------------------------------------------------------------------------------------------------


@more(0.5)
@given(cases(), machines(), precisions)
def test_a_sequence_does_not_depend_on_others_or_threads(case, machine, precision):
    X, y = case.data()
    with Machine(machine.isa):
        model = quantized(case.model(), precision)
        together = results_of(model, X, y)
    with machine:
        for n in range(len(X)):
            assert_equal(results_of(model, X[n : n + 1], y[n : n + 1]), together[n : n + 1])
        order = case.rng.permutation(np.repeat(np.arange(len(X)), 2))
        several = results_of(model, [X[n] for n in order], [y[n] for n in order])
    assert_equal(several, [together[n] for n in order])


@more(0.5)
@given(cases(), machines(), precisions)
def test_files_pickles_and_copies_give_the_same_bits(case, machine, precision):
    X, y = case.data()
    with machine:
        model = quantized(case.model(), precision)
        expected = results_of(model, X, y)
        for other in (reload(model), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            assert_same_parameters(model, other)
            assert_equal(results_of(other, X, y), expected)
            assert other.get_params().keys() == model.get_params().keys()


@more(0.25)
@given(cases(kinds=["ids", "features"]), machines())
def test_padded_arrays_are_lists(case, machine):
    X, y = case.data()
    batch, lengths = rc.pad(X, padding=77 if case.kind == "ids" else np.nan)
    batch = batch.swapaxes(0, 1)
    with machine:
        model = case.model()
        if case.name == "generator":
            np.testing.assert_array_equal(model.log_prob(batch, y, lengths=lengths), model.log_prob(X, y))
            return
        assert_equal([model.predict(batch, lengths=lengths)], [model.predict(X)])


@more(0.25)
@given(cases(names=["transcriber"], bidirectional=False), machines())
def test_a_stream_transcribes_as_predict_does(case, machine):
    X, _ = case.data()
    with machine:
        model = case.model()
        stream = model.stream()
        for x, wanted in zip(X, model.predict(X), strict=True):
            stream.reset()
            assert [label for step in x for label in stream.step(step)] == list(wanted)


@more(0.25)
@given(cases(names=["seq2seq"]), machines())
def test_searches_agree_with_predictions_and_scores(case, machine):
    X, _ = case.data()
    with machine:
        model = case.model()
        expected = model.predict(X)
        assert_equal([model.predict(X, beam_width=1)], [expected])
        assert_equal([model.sample(X, temperature=0)], [expected])
        for x in X:
            for found in model.beam_search(x, beam_width=3, max_length=9).hypotheses:
                if len(found.sequence) < 9:  # ended
                    np.testing.assert_allclose(found.log_prob, model.log_prob([x], [found.sequence])[0], rtol=1e-4)


# ---- training -------------------------------------------------------------------------------------------------------


@more(0.5)
@given(cases(), machines())
def test_training_gives_the_same_bits_again_and_on_any_threads(case, machine):
    with Machine(machine.isa):
        expected = case.model()
    with machine:
        model = case.model()
    assert_same_parameters(model, expected)
    assert model.losses == expected.losses


def has_kink(settings):
    """Whether a derivative jumps: where a rounding or a small step comes to the other side, the gradient is another."""
    return {"relu", "positive"} & set(settings["cell_options"].values())


def as_batch(case, model):
    """What loss_and_gradients takes, of all data of the case, and the random state before dropout."""
    examples = model._scored(*case.data(), None)
    return model._batch(examples, np.arange(len(case.texts))).arguments


def loss_and_gradients(model, arguments):
    """With the same dropout in every call."""
    model._rng.bit_generator.state = np.random.default_rng(3).bit_generator.state
    loss = model.loss_and_gradients(*arguments)
    return {"loss": np.array(loss)} | {name: grad.copy() for name, grad in model.grads.items()}


@given(cases(), machines(rc.available_isas()))
def test_gradients_are_those_of_the_reference(case, machine):
    assume(case.settings["dtype"] == "float64" or not has_kink(case.settings))
    model = case.model()
    plain = case.model(dtype="float64")
    for name, value in plain.params.items():
        value[...] = model.params[name]
    for layer in plain.layers.values():
        if hasattr(layer, "cell_name"):
            layer.backend = reference
    expected = loss_and_gradients(plain, as_batch(case, plain))
    with machine:
        actual = loss_and_gradients(model, as_batch(case, model))

    def expected_of_disturbed():
        for value in plain.params.values():
            value[...] = disturbed(value, case.settings["dtype"])
        return loss_and_gradients(plain, as_batch(case, plain))

    assert_same_unless_chaotic(actual, expected, case.settings["dtype"], expected_of_disturbed)


@given(cases(dtype="float64"), machines(rc.available_isas()), seeds)
def test_gradients_are_slopes_of_the_loss(case, machine, seed):
    """Along a random direction of all parameters."""
    assume(not has_kink(case.settings))
    model = case.model()
    arguments, rng = as_batch(case, model), np.random.default_rng(seed)
    before = {name: p.copy() for name, p in model.params.items()}
    direction = {name: rng.normal(size=p.shape) / np.sqrt(p.size) for name, p in before.items()}

    def loss(step):
        for name, p in model.params.items():
            p[...] = before[name] + step * direction[name]
        return loss_and_gradients(model, arguments)

    with machine:
        found = loss(0)
        slope = (loss(EPS)["loss"] - loss(-EPS)["loss"]) / (2 * EPS)
    wanted = sum(np.vdot(found[name], d) for name, d in direction.items())
    largest = max(np.abs(found[name]).max(initial=0) for name in direction)
    np.testing.assert_allclose(slope, wanted, rtol=0, atol=1e-6 * largest + 1e-8)


@more(0.5)
@given(cases(), machines())
def test_gradients_do_not_depend_on_the_padding(case, machine):
    """More of it at the ends of inputs and targets, and other ids in it."""
    model = case.model(dropout=0.0, recurrent_dropout=0.0)
    arguments = as_batch(case, model)
    with machine:
        expected = loss_and_gradients(model, arguments)
        actual = loss_and_gradients(model, [longer(a, len(arguments[0])) for a in arguments])
    assert_same(actual, expected, TOLERANCE[case.settings["dtype"]])


def longer(array, T):
    """An array (T, N, ...) with three more steps."""
    if not isinstance(array, np.ndarray) or array.ndim < 2 or len(array) != T:
        return array
    return np.concatenate([array, np.ones((3, *array.shape[1:]), array.dtype)])


# ---- language models ------------------------------------------------------------------------------------------------

LANGUAGE = {"chunk_length": st.integers(1, 9), "level": st.sampled_from(["char", "word"])}
sentences = st.lists(st.text("ab ", max_size=12), min_size=1, max_size=6).map(lambda texts: [*texts, "ba ab"])


@more(0.5)
@given(settings_of(**LANGUAGE), sentences, st.booleans(), machines(), precisions, seeds)
def test_language_models(settings, texts, one_text, machine, precision, seed):
    def fitted():
        model = rc.LanguageModel(**settings, random_state=seed)
        return model.fit(" ".join(texts) if one_text else texts)

    with Machine(machine.isa):
        trained = fitted()
        model = quantized(trained, precision)
        together = model.log_prob(texts)
        samples = model.sample(9, prompt=texts[0], seed=seed)
    with machine:
        again = fitted()
        assert_same_parameters(again, trained)
        alone = [model.log_prob([text])[0] for text in texts]
        np.testing.assert_array_equal(alone, together)
        order = np.random.default_rng(seed).permutation(len(texts))
        np.testing.assert_array_equal(model.log_prob([texts[n] for n in order]), together[order])
        ranked = model.score_many(texts, prompt="ab")
        np.testing.assert_array_equal([model.score_many([text], prompt="ab")[0] for text in texts], ranked)
        for other in (model, reload(model), pickle.loads(pickle.dumps(model))):
            np.testing.assert_array_equal(other.log_prob(texts), together)
            assert other.sample(9, prompt=texts[0], seed=seed) == samples
            assert "".join(other.iter_sample(9, prompt=texts[0], seed=seed)) == samples
