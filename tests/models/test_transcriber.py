"""Transcription: decoding against brute force, language models, alignments, streams."""

import itertools

import numpy as np
import pytest
from support.models import TEXTS, inputs_of, make, targets_of

import rnncore as rc
from rnncore.models.transcription import Fusion, align, merge, prefix_beam_search


def random_log_p(rng, T, C, scale=2.0):
    y = rng.normal(scale=scale, size=(T, 1 + C))
    return y - np.logaddexp.reduce(y, axis=1, keepdims=True)


def labellings(log_p):
    """Log-probability of every labelling: the sum over all paths."""
    found = {}
    for path in itertools.product(range(log_p.shape[1]), repeat=len(log_p)):
        labels = tuple(symbol for symbol, _ in itertools.groupby(path) if symbol)
        found[labels] = np.logaddexp(found.get(labels, -np.inf), log_p[np.arange(len(path)), list(path)].sum())
    return found


NO_MODEL = Fusion(None, [1, 2], 0.0, 0.0)


# ---- decoding ------------------------------------------------------------------------------------------------------


def test_merge():
    assert merge(np.array([0, 1, 1, 0, 1, 2, 2, 0])).tolist() == [1, 1, 2]
    assert merge(np.array([2])).tolist() == [2]
    assert merge(np.zeros(0, int)).tolist() == []


@pytest.mark.parametrize("T", [1, 2, 6])
def test_a_wide_beam_finds_the_best_labelling(rng, T):
    for _ in range(10):
        log_p = random_log_p(rng, T, 2)
        wanted = sorted(labellings(log_p).items(), key=lambda item: -item[1])
        found = prefix_beam_search(log_p, 1000, NO_MODEL)
        assert len(found) == len(wanted)
        for prefix, (labels, log_prob) in zip(found, wanted, strict=True):
            assert tuple(prefix.labels) == labels
            np.testing.assert_allclose([prefix.log_prob, prefix.score], log_prob, rtol=1e-12)


def test_a_narrow_beam_is_never_better(rng):
    log_p = random_log_p(rng, 30, 5, 1.0)
    fusion = Fusion(None, [1] * 5, 0.0, 0.0)
    scores = [prefix_beam_search(log_p, width, fusion)[0].score for width in (1, 4, 64)]
    assert scores[0] <= scores[1] <= scores[2]
    assert prefix_beam_search(np.zeros((0, 6)), 3, fusion)[0].labels.tolist() == []


def test_the_bonus_counts_labels(rng):
    log_p = random_log_p(rng, 5, 2)
    found = prefix_beam_search(log_p, 1000, Fusion(None, [1, 2], 0.0, 0.7))
    for prefix in found:
        np.testing.assert_allclose(prefix.score, prefix.log_prob + 0.7 * len(prefix.labels), rtol=1e-12)
    best = max(labellings(log_p).items(), key=lambda item: item[1] + 0.7 * len(item[0]))
    assert tuple(found[0].labels) == best[0]


def test_alignments(rng):
    for _ in range(20):
        log_p = random_log_p(rng, 6, 3)
        for labels in ([], [1], [2, 2], [3, 1, 2]):
            paths = itertools.product(range(4), repeat=6)
            right = [path for path in paths if merge(np.array(path)).tolist() == labels]
            best = max(right, key=lambda path: log_p[np.arange(6), path].sum())
            groups = [(symbol, list(group)) for symbol, group in itertools.groupby(enumerate(best), lambda p: p[1])]
            wanted = [(frames[0][0], frames[-1][0] + 1) for symbol, frames in groups if symbol]
            assert align(log_p, np.array(labels, int)) == wanted
    with pytest.raises(ValueError, match="y must fit in the 2 frames of x; got 2 labels"):
        align(random_log_p(rng, 2, 3), np.array([1, 1]))


# ---- the model -----------------------------------------------------------------------------------------------------


def test_predictions_are_the_best_paths(rng):
    model = make("transcriber", TEXTS, targets_of("transcriber", "text"))
    names = ["", *model.classes_.tolist()]
    for labels, p in zip(model.predict(TEXTS), model.predict_proba(TEXTS), strict=True):
        assert labels == [names[k] for k in merge(p.argmax(axis=1))]
    # So wide that no prefix is lost.
    for text, labels in zip(TEXTS, model.predict(TEXTS, beam_width=2000), strict=True):
        found = model.beam_search(text, beam_width=2000)
        assert found[0].sequence == labels
        np.testing.assert_allclose(found[0].log_prob, model.log_prob([text], [labels])[0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("y", "kind"),
    [(["ab", "", "c"], str), ([["p", "qq"], [], ["p"]], list), ([[3, -1], [], [3]], np.ndarray)],
)
def test_labels_come_back_as_they_were(y, kind):
    model = make("transcriber", ["abcabc", "", "cccc"], y, bidirectional=False)
    predicted = model.predict(["abcabc", "", "cccc"])
    assert all(isinstance(labels, kind) for labels in predicted)
    assert len(predicted[1]) == 0
    assert set(itertools.chain(*map(list, predicted))) <= set(model.classes_.tolist())


def test_a_bonus_alone_counts():
    model = make("transcriber", TEXTS, [text[::2] for text in TEXTS])
    plain, longer = model.predict(["abcabc"]), model.predict(["abcabc"], insertion_bonus=50.0)
    assert len(longer[0]) > len(plain[0])
    model.params["output.b"][0] = np.nan
    with pytest.raises(ValueError, match="the output of the model is not finite: it cannot be searched"):
        model.predict(["ab"], beam_width=3)


def test_score():
    X, y = ["aabb", "bbaa", "ab"], ["ab", "ba", "ab"]
    model = rc.SequenceTranscriber(hidden_size=16, epochs=150, learning_rate=0.02, random_state=0).fit(X, y)
    assert model.predict(X) == y
    assert model.score(X, y) == 1
    assert model.score(X, ["ab", "a", "abb"]) == 1 - 2 / 6
    assert model.score(X, ["ab", "a", "abb"], sample_weight=[1, 0, 3]) == 1 - 3 / 11
    with pytest.raises(ValueError, match="y must hold at least one label; got none"):
        model.score(X, ["", "", ""])


@pytest.mark.parametrize("kind", ["text", "tokens", "ids", "features"])
def test_a_stream_gives_what_predict_gives(kind):
    settings = {"bidirectional": False, "num_layers": 2, "level": "word" if kind == "tokens" else "char"}
    X = inputs_of(kind)
    model = make("transcriber", X, [text[::2] for text in TEXTS], **settings)
    stream = model.stream()
    for x, wanted in zip(X, model.predict(X), strict=True):
        assert "".join(stream.step(step) for step in x) == wanted
        stream.reset()
    with pytest.raises(ValueError, match="stream needs a model with bidirectional=False"):
        make("transcriber", X, [text[::2] for text in TEXTS], level=settings["level"]).stream()


def test_alignment():
    model = make("transcriber", TEXTS, [text[::2] for text in TEXTS])
    for text, labels in zip(TEXTS, model.predict(TEXTS), strict=True):
        spans = model.alignment(text)
        assert "".join(span.label for span in spans) == labels
        given = model.alignment(text, text[::2])
        assert [span.label for span in given] == list(text[::2])
        ends = [0, *(edge for span in given for edge in (span.begin, span.end)), len(text)]
        assert ends == sorted(ends)
    with pytest.raises(ValueError, match=r"y must fit in the 4 steps of its sequence; 4 labels need 5"):
        model.alignment("abca", "abbc")
    with pytest.raises(ValueError, match="y must hold labels of the training data"):
        model.alignment("abca", "z")


# ---- language models -----------------------------------------------------------------------------------------------

SENTENCES = [
    "the apple and pear salad",
    "an apple and a pear",
    "the pear salad",
    "a pair of shoes",
    "the pair and a pear",
]
SENTENCES += ["the apple and pear salad"] * 4 + ["a pear and an apple"] * 2


@pytest.fixture(scope="module")
def sounds():
    """A model that hears pear and pair alike, as the course has it."""
    rng = np.random.default_rng(0)
    heard = {"pear": "par", "pair": "par"}
    spoken = [" ".join(heard.get(word, word) for word in sentence.split()) for sentence in SENTENCES]
    X = ["".join(c * int(rng.integers(2, 4)) for c in text) for text in spoken * 4]
    y = [
        sentence.replace("pear", "pair") if n % 2 else sentence.replace("pair", "pear")
        for n in range(4)
        for sentence in SENTENCES
    ]
    settings = {"hidden_size": 24, "epochs": 40, "batch_size": 8, "learning_rate": 0.02, "random_state": 0}
    return rc.SequenceTranscriber(**settings).fit(X, y)


@pytest.mark.parametrize("level", ["char", "word"])
def test_a_language_model_tells_pear_from_pair(sounds, level):
    language = rc.LanguageModel(level, hidden_size=24, epochs=80, batch_size=4, learning_rate=0.02, random_state=0)
    language.fit(SENTENCES)
    heard = "tthhee  aappppllee  aanndd  ppaarr  ssaallaadd"
    texts = ["the apple and pear salad", "the apple and pair salad"]
    without = sounds.log_prob([heard] * 2, texts)
    assert abs(without[0] - without[1]) < 3  # the ear alone cannot tell
    (found,) = sounds.predict([heard], language_model=language, lm_weight=1.0)
    assert found == texts[0]
    ranked = sounds.beam_search(heard, beam_width=32, language_model=language, lm_weight=1.0)
    scores = {hypothesis.sequence: hypothesis for hypothesis in ranked}
    for text in texts:
        if text in scores:
            hypothesis = scores[text]
            wanted = hypothesis.log_prob + language.log_prob([text])[0]
            np.testing.assert_allclose(hypothesis.score, wanted, rtol=1e-4)
    assert texts[0] in scores


def test_a_language_model_of_labels_that_are_words(rng):
    X = ["aabb", "bbaa", "aabbaa"] * 2
    y = [["one", "two"], ["two", "one"], ["one", "two", "one"]] * 2
    model = make("transcriber", X, y)
    language = rc.LanguageModel("word", hidden_size=8, epochs=5, batch_size=2, random_state=0)
    language.fit([" ".join(labels) for labels in y])
    for hypothesis in model.beam_search(
        "aabb", beam_width=20, language_model=language, lm_weight=0.5, insertion_bonus=0.25
    ):
        lm = language.log_prob([" ".join(hypothesis.sequence)])[0]
        wanted = hypothesis.log_prob + 0.5 * lm + 0.25 * len(hypothesis.sequence)
        np.testing.assert_allclose(hypothesis.score, wanted, rtol=1e-4, atol=1e-5)
    one = make("transcriber", X, [["u", "a"], ["a", "u"], ["u", "a", "u"]] * 2)
    words = rc.LanguageModel("word", hidden_size=8, epochs=5, batch_size=2, random_state=0).fit(["u a", "a u", "u"] * 4)
    for hypothesis in one.beam_search("aabb", beam_width=20, language_model=words, lm_weight=1.0):
        wanted = hypothesis.log_prob + words.log_prob([" ".join(hypothesis.sequence)])[0]
        np.testing.assert_allclose(hypothesis.score, wanted, rtol=1e-4, atol=1e-5)
    characters = rc.LanguageModel(hidden_size=4, epochs=1, batch_size=2).fit(["one two"] * 3)
    with pytest.raises(ValueError, match="language_model must be one of words, as the labels are"):
        model.predict(X, language_model=characters)


# ---- arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        ("ab", TypeError, "y must be a list of str, or of sequences of labels; got str"),
        (["a"], ValueError, "y must have one sequence of labels for each of 2 sequences; got 1"),
        (["a", 3], TypeError, r"y\[1\] must be str or a sequence of labels; got int"),
        (["a", ["b"]], TypeError, r"y\[1\] must be str as those of training; got items"),
        ([["a"], "b"], TypeError, r"y\[1\] must be items as those of training; got str"),
        (["", ""], ValueError, "y must hold at least one label; got none"),
        (["ab", "aab"], ValueError, r"y\[1\] must fit in the 3 steps of its sequence; 3 labels need 4"),
    ],
)
def test_wrong_labels(y, error, message):
    with pytest.raises(error, match=message):
        rc.SequenceTranscriber(hidden_size=3, epochs=1).fit(["abc", "abc"], y)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"beam_width": 0}, ValueError, "beam_width must be at least 1; got 0"),
        ({"lm_weight": -1}, ValueError, "lm_weight must be at least 0 and finite; got -1"),
        ({"beam_width": 2, "insertion_bonus": np.nan}, ValueError, "insertion_bonus must be finite; got nan"),
        ({"language_model": "x"}, TypeError, "language_model must be a LanguageModel or None; got str"),
        ({"language_model": rc.LanguageModel()}, ValueError, "the model has no parameters yet"),
    ],
)
def test_wrong_options(options, error, message):
    model = make("transcriber", TEXTS, [text[::2] for text in TEXTS])
    with pytest.raises(error, match=message):
        model.predict(TEXTS, **options)


def test_alignment_of_outputs_that_are_not_finite():
    model = rc.SequenceTranscriber(hidden_size=3, epochs=1, random_state=0).fit(["abab", "bbaa"], ["ab", "ba"])
    for array in model.params.values():
        array.fill(np.nan)
    with pytest.raises(ValueError, match="the output of the model is not finite"):
        model.alignment("abab", "ab")
