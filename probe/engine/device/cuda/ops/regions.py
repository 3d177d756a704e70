"""RoiAlign: regions of images, sampled into cells."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

import numpy as np

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.numbers import Struct
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.ops.together import together
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import I64

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

_THREADS = 256
_CHANNELS = 8  # that a thread computes, where there are enough threads
_OPSET_OF_HALVES = 16  # of the standard, from which on centres of pixels are at halves unless something else is said
_AXES = 4


class Aligned(Struct):
    """The struct of kernels/roi.cu."""

    _fields_ = (
        *((name, ctypes.c_longlong) for name in ("images", "channels", "chunks", "total")),
        *((name, ctypes.c_int) for name in ("height", "width")),
        ("scale", ctypes.c_float),
    )


def roi_align(queue: Queue, call: Call) -> list[Tensor | None]:
    x, regions, images = (call.data(at) for at in range(3))
    assert x.format is not None and regions.format is not None
    mode = call.text("mode", "avg")
    usual = "half_pixel" if call.opset >= _OPSET_OF_HALVES else "output_half_pixel"
    half = call.text("coordinate_transformation_mode", usual) == "half_pixel"
    fits = len(x.shape) == _AXES and regions.shape[1:] == (4,) and images.shape == regions.shape[:1]
    if (
        not (x.format.is_float and regions.format.is_float)
        or images.format is not I64
        or mode not in ("avg", "max")
        or not fits
    ):
        raise Unsupported(f"RoiAlign of {x.shape} at {regions.shape} by {mode}")
    n, channels, height, width = x.shape
    rows, cols = call.int("output_height", 1), call.int("output_width", 1)
    y = queue.empty((regions.shape[0], channels, rows, cols), call.store())
    assert y.format is not None
    if not y.size:
        return [y]
    if not x.size or height * width >= 1 << 31:
        raise Unsupported(f"RoiAlign of {x.shape}")
    known = queue.known(images)
    if known is not None and ((known < 0) | (known >= n)).any():
        raise Unsupported("an image that is out of range")
    chunk = together(queue, _CHANNELS, channels, regions.shape[0] * rows * cols)
    chunks = math.ceil(channels / chunk)
    total = regions.shape[0] * chunks * rows * cols
    macros = (
        ("TX", x.format.name), ("TR", regions.format.name), ("TY", y.format.name), ("ROWS", rows), ("COLS", cols), ("LARGEST", int(mode == "max")),
        ("HALF", int(half)), ("SAMPLES", max(call.int("sampling_ratio", 0), 0)), ("CHANNELS", chunk),
    )  # fmt: skip
    scale = float(np.float32(call.float("spatial_scale", 1.0)))
    queue.launch(
        Source("roi.cu", "roi_align", macros, contract=False), math.ceil(total / _THREADS), _THREADS, *map(queue.at, (x, regions, images, y)),
        queue.fault(), Aligned(n, channels, chunks, total, height, width, scale),
    )  # fmt: skip
    return [y]


REGIONS = (Op(("RoiAlign",), roi_align),)
