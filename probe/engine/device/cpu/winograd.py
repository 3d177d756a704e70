"""Winograd's minimal filtering F(m x m, 3x3) with transforms held in FP16, in numpy.

Of a convolution with 3x3 kernels (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015), for tiles of m x m outputs,
which read (m + 2) x (m + 2) inputs d:

    U = fp16(G g G')              a kernel; computed in FP64 with the integers of G, so that it is rounded once and correctly
    V = fp16(B' d B)              a tile of inputs; computed in FP32: columns, then rows, each sum from left to right; rounded once
    M = sum over channels U V     point by point; products and sums in FP32
    Y = A' M A                    FP32, in the order of V

so that FP16 holds what passes between the kernels of an implementation, and nothing else. B' grows numbers up to 10 a side for m = 4 and
A' up to 8: that is where the error comes from, and why a tile with an input beyond 655 can overflow. Zeros of B' and A' are skipped, so that
an Inf spoils those outputs only that depend on it.

Error on independent data with zero mean: a rounding to FP16 has a relative variance of r = 0.154 u^2 (u = 2^-11, mantissas distributed as
1/m), there are two in each product, and the variance of an output (i, j) relative to that of the exact result is 2 r a_i a_j, with
a_i = sum over p of A'[i, p]^2 |G[p]|^2 |B'[p]|^2 / 3. ``error_growth`` gives the root of the mean of a_i a_j.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Matrix = tuple[tuple[int, ...], ...]
_TILE_ELEMENTS = 1 << 23  # of unrolled inputs held at once: 32 MB, and as much again for their transforms
_COLUMNS = 4096  # transformed together: what a processor's cache holds


@dataclass(frozen=True, slots=True)
class Transforms:
    """B' of inputs [m + 2, m + 2], G of kernels [m + 2, 3] as integers over ``divisor``, A' of outputs [m, m + 2]."""

    inputs: Matrix
    kernels: Matrix
    divisor: int
    outputs: Matrix

    def error_growth(self) -> float:
        """RMS error of results over the RMS error of a product's rounding, both relative; see the module."""
        a, g, b = (np.square(np.array(one, np.float64)) for one in (self.outputs, self.kernels, self.inputs))
        return float(np.mean(a @ (g.sum(axis=1) * b.sum(axis=1)) / 3)) / self.divisor**2


TRANSFORMS = {
    2: Transforms(
        inputs=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        kernels=((2, 0, 0), (1, 1, 1), (1, -1, 1), (0, 0, 2)),
        divisor=2,
        outputs=((1, 1, 1, 0), (0, 1, -1, -1)),
    ),
    4: Transforms(
        inputs=(
            (4, 0, -5, 0, 1, 0),
            (0, -4, -4, 1, 1, 0),
            (0, 4, -4, -1, 1, 0),
            (0, -2, -1, 2, 1, 0),
            (0, 2, -1, -2, 1, 0),
            (0, 4, 0, -5, 0, 1),
        ),
        kernels=((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24)),
        divisor=24,
        outputs=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
    ),
}


def winograd(x: Array, w: Array, pads: Sequence[tuple[int, int]], tile: int) -> Array:
    """Convolution of images x [n, c, h, w] with kernels w [o, c, 3, 3], strides and dilations 1: FP32 [n, o, height, width].

    Args:
        pads: zeros before and after each axis of an image.
        tile: outputs along each side of a tile: 2 or 4.
    """
    transforms = TRANSFORMS[tile]
    images, channels = x.shape[:2]
    height, width = (n + sum(pad) - 2 for n, pad in zip(x.shape[2:], pads, strict=True))
    down, across = math.ceil(height / tile), math.ceil(width / tile)
    size = tile + 2
    rest = (down * tile + 2 - x.shape[2] - pads[0][0], across * tile + 2 - x.shape[3] - pads[1][0])
    padded = np.pad(x, ((0, 0), (0, 0), (pads[0][0], rest[0]), (pads[1][0], rest[1])))
    kernels = _kernels(w, transforms)
    result = np.empty((images, w.shape[0], height, width), np.float32)
    step = max(1, _TILE_ELEMENTS // max(size * size * channels * across, 1))
    with np.errstate(over="ignore", invalid="ignore"):  # overflow of the transforms is what is being modelled
        for image in range(images):
            for first in range(0, down, step):
                rows = min(step, down - first)
                band = padded[image, :, first * tile : (first + rows) * tile + 2]
                tiles = _transformed(_unrolled(band, size, tile), transforms.inputs, halved=True)
                summed = np.matmul(kernels, tiles.reshape(size * size, channels, rows * across))
                made = _transformed(summed.reshape(size, size, -1), transforms.outputs, halved=False)
                target = result[image, :, first * tile : (first + rows) * tile]
                _place(made.reshape(tile, tile, w.shape[0], rows, across), target)
    return result


def _kernels(w: Array, transforms: Transforms) -> Array:
    """U of kernels [o, c, 3, 3]: FP16 values as float32 [points, o, c]."""
    g = np.array(transforms.kernels, np.float64)
    both = np.einsum("pr,qs->pqrs", g, g).reshape(-1, 9)
    with np.errstate(over="ignore"):
        # Sums of FP16 weights times integers are exact in FP64; with factors such as 1/6 a tie would be rounded by chance.
        points = both @ w.reshape(-1, 9).T.astype(np.float64) / transforms.divisor**2
        return points.astype(np.float16).astype(np.float32).reshape(-1, *w.shape[:2])


def _unrolled(band: Array, size: int, tile: int) -> Array:
    """The tiles of a band [c, rows * tile + 2, across * tile + 2], which overlap by 2: [size, size, c * rows * across]."""
    down, across = ((extent - 2) // tile for extent in band.shape[1:])
    tiles = np.empty((size, size, band.shape[0], down, across), np.float32)
    for i in range(size):
        for j in range(size):
            tiles[i, j] = band[:, i : i + (down - 1) * tile + 1 : tile, j : j + (across - 1) * tile + 1 : tile]
    return tiles.reshape(size, size, -1)


def _transformed(tiles: Array, matrix: Matrix, *, halved: bool) -> Array:
    """``matrix @ tile @ matrix'`` of each of [size, size, tiles], in FP32.

    Args:
        halved: round the result to FP16.
    """
    made = np.empty((len(matrix), len(matrix), tiles.shape[2]), np.float32)
    for start in range(0, tiles.shape[2], _COLUMNS):
        columns = _sums(tiles[..., start : start + _COLUMNS], matrix)
        both = _sums(columns.swapaxes(0, 1), matrix).swapaxes(0, 1)
        made[..., start : start + _COLUMNS] = both.astype(np.float16) if halved else both
    return made


def _sums(rows: Array, matrix: Matrix) -> Array:
    """``matrix @ rows`` along the first axis: FP32 sums from left to right, zeros left out."""
    made = np.empty((len(matrix), *rows.shape[1:]), np.float32)
    for at, factors in enumerate(matrix):
        target: Array = made[at]
        terms = [(row, np.float32(factor)) for row, factor in zip(rows, factors, strict=True) if factor]
        np.multiply(terms[0][0], terms[0][1], out=target)
        for row, factor in terms[1:]:
            if factor == 1:
                target += row
            elif factor == -1:
                target -= row
            else:
                target += row * factor
    return made


def _place(made: Array, target: Array) -> None:
    """Write tiles [tile, tile, o, rows, across] to where they belong in [o, height, width], cropped there."""
    tile = made.shape[0]
    for i in range(tile):
        for j in range(tile):
            part = target[:, i::tile, j::tile]
            part[...] = made[i, j, :, : part.shape[1], : part.shape[2]]
