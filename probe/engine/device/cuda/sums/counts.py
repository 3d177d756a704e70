"""``Counts``: histograms of errors and of units in the last place, counted on the device; the occupied bins leave it."""

from __future__ import annotations

import ctypes
import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, I32
from probe.engine.device.pairs import PairCounts

if TYPE_CHECKING:
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

_TYPES = {"float32": F32, "float16": F16, "bfloat16": BF16}
# As in kernels/pair_counts.cu
_BINS, _ONE = 0x7F81, 0x3F80
_DISTANCES = 0x4F81 - _ONE + 1
_LARGEST = _BINS + _DISTANCES
_WORDS = _LARGEST + 1
_WINDOW = 7680
_UNIT = 512 * 4
_BLOCKS = 2  # a multiprocessor
_PAIRS = 32  # packed by one launch


class Counts:
    """Of many pairs: launched as they are asked for, fetched together."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._open: Tensor | None = None  # counted so far, of ``_used`` pairs
        self._used = 0
        self._packed: list[tuple[Tensor, Tensor, int]] = []  # entries, where those of each pair are, pairs

    @staticmethod
    def takes(ulps: str) -> bool:
        """Whether units in the last place of this type are counted."""
        return ulps in _TYPES

    def add(self, actual: Tensor, golden: Tensor, ulps: str, *, threshold: float, range_: float) -> int:
        """Launch the counting of a pair.

        Args:
            golden: float32, of as many elements.
            ulps: numpy name of the type that units in the last place are counted in.
            threshold: magnitude of golden from which an element is not compared.
            range_: largest golden magnitude; errors from 2^60 times smaller up are counted fast.

        Returns:
            Its place in what ``fetch`` returns.
        """
        assert actual.format is not None
        if self._open is not None and self._used == _PAIRS:
            self._pack()
        backend = self._queue.backend
        if self._open is None:
            self._open, self._used = self._cleared(_PAIRS * _WORDS), 0
        blocks = min(_BLOCKS * backend.multiprocessors, math.ceil(actual.size / _UNIT))
        span = math.ceil(actual.size / (blocks * _UNIT)) * _UNIT
        top = int(np.float32(range_ if math.isfinite(range_) else np.finfo(np.float32).max).view(np.uint32) >> 16)
        lowest = max(0, top + 128 - _WINDOW)
        self._queue.launch(
            _source(actual.format.name, _TYPES[ulps].name),
            math.ceil(actual.size / span), 512, self._queue.at(actual), self._queue.at(golden),
            ctypes.c_void_p(self._open.address(backend) + self._used * _WORDS * 4), ctypes.c_longlong(actual.size),
            ctypes.c_longlong(span), ctypes.c_float(threshold), ctypes.c_int(lowest),
        )  # fmt: skip
        self._used += 1
        return len(self._packed) * _PAIRS + self._used - 1

    def fetch(self) -> list[PairCounts]:
        """All that was asked for, in order; waits for them."""
        self._pack()
        return [one for packed in self._packed for one in self._unpacked(*packed)]

    def _cleared(self, words: int) -> Tensor:
        made = self._queue.empty((words,), I32)
        source = Source("pairs.cu", "pairs_clear", (("ENTRY_CLEAR", 1),))
        blocks = min(4 * self._queue.backend.multiprocessors, math.ceil(words / 256))
        self._queue.launch(source, blocks, 256, self._queue.at(made), ctypes.c_longlong(words))
        return made

    def _pack(self) -> None:
        if self._open is None:
            return
        entries = self._queue.empty((self._used * _WORDS * 2,), I32)
        found = self._cleared(1 + 2 * self._used)
        begin = found.address(self._queue.backend)
        self._queue.launch(
            Source("pair_counts.cu", "counts_pack", (("TA", "float"), ("ULPS", "float"), ("ENTRY_PACK", 1))), self._used, 1024,
            self._queue.at(self._open), self._queue.at(entries), ctypes.c_void_p(begin), ctypes.c_void_p(begin + 4),
        )  # fmt: skip
        self._packed.append((entries, found, self._used))
        self._open = None

    def _unpacked(self, entries: Tensor, found: Tensor, pairs: int) -> list[PairCounts]:
        backend = self._queue.backend
        where = np.empty(1 + 2 * pairs, np.uint32)
        backend.download(where.view(np.uint8), found.address(backend))
        raw = np.empty((int(where[0]), 2), np.uint32)
        backend.download(raw.view(np.uint8).reshape(-1), entries.address(backend))
        return [_counted(raw[begin : begin + count]) for begin, count in where[1:].reshape(-1, 2).tolist()]


@cache
def _source(stored: str, ulps: str) -> Source:
    return Source("pair_counts.cu", "counts_of", (("TA", stored), ("ULPS", ulps), ("ENTRY_COUNT", 1)))


def _counted(entries: np.ndarray) -> PairCounts:
    words, counts = entries[:, 0].astype(np.int64), entries[:, 1].astype(np.int64)
    is_error, is_distance = words < _BINS, (words >= _BINS) & (words < _LARGEST)
    bins = words[is_distance] - _BINS
    most = entries[words == _LARGEST, 1].view(np.float32)
    return PairCounts(
        (words[is_error], counts[is_error]), (np.where(bins == 0, 0, bins - 1 + _ONE), counts[is_distance]), float(most[0]) if most.size else 0.0
    )  # fmt: skip
