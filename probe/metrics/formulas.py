"""Every metric as a formula over ``Sums``: its definition, unit, source and corner cases.

Notation: r golden (reference), x actual, e = x - r, over the n compared elements (finite in both, no sentinel of r). A pair without
compared elements has error 0; whether it may pass is decided by class counts (``nonfinite_mismatch``), never by these numbers.
``METRICS`` is the table that acceptance expressions, renderers and the documentation read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from probe.metrics.sums import Array, Sums
from probe.results.diff import Metrics, WorstElement


@dataclass(frozen=True, slots=True)
class Metric:
    """A named formula. ``better`` says which direction is good; ``value`` may be None where the metric is not defined."""

    name: str
    value: Callable[[Sums], float | None]
    unit: str
    better: Literal["lower", "higher"] = "lower"


def max_abs(s: Sums) -> float:
    """max |e|, in units of the tensor. trtexec's lInf."""
    return s.max_abs


def mean_abs(s: Sums) -> float:
    """sum |e| / n, in units of the tensor. trtexec's l1. 0 when nothing was compared."""
    return s.abs_error / s.compared if s.compared else 0.0


def max_rel(s: Sums) -> float:
    """max |e| / max(|r|, floor), a ratio; floor = 1e-3 of the tensor's range (``Spec.rel_floor``).

    Without a floor one zero in the reference is Inf (numpy) or 4.5e12 (Polygraphy, which divides by 2.2e-16) and says nothing else.
    A tensor of range 0 has no floor: 0 where e = 0, else Inf.
    """
    return s.max_rel


def mean_rel(s: Sums) -> float:
    """Mean of |e| / max(|r|, floor), a ratio; floor as in ``max_rel``."""
    return s.rel_error / s.compared if s.compared else 0.0


def range_rel(s: Sums) -> float:
    """max |e| / range, a ratio: probe's default. range = max |r| without sentinels.

    r all zero: 0 if x is too, else Inf. Sentinels below 1e30 count by their own magnitude: the larger of both ratios is returned, so a
    cluster of large true activations cannot hide behind the word sentinel.
    """
    if s.max_abs == 0:
        own = 0.0
    else:
        own = s.max_abs / s.range if s.range > 0 else math.inf
    return max(own, s.sentinel_error)


def range_rel_item(s: Sums) -> float | None:
    """The largest over batch items (axis 0) of max |e| of the item / range of the item: one loud sample must not hide a quiet one.

    The same as ``range_rel`` for a batch of one; None for tensors without axes.
    """
    return s.item_rel if s.item is not None else range_rel(s)


def rmse(s: Sums) -> float:
    """sqrt(sum e^2 / n), in units of the tensor. trtexec's "l2" is its square."""
    return math.sqrt(s.squared_error / s.compared) if s.compared else 0.0


def nmse(s: Sums) -> float:
    """sum e^2 / sum r^2, a ratio (NNCF; PPQ calls it snr). r all zero: 0 if e is too, else Inf."""
    return _ratio(s.squared_error, s.golden_squared)


def sqnr_db(s: Sums) -> float:
    """10 log10(sum r^2 / sum e^2), in dB: signal to noise, from the reference. No error: Inf. r all zero and e not: -Inf."""
    return _decibel(s.golden_squared, s.squared_error)


def psnr_db(s: Sums) -> float:
    """10 log10(peak^2 / (sum e^2 / n)), in dB, peak = max |r| whatever its sign. No error: Inf. r all zero and e not: -Inf.

    Polygraphy takes max(x) of the first runner, so that its value depends on the sign of the data.
    """
    return _decibel(s.range**2, s.squared_error / s.compared if s.compared else 0.0)


def cosine(s: Sums) -> float:
    """sum x r / sqrt(sum x^2 sum r^2), -1 to 1. Both all zero: 1. One all zero: 0 (ai-edge-quantizer's convention).

    The products are of square roots, so that vectors of 1e-200 do not vanish.
    """
    if s.max_abs == 0:
        return 1.0  # identical, and not 1 - 2e-16
    if s.golden_squared == 0 or s.actual_squared == 0:
        return 0.0
    return max(-1.0, min(1.0, s.dot / math.sqrt(s.golden_squared) / math.sqrt(s.actual_squared)))


def kl(s: Sums) -> float | None:
    """Mean over rows of sum r ln(r / max(x, 1e-12)), in nats; only rows of r that sum to 1 within 1e-3. None: there are none."""
    return s.kl / s.kl_rows if s.kl_rows else None


def kl_max(s: Sums) -> float | None:
    """The largest KL divergence of a row, in nats. None: no rows that sum to 1."""
    return s.kl_max if s.kl_rows else None


def ulp_max(s: Sums) -> float | None:
    """Largest distance in units in the last place of the storage type, after rounding r to it. None for types that are no floats.

    0 everywhere means: as good as the format can be. Large values near zero are normal; look at ``ulp_p99`` first.
    """
    return s.ulp_max if s.ulps is not None else None


def ulp_p99(s: Sums) -> float | None:
    """99th percentile of the ULP distance: exact up to 256, else within 0.8 % below."""
    return s.ulps.quantile(0.99, upper=False) if s.ulps is not None and s.compared else None


def ulp_over_1(s: Sums) -> int | None:
    """Elements more than one ULP away: those that are not a neighbouring rounding of r."""
    if s.ulps is None:
        return None
    one = 0x3F80  # the histogram's bin of 1.0
    return int(s.ulps.counts[one + 1 :].sum())


def mismatch_fraction(s: Sums) -> float:
    """Share of elements with |e| > atol + rtol |r|, or of another class: numpy's allclose rule. trtexec's l0."""
    return s.mismatched / s.count if s.count else 0.0


def quantile(q: float) -> Callable[[Sums], float]:
    """Quantile of |e|, in units of the tensor, at most 0.8 % too large and never above ``max_abs``."""

    def of(s: Sums) -> float:
        return min(s.errors.quantile(q), s.max_abs) if s.compared else 0.0

    of.__doc__ = f"{q:.1%} of |e| are at most this, in units of the tensor (within 0.8 %)."
    return of


def top1(s: Sums) -> float | None:
    """Share of rows along the class axis whose largest actual element is a largest golden one. None: no class axis was looked at."""
    return s.top1 / s.rows if s.rows else None


def top5(s: Sums) -> float | None:
    """Share of rows of more than five classes whose golden choice is among actual's five largest. None: no such rows."""
    return s.top5 / s.rows5 if s.rows5 else None


def channel_worst(s: Sums) -> float | None:
    """The largest over channels of max |e| of the channel / range of the channel, a ratio. None: no channel axis.

    A channel that is all zero in r and not in x gives Inf.
    """
    ratios = _channel_ratios(s)
    return None if ratios is None else float(ratios.max())


METRICS: tuple[Metric, ...] = (
    Metric("range_rel", range_rel, "of range"),
    Metric("range_rel_item", range_rel_item, "of range of the item"),
    Metric("max_abs", max_abs, ""),
    Metric("mean_abs", mean_abs, ""),
    Metric("max_rel", max_rel, "of |golden|"),
    Metric("mean_rel", mean_rel, "of |golden|"),
    Metric("rmse", rmse, ""),
    Metric("nmse", nmse, "of power"),
    Metric("sqnr_db", sqnr_db, "dB", "higher"),
    Metric("psnr_db", psnr_db, "dB", "higher"),
    Metric("cosine", cosine, "", "higher"),
    Metric("kl", kl, "nats"),
    Metric("kl_max", kl_max, "nats"),
    Metric("ulp_max", ulp_max, "ULP"),
    Metric("ulp_p99", ulp_p99, "ULP"),
    Metric("ulp_over_1", ulp_over_1, "elements"),
    Metric("mismatch_fraction", mismatch_fraction, "of elements"),
    Metric("p50", quantile(0.5), ""),
    Metric("p90", quantile(0.9), ""),
    Metric("p99", quantile(0.99), ""),
    Metric("p999", quantile(0.999), ""),
    Metric("top1", top1, "of rows", "higher"),
    Metric("top5", top5, "of rows", "higher"),
    Metric("channel_worst", channel_worst, "of range of the channel"),
)

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}


def metrics_of(s: Sums, *, step: float | None = None, tolerances: bool = False) -> Metrics:
    """All metrics of a pair as the value that results hold. ``step``: quantisation step, for ``max_steps``."""
    ratios = _channel_ratios(s)
    return Metrics(
        count=s.count,
        compared=s.compared,
        range=s.range,
        **{metric.name: metric.value(s) for metric in METRICS},  # type: ignore[arg-type]
        mismatched=s.mismatched,
        channel=None if ratios is None else int(ratios.argmax()),
        channel_axis=None if ratios is None or s.channels is None else s.channels.axis,
        max_steps=s.max_abs / step if step else None,
        item=s.item,
        nonfinite_mismatch=s.nonfinite_mismatch,
        nan_actual=s.nan_actual,
        inf_actual=s.inf_actual,
        nan_golden=s.nan_golden,
        inf_golden=s.inf_golden,
        sentinels=s.sentinels,
        sentinel_value=s.sentinel_value if s.sentinels else None,
        sentinel_mismatch=s.sentinel_mismatch,
        actual_min=_or_nan(s.actual_min),
        actual_max=_or_nan(s.actual_max),
        golden_min=_or_nan(s.golden_min),
        golden_max=_or_nan(s.golden_max),
        smallest_atol=s.max_abs if tolerances else None,
        smallest_rtol=s.needed_rtol if tolerances else None,
        smallest_both=s.needed_both if tolerances else None,
    )


def worst_elements(s: Sums) -> tuple[WorstElement, ...]:
    """The elements with the largest |e|, largest first."""
    return tuple(WorstElement(w.place, w.actual, w.golden, w.error, w.input_id) for w in s.worst)


def _channel_ratios(s: Sums) -> Array | None:
    import numpy as np

    if s.channels is None or not s.channels.max_abs.size:
        return None
    error, extent = s.channels.max_abs, s.channels.range
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(error == 0, 0.0, error / extent)


def _ratio(part: float, whole: float) -> float:
    if part == 0:
        return 0.0
    return part / whole if whole > 0 else math.inf


def _decibel(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * (math.log10(signal) - math.log10(noise)) if signal > 0 else -math.inf


def _or_nan(extreme: float) -> float:
    return extreme if math.isfinite(extreme) else math.nan
