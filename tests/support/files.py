"""Devices to write into."""

import os
import stat

import pytest

NULL, FULL = 3, 7  # numbers of Linux's memory devices


def make_device(path, minor):
    """Make a device of its own for a test: code that is wrong must not replace that of the machine."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        with open(path, "rb"):
            return path
    except OSError:
        pytest.skip("devices cannot be made here")
