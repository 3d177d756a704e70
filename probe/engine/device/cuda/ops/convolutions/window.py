"""Windows of convolutions and pools: extents, strides, padding of two axes, or of three. One-dimensional ones get a height of 1."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.numbers import Struct
from probe.engine.device.cuda.ops.call import Call

_AXES = 3


@dataclass(frozen=True, slots=True)
class Along:
    """A window along one axis."""

    image: int
    kernel: int
    stride: int
    dilation: int
    before: int  # padding
    after: int
    out: int


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
    slices: Along | None = None  # the axis before rows, of volumes

    @property
    def pixels(self) -> int:
        """Of an output's image or volume."""
        return math.prod(self.shape)

    @property
    def taps(self) -> int:
        return math.prod(self.kernel) * (self.slices.kernel if self.slices else 1)

    @property
    def is_dense(self) -> bool:
        """Whether it moves by one element, along slices without padding."""
        deep = self.slices
        return self.strides == (1, 1) and (deep is None or (deep.stride == 1 and not deep.before and not deep.after))


def window_of(call: Call, image: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
    """What the attributes say.

    Raises:
        Unsupported: more than three axes.
    """
    axes = _axes(call, image)
    strides, dilations = (call.ints(name) or [1] * axes for name in ("strides", "dilations"))
    reach = [(size - 1) * d + 1 for size, d in zip(kernel, dilations, strict=True)]
    auto = call.text("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
        total = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(image, strides, reach, strict=True)]
        before, after = _halves(total, auto)
    else:
        pads = (call.ints("pads") if auto == "NOTSET" else None) or [0] * (2 * axes)
        before, after = pads[:axes], pads[axes:]
    up = bool(call.int("ceil_mode", 0))
    out = [_steps(n, b, a, r, s, up=up) for n, b, a, r, s in zip(image, before, after, reach, strides, strict=True)]
    return _window(image, kernel, strides, dilations, before, after, out)


def transposed_window_of(call: Call, image: tuple[int, ...], kernel: tuple[int, ...]) -> Window:
    """What the attributes of a ConvTranspose say: padding is what is cut off, found from ``output_shape`` where that is given, and from the input's
    extents times strides where ``auto_pad`` asks for it (ONNX Runtime's ComputeTransposePadAndOutputShape).

    Raises:
        Unsupported: more than three axes.
    """
    axes = _axes(call, image)
    strides, dilations, extra = (
        call.ints(name) or [d] * axes for name, d in (("strides", 1), ("dilations", 1), ("output_padding", 0))
    )
    whole = [
        (n - 1) * s + (size - 1) * d + 1 + e
        for n, s, size, d, e in zip(image, strides, kernel, dilations, extra, strict=True)
    ]
    auto = call.text("auto_pad", "NOTSET")
    wanted = (call.ints("output_shape") or [])[-axes:]
    if not wanted and auto.startswith("SAME"):
        wanted = [min(n * s, one) for n, s, one in zip(image, strides, whole, strict=True)]
    if wanted:
        if any(size > one for one, size in zip(whole, wanted, strict=True)):
            raise Unsupported("ConvTranspose whose output_shape is more than it reaches")
        before, after = _halves([one - size for one, size in zip(whole, wanted, strict=True)], auto)
    else:
        pads = (call.ints("pads") if auto == "NOTSET" else None) or [0] * (2 * axes)
        before, after = pads[:axes], pads[axes:]
        wanted = [one - b - a for one, b, a in zip(whole, before, after, strict=True)]
    return _window(image, kernel, strides, dilations, before, after, wanted)


def _axes(call: Call, image: tuple[int, ...]) -> int:
    if not 1 <= len(image) <= _AXES:
        raise Unsupported(f"{call.node.op_type} over {len(image)} axes")
    return len(image)


def _halves(total: Sequence[int], auto: str) -> tuple[list[int], list[int]]:
    """Padding before and after; what is odd lies after where ``auto`` is SAME_UPPER."""
    small = [t // 2 for t in total]
    large = [t - t // 2 for t in total]
    return (small, large) if auto == "SAME_UPPER" else (large, small)


def _window(*along: Sequence[int]) -> Window:
    """``along``: image, kernel, strides, dilations, before, after, out; of one to three axes."""
    rows = (1, 1, 1, 1, 0, 0, 1)  # of what has columns only
    two = [(own[-2] if len(own) > 1 else row, own[-1]) for own, row in zip(along, rows, strict=True)]
    image, kernel, strides, dilations, before, after, out = two
    slices = Along(*(own[0] for own in along)) if len(along[0]) == _AXES else None
    return Window(image, kernel, strides, dilations, before, after, out, tuple(along[-1]), slices)


def _steps(extent: int, before: int, after: int, reach: int, stride: int, *, up: bool) -> int:
    """Positions of a window along an axis. Rounding up, none begins behind the input and its leading padding."""
    room = extent + before + after - reach
    count = (-(-room // stride) if up else room // stride) + 1
    if up and (count - 1) * stride >= extent + before:
        count -= 1
    return max(count, 0)


class ConvProblem(Struct):
    """The struct Conv of kernels/conv.cuh; ``VolumeProblem`` where AXES is 3."""

    _fields_ = tuple(
        (name, ctypes.c_int)
        for name in (
            "images", "groups", "channels", "outputs", "height", "width", "out_height", "out_width", "kernel_height", "kernel_width",
            "stride_height", "stride_width", "pad_top", "pad_left", "dilation_height", "dilation_width", "down", "across",
        )
    )  # fmt: skip


class VolumeProblem(Struct):
    """A ``ConvProblem``, and the axis before rows."""

    _fields_ = (
        ("plane", ConvProblem),
        *(
            (name, ctypes.c_int)
            for name in ("slices", "out_slices", "kernel_slices", "stride_slices", "pad_front", "dilation_slices")
        ),
    )


def conv_problem(
    images: int, groups: int, channels: int, outputs: int, window: Window, down: int = 1, across: int = 1
) -> ConvProblem | VolumeProblem:
    """A convolution for its kernels; one over three axes for those with AXES 3.

    Args:
        channels: of a group; ``outputs``: of a group.
        down: tiles of outputs; ``across``: tiles of pixels.
    """
    plane = ConvProblem(
        images, groups, channels, outputs, *window.image, *window.out, *window.kernel, *window.strides, *window.before,
        *window.dilations, down, across,
    )  # fmt: skip
    deep = window.slices
    if deep is None:
        return plane
    return VolumeProblem(plane, deep.image, deep.out, deep.kernel, deep.stride, deep.before, deep.dilation)
