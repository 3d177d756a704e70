"""Products of few rows (kernels/matmul_few.cu), bound by reading the right operand: which of them, and into how many ranges k is cut."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from probe.engine.assignment import EXACT
from probe.engine.device.cuda.numbers import LONGEST
from probe.engine.device.cuda.ops.products import wgmma
from probe.engine.device.cuda.ops.products.ffma import clusters
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.products.product import Product
    from probe.engine.device.cuda.queue import Queue

ROWS = 16  # at most
_COLS = 64  # of a block
_STEP = 64  # bytes of k: ranges are counted in these
_REGISTERS = 65536  # of a multiprocessor
_SUM_ROW = _COLS + 4
_LEAST = 1 << 19  # bytes of weights, below which all kernels take as long as a launch does
# columns of a weight over its rows, up to which matmul_wgmma leaves time to win: with up to eight rows of a, and with more
_WIDEST, _WIDE = 16, 3.5
_MANY = 3 << 19  # elements of a weight, from which on more than eight rows win in FP32
_TOGETHER = 16  # multiprocessors among which a cluster must find room
_RATE = 4.2e6  # bytes a microsecond


@dataclass(frozen=True, slots=True)
class Few:
    """A variant of matmul_few.

    Attributes:
        warps: of a block, each with a range of k; their sums are added in the order of k.
        splits: blocks that share 64 columns, each with a part of k; their sums are added in the order of k.
    """

    warps: int
    splits: int = 1

    def __str__(self) -> str:
        return f"few {self.warps}" + f" split-k {self.splits}" * (self.splits > 1)

    @property
    def threads(self) -> int:
        return 32 * self.warps

    def shared_bytes(self, rows: int) -> int:
        """Of the sums of all warps; rows of a that come before them need less."""
        return 4 * self.warps * rows * _SUM_ROW


TACTICS = tuple(Few(warps, splits) for warps in (4, 8) for splits in (1, 2, 3, 4, 6, 8))


def refusal(product: Product) -> str | None:
    """Why matmul_few does not compute a product; None when it does."""
    b, stored = product.b, product.a.tensor.format
    if product.m > ROWS:
        return f"more than {ROWS} rows"
    if product.k == 0:
        return "no products"
    if product.tactic != EXACT:
        return "sums are kept in FP32"
    if stored is not b.tensor.format or stored not in (F16, BF16, F32):
        return "operands that are not both FP16, BF16 or FP32"
    if 1 not in (b.row, b.col):
        return "neither axis of the right operand is contiguous"
    if product.n >= LONGEST:
        return "more columns than 31 bits count"
    if product.batches * math.ceil(product.n / _COLS) * max(one.splits for one in TACTICS) >= 1 << 31:
        return "more tiles than 32 bits count"
    return None


def refusal_of(tactic: Few, arch: str) -> str | None:
    """Why an architecture does not run a tactic; None when it does."""
    if tactic.splits > 1 and not clusters(arch):
        return f"blocks of {arch} do not read each other's shared memory"
    return None


def launch(queue: Queue, product: Product, tactic: Few) -> None:
    """Compute a product that ``refusal`` has nothing against."""
    stored = product.a.tensor.format
    assert stored and refusal(product) is None and refusal_of(tactic, queue.backend.arch) is None
    wide = 16 // stored.bytes
    if product.b.col == 1 and (product.n % wide or product.b.row % wide):
        product = wgmma.along_k(queue, product)  # lines of a weight that would begin anywhere
    a, b = product.a, product.b
    by_n, cores = b.col == 1, _on_cores(product)
    rows = _rows(product.m, cores=cores)
    left = [product.k, *product.a_batch, *([a.row] if product.m > 1 else [])]
    right = [*product.b_batch, *((product.n, b.row) if by_n else (product.k, b.col))]
    left_wide = _width(left, wide) if a.col == 1 else 1
    if not cores and left_wide < wide:
        left_wide = 1  # copies of 16 bytes, or of 4
    right_wide = _width(right, wide)
    ahead, registers = _held(rows, cores=cores, narrow=min(left_wide, right_wide) < wide)
    added = int(product.alpha != 1) if product.c is None else 2
    macros = (
        ("TAB", stored.name), ("CORES", int(cores)), ("ADDED", added), ("B_BY_N", int(by_n)), ("A_WIDE", left_wide), ("B_WIDE", right_wide),
        ("ROWS", rows), ("RANGES", tactic.warps), ("SPLITS", tactic.splits), ("AHEAD", ahead),
        ("RESIDENT", max(1, _REGISTERS // (registers * tactic.threads))), ("WEIGHTS", int(b.fixed)), ("EVEN", int(product.n % 8 == 0)),
    )  # fmt: skip
    problem = product.problem(ROWS, _COLS)
    blocks = problem.across * product.batches * tactic.splits
    shared = tactic.shared_bytes(rows)
    if clusters(queue.backend.arch):
        # no more blocks a multiprocessor than all of them need: then they may come early (driver.py)
        each = math.ceil(blocks / queue.backend.multiprocessors)
        shared = max(shared, queue.backend.shared_limit // (each + 1) + 1024)
    queue.launch(
        product.source("matmul_few.cu", "matmul_few", macros),
        blocks,
        tactic.threads,
        queue.at(a.tensor),
        queue.at(b.tensor),
        *product.arguments(queue),
        problem,
        shared_bytes=shared,
    )


def _rows(m: int, *, cores: bool) -> int:
    """Rows that a kernel is made for: the instruction has eight."""
    return next(one for one in ((8, 16) if cores else (1, 2, 4, 8, 16)) if one >= m)


def _held(rows: int, *, cores: bool, narrow: bool) -> tuple[int, int]:
    """Steps under way, and registers a thread that this may take.

    Args:
        narrow: accesses of less than 16 bytes, each with an address of its own.
    """
    if narrow:
        return 1, 255
    if cores:
        return (2 if rows == 8 else 1), 128
    return (2, 128) if rows <= 4 else (1, 128 if rows == 8 else 240)


def _width(strides: list[int], wide: int) -> int:
    """Elements of an access that these divide by."""
    return math.gcd(wide, *strides)


@lru_cache(maxsize=4096)
def choose(
    m: int,
    n: int,
    k: int,
    batch: int,
    multiprocessors: int,
    *,
    bytes_each: int,
    cores: bool = True,
    split: bool = True,
) -> Few:
    """The tactic that should take least time; arguments of ``microseconds``.

    Args:
        split: blocks may share columns.
    """
    possible = [one for one in TACTICS if split or one.splits == 1]
    sizes = m, n, k, batch, multiprocessors
    return min(possible, key=lambda one: microseconds(one, *sizes, bytes_each=bytes_each, cores=cores))


def microseconds(
    one: Few, m: int, n: int, k: int, batch: int, multiprocessors: int, *, bytes_each: int, cores: bool = True
) -> float:
    """What a product should take: rounds of blocks, whose warps wait for the memory's latency or for its share of the bandwidth. Numbers fitted to 420
    measurements of 36 products on an H200, weights cold: what is chosen takes 3 to 5 % longer than the fastest, on average.

    Args:
        cores: on tensor cores.
    """
    rows = _rows(m, cores=cores)
    ahead, registers = _held(rows, cores=cores, narrow=False)
    steps = math.ceil(math.ceil(k * bytes_each / _STEP) / (one.warps * one.splits))  # of a warp
    blocks = math.ceil(n / _COLS) * batch * one.splits
    # clusters do not reach across the 16 multiprocessors or so that lie together; of eight blocks not all of those find room
    together = multiprocessors // _TOGETHER * (_TOGETHER // one.splits) - 2 * (one.splits == 8)
    at_once = multiprocessors if one.splits == 1 else max(1, together * one.splits)
    resident = min(max(1, _REGISTERS // (registers * one.threads)), math.ceil(blocks / multiprocessors))
    rounds = blocks / (at_once * resident)
    own = 0.0 if cores else 0.0076 * m  # multiply-adds
    share = one.warps * resident * (0.131 * min(1.0, max(rounds, blocks / (multiprocessors * resident))) + own)
    step = ((0.683 if ahead > 1 else 0.943) ** 4 + share**4) ** 0.25
    more = (0.8 * resident if cores else 0.44) * (rows == ROWS)
    block = steps * step + 0.567 * resident + more
    moved = n * k * batch * bytes_each / _RATE
    return 1.64 + max(0.0875 * one.warps + math.ceil(rounds) * block, 1.03 * moved)


def costs(product: Product, multiprocessors: int) -> dict[Few, float]:
    """Microseconds of each tactic."""
    stored = product.a.tensor.format
    assert stored
    sizes, cores = (product.m, product.n, product.k, product.batches, multiprocessors), _on_cores(product)
    return {one: microseconds(one, *sizes, bytes_each=stored.bytes, cores=cores) for one in TACTICS}


def chosen(product: Product, arch: str, multiprocessors: int) -> Few | None:
    """The tactic by which ``exact`` computes a product; None where another kernel is as fast, or was not compared. It follows from the product's sizes and
    types alone: neither from what follows it nor from how its operands lie, and a batch of one right operand is a taller product."""
    m, n, k = product.m * product.batches, product.n, product.k
    stored = product.a.tensor.format
    if m > ROWS or any(product.b_batch) or refusal(product) is not None:
        return None
    assert stored
    cores = _on_cores(product)
    if n * k * stored.bytes < _LEAST:
        return None
    if cores and wgmma.refusal(product, arch) is None:
        worth = n < k * _WIDEST if m <= 8 else n < k * _WIDE and stored is not F32
    else:
        worth = cores or m <= 8 or n * k >= _MANY
    sizes = m, n, k, 1, multiprocessors
    return choose(*sizes, bytes_each=stored.bytes, cores=cores, split=clusters(arch)) if worth else None


def _on_cores(product: Product) -> bool:
    return product.a.tensor.format is not F32 or product.tf32
