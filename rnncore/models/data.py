"""What users give, made into arrays: sequences of text, tokens, ids or features, and labels.

A sequence is a str, a list of str (tokens), integers (ids) or an array (T, D) of features.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator

from .. import checks
from .._types import Array
from ..engine.arrays import as_array, as_lengths
from ..text import Vocabulary, pad

KINDS = ("text", "tokens", "ids", "features")


class Examples(NamedTuple):
    """Encoded data, one entry a sequence: what is trained on and scored."""

    inputs: list[Array]  # arrays (T,) of ids or (T, D)
    targets: Any  # list of arrays, or array
    lengths: Array  # (N,) steps of each
    weights: Any = None  # how much each sequence (N,), or each of its steps, counts; None: all the same
    labels: Array | None = None  # (N,) that the sequences are conditioned on
    margins: list[Array] | None = None  # (T,) by which the right tag of each step must lead


def take(column: Any, rows: Any) -> Any:
    """Entries of a list or an array."""
    return column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows]


def unwrap(name: str, values: Any) -> Any:
    """Return a table, a column or a tensor of another library as an array: a loop over a table gives its headings."""
    if hasattr(values, "toarray"):
        raise TypeError(f"{name} must be a list or an array; got a sparse {type(values).__name__}")
    return as_array(name, values) if hasattr(values, "__array__") and not isinstance(values, np.generic) else values


# ---- sequences --------------------------------------------------------------------------------------------------


def as_sequences(name: str, values: Any, lengths: Any = None) -> list[Any]:
    """Return a list of sequences, from an iterable of them or a padded array (N, T[, D]) with lengths (N,)."""
    values = unwrap(name, values)
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list of sequences, or a padded array; got {type(values).__name__}")
    if isinstance(values, np.ndarray) and values.dtype.kind != "O":
        if values.ndim < 2 and not (values.ndim == 1 and values.dtype.kind in "UT"):
            raise ValueError(f"{name} must be a list of sequences or an array (N, T) or (N, T, D); got {values.shape}")
        if lengths is not None:
            lengths = as_lengths(lengths, values.shape[1] if values.ndim > 1 else 0, len(values))
            return [row[:length] for row, length in zip(values, lengths, strict=True)]
        # Strings of an array are str, as those of a list.
        return list(values) if values.ndim > 1 else values.tolist()
    if lengths is not None:
        raise ValueError(f"lengths belong to a padded array; {name} is a {type(values).__name__}")
    return list(values)


class Format:
    """How the sequences of one column become arrays: learned from training data, used for all that comes after.

    Attributes
    ----------
    kind : {"text", "tokens", "ids", "features"}
    vocabulary : Vocabulary or None
        Of text and tokens.
    size : int
        Number of ids, or of features.
    """

    def __init__(self, kind: str, size: int, vocabulary: Vocabulary | None = None) -> None:
        self.kind, self.size = kind, size
        self.vocabulary: Any = vocabulary  # a Vocabulary where the kind is text or tokens

    @property
    def holds_ids(self) -> bool:
        return self.kind != "features"

    @classmethod
    def learn(cls, name: str, sequences: Any, rows: Any, level: Any, max_vocabulary: Any) -> Format:
        """Determine the format of the sequences; the vocabulary is taken from some rows."""
        if not sequences:
            raise ValueError(f"{name} must hold at least one sequence; got none")
        kinds = [_kind(f"{name}[{n}]", sequence) for n, sequence in enumerate(sequences)]
        # A sequence without elements says only so much: [] may hold anything.
        told = next((kind for kind in kinds if kind is not None), "ids")
        for n, kind in enumerate(kinds):
            if kind not in (told, None):
                wanted = f"{_DESCRIPTIONS[told]} as those before"
                raise TypeError(f"{name}[{n}] must be {wanted}; got {_DESCRIPTIONS[kind]}")
        if told == "tokens" and level == "char":
            raise ValueError(f"{name} holds lists of tokens, so level must be 'word'; got 'char'")
        if told in ("text", "tokens"):
            texts = [list(sequences[n]) if told == "tokens" else sequences[n] for n in rows]
            if not any(map(len, texts)):
                raise ValueError(f"{name} must hold at least one token to train on; got none")
            vocabulary = Vocabulary.from_text(texts, level, max_vocabulary)
            return cls(told, len(vocabulary), vocabulary)
        format = cls(told, 0)
        arrays = [format._array(f"{name}[{n}]", sequence) for n, sequence in enumerate(sequences)]
        if not any(map(len, arrays)):
            raise ValueError(f"{name} must hold at least one step to train on; got none")
        if told == "ids":
            format.size = max_vocabulary or 1 + max(int(a.max(initial=0)) for a in arrays)
        else:
            format.size = next(a.shape[1] for a, kind in zip(arrays, kinds, strict=True) if kind is not None)
        return format

    def encode(self, name: str, sequences: Any) -> list[Array]:
        """Return arrays (T,) of ids or (T, D) of features; ValueError or TypeError names what is wrong."""
        return [self.encode_one(f"{name}[{n}]", sequence) for n, sequence in enumerate(sequences)]

    def encode_one(self, name: str, sequence: Array | list[Any]) -> Array:
        """Return an array (T,) of ids or (T, D) of features."""
        found = _kind(name, sequence)
        if found is not None and found != self.kind:
            raise TypeError(f"{name} must be {_DESCRIPTIONS[self.kind]} as in training; got {_DESCRIPTIONS[found]}")
        if self.kind == "text":
            return self.vocabulary.encode(sequence if isinstance(sequence, str) else "")
        if self.kind == "tokens":
            return self.vocabulary.encode(list(sequence))
        array = self._array(name, sequence)
        if self.kind == "ids":
            if array.size and not 0 <= array.min() <= array.max() < self.size:
                wrong = array.min() if array.min() < 0 else array.max()
                raise ValueError(f"{name} must hold ids in [0, {self.size}), those of training; got {wrong}")
            return array
        if found is None:
            return np.zeros((0, self.size))
        if array.shape[1] != self.size:
            raise ValueError(f"{name} must have {self.size} features a step as in training; got {array.shape[1]}")
        return array

    def _array(self, name: str, sequence: Array | list[Any]) -> Array:
        array = np.asarray(sequence)
        if self.kind == "ids":
            if array.size == 0:
                return np.zeros(0, np.int64)
            return array.astype(np.int64)
        if array.ndim == 1:
            array = array[:, None]
        array = array.astype(np.float64 if array.dtype.kind != "f" else array.dtype)
        if not np.isfinite(array).all():
            step, feature = np.argwhere(~np.isfinite(array))[0]
            got = f"{array[step, feature]} at step {step}, feature {feature}"
            raise ValueError(f"{name} must be finite (no NaN, no inf); got {got}")
        return array

    def decode(self, ids: Array) -> Any:
        """ids (T,) -> text, list of tokens, or the ids."""
        if self.kind == "text":
            return self.vocabulary.decode(ids)
        if self.kind == "tokens":
            return [self.vocabulary.tokens[i] for i in ids]
        return np.asarray(ids, np.int64)

    def state(self) -> dict[str, Any]:
        vocabulary = None if self.vocabulary is None else self.vocabulary.state()
        return {"kind": self.kind, "size": self.size, "vocabulary": vocabulary}

    @classmethod
    def from_state(cls, state: Any) -> Format:
        kind, size = checks.choice("kind", state["kind"], KINDS), checks.integer("size", state["size"], least=1)
        vocabulary = state["vocabulary"]
        if (vocabulary is not None) != (kind in ("text", "tokens")):
            raise ValueError(f"vocabulary does not go with sequences of {kind}")
        if vocabulary is not None:
            vocabulary = Vocabulary.from_state(vocabulary)
            if len(vocabulary) != size:
                raise ValueError(f"size must be that of the vocabulary, {len(vocabulary)}; got {size}")
        return cls(kind, size, vocabulary)


_DESCRIPTIONS = {
    "text": "str",
    "tokens": "a list of str",
    "ids": "integers (T,)",
    "features": "numbers (T, D)",
}


def _kind(name: str, sequence: Array | list[Any]) -> str | None:
    """Return the kind of a sequence, None if it is empty; TypeError or ValueError if it is not a sequence."""
    if isinstance(sequence, str):
        return "text"
    if isinstance(sequence, (list, tuple)) and sequence and all(isinstance(token, str) for token in sequence):
        return "tokens"
    try:
        array = np.asarray(sequence)
    except ValueError:
        array = None
    if array is None or array.dtype.kind not in "biufUT":
        kind = type(sequence).__name__ if array is None else f"{type(sequence).__name__} of dtype {array.dtype}"
        raise TypeError(f"{name} must be str, a list of str, or an array (T,) or (T, D) of numbers; got {kind}")
    if array.ndim not in (1, 2):
        raise ValueError(f"{name} must be (T,) or (T, D); got shape {array.shape}")
    if array.dtype.kind in "UT":
        if array.ndim == 1 and array.size:
            return "tokens"
        raise ValueError(f"{name} must be a list of str (T,); got an array {array.shape}")
    if array.ndim == 2:
        if len(array) and not array.shape[1]:
            raise ValueError(f"{name} must have at least one feature a step; got {array.shape}")
        return "features" if array.shape[1] else None
    if array.size == 0:
        return None
    return "ids" if array.dtype.kind in "iu" else "features"


def pad_inputs(arrays: list[Array], format: Format, dtype: str) -> tuple[Array, Array]:
    """Return inputs (T, N) of ids or (T, N, D) of this dtype, and lengths (N,)."""
    return pad(arrays, dtype=np.int64 if format.holds_ids else dtype)


def in_rows(values: Array, lengths: Array) -> list[Array]:
    """values (T, N, ...) -> for each of N sequences its steps (T_n, ...)"""
    return [values[:length, n].copy() for n, length in enumerate(lengths)]


def steps_before(targets: Any, first: int) -> Array:
    """Teacher forcing: each step of targets (T, N, ...) is predicted from the one before, the first from ``first``."""
    inputs = np.empty_like(targets)
    inputs[:1] = first
    inputs[1:] = targets[:-1]
    return inputs


def steps_weights(examples: Examples, rows: Array, lengths: Array) -> tuple[Array | None, float]:
    """Return the weight of every step (T, N) of some examples, each as its sequence, or None; and their sum."""
    if examples.weights is None:
        return None, int(lengths.sum())
    weights = examples.weights[rows]
    return np.tile(weights, (lengths.max(), 1)), float(weights @ lengths)


# ---- labels -----------------------------------------------------------------------------------------------------


# Names of dtypes, without those that say how long a str may be.
_LABEL_DTYPES = ("str", "bool", *(np.dtype(code).name for code in np.typecodes["AllInteger"] + np.typecodes["Float"]))


class Labels:
    """The classes of training data, sorted, and their numbers.

    Attributes
    ----------
    classes : ndarray (C,)
    """

    def __init__(self, classes: Array) -> None:
        self.classes = classes
        self._numbers = {label: number for number, label in enumerate(classes.tolist())}

    def __len__(self) -> int:
        return len(self.classes)

    @classmethod
    def learn(cls, name: str, values: Any) -> Labels:
        if values.dtype.kind == "f" and (fractions := values[values != np.rint(values)]).size:
            raise ValueError(f"{name} must hold classes: str or whole numbers; got the continuous {fractions[0]}")
        return cls(np.unique(values))

    def encode(self, name: str, values: Any) -> Array:
        """values (n,) -> numbers (n,); ValueError for a label that is not among the classes."""
        try:
            return np.array([self._numbers[value] for value in values.tolist()], np.int64)
        except KeyError as error:
            known = ", ".join(map(repr, self.classes.tolist()[:12])) + (", ..." if len(self) > 12 else "")
            raise ValueError(f"{name} must hold labels of the training data ({known}); got {error.args[0]!r}") from None

    def state(self) -> dict[str, Any]:
        kind = self.classes.dtype.kind
        return {"dtype": "str" if kind == "U" else self.classes.dtype.name, "values": self.classes.tolist()}

    @classmethod
    def from_state(cls, state: Any) -> Labels:
        dtype = checks.choice("dtype", state["dtype"], _LABEL_DTYPES)
        return cls(np.array(state["values"], dtype=dtype))


def label_array(name: str, values: Any) -> Array:
    """Return a one-dimensional array of labels that can be compared: str, integers, floats or bool."""
    array = as_array(name, list(values) if isinstance(values, str) else values)
    if array.dtype.kind == "O" and array.ndim == 1 and all(isinstance(value, str) for value in array):
        array = array.astype(str)
    if array.ndim != 1 or array.dtype.kind not in "biufUT":
        raise ValueError(f"{name} must be labels (n,): str or numbers; got {array.shape} of dtype {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite; got {array[~np.isfinite(array)][0]}")
    return array.astype(str) if array.dtype.kind == "T" else array


def label_of_each(name: str, values: Any, X: Any) -> Array:
    """Return labels (N,), one for each sequence of X."""
    labels = label_array(name, values)
    if len(labels) != len(X):
        raise ValueError(f"{name} must have one label a sequence, ({len(X)},); got ({len(labels)},)")
    return labels


def as_sample_weight(values: Any, count: int) -> Array | None:
    """Return weights of sequences as float64 (N,), or None; ValueError unless finite, not negative and not all 0."""
    if values is None:
        return None
    weights = as_array("sample_weight", values)
    if weights.shape != (count,) or weights.dtype.kind not in "biuf":
        got = f"{weights.shape} of dtype {weights.dtype}"
        raise ValueError(f"sample_weight must be (N,) = ({count},), a number for each sequence; got {got}")
    weights = weights.astype(np.float64)
    if wrong := [weight for weight in weights.tolist() if not 0 <= weight < math.inf]:
        raise ValueError(f"sample_weight must be at least 0 and finite; got {wrong[0]}")
    if not weights.any():
        raise ValueError("sample_weight must hold a weight above 0; got zeros only")
    return weights


def class_weights(setting: Any, labels: Any, numbers: Array, sample_weight: Array | None = None) -> Array | None:
    """Return the weight of each class (C,), or None. "balanced" is n / (C count), where examples count their weight."""
    if setting is None:
        return None
    weights = np.ones(len(labels))
    if setting == "balanced":
        counts = np.bincount(numbers, sample_weight, minlength=len(labels))
        return counts.sum() / (len(labels) * np.where(counts > 0, counts, 1))
    for label, number in zip(setting, labels.encode("class_weight", np.array(list(setting))), strict=True):
        weights[number] = setting[label]
    return weights


def check_class_weight(name: str, value: Any) -> Any:
    """Check the setting: None, "balanced", or a dict of label to weight."""
    if value is None or (isinstance(value, str) and value == "balanced"):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be None, 'balanced' or a dict of label to weight; got {value!r}")
    return {
        label.item() if isinstance(label, np.generic) else label: checks.not_negative(f"{name}[{label!r}]", weight)
        for label, weight in value.items()
    }


# ---- held-out data ----------------------------------------------------------------------------------------------


def split_rows(count: int, share: Any, rng: Generator, strata: Array | None = None) -> tuple[Array, Array]:
    """Return the rows to train on and the rows to hold out, the same share of every class if strata (N,) are given."""
    share = float(share)
    if not 0 < share < 1:
        raise ValueError(f"validation must be in (0, 1), or data; got {share}")
    if strata is None:
        order = rng.permutation(count)
        cut = round(count * share)
        if not 0 < cut < count:
            raise ValueError(f"validation = {share} of {count} sequences leaves none on one side")
        return np.sort(order[cut:]), np.sort(order[:cut])
    held_out = []
    for label in np.unique(strata):
        rows = np.flatnonzero(strata == label)
        if len(rows) < 2:
            raise ValueError(
                f"validation = {share} splits every class, but class {label.item()!r} has one example: "
                "leave the class out, or give validation data"
            )
        held_out.append(rng.permutation(rows)[: min(max(round(len(rows) * share), 1), len(rows) - 1)])
    held_out = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(count), held_out), held_out
