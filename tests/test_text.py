import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from rnncore.text import Vocabulary, batches_by_length, pad, streams

UNICODE = "naïve ÅÅ 日本語\t𝄞𝄞𝄞 🙂\n\u2028e\u0301 \x00\ud800\U0010ffff"


# Vocabulary: construction


def test_tokens_come_after_the_specials_in_the_given_order():
    v = Vocabulary(["b", "a"])
    assert v.tokens == ("<unk>", "<eos>", "b", "a")
    assert (v.level, v.unk_id, v.eos_id, len(v)) == ("char", 0, 1, 4)
    assert "a" in v
    assert "<eos>" in v
    assert "c" not in v
    assert "ba" not in v


def test_from_text_orders_by_frequency_then_code_point():
    assert Vocabulary.from_text("zzab\nba𝄞é").tokens[2:] == ("a", "b", "z", "\n", "é", "𝄞")
    words = Vocabulary.from_text("to be or\nnot to <unk> be <eos> <eos> <eos> Or", level="word")
    assert words.tokens[2:] == ("be", "to", "Or", "not", "or")


def test_from_text_takes_several_texts():
    parts = ["b a\n", "cc b", "b"]
    assert Vocabulary.from_text(iter(parts)).tokens[2:] == ("b", " ", "c", "\n", "a")
    assert Vocabulary.from_text(iter(parts), "word").tokens[2:] == ("b", "a", "cc")


def test_from_text_takes_texts_that_are_cut():
    texts = [["John", "Smith", "<unk>"], ("Smith", "<eos>", "\u200b"), "a John\nSmith's", []]
    v = Vocabulary.from_text(iter(texts), "word")
    assert v.tokens[2:] == ("John", "Smith", "Smith's", "a", "\u200b")
    assert Vocabulary.from_text(["John", "Smith John"], "word").tokens[2:] == ("John", "Smith")
    assert Vocabulary.from_text((("a",), ("b", "a")), "word", max_size=3).tokens[2:] == ("a",)
    assert Vocabulary.from_text([["a b", "c", "c"]], "word", min_count=2).tokens[2:] == ("c",)


def test_from_text_limits():
    text = "a a a b b c c d"
    assert Vocabulary.from_text(text, "word", max_size=4).tokens[2:] == ("a", "b")
    assert Vocabulary.from_text(text, "word", max_size=3).tokens[2:] == ("a",)
    assert Vocabulary.from_text(text, "word", min_count=2).tokens[2:] == ("a", "b", "c")
    assert Vocabulary.from_text(text, "word", max_size=4, min_count=3).tokens[2:] == ("a",)
    many_words = " ".join(map(str, range(12_000)))
    many_chars = "".join(map(chr, range(0x4000, 0x4000 + 12_000)))
    assert len(Vocabulary.from_text(many_words, "word")) == 10_000
    assert len(Vocabulary.from_text(many_words, "word", max_size=20_000)) == 12_002
    assert len(Vocabulary.from_text(many_chars)) == 12_002


def test_equality_and_hash():
    assert Vocabulary("ab") == Vocabulary(["a", "b"])
    assert hash(Vocabulary("ab")) == hash(Vocabulary(["a", "b"]))
    assert Vocabulary("ab") != Vocabulary("ba")
    assert Vocabulary("ab") != Vocabulary(["a", "b"], level="word")
    assert Vocabulary("ab") != ("<unk>", "<eos>", "a", "b")
    assert repr(Vocabulary(["x"], level="word")) == "<Vocabulary of 3 words>"


@pytest.mark.parametrize(
    ("error", "match", "args"),
    [
        (ValueError, r"level must be one of 'char', 'word'; got 'byte'", ("ab", "byte")),
        (TypeError, r"tokens must be an iterable of str at level 'word'; got one str", ("ab", "word")),
        (TypeError, r"tokens must be an iterable of str; got int", (3,)),
        (TypeError, r"tokens must be an iterable of str; got bytes", (b"ab",)),
        (TypeError, r"tokens\[1\] must be str; got int", (["a", 1],)),
        (ValueError, r"tokens must be distinct; tokens\[2\] = 'a'", ("aba",)),
        (ValueError, r"tokens\[0\] must not be '<unk>'", (["<unk>", "a"],)),
        (ValueError, r"tokens\[1\] must not be '<eos>'", (["a", "<eos>"], "word")),
        (ValueError, r"tokens\[1\] must be one character at level 'char'; got 'bc'", (["a", "bc"],)),
        (ValueError, r"tokens\[0\] must be one character at level 'char'; got ''", ([""],)),
        (ValueError, r"tokens\[0\] must be a word without white space .*; got 'a b'", (["a b"], "word")),
        (ValueError, r"tokens\[0\] must be a word without white space .*; got ''", ([""], "word")),
    ],
)
def test_constructor_refuses(error, match, args):
    with pytest.raises(error, match=match):
        Vocabulary(*args)


@pytest.mark.parametrize(
    ("error", "match", "args"),
    [
        (ValueError, r"level must be .*; got None", ("ab", None)),
        (TypeError, r"text must be str or an iterable of str; got bytes", (b"ab",)),
        (TypeError, r"text must be str or an iterable of str; got float", (1.5,)),
        (TypeError, r"text\[1\] must be str; got NoneType", (["ab", None],)),
        (TypeError, r"text\[0\] must be str at level 'char'; got list", ([["a"]],)),
        (TypeError, r"text\[1\] must be str or a list of str; got int", (["ab", 3], "word")),
        (TypeError, r"text\[1\]\[2\] must be str; got int", (["a", ["b", "c", 3]], "word")),
        (TypeError, r"text\[0\]\[0\] must be str; got list", ([[["b"]]], "word")),
        (ValueError, r"must be a word without white space at level 'word'; got 'New York'", ([["New York"]], "word")),
        (ValueError, r"must be a word without white space at level 'word'; got ''", ([["a", ""]], "word")),
        (ValueError, r"text must hold at least one token \(level 'word'\); got none", ([[], ()], "word")),
        (ValueError, r"text must hold at least one token \(level 'char'\); got none", ("",)),
        (ValueError, r"text must hold at least one token \(level 'char'\); got none", ([],)),
        (ValueError, r"text must hold at least one token \(level 'word'\); got none", (" \n", "word")),
        (ValueError, r"max_size must be at least 3; got 2", ("ab", "char", 2)),
        (TypeError, r"max_size must be an integer; got 5.0", ("ab", "char", 5.0)),
        (ValueError, r"min_count must be at least 1; got 0", ("ab", "char", None, 0)),
    ],
)
def test_from_text_refuses(error, match, args):
    with pytest.raises(error, match=match):
        Vocabulary.from_text(*args)


# Vocabulary: encode, decode, one_hot


def test_encode_characters():
    ids = Vocabulary("ba\n𝄞").encode("ab\nc𝄞\U0010ffffa")
    assert ids.dtype == np.int64
    assert_array_equal(ids, [3, 2, 4, 0, 5, 0, 3])


def test_encode_words():
    v = Vocabulary(["a", "b"], level="word")
    for text, ids in [
        ("a b\nc", [2, 3, 1, 0]),
        ("b\n", [3, 1]),
        ("\n\na", [1, 1, 2]),
        (" \t a\r\n  b ", [2, 1, 3]),
        ("<unk> a <eos> <b>", [0, 2, 1, 0]),
    ]:
        assert v.encode(text).dtype == np.int64
        assert_array_equal(v.encode(text), ids)


def test_encode_tokens():
    v = Vocabulary(["a", "b"], level="word")
    for tokens, ids in [
        (["a", "b", "c"], [2, 3, 0]),
        (("<eos>", "b", "<unk>"), [1, 3, 0]),
        (["a b", "a\n", "\n", "", "b"], [0, 0, 0, 0, 3]),
        ([np.str_("b")], [3]),
        ([], []),
        ((), []),
    ]:
        assert v.encode(tokens).dtype == np.int64
        assert v.encode(tokens).shape == (len(ids),)
        assert_array_equal(v.encode(tokens), ids)
    tokens = "the cat sat".split()
    assert_array_equal(v.encode(tokens), v.encode("the cat sat"))


@pytest.mark.parametrize("level", ["char", "word"])
def test_empty_text_and_empty_ids(level):
    v = Vocabulary(["a"], level)
    assert v.encode("").shape == (0,)
    assert v.encode("").dtype == np.int64
    assert v.decode([]) == ""
    assert v.decode(np.zeros(0, np.int32)) == ""


def test_vocabulary_of_specials_only():
    for level in ("char", "word"):
        assert_array_equal(Vocabulary([], level).encode("a b"), [0] * (3 if level == "char" else 2))


def test_characters_come_back():
    v = Vocabulary.from_text(UNICODE)
    ids = v.encode(UNICODE)
    assert_array_equal(ids, [v.tokens.index(character) for character in UNICODE])
    assert v.decode(ids) == UNICODE
    assert v.decode(ids[::-1]) == UNICODE[::-1]


def test_random_characters_agree_with_a_dict(rng):
    alphabet = [chr(c) for c in rng.choice(0xD000, size=300, replace=False)] + ["𝄞", "🙂"]
    v = Vocabulary(alphabet[:200] + alphabet[-1:])
    text = "".join(rng.choice(alphabet, size=5000))
    table = {token: i for i, token in enumerate(v.tokens)}
    assert_array_equal(v.encode(text), [table.get(c, 0) for c in text])
    assert v.decode(v.encode(text)) == "".join(c if c in v else "\ufffd" for c in text)


def test_words_come_back():
    text = "日本 𝄞 naïve\n\n🙂 日本\n"
    v = Vocabulary.from_text(text, level="word")
    assert v.decode(v.encode(text)) == text
    assert v.decode(v.encode("日本  x\n 🙂")) == "日本 <unk>\n🙂"


def test_decode_specials():
    assert Vocabulary("ab").decode([2, 1, 0, 3, 1]) == "a\ufffdb"
    assert Vocabulary(["a"], level="word").decode([1, 2, 1, 1, 0, 2]) == "\na\n\n<unk> a"
    assert Vocabulary("ab").decode(3) == "b"
    assert Vocabulary("ab").decode(np.array([3, 2], np.uint8)) == "ba"


def test_one_hot(rng):
    v = Vocabulary("abcde")
    ids = rng.integers(0, 7, size=(4, 3))
    x = v.one_hot(ids)
    assert x.dtype == np.float32
    assert_array_equal(x, np.eye(7)[ids])
    assert v.one_hot(ids, dtype="float64").dtype == np.float64
    assert v.one_hot(5).shape == (7,)
    assert v.one_hot(np.zeros((3, 0), int)).shape == (3, 0, 7)


@pytest.mark.parametrize("level", ["char", "word"])
def test_wrong_ids_and_texts(level):
    v = Vocabulary(["a", "b"], level)
    for function in (v.decode, v.one_hot):
        with pytest.raises(ValueError, match=r"ids must be in \[0, 4\); got 4"):
            function([1, 4, 9])
        with pytest.raises(ValueError, match=r"ids must be in \[0, 4\); got -1"):
            function([1, -1])
        with pytest.raises(TypeError, match=r"ids must be integers; got dtype float64"):
            function([1.0])
    with pytest.raises(ValueError, match=r"ids must be \(L,\); got shape \(1, 2\)"):
        v.decode([[1, 2]])
    wanted = {"char": "str", "word": "str or a list of str"}[level]
    for wrong, name in ((b"ab", "bytes"), (None, "NoneType"), (np.array(["a"]), "ndarray"), ({"a"}, "set")):
        with pytest.raises(TypeError, match=f"^text must be {wanted}; got {name}$"):
            v.encode(wrong)


def test_wrong_tokens():
    for wrong in (["a"], ("a",), []):
        with pytest.raises(TypeError, match=f"^text must be str at level 'char'; got {type(wrong).__name__}$"):
            Vocabulary("ab").encode(wrong)
    with pytest.raises(TypeError, match=r"^text\[1\] must be str; got bytes$"):
        Vocabulary(["a"], "word").encode(["a", b"a"])


# Vocabulary: state


@pytest.mark.parametrize("level", ["char", "word"])
def test_state_goes_through_json(level):
    v = Vocabulary.from_text(UNICODE, level)
    back = Vocabulary.from_state(json.loads(json.dumps(v.state())))
    assert back == v
    assert back.tokens == v.tokens
    assert_array_equal(back.encode(UNICODE), v.encode(UNICODE))


@pytest.mark.parametrize(
    ("match", "state"),
    [
        (r"state must be a dict .*; got list", ["char", ["a"]]),
        (r"state must be a dict .*; got keys \['level'\]", {"level": "char"}),
        (r"state must be a dict .*; got keys", {"level": "char", "tokens": [], "more": 1}),
        (r"level must be", {"level": "byte", "tokens": ["a"]}),
        (r"level must be", {"level": ["char"], "tokens": ["a"]}),
        (r"state\['tokens'\] must be a list; got str", {"level": "char", "tokens": "ab"}),
        (r"tokens\[1\] must be str; got int", {"level": "char", "tokens": ["a", 1]}),
        (r"tokens must be distinct", {"level": "word", "tokens": ["a", "a"]}),
        (r"must not be '<eos>'", {"level": "word", "tokens": ["<eos>"]}),
    ],
)
def test_from_state_refuses(match, state):
    with pytest.raises(ValueError, match=match):
        Vocabulary.from_state(state)


# pad


@pytest.mark.parametrize("features", [(), (3,)])
def test_pad(rng, features):
    sequences = [rng.normal(size=(length, *features)).astype("f") for length in (2, 0, 5, 1)]
    batch, lengths = pad(sequences, padding=-7)
    assert batch.shape == (5, 4, *features)
    assert (batch.dtype, lengths.dtype) == (np.float32, np.int64)
    assert_array_equal(lengths, [2, 0, 5, 1])
    for n, sequence in enumerate(sequences):
        assert_array_equal(batch[: len(sequence), n], sequence)
        assert_array_equal(batch[len(sequence) :, n], np.full((5 - len(sequence), *features), -7))


def test_pad_dtype():
    assert pad([[1, 2], []])[0].dtype == np.int64
    assert pad([[1, 2], [0.5]])[0].dtype == np.float64
    assert pad([np.zeros(2, "f"), np.zeros(1, "d")])[0].dtype == np.float64
    assert pad([[1, 2], [3]], dtype="float32")[0].dtype == np.float32
    batch, lengths = pad([np.zeros((0, 3), "f"), np.zeros((0, 3), "f")])
    assert (batch.shape, batch.dtype) == ((0, 2, 3), np.float32)
    assert_array_equal(lengths, [0, 0])


def test_pad_gives_a_fresh_array(rng):
    x = rng.normal(size=(4, 2))
    batch, _ = pad([x])
    assert not np.shares_memory(batch, x)


@pytest.mark.parametrize(
    ("match", "sequences"),
    [
        (r"sequences must hold at least one sequence; got none", []),
        (r"sequences\[1\] must be \(T_n,\) or \(T_n, D\); got a scalar", [[1, 2], 3]),
        (r"sequences\[1\] must be \(T_n, 3\) like .*; got \(4, 2\)", [np.ones((2, 3)), np.ones((4, 2))]),
        (r"sequences\[1\] must be \(T_n\) like .*; got \(2, 1\)", [[1, 2], [[1], [2]]]),
    ],
)
def test_pad_refuses(match, sequences):
    with pytest.raises(ValueError, match=match):
        pad(sequences)


# batches_by_length


@pytest.mark.parametrize("seed", [None, 0, 1])
@pytest.mark.parametrize(("size", "batch_size"), [(103, 10), (100, 10), (7, 1), (3, 50), (0, 4)])
def test_batches_hold_every_index_once(rng, seed, size, batch_size):
    lengths = rng.integers(0, 40, size=size)
    batches = batches_by_length(lengths, batch_size, None if seed is None else np.random.default_rng(seed))
    assert isinstance(batches, list)
    assert_array_equal(np.sort(np.concatenate([np.zeros(0, int), *batches])), np.arange(size))
    sizes = sorted(len(batch) for batch in batches)
    assert len(sizes) == -(-size // batch_size)
    assert all(s == batch_size for s in sizes[1:])


def test_batches_without_rng_go_from_short_to_long(rng):
    lengths = rng.integers(0, 9, size=57)
    order = np.concatenate(batches_by_length(lengths, 8))
    assert_array_equal(order, sorted(range(57), key=lambda i: (lengths[i], i)))


def test_random_batches_are_reproducible_and_differ_between_epochs(rng):
    lengths = rng.integers(1, 60, size=300)
    first, again = (batches_by_length(lengths, 16, np.random.default_rng(3)) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        assert_array_equal(a, b)

    generator = np.random.default_rng(3)
    epochs = [batches_by_length(lengths, 16, generator) for _ in range(2)]
    members = [{frozenset(batch.tolist()) for batch in epoch} for epoch in epochs]
    assert len(members[0] & members[1]) < 5
    means = [lengths[batch].mean() for batch in epochs[0]]
    assert means != sorted(means)


@pytest.mark.parametrize("seed", [None, 0])
def test_batches_need_little_padding(rng, seed):
    lengths = rng.integers(1, 200, size=1000)
    batches = batches_by_length(lengths, 20, None if seed is None else np.random.default_rng(seed))
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert padded < 1.12 * lengths.sum()


def test_random_order_keeps_clearly_different_lengths_apart():
    lengths = np.tile([10, 12, 20, 23], 25)
    for seed in range(20):
        for batch in batches_by_length(lengths, 25, np.random.default_rng(seed)):
            assert len(set(lengths[batch])) == 1


@pytest.mark.parametrize(
    ("error", "match", "args"),
    [
        (ValueError, r"batch_size must be at least 1; got 0", ([1, 2], 0)),
        (TypeError, r"batch_size must be an integer; got 2.0", ([1, 2], 2.0)),
        (ValueError, r"lengths must be \(N,\); got shape \(1, 2\)", ([[1, 2]], 1)),
        (TypeError, r"lengths must be integers; got dtype float64", ([1.0, 2.0], 1)),
        (ValueError, r"lengths must not be negative; got -3", ([1, -3], 1)),
        (TypeError, r"rng must be a numpy.random.Generator or None; got int", ([1, 2], 1, 5)),
    ],
)
def test_batches_refuse(error, match, args):
    with pytest.raises(error, match=match):
        batches_by_length(*args)


# streams


@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
@pytest.mark.parametrize(("length", "n"), [(23, 4), (24, 4), (5, 5), (9, 1)])
def test_streams(rng, length, n, dtype):
    ids = rng.integers(0, 100, size=length).astype(dtype)
    s = streams(ids, n)
    steps = length // n
    assert (s.shape, s.dtype) == ((steps, n), dtype)
    assert s.flags.c_contiguous
    assert not np.shares_memory(s, ids)
    for column in range(n):
        assert_array_equal(s[:, column], ids[column * steps : (column + 1) * steps])


@pytest.mark.parametrize(
    ("error", "match", "args"),
    [
        (ValueError, r"ids must hold at least batch_size = 3 ids; got 2", ([1, 2], 3)),
        (ValueError, r"batch_size must be at least 1; got -1", ([1, 2], -1)),
        (ValueError, r"ids must be \(L,\); got shape \(1, 2\)", ([[1, 2]], 1)),
        (TypeError, r"ids must be integers; got dtype float64", ([1.5, 2], 1)),
    ],
)
def test_streams_refuse(error, match, args):
    with pytest.raises(error, match=match):
        streams(*args)
