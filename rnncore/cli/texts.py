"""The texts of a command, and how a loss is described."""

from __future__ import annotations

import math
from os import PathLike
from pathlib import Path
from typing import Any

from ..corpus import Corpus
from .errors import UserError

LARGE = 100_000_000  # bytes of a text that is not read into memory


def read_text(path: str | PathLike[str], encoding: str) -> str:
    try:
        text = Path(path).read_text(encoding=encoding)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {error.start}"
        raise UserError(f"{path} is not {encoding} text: {where}; see --encoding") from None
    except UnicodeError as error:
        raise UserError(f"{path} is not {encoding} text: {error}; see --encoding") from None
    except LookupError:
        raise UserError(f"--encoding: {encoding!r} is not an encoding that Python knows") from None
    if not text.strip():
        raise UserError(f"{path} holds no text")
    return text


def open_text(path: str | PathLike[str], encoding: str) -> str | Corpus:
    """Return the text of a file; a Corpus if it is large, whose ids then stay beside it."""
    try:
        if not str(path).endswith(".gz") and Path(path).stat().st_size < LARGE:
            return read_text(path, encoding)
        corpus = Corpus(path, encoding)
        if Path(path).stat().st_size >= LARGE:
            return corpus
        blocks, size = [], 0
        for block in corpus.blocks():
            blocks.append(block)
            size += len(block)
            if size >= LARGE:  # of a small file, compressed
                return corpus
        return "".join(blocks)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"{error}; see --encoding") from None


def count_characters(text: str | Corpus) -> int:
    return len(text) if isinstance(text, str) else sum(map(len, text.blocks()))


def count_tokens(text: str | Corpus, vocabulary: Any) -> int:
    return len(vocabulary.encode(text) if isinstance(text, str) else text.ids(vocabulary))


def default_text() -> Any:
    """Return the help topics of Python: 600,000 characters of English text that every CPython has."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name].strip() for name in sorted(topics)) + "\n"


def split(text: Any, share: float, level: Any) -> tuple[Any, Any]:
    """Return the training text and the held-out text, the last `share` of the whole."""
    if isinstance(text, Corpus):
        return text.split(share, level)
    cut = round(len(text) * (1 - share))
    if level == "word":
        # Not within a word.
        cut = max(text.rfind("\n", 0, cut), text.rfind(" ", 0, cut)) + 1 or cut
    return text[:cut], text[cut:]


def read_texts(arguments: Any) -> tuple[str, Any, Any]:
    """Return the name of the text, the training text and the held-out text."""
    if arguments.file is None:
        name, text = "Python's help topics", default_text()
    else:
        name, text = arguments.file, open_text(arguments.file, arguments.encoding)
    if arguments.held_out_file is not None:
        training, held_out = text, open_text(arguments.held_out_file, arguments.encoding)
    else:
        try:
            training, held_out = split(text, arguments.held_out, arguments.level)
        except (OSError, ValueError) as error:  # of a large text, which is read only now
            raise UserError(f"cannot read {name}: {error}; see --encoding") from None
    counts = [count(part, arguments.level) for part in (training, held_out)]
    if counts[0] < 2 * arguments.batch or counts[1] < 1:
        raise UserError(
            f"{name} is too short: {counts[0]} training and {counts[1]} held-out tokens; "
            f"--batch {arguments.batch} needs at least {2 * arguments.batch} and 1"
        )
    return name, training, held_out


def count(text: Any, level: str) -> int:
    """Return the number of tokens, as far as it matters whether a text is too short."""
    if isinstance(text, Corpus):
        return LARGE
    return len(text) if level == "char" else len(text.split())


def describe_loss(nats: float, model: Any, characters_per_token: float) -> str:
    bits = nats / math.log(2) / characters_per_token
    if model.level == "char":
        return f"{nats:.3f} nats = {bits:.3f} bits a character"
    return f"{nats:.3f} nats a word (perplexity {math.exp(min(nats, 700)):,.1f}), {bits:.3f} bits a character"
