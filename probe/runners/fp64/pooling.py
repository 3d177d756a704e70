"""Pooling: maximum with indices, average, Lp, their global forms, and MaxUnpool."""

from __future__ import annotations

from math import prod

import numpy as np

from probe.runners.fp64.calls import Call, Kernel, plain
from probe.runners.fp64.windows import Window, padded, read_window, shifted
from probe.runners.protocol import Array


def _max_pool(call: Call, x: Array) -> Array | tuple[Array, Array]:
    window = read_window(call, x.shape[2:], call["kernel_shape"], ceil=bool(call.get("ceil_mode", 0)))
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    around = padded(x, window, lowest)
    best = np.full((*x.shape[:2], *window.out), lowest, x.dtype)
    if not call.wants(1):
        for position in window.positions():
            np.maximum(best, shifted(around, window, position), out=best)
        return best
    where = np.zeros(best.shape, np.int64)
    unset = np.ones(best.shape, bool)
    for position in window.positions():
        seen = shifted(around, window, position)
        index, inside = _indices(window, position, x.shape[2:], column_major=bool(call.get("storage_order", 0)))
        better = ((seen > best) | unset) & inside
        best, where, unset = np.where(better, seen, best), np.where(better, index, where), unset & ~better
    # Indices are into the whole tensor: count the items and channels before this one.
    first = np.arange(prod(x.shape[:2])).reshape(*x.shape[:2], *(1,) * len(window.out)) * prod(x.shape[2:])
    return best, where + first


def _indices(
    window: Window, position: tuple[int, ...], extents: tuple[int, ...], *, column_major: bool
) -> tuple[Array, Array]:
    """Where in the unpadded data one place of the kernel lies for each window, as a flat index; and whether it lies inside."""
    axes = len(extents)
    index, inside = np.zeros(window.out, np.int64), np.ones(window.out, bool)
    order = range(axes) if not column_major else reversed(range(axes))
    for axis in order:
        at = (
            np.arange(window.out[axis]) * window.strides[axis]
            + position[axis] * window.dilations[axis]
            - window.before[axis]
        )
        at = at.reshape(-1, *(1,) * (axes - 1 - axis))
        index = index * extents[axis] + at
        inside = inside & (at >= 0) & (at < extents[axis])
    return index, inside


def _sum(x: Array, window: Window) -> Array:
    around = padded(x, window, 0.0)
    total = np.zeros((*x.shape[:2], *window.out))
    for position in window.positions():
        total += shifted(around, window, position)
    return total


def _average_pool(call: Call, x: Array) -> Array:
    window = read_window(call, x.shape[2:], call["kernel_shape"], ceil=bool(call.get("ceil_mode", 0)))
    ones = np.ones((1, 1, *x.shape[2:]))
    if call.get("count_include_pad", 0):
        # What ceil_mode adds beyond the padding never counts.
        ones = np.pad(ones, [(0, 0), (0, 0), *zip(window.before, window.after, strict=True)], constant_values=1.0)
        inner = Window(
            window.kernel, window.strides, window.dilations, (0,) * len(window.out), (0,) * len(window.out), window.out
        )
        return _sum(x, window) / _sum(ones, inner)
    return _sum(x, window) / _sum(ones, window)


def _lp_pool(call: Call, x: Array) -> Array:
    window = read_window(call, x.shape[2:], call["kernel_shape"], ceil=bool(call.get("ceil_mode", 0)))
    p = call.get("p", 2)
    return np.power(_sum(np.power(np.abs(x), p), window), 1.0 / p)


def _spatial(x: Array) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


def _global_lp_pool(call: Call, x: Array) -> Array:
    p = call.get("p", 2)
    return np.power(np.power(np.abs(x), p).sum(axis=_spatial(x), keepdims=True), 1.0 / p)


def _max_unpool(call: Call, x: Array, indices: Array, shape: Array | None = None) -> Array:
    """Each element back to the place its index names in the tensor before pooling; zeros elsewhere."""
    axes = x.ndim - 2
    strides, pads = call.get("strides") or [1] * axes, call.get("pads") or [0] * 2 * axes
    if shape is not None:
        extents = tuple(int(extent) for extent in shape)
    else:
        spatial = (
            (n - 1) * s - pads[i] - pads[axes + i] + k
            for i, (n, s, k) in enumerate(zip(x.shape[2:], strides, call["kernel_shape"], strict=True))
        )
        extents = (*x.shape[:2], *spatial)
    out = np.zeros(prod(extents), x.dtype)
    out[indices.reshape(-1)] = x.reshape(-1)
    return out.reshape(extents)


KERNELS: dict[str, Kernel] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "LpPool": _lp_pool,
    **plain(
        {
            "GlobalMaxPool": lambda x: x.max(axis=_spatial(x), keepdims=True),
            "GlobalAveragePool": lambda x: x.mean(axis=_spatial(x), keepdims=True),
        }
    ),
    "GlobalLpPool": _global_lp_pool,
    "MaxUnpool": _max_unpool,
}
