"""The parts that models are put together from: a trunk of recurrent layers, a head that gives probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.random import Generator

from .. import functional
from .._types import Array, State
from ..engine.arrays import add, as_array, as_lengths, check_gradient, check_shape
from ..layers import Attention, Dense, Layer, dropout_mask
from ..losses import fused_softmax_cross_entropy, sigmoid, sigmoid_cross_entropy
from ..sequence_losses import crf_loss, crf_marginals, ctc_loss, sequence_weights, viterbi


class Trunk:
    """Embedding (where inputs are ids and it is wanted) and recurrent layers, with dropout between the two.

    Called as the recurrent layers are: ``trunk(inputs)`` for inference, ``forward`` and ``backward`` for training.
    """

    def __init__(self, embedding: Any, recurrent: Any, dropout: float, rng: Generator) -> None:
        self.embedding, self.recurrent, self.dropout, self._rng = embedding, recurrent, dropout, rng

    def __call__(self, inputs: Array, state: Any = None, lengths: Any = None) -> tuple[Any, ...]:
        return self.recurrent(self.embedding(inputs) if self.embedding else inputs, state, lengths)

    def freeze(self) -> Trunk:
        """Return a copy of its weights for many calls of inference."""
        reference = getattr(self.recurrent, "backend", functional) is not functional
        recurrent = self.recurrent if reference else self.recurrent.freeze()
        return Trunk(self.embedding, recurrent, self.dropout, self._rng)

    def forward(self, inputs: Any, state: Any = None, lengths: Any = None) -> tuple[Any, ...]:
        """Return h (T, N, H * directions), the final state and a cache."""
        ids = mask = None
        if self.embedding:
            inputs, ids = self.embedding.forward(inputs)
            inputs, mask = drop(inputs, self.dropout, self._rng)
        h, state, cache = self.recurrent.forward(inputs, state, lengths)
        return h, state, (ids, mask, cache)

    def backward(
        self, dh: Array | None, cache: tuple[Array, None, Any], dstate: Any = None
    ) -> Array | tuple[Array, Array]:
        """Add the gradients of the parameters to ``grads``; return that of the initial state."""
        ids, mask, cache = cache
        dx, dstate = self.recurrent.backward(dh, cache, dstate)
        if self.embedding:
            self.embedding.backward(undrop(dx, mask), ids)
        return dstate


class Attentive:
    """A trunk whose states look back at a memory: tanh([context; h] W + b), with the context of attention.

    The states are those of Luong et al. 2015 without input feeding: the recurrent layers do not see the contexts, so
    that all steps of all sequences attend at once.
    """

    def __init__(self, trunk: Trunk, attention: Attention, combine: Dense) -> None:
        self.trunk, self.attention, self.combine = trunk, attention, combine

    def __call__(
        self, inputs: Array, state: Any, lengths: Any, memory: Array, memory_lengths: Any, keys: Any = None
    ) -> tuple[Any, ...]:
        """Return h (T, N, H), the final state, and the weights (T, N, S)."""
        h, state = self.trunk(inputs, state, lengths)
        context, weights = self.attention(h, memory, lengths, memory_lengths, keys=keys)
        return np.tanh(self.combine(np.concatenate([context, h], axis=2))), state, weights

    def forward(self, inputs: Array, state: Any, lengths: Any, memory: Array, memory_lengths: Any) -> tuple[Array, Any]:
        """Return h (T, N, H) and a cache."""
        h, _, trunk_cache = self.trunk.forward(inputs, state, lengths)
        context, _, attention_cache = self.attention.forward(h, memory, lengths, memory_lengths)
        y, combine_cache = self.combine.forward(np.concatenate([context, h], axis=2))
        np.tanh(y, out=y)
        return y, (trunk_cache, attention_cache, combine_cache, y)

    def backward(self, dh: Array, cache: Any) -> tuple[Any, Array]:
        """Return the gradients of the initial state and of the memory; add those of the parameters to ``grads``."""
        trunk_cache, attention_cache, combine_cache, y = cache
        dparts = self.combine.backward(dh * (1 - y * y), combine_cache)
        E = self.attention.memory_size
        dqueries, dmemory = self.attention.backward(dparts[..., :E], attention_cache)
        return self.trunk.backward(dparts[..., E:] + dqueries, trunk_cache), dmemory

    def reading(self, memory: Array, memory_lengths: Array, copies: int) -> Reading:
        """Return a trunk that reads this memory (S, N, E), of which each row serves ``copies`` rows in a row."""
        memory, lengths = np.repeat(memory, copies, axis=1), np.repeat(memory_lengths, copies)
        return Reading(self, memory, lengths)


class Reading:
    """An attentive trunk bound to its memory, called as a plain one: for decoding step by step."""

    def __init__(self, attentive: Attentive, memory: Array, lengths: Array) -> None:
        self.attentive, self.memory, self.lengths = attentive, memory, lengths
        self.keys = attentive.attention.keys(memory)

    def __call__(self, inputs: Array, state: Any = None) -> tuple[Array, Any]:
        h, state, _ = self.attentive(inputs, state, None, self.memory, self.lengths, self.keys)
        return h, state

    def freeze(self) -> Reading:
        """Return one with a copy of the weights of the recurrent layers."""
        attentive = self.attentive
        frozen = Attentive(attentive.trunk.freeze(), attentive.attention, attentive.combine)
        return Reading(frozen, self.memory, self.lengths)


class Head:
    """Output layer, and what its values mean: classes that exclude each other (softmax), labels (sigmoid), or labels of
    some frames in their order, with 0 for none (ctc)."""

    def __init__(self, dense: Any, kind: str, dropout: float, rng: Generator) -> None:
        self.dense, self.kind, self.dropout, self._rng = dense, kind, dropout, rng

    def forward(self, h: Array, targets: Any, lengths: Any = None, weights: Any = None) -> tuple[float, Array]:
        """Mean loss of h (T, N, H), or (N, H) without lengths, and its gradient; adds to the gradients of the layer.

        targets (T, N) of class numbers, (T, N, K) of labels in [0, 1] for sigmoid, or N arrays (L,) of numbers for ctc.
        Weights are those of the losses: (T, N), or (N,) for ctc.
        """
        h, mask = drop(h, self.dropout, self._rng)
        if self.kind == "softmax":
            loss, dh = fused_softmax_cross_entropy(self.dense, h, targets, lengths, weights=weights)
        else:
            logits, cache = self.dense.forward(h)
            loss_of = ctc_loss if self.kind == "ctc" else sigmoid_cross_entropy
            loss, dlogits = loss_of(logits, targets, lengths, weights=weights)
            dh = self.dense.backward(dlogits, cache)
        return loss, undrop(dh, mask)

    def losses(self, h: Array, targets: Any, lengths: Any = None, weights: Any = None) -> Array:
        """Loss of every step, or of every sequence for ctc, times its weight, float64 (T, N) or (N,)."""
        options: dict[str, Any] = {"weights": weights, "reduction": "none"}
        if self.kind == "softmax":
            return fused_softmax_cross_entropy(self.dense, h, targets, lengths, **options, training=False)[0]
        if self.kind == "ctc":
            return ctc_loss(self.dense(h), targets, lengths, **options, training=False)[0]
        return sigmoid_cross_entropy(self.dense(h), targets, lengths, **options)[0]

    def probabilities(self, h: Array) -> Array:
        """h (..., H) -> (..., K)"""
        logits = self.dense(h)
        return sigmoid(logits) if self.kind == "sigmoid" else np.exp(log_softmax(logits))


class Transitions(Layer):
    """The scores of going from one tag to another, A (K, K), of a conditional random field; they begin as zeros.

    forbidden (K, K) and first (K,) are flags of the transitions and of the first tags that cannot be, or None.
    """

    def __init__(self, size: int, dtype: Any, forbidden: Array | None = None, first: Array | None = None) -> None:
        super().__init__(dtype)
        self._add({"A": (size, size)}, lambda: {"A": np.zeros((size, size))})
        self.forbidden, self.first = forbidden, first

    def scores(self) -> Array:
        """A, with -inf for what is forbidden."""
        A = self.params["A"]
        return A if self.forbidden is None else np.where(self.forbidden, A.dtype.type(-np.inf), A)

    def with_weights(self, weights: dict[str, Any]) -> Transitions:
        transitions = Transitions(len(self.params["A"]), self.dtype, self.forbidden, self.first)
        transitions.params = dict(weights)
        return transitions

    def restrict(self, emissions: Array) -> Array:
        """Forbid first tags in emissions (T, N, K), in place."""
        if self.first is not None:
            emissions[:1, :, self.first] = -np.inf
        return emissions


class CRFHead:
    """Output layer whose values are the emissions of a conditional random field, with its transitions.

    Its losses are those of sequences; the mean is over their steps, as that of other heads.
    """

    kind = "crf"

    def __init__(self, dense: Any, transitions: Transitions, dropout: float, rng: Generator) -> None:
        self.dense, self.transitions, self.dropout, self._rng = dense, transitions, dropout, rng

    def forward(
        self, h: Array, targets: Any, lengths: Any = None, weights: Any = None, margins: Any = None
    ) -> tuple[float, Array]:
        """Mean loss of a step of h (T, N, H), and its gradient; adds to the gradients of the layers.

        weights: (N,); margins (T, N): what is taken from the emission of each step's right tag.
        """
        h, mask = drop(h, self.dropout, self._rng)
        emissions, cache = self.dense.forward(h)
        targets = as_array("targets", targets)
        if margins is not None:
            margins = as_array("margins", margins)
            check_shape("margins", margins, "(T, N)", emissions.shape[:2])
            check_shape("targets", targets, "(T, N)", emissions.shape[:2])
            right = np.expand_dims(targets, 2)
            lowered = np.take_along_axis(emissions, right, axis=2) - margins[:, :, None].astype(emissions.dtype)
            np.put_along_axis(emissions, right, lowered, axis=2)
        T, N = emissions.shape[:2]
        steps = np.full(N, T) if lengths is None else as_lengths(lengths, T, N)
        if weights is not None:
            weights, _ = sequence_weights(N, weights, "sum")
        weights = np.where(steps > 0, 1.0 if weights is None else weights, 0.0)
        weights /= weights.max(initial=0) or 1
        scale = 1 / max(float(weights @ steps), 1)
        emissions, A = self.transitions.restrict(emissions), self.transitions.scores()
        loss, demissions, dA = crf_loss(emissions, A, targets, lengths, weights=weights * scale, reduction="sum")
        assert dA is not None  # a call with training=True returns it
        check_gradient("dA", self.transitions.grads["A"], "(K, K)", dA.shape)
        add(self.transitions.grads["A"], dA)
        return loss, undrop(self.dense.backward(demissions, cache), mask)

    def losses(self, h: Array, targets: Any, lengths: Any = None, weights: Any = None) -> Array:
        """Loss of every sequence times its weight, float64 (N,)."""
        options: dict[str, Any] = {"weights": weights, "reduction": "none", "training": False}
        return crf_loss(self.emissions(h), self.transitions.scores(), targets, lengths, **options)[0]

    def emissions(self, h: Array) -> Array:
        return self.transitions.restrict(self.dense(h))

    def probabilities(self, h: Array, lengths: Any) -> Array:
        """h (T, N, H) -> (T, N, K): of the tag of a step, over all tag sequences"""
        return crf_marginals(self.emissions(h), self.transitions.scores(), lengths)

    def best(self, h: Array, lengths: Any) -> Array:
        """h (T, N, H) -> (T, N): the tags of the highest score"""
        return viterbi(self.emissions(h), self.transitions.scores(), lengths)


def log_softmax(logits: Array) -> Array:
    """Over the last axis."""
    with np.errstate(invalid="ignore", over="ignore"):  # of logits that are not finite
        shifted = logits - logits.max(axis=-1, keepdims=True)
        return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def sum_of_steps(array: Array) -> Array:
    """Sum an array (T, ...) over its steps, one after the other. ``sum`` takes another order where a row is alone."""
    total = np.zeros(array.shape[1:], array.dtype)
    for step in array:
        total += step
    return total


def drop(x: Array, share: float, rng: Generator) -> tuple[Array, Array | None]:
    """Return x with a share of its values set to zero, and the mask; None for the mask if nothing is dropped."""
    if not share:
        return x, None
    mask = dropout_mask(rng, x.shape, share, x.dtype)
    return x * mask, mask


def undrop(dx: Any, mask: Array | None) -> Array:
    """Apply the gradient of :func:`drop`."""
    return dx if mask is None else dx * mask


def as_states(state: State) -> tuple[Array, ...]:
    """Return the state of a recurrent layer as a tuple of arrays (num_layers * directions, N, H): h, or h and c."""
    return state if isinstance(state, tuple) else (state,)


def from_states(states: Sequence[Array]) -> State:
    """Return the state of a recurrent layer from its arrays; the inverse of :func:`as_states`."""
    return tuple(states) if len(states) > 1 else states[0]


def repeat_rows(state: State, count: int) -> State:
    """Return the state of a batch with each row repeated ``count`` times."""
    return from_states([np.repeat(array, count, axis=1) for array in as_states(state)])


def take_rows(state: State, rows: Array) -> State:
    """Return the state of some rows of a batch."""
    return from_states([array[:, rows] for array in as_states(state)])
