"""Tensors made from few numbers: Range, ConstantOfShape, EyeLike, OneHot, Trilu. What depends on shapes alone is made on the host, once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.expressions import literal
from probe.engine.device.cuda.layers.pointwise import Reading, run_steps
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import F32, Format
from probe.engine.device.cuda.tensors.tensor import host_tensor

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor


def fill_range(queue: Queue, call: Call) -> list[Tensor | None]:
    """Added up step by step in the type of the output, as ONNX Runtime does."""
    start, limit, delta = (call.data(at).array(queue.backend).reshape(-1)[0] for at in range(3))
    if not delta or not np.isfinite([float(start), float(limit), float(delta)]).all():
        raise Unsupported("a range without end")
    count = max(math.ceil((float(limit) - float(start)) / float(delta)), 0)
    steps = np.full(count, delta)
    steps[:1] = start
    return [_rounded(queue, np.add.accumulate(steps, dtype=steps.dtype), call.store())]


def constant_of_shape(queue: Queue, call: Call) -> list[Tensor | None]:
    shape = tuple(call.numbers(0, queue) or ())
    given = call.node.attributes.get_tensor("value", None)
    value = np.zeros((), np.float32) if given is None else given.numpy().reshape(-1)[0]
    return [_rounded(queue, np.full(shape, value), call.store())]


def eye_like(queue: Queue, call: Call) -> list[Tensor | None]:
    x, store = call.given(0), call.store()
    if x is None or len(x.shape) != 2:
        raise Unsupported("EyeLike of no matrix")
    return [_rounded(queue, np.eye(*x.shape, call.int("k", 0), dtype=store.dtype), store)]


def _rounded(queue: Queue, array: np.ndarray, store: Format) -> Tensor:
    made = host_tensor(array)
    if made.format is None:
        raise Unsupported(f"a tensor of {array.dtype}")
    return queue.convert(made, store) if made.format.is_float and store is not F32 else made


def one_hot(queue: Queue, call: Call) -> list[Tensor | None]:
    indices, values = call.data(0), call.data(2)
    assert indices.format is not None and values.format is not None
    depth = int(call.data(1).array(queue.backend).reshape(-1)[0])
    if indices.format.is_float or values.format.register not in ("float", "i64", "i32"):
        raise Unsupported("OneHot of floats")
    rank = len(indices.shape) + 1
    axis = call.int("axis", -1) % rank
    column = indices.view((*indices.shape[:axis], 1, *indices.shape[axis:]))
    places = host_tensor(np.arange(depth, dtype=indices.format.dtype).reshape(-1, *(1 for _ in range(rank - axis - 1))))
    off, on = values.array(queue.backend).reshape(-1).tolist()
    kind = values.format.register
    texts = [literal(one) if kind == "float" else f"{kind}({int(one)})" for one in (off, on)]
    shape = (*indices.shape[:axis], depth, *indices.shape[axis:])
    found = f"(i == d || i + {depth} == d) ? {texts[1]} : {texts[0]}"
    readings = [("i", Reading(column)), ("d", Reading(places))]
    return [*run_steps(queue, shape, readings, [Step("y", kind, found, "", call.store())])]


def trilu(queue: Queue, call: Call) -> list[Tensor | None]:
    x = call.data(0)
    assert x.format is not None
    numbers = call.numbers(1, queue)
    upper, shift = bool(call.int("upper", 1)), numbers[0] if numbers else 0
    rows, cols = x.shape[-2:]
    kept = np.triu(np.ones((rows, cols), np.bool_), shift) if upper else np.tri(rows, cols, shift, dtype=np.bool_)
    kind = x.format.register
    readings = [("x", Reading(x)), ("m", Reading(host_tensor(kept)))]
    return [*run_steps(queue, x.shape, readings, [Step("y", kind, f"m ? x : {kind}(0)", "", call.store())])]


GENERATED = (
    Op(("Range",), fill_range),
    Op(("ConstantOfShape",), constant_of_shape),
    Op(("EyeLike",), eye_like),
    Op(("OneHot",), one_hot),
    Op(("Trilu",), trilu),
)
