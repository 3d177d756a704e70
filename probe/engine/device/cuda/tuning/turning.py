"""The order of channels that layers read and make images in: found by planning them on images of both, and what turning one costs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from probe.engine.device.cuda.errors import Missing, Refused, Unsupported
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.channels_last import has_channels_last
from probe.engine.device.cuda.tensors.copies import transposed
from probe.engine.device.cuda.tensors.formats import Format, format_of, storage_of
from probe.engine.device.cuda.tuning.planning import Planning, Weightless, imagined, read_format, run_layer
from probe.engine.device.cuda.tuning.rig import Rig
from probe.engine.tuning.orders import FIRST, LAST, Pair

if TYPE_CHECKING:
    from probe import ir
    from probe.engine.device.cuda.backend import Backend
    from probe.engine.device.cuda.tensors.tensor import Tensor
    from probe.engine.layers import Layer
    from probe.engine.rounding import Plan, Sites

Shapes = Sequence[tuple[int, ...]]
_AXES = 4
_ROUNDS = 5


def orders_of(backend: Backend, opset: int, layer: Layer, plan: Plan, sites: Sites, shapes: Shapes) -> frozenset[Pair]:
    """In which orders a layer reads images and makes them of those, without turning one it reads. Empty: it cannot be planned.

    Args:
        shapes: of what it reads.
    """
    images = [value for value, shape in zip(layer.reads, shapes, strict=True) if _is_image(value, len(shape))]
    found: set[Pair] = set()
    both: set[Pair] = set()
    for order in (FIRST, LAST) if images else (FIRST,):
        planning = Planning(backend)
        queue = Queue(planning, opset, recording=True)
        try:
            reads = {
                id(value): imagined(
                    backend, value, shape, read_format(value, plan.choice.precision),
                    last=order == LAST and _is_image(value, len(shape)),
                )
                for value, shape in zip(layer.reads, shapes, strict=True)
            }  # fmt: skip
            made = run_layer(queue, layer, plan, sites, reads, Weightless(queue))
        except (Unsupported, Refused, Missing):
            return frozenset()
        out = [LAST if _lies_last(tensor) else FIRST for tensor in made.values() if len(tensor.shape) == _AXES]
        pairs = {(order, one) for one in out} if len(set(out)) == 1 else {(order, FIRST), (order, LAST)}
        both |= pairs
        turned = [
            has_channels_last(reads[id(v)]) if order == FIRST else reads[id(v)].memory is not None for v in images
        ]
        if not any(turned):
            found |= pairs
    if not images:
        found = {(order, made) for order in (FIRST, LAST) for _, made in found}
    return frozenset(found or both)


def _is_image(value: ir.Value, axes: int) -> bool:
    own = format_of(value)
    return axes == _AXES and own is not None and own.is_float


def _lies_last(tensor: Tensor) -> bool:
    return tensor.is_late and has_channels_last(tensor)


def turning_seconds(backend: Backend, shape: Sequence[int], precision: str) -> float:
    """What turning an image from one order into the other takes on the device: of both ways the mean, each past the cache."""
    backend.enter()
    stored: Format = storage_of(precision)
    images, channels, rows, columns = shape
    taken: list[float] = []
    for extents, order in (
        ((images, channels, rows, columns), (0, 2, 3, 1)),
        ((images, rows, columns, channels), (0, 3, 1, 2)),
    ):
        rig = Rig(backend)
        queue = Queue(rig, 0)
        x = queue.empty(extents, stored)
        noted = rig.note(lambda queue=queue, x=x, order=order: _turn(queue, x, order))
        if noted.launches:
            graph, count = rig.repetitions(noted)
            backend.seconds(graph.launch)
            taken.append(statistics.median(backend.seconds(graph.launch) / count for _ in range(_ROUNDS)))
        else:
            taken.append(0.0)  # one channel, or one pixel: the same bytes in both
        del x
        rig.forget()
    return math.fsum(taken) / len(taken)


def _turn(queue: Queue, x: Tensor, order: Sequence[int]) -> None:
    transposed(queue, x, order).address(queue.backend)
