"""Elements as numbers one can subtract: common types, differences that never wrap, distances in units in the last place."""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np

from probe.precision import kind_of, numpy_dtype

Array = np.ndarray[Any, Any]


class Exact(Enum):
    """The arithmetic a pair of types needs."""

    FLOAT32 = "both types are exact in float32"
    FLOAT64 = "a float64 is among them, or 32-bit integers"
    INT64 = "64-bit integers: subtracted as integers"
    COMPLEX = "real and imaginary parts, as float64"
    TEXT = "equal or not"


_EXACT_IN_FLOAT32 = frozenset("bool int8 uint8 int16 uint16 int4 uint4 int2 uint2".split())


def work_type(actual: str, golden: str) -> Exact:
    """Which arithmetic the two type names need."""
    kinds = {kind_of(actual), kind_of(golden)}
    if "string" in kinds:
        return Exact.TEXT
    if "complex" in kinds:
        return Exact.COMPLEX
    if kinds == {"int"} and {actual, golden} & {"int64", "uint64"}:
        return Exact.INT64
    narrow = all(
        name in _EXACT_IN_FLOAT32 or (kind_of(name) == "float" and name != "float64") for name in (actual, golden)
    )
    return Exact.FLOAT32 if narrow else Exact.FLOAT64


def as_numbers(raw: Array, exact: Exact) -> Array:
    """A contiguous float array for sums and extremes: float32 or float64, a view when nothing need be done. Text gives zeros."""
    if exact is Exact.TEXT:
        return np.zeros(raw.size, np.float32)
    wanted = np.float32 if exact is Exact.FLOAT32 else np.float64
    if raw.dtype == wanted:
        return raw
    with np.errstate(invalid="ignore"):  # ml_dtypes' casts raise the flag on NaN
        return raw.astype(wanted)


def absolute_difference(raw_a: Array, raw_g: Array, a: Array, g: Array, exact: Exact, *, out: Array) -> None:
    """|actual - golden| into ``out``; NaN or Inf where either is, or where float32 cannot hold the difference."""
    if exact is Exact.TEXT:
        out[:] = raw_a != raw_g
    elif exact is Exact.INT64:
        out[:] = _integer_distance(raw_a, raw_g)
    else:
        with np.errstate(invalid="ignore", over="ignore"):
            np.subtract(a, g, out=out)
        np.abs(out, out=out)


def _integer_distance(x: Array, y: Array) -> Array:
    """|x - y| of integers of any widths and signs as uint64, or float64 where it could pass 2^64; a difference is never 0."""
    if x.dtype != y.dtype and np.uint64 in (x.dtype, y.dtype):
        signed, unsigned = (y, x) if x.dtype == np.uint64 else (x, y)
        negative = signed < 0
        distance = _wrapped_distance(np.where(negative, 0, signed).astype(np.uint64), unsigned).astype(np.float64)
        return distance - np.where(negative, signed, 0).astype(np.float64)
    if x.dtype != np.uint64:
        x, y = x.astype(np.int64, copy=False), y.astype(np.int64, copy=False)
    return _wrapped_distance(x, y)


def _wrapped_distance(x: Array, y: Array) -> Array:
    # Modulo 2^64 the larger minus the smaller is the true distance, which always fits uint64.
    u, v = x.view(np.uint64), y.view(np.uint64)
    return np.where(x >= y, u - v, v - u)


def ulp_distance(a: Array, g: Array, storage: str) -> Array | None:
    """Representable numbers of type ``storage`` between two finite float arrays, as float32 (float64 for float64).

    Both sides are rounded to ``storage`` first (nearest even), so an actual that is the correctly rounded golden is 0 away. Equal values
    are 0 apart, so are +0 and -0; neighbours are 1 apart, across zero too; Inf is one beyond the largest finite number. None for types
    without a sign-and-magnitude order.
    """
    with np.errstate(over="ignore", under="ignore"):
        if storage == "float32":
            return _rank_distance(_cast(a, np.float32).view(np.int32), _cast(g, np.float32).view(np.int32), 0x7FFFFFFF)
        if storage == "float64":
            return _rank_distance(
                _cast(a, np.float64).view(np.int64), _cast(g, np.float64).view(np.int64), (1 << 63) - 1
            )
        if storage == "float16":
            ranks = [_cast(x, np.float16).view(np.int16) for x in (a, g)]
            return _rank_distance(ranks[0], ranks[1], 0x7FFF)
        if storage == "bfloat16":
            return _rank_distance(_bfloat16_bits(a), _bfloat16_bits(g), 0x7FFF)
        if storage in ("float8_e4m3fn", "float8_e5m2"):
            ranks = [_cast(x, numpy_dtype(storage)).view(np.int8) for x in (a, g)]
            return _rank_distance(ranks[0], ranks[1], 0x7F)
    return None


def _cast(x: Array, dtype: Any) -> Array:
    return x if x.dtype == dtype else x.astype(dtype)


def _bfloat16_bits(x: Array) -> Array:
    """bfloat16 patterns, as int16, of finite numbers rounded to nearest even: faster than ml_dtypes' cast."""
    bits = _cast(x, np.float32).view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16).view(np.int16)


def _rank_distance(x: Array, y: Array, magnitude: int) -> Array:
    """Distance of sign-and-magnitude patterns held in signed integers of their width."""
    wide = x if x.dtype.itemsize >= 4 else x.astype(np.int32)
    other = y if y.dtype.itemsize >= 4 else y.astype(np.int32)
    result = np.abs(wide - other).astype(np.float64 if x.dtype.itemsize == 8 else np.float32)
    opposite = (x ^ y) < 0
    if opposite.any():
        place = np.flatnonzero(opposite)
        mask = x.dtype.type(magnitude)
        result[place] = (x[place] & mask).astype(np.float64) + (y[place] & mask).astype(np.float64)
    return result
