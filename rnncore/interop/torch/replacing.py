"""Existing models onto the engine, and back."""

from __future__ import annotations

from typing import Any

import torch

from .modules import Recurrent, converted


class Names(list[str]):
    """Names of modules, as in ``model.named_modules()``.

    Attributes
    ----------
    skipped : dict of str to str
        For each recurrent module that was left unchanged, its name and the reason.
    """

    def __init__(self, names: Any = (), skipped: dict[str, str] | None = None) -> None:
        super().__init__(names)
        self.skipped = skipped or {}


def replace(model: Any) -> Names:
    """Run every RNN, GRU and LSTM of torch.nn in a model on rnncore's engine, keeping objects and parameters.

    Modules with parametrizations (``torch.nn.utils.parametrize``) are converted, too.

    Parameters
    ----------
    model : torch.nn.Module
        Or one of the three itself.

    Returns
    -------
    Names
        A list of the names of the converted modules, as in ``model.named_modules()``. Its attribute ``skipped`` is a
        dict of the other recurrent modules of torch.nn: name to reason.

    Raises
    ------
    TypeError
        ``model`` is not a module.

    Examples
    --------
    >>> model = torch.nn.ModuleDict({"encoder": torch.nn.GRU(3, 5), "decoder": torch.nn.LSTM(3, 5, proj_size=2)})
    >>> names = replace(model)
    >>> names
    ['encoder']
    >>> names.skipped
    {'decoder': 'proj_size is 2: the engine has no projections'}
    """
    return _convert(model, to_engine=True)


def restore(model: Any) -> Names:
    """Turn modules of this package in a model into those of torch.nn, keeping objects and parameters.

    The inverse of :func:`replace`: optimizers, hooks and references to the modules stay valid.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    Names
        A list of the names of the converted modules, as in ``model.named_modules()``. Its attribute ``skipped`` is a
        dict of those that are of a subclass: name to reason.

    Raises
    ------
    TypeError
        ``model`` is not a module.

    Examples
    --------
    >>> from rnncore.interop.torch import LSTM
    >>> model = torch.nn.ModuleDict({"encoder": LSTM(3, 5), "output": torch.nn.Linear(5, 2)})
    >>> restore(model)
    ['encoder']
    >>> type(model["encoder"]) is torch.nn.LSTM
    True
    """
    return _convert(model, to_engine=False)


def _convert(model: Any, to_engine: bool) -> Names:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; got {type(model).__name__}")
    names = Names()
    for name, module in model.named_modules():
        if (
            not isinstance(module, (torch.nn.RNNBase, torch.nn.RNNCellBase))
            or isinstance(module, Recurrent) == to_engine
        ):
            continue
        cls, label = converted(type(module), to_engine=to_engine), type(module).__name__
        if isinstance(module, torch.nn.RNNCellBase):
            names.skipped[name] = f"{label} computes one step: the engine computes sequences"
        elif cls is None:
            names.skipped[name] = f"{label} is a subclass of {module.mode.partition('_')[0]}, with code of its own"
        elif to_engine and module.proj_size:
            names.skipped[name] = f"proj_size is {module.proj_size}: the engine has no projections"
        else:
            module.__class__ = cls
            names.append(name)
    return names
