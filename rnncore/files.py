"""Write files so that no name ever stands for half a file, and nothing that is not a file is replaced by one."""

from __future__ import annotations

import errno
import io
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from . import checks
from .interrupts import interrupts_later

__all__ = ["is_stream", "open_file", "replacing"]


def is_stream(path: str | PathLike[str]) -> bool:
    """Tell whether a FIFO, a device or a socket is at ``path``: written into, where a file is replaced.

    Examples
    --------
    >>> is_stream(os.devnull), is_stream("."), is_stream("no such file")
    (True, False, False)
    """
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)


def open_file(path: str | PathLike[str]) -> BinaryIO:
    """Open a file that is read in any order, not from its begin to its end; ValueError for a FIFO or a device.

    Opening a FIFO would wait for somebody who writes to it.

    Examples
    --------
    >>> open_file(os.devnull)
    Traceback (most recent call last):
    ValueError: /dev/null must be a file: a FIFO or a device cannot be read in any order
    """
    if is_stream(path):
        raise ValueError(f"{os.fspath(path)} must be a file: a FIFO or a device cannot be read in any order")
    return open(path, "rb")


@contextmanager
def replacing(path: str | PathLike[str], *, interruptible: bool = False) -> Iterator[Any]:
    """Open a binary file that replaces ``path`` once it is completely written; an error leaves ``path`` unchanged.

    A symbolic link stays, and what it points to is replaced. A file that is replaced passes on its permissions and,
    where that is allowed, its owner and group. A FIFO or a device stays, and the whole content is written into it.

    Content and name are on the disk when the block ends, so that a power failure afterwards loses neither. A kill may
    leave a second file, ``.rnncore-...``. Where the file system has files without a name, that one is whole, too: it is
    named at the end, just before it takes the place of the first.

    In the main thread Ctrl-C waits until the file is written, then the handler of SIGINT is called. If it raises
    KeyboardInterrupt, a note on the exception says that the file was written. Where a reader must come first, as at a
    FIFO, and if it is ``interruptible``, Ctrl-C does not wait; it is an error like others.

    Raises
    ------
    OSError
        The file cannot be written; the error names ``path``.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = Path(directory, "numbers")
    ...     with replacing(path) as file:
    ...         file.write(bytes(3)), path.exists()
    ...     path.stat().st_size
    (3, False)
    3
    """
    path, written = checks.path("path", path), False
    try:
        if is_stream(path):
            content = io.BytesIO()
            with interrupts_later():
                yield content
            _write_into(path, content.getbuffer())
        else:
            with nullcontext() if interruptible else interrupts_later():
                with _replacement(Path(os.path.realpath(path))) as file:
                    yield file
                written = True
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    except KeyboardInterrupt as interrupt:
        if written:
            interrupt.add_note(f"{os.fspath(path)} was written before the interrupt")
        raise


def _write_into(path: str | PathLike[str], content: memoryview) -> None:
    # Without a buffer: closing the file after an interrupt would wait for a reader again.
    with open(path, "wb", buffering=0, opener=lambda path, flags: os.open(path, flags & ~os.O_CREAT)) as file:
        while content:
            content = content[file.write(content) :]


@contextmanager
def _replacement(target: Path) -> Iterator[Any]:
    """Open a new file in the target's folder that takes the target's place at the end of the block."""
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    before = target.stat() if target.exists() else None
    temporary = target.with_name(f".rnncore-{secrets.token_hex(8)}")
    try:
        file, named = _open_without_name(target.parent, before), False
    except OSError:  # not on this system, or in this file system
        file, named = _open_as(temporary, before), True
    try:
        with file:
            yield file
            _finish(file, before)
            if not named:
                _name(file, temporary, before)
            os.replace(temporary, target)
            _sync_folder(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _open_without_name(folder: Path, before: os.stat_result | None) -> Any:
    """Open a new file that has no name, so that nothing of it is left if the process is killed while it writes."""
    if not hasattr(os, "O_TMPFILE"):
        raise OSError("this system has no files without a name")
    return open(folder, "w+b", opener=lambda path, _: os.open(path, os.O_TMPFILE | os.O_RDWR, _first_mode(before)))


def _open_as(name: Path, before: os.stat_result | None) -> Any:
    return open(name, "xb", opener=lambda path, flags: os.open(path, flags, _first_mode(before)))


def _first_mode(before: os.stat_result | None) -> int:
    """Permissions of a new file: the usual ones, or nobody else's until it has those of the file before it."""
    return 0o666 if before is None else 0o600


def _finish(file: Any, before: os.stat_result | None) -> None:
    """Bring the content to the disk, and give the file the owner and permissions of the one that it replaces."""
    file.flush()
    if before is not None:
        descriptor, mode = file.fileno(), before.st_mode & 0o777
        try:
            os.fchown(descriptor, before.st_uid, before.st_gid)
        except OSError:
            try:
                os.fchown(descriptor, -1, before.st_gid)
            except OSError:
                # Another group may do no more than everybody may.
                mode &= 0o707 | (mode & 0o007) << 3
        os.fchmod(descriptor, mode)
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Bring the new name to the disk, too, where the system and the file system can do that for a folder."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _name(file: Any, name: Path, before: os.stat_result | None) -> None:
    """Give a file without a name one."""
    descriptor = file.fileno()
    try:
        # A file descriptor for the folder makes this linkat, which follows /proc's link; as the path is absolute, the
        # descriptor is not used.
        os.link(f"/proc/self/fd/{descriptor}", name, src_dir_fd=descriptor)
    except OSError:  # no /proc, or links are forbidden to this process
        file.seek(0)
        with _open_as(name, before) as copy:
            shutil.copyfileobj(file, copy)
            _finish(copy, before)
