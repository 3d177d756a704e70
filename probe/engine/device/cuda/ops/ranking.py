"""What is brought into order, and what kernels that do so are given."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.tensors.formats import I64, Format

if TYPE_CHECKING:
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

_SHARED = 32 << 10  # bytes of the items that a block sorts


@dataclass(frozen=True, slots=True)
class Ranking:
    """What the k best are taken of.

    Attributes:
        x: dense rows of ``cols`` elements.
        y: their values, in any float format.
        places: where they are in their rows.
        least: the smallest are the best.
        items: ``x`` holds items (kernels/topk.cu) of 64 bits; what is made of them are items.
    """

    x: Tensor
    y: Tensor
    places: Tensor
    rows: int
    cols: int
    k: int
    least: bool
    items: bool = False

    @property
    def wide(self) -> bool:
        """Whether an element and its place take more than 64 bits."""
        return self.x.format is I64 and not self.items

    @property
    def size(self) -> int:
        """Items that a block sorts at most."""
        return _SHARED // (16 if self.wide else 8)

    @property
    def key_bytes(self) -> int:
        """Of an element's key those that are not 0 for all."""
        assert self.x.format is not None
        return self.x.format.bytes

    def empty_items(self, queue: Queue, count: int) -> Tensor:
        return queue.empty((count, 2) if self.wide else (count,), I64)

    def source(self, file: str, entry: str, *sizes: tuple[str, int], first: bool, last: bool) -> Source:
        """A kernel over this.

        Args:
            entry: its macro follows from its last word.
            first: it reads elements, not items.
            last: it writes elements and places, not items.
        """
        macros = (
            ("TX", _name(self.x.format)), ("TY", _name(self.y.format)), ("WIDE", int(self.wide)), ("LEAST", int(self.least)), ("FIRST", int(first)),
            ("LAST", int(last)), *sizes, (f"ENTRY_{entry.rpartition('_')[2].upper()}", 1),
        )  # fmt: skip
        return Source(file, entry, macros)

    def results(self, queue: Queue, items: Tensor | None) -> tuple[object, ...]:
        """The kernels' ``RESULTS``."""
        return (*map(queue.at, (self.x, self.y, self.places, items)), ctypes.c_longlong(self.cols))


def _name(form: Format | None) -> str:
    assert form is not None
    return form.name
