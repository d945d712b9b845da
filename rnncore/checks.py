"""Checks of plain values that several modules make; those of arrays are in engine/arrays.py.

Each takes the name of the argument and its value, and returns the value in a plain type.
"""

from __future__ import annotations

import math
import numbers
import operator
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

#: A check: name and value to the clean value.
Rule = Callable[[str, Any], Any]


def instance(name: str, value: Any, kind: type[Any] | tuple[type[Any], ...], wanted: str) -> Any:
    """Return ``value``, an instance of these classes; TypeError, which says what is wanted, otherwise."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {wanted}; got {type(value).__name__}")
    return value


def integer(name: str, value: Any, least: int, most: int | None = sys.maxsize) -> int:
    """Return an int; TypeError if ``value`` is not an integer, ValueError if it is not in least..most."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer; got {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}; got {number}")
    if most is not None and number > most:
        raise ValueError(f"{name} must be at most {most}; got {number}")
    return number


def addressable(names: Iterable[str], shapes: Iterable[tuple[int, ...]], count: int = 1) -> None:
    """Raise ValueError if ``count`` times the arrays of float64 that these arguments ask for cannot be addressed."""
    shapes = list(shapes)
    needed = 8 * count * sum(map(math.prod, shapes))
    if needed > sys.maxsize:
        arrays = f"arrays {', '.join(map(str, shapes))}" + (f", {count} times" if count > 1 else "")
        raise ValueError(f"{' and '.join(names)} must ask for less than 2**63 bytes; got {arrays}: {needed} bytes")


def positive(name: str, value: Any) -> float:
    """Return a float above 0 and finite; ValueError otherwise."""
    return _number(name, value, lambda number: 0 < number < math.inf, "above 0 and finite")


def not_negative(name: str, value: Any) -> float:
    """Return a float, at least 0 and finite; ValueError otherwise."""
    return _number(name, value, lambda number: 0 <= number < math.inf, "at least 0 and finite")


def finite(name: str, value: Any) -> float:
    """Return a finite float; ValueError otherwise."""
    return _number(name, value, math.isfinite, "finite")


def share(name: str, value: Any) -> float:
    """Return a float in [0, 1); ValueError otherwise."""
    return _number(name, value, lambda number: 0 <= number < 1, "in [0, 1)")


def proper_share(name: str, value: Any) -> float:
    """Return a float in (0, 1); ValueError otherwise."""
    return _number(name, value, lambda number: 0 < number < 1, "in (0, 1)")


def _number(name: str, value: Any, is_right: Callable[[Any], bool], wanted: str) -> float:
    try:
        if isinstance(value, numbers.Real) and is_right(number := float(value)):
            return number
    except OverflowError:
        pass
    raise ValueError(f"{name} must be {wanted}; got {value!r}")


def real(name: str, value: Any) -> float:
    """Return a float of any value, NaN and infinity too; TypeError for what is no real number."""
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number; got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        return -math.inf if value < 0 else math.inf


def choice(name: str, value: Any, choices: Iterable[str]) -> Any:
    """Return ``value``, one of ``choices``; ValueError otherwise."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")
    return value


def flag(name: str, value: Any) -> bool:
    """Return a bool; TypeError for anything that is not True, False, 0 or 1."""
    if not isinstance(value, (numbers.Real, np.bool_)) or value not in (0, 1):
        raise TypeError(f"{name} must be True or False; got {value!r}")
    return bool(value)


def generator(name: str, seed: Any) -> Any:
    """Return numpy.random.default_rng(seed); TypeError or ValueError, which names it, for what is no seed."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name} must be an int >= 0, a numpy.random.Generator or None; got {seed!r}") from None


def floating_dtype(name: str, value: Any) -> str:
    """Return "float32" or "float64"; ValueError for another dtype."""
    try:
        found = "None" if value is None else np.dtype(value).name
    except (TypeError, ValueError):
        found = repr(value)
    if found not in ("float32", "float64"):
        raise ValueError(f"{name} must be float32 or float64; got {found}")
    return found


def dtype(name: str, value: Any) -> np.dtype[Any]:
    """Return a NumPy dtype; TypeError for what names none."""
    try:
        return np.dtype(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a NumPy dtype; got {value!r}") from None


def path(name: str, value: Any) -> str:
    """Return a path as str; TypeError or ValueError for what names no file, such as the number of an open one."""
    try:
        text = os.fspath(value)
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise TypeError(f"{name} must be str or path-like; got {type(value).__name__}")
    try:
        if b"\0" not in os.fsencode(text):
            return text
    except UnicodeError:
        pass
    raise ValueError(f"{name} must be a name that a file can have; got {text!r}")


def callable_(name: str, value: Any) -> Any:
    """Return ``value``; TypeError if it cannot be called."""
    if not callable(value):
        raise TypeError(f"{name} must be callable; got {type(value).__name__}")
    return value


def iterable(name: str, value: Any, wanted: str) -> Iterator[Any]:
    """Return an iterator; TypeError, which says what is wanted, for what cannot be iterated over."""
    try:
        return iter(value)
    except TypeError:
        raise TypeError(f"{name} must be {wanted}; got {type(value).__name__}") from None


def sequence(name: str, value: Any, wanted: str = "a sequence") -> Any:
    """Return a sequence as a list, or the list, tuple or str itself; TypeError for what has no items in order."""
    if isinstance(value, (list, tuple, str)):
        return value
    if not isinstance(value, Iterable) or isinstance(value, (Set, Mapping)):
        raise TypeError(f"{name} must be {wanted}; got {type(value).__name__}")
    try:
        return list(value)
    except TypeError as error:
        raise TypeError(f"{name} must be {wanted}: {error}") from error


def array_or_sequence(name: str, value: Any, wanted: str) -> Any:
    """Return an array that has an axis as it is, and otherwise what :func:`sequence` does."""
    return value if isinstance(value, np.ndarray) and value.ndim else sequence(name, value, wanted)


@contextmanager
def named(**names: str) -> Iterator[None]:
    """Replace the argument's name in error messages of a call within by the caller's name for it.

    Examples
    --------
    >>> with named(h0="prev_h"):
    ...     raise ValueError("h0 must be (N, H) = (2, 3); got (3, 2)")
    Traceback (most recent call last):
    ...
    ValueError: prev_h must be (N, H) = (2, 3); got (3, 2)
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        subject, must, rest = str(error).partition(" must ")
        pattern = rf"(?<![\w.])({'|'.join(names)})\b"
        found = re.sub(pattern, lambda match: names[match[1]], subject, count=1)
        if found == subject or not must:
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{found}{must}{rest}") from None


def one_of(choices: Iterable[Any]) -> Rule:
    """Return the check :func:`choice` with these choices."""
    return partial(choice, choices=choices)


def optional(rule: Callable[..., Any], **bounds: Any) -> Rule:
    """Return the check ``rule`` with some bounds, which accepts None too."""
    rule = partial(rule, **bounds)
    return lambda name, value: None if value is None else rule(name, value)
