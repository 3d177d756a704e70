"""MaxPool and AveragePool."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.ops.window import window_of
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.channels_last import channels_last, dense_when_asked, has_channels_last

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

_THREADS = 256
_TOGETHER = 8  # channels a thread takes, where they are contiguous
_UNROLLED = 16  # elements of a window that are read at once
_SMALL = 1 << 31


class Problem(ctypes.Structure):
    """The struct Pool of kernels/pool.cu."""

    _fields_ = (
        ("planes", ctypes.c_longlong),
        *(
            (name, ctypes.c_int)
            for name in (
                "height", "width", "out_height", "out_width", "kernel_height", "kernel_width", "stride_height", "stride_width", "pad_top",
                "pad_left", "pad_bottom", "pad_right", "dilation_height", "dilation_width",
            )
        ),
    )  # fmt: skip


def pool(queue: Queue, call: Call) -> list[Tensor | None]:
    x = call.data(0)
    if any(call.formats[1:]):
        raise Unsupported("MaxPool that returns indices")
    assert x.format is not None
    if not x.format.is_float:
        raise Unsupported(f"{call.node.op_type} of integers")
    window = window_of(call, x.shape[2:], tuple(call.ints("kernel_shape") or ()))
    problem = Problem(
        math.prod(x.shape[:2]), *window.image, *window.out, *window.kernel, *window.strides, *window.before, *window.after,
        *window.dilations,
    )  # fmt: skip
    macros = (
        ("TX", x.format.name), ("TY", call.store().name), ("MAXIMUM", int(call.node.op_type == "MaxPool")),
        ("COUNT_PAD", call.int("count_include_pad", 0)),
    )  # fmt: skip
    channels = x.shape[1]
    if has_channels_last(x) and channels % _TOGETHER == 0:
        y = queue.empty((x.shape[0], *window.out, channels), call.store())
        small = math.prod(window.kernel) <= _UNROLLED
        index = "unsigned" if max(x.size, y.size) < _SMALL else "i64"
        sizes = zip(("WINDOW_HEIGHT", "WINDOW_WIDTH"), window.kernel if small else (0, 0), strict=True)
        source = Source("pool.cu", "pool_channels", (*macros, ("ENTRY_CHANNELS", 1), ("INDEX", index), *sizes))
        given = (queue.at(channels_last(queue, x)), queue.at(y), problem, ctypes.c_int(channels))
        queue.launch(source, math.ceil(y.size // _TOGETHER / _THREADS), _THREADS, *given)
        return [dense_when_asked(queue, y)]
    y = queue.empty((*x.shape[:2], *window.shape), call.store())
    source = Source("pool.cu", "pool_direct", macros)
    queue.launch(source, math.ceil(y.size / _THREADS), _THREADS, queue.at(x), queue.at(y), problem)
    return [y]


POOLS = (Op(("MaxPool", "AveragePool"), pool),)
