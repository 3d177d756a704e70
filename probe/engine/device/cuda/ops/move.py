"""Data movement: values handed on bit for bit. What can be said by where elements lie (lying.py) moves nothing until someone needs it moved."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.ops.call import Call, Op
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.copies import (
    copy,
    gathered,
    in_dense_order,
    lying_of,
    ordered,
    placed,
    transposed,
)
from probe.engine.device.cuda.tensors.layout import around, broadcast, contiguous
from probe.engine.device.cuda.tensors.lying import dense

if TYPE_CHECKING:
    from collections.abc import Sequence

    from probe.engine.device.cuda.tensors.formats import Format
    from probe.engine.device.cuda.tensors.lying import Lying
    from probe.engine.device.cuda.tensors.tensor import Tensor

_STEPS = 10  # opset from which Slice takes its bounds as inputs


def transpose(queue: Queue, call: Call) -> list[Tensor | None]:
    x = call.stored(queue, 0)
    order = call.ints("perm") or list(reversed(range(len(x.shape))))
    return [_reordered(queue, x, order)]


def _reordered(queue: Queue, x: Tensor, order: Sequence[int]) -> Tensor:
    return placed(queue, lying_of(queue, x).permuted(order)) if x.size else transposed(queue, x, order)


def concat(queue: Queue, call: Call) -> list[Tensor | None]:
    parts = [call.data(at) for at in range(len(call.inputs))]
    return [joined(queue, parts, call.int("axis", 0) % len(parts[0].shape), call.store())]


def joined(queue: Queue, parts: Sequence[Tensor], axis: int, store: Format) -> Tensor:
    """Tensors one behind the other.

    Raises:
        Unsupported: they differ along another axis.
    """
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    if any(part.shape[:axis] + part.shape[axis + 1 :] != (*shape[:axis], *shape[axis + 1 :]) for part in parts):
        raise Unsupported("parts of different shapes")
    leader = ordered(queue, max(parts, key=lambda part: part.size))  # what is most stays in its order
    y = queue.empty(tuple(shape[at] for at in leader.order), store)
    strides, along, first = contiguous(y.shape), leader.axis(axis), 0
    for part in parts:
        if part.size:
            lies = lying_of(queue, part).permuted(leader.order)
            steps = lies.strides
            if steps is None:
                lies = dense(in_dense_order(queue, lies))
                steps = contiguous(lies.shape)
            copy(queue, lies.shape, (lies.base, lies.first, steps), (y, first * strides[along], strides))
        first += part.shape[axis]
    return leader.back(queue, y) if y.size else y.view(tuple(shape))


def split(queue: Queue, call: Call) -> list[Tensor | None]:
    x = call.stored(queue, 0)
    axis = call.int("axis", 0) % len(x.shape)
    count, extent = len(call.node.outputs), x.shape[axis]
    sizes = call.ints("split") or call.numbers(1, queue)
    if sizes is None:
        each = math.ceil(extent / count)
        sizes = [min(each, extent - at * each) for at in range(count)]
    if sum(sizes) != extent or len(sizes) != count or min(sizes) < 0:
        raise Unsupported(f"parts of {sizes} from {extent}")
    first, made = 0, []
    for size in sizes:
        made.append(cut(queue, x, [(axis, first, size, 1)]))
        first += size
    return made


def slices(queue: Queue, call: Call) -> list[Tensor | None]:
    x = call.stored(queue, 0)
    if call.opset < _STEPS:
        starts, ends, axes, steps = call.ints("starts"), call.ints("ends"), call.ints("axes"), None
    else:
        starts, ends, axes, steps = (call.numbers(at, queue) for at in (1, 2, 3, 4))
    assert starts is not None and ends is not None
    axes = axes if axes is not None else list(range(len(starts)))
    steps = steps if steps is not None else [1] * len(starts)
    cuts = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis %= len(x.shape)
        if not step:
            raise Unsupported("a step of 0")
        taken = range(*slice(start, _end(end, step, x.shape[axis]), step).indices(x.shape[axis]))
        cuts.append((axis, taken.start if taken else 0, len(taken), step))
    return [cut(queue, x, cuts)]


def _end(end: int, step: int, extent: int) -> int | None:
    """ONNX's end as Python's: going down, a bound before the first element is none at all."""
    return None if step < 0 and end < -extent else end


def cut(queue: Queue, x: Tensor, cuts: Sequence[tuple[int, int, int, int]]) -> Tensor:
    """Parts of axes: axis, first element, count, step. Backwards they are copied, forwards they lie where they are."""
    assert x.format is not None
    found: Lying | None = (
        lying_of(queue, x) if x.size and all(count and step > 0 for _, _, count, step in cuts) else None
    )
    for axis, start, count, step in cuts:
        found = found.cut(axis, start, count, step) if found is not None else None
    if found is not None:
        return placed(queue, found)
    shape, strides, first = list(x.shape), list(contiguous(x.shape)), 0
    for axis, start, count, step in cuts:
        first += start * strides[axis]
        shape[axis], strides[axis] = count, strides[axis] * step
    y = queue.empty(tuple(shape), x.format)
    copy(queue, tuple(shape), (x, first, tuple(strides)), (y, 0, contiguous(shape)))
    return y


def expand(queue: Queue, call: Call) -> list[Tensor | None]:
    x, wanted = call.stored(queue, 0), call.numbers(1, queue)
    shape = broadcast(x.shape, tuple(wanted or ()))
    if not x.size or not math.prod(shape):
        return [queue.empty(shape, call.store())]
    return [placed(queue, lying_of(queue, x).repeated(shape))]


def tile(queue: Queue, call: Call) -> list[Tensor | None]:
    x, repeats = call.stored(queue, 0), call.numbers(1, queue) or []
    shape = tuple(r * n for r, n in zip(repeats, x.shape, strict=True))
    walk = tuple(n for pair in zip(repeats, x.shape, strict=True) for n in pair)
    strides = tuple(s for step in contiguous(x.shape) for s in (0, step))
    y = queue.empty(shape, call.store())
    copy(queue, walk, (x, 0, strides), (y, 0, contiguous(walk)))
    return [y]


def gather(queue: Queue, call: Call) -> list[Tensor | None]:
    x, indices = call.stored(queue, 0), call.data(1)
    axis = call.int("axis", 0) % len(x.shape)
    outer, extent, inner = around(x.shape, axis)
    numbers = queue.known(indices)
    if numbers is not None and numbers.size and not (-extent <= int(numbers.min()) and int(numbers.max()) < extent):
        raise Unsupported("an index that is out of range")
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    if numbers is not None and numbers.size == 1:  # one row: no index is needed on the device
        return [cut(queue, x, [(axis, int(numbers.reshape(-1)[0]) % extent, 1, 1)]).view(shape)]
    y = queue.empty(shape, call.store())
    gathered(queue, x, indices, (outer, extent, indices.size, inner), y)
    return [y]


def depth_to_space(queue: Queue, call: Call) -> list[Tensor | None]:
    x, size = call.stored(queue, 0), call.int("blocksize", 1)
    n, c, h, w = x.shape
    if call.node.op_type == "SpaceToDepth":
        order = (0, 3, 5, 1, 2, 4) if call.text("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
        moved = _reordered(queue, x.view((n, c, h // size, size, w // size, size)), order)
        return [moved.view((n, c * size * size, h // size, w // size))]
    if call.text("mode", "DCR") == "DCR":
        moved = _reordered(queue, x.view((n, size, size, c // size**2, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        moved = _reordered(queue, x.view((n, c // size**2, size, size, h, w)), (0, 1, 4, 2, 5, 3))
    return [moved.view((n, c // size**2, h * size, w * size))]


# --- the same bytes under another shape ----------------------------------------------------------------------------------


def reshape(queue: Queue, call: Call) -> list[Tensor | None]:
    x, wanted = call.stored(queue, 0), call.numbers(1, queue) or []
    if not call.int("allowzero", 0):
        if 0 in wanted[len(x.shape) :]:
            raise Unsupported(f"Reshape of {x.shape} to {wanted}: 0 keeps an axis that is not there")
        wanted = [x.shape[axis] if extent == 0 else extent for axis, extent in enumerate(wanted)]
    if -1 in wanted:
        known = math.prod(extent for extent in wanted if extent != -1)
        if not known or x.size % known:
            raise Unsupported(f"Reshape of {x.shape} to {wanted}")
        wanted[wanted.index(-1)] = x.size // known
    if math.prod(wanted) != x.size:
        raise Unsupported(f"Reshape of {x.shape} to {wanted}")
    return [x.view(tuple(wanted))]


def squeeze(queue: Queue, call: Call) -> list[Tensor | None]:
    x, axes = call.stored(queue, 0), call.ints("axes")
    axes = axes if axes is not None else call.numbers(1, queue)
    gone = {axis % len(x.shape) for axis in axes} if axes is not None else {a for a, n in enumerate(x.shape) if n == 1}
    if any(x.shape[axis] != 1 for axis in gone):
        raise Unsupported(f"Squeeze of {x.shape} along {sorted(gone)}")
    return [x.view(tuple(extent for axis, extent in enumerate(x.shape) if axis not in gone))]


def unsqueeze(queue: Queue, call: Call) -> list[Tensor | None]:
    x, axes = call.stored(queue, 0), call.ints("axes")
    axes = axes if axes is not None else (call.numbers(1, queue) or [])
    rank = len(x.shape) + len(axes)
    new, rest = {axis % rank for axis in axes}, iter(x.shape)
    return [x.view(tuple(1 if axis in new else next(rest) for axis in range(rank)))]


def flatten(queue: Queue, call: Call) -> list[Tensor | None]:
    x, axis = call.stored(queue, 0), call.int("axis", 1)
    axis = axis + len(x.shape) if axis < 0 else axis
    return [x.view((math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))]


def identity(queue: Queue, call: Call) -> list[Tensor | None]:
    training = call.given(2)
    if any(call.formats[1:]) or (training is not None and np.any(training.array(queue.backend))):
        raise Unsupported("Dropout in training")
    return [call.stored(queue, 0)]


MOVES = (
    Op(("Transpose",), transpose),
    Op(("Concat",), concat),
    Op(("Split",), split),
    Op(("Slice",), slices),
    Op(("Expand",), expand),
    Op(("Tile",), tile),
    Op(("Gather",), gather),
    Op(("DepthToSpace", "SpaceToDepth"), depth_to_space),
    Op(("Reshape",), reshape),
    Op(("Squeeze",), squeeze),
    Op(("Unsqueeze",), unsqueeze),
    Op(("Flatten",), flatten),
    Op(("Identity", "Dropout"), identity),
)
