"""MatMul and Gemm: batches, strides, and which kernel takes a product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from probe.engine.assignment import EXACT
from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.ops.call import Call, Op, Readings
from probe.engine.device.cuda.ops.products import few, ffma, wgmma
from probe.engine.device.cuda.ops.products.ending import Ending, storing, through
from probe.engine.device.cuda.ops.products.few import Few
from probe.engine.device.cuda.ops.products.ffma import Ffma
from probe.engine.device.cuda.ops.products.product import Matrices, Product, describe
from probe.engine.device.cuda.ops.products.product_shape import product_shape
from probe.engine.device.cuda.ops.products.wgmma_tactics import Tactic
from probe.engine.device.cuda.ops.row_order import by_rows
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.copies import transposed
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32
from probe.engine.device.cuda.tensors.layout import Shape, broadcast, spread

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows and columns of y a block, elements of k at once; rows and columns a thread (matmul_simt) or a warp (matmul_mma)."""

    m: int
    n: int
    k: int
    tm: int
    tn: int

    @property
    def sizes(self) -> tuple[tuple[str, str | int], ...]:
        """Macros of a block's tile."""
        return (("BM", self.m), ("BN", self.n), ("BK", self.k))


TILES = (Tile(128, 128, 8, 8, 8), Tile(64, 64, 16, 4, 4), Tile(32, 32, 16, 2, 2))
# 64 x 64 a warp: four warps a block, two blocks a multiprocessor; half as fast again as 64 x 32
MMA_TILES = (Tile(128, 128, 32, 64, 64), Tile(64, 64, 32, 32, 32))
TF32_TILES = (Tile(128, 128, 16, 64, 64), Tile(64, 64, 16, 32, 32))
STAGES = 4  # tiles under way in matmul_mma
ACC16 = "acc16"


def matmul(queue: Queue, call: Call) -> list[Tensor | None]:
    if (found := by_rows(call)) is not None:
        rows, call = found
        return [
            rows.back(queue, one) for one in _matmul(queue, call, storing(queue, product_shape(call), call.store()))
        ]
    return list(_matmul(queue, call, storing(queue, product_shape(call), call.store())))


def matmul_tailed(queue: Queue, call: Call, readings: Readings, steps: Sequence[Step]) -> list[Tensor]:
    if (found := by_rows(call, readings)) is not None:
        rows, call = found
        made = _matmul(queue, call, through(queue, product_shape(call), readings, steps))
        return [rows.back(queue, one) for one in made]
    return _matmul(queue, call, through(queue, product_shape(call), readings, steps))


def _matmul(queue: Queue, call: Call, ending: Ending) -> list[Tensor]:
    a, b = call.data(0), call.data(1)
    left = a.view((1, *a.shape)) if len(a.shape) == 1 else a
    right = b.view((*b.shape, 1)) if len(b.shape) == 1 else b
    if left.shape[-1] != right.shape[-2]:
        raise Unsupported(f"MatMul of {a.shape} and {b.shape}")
    batch = broadcast(left.shape[:-2], right.shape[:-2])
    m, k, n = left.shape[-2], left.shape[-1], right.shape[-1]
    whole = None
    if batch and math.prod(right.shape[:-2]) == 1 and left.shape[:-2] == batch:
        # one right operand for all: a single taller product
        tall = m * math.prod(batch)
        with suppress(Unsupported):  # what the ending reads lies unevenly along the taller matrix
            whole = describe(
                Matrices(left, (), k, 1),
                Matrices(right, (), n, 1, _is_weight(call)),
                None,
                (tall, n),
                k,
                ending,
                tactic=call.tactic,
                tf32=call.tf32,
            )
    if whole is None:
        stacks = _stack(left, batch), replace(_stack(right, batch), fixed=_is_weight(call))
        whole = describe(*stacks, None, (*batch, m, n), k, ending, tactic=call.tactic, tf32=call.tf32)
    return _computed(queue, whole)


def _is_weight(call: Call) -> bool:
    """Whether the right operand is the same in every run."""
    value = call.node.inputs[1]
    return value is not None and value.is_initializer()


def _stack(x: Tensor, batch: Shape) -> Matrices:
    rows, cols = x.shape[-2:]
    strides = tuple(s * rows * cols for s in spread(x.shape[:-2], batch))
    return Matrices(x, strides, cols, 1)


def gemm(queue: Queue, call: Call) -> list[Tensor | None]:
    if (found := by_rows(call)) is not None:
        rows, call = found
        return [rows.back(queue, one) for one in _gemm(queue, call, storing(queue, product_shape(call), call.store()))]
    return list(_gemm(queue, call, storing(queue, product_shape(call), call.store())))


def gemm_tailed(queue: Queue, call: Call, readings: Readings, steps: Sequence[Step]) -> list[Tensor]:
    if (found := by_rows(call, readings)) is not None:
        rows, call = found
        return [
            rows.back(queue, one) for one in _gemm(queue, call, through(queue, product_shape(call), readings, steps))
        ]
    return _gemm(queue, call, through(queue, product_shape(call), readings, steps))


def _gemm(queue: Queue, call: Call, ending: Ending) -> list[Tensor]:
    a, b, c = call.data(0), call.data(1), call.given(2)
    left = Matrices(a, (), *((1, a.shape[1]) if call.int("transA", 0) else (a.shape[1], 1)))
    right = Matrices(b, (), *((1, b.shape[1]) if call.int("transB", 0) else (b.shape[1], 1)), _is_weight(call))
    k = a.shape[0] if call.int("transA", 0) else a.shape[1]
    added = None
    if c is not None:
        down, across = spread(c.shape, ending.shape)
        added = Matrices(c, (), down, across)
    scales = {"alpha": call.float("alpha", 1.0), "beta": call.float("beta", 1.0)}
    whole = describe(left, right, added, ending.shape, k, ending, tactic=call.tactic, tf32=call.tf32, **scales)
    return _computed(queue, whole)


def _computed(queue: Queue, whole: Product) -> list[Tensor]:
    """A product of the network: as its tactic says."""
    if math.prod(whole.ending.shape):
        if queue.offers is not None or whole.tactic not in (EXACT, ACC16):
            from probe.engine.device.cuda.ops.products import named

            named.offer(queue, whole)
            if whole.tactic not in (EXACT, ACC16):
                return named.launch(queue, whole, whole.tactic)
        run(queue, whole)
    return list(whole.ending.stored)


def product(
    queue: Queue,
    a: Matrices,
    b: Matrices,
    y: Tensor,
    k: int,
    c: Matrices | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    tactic: str = EXACT,
    tf32: bool = False,
    tile: Tile | Tactic | Ffma | Few | None = None,
) -> None:
    """``y = alpha * a @ b + beta * c`` for every matrix of the batch; y dense, [..., m, n].

    Args:
        tile: of the kernel to take; chosen by size when left out.

    Raises:
        Unsupported: a batch that is walked over in more axes than kernels do; acc16 of what is not FP16.
    """
    whole = describe(a, b, c, y.shape, k, Ending(y.shape, (y,)), alpha=alpha, beta=beta, tactic=tactic, tf32=tf32)
    run(queue, whole, tile)


def run(queue: Queue, whole: Product, tile: Tile | Tactic | Ffma | Few | None = None) -> None:
    """Compute a product by the fastest kernel that takes it, or the one that is named.

    Raises:
        Unsupported: acc16 of what is not FP16.
    """
    if not math.prod(whole.ending.shape):
        return
    multiplied = _multiplied(whole)
    if tile is None:
        tile = few.chosen(whole, queue.backend.arch, queue.backend.multiprocessors)
    if isinstance(tile, Few):
        few.launch(queue, whole, tile)
        return
    if not isinstance(tile, (Tile, Ffma)) and wgmma.refusal(whole, queue.backend.arch) is None:
        wgmma.launch(queue, whole, tile)
        return
    assert not isinstance(tile, Tactic)
    if not isinstance(tile, Tile) and not multiplied and ffma.refusal(whole) is None:
        ffma.launch(queue, whole, tile)
        return
    assert not isinstance(tile, Ffma)
    if whole.batches == 1 and multiplied:
        whole = _by_rows(queue, whole)
    a, b = whole.a, whole.b
    on_tensor_cores = multiplied and a.col == 1 and 1 in (b.row, b.col) and whole.k > 0
    if whole.tactic == ACC16 and not (on_tensor_cores and a.tensor.format is F16):
        raise Unsupported("acc16 of operands that are not both stored in FP16")
    tiles = TILES if not on_tensor_cores else TF32_TILES if a.tensor.format is F32 else MMA_TILES
    tile = tile or tile_for(tiles, whole.m, whole.n, whole.batches, queue.backend.multiprocessors)
    (_mma if on_tensor_cores else _simt)(queue, whole, tile)


def tiles_for(whole: Product, kernel: str) -> tuple[Tile, ...]:
    """Of ``mma`` or ``simt``."""
    return TILES if kernel == "simt" else TF32_TILES if whole.a.tensor.format is F32 else MMA_TILES


def tiles_refusal(whole: Product, kernel: str) -> str | None:
    """Why ``mma`` or ``simt`` does not compute a product; None when it does."""
    if kernel == "simt":
        return None
    if not _multiplied(whole) or whole.k == 0:
        return "operands that tensor cores do not multiply"
    if whole.a.col != 1 and whole.batches != 1:
        return "left operands whose rows are not contiguous"
    return None if 1 in (whole.b.row, whole.b.col) else "neither axis of the right operand is contiguous"


def on_tiles(queue: Queue, whole: Product, kernel: str, tile: Tile, tactic: str = EXACT) -> None:
    """Compute a product that ``tiles_refusal`` has nothing against, with tiles of a size."""
    if kernel == "mma":
        _mma(queue, replace(_by_rows(queue, whole), tactic=tactic), tile)
    else:
        _simt(queue, whole, tile)


def _by_rows(queue: Queue, whole: Product) -> Product:
    """With the rows of a contiguous, as mma.sync wants them."""
    if whole.a.col == 1:
        return whole
    return replace(whole, a=Matrices(transposed(queue, whole.a.tensor, (1, 0)), (), whole.k, 1))


def _mma(queue: Queue, whole: Product, tile: Tile) -> None:
    a, b = whole.a, whole.b
    assert a.tensor.format
    by_n, bytes_each = b.col == 1, a.tensor.format.bytes
    evenly = (whole.k, a.row, *whole.a_batch, *whole.b_batch, *((whole.n, b.row) if by_n else (b.col,)))
    macros = (
        ("TAB", a.tensor.format.name), *tile.sizes, ("WM", tile.tm), ("WN", tile.tn), ("STAGES", STAGES), ("B_BY_N", int(by_n)),
        ("ACC16", int(whole.tactic == ACC16)), ("ALIGNED", int(not any(one * bytes_each % 16 for one in evenly))),
    )  # fmt: skip
    row = tile.k + 16 // bytes_each
    shared = STAGES * bytes_each * (tile.m * row + (tile.k * (tile.n + 8) if by_n else tile.n * row))
    threads = 32 * (tile.m // tile.tm) * (tile.n // tile.tn)
    _launch(queue, whole.source("matmul_mma.cu", "matmul_mma", macros), whole, tile, threads, shared)


def _simt(queue: Queue, whole: Product, tile: Tile) -> None:
    a, b = whole.a.tensor.format, whole.b.tensor.format
    assert a and b
    macros = (("TA", a.name), ("TB", b.name), *tile.sizes, ("TM", tile.tm), ("TN", tile.tn))
    threads = tile.m // tile.tm * (tile.n // tile.tn)
    _launch(queue, whole.source("matmul_simt.cu", "matmul_simt", macros), whole, tile, threads, 0)


def _launch(queue: Queue, source: Source, whole: Product, tile: Tile, threads: int, shared: int) -> None:
    problem = whole.problem(tile.m, tile.n)
    blocks = whole.batches * problem.down * problem.across
    operands = (queue.at(whole.a.tensor), queue.at(whole.b.tensor))
    queue.launch(source, blocks, threads, *operands, *whole.arguments(queue), problem, shared_bytes=shared)


def _multiplied(whole: Product) -> bool:
    """Whether tensor cores multiply what a and b hold."""
    a, b = whole.a.tensor.format, whole.b.tensor.format
    return a is b and (a in (F16, BF16) or (a is F32 and whole.tf32))


def tile_for(tiles: tuple[Tile, ...], m: int, n: int, batch: int, multiprocessors: int) -> Tile:
    """The largest tile that still gives every multiprocessor a block; the smallest when none does."""
    for tile in tiles:
        if math.ceil(m / tile.m) * math.ceil(n / tile.n) * batch >= multiprocessors:
            return tile
    return tiles[-1]


PRODUCTS = (Op(("MatMul",), matmul, matmul_tailed), Op(("Gemm",), gemm, gemm_tailed))
