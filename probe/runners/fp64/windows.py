"""Sliding windows over spatial axes: padding, extents and views that convolutions and poolings share."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import as_strided

from probe.runners.fp64.calls import Call
from probe.runners.protocol import Array

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Window:
    """How a kernel slides over the spatial axes; a number an axis everywhere."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]  # padding
    after: tuple[int, ...]
    out: tuple[int, ...]  # extents of the result

    @property
    def reach(self) -> tuple[int, ...]:
        """Extents a kernel covers, dilation included."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def positions(self) -> Iterator[tuple[int, ...]]:
        """Places of the kernel, last axis fastest."""
        return product(*(range(extent) for extent in self.kernel))

    def overhang(self, extents: Sequence[int]) -> tuple[int, ...]:
        """Padding behind the data that the windows need: with ``ceil_mode`` more than ``after``, sometimes less."""
        return tuple(
            (o - 1) * s + r - (n + b)
            for n, o, s, r, b in zip(extents, self.out, self.strides, self.reach, self.before, strict=True)
        )


def read_window(call: Call, extents: Sequence[int], kernel: Sequence[int], *, ceil: bool = False) -> Window:
    """The window of a convolution or pooling over data of these spatial extents.

    Raises:
        ValueError: the kernel does not fit into the data.
    """
    axes = len(extents)
    strides = call.get("strides") or [1] * axes
    dilations = call.get("dilations") or [1] * axes
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    mode = call.get("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        out = [-(-n // s) for n, s in zip(extents, strides, strict=True)]
        totals = [max((o - 1) * s + r - n, 0) for o, s, r, n in zip(out, strides, reach, extents, strict=True)]
        before = [total // 2 if mode == "SAME_UPPER" else total - total // 2 for total in totals]
        after = [total - b for total, b in zip(totals, before, strict=True)]
    else:
        pads = [0] * 2 * axes if mode == "VALID" else call.get("pads") or [0] * 2 * axes
        before, after = list(pads[:axes]), list(pads[axes:])
        out = [
            _count(n + b + a - r, s, n + b, ceil=ceil)
            for n, b, a, r, s in zip(extents, before, after, reach, strides, strict=True)
        ]
    if min(out, default=1) < 0 or any(o < 1 <= n for o, n in zip(out, extents, strict=True)):
        raise ValueError(
            f"a kernel that covers {reach} does not fit into extents {list(extents)} with pads {before} and {after}"
        )
    return Window(tuple(kernel), tuple(strides), tuple(dilations), tuple(before), tuple(after), tuple(out))


def _count(room: int, stride: int, start_limit: int, *, ceil: bool) -> int:
    if not ceil:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= start_limit else count  # the last window starts inside the data


def padded(x: Array, window: Window, fill: float) -> Array:
    """``x[N, C, ...]`` with ``fill`` around its spatial axes, so that every window lies inside."""
    tails = window.overhang(x.shape[2:])
    widths = [(max(b, 0), max(a, 0)) for b, a in zip(window.before, tails, strict=True)]
    if any(map(any, widths)):
        x = np.pad(x, [(0, 0), (0, 0), *widths], constant_values=fill)
    return x[(slice(None), slice(None), *(slice(max(-b, 0), None) for b in window.before))]


def view(x: Array, window: Window) -> Array:
    """All windows of a padded ``x[N, C, ...]`` without copying: ``[N, C, *kernel, *out]``."""
    spatial = x.strides[2:]
    inner = tuple(s * d for s, d in zip(spatial, window.dilations, strict=True))
    outer = tuple(s * t for s, t in zip(spatial, window.strides, strict=True))
    return as_strided(x, (*x.shape[:2], *window.kernel, *window.out), (*x.strides[:2], *inner, *outer), writeable=False)


def shifted(x: Array, window: Window, position: Sequence[int]) -> Array:
    """What one place of the kernel meets in every window of a padded ``x[N, C, ...]``: ``[N, C, *out]``, without copying."""
    slices = (
        slice(p * d, p * d + (o - 1) * s + 1, s)
        for p, d, o, s in zip(position, window.dilations, window.out, window.strides, strict=True)
    )
    return x[(slice(None), slice(None), *slices)]
