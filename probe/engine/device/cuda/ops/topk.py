"""TopK; and items brought into order, for whoever needs them so."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.numbers import LONGEST, int32
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.ops.radix import sorted_by_radix
from probe.engine.device.cuda.ops.ranking import Ranking
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.copies import lying_of, placed, transposed
from probe.engine.device.cuda.tensors.formats import I64

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

_SORTED = 512  # items that a block of topk_sort sorts
_OWN = (4, 3)  # items that a thread of it sorts in registers, as powers of two; wide ones
_SORTED_WHOLE = 256  # elements of a row up to which it is sorted whatever k is, unless few are wanted
_SORTED_FEW = 64  # and if few are
_FEW = 4  # a row is searched, not sorted, where it has this many times k elements
_FEWEST = 128  # k up to which a team of threads holds its part of a row
_TEAMS = (32, 64, 128, 256, 512)  # threads
_HELD = (32, 16)  # elements that a thread of a team holds at most; wide ones
_WARPS = 4  # teams of a block, where they are warps
_HELD_OF_FEW = 8  # where there are too few rows for all multiprocessors
_SPANS = (8192, 4096, 2048)  # elements of a team's part of a row that is too long for one
_SPAN = 8192  # elements that a block searches; they stay in its L1 cache from digit to digit
_OPSET_OF_INPUT = 10  # of the standard, from which on k is an input


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
        sorted_by_radix(queue, one, *_digits(one))
        return
    while one.k <= _FEWEST and (items or cols > max(_SORTED_FEW, _FEW * one.k)):
        parts = _parts_of_few(queue, one, cols)
        kept = one.empty_items(queue, one.rows * parts * one.k) if parts > 1 else None
        _few(queue, one, items, kept, cols, parts)
        if kept is None:
            return
        items, cols = kept, parts * one.k
    while items or cols > max(_SORTED_WHOLE, min(_FEW * one.k, one.size)):
        parts = _parts(queue, one, cols)
        kept = one.empty_items(queue, one.rows * parts * one.k) if parts > 1 else None
        _select(queue, one, items, kept, cols, parts)
        if kept is None:
            return
        items, cols = kept, parts * one.k
    if cols > _SORTED:
        sorted_by_radix(queue, one, *_digits(one))
    else:
        _sort(queue, one)


def in_order(queue: Queue, items: Tensor, places: int) -> Tensor:
    """Items of the places of a tensor and numbers, both inverted, as they stand, in the order of their numbers: by place and number."""
    one = Ranking(items, items, items, 1, items.size, items.size, least=False, items=True)
    made = sorted_by_radix(queue, one, 0, max(math.ceil((places - 1).bit_length() / 8), 1))
    assert made is not None
    return made


def _digits(ranking: Ranking) -> tuple[int, int]:
    """Of the keys of elements: how many from the lowest are 0 for all, and how many are not."""
    return 0 if ranking.wide else 4 - ranking.key_bytes, ranking.key_bytes


def _parts(queue: Queue, ranking: Ranking, cols: int) -> int:
    """How many blocks search a row: so that each has a stretch of its own to search, and the machine has enough of them."""
    span = max(_SPAN, 2 * _FEW * ranking.k)
    if ranking.rows * cols < span * queue.backend.multiprocessors:
        span = max(_SPAN // 4, 2 * _FEW * ranking.k)
    return max(cols // span, 1)


def _parts_of_few(queue: Queue, ranking: Ranking, cols: int) -> int:
    """How many teams share a row: few enough that one can take what they leave, if that does not take more than a row has."""
    most = _TEAMS[-1] * _HELD[ranking.wide]
    if cols <= most:
        return 1
    fits = [span for span in _SPANS if math.ceil(cols / span) * ranking.k <= most] or _SPANS[:1]
    enough = (span for span in fits if ranking.rows * cols >= span * queue.backend.multiprocessors)
    return math.ceil(cols / (next(enough, fits[-1]) >> ranking.wide))


def _sort(queue: Queue, ranking: Ranking) -> None:
    """Several short rows by a block."""
    size = max(1 << (ranking.cols - 1).bit_length(), 2)
    segments = max(_SORTED // size, 1)
    own = _OWN[ranking.wide]
    threads = max(size * segments >> own, 32)
    sizes = (("THREADS", threads), ("LOG", own), ("HELD", size), ("SEGMENTS", segments))
    source = ranking.source("topk.cu", "topk_sort", *sizes, first=True, last=True)
    numbers = (ctypes.c_longlong(ranking.rows), ctypes.c_longlong(ranking.cols), int32(ranking.k))
    queue.launch(
        source, math.ceil(ranking.rows / segments), threads, queue.at(ranking.x), *ranking.results(queue, None), *numbers
    )  # fmt: skip


def _select(queue: Queue, ranking: Ranking, items: Tensor | None, to: Tensor | None, cols: int, parts: int) -> None:
    """The k best of each part of the rows; sorted when they are the result."""
    threads = min(max(1 << (cols // parts // 8).bit_length(), 64), 512 if to else 1024)
    held = 16 if to else max(1 << (ranking.k - 1).bit_length(), 16)
    own = max((held // threads).bit_length() - 1, 2)
    each, longer = divmod(cols, parts)
    sizes = (("THREADS", threads), ("LOG", own), ("HELD", held))
    source = ranking.source("topk_select.cu", "topk_select", *sizes, first=items is None, last=to is None)
    numbers = (int32(parts), ctypes.c_longlong(cols), *map(int32, (each, longer, ranking.k)))
    queue.launch(
        source, ranking.rows * parts, threads, queue.at(items or ranking.x), *ranking.results(queue, to), *numbers
    )  # fmt: skip


def _few(queue: Queue, ranking: Ranking, items: Tensor | None, to: Tensor | None, cols: int, parts: int) -> None:
    """The k best of each part of the rows, sorted; k is few."""
    each, longer = divmod(cols, parts)
    count, longest = ranking.rows * parts, each + (longer > 0)
    if count >= 1 << 32:
        raise Unsupported(f"{count:,} parts of rows: more than 32 bits count")
    crowded = count >= _FEW * queue.backend.multiprocessors
    own = _HELD[ranking.wide] if crowded else _HELD_OF_FEW
    fit = [team for team in _TEAMS if 2 * ranking.k <= team and longest <= team * _HELD[ranking.wide]]
    team = next((one for one in fit if longest <= one * own), fit[-1])
    threads = _WARPS * 32 if team == _TEAMS[0] and crowded else team
    sizes = (
        ("THREADS", threads), ("TEAM", team), ("OWN", 1 << (math.ceil(longest / team) - 1).bit_length()),
        ("CANDIDATES", 1 << (3 * ranking.k + 31).bit_length()),
    )  # fmt: skip
    source = ranking.source("topk_select.cu", "topk_few", *sizes, first=items is None, last=to is None)
    numbers = (
        ctypes.c_uint(count), int32(parts), ctypes.c_longlong(cols), *map(int32, (each, longer, ranking.k)),
    )  # fmt: skip
    queue.launch(
        source, math.ceil(count / (threads // team)), threads, queue.at(items or ranking.x), *ranking.results(queue, to), *numbers
    )  # fmt: skip


TOP_K = (Op(("TopK",), top_k),)
