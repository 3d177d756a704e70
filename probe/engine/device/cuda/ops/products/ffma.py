"""Products of FP32 by fused multiply-adds (kernels/matmul_ffma.cu): which of them, on which tiles, with how many blocks a tile."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from probe.engine.assignment import EXACT
from probe.engine.device.cuda.ops.convolutions.window import ConvProblem, VolumeProblem, conv_problem
from probe.engine.device.cuda.ops.products.product import Matrices, least
from probe.engine.device.cuda.tensors.copies import transposed
from probe.engine.device.cuda.tensors.formats import F32

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.convolutions.window import Window
    from probe.engine.device.cuda.ops.products.product import Product
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

_WIDE = 4  # elements of an access
UNIT = 32  # elements of k: ranges are counted in these
_DEPTH, _SHALLOW = UNIT, 16  # a tile
_FEW_STEPS = 4  # tiles of k, up to which half a tile of nothing is worth saving
_REGISTERS, _SHARED, _MOST_BLOCKS = 65536, 227 << 10, 16  # of a multiprocessor
_OWN = 1 << 10  # bytes of shared memory that the system takes of each block
_CLUSTERS = 90  # the architecture since which blocks read each other's shared memory
_FAR = (1 << 31) - (1 << 20)  # elements from the first of a matrix, tiles that reach behind it included
_ALONG_N = "along n"
_MANY = 64  # sums of a thread, from which on it needs more than 128 registers
# Rows and columns of a thread whose sums are computed column by column, to and fro: up to 2 % faster; 8 x 16 is 13 % slower so
_SERPENTINE = ((4, 8),)


@dataclass(frozen=True, slots=True)
class Ffma:
    """A variant of matmul_ffma.

    Attributes:
        m: rows of a block's tile; ``n``: columns.
        tm: rows of a thread; ``tn``: columns.
        splits: blocks that share a tile of y, each with a part of k; their sums are added in the order of k.
    """

    m: int
    n: int
    tm: int
    tn: int
    splits: int = 1

    @property
    def threads(self) -> int:
        return self.m // self.tm * (self.n // self.tn)

    @property
    def stages(self) -> int:
        """Tiles under way."""
        return 2 if self.tm * self.tn == _MANY else 3

    @property
    def registers(self) -> int:
        """Of a thread, at most."""
        return 128 if self.tm * self.tn < _MANY else 168 if self.tm * self.tn == _MANY else 240

    def shared_bytes(self, depth: int, *, by_k: bool, by_n: bool) -> int:
        """Of tiles, or of the sums that replace them."""
        left = self.m * (depth + _WIDE) if by_k else self.m * depth
        right = self.n * depth if by_n else self.n * (depth + _WIDE)
        return 4 * max(self.stages * (left + right), self.m * (self.n + _WIDE))

    def at_once(self, depth: int = UNIT, *, by_k: bool = True, by_n: bool = True) -> int:
        """Blocks of a multiprocessor."""
        room = _SHARED // (self.shared_bytes(depth, by_k=by_k, by_n=by_n) + _OWN)
        return min(_MOST_BLOCKS, _REGISTERS // (self.registers * self.threads), room)


# m, n, rows and columns of a thread; microseconds of an H200 for 32 elements of k: of a block that is alone on its multiprocessor, and of each of many
_TIMES = {
    (128, 256, 8, 16): (5.1, 5.9), (64, 128, 8, 8): (2.7, 1.67), (128, 64, 8, 8): (2.7, 1.67), (64, 64, 4, 8): (0.88, 0.815),
    (128, 32, 8, 4): (1.1, 0.876), (32, 64, 4, 8): (0.88, 0.487), (64, 32, 8, 4): (0.96, 0.498), (32, 32, 4, 4): (0.54, 0.244),
}  # fmt: skip
_SPLITS = (2, 3, 4, 6, 8)
TACTICS = tuple(
    Ffma(*tile, splits) for tile in _TIMES for splits in (1, *_SPLITS) if splits == 1 or tile[2] * tile[3] <= _MANY
)


def clusters(arch: str) -> bool:
    """Whether blocks of an architecture can share a tile."""
    digits = "".join(one for one in arch if one.isdigit())
    return arch.startswith("sm_") and int(digits) >= _CLUSTERS


def refusal(product: Product) -> str | None:
    """Why matmul_ffma does not compute a product; None when it does."""
    a, b = product.a, product.b
    if a.tensor.format is not F32 or b.tensor.format is not F32:
        return "operands that are not both FP32"
    if product.tactic != EXACT:
        return "sums are kept in FP32"
    if 1 not in (a.row, a.col) or 1 not in (b.row, b.col):
        return "neither axis of an operand is contiguous"
    ends = ((product.m, a.row), (product.k, a.col)), ((product.n, b.col), (product.k, b.row))
    if max(product.m * product.n, *(sum(extent * step for extent, step in one) for one in ends)) >= _FAR:
        return "matrices larger than 31 bits count"
    return None


def launch(
    queue: Queue, product: Product, tactic: Ffma | None = None, gathered: tuple[Tensor, Window] | None = None
) -> None:
    """Compute a product that ``refusal`` has nothing against.

    Args:
        tactic: chosen by size when left out.
        gathered: an image [images, rows, columns, channels] and windows over it: the left operand of a convolution, [output pixels, taps * channels].
    """
    product = _along_n(queue, product)
    a, b = product.a, product.b
    if tactic is None:
        tactic = choose(
            product.m,
            product.n,
            product.k,
            product.batches,
            queue.backend.multiprocessors,
            split=clusters(queue.backend.arch),
            windows=gathered is not None,
            one_b=not any(product.b_batch),
        )
    by_k, by_n = a.col == 1 or gathered is not None, b.col == 1
    depth = _depth(product.k)
    problem: list[ConvProblem | VolumeProblem] = []
    axes: tuple[tuple[str, int], ...] = ()
    evenly = [product.k if by_k else product.m, a.row if by_k else a.col, *product.a_batch]
    if gathered is not None:
        x, window = gathered
        images, channels = x.shape[0], x.shape[-1]
        problem, evenly = [conv_problem(images, 1, channels, product.n, window)], [channels]
        axes = (("AXES", 3),) if window.slices else ()
    wide = [_width(evenly), _width([product.n if by_n else product.k, b.row if by_n else b.col, *product.b_batch])]
    added = int(product.alpha != 1) if product.c is None else 2 if product.c.row == 0 else 1
    macros = (
        ("ADDED", added), ("A_BY_K", int(by_k)), ("B_BY_N", int(by_n)), ("A_WIDE", wide[0]), ("B_WIDE", wide[1]), ("BM", tactic.m), ("BN", tactic.n),
        ("BK", depth), ("TM", tactic.tm), ("TN", tactic.tn), ("STAGES", tactic.stages), ("SPLITS", tactic.splits), ("WINDOWS", len(problem)),
        ("RESIDENT", tactic.at_once(depth, by_k=by_k, by_n=by_n)), ("SERPENTINE", int((tactic.tm, tactic.tn) in _SERPENTINE)),
        *axes,
    )  # fmt: skip
    tiles = product.problem(tactic.m, tactic.n)
    queue.launch(
        product.source("matmul_ffma.cu", "matmul_ffma", macros),
        tiles.down * tiles.across * product.batches * tactic.splits,
        tactic.threads,
        queue.at(gathered[0] if gathered is not None else a.tensor),
        queue.at(b.tensor),
        *product.arguments(queue),
        tiles,
        *problem,
        shared_bytes=tactic.shared_bytes(depth, by_k=by_k, by_n=by_n),
    )


def _depth(k: int) -> int:
    """Elements of k a tile: half as many where few tiles would end in nothing."""
    return _SHALLOW if 0 < k % _DEPTH <= _SHALLOW and k <= _FEW_STEPS * _DEPTH else _DEPTH


def _width(strides: list[int]) -> int:
    """Elements of an access that these divide by."""
    return 1 if any(one % _WIDE for one in strides) else _WIDE


def _along_n(queue: Queue, product: Product) -> Product:
    """A product whose right operand is a weight, with its lines along n, where that makes whole accesses; made once."""
    b, n, k = product.b, product.n, product.k
    if b.col == 1 or not b.fixed or n % _WIDE or b.row != 1 or b.col != k or b.batch or b.tensor.size != n * k:
        return product
    kept = b.tensor.kept or {}
    made = kept.get(_ALONG_N)
    if made is None:
        made = transposed(queue.aside, b.tensor.view((n, k)), (1, 0))
        b.tensor.kept = {**kept, _ALONG_N: made}
    return replace(product, b=Matrices(made, (), n, 1, fixed=True))


@lru_cache(maxsize=4096)
def choose(
    m: int,
    n: int,
    k: int,
    batch: int,
    multiprocessors: int,
    *,
    split: bool = True,
    windows: bool = False,
    one_b: bool = False,
) -> Ffma:
    """The tactic that should take least time; arguments of ``microseconds``.

    Args:
        split: blocks may share a tile.
        one_b: the right operand is the same for the whole batch: a single taller product, if what follows lets it be one.
    """

    def cost(one: Ffma, sizes: tuple[int, int, int, int]) -> float:
        return microseconds(one, *sizes, multiprocessors, windows=windows)

    possible = [one for one in TACTICS if split or one.splits == 1]
    tall = (m * batch, n, k, 1) if one_b else (m, n, k, batch)
    usual = min(possible, key=lambda one: cost(one, tall))
    return least(possible, usual, lambda one: cost(one, (m, n, k, batch)))


def microseconds(
    one: Ffma, m: int, n: int, k: int, batch: int, multiprocessors: int, *, windows: bool = False
) -> float:
    """What a product should take: rounds of blocks, each as fast as they are side by side. Numbers fitted to 332 measurements of 40 problems on an
    H200: half of them within 4 %, and what is chosen takes 1.3 % longer than the fastest, on average.

    Args:
        windows: the left operand is gathered from the windows of a convolution.
    """
    steps, tile = math.ceil(k / UNIT), one.m * one.n / 4096
    if one.splits > max(steps, 1):
        return math.inf
    alone, each = _TIMES[one.m, one.n, one.tm, one.tn]
    if windows:
        alone, each = 1.33 * alone, 1.09 * each
    count = math.ceil(steps / one.splits) if one.splits > 1 else math.ceil(k / _depth(k)) * _depth(k) / UNIT
    blocks = math.ceil(m / one.m) * math.ceil(n / one.n) * batch * one.splits
    at_once = one.at_once()
    full, rest = divmod(math.ceil(blocks / multiprocessors), at_once)
    shared = 0.4 + 0.045 * one.splits + 0.74 * tile if one.splits > 1 else 0.0

    stored = 0.38 if at_once > 1 else 1.2  # nothing is computed while a block stores that is alone

    def taken(many: int) -> float:
        """By so many blocks side by side."""
        return max(alone, many * each) * count + stored * tile * many + shared

    moved = 4 * (n * k + m * n + m * k * (not windows)) * batch / 2.5e6
    return 5 + max(full * taken(at_once) + (taken(rest) if rest else 0.0), moved)
