"""Products of matrices of 8-bit integers: exact sums, or what a scale makes of them; on tensor cores but for small ones of odd sizes."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.pointwise import Reading, run_steps
from probe.engine.device.cuda.numbers import LONGEST, Struct
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import F32, I8, I32, U8, Format
from probe.engine.device.cuda.tensors.tensor import host_tensor

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.call import Call
    from probe.engine.device.cuda.tensors.tensor import Tensor

Array = np.ndarray[Any, Any]
BOUNDS = {"u8": "0.f, 255.f", "i8": "-128.f, 127.f"}
LINE = 16  # bytes that lines divide by
_THREADS = 256
_SMALL_TILE, _SMALL_K = 64, 128
_NONE, _MADE, _GIVEN = 0, 1, 2  # sums of rows or columns
_LINES, _ROWS, _COLUMNS = "integers in lines of 16 bytes", "sums of rows", "sums of columns"  # Tensor.kept


class SmallProblem(Struct):
    """The struct Product of kernels/integer.cu."""

    _fields_ = (
        *((name, ctypes.c_longlong) for name in ("a_batches", "b_batches", "down", "across")),
        *((name, ctypes.c_int) for name in "mnk"),
    )


class Problem(Struct):
    """The struct Product of kernels/integer_mma.cu."""

    _fields_ = (*SmallProblem._fields_, ("a_row", ctypes.c_int), ("b_row", ctypes.c_int))


class Lines(Struct):
    """The struct of kernels/integer.cu."""

    _fields_ = (("pieces", ctypes.c_longlong), ("cols", ctypes.c_int), ("line", ctypes.c_int))


@dataclass(frozen=True, slots=True)
class Bytes:
    """A factor: 8-bit matrices one behind the other.

    Attributes:
        zero: its zero point: one, or one for each row (of the first factor) or column (of the second); None: 0.
        fixed: it is a weight; ``zero_fixed``: its zero point is.
        line: bytes from one row to the next; 0: as many as columns.
    """

    x: Tensor
    batches: int
    rows: int
    cols: int
    zero: Tensor | None
    fixed: bool = False
    zero_fixed: bool = False
    line: int = 0

    @property
    def is_zero(self) -> bool:
        """Whether its zero points are 0 in every run."""
        if self.zero is None:
            return True
        known = self.zero.constant if self.zero_fixed else None
        return known is not None and not known.any()

    def in_lines(self, queue: Queue) -> bool:
        return bool(self.line) or (self.cols % LINE == 0 and self.x.address(queue.backend) % LINE == 0)


@dataclass(frozen=True, slots=True)
class Requantised:
    """Sums as 8-bit integers of another scale: ``round(float(s + bias) * (scale of a * scale of b / scale)) + zero``, cut off at the ends.

    Attributes:
        a_scale: one, or one for each row of all batches of the first factor.
        b_scale: one, or one for each column.
        bias: for each row, as ``a_scale``.
    """

    store: Format
    a_scale: Tensor
    b_scale: Tensor
    scale: Tensor
    zero: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Tile:
    """Of a block, and of a warp."""

    m: int
    n: int
    k: int
    warp_m: int
    warp_n: int
    along: int  # warps that share k
    stages: int
    busy: int  # cycles of a step of k where blocks share a multiprocessor
    alone: int  # where they do not
    around: int  # cycles of a block before its first step and behind its last

    @property
    def threads(self) -> int:
        return 32 * (self.m // self.warp_m) * (self.n // self.warp_n) * self.along

    @property
    def shared_bytes(self) -> int:
        return self.stages * (self.m * (self.k + LINE) + self.k * self.n)


# Cycles as measured on an H200
TILES = (
    Tile(128, 128, 64, 64, 64, 1, 4, 680, 870, 2400),
    Tile(64, 64, 128, 32, 32, 1, 4, 515, 550, 1650),
    Tile(16, 64, 256, 16, 64, 4, 4, 580, 650, 1050),
)


@lru_cache(maxsize=4096)
def choose(m: int, n: int, k: int, batches: int, multiprocessors: int) -> Tile:
    """The tile that should take the least time."""

    def cycles(tile: Tile) -> int:
        each = math.ceil(batches * math.ceil(m / tile.m) * math.ceil(n / tile.n) / multiprocessors)
        steps = math.ceil(k / tile.k)
        return max(each * (steps * tile.busy + tile.around), steps * tile.alone + tile.around)

    return min(TILES, key=cycles)


def is_fixed(call: Call, at: int) -> bool:
    """Whether an input is a weight."""
    value = call.node.inputs[at] if at < len(call.node.inputs) else None
    return value is not None and value.is_initializer()


def only_one(zero: Tensor | None) -> Tensor | None:
    """A zero point of a whole tensor.

    Raises:
        Unsupported: there are several.
    """
    if zero is not None and zero.size != 1:
        raise Unsupported(f"{zero.size} zero points of one tensor")
    return zero


def product(
    queue: Queue, a: Bytes, b: Bytes, batches: int, ending: Requantised | None = None, *, tile: Tile | None = None
) -> Tensor:
    """[batches, rows, columns] of int32, or of what ``ending`` stores; a factor with fewer batches is repeated.

    Args:
        tile: on tensor cores, with this one; None: whatever should take the least time.

    Raises:
        Unsupported: other types, a zero point that does not fit.
    """
    for one, own in ((a, a.batches * a.rows), (b, b.cols)):
        if one.x.format not in (U8, I8) or (
            one.zero is not None and (one.zero.format is not one.x.format or one.zero.size not in (1, own))
        ):
            raise Unsupported("factors that are no 8-bit integers, or their zero points")
    if a.cols != b.rows or max(a.rows, a.cols, b.cols) >= LONGEST:
        raise Unsupported(f"a product of {a.rows} x {a.cols} and {b.rows} x {b.cols}")
    if not a.cols or (tile is None and _is_small(queue, a, b, batches)):
        sums = _small(queue, a, b, batches)
        return sums if ending is None else _requantised(queue, sums, a, ending)
    chosen = tile or choose(a.rows, b.cols, a.cols, batches, queue.backend.multiprocessors)
    return _on_tensor_cores(queue, a, b, batches, ending, chosen)


def _is_small(queue: Queue, a: Bytes, b: Bytes, batches: int) -> bool:
    """Whether bringing the factors into lines would take longer than what it wins."""
    if a.line or b.line or all(one.fixed or one.in_lines(queue) for one in (a, b)):
        return False
    tiles = batches * math.ceil(a.rows / _SMALL_TILE) * math.ceil(b.cols / _SMALL_TILE)
    return a.cols <= _SMALL_K and tiles <= queue.backend.multiprocessors


def _shared_macros(a: Bytes, b: Bytes) -> tuple[tuple[str, str | int], ...]:
    assert a.x.format is not None and b.x.format is not None
    return (
        ("TA", a.x.format.name), ("TB", b.x.format.name), ("ROWS_A", int(a.zero is not None and a.zero.size > 1)),
        ("COLS_B", int(b.zero is not None and b.zero.size > 1)),
    )  # fmt: skip


def _small(queue: Queue, a: Bytes, b: Bytes, batches: int) -> Tensor:
    y = queue.empty((batches, a.rows, b.cols), I32)
    down, across = math.ceil(a.rows / _SMALL_TILE), math.ceil(b.cols / _SMALL_TILE)
    queue.launch(
        Source("integer.cu", "integer_product", (*_shared_macros(a, b), ("ENTRY_PRODUCT", 1))),
        batches * down * across, _THREADS, *map(queue.at, (a.x, b.x, a.zero, b.zero, y)),
        SmallProblem(a.batches, b.batches, down, across, a.rows, b.cols, a.cols),
    )  # fmt: skip
    return y


def _on_tensor_cores(queue: Queue, a: Bytes, b: Bytes, batches: int, ending: Requantised | None, tile: Tile) -> Tensor:
    y = queue.empty((batches, a.rows, b.cols), I32 if ending is None else ending.store)
    (left, a_row), (right, b_row) = _lines(queue, a), _lines(queue, b)
    of_a, rows = _sums(a, _ROWS, 2) if not b.is_zero else (_NONE, None)
    of_b, cols = _sums(b, _COLUMNS, 1) if not a.is_zero else (_NONE, None)
    scales = tuple(int(one.size > 1) for one in (ending.a_scale, ending.b_scale)) if ending is not None else (0, 0)
    macros = (
        *_shared_macros(a, b), ("TY", y.format.name if y.format else ""), ("SUMS_A", of_a), ("SUMS_B", of_b), ("QUANTISED", int(ending is not None)),
        ("SCALES_A", scales[0]), ("SCALES_B", scales[1]), ("BM", tile.m), ("BN", tile.n), ("BK", tile.k), ("WM", tile.warp_m), ("WN", tile.warp_n),
        ("ALONG", tile.along), ("STAGES", tile.stages),
    )  # fmt: skip
    down, across = math.ceil(a.rows / tile.m), math.ceil(b.cols / tile.n)
    given: tuple[Tensor | None, ...] = (None,) * 5
    if ending is not None:
        wide = (queue.convert(one, F32) for one in (ending.a_scale, ending.b_scale, ending.scale))
        given = (*wide, ending.zero, ending.bias)
    queue.launch(
        Source("integer_mma.cu", "integer_mma", macros, contract=False), batches * down * across, tile.threads,
        *map(queue.at, (left, right, a.zero, b.zero, rows, cols, *given, y)),
        Problem(a.batches, b.batches, down, across, a.rows, b.cols, a.cols, a_row, b_row), shared_bytes=tile.shared_bytes,
    )  # fmt: skip
    return y


def _lines(queue: Queue, one: Bytes) -> tuple[Tensor, int]:
    """A factor whose rows begin on 16 bytes, with zeros behind them, and bytes from one to the next; of a weight made once."""
    if one.in_lines(queue):
        return one.x, one.line or one.cols
    line, count = -(-one.cols // LINE) * LINE, one.batches * one.rows
    known = one.x.constant if one.fixed else None
    if known is not None:
        return _kept(
            one.x, _LINES, lambda: np.pad(known.reshape(count, one.cols), ((0, 0), (0, line - one.cols)))
        ), line
    assert one.x.format is not None
    made = queue.empty((count, line), one.x.format)
    pieces = made.size // LINE
    source = Source("integer.cu", "integer_lines", (("ENTRY_LINES", 1),))
    queue.launch(
        source, math.ceil(pieces / _THREADS), _THREADS, *map(queue.at, (one.x, made)), Lines(pieces, one.cols, line)
    )
    return made, line


def _sums(one: Bytes, name: str, axis: int) -> tuple[int, Tensor | None]:
    """Whether the kernel makes the sums of a factor, and those of a weight."""
    known = one.x.constant if one.fixed else None
    if known is None:
        return _MADE, None
    stack = known.reshape(one.batches, one.rows, one.cols)
    return _GIVEN, _kept(one.x, name, lambda: stack.sum(axis, dtype=np.int32))


def _kept(x: Tensor, name: str, make: Callable[[], Array]) -> Tensor:
    if x.kept is None or name not in x.kept:
        x.kept = {**(x.kept or {}), name: host_tensor(make())}
    return x.kept[name]


def _requantised(queue: Queue, sums: Tensor, a: Bytes, ending: Requantised) -> Tensor:
    """Sums that lie in memory."""
    batches, _, cols = sums.shape
    rows = a.batches * a.rows
    by_row = lambda one: one.view(() if one.size == 1 else (rows, 1))
    by_col = ending.b_scale.view(() if ending.b_scale.size == 1 else (cols,))
    readings = [
        ("s", Reading(sums.view((batches // a.batches, rows, cols)))),
        ("a", Reading(by_row(ending.a_scale))),
        ("b", Reading(by_col)),
    ]
    readings += [("c", Reading(ending.scale.view(()))), ("z", Reading(ending.zero.view(())))]
    readings += [("bias", Reading(ending.bias.view((rows, 1))))] if ending.bias is not None else []
    total = "float(s + bias)" if ending.bias is not None else "float(s)"
    kind = ending.store.register
    value = f"{kind}(op_clip<float>(op_round({total} * (a * b / c)) + float(z), {BOUNDS[ending.store.name]}))"
    (made,) = run_steps(queue, readings[0][1].tensor.shape, readings, [Step("y", kind, value, "", ending.store)])
    return made.view(sums.shape)
