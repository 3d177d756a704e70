"""``Pairs``: what metrics are made of, summed up on the device over tensors of a run and their golden twins; only the sums leave the device."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from struct import Struct
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.runs.shared import Desks
from probe.engine.device.cuda.sums.worst import Walk, Worst
from probe.engine.device.cuda.tensors.formats import F32
from probe.engine.device.pairs import Measure, PairSums, PairWorst, Rows

if TYPE_CHECKING:
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.runs.shared import Desk
    from probe.engine.device.cuda.tensors.formats import Format
    from probe.engine.device.cuda.tensors.tensor import Tensor

Array = np.ndarray[Any, Any]
# In the order of the enums of kernels/pairs.cu
_VALUES = (
    "abs_error", "rel_error", "squared_error", "golden_squared", "actual_squared", "dot", "mismatched", "max_rel", "golden_max", "actual_max",
    "golden_min", "actual_min", "max_abs",
)  # fmt: skip
_CLASSES = (
    "aside", "nan_actual", "inf_actual", "nan_golden", "inf_golden", "nonfinite_mismatch", "sentinels", "sentinel_mismatch", "wrong",
    "sentinel_error", "grid",
)  # fmt: skip
_THREADS = 256
_LANES = 8  # elements a thread takes at a time
_BLOCKS = 3  # a multiprocessor
_STAGES = 2  # turns of a warp whose elements are on their way to shared memory
_SMALL = 128  # elements of rows of which several end in what a warp takes at a time
_TURNS = 16  # of a block at least, so that beginning and ending are a small part of it
_TABLE = _THREADS * 8  # rows a block keeps maxima of
_PAIRS = 128  # summed up together
_HELD, _WAITING = 1 << 30, 32  # bytes of tensors, and pairs, from which on they do not wait for others
_MAXIMA = 1 << 18  # of the items and channels of so many pairs
_LARGEST = 1 << 30  # elements of a row
_COUNTED = (1 << 32) - 1  # elements of a pair
_WHOLE = Rows()
# Bytes from the beginning of what is made of pairs
_CLASSES_AT = _PAIRS * len(_VALUES) * 8
_MAXIMA_AT = _CLASSES_AT + _PAIRS * len(_CLASSES) * 4
# As in kernels/pairs_last.cu
_LAST, _QUAD, _CHANNELS = "last", 4, 2048
_LAST_BLOCKS, _PIXELS = 2, 4
# The structs of kernels/pairs.cu
# actual, golden, maxima; n; span, first, blocks, place; threshold, boundary, floor, atol, rtol; equal_nan, equal_inf, cols, channels, items
_JOB = Struct("=3Qq4i5f5i")


@dataclass(slots=True)
class _Job:
    """A pair as kernels are told of it.

    Attributes:
        form: pairs of one form are one launch.
        maxima: place of its own among those of the chunk.
        cols: elements of a row, where maxima of rows are kept; of images whose channels are contiguous, pixels.
        worst: whether its largest errors are looked up.
    """

    actual: Tensor
    golden: Tensor
    form: tuple[int | str, ...]
    span: int
    blocks: int
    maxima: int
    how: Measure
    rows: Rows
    cols: int
    worst: bool

    @property
    def images(self) -> tuple[int, int]:
        """As ``Walk.images``."""
        return (self.cols, self.rows.channels) if self.form[0] == _LAST else (0, 0)


@dataclass(slots=True)
class _Chunk:
    """Pairs that are launched together.

    Attributes:
        desk: where lie: joined values, classes, maxima, which are fetched; the table of jobs. ``base``: where they begin.
        jobs: until they are launched, with their tensors; ``held``: bytes of these.
        pairs: elements, rows and place among the maxima of each.
    """

    desk: Desk
    base: int
    maxima: int
    pairs: list[tuple[int, Rows, int]]
    used: int = 0
    held: int = 0
    launched: bool = False
    jobs: list[_Job] = field(default_factory=list)
    worst: Worst | None = None

    @property
    def fetched(self) -> Array:
        """What was made, on the host."""
        return self.desk.host[: _MAXIMA_AT + 4 * self.used]

    @property
    def table_at(self) -> int:
        return _MAXIMA_AT + 4 * self.maxima


class Pairs:
    """Sums of many pairs: launched together, when there are enough of them or they are fetched. What is summed in which order depends on the pair
    alone, and so do the bits of its sums.

    Args:
        most: largest errors that are looked up of pairs that ask for it.
        desks: memory, used again by whoever compares next.
    """

    def __init__(self, queue: Queue, most: int = 5, desks: Desks | None = None) -> None:
        self._queue, self._most, self._desks = queue, most, desks or Desks(queue.backend)
        self._blocks = _BLOCKS * queue.backend.multiprocessors  # of one pair, at most
        self._parts: Tensor | None = None
        self._chunks: list[_Chunk] = []
        self._order: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._order)

    @staticmethod
    def takes_last(shape: Sequence[int], rows: Rows) -> bool:
        """Whether images of this shape, [items, channels, ...], are summed up with their channels contiguous, too."""
        items, channels = shape[:2]
        kept = (rows.items, rows.channels) == (items, channels)
        return kept and channels % _QUAD == 0 and 0 < channels <= _CHANNELS and math.prod(shape[2:]) > 1

    def add(
        self,
        actual: Tensor,
        golden: Tensor,
        how: Measure,
        rows: Rows | None = None,
        *,
        worst: bool = False,
        last: bool = False,
    ) -> int:
        """Ask for the sums of a pair; both tensors are held until they are launched.

        Args:
            golden: float32, of as many elements.
            rows: whose maxima are kept.
            worst: look up its largest errors, too.
            last: both are images whose channels are contiguous, as ``takes_last`` says of their shape with channels first. What is found is that
                of the same images in order, but for the last bits of sums, which are added up in the order of memory.

        Returns:
            Its place in what ``fetch`` returns.

        Raises:
            Unsupported: other types, or rows of unequal or unheard-of length.
            OutOfMemory: for what is made of the pairs.
        """
        rows = rows or _WHOLE
        size, stored, count = actual.size, actual.format, rows.items * rows.channels
        if stored is None or not stored.is_float or golden.format is not F32:
            raise Unsupported("sums over other than floats")
        if size != golden.size or not size or count < 1 or size % count:
            raise Unsupported(f"sums over {size} and {golden.size} elements in {count} rows")
        if last:
            form, span, blocks = _cut_last(size, rows.channels, stored.name, how.either, self._blocks)
        else:
            form, span, blocks = _cut(size, count, stored, how.either, self._blocks)
        chunk = self._chunk(2 * (rows.items + rows.channels) if count > 1 else 0)
        at = len(chunk.pairs)
        chunk.jobs.append(
            _Job(actual, golden, form, span, blocks, chunk.used, how, rows, size // count if count > 1 else 0, worst)
        )
        chunk.pairs.append((size, rows, chunk.used))
        chunk.held += size * (stored.bytes + F32.bytes)
        if count > 1:
            chunk.used += 2 * (rows.items + (rows.channels if rows.channels > 1 else 0))
        self._order.append((len(self._chunks) - 1, at))
        if chunk.held >= _HELD or len(chunk.pairs) == _WAITING:
            self._launch()
        return len(self._order) - 1

    def fetch(self) -> list[tuple[PairSums, tuple[PairWorst, ...]]]:
        """All sums asked for, in order, with the largest errors of those that asked for them; waits for them."""
        self._launch()
        made: list[list[tuple[PairSums, tuple[PairWorst, ...]]]] = []
        for chunk in self._chunks:
            chunk.desk.there.wait()
            worst = chunk.worst.fetch() if chunk.worst is not None else [()] * len(chunk.pairs)
            made.append(list(zip(_sums(chunk.fetched, chunk.pairs), worst, strict=True)))
        found = [made[chunk][at] for chunk, at in self._order]
        for chunk in self._chunks:
            self._desks.give(chunk.desk)
        self._chunks, self._order = [], []
        return found

    def _chunk(self, maxima: int) -> _Chunk:
        """One with room for another pair of so many maxima."""
        if self._chunks:
            last = self._chunks[-1]
            if not last.launched and len(last.pairs) < _PAIRS and last.used + maxima <= last.maxima:
                return last
            self._launch()
        if self._parts is None:
            self._parts = self._queue.empty((_PAIRS * len(_VALUES) * self._blocks * 2,), F32)  # doubles
        room = max(_MAXIMA, maxima)
        desk = self._desks.take(_MAXIMA_AT + 4 * room + _PAIRS * (_JOB.size + 4))
        self._chunks.append(_Chunk(desk, desk.device.address, room, []))
        return self._chunks[-1]

    def _launch(self) -> None:
        """The last chunk: everything that its pairs ask for. Where there is no room for that nothing has happened."""
        if not self._chunks or self._chunks[-1].launched:
            return
        chunk, parts = self._chunks[-1], self._parts
        assert parts is not None
        queue, base = self._queue, chunk.base
        words = (_MAXIMA_AT - _CLASSES_AT) // 4 + chunk.used
        queue.launch(
            Source("pairs.cu", "pairs_clear", (("ENTRY_CLEAR", 1),)), min(self._blocks, -(-words // _THREADS)), _THREADS,
            ctypes.c_void_p(base + _CLASSES_AT), ctypes.c_longlong(words),
        )  # fmt: skip
        by_form: dict[tuple[int | str, ...], list[int]] = {}
        for at, job in enumerate(chunk.jobs):
            by_form.setdefault(job.form, []).append(at)
        forms = self._table(chunk, list(by_form.values()))
        begin, length = base + chunk.table_at, len(chunk.jobs)
        for form, (first, count, blocks) in zip(by_form, forms, strict=True):
            source, ring = _parts_source((*form, self._blocks))
            queue.launch(
                source, blocks, _THREADS, ctypes.c_void_p(begin + first * _JOB.size),
                ctypes.c_void_p(begin + length * _JOB.size + 4 * first), ctypes.c_int(count), queue.at(parts),
                ctypes.c_void_p(base + _CLASSES_AT), shared_bytes=ring,
            )  # fmt: skip
        queue.launch(
            Source("pairs.cu", "pairs_join", (("BLOCKS", self._blocks), ("ENTRY_JOIN", 1))), length, _THREADS, queue.at(parts),
            ctypes.c_void_p(base + _CLASSES_AT), ctypes.c_void_p(base),
        )  # fmt: skip
        walks = [
            Walk(j.actual, j.golden, j.span, j.blocks, j.how.threshold, j.images) if j.worst else None
            for j in chunk.jobs
        ]
        if any(walks):
            stride = len(_VALUES) * self._blocks * 8
            errors = parts.address(queue.backend) + _VALUES.index("max_abs") * self._blocks * 8
            chunk.worst = Worst(queue, walks, errors, stride, most=self._most)
        queue.backend.download(chunk.fetched, base, wait=False)
        chunk.desk.there.note()
        chunk.jobs, chunk.launched = [], True

    def _table(self, chunk: _Chunk, forms: list[list[int]]) -> list[tuple[int, int, int]]:
        """Jobs of each form one behind the other, behind them the first block of each, to the device; of each form its first job, how many, blocks."""
        backend, rows, firsts, found = self._queue.backend, [], [], []
        maxima = chunk.base + _MAXIMA_AT
        for places in forms:
            blocks = 0
            begin = len(rows)
            for at in places:
                job = chunk.jobs[at]
                how, kept = job.how, job.rows
                rows.append(
                    _packed(
                        (job.actual.address(backend), job.golden.address(backend), maxima + 4 * job.maxima, job.actual.size, job.span, blocks, job.blocks, at),
                        (how.threshold, how.boundary, how.floor, how.atol, how.rtol),
                        (how.equal_nan, how.equal_inf, job.cols, kept.channels, kept.items),
                    )
                )  # fmt: skip
                firsts.append(blocks)
                blocks += job.blocks
            found.append((begin, len(places), blocks))
        raw = np.frombuffer(b"".join(rows) + np.array(firsts, np.int32).tobytes(), np.uint8)
        table = chunk.desk.host[chunk.table_at : chunk.table_at + raw.size]
        table[:] = raw
        backend.upload(chunk.base + chunk.table_at, table)
        return found


def _packed(places: tuple[int, ...], measure: tuple[float, ...], rows: tuple[int, ...]) -> bytes:
    try:
        return _JOB.pack(*places, *measure, *rows)
    except OverflowError:  # a threshold beyond float32 is none
        with np.errstate(over="ignore"):
            return _JOB.pack(*places, *np.array(measure, np.float32).tolist(), *rows)


@cache
def _cut(
    size: int,
    rows: int,
    stored: Format,
    either: bool,
    most: int,
) -> tuple[tuple[int | str, ...], int, int]:
    """How a pair is summed up: form, elements of a block, blocks.

    Raises:
        Unsupported: rows that are too long, or too many of them.
    """
    cols, keeps = size // rows, rows > 1
    lanes = _LANES if not keeps or cols >= _LANES else 1
    unit = _THREADS * lanes
    blocks = min(most, -(-size // (_TURNS * unit)))
    span = -(-size // (blocks * unit)) * unit
    if keeps:
        span = max(min(span, _TABLE * cols // unit * unit), unit)
    blocks = -(-size // span)
    if (keeps and cols >= _LARGEST) or span >= _LARGEST or blocks > most or size > _COUNTED:
        raise Unsupported(f"sums over {rows} rows of {cols} elements")
    # One row comes straight to registers: that is faster, and nobody knows why (reports/2026-11-22-cuda-compare.md)
    stages = _STAGES if keeps and lanes > 1 else 0
    kept = 0 if not keeps else 1 if cols >= _SMALL else 2
    ring = stages * _THREADS * lanes * (stored.bytes + F32.bytes)
    return (stored.name, lanes, kept, int(keeps and cols % lanes > 0), int(either), stages, ring), span, blocks


@cache
def _cut_last(size: int, channels: int, stored: str, either: bool, most: int) -> tuple[tuple[int | str, ...], int, int]:
    """As ``_cut``, of images whose channels are contiguous: stretches of whole pixels."""
    at_once = _PIXELS * max(1, _THREADS * _QUAD // channels)  # of a block
    blocks = min(most, -(-size // (_TURNS * _THREADS * _LANES)))
    stretch = -(-size // (channels * blocks * at_once)) * at_once
    return (_LAST, stored, int(either)), stretch * channels, -(-size // (channels * stretch))


@cache
def _parts_source(form: tuple[Any, ...]) -> tuple[Source, int]:
    """The kernel of a form, and bytes of shared memory beside its own."""
    if form[0] == _LAST:
        names = ("TA", "EITHER", "BLOCKS")
        more = (("PIXELS", _PIXELS), ("LEAST", _LAST_BLOCKS))
        return Source("pairs_last.cu", "pairs_last", (*zip(names, form[1:], strict=True), *more)), 0
    *macros, ring, blocks = form
    names = ("TA", "VEC", "ROWS", "SPLIT", "EITHER", "STAGES")
    more = (("BLOCKS", blocks), ("LEAST", _BLOCKS), ("ENTRY_PARTS", 1))
    return Source("pairs.cu", "pairs_parts", (*zip(names, macros, strict=True), *more)), ring


def _sums(raw: Array, pairs: list[tuple[int, Rows, int]]) -> list[PairSums]:
    """Of all pairs of a chunk, from what was fetched."""
    all_values = raw[:_CLASSES_AT].view(np.float64).reshape(_PAIRS, len(_VALUES))[: len(pairs)].tolist()
    all_classes = raw[_CLASSES_AT:_MAXIMA_AT].view(np.uint32).reshape(_PAIRS, len(_CLASSES))[: len(pairs)]
    aside = all_classes.view(np.float32)[:, _CLASSES.index("sentinel_error")].tolist()
    counted = all_classes.tolist()
    maxima = raw[_MAXIMA_AT:].view(np.float32).astype(np.float64)
    return [
        _named(values, classes, error, maxima, pair)
        for values, classes, error, pair in zip(all_values, counted, aside, pairs, strict=True)
    ]


def _named(
    values: list[float], classes: list[int], sentinel_error: float, maxima: Array, pair: tuple[int, Rows, int]
) -> PairSums:
    size, rows, begin = pair
    (abs_error, rel_error, squared, golden_squared, actual_squared, dot, mismatched, max_rel, golden_max, actual_max, golden_min, actual_min,
     max_abs) = values  # fmt: skip
    aside, nan_actual, inf_actual, nan_golden, inf_golden, nonfinite, sentinels, sentinel_mismatch, wrong, _, _ = (
        classes
    )
    items = rows.items if rows.count > 1 else 0
    channels = rows.channels if rows.channels > 1 else 0
    middle = begin + 2 * items
    return PairSums(
        size, size - aside, nan_actual, inf_actual, nan_golden, inf_golden, nonfinite, sentinels, sentinel_mismatch, sentinel_error,
        int(mismatched) + wrong, abs_error, rel_error, squared, golden_squared, actual_squared, dot, max_abs, max_rel,
        -golden_min, golden_max, -actual_min, actual_max, maxima[begin : begin + items], maxima[begin + items : middle],
        maxima[middle : middle + channels], maxima[middle + channels : middle + 2 * channels],
    )  # fmt: skip


def measure(queue: Queue, actual: Tensor, golden: Tensor, how: Measure, rows: Rows | None = None) -> PairSums:
    """Sums of one pair; waits for them. As ``Pairs.add``."""
    pairs = Pairs(queue)
    pairs.add(actual, golden, how, rows)
    return pairs.fetch()[0][0]
