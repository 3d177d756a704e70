"""``ConvProblem``: a convolution as cuDNN sees it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.formats import BF16, F16, F32, Format
from probe.engine.device.cuda.ops.product_shape import product_shape

if TYPE_CHECKING:
    from probe.engine.device.cuda.chain import Step
    from probe.engine.device.cuda.ops.call import Call
    from probe.engine.device.cuda.ops.window import Window

_AXES = 4
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ConvProblem:
    """A convolution of images [images, channels, rows, columns], a bias, and Relu.

    Attributes:
        last: x, w and y lie in memory with channels last.
        format: of x and w; ``stored`` of y.
        bias: format of the bias; "" without one.
        relu: negative results become zero.
        tf32: x and w hold no more bits than TF32 has.
    """

    images: int
    channels: int
    outputs: int
    groups: int
    image: Pair
    kernel: Pair
    strides: Pair
    dilations: Pair
    before: Pair
    after: Pair
    out: Pair
    last: bool
    format: str
    stored: str
    bias: str = ""
    relu: bool = False
    tf32: bool = False

    @property
    def x(self) -> tuple[list[int], list[int]]:
        """Extents and strides of the images."""
        return self._tensor(self.images, self.channels, self.image)

    @property
    def w(self) -> tuple[list[int], list[int]]:
        """Extents and strides of the weights."""
        return self._tensor(self.outputs, self.channels // self.groups, self.kernel)

    @property
    def y(self) -> tuple[list[int], list[int]]:
        """Extents and strides of the result."""
        return self._tensor(self.images, self.outputs, self.out)

    def _tensor(self, count: int, channels: int, image: Pair) -> tuple[list[int], list[int]]:
        rows, columns = image
        whole = channels * rows * columns
        strides = [whole, 1, columns * channels, channels] if self.last else [whole, rows * columns, columns, 1]
        return [count, channels, rows, columns], strides


def library_convolution(call: Call, window: Window, steps: Sequence[Step], *, last: bool) -> ConvProblem:
    """A convolution as the library computes it.

    Raises:
        Unsupported: it does not; says why. For a convolution with a tail: not together with it.
    """
    x, w, bias = call.data(0), call.data(1), call.given(2)
    if len(x.shape) != _AXES or not math.prod(x.shape) or not math.prod(w.shape) or not math.prod(product_shape(call)):
        raise Unsupported("a convolution over other than two axes, or an empty one")
    if x.format not in (F16, BF16, F32) or w.format is not x.format:
        raise Unsupported("operands of two types, or of a type that the library does not multiply")
    stored, relu = (call.store(), False) if not steps else _tail(steps)
    if stored not in (F32, x.format):
        raise Unsupported("a result stored in another 16-bit type")
    if bias is not None and bias.format not in (F32, x.format):
        raise Unsupported("a bias of another type")
    return ConvProblem(
        x.shape[0], x.shape[1], w.shape[0], call.int("group", 1), window.image, window.kernel, window.strides, window.dilations,
        window.before, window.after, window.out, last, x.format.name, stored.name, bias.format.name if bias is not None and bias.format else "",
        relu, call.tf32,
    )  # fmt: skip


def _tail(steps: Sequence[Step]) -> tuple[Format, bool]:
    """What a tail of one Relu stores."""
    first, *rest = steps
    last = steps[-1]
    if (
        len(rest) != 1
        or rest[0].expression != f"op_relu({first.name})"
        or first.store is not None
        or last.store is None
    ):
        raise Unsupported("a tail other than one Relu")
    if first.rounding or last.rounding != ("" if last.store is F32 else last.store.name):
        raise Unsupported("a tail in which a tensor is rounded, which the library keeps in FP32")
    return last.store, True
