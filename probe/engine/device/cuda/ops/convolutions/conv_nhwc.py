"""Conv, channels last: as one product of all output pixels, whose left operand copies gather, on sm_90a's tensor cores (kernels/matmul_wgmma.cu) or
in FP32 (kernels/matmul_ffma.cu); or depthwise, by kernels/conv_depthwise.cu."""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from probe.engine.assignment import EXACT
from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.numbers import LONGEST, Struct
from probe.engine.device.cuda.ops.convolutions import conv_few, conv_image, conv_patches, conv_point, depthwise_mma
from probe.engine.device.cuda.ops.convolutions.window import Window, conv_problem
from probe.engine.device.cuda.ops.products import few, ffma, wgmma
from probe.engine.device.cuda.ops.products.ending import Ending, storing, through
from probe.engine.device.cuda.ops.products.ffma import Ffma
from probe.engine.device.cuda.ops.products.product import Matrices, describe
from probe.engine.device.cuda.tensors import channels_last as order
from probe.engine.device.cuda.tensors.copies import copy, filled, rounded_late, transposed
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32
from probe.engine.device.cuda.tensors.layout import contiguous
from probe.engine.device.cuda.tensors.maps import SWIZZLED

if TYPE_CHECKING:
    from probe.engine.device.cuda.layers.chain import Step
    from probe.engine.device.cuda.ops.call import Call, Readings
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

_AXES = 4
_LEAST = 8  # channels: 16 bytes
_OF_COLOURS = 3  # channels of a pixel, which become four
_OF_SQUARES = 4  # channels of a pixel, where squares of pixels lie together
_THREADS = 256  # of a block that packs
# Of conv_depthwise: taps along columns, with gaps; threads of a block; pixels of a thread along columns; the most rows of a window that two rows of
# pixels share, and that are unrolled; threads a multiprocessor that hide what they wait for
_WIDE, _DEPTHWISE, _COLUMNS, _SHARED_ROWS, _UNROLLED, _ENOUGH = 15, 128, 2, 3, 3, 512
_CORNER, _TAP, _STRIDE = 127, 255, 8  # the largest padding, offset of a tap and stride that the copy engine knows
_DEEP_CORNER, _DEEP_TAP = 15, 31  # the same of volumes


def refusal(queue: Queue, call: Call, window: Window) -> str | None:
    """Why a convolution is not computed so; None when it is."""
    x, w = call.data(0), call.data(1)
    if is_wide(call):
        return _refusal_wide(call, window)
    if queue.backend.arch != wgmma.ARCH:
        return f"wgmma is of {wgmma.ARCH}"
    if call.tactic != EXACT:
        return "sums are kept in FP32"
    tf32 = x.format is F32 and call.tf32
    if w.format is not x.format or not (x.format in (F16, BF16) or tf32):
        return "operands that are not both FP16, BF16 or TF32"
    volumes = window.slices is not None
    colours = (
        not volumes
        and x.shape[1] < _LEAST
        and window.kernel[1] <= _LEAST
        and window.dilations[1] == 1 == call.int("group", 1)
    )
    if len(x.shape) != _AXES + volumes or (x.shape[1] % _LEAST and not colours) or w.shape[0] % _LEAST:
        return f"channels that do not divide by {_LEAST}"
    if is_depthwise(call) and volumes:
        return "groups"
    if is_depthwise(call):
        return _refusal_depthwise(x.shape[1], window)
    if call.int("group", 1) != 1:
        return "groups"
    along = [*zip(window.kernel, window.strides, window.dilations, window.before, window.after, strict=True)]
    if (deep := window.slices) is not None:
        along.append((deep.kernel, deep.stride, deep.dilation, deep.before, deep.after))
    corner, tap = (_DEEP_CORNER, _DEEP_TAP) if volumes else (_CORNER, _TAP)
    for size, stride, by, before, after in along:
        reach = (size - 1) * by
        if max(before, abs(after - reach)) > corner or reach > tap or stride > _STRIDE or min(before, after) < 0:
            return "a window that is too wide for the copy engine"
    return "more pixels than 31 bits count" if x.shape[0] * window.pixels >= 1 << 31 else None


def _refusal_depthwise(channels: int, window: Window) -> str | None:
    if window.kernel[1] * window.strides[1] * window.dilations[1] > _WIDE:
        return "a wide window"
    rows = window.strides[0] + window.kernel[0] * window.dilations[0]  # that a thread reads
    return "rows larger than 31 bits count" if rows * window.image[1] * channels >= LONGEST else None


def is_wide(call: Call) -> bool:
    """Whether FP32 is multiplied as it is."""
    return call.data(0).format is F32 and call.data(1).format is F32 and not call.tf32


def _refusal_wide(call: Call, window: Window) -> str | None:
    x, w = call.data(0), call.data(1)
    if call.tactic != EXACT:
        return "sums are kept in FP32"
    if len(x.shape) not in order.AXES:
        return "other axes than those of images and volumes"
    if is_depthwise(call) and window.slices is None:
        if x.shape[1] % _LEAST:
            return f"channels that do not divide by {_LEAST}"
        return _refusal_depthwise(x.shape[1], window)
    if call.int("group", 1) != 1:
        return "groups"
    if w.shape[0] < _LEAST:
        return "few outputs"
    if conv_patches.refusal(call, window) is None:
        return "windows that a copy brings side by side"
    return "more elements than 31 bits count" if max(x.size, x.shape[0] * window.pixels) >= 1 << 31 else None


def conv(
    queue: Queue,
    call: Call,
    window: Window,
    readings: Readings,
    steps: Sequence[Step],
    tactic: wgmma.Tactic | Ffma | None = None,
) -> list[Tensor]:
    """A convolution that ``refusal`` has nothing against, and its tail if it has steps.

    Args:
        tactic: of the product; chosen by size when left out.

    Returns:
        what is stored: channels last, dense when someone asks.
    """
    x, w, bias = call.data(0), call.data(1), call.given(2)
    outputs = w.shape[0]
    shape = (x.shape[0], *(window.shape if window.slices else window.out), outputs)
    beside = [(name, order.reading_last(queue, one, len(shape))) for name, one in readings]
    ending = through(queue, shape, beside, steps) if steps else storing(queue, shape, call.store())
    if is_depthwise(call):
        tensors = (order.channels_last(queue, x), repacked(queue, call, w, "depthwise"), bias)
        if depthwise_mma.is_chosen(x, w, window, queue.backend.arch):
            depthwise_mma.launch(queue, tensors, window, ending)
        else:
            _depthwise(queue, tensors, window, ending)
        return [order.dense_when_asked(queue, one) for one in ending.stored]
    plain = window.taps == 1 and window.is_dense and not any((*window.before, *window.after))
    added = None if bias is None else Matrices(bias, (), 0, 1)
    value = call.node.inputs[1]
    fixed = value is not None and value.is_initializer()
    if is_wide(call):
        assert not isinstance(tactic, wgmma.Tactic)
        packs = x.shape[1] == _OF_COLOURS and not plain and window.slices is None
        images = _packed_pixels(queue, x) if packs else order.channels_last(queue, x)
        weights = repacked(queue, call, w, "pixels" if packs else "deep")
        depth = weights.shape[0]
        left, right = Matrices(images, (), depth, 1), Matrices(weights, (), outputs, 1, fixed)
        product = describe(left, right, added, (math.prod(shape[:-1]), outputs), depth, ending)
        if plain and tactic is None and (own := few.chosen(product, queue.backend.arch, queue.backend.multiprocessors)):
            few.launch(queue, product, own)
        else:
            ffma.launch(queue, product, tactic, None if plain else (images, window))
        return [order.dense_when_asked(queue, one) for one in ending.stored]
    assert not isinstance(tactic, Ffma)
    if x.shape[1] < _LEAST:
        form = "squares" if _moves_by_squares(x, window) else "rows"
        gathered = _packed(queue, x, window, 2 if form == "squares" else 1)
    else:
        images, form = order.channels_last(queue, x), "plain" if plain else "chunks"
        gathered = wgmma.Gathered(images, window, images.shape[-1])
    weights = repacked(queue, call, w, form)
    depth = weights.shape[1]
    left, right = Matrices(gathered.x, (), depth, 1), Matrices(weights, (), 1, depth, fixed)
    product = describe(left, right, added, (math.prod(shape[:-1]), outputs), depth, ending, tf32=call.tf32)
    of_images = tactic is None and form != "plain" and window.slices is None
    tile = conv_image.tile_for(queue, gathered, outputs) if of_images else None
    if tile is not None:
        conv_image.launch(queue, product, gathered, tile)
    elif tactic is None and form == "plain" and conv_point.is_chosen(product):
        conv_point.launch(queue, product)
    elif (
        tactic is None
        and form == "plain"
        and conv_few.is_chosen(product, queue.backend.arch, queue.backend.multiprocessors)
    ):
        conv_few.launch(queue, product)
    elif (
        tactic is None
        and form == "plain"
        and (own := few.chosen(product, queue.backend.arch, queue.backend.multiprocessors))
    ):
        few.launch(queue, product, own)
    else:
        wgmma.launch(queue, product, tactic, None if form == "plain" else gathered)
    return [order.dense_when_asked(queue, one) for one in ending.stored]


class Packing(Struct):
    """The struct of kernels/pack.cu."""

    _fields_ = tuple(
        (name, ctypes.c_int)
        for name in ("images", "channels", "height", "width", "out_height", "out_width", "top", "left")
    )


def _packed_pixels(queue: Queue, x: Tensor) -> Tensor:
    """An image of three channels, channels last, with a fourth of zeros: one access a pixel."""
    images, channels, *image = x.shape
    assert x.format
    y = queue.empty((images, *image, channels + 1), x.format)
    problem = Packing(images, channels, *image, *image, 0, 0)
    macros = (("TX", x.format.name), ("TY", x.format.name), ("SQUARE", 1), ("CHANNELS", channels + 1), _index(x, y))
    blocks = -(-images * math.prod(image) // _THREADS)
    queue.launch(Source("pack.cu", "pack_channels", macros), blocks, _THREADS, queue.at(x), queue.at(y), problem)
    return y


def _index(*tensors: Tensor) -> tuple[str, str]:
    """The type that counts their elements, and threads."""
    return "INDEX", "unsigned" if max(math.prod(one.shape) for one in tensors) < 1 << 31 else "i64"


def _moves_by_squares(x: Tensor, window: Window) -> bool:
    return window.strides == (2, 2) and window.dilations == (1, 1) and x.shape[1] <= _OF_SQUARES


def _packed(queue: Queue, x: Tensor, window: Window, square: int) -> wgmma.Gathered:
    """An image of few channels, padded, so that a tap reads a whole row of the window: eight pixels of eight channels; or, where windows move by two
    pixels, two rows of eight pixels of four channels.

    Args:
        square: rows and columns of pixels that lie together: 1 or 2.
    """
    images, channels, *image = x.shape
    (rows, cols), (down, across) = window.out, (step // square for step in window.strides)
    taps = -(-window.kernel[0] // square)
    reach = (taps - 1) * window.dilations[0]
    padded = ((rows - 1) * down + reach + 1, (cols - 1) * across + _LEAST // square)
    together = _OF_SQUARES * square**2 if square > 1 else _LEAST
    given = x.before or x  # rounded on the way
    assert x.format and given.format
    y = queue.empty((images, *padded, together), x.format)
    problem = Packing(images, channels, *image, *padded, *window.before)
    blocks = -(-images * math.prod(padded) // _THREADS)
    macros = (("TX", given.format.name), ("TY", x.format.name), ("SQUARE", square), _index(x, y))
    source = Source("pack.cu", "pack_channels", macros)
    queue.launch(source, blocks, _THREADS, queue.at(given), queue.at(y), problem)
    if x.unrounded is not None:
        y = rounded_late(queue, y, x.format, "tf32")
    of_rows = replace(
        window,
        image=padded,
        kernel=(taps, 1),
        strides=(down, across),
        dilations=(window.dilations[0], 1),
        before=(0, 0),
        after=(0, 0),
    )
    return wgmma.Gathered(y, of_rows, _LEAST * _LEAST)


def is_depthwise(call: Call) -> bool:
    """Whether each channel is convolved by itself."""
    x, w = call.data(0), call.data(1)
    return call.int("group", 1) == x.shape[1] == w.shape[0]


def _depthwise(queue: Queue, tensors: tuple[Tensor, Tensor, Tensor | None], window: Window, ending: Ending) -> None:
    x, w, bias = tensors
    images, channels = x.shape[0], x.shape[3]
    across, eights = -(-window.out[1] // _COLUMNS), images * (channels // _LEAST)
    rows = _rows(window, eights * across * -(-window.out[0] // 2), queue.backend.multiprocessors)
    unrolled = rows > 1 or (window.kernel[0] <= _UNROLLED and window.dilations[0] == 1)
    given = x.unrounded or x
    assert x.format
    sizes = {"KERNEL": window.kernel, "STRIDE": window.strides, "DILATION": window.dilations}
    macros = (
        ("TX", x.format.name), ("TB", bias.format.name if bias is not None and bias.format else "float"), ("ROUNDS", int(given is not x)),
        *((f"{name}_{axis}", two[at]) for name, two in sizes.items() for at, axis in enumerate(("HEIGHT", "WIDTH"))), ("ROWS", rows), ("COLS", _COLUMNS),
        ("UNROLLED", int(unrolled)),
    )  # fmt: skip
    strides = [(0, 0, *own) for own in ending.strides((images * math.prod(window.out), channels))]
    beside = [(one[0], one[1], one[2], one[3]) for one in strides]
    source = ending.source("conv_depthwise.cu", "conv_depthwise", macros, beside, channels)
    threads = eights * across * -(-window.out[0] // rows)
    operands = (queue.at(given), queue.at(w), queue.at(bias), *ending.arguments(queue, beside))
    queue.launch(source, -(-threads // _DEPTHWISE), _DEPTHWISE, *operands, conv_problem(images, channels, 1, 1, window))


def _rows(window: Window, threads: int, multiprocessors: int) -> int:
    """Rows of pixels that a thread of conv_depthwise computes: two share what they read, where that leaves threads enough.

    Args:
        threads: that two rows a thread would make.
    """
    shares = window.strides[0] == 1 and window.kernel[0] <= _SHARED_ROWS and window.dilations[0] == 1
    return 2 if shares and threads >= multiprocessors * _ENOUGH else 1


def repacked(queue: Queue, call: Call, w: Tensor, form: str) -> Tensor:
    """Weights [outputs, channels, rows, columns] in another order; made once of what is a weight.

    Args:
        form: ``plain``: [outputs, taps * channels]; ``chunks``: the same with channels filled up with zeros to multiples of what a tile of the
            product holds; ``rows``: [outputs, rows, 8 columns, 8 channels], filled up with zeros; ``squares``: [outputs, rows / 2, 4, 2 rows, 2 columns,
            4 channels], filled up; ``depthwise``: [taps, outputs]; ``deep``: [taps * channels, outputs];
            ``pixels``: the same with a channel more, of zeros.
    """
    value, key = call.node.inputs[1], f"channels last, {form}"
    fixed = value is not None and value.is_initializer()
    if fixed and w.kept is not None and key in w.kept:
        return w.kept[key]
    queue = queue.aside if fixed else queue
    outputs, channels, taps = w.shape[0], w.shape[1], math.prod(w.shape[2:])
    if form == "rows":
        assert w.format
        rows, cols = w.shape[2:]
        made = queue.empty((outputs, rows * _LEAST * _LEAST), w.format)
        filled(queue, made, 0.0)
        own, places = (channels * taps, cols, 1, taps), (made.shape[1], _LEAST * _LEAST, _LEAST, 1)
        copy(queue, (outputs, rows, cols, channels), (w, 0, own), (made, 0, places))
    elif form == "squares":
        made = _in_squares(queue, w)
    elif form == "pixels":
        assert w.format
        made = queue.empty((taps * (channels + 1), outputs), w.format)
        filled(queue, made, 0.0)
        own, places = (1, taps, channels * taps), ((channels + 1) * outputs, outputs, 1)
        copy(queue, (taps, channels, outputs), (w, 0, own), (made, 0, places))
    elif form == "deep":
        made = transposed(queue, w.view((outputs, channels, taps)), (2, 1, 0)).view((taps * channels, outputs))
    elif form == "depthwise":
        made = transposed(queue, w.view((outputs, taps)), (1, 0))
    else:
        made = transposed(queue, w.view((outputs, channels, taps)), (0, 2, 1))
        assert w.format
        line = SWIZZLED // w.format.bytes
        depth = -(-channels // line) * line
        if form == "chunks" and depth != channels:
            wide = queue.empty((outputs, taps, depth), w.format)
            filled(queue, wide, 0.0)
            copy(queue, made.shape, (made, 0, contiguous(made.shape)), (wide, 0, contiguous(wide.shape)))
            made = wide
        made = made.view((outputs, math.prod(made.shape[1:])))
    if fixed:
        w.kept = {**(w.kept or {}), key: made}
    return made


def _in_squares(queue: Queue, w: Tensor) -> Tensor:
    """Weights in the order of ``pack_channels`` with squares of 2 x 2."""
    outputs, channels, rows, cols = w.shape
    assert w.format
    made = queue.empty((outputs, -(-rows // 2) * _LEAST * _LEAST), w.format)
    filled(queue, made, 0.0)
    own, places = (
        (channels * rows * cols, 2 * cols, 2, rows * cols),
        (made.shape[1], _LEAST * _LEAST, 4 * _OF_SQUARES, 1),
    )
    for down, right in itertools.product((0, 1), (0, 1)):
        extents = (outputs, (rows - down + 1) // 2, (cols - right + 1) // 2, channels)
        first = (2 * down + right) * _OF_SQUARES
        copy(queue, extents, (w, down * cols + right, own), (made, first, places))
    return made
