"""``GuardedDriver``: a GPU whose memory has guard bytes around every piece of it, and is never what somebody left there."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from cuda.bindings import driver  # pyright: ignore[reportAttributeAccessIssue] - compiled, without stubs

from probe.engine.device.cuda.driver import Driver
from probe.engine.device.cuda.errors import OutOfMemory
from probe.engine.device.cuda.graphs import call

GUARD = 256  # bytes before and behind every allocation; what lies between begins where allocations do
UNWRITTEN, GONE = 0xA5, 0x5A


class GuardedDriver(Driver):
    """As ``Driver``, waiting after every launch. Guards are looked at when somebody allocates after a piece was given back: writes around it, by
    kernels or copies, are told then. Unwritten memory holds 0xA5, memory that was given back 0x5A, so that who reads either shows."""

    def __init__(self) -> None:
        super().__init__(checked=True)
        self._sizes: dict[int, int] = {}
        self._left: deque[tuple[int, Any]] = deque()  # with the driver whose stream it was used on

    def allocate(self, nbytes: int) -> int:
        """As ``Backend.allocate``."""
        self.look()
        try:
            base = super().allocate(nbytes + 2 * GUARD)
        except OutOfMemory as full:
            raise OutOfMemory(nbytes, full.free, full.total, full.gpu) from full
        call(driver.cuMemsetD8Async(base, UNWRITTEN, nbytes + 2 * GUARD, self.stream), "filling memory")
        self._sizes[base + GUARD] = nbytes
        return base + GUARD

    def free(self, address: int) -> None:
        """As ``Backend.free``: the garbage collector's thread, which calls no driver."""
        self._left.append((address, self))

    def look(self) -> None:
        """At the guards of what was given back.

        Raises:
            AssertionError: something wrote around a piece.
        """
        while True:
            try:
                address, owner = self._left.popleft()
            except IndexError:
                return
            owner._look_at(address)

    def _look_at(self, address: int) -> None:
        nbytes = self._sizes.pop(address)
        guards = np.empty((2, GUARD), np.uint8)
        self.download(guards[0], address - GUARD, wait=False)
        self.download(guards[1], address + nbytes)
        if nbytes:
            call(driver.cuMemsetD8Async(address, GONE, nbytes, self.stream), "filling memory")
        super().free(address - GUARD)
        before, behind = ((one != UNWRITTEN).sum() for one in guards)
        assert not before and not behind, f"{before} bytes written before, {behind} behind {nbytes} bytes of memory"
