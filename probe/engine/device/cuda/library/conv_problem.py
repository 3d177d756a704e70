"""``ConvProblem``: a convolution as cuDNN sees it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.library.product_problem import summand
from probe.engine.device.cuda.ops.products.product_shape import product_shape
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, Format

if TYPE_CHECKING:
    from probe.engine.device.cuda.layers.pointwise import Reading
    from probe.engine.device.cuda.ops.products.family import Convolution
    from probe.engine.device.cuda.tensors.layout import Shape

_AXES = 4
Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ConvProblem:
    """A convolution of images [images, channels, rows, columns], a bias, something added to every element, and Relu.

    Attributes:
        last: x, w and y lie in memory with channels last.
        format: of x and w; ``stored`` of y.
        bias: format of the bias; "" without one.
        added: format of what is added, which lies as y does; "" for nothing.
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
    added: str = ""
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


@dataclass(frozen=True, slots=True)
class LibraryConvolution:
    """A problem, and what is read beside x, w and the bias."""

    problem: ConvProblem
    added: Reading | None


def library_convolution(whole: Convolution, *, last: bool) -> LibraryConvolution:
    """A convolution as the library computes it.

    Raises:
        Unsupported: it does not; says why. For a convolution with a tail: not together with it.
    """
    call, window = whole.call, whole.window
    x, w, bias = call.data(0), call.data(1), call.given(2)
    shape = product_shape(call)
    if len(x.shape) != _AXES or not math.prod(x.shape) or not math.prod(w.shape) or not math.prod(shape):
        raise Unsupported("a convolution over other than two axes, or an empty one")
    if x.format not in (F16, BF16, F32) or w.format is not x.format:
        raise Unsupported("operands of two types, or of a type that the library does not multiply")
    tail = _tail(whole, shape) if whole.steps else _Tail(call.store())
    if tail.stored not in (F32, x.format):
        raise Unsupported("a result stored in another 16-bit type")
    added = tail.added.tensor.format if tail.added is not None else None
    if any(one is not None and one not in (F32, x.format) for one in (bias and bias.format, added)):
        raise Unsupported("something added of another type")
    problem = ConvProblem(
        x.shape[0], x.shape[1], w.shape[0], call.int("group", 1), window.image, window.kernel, window.strides, window.dilations,
        window.before, window.after, window.out, last, x.format.name, tail.stored.name, _name(bias and bias.format), _name(added), tail.relu, call.tf32,
    )  # fmt: skip
    return LibraryConvolution(problem, tail.added)


def _name(found: Format | None) -> str:
    return found.name if found is not None else ""


@dataclass(frozen=True, slots=True)
class _Tail:
    stored: Format
    added: Reading | None = None
    relu: bool = False


def _tail(whole: Convolution, shape: Shape) -> _Tail:
    """One addition of a tensor of the result's shape, one Relu, in this order. What lies between must not be rounded."""
    first, *rest = whole.steps
    last = whole.steps[-1]
    if last.store is None or sum(one.store is not None for one in whole.steps) != 1:
        raise Unsupported("a tail that stores more than its end")
    if any(one.rounding for one in whole.steps[:-1]) or last.rounding != ("" if last.store is F32 else last.store.name):
        raise Unsupported("a tail in which a tensor is rounded, which the library keeps in FP32")
    made, value, beside = _Tail(last.store), first.name, dict(whole.readings)
    for step in rest:
        added = beside.get(summand(step.expression, value))
        if step.expression == value:  # the same under another shape
            pass
        elif step.expression == f"op_relu({value})" and step is last:
            made = replace(made, relu=True)
        elif added is not None and made.added is None and added.tensor.shape == shape and not added.rounding:
            made = replace(made, added=added)
        else:
            raise Unsupported(f"a tail that the library does not take along: {step.expression}")
        value = step.name
    return made
