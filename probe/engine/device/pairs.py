"""What a device sums over a tensor of a run and its golden twin, where only the sums leave it.

The fields mean what those of ``probe.metrics.sums.Sums`` of the same names mean; this room knows no metric and imports none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Measure:
    """How pairs are measured.

    Attributes:
        threshold: magnitude of golden from which an element is a mask and not compared.
        boundary: magnitude from which an actual element counts as a mask.
        floor: relative errors divide by no less. Not 0, unless golden is 0 everywhere.
        atol: with ``rtol``: an element is mismatched when its error is over ``atol + rtol * |golden|``; over the larger of both where ``either``.
        equal_nan, equal_inf: whether NaN, and Inf, that both have are no mismatch.
        range_: largest golden magnitude that is compared; histograms are fastest around it.
    """

    threshold: float = math.inf
    boundary: float = math.inf
    floor: float = 0.0
    atol: float = 0.0
    rtol: float = 0.0
    either: bool = False
    equal_nan: bool = True
    equal_inf: bool = True
    range_: float = math.inf


@dataclass(frozen=True, slots=True)
class Rows:
    """A tensor as ``items * channels`` rows of equal length, the channels of an item one behind the other.

    One item and one channel: no maxima of either are kept.
    """

    items: int = 1
    channels: int = 1

    @property
    def count(self) -> int:
        return self.items * self.channels


@dataclass(frozen=True, slots=True)
class Agreement:
    """Whether rows of ``cols`` elements are asked for their largest elements, and with ``kl`` for their divergence."""

    cols: int
    kl: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of a pair.

    Attributes:
        columns: length of the last axis whose columns are channels; 0: none are.
        ulps: numpy name of the type that units in the last place are counted in; None: no histograms.
        agreement: of rows.
        worst: whether the largest errors are looked up.
    """

    how: Measure
    rows: Rows
    columns: int = 0
    ulps: str | None = None
    agreement: Agreement | None = None
    worst: bool = False


@dataclass(slots=True)  # not frozen, which takes three times as long to make
class PairSums:
    """Of one pair; see ``probe.metrics.sums.Sums``.

    Attributes:
        item_error, item_range, channel_error, channel_range: largest error and largest magnitude of golden of each; empty where none are kept.
    """

    count: int
    compared: int
    nan_actual: int
    inf_actual: int
    nan_golden: int
    inf_golden: int
    nonfinite_mismatch: int
    sentinels: int
    sentinel_mismatch: int
    sentinel_error: float
    mismatched: int
    abs_error: float
    rel_error: float
    squared_error: float
    golden_squared: float
    actual_squared: float
    dot: float
    max_abs: float
    max_rel: float
    golden_min: float
    golden_max: float
    actual_min: float
    actual_max: float
    item_error: Array
    item_range: Array
    channel_error: Array
    channel_range: Array


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Histograms of a pair, in the bins of ``probe.metrics.histogram``: bins and counts of the occupied ones.

    Attributes:
        ulp_max: the largest distance in units in the last place.
    """

    errors: tuple[Array, Array]
    ulps: tuple[Array, Array]
    ulp_max: float


@dataclass(frozen=True, slots=True)
class PairRows:
    """Rows of a pair; see ``probe.metrics.rows``."""

    rows: int
    top1: int
    rows5: int
    top5: int
    kl_rows: int
    kl: float
    kl_max: float


@dataclass(frozen=True, slots=True)
class PairWorst:
    """An element with a large error."""

    error: float
    place: int
    actual: float
    golden: float


@dataclass(slots=True)  # as above
class Answer:
    """What was asked of a pair. ``columns``: largest error and largest golden magnitude of each; ``worst``: largest errors first."""

    sums: PairSums
    counts: PairCounts | None = None
    rows: PairRows | None = None
    columns: tuple[Array, Array] | None = None
    worst: tuple[PairWorst, ...] = ()
