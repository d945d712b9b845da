"""What a user can change behind the library's back must raise or have no effect; it must never reach native code."""

import numpy as np
import pytest

import rnncore as rc


def test_ids_in_the_cache_of_an_embedding():
    embedding = rc.Embedding(4, 3)
    y, cache = embedding.forward(np.array([[0, 3]]))
    cache[0, 0] = 10**12
    with pytest.raises(ValueError, match=r"ids must lie in \[0, V\) = \[0, 4\); got 1000000000000"):
        embedding.backward(np.ones_like(y), cache)


@pytest.mark.parametrize(("name", "wrong"), [("b", (1,)), ("W", (4, 2)), ("W", (1, 3)), ("W", (12,))])
def test_parameters_of_another_shape(name, wrong):
    dense = rc.Dense(4, 3, dtype="float64")
    y, cache = dense.forward(np.ones((5, 4)))
    kept = dense.params[name]
    dense.params[name] = np.zeros(wrong)
    with pytest.raises((ValueError, IndexError)):
        dense(np.ones((5, 4)))
    dense.params[name] = kept
    dense.grads[name] = np.zeros(wrong)
    with pytest.raises(ValueError, match=rf"^d{name} must be "):
        dense.backward(np.ones_like(y), cache)


def test_array_of_another_shape_after_the_forward_pass():
    rng = np.random.default_rng(0)
    x, Wx, Wh, b = (rng.normal(size=s) for s in [(6, 2, 3), (3, 20), (5, 20), (20,)])
    h, _, cache = rc.lstm_forward(x, Wx, Wh, b)
    wanted = rc.lstm_backward(h, cache)
    x.shape, Wx.shape, Wh.shape, b.shape = (36,), (60, 1), (100,), (4, 5)
    for got, expected in zip(rc.lstm_backward(h, cache), wanted, strict=True):
        if expected is not None:
            np.testing.assert_array_equal(got, expected)


def test_resets_overwritten_before_the_backward_pass():
    rng = np.random.default_rng(0)
    x, Wx, Wh, b = (rng.normal(size=s) for s in [(6, 2, 3), (3, 5), (5, 5), (5,)])
    resets = rng.random((6, 2)) < 0.5
    h, _, cache = rc.rnn_forward(x, Wx, Wh, b, resets=resets)
    wanted = rc.rnn_backward(h, cache).dWh
    resets[...] = ~resets
    np.testing.assert_array_equal(rc.rnn_backward(h, cache).dWh, wanted)


def test_settings_of_a_trained_model():
    model = rc.LanguageModel(hidden_size=6, num_layers=2, embedding_size=0, seed=0).build(rc.Vocabulary("abc"))
    wanted = model.sample(20, seed=0)
    model.hidden_size, model.num_layers = 400, 1
    assert model.sample(20, seed=0) == wanted
    model.layers["recurrent"].params["Wh_1"] = np.zeros((2, 8), "float32")
    with pytest.raises(ValueError, match=r"Wh must be \(H, 4H\) = \(6, 24\); got \(2, 8\)"):
        model.sample(20)


def test_targets_in_the_memory_of_the_logits():
    buffer = np.zeros((3, 4))
    targets = buffer.view(np.int64)[:, 0]
    loss, dlogits = rc.softmax_cross_entropy(buffer, targets, out=buffer)
    np.testing.assert_allclose(loss, np.log(4))
    np.testing.assert_allclose(dlogits, (np.full((3, 4), 0.25) - [1, 0, 0, 0]) / 3)


def test_gradient_into_unaligned_memory():
    logits = np.zeros((3, 4))
    out = np.frombuffer(bytearray(12 * 8 + 1), np.uint8)[1:].view(np.float64).reshape(3, 4)
    with pytest.raises(ValueError, match="^out must be"):
        rc.softmax_cross_entropy(logits, np.zeros(3, int), out=out)
