"""Resize, axis by axis: elements are picked by index lists made on the host, as ONNX Runtime makes them; linear weighs two of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.pointwise import Reading, run_steps
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.copies import gathered, lying_of, ordered, placed
from probe.engine.device.cuda.tensors.formats import F32
from probe.engine.device.cuda.tensors.layout import around
from probe.engine.device.cuda.tensors.tensor import host_tensor

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

Array = np.ndarray[Any, Any]
_F32 = np.float32
# where an element of the output lies in the input: position, scale, extents of output and input
_PLACES: dict[str, Callable[[Array, np.float32, int, int], Array]] = {
    "half_pixel": lambda at, scale, *_: (at + _F32(0.5)) / scale - _F32(0.5),
    "pytorch_half_pixel": lambda at, scale, out, _: (at + _F32(0.5)) / scale - _F32(0.5) if out > 1 else at * _F32(0),
    "asymmetric": lambda at, scale, *_: at / scale,
    "align_corners": lambda at, _, out, own: at * _F32(own - 1) / _F32(out - 1) if out > 1 else at * _F32(0),
}
_NEAREST: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - _F32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + _F32(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}
_SIZES = 3  # position of the input that gives the output's shape


def resize(queue: Queue, call: Call) -> list[Tensor | None]:
    x, mode = call.data(0), call.text("mode", "nearest")
    place = _PLACES.get(call.text("coordinate_transformation_mode", "half_pixel"))
    nearest = _NEAREST.get(call.text("nearest_mode", "round_prefer_floor"))
    if mode not in ("nearest", "linear") or place is None or nearest is None or call.int("antialias", 0):
        raise Unsupported(f"Resize by {mode}")
    if (
        call.ints("axes")
        or call.text("keep_aspect_ratio_policy", "stretch") != "stretch"
        or call.node.op_type != "Resize"
    ):
        raise Unsupported("Resize of some axes")
    assert x.format is not None
    if mode == "linear" and not x.format.is_float:
        raise Unsupported("Resize of integers by weighing")
    wanted = call.store() if mode == "nearest" else F32  # between two axes nothing is rounded
    x = queue.convert(x, wanted) if x.format.is_float else x
    for axis, (extent, scale) in enumerate(_targets(queue, call, x.shape)):
        own = x.shape[axis]
        if extent == own and scale == 1:
            continue
        at = place(np.arange(extent, dtype=_F32), _F32(scale), extent, own)
        if mode == "linear":
            x = _weighed(queue, x, axis, np.clip(at, _F32(0), _F32(own - 1)))
            continue
        picks = np.clip(nearest(at), 0, own - 1)
        times = extent // max(own, 1)
        if x.size and times * own == extent and np.array_equal(picks, np.arange(own).repeat(times)):
            x = placed(queue, lying_of(queue, x).spread(axis, times))
        else:
            x = _picked(queue, x, axis, picks)
    return [queue.convert(x, call.store()) if x.format is not None and x.format.is_float else x]


def _picked(queue: Queue, x: Tensor, axis: int, places: Array) -> Tensor:
    order = ordered(queue, x)
    x, axis = order.dense, order.axis(axis)
    assert x.format is not None
    outer, own, inner = around(x.shape, axis)
    y = queue.empty((*x.shape[:axis], len(places), *x.shape[axis + 1 :]), x.format)
    gathered(queue, x, host_tensor(places.astype(np.int64)), (outer, own, len(places), inner), y)
    return order.back(queue, y) if y.size else y


def _weighed(queue: Queue, x: Tensor, axis: int, at: Array) -> Tensor:
    """Between the elements before and behind each place, by how far it is from the other."""
    own = x.shape[axis]
    before = np.minimum(np.floor(at), own - 1)
    behind = np.minimum(before + 1, own - 1)
    far = np.abs(at - before).astype(_F32)
    near = np.abs(at - behind).astype(_F32)
    far[before == behind] = near[before == behind] = 0.5
    column = (len(at), *(1 for _ in x.shape[axis + 1 :]))
    readings = [
        ("a", Reading(_picked(queue, x, axis, before))), ("b", Reading(_picked(queue, x, axis, behind))),
        ("u", Reading(host_tensor(near.reshape(column)))), ("v", Reading(host_tensor(far.reshape(column)))),
    ]  # fmt: skip
    (y,) = run_steps(queue, readings[0][1].tensor.shape, readings, [Step("y", "float", "a * u + b * v", "", F32)])
    return y


def _targets(queue: Queue, call: Call, shape: tuple[int, ...]) -> list[tuple[int, float]]:
    """Extent and scale of every axis."""
    sizes = call.numbers(_SIZES, queue)
    if sizes:
        return [(size, size / own if own else 1.0) for size, own in zip(sizes, shape, strict=True)]
    given = call.given(_SIZES - 1)
    if given is None or not given.size:
        raise Unsupported("Resize by neither scales nor sizes")
    scales = [float(one) for one in given.array(queue.backend).reshape(-1)]
    return [(math.floor(own * scale), scale) for own, scale in zip(shape, scales, strict=True)]


RESIZES = (Op(("Resize",), resize),)
