"""Log-histogram of magnitudes with 128 bins an octave: quantiles within 0.8 % from one pass, mergeable by addition.

A bin is the upper half of the float32 pattern: sign 0, exponent, 7 mantissa bits. Bin edges are therefore the bfloat16 numbers, and
the histogram of ``|x|`` is one ``bincount`` over every second uint16 of the data (little-endian), without arithmetic.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

BINS = 0x7F80 + 1  # up to and including +Inf
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class LogHistogram:
    """Counts of magnitudes. ``add`` takes non-negative float32 or float64, NaN excluded."""

    __slots__ = ("counts",)

    def __init__(self, counts: Array | None = None) -> None:
        self.counts: Array = np.zeros(BINS, np.int64) if counts is None else counts

    def add(self, magnitudes: Array) -> None:
        """Count a contiguous 1-D block. float64 beyond float32 falls into the last finite or the first nonzero bin."""
        if magnitudes.dtype != np.float32:
            magnitudes = to_float32_keeping_zero(magnitudes)
        high = magnitudes.view(np.uint16)[1::2]
        self.counts += np.bincount(high, minlength=BINS)[:BINS]

    def forget_zeros(self, count: int) -> None:
        """Take ``count`` zeros back out: elements that were excluded by being set to zero."""
        self.counts[0] -= count

    def merge(self, other: LogHistogram) -> LogHistogram:
        return LogHistogram(self.counts + other.counts)

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def quantile(self, q: float, *, upper: bool = True) -> float:
        """The order statistic of rank ``ceil(q * n)``, as the upper edge of its bin (or the lower); NaN when empty.

        The upper edge is at most 0.8 % too large and never too small, so a bound on it is never passed by rounding. Lower edges are
        exact for integers up to 256, which are bin edges: ULP counts use them. The zero bin gives 0.
        """
        total = self.total
        if total == 0:
            return float("nan")
        rank = max(1, int(np.ceil(q * total)))
        bin_ = int(np.searchsorted(np.cumsum(self.counts), rank))
        return bin_edges(bin_)[1 if upper and bin_ else 0]

    def occupied(self) -> Array:
        """Indices of non-empty bins, ascending."""
        return np.flatnonzero(self.counts)


def bin_edges(bin_: int) -> tuple[float, float]:
    """Half-open interval [low, high) of magnitudes in a bin."""
    edges = np.array([bin_ << 16, min(bin_ + 1, BINS - 1) << 16], np.uint32).view(np.float32)
    return float(edges[0]), float(edges[1])


def to_float32_keeping_zero(x: Array) -> Array:
    """float64 magnitudes as float32, without making a finite value infinite or a nonzero one zero."""
    with np.errstate(over="ignore", under="ignore"):
        narrow = x.astype(np.float32)
    lost = (narrow == 0) & (x != 0)
    if lost.any():
        narrow[lost] = np.float32(2.0**-133)  # the first nonzero bin edge
    huge = np.isinf(narrow) & np.isfinite(x)
    if huge.any():
        narrow[huge] = _FLOAT32_MAX
    return narrow
