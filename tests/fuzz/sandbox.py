"""One case in one forked child with a limit on memory and time: a crash, a hang and an exception are each seen for what they are.

The parent has everything imported and no threads of its own, so a child costs milliseconds and starts clean.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import select
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MEMORY = 4 << 30  # bytes of address space
SECONDS = 20.0
GOOD = ("refused", "same", "different")


class WrongError(Exception):
    """The case ended well and its answer is wrong: a pass that is none, contents that are not those of the file."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """``refused`` (InputError), ``same`` (nothing that matters was changed), ``different`` (read, and seen to differ); or a finding:
    ``wrong``, ``traceback``, ``memory``, ``crash``, ``hang``."""

    kind: str
    detail: str
    seconds: float
    peak_mb: int

    @property
    def good(self) -> bool:
        return self.kind in GOOD


def run(case: Callable[[], tuple[str, str]], log: Path, *, seconds: float = SECONDS) -> Outcome:
    """Run ``case`` in a child; it returns kind and detail. What it prints goes to ``log``."""
    reader, writer = os.pipe()
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _live(case, writer, log)
    os.close(writer)
    try:
        message = _until(reader, begun + seconds)
    finally:
        os.close(reader)
    hung = message is None
    if hung:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    took, peak = time.monotonic() - begun, usage.ru_maxrss // 1024
    code = os.waitstatus_to_exitcode(status)
    if hung:
        return Outcome("hang", f"still running after {seconds:g} s", took, peak)
    if code < 0:
        return Outcome("crash", f"{signal.Signals(-code).name}: {_last_words(log)}", took, peak)
    if not message:
        return Outcome("crash", f"left with exit code {code}: {_last_words(log)}", took, peak)
    kind, detail = json.loads(message)
    return Outcome(kind, detail, took, peak)


def _live(case: Callable[[], tuple[str, str]], writer: int, log: Path) -> None:
    code = 0
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        faulthandler.enable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (int(2 * SECONDS), int(2 * SECONDS)))
        message = json.dumps(_outcome(case)).encode()
        while message:
            message = message[os.write(writer, message) :]
    except BaseException:
        traceback.print_exc()
        code = 70
    finally:
        os._exit(code)


def _outcome(case: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    try:
        return case()
    except WrongError as error:
        return "wrong", str(error)
    except MemoryError as error:
        return "memory", _where(error)
    except BaseException as error:
        traceback.print_exc()
        return "traceback", _where(error)


def _where(error: BaseException) -> str:
    """Type, message and the innermost line of probe: what tells one fault from another."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}probe{os.sep}" in frame.filename] or frames
    place = f"{Path(ours[-1].filename).parent.name}/{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
    return f"{type(error).__name__} at {place}: {str(error)[:200]}"


def _until(reader: int, deadline: float) -> bytes | None:
    """Everything the child writes until it closes the pipe; None when it has not by the deadline."""
    message = b""
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            return None
        part = os.read(reader, 1 << 16)
        if not part:
            return message
        message += part


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    native = [line.strip() for line in lines if line.strip().startswith("File")]
    return " < ".join(native[:3]) or " ".join(lines[-2:])[:300]
