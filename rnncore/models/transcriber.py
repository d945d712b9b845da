"""Many to many of different lengths without an alignment: a long sequence in, a shorter one of labels out."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from .. import checks
from .._types import Array
from ..distributed import TIMEOUT
from ..layers import Dense
from ..metrics import edit_distance
from ..text import Vocabulary
from .base import RunOptions, as_generator, setting
from .data import Examples, Format, Labels, as_sample_weight, in_rows, label_array, pad_inputs, take, unwrap
from .decoding import WIDEST_BEAM, Hypothesis
from .documentation import document
from .estimator import Batch, Estimator, Sequences, Validation
from .language import LanguageModel
from .network import Head, log_softmax
from .training import Callbacks
from .transcription import BLANK, Fusion, Span, align, merge, prefix_beam_search

WIDTH_WITH_MODEL = 16


@document
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class SequenceTranscriber(Estimator):
    """A long sequence in, a shorter one of labels out, and nobody says which frame belongs to which label: speech,
    handwriting, keys of a piano.

    The network says for each frame how probable each label is, and the blank, that there is none; the probability of a
    labelling is the sum over all its alignments (connectionist temporal classification: Graves et al. 2006). In the
    course: speech recognition.

    Parameters
    ----------
    NETWORK
    bidirectional : bool, default True
        False can transcribe a stream frame by frame.
    TRAINING
    RANDOM

    Attributes
    ----------
    classes_ : ndarray (C,)
        The labels.
    FITTED

    Examples
    --------
    >>> model = SequenceTranscriber(hidden_size=16, epochs=60, batch_size=4, learning_rate=0.02, random_state=0)
    >>> slow = ["aaabbb", "bbaaaa", "aabbaa", "bbbbaabb"] * 4
    >>> model = model.fit(slow, ["ab", "ba", "aba", "bab"] * 4)
    >>> model.predict(["bbbaaabb", "aaabbb"])
    ['bab', 'ab']
    >>> model.score(slow, ["ab", "ba", "aba", "bab"] * 4)
    1.0
    """

    bidirectional: bool = setting(True, checks.flag, network=True)

    score_name = "1 - label error rate"

    # ---- data ---------------------------------------------------------------------------------------------------

    @property
    def classes_(self) -> Array:
        """The labels (C,), sorted."""
        self._check_built()
        return self._labels.classes

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary of text and tokens; None for ids and features, and before ``fit``."""
        return None if self.layers is None else self._input_format.vocabulary

    def _clean_targets(self, name: str, y: Any, X: Any) -> list[Any]:
        """Return for each sequence a str or an array of labels."""
        y = unwrap(name, y)
        if isinstance(y, str) or not hasattr(y, "__len__") or (isinstance(y, np.ndarray) and not y.ndim):
            raise TypeError(f"{name} must be a list of str, or of sequences of labels; got {type(y).__name__}")
        if len(y) != len(X):
            raise ValueError(f"{name} must have one sequence of labels for each of {len(X)} sequences; got {len(y)}")
        return [self._clean_labels(f"{name}[{n}]", labels) for n, labels in enumerate(y)]

    def _clean_labels(self, name: str, labels: Any) -> Any:
        if isinstance(labels, str):
            return str(labels)
        labels = checks.array_or_sequence(name, labels, "str or a sequence of labels")
        return label_array(name, labels) if len(labels) else np.zeros(0, np.int64)

    def _learn(self, X: Any, y: Any, rows: Any) -> None:
        filled = [labels for labels in y if len(labels)]
        if not filled:
            raise ValueError("y must hold at least one label; got none")
        self._input_format = self._learn_format("X", X, rows)
        self._spells = isinstance(filled[0], str)
        self._labels = Labels.learn(
            "y", np.concatenate([self._items(f"y[{n}]", row) for n, row in enumerate(y) if len(row)])
        )
        self._make_layers()

    def _items(self, name: str, labels: Any) -> Array:
        """Return the labels (L,) of a str or a sequence of items, whichever it was in training."""
        if len(labels) and isinstance(labels, str) != self._spells:
            wanted, got = ("str", "items") if self._spells else ("items", "str")
            raise TypeError(f"{name} must be {wanted} as those of training; got {got}")
        return np.array(list(labels)) if isinstance(labels, str) else labels

    def _make_layers(self) -> None:
        size = self._embedding_width()
        self._trunk = self._make_trunk(self._input_format, self._rng, size=size, bidirectional=self.bidirectional)
        output = Dense(self._trunk.recurrent.output_size, 1 + len(self._labels), dtype=self.dtype, seed=self._rng)
        self._head = Head(output, "ctc", self.dropout, self._rng)
        self._take_layers(embedding=self._trunk.embedding, recurrent=self._trunk.recurrent, output=output)

    def _encode(
        self, X: Any, y: Any, names: tuple[str, str], *, weights: Array | None = None, training: bool = False
    ) -> Examples:
        inputs = self._input_format.encode(names[0], X)
        lengths = np.array([len(sequence) for sequence in inputs], np.int64)
        targets = [self._numbers(f"{names[1]}[{n}]", labels, lengths[n]) for n, labels in enumerate(y)]
        return Examples(inputs, targets, lengths, weights)

    def _numbers(self, name: str, labels: Any, frames: int) -> Array:
        """Return the numbers of the labels, from 1 on; ValueError if they do not fit in the frames."""
        items = self._items(name, labels)
        numbers = 1 + self._labels.encode(name, items) if len(items) else np.zeros(0, np.int64)
        needed = len(numbers) + int((numbers[1:] == numbers[:-1]).sum())
        if needed > frames:
            raise ValueError(
                f"{name} must fit in the {frames} steps of its sequence; {len(items)} labels need {needed}"
            )
        return numbers

    def _batch(self, examples: Examples, rows: Any) -> Batch:
        inputs, lengths = pad_inputs(take(examples.inputs, rows), self._input_format, self._built["dtype"])
        weights = None if examples.weights is None else examples.weights[rows]
        weight = len(rows) if weights is None else float(weights.sum())
        return Batch((inputs, take(examples.targets, rows), lengths, weights), weight, int(lengths.sum()))

    # ---- the network --------------------------------------------------------------------------------------------

    def loss_and_gradients(
        self, inputs: Array, targets: list[Array], lengths: ArrayLike | None = None, weights: ArrayLike | None = None
    ) -> float:
        """Return the mean loss of a batch; its gradients replace those in ``grads``.

        Parameters
        ----------
        inputs : integer array (T, N), or array (T, N, D)
        targets : list of N integer arrays (L,)
            Numbers of the labels, from 1 on.
        lengths : integer array (N,), optional
        weights : array (N,), optional
            How much each sequence counts.

        Returns
        -------
        float
            Nats a sequence.
        """
        self._zero_grad()
        h, _, cache = self._trunk.forward(inputs, None, lengths)
        loss, dh = self._head.forward(h, targets, lengths, weights)
        self._trunk.backward(dh, cache)
        return loss

    def _losses(self, batch: Batch) -> Array:
        inputs, targets, lengths, weights = batch.arguments
        h, _ = self._trunk(inputs, None, lengths)
        return self._head.losses(h, targets, lengths, weights)

    # ---- use ----------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Sequences,
        y: Any,
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
        """Train on sequences and their labels.

        Parameters
        ----------
        SEQUENCES
        y : list of str, or of sequences of labels
            The labels of each sequence in their order: the characters of a str, or items (str or numbers). They may be
            none, and at most as many as steps: a label that equals the one before it needs a step more.
        FIT

        Returns
        -------
        self

        RAISES
        """
        options = RunOptions(callback, progress, resume, comm, shards, timeout)
        return self._fit(X, y, lengths, sample_weight, validation, options)

    def log_prob(self, X: Sequences, y: Any, *, lengths: ArrayLike | None = None, n_jobs: int | None = None) -> Array:
        """Return the log-probability (nats) of the labels of each sequence: of all their alignments together.

        DATA
        JOBS

        Returns
        -------
        ndarray (N,)

        WRONG
        """
        return self._log_prob(X, y, lengths, n_jobs)

    def predict_proba(
        self, X: Sequences, *, lengths: ArrayLike | None = None, n_jobs: int | None = None
    ) -> list[Array]:
        """Return the probability of the blank and of every label at every step.

        SEEN
        JOBS

        Returns
        -------
        list of N ndarrays (T, 1 + C)
            The blank first, then the labels in the order of ``classes_``.
        """
        found = self._read_batches("_log_probs_of_steps", self._inputs(X, lengths), n_jobs)
        return [np.exp(log_p) for log_p in found]

    def _log_probs_of_steps(self, trunk: Any, batch: Array, steps: Array) -> list[Array]:
        """Log-probabilities (T, 1 + C) of each sequence of a batch."""
        return in_rows(log_softmax(self._head.dense(trunk(batch, None, steps)[0])), steps)

    def _log_probs_of_one(self, encoded: Array) -> Array:
        """Log-probabilities (T, 1 + C) of a sequence."""
        batch = pad_inputs([encoded], self._input_format, self._built["dtype"])
        (log_p,) = self._log_probs_of_steps(self._trunk, *batch)
        return log_p

    def predict(
        self,
        X: Sequences,
        *,
        lengths: ArrayLike | None = None,
        beam_width: int | None = None,
        language_model: LanguageModel | None = None,
        lm_weight: float = 0.5,
        insertion_bonus: float = 0.0,
        n_jobs: int | None = None,
    ) -> list[Any]:
        """Return the labels of each sequence.

        Parameters
        ----------
        X, lengths
            As in :meth:`fit`. Characters and words that are not in the training data become ``<unk>``.
        beam_width : int, optional
            Prefixes that go on after each step of a prefix beam search, which sums over alignments. None takes the most
            probable label of each step (best path), or 16 prefixes with a language model or a bonus.
        language_model : LanguageModel, optional
            A fitted one, of the labels: characters or words. One of words also goes with labels that are characters;
            it then sees the words between spaces.
        lm_weight, insertion_bonus : float
            The score of labels is ``log_prob + lm_weight * (log_prob of the language model) + insertion_bonus *
            (number of its tokens)`` (shallow fusion). The bonus makes up for that a language model prefers short texts;
            without one it counts for each label.
        JOBS

        Returns
        -------
        list of N str, lists of str, or arrays
            As the labels of training were.

        Raises
        ------
        TypeError, ValueError
            An argument is wrong; the message names it.
        """
        inputs = self._inputs(X, lengths)
        fusion, width = self._fusion(language_model, lm_weight, insertion_bonus), self._width(beam_width)
        if beam_width is None and language_model is None and not fusion.bonus:
            return self._read_batches("_best_paths", inputs, n_jobs)
        return self._read_batches("_best_prefixes", inputs, n_jobs, width, fusion)

    def _best_paths(self, trunk: Any, batch: Array, steps: Array) -> list[Any]:
        return [self._decode(merge(log_p.argmax(axis=1))) for log_p in self._log_probs_of_steps(trunk, batch, steps)]

    def _best_prefixes(self, trunk: Any, batch: Array, steps: Array, width: int, fusion: Fusion) -> list[Any]:
        found = self._log_probs_of_steps(trunk, batch, steps)
        return [self._decode(prefix_beam_search(log_p, width, fusion)[0].labels) for log_p in found]

    def beam_search(
        self,
        x: Any,
        *,
        beam_width: int | None = None,
        language_model: LanguageModel | None = None,
        lm_weight: float = 0.5,
        insertion_bonus: float = 0.0,
    ) -> list[Hypothesis]:
        """Return the best labellings of one sequence, best first.

        Parameters
        ----------
        x : sequence, one as in :meth:`fit`
        beam_width, language_model, lm_weight, insertion_bonus
            As in :meth:`predict`; 16 prefixes if None.

        Returns
        -------
        list of Hypothesis
            (sequence, log_prob, score); ``log_prob`` (nats) without the language model.
        """
        self._check_built()
        log_p = self._log_probs_of_one(self._input_format.encode_one("x", x))
        fusion, width = self._fusion(language_model, lm_weight, insertion_bonus), self._width(beam_width)
        return [
            Hypothesis(self._decode(labels), log_prob, score)
            for labels, log_prob, score in prefix_beam_search(log_p, width, fusion)
        ]

    def _width(self, beam_width: int | None) -> int:
        return (
            WIDTH_WITH_MODEL
            if beam_width is None
            else checks.integer("beam_width", beam_width, least=1, most=WIDEST_BEAM)
        )

    def _fusion(self, model: Any, weight: float, bonus: float) -> Fusion:
        weight, bonus = checks.not_negative("lm_weight", weight), checks.finite("insertion_bonus", bonus)
        if model is not None:
            if not isinstance(model, LanguageModel):
                raise TypeError(f"language_model must be a LanguageModel or None; got {type(model).__name__}")
            model._check_built()
            if self.classes_.dtype.kind != "U":
                raise ValueError(
                    f"language_model needs labels that are str; those of training are {self.classes_.dtype}"
                )
        return Fusion(model, self.classes_.tolist(), weight, bonus, text=self._spells)

    def alignment(self, x: Any, y: Any = None) -> list[Span]:
        """Return which steps of one sequence gave which label.

        Parameters
        ----------
        x : sequence, one as in :meth:`fit`
        y : str or sequence of labels, optional
            The labels to align; those that :meth:`predict` returns if not given.

        Returns
        -------
        list of Span
            (label, begin, end): in the most probable alignment the steps begin ... end-1 have the label, and the others
            the blank.

        Raises
        ------
        TypeError, ValueError
            The labels are not those of training, or do not fit in the steps.

        Examples
        --------
        >>> model = SequenceTranscriber(hidden_size=16, epochs=60, batch_size=4, learning_rate=0.02, random_state=0)
        >>> model = model.fit(["aaabbb", "bbaaaa", "aabbaa"] * 6, ["ab", "ba", "aba"] * 6)
        >>> [span.label for span in model.alignment("aaabbb")]
        ['a', 'b']
        """
        self._check_built()
        encoded = self._input_format.encode_one("x", x)
        log_p = self._log_probs_of_one(encoded)
        if y is None:
            numbers = merge(log_p.argmax(axis=1))
        else:
            numbers = self._numbers("y", self._clean_labels("y", y), len(encoded))
        names = self.classes_.tolist()
        spans = align(log_p.astype(np.float64), numbers)
        return [Span(names[k - 1], begin, end) for k, (begin, end) in zip(numbers, spans, strict=True)]

    def stream(self) -> TranscriptionStream:
        """Return an object that transcribes one sequence step by step, as it comes.

        Returns
        -------
        TranscriptionStream

        Raises
        ------
        ValueError
            The model is bidirectional: it needs the whole sequence.
        """
        self._check_built()
        if self._built["bidirectional"]:
            raise ValueError("stream needs a model with bidirectional=False; got one that reads in both directions")
        return TranscriptionStream(self)

    def _decode(self, numbers: Array) -> Any:
        """Return the labels of numbers from 1 on, as those of training were."""
        labels = self.classes_[numbers - 1]
        if self._spells:
            return "".join(labels)
        return labels.tolist() if labels.dtype.kind == "U" else labels

    def score(
        self,
        X: Sequences,
        y: Any,
        *,
        lengths: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        n_jobs: int | None = None,
    ) -> float:
        """Return 1 - label error rate: the edits that the predictions need, over the labels that were wanted.

        DATA
        WEIGHT
        JOBS

        Returns
        -------
        float
            1 is perfect; below 0 with many insertions.

        WRONG
        """
        predicted = self.predict(X, lengths=lengths, n_jobs=n_jobs)
        wanted = self._clean_targets("y", y, predicted)
        if not wanted:
            raise ValueError("X must hold at least one sequence; got none")
        weights = as_sample_weight(sample_weight, len(wanted))
        weights = np.ones(len(wanted)) if weights is None else weights
        items = [self._items(f"y[{n}]", labels).tolist() for n, labels in enumerate(wanted)]
        labels = weights @ [len(row) for row in items]
        if not labels:
            raise ValueError("y must hold at least one label; got none")
        edits = [edit_distance(w, list(p)) for w, p in zip(items, predicted, strict=True)]
        return float(1 - weights @ edits / labels)

    # ---- files --------------------------------------------------------------------------------------------------

    def _data_state(self) -> dict[str, Any]:
        return {"inputs": self._input_format.state(), "labels": self._labels.state(), "spells": self._spells}

    def _restore_data(self, state: Any) -> None:
        self._rng = as_generator(self.random_state)
        self._input_format, self._labels = Format.from_state(state["inputs"]), Labels.from_state(state["labels"])
        self._spells = bool(state["spells"])
        self._make_layers()


class TranscriptionStream:
    """One sequence transcribed step by step, by the best path; made by ``model.stream()``. The weights are a copy.

    Examples
    --------
    >>> model = SequenceTranscriber(
    ...     hidden_size=16, bidirectional=False, epochs=60, batch_size=4, learning_rate=0.02, random_state=0
    ... )
    >>> model = model.fit(["aaabbb", "bbaaaa", "aabbaa"] * 6, ["ab", "ba", "aba"] * 6)
    >>> stream = model.stream()
    >>> "".join(stream.step(frame) for frame in "bbbaaa")
    'ba'
    """

    def __init__(self, model: SequenceTranscriber) -> None:
        self._format, self._decode = model._input_format, model._decode
        self._embedding, self._stream = model._trunk.embedding, model._trunk.recurrent.stream()
        self._dense = copy.deepcopy(model._head.dense)
        self._last = BLANK

    def step(self, x: Any) -> Any:
        """Read one step.

        Parameters
        ----------
        x : a character or word, an id, or features (D,)

        Returns
        -------
        str, list of str or array
            The label that begins with this step, or nothing: as :meth:`SequenceTranscriber.predict` returns labels.

        Raises
        ------
        TypeError, ValueError
            It is no step of sequences as those of training.
        """
        encoded = self._format.encode_one("x", x if self._format.kind == "text" else [x])
        if len(encoded) != 1:
            raise ValueError(f"x must be one step; got {len(encoded)}")
        if self._embedding is not None:
            encoded = self._embedding(encoded[None])[0]
        symbol = int(self._dense(self._stream.step(encoded)).argmax())
        begins = symbol not in (BLANK, self._last)
        self._last = symbol
        return self._decode(np.array([symbol] if begins else [], np.int64))

    def reset(self) -> None:
        """Begin another sequence."""
        self._stream.reset()
        self._last = BLANK
