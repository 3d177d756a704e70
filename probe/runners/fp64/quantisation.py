"""Casts, quantisation and products of quantised integers."""

from __future__ import annotations

import numpy as np

from probe.errors import InputError
from probe.model.elements import element_name
from probe.precision import numpy_dtype
from probe.runners.fp64.calls import Call, Kernel, numpy_type, plain
from probe.runners.protocol import Array

_SATURATING = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float4_e2m1fn")
_NARROW = ("int4", "uint4", "int2", "uint2")
_BITS = {"int4": (-8, 7), "uint4": (0, 15), "int2": (-2, 1), "uint2": (0, 3)}


def cast(x: Array, target: np.dtype, *, saturate: bool = True) -> Array:
    """ONNX's Cast: floats to integers are cut off, anything but 0 is true, text is parsed, and 8-bit floats saturate if asked to."""
    if target == x.dtype:
        return x
    if target.kind == "O":
        return np.array([_text(value) for value in x.reshape(-1)], object).reshape(x.shape)
    if x.dtype.kind == "O":
        parsed = np.array([float(value) for value in x.reshape(-1)], np.float64).reshape(x.shape)
        return parsed if target == np.float64 else cast(parsed, target)
    if target.name in _SATURATING:
        return _small_float(x.astype(np.float64), target, saturate=saturate)
    if target == np.bool_:
        return x != 0
    if target.name in _NARROW:
        return x.astype(np.int64).astype(target) if x.dtype.kind == "f" else x.astype(target)
    if target.kind in "iu" and x.dtype.kind == "f":
        # By way of int64, so that what exceeds a narrower type wraps around as it does in C.
        wide = np.uint64 if target == np.uint64 else np.int64
        return np.trunc(x).astype(wide).astype(target)
    return x.astype(target)


def _text(value: object) -> str:
    if isinstance(value, (float, np.floating)):
        if not np.isfinite(value):
            return {True: "NaN"}.get(bool(np.isnan(value)), "INF" if value > 0 else "-INF")
        return f"{value:.8g}"
    return str(int(value)) if isinstance(value, (bool, np.bool_, int, np.integer)) else str(value)


def _small_float(x: Array, target: np.dtype, *, saturate: bool) -> Array:
    import ml_dtypes

    made = x.astype(target)
    if not saturate and target.name != "float4_e2m1fn":
        return made
    limit = float(ml_dtypes.finfo(target).max)
    infinite = np.isinf(x) & (target.name != "float4_e2m1fn")
    bounded = np.clip(x, -limit, limit).astype(target)
    if target.name.endswith("fnuz"):
        return np.where(np.isnan(x), made, bounded)
    return np.where(np.isnan(x), made, np.where(infinite & ~np.bool_(saturate), made, bounded))


def _cast(call: Call, x: Array) -> Array:
    return cast(x, numpy_type(call["to"]), saturate=bool(call.get("saturate", 1)))


def _cast_like(call: Call, x: Array, like: Array) -> Array:
    return cast(x, like.dtype, saturate=bool(call.get("saturate", 1)))


def _bit_cast(call: Call, x: Array) -> Array:
    target = numpy_type(call["to"])
    if x.dtype.kind in "fV" or target.kind in "fV":
        raise InputError("BitCast uses the bits of floats, which float64 does not have", hint="--golden ort")
    return x.view(target)


def _spread(scale: Array, x: Array, axis: int, block: int) -> Array:
    """A scale or zero point in a shape that broadcasts against the data: one number, one an element of ``axis``, or one a block of it."""
    if scale.ndim == 0 or scale.size == 1:
        return scale.reshape(())
    axis %= x.ndim
    if block:
        repeated = np.repeat(scale, block, axis)
        return repeated[tuple(slice(extent) for extent in x.shape)]
    shape = [1] * x.ndim
    shape[axis] = scale.size
    return scale.reshape(shape)


def limits(target: np.dtype) -> tuple[int, int]:
    """Smallest and largest number of an integer type."""
    if target.name in _BITS:
        return _BITS[target.name]
    info = np.iinfo(target)
    return int(info.min), int(info.max)


def _quantize(call: Call, x: Array, scale: Array, zero: Array | None = None) -> Array:
    """round_half_even(x / scale) + zero, saturated."""
    number = call.get("output_dtype", 0)
    target = zero.dtype if zero is not None else numpy_dtype(element_name(number) or "uint8")
    axis, block = call.get("axis", 1), call.get("block_size", 0)
    divided = x.astype(np.float64) / _spread(scale, x, axis, block)
    if target.name in _SATURATING:
        return _small_float(divided, target, saturate=bool(call.get("saturate", 1)))
    rounded = np.rint(divided)
    if zero is not None:
        rounded = rounded + _spread(zero, x, axis, block).astype(np.float64)
    low, high = limits(target)
    return np.clip(np.nan_to_num(rounded, posinf=high, neginf=low), low, high).astype(np.int64).astype(target)


def _dequantize(call: Call, x: Array, scale: Array, zero: Array | None = None) -> Array:
    axis, block = call.get("axis", 1), call.get("block_size", 0)
    values = x.astype(np.float64)
    if zero is not None:
        values = values - _spread(zero, x, axis, block).astype(np.float64)
    return values * _spread(scale, x, axis, block)


def _dynamic_quantize(x: Array) -> tuple[Array, Array, Array]:
    """uint8 over the range of the data, which is widened to hold 0."""
    low, high = min(float(x.min(initial=0.0)), 0.0), max(float(x.max(initial=0.0)), 0.0)
    scale = (high - low) / 255.0 if high > low else 1.0
    zero = np.clip(np.rint(-low / scale), 0, 255)
    made = np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.uint8)
    return made, np.array(scale), np.array(zero).astype(np.uint8)


def _rows(zero: Array | None) -> Array | float:
    """Zero point of a left operand: one number, or one a row."""
    if zero is None:
        return 0.0
    values = zero.astype(np.float64)
    return values[..., None] if values.ndim == 1 and values.size > 1 else values


def _matmul_integer(a: Array, b: Array, a_zero: Array | None = None, b_zero: Array | None = None) -> Array:
    """int32; sums of products of bytes are exact in float64."""
    right = 0.0 if b_zero is None else b_zero.astype(np.float64)
    return np.matmul(a.astype(np.float64) - _rows(a_zero), b.astype(np.float64) - right).astype(np.int32)


def _qlinear_matmul(
    a: Array,
    a_scale: Array,
    a_zero: Array,
    b: Array,
    b_scale: Array,
    b_zero: Array,
    y_scale: Array,
    y_zero: Array,
) -> Array:
    total = np.matmul(a.astype(np.float64) - _rows(a_zero), b.astype(np.float64) - b_zero.astype(np.float64))
    scaled = total * (_rows(a_scale) * b_scale / y_scale)
    low, high = limits(y_zero.dtype)
    return np.clip(np.rint(scaled) + y_zero.astype(np.float64), low, high).astype(y_zero.dtype)


KERNELS: dict[str, Kernel] = {
    "Cast": _cast,
    "CastLike": _cast_like,
    "BitCast": _bit_cast,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    **plain(
        {
            "DynamicQuantizeLinear": _dynamic_quantize,
            "MatMulInteger": _matmul_integer,
            "QLinearMatMul": _qlinear_matmul,
        }
    ),
}
