"""Conv whose windows neither overlap nor leave anything out, as the first layer of a vision transformer: a product of patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from probe.engine.assignment import EXACT
from probe.engine.device.cuda.ops.convolutions.window import Window
from probe.engine.device.cuda.ops.products.ending import storing, through
from probe.engine.device.cuda.ops.products.matmul import run
from probe.engine.device.cuda.ops.products.product import Matrices, describe
from probe.engine.device.cuda.tensors import channels_last as order
from probe.engine.device.cuda.tensors.copies import in_dense_order, lying_of, rounded_late

if TYPE_CHECKING:
    from probe.engine.device.cuda.layers.chain import Step
    from probe.engine.device.cuda.ops.call import Call, Readings
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

_AXES = 4
_KEY = "patches"
_FEW = 16  # channels: with more of them a tap alone fills an access


def refusal(call: Call, window: Window) -> str | None:
    """Why a convolution is not computed so; None when it is."""
    x, w = call.data(0), call.data(1)
    if call.tactic != EXACT:
        return "sums are kept in FP32"
    if len(x.shape) != _AXES or call.int("group", 1) != 1 or x.format is not w.format:
        return "groups, other axes, or operands of two types"
    if window.kernel != window.strides or any((*window.before, *window.after)) or window.dilations != (1, 1):
        return "windows that overlap, or leave pixels out"
    if x.shape[1] >= _FEW or math.prod(window.kernel) == 1:
        return "channels enough to be read tap by tap"
    if any(size * count != extent for size, count, extent in zip(window.kernel, window.out, window.image, strict=True)):
        return "an image that does not divide into windows"
    return None


def conv(queue: Queue, call: Call, window: Window, readings: Readings, steps: Sequence[Step]) -> list[Tensor]:
    """A convolution that ``refusal`` has nothing against, and its tail if it has steps.

    Returns:
        what is stored: channels last, dense when someone asks.
    """
    x, w, bias = call.data(0), call.data(1), call.given(2)
    (images, channels), outputs = x.shape[:2], w.shape[0]
    (rows, cols), (height, width) = window.out, window.kernel
    depth, pixels = channels * height * width, images * rows * cols
    given = x.before or x  # rounded on the way
    cut = lying_of(queue, given).reshaped((images, channels, rows, height, cols, width))
    assert cut is not None, "an axis divides at its own extent"
    patches = in_dense_order(queue, cut.permuted((0, 2, 4, 1, 3, 5)), x.format)
    if x.unrounded is not None and x.format is not None:
        patches = rounded_late(queue, patches, x.format, "tf32")
    shape = (images, rows, cols, outputs)
    beside = [(name, order.reading_last(queue, one)) for name, one in readings]
    ending = through(queue, shape, beside, steps) if steps else storing(queue, shape, call.store())
    value = call.node.inputs[1]
    fixed = value is not None and value.is_initializer()
    if _KEY not in (w.kept or {}):  # one view, so that what is made of it is kept with it
        w.kept = {**(w.kept or {}), _KEY: w.view((outputs, depth))}
    assert w.kept is not None
    left, right = Matrices(patches, (), depth, 1), Matrices(w.kept[_KEY], (), 1, depth, fixed)
    added = None if bias is None else Matrices(bias, (), 0, 1)
    run(queue, describe(left, right, added, (pixels, outputs), depth, ending, tf32=call.tf32))
    return [order.dense_when_asked(queue, one) for one in ending.stored]
