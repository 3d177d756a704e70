"""QuantizeLinear and DequantizeLinear, a scale a tensor or a scale for each index of an axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.pointwise import Reading, run_steps
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.queue import Queue

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

_BOUNDS = {"u8": "0.f, 255.f", "i8": "-128.f, 127.f"}


def quantize(queue: Queue, call: Call) -> list[Tensor | None]:
    """``saturate(round_half_even(x / scale) + zero_point)``."""
    x, store = call.data(0), call.store()
    assert x.format is not None
    if not x.format.is_float or store.name not in _BOUNDS:
        raise Unsupported(f"QuantizeLinear to {store.name}")
    readings, zero = _readings(call, x)
    value = (
        f"{store.register}(op_clip<float>(op_round(x / s){f' + float({zero})' if zero else ''}, {_BOUNDS[store.name]}))"
    )
    return [*run_steps(queue, x.shape, readings, [Step("y", store.register, value, "", store)])]


def dequantize(queue: Queue, call: Call) -> list[Tensor | None]:
    """``(x - zero_point) * scale``."""
    x = call.data(0)
    assert x.format is not None
    if x.format.register not in ("u8", "i8", "i32"):
        raise Unsupported(f"DequantizeLinear of {x.format.name}")
    readings, zero = _readings(call, x)
    value = f"float(i32(x){f' - i32({zero})' if zero else ''}) * s"
    return [*run_steps(queue, x.shape, readings, [Step("y", "float", value, "", call.store())])]


def _readings(call: Call, x: Tensor) -> tuple[list[tuple[str, Reading]], str]:
    """What is read, and what the zero point is called; "" when there is none.

    Raises:
        Unsupported: a scale for blocks of an axis.
    """
    scale, zero = call.data(1), call.given(2)
    if call.int("block_size", 0) or len(scale.shape) > 1:
        raise Unsupported("a scale for blocks of an axis")
    shape: tuple[int, ...] = ()
    if scale.size != 1:
        axis = call.int("axis", 1) % len(x.shape)
        shape = (scale.size, *(1 for _ in x.shape[axis + 1 :]))
        if x.shape[axis] != scale.size:
            raise Unsupported(f"{scale.size} scales for {x.shape[axis]} indices")
    readings = [("x", Reading(x)), ("s", Reading(scale.view(shape)))]
    if zero is None:
        return readings, ""
    return [*readings, ("z", Reading(call.data(2).view(shape)))], "z"


QUANTISED = (Op(("QuantizeLinear",), quantize), Op(("DequantizeLinear",), dequantize))
