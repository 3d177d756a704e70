"""MaxPool, AveragePool, LpPool and GlobalLpPool, over one to three axes."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.numbers import LONGEST, Struct, int32
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.ops.convolutions.window import Along, Window, window_of
from probe.engine.device.cuda.ops.reduce import reduced
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.channels_last import channels_last, dense_when_asked, has_channels_last
from probe.engine.device.cuda.tensors.formats import I8, I32, I64, U8
from probe.engine.device.cuda.tensors.layout import width

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

_THREADS = 256
_TOGETHER = 8  # channels a thread takes, where they are contiguous
_UNROLLED = 16  # elements of a window that are read at once
_HELD = 32  # of windows that pool_rows knows
_ACCESS = 16  # bytes
_SMALL = 1 << 31
_WHOLE = (I8, U8, I32)
_NORMS = {1: "L1", 2: "L2"}


class Problem(Struct):
    """The struct Pool of kernels/pool.cu; ``VolumeProblem`` where AXES is 3."""

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


class VolumeProblem(Struct):
    """A ``Problem``, and the axis before rows."""

    _fields_ = (
        ("plane", Problem),
        *(
            (name, ctypes.c_int)
            for name in (
                "slices", "out_slices", "kernel_slices", "stride_slices", "pad_front", "pad_back", "dilation_slices",
            )
        ),
    )  # fmt: skip


def pool(queue: Queue, call: Call) -> list[Tensor | None]:
    x, op = call.data(0), call.node.op_type
    assert x.format is not None
    if not x.format.is_float and (op != "MaxPool" or x.format not in _WHOLE):
        raise Unsupported(f"{op} of {x.format.name}")
    return _pooled(queue, call, window_of(call, x.shape[2:], tuple(call.ints("kernel_shape") or ())))


def global_norm(queue: Queue, call: Call) -> list[Tensor | None]:
    """A reduction, or for norms that reductions do not know a window of the whole image."""
    x = call.data(0)
    norm, image = call.int("p", 2), x.shape[2:]
    if norm in _NORMS:
        made = reduced(queue, x, list(range(2, len(x.shape))), _NORMS[norm], call.store())
        return [made.view((*x.shape[:2], *(1 for _ in image)))]
    return _pooled(queue, call, window_of(call, image, image))


def _pooled(queue: Queue, call: Call, window: Window) -> list[Tensor | None]:
    x, op = call.data(0), call.node.op_type
    assert x.format is not None
    if window.pixels >= LONGEST:
        raise Unsupported(f"{op} of {x.shape}: more pixels than 31 bits count")
    problem = Problem(
        math.prod(x.shape[:2]), *window.image, *window.out, *window.kernel, *window.strides, *window.before, *window.after,
        *window.dilations,
    )  # fmt: skip
    store = call.like(x)
    macros = (
        ("TX", x.format.name), ("TY", store.name), ("MAXIMUM", int(op == "MaxPool")), ("COUNT_PAD", call.int("count_include_pad", 0)),
    )  # fmt: skip
    channels, wants_places = x.shape[1], any(call.formats[1:])
    deep = window.slices
    whole = problem if deep is None else _volume(problem, deep)
    shape = (*x.shape[:2], *window.shape)
    count = math.prod(shape)
    macros += (("INDEX", "unsigned" if max(x.size, count) < _SMALL else "i64"), *((("AXES", 3),) if deep else ()))
    plain = not wants_places and x.format.is_float and op in ("MaxPool", "AveragePool")
    if plain and has_channels_last(x) and channels % _TOGETHER == 0:
        y = queue.empty((x.shape[0], *(window.shape if deep else window.out), channels), store)
        sizes = _sizes(window if window.taps <= _UNROLLED else None, deep)
        source = Source("pool.cu", "pool_channels", (*macros, ("ENTRY_CHANNELS", 1), *sizes))
        given = (queue.at(channels_last(queue, x)), queue.at(y), whole, int32(channels))
        queue.launch(source, math.ceil(y.size // _TOGETHER / _THREADS), _THREADS, *given)
        return [dense_when_asked(queue, y)]
    y, places = queue.empty(shape, store), queue.empty(shape, I64) if wants_places else None
    stride, lanes = window.strides[-1], width(_ACCESS // x.format.bytes, x.shape[-1])
    if plain and window.taps <= _HELD and window.dilations[-1] == 1 and lanes > 1 and not lanes % stride:
        each = lanes // stride
        rows = (
            ("ENTRY_ROWS", 1), ("LANES", lanes), ("STRIDE", stride), ("PAD", window.before[-1]), ("VEC", width(each, shape[-1])), *_sizes(window, deep),
        )  # fmt: skip
        threads = math.prod(shape[:-1]) * math.ceil(shape[-1] / each)
        source = Source("pool.cu", "pool_rows", (*macros, *rows))
        queue.launch(source, math.ceil(threads / _THREADS), _THREADS, queue.at(x), queue.at(y), whole)
        return [y]
    macros += (
        ("WHOLE", int(not x.format.is_float)), ("NORM", call.int("p", 2) if op.endswith("LpPool") else 0),
        ("INDICES", 1 + call.int("storage_order", 0) if wants_places else 0),
    )  # fmt: skip
    source = Source("pool.cu", "pool_direct", macros)
    queue.launch(source, math.ceil(y.size / _THREADS), _THREADS, queue.at(x), queue.at(y), queue.at(places), whole)
    return [y] if places is None else [y, places]


def _sizes(window: Window | None, deep: Along | None) -> list[tuple[str, int]]:
    """Of a window that the kernel knows; 0: of any."""
    rows, cols = window.kernel if window else (0, 0)
    slices = [("WINDOW_SLICES", deep.kernel if window else 0)] if deep else []
    return [("WINDOW_HEIGHT", rows), ("WINDOW_WIDTH", cols), *slices]


def _volume(plane: Problem, deep: Along) -> VolumeProblem:
    sizes = (deep.image, deep.out, deep.kernel, deep.stride, deep.before, deep.after, deep.dilation)
    return VolumeProblem(plane, *sizes)


POOLS = (Op(("MaxPool", "AveragePool", "LpPool"), pool), Op(("GlobalLpPool",), global_norm))
