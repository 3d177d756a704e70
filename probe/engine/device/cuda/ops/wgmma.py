"""Products on sm_90a's tensor cores (kernels/matmul_wgmma.cu): which of them, on which tiles, with how many blocks a tile."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from probe.engine.assignment import EXACT
from probe.engine.device.cuda.ops.product import Matrices
from probe.engine.device.cuda.tensors import maps as mapped
from probe.engine.device.cuda.tensors.copies import transposed
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32
from probe.engine.device.cuda.tensors.maps import SWIZZLED, TileLayout, TileMap

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.product import Product
    from probe.engine.device.cuda.ops.window import Window
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

ARCH = "sm_90a"
DEPTH = 64  # 16-bit elements of k a tile: one row of 128 bytes
_SHARED = 226 << 10  # bytes of shared memory for tiles
_MOST_STAGES = 8
_ALONG_K = "along k"
_TOGETHER = 16  # multiprocessors among which a cluster must find room


@dataclass(frozen=True, slots=True)
class Tactic:
    """A variant of matmul_wgmma.

    Attributes:
        m: rows of a block's tile; ``n``: columns.
        wm: rows of a warpgroup.
        pair: blocks, one above the other, that share a tile of b.
        splits: blocks that share a tile of y, each with a part of k; their sums are added in the order of k.
        turns: warpgroups that take whole tiles in turn, one storing while the other computes.
    """

    m: int
    n: int
    wm: int = 64
    pair: int = 1
    splits: int = 1
    turns: int = 1

    def __str__(self) -> str:
        more = f" pair {self.pair}" * (self.pair > 1) + f" in {self.turns} turns" * (self.turns > 1)
        return f"wgmma {self.m}x{self.n}x{DEPTH}{more}" + f" split-k {self.splits}" * (self.splits > 1)

    @property
    def groups(self) -> int:
        """Warpgroups that compute."""
        return self.turns if self.turns > 1 else self.m // self.wm

    @property
    def threads(self) -> int:
        return 128 * (self.groups + 1)

    @property
    def stages(self) -> int:
        """Tiles under way."""
        return min(_MOST_STAGES, (_SHARED - self._staged_bytes) // self._stage_bytes)

    @property
    def _staged_bytes(self) -> int:
        """What warps turn their sums in, 16 rows of 36 floats each; and a row of c a group."""
        return self.groups * (4 * 16 * 36 + self.n) * 4

    @property
    def _stage_bytes(self) -> int:
        """Of a tile of a and one of b; columns of b come in boxes of 64, where they lie so."""
        return (self.m + -(-self.n // DEPTH) * DEPTH) * SWIZZLED

    @property
    def shared_bytes(self) -> int:
        """Of tiles, or of the sums that replace them; 1024 to begin on a multiple of that."""
        sums = self.m * (self.n + 8) * 4 if self.splits > 1 else 0
        return max(self.stages * self._stage_bytes + self._staged_bytes, sums) + 1024


_PLAIN = ((128, 256, 64), (256, 128, 128), (128, 192, 64), (192, 128, 64), (128, 160, 64), (128, 128, 64), (64, 256, 64), (256, 96, 128), (256, 64, 128),
          (128, 64, 64), (64, 128, 64), (64, 64, 64), (256, 32, 128))  # fmt: skip
_PAIRED = ((128, 256, 64, 2), (256, 128, 128, 2), (128, 128, 64, 2), (64, 128, 64, 2), (64, 256, 64, 2))
_SPLIT = (
    *((128, 256, 64, 1, splits) for splits in (2, 3, 4, 5, 6, 8)), *((128, 192, 64, 1, splits) for splits in (2, 3, 4)),
    *((m, n, 64, 1, splits) for m, n in ((128, 128), (64, 128), (64, 64)) for splits in (2, 3, 4, 6, 8)),
)  # fmt: skip
_TURNS = (
    (128, 128, 128, 1, 1, 2),
    (64, 256, 64, 1, 1, 2),
    (64, 128, 64, 1, 1, 2),
    (128, 128, 128, 2, 1, 2),
    (64, 192, 64, 1, 1, 2),
    (128, 64, 128, 1, 1, 2),
    (64, 128, 64, 1, 1, 3),
    (128, 32, 128, 1, 1, 2),
)
TACTICS = tuple(Tactic(*one) for one in (*_PLAIN, *_PAIRED, *_SPLIT, *_TURNS))


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


class Windows(ctypes.Structure):
    """The struct of kernels/matmul_wgmma.cu."""

    _fields_ = tuple(
        (name, ctypes.c_int)
        for name in (
            "chunks", "kernel_width", "out_height", "out_width", "stride_height", "stride_width", "pad_top", "pad_left",
            "dilation_height", "dilation_width",
        )
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Gathered:
    """The left operand of a convolution: what its windows hold of ``x`` [images, rows, columns, channels].

    Attributes:
        width: contiguous elements that a tap reads, from a pixel on: its channels, or those of neighbours too.
    """

    x: Tensor
    window: Window
    width: int

    def layout(self, pixels: int) -> TileLayout:
        """As copies read it: 64 channels of so many output pixels."""
        images, rows, columns, channels = self.x.shape
        stored, one = self.x.format, self.window
        assert stored
        strides = tuple(stored.bytes * channels * step for step in (1, columns, columns * rows))
        deep = SWIZZLED // stored.bytes
        lower = (-one.before[1], -one.before[0])
        upper = tuple(one.after[at] - (one.kernel[at] - 1) * one.dilations[at] for at in (1, 0))
        windows = mapped.Windows(lower, (upper[0], upper[1]), (one.strides[1], one.strides[0]))
        extents = (self.width, columns - self.width // channels + 1, rows, images)
        return TileLayout(stored, extents, strides, (deep, pixels), windows, self.x.unrounded is not None)

    @property
    def struct(self) -> Windows:
        assert self.x.format
        one, chunks = self.window, math.ceil(self.width * self.x.format.bytes / SWIZZLED)
        return Windows(chunks, one.kernel[1], *one.out, *one.strides, *one.before, *one.dilations)


def launch(queue: Queue, product: Product, tactic: Tactic | None = None, gathered: Gathered | None = None) -> None:
    """Compute a product that ``refusal`` has nothing against; or a convolution, whose left operand is ``gathered``."""
    many = queue.backend.multiprocessors
    stored = product.a.tensor.format
    assert stored
    product = _along_k(queue, product)
    if tactic is None:
        sizes = (product.m, product.n, product.k * stored.bytes // 2, product.batches)
        tactic = choose(
            *sizes,
            many,
            by_n=product.b.col == 1,
            windows=gathered is not None,
            tail=tail_of(product),
            one_b=not any(product.b_batch),
        )
    layouts = _layouts(product, tactic)
    assert layouts
    down, across = math.ceil(product.m / (tactic.m * tactic.pair)), math.ceil(product.n / tactic.n)
    once = [tuple(int(step != 0) for step in one) for one in (product.a_batch, product.b_batch)]
    problem = product.tiled(down, across, (once[0][0], once[0][1]), (once[1][0], once[1][1]))
    cluster, tiles = tactic.pair * tactic.splits, down * across * product.batches
    macros = (
        ("TAB", stored.name), ("TF32", int(stored is F32)), ("ADDED", _added(product)), ("A_BY_M", int(product.a.col != 1)),
        ("B_BY_N", int(product.b.col == 1)), ("BM", tactic.m), ("BN", tactic.n), ("WM", tactic.wm), ("STAGES", tactic.stages),
        ("PAIR", tactic.pair), ("TURNS", tactic.turns), ("SPLITS", tactic.splits), ("WINDOWS", int(gathered is not None)),
        ("WEIGHTS", int(product.b.fixed)),
    )  # fmt: skip
    if gathered is not None:
        layouts = gathered.layout(tactic.m), layouts[1]
    maps = (
        TileMap((one.tensor.unrounded or one.tensor).address(queue.backend), layout)
        for one, layout in zip((product.a, product.b), layouts, strict=True)
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
        or count % (k * n)
        or any(one % (k * n) for one in b.batch)
    ):
        return False
    operations = 2.0 * product.m * n * k * product.batches
    return b.fixed or (tf32 and operations * (1 / 175e12 - 1 / 330e12) > 8 * count / 3.4e12 + 3e-6)


def _along_k(queue: Queue, product: Product) -> Product:
    """A product with the lines of b along k, where they must lie so."""
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
    rows = tactic.m if a.col == 1 else DEPTH
    cols = DEPTH if -(-tactic.n // DEPTH) % tactic.pair == 0 else DEPTH // tactic.pair
    cols = tactic.n // tactic.pair if b.col != 1 else cols
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


@lru_cache(maxsize=4096)
def choose(
    m: int,
    n: int,
    k: int,
    batch: int,
    multiprocessors: int,
    *,
    by_n: bool = False,
    windows: bool = False,
    tail: float = 0.0,
    one_b: bool = False,
) -> Tactic:
    """The tactic that should take least time; arguments of ``cycles``.

    How often k is split depends on the product alone, and neither on what follows it nor on how its operands lie: the tile that computes a sum
    changes none of its bits, the ranges of k that are added do.

    Args:
        one_b: the right operand is the same for the whole batch: a single taller product, if what follows lets it be one.
    """

    def cost(one: Tactic) -> float:
        return cycles(one, m, n, k, batch, multiprocessors, by_n=by_n, windows=windows, tail=tail)

    tall = (m * batch, n, k, 1) if one_b else (m, n, k, batch)
    usual = min(TACTICS, key=lambda one: cycles(one, *tall, multiprocessors, windows=windows, tail=_LIGHT_TAIL))
    return min((one for one in TACTICS if one.splits == usual.splits), key=cost)


def cycles(
    one: Tactic,
    m: int,
    n: int,
    k: int,
    batch: int,
    multiprocessors: int,
    *,
    by_n: bool = False,
    windows: bool = False,
    tail: float = 0.0,
) -> float:
    """What a product should take: rounds of blocks times what a block takes. Numbers fitted to 518 measurements of 26 problems on an H200: half of
    them within 7 %, and what is chosen takes 1 % longer than the fastest, on average.

    Args:
        by_n: the lines of b lie along n.
        windows: a is gathered from the windows of a convolution.
        tail: cycles that a thread takes longer for each value that it finishes: ``tail_of``.
    """
    steps, cluster = math.ceil(k / DEPTH), one.pair * one.splits
    # clusters do not reach across the 16 multiprocessors or so that lie together, and a place or two is lost where they are large
    together = multiprocessors // _TOGETHER * (_TOGETHER // cluster) - 2 * (cluster > 2)
    at_once = multiprocessors if cluster == 1 else together
    if one.splits > steps or at_once <= 0:
        return math.inf
    clusters = math.ceil(m / (one.m * one.pair)) * math.ceil(n / one.n) * batch
    rounds = math.ceil(clusters / at_once)
    shared = 1.1 if m * n * k * batch > _LONG else 0.76
    # What one tile of k takes: the tensor cores; shared memory, which they read as fast as copies fill it; the way from the L2 cache; or what is
    # done for any tile; more where columns are not whole boxes, and where blocks wait for each other
    reads, fills = one.m // 64 * 4 * (2048 + 32 * one.n), (one.m + one.n) * DEPTH * 2
    fetched = (one.m + one.n / one.pair) * DEPTH * 2
    step = max(one.m * one.n / 32 * 1.14, (reads + fills) / 128 * shared, fetched / 80, 210.0)
    step *= ((1.06 if one.n > 2 * DEPTH else 1.3) if by_n and one.n % DEPTH else 1.0) * (1.08 if one.pair > 1 else 1.0)
    if windows and m >= _MANY:
        step = max(step, 420 + 1.45 * one.m)
    computed = math.ceil(steps / one.splits) * step
    share = one.m * one.n / (1 if one.turns > 1 else one.groups)  # of a tile, that a group finishes
    stored = 1770 + (0.15 + tail) * share + 700 * (one.turns == 1 and one.groups > 2)
    if one.splits > 1:
        total = rounds * (
            computed + 3640 + 450 * one.splits + 0.25 * one.m * one.n + (0.15 + tail) * one.m * one.n / one.splits / 2
        )
    elif one.turns > 1:
        total = (rounds - 1) * max(computed, (computed + stored) / one.turns, _A_TILE) + computed + stored
        if (
            one.turns > 2 and steps > 2 and tail < _HEAVY_TAIL
        ):  # what three turns gain is known of short k and of heavy tails
            total *= 1.25
    else:
        total = rounds * max(computed + stored, _A_TILE)
    return total + 3500


_LONG = 1 << 34  # products, from which on the machine is short of power, and what reads shared memory least is fastest
_MANY = 1024  # pixels, from which on gathering them holds products up
_A_TILE = 2500.0  # cycles from one tile of a block to the next, whatever it holds
_LIGHT_TAIL, _HEAVY_TAIL = 0.365, 0.85
_HEAVY = ("erf", "tanh", "exp", "sigmoid", "gelu", "softplus", "pow", "div")


def tail_of(product: Product) -> float:
    """``tail`` of ``cycles``: of what is added and of the steps behind a product."""
    steps = product.ending.steps
    if any(word in step.expression for step in steps for word in _HEAVY):
        return _HEAVY_TAIL
    if any(math.prod(reading.tensor.shape) > product.n for _, reading in product.ending.readings):
        return 0.5
    return _LIGHT_TAIL if steps or product.c is not None else 0.0
