"""Many to many of different lengths: an encoder reads a sequence, a decoder writes another."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from .. import checks
from .._types import Array, State
from ..distributed import TIMEOUT
from ..layers import Attention, Dense
from ..text import Vocabulary, pad
from .base import Random, RunOptions, as_generator, setting
from .data import Examples, Format, as_sample_weight, as_sequences, pad_inputs, steps_before, steps_weights, take
from .decoding import WIDEST_BEAM, Beam, beam_search, check_sampling, sample_sequences
from .documentation import document
from .estimator import Batch, Estimator, Sequences, Validation
from .network import Attentive, Head, as_states, from_states
from .training import Callbacks


@document
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class EncoderDecoder(Estimator):
    """Sequence to sequence of another length: translation, spelling, answers.

    The encoder's final states are the decoder's initial ones (of both directions through a linear layer); the decoder
    is trained on the right token before each (teacher forcing) and ends with ``<eos>``. Sutskever, Vinyals and Le
    2014, "Sequence to sequence learning with neural networks"; Cho et al. 2014.

    Parameters
    ----------
    NETWORK
    bidirectional : bool, default False
        The encoder reads in both directions.
    reverse_source : bool, default False
        The encoder reads from the last step to the first, so that the beginnings are near (Sutskever et al.).
    attention : {"additive", "multiplicative"} or None
        Each step of the decoder also sees a mean of the encoder's states, weighted by a score: of Bahdanau et al. 2015,
        or of Luong et al. 2015. The query is the decoder's state at that step.
    TRAINING
    RANDOM

    Attributes
    ----------
    source_vocabulary, target_vocabulary : Vocabulary or None
    FITTED

    Examples
    --------
    >>> model = EncoderDecoder(hidden_size=32, epochs=60, batch_size=4, learning_rate=0.01, random_state=0)
    >>> numbers = ["1", "12", "123", "21", "3", "32", "321", "2"] * 4
    >>> words = [" ".join({"1": "un", "2": "deux", "3": "trois"}[digit] for digit in text) for text in numbers]
    >>> model = model.fit(numbers, words)
    >>> model.predict(["32", "123"])
    ['trois deux', 'un deux trois']
    >>> model.beam_search("32", beam_width=3).hypotheses[0].sequence
    'trois deux'
    """

    bidirectional: bool = setting(False, checks.flag, network=True)
    reverse_source: bool = setting(False, checks.flag, network=True)
    attention: Literal["additive", "multiplicative"] | None = setting(
        None, checks.optional(checks.choice, choices=("additive", "multiplicative")), network=True
    )

    score_name = "right as a whole"

    # ---- data ---------------------------------------------------------------------------------------------------

    @property
    def source_vocabulary(self) -> Vocabulary | None:
        """The vocabulary of the sources; None for ids and features, and before ``fit``."""
        return None if self.layers is None else self._input_format.vocabulary

    @property
    def target_vocabulary(self) -> Vocabulary | None:
        """The vocabulary of the targets; None for ids, and before ``fit``."""
        return None if self.layers is None else self._target_format.vocabulary

    def _clean_targets(self, name: str, y: Any, X: Any) -> list[Any]:
        y = as_sequences(name, y)
        if len(y) != len(X):
            raise ValueError(f"{name} must have one sequence for each of {len(X)} in X; got {len(y)}")
        return y

    def _learn(self, X: Any, y: Any, rows: Any) -> None:
        self._input_format, self._target_format = self._learn_format("X", X, rows), self._learn_format("y", y, rows)
        if not self._target_format.holds_ids:
            raise TypeError("y must hold str, lists of str or ids; got features")
        self._make_layers()

    @property
    def _end_id(self) -> int:
        """The id before the first token of a target and after the last."""
        vocabulary = self._target_format.vocabulary
        return self._target_format.size if vocabulary is None else vocabulary.eos_id

    def _make_layers(self) -> None:
        rng, size = self._rng, self._embedding_width()
        target = self._target_format
        if target.kind == "ids":
            target = Format("ids", target.size + 1)
        self._encoder = self._make_trunk(self._input_format, rng, size=size, bidirectional=self.bidirectional)
        self._decoder = self._make_trunk(target, rng, size=size)
        output = Dense(self.hidden_size, target.size, dtype=self.dtype, seed=rng)
        self._head = Head(output, "softmax", self.dropout, rng)
        names = self._encoder.recurrent.state_names if self.bidirectional else ()
        bridge_names, H = [f"bridge_{name}" for name in names], self.hidden_size
        self._bridges = tuple(Dense(2 * H, H, dtype=self.dtype, seed=rng) for _ in names)
        self._attentive, others = None, {}
        if self.attention is not None:
            width = self._encoder.recurrent.output_size
            attention = Attention(H, width, self.attention, dtype=self.dtype, seed=rng)
            combine = Dense(width + H, H, dtype=self.dtype, seed=rng)
            self._attentive = Attentive(self._decoder, attention, combine)
            others = {"attention": attention, "combine": combine}
        self._take_layers(
            source_embedding=self._encoder.embedding,
            encoder=self._encoder.recurrent,
            **dict(zip(bridge_names, self._bridges, strict=True)),
            target_embedding=self._decoder.embedding,
            decoder=self._decoder.recurrent,
            **others,
            output=output,
        )

    def _encode(
        self, X: Any, y: Any, names: tuple[str, str], *, weights: Array | None = None, training: bool = False
    ) -> Examples:
        sources = self._sources(names[0], X)
        targets = [np.append(ids, self._end_id) for ids in self._target_format.encode(names[1], y)]
        # Like long in both; what one of them is longer is not computed.
        lengths = np.array([len(s) + len(t) for s, t in zip(sources, targets, strict=True)], np.int64)
        return Examples(sources, targets, lengths, weights)

    def _sources(self, name: str, X: Any) -> list[Array]:
        return list(map(self._reversed, self._input_format.encode(name, X)))

    def _reversed(self, source: Array) -> Array:
        return source[::-1] if self._built["reverse_source"] else source

    def _batch(self, examples: Examples, rows: Any) -> Batch:
        sources, source_lengths = pad_inputs(take(examples.inputs, rows), self._input_format, self._built["dtype"])
        targets, lengths = pad(take(examples.targets, rows), dtype=np.int64)
        inputs = steps_before(targets, self._end_id)
        weights, weight = steps_weights(examples, rows, lengths)
        arguments = sources, inputs, targets, source_lengths, lengths, weights
        return Batch(arguments, weight, int(lengths.sum() + source_lengths.sum()))

    # ---- the network --------------------------------------------------------------------------------------------

    def loss_and_gradients(
        self,
        sources: Array,
        inputs: Array,
        targets: Array,
        source_lengths: ArrayLike | None = None,
        lengths: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> float:
        """Return the mean loss of a batch; its gradients replace those in ``grads``.

        Parameters
        ----------
        sources : integer array (S, N), or array (S, N, D)
        inputs, targets : integer arrays (T, N)
            Of the decoder: each token, and the one after it.
        source_lengths, lengths : integer arrays (N,), optional
        weights : array (T, N), optional
            How much each token counts.

        Returns
        -------
        float
            Nats a token.
        """
        self._zero_grad()
        with checks.named(lengths="source_lengths", x="sources"):
            memory, state, encoder_cache = self._encoder.forward(sources, None, source_lengths)
        state, bridge_caches = self._cross_forward(state)
        if self._attentive is None:
            h, _, decoder_cache = self._decoder.forward(inputs, state, lengths)
        else:
            h, decoder_cache = self._attentive.forward(inputs, state, lengths, memory, source_lengths)
        loss, dh = self._head.forward(h, targets, lengths, weights)
        if self._attentive is None:
            dstate, dmemory = self._decoder.backward(dh, decoder_cache), None
        else:
            dstate, dmemory = self._attentive.backward(dh, decoder_cache)
        self._encoder.backward(dmemory, encoder_cache, self._cross_back(dstate, bridge_caches))
        return loss

    def _sides(self, state: Any) -> list[Array]:
        """Return the final states of both directions side by side: (layers * 2, N, H) -> (layers, N, 2H)."""
        return [
            array.reshape(-1, 2, *array.shape[1:]).swapaxes(1, 2).reshape(len(array) // 2, array.shape[1], -1)
            for array in as_states(state)
        ]

    def _cross(self, state: Any) -> State:
        """Turn the encoder's final state into the decoder's initial state."""
        if not self._bridges:
            return state
        return from_states([bridge(sides) for bridge, sides in zip(self._bridges, self._sides(state), strict=True)])

    def _cross_forward(self, state: Any) -> tuple[State, Any]:
        """The same, with the caches."""
        if not self._bridges:
            return state, ()
        crossed = [bridge.forward(sides) for bridge, sides in zip(self._bridges, self._sides(state), strict=True)]
        states, caches = zip(*crossed, strict=True)
        return from_states(states), caches

    def _cross_back(self, dstate: Any, caches: Any) -> State:
        if not self._bridges:
            return dstate
        dstates = []
        for array, bridge, cache in zip(as_states(dstate), self._bridges, caches, strict=True):
            dsides = bridge.backward(array, cache)
            layers, N, H = array.shape
            dstates.append(dsides.reshape(layers, N, 2, H).swapaxes(1, 2).reshape(layers * 2, N, H))
        return from_states(dstates)

    def _losses(self, batch: Batch) -> Array:
        sources, inputs, targets, source_lengths, lengths, weights = batch.arguments
        h = self._read(sources, inputs, source_lengths, lengths)[0]
        return self._head.losses(h, targets, lengths, weights)

    def _read(self, sources: Array, inputs: Array, source_lengths: Any, lengths: Any) -> tuple[Any, ...]:
        """Return the states of the decoder (T, N, H) and with attention its weights (T, N, S), else None."""
        memory, state = self._encoder(sources, None, source_lengths)
        state = self._cross(state)
        if self._attentive is None:
            return self._decoder(inputs, state, lengths)[0], None
        h, _, weights = self._attentive(inputs, state, lengths, memory, source_lengths)
        return h, weights

    # ---- use ----------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Sequences,
        y: Sequences,
        *,
        lengths: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        validation: Validation | None = None,
        callback: Callbacks | None = None,
        progress: bool = False,
        resume: bool = False,
        comm: Any = None,
        shards: int | None = None,
        timeout: float = TIMEOUT,
    ) -> Self:
        """Train on pairs of sequences.

        Parameters
        ----------
        SEQUENCES
        y : list of sequences
            What each becomes: str, lists of str, or ids.
        FIT

        Returns
        -------
        self

        RAISES
        """
        options = RunOptions(callback, progress, resume, comm, shards, timeout)
        return self._fit(X, y, lengths, sample_weight, validation, options)

    def log_prob(
        self, X: Sequences, y: Sequences, *, lengths: ArrayLike | None = None, n_jobs: int | None = None
    ) -> Array:
        """Return the log-probability (nats) of each sequence of y, its end included, given that of X.

        DATA
        JOBS

        Returns
        -------
        ndarray (N,)

        WRONG
        """
        return self._log_prob(X, y, lengths, n_jobs)

    def predict(
        self,
        X: Sequences,
        *,
        lengths: ArrayLike | None = None,
        beam_width: int = 1,
        length_penalty: float = 0.7,
        max_length: int | None = None,
        n_jobs: int | None = None,
    ) -> list[Any]:
        """Return the target of each source: the best that a beam search finds.

        Parameters
        ----------
        X, lengths
            As in :meth:`fit`. Characters and words that were not in the training data are ``<unk>``.
        beam_width : int
            Hypotheses that go on at each step; 1 takes the likeliest token each time (greedy).
        length_penalty : float
            A hypothesis of L tokens is worth ``log_prob / L ** length_penalty``.
        max_length : int, optional
            Tokens at most, the end counted; twice the length of the source and ten if not given.
        JOBS

        Returns
        -------
        list of N str, lists of str, or arrays of ids
            As the targets were.
        """
        sources = self._inputs(X, lengths)
        options = self._check_search(beam_width, length_penalty, max_length)
        lengths_of_sources = [len(source) for source in sources]
        return self._of_each("_translate", lengths_of_sources, lambda rows: (take(sources, rows),), n_jobs, *options)

    def _frozen(self) -> None:
        """Nothing: both layers are read as they are."""

    def _translate(self, _: Any, sources: list[Array], *options: Any) -> list[Any]:
        result: list[Any] = [None] * len(sources)
        for rows, search in self._searches(sources, *options):
            for n, row in enumerate(rows):
                result[row] = self._decode(search.ids(n, 0))
        return result

    def sample(
        self,
        X: Sequences,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: Random = None,
        *,
        lengths: ArrayLike | None = None,
        max_length: int | None = None,
    ) -> list[Any]:
        """Draw a target for each source: every drawn token is fed back. ``<unk>`` is never drawn.

        Parameters
        ----------
        X, lengths
            As in :meth:`fit`.
        temperature : float
            Divides the logits: below 1 is more careful, 0 always takes the likeliest token.
        top_k : int, optional
            Draw among the k likeliest tokens.
        top_p : float, optional
            Draw among the likeliest tokens that together reach this probability.
        seed : int, numpy.random.Generator, numpy.random.RandomState or None
        max_length : int, optional
            As in :meth:`predict`.

        Returns
        -------
        list of N str, lists of str, or arrays of ids
            As the targets were.

        Raises
        ------
        TypeError, ValueError
            An argument is wrong; the message names it.
        """
        sources = self._inputs(X, lengths)
        _, temperature, top_k, top_p = check_sampling(0, temperature, top_k, top_p)
        rng, result = as_generator(seed, "seed"), list[Any]([None] * len(sources))
        for rows, decoder, state, steps in self._encoded(sources, 64, 1, self._check_length(max_length)):
            options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, **self._limits()}
            first = np.full(len(rows), self._end_id)
            drawn = sample_sequences(decoder, self._head.dense, state, first, steps, rng, **options)
            for row, ids in zip(rows, drawn, strict=True):
                result[row] = self._decode(ids)
        return result

    def beam_search(
        self, source: Any, *, beam_width: int = 5, length_penalty: float = 0.7, max_length: int | None = None
    ) -> Beam:
        """Return the best hypotheses for one source, and the tree of the search.

        Parameters
        ----------
        source : sequence, one as in :meth:`fit`
        beam_width, length_penalty, max_length
            As in :meth:`predict`.

        Returns
        -------
        Beam
            ``hypotheses``: list of (sequence, log_prob, score), best first; ``steps``, drawn by
            :func:`rnncore.plots.beam`.
        """
        self._check_built()
        sources = [self._reversed(self._input_format.encode_one("source", source))]
        ((_, search),) = self._searches(sources, *self._check_search(beam_width, length_penalty, max_length))
        vocabulary = self._target_format.vocabulary
        name = str if vocabulary is None else vocabulary.tokens.__getitem__
        return search.beam(0, self._decode, name)

    def attention_weights(self, x: Any, y: Any) -> Array:
        """Return how much each step of a target looked at each step of its source.

        Parameters
        ----------
        x, y : sequences, one source and one target as in :meth:`fit`

        Returns
        -------
        ndarray (len(y) + 1, len(x))
            In tokens; the last row is that of the end. Each row sums to 1. Drawn by :func:`rnncore.plots.attention`.

        Raises
        ------
        ValueError
            The model has no attention.
        TypeError, ValueError
            A sequence is not as in training.
        """
        self._check_built()
        if self._attentive is None:
            raise ValueError("attention_weights needs a model with attention; this one has attention=None")
        source = self._reversed(self._input_format.encode_one("x", x))
        target = np.append(self._target_format.encode_one("y", y), self._end_id)
        batch, lengths = pad_inputs([source], self._input_format, self._built["dtype"])
        weights = self._read(batch, steps_before(target[:, None], self._end_id), lengths, None)[1][:, 0]
        return weights[:, ::-1].copy() if self._built["reverse_source"] else weights

    def _inputs(self, X: Any, lengths: Any) -> list[Array]:
        self._check_built()
        return self._sources("X", as_sequences("X", X, lengths))

    def _check_search(self, beam_width: int, length_penalty: float, max_length: Any) -> tuple[int, float, int | None]:
        width = checks.integer("beam_width", beam_width, least=1, most=WIDEST_BEAM)
        return width, checks.not_negative("length_penalty", length_penalty), self._check_length(max_length)

    def _searches(self, sources: Any, width: int, length_penalty: float, max_length: int | None) -> Iterator[Any]:
        """Yield rows of sources and the Search of them."""
        # The scores of all candidates of a step stay within some megabytes.
        count = max(1, min(64, 2**21 // (width * self._head.dense.output_size)))
        for rows, decoder, state, steps in self._encoded(sources, count, width, max_length):
            first = np.full(len(rows), self._end_id)
            options: dict[str, Any] = {"width": width, "length_penalty": length_penalty}
            yield rows, beam_search(decoder, self._head.dense, state, first, steps, **options, **self._limits())

    def _check_length(self, max_length: Any) -> int | None:
        return None if max_length is None else checks.integer("max_length", max_length, least=1)

    def _limits(self) -> dict[str, Any]:
        """Where a target ends, and what is never in it."""
        vocabulary = self._target_format.vocabulary
        return {"stop": self._end_id, "banned": [] if vocabulary is None else [vocabulary.unk_id]}

    def _encoded(self, sources: Any, count: int, copies: int, max_length: int | None) -> Iterator[Any]:
        """Yield rows of ``count`` sources of like length, a decoder for ``copies`` rows of each, its initial state, and
        the tokens of each target at most."""
        order = np.argsort([len(source) for source in sources], kind="stable")
        for begin in range(0, len(order), count):
            rows = order[begin : begin + count]
            batch, lengths = pad_inputs(take(sources, rows), self._input_format, self._built["dtype"])
            memory, state = self._encoder(batch, None, lengths)
            decoder = self._decoder if self._attentive is None else self._attentive.reading(memory, lengths, copies)
            steps = 2 * lengths + 10 if max_length is None else np.full(len(rows), max_length)
            yield rows, decoder, self._cross(state), steps

    def _decode(self, ids: Array) -> str:
        return self._target_format.decode(ids[:-1] if len(ids) and ids[-1] == self._end_id else ids)

    def score(
        self,
        X: Sequences,
        y: Sequences,
        *,
        lengths: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        n_jobs: int | None = None,
    ) -> float:
        """Return the share of the sequences that :meth:`predict` gets right as a whole.

        DATA
        WEIGHT
        JOBS

        Returns
        -------
        float

        WRONG
        """
        predicted = self.predict(X, lengths=lengths, n_jobs=n_jobs)
        wanted = self._clean_targets("y", y, predicted)
        if not wanted:
            raise ValueError("X must hold at least one sequence; got none")
        # Through the vocabulary, so that white space does not count.
        wanted = self._target_format.encode("y", wanted)
        found = self._target_format.encode("predicted", predicted)
        right = [np.array_equal(p, w) for p, w in zip(found, wanted, strict=True)]
        return float(np.average(right, weights=as_sample_weight(sample_weight, len(right))))

    # ---- files --------------------------------------------------------------------------------------------------

    def _data_state(self) -> dict[str, dict[str, Any]]:
        return {"inputs": self._input_format.state(), "targets": self._target_format.state()}

    def _restore_data(self, state: Any) -> None:
        self._rng = as_generator(self.random_state)
        self._input_format = Format.from_state(state["inputs"])
        self._target_format = Format.from_state(state["targets"])
        self._make_layers()
