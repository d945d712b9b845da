"""Many to one: a class for every sequence."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from .. import checks
from .._types import Array
from ..distributed import TIMEOUT
from ..engine.arrays import as_lengths
from .base import RunOptions, setting
from .data import Examples, Labels, as_sample_weight, class_weights, label_of_each, pad_inputs, take
from .documentation import document
from .estimator import Batch, Labeller, Sequences, Validation
from .network import as_states, from_states, sum_of_steps
from .training import Callbacks


@document
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class SequenceClassifier(Labeller):
    """One class for every sequence: the sentiment of a sentence, the language of a name, the speaker of a recording.

    The states of the recurrent layers at their ends, or the mean of all states, go through an output layer with
    softmax.

    Parameters
    ----------
    NETWORK
    bidirectional : bool, default True
    pooling : {"last", "mean"}
        What the output layer sees: the state after the last step (of both directions), or the mean of the states of
        all steps. A sequence of length 0 gives zeros.
    class_weight : dict, "balanced" or None
        Weight of the examples of each class in the loss; "balanced" is n / (C * count).
    TRAINING
    RANDOM

    Attributes
    ----------
    classes_ : ndarray (C,)
    FITTED

    Examples
    --------
    >>> model = SequenceClassifier("word", hidden_size=16, epochs=20, learning_rate=0.02, random_state=0)
    >>> texts = ["a good film", "good and warm", "a bad film", "bad and cold"] * 8
    >>> model = model.fit(texts, ["+", "+", "-", "-"] * 8)
    >>> model.predict(["a warm film", "cold"]).tolist()
    ['+', '-']
    >>> model.score(texts, ["+", "+", "-", "-"] * 8)
    1.0
    """

    pooling: Literal["last", "mean"] = setting("last", checks.one_of(("last", "mean")), network=True)

    score_name = "accuracy"
    _estimator_type = "classifier"

    # ---- data ---------------------------------------------------------------------------------------------------

    def _clean_targets(self, name: str, y: Any, X: Any) -> Array:
        return label_of_each(name, y, X)

    def _strata(self, y: Any) -> Array:
        return y

    def _learn(self, X: Any, y: Any, rows: Any) -> None:
        self._labels = Labels.learn("y", y)
        self._input_format = self._learn_format("X", X, rows)
        self._make_layers()

    def _encode(
        self, X: Any, y: Any, names: tuple[str, str], *, weights: Array | None = None, training: bool = False
    ) -> Examples:
        inputs, numbers = self._input_format.encode(names[0], X), self._labels.encode(names[1], y)
        lengths = np.array([len(sequence) for sequence in inputs], np.int64)
        setting = self._settings()["class_weight"] if training else None
        of_class = class_weights(setting, self._labels, numbers, weights)
        if of_class is not None:
            weights = of_class[numbers] if weights is None else weights * of_class[numbers]
        return Examples(inputs, numbers, lengths, weights)

    def _batch(self, examples: Examples, rows: Any) -> Batch:
        inputs, lengths = pad_inputs(take(examples.inputs, rows), self._input_format, self._built["dtype"])
        weights = None if examples.weights is None else examples.weights[rows]
        weight = len(rows) if weights is None else float(weights.sum())
        return Batch((inputs, examples.targets[rows], lengths, weights), weight, int(lengths.sum()))

    # ---- the network --------------------------------------------------------------------------------------------

    def _pool(self, h: Array, state: Any, lengths: Any) -> Array:
        """Return (N, H * directions), pooled from the states of the top layer."""
        if self._built["pooling"] == "mean":
            return sum_of_steps(h) / np.maximum(lengths, 1)[:, None].astype(h.dtype)
        return np.concatenate(as_states(state)[0][-self._trunk.recurrent.directions :], axis=1)

    def loss_and_gradients(
        self, inputs: Array, targets: Array, lengths: ArrayLike | None = None, weights: ArrayLike | None = None
    ) -> float:
        """Return the mean loss of a batch; its gradients replace those in ``grads``.

        Parameters
        ----------
        inputs : integer array (T, N), or array (T, N, D)
        targets : integer array (N,)
            Numbers of the classes.
        lengths : integer array (N,), optional
        weights : array (N,), optional
            How much each sequence counts.

        Returns
        -------
        float
            Nats a sequence.
        """
        self._zero_grad()
        h, state, cache = self._trunk.forward(inputs, None, lengths)
        T, N = h.shape[:2]
        lengths = np.full(N, T) if lengths is None else as_lengths(lengths, T, N)
        loss, dpooled = self._head.forward(self._pool(h, state, lengths), targets, weights=weights)
        if self._built["pooling"] == "mean":
            # The mean is over valid steps; what stands at the others is not read.
            dh = np.broadcast_to(dpooled / np.maximum(lengths, 1)[:, None].astype(h.dtype), h.shape)
            self._trunk.backward(dh, cache)
        else:
            directions = self._trunk.recurrent.directions
            dstates = [np.zeros_like(s) for s in as_states(state)]
            dstates[0][-directions:] = np.stack(np.split(dpooled, directions, axis=1))
            self._trunk.backward(None, cache, from_states(dstates))
        return loss

    def _losses(self, batch: Batch) -> Array:
        inputs, targets, lengths, weights = batch.arguments
        return self._head.losses(self._pooled(self._trunk, inputs, lengths), targets, weights=weights)

    def _pooled(self, trunk: Any, inputs: Array, lengths: Any) -> Array:
        h, state = trunk(inputs, None, lengths)
        return self._pool(h, state, lengths)

    # ---- use ----------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Sequences,
        y: ArrayLike,
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
        """Train on sequences and their classes.

        Parameters
        ----------
        SEQUENCES
        y : sequence of labels (N,)
            str or numbers.
        FIT

        Returns
        -------
        self

        RAISES
        """
        options = RunOptions(callback, progress, resume, comm, shards, timeout)
        return self._fit(X, y, lengths, sample_weight, validation, options)

    def predict_proba(self, X: Sequences, *, lengths: ArrayLike | None = None, n_jobs: int | None = None) -> Array:
        """Return the probability of every class.

        SEEN
        JOBS

        Returns
        -------
        ndarray (N, C)
            Columns in the order of ``classes_``.
        """
        found = self._read_batches("_probabilities", self._inputs(X, lengths), n_jobs)
        return np.array(found, self._built["dtype"]).reshape(-1, len(self._labels))

    def _probabilities(self, trunk: Any, inputs: Array, lengths: Array) -> Array:
        return self._head.probabilities(self._pooled(trunk, inputs, lengths))

    def predict(self, X: Sequences, *, lengths: ArrayLike | None = None, n_jobs: int | None = None) -> Array:
        """Return the most probable class of every sequence.

        SEEN
        JOBS

        Returns
        -------
        ndarray (N,)
        """
        return self.classes_[self.predict_proba(X, lengths=lengths, n_jobs=n_jobs).argmax(axis=1)]

    def score(
        self,
        X: Sequences,
        y: ArrayLike,
        *,
        lengths: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        n_jobs: int | None = None,
    ) -> float:
        """Return the accuracy: the share of the sequences whose class is right.

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
        if not len(wanted):
            raise ValueError("X must hold at least one sequence; got none")
        return float(np.average(predicted == wanted, weights=as_sample_weight(sample_weight, len(wanted))))
