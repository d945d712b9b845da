"""Texts in files, which may be larger than memory: read in blocks, and kept as ids in a file beside them."""

from __future__ import annotations

import copy
import errno
import glob
import gzip
import hashlib
import io
import json
import mmap
import os
import shutil
import sys
import tempfile
import warnings
import weakref
import zlib
from collections.abc import Callable, Iterable, Iterator
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np

from . import checks
from ._types import Array
from .files import is_stream, replacing
from .text import LEVELS, Level, Vocabulary

__all__ = ["Corpus"]

BLOCK = 1 << 20  # characters
HEADER = 128  # bytes of the header of an .npy file of one axis
RELEASE = 64  # chunks that are read between two releases of the pages

Paths = str | PathLike[str] | Iterable[str | PathLike[str]]


def _nothing() -> None:
    pass


class Corpus:
    """One text in one or several files, of any size; :meth:`rnncore.LanguageModel.fit` takes it as it takes a str.

    It is read in blocks. Its ids are written once, to a file beside the first one, ``NAME.KEY.ids.npy``, of 2 or 4
    bytes a token; the key says which text and vocabulary they are of, so that the next ``fit`` finds them. Where the
    folder cannot be written to, they go to a temporary file, with a warning.

    Parameters
    ----------
    paths : path or list of paths
        Files in their order; names may have the wildcards of :func:`glob.glob`, whose matches come in order of name.
        Names that end in ``.gz`` are decompressed.
    encoding : str
        "utf-8-sig" is UTF-8, with or without a byte order mark.

    Attributes
    ----------
    paths : list of Path
    encoding : str

    Raises
    ------
    FileNotFoundError
        There is no such file.
    TypeError, ValueError
        `paths` are no paths, or none; there is no such encoding.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name, text in [("b.txt", "be."), ("a.txt", "to be or not to ")]:
    ...         _ = Path(folder, name).write_text(text)
    ...     corpus = Corpus(Path(folder, "*.txt"))
    ...     "".join(corpus.blocks()), [path.name for path in corpus.paths]
    ('to be or not to be.', ['a.txt', 'b.txt'])
    """

    def __init__(self, paths: Paths, encoding: str = "utf-8-sig") -> None:
        given: Any = [paths] if isinstance(paths, (str, PathLike)) else paths
        if isinstance(given, (bytes, bytearray)):
            raise TypeError(f"paths must be a path or a list of paths; got {type(paths).__name__}")
        given = checks.iterable("paths", given, "a path or a list of paths")
        self.paths = [found for path in given for found in _expand(path)]
        if not self.paths:
            raise ValueError("paths must hold at least one path; got none")
        try:
            "".encode(encoding)
        except LookupError:
            raise ValueError(f"encoding must be one that Python knows; got {encoding!r}") from None
        self.encoding = encoding
        self._begin, self._end = 0, sys.maxsize  # characters
        self._checksums: dict[Any, str] = {}  # of the text as it was, by what the files were like
        self._temporary: dict[Path, Path] = {}  # files of ids that could not be written where they belong

    def __repr__(self) -> str:
        others = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        return f"<Corpus {self.paths[0]}{others}>"

    def blocks(self, level: Level = "char") -> Iterator[str]:
        """Yield the text in blocks of about a million characters.

        Parameters
        ----------
        level : {"char", "word"}
            "word" cuts between words only. The end of a file ends a word.

        Raises
        ------
        OSError
            A file cannot be read, or is not compressed as its name says.
        ValueError
            A file is not text of this encoding.
        """
        checks.choice("level", level, LEVELS)
        position = 0
        for path in self.paths:
            rest = ""
            for block in self._blocks_of(path):
                begin, end = self._begin - position, self._end - position
                position += len(block)
                block = block[max(begin, 0) : max(end, 0)]
                if level == "word":
                    block, rest = _cut_between_words(rest + block)
                yield block
                if position >= self._end:
                    break
            if rest:
                yield rest
            if position >= self._end:
                return
            if level == "word":
                yield " "

    def _blocks_of(self, path: Path) -> Iterator[str]:
        try:
            with _open(path, self.encoding) as file:
                while block := file.read(BLOCK):
                    yield block
        except UnicodeError as error:
            raise ValueError(f"{path} is not {self.encoding} text: {error}") from None
        except (EOFError, zlib.error) as error:
            raise OSError(f"{path} is not a whole gzip file: {error}") from None

    def split(self, share: float, level: Level = "char") -> tuple[Corpus, Corpus]:
        """Return the text without its end, and its end: to hold it out.

        Parameters
        ----------
        share : float
            Of the characters of the end, in (0, 1).
        level : {"char", "word"}
            "word" cuts between words.

        Raises
        ------
        OSError, ValueError
            As :meth:`blocks`; or the share is out of its range.

        Examples
        --------
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "text").write_text("to be or not to be")
        ...     ["".join(part.blocks()) for part in Corpus(Path(folder, "text")).split(0.3, "word")]
        ['to be or not ', 'to be']
        """
        share = checks.proper_share("share", share)
        checks.choice("level", level, LEVELS)
        size = sum(map(len, self.blocks()))
        cut = self._begin + round(size * (1 - share))
        if level == "word":
            cut = self._between_words(cut)
        parts = copy.copy(self), copy.copy(self)
        parts[0]._end, parts[1]._begin = cut, cut
        for part in parts:
            part._checksums, part._temporary = {}, {}
        return parts

    def _between_words(self, cut: int) -> int:
        """Return the position after the last white space before a position, if its block has any."""
        position = 0
        for path in self.paths:
            for block in self._blocks_of(path):
                if position < cut <= position + len(block):
                    kept, _ = _cut_between_words(block[: cut - position])
                    return position + len(kept) if kept else cut
                position += len(block)
        return cut

    def vocabulary(
        self, level: Level = "char", max_size: int | None = None, *, tick: Callable[[], object] = _nothing
    ) -> Vocabulary:
        """Build the vocabulary of the text, in one pass: see :meth:`rnncore.Vocabulary.from_text`.

        Parameters
        ----------
        level, max_size
            As there.
        tick : function
            Called after each block.

        Raises
        ------
        OSError, ValueError
            As :meth:`blocks`; or there is no token.
        """
        state = self._state(level)
        hasher = hashlib.sha256()
        vocabulary = Vocabulary.from_text(self._hashed(level, hasher, tick), level, max_size)
        self._checksums = {state: hasher.hexdigest()}
        return vocabulary

    def _state(self, level: Level) -> tuple[Any, ...]:
        """What changes if a file does."""
        found = [path.stat() for path in self.paths]
        return level, *((status.st_size, status.st_mtime_ns, status.st_ino) for status in found)

    def ids(self, vocabulary: Vocabulary, *, tick: Callable[[], object] = _nothing) -> Ids:
        """Return the ids of the text: those of the file beside it, which is written if it is not there.

        Parameters
        ----------
        vocabulary : Vocabulary
        tick : function
            Called after each block.

        Returns
        -------
        Ids
            Memory-mapped.

        Raises
        ------
        OSError, ValueError
            As :meth:`blocks`.
        """
        return Ids(self.write_ids(vocabulary, tick=tick))

    def write_ids(self, vocabulary: Vocabulary, *, tick: Callable[[], object] = _nothing) -> Path:
        """Write the file of ids unless it is there, and return its path. Arguments and errors as :meth:`ids`."""
        checks.instance("vocabulary", vocabulary, Vocabulary, "a Vocabulary")
        checks.callable_("tick", tick)
        state = self._state(vocabulary.level)
        if state not in self._checksums:
            hasher = hashlib.sha256()
            for _ in self._hashed(vocabulary.level, hasher, tick):
                pass
            self._checksums = {state: hasher.hexdigest()}
        checksum = self._checksums[state]
        path = self._path_of_ids(checksum, vocabulary)
        path = self._temporary.get(path, path)
        if not _holds_ids(path, ids_dtype(vocabulary)):
            try:
                self._write(path, checksum, vocabulary, tick)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise
                warnings.warn(f"the ids of {self!r} go to a temporary file: {path} cannot be written", stacklevel=2)
                folder = tempfile.mkdtemp(prefix="rnncore-")
                weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
                own = path
                path = self._temporary[own] = Path(folder, own.name)
                self._write(path, checksum, vocabulary, tick)
        return path

    def _path_of_ids(self, checksum: str, vocabulary: Vocabulary) -> Path:
        state = json.dumps([checksum, vocabulary.state()]).encode()
        first = self.paths[0]
        return first.with_name(f"{first.name}.{hashlib.sha256(state).hexdigest()[:16]}.ids.npy")

    def _hashed(self, level: Level, hasher: Any, tick: Callable[[], object]) -> Iterator[str]:
        checks.callable_("tick", tick)
        for block in self.blocks(level):
            hasher.update(block.encode("utf-8", "surrogatepass"))
            yield block
            tick()

    def _write(self, path: Path, checksum: str, vocabulary: Vocabulary, tick: Callable[[], object]) -> None:
        hasher = hashlib.sha256()
        dtype = ids_dtype(vocabulary)
        with replacing(path, interruptible=True) as file:
            file.write(bytes(HEADER))
            count = 0
            for block in self._hashed(vocabulary.level, hasher, tick):
                ids = vocabulary.encode(block)
                file.write(ids.astype(dtype).data)
                count += len(ids)
            if hasher.hexdigest() != checksum:
                raise ValueError(f"the text of {self!r} must not change while it is read")
            file.seek(0)
            np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": (count,)})
            if file.tell() != HEADER:
                raise OSError(f"the header of {path} must be {HEADER} bytes; NumPy wrote {file.tell()}")


def ids_dtype(vocabulary: Vocabulary) -> np.dtype[Any]:
    """Return the smallest dtype for the ids of a vocabulary in a file."""
    return np.dtype("<u2" if len(vocabulary) <= 1 << 16 else "<u4")


class Ids:
    """The ids of a text, in a file that is mapped into memory, or in an array.

    Pages that were read are given back now and then: the memory of the process does not grow with the text.
    """

    def __init__(self, source: Path | Array) -> None:
        self.key = 0  # tells texts apart
        if isinstance(source, Path):
            self._array: Array = np.load(source, mmap_mode="r")
            self.key = int(source.name.rsplit(".", 3)[1][:8], 16)
        else:
            self._array = source
        self._mapping: mmap.mmap | None = getattr(self._array, "_mmap", None)
        self._reads = 0

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, positions: Any) -> Array:
        """Return ids at some positions, int64."""
        ids = np.asarray(self._array[positions], np.int64)
        self._reads += 1
        if self._mapping is not None and self._reads % RELEASE == 0 and hasattr(mmap, "MADV_DONTNEED"):
            self._mapping.madvise(mmap.MADV_DONTNEED)
        return ids


def _holds_ids(path: Path, dtype: np.dtype[Any]) -> bool:
    """Whether a whole file of ids is there; ValueError for a FIFO or a device, which cannot be mapped into memory."""
    if is_stream(path):
        raise ValueError(f"{path} must be a file, for ids; got a FIFO or a device")
    try:
        with open(path, "rb") as file:
            if file.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
                return False
        ids = np.load(path, mmap_mode="r")
    except Exception:  # whatever NumPy raises for bytes that are not its own
        return False
    return bool(ids.ndim == 1 and ids.dtype == dtype)


def _expand(path: Any) -> list[Path]:
    name = checks.path("paths", path)
    if os.path.exists(name) or not glob.has_magic(name):
        os.stat(name)  # FileNotFoundError names it
        return [Path(name)]
    found = sorted(entry for entry in glob.glob(name) if not entry.endswith(".ids.npy"))
    if not found:
        raise FileNotFoundError(f"no file matches {name}")
    return [Path(entry) for entry in found]


def _open(path: Path, encoding: str) -> IO[str]:
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path, "rb"), encoding=encoding)
    return open(path, encoding=encoding)


def _cut_between_words(text: str) -> tuple[str, str]:
    """Return the text up to its last white space, and the rest."""
    kept = len(text)
    while kept and not text[kept - 1].isspace():
        kept -= 1
    return text[:kept], text[kept:]
