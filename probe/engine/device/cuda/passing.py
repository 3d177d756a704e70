"""``Passing``: a backend that hands on to another what it has nothing to say about; those that note what is done begin here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from probe.engine.device.cuda.backend import Backend, Batch, Event, Graph

Array = np.ndarray[Any, Any]


class Passing:
    """All of ``Backend`` but memory, copies and launches.

    Args:
        backend: what really does it.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.arch, self.name = backend.arch, backend.name
        self.multiprocessors, self.shared_limit = backend.multiprocessors, backend.shared_limit
        self.imagined = backend.imagined

    def enter(self) -> None:
        """As ``Backend.enter``."""
        self.backend.enter()

    def room(self) -> int:
        """As ``Backend.room``."""
        return self.backend.room()

    def pinned(self, nbytes: int) -> Array:
        """As ``Backend.pinned``."""
        return self.backend.pinned(nbytes)

    def synchronize(self) -> None:
        """As ``Backend.synchronize``."""
        self.backend.synchronize()

    def capture(self, batches: Sequence[Batch], *, timed: bool = False) -> Graph:
        """As ``Backend.capture``."""
        return self.backend.capture(batches, timed=timed)

    def seconds(self, work: Callable[[], None]) -> float:
        """As ``Backend.seconds``."""
        return self.backend.seconds(work)

    def event(self) -> Event:
        """As ``Backend.event``."""
        return self.backend.event()

    @property
    def handle(self) -> int:
        """As ``Backend.handle``."""
        return self.backend.handle

    def copy(self, to: int, origin: int, nbytes: int) -> None:
        """As ``Backend.copy``."""
        self.backend.copy(to, origin, nbytes)

    def wait_for(self, handle: int) -> None:
        """As ``Backend.wait_for``."""
        self.backend.wait_for(handle)

    def beside(self, stream: Any = None) -> Backend:
        """As ``Backend.beside``."""
        return self.backend.beside(stream)
