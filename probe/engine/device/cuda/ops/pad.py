"""Pad: a constant around a copy, or elements picked axis by axis by index lists made on the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.copies import copy, filled, gathered, ordered
from probe.engine.device.cuda.tensors.layout import around, contiguous
from probe.engine.device.cuda.tensors.tensor import host_tensor

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

_MODES: dict[str, Literal["reflect", "edge", "wrap"]] = {
    "reflect": "reflect",
    "edge": "edge",
    "wrap": "wrap",
}  # ONNX's: numpy's


def pad(queue: Queue, call: Call) -> list[Tensor | None]:
    x, mode = call.data(0), call.text("mode", "constant")
    assert x.format is not None
    x = queue.convert(x, call.store()) if x.format.is_float else x
    pads = call.ints("pads") or call.numbers(1, queue) or []
    axes = call.numbers(3, queue)
    axes = [axis % len(x.shape) for axis in axes] if axes is not None else list(range(len(x.shape)))
    if min(pads, default=0) < 0:
        raise Unsupported("Pad that crops")
    before, after = [0] * len(x.shape), [0] * len(x.shape)
    for at, axis in enumerate(axes):
        before[axis], after[axis] = pads[at], pads[at + len(axes)]
    if mode == "constant":
        return [_around(queue, call, x, before, after)]
    if mode not in _MODES or not x.size:
        raise Unsupported(f"Pad by {mode}")
    for axis, width in enumerate(zip(before, after, strict=True)):
        if any(width):
            x = _picked(queue, x, axis, np.pad(np.arange(x.shape[axis]), width, mode=_MODES[mode]))
    return [x]


def _around(queue: Queue, call: Call, x: Tensor, before: list[int], after: list[int]) -> Tensor:
    shape = tuple(b + extent + a for b, extent, a in zip(before, x.shape, after, strict=True))
    given = call.given(2)
    value = float(given.array(queue.backend).reshape(-1)[0]) if given is not None else call.float("value", 0.0)
    order = ordered(queue, x)
    x = order.dense
    y = queue.empty(tuple(shape[at] for at in order.order), call.store())
    filled(queue, y, value)
    strides = contiguous(y.shape)
    first = sum(before[at] * s for at, s in zip(order.order, strides, strict=True))
    copy(queue, x.shape, (x, 0, contiguous(x.shape)), (y, first, strides))
    return order.back(queue, y) if y.size else y.view(shape)


def _picked(queue: Queue, x: Tensor, axis: int, places: np.ndarray) -> Tensor:
    assert x.format is not None
    outer, own, inner = around(x.shape, axis)
    y = queue.empty((*x.shape[:axis], len(places), *x.shape[axis + 1 :]), x.format)
    gathered(queue, x, host_tensor(places), (outer, own, len(places), inner), y)
    return y


PADS = (Op(("Pad",), pad),)
