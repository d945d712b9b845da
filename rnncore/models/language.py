"""Language models: the probability of the next character or word, trained by teacher forcing."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Self, cast

import numpy as np
from numpy.typing import ArrayLike

from .. import checks, functional
from .._types import Array
from ..distributed import ALONE, TIMEOUT, Ranks
from ..layers import Dense
from ..losses import fused_softmax_cross_entropy
from ..text import Vocabulary, pad
from .base import COUNT, Model, Random, RunOptions, as_generator, setting
from .data import Format
from .decoding import PIECE, WIDEST_BEAM, Beam, beam_search, check_sampling, sample_tokens
from .documentation import document
from .network import Head, repeat_rows
from .texts import (
    SentenceChunks,
    Streams,
    Texts,
    as_source,
    cut,
    data_checksum,
    is_one_text,
    lengths_of,
    sentence_batches,
)
from .training import Callbacks, check_idle

_TWO_NAMES = "random_state and seed are two names of one setting; got both"


@document
@dataclasses.dataclass(eq=False, repr=False)
class LanguageModel(Model):
    """A recurrent language model of characters or words.

    Each token is predicted from all before it; a text or sentence starts from ``<eos>`` and a zero state. Texts given
    to :meth:`fit` as one str are trained as parallel streams whose state is carried from chunk to chunk (truncated
    back-propagation through time); a list of str is trained one sentence a row, each ending in ``<eos>``.

    Parameters
    ----------
    NETWORK
    chunk_length : int
        Steps that gradients go back.
    TRAINING
    random_state : int, numpy.random.Generator, numpy.random.RandomState or None
        Draws the initial parameters, dropout and the order of the sentences. ``seed`` is another name for it.

    Attributes
    ----------
    FITTED

    Examples
    --------
    >>> model = LanguageModel(hidden_size=32, epochs=30, batch_size=4, learning_rate=0.01, random_state=0)
    >>> model = model.fit("the cat sat on the mat. " * 40)
    >>> model.sample(12, prompt="the cat ", temperature=0)
    'sat on the m'
    >>> bool(model.perplexity("the cat sat on the mat.") < 2)
    True
    """

    hidden_size: int = setting(256, COUNT, network=True)
    _: dataclasses.KW_ONLY
    epochs: int = setting(5, COUNT)
    chunk_length: int = setting(64, COUNT)
    seed: dataclasses.InitVar[Random] = None

    # Before ``fit``.
    vocabulary = cast("Vocabulary", None)

    score_name = "log-probability (nats)"
    _takes_arrays = False
    _needs_targets = False

    def __post_init__(self, seed: Random) -> None:
        if seed is not None:
            if self.random_state is not None:
                raise TypeError(_TWO_NAMES)
            self.random_state = seed

    def set_params(self, **params: Any) -> Self:
        if "seed" in params:
            if "random_state" in params:
                raise TypeError(_TWO_NAMES)
            params["random_state"] = params.pop("seed")
        return super().set_params(**params)

    # ---- the network --------------------------------------------------------------------------------------------

    def build(self, vocabulary: Vocabulary) -> Self:
        """Make the layers for a vocabulary, with fresh parameters; ``fit`` does this.

        Returns
        -------
        self

        Raises
        ------
        RuntimeError
            A callback of ``fit`` called it.
        """
        check_idle(self)
        self.check_settings()
        self._rng = as_generator(self.random_state)
        self._make_layers(vocabulary)
        return self

    def _make_layers(self, vocabulary: Vocabulary) -> None:
        checks.instance("vocabulary", vocabulary, Vocabulary, "a Vocabulary")
        format = Format("text", len(vocabulary), vocabulary)
        self._trunk = self._make_trunk(format, self._rng, size=self._embedding_width())
        output = Dense(self.hidden_size, len(vocabulary), dtype=self.dtype, seed=self._rng)
        self._head = Head(output, "softmax", self.dropout, self._rng)
        self._take_layers(embedding=self._trunk.embedding, recurrent=self._trunk.recurrent, output=output)
        self._carried_shape = (len(self._trunk.recurrent.state_names), self.num_layers, self.hidden_size)
        self.vocabulary, self.history, self._sentences = vocabulary, [], False

    def loss_and_gradients(
        self, inputs: ArrayLike, targets: ArrayLike, lengths: ArrayLike | None = None, state: Any = None
    ) -> tuple[float, Any]:
        """Return the mean loss of a chunk; its gradients replace those in ``grads``.

        Parameters
        ----------
        inputs, targets : integer arrays (T, N)
            Ids of the tokens before, and of the tokens to predict.
        lengths : integer array (N,), optional
        state : as the recurrent layer takes it, optional

        Returns
        -------
        loss : float
            Nats a token.
        state
            After the chunk.
        """
        self._zero_grad()
        h, state, cache = self._trunk.forward(inputs, state, lengths)
        loss, dh = self._head.forward(h, targets, lengths)
        self._trunk.backward(dh, cache)
        return loss, state

    # ---- training -----------------------------------------------------------------------------------------------

    def fit(
        self,
        texts: Texts,
        validation: Texts | None = None,
        *,
        callback: Callbacks | None = None,
        progress: bool = False,
        resume: bool = False,
        comm: Any = None,
        shards: int | None = None,
        timeout: float = TIMEOUT,
    ) -> Self:
        """Train on a text or on sentences.

        Parameters
        ----------
        texts : str, path, Corpus, list of paths, list of str, or iterator of str
            One continuous text: a str, or files of any size (names with wildcards, and ``.gz``), which are read in
            blocks and kept as ids in a file beside them: see :class:`rnncore.Corpus`. Or sentences: a list of str, or
            an iterator, whose text goes to a temporary file; some 30 bytes of each sentence stay in memory.
        validation : as texts, optional
            Held-out text, scored after every epoch.
        callback : function or list of functions, optional
            Called with a :class:`Progress` after every update; training ends when one returns True.
        progress : bool
            Show a bar (needs tqdm).
        RESUME

        Returns
        -------
        self

        RAISES
        """
        options = RunOptions(callback, progress, resume, comm, shards, timeout)
        return self._run(options, validation, lambda ranks: self._prepare(texts, validation, options, ranks))

    def _prepare(self, texts: Any, validation: Any, options: RunOptions, ranks: Ranks) -> tuple[Any, Any]:
        goes_on = self._check_training(validation, options.resume)
        source = as_source("texts", texts)
        if source.is_empty:
            raise ValueError("texts must hold at least one sentence or character; got none")
        if not goes_on:
            vocabulary = source.vocabulary(self.level, self._settings()["max_vocabulary"], ranks)
            self._rng = as_generator(self.random_state)
            self._share_random(options, ranks)
            self._make_layers(vocabulary)
        else:
            self._share_random(options, ranks)
        self._sentences = source.holds_sentences
        encoded = source.encode(self.vocabulary, ranks, self._sentences)
        if not self._sentences and len(encoded[0]) < self.batch_size:
            least = f"texts must hold at least batch_size = {self.batch_size} tokens"
            raise ValueError(f"{least}; got {len(encoded[0])}")
        self._take_position(options, ranks, self._begin_random(options.resume), data_checksum(encoded))
        held_out = None if validation is None else self._scored(validation, "validation", ranks)
        if ranks.size > 1:
            ranks.agree("held-out data", {"validation": None if held_out is None else data_checksum(held_out)})
        if held_out is not None and not lengths_of(held_out).sum():
            raise ValueError("validation must hold at least one token; got none")
        return lambda: self._chunks(encoded), None if held_out is None else lambda: self._nats(held_out, ranks)

    def _update(self, chunk: tuple[Any, ...]) -> tuple[float, int, int]:
        inputs, targets, lengths, first = chunk
        loss, self._carried = self.loss_and_gradients(inputs, targets, lengths, None if first else self._carried)
        tokens = targets.size if lengths is None else int(lengths.sum())
        return loss, tokens, tokens

    @property
    def _reads_shards_at_once(self) -> bool:
        # Sentences have lengths, what is dropped is drawn for each shard, and a subclass may have a loss of its own.
        methods = "_update", "loss_and_gradients"
        own = all(getattr(type(self), name) is getattr(LanguageModel, name) for name in methods)
        own = own and "_update" not in self.__dict__
        engine = self._trunk.recurrent.backend is functional
        return own and engine and not (self._sentences or self.dropout or self.recurrent_dropout)

    def _add_by_shards(self, part: tuple[Any, ...], flat: Array, rows: Array) -> None:
        inputs, targets, _, first = part
        shards, (T, N) = len(flat), targets.shape
        with ExitStack() as stack:
            end = 0
            for layer in self.layers.values():
                grads = {}
                for name, p in layer.params.items():
                    begin, end = end, end + p.size
                    by_shard = flat[:, begin:end].reshape(shards, *p.shape)
                    grads[name] = by_shard if shards > 1 else by_shard[0]
                stack.enter_context(layer.adding_by_shards(grads, shards))
            h, self._carried, cache = self._trunk.forward(inputs, None if first else self._carried)
            losses, dh = fused_softmax_cross_entropy(self._head.dense, h, targets, reduction="none")
            self._trunk.backward(dh, cache)
        for shard in range(shards):
            # A copy: the order of a sum depends on how the array lies.
            rows[shard] += losses[:, shard::shards].copy().sum(), T * N // shards, T * N // shards

    def _chunks(self, encoded: Any) -> Streams | SentenceChunks:
        chunk_length, first = self.chunk_length, self.vocabulary.eos_id
        if not self._sentences:
            return Streams(encoded[0], self.batch_size, chunk_length, first)
        return SentenceChunks(encoded, sentence_batches(encoded, self.batch_size, self._rng), chunk_length, first)

    # ---- use ----------------------------------------------------------------------------------------------------

    def log_prob(self, texts: Texts, *, n_jobs: int | None = None) -> Any:
        """Log-probability (nats) of a text or of sentences.

        Parameters
        ----------
        texts : one text or sentences, as in :meth:`fit`
            The end ``<eos>`` is counted for sentences, if the model was trained on sentences.
        JOBS

        Returns
        -------
        float for one text, ndarray (number of sentences,) for sentences
        """
        self._check_built()
        log_probs = self._log_probs(self._scored(texts), n_jobs=n_jobs)
        return float(log_probs[0]) if is_one_text(texts) else log_probs

    def score_many(self, texts: list[str], prompt: str = "", *, per_token: bool = False) -> Array:
        """Log-probability (nats) of each of many texts that follow the same prompt: for ranking them.

        Parameters
        ----------
        texts : list of str
        prompt : str
            Read once; it is not counted.
        per_token : bool
            Divide by the number of tokens, so that long texts compare with short ones.

        Returns
        -------
        ndarray (len(texts),)
            0 for a text without tokens.

        Raises
        ------
        TypeError
            ``texts`` is one str.

        Examples
        --------
        >>> model = LanguageModel(hidden_size=16, epochs=20, batch_size=4, learning_rate=0.02, random_state=0)
        >>> model = model.fit("the cat sat on the mat. " * 40)
        >>> int(model.score_many(["mat", "tam", "sat"], prompt="the cat ").argmax())
        2
        """
        self._check_built()
        if isinstance(texts, str):
            raise TypeError("texts must be a list of str; got one str")
        encoded = self._scored(texts)
        first, state = self._read(prompt)
        per_token, log_probs = checks.flag("per_token", per_token), self._log_probs(encoded, first, state)
        return log_probs / np.maximum(lengths_of(encoded), 1) if per_token else log_probs

    def perplexity(self, texts: Texts) -> float:
        """``exp(-log_prob / number of tokens)`` of all texts together.

        Parameters
        ----------
        texts : one text or sentences, as in :meth:`fit`

        Returns
        -------
        float

        Raises
        ------
        ValueError
            There is no token.
        """
        with np.errstate(over="ignore"):
            return float(np.exp(-self.score(texts)))

    def score(self, texts: Texts, y: None = None, *, n_jobs: int | None = None) -> float:
        """Mean log-probability (nats) of a token of all texts together: higher is better.

        Parameters
        ----------
        texts : one text or sentences, as in :meth:`fit`
        y : None
            A pipeline of scikit-learn passes it.
        JOBS

        Returns
        -------
        float

        Raises
        ------
        ValueError
            There is no token, or ``y`` is not None.
        """
        self._check_built()
        if y is not None:
            raise ValueError(f"y must be None: a text is its own target; got {type(y).__name__}")
        encoded = self._scored(texts)
        if not lengths_of(encoded).sum():
            raise ValueError("texts must hold at least one token; got none")
        return -self._nats(encoded, n_jobs=n_jobs)

    def _read_all(self, *data: Any) -> Any:
        return self.score(*data)

    def _nats(self, encoded: list[Array], ranks: Ranks = ALONE, n_jobs: int | None = 1) -> float:
        """Mean loss of a token."""
        return float(-self._log_probs(encoded, ranks=ranks, n_jobs=n_jobs).sum() / lengths_of(encoded).sum())

    def _scored(self, texts: Any, name: str = "texts", ranks: Ranks = ALONE) -> Any:
        """Return the arrays of ids to score."""
        return as_source(name, texts).encode(self.vocabulary, ranks, self._sentences)

    def _log_probs(
        self,
        encoded: list[Array],
        first: int | None = None,
        state: Any = None,
        ranks: Ranks = ALONE,
        n_jobs: int | None = 1,
    ) -> Array:
        """-> (len(encoded),); first: the id before each of them, state: of one sequence, that each starts from."""
        result = np.zeros(len(encoded))
        batches = sentence_batches(encoded, self.batch_size)[ranks.rank :: ranks.size]

        def make(rows: Array) -> tuple[Any, Any]:
            if len(rows) == 1:  # may be a file
                ids = encoded[int(rows[0])]
                return ids, np.array([len(ids)])
            return pad([encoded[row] for row in rows], dtype=np.int64)

        # A long text keeps a rank busy: it answers the others meanwhile.
        tick = [ranks.listen] if ranks.size > 1 else []
        found = self._map("_log_probs_of", batches, make, n_jobs, first, state, *tick)
        for rows, log_probs in zip(batches, found, strict=True):
            result[rows] = log_probs
            ranks.listen()
        ranks.sum(result)  # exact: all but one rank add zeros
        return result

    def _log_probs_of(
        self, trunk: Any, targets: Any, lengths: Array, first: int | None, state: Any, tick: Any = None
    ) -> Array:
        """targets (T, N) of ids, or the ids (T,) of one text; tick is called after each chunk"""
        result = np.zeros(len(lengths))
        carried = None if state is None else repeat_rows(state, len(lengths))
        before = self.vocabulary.eos_id if first is None else first
        chunk_length = COUNT("chunk_length", self.chunk_length)  # scoring may follow a set_params that fit has not seen
        for begin in range(0, int(lengths.max(initial=0)), chunk_length):
            inputs, wanted, left, _ = cut(targets, lengths, begin, chunk_length, before)
            shape = (-1, len(lengths))
            h, carried = trunk(inputs.reshape(shape), carried, left)
            for losses in self._head.losses(h, wanted.reshape(shape), left):
                result -= losses
            if tick is not None:
                tick()
        return result

    def _read(self, prompt: str, stacklevel: int = 3) -> tuple[Any, ...]:
        """Return the last id of <eos> and the prompt, and the state before it (None: zeros)."""
        with checks.named(text="prompt"):
            ids = self.vocabulary.encode(prompt)
        if (ids == self.vocabulary.unk_id).any():
            tokens = prompt if self.vocabulary.level == "char" else prompt.split()
            unknown = ", ".join(repr(token) for token in dict.fromkeys(tokens) if token not in self.vocabulary)
            warnings.warn(
                f"the model does not know these {self.vocabulary.level}s of the prompt: {unknown}",
                stacklevel=stacklevel,
            )
        context = np.concatenate([[self.vocabulary.eos_id], ids])
        state = self._trunk(context[:-1, None])[1] if len(context) > 1 else None
        return int(context[-1]), state

    def _banned(self, stop_at_eos: bool) -> list[int]:
        """Ids that are never drawn."""
        # Nothing stands for the end in a text of characters.
        never_ends = self._built["level"] == "char" and not stop_at_eos
        return [self.vocabulary.unk_id, self.vocabulary.eos_id] if never_ends else [self.vocabulary.unk_id]

    def _decode(self, ids: Array, stop_at_eos: bool) -> str:
        if stop_at_eos and len(ids) and ids[-1] == self.vocabulary.eos_id:
            ids = ids[:-1]
        return self.vocabulary.decode(ids)

    def sample(
        self,
        n: int,
        prompt: str = "",
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: Random = None,
        *,
        stop_at_eos: bool | None = None,
    ) -> str:
        """Draw text: every drawn token is fed back. ``<unk>`` is never drawn.

        Parameters
        ----------
        n : int
            Tokens at most.
        prompt : str
            Text that comes before; it is not part of the result.
        temperature : float
            Divides the logits: below 1 is more careful, 0 always takes the likeliest token.
        top_k : int, optional
            Draw among the k likeliest tokens.
        top_p : float, optional
            Draw among the likeliest tokens that together reach this probability.
        seed : int, numpy.random.Generator, numpy.random.RandomState or None
            One uniform number is used for each token.
        stop_at_eos : bool, optional
            End at ``<eos>``. Default: if the model was trained on sentences.

        Returns
        -------
        str

        Raises
        ------
        ValueError, TypeError
            An argument is out of its range.

        Notes
        -----
        The loop runs in native code. Top-p after Holtzman et al. 2020, "The curious case of neural text degeneration".
        """
        pieces = self._draw(n, prompt, temperature, top_k, top_p, seed, stop_at_eos, PIECE)
        return self._decode(np.concatenate([np.empty(0, np.int64), *pieces]), self._stops(stop_at_eos))

    def iter_sample(
        self,
        n: int,
        prompt: str = "",
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: Random = None,
        *,
        stop_at_eos: bool | None = None,
    ) -> Iterator[str]:
        """Draw text as :meth:`sample` does, and yield it token by token as it is drawn.

        Parameters and errors are those of :meth:`sample`. The pieces join to the text that it returns for the same
        seed; a word comes with the space before it.

        Yields
        ------
        str

        Examples
        --------
        >>> model = LanguageModel(hidden_size=16, epochs=2, batch_size=4, random_state=0)
        >>> model = model.fit("to be or not to be. " * 40)
        >>> "".join(model.iter_sample(9, seed=1)) == model.sample(9, seed=1)
        True
        """
        pieces = self._draw(n, prompt, temperature, top_k, top_p, seed, stop_at_eos, 1)
        return self._decode_each(pieces, self._stops(stop_at_eos))

    def _stops(self, stop_at_eos: bool | None) -> bool:
        return self._sentences if stop_at_eos is None else checks.flag("stop_at_eos", stop_at_eos)

    def _draw(
        self,
        n: int,
        prompt: str,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        seed: Random,
        stop_at_eos: bool | None,
        piece: int,
    ) -> Iterator[Array]:
        """Check the arguments of a public method, read the prompt, and return the drawn ids by pieces."""
        self._check_built()
        n, temperature, top_k, top_p = check_sampling(n, temperature, top_k, top_p)
        stops = self._stops(stop_at_eos)
        first, state = self._read(prompt, stacklevel=4)
        return sample_tokens(
            *(self._trunk, self._head.dense, state, first, n, as_generator(seed, "seed")),
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            banned=self._banned(stops),
            stop=self.vocabulary.eos_id if stops else -1,
            piece=piece,
        )

    def _decode_each(self, pieces: Iterator[Array], stop_at_eos: bool) -> Iterator[str]:
        before = np.empty(0, np.int64)
        for ids in pieces:
            # The space between two words belongs to both of them.
            text = self._decode(np.concatenate([before, ids]), stop_at_eos)
            yield text[len(self.vocabulary.decode(before)) :]
            before = ids

    def beam_search(
        self,
        n: int,
        prompt: str = "",
        *,
        beam_width: int = 5,
        length_penalty: float = 0.7,
        stop_at_eos: bool | None = None,
    ) -> Beam:
        """Search for the most probable texts; :meth:`sample` draws random ones.

        Parameters
        ----------
        n : int
            Tokens at most.
        prompt : str
            Text that comes before; it is not part of the results.
        beam_width : int
            Hypotheses that go on at each step; 1 takes the likeliest token each time.
        length_penalty : float
            A hypothesis of L tokens is worth ``log_prob / L ** length_penalty``: 0 prefers short ones, 1 compares by
            token.
        stop_at_eos : bool, optional
            A hypothesis ends at ``<eos>``. Default: if the model was trained on sentences.

        Returns
        -------
        Beam
            ``hypotheses``: list of (text, log_prob, score), best first; ``steps``: the tree they were found in.

        Raises
        ------
        ValueError, TypeError
            An argument is out of its range.

        Examples
        --------
        >>> model = LanguageModel(hidden_size=16, epochs=20, batch_size=4, learning_rate=0.02, random_state=0)
        >>> model = model.fit("the cat sat on the mat. " * 40)
        >>> model.beam_search(4, prompt="the cat ", beam_width=3).hypotheses[0].sequence
        'sat '
        """
        self._check_built()
        n, width = checks.integer("n", n, least=1), checks.integer("beam_width", beam_width, least=1, most=WIDEST_BEAM)
        stop_at_eos = self._stops(stop_at_eos)
        first, state = self._read(prompt)
        search = beam_search(
            *(self._trunk, self._head.dense, state, [first], np.array([n])),
            width=width,
            length_penalty=checks.not_negative("length_penalty", length_penalty),
            stop=self.vocabulary.eos_id if stop_at_eos else -1,
            banned=self._banned(stop_at_eos),
        )
        return search.beam(0, lambda ids: self._decode(ids, stop_at_eos), self.vocabulary.tokens.__getitem__)

    # ---- files --------------------------------------------------------------------------------------------------

    def _data_state(self) -> dict[str, Any]:
        return {"vocabulary": self.vocabulary.state(), "sentences": self._sentences}

    def _restore_data(self, state: Any) -> None:
        self._rng = as_generator(self.random_state)
        self._make_layers(Vocabulary.from_state(state["vocabulary"]))
        self._sentences = bool(state["sentences"])

    def __repr__(self) -> Any:
        size = "" if self.vocabulary is None else f", {len(self.vocabulary)} {self.level}s"
        precision = f", {self._precision}, {self.nbytes:,} bytes" if self._precision else ""
        return f"<LanguageModel {self.cell} {self.num_layers} x {self.hidden_size}{size}{precision}>"


# In the class body, the default of the argument would replace it.
LanguageModel.seed = property(  # type: ignore[attr-defined]
    lambda model: model.random_state, lambda model, value: setattr(model, "random_state", value)
)
