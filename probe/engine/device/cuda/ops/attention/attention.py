"""Attention as one kernel (kernels/attention.cu): two products, the softmax between them, and the pointwise nodes around it."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.numbers import Struct
from probe.engine.device.cuda.ops.attention import attention_mma, attention_simt, attention_wgmma
from probe.engine.device.cuda.ops.attention.attention_code import Around, Steps, beside
from probe.engine.device.cuda.ops.attention.attention_mma import Variant, choose
from probe.engine.device.cuda.ops.attention.attention_simt import Warps, choose_warps
from probe.engine.device.cuda.ops.attention.attention_wgmma import Groups, Held, Laid, choose_groups
from probe.engine.device.cuda.ops.products.ending import Spread
from probe.engine.device.cuda.tensors.copies import placed
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, Format
from probe.engine.device.cuda.tensors.layout import Shape, Strides, broadcast, collapse, contiguous, spread
from probe.engine.device.cuda.tensors.lying import dense

if TYPE_CHECKING:
    from probe.engine.device.cuda.layers.pointwise import Reading
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tensors.tensor import Tensor

_BATCH = 2  # batch axes that the kernel walks over
_WIDEST = 512  # bytes of a query or value
_WIDE = 8  # elements of 16 bytes
_MOST = 1 << 30  # rows: kernels take rows from here on for none
AnyVariant = Variant | Groups | Held | Warps


class Problem(Struct):
    """The struct Attention of kernels/attention.cuh."""

    _fields_ = (
        *((name, Spread) for name in ("q", "k", "v", "y")), ("batch1", ctypes.c_longlong),
        *((name, ctypes.c_int) for name in ("queries", "keys", "depth", "width", "seen")),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class View:
    """A tensor as it is read: its axes, and the step along each in elements of memory."""

    tensor: Tensor
    shape: Shape
    strides: Strides

    def transposed(self, order: Sequence[int]) -> View:
        """With its axes in another order."""
        return View(self.tensor, tuple(self.shape[at] for at in order), tuple(self.strides[at] for at in order))

    @property
    def swapped(self) -> View:
        """With its last two axes exchanged."""
        rank = len(self.shape)
        return self.transposed((*range(rank - 2), rank - 1, rank - 2))

    def batch(self, over: Shape) -> Strides:
        """Strides along batch axes that it is repeated over where it lacks them."""
        own = self.shape[:-2]
        steps = [0 if extent == 1 else step for extent, step in zip(own, self.strides, strict=False)]
        return (*(0 for _ in range(len(over) - len(own))), *steps)


def view(tensor: Tensor) -> View:
    """A tensor as it lies; in dense order where the kernel could not read it otherwise."""
    lies, strides = tensor.lies, tensor.lies.strides if tensor.lies is not None else None
    if (
        lies is None
        or strides is None
        or lies.shifted_bytes % 16
        or sorted(one % _WIDE for one in strides[-2:]) != [0, 1]
    ):
        return View(tensor, tensor.shape, contiguous(tensor.shape))
    if 1 not in strides[-2:] or any(one % _WIDE for one in strides[:-2]):
        return View(tensor, tensor.shape, contiguous(tensor.shape))
    return View(lies.base.part(tensor.shape, lies.shifted_bytes), tensor.shape, strides)


@dataclass(frozen=True, slots=True)
class Attention:
    """What is computed.

    Attributes:
        q: [..., queries, depth], k: [..., keys, depth], v: [..., keys, width].
        readings: what steps read, by the name that they call it; broadcast to the scores.
        values_first: what happens to values before they are multiplied; so queries_first and keys_first.
        tf32: operands are stored in FP32; what is multiplied was rounded to TF32.
        wide: nothing rounds what multiplies the values: each weight is multiplied as the sum of two numbers of the operands' format.
        seen: keys that the first query looks at, where each further one looks at one more, as steps say: others are not read. 0: all.
    """

    q: View
    k: View
    v: View
    readings: tuple[tuple[str, Reading], ...]
    queries_first: Steps
    keys_first: Steps
    between: Steps
    after: Steps
    wide: bool = False
    values_first: Steps = Steps()  # noqa: RUF009 - it never changes
    tf32: bool = False
    seen: int = 0

    @property
    def scores(self) -> Shape:
        """Their shape: batch axes, queries, keys.

        Raises:
            Unsupported: operands that do not fit together.
        """
        q, k = self.q.shape, self.k.shape
        if min(len(q), len(k), len(self.v.shape)) < 2 or q[-1] != k[-1] or self.v.shape[-2] != k[-2]:
            raise Unsupported(f"attention of {q}, {k} and {self.v.shape}")
        return (*broadcast(q[:-2], k[:-2]), q[-2], k[-2])


def attend(
    queue: Queue,
    what: Attention,
    store: Format,
    order: Sequence[int] | None = None,
    variant: AnyVariant | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """Attention.

    Args:
        store: what the result is stored in.
        order: of the result's axes, where they are transposed; its last axis stays where it is.
        variant: of the kernel; chosen by size when left out.

    Returns:
        the result, its rows of heads in the order in which those of the queries lie; and what steps between and after store, in their order.

    Raises:
        Unsupported: the kernel does not take it; nothing was launched.
    """
    scores = what.scores
    *batch, queries, keys = scores
    depth, width = what.q.shape[-1], what.v.shape[-1]
    stored = what.q.tensor.format
    if (
        stored not in ((F32,) if what.tf32 else (F16, BF16, F32))
        or stored is None
        or any(one.tensor.format is not stored for one in (what.k, what.v))
    ):
        raise Unsupported("operands that are not all FP16, all BF16 or all FP32")
    exact = stored is F32 and not what.tf32
    if broadcast(tuple(batch), what.v.shape[:-2]) != tuple(batch):
        raise Unsupported("values for more batches than there are scores")
    shape = (*batch, queries, width)
    order = tuple(order or range(len(shape)))
    if order[-1] != len(shape) - 1:
        raise Unsupported("a result whose rows do not lie in one piece")
    if not (0 < max(depth, width) * stored.bytes <= _WIDEST) or depth % _WIDE or width % _WIDE or not keys:
        raise Unsupported(f"heads of {depth} and {width} elements, {keys} keys")
    if max(queries, keys) >= _MOST:
        raise Unsupported(f"{queries:,} queries and {keys:,} keys: more than 30 bits count")
    walk = _as_read(what.q, shape, order)
    y = queue.empty(tuple(shape[at] for at in walk), store)
    result = View(y, y.shape, contiguous(y.shape)).transposed([walk.index(at) for at in range(len(shape))])
    beside_of = [spread(one.tensor.shape, scores) for _, one in what.readings if _fits(one, scores)]
    views = (what.q, what.k, what.v, result)
    walked = [contiguous(batch), *(one.batch(tuple(batch)) for one in views), *(one[:-2] for one in beside_of)]
    extents, strides = collapse(tuple(batch), walked)
    if len(extents) > _BATCH:
        raise Unsupported(f"attention over {len(extents)} batch axes")
    missing = (0,) * (_BATCH - len(extents))
    outer = [(*missing, *one) for one in strides[1:]]
    spreads = [(*own, *one.strides[-2:]) for own, one in zip(outer, views, strict=False)]
    for one, steps in zip(views, spreads, strict=True):
        if steps[-1] != 1 or any(step % _WIDE for step in steps[:-1]):
            raise Unsupported(f"rows of {one.shape} that do not lie in one piece and begin on 16 bytes")
    along = [(*own, *one[-2:]) for own, one in zip(outer[len(views) :], beside_of, strict=True)]
    read = []
    for (name, reading), steps in zip(what.readings, along, strict=True):
        if reading.tensor.format is None:
            raise Unsupported("a tensor of a type that kernels do not know")
        read.append(beside(name, reading.tensor.format, reading.rounding, steps, keys))
    around = Around(tuple(read), what.queries_first, what.keys_first, what.values_first, what.between, what.after)
    if any(not one.is_scalar for one in read if one.name in (*what.queries_first.reads, *what.keys_first.reads)):
        raise Unsupported("queries or keys that are more than scaled")
    kept = [queue.empty(scores, step.store) for step in around.stored if step.store is not None]
    made = y if walk == order else placed(queue, dense(y).permuted([walk.index(at) for at in order]))
    if not y.size:
        return made, kept
    batches = math.prod(batch)
    around = replace(around, skips=0 < what.seen < keys and not kept)  # who wants scores wants all of them
    problem = Problem(*(Spread(*one) for one in spreads), extents[-1], queries, keys, depth, width, what.seen)
    beside_it = (*(queue.at(one.tensor) for _, one in what.readings), *(Spread(*one) for one in along))
    operands = (what.q.tensor, what.k.tensor, what.v.tensor, y)
    laid = Laid(
        operands, spreads, (batches // extents[-1], extents[-1]), (queries, keys, depth, width), beside_it, problem
    )
    if variant is None and exact:
        variant = choose_warps(laid, queue.backend.multiprocessors)
    elif variant is None and attention_wgmma.takes(what, laid, queue.backend.arch):
        masked = any(not one.is_scalar for one in read)
        variant = choose_groups(laid, queue.backend.multiprocessors, wide=what.wide, masked=masked)
    if variant is None:
        elements = max(depth, width) * stored.bytes // 2
        variant = choose(queries, keys, elements, batches, queue.backend.multiprocessors)
    _launch(queue, what, laid, around, kept, variant)
    return made, kept


def _launch(
    queue: Queue, what: Attention, laid: Laid, around: Around, kept: Sequence[Tensor], variant: AnyVariant
) -> None:
    """Where nothing is done to weights, not even rounded, the keys may be walked over once. Then weights are not known before the result is, and who
    wants them gets them from a second launch: the result is, whoever looks, that of the first."""
    once = around.is_plain and (isinstance(variant, Warps) or (what.wide and variant.may_walk_once))
    walks = [(laid, around, tuple(kept), once)]
    if once and around.stores_weights:
        y = laid.operands[-1]
        assert y.format
        aside = replace(laid, operands=(*laid.operands[:-1], queue.empty(y.shape, y.format)))
        walks = [(laid, around.unstored, (), True), (aside, around, tuple(kept), False)]
    for lies, steps, stored, one in walks:
        if isinstance(variant, Warps):
            attention_simt.launch(queue, lies, steps, stored, variant, once=one)
        elif isinstance(variant, Held):
            attention_wgmma.launch_held(queue, lies, steps, stored, variant, wide=what.wide)
        elif isinstance(variant, Groups):
            attention_wgmma.launch(queue, lies, steps, stored, variant, wide=what.wide, once=one)
        else:
            attention_mma.launch(queue, lies, steps, stored, variant, wide=what.wide, once=one)


def _as_read(q: View, shape: Shape, order: tuple[int, ...]) -> tuple[int, ...]:
    """``order`` with the axes before the last two, heads and elements, slowest first as the queries lie: then what was made of their rows row by
    row lies as they do."""
    if q.shape[:-1] != shape[:-1] or 0 in shape:
        return order
    *outer, _, _ = order
    moving = iter(sorted((at for at in outer if shape[at] > 1), key=lambda at: -q.strides[at]))
    return (*(next(moving) if shape[at] > 1 else at for at in outer), *order[-2:])


def _fits(reading: Reading, scores: Shape) -> bool:
    if broadcast(scores, reading.tensor.shape) != scores:
        raise Unsupported("a mask of more batches than there are scores")
    return True
