"""Checks of plain numbers that several modules make; those of arrays stand in functional.py."""

import math
import numbers
import operator


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


def share(name, value):
    """-> float in [0, 1); ValueError otherwise."""
    if not (isinstance(value, numbers.Real) and 0 <= value < 1):
        raise ValueError(f"{name} must be in [0, 1); got {value!r}")
    return float(value)
