"""NonZero and NonMaxSuppression: what is selected by its value. How much that is is looked at, and the shape follows from it: a recorded run holds as
long as it stays the same."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

import numpy as np

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.numbers import LONGEST, int32
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.ops.ranking import Ranking
from probe.engine.device.cuda.ops.scan import added_up
from probe.engine.device.cuda.ops.topk import ranked
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import F32, I32, I64, U8

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

_THREADS = 256
_STRETCH = 16 * _THREADS  # elements of a block
_TILE, _TILES_OF_BLOCK = 64, 4  # boxes; of suppress_cover
_WALKING = 512  # threads of suppress_walk
_SPANS = (2048, 1024, 512, 256, 128, 64)  # boxes of a class that are compared with each other at a time
_COVERED = 64 << 20  # bytes of who covers whom
_BOX, _RANK = 4, 3  # numbers of a box; axes of boxes and scores


def nonzero(queue: Queue, call: Call) -> list[Tensor | None]:
    x = call.data(0)
    assert x.format is not None
    rank = len(x.shape)
    if not rank:
        raise Unsupported("NonZero of a scalar")
    if not x.size:
        return [queue.empty((rank, 0), I64)]
    if x.size >= 1 << 31:
        raise Unsupported(f"NonZero of {x.size:,} elements: more than 31 bits count")
    blocks = math.ceil(x.size / _STRETCH)
    macros = (("TX", x.format.name), ("RANK", rank))
    counts, total = queue.empty((blocks,), I32), ctypes.c_longlong(x.size)
    queue.launch(
        Source("selected.cu", "nonzero_count", (*macros, ("PLACES", 0))),
        blocks,
        _THREADS,
        queue.at(x),
        queue.at(counts),
        total,
    )
    before, found = _counted(queue, counts)
    y = queue.empty((rank, found), I64)
    if found:
        numbers = (total, ctypes.c_longlong(found), (ctypes.c_longlong * rank)(*x.shape))
        source = Source("selected.cu", "nonzero_place", (*macros, ("PLACES", 1)))
        queue.launch(source, blocks, _THREADS, *map(queue.at, (x, before, y)), *numbers)
    return [y]


def _counted(queue: Queue, counts: Tensor) -> tuple[Tensor, int]:
    """Counts added up, each with those before it; and all of them, looked at."""
    before = added_up(queue, counts)
    return before, int(before.part((1,), before.nbytes - I32.bytes).array(queue.backend)[0])


def non_max_suppression(queue: Queue, call: Call) -> list[Tensor | None]:
    """Of equal scores the first box comes first, as in ONNX Runtime."""
    boxes, scores = call.data(0), call.data(1)
    fits = len(boxes.shape) == len(scores.shape) == _RANK and boxes.shape[2] == _BOX
    if not fits or (boxes.shape[0], boxes.shape[1]) != (scores.shape[0], scores.shape[2]):
        raise Unsupported(f"NonMaxSuppression of {boxes.shape} and {scores.shape}")
    batches, classes, count = scores.shape
    overlap, least = _limit(queue, call, 3), _limit(queue, call, 4)
    most = min((call.numbers(2, queue) or [0])[0], count)
    rows = batches * classes
    if most <= 0 or not rows:
        return [queue.empty((0, 3), I64)]
    if max(count, rows * most) >= LONGEST:
        raise Unsupported(f"NonMaxSuppression of {boxes.shape} and {scores.shape}: more than 31 bits count")
    boxes, scores = queue.convert(boxes, F32), queue.convert(scores, F32)
    ordered, places = queue.empty((rows, count), F32), queue.empty((rows, count), I64)
    ranked(queue, Ranking(scores, ordered, places, rows, count, count, least=False))
    gone, chosen, counts = queue.empty((rows, count), U8), queue.empty((rows, most), I32), queue.empty((rows,), I32)
    span = next((one for one in _SPANS if rows * one * one // 8 <= _COVERED and one < 2 * count), _SPANS[-1])
    covered = queue.empty((rows, span, span // _TILE), I64)
    centres, limited = ("CENTRES", call.int("center_point_box", 0)), ("LIMITED", int(call.given(4) is not None))
    cover = Source(
        "suppress.cu", "suppress_cover", (centres, limited, ("SPAN", span), ("ENTRY_COVER", 1)), contract=False
    )
    walk = Source("suppress.cu", "suppress_walk", (limited, ("SPAN", span), ("ENTRY_WALK", 1)))
    for begin in range(0, count, span):
        earlier = math.ceil(min(most, begin) / _TILE)  # tiles of what was chosen before
        queue.launch(
            cover, rows * span // _TILE * math.ceil((earlier + span // _TILE) / _TILES_OF_BLOCK), _THREADS,
            *map(queue.at, (boxes, ordered, places, covered, gone, chosen, counts)), *map(int32, (classes, count, most, begin, earlier)),
            *map(ctypes.c_float, (overlap, least)),
        )  # fmt: skip
        queue.launch(
            walk, rows, _WALKING, *map(queue.at, (ordered, places, covered, gone, chosen, counts)), *map(int32, (count, most, begin)),
            ctypes.c_float(least),
        )  # fmt: skip
    before, found = _counted(queue, counts)
    y = queue.empty((found, 3), I64)
    if found:
        queue.launch(
            Source("suppress.cu", "suppress_place", (("ENTRY_PLACE", 1),)), math.ceil(rows * most / _THREADS), _THREADS,
            *map(queue.at, (chosen, before, y)), ctypes.c_longlong(rows), *map(int32, (classes, most)),
        )  # fmt: skip
    return [y]


def _limit(queue: Queue, call: Call, position: int) -> float:
    given = call.given(position)
    return 0.0 if given is None else float(np.float32(given.array(queue.backend).reshape(-1)[0]))


SELECTED = (Op(("NonZero",), nonzero), Op(("NonMaxSuppression",), non_max_suppression))
