"""Operators that move, repeat or make elements without computing with them."""

from __future__ import annotations

from math import ceil, prod

import numpy as np

from probe.errors import InputError
from probe.runners.fp64.calls import Call, Kernel, numpy_type, plain
from probe.runners.protocol import Array


def integers(values: Array | None) -> list[int]:
    """An input that lists axes, extents and the like, as Python numbers; empty where it is omitted."""
    return [] if values is None else [int(value) for value in values.reshape(-1)]


def _reshape(call: Call, x: Array, shape: Array) -> Array:
    extents = integers(shape)
    if not call.get("allowzero", 0):
        extents = [x.shape[i] if extent == 0 else extent for i, extent in enumerate(extents)]
    if -1 in extents and 0 in extents:  # numpy cannot tell what -1 is: nothing is left to fill it
        extents = [0 if extent == -1 else extent for extent in extents]
    return x.reshape(extents)


def _transpose(call: Call, x: Array) -> Array:
    return np.transpose(x, call.get("perm"))


def _squeeze(call: Call, x: Array, axes: Array | None = None) -> Array:
    named = integers(axes) if axes is not None else call.get("axes")
    return np.squeeze(x, None if not named else tuple(named))


def _unsqueeze(call: Call, x: Array, axes: Array | None = None) -> Array:
    return np.expand_dims(x, tuple(integers(axes) if axes is not None else call["axes"]))


def _flatten(call: Call, x: Array) -> Array:
    axis = call["axis"]
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:]))


def _expand(x: Array, shape: Array) -> Array:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(integers(shape))))


def _split(call: Call, x: Array, sizes: Array | None = None) -> tuple[Array, ...]:
    axis, parts = call["axis"], len(call.outputs)
    lengths = integers(sizes) if sizes is not None else call.get("split")
    if not lengths:
        parts = call.get("num_outputs") or parts
        each = ceil(x.shape[axis] / parts)
        lengths = [max(min(each, x.shape[axis] - i * each), 0) for i in range(parts)]
    if sum(lengths) != x.shape[axis]:
        raise ValueError(f"parts of {lengths} do not make up the {x.shape[axis]} elements of axis {axis}")
    return tuple(np.split(x, np.cumsum(lengths[:-1]), axis))


def _slice(
    call: Call, x: Array, starts: Array | None = None, ends: Array | None = None, axes: Array | None = None,
    steps: Array | None = None,
) -> Array:  # fmt: skip
    begin = integers(starts) if starts is not None else call["starts"]
    end = integers(ends) if ends is not None else call["ends"]
    along = integers(axes) if axes is not None else call.get("axes") or list(range(len(begin)))
    stride = integers(steps) if steps is not None else [1] * len(begin)
    index = [slice(None)] * x.ndim
    for axis, first, last, by in zip(along, begin, end, stride, strict=True):
        extent = x.shape[axis]
        low, high = (0, extent) if by > 0 else (-1, extent - 1)  # where a start or an end may lie
        first = min(max(first + extent if first < 0 else first, 0), max(high, low))
        last = min(max(last + extent if last < 0 else last, low), high)
        index[axis] = slice(first, None if last < 0 else last, by)
        if by < 0 and first <= last:
            index[axis] = slice(0, 0)
    return x[tuple(index)]


def _pad(
    call: Call, x: Array, pads: Array | None = None, value: Array | None = None, axes: Array | None = None
) -> Array:
    amounts = integers(pads) if pads is not None else call["pads"]
    along = integers(axes) if axes is not None else list(range(x.ndim))
    widths = [(0, 0)] * x.ndim
    for i, axis in enumerate(along):
        widths[axis] = (amounts[i], amounts[i + len(along)])
    # Negative amounts cut off.
    x = x[tuple(slice(max(-b, 0), n - max(-a, 0)) for (b, a), n in zip(widths, x.shape, strict=True))]
    widths = [(max(b, 0), max(a, 0)) for b, a in widths]
    mode = call.get("mode", "constant")
    if mode != "constant":
        return np.pad(x, widths, mode)
    fill = call.get("value", 0.0) if value is None or not value.size else value.reshape(-1)[0]
    return np.pad(x, widths, constant_values=fill)


def _depth_to_space(call: Call, x: Array) -> Array:
    n, c, h, w = x.shape
    b = call["blocksize"]
    if call.get("mode", "DCR") == "DCR":
        split = x.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        split = x.reshape(n, c // (b * b), b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return split.reshape(n, c // (b * b), h * b, w * b)


def _space_to_depth(call: Call, x: Array) -> Array:
    n, c, h, w = x.shape
    b = call["blocksize"]
    if call.get("mode", "DCR") == "DCR":
        split = x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4)
    else:
        split = x.reshape(n, c, h // b, b, w // b, b).transpose(0, 1, 3, 5, 2, 4)
    return split.reshape(n, c * b * b, h // b, w // b)


def _shape(call: Call, x: Array) -> Array:
    return np.array(x.shape[slice(call.get("start", 0), call.get("end"))], np.int64)


def _range(start: Array, limit: Array, delta: Array) -> Array:
    """start + i * delta, which does not add up rounding errors."""
    first, last, step = (value.reshape(-1)[0] for value in (start, limit, delta))
    if step == 0:
        raise ValueError("the step is 0")
    count = max(ceil((int(last) - int(first)) / int(step) if start.dtype.kind in "iu" else (last - first) / step), 0)
    return (first + np.arange(count).astype(start.dtype) * step).astype(start.dtype)


def _constant(call: Call) -> Array:
    for name, value in call.attributes.items():
        match name:
            case "value" | "sparse_value":
                return value
            case "value_float" | "value_floats":
                return np.array(value, np.float64)
            case "value_int" | "value_ints":
                return np.array(value, np.int64)
            case "value_string" | "value_strings":
                return np.array(value, object)
    raise ValueError("it holds no value")


def _constant_of_shape(call: Call, shape: Array) -> Array:
    value = call.get("value")
    return np.zeros(integers(shape)) if value is None else np.full(integers(shape), value.reshape(-1)[0], value.dtype)


def _eye_like(call: Call, x: Array) -> Array:
    number = call.get("dtype")
    rows, columns = x.shape
    return np.eye(rows, columns, call.get("k", 0), x.dtype if number is None else numpy_type(number))


def _trilu(call: Call, x: Array, k: Array | None = None) -> Array:
    diagonal = 0 if k is None else int(k.reshape(-1)[0])
    rows, columns = np.arange(x.shape[-2])[:, None], np.arange(x.shape[-1])
    keep = columns - rows >= diagonal if call["upper"] else columns - rows <= diagonal
    return np.where(keep, x, np.zeros((), x.dtype))


def _reverse_sequence(call: Call, x: Array, lengths: Array) -> Array:
    time, batch = call["time_axis"], call["batch_axis"]
    moved = np.moveaxis(x, (time, batch), (0, 1))
    at = np.arange(moved.shape[0])[:, None]
    index = np.where(at < lengths, lengths - 1 - at, at)
    made = np.take_along_axis(moved, index.reshape(*index.shape, *(1,) * (x.ndim - 2)), 0)
    return np.moveaxis(made, (0, 1), (time, batch))


def _dropout(call: Call, x: Array, ratio: Array | None = None, training: Array | None = None) -> tuple[Array, Array]:
    if training is not None and bool(training.reshape(-1)[0]) and (ratio is None or float(ratio.reshape(-1)[0]) > 0):
        raise InputError("Dropout in training mode draws random numbers", hint="export the model for inference")
    # Operator sets before 12 leave the mask open: ONNX Runtime fills it with zeros; before 10 it has the type of the data.
    return x, np.ones(x.shape, bool) if call.version >= 12 else np.zeros(
        x.shape, bool if call.version >= 10 else x.dtype
    )


def _center_crop_pad(call: Call, x: Array, shape: Array) -> Array:
    axes = call.get("axes") or list(range(x.ndim))
    for axis, wanted in zip(axes, integers(shape), strict=True):
        have = x.shape[axis]
        first = (have - wanted) // 2 if have > wanted else -((wanted - have) // 2)
        index, widths = [slice(None)] * x.ndim, [(0, 0)] * x.ndim
        if have > wanted:
            index[axis] = slice(first, first + wanted)
        widths[axis] = (-first, wanted - have + first) if have < wanted else (0, 0)
        x = np.pad(x[tuple(index)], widths)
    return x


KERNELS: dict[str, Kernel] = {
    "Reshape": _reshape, "Transpose": _transpose, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Flatten": _flatten,
    "Split": _split, "Slice": _slice, "Pad": _pad, "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth, "Shape": _shape, "Constant": _constant,
    "ConstantOfShape": _constant_of_shape, "EyeLike": _eye_like, "Trilu": _trilu, "ReverseSequence": _reverse_sequence,
    "Dropout": _dropout, "CenterCropPad": _center_crop_pad,
    "Concat": lambda call, *inputs: np.concatenate(inputs, call["axis"]),
    **plain({
        "Expand": _expand, "Range": _range, "Tile": lambda x, repeats: np.tile(x, integers(repeats)),
        "Size": lambda x: np.array(x.size, np.int64),
    }),
}  # fmt: skip
