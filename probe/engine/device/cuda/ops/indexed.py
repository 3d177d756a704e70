"""GatherND, GatherElements, ScatterND, ScatterElements, ReverseSequence: elements at places that a tensor names."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.ops.scatter import combined
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.copies import UNITS, copy
from probe.engine.device.cuda.tensors.formats import I32, I64
from probe.engine.device.cuda.tensors.layout import contiguous, width

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

_THREADS = 256


def gather_nd(queue: Queue, call: Call) -> list[Tensor | None]:
    x, indices = call.stored(queue, 0), _indices(call, 1)
    batch = call.int("batch_dims", 0)
    depth = indices.shape[-1]
    inner = x.shape[batch + depth :]
    y = queue.empty((*indices.shape[:-1], *inner), call.store())
    batches = math.prod(x.shape[:batch])
    extents = x.shape[batch : batch + depth]
    _check(queue, indices, extents)
    tuples = math.prod(indices.shape[batch:-1])
    _by_tuples(queue, "gather_nd", (x, indices, y), extents, (tuples, batches, math.prod(inner)))
    return [y]


def scatter_nd(queue: Queue, call: Call) -> list[Tensor | None]:
    how = call.text("reduction", "none")
    x, indices, updates = call.stored(queue, 0), _indices(call, 1), call.stored(queue, 2)
    depth = indices.shape[-1]
    extents, inner = x.shape[:depth], x.shape[depth:]
    if updates.shape != (*indices.shape[:-1], *inner):
        raise Unsupported(f"updates of {updates.shape}")
    _check(queue, indices, extents)
    y = _copied(queue, x)
    tuples = math.prod(indices.shape[:-1])
    if how != "none":
        if not extents:
            raise Unsupported("tuples of no index")
        numbers = (*extents, *contiguous(extents), 0, 0)
        combined(queue, how, (call.data(0), indices, call.data(2), y), numbers, elements=False)
        return [y]
    _by_tuples(queue, "scatter_nd", (updates, indices, y), extents, (tuples, 1, math.prod(inner)))
    return [y]


def _by_tuples(
    queue: Queue,
    entry: str,
    tensors: tuple[Tensor, Tensor, Tensor],
    extents: Sequence[int],
    sizes: tuple[int, int, int],
) -> None:
    """Slices moved between where a tuple of indices says and where the tuple stands.

    Args:
        tensors: from, indices, to.
        sizes: tuples of indices a batch, batches, elements of a slice.
    """
    source, indices, _ = tensors
    tuples, batches, inner = sizes
    assert source.format is not None and indices.format is not None
    if not extents:
        raise Unsupported("tuples of no index")
    lanes = width(16 // source.format.bytes, inner) if inner else 1
    total = tuples * batches * inner // lanes
    rank = len(extents)
    gathers = int(entry == "gather_nd")
    macros = (
        ("UNIT", UNITS[source.format.bytes * lanes]), ("TI", indices.format.name), ("RANK", rank), ("GATHERS", gathers), ("ENTRY_ND", entry),
    )  # fmt: skip
    numbers = (*extents, *contiguous(extents), tuples, math.prod(extents), inner // lanes, total)
    _launch(queue, Source("indexed.cu", entry, macros), tensors, numbers, total)


def gather_elements(queue: Queue, call: Call) -> list[Tensor | None]:
    x, indices = call.stored(queue, 0), _indices(call, 1)
    y = queue.empty(indices.shape, call.store())
    _by_elements(queue, "gather_elements", (x, indices, y), x.shape, call.int("axis", 0))
    return [y]


def scatter_elements(queue: Queue, call: Call) -> list[Tensor | None]:
    how, axis = call.text("reduction", "none"), call.int("axis", 0)
    x, indices, updates = call.stored(queue, 0), _indices(call, 1), call.stored(queue, 2)
    if updates.shape != indices.shape:
        raise Unsupported(f"updates of {updates.shape}")
    y = _copied(queue, x)
    if how != "none":
        numbers = _along(queue, indices, x.shape, axis)
        combined(queue, how, (call.data(0), indices, call.data(2), y), numbers, elements=True)
        return [y]
    _by_elements(queue, "scatter_elements", (updates, indices, y), x.shape, axis)
    return [y]


def _by_elements(
    queue: Queue, entry: str, tensors: tuple[Tensor, Tensor, Tensor], shape: tuple[int, ...], axis: int
) -> None:
    """Elements moved between where an index along ``axis`` says and where the index stands.

    Args:
        tensors: from, indices, to.
        shape: of the one that is indexed.
    """
    source, indices, _ = tensors
    assert source.format is not None and indices.format is not None
    numbers = _along(queue, indices, shape, axis)
    gathers = int(entry == "gather_elements")
    macros = (
        ("UNIT", UNITS[source.format.bytes]), ("TI", indices.format.name), ("RANK", len(shape)), ("GATHERS", gathers), ("ENTRY_ELEMENTS", entry),
    )  # fmt: skip
    total = math.prod(indices.shape)
    _launch(queue, Source("indexed.cu", entry, macros), tensors, (*numbers, total), total)


def _along(queue: Queue, indices: Tensor, shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """How indices along ``axis`` into ``shape`` are walked over: extents, steps, axis, extent.

    Raises:
        Unsupported: they do not fit the shape, or one is out of range.
    """
    if not shape or len(indices.shape) != len(shape):
        raise Unsupported(f"indices of {indices.shape} into {shape}")
    axis %= len(shape)
    beside = [one for at, one in enumerate(zip(indices.shape, shape, strict=True)) if at != axis]
    if any(mine > own for mine, own in beside):
        raise Unsupported(f"indices of {indices.shape} into {shape}")
    _check(queue, indices, (shape[axis],))
    return (*indices.shape, *contiguous(shape), axis, shape[axis])


def reverse_sequence(queue: Queue, call: Call) -> list[Tensor | None]:
    x, lengths = call.stored(queue, 0), _indices(call, 1)
    batch, time = call.int("batch_axis", 1), call.int("time_axis", 0)
    if {batch, time} != {0, 1} or len(x.shape) < 2 or lengths.shape != (x.shape[batch],):
        raise Unsupported(f"ReverseSequence of {x.shape} by {lengths.shape}")
    y = queue.empty(x.shape, call.like(x))
    known = queue.known(lengths)
    if known is not None and ((known < 0) | (known > x.shape[time])).any():
        raise Unsupported("a length that is out of range")
    assert x.format is not None and lengths.format is not None
    inner = math.prod(x.shape[2:])
    lanes = width(16 // x.format.bytes, inner) if inner else 1
    macros = (
        ("UNIT", UNITS[x.format.bytes * lanes]), ("TI", lengths.format.name), ("BATCH_FIRST", int(batch == 0)), ("ENTRY_REVERSE", 1),
    )  # fmt: skip
    queue.launch(
        Source("indexed.cu", "reverse_sequence", macros), math.ceil(x.size // lanes / _THREADS), _THREADS, *map(queue.at, (x, lengths, y)),
        queue.fault(), *map(ctypes.c_longlong, (x.shape[time], x.shape[batch], inner // lanes)),
    )  # fmt: skip
    return [y]


def _launch(queue: Queue, source: Source, tensors: Sequence[Tensor], numbers: Sequence[int], total: int) -> None:
    given: Any = (ctypes.c_longlong * len(numbers))(*numbers)
    pointers = [queue.at(one) for one in tensors]
    queue.launch(source, math.ceil(total / _THREADS), _THREADS, *pointers, queue.fault(), given)


def _check(queue: Queue, indices: Tensor, extents: Sequence[int]) -> None:
    """Look whether indices are in range, where their values may be looked at; elsewhere the kernel does.

    Raises:
        Unsupported: one is not.
    """
    numbers = queue.known(indices)
    if numbers is not None and numbers.size:
        limits = np.array(extents)
        if (numbers < -limits).any() or (numbers >= limits).any():
            raise Unsupported("an index that is out of range")


def _copied(queue: Queue, x: Tensor) -> Tensor:
    assert x.format is not None
    y = queue.empty(x.shape, x.format)
    steps = contiguous(x.shape)
    copy(queue, x.shape, (x, 0, steps), (y, 0, steps))
    return y


def _indices(call: Call, position: int) -> Tensor:
    found = call.data(position)
    if found.format not in (I64, I32):
        raise Unsupported("indices of another type than int64 and int32")
    return found


INDEXED = (
    Op(("GatherND",), gather_nd),
    Op(("ScatterND",), scatter_nd),
    Op(("GatherElements",), gather_elements),
    Op(("ScatterElements", "Scatter"), scatter_elements),
    Op(("ReverseSequence",), reverse_sequence),
)
