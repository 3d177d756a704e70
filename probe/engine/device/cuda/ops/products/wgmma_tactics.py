"""Tactics of products on sm_90a's tensor cores (kernels/matmul_wgmma.cu): tiles, blocks a tile, and which should take least time."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache

from probe.engine.device.cuda.ops.products.product import least
from probe.engine.device.cuda.tensors.maps import SWIZZLED

DEPTH = 64  # 16-bit elements of k a tile: one row of 128 bytes
_SHARED = 226 << 10  # bytes of shared memory for tiles
_MOST_STAGES = 8
_TOGETHER = 16  # multiprocessors among which a cluster must find room


@dataclass(frozen=True, slots=True)
class Tactic:
    """A variant of matmul_wgmma.

    Attributes:
        m: rows of a block's tile; ``n``: columns.
        wm: rows of a warpgroup; of the instruction's.
        pair: blocks, one above the other, that share a tile of b.
        splits: blocks that share a tile of y, each with a part of k; their sums are added in the order of k.
        turns: warpgroups that take whole tiles in turn, one storing while the other computes.
        swapped: rows of the instruction, of which there are 64, run along columns of the tile, so that any 16 rows more are a tile.
    """

    m: int
    n: int
    wm: int = 64
    pair: int = 1
    splits: int = 1
    turns: int = 1
    swapped: bool = field(default=False, kw_only=True)

    def __str__(self) -> str:
        more = (
            f" pair {self.pair}" * (self.pair > 1)
            + f" in {self.turns} turns" * (self.turns > 1)
            + " swapped" * self.swapped
        )
        return f"wgmma {self.m}x{self.n}x{DEPTH}{more}" + f" split-k {self.splits}" * (self.splits > 1)

    @property
    def high(self) -> int:
        """Of a block's tile along the instruction's rows; ``wide``: along its columns."""
        return self.n if self.swapped else self.m

    @property
    def wide(self) -> int:
        return self.m if self.swapped else self.n

    @property
    def groups(self) -> int:
        """Warpgroups that compute."""
        return self.turns if self.turns > 1 else self.high // self.wm

    @property
    def threads(self) -> int:
        return 128 * (self.groups + 1)

    @property
    def stages(self) -> int:
        """Tiles under way."""
        return min(_MOST_STAGES, (_SHARED - self._staged_bytes) // self._stage_bytes)

    @property
    def _staged_bytes(self) -> int:
        """What warps turn their sums in, 16 rows of 36 floats each, or 32 of 20; and a row of c a group."""
        return self.groups * (4 * (32 * 20 if self.swapped else 16 * 36) + (self.wm if self.swapped else self.n)) * 4

    @property
    def _stage_bytes(self) -> int:
        """Of a tile of a and one of b; columns of b come in boxes of 64, where they lie so, and rows of a never do."""
        return (self.high + (self.wide if self.swapped else -(-self.n // DEPTH) * DEPTH)) * SWIZZLED

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
_SWAPPED = (  # rows, columns, columns of a warpgroup, turns
    (144, 128, 64, 1),
    (144, 256, 128, 1),
    (144, 128, 128, 2),
    (144, 64, 64, 2),
)
TACTICS = (
    *(Tactic(*one) for one in (*_PLAIN, *_PAIRED, *_SPLIT, *_TURNS)),
    *(Tactic(m, n, wm, turns=turns, swapped=True) for m, n, wm, turns in _SWAPPED),
)
ANY_SWAPPED = TACTICS[-1]


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
    swaps: bool = False,
) -> Tactic:
    """The tactic that should take least time; arguments of ``cycles``.

    Args:
        one_b: the right operand is the same for the whole batch: a single taller product, if what follows lets it be one.
        swaps: the instruction's rows may run along columns.
    """

    def cost(one: Tactic) -> float:
        return cycles(one, m, n, k, batch, multiprocessors, by_n=by_n, windows=windows, tail=tail)

    tall = (m * batch, n, k, 1) if one_b else (m, n, k, batch)
    straight = [one for one in TACTICS if not one.swapped]
    usual = min(straight, key=lambda one: cycles(one, *tall, multiprocessors, windows=windows, tail=_USUAL_TAIL))
    return least(TACTICS if swaps else straight, usual, cost)


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
    high, wide = one.high, one.wide
    clusters = (
        math.ceil((n if one.swapped else m) / (high * one.pair)) * math.ceil((m if one.swapped else n) / wide) * batch
    )
    rounds = math.ceil(clusters / at_once)
    shared = 1.1 if m * n * k * batch > _LONG else 0.76
    # What one tile of k takes: the tensor cores; shared memory, which they read as fast as copies fill it; the way from the L2 cache; or what is
    # done for any tile; more where columns are not whole boxes, and where blocks wait for each other
    reads, fills = high // 64 * 4 * (2048 + 32 * wide), (high + wide) * DEPTH * 2
    fetched = (high + wide / one.pair) * DEPTH * 2
    step = max(one.m * one.n / 32 * 1.14, (reads + fills) / 128 * shared, fetched / 80, 210.0)
    uneven = by_n and one.n % DEPTH
    step *= ((1.15 if one.n > 2 * DEPTH else 1.3) if uneven else 1.0) * (1.08 if one.pair > 1 else 1.0)
    if one.swapped and high < 2 * DEPTH:
        step *= 1.3  # measured where groups take turns: what is stored reads and writes shared memory meanwhile
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
        if one.turns > 2 and steps > 2:  # what three turns gain is known of short k and of heavy tails
            total *= 1.25 if tail < HEAVY_TAIL else 1.08
    else:
        total = rounds * max(computed + stored, _A_TILE)
    return total + 3500


_LONG = 1 << 34  # products, from which on the machine is short of power, and what reads shared memory least is fastest
_MANY = 1024  # pixels, from which on gathering them holds products up
_A_TILE = 2500.0  # cycles from one tile of a block to the next, whatever it holds
# Of a bias, what differs from row to row, functions that are short where tensors have 16 bits, and other functions
LIGHT_TAIL, READING_TAIL, SHORT_TAIL, HEAVY_TAIL = 0.2, 0.35, 0.5, 0.85
_USUAL_TAIL = 0.365  # by which the number of ranges of k is chosen
