"""What the recipes of valid calls are made with: sizes, arrays, and objects that are made once and copied."""

import functools
import io
import os
import pickle
import tempfile
from pathlib import Path

import numpy as np

#: T steps, N sequences, D inputs, H hidden units, V ids.
T, N, D, H, V = 3, 2, 4, 5, 6

_NUMBERS = np.random.default_rng(0).normal(size=4096)


class Context:
    """One call: its random numbers, its dtype, and the object whose method is called."""

    def __init__(self, rng, directory):
        self.rng, self.directory = rng, directory
        self.dtype = "f8" if rng.random() < 0.7 else "f4"
        self.receiver = None

    def array(self, *shape, dtype=None):
        size, begin = int(np.prod(shape)), self.rng.randrange(512)
        return _NUMBERS[begin : begin + size].reshape(shape).astype(dtype or self.dtype)

    def ids(self, high, *shape):
        size, begin = int(np.prod(shape)), self.rng.randrange(512)
        return (np.abs(_NUMBERS[begin : begin + size] * 1000).astype(np.int64) % high).reshape(shape)

    def file(self, content, damaged=True):
        """The path of a file with this content, which is damaged in half of the calls."""
        content = bytearray(content)
        change = self.rng.choice(("none", "bytes", "cut", "zeros", "grown")) if damaged else "none"
        if content and change == "bytes":
            for _ in range(self.rng.randrange(1, 9)):
                content[self.rng.randrange(len(content))] = self.rng.randrange(256)
        elif change == "cut":
            del content[self.rng.randrange(len(content) + 1) :]
        elif content and change == "zeros":
            begin = self.rng.randrange(len(content))
            content[begin : begin + 64] = bytes(len(content[begin : begin + 64]))
        elif change == "grown":
            content += bytes(100)
        path = self.directory / "given"
        path.write_bytes(content)
        return str(path)


def real(*shape):
    return lambda c: c.array(*shape)


def ids(high, *shape):
    return lambda c: c.ids(high, *shape)


def value(constant):
    return lambda c: constant


def one_of(*constants):
    return lambda c: c.rng.choice(constants)


def arrays(**shapes):
    """A dict of arrays."""
    return lambda c: {name: c.array(*shape) for name, shape in shapes.items()}


@functools.cache
def _pickled(make):
    return pickle.dumps(make())


def copy_of(make):
    """A fresh copy of what a function without arguments returns: that is made once."""
    return lambda c: pickle.loads(_pickled(make))


@functools.cache
def saved(make):
    """The bytes of the file that a model, or a layer, is saved in."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "saved"
        make(path)
        return path.read_bytes()


def quiet():
    """A place for what calls print."""
    return io.TextIOWrapper(open(os.devnull, "wb"), encoding="utf-8")
