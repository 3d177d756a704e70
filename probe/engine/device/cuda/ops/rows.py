"""How many threads take a row, shared by what reduces rows: softmax, norms, sums."""

from __future__ import annotations

from dataclasses import dataclass

from probe.engine.device.cuda.tensors.layout import width

_HELD = 32  # floats of a row that a thread holds in registers: with 1024 threads a block, a thread has 64 of them
_WIDE = 16  # bytes an access
_BLOCK = 128  # threads of a block that holds several rows
_EXACT = 4  # accesses a thread up to which kernels are compiled for every number of them


@dataclass(frozen=True, slots=True)
class Rows:
    """Threads a row, rows a block, elements a thread reads at once, how often it does (0: as often as it takes)."""

    threads: int
    rows: int
    lanes: int
    items: int

    @property
    def block(self) -> int:
        return self.threads * self.rows


def rows_for(cols: int, widest: int, *, held: bool, step: int = 0, deep: bool = False) -> Rows:
    """A warp for short rows, up to 1024 threads for long ones.

    Args:
        widest: bytes of the widest element read or written.
        held: the row has to fit into registers; ``items`` is 0 when it does not.
        step: an access must not reach over a multiple of this; 0: it may.
        deep: a warp takes as much as its registers hold, by wide accesses, before more threads share a row.
    """
    lanes = width(max(_WIDE // widest, 1), cols, step)
    while (
        lanes > 1 and cols < 32 * lanes
    ):  # a warp has work for every thread before a thread has work for a wide access
        lanes //= 2
    accesses = -(-cols // lanes)
    if deep and lanes * widest >= _WIDE and -(-accesses // 32) * lanes <= _HELD:
        return Rows(32, _BLOCK // 32, lanes, -(-accesses // 32))
    threads = 32
    while threads < 1024 and accesses > threads * 4:
        threads *= 2
    items = -(-accesses // threads)
    items = items if items <= _EXACT else 1 << (items - 1).bit_length()
    if held and items * lanes > _HELD:
        items = 0
    return Rows(threads, _BLOCK // 32 if threads == 32 else 1, lanes, items)
