"""Numbers in the reasons of a verdict: short, and never so short that they say something else."""

from __future__ import annotations

import math


def exact(value: float) -> str:
    """The shortest text that reads back as ``value``: ``0.01``, ``1e-05``, ``0.9999999``; a threshold is pasted into the next command."""
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))


def beside(value: float, threshold: float) -> tuple[str, str]:
    """``value`` and ``threshold`` with as many digits as it takes to tell them apart: never "0.05 > 0.05"."""
    limit = exact(threshold)
    if value == threshold:
        return limit, limit
    if not (math.isfinite(value) and math.isfinite(threshold)):
        return f"{value:.3g}", limit
    for digits in range(3, 18):
        left = f"{value:.{digits}g}"
        if float(left) != threshold and (value < threshold) == (float(left) < threshold):
            return left, limit
    return repr(float(value)), limit
