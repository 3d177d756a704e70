"""Attention of a few queries and many keys (kernels/attention_few.cu): what a decoder does step by step."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.numbers import LONGEST, Struct, int32
from probe.engine.device.cuda.ops.attention.attention_masks import Place
from probe.engine.device.cuda.ops.products.ending import Spread
from probe.engine.device.cuda.tensors.formats import F32, I64, Format
from probe.engine.device.cuda.tensors.layout import collapse, contiguous, spread

if TYPE_CHECKING:
    from probe.engine.device.cuda.ops.attention.attention import View
    from probe.engine.device.cuda.ops.attention.attention_masks import Looking
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

_BATCH = 2  # axes that the kernel walks over
_ROWS, _KEYS, _WIDEST = 8, 128, 256  # queries at most, keys at least, elements of a query or value at most
_EACH, _THREADS = 8, 128  # elements of a thread; threads of a block
_SPANS = (256, 128, 64)  # keys of a block
_BLOCKS = 4  # wanted on a multiprocessor: their reads are under way beside one another


class Few(Struct):
    """The struct of kernels/attention_few.cu."""

    _fields_ = (
        *((name, Spread) for name in ("q", "k", "v", "mask", "lengths")), ("batch1", ctypes.c_longlong), ("past", ctypes.c_longlong),
        *((name, ctypes.c_int) for name in ("keys", "depth", "width", "parts")),
    )  # fmt: skip


def attend_few(
    queue: Queue, views: tuple[View, View, View], looking: Looking, store: Format, *, one_query: bool
) -> Tensor:
    """Attention, nothing rounded between; rows without a key are 0.

    Args:
        views: q [.., queries, depth], k [.., keys, depth], v [.., keys, width]; q has all batch axes.
        one_query: what lies where queries would are heads of one.

    Raises:
        Unsupported: the kernel does not take it; nothing was launched.
    """
    q, _, v = views
    *lead, rows, depth = q.shape
    keys, width = v.shape[-2:]
    stored = q.tensor.format
    if rows > _ROWS or keys < _KEYS or max(depth, width) > _WIDEST or depth % _EACH or width % _EACH or stored is None:
        raise Unsupported(f"{rows} queries of {depth} elements over {keys} keys of {width}")
    if keys >= LONGEST:
        raise Unsupported(f"{keys:,} keys: more than 31 bits count")
    scores = (*lead, rows, keys)
    beside = [
        spread(one.shape, scores) if one is not None else (0,) * len(scores) for one in (looking.mask, looking.lengths)
    ]
    walked = [contiguous(lead), *(one.batch(tuple(lead)) for one in views), *(one[:-2] for one in beside)]
    extents, strides = collapse(tuple(lead), walked)
    if len(extents) > _BATCH:
        raise Unsupported(f"attention over {len(extents)} batch axes")
    missing = (0,) * (_BATCH - len(extents))
    outer = [(*missing, *one) for one in strides[1:]]
    lies = [(*own, *one[-2:]) for own, one in zip(outer, (*(one.strides for one in views), *beside), strict=True)]
    if any(steps[-1] != 1 or any(step % _EACH for step in steps[:-1]) for steps in lies[:3]):
        raise Unsupported("rows that do not lie in one piece and begin on 16 bytes")
    batches = math.prod(lead)
    lanes, columns = (1 << max((n // _EACH - 1).bit_length(), 0) for n in (depth, width))
    enough = (one for one in _SPANS if batches * math.ceil(keys / one) >= _BLOCKS * queue.backend.multiprocessors)
    span = max(next(enough, _SPANS[-1]), _THREADS // lanes)
    parts = math.ceil(keys / span)
    sums, known = queue.empty((batches, parts, rows, width), F32), queue.empty((batches, parts, rows, 3), F32)
    y = queue.empty((*lead, rows, width), store)
    at = Place("query", "key")
    steps = looking.between(at, None)
    formats = [one.format if one is not None else None for one in (looking.mask, looking.lengths)]
    macros = (
        ("TX", stored.name), ("TY", store.name), ("ROWS", rows), ("SPAN", span), ("LANES", lanes), ("COLUMNS", columns),
        ("TM", (formats[0] or F32).name), ("HAS_MASK", int(formats[0] is not None)), ("TL", (formats[1] or I64).name), ("HAS_LENGTHS", int(formats[1] is not None)),
        ("STEPS", " ".join(f"{one.type} {one.name} = {one.expression};" for one in steps)), ("MADE", steps[-1].name), ("LOOKS", looking.looks(at)),
        ("ONE_QUERY", int(one_query)),
    )  # fmt: skip
    problem = Few(*(Spread(*one) for one in lies), extents[-1], looking.past, keys, depth, width, parts)
    queue.launch(
        Source("attention_few.cu", "attention_few", (*macros, ("ENTRY_FEW", 1)), contract=False), batches * parts, _THREADS,
        *(queue.at(one.tensor) for one in views), queue.at(looking.mask), queue.at(looking.lengths), queue.at(sums), queue.at(known), problem,
    )  # fmt: skip
    queue.launch(
        Source("attention_few.cu", "attention_few_join", (*macros, ("ENTRY_JOIN", 1)), contract=False), batches * rows, _THREADS,
        queue.at(sums), queue.at(known), queue.at(y), int32(parts), int32(width),
    )  # fmt: skip
    return y
