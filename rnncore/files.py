"""Write files atomically."""

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
    """Open a binary file that replaces ``path`` once it is completely written; an error leaves ``path`` unchanged.

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
    # Write a temporary file in the same directory, then rename it: a crash leaves the old file unchanged.
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
