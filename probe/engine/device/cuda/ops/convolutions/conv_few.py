"""Conv of single pixels of which there are few, channels last: kernels/conv_few.cu."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from probe.engine.device.cuda.ops.convolutions.conv_point import launch_over_pixels
from probe.engine.device.cuda.ops.products import wgmma
from probe.engine.device.cuda.tensors.formats import BF16, F16

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.products.product import Product
    from probe.engine.device.cuda.queue import Queue

_WARPS, _BLOCK, _LINE = 8, 32, 64  # of a block; channels of a block of k, and outputs; bytes of that
_PIXELS = 16  # of a warp
_SUMS = _WARPS * _PIXELS * 40 * 4  # bytes in which warps leave theirs
_HELD = 8  # blocks of k that a warp has in registers
_SHARED = 227 << 10
_FEW, _MOST_BLOCKS = 4096, 3  # pixels; blocks a multiprocessor


def sets_of(pixels: int, channels: int, outputs: int, multiprocessors: int) -> int:
    """Warps of a block that have pixels of their own: as many as leave blocks enough; 0 where k is too long for registers."""
    blocks, across = math.ceil(channels / _BLOCK), math.ceil(outputs / _BLOCK)
    possible = [sets for sets in (1, 2, 4) if math.ceil(blocks * sets / _WARPS) <= _HELD]
    enough = [sets for sets in possible if math.ceil(pixels / (_PIXELS * sets)) * across >= multiprocessors // 2]
    return max(enough, default=min(possible, default=0))


def shared_bytes(channels: int) -> int:
    """Of the weights of 32 outputs and of sums."""
    blocks = math.ceil(channels / _BLOCK)
    pitch = blocks * _LINE + (0 if blocks % 2 else _LINE)
    return -(-_BLOCK * pitch // 128) * 128 + _SUMS


def refusal(product: Product, arch: str) -> str | None:
    """Why a convolution is not computed so; None when it is."""
    x = product.a.tensor
    if arch != wgmma.ARCH:
        return f"it is of {wgmma.ARCH}"
    if x.format not in (F16, BF16) or product.b.tensor.format is not x.format:
        return "operands that are not both FP16 or BF16"
    if not sets_of(product.m, product.k, product.n, 1) or shared_bytes(product.k) > _SHARED:
        return "channels that are too many for registers"
    return None


def is_chosen(product: Product, arch: str, multiprocessors: int) -> bool:
    """Whether ``exact`` takes it: where pixels are few, and so are blocks, each of which reads its weights. It follows from the convolution alone."""
    if product.m > _FEW or refusal(product, arch) is not None:
        return False
    return _blocks(product, multiprocessors) <= _MOST_BLOCKS * multiprocessors


def _blocks(product: Product, multiprocessors: int) -> int:
    sets = sets_of(product.m, product.k, product.n, multiprocessors)
    return math.ceil(product.m / (_PIXELS * sets)) * math.ceil(product.n / _BLOCK)


def launch(queue: Queue, product: Product) -> None:
    """A convolution that ``refusal`` has nothing against: rows of x are pixels, rows of w outputs."""
    many = queue.backend.multiprocessors
    blocks = _blocks(product, many)
    # no more blocks a multiprocessor than all of them need: then they may come early (driver.py)
    alone = _SHARED // (math.ceil(blocks / many) + 1) + 1024
    sets = sets_of(product.m, product.k, product.n, many)
    launch_over_pixels(queue, product, "conv_few", ("SETS", sets), blocks, max(shared_bytes(product.k), alone))
