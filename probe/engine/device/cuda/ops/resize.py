"""Resize and Upsample: which elements are read, and what they weigh, is found on the host, axis by axis; kernels/resize.cu reads along up to three
axes at once, nothing rounded between them. Images that only grow by whole numbers are copied."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.numbers import LONGEST, Struct, int32s
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.ops.resize_places import Axis, Given, Manner, manner_of, picks, samples, targets
from probe.engine.device.cuda.ops.together import together
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.copies import lying_of, ordered, placed
from probe.engine.device.cuda.tensors.formats import F32, Format, packed, unpacked
from probe.engine.device.cuda.tensors.layout import width
from probe.engine.device.cuda.tensors.tensor import host_tensor

if TYPE_CHECKING:
    from probe.engine.device.cuda.tensors.tensor import Tensor

Array = np.ndarray[Any, Any]
_THREADS = 256
_TOGETHER = 3  # axes of a launch
_KNOWN = (1, 2, 4)  # taps that the kernel is compiled for
_ACCESS = 16  # bytes
_SHARING = 4  # lines of which a thread picks the same elements
_NEIGHBOURS = 4  # along the last axis that a thread computes
_WARPS, _WARP = 8, 32  # of a block of resize_lines, and lanes of each
_ROOM, _WIDE, _STORED = (
    1024,
    4,
    2,
)  # columns that a warp has room for, of an access, and of y that a lane stores at once
_ROWS, _MADE = 128, 2048  # lines of x, and elements of y, of all lines of y that a warp computes
_STRETCHES = (16, 32, 64, 128, 256)  # of a line of y
_SMALL = 1 << 31
_SIZES = 3  # position of the input that gives the output's shape


class Problem(Struct):
    """The struct Resize of kernels/resize.cu."""

    _fields_ = (
        ("lines", ctypes.c_longlong), ("inner", ctypes.c_longlong), ("extents", ctypes.c_int * 3), ("out", ctypes.c_int * 3), ("taps", ctypes.c_int * 3),
        ("outside", ctypes.c_float),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """Of an axis: elements, [extent, taps], and their weights."""

    own: int
    places: Array
    weights: Array

    @property
    def taps(self) -> int:
        return self.places.shape[1]

    def tensor(self) -> Tensor:
        """As the kernel reads it: pairs of 32 bits."""
        pairs = np.stack([self.places.astype(np.int32), self.weights.astype(np.float32).view(np.int32)], -1)
        return host_tensor(np.ascontiguousarray(pairs))


def resize(queue: Queue, call: Call) -> list[Tensor | None]:
    x, manner = call.data(0), manner_of(call)
    assert x.format is not None
    if not manner.picks and not x.format.is_float:
        raise Unsupported("Resize of integers by weighing")
    store = call.like(x)
    axes = [axis % len(x.shape) for axis in call.ints("axes") or range(len(x.shape))]
    along = targets(x.shape, axes, _given(queue, call, manner))
    changed = [axis for axis, one in enumerate(along) if not one.stays]
    if any(max(along[axis].own, along[axis].extent) >= LONGEST for axis in changed):
        raise Unsupported(f"Resize of {x.shape}: an axis longer than 31 bits count")
    if not x.size or not all(one.extent for one in along):
        return [queue.empty(tuple(one.extent for one in along), store)]
    if manner.picks and manner.outside is None and _only_grows(changed, along, manner):
        x = queue.convert(x, store)
        for axis in changed:
            x = placed(queue, lying_of(queue, x).spread(axis, along[axis].extent // along[axis].own))
        return [x]
    if manner.outside is not None and manner.picks and not _holds(store, manner.outside):
        raise Unsupported(f"Resize that puts {manner.outside} among what {store.name} holds")
    if not changed:
        return [queue.convert(x, store)]
    order = ordered(queue, x)
    placed_at = [order.axis(axis) for axis in changed]
    if placed_at != sorted(placed_at):  # the order of sums is that of axes, wherever they lie
        return [_resized(queue, x, {axis: along[axis] for axis in changed}, manner, store)]
    made = _resized(
        queue, order.dense, dict(zip(placed_at, (along[axis] for axis in changed), strict=True)), manner, store
    )
    return [order.back(queue, made)]


def _given(queue: Queue, call: Call, manner: Manner) -> Given:
    scales = call.node.attributes.get_floats("scales", None)
    if scales is not None:  # Upsample of opset 7
        return Given((), [float(one) for one in scales])
    sizes = call.numbers(_SIZES, queue) or []
    new = call.node.op_type == "Resize" and len(call.inputs) > _SIZES - 1
    given = call.given(_SIZES - 1 if new else 1)
    numbers = [] if sizes or given is None else [float(one) for one in given.array(queue.backend).reshape(-1)]
    if not sizes and not numbers:
        raise Unsupported("Resize by neither scales nor sizes")
    roi = call.given(1) if manner.outside is not None else None
    box = [] if roi is None else [float(one) for one in roi.array(queue.backend).reshape(-1)]
    return Given(sizes, numbers, box, call.text("keep_aspect_ratio_policy", "stretch"))


def _holds(store: Format, value: float) -> bool:
    if not store.is_float:
        return value == int(value)
    array = np.array([value], np.float32)
    return float(unpacked(packed(array, store), store, (1,))[0]) == float(array[0])


def _only_grows(changed: Sequence[int], along: Sequence[Axis], manner: Manner) -> bool:
    """Whether every axis repeats its elements as often as it grows, and does nothing else."""
    for axis in changed:
        own, times = along[axis].own, along[axis].extent // along[axis].own
        found = picks(along[axis], manner) if times * own == along[axis].extent else None
        if found is None or not np.array_equal(found, np.arange(own).repeat(times)):
            return False
    return True


def _resized(queue: Queue, x: Tensor, along: dict[int, Axis], manner: Manner, store: Format) -> Tensor:
    """``x`` with some axes resized: as many of them by a launch as lie among three neighbours, the last first; one of them where windows are wide."""
    left = sorted(along)
    if manner.outside is not None and (manner.widens or left[-1] - left[0] >= _TOGETHER) and len(left) > 1:
        raise Unsupported("Resize that crops axes apart")
    while left:
        last = left[-1]
        first = last if manner.widens else min(axis for axis in left if axis > last - _TOGETHER)
        tables: list[Table | None] = [
            _table(along[axis], manner) if axis in along else None for axis in range(first, last + 1)
        ]
        left = [axis for axis in left if axis < first]
        x = _launched(queue, x, first, tables, manner, store if manner.picks or not left else F32)
    return x


def _table(one: Axis, manner: Manner) -> Table:
    if manner.picks:
        places = picks(one, manner).reshape(-1, 1)
        return Table(one.own, places, np.ones(places.shape, np.float32))
    return Table(one.own, *samples(one, manner))


def _launched(
    queue: Queue, x: Tensor, first: int, tables: Sequence[Table | None], manner: Manner, store: Format
) -> Tensor:
    """Neighbouring axes from ``first`` on; None: one that stays as it is."""
    behind = first + len(tables)
    shape = [
        len(one.places) if one is not None else own for one, own in zip(tables, x.shape[first:behind], strict=True)
    ]
    y = queue.empty((*x.shape[:first], *shape, *x.shape[behind:]), store)
    inner = math.prod(x.shape[behind:])
    three = [None] * (_TOGETHER - len(tables)) + list(tables)
    pad = [1] * (_TOGETHER - len(tables))
    taps = [one.taps if one is not None else 1 for one in three]
    assert x.format is not None
    problem = Problem(
        math.prod(y.shape[: behind - 1]), inner, int32s(*pad, *x.shape[first:behind]), int32s(*pad, *shape), int32s(*taps), manner.outside or 0.0,
    )  # fmt: skip
    macros = (
        ("TX", x.format.name), ("TY", store.name),
        *((f"TAPS{at}", 0 if one is None else one.taps if one.taps in _KNOWN else -1) for at, one in enumerate(three)),
        ("OUTSIDE", int(manner.outside is not None)), ("INDEX", "unsigned" if max(x.size, y.size) < _SMALL else "i64"),
    )  # fmt: skip
    kept = [one.tensor() if one is not None else None for one in three]
    given = (queue.at(x), queue.at(y), *map(queue.at, kept), problem)
    last, lines, widest = tables[-1], problem.lines, _ACCESS // max(x.format.bytes, store.bytes)
    if inner == 1 and manner.picks:
        lanes = width(widest, shape[-1])
        many = together(queue, _SHARING, lines, shape[-1] // lanes)
        source = Source("resize.cu", "resize_picks", (*macros, ("ENTRY_PICKS", 1), ("VEC", lanes), ("LINES", many)))
        queue.launch(source, math.ceil(math.ceil(lines / many) * (shape[-1] // lanes) / _THREADS), _THREADS, *given)
        return y
    if inner == 1 and manner.outside is None and last is not None:
        cut = _cut(queue, last, width(_WIDE, x.shape[-1]), math.prod(taps[:-1]), lines)
        if cut is not None:
            source = Source("resize.cu", "resize_lines", (*macros, *cut.macros))
            queue.launch(source, math.ceil(cut.tasks(lines, shape[-1]) / _WARPS), _WARP * _WARPS, *given)
            return y
    along = int(inner == 1)
    lanes = width(_NEIGHBOURS, shape[-1]) if along else width(widest, inner)
    source = Source("resize.cu", "resize", (*macros, ("VEC", lanes), ("ALONG", along)))
    queue.launch(source, math.ceil(y.size / lanes / _THREADS), _THREADS, *given)
    return y


@dataclass(frozen=True, slots=True)
class Cut:
    """What a warp of resize_lines computes, and what of it a lane does.

    Attributes:
        stretch: of a line, of which there may be several.
        pieces: of a line of x, that it reads.
        wide: columns of a piece.
        stored: elements of y that a lane stores at once.
        shift: elements of x from the first one's window to the second's; -1: not the same for all.
    """

    stretch: int
    lines: int
    pieces: int
    wide: int
    stored: int
    shift: int

    @property
    def fits(self) -> bool:
        return self.lines * self.pieces * self.wide <= _ROOM

    @property
    def macros(self) -> tuple[tuple[str, int], ...]:
        fewest = _WARP // self.lines  # lanes of a line
        span = max(fewest, min(_WARP, 1 << (self.pieces - 1).bit_length()))
        across = max(fewest, min(_WARP, self.stretch // self.stored))
        return (
            ("ENTRY_LINES", 1), ("VEC", self.stored), ("STRETCH", self.stretch), ("LINES", self.lines), ("ROOM", _ROOM // self.lines),
            ("WIDE", self.wide), ("SPAN", span), ("PASSES", math.ceil(self.pieces / span)), ("ACROSS", across), ("SHIFT", self.shift),
            ("BLOCK", _WARP * _WARPS),
        )  # fmt: skip

    def tasks(self, lines: int, extent: int) -> int:
        return math.ceil(lines / self.lines) * math.ceil(extent / self.stretch)


def _cut(queue: Queue, last: Table, wide: int, rows: int, lines: int) -> Cut | None:
    """Of what a warp has room for the most, as long as there are warps enough; None: what it would read has no room.

    Args:
        rows: of x, that a line of y is made of.
        lines: of y.
    """
    lowest, highest = last.places[:, 0] // wide, last.places[:, -1] // wide
    extent, found = len(last.places), list[Cut]()
    stored, shift = width(_STORED, extent), _shift(last)
    for stretch in (one for one in _STRETCHES if one < 2 * max(extent, _STRETCHES[0])):
        first = lowest[::stretch]
        pieces = int((np.append(highest[stretch - 1 :: stretch], highest[-1])[: len(first)] - first).max()) + 1
        many = together(queue, min(_MADE // stretch, _ROWS // rows, _WARP), lines, math.ceil(extent / stretch) * _WARP)
        cuts = (Cut(stretch, many >> less, pieces, wide, stored, shift) for less in range(many.bit_length()))
        found += [one for one in cuts if one.fits][:1]
    return max(found, key=lambda one: (min(one.stretch, extent) * one.lines, one.stretch), default=None)


def _shift(last: Table) -> int:
    """By how many elements the window of every second one lies behind that of the one before; -1: not the same for all, or by too many."""
    if len(last.places) % 2 or last.taps not in _KNOWN:
        return -1
    ones, others = last.places[::2], last.places[1::2]
    shifts = (by for by in (0, 1) if np.array_equal(others[:, : last.taps - by], ones[:, by:]))
    return next(shifts, -1)


RESIZES = (Op(("Resize", "Upsample"), resize),)
