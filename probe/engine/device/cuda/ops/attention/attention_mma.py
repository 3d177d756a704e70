"""Attention on the tensor cores of any GPU from sm_80 on (kernels/attention.cu): its variants, and which of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.ops.attention.attention_code import FILE, Around, text_of
from probe.engine.device.cuda.tensors.formats import F32

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.attention.attention_wgmma import Laid
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

_REGISTERS = 1 << 16  # of a multiprocessor
_HELD = 240  # keys whose scores fit into the registers of a warp
_LONG = 512  # keys that eight warps share
_HALF_WIDEST = 128


@dataclass(frozen=True, slots=True)
class Variant:
    """How the kernel is compiled.

    Attributes:
        warps: of a block, along the queries; each has 16.
        split: warps that share queries, each with a part of the keys.
        tile: keys that come at once.
        stages: tiles under way.
        held: keys whose scores are kept in registers; 0: the keys are walked over twice.
        registers: of a thread, at most.
        rows: queries of a warp, in 16; more than 1 where nobody shares them.
    """

    warps: int
    split: int
    tile: int
    stages: int
    held: int
    registers: int = 255
    rows: int = 1

    def __str__(self) -> str:
        shared = f" split {self.split}" * (self.split > 1)
        return f"attention {self.queries}x{self.tile}{shared}" + (f" held {self.held}" if self.held else " twice")

    @property
    def may_walk_once(self) -> bool:
        return not self.held and self.split == 1

    @property
    def queries(self) -> int:
        """Of a block."""
        return 16 * self.rows * self.warps

    @property
    def threads(self) -> int:
        return 32 * self.warps * self.split

    @property
    def blocks(self) -> int:
        """Of a multiprocessor, by their registers."""
        return max(_REGISTERS // (self.registers * self.threads), 1)

    def shared_bytes(self, row_bytes: int, width: int) -> int:
        """Of a block.

        Args:
            row_bytes: of a row in shared memory.
            width: elements of a result, padded.
        """
        rows, sums, room = self.queries, 0, 0
        if self.split > 1:
            sums, room = self.split * rows * (width + 8) * 4, 2 * self.split * rows * 4
        return room + rows * row_bytes + max(self.stages * self.tile * row_bytes, sums)


def launch(
    queue: Queue, laid: Laid, around: Around, kept: Sequence[Tensor], variant: Variant, *, wide: bool, once: bool
) -> None:
    """Compute attention in FP16, BF16 or TF32.

    Args:
        kept: what steps store, in order.
        wide: nothing rounds weights.
        once: the keys are walked over once; nothing is done to weights.
    """
    (queries, keys, depth, width), (*read, y) = laid.sizes, laid.operands
    stored, store = read[0].format, y.format
    assert stored and store
    padded = -(-width // 16) * 16
    row_bytes = max(-(-depth // 16) * 16, padded) * stored.bytes + 16
    if variant.shared_bytes(row_bytes, padded) > queue.backend.shared_limit:
        variant = replace(variant, warps=1, tile=max(32, 16 * variant.split), stages=2)
    macros = (
        ("TAB", stored.name), ("TY", store.name), ("DEPTH", -(-depth // 16) * 16), ("WIDTH", padded),
        ("QUERY_WARPS", variant.warps), ("SPLIT", variant.split), ("EACH_WARP", variant.rows), ("BK", variant.tile), ("STAGES", variant.stages),
        ("BLOCKS", variant.blocks), ("HELD", int(variant.held > 0)), ("KEYS", variant.held), *around.macros, ("WIDE", int(wide)),
        ("TF32", int(stored is F32)), ("ONCE", int(once)),
    )  # fmt: skip
    source = Source(FILE, "attention", macros, text_of(around, stored.name, even=keys % 2 == 0), contract=False)
    queue.launch(
        source, math.prod(laid.batch) * math.ceil(queries / variant.queries), variant.threads, *map(queue.at, laid.operands), *laid.beside,
        *map(queue.at, kept), laid.problem, shared_bytes=variant.shared_bytes(row_bytes, padded),
    )  # fmt: skip


def choose(queries: int, keys: int, elements: int, batches: int, multiprocessors: int) -> Variant:
    """The variant that should take least time, by what an H200 took.

    Args:
        elements: of two bytes of a query or a value, whichever is longer.
    """
    held = -(-keys // 16) * 16
    warps = 4 if math.ceil(queries / 64) * batches >= multiprocessors else 2 if 16 < queries <= 32 else 1
    split = 1
    if warps < 4:  # warps hide one another's waiting: ten of them on a multiprocessor, or as near to that as keys allow
        blocks = math.ceil(queries / (16 * warps)) * batches
        splits = (1, 2, 4) if keys < _LONG else (1, 2, 4, 8)
        enough = (one for one in splits if blocks * warps * one >= 10 * multiprocessors or keys <= 32 * one)
        split = next(enough, splits[-1])
    tile = max(64, 16 * split)
    if held > _HELD * split or (elements > _HALF_WIDEST and held > 128 * split):
        if elements > _HALF_WIDEST:
            return Variant(warps, min(split, 2), 32, 2, 0)
        few = (128 if elements <= _HALF_WIDEST // 2 else 168) if split == 1 else 255
        return Variant(warps, split, tile, 3, 0, few)
    stages = min(4 if elements <= _HALF_WIDEST // 2 and tile == 64 else 2, 2 * -(-held // tile))
    room = held // 2 + elements // 4  # registers of scores and queries, where nobody shares them
    few = 255 if split > 1 else 128 if room <= 80 else 168 if room <= 120 else 255
    return Variant(warps, split, tile, stages, held, few)
