"""ReduceSum and its family, over any axes; global pooling, which is a reduction over the image."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.ops.rows import rows_for
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.channels_last import channels_last, has_channels_last
from probe.engine.device.cuda.tensors.copies import filled, transposed
from probe.engine.device.cuda.tensors.formats import F32, Format
from probe.engine.device.cuda.tensors.layout import width

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

_OPS = {
    "ReduceSum": "SUM", "ReduceMean": "MEAN", "ReduceMax": "MAX", "ReduceMin": "MIN", "ReduceProd": "PROD", "ReduceL1": "L1",
    "ReduceL2": "L2", "ReduceSumSquare": "SUM_SQUARE", "ReduceLogSum": "LOG_SUM", "ReduceLogSumExp": "LOG_SUM_EXP",
    "GlobalAveragePool": "MEAN", "GlobalMaxPool": "MAX",
}  # fmt: skip
# what the second stage does with the partial results of the first
_SECOND = {"L1": "SUM", "SUM_SQUARE": "SUM"}
# of no element at all, as ONNX Runtime says: 0 where nothing else is said, even of a mean
_OF_NOTHING = {"MAX": -math.inf, "MIN": math.inf, "PROD": 1.0, "LOG_SUM": -math.inf, "LOG_SUM_EXP": -math.inf}
_OF_INTEGERS = ("SUM", "PROD", "MAX", "MIN")
_INTEGER_THREADS = 128
_BLOCKS = 4  # a multiprocessor, that reducing columns aims for
_SHORTEST = 64  # elements of a column worth a block of their own
_PART = 1 << 14  # elements that a block reduces when rows are few and long


def reduce(queue: Queue, call: Call) -> list[Tensor | None]:
    x = call.data(0)
    assert x.format is not None
    if not x.format.is_float and (x.format.register == "bool" or _OPS[call.node.op_type] not in _OF_INTEGERS):
        raise Unsupported(f"{call.node.op_type} of {x.format.name}")
    axes = call.ints("axes")
    if axes is None:
        axes = call.numbers(1, queue)
    if axes is None or not axes:
        axes = [] if call.int("noop_with_empty_axes", 0) else list(range(len(x.shape)))
    axes = sorted({axis % max(len(x.shape), 1) for axis in axes}) if x.shape else []
    keep = bool(call.int("keepdims", 1))
    shape = tuple(1 if axis in axes else extent for axis, extent in enumerate(x.shape) if keep or axis not in axes)
    return [reduced(queue, x, axes, _OPS[call.node.op_type], call.store()).view(shape)]


def global_pool(queue: Queue, call: Call) -> list[Tensor | None]:
    x = call.data(0)
    axes = list(range(2, len(x.shape)))
    shape = (*x.shape[:2], *(1 for _ in axes))
    return [reduced(queue, x, axes, _OPS[call.node.op_type], call.store()).view(shape)]


def reduced(queue: Queue, x: Tensor, axes: Sequence[int], op: str, format: Format) -> Tensor:  # noqa: A002
    """``x`` reduced over ``axes``, which are gone from the shape."""
    shape = tuple(extent for axis, extent in enumerate(x.shape) if axis not in axes)
    if not x.size:
        y, value = queue.empty(shape, format), _OF_NOTHING.get(op, 0.0)
        if y.size and not format.is_float and math.isinf(value):
            raise Unsupported("the largest of no integers")
        if y.size:
            filled(queue, y, value)
        return y
    if list(axes) == [2, 3] and has_channels_last(x):
        x, axes = channels_last(queue, x), (1, 2)
    extents: list[int] = []
    flags: list[bool] = []  # reduced
    for axis, extent in enumerate(x.shape):
        if extent == 1:
            continue
        if flags and flags[-1] == (axis in axes):
            extents[-1] *= extent
        else:
            extents.append(extent)
            flags.append(axis in axes)
    if True not in flags:
        extents.append(1)
        flags.append(True)
    if flags.count(True) > 1:
        order = [axis for axis in range(len(x.shape)) if axis not in axes] + list(axes)
        x = transposed(queue, x, order)
        count = math.prod(x.shape[len(order) - len(axes) :])
        extents, flags = [x.size // count, count], [False, True]
    at = flags.index(True)
    outer, cols, inner = math.prod(extents[:at]), extents[at], math.prod(extents[at + 1 :])
    y = queue.empty(shape, format)
    if not format.is_float:
        _integers(queue, x, y, op, (outer, cols, inner))
    elif inner > 1:
        _columns(queue, x, y, op, (outer, cols, inner))
    else:
        _rows(queue, x, y, op, (outer, cols))
    return y


def _integers(queue: Queue, x: Tensor, y: Tensor, op: str, sizes: tuple[int, int, int]) -> None:
    outer, cols, inner = sizes
    assert x.format is not None
    macros = (("TX", x.format.name), ("OP", op))
    if inner == 1:
        source = Source("reduce_integers.cu", "reduce_integer_rows", (*macros, ("ENTRY_ROWS", 1)))
        queue.launch(source, outer, _INTEGER_THREADS, queue.at(x), queue.at(y), ctypes.c_longlong(cols))
        return
    source = Source("reduce_integers.cu", "reduce_integer_columns", (*macros, ("ENTRY_COLUMNS", 1)))
    numbers = (ctypes.c_longlong(one) for one in (outer * inner, cols, inner))
    blocks = math.ceil(outer * inner / _INTEGER_THREADS)
    queue.launch(source, blocks, _INTEGER_THREADS, queue.at(x), queue.at(y), *numbers)


def _columns(queue: Queue, x: Tensor, y: Tensor, op: str, sizes: tuple[int, int, int]) -> None:
    outer, cols, inner = sizes
    assert x.format is not None
    lanes = _columns_at_once(x.format, inner)
    blocks = outer * math.ceil(inner / (32 * lanes))
    parts = min(math.ceil(_BLOCKS * queue.backend.multiprocessors / blocks), cols // _SHORTEST)
    if parts <= 1 or op == "LOG_SUM_EXP":
        _walk(queue, x, y, op, (outer, 1, cols, cols, inner, cols), first=True, final=True)
        return
    span = math.ceil(cols / parts)
    parts = math.ceil(cols / span)
    partial = queue.empty((outer, parts, inner), F32)
    _walk(queue, x, partial, op, (outer, parts, cols, span, inner, cols), first=True, final=False)
    _walk(queue, partial, y, _SECOND.get(op, op), (outer, 1, parts, parts, inner, cols), first=False, final=True)


def _columns_at_once(format: Format, inner: int) -> int:  # noqa: A002
    """Neighbours a thread takes: few enough that a warp's 32 threads all have some."""
    lanes = width(16 // format.bytes, inner)
    while lanes > 1 and inner < 32 * lanes:
        lanes //= 2
    return lanes


def _walk(
    queue: Queue, x: Tensor, y: Tensor, op: str, sizes: tuple[int, int, int, int, int, int], *, first: bool, final: bool
) -> None:
    outer, parts, cols, span, inner, count = sizes
    assert x.format is not None and y.format is not None
    lanes = _columns_at_once(x.format, inner)
    macros = (
        ("TX", x.format.name), ("TY", y.format.name), ("OP", op), ("FIRST", int(first)), ("FINAL", int(final)), ("VEC", lanes),
        ("ENTRY_COLUMNS", 1),
    )  # fmt: skip
    numbers = (ctypes.c_longlong(n) for n in (cols, inner, parts, span, count))
    blocks = outer * parts * math.ceil(inner / (32 * lanes))
    queue.launch(Source("reduce.cu", "reduce_columns", macros), blocks, 256, queue.at(x), queue.at(y), *numbers)


def _rows(queue: Queue, x: Tensor, y: Tensor, op: str, sizes: tuple[int, int]) -> None:
    rows, cols = sizes
    split = rows < queue.backend.multiprocessors and cols >= 4 * _PART and op != "LOG_SUM_EXP"
    if not split:
        _launch(queue, x, y, op, (rows, 1, cols, cols, cols), first=True, final=True)
        return
    parts = math.ceil(cols / _PART)
    partial = queue.empty((rows, parts), F32)
    _launch(queue, x, partial, op, (rows, parts, cols, _PART, cols), first=True, final=False)
    _launch(queue, partial, y, _SECOND.get(op, op), (rows, 1, parts, parts, cols), first=False, final=True)


def _launch(
    queue: Queue, x: Tensor, y: Tensor, op: str, sizes: tuple[int, int, int, int, int], *, first: bool, final: bool
) -> None:
    rows, per_row, cols, span, count = sizes
    assert x.format is not None and y.format is not None
    plan = rows_for(span, x.format.bytes, held=False)
    lanes = plan.lanes
    while cols % lanes:
        lanes //= 2
    macros = (
        ("TX", x.format.name), ("TY", y.format.name), ("OP", op), ("FIRST", int(first)), ("FINAL", int(final)),
        ("THREADS", plan.threads), ("ROWS", plan.rows), ("VEC", lanes), ("ENTRY_ROWS", 1),
    )  # fmt: skip
    numbers = (ctypes.c_longlong(n) for n in (rows * per_row, per_row, cols, span, count))
    blocks = math.ceil(rows * per_row / plan.rows)
    queue.launch(Source("reduce.cu", "reduce_rows", macros), blocks, plan.block, queue.at(x), queue.at(y), *numbers)


REDUCTIONS = (
    Op(tuple(name for name in _OPS if name.startswith("Reduce")), reduce),
    Op(("GlobalAveragePool", "GlobalMaxPool"), global_pool),
)
