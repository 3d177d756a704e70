"""Attention in FP32 (kernels/attention_simt.cu): which layers, and how many warps a block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.ops.attention_code import Around, text_of

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.attention_wgmma import Laid
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

FILE = "attention_simt.cu"
_ROWS = 16  # queries of a warp
_TILE = 64  # keys
_LONG = 1024  # queries and keys
_SHARED = 228 << 10  # bytes of a multiprocessor; 1024 more a block than it asks for
_FEW, _MANY, _ALL_BUSY, _MOST = 4, 16, 30, 8  # warps a multiprocessor; the last: of 32 queries at once


@dataclass(frozen=True, slots=True)
class Warps:
    """How the kernel is compiled.

    Attributes:
        warps: of a block.
        rows: queries of a warp: 16 or 32.
    """

    warps: int
    rows: int = _ROWS

    def __str__(self) -> str:
        return f"attention {self.queries}x{_TILE} fp32" + " 32 a warp" * (self.rows > _ROWS)

    @property
    def queries(self) -> int:
        """Of a block."""
        return self.rows * self.warps

    def shared_bytes(self, row: int) -> int:
        """Of a block.

        Args:
            row: elements of a row in shared memory.
        """
        return ((self.queries + 2 * _TILE) * row + self.queries * (_TILE + 4)) * 4


def choose_warps(laid: Laid, multiprocessors: int) -> Warps:
    """Warps of a block.

    Raises:
        Unsupported: attention node by node takes less time.
    """
    queries, keys, *_ = laid.sizes
    warps = math.prod(laid.batch) * math.ceil(queries / _ROWS)
    if queries < _ROWS or warps < _FEW * multiprocessors:
        raise Unsupported(f"few queries in FP32: {queries}")
    if min(queries, keys) >= _LONG and warps >= _ALL_BUSY * multiprocessors and laid.elements <= _TILE:
        return Warps(
            4, 2 * _ROWS
        )  # 497 us in place of 551 for 4 x 16 heads x 1024 x 1024 x 64, 117 in place of 99 for 16 x 12 x 197 x 197 x 64
    return Warps(4 if warps >= _MANY * multiprocessors else 2)


def launch(queue: Queue, laid: Laid, around: Around, kept: Sequence[Tensor], variant: Warps, *, once: bool) -> None:
    """Compute attention in FP32.

    Args:
        kept: what steps store, in order.
        once: the keys are walked over once; nothing is done to weights.
    """
    (queries, keys, depth, width), (*read, y) = laid.sizes, laid.operands
    depth, width = -(-depth // 16) * 16, -(-width // 64) * 64
    assert y.format and read[0].format
    shared = variant.shared_bytes(max(depth, width) + 4)
    blocks = (
        max(min(_SHARED // (shared + 1024), _MOST // variant.warps), 1)
        if variant.rows > _ROWS
        else _SHARED // (shared + 1024)
    )
    macros = (
        ("TY", y.format.name), ("DEPTH", depth), ("WIDTH", width), ("QUERY_WARPS", variant.warps), ("ACROSS", 256 // variant.rows), ("BLOCKS", blocks), ("TWICE", int(not once)), *around.macros,
    )  # fmt: skip
    text = text_of(around, read[0].format.name, even=keys % 2 == 0, file=FILE)
    queue.launch(
        Source(FILE, "attention_simt", macros, text, contract=False), math.prod(laid.batch) * math.ceil(queries / variant.queries),
        32 * variant.warps, *map(queue.at, laid.operands), *laid.beside, *map(queue.at, kept), laid.problem,
        shared_bytes=shared,
    )  # fmt: skip
