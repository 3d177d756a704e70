"""LRN; what reductions and chains make together: LpNormalization, MeanVarianceNormalization, Hardmax."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

import numpy as np

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.pointwise import Reading, run_steps
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.ops.extreme import place_of
from probe.engine.device.cuda.ops.reduce import reduced
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import F32, I64, Format
from probe.engine.device.cuda.tensors.tensor import host_tensor

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

_THREADS = 256
_OPSET_OF_AXES = 9  # of the standard, from which on MeanVarianceNormalization has axes
_OPSET_OF_AXIS = 13  # from which on Hardmax is along one axis; before along all behind it
_CHANNEL_RANK = 2  # axes of an image before its pixels
_LP = {1: "L1", 2: "L2"}


def lrn(queue: Queue, call: Call) -> list[Tensor | None]:
    x, size = call.data(0), call.int("size", 0)
    assert x.format is not None
    if not x.format.is_float or len(x.shape) < _CHANNEL_RANK or size < 1 or not size % 2:
        raise Unsupported(f"LRN of {x.shape} over {size} channels")
    y = queue.empty(x.shape, call.store())
    assert y.format is not None
    macros = (("TX", x.format.name), ("TY", y.format.name), ("AROUND", size))
    scale = float(np.float32(call.float("alpha", 1e-4)) / np.float32(size))
    numbers = (
        *map(ctypes.c_longlong, (x.size, x.shape[1], math.prod(x.shape[2:]))),
        *map(ctypes.c_float, (scale, call.float("beta", 0.75), call.float("bias", 1.0))),
    )
    queue.launch(
        Source("lrn.cu", "lrn", macros), math.ceil(x.size / _THREADS), _THREADS, queue.at(x), queue.at(y), *numbers
    )
    return [y]


def lp_normalization(queue: Queue, call: Call) -> list[Tensor | None]:
    """What has no length stays, as in ONNX Runtime."""
    x, p = call.data(0), call.int("p", 2)
    axis = _axis(call, x, -1)
    if p not in _LP:
        raise Unsupported(f"LpNormalization of order {p}")
    if not x.size:
        return [queue.empty(x.shape, call.store())]
    length = _reduced(queue, x, [axis], _LP[p])
    return [_chained(queue, {"x": x, "b": length}, "b == 0.f ? 0.f : x / b", call.store())]


def mean_variance_normalization(queue: Queue, call: Call) -> list[Tensor | None]:
    """The mean, then the variance around it; divided by the root of the variance and nothing else, as in ONNX Runtime."""
    x = call.data(0)
    assert x.format is not None
    given = call.ints("axes")
    axes = sorted({axis % max(len(x.shape), 1) for axis in ([0, 2, 3] if given is None else given)})
    if not x.format.is_float or call.opset < _OPSET_OF_AXES or not axes or axes[-1] >= len(x.shape):
        raise Unsupported(f"MeanVarianceNormalization of {x.shape}")
    if not x.size:
        return [queue.empty(x.shape, call.store())]
    centred = _chained(queue, {"x": x, "m": _reduced(queue, x, axes, "MEAN")}, "x - m", F32)
    squares = _reduced(queue, centred, axes, "SUM_SQUARE")
    count = math.prod(x.shape[axis] for axis in axes)
    return [_chained(queue, {"x": centred, "s": squares}, f"x / op_sqrt(s / {float(count)}f)", call.store())]


def hardmax(queue: Queue, call: Call) -> list[Tensor | None]:
    """1 where the first of the largest is, NaN passed over; nowhere where NaN comes first, as in ONNX Runtime."""
    x, shape = call.data(0), call.data(0).shape
    axis = _axis(call, x, -1 if call.opset >= _OPSET_OF_AXIS else 1)
    if not x.size:
        return [queue.empty(shape, call.store())]
    if call.opset < _OPSET_OF_AXIS:
        x, axis = x.view((math.prod(shape[:axis]), math.prod(shape[axis:]))), 1
    places = place_of(queue, x, axis, least=False, last=False)
    own = host_tensor(np.arange(x.shape[axis], dtype=I64.dtype).reshape(-1, *(1 for _ in x.shape[axis + 1 :])))
    made = _chained(queue, {"x": x, "i": places, "d": own}, "i == d && x == x ? 1.f : 0.f", call.store())
    return [made.view(shape)]


def _axis(call: Call, x: Tensor, default: int) -> int:
    axis = call.int("axis", default)
    assert x.format is not None
    if not x.format.is_float or not -len(x.shape) <= axis < len(x.shape):
        raise Unsupported(f"{call.node.op_type} of {x.shape} along {axis}")
    return axis % len(x.shape)


def _reduced(queue: Queue, x: Tensor, axes: list[int], op: str) -> Tensor:
    """Over ``axes``, which stay in the shape."""
    kept = tuple(1 if at in axes else extent for at, extent in enumerate(x.shape))
    return reduced(queue, x, axes, op, F32).view(kept)


def _chained(queue: Queue, named: dict[str, Tensor], text: str, store: Format) -> Tensor:
    """An expression of tensors by their names, of the first one's shape."""
    readings = [(name, Reading(one)) for name, one in named.items()]
    (made,) = run_steps(queue, next(iter(named.values())).shape, readings, [Step("y", "float", text, "", store)])
    return made


NORMALISATIONS = (
    Op(("LRN",), lrn),
    Op(("LpNormalization",), lp_normalization),
    Op(("MeanVarianceNormalization",), mean_variance_normalization),
    Op(("Hardmax",), hardmax),
)
