"""Normalisations and the softmax family. Statistics in two passes: the mean first, then squares of what is left."""

from __future__ import annotations

import numpy as np

from probe.errors import InputError
from probe.runners.fp64.calls import Call, Kernel
from probe.runners.protocol import Array

_EPSILON = float(
    np.float32(1e-5)
)  # of LayerNormalization in operator sets that do not define it, as ONNX Runtime reads it


def _standardised(x: Array, axes: tuple[int, ...], epsilon: float) -> tuple[Array, Array, Array]:
    """((x - mean) / sqrt(var + epsilon), mean, 1 / sqrt(var + epsilon)); statistics over ``axes``, which they keep."""
    mean = x.mean(axis=axes, keepdims=True)
    centred = x - mean
    inverse = 1.0 / np.sqrt(np.square(centred).mean(axis=axes, keepdims=True) + epsilon)
    return centred * inverse, mean, inverse


def _per_channel(values: Array, rank: int) -> Array:
    return values.reshape(-1, *(1,) * (rank - 2))


def _batch(call: Call, x: Array, scale: Array, bias: Array, mean: Array, var: Array) -> Array:
    if call.get("training_mode", 0) or any(call.outputs[1:]):
        raise InputError("BatchNormalization in training mode is not evaluated", hint="export the model for inference")
    if not call.get("spatial", 1):  # operator sets 7 and 8: statistics an element
        return scale * (x - mean) / np.sqrt(var + call["epsilon"]) + bias
    if x.ndim == 1:
        return scale * (x - mean) / np.sqrt(var + call["epsilon"]) + bias
    factor = _per_channel(scale / np.sqrt(var + call["epsilon"]), x.ndim)
    return (x - _per_channel(mean, x.ndim)) * factor + _per_channel(bias, x.ndim)


def _instance(call: Call, x: Array, scale: Array, bias: Array) -> Array:
    normal = _standardised(x, tuple(range(2, x.ndim)), call["epsilon"])[0]
    return normal * _per_channel(scale, x.ndim) + _per_channel(bias, x.ndim)


def _group(call: Call, x: Array, scale: Array, bias: Array) -> Array:
    """As defined since operator set 21: scale and bias have an element a channel."""
    groups = call["num_groups"]
    grouped = x.reshape(x.shape[0], groups, -1)
    normal = _standardised(grouped, (2,), call["epsilon"])[0].reshape(x.shape)
    return normal * _per_channel(scale, x.ndim) + _per_channel(bias, x.ndim)


def _layer(call: Call, x: Array, scale: Array, bias: Array | None = None) -> tuple[Array, ...]:
    axes = tuple(range(call.get("axis", -1) % x.ndim, x.ndim))
    normal, mean, inverse = _standardised(x, axes, call.get("epsilon", _EPSILON))
    normal = normal * scale
    return (normal if bias is None else normal + bias), mean, inverse


def _rms(call: Call, x: Array, scale: Array) -> tuple[Array, ...]:
    axes = tuple(range(call.get("axis", -1) % x.ndim, x.ndim))
    inverse = 1.0 / np.sqrt(np.square(x).mean(axis=axes, keepdims=True) + call.get("epsilon", _EPSILON))
    return x * inverse * scale, inverse


def _lp(call: Call, x: Array) -> Array:
    norm = np.abs(x).sum if call["p"] == 1 else None
    total = (
        norm(axis=call["axis"], keepdims=True) if norm else np.sqrt(np.square(x).sum(axis=call["axis"], keepdims=True))
    )
    return np.where(total == 0, 0.0, x / np.where(total == 0, 1.0, total))


def _mean_variance(call: Call, x: Array) -> Array:
    """The epsilon is the function body's: 1e-9, added to the deviation."""
    axes = tuple(call["axes"])
    centred = x - x.mean(axis=axes, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=axes, keepdims=True))
    return centred / (deviation + float(np.float32(1e-9)))


def _local_response(call: Call, x: Array) -> Array:
    """Squares are summed over ``size`` channels around each, fewer at the ends; the sum is divided by ``size`` all the same."""
    size = call["size"]
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    sums = np.pad(np.square(x), [(0, 0), (before, after), *[(0, 0)] * (x.ndim - 2)])
    total = sum((sums[:, i : i + x.shape[1]] for i in range(size)), np.zeros(x.shape))
    return x / np.power(call["bias"] + call["alpha"] / size * total, call["beta"])


def _as_rows(call: Call, x: Array) -> tuple[Array, int]:
    """Data and axis of a softmax. Before operator set 13 all axes from ``axis`` on are one."""
    axis = call.get("axis", -1)
    if call.version >= 13:
        return x, axis
    axis %= max(x.ndim, 1)
    return x.reshape(int(np.prod(x.shape[:axis])), -1), 1


def _softmax(call: Call, x: Array) -> Array:
    if not x.size:
        return x
    rows, axis = _as_rows(call, x)
    made = np.exp(rows - rows.max(axis=axis, keepdims=True))
    made /= made.sum(axis=axis, keepdims=True)
    return made.reshape(x.shape)


def _log_softmax(call: Call, x: Array) -> Array:
    if not x.size:
        return x
    rows, axis = _as_rows(call, x)
    shifted = rows - rows.max(axis=axis, keepdims=True)
    return (shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))).reshape(x.shape)


def _hardmax(call: Call, x: Array) -> Array:
    if not x.size:
        return x
    rows, axis = _as_rows(call, x)
    made = np.zeros(rows.shape)
    np.put_along_axis(made, np.expand_dims(rows.argmax(axis=axis), axis), 1.0, axis)
    return made.reshape(x.shape)


KERNELS: dict[str, Kernel] = {
    "BatchNormalization": _batch,
    "InstanceNormalization": _instance,
    "GroupNormalization": _group,
    "LayerNormalization": _layer,
    "RMSNormalization": _rms,
    "SimplifiedLayerNormalization": _rms,
    "LpNormalization": _lp,
    "MeanVarianceNormalization": _mean_variance,
    "LRN": _local_response,
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
    "Hardmax": _hardmax,
}
