"""``Backend``: what the device asks of whatever executes kernels. The driver is one; tests have one that runs them on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.library.routine import Routine

Array = np.ndarray[Any, Any]
Argument = Any  # a ctypes value: what a kernel takes by value
Kernel = Source | Routine  # one of ours, or a call into a library in its place


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a launch: blocks of a grid, threads of a block, bytes of dynamic shared memory of a block."""

    grid: tuple[int, int, int]
    block: int
    shared_bytes: int = 0


@dataclass(slots=True)  # not frozen, which takes three times as long to make
class Launch:
    """A kernel with everything it takes.

    Attributes:
        what: the layer it computes.
    """

    source: Kernel
    shape: Shape
    arguments: Sequence[Argument]
    what: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Launches one behind the other.

    Attributes:
        lane: batches of one lane run one behind the other.
        after: earlier batches, of other lanes, that it waits for.
    """

    launches: tuple[Launch, ...]
    lane: int = 0
    after: tuple[int, ...] = ()


class Graph(Protocol):
    """Launches made ready to be repeated as one."""

    def launch(self) -> None:
        """All of them, behind what was asked for before.

        Raises:
            CudaError: refused.
        """
        ...

    def seconds(self) -> list[tuple[str, float]]:
        """Of the last time it ran, if it was captured ``timed``: a layer and its seconds, in order; waits for it."""
        ...


class Event(Protocol):
    """A moment on a backend's clock."""

    def note(self) -> None:
        """The moment is when everything asked for so far is done."""
        ...

    def until(self, later: Self) -> float:
        """Seconds from this moment to a later one of the same backend; both have passed."""
        ...

    def wait(self) -> None:
        """Until the moment has passed, whatever was asked for since.

        Raises:
            CudaError: a kernel launched before it failed.
        """
        ...


class Backend(Protocol):
    """Memory, copies and launches, all in the order they are asked for (one stream)."""

    arch: str
    name: str  # of the GPU
    multiprocessors: int
    shared_limit: int  # bytes of shared memory that a block may ask for
    imagined: bool  # it has no memory and launches nothing: for plans alone

    def enter(self) -> None:
        """Make the calling thread able to use the device; before anything else in every run."""
        ...

    def allocate(self, nbytes: int) -> int:
        """Address of new memory, aligned to 256 bytes.

        Raises:
            CudaError: out of memory.
        """
        ...

    def free(self, address: int) -> None:
        """Give memory back once what was launched before is done with it."""
        ...

    def room(self) -> int:
        """Bytes of memory that are free."""
        ...

    def upload(self, address: int, array: Array) -> None:
        """Copy a contiguous array to the device; it may be changed when this returns."""
        ...

    def download(self, array: Array, address: int, *, wait: bool = True) -> None:
        """Fill a contiguous array from the device; waits for what was launched before, and until the array is filled unless told not to.

        Raises:
            CudaError: a kernel launched before failed.
        """
        ...

    def pinned(self, nbytes: int) -> Array:
        """Host memory that copies need no detour to, as bytes; ``upload`` from it returns before it is read."""
        ...

    def launch(self, source: Kernel, shape: Shape, arguments: Sequence[Argument], what: str) -> None:
        """Launch a kernel, compiling it the first time.

        Args:
            what: the layer it computes, for errors.

        Raises:
            CompileError: NVRTC refuses it.
            CudaError: the launch is refused.
        """
        ...

    def synchronize(self) -> None:
        """Wait until everything launched is done.

        Raises:
            CudaError: a kernel failed.
        """
        ...

    def capture(self, batches: Sequence[Batch], *, timed: bool = False) -> Graph:
        """Launches as one graph. Kernels that were never launched are compiled.

        Args:
            timed: all in one lane, and note the time whenever the layer changes.

        Raises:
            CompileError: NVRTC refuses a kernel.
            CudaError: the launches cannot be captured.
        """
        ...

    def seconds(self, work: Callable[[], None]) -> float:
        """How long the device takes for what ``work`` launches; waits for it."""
        ...

    def event(self) -> Event:
        """A moment to be noted, again and again."""
        ...

    @property
    def handle(self) -> int:
        """Of its stream, for others."""
        ...

    def copy(self, to: int, origin: int, nbytes: int) -> None:
        """Copy memory of the device to other memory of it."""
        ...

    def wait_for(self, handle: int) -> None:
        """What is asked for from now on comes behind everything that was asked for on another stream."""
        ...

    def beside(self, stream: Any = None) -> Backend:
        """The same device with the same kernels, on a stream of its own: nothing asked for there waits for what is asked for here. Memory
        may be used there once what wrote it here is done.

        Args:
            stream: somebody else's, to be used instead (``runs/given.py`` says what is one); held as long as anything may be asked for there.
        """
        ...
