"""How a command ends."""

DONE, FAILED, UNUSABLE = 0, 1, 2
INTERRUPTED = 130  # what shells expect of a program that Ctrl-C ended


class UserError(Exception):
    """Something the user can put right: one line, unless another rank says it, and exit code 2."""

    def __init__(self, message: str, *, silent: bool = False) -> None:
        super().__init__(message)
        self.silent = silent
