"""Checks of plain values that several modules make; those of arrays stand in functional.py.

Each takes the name of the argument and its value, and returns the value in a plain type.
"""

import math
import numbers
import operator
from functools import partial


def integer(name, value, least):
    """-> int; TypeError if ``value`` is no integer, ValueError if it is below ``least``."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer; got {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}; got {number}")
    return number


def positive(name, value):
    """-> float above 0 and finite; ValueError otherwise."""
    if not (isinstance(value, numbers.Real) and 0 < value < math.inf):
        raise ValueError(f"{name} must be above 0 and finite; got {value!r}")
    return float(value)


def not_negative(name, value):
    """-> float, at least 0 and finite; ValueError otherwise."""
    if not (isinstance(value, numbers.Real) and 0 <= value < math.inf):
        raise ValueError(f"{name} must be at least 0 and finite; got {value!r}")
    return float(value)


def share(name, value):
    """-> float in [0, 1); ValueError otherwise."""
    if not (isinstance(value, numbers.Real) and 0 <= value < 1):
        raise ValueError(f"{name} must be in [0, 1); got {value!r}")
    return float(value)


def choice(name, value, choices):
    """-> ``value``, one of ``choices``; ValueError otherwise."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")
    return value


def flag(name, value):
    """-> bool; TypeError for anything that is not True, False, 0 or 1."""
    if value not in (0, 1):
        raise TypeError(f"{name} must be True or False; got {value!r}")
    return bool(value)


def one_of(choices):
    """The check :func:`choice` with these choices."""
    return partial(choice, choices=choices)


def optional(rule, **bounds):
    """The check ``rule`` with some bounds, where None is right too."""
    rule = partial(rule, **bounds)
    return lambda name, value: None if value is None else rule(name, value)
