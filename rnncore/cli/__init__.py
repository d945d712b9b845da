"""The command line: rnncore train | sample | score | bench | info."""

from __future__ import annotations

import os
import sys

from ..distributed import RankError
from .arguments import make_parser
from .errors import FAILED, INTERRUPTED, UNUSABLE, UserError

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal cannot show must not end a training run.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        parser = make_parser()
        arguments, rest = parser.parse_known_args(argv)
        if rest and arguments.command != "bench":
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        arguments.rest = rest  # bench has options of its own
        return arguments.run(arguments)
    except UserError as error:
        if not error.silent:
            print(f"rnncore: error: {error}", file=sys.stderr)
        return UNUSABLE
    except RankError as error:
        print(f"rnncore: error: {error}", file=sys.stderr)
        return FAILED
    except MemoryError as error:
        print(f"rnncore: error: not enough memory: {error}", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        print("rnncore: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has gone (head, less): nothing to say, and nobody to say it to.
        _give_up_output()
        return FAILED
    except OSError as error:
        if error.filename is None:
            _give_up_output()
        place = "the output" if error.filename is None else error.filename
        print(f"rnncore: error: cannot use {place}: {error.strerror or error}", file=sys.stderr)
        return UNUSABLE


def _give_up_output() -> None:
    """Let nothing of what is still to be written fail again when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
