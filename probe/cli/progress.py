"""One line of progress on stderr: only when someone is watching, never in a log."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self, TypeVar, cast

T = TypeVar("T")

INTERVAL = 0.1  # seconds between redraws
_SHARE = re.compile(r"(\d+) of (\d+)\b")  # in what is told: done, altogether
_BAR = 20  # cells
_NAME, _LEAST = 48, 12  # cells of what is worked on: at most, and below which it is left out


class Progress:
    """``with Progress("comparing", total) as progress: progress.step(name)``. Silent when stderr is no terminal or ``quiet``."""

    def __init__(self, doing: str, total: int | None = None, *, quiet: bool = False) -> None:
        self._doing = doing
        self._total = total
        self._done = 0
        self._drawn = 0.0
        self._live = not quiet and sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def step(self, name: str = "") -> None:
        """Count one thing done, or about to be done, and say which."""
        self._done += 1
        now = time.monotonic()
        if not self._live or now - self._drawn < INTERVAL:
            return
        from probe.report.text import elide

        self._drawn = now
        of = f"/{self._total}" if self._total else ""
        head, most = f"{self._doing} {self._done}{of} ", shutil.get_terminal_size((80, 24)).columns - 1
        if len(head) + len(bar(name)) + _LEAST <= most:
            head += bar(name)
        room = min(_NAME, most - len(head))  # a line that wraps is cleared in part only, and litters the screen
        sys.stderr.write(f"\r\x1b[K{head[:most]}{elide(name, room) if name and room >= _LEAST else ''}")
        sys.stderr.flush()

    def tell(self, phase: str, name: str) -> None:
        """``step``, as library functions report: a phase, and the name of what is worked on."""
        self.step(f"{phase} {name}" if name else phase)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def bar(told: str) -> str:
    """Of what tells how many of how many are done; "" for everything else.

    >>> bar("kernels 5 of 10")
    '[##########          ] '
    """
    found = _SHARE.search(told)
    if found is None or not int(found[2]):
        return ""
    full = _BAR * min(int(found[1]), int(found[2])) // int(found[2])
    return f"[{'#' * full:{_BAR}}] "


def watched(inner: T, method: str, progress: Progress) -> T:
    """``inner``, telling ``progress`` whenever ``method`` is called: a ``TensorSource`` being opened, a sink being added to."""
    return cast(T, _Watched(inner, method, progress))


class _Watched:
    def __init__(self, inner: Any, method: str, progress: Progress) -> None:
        self._inner = inner
        self._method = method
        self._progress = progress

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name != self._method:
            return value

        def tell(first: Any, *rest: Any, **named: Any) -> Any:
            self._progress.step(getattr(first, "name", ""))
            return value(first, *rest, **named)

        return tell


class WatchedRunner:
    """A runner that says which tensor it has made; everything else is the runner's own."""

    def __init__(self, inner: Any, progress: Progress) -> None:
        self._inner = inner
        self._progress = progress

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def run(self, feeds: Any, input_id: str) -> Iterator[Any]:
        made = self._inner.run(feeds, input_id)
        try:
            yield from map(
                self._tell, made
            )  # map keeps no tensor: a loop variable would hold each until the next is made
        finally:
            made.close()

    def _tell(self, tensor: Any) -> Any:
        self._progress.step(tensor.info.name)
        return tensor
