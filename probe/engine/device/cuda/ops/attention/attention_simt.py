"""Attention in FP32 (kernels/attention_simt.cu, attention_simt_split.cu): which layers, and how many warps a block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.ops.attention.attention_code import Around, text_of

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.attention.attention_wgmma import Laid
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

FILE, SPLIT_FILE = "attention_simt.cu", "attention_simt_split.cu"
_ROWS = 16  # queries of a warp
_TILE = 64  # keys
_LONG = 1024  # queries and keys
_SHARED = 228 << 10  # bytes of a multiprocessor; 1024 more a block than it asks for
_SPLIT = 4  # warps that share queries
_FEW, _SOME, _MANY, _ALL_BUSY, _MOST = 4, 7, 16, 30, 8  # warps a multiprocessor; the last: of 32 queries at once


@dataclass(frozen=True, slots=True)
class Warps:
    """How the kernel is compiled.

    Attributes:
        warps: of a block.
        rows: queries of a warp: 16 or 32.
        split: warps that share these queries, each with 64 keys of at most as many; ``warps`` counts those that share none.
        apart: values do not lie where keys were, where warps share queries.
    """

    warps: int
    rows: int = _ROWS
    split: int = 1
    apart: bool = False

    def __str__(self) -> str:
        shared = f" split {self.split}" * (self.split > 1) + " apart" * self.apart
        return f"attention {self.queries}x{_TILE} fp32{shared}" + " 32 a warp" * (self.rows > _ROWS)

    @property
    def queries(self) -> int:
        """Of a block."""
        return self.rows * self.warps

    def shared_bytes(self, row: int) -> int:
        """Of a block.

        Args:
            row: elements of a row in shared memory.
        """
        tiles = self.split * (1 + self.apart) if self.split > 1 else 2
        return ((self.queries + tiles * _TILE) * row + self.queries * self.split * (_TILE + 4)) * 4

    def blocks(self, row: int) -> int:
        """Of a multiprocessor, at least, by the shared memory that they need."""
        shared = _SHARED // (self.shared_bytes(row) + 1024)
        return max(min(shared, _MOST // (self.warps * self.split)), 1) if self.rows > _ROWS else shared


def choose_warps(laid: Laid, multiprocessors: int) -> Warps:
    """Warps of a block.

    Raises:
        Unsupported: attention node by node takes less time.
    """
    queries, keys, *_ = laid.sizes
    warps = math.prod(laid.batch) * math.ceil(queries / _ROWS)
    shared = _sharing(laid, multiprocessors)
    if shared is not None:
        return shared
    few = _FEW if keys <= _TILE * _SPLIT else _SOME
    if queries < _ROWS or warps < few * multiprocessors:
        raise Unsupported(f"few queries in FP32: {queries}")
    if min(queries, keys) >= _LONG and warps >= _ALL_BUSY * multiprocessors and laid.elements <= _TILE:
        return Warps(
            4, 2 * _ROWS
        )  # 497 us in place of 551 for 4 x 16 heads x 1024 x 1024 x 64, 117 in place of 99 for 16 x 12 x 197 x 197 x 64
    return Warps(4 if warps >= _MANY * multiprocessors else 2)


def _sharing(laid: Laid, multiprocessors: int) -> Warps | None:
    """Warps that share queries, where all blocks have room at once; values apart, where they then still have."""
    queries, keys, *_ = laid.sizes
    if queries < _ROWS or not _TILE < keys <= _TILE * _SPLIT or laid.elements > _TILE:
        return None
    split = 2 if keys <= 2 * _TILE else _SPLIT
    blocks = math.prod(laid.batch) * math.ceil(queries / (2 * _ROWS))
    tried = (Warps(2, split=split, apart=apart) for apart in (True, False))
    return next((one for one in tried if blocks <= one.blocks(_TILE + 4) * multiprocessors), None)


def launch(queue: Queue, laid: Laid, around: Around, kept: Sequence[Tensor], variant: Warps, *, once: bool) -> None:
    """Compute attention in FP32.

    Args:
        kept: what steps store, in order.
        once: the keys are walked over once; nothing is done to weights.
    """
    (queries, keys, depth, width), (*read, y) = laid.sizes, laid.operands
    depth, width = -(-depth // 16) * 16, -(-width // 64) * 64
    assert y.format and read[0].format
    row = max(depth, width) + 4
    splits = variant.split > 1
    assert not splits or keys <= _TILE * variant.split
    own = (
        (("SPLIT", variant.split), ("HELD", int(not once)), ("APART", int(variant.apart)))
        if splits
        else (("TWICE", int(not once)),)
    )
    macros = (
        ("TY", y.format.name), ("DEPTH", depth), ("WIDTH", width), ("ACROSS", 256 // variant.rows), ("QUERY_WARPS", variant.warps), ("BLOCKS", variant.blocks(row)), *own, *around.macros,
    )  # fmt: skip
    file, entry = (SPLIT_FILE, "attention_simt_split") if splits else (FILE, "attention_simt")
    text = text_of(around, read[0].format.name, even=keys % 2 == 0, file=file)
    queue.launch(
        Source(file, entry, macros, text, contract=False), math.prod(laid.batch) * math.ceil(queries / variant.queries),
        32 * variant.warps * variant.split, *map(queue.at, laid.operands), *laid.beside, *map(queue.at, kept), laid.problem,
        shared_bytes=variant.shared_bytes(row),
    )  # fmt: skip
