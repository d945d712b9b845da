"""Weights from PyTorch and back, copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..._types import Array
from ...layers import Recurrent
from .. import state_dict


def from_torch(source: Any, *, prefix: str = "", dtype: Any = None, **options: Any) -> Recurrent:
    """Make a layer of rnncore with a copy of a module's weights.

    Parameters
    ----------
    source : torch.nn.RNN, GRU or LSTM, or a state dict of one
    prefix : str, default ""
        For a state dict: use only the keys that start with it, for example ``"encoder.rnn."``.
    dtype : {"float32", "float64"}, optional
        Default: that of the weights.
    **options
        For a state dict, which does not record them: ``nonlinearity``, ``batch_first``, ``dropout``.

    Returns
    -------
    rnncore.RNN, GRU or LSTM
        A GRU has the form "reset_after" and the update "old".

    Raises
    ------
    ValueError
        The module has projections (``proj_size``); a key of the state dict is missing or unknown, or a shape is wrong.
    TypeError
        ``source`` is something else, or a tensor has another dtype.

    Examples
    --------
    >>> module = torch.nn.GRU(3, 5, num_layers=2, bidirectional=True)
    >>> layer = from_torch(module)
    >>> x = torch.randn(7, 2, 3)
    >>> bool(np.allclose(layer(x.numpy())[0], module(x)[0].detach().numpy(), atol=1e-6))
    True
    """
    if isinstance(source, torch.nn.RNNBase):
        if options or prefix:
            raise TypeError(f"a module tells its own options; got {', '.join(['prefix'] * bool(prefix) + [*options])}")
        options = {"batch_first": source.batch_first, "dropout": source.dropout if source.num_layers > 1 else 0.0}
        if source.mode.startswith("RNN"):
            options["nonlinearity"] = source.nonlinearity
        source = source.state_dict()
    elif isinstance(source, torch.nn.Module) or not hasattr(source, "items"):
        raise TypeError(f"source must be a torch.nn.RNN, GRU or LSTM, or its state dict; got {type(source).__name__}")
    arrays = {name: _array_of(name, value) for name, value in source.items() if str(name).startswith(prefix)}
    return state_dict.to_layer(arrays, prefix=prefix, dtype=dtype, **options)


def to_torch(layer: Recurrent) -> torch.nn.GRU | torch.nn.LSTM | torch.nn.RNN:
    """Make a torch.nn module with a copy of a layer's weights.

    Parameters
    ----------
    layer : rnncore.RNN, GRU or LSTM

    Returns
    -------
    torch.nn.RNN, GRU or LSTM
        With the layer's dtype, ``batch_first`` and ``dropout``, but not ``recurrent_dropout``. The second biases are 0,
        except for a GRU's candidate.

    Raises
    ------
    ValueError
        PyTorch does not have the cell; the message names the option.

    Examples
    --------
    >>> import rnncore as rc
    >>> layer = rc.LSTM(3, 5, num_layers=2, batch_first=True, seed=0)
    >>> module = to_torch(layer)
    >>> x = torch.randn(2, 7, 3)
    >>> bool(np.allclose(layer(x.numpy())[0], module(x)[0].detach().numpy(), atol=1e-6))
    True
    """
    arrays = state_dict.from_layer(layer)
    options: dict[str, Any] = (
        {"nonlinearity": layer.variant.options["activation"]} if "activation" in layer.cell.options else {}
    )
    with torch.random.fork_rng(devices=[]):  # the initial values are overwritten: do not advance PyTorch's generator
        module = getattr(torch.nn, layer.cell.label)(
            layer.input_size,
            layer.hidden_size,
            layer.num_layers,
            batch_first=layer.batch_first,
            dropout=layer.dropout if layer.num_layers > 1 else 0.0,
            bidirectional=layer.bidirectional,
            dtype=getattr(torch, layer.dtype.name),
            **options,
        )
    module.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return module


def _array_of(name: str, tensor: torch.Tensor) -> Array:
    """Return a tensor, or an array, as an array."""
    if not isinstance(tensor, torch.Tensor):
        return np.asarray(tensor)
    if tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        raise TypeError(f"{name} must be of float16, float32 or float64; got {tensor.dtype}")
    return tensor.detach().cpu().numpy()
