"""Convolutions of 8-bit integers: windows laid out as lines of a product, or summed where groups have few channels."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.numbers import LONGEST, Struct, int32s
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.convolutions.window import Window, window_of
from probe.engine.device.cuda.ops.integer_product import LINE, Bytes, Requantised, is_fixed, only_one, product
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import F32, I8, I32, U8

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

_THREADS = 256
_IMAGE = 2  # axes before pixels
_SMALL = 1 << 32  # words that 32 bits count
_WORD = 4  # bytes, or pixels
_FEW_OUTPUTS, _FEW_PRODUCTS = 4, 64  # of a group; of an output: below, a tile of a product would be mostly empty
_PAIRS = ("image", "stride", "dilation", "before", "out")


class Patches(Struct):
    """The struct of kernels/integer.cu."""

    _fields_ = (
        ("words", ctypes.c_longlong),
        ("line", ctypes.c_int),
        *((name, ctypes.c_int * 2) for name in _PAIRS),
    )


class Depthwise(Struct):
    """The struct of kernels/integer_depthwise.cu."""

    _fields_ = (
        ("words", ctypes.c_longlong),
        *((name, ctypes.c_int) for name in ("line", "outputs", "each", "channels")),
        *((name, ctypes.c_int * 2) for name in _PAIRS),
    )


def _pairs(window: Window) -> list[ctypes.Array[ctypes.c_int]]:
    pairs = (window.image, window.strides, window.dilations, window.before, window.out)
    return [int32s(*one) for one in pairs]


def _macros(window: Window, words: int) -> tuple[tuple[str, str | int], ...]:
    index = "unsigned" if words < _SMALL else "i64"
    return ("INDEX", index), ("TAPS", window.taps), ("TAPS_ACROSS", window.kernel[1])


def convolved(
    queue: Queue, call: Call, at: tuple[int, int], zeros: tuple[int, int], ending: Requantised | None
) -> Tensor:
    """[N, outputs, pixels...] of images, one or two axes: of int32, or of what ``ending`` stores.

    Args:
        at: which inputs images and weights are; ``zeros``: which their zero points are.
    """
    x, w = (call.data(one) for one in at)
    x_zero = only_one(call.given(zeros[0]))
    if not _IMAGE < len(x.shape) <= 2 * _IMAGE or x.format is None:
        raise Unsupported(f"{call.node.op_type} of {x.shape}")
    window, groups = window_of(call, x.shape[2:], w.shape[2:]), call.int("group", 1)
    n, outputs = x.shape[0], w.shape[0]
    k = math.prod(w.shape[1:])
    shape = (n, outputs, *window.shape)
    if not math.prod(shape) or not k:
        raise Unsupported(f"{call.node.op_type} of nothing")
    if max(math.prod(window.image), window.pixels) >= LONGEST:
        raise Unsupported(f"{call.node.op_type} of {x.shape}: more pixels than 32 bits count")
    points = call.given(zeros[0]), call.given(zeros[1])
    if groups > 1 and outputs // groups <= _FEW_OUTPUTS and k <= _FEW_PRODUCTS:
        return _depthwise(queue, (x, w), (x_zero, points[1]), window, groups, ending).view(shape)
    patches, line = x, 0
    plain = window.taps == 1 and window.out == window.image and not any((*window.before, *window.after))
    if not plain or window.pixels % LINE:
        line = -(-window.pixels // LINE) * LINE
        patches = queue.empty((n * groups, k, line), x.format)
        words = patches.size // (_WORD * window.kernel[1])
        macros = (("TX", x.format.name), *_macros(window, words), ("ENTRY_PATCHES", 1))
        queue.launch(
            Source("integer.cu", "integer_patches", macros), math.ceil(words / _THREADS), _THREADS,
            *map(queue.at, (x, x_zero, patches)), Patches(words, line, *_pairs(window)),
        )  # fmt: skip
    weights = Bytes(w, groups, outputs // groups, k, points[1], is_fixed(call, at[1]), is_fixed(call, zeros[1]))
    images = Bytes(patches, n * groups, k, window.pixels, x_zero, zero_fixed=is_fixed(call, zeros[0]), line=line)
    return product(queue, weights, images, n * groups, ending).view(shape)


def _depthwise(
    queue: Queue, factors: tuple[Tensor, Tensor], zeros: tuple[Tensor | None, Tensor | None], window: Window, groups: int,
    ending: Requantised | None,
) -> Tensor:  # fmt: skip
    (x, w), (x_zero, w_zero) = factors, zeros
    for one, zero, own in ((x, x_zero, 1), (w, w_zero, w.shape[0])):
        if one.format not in (U8, I8) or (
            zero is not None and (zero.format is not one.format or zero.size not in (1, own))
        ):
            raise Unsupported("factors that are no 8-bit integers, or their zero points")
    images, outputs, line = x.shape[0], w.shape[0], math.ceil(window.pixels / _WORD)
    y = queue.empty((images, outputs, window.pixels), I32 if ending is None else ending.store)
    words = images * outputs * line
    given: tuple[Tensor | None, ...] = (None,) * 5
    if ending is not None:
        wide = (queue.convert(one, F32) for one in (ending.b_scale, ending.a_scale, ending.scale))
        given = (*wide, ending.zero, ending.bias)
    assert x.format is not None and w.format is not None and y.format is not None
    macros = (
        ("TX", x.format.name), ("TW", w.format.name), ("TY", y.format.name), *_macros(window, words),
        ("ZEROS_W", int(w_zero is not None and w_zero.size > 1)), ("SCALES_W", int(ending is not None and ending.a_scale.size > 1)),
        ("QUANTISED", int(ending is not None)),
    )  # fmt: skip
    queue.launch(
        Source("integer_depthwise.cu", "integer_depthwise", macros, contract=False), math.ceil(words / _THREADS), _THREADS,
        *map(queue.at, (x, w, x_zero, w_zero, *given, y)),
        Depthwise(words, line, outputs, outputs // groups, w.shape[1], *_pairs(window)),
    )  # fmt: skip
    return y
