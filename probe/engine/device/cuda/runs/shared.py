"""``SharedMemory``: what prepared runs that take turns have in common: a block on the device, pinned memory on the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cuda.tensors.tensor import Buffer

if TYPE_CHECKING:
    from probe.engine.device.cuda.backend import Backend

Array = np.ndarray[Any, Any]


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
