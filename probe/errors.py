"""What probe says when something is wrong: what, where, try.

``InputError`` is the user's input (exit code 2); any other exception that reaches the command line is our bug (exit code 3).
Expected outcomes, such as a failed comparison, are results and not exceptions.
"""

from __future__ import annotations

import errno

EXIT_PASSED = 0
EXIT_FAILED = 1
EXIT_INPUT = 2
EXIT_BUG = 3


class ProbeError(Exception):
    """Base of every error probe raises on purpose.

    Args:
        what: one sentence, no trailing full stop, naming the thing that is wrong.
        where: file, node, tensor or option it was seen in; empty when ``what`` already says it.
        hint: what the user can do next; printed after ``try``.
    """

    exit_code = EXIT_BUG

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where  {self.where}")
        if self.hint:
            lines.append(f"  try    {self.hint}")
        return "\n".join(lines)


def too_long(error: OSError) -> InputError | None:
    """What an operating system says of a path with a name that no file can have, whoever asked; None of any other error."""
    if error.errno != errno.ENAMETOOLONG:
        return None
    return InputError(f"{error.strerror}: {error.filename}", hint="a file's name has 255 bytes at most")


class InputError(ProbeError):
    """The user's file, option or data cannot be used. Exit code 2; nothing was written."""

    exit_code = EXIT_INPUT
