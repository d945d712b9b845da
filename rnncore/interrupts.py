"""Let Ctrl-C wait while something that must be whole is done."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

__all__ = ["Interrupts", "interrupts_later"]


class Interrupts:
    """From ``with`` on, blocks of :meth:`later` are whole: Ctrl-C is heard at their end. In the main thread only.

    The handler of SIGINT is set once, and a block sets a flag: it costs a microsecond, where a handler costs twenty.
    """

    def __enter__(self) -> Self:
        self._waits = False
        self._received: tuple[Any, ...] | None = None
        self._handler: Any = signal.getsignal(signal.SIGINT)
        self._installed = callable(self._handler)  # neither SIG_IGN nor SIG_DFL, nor set by C code
        if self._installed:
            try:
                signal.signal(signal.SIGINT, self._receive)
            except ValueError:  # not in the main thread, which is the one that handlers run in
                self._installed = False
        return self

    def __exit__(self, *error: object) -> None:
        if self._installed and signal.getsignal(signal.SIGINT) == self._receive:
            signal.signal(signal.SIGINT, self._handler)

    def _receive(self, *arguments: Any) -> None:
        if self._waits:
            self._received = arguments
        else:
            self._handler(*arguments)

    @contextmanager
    def later(self) -> Iterator[None]:
        """Let Ctrl-C wait for the end of the outermost block, where the handler that was there before is called."""
        before, self._waits = self._waits, True
        try:
            yield
        finally:
            self._waits = before
            if not before:
                received, self._received = self._received, None
                if received is not None:
                    self._handler(*received)

    def received(self) -> bool:
        """Return whether Ctrl-C waits."""
        return self._received is not None


@contextmanager
def interrupts_later() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block, where the handler of SIGINT is called; in the main thread.

    Examples
    --------
    >>> with interrupts_later():
    ...     print("whole")
    whole
    """
    with Interrupts() as interrupts, interrupts.later():
        yield
