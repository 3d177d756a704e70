"""Conv: as a product where the window is one pixel, else by the kernels of conv.cu and conv_mma.cu."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from probe.engine.assignment import EXACT
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.numbers import LONGEST
from probe.engine.device.cuda.ops.call import Call, Op, Readings
from probe.engine.device.cuda.ops.convolutions import conv_nhwc, conv_patches
from probe.engine.device.cuda.ops.convolutions.conv_transposed import conv_transpose
from probe.engine.device.cuda.ops.convolutions.window import Window, conv_problem, window_of
from probe.engine.device.cuda.ops.products.ending import Ending, storing, through
from probe.engine.device.cuda.ops.products.family import Convolution
from probe.engine.device.cuda.ops.products.matmul import (
    ACC16,
    MMA_TILES,
    TF32_TILES,
    TILES,
    Tile,
    on_tiles,
    run,
    tile_for,
)
from probe.engine.device.cuda.ops.products.product import Matrices, Product, describe
from probe.engine.device.cuda.ops.products.product_shape import product_shape
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32
from probe.engine.device.cuda.tensors.tensor import Tensor

DIRECT = "conv_direct"
_FEW = 8  # output channels of a group under which a thread an output element beats a tile
_ACCESS = 16  # bytes
_FAR = 1 << 30  # a column that conv_mma takes for none
_SIMT = (Tile(64, 64, 16, 4, 4), Tile(32, 32, 16, 2, 2))
_TF32 = (Tile(128, 128, 16, 64, 32), Tile(64, 64, 16, 32, 32))
_MMA = (Tile(128, 128, 32, 64, 32), Tile(64, 64, 32, 32, 32))


def conv(queue: Queue, call: Call) -> list[Tensor | None]:
    return list(_conv(queue, call, (), ()))


def conv_tailed(queue: Queue, call: Call, readings: Readings, steps: Sequence[Step]) -> list[Tensor]:
    return _conv(queue, call, readings, steps)


def _conv(queue: Queue, call: Call, readings: Readings, steps: Sequence[Step]) -> list[Tensor]:
    x, w = call.data(0), call.data(1)
    whole = Convolution(call, window_of(call, x.shape[2:], w.shape[2:]), readings, steps)
    if math.prod(product_shape(call)) and math.prod(w.shape):
        if queue.offers is not None or call.tactic not in (EXACT, ACC16):
            from probe.engine.device.cuda.ops.products import named

            named.offer(queue, whole)
            if call.tactic not in (EXACT, ACC16):
                return named.launch(queue, whole, call.tactic)
        if conv_nhwc.refusal(queue, call, whole.window) is None:
            return conv_nhwc.conv(queue, call, whole.window, readings, steps)
        if conv_patches.refusal(call, whole.window) is None:
            return conv_patches.conv(queue, call, whole.window, readings, steps)
    return channels_first(queue, whole, tactic=call.tactic)


def tiles_of(whole: Convolution, kernel: str) -> tuple[Tile, ...]:
    """Of ``mma`` or ``simt``."""
    x = whole.call.data(0)
    if is_as_product(whole):
        return TILES if kernel == "simt" else TF32_TILES if x.format is F32 else MMA_TILES
    return _SIMT if kernel == "simt" else _TF32 if x.format is F32 else _MMA


def is_as_product(whole: Convolution) -> bool:
    """Whether ``channels_first`` computes it as a product of matrices."""
    return is_product(whole.window) and whole.call.data(1).shape[0] // whole.call.int("group", 1) >= _FEW


def channels_first(
    queue: Queue, whole: Convolution, kernel: str = "", tile: Tile | None = None, tactic: str = EXACT
) -> list[Tensor]:
    """A convolution that reads and writes channels first, and its tail if it has steps.

    Args:
        kernel: ``mma``, ``simt`` (with its ``tile``) or ``conv_direct``; chosen by size and types when left out.

    Raises:
        Unsupported: too large, or acc16 of what tensor cores do not multiply.
    """
    call, window = whole.call, whole.window
    x, w, bias, groups = call.data(0), call.data(1), call.given(2), call.int("group", 1)
    images, channels, outputs = x.shape[0], x.shape[1] // groups, w.shape[0] // groups
    shape = product_shape(call)
    if not math.prod(shape):
        return list(_ending(queue, call, whole.readings, whole.steps).stored)
    if math.prod(w.shape[1:]) == 0 or max(math.prod(one[1:]) for one in (x.shape, w.shape, shape)) >= LONGEST:
        raise Unsupported(f"Conv of {x.shape} by {w.shape}")
    if is_as_product(whole) and kernel != DIRECT:
        product = as_product(queue, call, whole.readings, whole.steps)
        if tile is None:
            run(queue, replace(product, tactic=tactic))
        else:
            on_tiles(queue, product, kernel, tile, tactic)
        return list(product.ending.stored)
    ending = _ending(queue, call, whole.readings, whole.steps)
    low = w.format is x.format and (x.format in (F16, BF16) or (x.format is F32 and call.tf32))
    direct = kernel == DIRECT or (not kernel and outputs < _FEW)
    low = low and kernel != "simt"
    if low and max(window.image) >= _FAR:
        raise Unsupported(f"Conv of {x.shape}: columns that 30 bits do not count")
    if tactic == ACC16 and (x.format is not F16 or w.format is not F16 or direct):
        raise Unsupported("acc16 of a convolution that does not run on tensor cores")
    pixels = window.pixels
    assert x.format and w.format
    of_bias = ("TB", bias.format.name if bias is not None and bias.format else "float")
    down = across = 1
    types = (("TX", x.format.name), ("TW", w.format.name), of_bias)
    if direct:
        file, entry, macros = "conv.cu", "conv_direct", (*types, ("ENTRY_DIRECT", 1), *_axes(window))
        blocks, threads = math.ceil(math.prod(ending.shape) / 256), 256
    else:
        tiles = _SIMT if not low else _TF32 if x.format is F32 else _MMA
        tile = tile or tile_for(tiles, outputs, pixels, images * groups, queue.backend.multiprocessors)
        down, across = math.ceil(outputs / tile.m), math.ceil(pixels / tile.n)
        blocks = images * groups * down * across
        if low:
            even = int(math.prod(w.shape[1:]) * x.format.bytes % _ACCESS == 0)
            warps, more = (("WM", tile.tm), ("WN", tile.tn)), (("ACC16", int(tactic == ACC16)), ("EVEN", even))
            file, entry, macros = (
                "conv_mma.cu",
                "conv_mma",
                (("TAB", x.format.name), of_bias, *tile.sizes, *warps, *more, *_axes(window)),
            )
            threads = 32 * (tile.m // tile.tm) * (tile.n // tile.tn)
        else:
            own = (("TM", tile.tm), ("TN", tile.tn), ("ENTRY_SIMT", 1), *_axes(window))
            file, entry, macros = "conv.cu", "conv_simt", (*types, *tile.sizes, *own)
            threads = tile.m // tile.tm * (tile.n // tile.tn)
    strides = [(one[0], one[1], one[2], one[3]) for one in ending.strides((images, groups, outputs, pixels))]
    source = ending.source(file, entry, macros, strides, pixels)
    given = (queue.at(x), queue.at(w), queue.at(bias), *ending.arguments(queue, strides))
    problem = conv_problem(images, groups, channels, outputs, window, down, across)
    queue.launch(source, blocks, threads, *given, problem)
    return list(ending.stored)


def _axes(window: Window) -> tuple[tuple[str, int], ...]:
    """What kernels of conv.cuh are told of a window over three axes."""
    return (("AXES", 3),) if window.slices else ()


def _ending(queue: Queue, call: Call, readings: Readings, steps: Sequence[Step], *, planned: bool = False) -> Ending:
    """As ``storing`` or ``through``.

    Args:
        planned: without memory, to look at.
    """
    shape = product_shape(call)
    if planned:
        formats = [step.store for step in steps if step.store is not None] if steps else [call.store()]
        return Ending(shape, tuple(Tensor(shape, one) for one in formats), tuple(readings), tuple(steps))
    return through(queue, shape, readings, steps) if steps else storing(queue, shape, call.store())


def is_product(window: Window) -> bool:
    """Whether each output pixel reads the input pixel of its own place and no other."""
    deep = window.slices
    if deep and (deep.kernel != 1 or deep.stride != 1 or deep.before or deep.out != deep.image):
        return False
    return window.kernel == (1, 1) == window.strides and window.out == window.image and not any(window.before)


def as_product(
    queue: Queue, call: Call, readings: Readings, steps: Sequence[Step], *, planned: bool = False
) -> Product:
    """A convolution of single pixels as a product of its weights and its images, channels first.

    Args:
        planned: its ending has no memory.

    Raises:
        Unsupported: what its tail reads lies unevenly.
    """
    x, w, bias, groups = call.data(0), call.data(1), call.given(2), call.int("group", 1)
    images, pixels = x.shape[0], math.prod(x.shape[2:])
    channels, outputs = x.shape[1] // groups, w.shape[0] // groups
    left = Matrices(w, (0, outputs * channels), channels, 1)
    right = Matrices(x, (groups * channels * pixels, channels * pixels), pixels, 1)
    added = Matrices(bias, (0, outputs), 1, 0) if bias is not None else None
    ending = _ending(queue, call, readings, steps, planned=planned)
    return describe(left, right, added, (images, groups, outputs, pixels), channels, ending, tf32=call.tf32)


CONVOLUTIONS = (Op(("Conv",), conv, conv_tailed), Op(("ConvTranspose",), conv_transpose))
