"""How far a value is inside its bound, on one scale for all metrics; and one value of a metric for many inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from probe.errors import InputError
from probe.results.diff import Criterion

_AT_MOST_ONE = frozenset(("cosine", "top1", "top5"))  # of these the distance to 1 is the error


def margin_of(criterion: Criterion, value: float) -> float:
    """Part of what a criterion allows that is left: 1 without any error, 0 at the limit, negative beyond it.

    For ``<=`` it is 1 - value / limit; for ``>=`` value / limit - 1, of cosine and top-k 1 - (1 - value) / (1 - limit); ``==`` counts
    the distance. A limit of 0 (or 1 for cosine), which allows nothing, leaves 1 where it is met and minus the error elsewhere. Never
    negative where the criterion holds nor positive where it does not; falls as the value gets worse. NaN is -Inf.
    """
    limit = criterion.threshold
    if math.isnan(value):
        return -math.inf
    if criterion.op == "==":
        error = abs(value - limit) if value != limit else 0.0
        return -error if error else 1.0
    spare = limit - value if criterion.op in ("<=", "<") else value - limit
    if math.isnan(spare):  # an infinite limit that is met
        return 0.0
    allowed = 1 - limit if criterion.metric in _AT_MOST_ONE and criterion.op in (">=", ">") and limit <= 1 else limit
    if allowed == 0:
        return 1.0 if spare == 0 and criterion.op in ("<=", ">=") else spare
    return spare / abs(allowed) if math.isfinite(allowed) else spare


@dataclass(frozen=True, slots=True)
class Aggregate:
    """The mean (``share`` None), or the value that the best ``share`` of the inputs stays within."""

    name: str
    share: float | None = None

    def of(self, criterion: Criterion, values: Sequence[float]) -> float:
        """One value of several: an order statistic is one of them, the ``ceil(share n)``-th best."""
        if self.share is None:
            return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else sum(values) / len(values)
        ordered = sorted(values, key=lambda value: margin_of(criterion, value), reverse=True)
        return ordered[max(1, math.ceil(self.share * len(values))) - 1]


def aggregate_of(text: str) -> Aggregate | None:
    """``mean`` or ``quantile:0.9``; None for ``worst``, where each input is judged.

    Raises:
        InputError: none of these.
    """
    if text == "worst":
        return None
    if text == "mean":
        return Aggregate("mean")
    kind, colon, number = text.partition(":")
    try:
        share = float(number)
    except ValueError:
        share = math.nan
    if kind != "quantile" or not colon or not 0 < share <= 1:
        raise InputError(
            f"cannot join inputs by {text!r}", hint="worst, mean, or quantile:Q with Q above 0 and at most 1"
        )
    return Aggregate(f"quantile {share:g} of", share)


class Values:
    """Values of the criteria of one output: the least margin, and the value of each metric that comes nearest to failing."""

    def __init__(self) -> None:
        self.margin: float | None = None  # of criteria that fail
        self.deciding: dict[str, float] = {}
        self._margins: dict[str, float] = {}

    def add(self, criterion: Criterion, value: float | None) -> None:
        if value is None:
            return
        margin = margin_of(criterion, value)
        if criterion.level == "fail":
            self.margin = margin if self.margin is None else min(self.margin, margin)
        if margin < self._margins.get(criterion.metric, math.inf) or criterion.metric not in self.deciding:
            self.deciding[criterion.metric], self._margins[criterion.metric] = value, margin
