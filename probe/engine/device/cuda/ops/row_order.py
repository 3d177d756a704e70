"""Rows in the order of memory: what is computed row by row need not have its rows in the order of the axes; where what it reads lies otherwise,
what it makes does so, too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from probe.engine.device.cuda.tensors.copies import lying_of, placed
from probe.engine.device.cuda.tensors.lying import Axis, Lying, joined

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.call import Call, Readings
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor


@dataclass(frozen=True, slots=True)
class RowOrder:
    """A tensor [..., k] whose rows lie without gaps, in another order than that of its axes.

    Attributes:
        dense: the same memory as [rows, k].
        axes: of all but the last axis of the tensor, in steps of rows.
    """

    dense: Tensor
    axes: tuple[Axis, ...]

    def back(self, queue: Queue, made: Tensor) -> Tensor:
        """[rows, n], made of the dense rows, as [..., n]."""
        whole = lying_of(queue, made)
        return placed(queue, Lying(whole.base, whole.first, self.wide(made.shape[-1])))

    def wide(self, width: int) -> tuple[Axis, ...]:
        """The axes of [..., width], made of the dense rows, in steps of elements."""
        axes = tuple(tuple((extent, step * width) for extent, step in axis) for axis in self.axes)
        return (*axes, joined([(width, 1)]))


def row_order(x: Tensor | None) -> RowOrder | None:
    """How the rows of a tensor lie; None where they have to be moved, or are in order."""
    if x is None or x.lies is None or len(x.shape) < 2 or x.format is None:
        return None
    *rows, along = x.lies.axes
    width = x.shape[-1]
    if along != joined([(width, 1)]) or x.lies.shifted_bytes % 16 or not Lying(x.lies.base, 0, x.lies.axes).covers:
        return None
    axes = tuple(tuple((extent, step // width) for extent, step in axis) for axis in rows)
    return RowOrder(x.lies.base.part((math.prod(x.shape[:-1]), width), x.lies.shifted_bytes), axes)


def same_in_all_rows(tensors: Sequence[Tensor | None]) -> bool:
    """Whether no row sees another value than the next."""
    return all(one is None or math.prod(one.shape[:-1]) == 1 for one in tensors)


def by_rows(call: Call, readings: Readings = ()) -> tuple[RowOrder, Call] | None:
    """A product with weights, its left operand's rows as they lie; None where the rows have to be in order."""
    matrix = call.given(1)
    found = row_order(call.given(0))
    if found is None or matrix is None or len(matrix.shape) != 2 or call.int("transA", 0):
        return None
    if not same_in_all_rows([*call.inputs[2:], *(one.tensor for _, one in readings)]):
        return None
    return found, replace(call, inputs=[found.dense, *call.inputs[1:]])
