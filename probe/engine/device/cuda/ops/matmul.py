"""MatMul and Gemm: batches, strides, and which kernel takes a product."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probe.engine.assignment import EXACT
from probe.engine.device.cuda.compile import Source
from probe.engine.device.cuda.copies import transposed
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.formats import BF16, F16, F32
from probe.engine.device.cuda.layout import Shape, Strides, broadcast, collapse, contiguous, spread
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.queue import Queue

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensor import Tensor

_BATCH = 2  # batch axes that a kernel walks over


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows and columns of y a block, elements of k at once; rows and columns a thread (matmul_simt) or a warp (matmul_mma)."""

    m: int
    n: int
    k: int
    tm: int
    tn: int


TILES = (Tile(128, 128, 8, 8, 8), Tile(64, 64, 16, 4, 4), Tile(32, 32, 16, 2, 2))
# 64 x 64 a warp: four warps a block, two blocks a multiprocessor; half as fast again as 64 x 32
MMA_TILES = (Tile(128, 128, 32, 64, 64), Tile(64, 64, 32, 32, 32))
STAGES = 4  # tiles under way in matmul_mma
ACC16 = "acc16"


class Problem(ctypes.Structure):
    """The struct of kernels/product.cuh."""

    _fields_ = (
        ("m", ctypes.c_longlong), ("n", ctypes.c_longlong), ("k", ctypes.c_longlong),
        ("a_batch", ctypes.c_longlong * 2), ("b_batch", ctypes.c_longlong * 2), ("c_batch", ctypes.c_longlong * 2),
        ("batch1", ctypes.c_longlong),
        ("a_row", ctypes.c_longlong), ("a_col", ctypes.c_longlong), ("b_row", ctypes.c_longlong), ("b_col", ctypes.c_longlong),
        ("c_row", ctypes.c_longlong), ("c_col", ctypes.c_longlong),
        ("down", ctypes.c_longlong), ("across", ctypes.c_longlong),
        ("alpha", ctypes.c_float), ("beta", ctypes.c_float),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Matrices:
    """A tensor as a stack of matrices: batch strides, row and column stride, in elements."""

    tensor: Tensor
    batch: Strides
    row: int
    col: int


def matmul(queue: Queue, call: Call) -> list[Tensor | None]:
    a, b = call.data(0), call.data(1)
    if not a.shape or not b.shape:
        raise Unsupported("MatMul of a scalar")
    left = a.view((1, *a.shape)) if len(a.shape) == 1 else a
    right = b.view((*b.shape, 1)) if len(b.shape) == 1 else b
    if left.shape[-1] != right.shape[-2]:
        raise Unsupported(f"MatMul of {a.shape} and {b.shape}")
    batch = broadcast(left.shape[:-2], right.shape[:-2])
    m, k, n = left.shape[-2], left.shape[-1], right.shape[-1]
    shape = (*batch, *(() if len(a.shape) == 1 else (m,)), *(() if len(b.shape) == 1 else (n,)))
    if batch and math.prod(right.shape[:-2]) == 1 and left.shape[:-2] == batch:
        # one right operand for all: a single taller product
        m, batch = m * math.prod(batch), ()
        left, right = left.view((m, k)), right.view((k, n))
    y = queue.empty((*batch, m, n), call.store())
    product(queue, _stack(left, batch), _stack(right, batch), y, k, tactic=call.tactic)
    return [y.view(shape)]


def _stack(x: Tensor, batch: Shape) -> Matrices:
    rows, cols = x.shape[-2:]
    strides = tuple(s * rows * cols for s in spread(x.shape[:-2], batch))
    return Matrices(x, strides, cols, 1)


def gemm(queue: Queue, call: Call) -> list[Tensor | None]:
    a, b, c = call.data(0), call.data(1), call.given(2)
    left = Matrices(a, (), *((1, a.shape[1]) if call.int("transA", 0) else (a.shape[1], 1)))
    right = Matrices(b, (), *((1, b.shape[1]) if call.int("transB", 0) else (b.shape[1], 1)))
    m, k = reversed(a.shape) if call.int("transA", 0) else a.shape
    n = b.shape[0] if call.int("transB", 0) else b.shape[1]
    y = queue.empty((m, n), call.store())
    added = None
    if c is not None:
        row, col = spread(c.shape, (m, n))
        added = Matrices(c, (), row, col)
    product(
        queue,
        left,
        right,
        y,
        k,
        added,
        alpha=call.float("alpha", 1.0),
        beta=call.float("beta", 1.0),
        tactic=call.tactic,
    )
    return [y]


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
    tile: Tile | None = None,
) -> None:
    """``y = alpha * a @ b + beta * c`` for every matrix of the batch; y dense, [..., m, n].

    Args:
        tile: of the kernel that takes these formats; chosen by size when left out.

    Raises:
        Unsupported: a batch that is walked over in more axes than kernels do; acc16 of what is not FP16.
    """
    if not y.size:
        return
    batch = y.shape[:-2]
    none = tuple(0 for _ in batch)
    extents, strides = collapse(batch, [contiguous(batch), a.batch, b.batch, c.batch if c is not None else none])
    if len(extents) > _BATCH or k >= 1 << 30:
        raise Unsupported(f"a product over {len(extents)} batch axes and {k} elements")
    steps = [(0,) * (_BATCH - len(extents)) + one for one in strides[1:]]
    if a.col != 1 and not batch and _low(a) and _low(b):  # tensor cores want k contiguous
        a = Matrices(transposed(queue, a.tensor, (1, 0)), (), k, 1)
    on_tensor_cores = _low(a) and a.tensor.format is b.tensor.format and a.col == 1 and 1 in (b.row, b.col) and k > 0
    if tactic == ACC16 and not (on_tensor_cores and a.tensor.format is F16):
        raise Unsupported("acc16 of operands that are not both stored in FP16")
    m, n = y.shape[-2:]
    tiles = MMA_TILES if on_tensor_cores else TILES
    tile = tile or tile_for(tiles, m, n, math.prod(extents), queue.backend.multiprocessors)
    down, across = math.ceil(m / tile.m), math.ceil(n / tile.n)
    pair = ctypes.c_longlong * 2
    problem = Problem(
        m, n, k, pair(*steps[0]), pair(*steps[1]), pair(*steps[2]), extents[-1], a.row, a.col, b.row, b.col,
        c.row if c is not None else 0, c.col if c is not None else 0, down, across, alpha, beta,
    )  # fmt: skip
    added = c.tensor.format if c is not None else F32
    assert a.tensor.format and b.tensor.format and y.format and added
    common = (("TC", added.name), ("TY", y.format.name), ("BM", tile.m), ("BN", tile.n), ("BK", tile.k))
    shared = 0
    if on_tensor_cores:
        by_n = b.col == 1
        evenly = (k, a.row, *steps[0], *steps[1], *((n, b.row) if by_n else (b.col,)))
        source = Source(
            "matmul_mma.cu", "matmul_mma",
            (("TAB", a.tensor.format.name), *common, ("WM", tile.tm), ("WN", tile.tn), ("STAGES", STAGES), ("B_BY_N", int(by_n)),
             ("ACC16", int(tactic == ACC16)), ("ALIGNED", int(not any(one % 8 for one in evenly)))),
        )  # fmt: skip
        shared = STAGES * 2 * (tile.m * (tile.k + 8) + (tile.k * (tile.n + 8) if by_n else tile.n * (tile.k + 8)))
        threads = 32 * (tile.m // tile.tm) * (tile.n // tile.tn)
    else:
        types = (("TA", a.tensor.format.name), ("TB", b.tensor.format.name))
        source = Source("matmul_simt.cu", "matmul_simt", (*types, *common, ("TM", tile.tm), ("TN", tile.tn)))
        threads = tile.m // tile.tm * (tile.n // tile.tn)
    queue.launch(
        source, math.prod(extents) * down * across, threads, queue.at(a.tensor), queue.at(b.tensor),
        queue.at(c.tensor if c is not None else None), queue.at(y), problem, shared_bytes=shared,
    )  # fmt: skip


def _low(x: Matrices) -> bool:
    return x.tensor.format in (F16, BF16)


def tile_for(tiles: tuple[Tile, ...], m: int, n: int, batch: int, multiprocessors: int) -> Tile:
    """The largest tile that still gives every multiprocessor a block; the smallest when none does."""
    for tile in tiles:
        if math.ceil(m / tile.m) * math.ceil(n / tile.n) * batch >= multiprocessors:
            return tile
    return tiles[-1]


PRODUCTS = (Op(("MatMul",), matmul), Op(("Gemm",), gemm))
