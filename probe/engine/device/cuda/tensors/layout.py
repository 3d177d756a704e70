"""Shapes and strides: broadcasting, and joining axes that lie one behind the other. Pure arithmetic; strides are in elements."""

from __future__ import annotations

import math
from collections.abc import Sequence

from probe.engine.device.cuda.errors import Unsupported

Shape = tuple[int, ...]
Strides = tuple[int, ...]


def contiguous(shape: Sequence[int]) -> Strides:
    """Strides of a dense tensor, last axis fastest."""
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


def broadcast(*shapes: Shape) -> Shape:
    """The shape that several broadcast to, as numpy and ONNX do.

    Raises:
        Unsupported: they do not; ONNX Runtime then says what is wrong.
    """
    rank = max(map(len, shapes), default=0)
    result = []
    for axis in range(rank):
        extents = {shape[axis - rank] for shape in shapes if axis >= rank - len(shape)} - {1}
        if len(extents) > 1:
            raise Unsupported(f"shapes {', '.join(map(str, shapes))} do not broadcast")
        result.append(extents.pop() if extents else 1)
    return tuple(result)


def spread(shape: Shape, over: Shape) -> Strides:
    """Strides with which a dense tensor is read as if it had the shape it broadcasts to; 0 on axes it is repeated along."""
    own = contiguous(shape)
    missing = len(over) - len(shape)
    return tuple(
        0 if axis < missing or shape[axis - missing] == 1 else own[axis - missing] for axis in range(len(over))
    )


def collapse(shape: Shape, strides: Sequence[Strides]) -> tuple[Shape, list[Strides]]:
    """The same walk over fewer axes: extents of 1 dropped, neighbours joined where every tensor steps from one into the other evenly.

    Returns:
        extents (at least one axis) and the strides of each tensor.
    """
    axes = [axis for axis, extent in enumerate(shape) if extent != 1]
    if not axes:
        return (1,), [(0,)] * len(strides)
    extents = [shape[axes[0]]]
    steps = [[one[axes[0]]] for one in strides]
    for axis in axes[1:]:
        extent = shape[axis]
        if all(mine[-1] == one[axis] * extent for mine, one in zip(steps, strides, strict=True)):
            extents[-1] *= extent
            for mine, one in zip(steps, strides, strict=True):
                mine[-1] = one[axis]
        else:
            extents.append(extent)
            for mine, one in zip(steps, strides, strict=True):
                mine.append(one[axis])
    return tuple(extents), [tuple(mine) for mine in steps]


def around(shape: Shape, axis: int) -> tuple[int, int, int]:
    """Elements before, along and behind an axis."""
    axis %= max(len(shape), 1)
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


def width(limit: int, *numbers: int) -> int:
    """The largest power of two up to ``limit`` that divides all of ``numbers``; 0 is divided by anything."""
    found = limit
    while found > 1 and any(number % found for number in numbers):
        found //= 2
    return found
