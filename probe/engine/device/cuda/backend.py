"""``Backend``: what the device asks of whatever executes kernels. The driver is one; tests have one that runs them on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from probe.engine.device.cuda.compile import Source

Array = np.ndarray[Any, Any]
Argument = Any  # a ctypes value: what a kernel takes by value


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a launch: blocks of a grid, threads of a block, bytes of dynamic shared memory of a block."""

    grid: tuple[int, int, int]
    block: int
    shared_bytes: int = 0


class Backend(Protocol):
    """Memory, copies and launches, all in the order they are asked for (one stream)."""

    arch: str
    name: str  # of the GPU
    multiprocessors: int

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

    def upload(self, address: int, array: Array) -> None:
        """Copy a contiguous array to the device; it may be changed when this returns."""
        ...

    def download(self, array: Array, address: int) -> None:
        """Fill a contiguous array from the device; waits for what was launched before.

        Raises:
            CudaError: a kernel launched before failed.
        """
        ...

    def launch(self, source: Source, shape: Shape, arguments: Sequence[Argument], what: str) -> None:
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
