"""A user's program: run with what it says in a file, ended with all it started, and told of where it fails."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

_TAIL_LINES = 12  # of what the program said, shown when it fails


def run_logged(arguments: Sequence[str], said: Path, timeout: float | None) -> int:
    """Run a program to its end, without a shell and without input; its exit code, negative for the signal that ended it.

    Args:
        said: file for what it writes to standard output and error.
        timeout: seconds; None: as long as it likes.

    Raises:
        NotStartedError: no such program, or not one that can be run.
        subprocess.TimeoutExpired: it, and what it started, was killed; so it is when this function is left by Ctrl-C.
    """
    with said.open("wb") as log:
        try:
            # A group of its own: a timeout or Ctrl-C must end what the program started, too.
            process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        except (OSError, ValueError) as error:
            raise NotStartedError(getattr(error, "strerror", None) or str(error)) from None
        try:
            return process.wait(timeout)
        finally:
            if process.poll() is None:
                _kill_group(process)


class NotStartedError(Exception):
    """A program that could not be started; the text says why."""


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError, AttributeError):  # gone meanwhile; or no process groups here
        process.kill()
    process.wait()


def tail_of(said: Path) -> str:
    """The last lines that a program wrote, as the end of an error's ``where``."""
    lines = said.read_text(errors="replace").splitlines()
    shown = [line.rstrip() for line in lines if line.strip()][-_TAIL_LINES:]
    return "".join(f"\n         | {line[:300]}" for line in shown)


def signal_name(number: int) -> str:
    """``SIGSEGV`` of 11."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
