"""Share parts of docstrings between functions, classes and their methods."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Documented = TypeVar("Documented", bound=Callable[..., Any])


def document(parts: Mapping[str, str], **words: str) -> Callable[[Documented], Documented]:
    """Return a decorator that replaces names of parts by the parts, in the docstrings of a function or class.

    Parameters
    ----------
    parts : mapping of str to str
        By the name that stands alone on a line in the place of the part; the part takes the line's indentation.
    **words
        Texts by name, for ``{name}`` in the parts and in the docstring.

    Examples
    --------
    >>> @document({"SHAPE": "x : array (N, {G}H)"}, G="4")
    ... def function(x):
    ...     '''
    ...     SHAPE
    ...     '''
    >>> print(function.__doc__.strip())
    x : array (N, 4H)
    """

    def expand(line: str) -> str:
        part = parts.get(line.strip())
        line = line if part is None else textwrap.indent(part.strip("\n"), line[: len(line) - len(line.lstrip())])
        for name, text in words.items():
            line = line.replace("{" + name + "}", text)
        return line

    def decorate(documented: Documented) -> Documented:
        methods = vars(documented).values() if isinstance(documented, type) else ()
        for thing in (documented, *(method for method in methods if callable(method))):
            if thing.__doc__:
                thing.__doc__ = "\n".join(map(expand, thing.__doc__.splitlines()))
        return documented

    return decorate
