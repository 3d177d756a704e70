"""``Counts``: histograms of errors and of units in the last place, counted on the device; the occupied bins leave it."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, I32
from probe.engine.device.cuda.tensors.tensor import host_tensor
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
_THREADS = 512
_UNIT = _THREADS * 4
_LEAST = 8 * _UNIT  # elements that are worth a block's tables
_BLOCKS = 8  # a multiprocessor, of all pairs together: four times what finds room there
_PAIRS = 64  # counted together
_HELD = 1 << 30  # bytes of tensors from which on pairs do not wait for others
# The struct of kernels/pair_counts.cu
_JOB = np.dtype(
    [(name, "u8") for name in ("actual", "golden", "counts")] + [("n", "i8"), ("span", "i8"), ("first", "i4"), ("lowest", "i4"), ("threshold", "f4"), ("zero", "i4")]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Job:
    """A pair that is to be counted; those of one ``form`` are one launch."""

    actual: Tensor
    golden: Tensor
    form: tuple[str, str]
    lowest: int
    threshold: float


class Counts:
    """Of many pairs: launched together, when there are enough of them or they are fetched."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._open: list[_Job] = []
        self._held = self._before = 0  # bytes of their tensors; pairs that were launched
        self._packed: list[tuple[Tensor, Tensor, int]] = []  # entries, where those of each pair are, pairs

    @staticmethod
    def takes(ulps: str) -> bool:
        """Whether units in the last place of this type are counted."""
        return ulps in _TYPES

    def add(self, actual: Tensor, golden: Tensor, ulps: str, *, threshold: float, range_: float) -> int:
        """Ask for the counts of a pair; both tensors are held until they are launched.

        Args:
            golden: float32, of as many elements.
            ulps: numpy name of the type that units in the last place are counted in.
            threshold: magnitude of golden from which an element is not compared.
            range_: largest golden magnitude; errors from 2^60 times smaller up are counted fast.

        Returns:
            Its place in what ``fetch`` returns.

        Raises:
            OutOfMemory: for the counts.
        """
        assert actual.format is not None
        top = int(np.float32(range_ if math.isfinite(range_) else np.finfo(np.float32).max).view(np.uint32) >> 16)
        form = actual.format.name, _TYPES[ulps].name
        self._open.append(_Job(actual, golden, form, max(0, top + 128 - _WINDOW), threshold))
        self._held += actual.nbytes + golden.nbytes
        place = self._before + len(self._open) - 1
        if len(self._open) == _PAIRS or self._held >= _HELD:
            self._launch()
        return place

    def fetch(self) -> list[PairCounts]:
        """All that was asked for, in order; waits for them."""
        self._launch()
        return [one for packed in self._packed for one in self._unpacked(*packed)]

    def _launch(self) -> None:
        """What is asked for, and the occupied words of all counts together."""
        if not self._open:
            return
        queue, jobs, many = self._queue, self._open, len(self._open)
        counts = self._cleared(many * _WORDS)
        by_form: dict[tuple[str, str], list[int]] = {}
        for at, job in enumerate(jobs):
            by_form.setdefault(job.form, []).append(at)
        # Counts are whole numbers: how pairs are cut changes none of them
        share = math.ceil(sum(job.actual.size for job in jobs) / (_BLOCKS * queue.backend.multiprocessors))
        span = max(_LEAST, math.ceil(share / _UNIT) * _UNIT)
        table, forms = self._table(counts, list(by_form.values()), span)
        begin = table.address(queue.backend)
        for form, (first, count, blocks) in zip(by_form, forms, strict=True):
            queue.launch(
                _source(*form), blocks, _THREADS, ctypes.c_void_p(begin + first * _JOB.itemsize),
                ctypes.c_void_p(begin + many * _JOB.itemsize + 4 * first), ctypes.c_int(count),
            )  # fmt: skip
        self._pack(counts, many)
        self._before += many
        self._open, self._held = [], 0

    def _table(self, counts: Tensor, forms: list[list[int]], span: int) -> tuple[Tensor, list[tuple[int, int, int]]]:
        """Jobs of each form one behind the other, behind them the first block of each; and of each form its first job, how many, and blocks."""
        backend, rows, firsts, found = self._queue.backend, [], [], []
        begin = counts.address(backend)
        for places in forms:
            blocks = 0
            start = len(rows)
            for at in places:
                job = self._open[at]
                rows.append(
                    (job.actual.address(backend), job.golden.address(backend), begin + at * _WORDS * 4, job.actual.size, span, blocks, job.lowest,
                     job.threshold, 0)
                )  # fmt: skip
                firsts.append(blocks)
                blocks += math.ceil(job.actual.size / span)
            found.append((start, len(places), blocks))
        with np.errstate(over="ignore"):  # a threshold beyond float32 is none
            raw = np.array(rows, _JOB).tobytes() + np.array(firsts, np.int32).tobytes()
        return host_tensor(np.frombuffer(raw, np.uint8)), found

    def _cleared(self, words: int) -> Tensor:
        made = self._queue.empty((words,), I32)
        source = Source("pairs.cu", "pairs_clear", (("ENTRY_CLEAR", 1),))
        blocks = min(4 * self._queue.backend.multiprocessors, math.ceil(words / 256))
        self._queue.launch(source, blocks, 256, self._queue.at(made), ctypes.c_longlong(words))
        return made

    def _pack(self, counts: Tensor, many: int) -> None:
        queue = self._queue
        entries = queue.empty((many * _WORDS * 2,), I32)
        found = self._cleared(1 + 2 * many)
        begin = found.address(queue.backend)
        queue.launch(
            Source("pair_counts.cu", "counts_pack", (("TA", "float"), ("ULPS", "float"), ("ENTRY_PACK", 1))), many, 1024,
            queue.at(counts), queue.at(entries), ctypes.c_void_p(begin), ctypes.c_void_p(begin + 4),
        )  # fmt: skip
        self._packed.append((entries, found, many))

    def _unpacked(self, entries: Tensor, found: Tensor, pairs: int) -> list[PairCounts]:
        backend = self._queue.backend
        where = np.empty(1 + 2 * pairs, np.uint32)
        backend.download(where.view(np.uint8), found.address(backend))
        raw = np.empty((int(where[0]), 2), np.uint32)
        backend.download(raw.view(np.uint8).reshape(-1), entries.address(backend))
        words, counts = np.ascontiguousarray(raw.astype(np.int64).T)
        bins, largest = np.where(words == _BINS, 0, words - _BINS - 1 + _ONE), raw[:, 1].copy().view(np.float32)
        made = []
        for begin, count in where[1:].reshape(-1, 2).tolist():
            end = begin + count
            first, last = (
                words[begin:end].searchsorted((_BINS, _LARGEST)) + begin
            ).tolist()  # words of a pair come in order
            errors, ulps = (words[begin:first], counts[begin:first]), (bins[first:last], counts[first:last])
            made.append(PairCounts(errors, ulps, float(largest[last]) if last < end else 0.0))
        return made


@cache
def _source(stored: str, ulps: str) -> Source:
    return Source("pair_counts.cu", "counts_of", (("TA", stored), ("ULPS", ulps), ("ENTRY_COUNT", 1)))
