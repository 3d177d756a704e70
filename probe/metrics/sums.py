"""``Sums``: everything every metric needs about a pair of tensors, additive over blocks, inputs and devices.

numpy fills it in ``measure``; a GPU can fill the same struct. Metrics are formulas over it, so a dataset's metric is the formula of
the merged sums and never a mean of ratios.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from probe.metrics.histogram import LogHistogram

Array = np.ndarray[Any, Any]


class Worst(NamedTuple):
    """One element; tuples order by error, so the largest of a list is its maximum."""

    error: float  # |actual - golden|
    place: tuple[int, ...]  # index in the tensor
    actual: float
    golden: float
    input_id: str = ""


@dataclass(slots=True)
class ChannelMaxima:
    """Per channel: the largest error and the range. ``axis`` is where the channels lie in the tensor's shape."""

    axis: int
    max_abs: Array  # [channels]
    range: Array  # [channels]


@dataclass(slots=True)
class Sums:
    """Sums over a pair of tensors (merged: over several).

    "Compared" elements are finite in both and no sentinel of golden (see ``sentinels``); the sums, extremes and histograms run over
    them. Everything else is counted by class.
    """

    count: int = 0
    compared: int = 0

    # classes
    nan_actual: int = 0
    inf_actual: int = 0
    nan_golden: int = 0
    inf_golden: int = 0
    nonfinite_mismatch: int = 0
    sentinels: int = 0
    sentinel_mismatch: int = 0
    sentinel_value: float = 0.0  # the largest in magnitude, with its sign; 0 when there are none
    sentinel_error: float = 0.0  # max |actual - golden| / |golden| over sentinels below 1e30

    # sums, in float64
    abs_error: float = 0.0
    rel_error: float = 0.0
    squared_error: float = 0.0
    golden_squared: float = 0.0
    actual_squared: float = 0.0
    dot: float = 0.0
    mismatched: int = 0  # |e| > atol + rtol |golden|, and every class mismatch

    # extremes
    max_abs: float = 0.0
    max_rel: float = 0.0
    range: float = 0.0  # max |golden|
    item_rel: float = 0.0  # largest over batch items of (max error / range of that item)
    item: int | None = None
    golden_min: float = math.inf
    golden_max: float = -math.inf
    actual_min: float = math.inf
    actual_max: float = -math.inf
    needed_rtol: float = 0.0  # max |e| / |golden|; only with Spec.tolerances
    needed_both: float = 0.0  # max |e| / (1 + |golden|)
    worst: list[Worst] = field(default_factory=list)  # descending
    worst_kept: int = 5
    channels: ChannelMaxima | None = None

    # distributions
    errors: LogHistogram = field(default_factory=LogHistogram)  # of |e|
    ulps: LogHistogram | None = None  # of the ULP distance in the storage type
    ulp_max: float = 0.0

    # rows along the class axis
    rows: int = 0
    top1: int = 0
    rows5: int = 0  # rows of more than 5 classes
    top5: int = 0
    kl_rows: int = 0
    kl: float = 0.0  # nats, summed over rows
    kl_max: float = 0.0

    def merge(self, other: Sums) -> Sums:
        """The sums of both pairs together. Commutative; associative up to float64 rounding. Neither operand changes."""
        first, second = (self, other) if self.item_rel >= other.item_rel else (other, self)
        return Sums(
            **{name: getattr(self, name) + getattr(other, name) for name in _ADDED},
            **{name: max(getattr(self, name), getattr(other, name)) for name in _MAXIMA},
            golden_min=min(self.golden_min, other.golden_min),
            actual_min=min(self.actual_min, other.actual_min),
            sentinel_value=max(self.sentinel_value, other.sentinel_value, key=abs),
            item=first.item if first.item is not None else second.item,
            worst=sorted((*self.worst, *other.worst), reverse=True)[: self.worst_kept],
            worst_kept=self.worst_kept,
            channels=_merge_channels(self.channels, other.channels),
            errors=self.errors.merge(other.errors),
            ulps=self.ulps.merge(other.ulps) if self.ulps and other.ulps else None,
        )


_ADDED = (
    "count", "compared", "nan_actual", "inf_actual", "nan_golden", "inf_golden", "nonfinite_mismatch", "sentinels",
    "sentinel_mismatch", "abs_error", "rel_error", "squared_error", "golden_squared", "actual_squared", "dot", "mismatched",
    "rows", "top1", "rows5", "top5", "kl_rows", "kl",
)  # fmt: skip
_MAXIMA = (
    "sentinel_error", "max_abs", "max_rel", "range", "item_rel", "golden_max", "actual_max", "needed_rtol", "needed_both",
    "ulp_max", "kl_max",
)  # fmt: skip


def _merge_channels(one: ChannelMaxima | None, other: ChannelMaxima | None) -> ChannelMaxima | None:
    if one is None or other is None or one.axis != other.axis or one.max_abs.shape != other.max_abs.shape:
        return None  # a channel axis of another length is another thing
    return ChannelMaxima(one.axis, np.maximum(one.max_abs, other.max_abs), np.maximum(one.range, other.range))
