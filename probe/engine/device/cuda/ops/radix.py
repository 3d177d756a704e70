"""Rows sorted by radix: digits of the key, from the lowest."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.numbers import int32
from probe.engine.device.cuda.tensors.formats import I32

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.ranking import Ranking
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

_THREADS = 256
_OWN = (16, 8)  # items of a thread at most; wide ones
_EACH = 16  # elements that a thread counts
_DIGIT = 256  # values of a digit
_MOST = 1 << 30  # elements of a row


def sorted_by_radix(queue: Queue, ranking: Ranking, low: int, passes: int) -> Tensor | None:
    """The first ``ranking.k`` of each row of ``ranking.x`` in order; items, where it holds items.

    Args:
        low: digits of the key, from its lowest, that are the same for all of a row.
        passes: digits from there that it is sorted by.

    Raises:
        Unsupported: rows are too long.
    """
    one = ranking
    if one.cols >= _MOST:
        raise Unsupported(f"{one.cols:,} elements in order: more than 30 bits count")
    last = not one.items
    made = one.empty_items(queue, one.rows * one.k) if one.items else None
    if one.cols <= one.size:
        own = max(1 << (math.ceil(one.cols / _THREADS) - 1).bit_length(), 1)
        source = one.source("radix.cu", "radix_tile", ("PASSES", passes), ("OWN", own), first=last, last=last)
        numbers = (ctypes.c_longlong(one.cols), int32(one.k), int32(low))
        queue.launch(source, one.rows, _THREADS, queue.at(one.x), *one.results(queue, made), *numbers)
        return made
    own = _OWN[one.wide]
    tiles = math.ceil(one.cols / (_THREADS * own))
    counted, said = one.rows * _DIGIT, one.rows * tiles * _DIGIT
    words = queue.empty((passes * (counted + said + 1),), I32)
    counts, told = words.part((passes * counted,), 0), words.part((passes * said,), 4 * passes * counted)
    taken = words.part((passes,), 4 * passes * (counted + said))
    clear = one.source("radix.cu", "radix_clear", first=last, last=last)
    queue.launch(clear, math.ceil(words.size / _THREADS), _THREADS, queue.at(words), ctypes.c_longlong(words.size))
    blocks = math.ceil(one.cols / (_THREADS * _EACH))
    queue.launch(
        one.source("radix.cu", "radix_count", ("PASSES", passes), first=last, last=last), one.rows * blocks, _THREADS,
        *map(queue.at, (one.x, counts)), ctypes.c_longlong(one.rows), ctypes.c_longlong(one.cols), int32(blocks), int32(low),
    )  # fmt: skip
    items: Tensor | None = None
    for at in range(passes):
        ends = at + 1 == passes
        to = made if ends else one.empty_items(queue, one.rows * one.cols)
        source = one.source("radix.cu", "radix_pass", ("OWN", own), first=last and not items, last=last and ends)
        parts = (counts.part((counted,), 4 * at * counted), told.part((said,), 4 * at * said), taken.part((1,), 4 * at))
        queue.launch(
            source, one.rows * tiles, _THREADS, queue.at(items or one.x), *one.results(queue, to), *map(queue.at, parts),
            ctypes.c_longlong(one.cols), int32(tiles), ctypes.c_longlong(one.k), int32(low + at),
        )  # fmt: skip
        items = to
    return made
