"""``images_of``: tensors that are pictures as small pictures, golden, actual and what is between them."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from probe.metrics.measure import Readable
from probe.metrics.numbers import as_numbers, work_type
from probe.results.detail import Images

Array = np.ndarray[Any, Any]

LEAST_SIDE = 16  # below this a picture shows nothing
MOST_SIDE = 160  # of a thumbnail, in pixels
_STRIP = 1 << 20  # elements read at a time
_MAGENTA = (255, 0, 255)  # NaN or Inf


@dataclass(frozen=True, slots=True)
class Picture:
    """Where a picture lies in one item of a batch. ``last``: its channels are on the last axis (NHWC), else on axis 1."""

    height: int
    width: int
    channels: int
    last: bool

    @property
    def elements(self) -> int:
        return self.height * self.width * self.channels


def picture_in(shape: tuple[int, ...]) -> Picture | None:
    """The picture a shape describes: [N, C, H, W] or [N, H, W, C] with one or three channels and sides of at least ``LEAST_SIDE``."""
    if len(shape) != 4 or not shape[0]:
        return None
    if shape[1] in (1, 3) and min(shape[2:]) >= LEAST_SIDE:
        return Picture(shape[2], shape[3], shape[1], last=False)
    if shape[3] in (1, 3) and min(shape[1:3]) >= LEAST_SIDE:
        return Picture(shape[1], shape[2], shape[3], last=True)
    return None


def images_of(actual: Readable, golden: Readable, item: int) -> Images | None:
    """Thumbnails of one item of a batch; None where the tensor is no picture or golden holds nothing finite in it.

    Each side is read once, in strips; a pixel is the mean over a square, and in the difference the largest error in it.
    """
    found = picture_in(golden.shape)
    if found is None:
        return None
    reduced = -(-max(found.height, found.width) // MOST_SIDE)
    exact = work_type(actual.dtype, golden.dtype)

    def strips(side: Readable) -> Iterator[Array]:
        return (as_numbers(strip, exact).astype(np.float64) for strip in _strips(side, found, item, reduced))

    parts_a, parts_g, parts_e = [], [], []
    with np.errstate(all="ignore"):
        for a, g in zip(strips(actual), strips(golden), strict=True):
            a, g = _planes(a, found), _planes(g, found)
            parts_a.append(_reduce(a, reduced, np.add))
            parts_g.append(_reduce(g, reduced, np.add))
            parts_e.append(_reduce(np.abs(a - g), reduced, np.maximum))
        shrunk_a, shrunk_g, error = (_joined(parts, found, reduced) for parts in (parts_a, parts_g, parts_e))
        area = _areas(found, reduced)
        return _images(shrunk_a / area, shrunk_g / area, error.max(axis=2), found, reduced, item)


def _images(a: Array, g: Array, error: Array, found: Picture, reduced: int, item: int) -> Images | None:
    finite = g[np.isfinite(g)]
    if not finite.size:
        return None
    low, high = float(finite.min()), float(finite.max())
    length = high - low or 1.0
    largest = float(error[np.isfinite(error)].max(initial=0.0))
    amplification = _round_down(length / largest) if largest > 0 else 1.0
    return Images(
        item=item, height=found.height, width=found.width, reduced=reduced, low=low, high=high, amplification=amplification,
        golden=_encoded((g - low) / length), actual=_encoded((a - low) / length),
        difference=_encoded((error * (amplification / length))[:, :, None]),
    )  # fmt: skip


def _round_down(factor: float) -> float:
    """To 1, 2 or 5 times a power of ten, and at least 1."""
    if factor <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(min(factor, 1e12)))
    return next(step * power for step in (5, 2, 1) if step * power <= factor or step == 1)


# --- reading and shrinking


def _strips(side: Readable, found: Picture, item: int, reduced: int) -> Iterator[Array]:
    """Flat pieces of whole rows of pixels: channel by channel, or with all channels where they are last."""
    planes, row = (1, found.width * found.channels) if found.last else (found.channels, found.width)
    rows = max(1, _STRIP // row // reduced) * reduced
    for plane in range(planes):
        start = item * found.elements + plane * found.height * row
        for first in range(0, found.height, rows):
            yield side.window(start + first * row, start + min(first + rows, found.height) * row)


def _planes(strip: Array, found: Picture) -> Array:
    """[rows, width, channels of the strip]."""
    return strip.reshape(-1, found.width, found.channels if found.last else 1)


def _reduce(strip: Array, reduced: int, how: np.ufunc) -> Array:
    for axis in (0, 1):
        strip = how.reduceat(strip, np.arange(0, strip.shape[axis], reduced), axis=axis)
    return strip


def _joined(parts: list[Array], found: Picture, reduced: int) -> Array:
    """[height, width, channels] of the thumbnail."""
    whole = np.concatenate(parts)
    if found.last or found.channels == 1:
        return whole
    return whole.reshape(found.channels, -(-found.height // reduced), -1).transpose(1, 2, 0)


def _areas(found: Picture, reduced: int) -> Array:
    """Elements behind each pixel: fewer at the right and lower edge. [height, width, 1]."""
    sides = [_reduce(np.ones((n, 1)), reduced, np.add)[:, :1] for n in (found.height, found.width)]
    return (sides[0] * sides[1].T)[:, :, None]


# --- PNG


def _encoded(values: Array) -> str:
    """[height, width, 1 or 3] on a scale from 0 to 1 as a PNG in base64."""
    unknown: Any = ~np.isfinite(values).all(axis=2)
    levels = np.where(unknown[:, :, None], 0.0, values)
    pixels = np.rint(np.clip(levels, 0, 1) * 255).astype(np.uint8)
    if unknown.any():
        pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3)).copy()
        pixels[unknown] = _MAGENTA
    return base64.b64encode(png(pixels)).decode("ascii")


def png(pixels: Array) -> bytes:
    """A PNG file (ISO/IEC 15948) of uint8 [height, width, 1 or 3], grey or RGB."""
    height, width, channels = pixels.shape
    left = np.zeros_like(pixels)
    left[:, 1:] = pixels[:, :-1]
    sub = np.ones((height, 1), np.uint8)  # the filter of each line: differences from the left neighbour
    lines = np.concatenate((sub, (pixels - left).reshape(height, -1)), axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
