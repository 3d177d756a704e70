"""Softmax and LogSoftmax."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.ops.rows import rows_for
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.layout import around

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.formats import Format
    from probe.engine.device.cuda.tensors.tensor import Tensor

_OTHER = 1 << 10  # bytes of shared memory that a block needs beside its row
_LOOP = 1024  # threads of a block that walks along a row
_OWN_AXIS = 13  # opset from which softmax runs over one axis alone; before, over it and all behind it


def softmax(queue: Queue, call: Call) -> list[Tensor | None]:
    x = call.data(0)
    log = int(call.node.op_type == "LogSoftmax")
    axis = call.int("axis", -1 if call.opset >= _OWN_AXIS else 1)
    outer, cols, inner = around(x.shape, axis) if x.shape else (1, 1, 1)
    if call.opset < _OWN_AXIS:
        cols, inner = cols * inner, 1
    return [softmax_of(queue, x, call.store(), (outer, cols, inner), log)]


def softmax_of(queue: Queue, x: Tensor, store: Format, sizes: tuple[int, int, int], log: int = 0) -> Tensor:
    """Softmax along the middle of [outer, cols, inner]; its logarithm."""
    outer, cols, inner = sizes
    y = queue.empty(x.shape, store)
    assert x.format is not None and y.format is not None
    if not y.size:
        return y
    macros: list[tuple[str, str | int]] = [("TX", x.format.name), ("TY", y.format.name), ("LOG", log)]
    count, numbers = outer * inner, [ctypes.c_longlong(n) for n in (outer * inner, cols)]
    if inner > 1:
        source = Source("softmax.cu", "softmax_strided", (*macros, ("THREADS", 128), ("ENTRY_STRIDED", 1)))
        blocks = math.ceil(count / 128)
        queue.launch(source, blocks, 128, queue.at(x), queue.at(y), *numbers, ctypes.c_longlong(inner))
        return y
    plan = rows_for(cols, max(x.format.bytes, y.format.bytes), held=True)
    kept = cols * x.format.bytes + 16
    if not plan.items and kept <= queue.backend.shared_limit - _OTHER:
        source = Source("softmax.cu", "softmax_kept", (*macros, ("THREADS", _LOOP), ("ENTRY_KEPT", 1)))
        queue.launch(source, count, _LOOP, queue.at(x), queue.at(y), *numbers, shared_bytes=kept)
        return y
    if not plan.items:
        source = Source("softmax.cu", "softmax_looped", (*macros, ("THREADS", _LOOP), ("ENTRY_LOOPED", 1)))
        queue.launch(source, count, _LOOP, queue.at(x), queue.at(y), *numbers)
        return y
    macros += [
        ("THREADS", plan.threads),
        ("ITEMS", plan.items),
        ("VEC", plan.lanes),
        ("ROWS", plan.rows),
        ("ENTRY_HELD", 1),
    ]
    source = Source("softmax.cu", "softmax_held", tuple(macros))
    queue.launch(source, math.ceil(count / plan.rows), plan.block, queue.at(x), queue.at(y), *numbers)
    return y


SOFTMAX = (Op(("Softmax", "LogSoftmax"), softmax),)
