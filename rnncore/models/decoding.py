"""From a model of the next token to sequences: sampling and beam search."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator

from .. import checks
from .._types import Array
from ..engine import native
from .network import log_softmax, repeat_rows, take_rows

PIECE = 4096  # draws a native call, so that an interrupt is heard
WIDEST_BEAM = 2**31 - 1


# ---- sampling ---------------------------------------------------------------------------------------------------


def check_sampling(n: int, temperature: float, top_k: int | None, top_p: float | None) -> tuple[Any, ...]:
    """Return the clean arguments; ValueError or TypeError names the wrong one."""
    n, temperature = checks.integer("n", n, least=0), checks.not_negative("temperature", temperature)
    if top_k is not None:
        top_k = checks.integer("top_k", top_k, least=1)
    if top_p is not None and not (isinstance(top_p, numbers.Real) and 0 < top_p <= 1):
        raise ValueError(f"top_p must be in (0, 1]; got {top_p!r}")
    return n, temperature, top_k, top_p


def sample_tokens(
    trunk: Any,
    dense: Any,
    state: Any,
    first: int,
    n: int,
    rng: Generator,
    *,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    banned: list[int],
    stop: int,
    piece: int = PIECE,
) -> Iterator[Array]:
    """Draw ids that are fed back: n, or up to and with ``stop`` (-1: none), after the id ``first``; yield pieces.

    state: of one sequence, as the recurrent layer gives it, or None for zeros. One uniform number is used for each id,
    whatever the size of the pieces.
    """
    recurrent = trunk.recurrent.freeze()
    recurrent.check_one_direction()
    states = np.zeros((len(recurrent.state_names), recurrent.num_layers, recurrent.hidden_size), recurrent.dtype)
    if state is not None:
        states[:] = np.reshape(state, states.shape)
    W, b = dense.weights()
    token = first
    while n > 0:
        ids = native.sample_ids(
            recurrent.native,
            trunk.embedding.table() if trunk.embedding else None,
            W,
            b,
            states[0],
            states[1] if len(states) > 1 else None,
            token,
            rng.random(min(n, piece)),
            temperature=temperature,
            top_k=0 if top_k is None else min(top_k, dense.output_size),
            top_p=1.0 if top_p is None else float(top_p),
            banned=banned,
            stop=stop,
        )
        yield ids
        token, n = int(ids[-1]), n - len(ids)
        if token == stop:
            return


def sample_sequences(
    trunk: Any,
    dense: Any,
    state: Any,
    first: Sequence[int] | Array,
    steps: Array,
    rng: Generator,
    *,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    stop: int,
    banned: list[int],
) -> list[Array]:
    """Draw a continuation of each of N sequences, ids up to and with ``stop``, or as many as steps (N,) says.

    One uniform number is used for each step of each sequence, ended or not: those of a sequence stand in a row.
    """
    trunk = trunk.freeze()
    tokens, ended = np.array(first), np.zeros(len(first), bool)
    uniforms, drawn = rng.random((len(first), steps.max(initial=0))), []
    for step in range(steps.max(initial=0)):
        h, state = trunk(tokens[None], state)
        logits = dense(h[0]).astype(np.float64)
        _check_outputs(logits, banned, "sampled from")
        logits[:, banned] = -np.inf
        order = np.argsort(-logits, axis=1, kind="stable")  # the likeliest first
        with np.errstate(over="ignore"):  # near temperature 0, what is not the likeliest has -inf
            p = np.exp(log_softmax(np.take_along_axis(logits, order, axis=1) / (temperature or 1.0)))
        kept = 1 if temperature == 0 else top_k or p.shape[1]
        p[:, kept:] = 0
        if top_p is not None:
            p[p.cumsum(axis=1) - p >= top_p] = 0
        sums = p.cumsum(axis=1)
        places = (sums <= uniforms[:, [step]] * sums[:, -1:]).sum(axis=1)
        tokens = np.where(ended, stop, np.take_along_axis(order, places[:, None], axis=1)[:, 0])
        drawn.append(tokens)
        ended |= (tokens == stop) | (step + 1 >= steps)
        if ended.all():
            break
    table, result = np.array(drawn).reshape(len(drawn), len(first)), []
    for n in range(len(first)):
        ids = table[: steps[n], n]
        ends = np.flatnonzero(ids == stop)
        result.append(ids[: ends[0] + 1] if len(ends) else ids)
    return result


# ---- beam search ------------------------------------------------------------------------------------------------


class Hypothesis(NamedTuple):
    """One sequence that a beam search found."""

    sequence: object  # text, tokens or ids
    log_prob: float  # nats, its end counted
    score: float  # log_prob / length ** length_penalty


class Beam(NamedTuple):
    """The result of a beam search; ``rnncore.plots.beam(beam.steps, best=beam.best)`` draws it."""

    hypotheses: list[Hypothesis]  # best first
    #: For each step the hypotheses that were in the beam and still grew: (place of the parent in the list of the step
    #: before, -1 at first; token; log_prob so far; whether a hypothesis above came from it).
    steps: list[list[tuple[int, str, float, bool]]]
    best: tuple[int, int]  # step and place where the best hypothesis ends


class Search(NamedTuple):
    """Beams of N sequences: what W hypotheses of each became at every step. Sorted by score, best first."""

    tokens: Array  # (T, N, W)
    parents: Array  # (T, N, W), places in the beam of the step before
    log_probs: Array  # (T, N, W), -inf is none
    grew: Array  # (T, N, W) bool: the hypothesis had not ended before
    scores: Array  # (N, W)

    def path(self, n: int, w: int) -> list[int]:
        """Places of a hypothesis in the beams of the steps while it grew."""
        path = []
        for t in reversed(range(len(self.tokens))):
            if self.grew[t, n, w]:
                path.append(w)
            w = self.parents[t, n, w]
        return path[::-1]

    def ids(self, n: int, w: int) -> Array:
        """Tokens of a hypothesis, with the one that ended it."""
        return np.array([self.tokens[t, n, k] for t, k in enumerate(self.path(n, w))], np.int64)

    def beam(self, n: int, decode: Callable[..., Any], name: Callable[[int], str]) -> Beam:
        """Return the Beam of sequence n; decode(ids) returns a result, name(id) a token."""
        T, _, W = self.tokens.shape
        hypotheses = [
            Hypothesis(decode(self.ids(n, w)), float(self.log_probs[-1, n, w]), float(self.scores[n, w]))
            for w in range(W)
            if self.scores[n, w] > -np.inf
        ]
        used = {place for w in range(len(hypotheses)) for place in enumerate(self.path(n, w))}
        steps: list[list[tuple[int, str, float, bool]]] = []
        places: dict[int, int] = {}  # place in the beam -> place in the list of the step
        for t in range(T):
            grew = [w for w in range(W) if self.grew[t, n, w] and self.log_probs[t, n, w] > -np.inf]
            if not grew:
                break
            rows = []
            for w in grew:
                parent, token = int(self.parents[t, n, w]), name(int(self.tokens[t, n, w]))
                rows.append((places.get(parent, -1), token, float(self.log_probs[t, n, w]), (t, w) in used))
            steps.append(rows)
            places = {w: place for place, w in enumerate(grew)}
            if t == len(self.path(n, 0)) - 1:
                best = t, places[self.path(n, 0)[-1]]
        return Beam(hypotheses, steps, best)


def beam_search(
    trunk: Any,
    dense: Any,
    state: Any,
    first: Sequence[int] | Array,
    steps: Array,
    *,
    width: int,
    length_penalty: float,
    stop: int,
    banned: list[int],
) -> Search:
    """Find the most probable continuations of N sequences, ``width`` for each, step by step.

    A hypothesis of L tokens is worth log p / L ** length_penalty (the course; Wu et al. 2016 in another form), and the
    ``width`` best of a step go on; ended ones (at ``stop``; -1: none) stay among them as they are.

    state: as the recurrent layer gives it, of N sequences; first (N,): ids that are fed first; steps (N,): tokens at
    most, at least 1. -> Search
    """
    N, V = len(first), dense.output_size
    # Row n * width + w is hypothesis w of sequence n.
    state = None if state is None else repeat_rows(state, width)
    tokens = np.repeat(np.asarray(first)[:, None], width, axis=1)
    log_probs = np.full((N, width), -np.inf)
    log_probs[:, 0] = 0  # all hypotheses are one at first
    scores, lengths, ended = log_probs.copy(), np.zeros((N, width), np.int64), np.zeros((N, width), bool)
    history = []
    rows = np.arange(N)[:, None]
    trunk = trunk.freeze()
    for step in range(steps.max()):
        ended |= (step >= steps)[:, None]
        if ended.all():
            break
        h, state = trunk(tokens.reshape(1, -1), state)
        logits = dense(h[0])
        _check_outputs(logits, banned, "searched")
        following = log_softmax(logits).reshape(N, width, V).astype(np.float64)
        following[..., banned] = -np.inf
        # One candidate of an ended hypothesis, which stays as it is; its token is not looked at.
        following[ended] = -np.inf
        following[ended, stop] = 0
        lengths = lengths + ~ended
        candidates = log_probs[..., None] + following
        with np.errstate(over="ignore", invalid="ignore"):
            worth = candidates / (lengths ** float(length_penalty))[..., None]
        worth[np.isneginf(candidates)] = -np.inf  # not NaN where a power of the length is infinite
        worth = worth.reshape(N, width * V)
        best = _largest(worth, width)
        parents, tokens = np.divmod(best, V)
        log_probs, scores = candidates.reshape(N, width * V)[rows, best], worth[rows, best]
        grew, lengths = ~ended[rows, parents], lengths[rows, parents]
        ended = ~grew | (tokens == stop)
        state = take_rows(state, (rows * width + parents).reshape(-1))
        history.append((tokens, parents, log_probs, grew))
    tokens, parents, totals, grew = (np.array(part) for part in zip(*history, strict=True))
    return Search(tokens, parents, totals, grew, scores)


def _check_outputs(logits: Array, banned: list[int], use: str) -> None:
    """Raise ValueError unless every row of logits has a largest one among the tokens that are not banned.

    -inf is a token that cannot be; NaN is larger than all.
    """
    allowed = logits.copy()
    allowed[:, banned] = -np.inf
    if not np.isfinite([logits.max(axis=1), allowed.max(axis=1)]).all():
        raise ValueError(f"the output of the model is not finite: it cannot be {use}")


def _largest(values: Any, count: int) -> Array:
    """Index of the largest values of each row, largest first, of equal ones the first."""
    count = min(count, values.shape[1])
    result = np.empty((len(values), count), np.int64)
    for n, row in enumerate(values):
        places = np.flatnonzero(row >= np.partition(row, -count)[-count])
        result[n] = places[np.argsort(-row[places], kind="stable")[:count]]
    return result
