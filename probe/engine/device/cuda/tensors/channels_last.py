"""Images, and volumes, whose channels are contiguous: the order that convolutions on sm_90a read and write. Nobody else has to know: a tensor made so turns
into dense order when someone asks for its address."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from probe.engine.device.cuda.layers.pointwise import Reading
from probe.engine.device.cuda.tensors.copies import in_dense_order, lying_of, placed, rounded_late, transposed
from probe.engine.device.cuda.tensors.lying import Axis, Lying, extent_of, joined
from probe.engine.device.cuda.tensors.tensor import Tensor

if TYPE_CHECKING:
    from probe.engine.device.cuda.queue import Queue

_KEY = "channels last"
AXES = (4, 5)  # of images, with rows and columns; of volumes, with slices before them
_LAST = {axes: (0, *range(2, axes), 1) for axes in AXES}
_FIRST = {axes: (0, axes - 1, *range(1, axes - 1)) for axes in AXES}
_WAYS = 1 << 12


def has_channels_last(x: Tensor) -> bool:
    """Whether the other order is there already."""
    return (x.kept is not None and _KEY in x.kept) or lies_last(x)


def lies_last(x: Tensor) -> bool:
    """Whether it was made so, whatever others have read of it since."""
    return x.lies is not None and len(x.shape) in AXES and x.lies.permuted(_LAST[len(x.shape)]).in_order


def lying_last(x: Tensor) -> Tensor | None:
    """[images, rows, columns, channels] of what was made so; None for all others."""
    lies = x.lies
    if lies is None or len(x.shape) not in AXES:
        return None
    images, channels, *image = x.shape
    if lies.base.shape == (images, *image, channels) and _is_whole(lies.axes):
        return lies.base
    moved = lies.permuted(_LAST[len(x.shape)])
    return lies.base.part(moved.shape, moved.shifted_bytes) if moved.in_order else None


@lru_cache(_WAYS)
def _is_whole(axes: tuple[Axis, ...]) -> bool:
    """Whether these are, in their order, the axes of what is dense with channels last: it may only begin where its base does."""
    return joined(part for at in _LAST[len(axes)] for part in axes[at]) in (
        (),
        joined([(math.prod(map(extent_of, axes)), 1)]),
    )


def channels_last(queue: Queue, x: Tensor) -> Tensor:
    """``x`` [images, channels, rows, columns] as [images, rows, columns, channels], dense; volumes with slices before rows."""
    if x.kept is not None and _KEY in x.kept:
        return x.kept[_KEY]
    if x.unrounded is not None and x.format is not None and x.lies is None:
        return rounded_late(queue, channels_last(queue, x.unrounded), x.format, "tf32")
    where = queue.aside if x.on_host and x.origin is None else queue  # what is the same in every run is kept
    last = _LAST[len(x.shape)]
    made = transposed(where, x, last)
    if x.lies is None or not x.lies.permuted(last).in_order:
        x.kept = {**(x.kept or {}), _KEY: made}
    return made


def dense_when_asked(queue: Queue, y: Tensor) -> Tensor:
    """``y`` [images, rows, columns, channels] as [images, channels, rows, columns], moved when someone asks for its address."""
    if y.lies is None and y.before is None and (known := _first_of(y.shape)) is not None:
        y.address(queue.backend)
        shape, axes = known
        lies = Lying(y, 0, axes)
        return Tensor(shape, y.format, late=lambda: in_dense_order(queue, lies), lies=lies)
    first = _FIRST[len(y.shape)]
    return placed(queue, lying_of(queue, y).permuted(first)) if y.size else transposed(queue, y, first)


@lru_cache(_WAYS)
def _first_of(shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[Axis, ...]] | None:
    """Shape and axes, channels first, of what is dense under a shape with channels last; None where nothing has to be moved."""
    images, *image, channels = shape
    if not math.prod(shape) or channels == 1 or math.prod(image) == 1:
        return None
    inner = [channels * math.prod(image[at + 1 :]) for at in range(len(image))]
    steps = (channels * math.prod(image), 1, *inner)
    moved = (images, channels, *image)
    return moved, tuple(joined([part]) for part in zip(moved, steps, strict=True))


def reading_last(queue: Queue, reading: Reading, axes: int = 4) -> Reading:
    """What is read beside images of four axes, or volumes of five, in the other order; what has one channel or one pixel an image lies there as it is."""
    x = reading.tensor
    shape = (1,) * (axes - len(x.shape)) + x.shape
    images, channels, *image = shape
    if channels == 1 or math.prod(image) == 1:
        return Reading(x.view((images, *image, channels)), reading.rounding)
    whole = x if x.shape == shape else x.view(shape)
    return Reading(channels_last(queue, whole), reading.rounding)


def in_its_order(queue: Queue, x: Tensor, work: Callable[[Tensor], Tensor]) -> Tensor:
    """What ``work`` makes of each element, channels last if ``x`` lies so and not in dense order."""
    if x.is_late and has_channels_last(x):
        return dense_when_asked(queue, work(channels_last(queue, x)))
    return work(x)
