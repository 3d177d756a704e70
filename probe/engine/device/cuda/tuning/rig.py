"""``Rig``: a backend that notes what is launched, and repeats it in other memory: on copies of what was read, so that no cache holds them."""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from probe.engine.device.cuda.backend import Batch, Launch
from probe.engine.device.cuda.passing import Passing
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.copies import copy
from probe.engine.device.cuda.tensors.formats import U8
from probe.engine.device.cuda.tensors.tensor import Buffer, Tensor

if TYPE_CHECKING:
    import numpy as np

    from probe.engine.device.cuda.backend import Argument, Backend, Graph, Kernel, Shape

    Array = np.ndarray[Any, Any]

CACHE = 128 << 20  # bytes that repetitions walk over in turn: more than the L2 cache of any GPU known here
MOST_COPIES, LEAST = 32, 8  # copies of a problem's memory; repetitions
_ROOM = 4 << 30  # bytes of all copies


@dataclass(frozen=True, slots=True)
class Noted:
    """What a candidate launched.

    Attributes:
        launches: in order.
        nbytes: of all memory that they have to do with.
    """

    launches: tuple[Launch, ...]
    nbytes: int


class Rig(Passing):
    """A ``Backend`` for one problem at a time. Memory given back while launches are noted stays until ``forget``."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._live: dict[int, int] = {}  # address -> bytes
        self._made: list[Launch] | None = None
        self._since: set[int] = set()  # addresses allocated while noting
        self._orphans: list[int] = []
        self._twins: list[dict[int, Buffer]] = []  # of each copy: address -> memory in its place
        self._starts: list[int] = []

    # --- noting ------------------------------------------------------------------------------------------------------

    def note(self, work: Callable[[], None]) -> Noted:
        """What ``work`` launches."""
        self._made = []
        try:
            work()
        finally:
            made, self._made = self._made, None
        self._starts = sorted(self._live)
        used = {start for one in made for argument in one.arguments if (start := self._start(argument)) is not None}
        return Noted(tuple(made), sum(self._live[start] for start in used))

    def forget(self) -> None:
        """Give back what was kept for repetitions."""
        self._twins.clear()
        self._since.clear()
        for address in self._orphans:
            self._live.pop(address, None)
            self.backend.free(address)
        self._orphans.clear()

    def repetitions(self, noted: Noted) -> tuple[Graph, int]:
        """A graph that repeats launches on one copy of their memory after the other, and how often."""
        copies = min(-(-CACHE // max(noted.nbytes, 1)), MOST_COPIES, max(_ROOM // max(noted.nbytes, 1), 1))
        rounds = -(-LEAST // copies)
        launches = [
            replace(one, arguments=[self._moved(argument, at) for argument in one.arguments])
            for at in range(copies)
            for one in noted.launches
        ]
        return self.backend.capture([Batch(tuple(launches) * rounds)]), copies * rounds

    def _moved(self, argument: Argument, at: int) -> Argument:
        start = self._start(argument) if at else None
        if start is None:
            return argument
        while len(self._twins) < at:
            self._twins.append({})
        twins = self._twins[at - 1]
        if start not in twins:
            twins[start] = self._twin(start)
        moved = getattr(argument, "moved", ctypes.c_void_p)
        return moved(twins[start].address + argument.value - start)

    def _twin(self, start: int) -> Buffer:
        """Memory like that at an address; with the same contents, where launches only read them."""
        nbytes = self._live[start]
        made = Buffer(self.backend, nbytes)
        if start not in self._since and nbytes:
            held = _Held(start)
            source = Tensor((nbytes,), U8, buffer=held)  # pyright: ignore[reportArgumentType] - has an address as a Buffer does
            target = Tensor((nbytes,), U8, buffer=made)
            copy(Queue(self.backend, 0), (nbytes,), (source, 0, (1,)), (target, 0, (1,)))
        return made

    def _start(self, argument: Argument) -> int | None:
        """Where the memory begins that an argument points into; None for what is no pointer, and memory of others."""
        if not isinstance(argument, ctypes.c_void_p) or argument.value is None:
            return None
        at = bisect_right(self._starts, argument.value) - 1
        if at < 0 or argument.value >= self._starts[at] + max(self._live[self._starts[at]], 1):
            return None
        return self._starts[at]

    # --- as a backend ------------------------------------------------------------------------------------------------

    def allocate(self, nbytes: int) -> int:
        """As ``Backend.allocate``."""
        address = self.backend.allocate(nbytes)
        self._live[address] = nbytes
        if self._made is not None:
            self._since.add(address)
        return address

    def free(self, address: int) -> None:
        """As ``Backend.free``; what was allocated while noting is kept until ``forget``."""
        if address in self._since:
            self._orphans.append(address)
            return
        self._live.pop(address, None)
        self.backend.free(address)

    def upload(self, address: int, array: Array) -> None:
        """As ``Backend.upload``."""
        self.backend.upload(address, array)

    def download(self, array: Array, address: int, *, wait: bool = True) -> None:
        """As ``Backend.download``."""
        self.backend.download(array, address, wait=wait)

    def launch(self, source: Kernel, shape: Shape, arguments: Sequence[Argument], what: str) -> None:
        """As ``Backend.launch``."""
        self.backend.launch(source, shape, arguments, what)
        if self._made is not None:
            self._made.append(Launch(source, shape, tuple(arguments), what))


class _Held:
    """Memory that belongs to somebody else."""

    __slots__ = ("address",)
    imagined = False

    def __init__(self, address: int) -> None:
        self.address = address
