"""Model files: one .npz of plain arrays, a JSON description among them; no pickle, so nothing in a file can run."""

from __future__ import annotations

import json
from os import PathLike
from typing import Any

import numpy as np

from .._types import Array
from ..files import replacing

FORMAT = "rnncore model"
VERSION = 2
READABLE = (1, 2)  # 1 held language models only, with fewer settings; what is missing takes its default


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
    content: dict[str, Any] = {f"array/{key}": value for key, value in arrays.items()}
    with replacing(path) as file:
        np.savez(file, header=np.array(json.dumps(header, default=_plain)), **content)


def read_model(path: str | PathLike[str]) -> tuple[Any, ...]:
    """Return the name of the model's class, its description and arrays; ValueError if it is not a whole model file."""
    # Opened here, so that only what the file system says comes out as OSError.
    with open(path, "rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                contents = dict(archive)
            header = json.loads(str(contents.pop("header")))
            found, version = header["format"], header["version"]
            name, description = header["model"], header["description"]
        except Exception as error:  # whatever zip, NumPy and JSON raise for bytes that are not theirs
            kind = type(error).__name__
            raise ValueError(f"{path} is not a model file of rnncore, or is damaged ({kind})") from error
    if found != FORMAT:
        raise ValueError(f"{path} is not a model file of rnncore: its format is {found!r}")
    if version not in READABLE:
        known = " and ".join(map(str, READABLE))
        raise ValueError(f"{path} has version {version} of the format; this rnncore reads versions {known}")
    return name, description, {key.removeprefix("array/"): value for key, value in contents.items()}


def _plain(value: bool | float) -> bool | float:
    """Convert a NumPy number to a Python number, for JSON."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a model file holds numbers, str, lists and dicts; got {type(value).__name__}")
