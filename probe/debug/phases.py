"""The phases of a command: how long each took, and what is being worked on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, str], None]  # phase, what is worked on


@contextmanager
def timed_phase(seconds: dict[str, float], tell: Progress, name: str) -> Iterator[Callable[[str], None]]:
    """Add the seconds of a block to ``seconds[name]``, tell that it begins, and hand out what tells of its progress."""
    begin = time.perf_counter()
    tell(name, "")
    yield lambda what: tell(name, what)
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begin
