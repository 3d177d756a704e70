"""Every metric written out naively in float64 over whole arrays: slow, obvious, and independent of ``probe.metrics``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def compared(actual: Array, golden: Array) -> tuple[Array, Array]:
    """Elements finite in both, as float64."""
    a, g = actual.astype(np.float64).ravel(), golden.astype(np.float64).ravel()
    keep = np.isfinite(a) & np.isfinite(g)
    return a[keep], g[keep]


def reference(actual: Array, golden: Array) -> dict[str, float]:
    """max_abs ... cosine of two float arrays without sentinels (|golden| < 1e4)."""
    a, g = compared(actual, golden)
    if not a.size:
        return {}
    e = np.abs(a - g)
    range_ = np.abs(g).max()
    floor = 1e-3 * range_
    denominator = np.maximum(np.abs(g), floor)
    rel = np.divide(e, denominator, out=np.where(e > 0, np.inf, 0.0), where=denominator > 0)
    with np.errstate(all="ignore"):
        return {
            "max_abs": e.max(),
            "mean_abs": e.mean(),
            "max_rel": rel.max(),
            "mean_rel": rel.mean(),
            "range_rel": 0.0 if e.max() == 0 else e.max() / range_ if range_ else math.inf,
            "rmse": math.sqrt((e**2).mean()),
            "nmse": 0.0 if (e**2).sum() == 0 else (e**2).sum() / (g**2).sum() if (g**2).sum() else math.inf,
            "range": range_,
            "golden_min": g.min(),
            "golden_max": g.max(),
            "actual_min": a.min(),
            "actual_max": a.max(),
        }


def order_statistic(actual: Array, golden: Array, q: float) -> float:
    """Element of rank ceil(q n) of |e|."""
    a, g = compared(actual, golden)
    e = np.sort(np.abs(a - g))
    return float(e[max(1, math.ceil(q * e.size)) - 1])


def ulps(actual: Array, golden: Array, dtype: Any) -> Array:
    """ULP distances by walking the sorted list of all numbers of a 16-bit type."""
    patterns = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    with np.errstate(all="ignore"):
        values = patterns.astype(np.float64)
        a, g = actual.astype(dtype).astype(np.float64), golden.astype(dtype).astype(np.float64)
    numbers = np.unique(values[~np.isnan(values)])  # -0 and +0 are one
    return np.abs(np.searchsorted(numbers, a) - np.searchsorted(numbers, g))
