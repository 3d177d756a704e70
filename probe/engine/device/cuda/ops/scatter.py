"""ScatterND and ScatterElements that combine what they place with what is there: in the order of the updates, so that sums have the same bits in every run."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.numbers import LONGEST
from probe.engine.device.cuda.ops.topk import in_order
from probe.engine.device.cuda.tensors.formats import I64

if TYPE_CHECKING:
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

_THREADS = 256
_FEWER = 4  # times fewer places than updates, so that each looks for its first update
_HOW = {"add": "ADD", "mul": "MUL", "max": "MAX", "min": "MIN"}


def combined(
    queue: Queue, how: str, tensors: tuple[Tensor, Tensor, Tensor, Tensor], numbers: Sequence[int], *, elements: bool
) -> None:
    """Combine updates with what stands at their places.

    Args:
        how: add, mul, max or min.
        tensors: data, indices, updates, and what is made, which holds the data already.
        numbers: ``Indexed`` of kernels/scatter.cu, without the number of updates: extents and steps of the axes, axis, extent.
        elements: an index along one axis for every element, not tuples.

    Raises:
        Unsupported: too many places, or truth values.
    """
    x, indices, u, y = tensors
    assert x.format is not None and indices.format is not None and u.format is not None and y.format is not None
    rank = len(numbers) // 2 - 1
    updates = indices.size if elements else indices.size // rank
    if how not in _HOW or x.format.register == "bool":
        raise Unsupported(f"combining {x.format.name} by {how}")
    if not u.size:
        return
    inner = u.size // updates
    if y.size // inner >= 1 << 32 or updates >= LONGEST:
        raise Unsupported(f"{updates} updates of {y.size // inner} places")
    items = queue.empty((updates,), I64)
    given: Any = (ctypes.c_longlong * (len(numbers) + 1))(*numbers, updates)
    macros = (("TI", indices.format.name), ("RANK", rank), ("ELEMENTS", int(elements)), ("ENTRY_ITEMS", 1))
    queue.launch(
        Source("scatter.cu", "scatter_items", macros), math.ceil(updates / _THREADS), _THREADS, queue.at(indices), queue.at(items), queue.fault(),
        given,
    )  # fmt: skip
    items = in_order(queue, items, y.size // inner)
    wide = max(u.size, y.size) >= 1 << 31
    index = ctypes.c_longlong if wide else ctypes.c_uint
    searched = y.size // inner <= updates // _FEWER
    threads = y.size // inner if searched else updates
    macros = (
        ("TX", x.format.name), ("TU", u.format.name), ("TY", y.format.name), ("HOW", _HOW[how]), ("INDEX", "i64" if wide else "unsigned"),
        ("SEARCHED", int(searched)), ("ENTRY_COMBINE", 1),
    )  # fmt: skip
    queue.launch(
        Source("scatter.cu", "scatter_combine", macros), math.ceil(threads * inner / _THREADS), _THREADS, *map(queue.at, (items, x, u, y)),
        *map(index, (threads, updates, inner)),
    )  # fmt: skip
