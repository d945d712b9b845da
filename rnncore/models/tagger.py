"""Many to many of equal length: a label for every step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence, Sized
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from .. import checks
from .._types import Array
from ..distributed import TIMEOUT
from ..layers import Dense
from ..text import pad
from .base import RunOptions, setting
from .data import Examples, Labels, as_sample_weight, class_weights, in_rows, label_array, pad_inputs, take, unwrap
from .documentation import document
from .estimator import Batch, Labeller, Sequences, Validation
from .network import CRFHead, Transitions
from .training import Callbacks


def may_follow(before: str, label: str) -> bool:
    """Tell whether a label of the scheme IOB may stand after another one, or after "O" at the beginning."""
    return not label.startswith("I-") or (before[:2] in ("B-", "I-") and before[2:] == label[2:])


@document
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class SequenceTagger(Labeller):
    """One label for every step: names in a text, parts of a gene, actions in a recording.

    Parameters
    ----------
    NETWORK
    bidirectional : bool, default True
    output : {"softmax", "sigmoid", "crf"}
        One of several classes a step; or one label a step that holds or does not (the binary label of the course),
        and, where the targets are arrays (T, K) of 0 and 1, K labels that do not exclude each other. "crf": one of
        several classes a step, each scored with the one before it, in a conditional random field (Lample et al. 2016);
        ``predict`` then returns the best sequence of labels (Viterbi).
    scheme : {"iob"} or None
        For "crf": labels are ``O``, ``B-type`` and ``I-type``, and an ``I`` that follows neither ``B`` nor ``I`` of its
        type cannot be.
    class_weight : dict, "balanced" or None
        Weight of the steps of each class in the loss; "balanced" is n / (C * count). Not for K labels. For "crf", where
        a loss is that of a sequence, training lowers the scores of a class where it is right by the logarithm of its
        weight (softmax-margin: Gimpel and Smith 2010): a class of a large weight must lead by more.
    TRAINING
    RANDOM

    Attributes
    ----------
    classes_ : ndarray (C,)
        For K labels their numbers.
    FITTED

    Examples
    --------
    >>> model = SequenceTagger("word", hidden_size=16, epochs=20, learning_rate=0.02, random_state=0)
    >>> texts = [["Anna", "met", "Ben"], ["we", "met", "Anna"], ["Ben", "sleeps"]] * 8
    >>> tags = [["P", "O", "P"], ["O", "O", "P"], ["P", "O"]] * 8
    >>> model = model.fit(texts, tags)
    >>> [labels.tolist() for labels in model.predict([["we", "met", "Ben"]])]
    [['O', 'O', 'P']]
    """

    output: Literal["softmax", "sigmoid", "crf"] = setting(
        "softmax", checks.one_of(("softmax", "sigmoid", "crf")), network=True
    )
    scheme: Literal["iob"] | None = setting(None, checks.optional(checks.choice, choices=("iob",)), network=True)

    score_name = "accuracy"

    # ---- data ---------------------------------------------------------------------------------------------------

    def _clean_targets(self, name: str, y: Any, X: Any) -> list[Array]:
        y = unwrap(name, y)
        if isinstance(y, str) or not hasattr(y, "__len__") or (isinstance(y, np.ndarray) and not y.ndim):
            raise TypeError(f"{name} must be a list of label sequences; got {type(y).__name__}")
        if len(y) != len(X):
            raise ValueError(f"{name} must have one sequence of labels for each of {len(X)} sequences; got {len(y)}")
        padded = isinstance(y, np.ndarray) and y.ndim > 1
        return [
            self._clean_labels(f"{name}[{n}]", labels, self._steps(x), padded)
            for n, (labels, x) in enumerate(zip(y, X, strict=True))
        ]

    def _steps(self, sequence: Array | list[str] | str) -> int:
        """Length of a sequence that is not encoded yet; None of what is no sequence, which is found then."""
        if isinstance(sequence, str) and self.level == "word":
            return len(sequence.replace("\n", " . ").split())  # a newline is a token
        return len(sequence) if isinstance(sequence, Sized) else None

    def _clean_labels(self, name: str, labels: Any, steps: int, padded: bool) -> Array:
        """Return labels (T,), or (T, K) of 0 and 1."""
        labels = checks.array_or_sequence(name, labels, "the labels of a sequence")
        given: Any = labels
        if self.output == "sigmoid" and not isinstance(labels, str) and np.ndim(given) == 2:
            array = np.asarray(given)
            if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
                raise ValueError(f"{name} must hold 0 and 1 for every label; got {array.dtype} {array.shape}")
        elif len(labels) == 0:
            array = np.zeros(0, np.int64)
        else:
            array = label_array(name, labels)
        if padded:
            # A padded array goes with sequences that are shorter.
            array = array[:steps]
        if steps is not None and len(array) != steps:
            raise ValueError(f"{name} must have {steps} labels, one a step of its sequence; got {len(array)}")
        return array

    def _learn(self, X: Any, y: Any, rows: Any) -> None:
        filled = [labels for labels in y if labels.size]
        if not filled:
            raise ValueError("y must hold at least one label; got none")
        self._input_format = self._learn_format("X", X, rows)
        self._multiple = filled[0].ndim == 2
        if self._multiple:
            self._labels = Labels(np.arange(filled[0].shape[1]))
        else:
            for n, labels in enumerate(y):
                self._check_axes(f"y[{n}]", labels)
            self._labels = Labels.learn("y", np.concatenate(filled))
            if self.output == "sigmoid" and len(self._labels) > 2:
                raise ValueError(
                    f"output = 'sigmoid' takes two classes, or arrays (T, K) of 0 and 1; y has {len(self._labels)}"
                )
        self._make_layers()

    def _check_together(self, settings: dict[str, Any]) -> None:
        if settings["scheme"] is not None and settings["output"] != "crf":
            raise ValueError(f"scheme needs output='crf'; got {settings['output']!r}")

    def _make_head(self, dense: Dense) -> tuple[Any, dict[str, Any]]:
        if self.output != "crf":
            return super()._make_head(dense)
        forbidden = first = None
        if self.scheme == "iob":
            names = [str(label) for label in self._labels.classes]
            forbidden = np.array([[not may_follow(before, after) for after in names] for before in names])
            first = np.array([not may_follow("O", name) for name in names])
        transitions = Transitions(len(self._labels), self.dtype, forbidden, first)
        return CRFHead(dense, transitions, self.dropout, self._rng), {"transitions": transitions}

    def _outputs(self) -> tuple[int, str]:
        if self.output != "sigmoid":
            return len(self._labels), "softmax"
        return (len(self._labels) if self._multiple else 1), "sigmoid"

    def _encode(
        self, X: Any, y: Any, names: tuple[str, str], *, weights: Array | None = None, training: bool = False
    ) -> Examples:
        inputs = self._input_format.encode(names[0], X)
        targets = [self._numbers(f"{names[1]}[{n}]", labels) for n, labels in enumerate(y)]
        lengths = np.array([len(sequence) for sequence in inputs], np.int64)
        setting = self._settings()["class_weight"] if training else None
        if self._multiple and setting is not None:
            raise ValueError("class_weight needs one class a step; y holds several labels")
        of_steps = None if weights is None else np.repeat(weights, lengths)
        of_labels = None
        if setting is not None:
            numbers = np.concatenate(targets)
            of_class: Any = class_weights(setting, self._labels, numbers, of_steps)
            of_labels = of_class[numbers]
        ends = lengths.cumsum()[:-1]
        if self._built["output"] == "crf":
            if of_labels is None:
                return Examples(inputs, targets, lengths, weights)
            if not of_labels.all():
                raise ValueError("class_weight must be above 0 with output='crf'; got 0")
            return Examples(inputs, targets, lengths, weights, margins=np.split(np.log(of_labels), ends))
        if of_labels is not None:
            of_steps = of_labels if of_steps is None else of_steps * of_labels
        return Examples(inputs, targets, lengths, None if of_steps is None else np.split(of_steps, ends))

    def _numbers(self, name: str, labels: Any) -> Array:
        """labels (T,) -> numbers of classes (T,); labels (T, K) stay."""
        K = len(self._labels)
        if self._multiple:
            if labels.size and labels.shape[1:] != (K,):
                raise ValueError(f"{name} must be (T, {K}), as y[0]; got {labels.shape}")
            return labels.reshape(len(labels), K)
        self._check_axes(name, labels)
        if self._built["scheme"] == "iob":
            for step, (before, label) in enumerate(pairwise(["O", *map(str, labels)])):
                if not may_follow(before, label):
                    raise ValueError(
                        f"{name} must not hold {label!r} after {before!r} (scheme 'iob'); got it at {step}"
                    )
        return self._labels.encode(name, labels)

    def _check_axes(self, name: str, labels: Any) -> None:
        if labels.ndim != 1:
            raise ValueError(f"{name} must be labels (T,), as y[0]; got {labels.shape}")

    def _batch(self, examples: Examples, rows: Any) -> Batch:
        inputs, lengths = pad_inputs(take(examples.inputs, rows), self._input_format, self._built["dtype"])
        targets, _ = pad(take(examples.targets, rows), dtype=np.int64)
        if self._head.kind == "crf":
            weights = None if examples.weights is None else examples.weights[rows]
            tokens = int(lengths.sum())
            weight = tokens if weights is None else float(weights @ lengths)
            margins = None if examples.margins is None else pad(take(examples.margins, rows))[0]
            return Batch((inputs, targets, lengths, weights, margins), weight, tokens)
        weights = None if examples.weights is None else pad(take(examples.weights, rows))[0]
        tokens = int(lengths.sum())
        return Batch((inputs, targets, lengths, weights), tokens if weights is None else float(weights.sum()), tokens)

    # ---- the network --------------------------------------------------------------------------------------------

    def loss_and_gradients(
        self,
        inputs: Array,
        targets: Array,
        lengths: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        margins: Array | None = None,
    ) -> float:
        """Return the mean loss of a batch; its gradients replace those in ``grads``.

        Parameters
        ----------
        inputs : integer array (T, N), or array (T, N, D)
        targets : integer array (T, N), or (T, N, K)
            Numbers of the classes; for sigmoid 0 or 1.
        lengths : integer array (N,), optional
        weights : array (T, N), or (N,) for ``output="crf"``, optional
            How much each step, or each sequence, counts.
        margins : array (T, N), optional
            For ``output="crf"``: what is taken from the score of each step's right label.

        Returns
        -------
        float
            Nats a step.
        """
        self._zero_grad()
        h, _, cache = self._trunk.forward(inputs, None, lengths)
        options = {} if margins is None else {"margins": margins}
        loss, dh = self._head.forward(h, self._for_head(targets), lengths, weights, **options)
        self._trunk.backward(dh, cache)
        return loss

    def _for_head(self, targets: Any) -> Array:
        """Binary labels (T, N) as one column."""
        return targets[..., None] if self._head.kind == "sigmoid" and targets.ndim == 2 else targets

    def _losses(self, batch: Batch) -> Array:
        inputs, targets, lengths, weights, *_ = batch.arguments
        h, _ = self._trunk(inputs, None, lengths)
        return self._head.losses(h, self._for_head(targets), lengths, weights)

    # ---- use ----------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Sequences,
        y: Sequence[ArrayLike] | Array,
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
        """Train on sequences and the labels of their steps.

        Parameters
        ----------
        SEQUENCES
        y : list of label sequences
            One label (str or number) for each step of each sequence, or arrays (T, K) of 0 and 1 for
            ``output="sigmoid"``; or a padded array (N, T) or (N, T, K).
        FIT

        Returns
        -------
        self

        RAISES
        """
        options = RunOptions(callback, progress, resume, comm, shards, timeout)
        return self._fit(X, y, lengths, sample_weight, validation, options)

    def predict_proba(
        self, X: Sequences, *, lengths: ArrayLike | None = None, n_jobs: int | None = None
    ) -> list[Array]:
        """Return the probability of every class at every step.

        SEEN
        JOBS

        Returns
        -------
        list of N ndarrays (T, C)
            Columns in the order of ``classes_``. For K labels (T, K), the probability of each to hold.
        """
        return self._read_batches("_of_steps", self._inputs(X, lengths), n_jobs, "_probabilities")

    def _probabilities(self, h: Array, steps: Array) -> Array:
        """h (T, N, H) -> (T, N, C)"""
        if self._head.kind == "crf":
            return self._head.probabilities(h, steps)
        p = self._head.probabilities(h)
        if self._head.kind == "sigmoid" and not self._multiple:
            # A single class has no other to be told from: it has the number 0.
            p = np.concatenate([1 - p, p], axis=2)[..., : len(self._labels)]
        return p

    def _best(self, h: Array, steps: Array) -> Array:
        """h (T, N, H) -> (T, N)"""
        return self._head.best(h, steps)

    def _of_steps(self, trunk: Any, batch: Array, steps: Array, function: str) -> list[Array]:
        """Return what a method says, of h (T, N, H) and lengths, of the steps of each sequence."""
        return in_rows(getattr(self, function)(trunk(batch, None, steps)[0], steps), steps)

    def predict(self, X: Sequences, *, lengths: ArrayLike | None = None, n_jobs: int | None = None) -> list[Array]:
        """Return the most probable label of every step, or for ``output="crf"`` the most probable labels together.

        SEEN
        JOBS

        Returns
        -------
        list of N ndarrays (T,)
            For K labels (T, K) of 0 and 1.
        """
        if self.layers is not None and self._head.kind == "crf":
            best = self._read_batches("_of_steps", self._inputs(X, lengths), n_jobs, "_best")
            return [self.classes_[tags] for tags in best]
        probabilities = self.predict_proba(X, lengths=lengths, n_jobs=n_jobs)
        if self._multiple:
            return [(p >= 0.5).astype(np.int64) for p in probabilities]
        return [self.classes_[p.argmax(axis=1)] for p in probabilities]

    def score(
        self,
        X: Sequences,
        y: Sequence[ArrayLike] | Array,
        *,
        lengths: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        n_jobs: int | None = None,
    ) -> float:
        """Return the accuracy over all steps of all sequences.

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
        for n, (p, w) in enumerate(zip(predicted, wanted, strict=True)):
            if len(p) and p.shape != w.shape:
                raise ValueError(f"y[{n}] must be {p.shape} as what is predicted; got {w.shape}")
        right = [np.ravel(p == w) if len(p) else np.zeros(0, bool) for p, w in zip(predicted, wanted, strict=True)]
        weights = as_sample_weight(sample_weight, len(right))
        if weights is not None:
            weights = np.repeat(weights, [len(labels) for labels in right])
        if not sum(map(len, right)) or (weights is not None and not weights.any()):
            raise ValueError("X must hold at least one step; got none")
        return float(np.average(np.concatenate(right), weights=weights))

    # ---- files --------------------------------------------------------------------------------------------------

    def _data_state(self) -> dict[str, Any]:
        return super()._data_state() | {"multiple": self._multiple}

    def _restore_data(self, state: Any) -> None:
        self._multiple = bool(state["multiple"])
        super()._restore_data(state)
