"""ArgMax, ArgMin."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.numbers import LONGEST, int32
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.ops.rows import rows_for
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.channels_last import channels_last, has_channels_last
from probe.engine.device.cuda.tensors.formats import I64
from probe.engine.device.cuda.tensors.layout import around

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

_THREADS = 256  # of extreme_columns


def place_of_extreme(queue: Queue, call: Call) -> list[Tensor | None]:
    x = call.data(0)
    form = x.format
    assert form is not None
    if not form.is_float:
        raise Unsupported(f"{call.node.op_type} of integers")
    if not x.shape or not x.size:
        raise Unsupported(f"{call.node.op_type} of nothing" if x.shape else f"{call.node.op_type} of a scalar")
    axis = call.int("axis", 0) % len(x.shape)
    least, last = call.node.op_type == "ArgMin", bool(call.int("select_last_index", 0))
    found = place_of(queue, x, axis, least=least, last=last)
    return [found if call.int("keepdims", 1) else found.view(x.shape[:axis] + x.shape[axis + 1 :])]


def place_of(queue: Queue, x: Tensor, axis: int, *, least: bool, last: bool) -> Tensor:
    """Where along an axis the largest element is, or the least; the axis stays in the shape.

    Raises:
        Unsupported: more elements than the kernels count.
    """
    form = x.format
    assert form is not None
    shape = tuple(1 if at == axis else extent for at, extent in enumerate(x.shape))
    if axis == 1 and len(x.shape) == 4 and has_channels_last(x):
        x, axis = channels_last(queue, x), 3
    outer, cols, inner = around(x.shape, axis)
    if cols >= LONGEST:
        raise Unsupported(f"the extreme of {cols:,} elements: more than 31 bits count")
    y = queue.empty(shape, I64)
    macros = (
        ("TX", form.name),
        ("LEAST", int(least)),
        ("LAST", int(last)),
    )
    if inner > 1:
        source = Source("extreme.cu", "extreme_columns", (*macros, ("ENTRY_COLUMNS", 1)))
        columns, numbers = outer * inner, (ctypes.c_longlong(inner), int32(cols))
        queue.launch(
            source,
            math.ceil(columns / _THREADS),
            _THREADS,
            queue.at(x),
            queue.at(y),
            ctypes.c_longlong(columns),
            *numbers,
        )
        return y
    plan = rows_for(cols, form.bytes, held=False)
    macros += (("THREADS", plan.threads), ("ROWS", plan.rows), ("VEC", plan.lanes), ("ENTRY_ROWS", 1))
    source = Source("extreme.cu", "extreme_rows", macros)
    queue.launch(
        source,
        math.ceil(outer / plan.rows),
        plan.block,
        queue.at(x),
        queue.at(y),
        ctypes.c_longlong(outer),
        int32(cols),
    )
    return y


EXTREMES = (Op(("ArgMax", "ArgMin"), place_of_extreme),)
