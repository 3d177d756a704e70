"""``Lying``: where the elements of a tensor lie in the memory of a dense one. Transposing, splitting, slicing, repeating and reshaping change how
a tensor lies and move nothing: whoever can reads it there; whoever cannot has it brought into dense order, once.

An axis may consist of several parts, as it does when axes that are no neighbours in memory were joined: [images, heads] as one axis.
Steps are in elements; parts and axes come slowest first. Pure but for the tensor that is named.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from probe.engine.device.cuda.tensors.layout import Shape, Strides, contiguous

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

Part = tuple[int, int]  # extent, step
Axis = tuple[Part, ...]  # none: an extent of 1
_ALIGNED = 16  # bytes: the widest access of a kernel
_WAYS = 1 << 12


@dataclass(frozen=True, slots=True)
class Lying:
    """A view of ``base``, which is dense and on the device.

    Attributes:
        first: element of ``base`` that the first element is.
    """

    base: Tensor
    first: int
    axes: tuple[Axis, ...]

    @property
    def shape(self) -> Shape:
        return _shape(self.axes)

    @property
    def parts(self) -> Axis:
        """Of all axes together."""
        return _parts(self.axes)

    @property
    def strides(self) -> Strides | None:
        """A step an axis; None where an axis has none of its own."""
        if any(len(axis) > 1 for axis in self.axes):
            return None
        return tuple(axis[0][1] if axis else 0 for axis in self.axes)

    @property
    def in_order(self) -> bool:
        """Whether it is dense: a stretch of the memory of ``base``, in its order, where every access may begin."""
        assert self.base.format is not None
        parts = self.parts
        dense = not parts or (len(parts) == 1 and parts[0][1] == 1)
        return dense and self.first * self.base.format.bytes % _ALIGNED == 0

    @property
    def shifted_bytes(self) -> int:
        """From the beginning of ``base`` to the first element."""
        assert self.base.format is not None
        return self.first * self.base.format.bytes

    # --- what moves nothing --------------------------------------------------------------------------------------------

    def permuted(self, order: Sequence[int]) -> Lying:
        """With its axes in another order."""
        return Lying(self.base, self.first, tuple(self.axes[axis] for axis in order))

    def cut(self, axis: int, start: int, count: int, step: int = 1) -> Lying | None:
        """Every ``step``-th element of an axis; None where they do not lie evenly."""
        parts = self.axes[axis]
        if count == extent_of(parts) and step == 1:
            return self
        if len(parts) > 1 or count < 1:
            return None
        ((_, stride),) = parts or ((1, 0),)
        cut = joined([(count, stride * step)])
        return Lying(self.base, self.first + start * stride, (*self.axes[:axis], cut, *self.axes[axis + 1 :]))

    def repeated(self, shape: Shape) -> Lying:
        """Broadcast to a shape of at least as many axes."""
        missing = len(shape) - len(self.axes)
        axes = [
            ((extent, 0),) if extent > 1 and (at < missing or not self.axes[at - missing]) else self.axes[at - missing] if at >= missing else ()
            for at, extent in enumerate(shape)
        ]  # fmt: skip
        return Lying(self.base, self.first, tuple(axes))

    def spread(self, axis: int, times: int) -> Lying:
        """With each element of an axis so many times, one behind the other."""
        own = joined([*self.axes[axis], (times, 0)])
        return Lying(self.base, self.first, (*self.axes[:axis], own, *self.axes[axis + 1 :]))

    def reshaped(self, shape: Shape) -> Lying | None:
        """Under another shape of as many elements; None where an axis would begin inside a part and end outside it."""
        left = list(self.parts)
        axes: list[Axis] = []
        for extent in shape:
            wanted, parts = extent, []
            while wanted > 1:
                if not left:
                    return None
                own, step = left.pop(0)
                if wanted % own == 0:
                    parts.append((own, step))
                    wanted //= own
                elif own % wanted == 0:
                    parts.append((wanted, step * (own // wanted)))
                    left.insert(0, (own // wanted, step))
                    wanted = 1
                else:
                    return None
            axes.append(joined(parts))
        return Lying(self.base, self.first, tuple(axes))

    # --- in the order of memory ------------------------------------------------------------------------------------------

    @property
    def order(self) -> tuple[int, ...] | None:
        """Of its axes as they lie in memory, slowest first; None where there are gaps, repetitions, or axes of several parts."""
        if self.strides is None or not self.covers:
            return None
        steps = [(-axis[0][1] if axis else 0, at) for at, axis in enumerate(self.axes)]
        moving = iter(sorted((step, at) for step, at in steps if step))
        return tuple(next(moving)[1] if step else at for step, at in steps)  # an axis of one element stays where it is

    @property
    def covers(self) -> bool:
        """Whether its elements are a stretch of memory without gaps, in any order."""
        reach = 1
        for extent, step in sorted(self.parts, key=lambda part: part[1]):
            if step != reach:
                return False
            reach *= extent
        return True


def dense(x: Tensor) -> Lying:
    """A dense tensor as it lies."""
    return Lying(x, 0, _in_order(x.shape))


# Few ways of lying are met again and again.


@lru_cache(_WAYS)
def _in_order(shape: Shape) -> tuple[Axis, ...]:
    return tuple(joined([part]) for part in zip(shape, contiguous(shape), strict=True))


@lru_cache(_WAYS)
def _shape(axes: tuple[Axis, ...]) -> Shape:
    return tuple(extent_of(axis) for axis in axes)


@lru_cache(_WAYS)
def _parts(axes: tuple[Axis, ...]) -> Axis:
    return joined(part for axis in axes for part in axis)


def extent_of(axis: Axis) -> int:
    return math.prod(extent for extent, _ in axis)


def joined(parts: Iterable[Part]) -> Axis:
    """The same elements in the same order in as few parts as possible."""
    found: list[Part] = []
    for extent, step in parts:
        if extent == 1:
            continue
        if found and found[-1][1] == extent * step:
            found[-1] = (found[-1][0] * extent, step)
        else:
            found.append((extent, step))
    return tuple(found)


def refined(shape: Shape, all_of: Sequence[Sequence[Axis]]) -> tuple[list[list[int]], list[list[Axis]]] | None:
    """Axes cut so finely that every tensor has one step along each piece.

    Args:
        all_of: of each tensor, its axes; () where it is repeated along one.

    Returns:
        extents of the pieces of each axis, and, of each tensor, the parts along the pieces of each axis (extent, step); None where the
        parts of two tensors do not fit into one another.
    """
    pieces: list[list[int]] = []
    cut_of: list[list[Axis]] = [[] for _ in all_of]
    for at, extent in enumerate(shape):
        inner = {1, extent}  # elements behind each cut
        for axes in all_of:
            behind = 1
            for own, _ in reversed(axes[at]):
                behind *= own
                inner.add(behind)
        cuts = sorted(inner)
        if any(more % less for less, more in pairwise(cuts)):
            return None
        extents = [more // less for less, more in pairwise(cuts)][::-1] or [1]
        pieces.append(extents)
        for axes, own in zip(all_of, cut_of, strict=True):
            own.append(_along(axes[at], extents))
    return pieces, cut_of


def _along(axis: Axis, extents: Sequence[int]) -> Axis:
    """A part for each of ``extents``, into which the parts of an axis divide."""
    if not axis:
        return tuple((extent, 0) for extent in extents)
    found: list[Part] = []
    left = list(axis)
    for extent in extents:
        own, step = left.pop(0)
        found.append((extent, step * (own // extent)))
        if own != extent:
            left.insert(0, (own // extent, step))
    return tuple(found)
