"""The scale of the layer graph: classes of error around the limit, each with a colour that light, dark and colour-blind readers can tell apart.

Colours are classes ``e0`` to ``e8`` of the style sheet. Their lightness falls (in the dark scheme: rises) from class to class, so that they can
be told apart without seeing hues and in print.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from probe.report.numbers import number
from probe.results.diff import Criterion

_SHARES = (1e-3, 1 / 300, 1e-2, 1 / 30, 0.1, 1 / 3, 1.0, 10.0)  # of the limit, where the next class begins
_UNLIMITED = 0.1  # stands for the limit where the acceptance has none for range_rel
CLASSES = len(_SHARES) + 1


@dataclass(frozen=True, slots=True)
class ErrorScale:
    """``edges``: errors where the next class begins, increasing. ``limited``: that the last but one is the limit of the acceptance."""

    edges: tuple[float, ...]
    limited: bool

    def class_of(self, error: float) -> int:
        """0 for the smallest errors; NaN and Inf are in the last class."""
        return CLASSES - 1 if math.isnan(error) else bisect_right(self.edges, error)

    def words(self, position: int) -> str:
        """What a class holds: ``below 5e-05``, ``0.005 to 0.0167``, ``0.5 and more``."""
        if position == 0:
            return f"below {number(self.edges[0])}"
        if position == len(self.edges):
            return f"{number(self.edges[-1])} and more"
        return f"{number(self.edges[position - 1])} to {number(self.edges[position])}"


def error_scale(acceptance: Iterable[Criterion]) -> ErrorScale:
    """Steps of half a decade below the smallest range_rel at which an output fails, and a decade above it."""
    limits = [c.threshold for c in acceptance
              if c.metric == "range_rel" and c.op in ("<=", "<") and c.level == "fail" and 0 < c.threshold < math.inf]  # fmt: skip
    limit = min(limits, default=_UNLIMITED)
    return ErrorScale(tuple(limit * share for share in _SHARES), bool(limits))
