"""Gradients of the models against central differences."""

import numpy as np
import pytest
from support import gradcheck
from support.models import LENGTHS, OTHER_LENGTHS, C, D, K, N, T, V, make, steps

TRAINING = {
    "ids": [np.arange(V), [], np.arange(V)[::-1]],
    "features": [np.ones((V, D)), [], np.zeros((V, D))],
    "vectors": [np.eye(V)[:, :D], [], np.zeros((V, D))],
}

CELLS = {
    "lstm": {},
    "gru": {"cell": "gru"},
    "rnn": {"cell": "rnn"},
    "deep": {"num_layers": 2, "cell": "gru"},
    "both": {"num_layers": 2, "bidirectional": True},
    "dropout": {"num_layers": 2, "dropout": 0.4, "recurrent_dropout": 0.4},
}


def numbers(rng, high, lengths=LENGTHS):
    targets = rng.integers(high, size=(T, N))
    targets[np.arange(T)[:, None] >= lengths] = -7
    return targets


def check_gradients(model, *arguments):
    # A state whose masks leave units of every layer.
    state = np.random.default_rng(8).bit_generator.state

    def loss(**params):
        for key, value in params.items():
            model.params[key][...] = value
        # Trunk, head and recurrent layers draw their masks from one generator.
        model._rng.bit_generator.state = state
        return [np.array(model.loss_and_gradients(*arguments))]

    params = {key: p.copy() for key, p in model.params.items()}
    assert np.isfinite(loss()[0])
    gradients = {key: grad.copy() for key, grad in model.grads.items()}
    for key, gradient in gradients.items():
        assert np.abs(gradient).max() > 1e-5, f"{key} must matter"
    gradcheck.check_gradients(loss, params, [np.array(1.0)], gradients, directions=3)


@pytest.mark.parametrize("settings", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("head", ["softmax", "binary", "labels"])
@pytest.mark.parametrize("kind", ["ids", "one-hot", "features"])
def test_gradients_of_the_tagger(kind, head, settings):
    rng = np.random.default_rng(3)
    settings = {"bidirectional": False, "output": "softmax" if head == "softmax" else "sigmoid"} | settings
    settings |= {"embedding_size": 0} if kind == "one-hot" else {}
    X = TRAINING["ids" if kind == "one-hot" else kind]
    if head == "labels":
        y = [np.ones((V, K), int), [], np.zeros((V, K), int)]
        targets = rng.integers(2, size=(T, N, K)).astype(float)
        targets[np.arange(T)[:, None] >= LENGTHS] = np.nan
        weights = None
    else:
        classes = C if head == "softmax" else 2
        y = [np.arange(V) % classes, [], np.arange(V) % classes]
        targets = numbers(rng, classes)
        weights = np.array([0.0, 2.5, 0.5])[np.maximum(targets, 0)]
    model = make("tagger", X, y, **settings)
    check_gradients(model, steps(rng, "features" if kind == "features" else "ids"), targets, LENGTHS, weights)


@pytest.mark.parametrize("settings", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("kind", ["ids", "features"])
def test_gradients_of_the_tagger_with_a_random_field(kind, settings):
    rng = np.random.default_rng(3)
    settings = {"bidirectional": False, "output": "crf"} | settings
    model = make("tagger", TRAINING[kind], [np.arange(V) % C, [], np.arange(V) % C], **settings)
    weights = None if kind == "ids" else np.array([0.5, 1.5, 2.0, 3.0])
    check_gradients(model, steps(rng, kind), numbers(rng, C), LENGTHS, weights)


@pytest.mark.parametrize("settings", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("kind", ["ids", "features"])
def test_gradients_of_the_classifier(kind, pooling, settings):
    rng = np.random.default_rng(4)
    settings = {"bidirectional": False, "pooling": pooling} | settings
    model = make("classifier", TRAINING[kind], [0, 1, 2], **settings)
    weights = None if kind == "ids" else np.array([0.5, 1.5, 0.0, 3.0])
    check_gradients(model, steps(rng, kind), np.array([2, 0, 1, 1]), LENGTHS, weights)
    check_gradients(model, steps(rng, kind, np.full(N, T)), np.array([2, 0, 1, 1]))
    lengths = np.maximum(LENGTHS, 1)
    check_gradients(model, steps(rng, kind, lengths), np.array([2, 0, 1, 1]), lengths)


@pytest.mark.parametrize("case", ["lstm", "gru", "rnn", "deep", "dropout"])
@pytest.mark.parametrize("labels", [None, [0, 1, 2]], ids=["plain", "classes"])
@pytest.mark.parametrize("kind", ["ids", "vectors"])
def test_gradients_of_the_generator(kind, labels, case):
    rng = np.random.default_rng(5)
    model = make("generator", TRAINING[kind], labels, **CELLS[case])
    assert ("start.W" in model.params) == (labels is not None)
    targets = numbers(rng, V + 1) if kind == "ids" else steps(rng, kind)
    # A class that stands twice, and one for the sequence without steps only.
    numbers_of_classes = None if labels is None else np.array([2, 0, 2, 1])
    check_gradients(model, steps(rng, kind), targets, LENGTHS, numbers_of_classes)


@pytest.mark.parametrize(
    "settings",
    [
        *({"cell": cell, "bidirectional": both} for cell in ("lstm", "gru", "rnn") for both in (False, True)),
        {"num_layers": 2, "bidirectional": True},
        {"num_layers": 2, "cell": "gru", "reverse_source": True},
        {"num_layers": 2, "dropout": 0.4, "recurrent_dropout": 0.4, "bidirectional": True},
        {"attention": "additive", "bidirectional": True},
        {"attention": "multiplicative", "reverse_source": True, "cell": "gru", "dropout": 0.4},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
@pytest.mark.parametrize("kind", ["ids", "features"])
def test_gradients_of_the_encoder_decoder(kind, settings):
    rng = np.random.default_rng(6)
    model = make("seq2seq", TRAINING[kind], [np.arange(V), [], [1]], **settings)
    inputs, targets = rng.integers(V + 1, size=(T, N)), numbers(rng, V + 1, OTHER_LENGTHS)
    check_gradients(model, steps(rng, kind), inputs, targets, LENGTHS, OTHER_LENGTHS)


@pytest.mark.parametrize("settings", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("kind", ["ids", "features"])
def test_gradients_of_the_transcriber(kind, settings):
    rng = np.random.default_rng(6)
    model = make("transcriber", TRAINING[kind], [[7, 5], [], [9]], **{"bidirectional": False} | settings)
    targets, weights = [np.array(row, int) for row in ([2, 2, 1], [], [3], [3, 1])], np.array([0.5, 1.5, 0.0, 3.0])
    check_gradients(model, steps(rng, kind), targets, LENGTHS, weights if kind == "ids" else None)


def test_padding_of_ids_changes_nothing():
    rng = np.random.default_rng(7)
    model = make("tagger", TRAINING["ids"], [np.arange(V), [], np.arange(V)])
    ids, targets = steps(rng, "ids"), numbers(rng, V)
    wanted = model.loss_and_gradients(ids, targets, LENGTHS)
    gradients = {key: grad.copy() for key, grad in model.grads.items()}
    ids[np.arange(T)[:, None] >= LENGTHS] += 1
    ids %= V
    assert model.loss_and_gradients(ids, targets, LENGTHS) == wanted
    for key, grad in model.grads.items():
        np.testing.assert_array_equal(grad, gradients[key])
