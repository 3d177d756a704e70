"""Depthwise Conv of 16-bit values, channels last, on tensor cores: kernels/conv_depthwise_mma.cu."""

from __future__ import annotations

import ctypes
import math
from functools import lru_cache
from typing import TYPE_CHECKING

from probe.engine.device.cuda.numbers import Struct
from probe.engine.device.cuda.tensors.formats import BF16, F16
from probe.engine.device.cuda.tensors.maps import SWIZZLED, TileLayout, TileMap

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.convolutions.window import Window
    from probe.engine.device.cuda.ops.products.ending import Ending
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

_TOGETHER = 16  # pixels that a warp computes at once
# Threads and bytes of shared memory of a block: six or three a multiprocessor
_SMALL, _LARGE = (128, 24 << 10), (256, 74 << 10)
_SOME, _MANY = 1500, 90000  # pixels; from the last on blocks are small
_MOST_TAPS, _MOST_BOX = 25, 256  # weights that threads hold; pixels of a copy along an axis
_A_BLOCK = 60.0  # pixels that could be read meanwhile: what a block costs, whatever it holds
Pair = tuple[int, int]


def refusal(x: Tensor, w: Tensor, window: Window, arch: str) -> str | None:
    """Why a convolution is not computed so; None when it is.

    Args:
        x: channels last or first.
    """
    if not arch.startswith("sm_9"):
        return "it is of sm_90"
    if x.format not in (F16, BF16) or w.format is not x.format:
        return "operands that are not both FP16 or BF16"
    if math.prod(window.kernel) > _MOST_TAPS or _tile(window, 1, SWIZZLED, *_SMALL, 1) is None:
        return "a window of many taps, or a wide one"
    return None


def is_chosen(x: Tensor, w: Tensor, window: Window, arch: str) -> bool:
    """Whether ``exact`` takes it: on an H200 it takes 0.5 to 0.9 of the time of kernels/conv_depthwise.cu where pixels are many, else as long in BF16
    and longer in FP16. It follows from the convolution alone."""
    pixels = x.shape[0] * math.prod(window.out)
    return pixels >= (_MANY if x.format is F16 else _SOME) and refusal(x, w, window, arch) is None


def _channels(channels: int) -> int:
    """Of a copy: 64, or 32 where that leaves fewer of them empty."""
    few, many = SWIZZLED // 4, SWIZZLED // 2
    return few if math.ceil(channels / few) * few < math.ceil(channels / many) * many else many


@lru_cache(maxsize=1024)
def _tile(window: Window, stacks: int, line: int, threads: int, room: int, multiprocessors: int) -> Pair | None:
    """Rows and columns of a block's pixels; None where what they read has no room.

    Args:
        stacks: images times chunks of channels.
        line: bytes of a chunk.
        threads: of a block, and its ``room`` in shared memory.
    """
    best, found = math.inf, None
    for wide in range(1, window.out[1] + 1):
        across = math.ceil(window.out[1] / wide)
        if wide != math.ceil(window.out[1] / across):
            continue  # fewer columns do as well
        for high in range(1, window.out[0] + 1):
            rows, cols = reach((high, wide), window)
            if rows * cols * line + 1024 > room or max(rows, cols) > _MOST_BOX:
                break
            blocks = stacks * across * math.ceil(window.out[0] / high)
            computed = math.ceil(high * wide / _TOGETHER) * _TOGETHER
            cost = math.ceil(blocks / multiprocessors) * (rows * cols + computed + _A_BLOCK * threads / _LARGE[0])
            if cost < best:
                best, found = cost, (high, wide)
    return found


def reach(tile: Pair, window: Window) -> Pair:
    """Rows and columns that so many pixels read."""
    sizes = zip(tile, window.strides, window.kernel, window.dilations, strict=True)
    rows, cols = ((count - 1) * step + (size - 1) * gap + 1 for count, step, size, gap in sizes)
    return rows, cols


class Depthwise(Struct):
    """The struct of kernels/conv_depthwise_mma.cu."""

    _fields_ = tuple(
        (name, ctypes.c_int)
        for name in ("images", "channels", "height", "width", "pad_top", "pad_left", "down", "across", "chunks")
    )


def launch(queue: Queue, tensors: tuple[Tensor, Tensor, Tensor | None], window: Window, ending: Ending) -> None:
    """A convolution that ``refusal`` has nothing against.

    Args:
        tensors: images [images, rows, columns, channels], weights [taps, channels], a bias.
    """
    x, w, bias = tensors
    images, rows, cols, channels = x.shape
    assert x.format
    together = _channels(channels)
    chunks, line = math.ceil(channels / together), together * x.format.bytes
    threads, room = _SMALL if images * math.prod(window.out) >= _MANY else _LARGE
    tile = _tile(window, images * chunks, line, threads, room, queue.backend.multiprocessors)
    assert tile is not None
    sizes = {"KERNEL": window.kernel, "STRIDE": window.strides, "DILATION": window.dilations}
    macros = (
        ("TX", x.format.name), ("TB", bias.format.name if bias is not None and bias.format else "float"),
        *((f"{name}_{axis}", two[at]) for name, two in sizes.items() for at, axis in enumerate(("HEIGHT", "WIDTH"))),
        ("HIGH", tile[0]), ("WIDE", tile[1]), ("LINE", line), ("THREADS", threads),
    )  # fmt: skip
    strides = [(0, 0, *own) for own in ending.strides((images * math.prod(window.out), channels))]
    beside = [(one[0], one[1], one[2], one[3]) for one in strides]
    source = ending.source("conv_depthwise_mma.cu", "conv_depthwise_mma", macros, beside, channels)
    read = reach(tile, window)
    pixel = channels * x.format.bytes
    layout = TileLayout(
        x.format,
        (channels, cols, rows, images),
        (pixel, pixel * cols, pixel * cols * rows),
        (together, read[1], read[0], 1),
    )
    down, across = (math.ceil(extent / size) for extent, size in zip(window.out, tile, strict=True))
    struct = Depthwise(images, channels, *window.out, *window.before, down, across, chunks)
    operands = (
        TileMap(x.address(queue.backend), layout),
        queue.at(w),
        queue.at(bias),
        *ending.arguments(queue, beside),
    )
    shared = math.prod(read) * line + 1024
    queue.launch(source, images * down * across * chunks, threads, *operands, struct, shared_bytes=shared)
