"""Copies inside device memory: between places walked with strides, transposes, fills."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.tensors.formats import Format, packed
from probe.engine.device.cuda.tensors.layout import Shape, Strides, collapse, contiguous, width
from probe.engine.device.cuda.tensors.lying import Lying, dense
from probe.engine.device.cuda.tensors.tensor import Tensor, lying

if TYPE_CHECKING:
    from probe.engine.device.cuda.queue import Queue

UNITS = {1: "unsigned char", 2: "unsigned short", 4: "unsigned", 8: "unsigned long long", 16: "Wide"}
_FILLS: dict[int, type[ctypes._SimpleCData[int]]] = {
    1: ctypes.c_ubyte, 2: ctypes.c_ushort, 4: ctypes.c_uint, 8: ctypes.c_ulonglong,
}  # fmt: skip
_RANK = 8
_ACCESS = 16  # bytes, at most
_ROWS = 4  # equal ones that a thread writes
_TILED = 4  # axes that a transpose walks over
_THREADS = 256
_SMALL = 1 << 31


def copy(
    queue: Queue,
    extents: Shape,
    source: tuple[Tensor, int, Strides],
    target: tuple[Tensor, int, Strides],
) -> None:
    """Copy a box of ``extents`` elements: each side a tensor, the element it begins at, and its strides (in elements; 0 and negative ones
    allowed on the source). Floats become what the target stores.

    Raises:
        Unsupported: more axes than the kernel walks over.
    """
    (x, x_first, x_strides), (y, y_first, y_strides) = source, target
    assert (
        x.format is not None
        and y.format is not None
        and (x.format is y.format or x.format.is_float is y.format.is_float is True)
    )
    if not math.prod(extents):
        return
    joined, (x_steps, y_steps) = collapse(extents, [x_strides, y_strides])
    if len(joined) > _RANK:
        raise Unsupported(f"a copy over {len(joined)} axes")
    if x.format is y.format and not x_steps[-1] and y_steps[-1] == 1 < joined[-1]:
        _repeated(queue, joined, (x, x_first, x_steps), (y, y_first, y_steps))
        return
    lanes = 1
    if x_steps[-1] == y_steps[-1] == 1:
        rest = (*x_steps[:-1], *y_steps[:-1], x_first, y_first)
        lanes = width(16 // max(x.format.bytes, y.format.bytes), joined[-1], *rest)
    walk = (*joined[:-1], joined[-1] // lanes)
    steps = [(*(s // lanes for s in one[:-1]), one[-1]) for one in (x_steps, y_steps)]
    count = math.prod(walk)
    wide = count >= _SMALL
    moved = (("UNIT", UNITS[x.format.bytes * lanes]),)
    if x.format is not y.format:
        moved = (("TX", x.format.name), ("TY", y.format.name), ("VEC", lanes))
    macros = (*moved, ("RANK", len(walk)), ("INDEX", "i64" if wide else "unsigned"), ("ENTRY_COPY", 1))
    axes = (ctypes.c_longlong * (3 * len(walk)))(*walk, *steps[0], *steps[1])
    index = ctypes.c_longlong if wide else ctypes.c_uint
    queue.launch(
        Source("move.cu", "copy_strided", macros), math.ceil(count / _THREADS), _THREADS,
        _shifted(queue, x, x_first), _shifted(queue, y, y_first), index(count), axes,
    )  # fmt: skip


def _repeated(
    queue: Queue, extents: Shape, source: tuple[Tensor, int, Strides], target: tuple[Tensor, int, Strides]
) -> None:
    """A copy whose source stands still along the last axis: of neighbours together where their copies lie side by side, and for several rows that are
    the same at once."""
    (x, x_first, x_steps), (y, y_first, y_steps) = source, target
    assert x.format is not None
    widest, times, read = _ACCESS // x.format.bytes, extents[-1], 1
    walk = [list(one) for one in (extents, x_steps, y_steps)]
    beside = len(extents) > 1 and x_steps[-2] == 1 and y_steps[-2] == times
    if beside and times <= widest and times % widest:
        for one in walk:
            one.pop()
        wanted = widest if widest % times else widest // times
        read = width(wanted, walk[0][-1], *x_steps[:-2], x_first)
        walk[0][-1] //= read
        walk[1][-1], walk[2][-1] = read, read * times
    else:
        times = width(widest, times, *y_steps[:-1], y_first)
        walk[0][-1] //= times
        walk[2][-1] = times
    piece = width(widest, read * times, y_first, *walk[2])
    still = [axis for axis, step in enumerate(walk[1][:-1]) if not step and 1 < walk[0][axis] <= _ROWS]
    rows, pitch = 1, 0
    if still:
        rows, _, pitch = (one.pop(still[-1]) for one in walk)
    count = math.prod(walk[0])
    wide = count >= _SMALL
    macros = (
        ("UNIT", UNITS[x.format.bytes]), ("RANK", len(walk[0])), ("INDEX", "i64" if wide else "unsigned"), ("READ", read), ("TIMES", times), ("ROWS", rows),
        ("PIECE", piece), ("ENTRY_REPEAT", 1),
    )  # fmt: skip
    axes = (ctypes.c_longlong * (3 * len(walk[0])))(*walk[0], *walk[1], *walk[2])
    index = ctypes.c_longlong if wide else ctypes.c_uint
    queue.launch(
        Source("move.cu", "repeat", macros), math.ceil(count / _THREADS), _THREADS, _shifted(queue, x, x_first), _shifted(queue, y, y_first),
        index(count), ctypes.c_longlong(pitch), axes,
    )  # fmt: skip


def _shifted(queue: Queue, tensor: Tensor, elements: int) -> ctypes.c_void_p:
    assert tensor.format is not None
    return ctypes.c_void_p(tensor.address(queue.backend) + elements * tensor.format.bytes)


def lying_of(queue: Queue, x: Tensor) -> Lying:
    """Where the elements of a tensor lie; it is copied to the device if need be."""
    if x.lies is None:
        if x.before is None:
            x.address(queue.backend)
        return dense(x)
    return x.lies


def placed(queue: Queue, lies: Lying) -> Tensor:
    """A tensor that lies so; brought into dense order only when someone asks for its address."""
    return lying(lies, lies.base.format, lambda: in_dense_order(queue, lies))


def rounded_late(queue: Queue, x: Tensor, format: Format, rounding: str) -> Tensor:  # noqa: A002 - the word of the room
    """A tensor rounded as by ``queue.convert``: by who reads it, or when someone asks for its address."""
    if x.lies is not None:
        if not x.lies.covers or x.lies.base.size != x.size:
            return queue.convert(x, format, rounding)
        return placed(queue, replace(x.lies, base=rounded_late(queue, x.lies.base, format, rounding)))
    x.address(queue.backend)
    return Tensor(x.shape, format, late=lambda: queue.convert(x, format, rounding), before=x)


@dataclass(frozen=True, slots=True)
class Ordered:
    """A tensor seen in the order in which it lies in memory.

    Attributes:
        dense: its axes in that order.
        order: which axis each of them is.
    """

    dense: Tensor
    order: tuple[int, ...]

    def axis(self, of: int) -> int:
        """Where an axis of the tensor lies."""
        return self.order.index(of)

    def back(self, queue: Queue, made: Tensor) -> Tensor:
        """What was made in this order, its axes in that of the tensor."""
        return placed(queue, lying_of(queue, made).permuted([self.order.index(at) for at in range(len(self.order))]))


def ordered(queue: Queue, x: Tensor) -> Ordered:
    """A tensor in the order of memory; in that of its axes where it has gaps."""
    order = x.lies.order if x.lies is not None else None
    if x.lies is None or order is None or not (moved := x.lies.permuted(order)).in_order:
        return Ordered(x, tuple(range(len(x.shape))))
    return Ordered(placed(queue, moved), order)


def transposed(queue: Queue, x: Tensor, order: Sequence[int]) -> Tensor:
    """``x`` with its axes in another order, dense; the same bytes where nothing moves."""
    if not x.size:
        return x.view(tuple(x.shape[axis] for axis in order))
    lies = lying_of(queue, x).permuted(order)
    return placed(queue, lies) if lies.in_order else in_dense_order(queue, lies)


def in_dense_order(queue: Queue, lies: Lying, format: Format | None = None) -> Tensor:  # noqa: A002 - the word of the room
    """A copy of what lies so; in another type of float where one is given."""
    x = lies.base
    assert x.format is not None
    y = queue.empty(lies.shape, format or x.format)
    parts = lies.parts
    if y.format is not x.format or not _tiled(queue, lies, y):
        extents, steps = tuple(extent for extent, _ in parts), tuple(step for _, step in parts)
        copy(queue, extents or (1,), (x, lies.first, steps or (0,)), (y, 0, contiguous(extents or (1,))))
    return y


def _tiled(queue: Queue, lies: Lying, y: Tensor) -> bool:
    """``y`` [outer, inner, cols, rows] of rows of contiguous columns, through shared memory; False where it does not lie so."""
    x, parts = lies.base, lies.parts
    assert x.format is not None
    if not 2 <= len(parts) <= _TILED or parts[-2][1] != 1 or parts[-1][1] < parts[-2][0]:
        return False
    (cols, _), (rows, pitch) = parts[-2:]
    (outer, by_outer), (inner, by_inner) = (((1, 0),) * (_TILED - len(parts)) + parts[:-2])[:2]
    large = math.ceil(rows / 64) * math.ceil(cols / 64) * outer * inner >= queue.backend.multiprocessors
    tile = 64 if large and min(rows, cols) > 32 else 32
    lanes = width(16 // x.format.bytes, rows, cols, pitch, by_outer, by_inner, lies.first)
    across, down = math.ceil(cols / tile), math.ceil(rows / tile)
    blocks = outer * inner * across * down
    if max(rows, cols, blocks) >= _SMALL or min(by_outer, by_inner) < 0:
        return False
    macros = (("UNIT", UNITS[x.format.bytes]), ("TILE", tile), ("VEC", lanes), ("ENTRY_TRANSPOSE", 1))
    numbers = (ctypes.c_uint(n) for n in (rows, cols, across, down, inner))
    steps = (ctypes.c_longlong(n) for n in (by_outer, by_inner, pitch))
    queue.launch(
        Source("move.cu", "transpose", macros), blocks, _THREADS, _shifted(queue, x, lies.first), queue.at(y), *numbers,
        *steps,
    )  # fmt: skip
    return True


def filled(queue: Queue, y: Tensor, value: float) -> None:
    """Every element of ``y`` set to ``value``."""
    assert y.format is not None
    bits = _FILLS[y.format.bytes].from_buffer_copy(packed(np.array([value], y.format.dtype), y.format).tobytes())
    macros = (("UNIT", UNITS[y.format.bytes]), ("ENTRY_FILL", 1))
    queue.launch(
        Source("move.cu", "fill", macros),
        math.ceil(y.size / _THREADS),
        _THREADS,
        queue.at(y),
        ctypes.c_longlong(y.size),
        bits,
    )


def gathered(queue: Queue, x: Tensor, indices: Tensor, sizes: tuple[int, int, int, int], y: Tensor) -> None:
    """``y[o, j, i] = x[o, indices[j], i]``. An index out of range is noted in ``queue.faults`` and read as 0.

    Args:
        sizes: outer, extent of the axis, number of indices, inner.
    """
    assert x.format is not None and indices.format is not None
    outer, extent, picks, inner = sizes
    lanes = width(16 // x.format.bytes, inner) if inner else 1
    total = outer * picks * inner // lanes
    macros = (("UNIT", UNITS[x.format.bytes * lanes]), ("TI", indices.format.name), ("ENTRY_GATHER", 1))
    numbers = (ctypes.c_longlong(n) for n in (total, extent, picks, inner // lanes))
    queue.launch(
        Source("move.cu", "gather", macros), math.ceil(total / _THREADS), _THREADS, queue.at(x), queue.at(indices), queue.at(y),
        queue.fault(), *numbers,
    )  # fmt: skip
