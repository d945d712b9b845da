"""Files that are either whole or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | PathLike[str]) -> Iterator[Any]:
    """A binary file to write, which takes the place of ``path`` when all is there; after an error nothing has changed.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = Path(directory, "numbers")
    ...     with replacing(path) as file:
    ...         file.write(bytes(3)), path.exists()
    ...     path.stat().st_size
    (3, False)
    3
    """
    path = Path(path)
    # Written beside its place under another name, then renamed: a crash leaves the old file as it was.
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
