"""MatMulInteger, ConvInteger, QLinearMatMul, QLinearConv: exact sums of 8-bit products; DynamicQuantizeLinear, which makes the factors."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.pointwise import Reading, run_steps
from probe.engine.device.cuda.numbers import LONGEST, Struct, int32s
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.ops.convolutions.window import window_of
from probe.engine.device.cuda.ops.reduce import reduced
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import F32, I8, I32, U8

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

_THREADS = 256
_TILE = 64
_BOUNDS = {"u8": "0.f, 255.f", "i8": "-128.f, 127.f"}
_IMAGE = 2  # axes before pixels


class Product(Struct):
    """The struct of kernels/integer.cu."""

    _fields_ = (
        *((name, ctypes.c_longlong) for name in ("a_batches", "b_batches", "down", "across")),
        *((name, ctypes.c_int) for name in "mnk"),
    )


class Patches(Struct):
    """The struct of kernels/integer.cu."""

    _fields_ = (
        ("total", ctypes.c_longlong),
        *((name, ctypes.c_int * 2) for name in ("image", "kernel", "stride", "dilation", "before", "out")),
    )


@dataclass(frozen=True, slots=True)
class Bytes:
    """A factor: 8-bit matrices one behind the other.

    Attributes:
        zero: its zero point: one, or one for each row (of the first factor) or column (of the second); None: 0.
    """

    x: Tensor
    batches: int
    rows: int
    cols: int
    zero: Tensor | None


def product(queue: Queue, a: Bytes, b: Bytes, batches: int) -> Tensor:
    """int32 [batches, rows, columns]; a factor with fewer batches is repeated.

    Raises:
        Unsupported: other types, a zero point that does not fit.
    """
    for one, own in ((a, a.batches * a.rows), (b, b.cols)):
        if one.x.format not in (U8, I8) or (
            one.zero is not None and (one.zero.format is not one.x.format or one.zero.size not in (1, own))
        ):
            raise Unsupported("factors that are no 8-bit integers, or their zero points")
    if a.cols != b.rows or max(a.rows, a.cols, b.cols) >= LONGEST:
        raise Unsupported(f"a product of {a.rows} x {a.cols} and {b.rows} x {b.cols}")
    y = queue.empty((batches, a.rows, b.cols), I32)
    assert a.x.format is not None and b.x.format is not None
    macros = (
        ("TA", a.x.format.name), ("TB", b.x.format.name), ("ROWS_A", int(a.zero is not None and a.zero.size > 1)),
        ("COLS_B", int(b.zero is not None and b.zero.size > 1)), ("ENTRY_PRODUCT", 1),
    )  # fmt: skip
    down, across = math.ceil(a.rows / _TILE), math.ceil(b.cols / _TILE)
    queue.launch(
        Source("integer.cu", "integer_product", macros), batches * down * across, _THREADS, *map(queue.at, (a.x, b.x, a.zero, b.zero, y)),
        Product(a.batches, b.batches, down, across, a.rows, b.cols, a.cols),
    )  # fmt: skip
    return y


def _matrices(
    a: Tensor, b: Tensor, a_zero: Tensor | None, b_zero: Tensor | None
) -> tuple[Bytes, Bytes, tuple[int, ...]]:
    """The factors of a MatMul, and the shape of the result.

    Raises:
        Unsupported: vectors; matrices of several axes that are not the same.
    """
    if min(len(a.shape), len(b.shape)) < _IMAGE:
        raise Unsupported("a product of vectors of integers")
    outer, own = a.shape[:-2], b.shape[:-2]
    if math.prod(own) == 1:  # all rows are of one matrix
        shape = (*((1,) * (len(own) - len(outer))), *outer, a.shape[-2], b.shape[-1])
        return (
            Bytes(a, 1, math.prod(a.shape[:-1]), a.shape[-1], a_zero),
            Bytes(b, 1, b.shape[-2], b.shape[-1], b_zero),
            shape,
        )
    if outer != own and math.prod(outer) != 1:
        raise Unsupported(f"a product of {a.shape} and {b.shape}")
    shape = (*((1,) * (len(outer) - len(own))), *own, a.shape[-2], b.shape[-1])
    first = Bytes(a, math.prod(outer), a.shape[-2], a.shape[-1], a_zero)
    return first, Bytes(b, math.prod(own), b.shape[-2], b.shape[-1], b_zero), shape


def _one(zero: Tensor | None) -> Tensor | None:
    """A zero point of a whole tensor.

    Raises:
        Unsupported: there are several.
    """
    if zero is not None and zero.size != 1:
        raise Unsupported(f"{zero.size} zero points of one tensor")
    return zero


def mat_mul_integer(queue: Queue, call: Call) -> list[Tensor | None]:
    a, b, shape = _matrices(call.data(0), call.data(1), _one(call.given(2)), _column(call.given(3)))
    return [product(queue, a, b, b.batches).view(shape)]


def _column(zero: Tensor | None) -> Tensor | None:
    if zero is not None and len(zero.shape) > 1:
        raise Unsupported("zero points of matrices")
    return zero


def q_linear_mat_mul(queue: Queue, call: Call) -> list[Tensor | None]:
    """As ONNX Runtime: the sum by one factor, rounded to even, and the zero point added."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (call.data(at) for at in range(8))
    if a_scale.size != 1 or len(b_scale.shape) > 1:
        raise Unsupported("scales of rows, or of matrices")
    one, other, shape = _matrices(a, b, _one(a_zero), _column(b_zero))
    sums = product(queue, one, other, other.batches).view(shape)
    return [
        _requantised(
            queue, call, sums, (a_scale.view(()), b_scale.view(_flat(b_scale)), y_scale.view(())), y_zero, None
        )
    ]


def _flat(scale: Tensor) -> tuple[int, ...]:
    return () if scale.size == 1 else (scale.size,)


def _requantised(
    queue: Queue, call: Call, sums: Tensor, scales: tuple[Tensor, Tensor, Tensor], zero: Tensor, bias: Tensor | None
) -> Tensor:
    """Sums as 8-bit integers of another scale.

    Args:
        scales: of both factors and of the result, broadcast to ``sums``.
    """
    store = call.store()
    if store.name not in _BOUNDS or zero.size != 1:
        raise Unsupported(f"{call.node.op_type} to {store.name}")
    readings = [
        ("s", Reading(sums)),
        *((name, Reading(one)) for name, one in zip("abc", scales, strict=True)),
        ("z", Reading(zero.view(()))),
    ]
    readings += [("bias", Reading(bias))] if bias is not None else []
    total = "float(s + bias)" if bias is not None else "float(s)"
    value = f"{store.register}(op_clip<float>(op_round({total} * (a * b / c)) + float(z), {_BOUNDS[store.name]}))"
    (made,) = run_steps(queue, sums.shape, readings, [Step("y", store.register, value, "", store)])
    return made


def _convolved(queue: Queue, call: Call, x: Tensor, w: Tensor, x_zero: Tensor | None, w_zero: Tensor | None) -> Tensor:
    """int32 [N, outputs, pixels...] of images, one or two axes."""
    if not _IMAGE < len(x.shape) <= 2 * _IMAGE or x.format is None:
        raise Unsupported(f"{call.node.op_type} of {x.shape}")
    window, groups = window_of(call, x.shape[2:], w.shape[2:]), call.int("group", 1)
    n, outputs = x.shape[0], w.shape[0]
    k = math.prod(w.shape[1:])
    shape = (n, outputs, *window.shape)
    if not math.prod(shape) or not k:
        raise Unsupported(f"{call.node.op_type} of nothing")
    patches = x
    plain = window.taps == 1 and window.out == window.image and not any((*window.before, *window.after))
    if not plain:
        patches = queue.empty((n * groups, k, window.pixels), x.format)
        pairs = (window.image, window.kernel, window.strides, window.dilations, window.before, window.out)
        given = Patches(patches.size, *(int32s(*one) for one in pairs))
        source = Source("integer.cu", "integer_patches", (("TX", x.format.name), ("ENTRY_PATCHES", 1)))
        queue.launch(
            source,
            math.ceil(patches.size / _THREADS),
            _THREADS,
            queue.at(x),
            queue.at(_one(x_zero)),
            queue.at(patches),
            given,
        )
    weights = Bytes(w, groups, outputs // groups, k, w_zero)
    images = Bytes(patches, n * groups, k, window.pixels, _one(x_zero))
    return product(queue, weights, images, n * groups).view(shape)


def conv_integer(queue: Queue, call: Call) -> list[Tensor | None]:
    return [_convolved(queue, call, call.data(0), call.data(1), call.given(2), call.given(3))]


def q_linear_conv(queue: Queue, call: Call) -> list[Tensor | None]:
    """As ``q_linear_mat_mul``; the bias is added to the sum."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = (call.data(at) for at in range(8))
    if x_scale.size != 1 or w_scale.size not in (1, w.shape[0]):
        raise Unsupported("scales of something else than channels")
    sums = _convolved(queue, call, x, w, x_zero, w_zero)
    channels = (-1, *(1 for _ in sums.shape[2:]))
    spread = lambda one: one.view(() if one.size == 1 else (one.size, *channels[1:]))
    bias = call.given(8)
    scales = (x_scale.view(()), spread(w_scale), y_scale.view(()))
    return [_requantised(queue, call, sums, scales, y_zero, spread(bias) if bias is not None else None)]


def dynamic_quantize(queue: Queue, call: Call) -> list[Tensor | None]:
    """The range of what there is and 0 as 256 steps; of zeros alone the step is 1, as in ONNX Runtime."""
    x = call.data(0)
    assert x.format is not None
    if not x.format.is_float or not x.size:
        raise Unsupported(f"DynamicQuantizeLinear of {x.format.name}{list(x.shape)}")
    axes = list(range(len(x.shape)))
    ends = [(name, Reading(reduced(queue, x, axes, how, F32))) for name, how in (("low", "MIN"), ("high", "MAX"))]
    steps = [
        Step("a", "float", "op_min(low, 0.f)"), Step("b", "float", "op_max(high, 0.f)"),
        Step("s", "float", "a == b ? 1.f : (b - a) / 255.f", "", F32),
        Step("z", "u8", "u8(op_round(op_clip<float>(0.f - a / s, 0.f, 255.f)))", "", U8),
    ]  # fmt: skip
    scale, zero = run_steps(queue, (), ends, steps)
    value = "u8(op_clip<float>(op_round(x / s) + float(z), 0.f, 255.f))"
    readings = [("x", Reading(x)), ("s", Reading(scale)), ("z", Reading(zero))]
    (y,) = run_steps(queue, x.shape, readings, [Step("y", "u8", value, "", U8)])
    return [y, queue.convert(scale, call.store(1)), zero]


INTEGERS = (
    Op(("MatMulInteger",), mat_mul_integer),
    Op(("ConvInteger",), conv_integer),
    Op(("QLinearMatMul",), q_linear_mat_mul),
    Op(("QLinearConv",), q_linear_conv),
    Op(("DynamicQuantizeLinear",), dynamic_quantize),
)
