"""Products on sm_90a's tensor cores (kernels/matmul_wgmma.cu): which of them, and how a tactic is launched."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from probe.engine.assignment import EXACT
from probe.engine.device.cuda.numbers import Struct
from probe.engine.device.cuda.ops.products.product import Matrices
from probe.engine.device.cuda.ops.products.wgmma_tactics import (
    ANY_SWAPPED,
    DEPTH,
    HEAVY_TAIL,
    LIGHT_TAIL,
    READING_TAIL,
    SHORT_TAIL,
    TACTICS,
    Tactic,
    choose,
)
from probe.engine.device.cuda.tensors import maps as mapped
from probe.engine.device.cuda.tensors.copies import transposed
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32
from probe.engine.device.cuda.tensors.maps import SWIZZLED, TileLayout, TileMap

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.convolutions.window import Window
    from probe.engine.device.cuda.ops.products.product import Product
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

ARCH = "sm_90a"
_ALONG_K = "along k"


def refusal(product: Product, arch: str) -> str | None:
    """Why wgmma does not compute a product; None when it does."""
    a, b = product.a, product.b
    if arch != ARCH:
        return f"wgmma is of {ARCH}"
    if product.k == 0:
        return "no products"
    if product.tactic != EXACT:
        return "sums are kept in FP32"
    stored = a.tensor.format
    if stored is not b.tensor.format or not (stored in (F16, BF16) or (stored is F32 and product.tf32)):
        return "operands that are not both FP16, BF16 or TF32"
    turned = b.row != 1 and _turns(product)
    if stored is F32 and not (a.col == 1 and (b.row == 1 or turned)):
        return "TF32 operands that do not lie along k"
    if b.col == 1 and product.n % 8 and not turned:
        return "rows that do not divide by 16 bytes"
    if product.batches * math.ceil(product.m / 64) * math.ceil(product.n / 64) >= 1 << 31:
        return "more tiles than 32 bits count"
    if turned:
        product = replace(product, b=Matrices(b.tensor, b.batch, 1, product.k))  # as it will lie
    layouts = _layouts(product, TACTICS[0])
    if layouts is None:
        return "neither axis of an operand is contiguous"
    return None if all(one.possible for one in layouts) else "strides that do not divide by 16 bytes"


def refusal_of(product: Product, tactic: Tactic) -> str | None:
    """Why a tactic does not compute a product that wgmma computes; None when it does."""
    if not tactic.swapped:
        return None
    if product.a.col != 1:
        return "rows that do not lie along k, swapped"
    return "rows of a result that do not divide by 16 bytes, swapped" if product.n % 8 else None


class Windows(Struct):
    """The struct of kernels/matmul_wgmma.cu."""

    _fields_ = tuple(
        (name, ctypes.c_int)
        for name in (
            "chunks", "kernel_width", "out_height", "out_width", "stride_height", "stride_width", "pad_top", "pad_left",
            "dilation_height", "dilation_width",
        )
    )  # fmt: skip


class DeepWindows(Struct):
    """The same where WINDOWS is 2: of volumes."""

    _fields_ = (
        ("plane", Windows),
        *(
            (name, ctypes.c_int)
            for name in ("kernel_height", "out_slices", "stride_slices", "pad_front", "dilation_slices")
        ),
    )


@dataclass(frozen=True, slots=True)
class Gathered:
    """The left operand of a convolution: what its windows hold of ``x`` [images, rows, columns, channels]; of volumes with slices before rows.

    Attributes:
        width: contiguous elements that a tap reads, from a pixel on: its channels, or those of neighbours too.
    """

    x: Tensor
    window: Window
    width: int

    def layout(self, pixels: int) -> TileLayout:
        """As copies read it: 64 channels of so many output pixels."""
        images, *image, channels = self.x.shape
        stored, one = self.x.format, self.window
        assert stored
        inward = image[::-1]  # columns first
        strides = tuple(stored.bytes * channels * math.prod(inward[:at]) for at in range(len(image) + 1))
        lower = [-one.before[1], -one.before[0]]
        upper = [one.after[at] - (one.kernel[at] - 1) * one.dilations[at] for at in (1, 0)]
        steps = [one.strides[1], one.strides[0]]
        if one.slices is not None:
            lower.append(-one.slices.before)
            upper.append(one.slices.after - (one.slices.kernel - 1) * one.slices.dilation)
            steps.append(one.slices.stride)
        windows = mapped.Windows(tuple(lower), tuple(upper), tuple(steps))
        extents = (self.width, inward[0] - self.width // channels + 1, *inward[1:], images)
        box = (SWIZZLED // stored.bytes, pixels)
        return TileLayout(stored, extents, strides, box, windows, self.x.unrounded is not None)

    @property
    def struct(self) -> Windows | DeepWindows:
        assert self.x.format
        one, chunks = self.window, math.ceil(self.width * self.x.format.bytes / SWIZZLED)
        plane, deep = Windows(chunks, one.kernel[1], *one.out, *one.strides, *one.before, *one.dilations), one.slices
        if deep is None:
            return plane
        return DeepWindows(plane, one.kernel[0], deep.out, deep.stride, deep.before, deep.dilation)


def launch(queue: Queue, product: Product, tactic: Tactic | None = None, gathered: Gathered | None = None) -> None:
    """Compute a product that ``refusal`` has nothing against; or a convolution, whose left operand is ``gathered``."""
    many = queue.backend.multiprocessors
    stored = product.a.tensor.format
    assert stored
    product = along_k(queue, product)
    if tactic is None:
        sizes = (product.m, product.n, product.k * stored.bytes // 2, product.batches)
        tactic = choose(
            *sizes,
            many,
            by_n=product.b.col == 1,
            windows=gathered is not None,
            tail=tail_of(product),
            one_b=not any(product.b_batch),
            swaps=gathered is None and refusal_of(product, ANY_SWAPPED) is None,
        )
    assert refusal_of(product, tactic) is None and not (tactic.swapped and gathered)
    read = _swapped(product) if tactic.swapped else product  # as the instruction reads it
    layouts = _layouts(read, tactic)
    assert layouts
    down, across = math.ceil(read.m / (tactic.high * tactic.pair)), math.ceil(read.n / tactic.wide)
    once = [tuple(int(step != 0) for step in one) for one in (read.a_batch, read.b_batch)]
    problem = product.tiled(down, across, (once[0][0], once[0][1]), (once[1][0], once[1][1]))
    cluster, tiles = tactic.pair * tactic.splits, down * across * product.batches
    macros = (
        ("TAB", stored.name), ("TF32", int(stored is F32)), ("ADDED", _added(product)), ("A_BY_M", int(read.a.col != 1)),
        ("B_BY_N", int(read.b.col == 1)), ("BM", tactic.high), ("BN", tactic.wide), ("WM", tactic.wm), ("STAGES", tactic.stages),
        ("PAIR", tactic.pair), ("TURNS", tactic.turns), ("SPLITS", tactic.splits), ("WINDOWS", 0 if gathered is None else 2 if gathered.window.slices else 1),
        ("SWAPPED", int(tactic.swapped)), ("WEIGHTS", (1 + tactic.swapped) * product.b.fixed),
        ("EVEN", int(product.n % 8 == 0)),
    )  # fmt: skip
    if gathered is not None:
        layouts = gathered.layout(tactic.m), layouts[1]
    maps = (
        TileMap((one.tensor.unrounded or one.tensor).address(queue.backend), layout)
        for one, layout in zip((read.a, read.b), layouts, strict=True)
    )
    clusters = tiles if tactic.splits > 1 else min(tiles, many // cluster)
    source = product.source("matmul_wgmma.cu", "matmul_wgmma", macros)
    queue.launch(
        source,
        clusters * cluster,
        tactic.threads,
        *maps,
        *product.arguments(queue),
        problem,
        *([gathered.struct] if gathered is not None else []),
        shared_bytes=tactic.shared_bytes,
    )


def _swapped(product: Product) -> Product:
    """The transposed product, b^T a^T, whose ending stays that of the product."""
    (a, b), (left, right) = (product.a, product.b), (product.a_batch, product.b_batch)
    turned = [replace(one, row=one.col, col=one.row) for one in (b, a)]
    return replace(product, a=turned[0], b=turned[1], m=product.n, n=product.m, a_batch=right, b_batch=left)


def _turns(product: Product) -> bool:
    """Whether a right operand whose lines lie along n is brought along k first, as TF32 must lie and rows that do not divide by 16 bytes: a weight
    once; TF32 also where a copy at 3.4 TB/s costs less than what mma.sync would take longer (175 TFLOP/s in place of 330)."""
    b, (n, k) = product.b, (product.n, product.k)
    tf32, count = b.tensor.format is F32, math.prod(b.tensor.shape)
    if (
        not k * n
        or not (tf32 or n % 8)
        or b.col != 1
        or b.row != n
        or k == 1  # turned, both strides would be 1, and nobody could tell that its lines lie along k
        or count % (k * n)
        or any(one % (k * n) for one in b.batch)
    ):
        return False
    operations = 2.0 * product.m * n * k * product.batches
    return b.fixed or (tf32 and operations * (1 / 175e12 - 1 / 330e12) > 8 * count / 3.4e12 + 3e-6)


def along_k(queue: Queue, product: Product) -> Product:
    """A product with the lines of b along k, where ``matmul_wgmma`` reads them so alone."""
    if product.b.row == 1 or not _turns(product):
        return product
    b, n, k = product.b, product.n, product.k
    kept = b.tensor.kept or {}
    made = kept.get(_ALONG_K) if b.fixed else None
    if made is None:
        stack = b.tensor.view((math.prod(b.tensor.shape) // (k * n), k, n))
        made = transposed(queue.aside if b.fixed else queue, stack, (0, 2, 1))
        if b.fixed:
            b.tensor.kept = {**kept, _ALONG_K: made}
    return replace(product, b=Matrices(made, b.batch, 1, k, b.fixed))


def _added(product: Product) -> int:
    """What is added to the product: 0 nothing, and it is not scaled; 2 a row; 1 anything."""
    if product.c is None:
        return int(product.alpha != 1)
    return 2 if product.c.row == 0 else 1


def _layouts(product: Product, tactic: Tactic) -> tuple[TileLayout, TileLayout] | None:
    """How copies read a and b; None where neither axis of one is contiguous."""
    a, b = product.a, product.b
    if 1 not in (a.row, a.col) or 1 not in (b.row, b.col):
        return None
    # columns of b that a block brings; where their boxes do not divide among the pair, it brings fewer rows instead
    rows = tactic.high if a.col == 1 else DEPTH
    cols = DEPTH if -(-tactic.wide // DEPTH) % tactic.pair == 0 else DEPTH // tactic.pair
    cols = tactic.wide // tactic.pair if b.col != 1 else cols
    across, down = (product.k, product.m) if a.col == 1 else (product.m, product.k)
    left = _stack(a, (across, a.row if a.col == 1 else a.col, down), product.extents, product.a_batch, rows)
    across, down = (product.n, product.k) if b.col == 1 else (product.k, product.n)
    return left, _stack(b, (across, b.row if b.col == 1 else b.col, down), product.extents, product.b_batch, cols)


def _stack(
    x: Matrices, matrix: tuple[int, int, int], extents: tuple[int, int], steps: tuple[int, int], rows: int
) -> TileLayout:
    """A stack of matrices.

    Args:
        matrix: elements of a contiguous line, elements from one line to the next, lines.
        extents: of the two batch axes; ``steps``: strides along them, in elements.
        rows: lines of a tile.
    """
    line, step, lines = matrix
    found = x.tensor.format
    assert found
    axes = [(lines, step), *((n if by else 1, by) for n, by in zip(reversed(extents), reversed(steps), strict=True))]
    strides, dense = [], line
    for extent, by in axes:
        dense = by if extent > 1 else -(-dense // 8) * 8  # an axis of one element has no stride of its own
        strides.append(dense * found.bytes)
        dense *= extent
    box, rounds = (SWIZZLED // found.bytes, rows, 1, 1), x.tensor.unrounded is not None
    return TileLayout(found, (line, *(extent for extent, _ in axes)), tuple(strides), box, rounds=rounds)


_SHORT_LOW = ("op_erf(", "op_tanh(", "op_div(")  # where they are rounded to 16 bits (kernels/narrow.cuh)
_HEAVY = ("erf", "tanh", "exp", "sigmoid", "gelu", "softplus", "pow", "div")


def tail_of(product: Product) -> float:
    """``tail`` of ``cycles``: of what is added and of the steps behind a product."""
    steps = product.ending.steps
    long = [one.expression for one in steps if any(word in one.expression for word in _HEAVY)]
    if any(step.rounding not in (F16.name, BF16.name) for step in steps):
        short = False
    else:
        short = all(text.removeprefix("float(").startswith(_SHORT_LOW) for text in long)
    if long:
        return SHORT_TAIL if short else HEAVY_TAIL
    if any(math.prod(reading.tensor.shape) > product.n for _, reading in product.ending.readings):
        return READING_TAIL
    return LIGHT_TAIL if steps or product.c is not None else 0.0
