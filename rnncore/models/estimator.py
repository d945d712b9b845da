"""Models of many sequences, fitted as those of scikit-learn are."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from .. import checks
from .._types import Array
from ..distributed import ALONE, Ranks
from ..layers import Dense
from ..text import Vocabulary, batches_by_length
from .base import COUNT, Model, RunOptions, as_generator, setting
from .data import (
    Examples,
    Format,
    Labels,
    as_sample_weight,
    as_sequences,
    check_class_weight,
    pad_inputs,
    split_rows,
    take,
)
from .network import Head, sum_of_steps
from .position import checksum
from .shards import Batches

Sequences = Iterable[str] | Iterable[list[str]] | Iterable[ArrayLike] | Array
Validation = float | tuple[Any, Any] | tuple[Any, Any, ArrayLike]


_DEFAULTS = RunOptions()


class Batch(NamedTuple):
    """The data of one update, or of one part of a score."""

    arguments: tuple[Any, ...]  # of loss_and_gradients
    weight: float  # of its loss in the mean: the number of its losses, or the sum of their weights
    tokens: int  # steps of sequences


def _take(column: Any, rows: Array) -> Any:
    """Some rows of a column that may be None."""
    return None if column is None else take(column, rows)


@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class Estimator(Model):
    """A subclass learns what its data look like, encodes them, and makes batches of them."""

    _input_format = cast(Any, None)  # learned by fit

    @property
    def n_features_in_(self) -> int:
        """The number of features of a step, D; AttributeError before ``fit``, and for text, tokens and ids."""
        self._check_built()
        if self._input_format.holds_ids:
            raise AttributeError(
                f"n_features_in_ counts features; the sequences of training hold {self._input_format.kind}"
            )
        return int(self._input_format.size)

    # ---- what a subclass says -----------------------------------------------------------------------------------

    def _clean_targets(self, name: str, y: Any, X: Any) -> Any:
        """Return y as a list or array with one entry for each sequence of X; ValueError if it does not match."""
        raise NotImplementedError

    def _strata(self, y: Any) -> Any:
        """Return the class of each sequence (N,) if a split should keep their shares, otherwise None."""
        return None

    def _learn(self, X: Any, y: Any, rows: Any) -> Any:
        """Learn what inputs and targets look like, and make the layers; vocabularies are those of some rows."""
        raise NotImplementedError

    def _encode(
        self, X: Any, y: Any, names: tuple[str, str], *, weights: Array | None = None, training: bool = False
    ) -> Examples:
        """Return Examples with these weights (N,), times those of classes for training; names are for messages."""
        raise NotImplementedError

    def _batch(self, examples: Examples, rows: Any) -> Any:
        """Return the Batch of some rows."""
        raise NotImplementedError

    def _losses(self, batch: Batch) -> Any:
        """Return the losses of a batch, (T, N) of steps or (N,) of sequences, times their weights."""
        raise NotImplementedError

    # ---- training -----------------------------------------------------------------------------------------------

    def _fit(
        self,
        X: Any,
        y: Any,
        lengths: Any,
        sample_weight: Any,
        validation: Any,
        options: RunOptions,
    ) -> Any:
        def prepare(ranks: Ranks) -> tuple[Any, Any]:
            examples, held_out = self._prepare(X, y, lengths, sample_weight, validation, options, ranks)
            score = None if held_out is None else lambda: self._mean_loss(held_out, ranks)
            return lambda: self._batches(examples, self.batch_size, self._rng), score

        return self._run(options, validation, prepare)

    def _prepare(
        self,
        X: Any,
        y: Any,
        lengths: Any,
        sample_weight: Any,
        validation: Any,
        options: RunOptions = _DEFAULTS,
        ranks: Ranks = ALONE,
    ) -> tuple[Any, ...]:
        """Return the examples to train on, and the held-out examples or None."""
        goes_on = self._check_training(validation, options.resume)
        X = as_sequences("X", X, lengths)
        if not X:
            raise ValueError("X must hold at least one sequence; got none")
        y = self._clean_targets("y", y, X)
        weights = as_sample_weight(sample_weight, len(X))
        if weights is not None:
            # What has no weight is as if absent: neither a class nor a word of the vocabulary.
            X, y, weights = (_take(column, np.flatnonzero(weights)) for column in (X, y, weights))
        if not goes_on:
            self._rng = as_generator(self.random_state)
        self._share_random(options, ranks)
        begin_random = self._begin_random(options.resume)
        held_out, rows = None, np.arange(len(X))
        if isinstance(validation, numbers.Real):
            rows, held_out_rows = split_rows(len(X), validation, self._rng, self._strata(y))
            held_out = tuple(_take(column, held_out_rows) for column in (X, y, weights))
        elif validation is not None:
            held_out = *self._clean_validation(validation), None
        if not goes_on:
            self._learn(X, y, rows)
            self.history = []
        X, y, weights = (_take(column, rows) for column in (X, y, weights))
        examples = self._encode(X, y, ("X", "y"), weights=weights, training=True)
        self._take_position(options, ranks, begin_random, checksum(examples))
        if held_out is not None:
            X, y, weights = held_out
            held_out = self._encode(X, y, ("validation X", "validation y"), weights=weights)
        if ranks.size > 1:
            ranks.agree("held-out data", {"validation": 0 if held_out is None else checksum(held_out)})
        return examples, held_out

    def _clean_validation(self, validation: Any) -> tuple[Any, ...]:
        if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
            raise TypeError(f"validation must be a share, (X, y) or (X, y, lengths); got {type(validation).__name__}")
        X = as_sequences("validation X", validation[0], *validation[2:])
        if not X:
            raise ValueError("validation X must hold at least one sequence; got none")
        return X, self._clean_targets("validation y", validation[1], X)

    def loss_and_gradients(self, *arguments: Any) -> float:
        """Return the mean loss of a batch; its gradients replace those in ``grads``."""
        raise NotImplementedError

    def _update(self, batch: Batch) -> tuple[float, float, int]:
        return self.loss_and_gradients(*batch.arguments), batch.weight, batch.tokens

    def _batches(self, examples: Examples, batch_size: int, rng: Generator | None = None) -> Batches:
        rows = batches_by_length(examples.lengths, batch_size, rng)
        return Batches(lambda rows: self._batch(examples, rows), rows)

    def _mean_loss(self, examples: Examples, ranks: Ranks = ALONE, n_jobs: int | None = 1) -> float:
        batches = batches_by_length(examples.lengths, self.batch_size)
        sums = np.zeros((len(batches), 2))  # losses, and their weight
        own = slice(ranks.rank, None, ranks.size)
        found = self._map("_loss_sum", batches[own], self._making(examples), n_jobs)
        for row, of_batch in zip(sums[own], found, strict=True):
            row[:] = of_batch
            ranks.listen()
        ranks.sum(sums.ravel())  # exact: all but one rank add zeros
        total, count = sums.cumsum(axis=0)[-1]
        return float(total / count) if count else 0.0

    def _making(self, examples: Examples) -> Callable[[Array], tuple[Batch]]:
        """Return the function that makes a batch of some rows, for ``_map``."""
        return lambda rows: (self._batch(examples, rows),)

    def _loss_sum(self, _: Any, batch: Batch) -> tuple[float, float]:
        return self._losses(batch).sum(), batch.weight

    def _learn_format(self, name: str, sequences: Any, rows: Any) -> Format:
        return Format.learn(name, sequences, rows, self.level, self._settings()["max_vocabulary"])

    # ---- use ----------------------------------------------------------------------------------------------------

    def _inputs(self, X: Any, lengths: Any) -> list[Array]:
        """Return the encoded sequences to predict from."""
        self._check_built()
        return self._input_format.encode("X", as_sequences("X", X, lengths))

    def _scored(self, X: Any, y: Any, lengths: Any, sample_weight: Any = None) -> Any:
        """Return Examples to score."""
        self._check_built()
        X = as_sequences("X", X, lengths)
        weights = as_sample_weight(sample_weight, len(X))
        return self._encode(X, self._clean_targets("y", y, X), ("X", "y"), weights=weights)

    def _log_prob(self, X: Any, y: Any, lengths: Any, n_jobs: int | None) -> Array:
        """Return the log-probabilities (N,) of sequences."""
        examples = self._scored(X, y, lengths)
        return np.array(self._of_each("_log_probs_of", examples.lengths, self._making(examples), n_jobs), np.float64)

    def _log_probs_of(self, _: Any, batch: Batch) -> Array:
        losses = self._losses(batch)
        return -(losses if losses.ndim == 1 else sum_of_steps(losses))

    def _read_batches(self, method: str, inputs: list[Array], n_jobs: int | None, *options: Any) -> list[Any]:
        """Return what ``method(frozen, batch, lengths, *options)`` says of each sequence."""

        def make(rows: Array) -> tuple[Array, Array]:
            return pad_inputs(take(inputs, rows), self._input_format, self._built["dtype"])

        return self._of_each(method, [len(sequence) for sequence in inputs], make, n_jobs, *options)

    def _of_each(self, method: str, lengths: Any, make: Any, n_jobs: int | None, *options: Any) -> list[Any]:
        """Return what a method says of each sequence: for a batch of like lengths it returns one value a row."""
        batches = batches_by_length(lengths, max(COUNT("batch_size", self.batch_size), 64))
        result: list[Any] = [None] * len(lengths)
        for rows, values in zip(batches, self._map(method, batches, make, n_jobs, *options), strict=True):
            for row, value in zip(rows, values, strict=True):
                result[row] = value
        return result


@dataclasses.dataclass(eq=False, repr=False, kw_only=True)
class Labeller(Estimator):
    """Sequences in, classes out: what :class:`SequenceTagger` and :class:`SequenceClassifier` share."""

    bidirectional: bool = setting(True, checks.flag, network=True)
    class_weight: dict[Any, float] | Literal["balanced"] | None = setting(None, check_class_weight)

    @property
    def classes_(self) -> Array:
        """The classes (C,), sorted."""
        self._check_built()
        return self._labels.classes

    @property
    def vocabulary(self) -> Vocabulary | None:
        """The vocabulary of text and tokens; None for ids and features, and before ``fit``."""
        return None if self.layers is None else self._input_format.vocabulary

    def _outputs(self) -> tuple[int, str]:
        """Return the number of outputs, and "softmax" or "sigmoid"."""
        return len(self._labels), "softmax"

    def _make_layers(self) -> None:
        size = self._embedding_width()
        self._trunk = self._make_trunk(self._input_format, self._rng, size=size, bidirectional=self.bidirectional)
        outputs, _ = self._outputs()
        dense = Dense(self._trunk.recurrent.output_size, outputs, dtype=self.dtype, seed=self._rng)
        self._head, others = self._make_head(dense)
        self._take_layers(
            embedding=self._trunk.embedding, recurrent=self._trunk.recurrent, output=self._head.dense, **others
        )

    def _make_head(self, dense: Dense) -> tuple[Any, dict[str, Any]]:
        """Return the head with this output layer, and the layers by name that it has beside it."""
        return Head(dense, self._outputs()[1], self.dropout, self._rng), {}

    def _data_state(self) -> dict[str, dict[str, Any]]:
        return {"inputs": self._input_format.state(), "labels": self._labels.state()}

    def _restore_data(self, state: Any) -> None:
        self._rng = as_generator(self.random_state)
        self._input_format, self._labels = Format.from_state(state["inputs"]), Labels.from_state(state["labels"])
        self._make_layers()
