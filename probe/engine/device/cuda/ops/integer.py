"""MatMulInteger, ConvInteger, QLinearMatMul, QLinearConv: exact sums of 8-bit products; DynamicQuantizeLinear, which makes the factors."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.numbers import Struct
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.ops.integer_conv import convolved
from probe.engine.device.cuda.ops.integer_product import BOUNDS, Bytes, Requantised, is_fixed, only_one, product
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import F32, U8

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

_THREADS = 256
_MATRIX = 2  # axes of a matrix
_VECTOR = 8  # elements
_PART = 2048  # elements that a block quantises
_PARTS = 1024  # of which a range is known, at most: every block of the second kernel looks at all


class Span(Struct):
    """The struct of kernels/integer.cu."""

    _fields_ = (("size", ctypes.c_longlong), ("span", ctypes.c_longlong), ("parts", ctypes.c_int))


def _matrices(call: Call, at: tuple[int, int], zeros: tuple[int, int]) -> tuple[Bytes, Bytes, tuple[int, ...]]:
    """The factors of a MatMul, and the shape of the result.

    Args:
        at: which inputs they are; ``zeros``: which their zero points are.

    Raises:
        Unsupported: vectors; matrices of several axes that are not the same; zero points of rows, or of matrices.
    """
    a, b = (call.data(one) for one in at)
    if min(len(a.shape), len(b.shape)) < _MATRIX:
        raise Unsupported("a product of vectors of integers")
    points = only_one(call.given(zeros[0])), _column(call.given(zeros[1]))
    outer, own = a.shape[:-2], b.shape[:-2]
    batches, rows = (math.prod(outer), math.prod(own)), a.shape[-2]
    if batches[1] == 1:  # all rows are of one matrix
        batches, rows = (1, 1), batches[0] * rows
        shape = (*((1,) * (len(own) - len(outer))), *outer, a.shape[-2], b.shape[-1])
    elif outer != own and batches[0] != 1:
        raise Unsupported(f"a product of {a.shape} and {b.shape}")
    else:
        shape = (*((1,) * (len(outer) - len(own))), *own, a.shape[-2], b.shape[-1])
    fixed = [is_fixed(call, one) for one in (*at, *zeros)]
    first = Bytes(a, batches[0], rows, a.shape[-1], points[0], fixed[0], fixed[2])
    second = Bytes(b, batches[1], b.shape[-2], b.shape[-1], points[1], fixed[1], fixed[3])
    return first, second, shape


def mat_mul_integer(queue: Queue, call: Call) -> list[Tensor | None]:
    a, b, shape = _matrices(call, (0, 1), (2, 3))
    return [product(queue, a, b, b.batches).view(shape)]


def _column(zero: Tensor | None) -> Tensor | None:
    if zero is not None and len(zero.shape) > 1:
        raise Unsupported("zero points of matrices")
    return zero


def q_linear_mat_mul(queue: Queue, call: Call) -> list[Tensor | None]:
    """As ONNX Runtime: the sum by one factor, rounded to even, and the zero point added."""
    a_scale, b_scale, y_scale, y_zero = (call.data(at) for at in (1, 4, 6, 7))
    if a_scale.size != 1 or len(b_scale.shape) > 1:
        raise Unsupported("scales of rows, or of matrices")
    a, b, shape = _matrices(call, (0, 3), (2, 5))
    if b_scale.size not in (1, b.cols):
        raise Unsupported(f"{b_scale.size} scales of {b.cols} columns")
    ending = _ending(call, a_scale, b_scale, y_scale, y_zero, None)
    return [product(queue, a, b, b.batches, ending).view(shape)]


def _ending(call: Call, a: Tensor, b: Tensor, y: Tensor, zero: Tensor, bias: Tensor | None) -> Requantised:
    store = call.store()
    if store.name not in BOUNDS or zero.size != 1 or zero.format is not store or y.size != 1:
        raise Unsupported(f"{call.node.op_type} to {store.name}")
    return Requantised(store, a, b, y, zero, bias)


def conv_integer(queue: Queue, call: Call) -> list[Tensor | None]:
    return [convolved(queue, call, (0, 1), (2, 3), None)]


def q_linear_conv(queue: Queue, call: Call) -> list[Tensor | None]:
    """As ``q_linear_mat_mul``; the bias is added to the sum."""
    x_scale, w, w_scale, y_scale, y_zero = (call.data(at) for at in (1, 3, 4, 6, 7))
    if x_scale.size != 1 or w_scale.size not in (1, w.shape[0]):
        raise Unsupported("scales of something else than channels")
    ending = _ending(call, w_scale, x_scale, y_scale, y_zero, call.given(8))
    return [convolved(queue, call, (0, 3), (2, 5), ending)]


def dynamic_quantize(queue: Queue, call: Call) -> list[Tensor | None]:
    """The range of what there is and 0 as 256 steps; of zeros alone the step is 1, as in ONNX Runtime."""
    x = call.data(0)
    assert x.format is not None
    if not x.format.is_float or not x.size:
        raise Unsupported(f"DynamicQuantizeLinear of {x.format.name}{list(x.shape)}")
    vector = _VECTOR if x.address(queue.backend) % (_VECTOR * x.format.bytes) == 0 else 1
    blocks = min(math.ceil(x.size / _PART), _PARTS)
    span = math.ceil(math.ceil(x.size / blocks) / _VECTOR) * _VECTOR
    blocks = math.ceil(x.size / span)
    low, high = (queue.empty((blocks,), F32) for _ in range(2))
    macros = (("TX", x.format.name), ("VEC", vector))
    source = Source("integer.cu", "integer_range", (*macros, ("ENTRY_RANGE", 1)))
    queue.launch(source, blocks, _THREADS, *map(queue.at, (x, low, high)), Span(x.size, span, 0))
    y, scale, zero = queue.empty(x.shape, U8), queue.empty((), F32), queue.empty((), U8)
    source = Source("integer.cu", "integer_quantise", (*macros, ("ENTRY_QUANTISE", 1)), contract=False)
    given = Span(x.size, _PART, blocks)
    queue.launch(source, math.ceil(x.size / _PART), _THREADS, *map(queue.at, (x, low, high, y, scale, zero)), given)
    return [y, queue.convert(scale, call.store(1)), zero]


INTEGERS = (
    Op(("MatMulInteger",), mat_mul_integer),
    Op(("ConvInteger",), conv_integer),
    Op(("QLinearMatMul",), q_linear_mat_mul),
    Op(("QLinearConv",), q_linear_conv),
    Op(("DynamicQuantizeLinear",), dynamic_quantize),
)
