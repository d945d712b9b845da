"""Text to ids and back, batches of sequences, weights gate by gate."""

import string

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from support.compare import assert_identical
from support.strategies import dtypes, seeds, sizes, variants

import rnncore as rc

words = st.text(string.ascii_letters + "é漢😀.,'", min_size=1, max_size=5)
ragged = st.lists(st.lists(st.integers(-9, 9), max_size=20), min_size=1, max_size=12)


@given(st.text(min_size=1), st.text())
def test_characters_come_back(text, other):
    vocabulary = rc.Vocabulary.from_text(text)
    ids = vocabulary.encode(text)
    assert vocabulary.decode(ids) == text
    assert ids.shape == (len(text),)
    assert sorted(set(text)) == sorted(vocabulary.tokens[2:])
    counts = [text.count(token) for token in vocabulary.tokens[2:]]
    assert counts == sorted(counts, reverse=True)
    known = [token if token in text else "\ufffd" for token in other]
    assert vocabulary.decode(vocabulary.encode(other)) == "".join(known)
    assert rc.Vocabulary.from_state(vocabulary.state()) == vocabulary


@given(st.lists(words, min_size=1), seeds)
def test_words_come_back(tokens, seed):
    vocabulary = rc.Vocabulary.from_text(" ".join(tokens), level="word")
    assert vocabulary.decode(vocabulary.encode(tokens)) == " ".join(tokens)
    # With unknown words and ends of sentences.
    ids = np.random.default_rng(seed).integers(len(vocabulary), size=len(tokens))
    np.testing.assert_array_equal(vocabulary.encode(vocabulary.decode(ids)), ids)
    np.testing.assert_array_equal(vocabulary.one_hot(ids).argmax(axis=1), ids)


@given(ragged, st.integers(-99, 99))
def test_padded_batches_hold_their_sequences(sequences, padding):
    batch, lengths = rc.pad([np.array(s, int) for s in sequences], padding=padding)
    assert lengths.tolist() == [len(s) for s in sequences]
    assert [batch[:length, n].tolist() for n, length in enumerate(lengths)] == sequences
    assert (batch[np.arange(len(batch))[:, None] >= lengths] == padding).all()
    assert len(batch) == max(map(len, sequences))


@given(st.lists(st.integers(0, 99)), st.integers(1, 9), st.none() | seeds)
def test_batches_by_length_hold_every_sequence_once(lengths, batch_size, seed):
    rng = None if seed is None else np.random.default_rng(seed)
    batches = rc.batches_by_length(np.array(lengths, int), batch_size, rng)
    assert sorted(n for rows in batches for n in rows) == list(range(len(lengths)))
    assert all(0 < len(rows) <= batch_size for rows in batches)


@given(st.lists(st.integers(0, 99), min_size=9), st.integers(1, 9))
def test_streams_are_pieces_of_the_text(ids, batch_size):
    pieces = rc.streams(np.array(ids, int), batch_size)
    steps = len(ids) // batch_size
    assert pieces.shape == (steps, batch_size)
    assert pieces.T.ravel().tolist() == ids[: steps * batch_size]


@given(variants(), dtypes, sizes(1), sizes(1), st.booleans(), seeds)
def test_gates_are_split_and_joined(variant, dtype, D, H, columns, seed):
    rng = np.random.default_rng(seed)
    shapes = {name: shape for name, shape in variant.shapes(D, H).items() if name in ("Wx", "Wh", "b")}
    weights = {"Wh": None} | {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}
    options = {"columns": columns, "gate_order": variant.gate_order}
    gates = rc.split_gates(**weights, **options)
    joined = dict(zip(("Wx", "Wh", "b"), rc.join_gates(*gates, **options), strict=True))
    assert_identical({name: joined[name] for name in weights}, weights)
    gates[2][variant.gates[-1]][...] = 7  # a view
    assert (weights["b"] == 7).sum() == H
