"""``rnncore bench --mine module:function``: the calls of a user's own model, before and after."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..testing import benchmark_pair

Pairs = dict[str, tuple[Callable[[], Any], Callable[[], Any]]]


def load_pairs(place: str) -> Pairs:
    """Call the function at ``module:function`` and return its pairs of calls by name.

    The function takes no arguments. It returns a pair, (original, replacement), of callables without arguments, or a
    dict of such pairs by name. Modules in the current directory are found.

    Raises
    ------
    ValueError
        There is no such function, or it returns something else.
    """
    module_name, _, function_name = place.partition(":")
    if not module_name or not function_name:
        raise ValueError(f"--mine must be module:function; got {place!r}")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name.removesuffix(".py"))
    except ModuleNotFoundError as error:
        if error.name != module_name.removesuffix(".py"):
            raise
        raise ValueError(f"--mine: there is no module {error.name!r} here ({os.getcwd()}) or on the path") from None
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ValueError(f"--mine: {module_name} has no function {function_name!r}")
    found = function()
    pairs = dict(found) if isinstance(found, Mapping) else {function_name: found}
    for name, pair in pairs.items():
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not all(map(callable, pair)):
            raise ValueError(
                f"--mine: {place} must return a pair of callables, (original, replacement), or a dict of such pairs; "
                f"got {type(pair).__name__} for {name!r}"
            )
    return {str(name): (pair[0], pair[1]) for name, pair in pairs.items()}


def run(place: str, seconds: float) -> int:
    """Print a line for each pair; return the exit code."""
    pairs = load_pairs(place)
    width = max(map(len, pairs), default=0)
    failed = 0
    for name, (original, replacement) in pairs.items():
        try:
            line = str(benchmark_pair(original, replacement, seconds=seconds))
        except AssertionError as error:
            line, failed = f"not the same: {error}", 1
        print(f"{name:<{width}}  {line}", flush=True)
    return failed
