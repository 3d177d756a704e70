"""Conv of single pixels, channels last, whose weights fit into shared memory: kernels/conv_point.cu."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from probe.engine.device.cuda.numbers import int32
from probe.engine.device.cuda.tensors.formats import BF16, F16

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.products.product import Product
    from probe.engine.device.cuda.queue import Queue

THREADS = 256  # of a block, of conv_few's too
_BLOCK, _LINE = 32, 64  # channels of a block of k, and outputs; bytes of that
_SHARED, _LARGE = 226 << 10, 100 << 10  # bytes of a multiprocessor, and of weights of one block at the most
_MOST_CHANNELS, _SOME_CHANNELS, _FEW_CHANNELS = 256, 144, 64
_MANY = 25000  # pixels
_SOME = 96  # channels, up to which a third block has room for its registers
_PIXELS = 16  # of a warp at a time


def shared_bytes(channels: int, outputs: int) -> int:
    """Of the weights."""
    blocks = math.ceil(channels / _BLOCK)
    return math.ceil(outputs / _BLOCK) * _BLOCK * (blocks * _LINE + (0 if blocks % 2 else _LINE))


def refusal(product: Product) -> str | None:
    """Why a convolution is not computed so; None when it is."""
    x = product.a.tensor
    if x.format not in (F16, BF16) or product.b.tensor.format is not x.format:
        return "operands that are not both FP16 or BF16"
    if product.k > _MOST_CHANNELS or shared_bytes(product.k, product.n) > _LARGE:
        return "weights that are too many for shared memory, or channels for registers"
    return None


def is_chosen(product: Product) -> bool:
    """Whether ``exact`` takes it: where the tiles of kernels/matmul_wgmma.cu would be half empty, or there is little to multiply and much to store, and
    there are pixels for all warps. It follows from the convolution alone."""
    few = min(product.k, product.n) <= _BLOCK and product.k <= _SOME_CHANNELS
    widening = product.k <= _FEW_CHANNELS and product.n >= 4 * product.k
    return (few or widening) and product.m >= _MANY and refusal(product) is None


def launch(queue: Queue, product: Product) -> None:
    """A convolution that ``refusal`` has nothing against: rows of x are pixels, rows of w outputs."""
    shared = shared_bytes(product.k, product.n)
    resident = min(_SHARED // (shared + 1024), 3 if product.k <= _SOME else 2)
    blocks = min(math.ceil(product.m / (_PIXELS * THREADS // 32)), queue.backend.multiprocessors * resident)
    launch_over_pixels(queue, product, "conv_point", ("RESIDENT", resident), blocks, shared)


def launch_over_pixels(
    queue: Queue, product: Product, name: str, own: tuple[str, int], blocks: int, shared_bytes: int
) -> None:
    """A kernel of single pixels, conv_point or conv_few, which are handed the same.

    Args:
        own: the macro that the other has not.
    """
    x = product.a.tensor
    assert x.format
    macros = (
        ("TAB", x.format.name), ("ADDED", int(product.c is not None)), ("CHANNELS", product.k), ("OUTPUTS", product.n),
        own, ("WEIGHTS", int(product.b.fixed)),
    )  # fmt: skip
    queue.launch(
        product.source(f"{name}.cu", name, macros), blocks, THREADS, queue.at(x), queue.at(product.b.tensor),
        *product.arguments(queue), int32(product.m), shared_bytes=shared_bytes,
    )  # fmt: skip
