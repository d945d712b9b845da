"""An encoder-decoder with attention: sequences alone and in company, beam search, weights, files."""

import numpy as np
import pytest
from support.models import assert_equal, inputs_of, make, results_of

import rnncore as rc

SOURCES = ["abca", "b", "", "cab", "bbacca", "ac"]
SETTINGS = [
    {"attention": "additive"},
    {"attention": "multiplicative", "bidirectional": True, "num_layers": 2, "cell": "gru"},
    {"attention": "additive", "reverse_source": True, "bidirectional": True},
]
every_setting = pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(map(str, s.values())))


def fitted(kind="text", **settings):
    X, y = inputs_of(kind, SOURCES), [text[::-1] for text in SOURCES]
    return make("seq2seq", X, y, **settings), X, y


@every_setting
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["text", "ids", "features"])
def test_a_sequence_does_not_depend_on_the_others(kind, dtype, settings, tmp_path):
    model, X, y = fitted(kind, dtype=dtype, **settings)
    together = results_of(model, X, y)
    for n in range(len(X)):
        assert_equal(results_of(model, X[n : n + 1], y[n : n + 1]), together[n : n + 1])
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(X)), 30))
    many = results_of(model, [X[n] for n in order], [y[n] for n in order])
    assert_equal(many, [together[n] for n in order])
    model.save(tmp_path / "model.npz")
    assert_equal(results_of(rc.load(tmp_path / "model.npz"), X, y), together)


@every_setting
def test_beam_search_scores_as_log_prob_does(settings):
    model, X, _ = fitted(**settings)
    for x in X:
        for hypothesis in model.beam_search(x, beam_width=4, max_length=12).hypotheses:
            ended = model.log_prob([x], [hypothesis.sequence])[0]
            if len(hypothesis.sequence) < 12:
                np.testing.assert_allclose(hypothesis.log_prob, ended, rtol=1e-9)


@pytest.mark.parametrize("settings", [{}, *SETTINGS], ids=lambda s: "-".join(map(str, s.values())))
def test_samples_have_the_probabilities_of_the_model(settings):
    model, X, _ = fitted(**settings)
    assert model.sample(X, temperature=0) == model.predict(X)
    assert model.sample(X, seed=3) == model.sample(X, seed=3)
    assert model.sample(X, top_k=1) == model.predict(X)
    assert model.sample(X, top_p=1e-9) == model.predict(X)
    assert model.sample([]) == []
    count, end = 4000, model._end_id
    source = model._sources("X", inputs_of("text", ["ab"]))[0][:, None]
    p = model._head.probabilities(model._read(source, np.array([[end]]), None, None)[0])[0, 0]
    p[model.target_vocabulary.unk_id] = 0
    for temperature in (1.0, 0.5):
        drawn = model.sample(["ab"] * count, temperature, seed=0, max_length=1)
        wanted = p ** (1 / temperature) / (p ** (1 / temperature)).sum()
        for token, share in zip(model.target_vocabulary.tokens, wanted, strict=True):
            found = drawn.count("" if token == "<eos>" else token) / count
            assert abs(found - share) <= 5 * np.sqrt(share * (1 - share) / count)
    with pytest.raises(ValueError, match="temperature must be at least 0 and finite; got -1"):
        model.sample(X, temperature=-1)


@every_setting
def test_weights(settings):
    model, X, y = fitted(**settings)
    for x, target in zip(X, y, strict=True):
        weights = model.attention_weights(x, target)
        assert weights.shape == (len(target) + 1, len(x))
        np.testing.assert_allclose(weights.sum(axis=1), 1 if len(x) else 0, rtol=1e-12)
    ax = rc.plots.attention(model.attention_weights(X[0], y[0]), X[0], y[0])
    assert [label.get_text() for label in ax.get_yticklabels()] == [*y[0], "<eos>"]
    with pytest.raises(ValueError, match="attention_weights needs a model with attention"):
        fitted()[0].attention_weights("a", "a")
    with pytest.raises(ValueError, match=r"weights must be \(tokens of the target, of the source\) = \(1, 2\)"):
        rc.plots.attention(np.ones((3, 2)), "ab", "a")


@pytest.mark.parametrize("settings", [{}, {"reverse_source": True}, {"bidirectional": True}], ids=str)
def test_it_learns_where_to_look(settings):
    """Copies in reverse: step t of the target looks at step T-1-t of the source."""
    rng = np.random.default_rng(0)
    X = ["".join(rng.choice(list("abcdef"), size=rng.integers(3, 8))) for _ in range(600)]
    y = [text[::-1] for text in X]
    options = {"hidden_size": 32, "epochs": 20, "batch_size": 16, "learning_rate": 5e-3, "random_state": 0}
    model = rc.EncoderDecoder(attention="multiplicative", **options | settings).fit(X, y)
    assert model.score(X[:100], y[:100]) > 0.9
    looked = [model.attention_weights(x, t)[:-1].argmax(axis=1) for x, t in zip(X[:50], y[:50], strict=True)]
    near = [np.abs(found - np.arange(len(found))[::-1]) <= 1 for found in looked]
    assert np.concatenate(near).mean() > 0.8


def test_wrong_setting():
    with pytest.raises(ValueError, match="attention must be one of 'additive', 'multiplicative'; got 'dot'"):
        rc.EncoderDecoder(attention="dot").fit(["a"], ["a"])
