"""``Facts``: what rules ask of a constant, from one reading: weights may be gigabytes, and every rule looks at them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

MASK = 1e30  # magnitudes from here on stand for "never", not for a number
_BLOCK = 1 << 20  # elements
_SAMPLED = 4096
_FEW_ZEROS = 0.4  # of a sample: below, a weight is not half empty


@dataclass(frozen=True, slots=True)
class Facts:
    """
    Attributes:
        absmax: over finite elements; None where there are none, and for what is no float.
        scale: as ``scale_of``.
        sample: up to a few thousand elements, evenly spaced; all of a small constant.
        rows, columns: the largest Euclidean norm along the last axis, and along the one before it; 0 below two axes.
        sparse: axes along which at most two of every four elements are not zero.
    """

    shape: tuple[int, ...]
    absmax: float | None
    scale: float
    sample: Array
    rows: float
    columns: float
    sparse: frozenset[int]

    @property
    def is_float(self) -> bool:
        return self.sample.dtype.kind == "f"


def facts_of(value: Array) -> Facts:
    """Of a constant's value."""
    sample = value.reshape(-1)[:: max(value.size // _SAMPLED, 1)].copy()
    if value.dtype.kind != "f" or not value.size:
        return Facts(value.shape, None, 0.0, sample, 0.0, 0.0, frozenset())
    absmax = _absmax(value)
    scale = scale_of(value) if absmax is not None and absmax >= 1e4 else absmax or 0.0
    norms = (norm(value, -1), norm(value, -2)) if value.ndim in (2, 3) else (0.0, 0.0)
    half_empty = np.count_nonzero(sample) <= (1 - _FEW_ZEROS) * sample.size
    axes = range(value.ndim) if half_empty and value.ndim >= 2 else ()
    return Facts(value.shape, absmax, scale, sample, *norms, frozenset(axis for axis in axes if is_sparse(value, axis)))


def _absmax(value: Array) -> float | None:
    flat = value.reshape(-1)
    found: float | None = None
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK]
        reach = max(float(block.max()), -float(block.min()))
        if not np.isfinite(reach) or np.isnan(block.min()):
            finite = np.abs(block[np.isfinite(block)])
            if not finite.size:
                continue
            reach = float(finite.max())
        found = reach if found is None else max(found, reach)
    return found


def norm(x: Array, axis: int) -> float:
    """The largest Euclidean norm of a float tensor along one of its last two axes."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("...ij,...ij->...i" if axis == -1 else "...ij,...ij->...j", x, x)
    return float(np.sqrt(squares.max(initial=0.0)))


def is_sparse(weight: Array, axis: int) -> bool:
    """Whether at most two of every four elements along an axis are not zero, and not all are."""
    if weight.shape[axis] % 4 or not 0 < np.count_nonzero(weight) * 2 <= weight.size:
        return False
    groups = np.moveaxis(weight, axis, -1).reshape(-1, 4)
    return bool((np.count_nonzero(groups, axis=1) <= 2).all())


def scale_of(x: Array) -> float:
    """The range of a tensor as errors are measured by: max |x| over finite elements without sentinels. Those are what lies beyond an empty
    gap of three decades and above 1e4, as masks do."""
    size = np.abs(x[np.isfinite(x)]).astype(np.float64, copy=False)
    reach = float(size.max(initial=0.0))
    while reach >= 1e4:
        below = float(size[size < reach / 10].max(initial=0.0))
        if below * 1e3 > reach / 10 or (below == 0.0 and reach < MASK):
            break
        reach, size = below, size[size <= below]
    return reach
