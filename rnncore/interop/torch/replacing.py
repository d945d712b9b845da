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
    names = Names()
    for name, module in _modules(model):
        if isinstance(module, Recurrent):
            continue
        cls = converted(type(module), to_engine=True)
        if cls is None:
            if isinstance(module, torch.nn.RNNBase):
                names.skipped[name] = f"{type(module).__name__} is a subclass of its own"
            elif isinstance(module, torch.nn.RNNCellBase):
                names.skipped[name] = f"{type(module).__name__} computes one step: the engine computes sequences"
        elif module.proj_size:
            names.skipped[name] = f"proj_size is {module.proj_size}: the engine has no projections"
        else:
            module.__class__ = cls
            names.append(name)
    return names


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
    names = Names()
    for name, module in _modules(model):
        if not isinstance(module, Recurrent):
            continue
        cls = converted(type(module), to_engine=False)
        if cls is None:
            names.skipped[name] = f"{type(module).__name__} is a subclass of its own"
        else:
            module.__class__ = cls
            names.append(name)
    return names


def _modules(model: Any) -> list[tuple[str, Any]]:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; got {type(model).__name__}")
    return list(model.named_modules())
