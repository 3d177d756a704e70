"""``Agreements``: rows and columns of pairs on the device: largest elements, divergence of distributions, the maxima of channels that are columns."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.numbers import LONGEST, int32
from probe.engine.device.cuda.tensors.formats import I32
from probe.engine.device.pairs import Agreement, PairRows

if TYPE_CHECKING:
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

Array = np.ndarray[Any, Any]
_THREADS = 256
_WIDE = 1024  # columns from which a row is a block's
_UNIT = 2.0**-40  # nats
_DISTRIBUTIONS = 600_000  # of 27.7 nats each, at most, whose sum in units stays below 2^64
_PAIRS, _WORDS = 64, 10  # of results of rows: pairs together, words each
_MAXIMA = 1 << 17  # words of columns' maxima together
_STRETCH = 64  # rows that a thread walks down a column


@dataclass(frozen=True, slots=True)
class PendingRows:
    """Rows of a pair that the device is still at: entry ``at`` of ``made``."""

    made: Tensor
    at: int
    rows: int
    asked: Agreement


@dataclass(frozen=True, slots=True)
class PendingColumns:
    """Maxima of ``cols`` columns that the device is still at: errors from word ``first`` of ``made`` on, then ranges."""

    made: Tensor
    first: int
    cols: int


class Agreements:
    """Of many pairs: launched as they are asked for, fetched afterwards."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._open: Tensor | None = None  # results of rows, of ``_used`` pairs so far
        self._used = 0
        self._maxima: Tensor | None = None  # of columns, of which ``_taken`` words are used
        self._taken = 0
        self._read: dict[int, tuple[Tensor, Array]] = {}

    def rows(self, actual: Tensor, golden: Tensor, asked: Agreement) -> PendingRows:
        """Launch the rows of a pair; ``rows_of`` reads what becomes of them.

        Raises:
            Unsupported: rows that are too long, or so many distributions that the sum of their divergences might not fit.
        """
        assert actual.format is not None
        if asked.cols >= LONGEST:
            raise Unsupported(f"rows of {asked.cols:,} elements")
        if asked.kl and actual.size // asked.cols > _DISTRIBUTIONS:
            raise Unsupported(f"the divergence of {actual.size // asked.cols} rows")
        rows, group = actual.size // asked.cols, _THREADS if asked.cols >= _WIDE else 32
        blocks = min(math.ceil(rows * group / _THREADS), 8 * self._queue.backend.multiprocessors)
        if self._open is None or self._used == _PAIRS:
            self._open, self._used = self._cleared(_PAIRS * _WORDS), 0
        begin = self._open.address(self._queue.backend) + 4 * _WORDS * self._used
        macros = (("TA", actual.format.name), ("GROUP", group), ("KL", int(asked.kl)), ("ENTRY_ROWS", 1))
        self._queue.launch(
            Source("pair_rows.cu", "rows_agree", macros), blocks, _THREADS, self._queue.at(actual), self._queue.at(golden), ctypes.c_void_p(begin),
            ctypes.c_void_p(begin + 32), ctypes.c_longlong(rows), int32(asked.cols),
        )  # fmt: skip
        self._used += 1
        return PendingRows(self._open, self._used - 1, rows, asked)

    def rows_of(self, pending: PendingRows) -> PairRows:
        """Waits for them; nothing is launched afterwards."""
        rows, asked = pending.rows, pending.asked
        raw = self._fetched(pending.made).reshape(_PAIRS, -1)[pending.at]
        top1, top5, kl_rows, kl = raw.view(np.uint64)[:4].tolist()
        return PairRows(
            rows, top1, rows if asked.cols > 5 else 0, top5, kl_rows, kl * _UNIT, float(raw.view(np.float64)[4])
        )

    def columns(self, actual: Tensor, golden: Tensor, cols: int, threshold: float) -> PendingColumns:
        """Launch the maxima of a pair's columns; ``columns_of`` reads them.

        Raises:
            Unsupported: too many columns.
        """
        assert actual.format is not None
        if cols >= LONGEST:
            raise Unsupported(f"{cols:,} columns")
        if self._maxima is None or self._taken + 2 * cols > self._maxima.size:
            self._maxima, self._taken = self._cleared(max(_MAXIMA, 2 * cols)), 0
        rows, pending = actual.size // cols, PendingColumns(self._maxima, self._taken, cols)
        self._taken += 2 * cols
        blocks = math.ceil(cols / _THREADS) * math.ceil(rows / _STRETCH)
        macros = (("TA", actual.format.name), ("GROUP", 32), ("KL", 0), ("ENTRY_COLUMNS", 1))
        self._queue.launch(
            Source("pair_rows.cu", "columns_most", macros), blocks, _THREADS, self._queue.at(actual), self._queue.at(golden),
            ctypes.c_void_p(pending.made.address(self._queue.backend) + 4 * pending.first),
            ctypes.c_longlong(rows), int32(cols), ctypes.c_int(_STRETCH), ctypes.c_float(threshold),
        )  # fmt: skip
        return pending

    def columns_of(self, pending: PendingColumns) -> tuple[Array, Array]:
        """Largest error and largest golden magnitude of each column; waits for them, and nothing is launched afterwards."""
        raw = self._fetched(pending.made).view(np.float32)[pending.first : pending.first + 2 * pending.cols]
        error, extent = raw.astype(np.float64).reshape(2, -1)
        return error, extent

    def _fetched(self, made: Tensor) -> Array:
        """Bytes of results of many pairs, copied to the host once."""
        if id(made) not in self._read:
            raw = np.empty(made.nbytes, np.uint8)
            self._queue.backend.download(raw, made.address(self._queue.backend))
            self._read[id(made)] = made, raw
        return self._read[id(made)][1]

    def _cleared(self, words: int) -> Tensor:
        made = self._queue.empty((words,), I32)
        source = Source("pairs.cu", "pairs_clear", (("ENTRY_CLEAR", 1),))
        self._queue.launch(
            source, min(128, math.ceil(words / _THREADS)), _THREADS, self._queue.at(made), ctypes.c_longlong(words)
        )
        return made
