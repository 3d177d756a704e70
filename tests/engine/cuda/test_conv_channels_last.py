"""Kernels of convolutions channels last on sm_90a (conv_image, conv_point, conv_depthwise_mma): against float64, and bits that no tile changes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from probe.engine.device.cuda.ops.convolutions import conv_image, depthwise_mma
from probe.engine.device.cuda.ops.convolutions.conv_point import shared_bytes
from probe.engine.device.cuda.ops.convolutions.window import Window
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32
from tests.engine.cuda.conv_problem import DEPTHWISE, FEW, IMAGES, POINTS, Problem, close, computed
from tests.engine.cuda.test_wgmma import hopper  # noqa: F401 - a fixture

SMALL = {
    **{f"image, {name}": (one, "conv_image") for name, one in IMAGES.items()},
    **{f"points, {name}": (one, "conv_point") for name, one in POINTS.items()},
    **{f"few pixels, {name}": (one, "conv_few") for name, one in FEW.items()},
    **{f"depthwise, {name}": (one, "conv_depthwise_mma") for name, one in DEPTHWISE.items()},
}
LONG = ("image, rows", "image, whole images")  # compiled for the host with a tail, too
REAL = {
    **{
        f"{b} {c} {n}": (Problem((b, c, n, n), (c, c, 3, 3), (1, 1, 1, 1)), "conv_image")
        for b, c, n in ((1, 64, 56), (5, 64, 56), (3, 128, 28), (1, 256, 14), (5, 256, 14), (9, 512, 7))
    },
    "the stem": (Problem((3, 3, 224, 224), (64, 3, 7, 7), (3, 3, 3, 3), (2, 2)), "conv_image"),
    **{
        f"{c} to {m}": (Problem((2, c, n, n), (m, c, 1, 1)), "conv_point")
        for c, m, n in ((64, 256, 56), (256, 64, 28), (16, 96, 112), (144, 24, 56), (192, 32, 28))
    },
    **{
        f"few, {c} to {m}": (Problem((1, c, n, n), (m, c, 1, 1)), "conv_few")
        for c, m, n in ((64, 256, 56), (256, 128, 56), (512, 128, 28), (1024, 256, 14), (2048, 512, 7), (512, 2048, 7))
    },
    **{
        f"depthwise {c} {n} by {s}": (Problem((3, c, n, n), (c, 1, 3, 3), (1, 1, 1, 1), (s, s)), "conv_depthwise_mma")
        for c, n, s in ((32, 112, 1), (96, 112, 2), (144, 56, 1), (192, 28, 2), (384, 14, 1), (960, 7, 1))
    },
    "depthwise, small blocks": (Problem((8, 24, 112, 112), (24, 1, 3, 3), (1, 1, 1, 1)), "conv_depthwise_mma"),
}


@pytest.mark.parametrize("place", ["hopper", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("tailed", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_small_convolutions(request, name, tailed, place):
    problem, kernel = SMALL[name]
    if place == "hopper" and tailed and kernel == "conv_image" and name not in LONG:
        pytest.skip("compiling takes longest; the GPU computes all")
    actual, expected, ran = computed(
        request.getfixturevalue(place), problem, F16, tailed=tailed, few=kernel == "conv_few"
    )
    assert ran == {kernel}
    close(actual, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("name", SMALL)
def test_types(gpu, name):
    problem, kernel = SMALL[name]
    for stored in (BF16, F32) if kernel == "conv_image" else (BF16,):
        actual, expected, ran = computed(gpu, problem, stored, tailed=True, few=kernel == "conv_few")
        assert ran == {kernel}
        close(actual, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("name", REAL)
def test_shapes_of_networks(gpu, name):
    problem, kernel = REAL[name]
    actual, expected, ran = computed(gpu, problem, F16, few=kernel == "conv_few")
    assert ran == {kernel}
    close(actual, expected)


# Of "the stem", packed: four rows of squares of 2 x 2 pixels, of which four side by side make a chunk
STEM = conv_image.Sizes(3, 64, 1, (115, 115), (4, 1), (0, 0), (0, 0), (112, 112), line=32)


def sizes(one: Problem) -> conv_image.Sizes:
    rows, cols = (
        n + before + behind - size + 1
        for n, size, before, behind in zip(one.x[2:], one.w[2:], one.pads[:2], one.pads[2:], strict=True)
    )
    chunks = -(-one.x[1] // 64)
    return conv_image.Sizes(one.x[0], one.w[0], chunks, one.x[2:], one.w[2:], one.pads[:2], one.pads[2:], (rows, cols))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["rows", "whole images", "small images"])
def test_every_tile_has_the_same_bits(gpu, name):
    problem = IMAGES[name]
    found = {(one.tall, one.images): one for many in (1, 2, 132) for one in conv_image.possible(sizes(problem), many)}
    tiles = [*found.values()][:: max(len(found) // 6, 1)]
    tiles += [replace(one, held=False, weights=4) for one in tiles if one.held][:2]  # weights that come tap by tap
    results = [computed(gpu, problem, F16, tile=tile) for tile in tiles]
    assert len(results) > 3
    assert all(np.array_equal(one, results[0][0]) for one, *_ in results)
    close(results[0][0], results[0][1])


def test_what_a_tile_holds():
    """Every pixel that a tile computes lies in its columns, and everything they read in its room."""
    problems = [one for one, kernel in (*SMALL.values(), *REAL.values()) if kernel == "conv_image" and one.x[1] > 8]
    for one in (STEM, *map(sizes, problems)):
        tiles = list(conv_image.possible(one, 132))
        assert tiles
        for tile in tiles:
            last = ((tile.images - 1) * tile.high + tile.tall - 1) * tile.wide + one.out[1] - 1
            assert last < tile.columns
            assert (last + one.beyond[0] * tile.wide + one.beyond[1] + 1) * one.line <= tile.room
            assert tile.room % 1024 == 0 and tile.shared_bytes <= 227 << 10
            assert tile.stages >= 1 and (tile.held or tile.weights >= min(4, one.chunks * one.taps))
            assert math.ceil(one.out[0] / tile.tall) == tile.bands and (tile.images == 1 or tile.bands == 1)
            assert not tile.held or tile.blocks % one.across == 0


def test_rows_of_weights_lie_in_different_banks():
    """Eight lanes read 16 bytes each of two rows at once: the second begins 64 bytes after the first, in a cycle of 128."""
    for channels in range(8, 257, 8):
        assert shared_bytes(channels, 32) // 32 % 128 == 64


def test_depthwise_blocks_have_room():
    for extent, step, size in ((112, 1, 3), (112, 2, 3), (7, 1, 3), (300, 1, 5), (56, 2, 5)):
        out = (extent + size // 2 * 2 - size) // step + 1
        pads = (size // 2, size // 2)
        window = Window((extent, extent), (size, size), (step, step), (1, 1), pads, pads, (out, out), (out, out))
        for threads, room in ((128, 24 << 10), (256, 74 << 10)):
            tile = depthwise_mma._tile(window, 64, 128, threads, room, 132)
            assert tile is not None and math.prod(depthwise_mma.reach(tile, window)) * 128 + 1024 <= room
