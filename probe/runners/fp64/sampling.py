"""Resize, Upsample, GridSample and AffineGrid: reading an image between its elements.

Which element ``nearest`` copies, and how large a scaled image is, are choices and not numbers: they are made in float32, as every runtime
makes them, or a scale of 0.7 would give another picture. Coordinates that weigh elements are float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from probe.errors import InputError
from probe.runners.fp64.calls import Call, Kernel
from probe.runners.fp64.movement import integers
from probe.runners.protocol import Array

_Roi = tuple[float, float]  # start and end on an axis, for tf_crop_and_resize


def _source(mode: str, out: int, extent: int, scale: float, roi: _Roi, dtype: type[np.floating]) -> Array:
    """Where in the input each of ``out`` elements lies, in ``dtype``."""
    x = np.arange(out, dtype=dtype)
    n, s, half = dtype(extent), dtype(scale), dtype(0.5)
    match mode:
        case "asymmetric":
            return x / s
        case "align_corners":
            return np.zeros(out, dtype) if out == 1 else x * (n - 1) / dtype(out - 1)
        case "pytorch_half_pixel":
            return (x + half) / s - half if out > 1 else np.zeros(out, dtype)
        case "half_pixel_symmetric":
            return n / 2 * (1 - dtype(out) / (s * n)) + (x + half) / s - half
        case "tf_crop_and_resize":
            start, end = dtype(roi[0]), dtype(roi[1])
            if out == 1:
                return np.full(1, half * (start + end) * (n - 1))
            return start * (n - 1) + x * (end - start) * (n - 1) / dtype(out - 1)
        case "half_pixel":
            return (x + half) / s - half
    raise ValueError(f"there is no coordinate transformation {mode!r}")


def _nearest(x: Array, mode: str) -> Array:
    match mode:
        case "floor":
            found = np.floor(x)
        case "ceil":
            found = np.ceil(x)
        case "round_prefer_ceil":
            found = np.floor(x + x.dtype.type(0.5))
        case _:
            found = np.ceil(x - x.dtype.type(0.5))
    return found.astype(np.int64)


def _cubic(t: Array, a: float) -> list[Array]:
    """Weights of the four elements around a place ``t`` in 0..1 behind the second (Keys, 1981)."""

    def near(d: Array) -> Array:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Array) -> Array:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


def _along(x: Array, axis: int, at: Array, mode: str, a: float, *, exclude_outside: bool) -> Array:
    """Linear or cubic interpolation of one axis at the places ``at``; beyond the ends the last element goes on."""
    base = np.floor(at).astype(np.int64)
    t = at - base
    offsets, weights = ((0, 1), [1 - t, t]) if mode == "linear" else ((-1, 0, 1, 2), _cubic(t, a))
    extent = x.shape[axis]
    if exclude_outside and mode == "cubic":
        inside = [(base + o >= 0) & (base + o < extent) for o in offsets]
        weights = [np.where(ok, w, 0.0) for ok, w in zip(inside, weights, strict=True)]
        total = sum(weights, np.zeros(len(at)))
        weights = [w / total for w in weights]
    shape = (-1, *(1,) * (x.ndim - 1 - axis))
    terms = (
        np.take(x, np.clip(base + o, 0, extent - 1), axis) * w.reshape(shape)
        for o, w in zip(offsets, weights, strict=True)
    )
    return sum(terms, np.zeros(()))


def _resize(
    call: Call, x: Array, roi: Array | None = None, scales: Array | None = None, sizes: Array | None = None
) -> Array:
    if call.version < 11:  # operator set 10: (x, scales), asymmetric, the element before
        return _scaled(call, x, roi, None, None, "asymmetric", "floor")
    return _scaled(call, x, scales, sizes, roi, call["coordinate_transformation_mode"], call["nearest_mode"])


def _upsample(call: Call, x: Array, scales: Array | None = None) -> Array:
    factors = np.array(call["scales"]) if scales is None else scales
    return _scaled(call, x, factors, None, None, "asymmetric", "floor")


def _scaled(
    call: Call,
    x: Array,
    scales: Array | None,
    sizes: Array | None,
    roi: Array | None,
    transformation: str,
    nearest: str,
) -> Array:
    axes = [axis % x.ndim for axis in call.get("axes") or range(x.ndim)]
    out, factors = _extents(call, x.shape, axes, scales, sizes)
    crop = transformation == "tf_crop_and_resize"
    box = [float(value) for value in roi.reshape(-1)] if crop and roi is not None else []
    mode, outside = call["mode"], np.zeros((), bool)
    kind = x.dtype
    for i, axis in enumerate(axes):
        extent, size, scale = x.shape[axis], out[axis], factors[axis]
        region: _Roi = (box[i], box[i + len(axes)]) if box else (0.0, 1.0)
        if extent == size and scale == 1 and region == (0.0, 1.0):
            continue
        dtype = np.float32 if mode == "nearest" else np.float64
        at = _source(transformation, size, extent, scale, region, dtype)
        if crop:
            outside = outside | ((at < 0) | (at > extent - 1)).reshape(-1, *(1,) * (x.ndim - 1 - axis))
        if mode == "nearest":
            x = np.take(x, np.clip(_nearest(at, nearest), 0, extent - 1), axis)
        elif mode in ("linear", "cubic"):
            x = _along(
                x,
                axis,
                at,
                mode,
                call.get("cubic_coeff_a", -0.75),
                exclude_outside=bool(call.get("exclude_outside", 0)),
            )
        else:
            raise ValueError(f"there is no mode {mode!r}")
    x = np.where(outside, call.get("extrapolation_value", 0.0), x) if crop else x
    return (np.clip(np.rint(x), *_range(kind)) if kind.kind in "iu" and x.dtype.kind == "f" else x).astype(kind)


def _range(kind: np.dtype) -> tuple[int, int]:
    info = np.iinfo(kind)
    return int(info.min), int(info.max)


def _extents(
    call: Call, shape: Sequence[int], axes: Sequence[int], scales: Array | None, sizes: Array | None
) -> tuple[list[int], list[float]]:
    """Extents of the result and scale factors, all axes."""
    if call.get("antialias", 0):
        raise InputError("Resize with antialias is not evaluated in float64", hint="--golden ort")
    out, factors = list(shape), [1.0] * len(shape)
    if sizes is not None and sizes.size:
        wanted = integers(sizes)
        ratios = [size / shape[axis] for size, axis in zip(wanted, axes, strict=True)]
        policy = call.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            ratios = [ratio] * len(ratios)
            wanted = [int(ratio * shape[axis] + 0.5) for axis in axes]
        for axis, size, ratio in zip(axes, wanted, ratios, strict=True):
            out[axis], factors[axis] = size, ratio
    elif scales is not None and scales.size:
        for axis, scale in zip(axes, scales.reshape(-1), strict=True):
            out[axis], factors[axis] = int(np.float32(scale) * np.float32(shape[axis])), float(scale)
    else:
        raise ValueError("neither scales nor sizes are given")
    return out, factors


def _reflected(x: Array, low: float, high: float) -> Array:
    """Coordinates thrown back at both ends until they lie inside."""
    span = high - low
    if span <= 0:
        return np.zeros_like(x)
    rest = np.mod(x - low, 2 * span)
    return low + np.where(rest > span, 2 * span - rest, rest)


def _grid_sample(call: Call, x: Array, grid: Array) -> Array:
    """``x[N, C, *in]``, ``grid[N, *out, axes]`` with coordinates in -1..1, the last axis of x first: ``[N, C, *out]``."""
    mode, padding, corners = call["mode"], call["padding_mode"], bool(call["align_corners"])
    extents, axes = x.shape[2:], x.ndim - 2
    places = []
    for axis, n in enumerate(extents):
        g = grid[..., axes - 1 - axis]
        at = (g + 1) / 2 * (n - 1) if corners else ((g + 1) * n - 1) / 2
        if mode in ("bicubic", "cubic") or padding == "zeros":
            places.append(at)
        else:
            places.append(
                np.clip(at, 0, n - 1) if padding == "border" else np.clip(_fold(at, n, corners=corners), 0, n - 1)
            )
    items = np.arange(x.shape[0]).reshape(-1, *(1,) * axes)

    def read(index: Sequence[Array]) -> Array:
        """Elements at whole coordinates, as ``[N, *out, C]``."""
        inside = np.ones(grid.shape[:-1], bool)
        found = []
        for i, n in zip(index, extents, strict=True):
            if padding == "zeros":
                inside &= (i >= 0) & (i < n)
            elif padding == "reflection":
                i = np.rint(_fold(i.astype(np.float64), n, corners=corners)).astype(np.int64)
            found.append(np.clip(i, 0, n - 1))
        return np.where(inside[..., None], np.moveaxis(x, 1, -1)[(items, *found)], 0)

    if mode == "nearest":
        made = read([np.rint(at).astype(np.int64) for at in places])
    else:
        bases = [np.floor(at).astype(np.int64) for at in places]
        rests = [at - base for at, base in zip(places, bases, strict=True)]
        cubic = mode in ("bicubic", "cubic")
        offsets = range(-1, 3) if cubic else range(2)
        weights = [_cubic(t, -0.75) if cubic else [1 - t, t] for t in rests]
        made = np.zeros((*grid.shape[:-1], x.shape[1]))
        for taps in product(range(len(offsets)), repeat=axes):
            weight = np.prod([w[tap] for w, tap in zip(weights, taps, strict=True)], axis=0)
            made += weight[..., None] * read([base + offsets[tap] for base, tap in zip(bases, taps, strict=True)])
    return np.moveaxis(made, -1, 1).astype(x.dtype)


def _fold(at: Array, extent: int, *, corners: bool) -> Array:
    return _reflected(at, 0.0, extent - 1.0) if corners else _reflected(at, -0.5, extent - 0.5)


def _affine_grid(call: Call, theta: Array, size: Array) -> Array:
    """``theta[N, d, d + 1]`` applied to the places of an image of ``size[N, C, *extents]``: ``[N, *extents, d]``."""
    extents = integers(size)[2:]
    corners = bool(call.get("align_corners", 0))
    axes = [
        (np.linspace(-1.0, 1.0, n) if corners else (np.arange(n) * 2 + 1) / n - 1)
        if n > 1
        else np.full(1, -1.0 if corners else 0.0)
        for n in extents
    ]
    grid = np.meshgrid(*axes, indexing="ij")
    points = np.stack([*reversed(grid), np.ones(extents)], -1)  # the last axis of the image comes first
    return np.einsum("...k,njk->n...j", points, theta)


KERNELS: dict[str, Kernel] = {
    "Resize": _resize,
    "Upsample": _upsample,
    "GridSample": _grid_sample,
    "AffineGrid": _affine_grid,
}
