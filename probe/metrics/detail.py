"""``detail_of``: what a drill-down shows of one pair beyond its metrics, from elements already read and the ``Sums`` already made."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from probe.metrics.histogram import LogHistogram, to_float32_keeping_zero
from probe.metrics.numbers import absolute_difference, as_numbers, work_type
from probe.metrics.sentinels import find_sentinels
from probe.metrics.sums import ChannelMaxima, Sums
from probe.precision import PRECISIONS, dtype_name
from probe.results.detail import ChannelError, ChannelErrors, Detail, FormatLimits, Histogram, Images

Array = np.ndarray[Any, Any]

MOST_BINS = 48  # of a histogram, per sign: an octave each covers FP16 from its smallest subnormal to its largest number
WORST_CHANNELS = 8
PROFILE = 64  # places of the profile over channels
_STEPS = (1, 2, 4, 8)  # octaves of a bin
_TAIL = 1e-3  # share of the elements that may lie below the lowest bin before bins are made wider
_FINE = 4  # bins an octave that medians of errors are found with
_BIAS, _OCTAVES = 127, 256  # of float32: octave o holds magnitudes from 2^(o - 127); octave 0 all below 2^-126


def detail_of(
    actual: Array,
    golden: Array,
    sums: Sums,
    *,
    count: int,
    precision: str | None = None,
    input_id: str = "",
    images: Images | None = None,
) -> Detail:
    """The detail of a pair of float or integer tensors.

    Args:
        actual, golden: 1-D, the same elements of both tensors, all or a sample; types may differ.
        sums: of the whole pair. Its range, extremes and channels are used.
        count: elements of the whole tensor.
        precision: of storage, for what it cannot hold.
    """
    exact = work_type(dtype_name(actual.dtype), dtype_name(golden.dtype))
    a, g = as_numbers(actual, exact), as_numbers(golden, exact)
    error = np.empty(a.size, a.dtype)
    with np.errstate(all="ignore"):
        absolute_difference(actual, golden, a, g, exact, out=error)
    octaves_a, octaves_g = _octaves(a), _octaves(g)
    by_sign_a, by_sign_g = _by_sign(octaves_a), _by_sign(octaves_g)
    magnitude = np.abs(g)
    data = np.isfinite(g)
    if sums.sentinels:
        data &= magnitude < _threshold(magnitude[data])
    largest_golden = float(magnitude.max(initial=0.0, where=data))
    lowest, step, bins = _bins(by_sign_a + by_sign_g, _largest(sums, largest_golden))
    place = (octaves_g & (_OCTAVES - 1)).astype(np.int32) - (lowest + _BIAS)
    compared = np.isfinite(error) & data  # masks have no error to speak of
    largest, median = _by_magnitude(error, place, compared & (g != 0), bins, step)
    zero = compared & (g == 0)
    return Detail(
        input_id=input_id,
        elements=int(g.size),
        count=count,
        lowest=lowest,
        octaves=step,
        golden=_histogram(g, by_sign_g, lowest, step, bins),
        actual=_histogram(a, by_sign_a, lowest, step, bins),
        limits=_limits(magnitude, precision),
        error_max=largest,
        error_median=median,
        error_at_zero=short(float(error[zero].max())) if zero.any() else None,
        channels=channel_errors(sums.channels),
        images=images,
    )


def channel_errors(maxima: ChannelMaxima | None) -> ChannelErrors | None:
    """The worst channels, and a profile of at most ``PROFILE`` places over all of them; None without channels."""
    if maxima is None or maxima.max_abs.size < 2:
        return None
    error, extent = maxima.max_abs, maxima.range
    worst = [int(i) for i in np.argsort(-error, kind="stable")[:WORST_CHANNELS] if error[i] > 0]
    per_place = -(-error.size // PROFILE)
    starts = np.arange(0, error.size, per_place)
    return ChannelErrors(
        axis=maxima.axis,
        count=int(error.size),
        worst=tuple(ChannelError(i, short(float(error[i])), short(float(extent[i]))) for i in worst),
        per_place=per_place,
        error=tuple(short(float(x)) for x in np.maximum.reduceat(error, starts)),
        range=tuple(short(float(x)) for x in np.maximum.reduceat(extent, starts)),
    )


def short(value: float) -> float:
    """Six digits: what a picture can show, at a third of the bytes."""
    return float(f"{value:.6g}")


# --- bins


def _octaves(numbers: Array) -> Array:
    """Sign and exponent of each element as float32 holds them: 256 octaves of positive numbers, then 256 of negative ones."""
    narrow = numbers
    if numbers.dtype != np.float32:
        with np.errstate(over="ignore", under="ignore"):
            magnitude = to_float32_keeping_zero(np.abs(numbers))
        narrow = np.copysign(magnitude, numbers).astype(np.float32)
    return np.ascontiguousarray(narrow).view(np.uint16)[1::2] >> 7  # little-endian: the upper half


def _by_sign(octaves: Array) -> Array:
    """Counts as [sign, octave]; zeros are in octave 0, NaN and Inf in octave 255."""
    return np.bincount(octaves, minlength=2 * _OCTAVES).reshape(2, _OCTAVES)


def _threshold(magnitude: Array) -> float:
    """Where golden's masks begin, as ``measure`` finds it."""
    counts = LogHistogram()
    counts.add(np.ascontiguousarray(magnitude))
    return find_sentinels(counts, 0.0)[0].threshold


def _largest(sums: Sums, golden: float) -> float:
    """Of what is no mask: of golden also where actual overflowed, which the sums leave out."""
    return max(golden, *(abs(x) for x in (sums.range, sums.actual_min, sums.actual_max) if math.isfinite(x)))


def _bins(counts: Array, largest: float) -> tuple[int, int, int]:
    """Exponent of the lowest edge, octaves of a bin, number of bins: up to the largest compared magnitude, down to the smallest, or as far
    as ``MOST_BINS`` reach. Bins are wider than an octave only where more than ``_TAIL`` of the elements would lie below them."""
    by_octave = counts.sum(axis=0)
    by_octave[0] = 0  # zeros, and what float32 holds as subnormal
    top = min(max(math.frexp(largest)[1] - 1 + _BIAS, 0), _OCTAVES - 2) if largest > 0 else -1
    occupied = np.flatnonzero(by_octave[: top + 1])
    if not occupied.size:
        return 0, 1, 0
    reached = np.cumsum(by_octave[: top + 1])
    needed = int(np.searchsorted(reached, max(1.0, _TAIL * reached[-1])))
    step = next((s for s in _STEPS if top - needed + 1 <= s * MOST_BINS), _STEPS[-1])
    bins = min(MOST_BINS, -(-(top - int(occupied[0]) + 1) // step))
    return top + 1 - bins * step - _BIAS, step, bins


def _histogram(numbers: Array, by_sign: Array, lowest: int, step: int, bins: int) -> Histogram:
    first, beyond = lowest + _BIAS, lowest + _BIAS + bins * step
    zeros = numbers.size - int(np.count_nonzero(numbers))
    special = int(by_sign[:, _OCTAVES - 1].sum())
    nan = int(np.isnan(numbers).sum()) if special else 0
    finite = by_sign[:, : _OCTAVES - 1].copy()
    finite[:, 0] = 0  # zeros are counted by themselves; with what float32 holds as subnormal, which goes below
    inside = finite[:, max(first, 0) : beyond]
    inside = np.pad(inside, ((0, 0), (max(-first, 0), 0)))  # wide bins may reach below float32
    merged = [tuple(int(n) for n in row) for row in inside.reshape(2, bins, step).sum(axis=2)] if bins else [(), ()]
    counted = sum(map(sum, merged))
    above = int(finite[:, beyond if bins else 0 :].sum())
    return Histogram(
        positive=merged[0] if any(merged[0]) else (),
        negative=merged[1] if any(merged[1]) else (),
        zeros=zeros,
        below=numbers.size - zeros - special - counted - above,
        above=above,
        nan=nan,
        inf=special - nan,
    )


def _limits(magnitude: Array, precision: str | None) -> FormatLimits | None:
    if precision not in PRECISIONS:
        return None
    held = PRECISIONS[precision]
    vanishing = int(np.count_nonzero((magnitude <= held.smallest_subnormal / 2) & (magnitude > 0)))
    small = int(np.count_nonzero((magnitude < held.smallest_normal) & (magnitude > 0)))
    overflow = int(np.count_nonzero((magnitude > held.max) & np.isfinite(magnitude)))
    return FormatLimits(precision, overflow, small - vanishing, vanishing)


# --- error against magnitude


def _by_magnitude(
    error: Array, octave: Array, wanted: Array, bins: int, step: int
) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
    """The largest and the median error of each bin of golden. ``octave`` counts from the lowest bin."""
    wanted = wanted & (octave >= 0) & (octave < bins * step)
    chosen = octave if wanted.all() else octave[wanted]
    error = error if chosen.size == error.size else error[wanted]
    chosen = chosen if step == 1 else chosen // step
    exact = np.zeros(bins, error.dtype)
    np.maximum.at(exact, chosen, error)
    narrow = error if error.dtype == np.float32 else to_float32_keeping_zero(error)
    width = _OCTAVES * _FINE
    fine = narrow.view(np.uint16)[1::2] >> 5  # exponent and two bits: four bins an octave
    table = np.bincount(chosen * np.int32(width) + fine, minlength=bins * width).reshape(bins, width)
    totals = table.sum(axis=1)
    largest: list[float | None] = [None] * bins
    median: list[float | None] = [None] * bins
    for i in np.flatnonzero(totals):
        middle = int(np.searchsorted(np.cumsum(table[i]), (totals[i] + 1) // 2))
        largest[i] = short(float(exact[i]))
        median[i] = short(min(_upper_edge(middle), float(exact[i])))
    return tuple(largest), tuple(median)


def _upper_edge(fine: int) -> float:
    """Of a bin that errors are sorted into; 0 for the one that holds zero."""
    return float(np.array([(fine + 1) << 21], np.uint32).view(np.float32)[0]) if fine else 0.0
