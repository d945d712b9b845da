"""What a language model is given to read: texts in memory, in files, or from an iterator, encoded as ids."""

from __future__ import annotations

import platform
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from typing import Any

import numpy as np

from .. import checks
from .._types import Array
from ..corpus import Corpus, Ids, ids_dtype
from ..distributed import Ranks
from ..text import Level, Vocabulary, batches_by_length, pad
from .position import checksum
from .shards import ALL, rows_of_shards

#: What ``fit`` takes: one text (a str, or files of it), or sentences.
Texts = str | PathLike[str] | Corpus | Sequence[str | PathLike[str]] | Iterable[str]


class OneText:
    """A continuous text: a str, or the text of a Corpus."""

    holds_sentences = False

    def __init__(self, text: str | Corpus) -> None:
        self._text, self.is_empty = text, text == ""

    def vocabulary(self, level: Level, max_size: int | None, ranks: Ranks) -> Vocabulary:
        """Learn the vocabulary; that of files is learned by rank 0 alone."""
        if isinstance(self._text, str):
            return Vocabulary.from_text(self._text, level, max_size)
        learned = self._text.vocabulary(level, max_size, tick=ranks.listen).state() if ranks.rank == 0 else None
        return Vocabulary.from_state(ranks.broadcast(learned))

    def encode(self, vocabulary: Vocabulary, ranks: Ranks, ends: bool) -> list[Any]:
        """Return a list of one array of ids, or Ids of a file that the ranks of a node share; ends: with <eos>."""
        if isinstance(self._text, str):
            ids: Any = vocabulary.encode(self._text)
        else:
            ids = self._ids(self._text, vocabulary, ranks)
        return [np.append(ids[:], vocabulary.eos_id)] if ends else [ids]

    def _ids(self, text: Corpus, vocabulary: Vocabulary, ranks: Ranks) -> Ids:
        path = text.write_ids(vocabulary, tick=ranks.listen) if ranks.rank == 0 else None
        if ranks.size > 1:
            nodes = ranks.collect(platform.node())
            first = nodes.index(nodes[ranks.rank])
            if first == ranks.rank and ranks.rank > 0:  # finds it where the ranks share their files
                path = text.write_ids(vocabulary, tick=ranks.listen)
            path = ranks.collect(path)[first]
        assert path is not None
        ids = Ids(path)
        ranks.collect(None)  # a temporary file is there until all have opened it
        return ids


class Sentences:
    """Sentences, each of which ends in <eos>."""

    holds_sentences = True

    def __init__(self, sentences: list[str]) -> None:
        self._sentences, self.is_empty = sentences, not sentences

    def __iter__(self) -> Iterator[str]:
        return iter(self._sentences)

    def vocabulary(self, level: Level, max_size: int | None, ranks: Ranks) -> Vocabulary:
        """Learn the vocabulary."""
        return Vocabulary.from_text(self, level, max_size)

    def encode(self, vocabulary: Vocabulary, ranks: Ranks, ends: bool) -> Any:
        """Return arrays of ids; ends: with <eos>."""
        end = [vocabulary.eos_id] if ends else []
        return [np.concatenate([vocabulary.encode(text), end]).astype(np.int64) for text in self]


def _temporary_file(owner: object) -> Any:
    """Open a file that is there as long as its owner."""
    file = tempfile.TemporaryFile(prefix="rnncore-")
    weakref.finalize(owner, file.close)
    return file


class SpooledSentences(Sentences):
    """The sentences of an iterator, kept in a temporary file; their lengths stay in memory."""

    def __init__(self, sentences: Iterable[str]) -> None:
        self._file = _temporary_file(self)
        self._sizes = array("q")
        for position, text in enumerate(sentences):
            if not isinstance(text, str):
                raise TypeError(f"texts must hold str; got {type(text).__name__} at {position}")
            self._sizes.append(self._file.write(text.encode("utf-8", "surrogatepass")))
        self.is_empty = not self._sizes

    def __iter__(self) -> Iterator[str]:
        self._file.seek(0)
        return (self._file.read(size).decode("utf-8", "surrogatepass") for size in self._sizes)

    def encode(self, vocabulary: Vocabulary, ranks: Ranks, ends: bool) -> Any:
        """Return the ids, as a sequence of arrays."""
        return EncodedSentences(self, vocabulary, ends)


class EncodedSentences(Sequence[Array]):
    """Ids of many sentences in a temporary file; ends: with <eos>."""

    def __init__(self, sentences: Iterable[str], vocabulary: Vocabulary, ends: bool) -> None:
        self._file, self._dtype = _temporary_file(self), ids_dtype(vocabulary)
        self._ends = array("q", [0])
        for text in sentences:
            ids = np.concatenate([vocabulary.encode(text), [vocabulary.eos_id] * ends]).astype(self._dtype)
            self._file.write(ids.data)
            self._ends.append(self._ends[-1] + len(ids))
        self.lengths = np.diff(self._ends)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: Any) -> Any:
        begin, size = self._ends[index], int(self.lengths[index])
        self._file.seek(begin * self._dtype.itemsize)
        return np.frombuffer(self._file.read(size * self._dtype.itemsize), self._dtype).astype(np.int64)


def as_source(name: str, texts: Any) -> OneText | Sentences:
    """Return the source of what the user gave; TypeError or ValueError for anything else."""
    if is_one_text(texts):
        with checks.named(paths=name):
            return OneText(texts if isinstance(texts, (str, Corpus)) else Corpus(texts))
    wanted = "a str, a path, a Corpus, a list of str or of paths, or an iterator of str"
    if isinstance(texts, (bytes, bytearray)):
        raise TypeError(f"{name} must be {wanted}; got {type(texts).__name__}")
    given = checks.iterable(name, texts, wanted)
    if not hasattr(texts, "__len__"):
        return SpooledSentences(given)
    return Sentences(list(given))


def is_one_text(texts: Any) -> bool:
    """Whether as_source makes one text of it."""
    if isinstance(texts, (str, Corpus, PathLike)):
        return True
    return isinstance(texts, (list, tuple)) and bool(texts) and all(isinstance(text, PathLike) for text in texts)


def lengths_of(encoded: Any) -> Array:
    """Return the tokens of each of some texts or sentences."""
    if isinstance(encoded, EncodedSentences):
        return encoded.lengths
    return np.array([len(ids) for ids in encoded], np.int64)


def data_checksum(encoded: Any) -> int:
    """Return a number that tells data apart."""
    if len(encoded) == 1 and isinstance(encoded[0], Ids):
        return encoded[0].key
    return checksum([encoded])


# ---- chunks ---------------------------------------------------------------------------------------------------------


class Streams:
    """The chunks of one text that is read as N streams side by side (see :func:`rnncore.streams`), made when needed.

    A part of a chunk is: inputs (T, N), targets (T, N), None, and whether the state starts anew.
    """

    def __init__(self, ids: Any, N: int, chunk_length: int, first: int) -> None:
        self._ids, self._N, self._chunk_length, self._first = ids, N, chunk_length, first
        self._steps = len(ids) // N

    def __len__(self) -> int:
        return -(-self._steps // self._chunk_length)

    def count(self, number: int) -> int:
        return self._N

    def part(self, number: int, own: range = ALL, shards: int = 1) -> tuple[Any, ...]:
        begin = number * self._chunk_length
        end = min(begin + self._chunk_length, self._steps)
        # With the token before each stream's part; that before the first one is replaced.
        starts = rows_of_shards(self._N, own, shards) * self._steps
        ids = np.asarray(self._ids[starts + np.arange(begin - 1, end)[:, None]], np.int64)
        if number == 0:
            ids[0] = self._first
        return ids[:-1], ids[1:], None, number == 0


class SentenceChunks:
    """The chunks of batches of sentences, which are padded when they are needed; parts as of Streams, with lengths."""

    def __init__(self, encoded: Any, batches: list[Array], chunk_length: int, first: int) -> None:
        self._encoded, self._batches, self._chunk_length, self._first = encoded, batches, chunk_length, first
        lengths = lengths_of(encoded)
        self._places = [
            (batch, begin)
            for batch, rows in enumerate(batches)
            for begin in range(0, int(lengths[rows].max(initial=0)), chunk_length)
        ]
        self._padded: tuple[int, Any] = (-1, None)  # the last batch

    def __len__(self) -> int:
        return len(self._places)

    def count(self, number: int) -> int:
        return len(self._batches[self._places[number][0]])

    def part(self, number: int, own: range = ALL, shards: int = 1) -> tuple[Any, ...]:
        batch, begin = self._places[number]
        if self._padded[0] != batch:
            self._padded = batch, pad([self._encoded[row] for row in self._batches[batch]])
        targets, lengths = self._padded[1]
        rows = rows_of_shards(targets.shape[1], own, shards)
        return cut(targets[:, rows], lengths[rows], begin, self._chunk_length, self._first)


def cut(targets: Any, lengths: Any, begin: int, chunk_length: int, first: int) -> tuple[Any, ...]:
    """Return a chunk of targets (T, N) from a step on: inputs, targets, lengths left, whether the state starts anew."""
    wanted = np.asarray(targets[begin : begin + chunk_length], np.int64)
    inputs = np.empty_like(wanted)
    inputs[1:] = wanted[:-1]
    inputs[:1] = first if begin == 0 else targets[begin - 1]
    left = None if lengths is None else np.clip(lengths - begin, 0, len(wanted))
    return inputs, wanted, left, begin == 0


def sentence_batches(encoded: Any, batch_size: int, rng: Any = None) -> list[Array]:
    """Return rows of sentences of like length."""
    return batches_by_length(lengths_of(encoded), batch_size, rng)
