"""Scores of predicted sequences: entities found in a text (F1), n-grams shared with a reference (BLEU), edits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from . import checks

__all__ = ["Score", "bleu", "edit_distance", "entities", "entity_score", "label_error_rate"]


_LONGEST = 1000  # n-grams of the BLEU score


class Score(NamedTuple):
    """Fraction of predicted entities that are right, fraction of true entities that are found, their harmonic mean."""

    precision: float
    recall: float
    f1: float


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Return the entities of a sentence, given its BIO tags.

    Parameters
    ----------
    tags : sequence of str
        ``O``, ``B-type`` at the beginning of an entity and ``I-type`` inside. An ``I`` that does not continue an entity
        of its type begins one, as in the CoNLL evaluation (Tjong Kim Sang and De Meulder 2003).

    Returns
    -------
    set of (type, begin, end)
        ``tags[begin:end]``.

    Examples
    --------
    >>> sorted(entities(["B-person", "I-person", "O", "B-person", "B-place"]))
    [('person', 0, 2), ('person', 3, 4), ('place', 4, 5)]
    """
    found, begin = set(), 0
    padded = ["O", *map(str, checks.sequence("tags", tags)), "O"]
    for place, (before, tag) in enumerate(pairwise(padded)):
        goes_on = tag.startswith("I-") and before[2:] == tag[2:] and before != "O"
        if before != "O" and not goes_on:
            found.add((before[2:], begin, place))
        if not goes_on:
            begin = place
    return found


def entity_score(wanted: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], kind: str | None = None) -> Score:
    """Return precision, recall and F1 of whole entities: type, begin and end must be right.

    Parameters
    ----------
    wanted, predicted : lists of tag sequences
    kind : str, optional
        Count the entities of one type only.

    Returns
    -------
    Score
        A value is 0 if its denominator is 0.

    Raises
    ------
    ValueError
        The lists, or two of their sequences, differ in length.

    Examples
    --------
    >>> entity_score([["B-person", "O", "B-place"]], [["B-person", "O", "O"]])
    Score(precision=1.0, recall=0.5, f1=0.6666666666666666)
    """
    if kind is not None:
        checks.instance("kind", kind, str, "a str or None")
    right = found = there = 0
    for n, (w, p) in enumerate(_pairs("wanted", wanted, "predicted", predicted)):
        w, p = checks.sequence(f"wanted[{n}]", w), checks.sequence(f"predicted[{n}]", p)
        if len(w) != len(p):
            raise ValueError(f"predicted[{n}] must have {len(w)} tags as wanted[{n}]; got {len(p)}")
        w, p = (frozenset(e for e in entities(tags) if kind in (None, e[0])) for tags in (w, p))
        right, found, there = right + len(w & p), found + len(p), there + len(w)
    precision, recall = right / max(found, 1), right / max(there, 1)
    return Score(precision, recall, 2 * right / max(found + there, 1))


def bleu(references: Sequence[Sequence[Sequence[Any]]], candidates: Sequence[Sequence[Any]], order: int = 4) -> float:
    """Return the BLEU score of a set of translations (Papineni, Roukos, Ward and Zhu 2002), in [0, 1].

    ``exp(min(0, 1 - r/c)) (p_1 ... p_order) ** (1/order)``: p_k is the fraction of the k-grams of all candidates that
    also occur in a reference, each counted at most as often as in any one reference. c is the total length of the
    candidates, r that of the references, taking the one closest in length to each candidate. A k-gram order is left out
    if no candidate is long enough for it.

    Parameters
    ----------
    references : list of lists of token sequences
        One or more reference translations for each candidate.
    candidates : list of token sequences
    order : int, default 4

    Returns
    -------
    float

    Raises
    ------
    ValueError
        The lists differ in length, or a candidate has no reference.

    Examples
    --------
    >>> round(bleu([["the cat sat on the mat".split()]], ["the cat sat on mat".split()]), 3)
    0.579
    """
    order = checks.integer("order", order, least=1, most=_LONGEST)
    matches, totals, reference_length, candidate_length = [0] * order, [0] * order, 0, 0
    for n, (right, candidate) in enumerate(_pairs("references", references, "candidates", candidates)):
        right, candidate = checks.sequence(f"references[{n}]", right), _tokens(f"candidates[{n}]", candidate)
        right = [_tokens(f"references[{n}][{k}]", reference) for k, reference in enumerate(right)]
        if not right:
            raise ValueError(f"references[{n}] must hold at least one translation; got none")
        candidate_length += len(candidate)
        reference_length += min((abs(len(r) - len(candidate)), len(r)) for r in right)[1]
        for k in range(1, order + 1):
            most: Counter[Any] = Counter()
            for reference in right:
                most |= _ngrams(reference, k)
            counts = _ngrams(candidate, k)
            matches[k - 1] += (counts & most).total()
            totals[k - 1] += counts.total()
    orders = [k for k in range(order) if totals[k]]
    if not orders or not all(matches[k] for k in orders):
        return 0.0
    brevity = min(0.0, 1 - reference_length / candidate_length)
    return math.exp(brevity + sum(math.log(matches[k] / totals[k]) for k in orders) / len(orders))


def edit_distance(wanted: Sequence[Any], predicted: Sequence[Any]) -> int:
    """Return the fewest insertions, deletions and substitutions that make one sequence the other (Levenshtein 1966).

    Parameters
    ----------
    wanted, predicted : sequences
        Of characters, words or numbers.

    Returns
    -------
    int

    Examples
    --------
    >>> edit_distance("pair", "pear"), edit_distance("the pair".split(), "pear".split())
    (2, 2)
    """
    wanted, predicted = checks.sequence("wanted", wanted), checks.sequence("predicted", predicted)
    row = list(range(len(predicted) + 1))
    try:
        for i, item in enumerate(wanted, 1):
            diagonal, row[0] = row[0], i
            for j, other in enumerate(predicted, 1):
                diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (item != other))
        return int(row[-1])
    except (TypeError, ValueError, ArithmeticError) as error:
        raise TypeError(f"wanted and predicted must hold items that can be compared: {error}") from error


def label_error_rate(wanted: Sequence[Sequence[Any]], predicted: Sequence[Sequence[Any]]) -> float:
    """Return the edits of all sequences over the labels that were wanted: of characters or words, the usual error rate.

    Parameters
    ----------
    wanted, predicted : lists of sequences

    Returns
    -------
    float
        0 is perfect; above 1 with many insertions.

    Raises
    ------
    ValueError
        The lists differ in length, or there is no label to find.

    Examples
    --------
    >>> label_error_rate(["pear", "salad"], ["pair", "salad"])
    0.2222222222222222
    """
    edits = labels = 0
    for n, (w, p) in enumerate(_pairs("wanted", wanted, "predicted", predicted)):
        w, p = checks.sequence(f"wanted[{n}]", w), checks.sequence(f"predicted[{n}]", p)
        edits, labels = edits + edit_distance(w, p), labels + len(w)
    if not labels:
        raise ValueError("wanted must hold at least one label; got none")
    return edits / labels


def _tokens(name: str, tokens: Sequence[Any]) -> tuple[Any, ...]:
    whole = tuple(checks.sequence(name, tokens))
    try:
        hash(whole)
    except TypeError as error:
        raise TypeError(f"{name} must hold tokens that can be compared: {error}") from error
    return whole


def _ngrams(whole: tuple[Any, ...], k: int) -> Counter[Any]:
    return Counter(whole[begin : begin + k] for begin in range(len(whole) - k + 1))


def _pairs(name: str, values: Sequence[Any], other_name: str, others: Sequence[Any]) -> Any:
    values, others = checks.sequence(name, values), checks.sequence(other_name, others)
    if len(values) != len(others):
        raise ValueError(f"{other_name} must be as many as {name}, {len(values)}; got {len(others)}")
    return zip(values, others, strict=True)
