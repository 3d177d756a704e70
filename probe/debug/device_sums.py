"""What is asked of a device about a pair of tensors, and the ``Sums`` that its answer is: what ``probe.metrics.measure`` makes of the same tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.pairs import Agreement, Asked, Measure, Rows
from probe.metrics.histogram import LogHistogram
from probe.metrics.layout import Layout, layout_of
from probe.metrics.measure import WINDOW, InMemory, survey
from probe.metrics.rows import is_distribution_per_class, looks_like_probabilities
from probe.metrics.sentinels import Sentinels
from probe.metrics.sums import ChannelMaxima, Sums, Worst

if TYPE_CHECKING:
    from probe.engine.device.pairs import Answer, PairSums
    from probe.metrics.measure import Spec

Array = np.ndarray[Any, Any]
_ULPS = ("float32", "float16", "bfloat16")
_LARGEST = 2.0**125  # reciprocals of larger numbers are flushed to zero on a GPU


@dataclass(frozen=True, slots=True)
class Reference:
    """What is known of a golden tensor before anything is compared with it.

    Attributes:
        range_: its largest finite magnitude, masks left out.
        mask: the largest mask, with its sign; 0 when there are none.
        distributions: whether its rows are, along the class or the last axis; and whether along the class axis.
    """

    shape: tuple[int, ...]
    range_: float
    sentinels: Sentinels
    mask: float
    distributions: bool
    by_class: bool

    @property
    def layout(self) -> Layout:
        return layout_of(self.shape)


def reference_of(golden: Array) -> Reference:
    """Of a float32 tensor; reads it twice at most."""
    layout = layout_of(golden.shape)
    range_, sentinels = survey(InMemory(golden))
    flat = golden.reshape(-1)
    mask = 0.0
    if sentinels.any_finite or math.isfinite(sentinels.boundary):
        masked = flat[(np.abs(flat) >= sentinels.threshold) | np.isneginf(flat)]
        lowest = float(masked.min(initial=0.0))
        finite = masked[np.isfinite(masked)]
        mask = lowest if lowest == -math.inf else float(finite[np.abs(finite).argmax()]) if finite.size else 0.0
    distributions = by_class = False
    whole = next((stop for _, stop in layout.windows(WINDOW)), 0)
    if layout.classes > 1 and whole and whole % layout.class_span == 0:
        distributions = looks_like_probabilities(flat[:whole], layout)
        by_class = distributions and is_distribution_per_class(flat[:whole], layout)
    return Reference(golden.shape, range_, sentinels, mask, distributions, by_class)


def asked_of(reference: Reference, spec: Spec) -> Asked | None:
    """What a device must be asked for the sums of a float32 golden and a float tensor of its shape; None where numpy has to make them.

    These are: golden so small that relative errors need float64, or close to the largest float; the least tolerances; the largest elements
    of rows that are not adjacent (outputs of four and more axes); units in the last place of types that kernels do not count in.
    """
    layout = reference.layout
    floor = spec.rel_floor * reference.range_
    if spec.tolerances or spec.storage not in (None, *_ULPS) or not layout.count or reference.range_ > _LARGEST:
        return None
    if reference.range_ > 0 and floor < np.finfo(np.float32).tiny:
        return None
    agreement = None
    if layout.classes > 1 and layout.class_span <= WINDOW:
        wanted = reference.distributions or spec.rows or len(layout.shape) <= 3
        if wanted and layout.class_inner == 1:
            agreement = Agreement(layout.classes, reference.distributions)
        elif reference.distributions and not reference.by_class:
            agreement = Agreement(*layout.shape[-1:], kl=True)
        elif wanted:
            return None
    how = Measure(
        reference.sentinels.threshold, reference.sentinels.boundary, floor or 1.0, spec.atol, spec.rtol, spec.either, spec.equal_nan,
        spec.equal_inf, reference.range_,
    )  # fmt: skip
    rows = Rows(reference.shape[0], reference.shape[1] if len(reference.shape) > 3 else 1) if layout.rows else Rows()
    return Asked(how, rows, layout.last_channels, spec.storage or "float32", agreement, spec.worst > 0)


def sums_of(answer: Answer, reference: Reference, spec: Spec) -> Sums | None:
    """The answer as sums; None where numbers went beyond float32, so that numpy has to make them."""
    pair, layout = answer.sums, reference.layout
    if not math.isfinite(pair.max_abs):
        return None
    sums = Sums(
        **{name: getattr(pair, name) for name in _SAME}, worst_kept=spec.worst, range=max(abs(pair.golden_min), abs(pair.golden_max), 0.0) if pair.compared else 0.0,
        sentinel_value=reference.mask if pair.sentinels else 0.0,
    )  # fmt: skip
    if reference.range_ == 0 and pair.max_abs > 0:
        sums.max_rel = sums.rel_error = math.inf
    sums.worst = [
        Worst(one.error, layout.index(one.place), one.actual, one.golden, spec.input_id) for one in answer.worst
    ][: spec.worst]
    _add_maxima(sums, pair, layout)
    if answer.columns is not None and layout.channel_axis is not None:
        sums.channels = ChannelMaxima(layout.channel_axis, *answer.columns)
    if answer.counts is not None:
        sums.errors, sums.ulps = _histogram(*answer.counts.errors), _histogram(*answer.counts.ulps)
        sums.ulp_max = answer.counts.ulp_max
    if answer.rows is not None:
        for name in ("rows", "top1", "rows5", "top5", "kl_rows", "kl", "kl_max"):
            setattr(sums, name, getattr(answer.rows, name))
    return sums


_SAME = (
    "count", "compared", "nan_actual", "inf_actual", "nan_golden", "inf_golden", "nonfinite_mismatch", "sentinels", "sentinel_mismatch",
    "sentinel_error", "abs_error", "rel_error", "squared_error", "golden_squared", "actual_squared", "dot", "mismatched", "max_abs", "max_rel",
    "golden_min", "golden_max", "actual_min", "actual_max",
)  # fmt: skip


def _add_maxima(sums: Sums, pair: PairSums, layout: Layout) -> None:
    """Of items and channels; a tensor of one row has its own."""
    if not layout.rows:
        return
    whole = np.array([sums.max_abs]), np.array([sums.range])
    error, extent = (pair.item_error, pair.item_range) if pair.item_error.size else whole
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where((error == 0) & (extent == 0), 0.0, error / extent)
    sums.item, sums.item_rel = int(relative.argmax()), float(relative.max())
    if layout.channel_axis is not None and not layout.last_channels and len(layout.shape) > 3:
        sums.channels = ChannelMaxima(
            layout.channel_axis, *((pair.channel_error, pair.channel_range) if pair.channel_error.size else whole)
        )


def _histogram(bins: Array, counts: Array) -> LogHistogram:
    found = LogHistogram()
    found.counts[bins] = counts
    return found
