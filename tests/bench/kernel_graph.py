"""What somebody launches through a queue as one CUDA graph, so that Python's launches do not count."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from probe.engine.device.cuda.backend import Argument, Batch, Graph, Kernel, Launch, Shape
from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.compiling.workers import compile_ahead
from probe.engine.device.cuda.driver import Driver
from probe.engine.device.cuda.passing import Passing
from probe.engine.device.cuda.queue import Queue


class Noting(Passing):
    """Keeps launches instead of making them, and all memory until it goes."""

    def __init__(self, backend: Driver) -> None:
        super().__init__(backend)
        self.launches: list[Launch] = []
        self._held: list[int] = []

    def __del__(self) -> None:
        for address in self._held:
            self.backend.free(address)

    def allocate(self, nbytes: int) -> int:
        self._held.append(self.backend.allocate(nbytes))
        return self._held[-1]

    def free(self, address: int) -> None:
        """When this goes."""

    def upload(self, address: int, array: np.ndarray[Any, Any]) -> None:
        self.backend.upload(address, array)

    def download(self, array: np.ndarray[Any, Any], address: int, *, wait: bool = True) -> None:
        """Nothing was computed."""
        array.fill(0)

    def launch(self, source: Kernel, shape: Shape, arguments: Sequence[Argument], what: str) -> None:
        self.launches.append(Launch(source, shape, tuple(arguments), what))


class Kept:
    """A graph with its memory."""

    def __init__(self, graph: Graph, memory: Noting) -> None:
        self._memory, self.launch = memory, graph.launch


def graphs_of(backend: Driver, works: Iterable[Callable[[Queue], object]]) -> list[Kept]:
    """Each of ``works`` launches what it does through the queue it is given; what it downloads is zeros. Kernels of all are compiled together."""
    noted = []
    for work in works:
        noted.append(Noting(backend))
        work(Queue(noted[-1], 18))
    compile_ahead(
        backend.compiler, {one.source for each in noted for one in each.launches if isinstance(one.source, Source)}
    )
    return [Kept(backend.capture([Batch(tuple(one.launches))]), one) for one in noted]
