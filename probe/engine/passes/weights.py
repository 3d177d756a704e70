"""Constants between two passes: float64 behind the float32 that the network stores, so that several passes round only once."""

from __future__ import annotations

from typing import Any

import numpy as np

from probe import ir
from probe.engine.network import Network, constant

Array = np.ndarray[Any, Any]

FLOATS = frozenset((ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE))
INTEGERS = frozenset((ir.DataType.BOOL, ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.INT64,
                      ir.DataType.UINT8, ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64))  # fmt: skip
_EXACT = "probe.exact"
_FEW = 1024


def stored(value: ir.Value | None) -> Array | None:
    """The values of an initialiser as the network reads them; None for anything else and for types that passes do not compute with
    (strings, 4-bit and 8-bit floats)."""
    tensor = constant(value)
    return None if tensor is None or tensor.dtype not in FLOATS | INTEGERS else tensor.numpy()


def exact(value: ir.Value | None) -> Array | None:
    """The values of an initialiser, float64 where it is floating-point: before they were rounded, if a pass computed them."""
    if value is None or not value.is_initializer():
        return None
    kept = value.meta.get(_EXACT)
    if kept is not None:
        return kept
    values = stored(value)
    return _wide(values) if values is not None and value.dtype in FLOATS else values


def exact_times(value: ir.Value | None, factors: Array) -> Array | None:
    """``exact`` of a floating-point initialiser times factors that broadcast to its shape: an array of its own, made in one piece."""
    values = exact(value)
    if values is None or value is None:
        return None
    return values * factors if is_computed(value) else np.multiply(values, factors, out=values)


def is_computed(value: ir.Value) -> bool:
    """Whether there is more to an initialiser than the network stores."""
    return _EXACT in value.meta


def round_to(values: Array, dtype: ir.DataType) -> Array:
    """Values in the type an initialiser is declared in; rounds to nearest even, what is too large becomes Inf."""
    with np.errstate(all="ignore"):
        return np.asarray(values).astype(dtype.numpy(), copy=False)


def keep_exact(value: ir.Value, values: Array, rounded: Array) -> None:
    """Remember float64 values behind a new initialiser. Where its type overflows or flushes to zero that is what the network
    computes with, and what is remembered: folding must not heal what fails at run time, nor break what works."""
    if values.dtype != np.float64 or value.dtype == ir.DataType.DOUBLE or value.dtype not in FLOATS:
        return
    if _same(rounded, values):
        return
    # Most weights are rounded to what is neither 0 nor infinite, which two passes over the narrow ones tell.
    if rounded.all() and np.isfinite(rounded).all():
        value.meta[_EXACT] = values
        return
    back = rounded.astype(np.float64)
    jumped = ~np.isfinite(back) | ((back == 0) & (values != 0))
    value.meta[_EXACT] = np.where(jumped, back, values) if jumped.any() else values


def _same(rounded: Array, values: Array) -> bool:
    """Whether rounding left every value as it was, NaN among them. It hardly ever does, and the first values tell."""
    few = slice(_FEW)
    if not np.array_equal(_wide(rounded.reshape(-1)[few]), values.reshape(-1)[few], equal_nan=True):
        return False
    return np.array_equal(_wide(rounded), values, equal_nan=True)


def _wide(values: Array) -> Array:
    return values.astype(np.float64)


def forget_exact(network: Network) -> None:
    """Free the float64 values, after the last pass."""
    for value in network.graph.initializers.values():
        value.meta.pop(_EXACT, None)


def finite(values: Array, dtype: ir.DataType) -> bool:
    """Whether values, rounded to a type, are all finite."""
    if values.size == 0:
        return True
    return bool(np.isfinite(round_to(np.array([values.min(), values.max()]), dtype)).all())  # NaN is handed on by both
