"""TopK; and items brought into order, for whoever needs them so."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.numbers import LONGEST, int32
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.copies import lying_of, placed, transposed
from probe.engine.device.cuda.tensors.formats import I64, Format

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

_THREADS = 256  # of topk_merge
_SHARED = 32 << 10  # bytes of the items that a block sorts
_SMALLEST = 512  # items that a block sorts at least
_OWN = (16, 8)  # items that a thread sorts in registers; wide ones
_SORTED_WHOLE = 256  # elements of a row up to which it is sorted whatever k is
_FEW = 4  # a row is searched, not sorted, where it has this many times k elements
_SPAN = 8192  # elements that a block searches; they stay in its L1 cache from digit to digit
_OPSET_OF_INPUT = 10  # of the standard, from which on k is an input


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


def top_k(queue: Queue, call: Call) -> list[Tensor | None]:
    """Of equal elements the first comes first, as in ONNX Runtime; NaN is larger than every number, as in numpy: ONNX Runtime's answer follows from the
    algorithm it chose. Sorted, whether it is asked for or not."""
    x = call.data(0)
    given = call.numbers(1, queue) if call.opset >= _OPSET_OF_INPUT else [call.int("k", -1)]
    axis = call.int("axis", -1)
    if not x.shape or given is None or len(given) != 1 or not -len(x.shape) <= axis < len(x.shape):
        raise Unsupported("TopK of a scalar")
    k, axis = given[0], axis % len(x.shape)
    cols = x.shape[axis]
    if not 0 <= k <= cols:
        raise Unsupported(f"the {k} best of {cols}")
    assert x.format is not None
    if x.format.register == "bool":
        raise Unsupported("TopK of bool")
    order = [at for at in range(len(x.shape)) if at != axis] + [axis]
    shape = (*(x.shape[at] for at in order[:-1]), k)
    store = call.like(x)
    y, places = queue.empty(shape, store), queue.empty(shape, I64)
    if y.size:
        dense = transposed(queue, x, order)
        ranked(queue, Ranking(dense, y, places, y.size // k, cols, k, least=not call.int("largest", 1)))
    back = [order.index(at) for at in range(len(order))]
    return [
        placed(queue, lying_of(queue, one).permuted(back))
        if y.size
        else one.view((*x.shape[:axis], k, *x.shape[axis + 1 :]))
        for one in (y, places)
    ]


def ranked(queue: Queue, ranking: Ranking) -> None:
    """Fill ``ranking.y`` and ``ranking.places``.

    Raises:
        Unsupported: rows that are too long.
    """
    one, cols = ranking, ranking.cols
    if cols >= LONGEST:
        raise Unsupported(f"the best of {cols:,}: more than 31 bits count")
    items: Tensor | None = None
    if one.k > one.size:
        lists = math.ceil(cols / one.size)
        items = _items(queue, one.rows * lists * one.size, wide=one.wide)
        _sort(queue, one, None, items, cols, one.size, lists)
        _merged(queue, one, items, lists, one.size)
        return
    while cols > max(_SORTED_WHOLE, min(_FEW * one.k, one.size)):
        parts = _parts(queue, one, cols)
        kept = _items(queue, one.rows * parts * one.k, wide=one.wide) if parts > 1 else None
        _select(queue, one, items, kept, cols, parts)
        if kept is None:
            return
        items, cols = kept, parts * one.k
    _sort(queue, one, items, None, cols, one.k, 1)


def in_order(queue: Queue, items: Tensor) -> Tensor:
    """Items, of which no two are equal, the largest first."""
    one = Ranking(items, items, items, 1, items.size, items.size, least=False, items=True)
    lists = math.ceil(one.cols / one.size)
    if lists == 1:
        made = _items(queue, one.cols, wide=False)
        _sort(queue, one, items, made, one.cols, one.cols, 1)
        return made
    parts = _items(queue, lists * one.size, wide=False)
    _sort(queue, one, items, parts, one.cols, one.size, lists)
    return _merged(queue, one, parts, lists, one.size)


def _merged(queue: Queue, ranking: Ranking, items: Tensor, lists: int, length: int) -> Tensor:
    """Sorted lists of items become one, and its first are the result."""
    while lists > 1:
        pairs, kept = math.ceil(lists / 2), min(2 * length, ranking.k)
        last = pairs == 1 and not ranking.items
        total = ranking.rows * pairs * 2 * length
        to = None if last else _items(queue, ranking.rows * pairs * kept, wide=ranking.wide)
        numbers = (ctypes.c_longlong(one) for one in (lists, length, kept, total))
        source = _source(ranking, "merge", ("THREADS", _THREADS), ("HELD", 1), first=False, last=last)
        queue.launch(
            source, math.ceil(total / _THREADS), _THREADS, queue.at(items), *_results(queue, ranking, to), *numbers
        )
        items, lists, length = to or items, pairs, kept
    return items


def _parts(queue: Queue, ranking: Ranking, cols: int) -> int:
    """How many blocks search a row: so that each has a stretch of its own to search, and the machine has enough of them."""
    span = max(_SPAN, 2 * _FEW * ranking.k)
    if ranking.rows * cols < span * queue.backend.multiprocessors:
        span = max(_SPAN // 4, 2 * _FEW * ranking.k)
    return max(cols // span, 1)


def _items(queue: Queue, count: int, *, wide: bool) -> Tensor:
    return queue.empty((count, 2) if wide else (count,), I64)


def _sort(
    queue: Queue, ranking: Ranking, items: Tensor | None, to: Tensor | None, cols: int, k: int, parts: int
) -> None:
    """Rows, or parts of rows, that a block holds.

    Args:
        to: where items go; None: they are the result.
        k: of each part.
    """
    size = max(1 << (cols - 1).bit_length(), 2) if parts == 1 else ranking.size
    count = ranking.rows * parts
    segments = max(_SMALLEST // size, 1)
    threads = max(size * segments // _OWN[ranking.wide], 32)
    source = _source(
        ranking,
        "sort",
        ("THREADS", threads),
        ("HELD", size),
        ("SEGMENTS", segments),
        first=items is None,
        last=to is None,
    )
    numbers = (ctypes.c_longlong(count), ctypes.c_longlong(parts), ctypes.c_longlong(cols), int32(k))
    queue.launch(
        source,
        math.ceil(count / segments),
        threads,
        queue.at(items or ranking.x),
        *_results(queue, ranking, to),
        *numbers,
    )


def _select(queue: Queue, ranking: Ranking, items: Tensor | None, to: Tensor | None, cols: int, parts: int) -> None:
    """The k best of each part of the rows; sorted when they are the result."""
    threads = min(max(1 << (cols // parts // 8).bit_length(), 64), 512)
    size = max(1 << (ranking.k - 1).bit_length(), _OWN[False]) if to is None else _OWN[False]
    source = _source(ranking, "select", ("THREADS", threads), ("HELD", size), first=items is None, last=to is None)
    each, longer = divmod(cols, parts)
    numbers = (int32(parts), ctypes.c_longlong(cols), *map(int32, (each, longer, ranking.k)))
    queue.launch(
        source, ranking.rows * parts, threads, queue.at(items or ranking.x), *_results(queue, ranking, to), *numbers
    )


def _source(ranking: Ranking, entry: str, *sizes: tuple[str, int], first: bool, last: bool) -> Source:
    macros = (
        ("TX", _name(ranking.x.format)), ("TY", _name(ranking.y.format)), ("WIDE", int(ranking.wide)), ("LEAST", int(ranking.least)),
        ("FIRST", int(first)), ("LAST", int(last)), *sizes, (f"ENTRY_{entry.upper()}", 1),
    )  # fmt: skip
    return Source("topk.cu", f"topk_{entry}", macros)


def _name(form: Format | None) -> str:
    assert form is not None
    return form.name


def _results(queue: Queue, ranking: Ranking, items: Tensor | None) -> tuple[object, ...]:
    """The kernels' ``RESULTS``."""
    return (
        *map(queue.at, (ranking.x, ranking.y, ranking.places, items)),
        ctypes.c_longlong(ranking.cols),
    )


TOP_K = (Op(("TopK",), top_k),)
