"""Model files: one .npz of plain arrays, a JSON description among them; no pickle, so nothing in a file can run."""

from __future__ import annotations

import json
import math
import os
import zipfile
from io import BytesIO
from os import PathLike
from typing import Any, BinaryIO

import numpy as np

from .._types import Array
from ..files import replacing

FORMAT = "rnncore model"
VERSION = 2
WITH_TRAINING = 3  # what a run needs to go on is in the file, too
QUANTIZED = 4  # its weights are in bfloat16 or int8
READABLE = (
    1,
    VERSION,
    WITH_TRAINING,
    QUANTIZED,
)  # 1: language models with fewer settings; what is missing takes its default

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
    version = QUANTIZED if "precision" in description else WITH_TRAINING if "training" in description else VERSION
    header = {"format": FORMAT, "version": version, "model": name, "description": description}
    content: dict[str, Any] = {f"array/{key}": value for key, value in arrays.items()}
    with replacing(path) as file:
        np.savez(file, header=np.array(json.dumps(header, default=_plain)), **content)


def read_model(path: str | PathLike[str]) -> tuple[Any, ...]:
    """Return the name of the model's class, its description and arrays; ValueError if it is not a whole model file."""
    # Opened here, so that only what the file system says comes out as OSError.
    with open(path, "rb") as file:
        try:
            contents = _read_arrays(file)
            header = json.loads(str(contents.pop("header")))
            found, version = header["format"], header["version"]
            name, description = header["model"], header["description"]
        except Exception as error:  # whatever zip, NumPy and JSON raise for bytes that are not theirs
            kind = type(error).__name__
            raise ValueError(f"{path} is not a model file of rnncore, or is damaged ({kind})") from error
    if found != FORMAT:
        raise ValueError(f"{path} is not a model file of rnncore: its format is {found!r}")
    if version not in READABLE:
        known = ", ".join(map(str, READABLE))
        raise ValueError(f"{path} has version {version} of the format; this rnncore reads versions {known}")
    return name, description, {key.removeprefix("array/"): value for key, value in contents.items()}


def _read_arrays(file: BinaryIO) -> dict[str, Array]:
    """Read the arrays of an .npz file; ValueError before memory is taken for sizes that the file does not bear out."""
    size = os.fstat(file.fileno()).st_size
    arrays = {}
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
            raise ValueError("an array is compressed in a way that NumPy does not use")
        if (claimed := sum(member.file_size for member in members)) > _MOST * size:
            raise ValueError(f"the arrays must be at most {_MOST * size} bytes in a file of {size}; got {claimed}")
        for member in members:
            with archive.open(member) as stream:
                content = stream.read(member.file_size)  # without a size all that it holds is expanded first
            arrays[member.filename.removesuffix(".npy")] = _as_array(content)
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
