"""Hooks into PyTorch's tools that look at the class of a module."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

import torch

from .modules import Recurrent
from .replacing import restore


def _let_dynamo_trace(builder: ModuleType) -> None:
    """Dynamo breaks the graph at every subclass of torch.nn's recurrent modules, unless ``allow_rnn`` is set.

    To set it for all would also unroll the loops of those that are not on the engine.
    """
    wrap_module = builder.VariableBuilder.wrap_module

    @functools.wraps(wrap_module)
    def wrap(self: Any, value: Any) -> Any:
        if isinstance(value, Recurrent) and all(map(value.is_for_the_engine, value._parameters.values())):
            with builder.config.patch(allow_rnn=True):
                return wrap_module(self, value)
        return wrap_module(self, value)

    builder.VariableBuilder.wrap_module = wrap


def _let_quantization_find(quantize: ModuleType) -> None:
    """It maps modules by their exact class, and silently leaves others as they are."""
    propagate = quantize._propagate_qconfig_helper

    @functools.wraps(propagate)
    def restore_and_propagate(module: Any, *arguments: Any, **options: Any) -> Any:
        restore(module)
        return propagate(module, *arguments, **options)

    vars(quantize)["_propagate_qconfig_helper"] = restore_and_propagate


_CHANGES: dict[str, Callable[[ModuleType], None]] = {
    "torch._dynamo.variables.builder": _let_dynamo_trace,
    "torch.ao.quantization.quantize": _let_quantization_find,
}


def _change(name: str, module: ModuleType) -> None:
    try:
        _CHANGES[name](module)
    except AttributeError as error:
        message = f"{name} of PyTorch {torch.__version__} is not known: call restore(model) before you use it ({error})"
        warnings.warn(message, RuntimeWarning, stacklevel=2)


class _Finder(MetaPathFinder):
    """Makes the changes when a module is imported: both take long to import, and most programs need neither."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in _CHANGES else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            _change(name, module)

        spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Make the changes, now in what is imported already, otherwise on import."""
    for name in _CHANGES.keys() & sys.modules.keys():
        _change(name, sys.modules[name])
    sys.meta_path.insert(0, _Finder())
