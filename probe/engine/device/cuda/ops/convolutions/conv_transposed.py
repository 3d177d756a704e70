"""ConvTranspose: as a product of x, channels last, and all taps at once, whose results are then joined; or by kernels/conv.cu, a thread an element."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.convolutions.window import Window, conv_problem, transposed_window_of
from probe.engine.device.cuda.ops.products.ending import storing
from probe.engine.device.cuda.ops.products.matmul import ACC16, run
from probe.engine.device.cuda.ops.products.product import Matrices, describe
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors import channels_last as order
from probe.engine.device.cuda.tensors.copies import copy, in_dense_order, lying_of, transposed
from probe.engine.device.cuda.tensors.formats import F32, Format
from probe.engine.device.cuda.tensors.layout import width

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

_THREADS = 256
_LEAST = 8  # channels that are worth a product
_TOGETHER = 4  # outputs of a thread that joins
_MOST = 1 << 31  # bytes between the two kernels
_KEY = "all taps"


def conv_transpose(queue: Queue, call: Call) -> list[Tensor | None]:
    x, w, groups = call.data(0), call.data(1), call.int("group", 1)
    if call.tactic == ACC16:
        raise Unsupported("acc16 of a transposed convolution")
    window = transposed_window_of(call, x.shape[2:], w.shape[2:])
    shape = (x.shape[0], w.shape[1] * groups, *window.shape)
    if not math.prod(shape):
        return [queue.empty(shape, call.store())]
    if max(math.prod(x.shape[1:]), math.prod(shape[1:])) >= 1 << 31:
        raise Unsupported(f"ConvTranspose of {x.shape}")
    if groups == 1 and len(x.shape) in order.AXES and x.shape[1] >= _LEAST and x.format is w.format:
        parts = x.size // x.shape[1] * window.taps * w.shape[1] * F32.bytes
        if parts < _MOST:
            return [order.dense_when_asked(queue, (_apart if _is_apart(window) else _joined)(queue, call, window))]
    return [_direct(queue, call, window, shape)]


def _direct(queue: Queue, call: Call, window: Window, shape: tuple[int, ...]) -> Tensor:
    x, w, bias, groups = call.data(0), call.data(1), call.given(2), call.int("group", 1)
    y = queue.empty(shape, call.store())
    assert x.format and w.format and y.format
    problem = conv_problem(x.shape[0], groups, x.shape[1] // groups, w.shape[1], window)
    macros = (
        ("TX", x.format.name), ("TW", w.format.name), _of_bias(bias), ("TY", y.format.name), ("ENTRY_TRANSPOSED", 1), *_axes(window),
    )  # fmt: skip
    pointers = (queue.at(x), queue.at(w), queue.at(bias), queue.at(y))
    blocks = math.ceil(y.size / _THREADS)
    queue.launch(Source("conv.cu", "conv_transposed", macros), blocks, _THREADS, *pointers, problem)
    return y


def _axes(window: Window) -> tuple[tuple[str, int], ...]:
    return (("AXES", 3),) if window.slices else ()


def _of_bias(bias: Tensor | None) -> tuple[str, str]:
    return "TB", bias.format.name if bias is not None and bias.format else F32.name


def _is_apart(window: Window) -> bool:
    """Whether the windows of two elements never meet, and nothing is cut off: what they bring only has to be put into place."""
    deep = window.slices
    along = [*zip(window.kernel, window.strides, window.image, window.out, window.before, strict=True)]
    along += [(deep.kernel, deep.stride, deep.image, deep.out, deep.before)] if deep else []
    return all(size == step and own * step == out and not before for size, step, own, out, before in along)


def _product(queue: Queue, call: Call, window: Window, bias: Tensor | None, store: Format) -> Tensor:
    """[images * pixels, taps * outputs]."""
    x, w = call.data(0), call.data(1)
    channels, outputs = w.shape[:2]
    value = call.node.inputs[1]
    fixed = value is not None and value.is_initializer()
    weights = (w.kept or {}).get(_KEY) if fixed else None
    if weights is None:
        where = queue.aside if fixed else queue
        weights = transposed(where, w.view((channels, outputs, window.taps)), (0, 2, 1)).view(
            (channels, window.taps * outputs)
        )
        if fixed:
            w.kept = {**(w.kept or {}), _KEY: weights}
    rows, cols = x.size // channels, window.taps * outputs
    left = Matrices(order.channels_last(queue, x), (), channels, 1)
    added = None if bias is None else Matrices(bias, (), 0, 1)
    ending = storing(queue, (rows, cols), store)
    right = Matrices(weights, (), cols, 1, fixed)
    run(queue, describe(left, right, added, (rows, cols), channels, ending, tf32=call.tf32))
    return ending.stored[0]


def _apart(queue: Queue, call: Call, window: Window) -> Tensor:
    """[images, ..., outputs]."""
    x, w, bias = call.data(0), call.data(1), call.given(2)
    outputs, repeated = w.shape[1], bias
    if bias is not None:
        assert bias.format
        repeated = queue.empty((window.taps, outputs), bias.format)
        copy(queue, repeated.shape, (bias, 0, (0, 1)), (repeated, 0, (outputs, 1)))
    made = _product(queue, call, window, repeated, call.store())
    axes = len(x.shape) - 2
    lies = lying_of(queue, made).reshaped((x.shape[0], *x.shape[2:], *w.shape[2:], outputs))
    assert lies is not None
    between = [at for pair in zip(range(1, axes + 1), range(axes + 1, 2 * axes + 1), strict=True) for at in pair]
    whole = lies.permuted((0, *between, 2 * axes + 1))
    return in_dense_order(queue, whole).view((x.shape[0], *window.shape, outputs))


def _joined(queue: Queue, call: Call, window: Window) -> Tensor:
    """[images, ..., outputs]."""
    x, w, bias = call.data(0), call.data(1), call.given(2)
    parts, outputs = _product(queue, call, window, None, F32), w.shape[1]
    y = queue.empty((x.shape[0], *window.shape, outputs), call.store())
    lanes = width(_TOGETHER, outputs)
    macros = (_of_bias(bias), ("TY", call.store().name), ("VEC", lanes), *_axes(window))
    pointers = (queue.at(parts), queue.at(bias), queue.at(y))
    problem = conv_problem(x.shape[0], 1, x.shape[1], outputs, window)
    blocks = math.ceil(y.size // lanes / _THREADS)
    queue.launch(Source("conv_joined.cu", "conv_joined", macros), blocks, _THREADS, *pointers, problem)
    return y
