"""Masks inside tensors: which values are so far from the rest that they say "ignore me", not "I am large".

One -3.4e38 in a golden would otherwise make any garbage elsewhere pass a check that is relative to the largest value.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from probe.metrics.histogram import LogHistogram, bin_edges

GAP = 1e3  # empty decades, as a ratio, that separate sentinels from data
LEAST = 1e4  # a cluster that reaches below this is data
SURE = 1e30  # beyond this no activation is real: such a value is compared by class alone


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Elements of golden with ``|x| >= threshold`` are sentinels, as are those of -Inf.

    ``boundary``: an actual of the same sign and at least this magnitude is the same class.
    """

    threshold: float = math.inf
    boundary: float = math.inf

    @property
    def any_finite(self) -> bool:
        return math.isfinite(self.threshold)


def find_sentinels(histogram: LogHistogram, range_without_gap: float) -> tuple[Sentinels, float]:
    """Sentinels of a tensor from the histogram of its finite magnitudes, and the range of what is left.

    The lowest gap counts: everything above it is a sentinel when the cluster right above it starts at ``LEAST`` or more. Zeros form a
    cluster of their own only below a cluster of ``SURE`` values: {0, -3.4e38} is a mask, {0, 20000} is data.

    Args:
        histogram: of |golden|, finite elements.
        range_without_gap: max |golden| over the same elements; returned when there are no sentinels.
    """
    bins = [int(b) for b in histogram.occupied()]
    for lower, upper in itertools.pairwise(bins):
        start = bin_edges(upper)[0]
        if start < LEAST:
            continue
        below = bin_edges(lower)[1]
        if (lower == 0 and start >= SURE) or (lower > 0 and start / below >= GAP):
            range_ = 0.0 if lower == 0 else below
            # half of the least gap above the data, so that a mask that FP16 clipped from -3.4e38 to -65504 is still one
            boundary = below * math.sqrt(GAP) if lower > 0 else LEAST
            return Sentinels(threshold=start, boundary=boundary), range_
    return Sentinels(), range_without_gap
