"""Convert text to ids and back; pad, batch by length, split into parallel streams.

Letters: T time, N batch, D features, V vocabulary size, L length of one text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import checks
from ._types import Array
from .engine.arrays import as_array

__all__ = ["Vocabulary", "batches_by_length", "pad", "streams"]

UNK, EOS = "<unk>", "<eos>"
SPECIALS = (UNK, EOS)

Ids = NDArray[np.int64]
Level = Literal["char", "word"]
Text = str | list[str] | tuple[str, ...]

LEVELS: tuple[Level, ...] = get_args(Level)


class Vocabulary:
    r"""Two-way map between text and ids, by characters or by words.

    Id 0 is ``<unk>`` (anything unknown), id 1 is ``<eos>`` (end of sentence), then come ``tokens`` in the
    given order. A vocabulary is immutable.

    * ``"char"``: a token is one character (one Unicode code point); a newline is a character like any other.
      `encode` never returns ``<eos>``; append ``eos_id`` if you need it.
    * ``"word"``: tokens are separated by `str.split`; every newline is ``<eos>``, as is usual for the
      Penn Treebank and WikiText files. The literal words ``<unk>`` and ``<eos>`` in a text are ids 0 and 1.
      `encode` also takes a text already split into tokens, a list or tuple of str; `from_text` takes several.

    Parameters
    ----------
    tokens : iterable of str
        The tokens without the two specials. At level ``"char"`` it may be a str.
    level : {"char", "word"}

    Attributes
    ----------
    tokens : tuple of str       with the specials: ``tokens[id]`` is the token of an id.
    level : str
    unk_id, eos_id : int        0 and 1.

    Raises
    ------
    TypeError
        `tokens` is not an iterable of str.
    ValueError
        Unknown `level`; a token is a special, occurs twice, is not one character (level ``"char"``),
        or is empty or contains white space (level ``"word"``).

    Examples
    --------
    >>> vocabulary = Vocabulary.from_text("the cat\nthe dog\n", level="word")
    >>> vocabulary.tokens
    ('<unk>', '<eos>', 'the', 'cat', 'dog')
    >>> vocabulary.encode("the cow\n")
    array([2, 0, 1])
    >>> vocabulary.decode([2, 4, 1, 2, 3])
    'the dog\nthe cat'
    """

    unk_id, eos_id = 0, 1

    def __init__(self, tokens: Iterable[str], level: Level = "char") -> None:
        checks.choice("level", level, LEVELS)
        if isinstance(tokens, str) and level == "word":
            raise TypeError("tokens must be an iterable of str at level 'word'; got one str")
        if isinstance(tokens, bytes):
            raise TypeError("tokens must be an iterable of str; got bytes")
        tokens = checks.iterable("tokens", tokens, "an iterable of str")
        ids = {UNK: self.unk_id, EOS: self.eos_id}
        for position, token in enumerate(tokens):
            _check_token(token, f"tokens[{position}]", level)
            if token in ids:
                raise ValueError(f"tokens must be distinct; tokens[{position}] = {token!r} came before")
            ids[token] = len(ids)
        self._level, self._tokens, self._ids = level, tuple(ids), ids
        if level == "char":
            # Code point of every id; <unk> is shown as U+FFFD, the entry of <eos> is never used.
            self._codes = np.array([0xFFFD, 0, *map(ord, self._tokens[2:])], dtype="<u4")
            # Id of every code point up to the largest known one; the last entry serves all above it.
            self._table = np.zeros(int(self._codes.max()) + 2, dtype=np.int64)
            self._table[self._codes[2:]] = np.arange(2, len(ids))

    @classmethod
    def from_text(
        cls, text: str | Iterable[Text], level: Level = "char", max_size: int | None = None, min_count: int = 1
    ) -> Self:
        """Build the vocabulary of a text: the most frequent tokens first, ties in code-point order.

        Parameters
        ----------
        text : str, or iterable of str or lists of str
            One text or several (sentences, documents). Nothing is inserted between them. At level ``"word"`` a
            list (or tuple) inside the iterable is a text already split into tokens.
        level : {"char", "word"}
        max_size : int, optional
            Largest number of entries, the two specials included. Default: no limit for characters,
            10,000 for words.
        min_count : int, default 1
            Rarer tokens are left out.

        Returns
        -------
        Vocabulary

        Raises
        ------
        TypeError
            `text` is neither str nor an iterable of texts.
        ValueError
            Unknown `level`, no token at all in `text`, a token of a list is empty or contains white space,
            ``max_size < 3``, ``min_count < 1``.

        Examples
        --------
        >>> Vocabulary.from_text("hello", max_size=4).tokens
        ('<unk>', '<eos>', 'l', 'e')
        >>> Vocabulary.from_text([["John", "Smith"], ["Smith", "'s"]], level="word").tokens
        ('<unk>', '<eos>', 'Smith', "'s", 'John')
        """
        checks.choice("level", level, LEVELS)
        if max_size is None:
            limit = None if level == "char" else 10_000 - len(SPECIALS)
        else:
            limit = checks.integer("max_size", max_size, 3) - len(SPECIALS)
        min_count = checks.integer("min_count", min_count, 1)
        wanted = "str or an iterable of str"
        if isinstance(text, (bytes, bytearray)):
            raise TypeError(f"text must be {wanted}; got {type(text).__name__}")
        parts = iter([text]) if isinstance(text, str) else checks.iterable("text", text, wanted)

        counts: Counter[str] = Counter()
        for position, part in enumerate(parts):
            _check_text(part, f"text[{position}]", level)
            if level == "char":
                _count_characters(counts, part)
            else:
                counts.update(part.split() if isinstance(part, str) else part)
        if not counts:
            raise ValueError(f"text must hold at least one token (level {level!r}); got none")
        for special in SPECIALS:
            counts.pop(special, None)
        frequent = [token for token, count in counts.items() if count >= min_count]
        frequent.sort(key=lambda token: (-counts[token], token))
        return cls(frequent[:limit], level)

    @property
    def level(self) -> Level:
        return self._level

    @property
    def tokens(self) -> tuple[str, ...]:
        return self._tokens

    def __len__(self) -> int:
        return len(self._tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._ids

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return (self._level, self._tokens) == (other._level, other._tokens)

    def __hash__(self) -> int:
        return hash((self._level, self._tokens))

    def __repr__(self) -> str:
        return f"<Vocabulary of {len(self)} {self._level}s>"

    def encode(self, text: Text) -> Ids:
        r"""Return the ids of a text.

        Parameters
        ----------
        text : str, or at level "word" also list or tuple of str
            A list holds tokens and is not split any further.

        Returns
        -------
        ids : ndarray (L,) of int64
            Level ``"char"``: one id per character. Level ``"word"``: one id per word and per newline; for a
            list, one id per token.

        Raises
        ------
        TypeError
            `text` is neither, or a token of a list is not a str.

        Examples
        --------
        >>> Vocabulary("abc").encode("cab!")
        array([4, 2, 3, 0])
        >>> Vocabulary(["a", "b"], level="word").encode("a b\nc")
        array([2, 3, 1, 0])
        >>> Vocabulary(["a", "b"], level="word").encode(["a", "b", "a b", "<eos>"])
        array([2, 3, 0, 1])
        """
        _check_text(text, "text", self._level)
        if self._level == "char":
            # surrogatepass: Python's str may hold lone surrogates (undecodable file names and the like).
            codes = np.frombuffer(str(text).encode("utf-32-le", "surrogatepass"), dtype="<u4")
            return self._table[np.minimum(codes, len(self._table) - 1)]
        words = text.replace("\n", f" {EOS} ").split() if isinstance(text, str) else text
        return np.fromiter(map(self._ids.get, words, repeat(self.unk_id)), dtype=np.int64, count=len(words))

    def decode(self, ids: ArrayLike) -> str:
        r"""Return the text of a sequence of ids.

        Level ``"char"``: the characters one after another; ``<unk>`` becomes U+FFFD (the replacement
        character), ``<eos>`` is dropped. Level ``"word"``: words with one space between them; ``<eos>``
        becomes a newline without spaces around it, ``<unk>`` stays ``<unk>``.

        Parameters
        ----------
        ids : int or array_like of int, (L,)

        Returns
        -------
        str

        Raises
        ------
        TypeError
            `ids` are not integers.
        ValueError
            `ids` has more than one axis, or an id is outside ``[0, V)``.

        Examples
        --------
        >>> Vocabulary("abc").decode([4, 2, 1, 3])
        'cab'
        """
        ids = self._check_ids(ids)
        if ids.ndim > 1:
            raise ValueError(f"ids must be (L,); got shape {ids.shape}")
        ids = np.atleast_1d(ids)
        if self._level == "char":
            return self._codes[ids[ids != self.eos_id]].tobytes().decode("utf-32-le", "surrogatepass")
        words = ["\n" if i == self.eos_id else self._tokens[i] for i in ids.tolist()]
        return " ".join(words).replace(" \n", "\n").replace("\n ", "\n")

    def one_hot(self, ids: ArrayLike, dtype: DTypeLike = "float32") -> Array:
        """Return vectors with a one at the id and zeros elsewhere.

        The recurrent layers take integer ids directly and do not need this.

        Parameters
        ----------
        ids : array_like of int, any shape (...)
        dtype : numpy dtype, default "float32"

        Returns
        -------
        ndarray (..., V)

        Raises
        ------
        TypeError
            `ids` are not integers.
        ValueError
            An id is outside ``[0, V)``.

        Examples
        --------
        >>> Vocabulary("ab").one_hot([3, 0])
        array([[0., 0., 0., 1.],
               [1., 0., 0., 0.]], dtype=float32)
        """
        ids = self._check_ids(ids)
        dtype = checks.dtype("dtype", dtype)
        if dtype.kind not in "biufc":
            raise TypeError(f"dtype must be one of numbers; got {dtype}")
        vectors = np.zeros((ids.size, len(self)), dtype=dtype)
        vectors[np.arange(ids.size), ids.ravel()] = 1
        return vectors.reshape(*ids.shape, len(self))

    def state(self) -> dict[str, Any]:
        """Return the vocabulary as a dict of JSON types, for `from_state`.

        Examples
        --------
        >>> Vocabulary("ab").state()
        {'level': 'char', 'tokens': ['a', 'b']}
        """
        return {"level": self._level, "tokens": list(self._tokens[len(SPECIALS) :])}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild the vocabulary from the dict that `state` returns.

        Parameters
        ----------
        state : dict with the keys "level" and "tokens"

        Raises
        ------
        ValueError
            `state` is not a result of `Vocabulary.state`.

        Examples
        --------
        >>> Vocabulary.from_state({"level": "char", "tokens": ["a", "b"]})
        <Vocabulary of 4 chars>
        """
        if not isinstance(state, Mapping) or set(state) != {"level", "tokens"}:
            got = f"keys {list(state)}" if isinstance(state, Mapping) else type(state).__name__
            raise ValueError(f"state must be a dict with the keys 'level' and 'tokens'; got {got}")
        if not isinstance(state["tokens"], (list, tuple)):
            raise ValueError(f"state['tokens'] must be a list; got {type(state['tokens']).__name__}")
        try:
            return cls(state["tokens"], state["level"])
        except TypeError as error:
            raise ValueError(f"state is not a vocabulary: {error}") from error

    def _check_ids(self, ids: ArrayLike) -> Array:
        ids = as_array("ids", ids)
        if ids.size == 0:
            return ids.astype(np.int64)
        if ids.dtype.kind not in "iu":
            raise TypeError(f"ids must be integers; got dtype {ids.dtype}")
        wrong = (ids < 0) | (ids >= len(self))
        if wrong.any():
            raise ValueError(f"ids must be in [0, {len(self)}); got {ids[wrong].flat[0]}")
        return ids.astype(np.int64, copy=False)


def pad(sequences: Iterable[ArrayLike], *, dtype: DTypeLike | None = None, padding: float = 0) -> tuple[Array, Ids]:
    """Put sequences of different lengths side by side in one time-major array.

    Parameters
    ----------
    sequences : iterable of N array_like, each (T_n,) or (T_n, D)
        A length of 0 is allowed.
    dtype : numpy dtype, optional
        Default: the common dtype of the sequences, by NumPy's promotion; empty sequences are ignored.
    padding : scalar, default 0
        Value after the end of a sequence.

    Returns
    -------
    batch : ndarray (T, N) or (T, N, D)
        T is the largest length.
    lengths : ndarray (N,) of int64

    Raises
    ------
    ValueError
        No sequences, a scalar among them, or shapes that differ in more than the first axis.

    Examples
    --------
    >>> batch, lengths = pad([[3, 4, 5], [6]])
    >>> batch
    array([[3, 6],
           [4, 0],
           [5, 0]])
    >>> lengths
    array([3, 1])
    """
    given = checks.iterable("sequences", sequences, "a list of arrays")
    arrays = [as_array(f"sequences[{n}]", sequence) for n, sequence in enumerate(given)]
    if not arrays:
        raise ValueError("sequences must hold at least one sequence; got none")
    for n, array in enumerate(arrays):
        if array.ndim == 0:
            raise ValueError(f"sequences[{n}] must be (T_n,) or (T_n, D); got a scalar, {array[()]!r}")
        if array.shape[1:] != arrays[0].shape[1:]:
            wanted = ", ".join(["T_n", *map(str, arrays[0].shape[1:])])
            raise ValueError(f"sequences[{n}] must be ({wanted}) like sequences[0]; got {array.shape}")
    if dtype is None:
        try:
            dtype = np.result_type(*([array for array in arrays if array.size] or arrays))
        except TypeError:
            raise TypeError("sequences must have a common dtype; they have none") from None
    dtype = checks.dtype("dtype", dtype)
    lengths = np.array([len(array) for array in arrays], dtype=np.int64)
    try:
        fill = np.asarray(padding)
        if fill.dtype.kind == "c" and dtype.kind != "c":
            raise TypeError("it is complex")
        with np.errstate(over="ignore", invalid="ignore"):
            fill = fill.astype(dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"padding must be a value of {dtype}; got {padding!r}") from error
    if fill.ndim:
        raise ValueError(f"padding must be a single value; got shape {fill.shape}")
    batch = np.full((lengths.max(), len(arrays), *arrays[0].shape[1:]), fill, dtype=dtype)
    for n, array in enumerate(arrays):
        batch[: len(array), n] = array
    return batch, lengths


def batches_by_length(
    lengths: Sequence[int] | Array, batch_size: int, rng: np.random.Generator | None = None
) -> list[Ids]:
    """Group sequences of similar length into batches, to keep padding small.

    Without `rng` the sequences go from short to long, equal lengths in the given order. With `rng`, sequences
    whose lengths differ by less than one step plus a tenth of the shorter length may change places, and the
    batches are in random order. The generator's state determines the result.

    Parameters
    ----------
    lengths : array_like of int (N,)
    batch_size : int
    rng : numpy.random.Generator, optional

    Returns
    -------
    list of ndarray (batch_size,) of int64
        Indices into `lengths`, each exactly once. One batch may be smaller than the others.

    Raises
    ------
    TypeError
        `lengths` or `batch_size` are not integers, `rng` is not a Generator.
    ValueError
        ``batch_size < 1``, `lengths` is not (N,) or has a negative entry.

    Examples
    --------
    >>> batches_by_length([5, 1, 4, 2], batch_size=2)
    [array([1, 3]), array([2, 0])]
    """
    lengths = _integers("lengths", lengths, "(N,)")
    batch_size = checks.integer("batch_size", batch_size, 1)
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator or None; got {type(rng).__name__}")
    if (lengths < 0).any():
        raise ValueError(f"lengths must not be negative; got {lengths.min()}")
    key = lengths
    if rng is not None:
        key = lengths + rng.random(len(lengths)) * (1 + lengths / 10)
    order = np.argsort(key, kind="stable")
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if rng is not None:
        rng.shuffle(batches)
    return batches


def streams(ids: ArrayLike, batch_size: int) -> Ids:
    """Split one long text into N streams that are read in parallel.

    Column n of the result is ``ids[n*S:(n+1)*S]`` with ``S = L // N``; the last ``L - S*N`` ids are dropped.
    Consecutive blocks of rows then continue each other, so the state can be carried from block to block
    (truncated back-propagation through time).

    Parameters
    ----------
    ids : array_like of int (L,)
    batch_size : int
        N.

    Returns
    -------
    ndarray (S, N)
        A fresh array of the dtype of `ids`.

    Raises
    ------
    TypeError
        `ids` or `batch_size` are not integers.
    ValueError
        ``batch_size < 1``, `ids` is not (L,), or it is shorter than `batch_size`.

    Examples
    --------
    >>> streams([0, 1, 2, 3, 4, 5, 6], batch_size=2)
    array([[0, 3],
           [1, 4],
           [2, 5]])
    """
    ids = _integers("ids", ids, "(L,)")
    batch_size = checks.integer("batch_size", batch_size, 1)
    if len(ids) < batch_size:
        raise ValueError(f"ids must hold at least batch_size = {batch_size} ids; got {len(ids)}")
    steps = len(ids) // batch_size
    return ids[: steps * batch_size].reshape(batch_size, steps).T.copy(order="C")


def _check_text(text: Any, name: str, level: str) -> None:
    if isinstance(text, str):
        return
    is_list = isinstance(text, (list, tuple))
    if level == "char" or not is_list:
        wanted = "str or a list of str" if level == "word" else "str at level 'char'" if is_list else "str"
        raise TypeError(f"{name} must be {wanted}; got {type(text).__name__}")
    for position, token in enumerate(text):
        if not isinstance(token, str):
            raise TypeError(f"{name}[{position}] must be str; got {type(token).__name__}")


def _count_characters(counts: Counter[str], text: str) -> None:
    if len(text) < 1 << 14:  # the largest code point may cost more than the text
        counts.update(text)
        return
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    found = np.bincount(codes)
    for code in np.flatnonzero(found).tolist():
        counts[chr(code)] += int(found[code])


def _check_token(token: str, name: str, level: str) -> None:
    if not isinstance(token, str):
        raise TypeError(f"{name} must be str; got {type(token).__name__}")
    if token in SPECIALS:
        raise ValueError(f"{name} must not be {token!r}: the specials are added by themselves")
    if level == "char" and len(token) != 1:
        raise ValueError(f"{name} must be one character at level 'char'; got {token!r}")
    if level == "word" and token.split() != [token]:
        raise ValueError(f"{name} must be a word without white space at level 'word'; got {token!r}")


def _integers(name: str, values: ArrayLike, shape: str) -> Array:
    values = as_array(name, values)
    if values.ndim != 1:
        raise ValueError(f"{name} must be {shape}; got shape {values.shape}")
    if values.size == 0:
        return values.astype(np.int64)
    if values.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers; got dtype {values.dtype}")
    return values
