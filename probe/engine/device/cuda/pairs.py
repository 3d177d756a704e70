"""``PairSums``: what metrics are made of, summed up on the device over a tensor of a run and its golden twin; only the sums leave the device.

The fields mean what those of ``probe.metrics.sums.Sums`` of the same names mean; this room knows no metric and imports none.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cuda.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.formats import F32
from probe.engine.device.cuda.layout import width

if TYPE_CHECKING:
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensor import Tensor

Array = np.ndarray[Any, Any]
_ADDED = (
    "abs_error", "rel_error", "squared_error", "golden_squared", "actual_squared", "dot", "aside", "nan_actual", "inf_actual",
    "nan_golden", "inf_golden", "nonfinite_mismatch", "sentinels", "sentinel_mismatch", "mismatched",
)  # fmt: skip
_MAXIMA = ("max_rel", "golden_max", "actual_max", "golden_min", "actual_min", "sentinel_error")
_VALUES = len(_ADDED) + len(_MAXIMA) + 2
_THREADS = 256
_BLOCKS = 8  # a multiprocessor
_LEAST = 1 << 13  # elements worth a block


@dataclass(frozen=True, slots=True)
class Measure:
    """How pairs are measured.

    Attributes:
        threshold: magnitude of golden from which an element is a mask and not compared.
        boundary: magnitude from which an actual element counts as a mask.
        floor: relative errors divide by no less.
        atol: with ``rtol``: an element is mismatched when its error is over ``atol + rtol * |golden|``.
    """

    threshold: float = math.inf
    boundary: float = math.inf
    floor: float = 0.0
    atol: float = 0.0
    rtol: float = 0.0


@dataclass(frozen=True, slots=True)
class PairSums:
    """Of one pair; see ``probe.metrics.sums.Sums``.

    Attributes:
        place: flat index of the largest error.
        row_error, row_range: of every row of the layout: largest error, largest magnitude of golden.
    """

    count: int
    compared: int
    nan_actual: int
    inf_actual: int
    nan_golden: int
    inf_golden: int
    nonfinite_mismatch: int
    sentinels: int
    sentinel_mismatch: int
    sentinel_error: float
    mismatched: int
    abs_error: float
    rel_error: float
    squared_error: float
    golden_squared: float
    actual_squared: float
    dot: float
    max_abs: float
    place: int
    max_rel: float
    golden_min: float
    golden_max: float
    actual_min: float
    actual_max: float
    row_error: Array
    row_range: Array


class _Measure(ctypes.Structure):
    """The struct of kernels/pairs.cu."""

    _fields_ = tuple((name, ctypes.c_float) for name in ("threshold", "boundary", "floor", "atol", "rtol"))


@dataclass(frozen=True, slots=True)
class Pending:
    """Sums that the device is still making."""

    queue: Queue
    count: int
    all: Tensor
    row_error: Tensor
    row_range: Tensor

    def result(self) -> PairSums:
        """Waits for them."""
        raw = np.empty(_VALUES * 8, np.uint8)
        self.queue.backend.download(raw, self.all.address(self.queue.backend))
        values = raw.view(np.float64).tolist()
        named: dict[str, Any] = dict(zip((*_ADDED, *_MAXIMA, "max_abs", "place"), values, strict=True))
        for name in ("golden_min", "actual_min"):
            named[name] = -named[name]
        for name in (*_ADDED[6:], "place"):
            named[name] = int(named[name])
        named["compared"] = self.count - named.pop("aside")
        rows = [one.array(self.queue.backend) for one in (self.row_error, self.row_range)]
        return PairSums(count=self.count, row_error=rows[0], row_range=rows[1], **named)


def measure(queue: Queue, actual: Tensor, golden: Tensor, how: Measure, rows: int = 1) -> Pending:
    """Sums of a pair of tensors on the device.

    Args:
        golden: float32, of as many elements.
        rows: of equal length that maxima are kept of: batch items, or items times channels.

    Raises:
        Unsupported: other types, or rows of unequal length.
    """
    if actual.format is None or not actual.format.is_float or golden.format is not F32:
        raise Unsupported("sums over other than floats")
    if actual.size != golden.size or not actual.size or rows < 1 or actual.size % rows:
        raise Unsupported(f"sums over {actual.size} and {golden.size} elements in {rows} rows")
    cols = actual.size // rows
    lanes = width(4, cols)
    blocks = _BLOCKS * queue.backend.multiprocessors
    per_row = max(1, min(math.ceil(blocks / rows), cols // _LEAST))
    span = math.ceil(cols / per_row / (lanes * _THREADS)) * lanes * _THREADS
    per_row = math.ceil(cols / span)
    if span >= 1 << 31:
        raise Unsupported(f"sums over rows of {cols} elements")
    parts = queue.empty((rows * per_row, _VALUES, 2), F32)  # doubles
    made = queue.empty((_VALUES, 2), F32)
    row_error, row_range = queue.empty((rows,), F32), queue.empty((rows,), F32)
    given = _Measure(how.threshold, how.boundary, how.floor, how.atol, how.rtol)
    macros = (("TA", actual.format.name), ("VEC", lanes))
    queue.launch(
        Source("pairs.cu", "pairs_parts", (*macros, ("ENTRY_PARTS", 1))), rows * per_row, _THREADS, queue.at(actual), queue.at(golden),
        queue.at(parts), ctypes.c_longlong(cols), ctypes.c_int(per_row), ctypes.c_longlong(span), given,
    )  # fmt: skip
    queue.launch(
        Source("pairs.cu", "pairs_join", (("TA", "float"), ("VEC", 1), ("ENTRY_JOIN", 1))), 1, 1024, queue.at(parts), queue.at(made),
        queue.at(row_error), queue.at(row_range), ctypes.c_int(rows), ctypes.c_int(per_row),
    )  # fmt: skip
    return Pending(queue, actual.size, made, row_error, row_range)
