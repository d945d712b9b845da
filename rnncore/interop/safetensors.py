"""Save and load layers as safetensors files: named arrays that other programs can read too, and no executable code.

:func:`save` writes the arrays of ``layer.params`` under their names. The metadata has what is needed to rebuild the
layer: ``format`` and ``version``; ``layer``, the class; ``arguments``, those of the constructor, as JSON. Files with
the names of PyTorch's modules, as in :mod:`rnncore.interop.state_dict`, can be read too.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any

import numpy as np
import safetensors.numpy

from .. import checks
from .._types import Array
from ..files import open_file, replacing
from ..layers import RECURRENT, Dense, Embedding, Layer, Recurrent
from . import state_dict

__all__ = ["load", "load_into", "save"]

_FORMAT = "rnncore layer"
_VERSION = "1"
_CLASSES = {cls.__name__: cls for cls in (*RECURRENT.values(), Embedding, Dense)}
_DTYPES = ("F16", "F32", "F64")


def save(layer: Any, path: str | PathLike[str]) -> None:
    """Write a layer to a file that is whole or not there.

    Links, permissions, FIFOs and Ctrl-C are treated as in the ``save`` of models. The state of the random generator
    that dropout uses is not saved.

    Parameters
    ----------
    layer : RNN, GRU, LSTM, MinGRU, Embedding or Dense
    path : str or path-like

    Raises
    ------
    TypeError
        ``layer`` is of another kind.
    OSError
        The file cannot be written; an existing file is unchanged.

    Examples
    --------
    >>> import os, tempfile
    >>> import rnncore as rc
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = os.path.join(directory, "gru.safetensors")
    ...     save(rc.GRU(3, 5, 2, update="old"), path)
    ...     gru = load(path)
    >>> gru, gru.update
    (GRU(3, 5, 2), 'old')
    """
    name = _name(layer)
    arguments = {argument: getattr(layer, argument) for argument in _arguments(type(layer))}
    arguments = json.dumps(arguments | {"dtype": layer.dtype.name}, default=np.generic.item)
    metadata = {"format": _FORMAT, "version": _VERSION, "layer": name, "arguments": arguments}
    arrays = {name: np.ascontiguousarray(array) for name, array in layer.params.items()}
    data = safetensors.numpy.save(arrays, metadata)
    with replacing(path) as file:
        file.write(data)


def load(path: str | PathLike[str], *, prefix: str = "") -> Any:
    """Load the layer in a file of :func:`save`, or one with the weights of one of PyTorch's recurrent modules.

    PyTorch's names do not record all settings of a module. For an RNN with ``nonlinearity="relu"``, ``batch_first`` or
    ``dropout``, pass the arrays of ``safetensors.numpy.load_file`` to :func:`rnncore.interop.state_dict.to_layer`.

    Parameters
    ----------
    path : str or path-like
    prefix : str, default ""
        Use only the names that start with it, for example ``"encoder.rnn."``.

    Returns
    -------
    RNN, GRU, LSTM, MinGRU, Embedding or Dense

    Raises
    ------
    ValueError
        The file is of another kind or damaged: a name, a shape, a dtype or a setting does not match the layer.
    TypeError
        An array is not float16, float32 or float64.
    OSError
        The file does not exist or cannot be read.

    Examples
    --------
    >>> import os, tempfile
    >>> import rnncore as rc
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = os.path.join(directory, "weights.safetensors")
    ...     arrays = state_dict.from_layer(rc.LSTM(3, 5, bidirectional=True))
    ...     safetensors.numpy.save_file({f"rnn.{name}": array for name, array in arrays.items()}, path)
    ...     load(path, prefix="rnn.")
    LSTM(3, 5, 1, bidirectional=True)
    """
    arrays, description = _read(path, prefix)
    if description is None:
        with _naming(path):
            return state_dict.to_layer(arrays, prefix=prefix)
    cls, arguments = description
    _check_sizes(cls, arguments, arrays, path, prefix)
    fast = {"init": "uniform"} if "init" in inspect.signature(cls).parameters else {}
    try:
        layer = cls(**arguments, **fast)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} does not describe a layer, or is damaged: {error}") from error
    _write(layer, path, arrays, prefix)
    return layer


def load_into(layer: Any, path: str | PathLike[str], *, prefix: str = "") -> None:
    """Copy the weights in a file into an existing layer; the arrays of ``layer.params`` keep their identity.

    Parameters
    ----------
    layer : RNN, GRU, LSTM, MinGRU, Embedding or Dense
    path : str or path-like
        A file with the names of ``layer.params``, or of PyTorch's; all shapes and dtypes must be those of the layer.
    prefix : str, default ""
        Use only the names that start with it.

    Raises
    ------
    ValueError
        The file is of another kind or damaged; a name, a shape or a dtype does not match the layer; or :func:`save`
        wrote it from a layer that computes something else. The layer is unchanged.
    TypeError
        An array is not float16, float32 or float64, or ``layer`` is of another kind. The layer is unchanged.
    OSError
        The file does not exist or cannot be read.

    Examples
    --------
    >>> import os, tempfile
    >>> one, other = (Dense(3, 5, seed=seed) for seed in (0, 1))
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = os.path.join(directory, "dense.safetensors")
    ...     save(one, path)
    ...     load_into(other, path)
    >>> bool((one.params["W"] == other.params["W"]).all())
    True
    """
    name = _name(layer)
    arrays, description = _read(path, prefix)
    if description is not None:
        cls, arguments = description
        if cls is not type(layer):
            raise ValueError(f"{path} is of a layer {cls.__name__}; got {name}")
        # Names and shapes do not determine what the weights mean.
        options = layer.options() if hasattr(layer, "options") else {}
        for option, value in options.items():
            if arguments[option] != value:
                raise ValueError(f"{path} is of a layer with {option}={arguments[option]!r}; got one with {value!r}")
    elif any(state_dict.is_name(key.removeprefix(prefix)) for key in arrays):
        for key, array in arrays.items():
            if array.dtype != layer.dtype:
                raise ValueError(f"{key} in {path} must be {layer.dtype} as in the layer; got {array.dtype}")
        with _naming(path):
            state_dict.load(layer, arrays, prefix=prefix)
        return
    _write(layer, path, arrays, prefix)


@contextmanager
def _naming(path: str | PathLike[str]) -> Iterator[None]:
    """Let errors begin with the path."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{os.fspath(path)}: {error}") from error


def _name(layer: Any) -> str:
    if type(layer) not in _CLASSES.values():
        *names, last = _CLASSES
        raise TypeError(f"layer must be an {', '.join(names)} or {last}; got {type(layer).__name__}")
    return type(layer).__name__


def _arguments(cls: type[Layer]) -> list[str]:
    """Return the names of the constructor's arguments, without those for the initial weights."""
    return [name for name in inspect.signature(cls).parameters if name not in ("init", "seed")]


def _read(path: str | PathLike[str], prefix: str) -> tuple[Any, ...]:
    """Return the arrays under ``prefix``, and the layer's class and arguments if :func:`save` wrote the file."""
    path = checks.path("path", path)
    checks.instance("prefix", prefix, str, "a str")
    open_file(path).close()  # errors of the file system, which name the path
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            names, arrays = file.keys(), {}
            for name in names:
                if not name.startswith(prefix):
                    continue
                if (dtype := file.get_slice(name).get_dtype()) not in _DTYPES:
                    raise TypeError(f"{name} in {path} must be one of {', '.join(_DTYPES)}; got {dtype}")
                arrays[name] = file.get_tensor(name)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file, or is damaged: {error}") from error
    if not arrays:
        raise ValueError(f"{path} must have names that start with {prefix!r}; got {', '.join(names) or 'none'}")
    if metadata.get("format") != _FORMAT:
        return arrays, None
    if metadata.get("version") != _VERSION:
        raise ValueError(
            f"{path} has version {metadata.get('version')} of the format; this rnncore reads version {_VERSION}"
        )
    try:
        cls, arguments = _CLASSES[metadata["layer"]], json.loads(metadata["arguments"])
        complete = arguments.keys() == set(_arguments(cls))
    except (AttributeError, KeyError, ValueError) as error:
        raise ValueError(f"{path} does not describe a layer, or is damaged: {error!r}") from error
    if not complete:
        raise ValueError(f"{path} must have the arguments {', '.join(_arguments(cls))}; got {', '.join(arguments)}")
    return arrays, (cls, arguments)


def _check_sizes(
    cls: type[Layer], arguments: dict[str, Any], arrays: dict[str, Array], path: str | PathLike[str], prefix: str
) -> None:
    """Check sizes before the layer is made, so that it takes no more memory than the file."""
    if issubclass(cls, Recurrent):
        places = [("Wx_0", 0, "input_size")]
    else:
        places = [("W", axis, argument) for axis, argument in enumerate(_arguments(cls)[:2])]
    claimed = [(arguments[argument], arrays.get(prefix + name), axis) for name, axis, argument in places]
    wrong = any(array is None or array.ndim != 2 or array.shape[axis] != size for size, array, axis in claimed)
    if issubclass(cls, Recurrent):
        Wh, b, H = arrays.get(prefix + "Wh_0"), arrays.get(prefix + "b_0"), arguments["hidden_size"]
        if Wh is not None:
            wrong = wrong or Wh.ndim != 2 or Wh.shape[0] != H
        else:
            wrong = wrong or b is None or b.ndim != 1 or not isinstance(H, int) or H < 1 or len(b) % H != 0
    num_layers = arguments.get("num_layers", 1)
    if wrong or not isinstance(num_layers, int) or num_layers > len(arrays):
        raise ValueError(f"{path} does not describe a layer, or is damaged: its arguments are not those of its arrays")


def _write(layer: Any, path: str | PathLike[str], arrays: dict[str, Array], prefix: str) -> None:
    """Check all arrays, then copy them into ``layer.params``."""
    wanted = {prefix + name: array for name, array in layer.params.items()}
    if missing := [name for name in wanted if name not in arrays]:
        raise ValueError(f"{path} must have {', '.join(missing)} too")
    if surplus := [name for name in arrays if name not in wanted]:
        raise ValueError(f"{path} has {', '.join(surplus)}, which the layer has not")
    for name, own in wanted.items():
        array = arrays[name]
        if (array.shape, array.dtype) != (own.shape, own.dtype):
            raise ValueError(
                f"{name} in {path} must be {own.shape} {own.dtype} as in the layer; got {array.shape} {array.dtype}"
            )
    for name, own in wanted.items():
        own[...] = arrays[name]
