"""From the probabilities of frames to labels: the best path, prefix beam search, and which frame gave which label."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._types import Array
from .network import as_states, log_softmax, take_rows

BLANK = 0  # labels have the numbers from 1 on


class Span(NamedTuple):
    """A label and the frames that gave it."""

    label: object  # a character, or an item
    begin: int
    end: int  # the first frame after it


# ---- the best path ----------------------------------------------------------------------------------------------


def merge(symbols: Array) -> Array:
    """Return the labels of a path (T,): repetitions merge, then blanks go."""
    starts = np.ones(len(symbols), bool)
    starts[1:] = symbols[1:] != symbols[:-1]
    return symbols[starts & (symbols != BLANK)]


def align(log_p: Array, labels: Array) -> list[tuple[int, int]]:
    """Return begin and end of each label in the most probable path through log p (T, C+1) that gives the labels (L,).

    ValueError if they do not fit in the frames.
    """
    T, S = len(log_p), 2 * len(labels) + 1
    symbols = np.full(S, BLANK)
    symbols[1::2] = labels
    skips = np.zeros(S, bool)
    skips[3::2] = labels[1:] != labels[:-1]
    score, came = np.where(np.arange(S) == 0, 0.0, -np.inf), np.zeros((T, S), np.int8)
    for t in range(T):
        ways = np.full((3, S), -np.inf)
        ways[0], ways[1, 1:] = score, score[:-1]
        ways[2, 2:] = np.where(skips[2:], score[:-2], -np.inf)
        came[t] = ways.argmax(axis=0)
        score = ways.max(axis=0) + log_p[t, symbols]
    state = S - 1 if S == 1 or score[-1] >= score[-2] else S - 2
    if np.isnan(score[state]):
        raise ValueError("the output of the model is not finite: it has no alignment")
    if score[state] == -np.inf:
        raise ValueError(f"y must fit in the {T} frames of x; got {len(labels)} labels")
    path = np.empty(T, np.int64)
    for t in reversed(range(T)):
        path[t] = state
        state -= came[t, state]
    found = [np.flatnonzero(path == 2 * k + 1) for k in range(len(labels))]
    return [(int(frames[0]), int(frames[-1]) + 1) for frames in found]


# ---- prefix beam search -----------------------------------------------------------------------------------------


class Fusion:
    """What a language model adds to the score of a prefix: weight log p + bonus for each of its tokens.

    Its tokens are the labels; or, if the labels are the characters of a text and the model is one of words, what stands
    between spaces. Labels and words that it does not know are <unk>. Without a model the bonus counts for each label.

    The state of n prefixes is a tuple: that of the recurrent layers, log p of the next token (n, V), and of each prefix
    the word that is not complete.
    """

    def __init__(self, model: Any, labels: list[Any], weight: float, bonus: float, *, text: bool = False) -> None:
        self.model, self.weight, self.bonus = model, weight, bonus
        self.count = len(labels)
        if model is None:
            return
        self.trunk, self.dense, self.vocabulary = model._trunk.freeze(), model._head.dense, model.vocabulary
        if self.vocabulary.level == "char" and any(len(label) != 1 for label in labels):
            raise ValueError("language_model must be one of words, as the labels are; got one of characters")
        self.labels = labels
        self.spells = self.vocabulary.level == "word" and text
        self.space = labels.index(" ") if self.spells and " " in labels else -1
        self.ids = np.array([self._id(label) for label in labels], np.int64)

    def _id(self, token: str) -> int:
        return int(self.vocabulary.encode(token if self.vocabulary.level == "char" else [token])[0])

    def _read(self, ids: Array, state: Any) -> tuple[Any, Array]:
        h, state = self.trunk(ids[None], state)
        return state, log_softmax(self.dense(h[0]).astype(np.float64))

    def begin(self) -> Any:
        """Return the state of the empty prefix."""
        if self.model is None:
            return None
        return *self._read(np.array([self.vocabulary.eos_id]), None), [""]

    def following(self, state: Any, n: int) -> Array:
        """Return what each label adds (n, C)."""
        if self.model is None:
            return np.full((n, self.count), self.bonus)
        _, log_p, words = state
        if not self.spells:
            return self.weight * log_p[:, self.ids] + self.bonus
        added = np.zeros((n, self.count))
        if self.space >= 0:
            added[:, self.space] = [self._worth(log_p[i], word) for i, word in enumerate(words)]
        return added

    def _worth(self, log_p: Array, word: str) -> float:
        """What a complete word adds."""
        return float(self.weight * log_p[self._id(word)] + self.bonus) if word else 0.0

    def advance(self, state: Any, rows: Array, labels: Array) -> Any:
        """Return the state of new prefixes: those of some rows, with a label (0 ... C-1) more, or none (-1)."""
        if self.model is None:
            return None
        inner, log_p, words = state
        words = [words[row] for row in rows]
        ids = np.full(len(rows), -1)
        for i, label in enumerate(labels):
            if label >= 0 and not self.spells:
                ids[i] = self.ids[label]
            elif label >= 0 and label == self.space:
                ids[i], words[i] = self._id(words[i]) if words[i] else -1, ""
            elif label >= 0:
                words[i] += self.labels[label]
        inner, log_p = take_rows(inner, rows), log_p[rows]
        grown = np.flatnonzero(ids >= 0)
        if len(grown):
            read, log_p[grown] = self._read(ids[grown], take_rows(inner, grown))
            for array, new in zip(as_states(inner), as_states(read), strict=True):
                array[:, grown] = new
        return inner, log_p, words

    def ending(self, state: Any, n: int) -> Array:
        """Return what the end adds (n,): the last word, and the end of a sentence if the model knows ends."""
        if self.model is None:
            return np.zeros(n)
        inner, log_p, words = state
        added = np.array([self._worth(log_p[i], word) for i, word in enumerate(words)])
        if self.model._sentences:
            whole = np.flatnonzero([bool(word) for word in words])
            log_p = log_p.copy()
            if len(whole):
                ids = np.array([self._id(words[i]) for i in whole], np.int64)
                log_p[whole] = self._read(ids, take_rows(inner, whole))[1]
            added += self.weight * log_p[:, self.vocabulary.eos_id]
        return added


class Prefix(NamedTuple):
    """One labelling that a search found."""

    labels: Array  # (L,), numbers from 1 on
    log_prob: float  # of all its paths in the beam
    score: float  # with what the language model adds


def prefix_beam_search(log_p: Array, width: int, fusion: Fusion) -> list[Prefix]:
    """Find the most probable labellings of log p (T, C+1), the best first.

    The paths of one labelling are summed, and the ``width`` best prefixes go on after each frame (Graves and Jaitly
    2014; with a language model Hannun et al. 2014).
    """
    if not np.isfinite(log_p.max(axis=1)).all():  # -inf is a label that cannot be
        raise ValueError("the output of the model is not finite: it cannot be searched")
    # A prefix is a node: its parent, and its last label, 0 at the root.
    parents, last, children = [-1], [BLANK], dict[tuple[int, int], int]()
    beam = np.zeros(1, np.int64)
    in_blank, in_label, fused = np.zeros(1), np.full(1, -np.inf), np.zeros(1)
    state = fusion.begin()
    following = fusion.following(state, 1)
    for frame in log_p:
        ends = np.array([last[node] for node in beam])
        whole = np.logaddexp(in_blank, in_label)
        stay_blank, stay_label = whole + frame[BLANK], np.where(ends != BLANK, in_label + frame[ends], -np.inf)
        grow = whole[:, None] + frame[1:]
        again = np.flatnonzero(ends != BLANK)
        grow[again, ends[again] - 1] = in_blank[again] + frame[ends[again]]
        rows = {node: row for row, node in enumerate(beam.tolist())}
        for row, node in enumerate(beam.tolist()):
            parent = rows.get(parents[node], -1)
            if parent >= 0:  # it grows into one that is there
                stay_label[row] = np.logaddexp(stay_label[row], grow[parent, last[node] - 1])
                grow[parent, last[node] - 1] = -np.inf
        stay = np.logaddexp(stay_blank, stay_label) + fused
        scores = np.concatenate([stay, (grow + fused[:, None] + following).reshape(-1)])
        best = np.argsort(-scores, kind="stable")[:width]
        best = best[scores[best] > -np.inf]
        stays = best < len(beam)
        rows_of, labels = np.divmod(best - len(beam), fusion.count)
        rows_of, labels = np.where(stays, best, rows_of), np.where(stays, -1, labels)
        nodes = beam[rows_of]
        for i in np.flatnonzero(~stays):
            key = int(nodes[i]), int(labels[i]) + 1
            if key not in children:
                children[key] = len(parents)
                parents.append(key[0])
                last.append(key[1])
            nodes[i] = children[key]
        added = np.where(stays, 0.0, following[rows_of, labels])
        in_label = np.where(stays, stay_label[rows_of], grow[rows_of, labels])
        in_blank = np.where(stays, stay_blank[rows_of], -np.inf)
        beam, fused = nodes, fused[rows_of] + added
        state = fusion.advance(state, rows_of, labels)
        following = fusion.following(state, len(beam))
    log_probs = np.logaddexp(in_blank, in_label)
    scores = log_probs + fused + fusion.ending(state, len(beam))
    found = []
    for row in np.argsort(-scores, kind="stable"):
        labels_of, node = [], int(beam[row])
        while node > 0:
            labels_of.append(last[node])
            node = parents[node]
        found.append(Prefix(np.array(labels_of[::-1], np.int64), float(log_probs[row]), float(scores[row])))
    return found
