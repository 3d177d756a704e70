"""Attention on sm_90a's tensor cores (kernels/attention_wgmma.cu, attention_held.cu): which layers, in tiles of which size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.ops.attention.attention_code import Around, Steps, text_of
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, Format
from probe.engine.device.cuda.tensors.maps import SWIZZLED, TileLayout, TileMap

if TYPE_CHECKING:
    from probe.engine.device.cuda.backend import Argument
    from probe.engine.device.cuda.ops.attention.attention import Attention
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

FILE, HELD_FILE, ARCH = "attention_wgmma.cu", "attention_held.cu", "sm_90a"
_ROWS = 64  # queries of a warpgroup; rows of a tile of values
_NARROW, _WIDEST = 64, 128  # elements of a query or value
_SHARED = 226 << 10  # bytes
_MOST_STAGES = 8

_HELD, _LONG = 256, 512  # keys
_THREE = 0.94  # of the time of two groups, for as many queries, take three
_PART = 32  # keys whose values are transposed together, in TF32

Sizes = tuple[int, int, int, int]
_OPERANDS = ("queries", "keys", "values")  # of Around


@dataclass(frozen=True, slots=True)
class Groups:
    """How the kernel is compiled.

    Attributes:
        groups: warpgroups that compute, each with 64 queries.
        tile: keys that come at once.
        holds: queries in registers; else products read them from shared memory.
        sets: of scores in registers.
    """

    groups: int
    tile: int
    holds: bool = False
    sets: int = 2
    may_walk_once = True

    def __str__(self) -> str:
        return (
            f"attention {self.queries}x{self.tile} wgmma{' queries held' * self.holds}{' one set' * (self.sets == 1)}"
        )

    @property
    def queries(self) -> int:
        """Of a block."""
        return _ROWS * self.groups

    @property
    def threads(self) -> int:
        return 128 * (self.groups + 1)

    def stages(self, row: int) -> int:
        """Tiles under way.

        Args:
            row: bytes of a query or value as the kernel is compiled.
        """
        return min(_MOST_STAGES, (_SHARED - self.queries * row) // (self.tile * row))

    def shared_bytes(self, row: int) -> int:
        """Of a block; 1024 to begin on a multiple of that."""
        return (self.queries + self.stages(row) * self.tile) * row + 1024


@dataclass(frozen=True, slots=True)
class Held:
    """How kernels/attention_held.cu is compiled: a block is a warpgroup with 64 queries, whose scores its registers hold.

    Attributes:
        keys: at most, a multiple of 16.
        turns: 64 queries of a block, one after the other; 1 in TF32.
    """

    keys: int
    turns: int = 1
    may_walk_once = False  # it does, whatever is asked

    def __str__(self) -> str:
        return f"attention {_ROWS * self.turns} wgmma held {self.keys}"

    @property
    def blocks(self) -> int:
        """Of a multiprocessor, by their registers: half a score each, sums and what is computed with."""
        return 2 if self.keys > 208 else 3 if self.keys > 128 else 4

    def shared_bytes(self, stored: Format) -> int:
        """Of a block; 1024 to begin on a multiple of that. In TF32 values lie where keys were.

        Args:
            stored: format of the operands.
        """
        keys = -(-self.keys // _PART) * _PART if stored is F32 else 2 * self.keys
        return (_ROWS * self.turns + keys) * stored.bytes * _NARROW + 1024


@dataclass(frozen=True, slots=True)
class Laid:
    """Attention with all that a launch needs to know.

    Attributes:
        operands: q, k, v, and where the result goes.
        steps: of each: elements from one to the next along the batch axes, rows and columns.
        batch: extents of the two batch axes.
        sizes: queries, keys, elements of a query, of a value.
        beside: arguments that follow the operands: what steps read and where that lies.
        problem: the kernel's last argument.
    """

    operands: tuple[Tensor, Tensor, Tensor, Tensor]
    steps: Sequence[tuple[int, ...]]
    batch: tuple[int, int]
    sizes: Sizes
    beside: tuple[Argument, ...]
    problem: Argument

    @property
    def elements(self) -> int:
        """Of a query or value, as the kernel is compiled."""
        return _NARROW if max(self.sizes[2:]) <= _NARROW else _WIDEST

    def layouts(self, tile: int, values: int = _ROWS, rounds: Sequence[bool] = (False,) * 3) -> tuple[TileLayout, ...]:
        """How copies read q, k and v.

        Args:
            tile: rows of k at once; ``values``: of v.
            rounds: which of them to TF32.
        """
        queries, keys, depth, width = self.sizes
        matrices = zip((queries, keys, keys), (depth, depth, width), (_ROWS, tile, values), strict=True)
        return tuple(
            replace(_layout(self.operands[at], self.steps[at], self.batch, one), rounds=rounds[at])
            for at, one in enumerate(matrices)
        )


def _layout(x: Tensor, steps: tuple[int, ...], batch: tuple[int, int], matrix: tuple[int, int, int]) -> TileLayout:
    """A stack of matrices.

    Args:
        matrix: rows, elements of a row, rows of a tile.
    """
    rows, line, tall = matrix
    found = x.format
    assert found
    axes = [(rows, steps[2]), *((n if by else 1, by) for n, by in ((batch[1], steps[1]), (batch[0], steps[0])))]
    strides, dense = [], line
    for extent, by in axes:
        dense = by if extent > 1 else -(-dense // 8) * 8  # an axis of one element has no stride of its own
        strides.append(dense * found.bytes)
        dense *= extent
    extents = (line, *(extent for extent, _ in axes))
    return TileLayout(found, extents, tuple(strides), (SWIZZLED // found.bytes, tall, 1, 1))


def takes(what: Attention, laid: Laid, arch: str) -> bool:
    """Whether the kernel computes it."""
    stored = laid.operands[0].format
    return (
        arch == ARCH
        and (stored in (F16, BF16) or what.tf32)
        and not _unrounded(what.values_first).steps
        and max(laid.sizes[2:]) <= _WIDEST
        and all(one.possible for one in laid.layouts(_ROWS))
    )


def choose_groups(laid: Laid, multiprocessors: int, *, wide: bool, masked: bool = False) -> Groups | Held | None:
    """Tiles of what ``takes`` has nothing against; None where attention.cu takes less time, by what an H200 took.

    Args:
        wide: nothing rounds weights.
        masked: steps read something for each score or key.
    """
    queries, keys, *_ = laid.sizes
    tall, narrow, tf32 = math.ceil(queries / _ROWS), laid.elements == _NARROW, laid.operands[0].format is F32
    blocks = math.prod(laid.batch) * tall
    if narrow and keys <= _HELD and 4 * queries >= 3 * _ROWS and 3 * blocks >= multiprocessors:
        held = Held(-(-keys // 16) * 16)
        several = blocks > multiprocessors * held.blocks and tall % 2 == 0  # rounds of blocks
        fits = not wide and not tf32 and (not masked or held.blocks == 2)  # registers do
        return replace(held, turns=2) if several and fits and keys > 2 * _ROWS else held
    if tf32:
        return Groups(2, 64, holds=narrow) if keys > 2 * _ROWS and 3 * blocks >= 2 * multiprocessors else None
    if keys < _LONG or blocks < multiprocessors:
        return None
    if not narrow:
        two, three = Groups(2, 64, holds=not wide), Groups(3, 64, sets=1)
        rows = [
            one.queries * math.ceil(math.prod(laid.batch) * math.ceil(queries / one.queries) / multiprocessors)
            for one in (two, three)
        ]
        return three if _THREE * rows[1] < rows[0] else two
    return Groups(2 if wide else 3, 64, holds=wide)  # as registers allow


def launch(
    queue: Queue, laid: Laid, around: Around, kept: Sequence[Tensor], variant: Groups, *, wide: bool, once: bool
) -> None:
    """Compute what ``takes`` says that the kernel does.

    Args:
        kept: what steps store, in order.
        wide: nothing rounds weights.
        once: the keys are walked over once; nothing is done to weights.
    """
    elements, (queries, keys, *_), (*read, y) = laid.elements, laid.sizes, laid.operands
    stored, store = read[0].format, y.format
    assert stored and store
    row, tf32 = elements * stored.bytes, stored is F32
    around, rounds = _as_copied(around, stored)
    macros = (
        ("TAB", stored.name), ("TY", store.name), ("DEPTH", elements), ("WIDTH", elements), ("CONSUMERS", variant.groups), ("BK", variant.tile),
        ("STAGES", variant.stages(row)), ("ONLINE", int(once)), ("HOLD_QUERIES", int(variant.holds)), ("SETS", variant.sets),
        *around.macros, ("WIDE", int(wide)), ("TF32", int(tf32)),
    )  # fmt: skip
    source = Source(
        FILE, "attention_wgmma", macros, text_of(around, stored.name, even=keys % 2 == 0, file=FILE), contract=False
    )
    layouts = laid.layouts(variant.tile, _PART if tf32 else _ROWS, rounds)
    maps = (TileMap(one.address(queue.backend), layout) for one, layout in zip(read, layouts, strict=True))
    queue.launch(
        source, math.prod(laid.batch) * math.ceil(queries / variant.queries), variant.threads, *maps, queue.at(y), *laid.beside,
        *map(queue.at, kept), laid.problem, shared_bytes=variant.shared_bytes(row),
    )  # fmt: skip


def launch_held(queue: Queue, laid: Laid, around: Around, kept: Sequence[Tensor], variant: Held, *, wide: bool) -> None:
    """The same where a warpgroup holds the scores of its queries; in TF32, too."""
    (queries, keys, *_), (*read, y) = laid.sizes, laid.operands
    stored, store = read[0].format, y.format
    assert stored and store
    tf32 = stored is F32
    around, rounds = _as_copied(around, stored)
    blocks = (
        min(variant.blocks, 2) if tf32 and variant.keys > 2 * _ROWS else variant.blocks
    )  # weights are numbers of 32 bits
    macros = (
        ("TAB", stored.name), ("TY", store.name), ("DEPTH", _NARROW), ("WIDTH", _NARROW), ("BK", variant.keys), ("BLOCKS", blocks),
        ("TURNS", variant.turns), *around.macros, ("WIDE", int(wide)), ("TF32", int(tf32)),
    )  # fmt: skip
    text = text_of(around, stored.name, even=keys % 2 == 0, file=HELD_FILE)
    layouts = laid.layouts(variant.keys, _PART if tf32 else variant.keys, rounds)
    maps = (TileMap(one.address(queue.backend), layout) for one, layout in zip(read, layouts, strict=True))
    queue.launch(
        Source(HELD_FILE, "attention_held", macros, text, contract=False), math.prod(laid.batch) * math.ceil(queries / (_ROWS * variant.turns)), 128, *maps,
        queue.at(y), *laid.beside, *map(queue.at, kept), laid.problem, shared_bytes=variant.shared_bytes(stored),
    )  # fmt: skip


def _as_copied(around: Around, stored: Format) -> tuple[Around, list[bool]]:
    """What is left to do where copies round to TF32, and which operands they round."""
    if stored is not F32:
        return around, [False] * len(_OPERANDS)
    first = (around.queries, around.keys, around.values)
    left = {name: _unrounded(one) for name, one in zip(_OPERANDS, first, strict=True)}
    return replace(around, **left), [not one.steps for one in left.values()]


def _unrounded(steps: Steps) -> Steps:
    """What is left of the steps before a product where copies round to TF32: a rounding alone is theirs."""
    only, *more = steps.steps or (None,)
    rounds = only is not None and not more and (only.expression, only.rounding) == ("sum", "tf32")
    return Steps() if rounds else steps
