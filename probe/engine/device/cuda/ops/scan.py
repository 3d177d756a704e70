"""CumSum and CumProd."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.layout import around

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor


def cumulative(queue: Queue, call: Call) -> list[Tensor | None]:
    x = call.data(0)
    assert x.format is not None
    if x.format.register not in ("float", "i64", "i32"):
        raise Unsupported(f"{call.node.op_type} of {x.format.name}")
    (axis,) = call.numbers(1, queue) or (0,)
    y = queue.empty(x.shape, call.store())
    assert y.format is not None
    if not x.size:
        return [y]
    outer, cols, inner = around(x.shape, axis) if x.shape else (1, 1, 1)
    options = (call.int("exclusive", 0), call.int("reverse", 0), int(call.node.op_type == "CumProd"))
    _launch(queue, x, y, (outer, cols, inner), *options)
    return [y]


def added_up(queue: Queue, x: Tensor) -> Tensor:
    """Of one row: every element with those before it."""
    assert x.format is not None
    y = queue.empty(x.shape, x.format)
    _launch(queue, x, y, (1, x.size, 1), 0, 0, 0)
    return y


def _launch(
    queue: Queue, x: Tensor, y: Tensor, sizes: tuple[int, int, int], exclusive: int, reverse: int, product: int
) -> None:
    outer, cols, inner = sizes
    assert x.format is not None and y.format is not None
    macros = (
        ("TX", x.format.name), ("TY", y.format.name), ("TA", x.format.register), ("EXCLUSIVE", exclusive), ("REVERSE", reverse), ("PRODUCT", product),
    )  # fmt: skip
    queue.launch(
        Source("scan.cu", "scan_rows", macros), outer * inner, 256, queue.at(x), queue.at(y), ctypes.c_longlong(cols),
        ctypes.c_longlong(inner),
    )  # fmt: skip


SCANS = (Op(("CumSum", "CumProd"), cumulative),)
