"""GridSample: images and volumes read between their elements."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.numbers import Struct, int32s
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.ops.together import together
from probe.engine.device.cuda.queue import Queue

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

_THREADS = 256
_CHANNELS = 8  # that a thread computes, where there are enough threads
_MODES = {"linear": "LINEAR", "bilinear": "LINEAR", "nearest": "NEAREST", "cubic": "CUBIC", "bicubic": "CUBIC"}
_AXES = (2, 3)  # of an image, of a volume


class Sampled(Struct):
    """The struct of kernels/sample.cu."""

    _fields_ = (
        *((name, ctypes.c_longlong) for name in ("channels", "places", "chunks")),
        ("e", ctypes.c_int * max(_AXES)),
    )


def grid_sample(queue: Queue, call: Call) -> list[Tensor | None]:
    x, grid = call.data(0), call.data(1)
    assert x.format is not None and grid.format is not None
    axes = len(x.shape) - 2
    mode, padding = _MODES.get(call.text("mode", "linear")), call.text("padding_mode", "zeros")
    if not x.format.is_float or not grid.format.is_float or mode is None:
        raise Unsupported(f"GridSample of {x.format.name} by {call.text('mode', 'linear')}")
    if (
        axes not in _AXES
        or (axes == max(_AXES) and mode == "CUBIC")
        or grid.shape[-1] != axes
        or padding not in ("zeros", "border", "reflection")
    ):
        raise Unsupported(f"GridSample of {x.shape} at {grid.shape}")
    n, channels, *extents = x.shape
    places, plane = math.prod(grid.shape[1:-1]), math.prod(extents)
    y = queue.empty((n, channels, *grid.shape[1:-1]), call.store())
    assert y.format is not None
    if plane >= 1 << 31 or (y.size and not plane):
        raise Unsupported(f"GridSample of {x.shape}")
    chunk = together(queue, _CHANNELS, channels, n * places)
    chunks, across = math.ceil(channels / chunk), math.ceil(places / _THREADS)
    macros = (
        ("TX", x.format.name), ("TG", grid.format.name), ("TY", y.format.name), ("AXES", axes), ("MODE", mode), ("PADDING", padding.upper()),
        ("CORNERS", call.int("align_corners", 0)), ("CHANNELS", chunk),
    )  # fmt: skip
    numbers = Sampled(channels, places, chunks, int32s(*reversed(extents), *(0,) * (max(_AXES) - axes)))
    source = Source("sample.cu", "grid_sample", macros, contract=False)
    queue.launch(source, n * chunks * across, _THREADS, queue.at(x), queue.at(grid), queue.at(y), numbers)
    return [y]


SAMPLES = (Op(("GridSample",), grid_sample),)
