"""Entities and BLEU against cases counted by hand."""

import math

import pytest

from rnncore.metrics import Score, bleu, edit_distance, entities, entity_score, label_error_rate


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ("", []),
        ("O O", []),
        ("B-a", [("a", 0, 1)]),
        ("O B-a I-a I-a O", [("a", 1, 4)]),
        ("B-a I-a", [("a", 0, 2)]),
        # Side by side: the B begins another of the same type.
        ("B-a B-a I-a", [("a", 0, 1), ("a", 1, 3)]),
        ("B-a I-a B-b I-b", [("a", 0, 2), ("b", 2, 4)]),
        # An I that continues nothing of its type begins an entity.
        ("I-a I-a O I-a", [("a", 0, 2), ("a", 3, 4)]),
        ("B-a I-b I-b", [("a", 0, 1), ("b", 1, 3)]),
        ("I-a B-a", [("a", 0, 1), ("a", 1, 2)]),
        ("O I-a-b I-a-b B-a", [("a-b", 1, 3), ("a", 3, 4)]),
    ],
)
def test_entities(tags, wanted):
    assert entities(tags.split()) == set(wanted)


@pytest.mark.parametrize(
    ("wanted", "predicted", "kind", "score"),
    [
        ([], [], None, (0, 0, 0)),
        (["O O"], ["O O"], None, (0, 0, 0)),
        (["B-a I-a O"], ["O O O"], None, (0, 0, 0)),
        (["O O"], ["B-a O"], None, (0, 0, 0)),
        (["B-a I-a O B-b"], ["B-a I-a O B-b"], None, (1, 1, 1)),
        # The end, or the type, is wrong: nothing is right.
        (["B-a I-a O"], ["B-a O O"], None, (0, 0, 0)),
        (["B-a O"], ["B-b O"], None, (0, 0, 0)),
        # 2 of 3 found, one of them not there: 1 of 2 is right, 1 of 3 found, F1 = 2 / 5.
        (["B-a O B-b O B-a", "O O"], ["B-a O O O O", "O B-b"], None, (1 / 2, 1 / 3, 2 / 5)),
        (["B-a O B-b O B-a", "O O"], ["B-a O O O O", "O B-b"], "a", (1, 1 / 2, 2 / 3)),
        (["B-a O B-b O B-a", "O O"], ["B-a O O O O", "O B-b"], "b", (0, 0, 0)),
        (["B-a"], ["B-a"], "c", (0, 0, 0)),
        # The same place in two sentences counts twice.
        (["B-a", "B-a", "B-a"], ["B-a", "B-a", "O"], None, (1, 2 / 3, 4 / 5)),
    ],
)
def test_entity_score(wanted, predicted, kind, score):
    got = entity_score([tags.split() for tags in wanted], [tags.split() for tags in predicted], kind)
    assert isinstance(got, Score)
    assert got == pytest.approx(score)


def test_entity_score_refuses():
    with pytest.raises(ValueError, match="^predicted must be as many as wanted, 1; got 2"):
        entity_score([["O"]], [["O"], ["O"]])
    with pytest.raises(ValueError, match=r"^predicted\[1\] must have 2 tags as wanted\[1\]; got 1"):
        entity_score([["O"], ["O", "B-a"]], [["O"], ["O"]])


@pytest.mark.parametrize(
    ("references", "candidates", "order", "score"),
    [
        ([], [], 4, 0),
        ([["a b c d e"]], ["a b c d e"], 4, 1),
        ([["a b c"]], ["x y z"], 1, 0),
        ([["a b c"]], [""], 4, 0),
        # Unigrams match, pairs do not.
        ([["a b c"]], ["c b a"], 2, 0),
        ([["a b c"]], ["c b a"], 1, 1),
        # "the" seven times, two of them in the reference (Papineni et al. 2002).
        ([["the cat is on the mat"]], ["the the the the the the the"], 1, 2 / 7),
        # Counted as often as in one reference, not in all of them together.
        ([["a b", "a c a", "b"]], ["a a a"], 1, 2 / 3),
        # p1 = 3/4, p2 = 1/3
        ([["a b c d"]], ["a b d x"], 2, math.sqrt(3 / 4 / 3)),
        # Too short by one of three: exp(1 - 3/2).
        ([["a b c"]], ["a b"], 2, math.exp(-1 / 2)),
        # Too long is the matter of the precision alone.
        ([["a b"]], ["a b c"], 1, 2 / 3),
        # The reference of like length; of equally like the shorter.
        ([["a b c d e f", "a b c"]], ["a b c d"], 1, 1),
        ([["a b c d e", "a b c"]], ["a b c d"], 1, 1),
        ([["a b c d e f", "a x"]], ["a b c d e"], 1, math.exp(1 - 6 / 5)),
        # Counts and lengths of the whole set: 3 of 4 tokens, 5 against 4.
        ([["a b"], ["c d e"]], ["a b", "c x"], 1, math.exp(1 - 5 / 4) * 3 / 4),
        # No candidate has four tokens: the orders up to three count.
        ([["a b c"]], ["a b c"], 4, 1),
        ([["a b c"], ["a"]], ["a b c", "x"], 4, (3 / 4) ** (1 / 3)),
    ],
)
def test_bleu(references, candidates, order, score):
    references = [[text.split() for text in several] for several in references]
    assert bleu(references, [text.split() for text in candidates], order) == pytest.approx(score)


def test_bleu_takes_any_tokens():
    assert bleu([[(1, 2, 3, 4)]], [[1, 2, 3, 4]]) == 1
    assert bleu([["abcd"]], ["abcd"]) == 1


def test_bleu_refuses():
    with pytest.raises(ValueError, match="^candidates must be as many as references, 1; got 0"):
        bleu([["a"]], [])
    with pytest.raises(ValueError, match=r"^references\[1\] must hold at least one translation; got none"):
        bleu([["a"], []], ["a", "a"])


def test_edit_distance(rng):
    def by_definition(a, b):
        if not a or not b:
            return len(a) + len(b)
        changed = by_definition(a[1:], b[1:]) + (a[0] != b[0])
        return min(changed, by_definition(a[1:], b) + 1, by_definition(a, b[1:]) + 1)

    for _ in range(30):
        a, b = ("".join(rng.choice(list("xyz"), size=rng.integers(6))) for _ in range(2))
        assert edit_distance(a, b) == by_definition(a, b), (a, b)
    assert label_error_rate(["pear", "salad"], ["pair", "salads"]) == 3 / 9
