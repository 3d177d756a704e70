"""Pad: a constant around a copy, or elements picked axis by axis by index lists made on the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.copies import copy, filled, gathered, ordered
from probe.engine.device.cuda.tensors.formats import F32, packed, unpacked
from probe.engine.device.cuda.tensors.layout import around, contiguous
from probe.engine.device.cuda.tensors.tensor import host_tensor

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.formats import Format
    from probe.engine.device.cuda.tensors.tensor import Tensor

_MODES: dict[str, Literal["reflect", "edge", "wrap"]] = {
    "reflect": "reflect",
    "edge": "edge",
    "wrap": "wrap",
}  # ONNX's: numpy's


def pad(queue: Queue, call: Call) -> list[Tensor | None]:
    x, mode = call.data(0), call.text("mode", "constant")
    value, store = _value(queue, call), call.store()
    if mode == "constant" and store.is_float and not _holds(store, value):
        store = F32  # data movement rounds nothing: whoever reads it does
    assert x.format is not None
    x = queue.convert(x, store) if x.format.is_float else x
    pads = call.ints("pads") or call.numbers(1, queue) or []
    axes = call.numbers(3, queue)
    axes = [axis % len(x.shape) for axis in axes] if axes is not None else list(range(len(x.shape)))
    if min(pads, default=0) < 0:
        raise Unsupported("Pad that crops")
    before, after = [0] * len(x.shape), [0] * len(x.shape)
    for at, axis in enumerate(axes):
        before[axis], after[axis] = pads[at], pads[at + len(axes)]
    if mode == "constant":
        return [padded(queue, x, before, after, value)]
    if mode not in _MODES or not x.size:
        raise Unsupported(f"Pad by {mode}")
    for axis, width in enumerate(zip(before, after, strict=True)):
        if any(width):
            x = _picked(queue, x, axis, np.pad(np.arange(x.shape[axis]), width, mode=_MODES[mode]))
    return [x]


def _value(queue: Queue, call: Call) -> float:
    """What is put around; of integers an integer, whose digits a float may not hold."""
    given = call.given(2)
    return call.float("value", 0.0) if given is None else given.array(queue.backend).reshape(-1)[0].item()


def _holds(store: Format, value: float) -> bool:
    """Whether a number is stored as it is."""
    wide = np.array([value], np.float32)
    return np.array_equal(unpacked(packed(wide, store), store, (1,)), wide, equal_nan=True)


def padded(queue: Queue, x: Tensor, before: list[int], after: list[int], value: float) -> Tensor:
    shape = tuple(b + extent + a for b, extent, a in zip(before, x.shape, after, strict=True))
    order = ordered(queue, x)
    x = order.dense
    assert x.format is not None
    y = queue.empty(tuple(shape[at] for at in order.order), x.format)
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
