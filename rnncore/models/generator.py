"""One to many: from a start, a seed or a class to a sequence."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from .._types import Array
from ..distributed import TIMEOUT
from ..layers import Dense, Embedding
from ..text import Vocabulary
from .base import Random, RunOptions, as_generator
from .data import (
    Examples,
    Format,
    Labels,
    in_rows,
    label_array,
    label_of_each,
    pad_inputs,
    steps_before,
    steps_weights,
    take,
)
from .decoding import check_sampling, sample_tokens
from .documentation import document
from .estimator import Batch, Estimator, Sequences, Validation
from .network import Head, as_states, from_states
from .training import Callbacks


@document
@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class SequenceGenerator(Estimator):
    """Generates sequences: each step is predicted from all before it, and what is drawn is fed back.

    Sequences of characters, words or ids have one token a step (softmax) and learn where they end. Sequences of
    vectors of 0 and 1 have several labels at once (sigmoid for each): the notes of a piece of music that sound
    together. Where the training sequences have classes, the state that a sequence starts from is learned for each
    class, and a class can be asked for.

    Parameters
    ----------
    NETWORK
    TRAINING
    RANDOM

    Attributes
    ----------
    classes_ : ndarray (C,) or None
    FITTED

    Examples
    --------
    >>> model = SequenceGenerator(hidden_size=32, epochs=40, batch_size=4, learning_rate=0.01, random_state=0)
    >>> model = model.fit(["abcabc", "xyzxyz"] * 8, ["first", "last"] * 8)
    >>> model.generate(20, label="last", temperature=0)
    'xyzxyz'

    Notes of a scale, two at a time:

    >>> piece = np.eye(8)[np.arange(16) % 8] + np.eye(8)[(np.arange(16) + 2) % 8]
    >>> model = SequenceGenerator(hidden_size=32, epochs=60, batch_size=4, learning_rate=0.01, random_state=0)
    >>> model.fit([piece] * 8).generate(8, seed=piece[:3], temperature=0).argmax(axis=1).tolist()
    [3, 4, 5, 0, 1, 0, 1, 2]
    """

    _needs_targets = False

    score_name = "log-probability (nats)"

    # ---- data ---------------------------------------------------------------------------------------------------

    @property
    def classes_(self) -> Array | None:
        """The classes (C,), sorted; None where the training sequences had none."""
        self._check_built()
        return None if self._labels is None else self._labels.classes

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary of text and tokens; None for ids and vectors, and before ``fit``."""
        return None if self.layers is None else self._input_format.vocabulary

    def _clean_targets(self, name: str, y: Any, X: Any) -> Array | None:
        return None if y is None else label_of_each(name, y, X)

    def _strata(self, y: Any) -> Array:
        return y

    def _learn(self, X: Any, y: Any, rows: Any) -> None:
        self._labels: Any = None if y is None else Labels.learn("y", y)
        self._input_format = self._learn_format("X", X, rows)
        self._make_layers()

    @property
    def _end_id(self) -> int:
        """The id before the first token and after the last."""
        return self._input_format.size if self.vocabulary is None else self.vocabulary.eos_id

    def _make_layers(self) -> None:
        format, rng = self._input_format, self._rng
        if format.kind == "ids":
            format = Format("ids", format.size + 1)
        self._trunk = self._make_trunk(format, rng, size=self._embedding_width())
        kind = "softmax" if format.holds_ids else "sigmoid"
        output = Dense(self.hidden_size, format.size, dtype=self.dtype, seed=rng)
        self._head = Head(output, kind, self.dropout, rng)
        self._start: Any = None  # an Embedding where there are classes
        if self._labels is not None:
            recurrent = self._trunk.recurrent
            values = len(recurrent.state_names) * self.num_layers * self.hidden_size
            self._start = Embedding(len(self._labels), values, dtype=self.dtype, seed=rng)
            # States of scale 1 would saturate the cells from the first step.
            self._start.params["W"] *= 0.1
        layers = {"embedding": self._trunk.embedding, "start": self._start}
        self._take_layers(**layers, recurrent=self._trunk.recurrent, output=output)

    def _encode(
        self, X: Any, y: Any, names: tuple[str, str], *, weights: Array | None = None, training: bool = False
    ) -> Examples:
        sequences = self._input_format.encode(names[0], X)
        if (y is None) != (self._labels is None):
            raise ValueError(f"{names[1]} must be {'None' if y is not None else 'classes'}, as in training")
        if self._input_format.holds_ids:
            sequences = [np.append(ids, self._end_id) for ids in sequences]
        else:
            for n, vectors in enumerate(sequences):
                _check_labels(f"{names[0]}[{n}]", vectors)
        labels = None if y is None else self._labels.encode(names[1], y)
        lengths = np.array([len(sequence) for sequence in sequences], np.int64)
        return Examples(sequences, None, lengths, weights, labels)

    def _batch(self, examples: Examples, rows: Any) -> Batch:
        targets, lengths = pad_inputs(take(examples.inputs, rows), self._input_format, self._built["dtype"])
        labels = None if examples.labels is None else examples.labels[rows]
        inputs = steps_before(targets, self._end_id if self._input_format.holds_ids else 0)
        weights, weight = steps_weights(examples, rows, lengths)
        return Batch((inputs, targets, lengths, labels, weights), weight, int(lengths.sum()))

    # ---- the network --------------------------------------------------------------------------------------------

    def loss_and_gradients(
        self,
        inputs: Array,
        targets: Array,
        lengths: ArrayLike | None = None,
        labels: Array | None = None,
        weights: ArrayLike | None = None,
    ) -> float:
        """Return the mean loss of a batch; its gradients replace those in ``grads``.

        Parameters
        ----------
        inputs, targets : integer arrays (T, N), or arrays (T, N, D) of 0 and 1
            Each step, and the one after it.
        lengths : integer array (N,), optional
        labels : integer array (N,), optional
            Numbers of the classes.
        weights : array (T, N), optional
            How much each step counts.

        Returns
        -------
        float
            Nats a step.
        """
        self._zero_grad()
        state = self._initial_state(labels)
        h, _, cache = self._trunk.forward(inputs, state, lengths)
        loss, dh = self._head.forward(h, targets, lengths, weights)
        dstate = self._trunk.backward(dh, cache)
        if labels is not None:
            # (states, layers, N, H) -> (N, states * layers * H)
            dstart = np.moveaxis(np.stack(as_states(dstate)), 2, 0).reshape(len(labels), -1)
            self._start.backward(dstart, np.asarray(labels))
        return loss

    def _initial_state(self, labels: Any) -> Any:
        """Return the initial state of sequences of these classes; None without classes."""
        if labels is None:
            return None
        if self._start is None:
            raise ValueError("labels must be None: the model was trained without classes")
        values = self._start(labels)
        recurrent = self._trunk.recurrent
        states = values.reshape(len(labels), -1, recurrent.num_layers, recurrent.hidden_size)
        return from_states(list(np.moveaxis(states, 0, 2)))

    def _losses(self, batch: Batch) -> Array:
        inputs, targets, lengths, labels, weights = batch.arguments
        h, _ = self._trunk(inputs, self._initial_state(labels), lengths)
        return self._head.losses(h, targets, lengths, weights)

    # ---- use ----------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Sequences,
        y: ArrayLike | None = None,
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
        """Train on sequences.

        Parameters
        ----------
        SEQUENCES
            Features must be 0 and 1.
        y : sequence of labels (N,), optional
            A class for each sequence, that :meth:`generate` can be asked for.
        FIT

        Returns
        -------
        self

        RAISES
        """
        options = RunOptions(callback, progress, resume, comm, shards, timeout)
        return self._fit(X, y, lengths, sample_weight, validation, options)

    def log_prob(
        self,
        X: Sequences,
        y: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        n_jobs: int | None = None,
    ) -> Array:
        """Log-probability (nats) of sequences, the end of tokens counted.

        DATA
        JOBS

        Returns
        -------
        ndarray (N,)

        WRONG
        """
        return self._log_prob(X, y, lengths, n_jobs)

    def predict_proba(
        self,
        X: Sequences,
        y: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        n_jobs: int | None = None,
    ) -> list[Array]:
        """Probabilities of every next step, given all steps before it.

        DATA
        JOBS

        Returns
        -------
        list of N ndarrays (T, D)
            Row t is predicted from the steps before t. For tokens (T + 1, V): the last row tells what comes after
            the sequence; ids as in ``vocabulary``, or V - 1 for the end of sequences of ids.

        WRONG
        """
        examples = self._scored(X, y, lengths)
        return self._of_each("_probabilities", examples.lengths, self._making(examples), n_jobs)

    def _probabilities(self, trunk: Any, batch: Batch) -> list[Array]:
        inputs, _, steps, labels, _ = batch.arguments
        h, _ = trunk(inputs, self._initial_state(labels), steps)
        return in_rows(self._head.probabilities(h), steps)

    def predict(
        self,
        X: Sequences,
        y: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        n_jobs: int | None = None,
    ) -> list[Array]:
        """Return the most probable next step at every step, given all steps before it.

        DATA
        JOBS

        Returns
        -------
        list of N ndarrays
            Ids (T + 1,), or arrays (T, D) of 0 and 1: the labels with a probability of at least a half.

        WRONG
        """
        probabilities = self.predict_proba(X, y, lengths=lengths, n_jobs=n_jobs)
        if self._input_format.holds_ids:
            return [p.argmax(axis=1) for p in probabilities]
        return [(p >= 0.5).astype(np.int64) for p in probabilities]

    def score(
        self,
        X: Sequences,
        y: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        n_jobs: int | None = None,
    ) -> float:
        """Mean log-probability (nats) of a step: higher is better.

        DATA
        WEIGHT
        JOBS

        Returns
        -------
        float

        WRONG
        """
        examples = self._scored(X, y, lengths, sample_weight)
        if not examples.lengths.sum():
            raise ValueError("X must hold at least one step; got none")
        return -self._mean_loss(examples, n_jobs=n_jobs)

    def generate(
        self,
        n: int,
        *,
        label: Any = None,
        seed: Any = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        random_state: Random = None,
    ) -> Any:
        """Draw a sequence; every drawn step is fed back.

        Parameters
        ----------
        n : int
            Steps at most; a sequence of tokens may end before.
        label : label, optional
            One of ``classes_``; must be given where there are classes.
        seed : sequence, as in :meth:`fit`, optional
            What comes before; it is not part of the result.
        temperature : float
            Divides the logits: below 1 is more careful, 0 always takes the likeliest.
        top_k, top_p : int, float, optional
            Draw among the k likeliest tokens, or those that together reach a probability. Tokens only.
        random_state : int, numpy.random.Generator, numpy.random.RandomState or None

        Returns
        -------
        str, list of str, ids (T,), or int64 array (T, D) of 0 and 1
            As the training sequences were.

        Raises
        ------
        ValueError, TypeError
            An argument is out of its range.
        """
        self._check_built()
        n, temperature, top_k, top_p = check_sampling(n, temperature, top_k, top_p)
        if (label is None) != (self._labels is None):
            wanted = "None: the training sequences have no classes" if label is not None else "one of classes_"
            raise ValueError(f"label must be {wanted}; got {label!r}")
        state = None
        if label is not None:
            state = self._initial_state(self._labels.encode("label", label_array("label", [label])))
        rng = as_generator(random_state)
        before: Any = [] if seed is None else self._input_format.encode_one("seed", seed)
        if not self._input_format.holds_ids:
            if top_k is not None or top_p is not None:
                raise ValueError("top_k and top_p choose among tokens; the sequences here are vectors of labels")
            _check_labels("seed", before)
            return self._draw_vectors(n, state, before, temperature, rng)
        context = np.concatenate([[self._end_id], before]).astype(np.int64)
        if len(context) > 1:
            _, state = self._trunk(context[:-1, None], state)
        pieces = sample_tokens(
            *(self._trunk, self._head.dense, state, int(context[-1]), n, rng),
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            banned=[] if self.vocabulary is None else [self.vocabulary.unk_id],
            stop=self._end_id,
        )
        ids = np.concatenate([np.empty(0, np.int64), *pieces])
        return self._input_format.decode(ids[:-1] if len(ids) and ids[-1] == self._end_id else ids)

    def _draw_vectors(self, n: int, state: Any, before: Any, temperature: float, rng: Generator) -> Array:
        """Steps of labels that are drawn one by one: (n, D) of 0 and 1."""
        D = self._input_format.size
        result = np.zeros((n, D), np.int64)
        context = np.zeros((1 + len(before), 1, D), self._built["dtype"])
        if len(before):
            context[1:, 0] = before
        h, state = self._trunk(context, state)
        stream = self._trunk.recurrent.stream()
        stream.state = state
        last = h[-1]
        for t in range(n):
            logits = self._head.dense(last)[0].astype(np.float64)
            # sigmoid(y) > u where y > log(u / (1 - u)); u = 1/2 for the likelier of the two
            u = rng.random(D)
            threshold = temperature * (np.log(u) - np.log1p(-u)) if temperature else 0.0
            result[t] = logits > threshold
            last = stream.step(result[t][None].astype(context.dtype))
        return result

    # ---- files --------------------------------------------------------------------------------------------------

    def _data_state(self) -> dict[str, Any]:
        labels = None if self._labels is None else self._labels.state()
        return {"inputs": self._input_format.state(), "labels": labels}

    def _restore_data(self, state: Any) -> None:
        self._rng = as_generator(self.random_state)
        self._input_format = Format.from_state(state["inputs"])
        self._labels = None if state["labels"] is None else Labels.from_state(state["labels"])
        self._make_layers()


def _check_labels(name: str, vectors: Any) -> None:
    wrong = np.asarray(vectors)[~np.isin(vectors, (0, 1))]
    if wrong.size:
        raise ValueError(f"{name} must hold 0 and 1 for every label of a step; got {wrong[0]}")
