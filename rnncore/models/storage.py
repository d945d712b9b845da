"""Model files: one .npz of plain arrays, a JSON description among them; no pickle, so nothing in a file can run."""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
from io import BytesIO
from os import PathLike
from typing import Any, BinaryIO

import numpy as np

from .. import checks
from .._types import Array
from ..files import open_file, replacing

FORMAT = "rnncore model"
VERSION = 5
# 1: language models with fewer settings; 2: all models; what is missing takes its default. 3: with what a run needs to
# go on. 4: with weights in bfloat16 or int8. 5: any of these, with a checksum.
READABLE = (1, 2, 3, 4, VERSION)
HEADER, CHECKSUM, ARRAY = "header", "sha256", "array/"  # names in the archive; ARRAY begins those of all others

# The largest size of the arrays over that of the file. Ours are not compressed; a user's tool may have done that.
_MOST = 16


def write_model(path: str | PathLike[str], name: str, description: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Write a file that is either whole or not there.

    Parameters
    ----------
    path : str or path-like
    name : str
        Name of the model's class.
    description : dict of JSON types
    arrays : dict of str to ndarray
    """
    header = {"format": FORMAT, "version": VERSION, "model": name, "description": description}
    contents = {HEADER: np.array(json.dumps(header, default=_plain))}
    contents |= {f"{ARRAY}{key}": value for key, value in arrays.items()}
    contents[CHECKSUM] = np.array(checksum(contents))
    with replacing(path) as file:
        np.savez(file, **contents)  # type: ignore[arg-type]  # no name is one of its arguments


def checksum(contents: dict[str, Array]) -> str:
    """Return the SHA-256 of arrays: names, dtypes, shapes and values, whatever their layout and order."""
    hasher = hashlib.sha256()
    for name, array in sorted(contents.items()):
        hasher.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        hasher.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.nbytes else b"")
    return hasher.hexdigest()


def read_model(path: str | PathLike[str]) -> tuple[Any, ...]:
    """Return the name of the model's class, its description and arrays; ValueError if it is not a whole model file."""
    path = checks.path("path", path)
    # Opened here, so that only what the file system says comes out as OSError.
    with open_file(path) as file:
        try:
            contents = _read_arrays(file)
            found_checksum = contents.pop(CHECKSUM, None)
            header = json.loads(str(contents[HEADER]))
            found, version = header["format"], header["version"]
            name, description = header["model"], header["description"]
        except MemoryError:
            raise
        except Exception as error:  # whatever zip, NumPy and JSON raise for bytes that are not theirs
            kind = type(error).__name__
            raise ValueError(f"{path} is not a model file of rnncore, or is damaged ({kind})") from error
    if found != FORMAT:
        raise ValueError(f"{path} is not a model file of rnncore: its format is {found!r}")
    if type(version) is not int or version not in READABLE:
        known = ", ".join(map(str, READABLE))
        raise ValueError(f"{path} has version {version!r} of the format; this rnncore reads versions {known}")
    if version >= 5 and str(found_checksum) != checksum(contents):
        raise ValueError(f"{path} is damaged: its checksum is not that of its arrays")
    del contents[HEADER]
    if others := [key for key in contents if not key.startswith(ARRAY)]:
        raise ValueError(f"{path} is damaged: it holds {others[0]!r}")
    return name, description, {key.removeprefix(ARRAY): value for key, value in contents.items()}


def _read_arrays(file: BinaryIO) -> dict[str, Array]:
    """Read the arrays of an .npz file; ValueError before memory is taken for sizes that the file does not bear out."""
    size = os.fstat(file.fileno()).st_size
    arrays: dict[str, Array] = {}
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
            raise ValueError("an array is compressed in a way that NumPy does not use")
        if (claimed := sum(member.file_size for member in members)) > _MOST * size:
            raise ValueError(f"the arrays must be at most {_MOST * size} bytes in a file of {size}; got {claimed}")
        for member in members:
            with archive.open(member) as stream:
                # Without a size all that it holds is expanded first. To the last byte, CRC-32 is compared.
                content = stream.read(member.file_size)
            name = member.filename.removesuffix(".npy")
            if name in arrays:
                raise ValueError(f"there must be one array {name!r}; got several")
            arrays[name] = _as_array(content)
    return arrays


def _as_array(content: bytes) -> Array:
    """Return the array in the bytes of an .npy file, read-only."""
    stream = BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, in_fortran_order, dtype = read_header(stream)
    start = stream.tell()
    if math.prod(shape) * dtype.itemsize != len(content) - start:
        raise ValueError(f"an array must be {shape} {dtype}; got {len(content) - start} bytes")
    flat = np.frombuffer(content, dtype, offset=start)  # refuses objects
    return flat.reshape(shape, order="F" if in_fortran_order else "C")


def _plain(value: bool | float) -> bool | float:
    """Convert a NumPy number to a Python number, for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a model file holds numbers, str, lists and dicts; got {type(value).__name__}")
