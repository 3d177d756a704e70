"""``Course``: the order in which a kernel runs over the elements of a shape: that of what it reads, so that nothing has to be moved before."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probe.engine.device.cuda.tensors.copies import in_dense_order, lying_of
from probe.engine.device.cuda.tensors.layout import Shape, Strides, contiguous, spread
from probe.engine.device.cuda.tensors.lying import Axis, Lying, joined, refined

if TYPE_CHECKING:
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Course:
    """A walk over a shape.

    Attributes:
        extents: of the pieces of axes, in the order of the walk.
        read: what is read, as it lies.
        strides: of each of them along ``extents``.
        axes: how what is written in the order of the walk lies, seen as the shape.
    """

    extents: Shape
    read: tuple[Lying, ...]
    strides: tuple[Strides, ...]
    axes: tuple[Axis, ...]


def course_of(queue: Queue, shape: Shape, tensors: Sequence[Tensor]) -> Course:
    """How to run over ``shape``, to which tensors are broadcast.

    The order of ``shape`` itself, if something of its size lies so or nothing lies without gaps; else that of the first that does. What then
    has no contiguous elements along the walk is brought into its order first.
    """
    read = [lying_of(queue, one) for one in tensors]
    if all(one.lies is None for one in tensors):
        axes = tuple(joined([part]) for part in zip(shape, contiguous(shape), strict=True))
        return Course(shape, tuple(read), tuple(spread(one.shape, shape) for one in tensors), axes)
    whole = [at for at, one in enumerate(tensors) if one.size == math.prod(shape) and one.size > 1]
    pieces = refined(shape, [_broadcast(one, shape) for one in read])
    if pieces is None:
        read = [one if tensor.lies is None else _moved(queue, one) for one, tensor in zip(read, tensors, strict=True)]
        whole, pieces = [], refined(shape, [_broadcast(one, shape) for one in read])
    assert pieces is not None
    extents = [extent for axis in pieces[0] for extent in axis]
    strides = [[step for axis in own for _, step in axis] for own in pieces[1]]
    order = _order(extents, [(strides[at], read[at].covers) for at in whole])
    walked = [extents[at] for at in order]
    for at in whole:
        own = [strides[at][piece] for piece in order]
        last = next((step for step, extent in zip(reversed(own), reversed(walked), strict=True) if extent > 1), 1)
        if last not in (0, 1):
            read[at], strides[at] = _in_order_of(queue, read[at], pieces, at, order)
    steps = dict(zip(order, contiguous(walked), strict=True))
    places: Iterator[int] = iter(range(len(extents)))
    axes = tuple(joined([(extent, steps[next(places)]) for extent in axis]) for axis in pieces[0])
    return Course(tuple(walked), tuple(read), tuple(tuple(own[at] for at in order) for own in strides), axes)


def _broadcast(one: Lying, shape: Shape) -> tuple[Axis, ...]:
    return (*(() for _ in range(len(shape) - len(one.axes))), *one.axes)


def _moved(queue: Queue, lies: Lying) -> Lying:
    return lying_of(queue, in_dense_order(queue, lies))


def _order(extents: Sequence[int], candidates: Sequence[tuple[Sequence[int], bool]]) -> list[int]:
    """Of pieces in a walk.

    Args:
        candidates: of each tensor of the whole size: its steps, and whether it lies without gaps.
    """
    straight = list(range(len(extents)))
    dense = list(contiguous(extents))
    found = straight
    for steps, covers in candidates:
        if all(own == step or extent == 1 for own, step, extent in zip(steps, dense, extents, strict=True)):
            return straight
        if covers and found is straight:
            found = sorted(straight, key=lambda at: -steps[at] if extents[at] > 1 else 0)
    return found


def _in_order_of(
    queue: Queue, lies: Lying, pieces: tuple[list[list[int]], list[list[Axis]]], at: int, order: Sequence[int]
) -> tuple[Lying, list[int]]:
    """A tensor brought into the order of a walk, and its steps along the pieces."""
    parts = [part for axis in pieces[1][at] for part in axis]
    walked = Lying(lies.base, lies.first, tuple(joined([parts[piece]]) for piece in order))
    made = lying_of(queue, in_dense_order(queue, walked))
    steps = dict(zip(order, contiguous([parts[piece][0] for piece in order]), strict=True))
    return made, [steps[piece] for piece in range(len(parts))]
