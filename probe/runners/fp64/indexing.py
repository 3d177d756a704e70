"""Gathering, scattering and other operators that select elements by index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from probe.runners.fp64.calls import Call, Kernel, plain
from probe.runners.protocol import Array


def _wrapped(indices: Array, extent: int) -> Array:
    """Negative indices count from the end.

    Raises:
        IndexError: one is out of range.
    """
    if indices.size and not (-extent <= int(indices.min()) and int(indices.max()) < extent):
        raise IndexError(f"index {int(indices.max())} or {int(indices.min())} is out of bounds for {extent} elements")
    return np.where(indices < 0, indices + extent, indices).astype(np.int64)


def _gather(call: Call, x: Array, indices: Array) -> Array:
    return np.take(x, _wrapped(indices, x.shape[call["axis"]]), axis=call["axis"])


def _coordinates(shape: tuple[int, ...], indices: Array, axis: int) -> tuple[Array, ...]:
    """Coordinates of each element of ``indices``, with ``indices`` itself on ``axis``."""
    grid = np.ogrid[tuple(slice(extent) for extent in indices.shape)]
    found = list(np.broadcast_arrays(*grid)) if indices.ndim else []
    found[axis] = _wrapped(indices, shape[axis])
    return tuple(found)


def _gather_elements(call: Call, x: Array, indices: Array) -> Array:
    return x[_coordinates(x.shape, indices, call["axis"])]


def _points(shape: tuple[int, ...], indices: Array) -> tuple[Array, ...]:
    """The last axis of ``indices`` as coordinates of the leading axes of a tensor of this shape."""
    return tuple(_wrapped(indices[..., i], shape[i]) for i in range(indices.shape[-1]))


def _gather_nd(call: Call, x: Array, indices: Array) -> Array:
    shared = call.get("batch_dims", 0)
    points = _points(x.shape[shared:], indices)
    grid = np.ogrid[tuple(slice(extent) for extent in x.shape[:shared])] if shared else []
    outer = tuple(g.reshape(*g.shape, *(1,) * (indices.ndim - 1 - shared)) for g in grid)
    return x[(*outer, *points)]


# ufuncs whose .at applies every update, also several to one place
_UPDATES: dict[str, Callable[..., Any]] = {
    "add": np.add.at, "mul": np.multiply.at, "max": np.maximum.at, "min": np.minimum.at,
}  # fmt: skip


def _update(x: Array, places: tuple[Array, ...], updates: Array, reduction: str) -> Array:
    made = x.copy()
    if reduction == "none":
        made[places] = updates
    else:
        _UPDATES[reduction](made, places, updates)
    return made


def _scatter_elements(call: Call, x: Array, indices: Array, updates: Array) -> Array:
    return _update(x, _coordinates(x.shape, indices, call["axis"]), updates, call.get("reduction", "none"))


def _scatter_nd(call: Call, x: Array, indices: Array, updates: Array) -> Array:
    return _update(x, _points(x.shape, indices), updates, call.get("reduction", "none"))


def _non_zero(x: Array) -> Array:
    return np.array(np.nonzero(x if x.ndim else x.reshape(1)), np.int64)


def _one_hot(call: Call, indices: Array, depth: Array, values: Array) -> Array:
    """Indices out of range make no hot element."""
    count = int(depth.reshape(-1)[0])
    axis = call["axis"] % (indices.ndim + 1)
    whole = indices.astype(np.int64)
    whole = np.where(whole < 0, whole + count, whole)
    places = np.arange(count).reshape(-1, *(1,) * (indices.ndim - axis))
    return np.where(np.expand_dims(whole, axis) == places, values[1], values[0])


def _compress(call: Call, x: Array, condition: Array) -> Array:
    axis = call.get("axis")
    flags = condition.reshape(-1)
    kept = np.flatnonzero(flags[: x.size if axis is None else x.shape[axis]])
    return x.reshape(-1)[kept] if axis is None else np.take(x, kept, axis)


def _non_max_suppression(
    call: Call,
    boxes: Array,
    scores: Array,
    most: Array | None = None,
    overlap: Array | None = None,
    threshold: Array | None = None,
) -> Array:
    """``boxes[N, count, 4]``, ``scores[N, classes, count]`` -> rows of (item, class, box), best score first in each class."""
    limit = 0 if most is None else max(int(most.reshape(-1)[0]), 0)
    largest = 0.0 if overlap is None else float(overlap.reshape(-1)[0])
    rows: list[tuple[int, int, int]] = []
    for n, (item, classes) in enumerate(
        zip(_corners(boxes, centred=bool(call["center_point_box"])), scores, strict=True)
    ):
        for c, values in enumerate(classes):
            order = np.argsort(-values, kind="stable")
            if threshold is not None:
                order = order[values[order] > float(threshold.reshape(-1)[0])]
            kept = 0
            while order.size and kept < limit:
                best, rest = order[0], order[1:]
                rows.append((n, c, int(best)))
                kept += 1
                order = rest[_overlaps(item[best], item[rest]) <= largest]
    return np.array(rows, np.int64).reshape(-1, 3)


def _corners(boxes: Array, *, centred: bool) -> Array:
    """(low, low, high, high) of boxes given by two opposite corners, or by centre and extents."""
    if centred:
        middle, half = boxes[..., :2], boxes[..., 2:] / 2
        return np.concatenate([middle - half, middle + half], -1)
    first, second = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], -1)


def _overlaps(box: Array, others: Array) -> Array:
    """Intersection over union with each of ``others``; 0 for boxes without area."""
    shared = np.clip(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0, None).prod(-1)
    area, areas = (box[2:] - box[:2]).prod(), (others[:, 2:] - others[:, :2]).prod(-1)
    union = area + areas - shared
    return np.where((area > 0) & (areas > 0) & (shared > 0), shared / np.where(union > 0, union, 1.0), 0.0)


KERNELS: dict[str, Kernel] = {
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "OneHot": _one_hot,
    "Compress": _compress,
    "NonMaxSuppression": _non_max_suppression,
    **plain({"NonZero": _non_zero}),
}
