"""Conv whose window moves by one pixel, channels last: kernels/conv_image.cu, and the tile that should take least time."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from probe.engine.device.cuda.numbers import Struct
from probe.engine.device.cuda.ops.products import wgmma_tactics
from probe.engine.device.cuda.tensors.maps import SWIZZLED, TileLayout, TileMap

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.products.product import Product
    from probe.engine.device.cuda.ops.products.wgmma import Gathered
    from probe.engine.device.cuda.queue import Queue

OUTPUTS = 64  # of a tile
_COLUMNS = (16, 32, 64, 96, 128, 144, 160, 192, 208, 216, 224, 232, 256)  # of the instruction (kernels/wgmma.cuh)
_SHARED = 226 << 10  # bytes of shared memory for tiles
_WEIGHTS = OUTPUTS * SWIZZLED  # bytes of those of a tap
_STAGED = 4 * 32 * 20 * 4  # bytes in which a group turns its sums
_MOST_STAGES, _MOST_WEIGHTS, _LEAST_WEIGHTS = 4, 12, 4  # images under way; weights of a tap under way
_NARROW = 32  # bytes of a pixel, of which four make a chunk
_ALONE = 116 << 10  # bytes of shared memory: more than half
_BYTES, _MOST_BYTES = 4800.0, 45.0  # a cycle, from the L2 cache to all blocks and to one
# Both models of times are off by a tenth, this one to the slow side where there are few pixels; what follows a convolution most often costs
_BETTER, _TAIL = 1.08, wgmma_tactics.LIGHT_TAIL
_MOST_BOX = 256  # elements of a copy along an axis


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a convolution.

    Attributes:
        chunks: of channels, 128 bytes each.
        line: bytes of a pixel in shared memory; 32 where four neighbours make a chunk.
        image: rows and columns; ``kernel``, ``before``, ``after``, ``out`` as in ``Window``.
    """

    images: int
    outputs: int
    chunks: int
    image: tuple[int, int]
    kernel: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    out: tuple[int, int]
    line: int = SWIZZLED

    @property
    def beyond(self) -> tuple[int, int]:
        """Rows and columns of the image that are read behind those of the pixels."""
        return self.kernel[0] - 1, self.kernel[1] - 1 + SWIZZLED // self.line - 1

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @property
    def across(self) -> int:
        """Tiles of outputs."""
        return math.ceil(self.outputs / OUTPUTS)


@dataclass(frozen=True, slots=True)
class Tile:
    """A variant of conv_image.

    Attributes:
        tall: rows of an image; ``images``: of which there are as many, whole ones where there are several.
        columns: of the instruction.
        wide: pixels from row to row in shared memory; ``high``: rows of an image there.
        room: bytes of shared memory of what a tile reads of 128 bytes of channels; ``stages``: how many of them are under way.
        weights: taps whose weights are under way; ``held``: all of them, and they stay.
        turns: groups that compute whole tiles in turn.
        blocks: that are launched; ``bands``: tiles of an image.
    """

    tall: int
    images: int
    columns: int
    wide: int
    high: int
    room: int
    stages: int
    weights: int
    held: bool
    turns: int
    blocks: int
    bands: int

    @property
    def shared_bytes(self) -> int:
        """1024 to begin on a multiple of that; so many that a block is alone on its multiprocessor: then it may come early (driver.py)."""
        return max(self.stages * self.room + self.weights * _WEIGHTS + self.turns * _STAGED + 1024, _ALONE)


def refusal(gathered: Gathered) -> str | None:
    """Why a convolution is not computed so; None when it is."""
    one = gathered.window
    if (one.strides, one.dilations) != ((1, 1), (1, 1)) or math.prod(one.kernel) == 1:
        return "windows that move by more than one pixel, have gaps or hold one"
    if any(after > before for before, after in zip(one.before, one.after, strict=True)):
        return "more padding behind than before"
    return None


def tile_for(queue: Queue, gathered: Gathered, outputs: int) -> Tile | None:
    """The tile that ``exact`` takes; None where kernels/matmul_wgmma.cu should take less time. It follows from the convolution alone: sums of chunks
    are added in another order there."""
    if refusal(gathered) is not None:
        return None
    sizes, many = sizes_of(gathered, outputs), queue.backend.multiprocessors
    found = choose(sizes, many)
    if found is None:
        return None
    problem = (sizes.images * math.prod(sizes.out), outputs, sizes.chunks * sizes.taps * wgmma_tactics.DEPTH, 1, many)
    other = wgmma_tactics.choose(*problem, windows=True, tail=_TAIL)
    return (
        found
        if cycles(found, sizes) < _BETTER * wgmma_tactics.cycles(other, *problem, windows=True, tail=_TAIL)
        else None
    )


def sizes_of(gathered: Gathered, outputs: int) -> Sizes:
    x, one = gathered.x, gathered.window
    assert x.format
    images, rows, columns, channels = x.shape
    narrow = channels * x.format.bytes == _NARROW and gathered.width * x.format.bytes == SWIZZLED
    image = (rows, columns if narrow else columns - gathered.width // channels + 1)
    chunks, line = math.ceil(gathered.width * x.format.bytes / SWIZZLED), _NARROW if narrow else SWIZZLED
    return Sizes(images, outputs, chunks, image, one.kernel, one.before, one.after, one.out, line)


@lru_cache(maxsize=1024)
def choose(sizes: Sizes, multiprocessors: int) -> Tile | None:
    """The tile that should take least time; None where no row fits one."""
    found = list(possible(sizes, multiprocessors))
    return min(found, key=lambda one: cycles(one, sizes), default=None)


def cycles(one: Tile, sizes: Sizes) -> float:
    """What a convolution should take, within a fifth of what 40 of them took on an H200."""
    rounds = math.ceil(math.ceil(sizes.images / one.images) * one.bands * sizes.across / one.blocks)
    step = 4 * max(one.columns / 2, 20)  # of a tap: four instructions
    brought = one.wide * one.high * one.images * sizes.line * sizes.chunks
    brought += 0 if one.held else sizes.chunks * sizes.taps * _WEIGHTS
    computed = max(sizes.chunks * sizes.taps * step, brought / min(_MOST_BYTES, _BYTES / one.blocks))
    stored = 2000 + 15.0 * one.columns
    return (rounds - 1) * max(computed, (computed + stored) / one.turns) + computed + stored + 3500


def possible(sizes: Sizes, multiprocessors: int) -> Iterator[Tile]:
    (rows, columns), out, (below, beside) = sizes.image, sizes.out, sizes.beyond
    # the padding on the left of a row is that on the right of the row above
    wide, whole = columns + sizes.before[1], rows + sizes.before[0]
    shapes = [(tall, 1, tall + below) for tall in range(1, min(out[0], _MOST_BOX) + 1)]
    shapes += [(out[0], images, whole) for images in range(2, min(sizes.images, _MOST_BOX) + 1)]
    for tall, images, high in shapes:
        needed = ((images - 1) * high + tall - 1) * wide + out[1]
        if needed > _COLUMNS[-1] or max(wide, high, images) > _MOST_BOX:
            continue
        instruction = next(one for one in _COLUMNS if one >= needed)
        read = needed + below * wide + beside  # pixels, padding behind the last row included
        room = -(-max(read, wide * high * images) * sizes.line // 1024) * 1024
        bands = math.ceil(out[0] / tall)
        places = math.ceil(sizes.images / images) * bands
        most = multiprocessors // sizes.across
        blocks = min(places, most) * sizes.across
        turns = 2 if places > most else 1
        left = _SHARED - turns * _STAGED
        held = most > 0 and left - sizes.taps * sizes.chunks * _WEIGHTS >= 2 * room
        if not held:
            blocks = min(places * sizes.across, multiprocessors)
            turns = 2 if places * sizes.across > blocks else 1
            left = _SHARED - turns * _STAGED
        weights = sizes.taps * sizes.chunks if held else min(_MOST_WEIGHTS, (left - 2 * room) // _WEIGHTS)
        if weights < min(_LEAST_WEIGHTS, sizes.taps * sizes.chunks):
            continue
        used = sizes.chunks * math.ceil(places * sizes.across / blocks)
        stages = min(_MOST_STAGES, max(used, 1), (left - weights * _WEIGHTS) // room)
        yield Tile(tall, images, instruction, wide, high, room, stages, weights, held, turns, blocks, bands)


class Image(Struct):
    """The struct of kernels/conv_image.cu."""

    _fields_ = tuple(
        (name, ctypes.c_int) for name in ("images", "height", "width", "outputs", "bands", "across", "tiles")
    )


def launch(queue: Queue, product: Product, gathered: Gathered, tile: Tile) -> None:
    """A convolution that ``refusal`` has nothing against, as ``product`` describes it."""
    x, window = gathered.x, gathered.window
    stored = x.format
    assert stored
    sizes = sizes_of(gathered, product.n)
    macros = (
        ("TAB", stored.name), ("TF32", int(stored.bytes > 2)), ("ADDED", int(product.c is not None)), ("BN", tile.columns),
        ("WIDE", tile.wide), ("HIGH", tile.high), ("TALL", tile.tall), ("IMAGES", tile.images), ("ROWS", window.kernel[0]),
        ("COLS", window.kernel[1]), ("LINE", sizes.line), ("PAD_TOP", window.before[0]), ("PAD_LEFT", window.before[1]),
        ("CHUNKS", sizes.chunks), ("STAGES", tile.stages), ("ROOM", tile.room), ("WSTAGES", tile.weights), ("HELD", int(tile.held)), ("TURNS", tile.turns), ("WEIGHTS", int(product.b.fixed)),
    )  # fmt: skip
    places = math.ceil(sizes.images / tile.images) * tile.bands
    struct = Image(sizes.images, *window.out, product.n, tile.bands, sizes.across, places * sizes.across)
    address = (x.unrounded or x).address(queue.backend)
    queue.launch(
        product.source("conv_image.cu", "conv_image", macros),
        tile.blocks,
        128 * (tile.turns + 1),
        TileMap(address, _image_layout(gathered, tile, sizes.line)),
        TileMap(product.b.tensor.address(queue.backend), _weights_layout(product)),
        *product.arguments(queue),
        struct,
        shared_bytes=tile.shared_bytes,
    )


def _image_layout(gathered: Gathered, tile: Tile, line: int) -> TileLayout:
    """What a tile reads of a chunk of channels."""
    whole = gathered.layout(0)
    channels, columns, rows, images = whole.extents
    if line != SWIZZLED:
        columns, channels = gathered.x.shape[2:]
    box = (line // whole.format.bytes, tile.wide, tile.high, tile.images)
    return TileLayout(whole.format, (channels, columns, rows, images), whole.strides, box, rounds=whole.rounds)


def _weights_layout(product: Product) -> TileLayout:
    """A chunk of a tap, of as many outputs as a tile has."""
    stored = product.b.tensor.format
    assert stored
    line = product.k * stored.bytes
    return TileLayout(
        stored,
        (product.k, product.n, 1, 1),
        (line, line * product.n, line * product.n),
        (SWIZZLED // stored.bytes, OUTPUTS, 1, 1),
    )
