"""``KeptKernels``: what a device does about compiling: all kernels of a run at once, before it; and into a saved engine and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cuda.compiling.compile import Compiler, Source
from probe.engine.device.cuda.compiling.saved_parts import kernel_parts, read_kernels
from probe.engine.device.cuda.compiling.workers import compile_ahead
from probe.engine.device.cuda.tuning.planning import Planning
from probe.errors import InputError

if TYPE_CHECKING:
    from probe.engine.device.cuda.backend import Backend
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.rounding import Plan

Array = np.ndarray[Any, Any]
Feeds = Mapping[str, Array]
Plans = Mapping[str, "Plan"]
Tell = Callable[[int, int], None]


class KeptKernels(ABC):
    """The part of a device that knows its compiler, where its backend has one.

    Attributes:
        tell: told how many kernels of how many are compiled, while a first run waits for them.
        kernels: in the saved engine that was written or read last.
    """

    backend: Backend
    queue: Queue

    def __init__(self) -> None:
        self.tell: Tell | None = None
        self._looked_ahead = False
        self._planned: set[Source] = set()
        self.kernels = 0

    @property
    def _compiler(self) -> Compiler | None:
        return getattr(self.backend, "compiler", None)

    @abstractmethod
    def _imagine(self, feeds: Feeds, backend: Backend, plans: Plans) -> int:
        """A run of which only the launches are planned, on a backend without memory, with the device's own weights; how many layers it has
        not met so before."""

    @property
    def kernel_notes(self) -> tuple[str, ...]:
        """Why kernels are compiled again by every process; nothing where they are not."""
        note = getattr(self._compiler, "note", "")
        return (note,) if note else ()

    def learn(self, feeds: Feeds, plans: Plans) -> int:
        """As ``Learns.learn``."""
        planning = Planning(self.backend)
        found = self._imagine(feeds, planning, plans)
        self._planned.update(one for one in planning.launched if isinstance(one, Source))
        return found

    def compile_learnt(self, tell: Tell | None = None) -> int:
        """As ``Learns.compile_learnt``."""
        compiler = self._compiler
        if compiler is None:
            return 0
        done = compile_ahead(compiler, self._planned, tell)
        left = compiler.missing(self._planned)
        for source in left:  # refused: it is said why
            compiler(source)
        return done + len(left)

    def warm(self, feeds: Feeds, plans: Iterable[Plans], tell: Tell | None = None) -> int:
        """As ``Warms.warm``, on several threads. What is launched behind a layer on the host, or because of values on the device, is compiled
        when it is."""
        self._looked_ahead = True
        if self._compiler is None:
            return 0
        for one in plans:
            with suppress(InputError):  # the run itself says what is wrong
                self.learn(feeds, one)
        return compile_ahead(self._compiler, self._planned, tell)

    def look_ahead(self, feeds: Feeds, plans: Plans) -> None:
        """Compile what the first run launches, once."""
        if not self._looked_ahead:
            self.warm(feeds, [plans], self.tell)

    def saved_parts(self) -> Mapping[str, bytes]:
        """As ``KeepsParts.saved_parts``: every kernel launched so far, or found by ``warm``."""
        if self._compiler is None:
            return {}
        found = self.queue.sources | self._planned
        self.kernels = len(found)
        return kernel_parts(self._compiler, found, self.backend.name)

    def take_parts(self, parts: Mapping[str, memoryview]) -> None:
        """As ``KeepsParts.take_parts``."""
        if self._compiler is not None:
            found = read_kernels(self._compiler, parts, self.backend.name)
            self.kernels = len(found)
            self._compiler.take(found)
