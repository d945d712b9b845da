"""Sampling and searches with output layers that exclude tokens, or whose logits are huge, infinite or NaN."""

import numpy as np
import pytest
from support.training import MODELS, fit, make

import rnncore as rc

SEARCHED = ["language", "seq2seq", "transcriber"]


def changed(name, bias, dtype="float64"):
    """-> a fitted model, whose output layer has the bias of one token, the third, changed; the token"""
    model = fit(make(name, epochs=4, learning_rate=0.05, dtype=dtype))
    model.params["output.b"][2] = bias
    return model, model.classes_[1] if name == "transcriber" else vocabulary_of(model).decode([2])


def vocabulary_of(model):
    return model.target_vocabulary if isinstance(model, rc.EncoderDecoder) else model.vocabulary


def uses(name, model):
    """What the model draws and finds, lists of texts."""
    if name == "language":
        yield "sampled from", lambda: [model.sample(30, seed=1), model.sample(30, top_k=2, temperature=0.5, seed=1)]
        yield "searched", lambda: [h.sequence for h in model.beam_search(8, beam_width=3).hypotheses]
        return
    X = MODELS[name][1][:6]
    yield "searched", lambda: model.predict(X, beam_width=3)
    if name == "seq2seq":
        yield "searched", lambda: model.predict(X)
        yield "sampled from", lambda: model.sample(X, seed=1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SEARCHED)
def test_minus_infinity_excludes_a_token(name, dtype):
    """As a very low logit does, whose probability is 0 too."""
    (model, token), (low, _) = changed(name, -np.inf, dtype), changed(name, -1e5, dtype)
    for (_, found), (_, wanted) in zip(uses(name, model), uses(name, low), strict=True):
        result = found()
        assert result == wanted()
        assert token not in "".join(result)


@pytest.mark.parametrize("huge", [1e4, 3e38])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SEARCHED)
def test_a_huge_logit_is_certain(name, dtype, huge):
    model, token = changed(name, huge, dtype)
    if name == "language":
        assert model.sample(30, seed=1) == 30 * token
        best = model.beam_search(8, beam_width=3).hypotheses[0]
        assert (best.sequence, best.log_prob) == (8 * token, 0)
    else:
        texts = model.predict(["ab", "c"], beam_width=3)
        assert all(set(text) == {token} for text in texts)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("name", SEARCHED)
def test_nan_and_infinity_are_refused(name, wrong):
    model, _ = changed(name, wrong)
    for use, call in uses(name, model):
        if name == "transcriber" and np.isinf(wrong):
            continue  # inf - inf in NumPy, which warns
        with pytest.raises(ValueError, match=f"^the output of the model is not finite: it cannot be {use}"):
            call()


@pytest.mark.parametrize("name", ["language", "seq2seq"])
def test_no_token_is_left(name):
    """All but <unk>, which is not to be drawn, are excluded."""
    model, _ = changed(name, -np.inf)
    model.params["output.b"][:] = -np.inf
    model.params["output.b"][vocabulary_of(model).unk_id] = 0
    for use, call in uses(name, model):
        with pytest.raises(ValueError, match=f"^the output of the model is not finite: it cannot be {use}"):
            call()


def test_probabilities_of_huge_logits():
    model = fit(make("tagger", dtype="float32"))
    model.params["output.b"][:] = 3e38, -3e38
    np.testing.assert_array_equal(model.predict_proba(["ab"])[0], [[1, 0], [1, 0]])
