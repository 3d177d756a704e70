"""``Pairs``: what metrics are made of, summed up on the device over tensors of a run and their golden twins; only the sums leave the device."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.sums.worst import Walk, Worst
from probe.engine.device.cuda.tensors.formats import F32, I32
from probe.engine.device.pairs import Measure, PairSums, PairWorst, Rows

if TYPE_CHECKING:
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

Array = np.ndarray[Any, Any]
# In the order of the enums of kernels/pairs.cu
_VALUES = (
    "abs_error", "rel_error", "squared_error", "golden_squared", "actual_squared", "dot", "mismatched", "max_rel", "golden_max", "actual_max",
    "golden_min", "actual_min", "max_abs", "place",
)  # fmt: skip
_CLASSES = (
    "aside", "nan_actual", "inf_actual", "nan_golden", "inf_golden", "nonfinite_mismatch", "sentinels", "sentinel_mismatch", "wrong",
    "sentinel_error", "grid",
)  # fmt: skip
_THREADS = 256
_LANES = 8  # elements a thread takes at a time
_BLOCKS = 3  # a multiprocessor
_AHEAD = 0  # whether a thread loads its next elements before it works on those it has
_TABLE = _THREADS * 8  # rows a block keeps maxima of
_PAIRS = 64  # joined by one launch
_MAXIMA = 1 << 18  # of the items and channels of so many pairs
_LARGEST = 1 << 30  # elements of a row


class _Measure(ctypes.Structure):
    """The struct of kernels/pairs.cu."""

    _fields_ = (
        *((name, ctypes.c_float) for name in ("threshold", "boundary", "floor", "atol", "rtol")),
        *((name, ctypes.c_int) for name in ("equal_nan", "equal_inf")),
    )


class _Rows(ctypes.Structure):
    """The struct of kernels/pairs.cu."""

    _fields_ = tuple((name, ctypes.c_int) for name in ("cols", "channels", "items"))


@dataclass(slots=True)
class _Chunk:
    """Pairs that are joined by one launch.

    Attributes:
        made: what is fetched: joined values, classes, maxima. ``base``: where it lies.
        pairs: elements, rows and place among the maxima of each.
        walks: how the tensors of each were cut, with the tensors, until their largest errors are looked up.
    """

    made: Tensor
    base: int
    maxima: int
    pairs: list[tuple[int, Rows, int]]
    used: int = 0
    joined: bool = False
    walks: list[Walk | None] = field(default_factory=list)
    worst: Worst | None = None

    @property
    def classes_at(self) -> int:
        return _PAIRS * len(_VALUES) * 8

    @property
    def maxima_at(self) -> int:
        return self.classes_at + _PAIRS * len(_CLASSES) * 4


class Pairs:
    """Sums of many pairs: launched as they are asked for, fetched together.

    Args:
        most: largest errors that are looked up of pairs that ask for it.
    """

    def __init__(self, queue: Queue, most: int = 5) -> None:
        self._queue, self._most = queue, most
        self._blocks = _BLOCKS * queue.backend.multiprocessors  # of one pair, at most
        self._parts: Tensor | None = None
        self._parts_at = 0
        self._chunks: list[_Chunk] = []
        self._order: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._order)

    def add(
        self, actual: Tensor, golden: Tensor, how: Measure, rows: Rows | None = None, *, worst: bool = False
    ) -> int:
        """Launch the sums of a pair.

        Args:
            golden: float32, of as many elements.
            rows: whose maxima are kept.
            worst: look up its largest errors, too; both tensors are held until then.

        Returns:
            Its place in what ``fetch`` returns.

        Raises:
            Unsupported: other types, or rows of unequal or unheard-of length.
        """
        rows = rows or Rows()
        size = actual.size
        if actual.format is None or not actual.format.is_float or golden.format is not F32:
            raise Unsupported("sums over other than floats")
        if size != golden.size or not size or rows.count < 1 or size % rows.count:
            raise Unsupported(f"sums over {size} and {golden.size} elements in {rows.count} rows")
        cols = size // rows.count
        keeps = rows.count > 1
        lanes = _LANES if not keeps or cols >= _LANES else 1
        unit = _THREADS * lanes
        blocks = min(self._blocks, -(-size // unit))
        span = -(-size // (blocks * unit)) * unit
        if keeps:
            span = max(min(span, _TABLE * cols // unit * unit), unit)
        blocks = -(-size // span)
        if cols >= _LARGEST or span >= _LARGEST or blocks > self._blocks:
            raise Unsupported(f"sums over {rows.count} rows of {cols} elements")
        chunk = self._chunk(2 * (rows.items + rows.channels) if keeps else 0)
        at, base = len(chunk.pairs), chunk.base
        split = int(keeps and cols % lanes > 0)
        form = actual.format.name, lanes, int(keeps), split, self._blocks, int(how.either), _BLOCKS, _AHEAD
        self._queue.launch(
            _parts_source(form), blocks, _THREADS, self._queue.at(actual), self._queue.at(golden),
            ctypes.c_void_p(self._parts_at + at * len(_VALUES) * self._blocks * 8),
            ctypes.c_void_p(base + chunk.classes_at + at * len(_CLASSES) * 4), ctypes.c_void_p(base + chunk.maxima_at + chunk.used * 4),
            ctypes.c_longlong(size), ctypes.c_int(span),
            _Measure(how.threshold, how.boundary, how.floor, how.atol, how.rtol, how.equal_nan, how.equal_inf),
            _Rows(cols, rows.channels, rows.items),
        )  # fmt: skip
        chunk.pairs.append((size, rows, chunk.used))
        chunk.walks.append(Walk(actual, golden, span, blocks, how.threshold) if worst else None)
        if keeps:
            chunk.used += 2 * (rows.items + (rows.channels if rows.channels > 1 else 0))
        self._order.append((len(self._chunks) - 1, at))
        return len(self._order) - 1

    def fetch(self) -> list[tuple[PairSums, tuple[PairWorst, ...]]]:
        """All sums asked for, in order, with the largest errors of those that asked for them; waits for them."""
        self._join()
        made: list[list[tuple[PairSums, tuple[PairWorst, ...]]]] = []
        for chunk in self._chunks:
            raw = np.empty(chunk.maxima_at + 4 * chunk.used, np.uint8)
            self._queue.backend.download(raw, chunk.base)
            worst = chunk.worst.fetch() if chunk.worst is not None else [()] * len(chunk.pairs)
            made.append([(_sums(raw, chunk, at), worst[at]) for at in range(len(chunk.pairs))])
        found = [made[chunk][at] for chunk, at in self._order]
        self._chunks, self._order = [], []
        return found

    def _chunk(self, maxima: int) -> _Chunk:
        """One with room for another pair of so many maxima."""
        if self._chunks:
            last = self._chunks[-1]
            if not last.joined and len(last.pairs) < _PAIRS and last.used + maxima <= last.maxima:
                return last
            self._join()
        if self._parts is None:
            self._parts = self._queue.empty((_PAIRS * len(_VALUES) * self._blocks * 2,), F32)  # doubles
            self._parts_at = self._parts.address(self._queue.backend)
        room = max(_MAXIMA, maxima)
        made = self._queue.empty(((_PAIRS * (len(_VALUES) * 2 + len(_CLASSES)) + room),), I32)
        chunk = _Chunk(made, made.address(self._queue.backend), room, [])
        words = chunk.made.size
        self._queue.launch(
            Source("pairs.cu", "pairs_clear", (("ENTRY_CLEAR", 1),)), min(self._blocks, -(-words // _THREADS)), _THREADS,
            ctypes.c_void_p(chunk.base), ctypes.c_longlong(words),
        )  # fmt: skip
        self._chunks.append(chunk)
        return chunk

    def _join(self) -> None:
        if not self._chunks or self._chunks[-1].joined:
            return
        chunk = self._chunks[-1]
        chunk.joined = True
        base = chunk.base
        self._queue.launch(
            Source("pairs.cu", "pairs_join", (("BLOCKS", self._blocks), ("ENTRY_JOIN", 1))), len(chunk.pairs), _THREADS, ctypes.c_void_p(self._parts_at),
            ctypes.c_void_p(base + chunk.classes_at), ctypes.c_void_p(base),
        )  # fmt: skip
        if any(chunk.walks):
            stride = len(_VALUES) * self._blocks * 8
            first = self._parts_at + _VALUES.index("max_abs") * self._blocks * 8
            chunk.worst = Worst(self._queue, chunk.walks, first, stride, most=self._most, blocks=self._blocks)
            chunk.walks = []


@cache
def _parts_source(form: tuple[Any, ...]) -> Source:
    names = ("TA", "VEC", "ROWS", "SPLIT", "BLOCKS", "EITHER", "LEAST", "AHEAD")
    return Source("pairs.cu", "pairs_parts", (*zip(names, form, strict=True), ("ENTRY_PARTS", 1)))


def _sums(raw: Array, chunk: _Chunk, at: int) -> PairSums:
    values = raw[: chunk.classes_at].view(np.float64).reshape(_PAIRS, len(_VALUES))[at].tolist()
    classes = raw[chunk.classes_at : chunk.maxima_at].view(np.uint32).reshape(_PAIRS, len(_CLASSES))[at]
    maxima = raw[chunk.maxima_at :].view(np.float32)
    size, rows, begin = chunk.pairs[at]
    named: dict[str, Any] = {}
    named.update(zip(_VALUES, values, strict=True))
    named.update(zip(_CLASSES, classes.tolist(), strict=True))
    named["sentinel_error"] = float(classes.view(np.float32)[_CLASSES.index("sentinel_error")])
    for name in ("golden_min", "actual_min"):
        named[name] = -named[name]
    named["place"] = int(named["place"])
    named["mismatched"] = int(named["mismatched"]) + named.pop("wrong")
    named["compared"] = size - named.pop("aside")
    del named["grid"]
    items = rows.items if rows.count > 1 else 0
    channels = rows.channels if rows.channels > 1 else 0
    cuts = np.cumsum([begin, items, items, channels, channels])
    parts = [maxima[low:high].astype(np.float64) for low, high in pairwise(cuts)]
    return PairSums(
        count=size, item_error=parts[0], item_range=parts[1], channel_error=parts[2], channel_range=parts[3], **named
    )


def measure(queue: Queue, actual: Tensor, golden: Tensor, how: Measure, rows: Rows | None = None) -> PairSums:
    """Sums of one pair; waits for them. As ``Pairs.add``."""
    pairs = Pairs(queue)
    pairs.add(actual, golden, how, rows)
    return pairs.fetch()[0][0]
