"""``Shown``: a product as what stands behind views and transposes sees it. They move nothing: the kernel runs over the product as it is computed,
and what is read beside it must lie as the product does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.pointwise import Reading
from probe.engine.device.cuda.ops.products.product_shape import product_shape
from probe.engine.device.cuda.ops.row_order import by_rows
from probe.engine.device.cuda.tensors.copies import lying_of
from probe.engine.device.cuda.tensors.formats import F32
from probe.engine.device.cuda.tensors.lying import Lying, dense, joined
from probe.engine.device.cuda.tensors.tensor import Tensor

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.call import Call
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.layout import Shape


@dataclass(frozen=True, slots=True)
class Shown:
    """A product under movement.

    Attributes:
        call: the product, its rows in the order in which those of its left operand lie.
        own: what it makes so.
        lies: the product, and what each movement makes of it, in the memory of what is made.
    """

    call: Call
    own: Shape
    lies: tuple[Lying, ...]

    @property
    def last(self) -> Lying:
        return self.lies[-1]

    def viewed(self, shape: Shape) -> Shown:
        """Under another shape.

        Raises:
            Unsupported: it does not lie evenly then.
        """
        found = self.last.reshaped(shape)
        if found is None:
            raise Unsupported(f"a product of {self.own} shown as {shape}")
        return Shown(self.call, self.own, (*self.lies, found))

    def transposed(self, order: Sequence[int]) -> Shown:
        """With its axes in another order."""
        return Shown(self.call, self.own, (*self.lies, self.last.permuted(order)))

    def reading(self, queue: Queue, reading: Reading) -> Reading:
        """What is read beside it, of the shape that is seen or repeated to it, as the product itself sees it.

        Raises:
            Unsupported: it lies otherwise, or is repeated along an axis that the product does not have.
        """
        x, shape = reading.tensor, self.last.shape
        if x.size == math.prod(shape):
            lies = lying_of(queue, x)
            axes = (*(() for _ in range(len(shape) - len(x.shape))), *lies.axes)
            if axes == self.last.axes and lies.covers and not lies.shifted_bytes % 16:
                return Reading(lies.base.part(self.own, lies.shifted_bytes), reading.rounding)
            if self.last.in_order:
                return Reading(x.view(self.own), reading.rounding)
        elif math.prod(x.shape[:-1]) == 1 and self.last.axes[-1:] == (joined([(self.own[-1], 1)]),):
            return Reading(x.view(x.shape[-1:]), reading.rounding)
        raise Unsupported(f"{x.shape} beside a product of {self.own} that is shown as {shape}")


def shown(call: Call) -> Shown:
    """A product that nothing has moved yet."""
    found = by_rows(call)
    if found is None:
        own = product_shape(call)
        return Shown(call, own, (dense(Tensor(own, F32)),))
    rows, call = found
    own = product_shape(call)
    return Shown(call, own, (Lying(Tensor(own, F32), 0, rows.wide(own[-1])),))
