"""Devices, small disks and folders that cannot be written to."""

import os
import resource
import shutil
import stat
import subprocess
from contextlib import contextmanager

import numpy as np
import pytest

from rnncore.models.storage import CHECKSUM, checksum

NULL, FULL = 3, 7  # numbers of Linux's memory devices


def make_device(path, minor):
    """Make a device of its own for a test: code that is wrong must not replace that of the machine."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        with open(path, "rb"):
            return path
    except OSError:
        pytest.skip("devices cannot be made here")


def write_model_file(path, contents):
    """A model file of these members, with the checksum that they have."""
    contents = {name: value for name, value in contents.items() if name != CHECKSUM}
    np.savez(path, **contents, **{CHECKSUM: checksum(contents)})


@contextmanager
def mounted(folder, options):
    """Mount a disk in memory; where that is not allowed, the test is skipped."""
    if (
        shutil.which("mount") is None
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=False, stderr=subprocess.DEVNULL
        ).returncode
    ):
        pytest.skip("no disk can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def at_most(size):
    """No file becomes longer than this many bytes: writing more raises OSError, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def run_out_of_room(write, path, sizes):
    """Write a file while none may be longer than each size in turn. -> how many writes failed and left all as it was"""
    before, names = path.read_bytes() if path.exists() else None, sorted(os.listdir(path.parent))
    for size in sizes:
        with pytest.raises(OSError, match="File too large") as caught, at_most(size):
            write(path)
        assert caught.value.filename == str(path)
        assert (path.read_bytes() if path.exists() else None) == before
        assert sorted(os.listdir(path.parent)) == names
    return len(sizes)
