"""Range statistics of one tensor in one blocked pass: what a manifest row says about values without holding them."""

from __future__ import annotations

import math
from typing import Any, TypedDict

import numpy as np

Array = np.ndarray[Any, Any]

BLOCK = 1 << 17  # elements: 512 KiB of float32 stay in the second-level cache between the five reads of them


class RangeStatistics(TypedDict):
    """All over finite elements; None where there are none."""

    min: float | None
    max: float | None
    absmax_finite: float | None
    min_abs_nonzero: float | None
    mean: float | None
    nan: int
    inf: int


def range_statistics(array: Array) -> RangeStatistics:
    """Statistics of a numeric or bool array of any shape; strings and complex numbers have none and give zeros and None.

    ``mean`` adds float32 blocks pairwise and the blocks in float64: it is good to about 1e-6 of the mean magnitude.
    """
    if array.dtype.kind in "OSUTc":
        return RangeStatistics(min=None, max=None, absmax_finite=None, min_abs_nonzero=None, mean=None, nan=0, inf=0)
    flat = array.reshape(-1)
    if not flat.dtype.isnative:
        flat = flat.astype(flat.dtype.newbyteorder("="))
    low, high, tiny, total = math.inf, -math.inf, math.inf, 0.0
    finite = nan = inf = 0
    for start in range(0, flat.size, BLOCK):
        block = _as_numbers(flat[start : start + BLOCK])
        smallest, largest = float(block.min()), float(block.max())
        if not (math.isfinite(smallest) and math.isfinite(largest)):
            keep = np.isfinite(block)
            nan += int(np.isnan(block).sum())
            block = np.ascontiguousarray(block[keep])
            inf += keep.size - int(keep.sum())
            if block.size == 0:
                continue
            smallest, largest = float(block.min()), float(block.max())
        finite += block.size
        low, high = min(low, smallest), max(high, largest)
        tiny = min(tiny, _smallest_nonzero(block))
        with np.errstate(over="ignore", invalid="ignore"):
            part = float(block.sum())
            total += part if math.isfinite(part) else float(block.sum(dtype=np.float64))
    return RangeStatistics(
        min=low if finite else None,
        max=high if finite else None,
        absmax_finite=max(abs(low), abs(high)) if finite else None,
        min_abs_nonzero=tiny if math.isfinite(tiny) else None,
        mean=(total / finite if math.isfinite(total) else min(max(_scaled_mean(flat, finite), low), high))
        if finite
        else None,
        nan=nan,
        inf=inf - nan,
    )


def _scaled_mean(flat: Array, finite: int) -> float:
    """Mean of float64 values whose sum overflows: a second pass, over values divided by their count first."""
    total = 0.0
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK]
        with np.errstate(over="ignore"):  # rounding may carry the mean of largest numbers beyond them
            total += float((block[np.isfinite(block)] / finite).sum())
    return total


def _as_numbers(block: Array) -> Array:
    """float32 for types it holds exactly, float64 for the rest; a view when there is nothing to do."""
    if block.dtype.name in ("float32", "float64"):
        return np.ascontiguousarray(block)
    if block.dtype.kind in "iu":
        return block.astype(np.float32 if block.dtype.itemsize <= 2 else np.float64)
    return block.astype(np.float32)  # bool, float16 and the ml_dtypes types


def _smallest_nonzero(block: Array) -> float:
    """Least magnitude above zero; Inf when all are zero. Works on the bits, where magnitudes order as unsigned integers."""
    unsigned = np.uint32 if block.dtype.itemsize == 4 else np.uint64
    bits = block.view(unsigned) & unsigned(np.iinfo(unsigned).max >> 1)
    bits -= unsigned(1)  # zero wraps to the largest, so the minimum is the smallest nonzero
    least = bits.min()
    return math.inf if least == np.iinfo(unsigned).max else float((least + unsigned(1)).view(block.dtype))
