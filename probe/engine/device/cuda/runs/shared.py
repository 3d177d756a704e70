"""``SharedMemory``: what prepared runs that take turns have in common: a block on the device, pinned memory on the host."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cuda.tensors.tensor import Buffer

if TYPE_CHECKING:
    from probe.engine.device.cuda.backend import Backend, Event

Array = np.ndarray[Any, Any]
_THREADS, _PIECE = 4, 2 << 20  # bytes that are worth a thread


def copy_bytes(to: Array, origin: Array) -> None:
    """Copy bytes on the host, large ones by several threads: one alone reaches a fraction of the memory's bandwidth."""
    pieces = min(_THREADS, origin.size // _PIECE)
    if pieces <= 1:
        to[:] = origin
        return
    ends = [origin.size * at // pieces for at in range(pieces + 1)]
    list(
        _pool().map(
            np.copyto, *zip(*((to[begin:end], origin[begin:end]) for begin, end in pairwise(ends)), strict=True)
        )
    )


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, "copying")


class SharedMemory:
    """The largest pieces asked for so far. Runs that were prepared before keep the smaller ones that they were given."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._block: Buffer | None = None
        self._pinned: Array | None = None

    def block(self, nbytes: int) -> Buffer:
        """Device memory of at least so many bytes.

        Raises:
            CudaError: out of memory.
        """
        if self._block is None or self._block.nbytes < nbytes:
            self._block = Buffer(self._backend, nbytes)
        return self._block

    def pinned(self, nbytes: int) -> Array:
        """Page-locked memory of at least so many bytes; asking the driver for it takes a millisecond."""
        if self._pinned is None or self._pinned.size < nbytes:
            self._pinned = self._backend.pinned(nbytes)
        return self._pinned


@dataclass(slots=True)
class Desk:
    """As much memory on the device as on the host, page-locked, and a moment to be noted."""

    device: Buffer
    host: Array
    there: Event

    @property
    def nbytes(self) -> int:
        return self.device.nbytes


class Desks:
    """Lent, and lent again when they are given back: asking the driver for pinned memory takes a millisecond."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._free: list[Desk] = []

    def take(self, nbytes: int) -> Desk:
        """Of at least so many bytes.

        Raises:
            CudaError: out of memory.
        """
        fits = [at for at, one in enumerate(self._free) if one.nbytes >= nbytes]
        if fits:
            return self._free.pop(fits[-1])
        return Desk(Buffer(self._backend, nbytes), self._backend.pinned(nbytes), self._backend.event())

    def give(self, desk: Desk) -> None:
        """Back what was taken; nothing is copied to or from its host side any more."""
        self._free.append(desk)
