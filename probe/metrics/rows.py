"""Metrics of rows along a class axis: does the answer stay the same (top-k), does the distribution (KL)."""

from __future__ import annotations

from typing import Any

import numpy as np

from probe.metrics.layout import Layout
from probe.metrics.sums import Sums

Array = np.ndarray[Any, Any]

TOLERANCE = 1e-3  # how far the sum of a row of probabilities may be from 1
LEAST_PROBABILITY = 1e-12  # actual's zeros count as this in the KL divergence: 27.6 nats at most an element


def looks_like_probabilities(g: Array, layout: Layout) -> bool:
    """Whether rows sampled from the first window of golden are probability distributions, along the class or the last axis."""
    return _sampled_are_distributions(_last_axis_rows(g, layout)) or (
        layout.class_inner > 1 and _sampled_are_distributions(_sampled_class_rows(g, layout))
    )


def is_distribution_per_class(g: Array, layout: Layout) -> bool:
    """Whether those along the class axis are, which then are looked at and not those along the last axis."""
    return _sampled_are_distributions(_rows(g, layout))


def add_rows(sums: Sums, a: Array, g: Array, layout: Layout, *, kl: bool) -> None:
    """Add the rows of a window of whole class spans to ``sums``."""
    rows_a, rows_g = _rows(a, layout), _rows(g, layout)
    if kl and not _sampled_are_distributions(rows_g):
        rows_a, rows_g = _last_axis_rows(a, layout), _last_axis_rows(g, layout)  # attention: rows lie on the last axis
    classes = rows_g.shape[1]
    picked = rows_a.argmax(axis=1)
    best = rows_g.max(axis=1)
    # Golden's own ties are all right answers. NaN on either side makes a row disagree: NaN equals nothing.
    chosen = np.take_along_axis(rows_g, picked[:, None], axis=1)[:, 0]
    sums.rows += picked.size
    sums.top1 += int(((chosen == best) & ~np.isnan(rows_a.max(axis=1))).sum())
    if classes > 5:
        at_golden = np.take_along_axis(rows_a, rows_g.argmax(axis=1)[:, None], axis=1)
        with np.errstate(invalid="ignore"):
            ahead = (rows_a > at_golden).sum(axis=1)
        sums.rows5 += picked.size
        sums.top5 += int(((ahead < 5) & ~np.isnan(at_golden[:, 0])).sum())
    if kl:
        _add_kl(sums, rows_a.astype(np.float64), rows_g.astype(np.float64))


def _add_kl(sums: Sums, a: Array, g: Array) -> None:
    proper = (g.min(axis=1) >= 0) & (np.abs(g.sum(axis=1) - 1) <= TOLERANCE)
    a, g = a[proper], g[proper]
    if not g.size:
        return
    with np.errstate(divide="ignore", invalid="ignore"):
        # A NaN or negative "probability" of actual counts as none at all.
        q = np.where(a > LEAST_PROBABILITY, a, LEAST_PROBABILITY)
        terms = np.where(g > 0, g * np.log(g / q), 0.0)
    divergence = np.maximum(terms.sum(axis=1), 0.0)  # rows that sum to 1 +- 1e-3 could give a tiny negative number
    sums.kl_rows += divergence.size
    sums.kl += float(divergence.sum())
    sums.kl_max = max(sums.kl_max, float(divergence.max()))


def _rows(x: Array, layout: Layout) -> Array:
    """A window as [rows, classes]; a transposed copy when classes are not adjacent."""
    if layout.class_inner == 1:
        return x.reshape(-1, layout.classes)
    cube = x.reshape(-1, layout.classes, layout.class_inner)
    return np.ascontiguousarray(cube.transpose(0, 2, 1)).reshape(-1, layout.classes)


def _last_axis_rows(x: Array, layout: Layout) -> Array:
    return x.reshape(-1, layout.shape[-1])


def _sampled_class_rows(g: Array, layout: Layout) -> Array:
    cube = g.reshape(-1, layout.classes, layout.class_inner)
    return cube[:1, :, :: max(1, layout.class_inner // 4)].transpose(0, 2, 1).reshape(-1, layout.classes)


def _sampled_are_distributions(rows: Array) -> bool:
    if rows.shape[1] < 2:
        return False
    sample = rows[np.unique(np.linspace(0, rows.shape[0] - 1, 5).astype(int))].astype(np.float64)
    with np.errstate(invalid="ignore"):
        return bool(((sample.min(axis=1) >= 0) & (np.abs(sample.sum(axis=1) - 1) <= TOLERANCE)).any())
