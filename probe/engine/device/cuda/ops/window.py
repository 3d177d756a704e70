"""Windows of convolutions and pools: extents, strides, padding of two axes. One-dimensional ones get a height of 1."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.ops.call import Call

_AXES = 2


@dataclass(frozen=True, slots=True)
class Window:
    """Of a node on one input: (rows, columns) each."""

    image: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    before: tuple[int, int]  # padding
    after: tuple[int, int]
    out: tuple[int, int]
    shape: tuple[int, ...]  # of the output's image, of as many axes as the input's


def window_of(call: Call, image: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
    """What the attributes say.

    Raises:
        Unsupported: more than two axes.
    """
    axes = len(image)
    if not 1 <= axes <= _AXES:
        raise Unsupported(f"{call.node.op_type} over {axes} axes")
    strides, dilations = (call.ints(name) or [1] * axes for name in ("strides", "dilations"))
    reach = [(size - 1) * d + 1 for size, d in zip(kernel, dilations, strict=True)]
    auto = call.text("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
        total = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(image, strides, reach, strict=True)]
        small = [t // 2 for t in total]
        large = [t - t // 2 for t in total]
        before, after = (small, large) if auto == "SAME_UPPER" else (large, small)
    else:
        pads = (call.ints("pads") if auto == "NOTSET" else None) or [0] * (2 * axes)
        before, after = pads[:axes], pads[axes:]
    up = bool(call.int("ceil_mode", 0))
    out = [_steps(n, b, a, r, s, up=up) for n, b, a, r, s in zip(image, before, after, reach, strides, strict=True)]

    def two(values: list[int] | tuple[int, ...], rows: int) -> tuple[int, int]:
        return (rows, values[0]) if axes == 1 else (values[0], values[1])

    return Window(
        two(image, 1),
        two(kernel, 1),
        two(strides, 1),
        two(dilations, 1),
        two(before, 0),
        two(after, 0),
        two(out, 1),
        tuple(out),
    )


def _steps(extent: int, before: int, after: int, reach: int, stride: int, *, up: bool) -> int:
    """Positions of a window along an axis. Rounding up, none begins behind the input and its leading padding."""
    room = extent + before + after - reach
    count = (-(-room // stride) if up else room // stride) + 1
    if up and (count - 1) * stride >= extent + before:
        count -= 1
    return max(count, 0)


class ConvProblem(ctypes.Structure):
    """The struct Conv of kernels/conv.cuh."""

    _fields_ = tuple(
        (name, ctypes.c_int)
        for name in (
            "images", "groups", "channels", "outputs", "height", "width", "out_height", "out_width", "kernel_height", "kernel_width",
            "stride_height", "stride_width", "pad_top", "pad_left", "dilation_height", "dilation_width", "down", "across",
        )
    )  # fmt: skip


def conv_problem(
    images: int, groups: int, channels: int, outputs: int, window: Window, down: int = 1, across: int = 1
) -> ConvProblem:
    """A convolution for its kernels.

    Args:
        channels: of a group; ``outputs``: of a group.
        down: tiles of outputs; ``across``: tiles of pixels.
    """
    return ConvProblem(
        images, groups, channels, outputs, *window.image, *window.out, *window.kernel, *window.strides, *window.before,
        *window.dilations, down, across,
    )  # fmt: skip
