"""Where items, channels and classes lie in a tensor's shape, and how to cut it into windows and blocks that respect them.

Axis 0 is the batch. Channels: axis 1 of tensors of four and more dimensions (NCHW, NCDHW), the last axis of two- and
three-dimensional ones (tokens, features). Classes, for top-k: the channel axis; for one-dimensional tensors the only axis.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

MAX_CHANNELS = 1 << 16  # above this a per-channel table is no help and costs memory


@dataclass(frozen=True, slots=True)
class Layout:
    """A shape seen as ``rows`` runs of ``inner`` adjacent elements that belong to one item and, where there is one, one channel.

    Attributes:
        channel_axis: where channels lie; None without them, and where the last axis holds more than ``MAX_CHANNELS``.
        rows: number of runs whose maxima are kept; 0 when neither items nor channels need them.
        inner: elements of a run.
        last_channels: channels when they lie on the last axis, else 0.
        classes, class_inner: length of the class axis and elements after it; 1 class means no class axis.
    """

    shape: tuple[int, ...]
    count: int
    pairs: bool  # complex: two numbers an element
    channel_axis: int | None
    rows: int
    inner: int
    last_channels: int
    classes: int
    class_inner: int

    @property
    def class_span(self) -> int:
        return self.classes * self.class_inner

    def windows(self, limit: int) -> Iterator[tuple[int, int]]:
        """Ranges that cover the tensor: whole class spans when they fit ``limit``, else whole runs, else parts of a run."""
        unit = next((u for u in (self.class_span, self.inner) if 0 < u <= limit), 0)
        yield from self._cut(0, self.count, limit, unit)

    def blocks(self, start: int, stop: int, limit: int) -> Iterator[tuple[int, int]]:
        """Ranges that cover a window: whole runs, or parts of one run."""
        yield from self._cut(start, stop, limit, self.inner if self.inner <= limit else 0)

    def _cut(self, start: int, stop: int, limit: int, unit: int) -> Iterator[tuple[int, int]]:
        if unit:
            step = limit // unit * unit
            for low in range(start, stop, step):
                yield low, min(low + step, stop)
            return
        low = start
        while low < stop:
            high = min(low + limit, (low // self.inner + 1) * self.inner, stop)
            yield low, high
            low = high

    def row_maxima(self, start: int, values: Array, *, into: Array) -> None:
        """Fold the maxima of the runs in a block into ``into[rows]``."""
        row = start // self.inner
        if values.size < self.inner:
            into[row] = max(into[row], values.max())
            return
        maxima = values.reshape(-1, self.inner).max(axis=1)
        np.maximum(into[row : row + maxima.size], maxima, out=into[row : row + maxima.size])

    def by_item(self, rows: Array) -> Array:
        """Row maxima -> maxima of each index on axis 0."""
        return rows.reshape(self.shape[0], -1).max(axis=1)

    def by_channel(self, rows: Array) -> Array:
        """Row maxima -> maxima of each index on axis 1, for layouts whose channels lie there."""
        return rows.reshape(self.shape[0], self.shape[1]).max(axis=0)

    def index(self, flat: int) -> tuple[int, ...]:
        """Element index in the shape from a position in the flat data."""
        return tuple(int(i) for i in np.unravel_index(flat // (2 if self.pairs else 1), self.shape))


def layout_of(shape: tuple[int, ...], *, complex_pairs: bool = False) -> Layout:
    """The layout of a shape; ``complex_pairs`` doubles the elements and gives up items, channels and classes."""
    count = math.prod(shape) * (2 if complex_pairs else 1)
    if complex_pairs or count == 0 or not shape:
        return Layout(shape, count, complex_pairs, None, 0, max(count, 1), 0, 1, 1)
    if len(shape) == 1:
        return Layout(shape, count, False, None, 0, count, 0, count, 1)
    if 2 <= len(shape) <= 3:
        channels = shape[-1]
        rows = count // channels if shape[0] > 1 else 0
        few = channels <= MAX_CHANNELS
        return Layout(
            shape, count, False, len(shape) - 1 if few else None, rows, channels, channels if few else 0, channels, 1
        )
    inner = math.prod(shape[2:])
    return Layout(shape, count, False, 1, shape[0] * shape[1], inner, 0, shape[1], inner)
