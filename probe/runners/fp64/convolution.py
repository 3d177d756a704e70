"""Convolution and transposed convolution in any number of dimensions, as matrix products over copied windows."""

from __future__ import annotations

from math import prod

import numpy as np

from probe.runners.fp64.calls import Call, Kernel
from probe.runners.fp64.windows import Window, padded, read_window, shifted, view
from probe.runners.protocol import Array

_BLOCK = 4 << 20  # elements of windows copied at a time: 32 MB, enough for a matrix product to run at full speed


def convolve(x: Array, w: Array, window: Window, groups: int) -> Array:
    """Cross-correlation in float64.

    Args:
        x: ``[N, C, *spatial]``.
        w: ``[M, C / groups, *kernel]``.

    Returns:
        ``[N, M, *window.out]``.

    Raises:
        ValueError: channels and groups do not match.
    """
    channels, makes = x.shape[1], w.shape[0]
    if channels != w.shape[1] * groups or makes % groups:
        raise ValueError(f"{channels} channels in {groups} groups do not fit weights of shape {list(w.shape)}")
    out = np.zeros((x.shape[0], makes, *window.out))
    if not out.size:
        return out
    x = padded(x, window, 0.0)
    if w.shape[1] == 1 and makes == groups:  # depthwise: nothing to multiply as matrices
        for position in window.positions():
            out += shifted(x, window, position) * w[(slice(None), 0, *position)].reshape(-1, *(1,) * len(window.out))
        return out
    matrices = w.reshape(groups, makes // groups, -1)
    windows = view(x, window)
    kernel = len(window.kernel)
    per_row = channels * prod(window.kernel) * prod(window.out[1:])  # elements copied for one row of the result
    rows = min(max(_BLOCK // per_row, 1), window.out[0])
    items = max(_BLOCK // (per_row * rows), 1) if rows == window.out[0] else 1
    for n in range(0, x.shape[0], items):
        for r in range(0, window.out[0], rows):
            rest = (slice(None),) * (1 + kernel)
            block = windows[(slice(n, n + items), *rest, slice(r, r + rows))]
            count, height = block.shape[0], block.shape[2 + kernel]
            columns = np.moveaxis(block, 0, 1 + kernel).reshape(groups, matrices.shape[2], -1)
            made = np.matmul(matrices, columns).reshape(makes, count, height, *window.out[1:])
            out[n : n + items, :, r : r + rows] = np.moveaxis(made, 1, 0)
    return out


def _conv(call: Call, x: Array, w: Array, bias: Array | None = None) -> Array:
    out = convolve(x, w, read_window(call, x.shape[2:], w.shape[2:]), call["group"])
    return out if bias is None else out + bias.reshape(-1, *(1,) * (x.ndim - 2))


def _conv_transpose(call: Call, x: Array, w: Array, bias: Array | None = None) -> Array:
    """``x[N, C, ...]``, ``w[C, M / group, *kernel]``: every element of x adds a kernel to the result."""
    groups, spatial, kernel = call["group"], x.shape[2:], w.shape[2:]
    if x.shape[1] != w.shape[0] or x.shape[1] % groups:
        raise ValueError(f"{x.shape[1]} channels in {groups} groups do not fit weights of shape {list(w.shape)}")
    axes = len(spatial)
    strides = tuple(call.get("strides") or [1] * axes)
    dilations = tuple(call.get("dilations") or [1] * axes)
    extra = tuple(call.get("output_padding") or [0] * axes)
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    full = tuple((n - 1) * s + r for n, s, r in zip(spatial, strides, reach, strict=True))
    before, out = _crop(call, spatial, strides, extra, full)

    spread = np.zeros((x.shape[0], w.shape[1] * groups, *full))
    window = Window(kernel, strides, dilations, (0,) * axes, (0,) * axes, spatial)
    columns = x.reshape(x.shape[0], groups, x.shape[1] // groups, -1)
    matrices = w.reshape(groups, w.shape[0] // groups, w.shape[1], *kernel)
    for position in window.positions():
        matrix = np.swapaxes(matrices[(..., *position)], 1, 2)  # [group, M / group, C / group]
        shifted(spread, window, position)[...] += np.matmul(matrix, columns).reshape(*spread.shape[:2], *spatial)

    result = np.zeros((*spread.shape[:2], *out))
    inside = [(max(b, 0), min(b + o, f)) for b, o, f in zip(before, out, full, strict=True)]
    source = (slice(None), slice(None), *(slice(low, high) for low, high in inside))
    target = (
        slice(None),
        slice(None),
        *(slice(low - b, high - b) for (low, high), b in zip(inside, before, strict=True)),
    )
    result[target] = spread[source]
    return result if bias is None else result + bias.reshape(-1, *(1,) * axes)


def _crop(
    call: Call, spatial: tuple[int, ...], strides: tuple[int, ...], extra: tuple[int, ...], full: tuple[int, ...]
) -> tuple[list[int], list[int]]:
    """(elements cut off in front, extents of the result) an axis."""
    mode, wanted, axes = call.get("auto_pad", "NOTSET"), call.get("output_shape"), len(spatial)
    if wanted or mode in ("SAME_UPPER", "SAME_LOWER"):
        out = list(wanted[-axes:]) if wanted else [n * s for n, s in zip(spatial, strides, strict=True)]
        totals = [max(f + e - o, 0) for f, e, o in zip(full, extra, out, strict=True)]
        return [total // 2 if mode == "SAME_UPPER" else total - total // 2 for total in totals], out
    pads = [0] * 2 * axes if mode == "VALID" else call.get("pads") or [0] * 2 * axes
    out = [f + e - b - a for f, e, b, a in zip(full, extra, pads[:axes], pads[axes:], strict=True)]
    return list(pads[:axes]), out


def _conv_integer(call: Call, x: Array, w: Array, x_zero: Array | None = None, w_zero: Array | None = None) -> Array:
    """int32; sums of products of bytes are exact in float64."""
    return convolve(
        _centred(x, x_zero, 0), _centred(w, w_zero, 0), read_window(call, x.shape[2:], w.shape[2:]), call["group"]
    ).astype(np.int32)


def _centred(x: Array, zero: Array | None, axis: int) -> Array:
    """Integers minus their zero point, which is one number or one an element of ``axis``."""
    if zero is None:
        return x.astype(np.float64)
    shape = [1] * x.ndim
    if zero.size > 1:
        shape[axis] = zero.size
    return x.astype(np.float64) - zero.astype(np.float64).reshape(shape)


def _qlinear_conv(
    call: Call, x: Array, x_scale: Array, x_zero: Array, w: Array, w_scale: Array, w_zero: Array,
    y_scale: Array, y_zero: Array, bias: Array | None = None,
) -> Array:  # fmt: skip
    total = convolve(
        _centred(x, x_zero, 0), _centred(w, w_zero, 0), read_window(call, x.shape[2:], w.shape[2:]), call["group"]
    )
    channels = (-1, *(1,) * (x.ndim - 2))
    if bias is not None:
        total += bias.astype(np.float64).reshape(channels)
    scale = (x_scale * w_scale / y_scale).reshape(channels)
    limits = np.iinfo(y_zero.dtype)
    return np.clip(np.rint(total * scale) + y_zero.astype(np.float64), limits.min, limits.max).astype(y_zero.dtype)


def _deformable(
    call: Call, x: Array, w: Array, offset: Array, bias: Array | None = None, mask: Array | None = None
) -> Array:
    """Convolution that reads each element beside its place, between four others, and may weigh it. Two spatial axes.

    ``offset[N, offset_group * taps * 2, *out]``, ``mask[N, offset_group * taps, *out]``; outside the data there are zeros.
    """
    window = read_window(call, x.shape[2:], w.shape[2:])
    groups, shared, taps = call["group"], call["offset_group"], prod(window.kernel)
    items, channels, makes = x.shape[0], x.shape[1], w.shape[0]
    moved = offset.reshape(items, shared, taps, 2, *window.out)
    weights = (
        np.ones((items, shared, taps, *window.out)) if mask is None else mask.reshape(items, shared, taps, *window.out)
    )
    steps = np.meshgrid(*(np.arange(n) * s for n, s in zip(window.out, window.strides, strict=True)), indexing="ij")
    columns = np.empty((items, channels, taps, *window.out))
    each = channels // shared  # channels that share an offset
    for t, position in enumerate(window.positions()):
        starts = [p * d - b for p, d, b in zip(position, window.dilations, window.before, strict=True)]
        for g in range(shared):
            part = slice(g * each, (g + 1) * each)
            places = [
                step + start + moved[:, g, t, axis]
                for axis, (step, start) in enumerate(zip(steps, starts, strict=True))
            ]
            columns[:, part, t] = _between(x[:, part], places) * weights[:, None, g, t]
    matrices = w.reshape(groups, makes // groups, -1)
    made = np.matmul(matrices, columns.reshape(items, groups, matrices.shape[2], -1)).reshape(items, makes, *window.out)
    return made if bias is None else made + bias.reshape(-1, 1, 1)


def _between(x: Array, places: list[Array]) -> Array:
    """``x[N, C, H, W]`` at (row, column) ``places``, each ``[N, *out]``: bilinear, zeros outside. Returns ``[N, C, *out]``."""
    bases = [np.floor(at).astype(np.int64) for at in places]
    items = np.arange(x.shape[0]).reshape(-1, *(1,) * (places[0].ndim - 1))
    total = np.zeros((*places[0].shape, x.shape[1]))
    for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight, inside, index = np.ones(places[0].shape), np.ones(places[0].shape, bool), []
        for at, base, step, extent in zip(places, bases, corner, x.shape[2:], strict=True):
            near = base + step
            weight = weight * (1 - np.abs(at - near))
            inside &= (near >= 0) & (near < extent)
            index.append(np.clip(near, 0, extent - 1))
        total += np.where(inside, weight, 0.0)[..., None] * np.moveaxis(x, 1, -1)[(items, *index)]
    return np.moveaxis(total, -1, 1)


KERNELS: dict[str, Kernel] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "ConvInteger": _conv_integer,
    "QLinearConv": _qlinear_conv,
    "DeformConv": _deformable,
}
