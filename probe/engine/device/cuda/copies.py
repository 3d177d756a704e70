"""Copies inside device memory: between places walked with strides, transposes, fills."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from probe.engine.device.cuda.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.formats import packed
from probe.engine.device.cuda.layout import Shape, Strides, collapse, contiguous, width

if TYPE_CHECKING:
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensor import Tensor

UNITS = {1: "unsigned char", 2: "unsigned short", 4: "unsigned", 8: "unsigned long long", 16: "Wide"}
_FILLS: dict[int, type[ctypes._SimpleCData[int]]] = {
    1: ctypes.c_ubyte, 2: ctypes.c_ushort, 4: ctypes.c_uint, 8: ctypes.c_ulonglong,
}  # fmt: skip
_RANK = 8
_THREADS = 256
_SMALL = 1 << 31


def copy(
    queue: Queue,
    extents: Shape,
    source: tuple[Tensor, int, Strides],
    target: tuple[Tensor, int, Strides],
) -> None:
    """Copy a box of ``extents`` elements: each side a tensor, the element it begins at, and its strides (in elements; 0 and negative ones
    allowed on the source).

    Raises:
        Unsupported: more axes than the kernel walks over.
    """
    (x, x_first, x_strides), (y, y_first, y_strides) = source, target
    assert x.format is not None and x.format is y.format
    if not math.prod(extents):
        return
    joined, (x_steps, y_steps) = collapse(extents, [x_strides, y_strides])
    if len(joined) > _RANK:
        raise Unsupported(f"a copy over {len(joined)} axes")
    lanes = 1
    if x_steps[-1] == y_steps[-1] == 1:
        rest = (*x_steps[:-1], *y_steps[:-1], x_first, y_first)
        lanes = width(16 // x.format.bytes, joined[-1], *rest)
    walk = (*joined[:-1], joined[-1] // lanes)
    steps = [(*(s // lanes for s in one[:-1]), one[-1]) for one in (x_steps, y_steps)]
    count = math.prod(walk)
    wide = count >= _SMALL
    unit = UNITS[x.format.bytes * lanes]
    macros = (("UNIT", unit), ("RANK", len(walk)), ("INDEX", "i64" if wide else "unsigned"), ("ENTRY_COPY", 1))
    axes = (ctypes.c_longlong * (3 * len(walk)))(*walk, *steps[0], *steps[1])
    index = ctypes.c_longlong if wide else ctypes.c_uint
    queue.launch(
        Source("move.cu", "copy_strided", macros), math.ceil(count / _THREADS), _THREADS,
        _shifted(queue, x, x_first), _shifted(queue, y, y_first), index(count), axes,
    )  # fmt: skip


def _shifted(queue: Queue, tensor: Tensor, elements: int) -> ctypes.c_void_p:
    assert tensor.format is not None
    return ctypes.c_void_p(tensor.address(queue.backend) + elements * tensor.format.bytes)


def transposed(queue: Queue, x: Tensor, order: Sequence[int]) -> Tensor:
    """``x`` with its axes in another order; the same bytes where only axes of one element move."""
    assert x.format is not None
    shape = tuple(x.shape[axis] for axis in order)
    own = contiguous(x.shape)
    strides = tuple(own[axis] for axis in order)
    extents, (steps,) = collapse(shape, [strides])
    if not x.size or steps == contiguous(extents):
        return x.view(shape)
    y = queue.empty(shape, x.format)
    if (
        len(extents) in (2, 3)
        and steps[-2:] == (1, extents[-2])
        and (len(extents) == 2 or steps[0] == math.prod(extents[1:]))
    ):
        cols, rows = extents[-2:]
        _tiled(queue, x, y, (extents[0] if len(extents) == 3 else 1, rows, cols))
        return y
    copy(queue, shape, (x, 0, strides), (y, 0, contiguous(shape)))
    return y


def _tiled(queue: Queue, x: Tensor, y: Tensor, sizes: tuple[int, int, int]) -> None:
    """``y`` [batch, cols, rows] of ``x`` [batch, rows, cols]."""
    batch, rows, cols = sizes
    assert x.format is not None
    large = math.ceil(rows / 64) * math.ceil(cols / 64) * batch >= queue.backend.multiprocessors
    tile = 64 if large and min(rows, cols) > 32 else 32
    lanes = width(16 // x.format.bytes, rows, cols)
    across, down = math.ceil(cols / tile), math.ceil(rows / tile)
    if max(rows, cols) >= _SMALL:
        raise Unsupported(f"a transpose of {rows} x {cols}")
    macros = (("UNIT", UNITS[x.format.bytes]), ("TILE", tile), ("VEC", lanes), ("ENTRY_TRANSPOSE", 1))
    numbers = (ctypes.c_uint(n) for n in (rows, cols, across, down))
    queue.launch(
        Source("move.cu", "transpose", macros), batch * across * down, _THREADS, queue.at(x), queue.at(y), *numbers
    )


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
