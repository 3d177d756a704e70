"""Images whose channels are contiguous: the order that convolutions on sm_90a read and write. Nobody else has to know: a tensor made so turns
into dense order when someone asks for its address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probe.engine.device.cuda.copies import transposed
from probe.engine.device.cuda.pointwise import Reading
from probe.engine.device.cuda.tensor import Tensor

if TYPE_CHECKING:
    from probe.engine.device.cuda.queue import Queue

_KEY = "channels last"
_LAST, _FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
_AXES = 4


def has_channels_last(x: Tensor) -> bool:
    """Whether the other order is there already."""
    return x.kept is not None and _KEY in x.kept


def channels_last(queue: Queue, x: Tensor) -> Tensor:
    """``x`` [images, channels, rows, columns] as [images, rows, columns, channels]."""
    if not has_channels_last(x):
        where = queue.aside if x.on_host and x.origin is None else queue  # what is the same in every run is kept
        x.kept = {**(x.kept or {}), _KEY: transposed(where, x, _LAST)}
    assert x.kept is not None
    return x.kept[_KEY]


def dense_when_asked(queue: Queue, y: Tensor) -> Tensor:
    """``y`` [images, rows, columns, channels] as [images, channels, rows, columns]."""
    images, rows, columns, channels = y.shape
    made = Tensor((images, channels, rows, columns), y.format, late=lambda: transposed(queue, y, _FIRST))
    made.kept = {_KEY: y}
    return made


def reading_last(queue: Queue, reading: Reading) -> Reading:
    """What is read beside images of four axes, in the other order; what has one channel or one pixel an image lies there as it is."""
    x = reading.tensor
    shape = (1,) * (_AXES - len(x.shape)) + x.shape
    images, channels, rows, columns = shape
    if channels == 1 or rows * columns == 1:
        return Reading(x.view((images, rows, columns, channels)), reading.rounding)
    four = x if x.shape == shape else x.view(shape)
    return Reading(channels_last(queue, four), reading.rounding)
