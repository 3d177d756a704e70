"""``NullBackend``: remembers which kernels would be launched, and computes nothing. For looking at plans and for compiling without a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import numpy as np

from probe.engine.device.cuda.backend import Batch, Shape
from probe.engine.device.cuda.compiling.compile import Source
from tests.engine.cuda.host_backend import Noted, Replayed


class NullBackend:
    """A ``Backend`` whose memory is all zeros."""

    arch, name = "null", "null"
    imagined = False
    shared_limit = 227 << 10

    def __init__(self, multiprocessors: int = 132) -> None:
        self.multiprocessors = multiprocessors
        self.launched: list[tuple[Source, Shape]] = []
        self._next = 256

    def enter(self) -> None:
        pass

    def allocate(self, nbytes: int) -> int:
        address, self._next = self._next, self._next + -(-max(nbytes, 1) // 256) * 256
        return address

    def free(self, address: int) -> None:
        pass

    def room(self) -> int:
        return 1 << 32

    def upload(self, address: int, array: np.ndarray) -> None:
        pass

    def download(self, array: np.ndarray, address: int, *, wait: bool = True) -> None:
        array.fill(0)

    def pinned(self, nbytes: int) -> np.ndarray:
        return np.empty(nbytes, np.uint8)

    def capture(self, batches: Sequence[Batch], *, timed: bool = False) -> Replayed:
        return Replayed(self, batches)

    def seconds(self, work: Callable[[], None]) -> float:
        work()
        return 1e-6

    def event(self) -> Noted:
        return Noted()

    handle = 7

    def copy(self, to: int, origin: int, nbytes: int) -> None:
        pass

    def wait_for(self, handle: int) -> None:
        pass

    def beside(self, stream: Any = None) -> NullBackend:
        return copy(self)

    def launch(self, source: Any, shape: Shape, arguments: Sequence[Any], what: str) -> None:
        self.launched.append((source, shape))

    def synchronize(self) -> None:
        pass
