"""Beam search against all sequences there are; scores of texts against sums of steps."""

import itertools

import numpy as np
import pytest
from support.sampling import draw

import rnncore as rc
from rnncore.models.decoding import _largest

# float64; the engine takes one step of many rows in another order than one row
CLOSE = {"rtol": 1e-11, "atol": 1e-11}
SOURCES = ["ab", "", "bbab", "b", "abaabb"]
TEXT = "the cat sat on the mat. the dog sat on the log.\n" * 6
SENTENCES = ["the cat sat", "a dog", "on the mat it sat"] * 8


def moved(model, scale=1.0):
    """Parameters at random, so that no two hypotheses are alike."""
    rng = np.random.default_rng(5)
    for p in model.params.values():
        p += scale * rng.normal(size=p.shape)
    return model


def make_translator(dtype="float64", **settings):
    """From and to sequences of a and b: four tokens, <unk> and <eos> among them."""
    model = rc.EncoderDecoder(hidden_size=4, embedding_size=3, epochs=1, dtype=dtype, random_state=1, **settings)
    model = moved(model.fit(SOURCES, [s[::-1] for s in SOURCES]))
    model.params["output.b"][model.target_vocabulary.unk_id] += 3  # the likeliest, if it were not for the rule
    return model


def make_language_model(texts, level="char", **settings):
    defaults = {"hidden_size": 6, "epochs": 1, "batch_size": 4, "chunk_length": 7, "dtype": "float64", "seed": 2}
    return moved(rc.LanguageModel(level, **defaults | settings).fit(texts), 0.6)


def log_softmax(logits):
    return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())


def steps_of(trunk, dense, state, ids):
    """Log-probabilities (len(ids), V) of what follows each id, one step at a time."""
    rows = []
    for token in ids:
        h, state = trunk(np.array([[token]]), state)
        rows.append(log_softmax(dense(h)[0, 0]))
    return np.array(rows)


def decoder_of(model, source):
    """-> function of ids that gives the log-probabilities of the steps of a translation."""
    ids = model.source_vocabulary.encode(source)[:, None]
    _, state = model.layers["encoder"](model.layers["source_embedding"](ids))
    embedding, decoder = model.layers["target_embedding"], model.layers["decoder"]
    return lambda ids: steps_of(lambda x, s: decoder(embedding(x), s), model.layers["output"], state, ids)


def all_sequences(log_probs_of, first, tokens, end, length, penalty):
    """Every sequence of tokens that ends, or has the full length, with its score: best first."""
    found = []
    for L in range(1, length + 1):
        for body in itertools.product(tokens, repeat=L - 1):
            lasts = [end] if L < length else [end, *tokens]
            rows = log_probs_of([first, *body])
            before = rows[np.arange(L - 1), list(body)].sum() if body else 0.0
            for last in lasts:
                if last is not None:
                    log_prob = before + rows[-1, last]
                    found.append(((*body, last), log_prob, log_prob / L**penalty))
    return sorted(found, key=lambda entry: -entry[2])


def assert_hypotheses(beam, wanted, decode):
    assert [h.sequence for h in beam.hypotheses] == [decode(ids) for ids, _, _ in wanted]
    np.testing.assert_allclose([h[1:] for h in beam.hypotheses], [entry[1:] for entry in wanted], **CLOSE)


@pytest.mark.parametrize("penalty", [0, 0.7, 1])
@pytest.mark.parametrize("settings", [{}, {"cell": "gru", "num_layers": 2}], ids=["lstm", "gru-2"])
def test_a_wide_beam_finds_all_sequences(settings, penalty):
    model = make_translator(**settings)
    vocabulary = model.target_vocabulary
    a, b = vocabulary.encode("ab")
    wanted = all_sequences(decoder_of(model, "bab"), vocabulary.eos_id, [a, b], vocabulary.eos_id, 4, penalty)
    assert len(wanted) == 1 + 2 + 4 + 8 + 16
    for width in (31, 50):
        beam = model.beam_search("bab", beam_width=width, length_penalty=penalty, max_length=4)
        assert_hypotheses(beam, wanted, vocabulary.decode)
    best = model.beam_search("bab", beam_width=31, length_penalty=penalty, max_length=4)
    assert model.predict(["bab"], beam_width=31, length_penalty=penalty, max_length=4) == [best.hypotheses[0].sequence]


def test_a_penalty_whose_powers_are_infinite():
    """All scores are 0 then, but those of an empty sequence, whose length with the end is 1."""
    model = make_translator()
    beam = model.beam_search("bab", beam_width=40, length_penalty=1e300, max_length=4)
    assert all(h.score == (h.log_prob if len(h.sequence) == 0 else 0) for h in beam.hypotheses)
    assert np.isfinite([h.log_prob for h in beam.hypotheses]).all()


@pytest.mark.parametrize("penalty", [0, 0.7, 1])
@pytest.mark.parametrize("width", [2, 3, 5])
def test_a_narrow_beam(width, penalty):
    """The search by the book, over lists: ended hypotheses stay as they are and take part in each choice."""
    model = make_translator()
    vocabulary = model.target_vocabulary
    end = vocabulary.eos_id
    for source in SOURCES:
        log_probs_of = decoder_of(model, source)
        beam = [((), 0.0, 0.0)]
        for _ in range(8):
            candidates = [entry for entry in beam if entry[0] and entry[0][-1] == end]
            for ids, log_prob, _ in beam:
                if not (ids and ids[-1] == end):
                    row = log_probs_of([end, *ids])[-1]
                    for token in range(1, len(vocabulary)):
                        total = log_prob + row[token]
                        candidates.append(((*ids, token), total, total / (len(ids) + 1) ** penalty))
            beam = sorted(candidates, key=lambda entry: -entry[2])[:width]
        found = model.beam_search(source, beam_width=width, length_penalty=penalty, max_length=8)
        assert_hypotheses(found, beam, vocabulary.decode)


@pytest.mark.parametrize("source", SOURCES)
def test_width_one_is_greedy(source):
    model = make_translator()
    vocabulary, log_probs_of = model.target_vocabulary, decoder_of(model, source)
    ids, total = [vocabulary.eos_id], 0.0
    # Twice the length of the source and ten, if nothing else is said.
    while len(ids) <= 2 * len(source) + 10 and (len(ids) == 1 or ids[-1] != vocabulary.eos_id):
        row = log_probs_of(ids)[-1]
        row[vocabulary.unk_id] = -np.inf
        ids.append(int(row.argmax()))
        total += row.max()
    (hypothesis,) = model.beam_search(source, beam_width=1).hypotheses
    assert model.predict([source]) == [hypothesis.sequence] == [vocabulary.decode(ids[1:])]
    np.testing.assert_allclose(hypothesis.log_prob, total, **CLOSE)
    np.testing.assert_allclose(hypothesis.score, total / (len(ids) - 1) ** 0.7, **CLOSE)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("width", [1, 4])
def test_predicting_many_is_searching_one_by_one(width, dtype):
    model = make_translator(dtype)
    many = [source[:n] for source in ("abbab", "babba") for n in range(6)] * 12  # more than a batch
    predicted = model.predict(many, beam_width=width)
    one_by_one = {source: model.beam_search(source, beam_width=width).hypotheses[0].sequence for source in set(many)}
    assert predicted == [one_by_one[source] for source in many]
    assert len(set(predicted)) > 2
    assert not any("\ufffd" in text for text in predicted)
    for limit in (1, 3):
        short = model.predict(many, beam_width=width, max_length=limit)
        assert max(map(len, short)) == limit


def test_log_probs_of_ended_hypotheses_are_those_of_log_prob():
    model = make_translator()
    ended = 0
    for source in SOURCES:
        for hypothesis in model.beam_search(source, beam_width=6, max_length=9).hypotheses:
            if len(hypothesis.sequence) < 9:
                ended += 1
                np.testing.assert_allclose(
                    hypothesis.log_prob, model.log_prob([source], [hypothesis.sequence])[0], **CLOSE
                )
    assert ended > 10


def test_targets_of_ids_and_tokens():
    """Ids have an end of their own; tokens come back as lists."""
    settings = {"hidden_size": 4, "epochs": 1, "dtype": "float64", "random_state": 1}
    model = moved(rc.EncoderDecoder(**settings).fit([[0, 1], [1]], [[2, 0], [1, 1, 2]]))
    beam = model.beam_search([1, 0], beam_width=200, max_length=3)
    assert len(beam.hypotheses) == 1 + 3 + 9 + 27
    assert all(0 <= i < 3 for h in beam.hypotheses for i in h.sequence)
    assert sorted({len(h.sequence) for h in beam.hypotheses}) == [0, 1, 2, 3]
    assert {token for step in beam.steps for _, token, _, _ in step} == {"0", "1", "2", "3"}
    words = moved(rc.EncoderDecoder("word", **settings).fit([["a"], ["b", "c"]], [["x", "y"], ["y"]]))
    assert all(set(h.sequence) <= {"x", "y"} for h in words.beam_search(["a"], max_length=4).hypotheses)


def check_tree(beam, spell):
    """Parents are there, log-probabilities fall along each path, and the path to ``best`` spells the best."""
    assert beam.steps
    for t, step in enumerate(beam.steps):
        assert step
        for parent, _, log_prob, _ in step:
            if t == 0:
                assert parent == -1
            else:
                assert 0 <= parent < len(beam.steps[t - 1])
                assert log_prob <= beam.steps[t - 1][parent][2]
    t, place = beam.best
    np.testing.assert_allclose(beam.steps[t][place][2], beam.hypotheses[0].log_prob, **CLOSE)
    path = []
    while t >= 0:
        parent, token, _, kept = beam.steps[t][place]
        assert kept
        path.append(token)
        t, place = t - 1, parent
    assert place == -1
    assert spell(path[::-1]) == beam.hypotheses[0].sequence
    # Each hypothesis is the end of one path of those that are kept.
    parents = {(t - 1, parent) for t, step in enumerate(beam.steps) for parent, _, _, kept in step if kept}
    ends = [
        (log_prob, t)
        for t, step in enumerate(beam.steps)
        for place, (_, _, log_prob, kept) in enumerate(step)
        if kept and (t, place) not in parents
    ]
    np.testing.assert_allclose(sorted(e[0] for e in ends), sorted(h.log_prob for h in beam.hypotheses), **CLOSE)
    scores = [h.score for h in beam.hypotheses]
    assert scores == sorted(scores, reverse=True)


def spell(tokens):
    return "".join(token for token in tokens if token != "<eos>")


@pytest.mark.parametrize("penalty", [0, 0.7, 1])
@pytest.mark.parametrize("width", [1, 2, 5, 40])
def test_the_tree_of_a_search(width, penalty):
    model = make_translator()
    for source in SOURCES:
        check_tree(model.beam_search(source, beam_width=width, length_penalty=penalty, max_length=6), spell)
    language = make_language_model(TEXT)
    check_tree(language.beam_search(5, "the ", beam_width=width, length_penalty=penalty), spell)


# ---- the language model ---------------------------------------------------------------------------------------------


def continuation(model, prompt):
    """-> last id of <eos> and the prompt, function of ids that gives the log-probabilities of the steps after."""
    embedding, recurrent = model.layers["embedding"], model.layers["recurrent"]
    before = [model.vocabulary.eos_id, *model.vocabulary.encode(prompt)]

    def log_probs_of(ids):
        rows = steps_of(lambda x, s: recurrent(embedding(x), s), model.layers["output"], None, [*before[:-1], *ids])
        return rows[len(before) - 1 :]

    return before[-1], log_probs_of


@pytest.mark.parametrize("penalty", [0, 0.7, 1])
@pytest.mark.parametrize("prompt", ["", "b", "abba"])
@pytest.mark.parametrize("stop_at_eos", [False, True])
def test_beams_of_a_language_model(stop_at_eos, prompt, penalty):
    model = make_language_model("abbabaabab" * 4, chunk_length=3)
    model.params["output.b"][model.vocabulary.unk_id] += 3
    a, b = model.vocabulary.encode("ab")
    first, log_probs_of = continuation(model, prompt)
    end = model.vocabulary.eos_id if stop_at_eos else None
    wanted = all_sequences(log_probs_of, first, [a, b], end, 3, penalty)
    assert len(wanted) == (15 if stop_at_eos else 8)
    options = {"beam_width": 20, "length_penalty": penalty, "stop_at_eos": stop_at_eos}
    beam = model.beam_search(3, prompt, **options)
    assert_hypotheses(beam, wanted, model.vocabulary.decode)
    check_tree(beam, spell)


def test_words_end_lines_and_sentences():
    """Without an end, <eos> is a newline; sentences end at it."""
    model = make_language_model(TEXT, "word")
    texts = [h.sequence for h in model.beam_search(4, "the", beam_width=400).hypotheses]
    assert any("\n" in text for text in texts)
    assert not any("<unk>" in text for text in texts)
    sentences = make_language_model(SENTENCES, "word")
    hypotheses = sentences.beam_search(4, "the", beam_width=400).hypotheses
    assert not any("\n" in h.sequence for h in hypotheses)
    ended = [h for h in hypotheses if len(h.sequence.split()) < 4]
    assert ended
    wanted = sentences.score_many([h.sequence for h in ended], "the")
    np.testing.assert_allclose([h.log_prob for h in ended], wanted, **CLOSE)


def test_beams_of_a_language_model_refuse():
    model = make_language_model(TEXT)
    for options, error, message in [
        ({"n": 0}, ValueError, "n must be at least 1; got 0"),
        ({"n": 1.5}, TypeError, "n must be an integer; got 1.5"),
        ({"beam_width": 0}, ValueError, "beam_width must be at least 1; got 0"),
        ({"length_penalty": -0.5}, ValueError, "length_penalty must be at least 0 and finite; got -0.5"),
        ({"prompt": 3}, TypeError, "prompt must be str; got int"),
    ]:
        with pytest.raises(error, match=f"^{message}"):
            model.beam_search(**{"n": 3} | options)
    with pytest.raises(ValueError, match="call fit first"):
        rc.LanguageModel().beam_search(3)
    with pytest.raises(TypeError, match="^texts must be a list of str; got one str"):
        model.score_many("abc")


@pytest.mark.parametrize("prompt", ["", "the ", "the dog sat on the "])
@pytest.mark.parametrize("texts", [TEXT, SENTENCES], ids=["text", "sentences"])
@pytest.mark.parametrize("level", ["char", "word"])
def test_scores_of_many_texts(level, texts, prompt):
    """Sums of the steps; some are longer than a chunk, more than a batch."""
    model = make_language_model(texts, level)
    several = ["cat", "", "dog sat on the mat", "a", "the log on the mat sat", "zebra the"] * 2
    wanted, counts = [], []
    for text in several:
        ids = [*model.vocabulary.encode(text)]
        ids += [] if texts is TEXT else [model.vocabulary.eos_id]
        first, log_probs_of = continuation(model, prompt)
        rows = log_probs_of([first, *ids])[:-1]
        wanted.append(rows[np.arange(len(ids)), ids].sum() if ids else 0.0)
        counts.append(max(len(ids), 1))
    np.testing.assert_allclose(model.score_many(several, prompt), wanted, **CLOSE)
    per_token = model.score_many(several, prompt, per_token=True)
    np.testing.assert_allclose(per_token, np.array(wanted) / counts, **CLOSE)
    # What log_prob says of the whole, less what it says of the prompt.
    before = model.log_prob(prompt) if prompt else 0.0
    if texts is SENTENCES:
        end = model.score_many([""], prompt)[0]
        before = model.log_prob([prompt])[0] - end if prompt else 0.0
    whole = [model.log_prob(prompt + text) for text in several]
    np.testing.assert_allclose(model.score_many(several, prompt), np.array(whole) - before, **CLOSE)
    np.testing.assert_array_equal(model.score_many(several[2:3], prompt)[0], model.score_many(several, prompt)[2])
    assert model.score_many([], prompt).shape == (0,)


def test_outputs_that_are_not_finite():
    model = rc.LanguageModel(hidden_size=3, embedding_size=0).build(rc.Vocabulary("ab"))
    model.params["output.b"][2] = np.nan
    with pytest.raises(ValueError, match="the output of the model is not finite"):
        model.beam_search(3)
    with pytest.raises(ValueError, match="the output of the model is not finite"):
        model.sample(3)


@pytest.mark.parametrize("count", [1, 4, 30])
def test_of_equal_values_the_first(rng, count):
    values = rng.integers(4, size=(6, 20)) * 1.0
    values[0, :15] = -np.inf
    np.testing.assert_array_equal(_largest(values, count), np.argsort(-values, axis=1, kind="stable")[:, :count])


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.4}, {"top_k": 2}, {"top_p": 0.7}, {"temperature": 2.0, "top_k": 2, "top_p": 0.7}],
    ids=str,
)
def test_a_translation_is_drawn_step_by_step(options):
    model = make_translator()
    settings = {"temperature": 1.0, "top_k": None, "top_p": None} | options
    settings["top_k"] = settings["top_k"] or len(model.target_vocabulary)  # here the tokens are always sorted
    end, banned, drawn = model.target_vocabulary.eos_id, [model.target_vocabulary.unk_id], []
    for source in SOURCES * 5:
        log_probs_of, ids = decoder_of(model, source), [end]
        for uniform in np.random.default_rng(len(drawn)).random(12):
            ids.append(draw(log_probs_of(ids)[-1], uniform, banned=banned, **settings))
            if ids[-1] == end:
                break
        wanted = model.target_vocabulary.decode(ids[1:])
        assert model.sample([source], seed=len(drawn), max_length=12, **options) == [wanted]
        drawn.append(wanted)
    assert len(set(drawn)) > 8
