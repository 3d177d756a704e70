"""Fill ``Sums`` with numpy: one pass over a pair of tensors in blocks that stay in the processor's cache.

Elements that are not compared (non-finite, sentinels) are set to zero on both sides rather than removed, so that positions, channels
and items keep their place; their zeros are taken out of the counts again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from probe.metrics.histogram import LogHistogram
from probe.metrics.layout import layout_of
from probe.metrics.numbers import Exact, absolute_difference, as_numbers, ulp_distance, work_type
from probe.metrics.rows import add_rows, looks_like_probabilities
from probe.metrics.sentinels import LEAST, SURE, Sentinels, find_sentinels
from probe.metrics.sums import Array, ChannelMaxima, Sums, Worst
from probe.precision import PRECISIONS, kind_of

BLOCK = 1 << 17  # elements worked on at a time: five float32 arrays of this stay in a 4 MiB second-level cache
DOUBLE = (
    1 << 13
)  # elements converted to float64 at a time; OpenBLAS starts threads for longer dot products, which cost more than they bring
WINDOW = 1 << 22  # elements asked of a reader at a time


class Readable(Protocol):
    """Elements of one tensor; ``probe.store.TensorReader`` is one, ``InMemory`` another."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    def window(self, start: int, stop: int) -> Array: ...


class InMemory:
    """A numpy array as ``Readable``."""

    def __init__(self, array: Array) -> None:
        from probe.precision import dtype_name

        self.dtype = dtype_name(array.dtype)
        self.shape: tuple[int, ...] = array.shape
        self._flat = np.ascontiguousarray(array).reshape(-1)

    def window(self, start: int, stop: int) -> Array:
        return self._flat[start:stop]


@dataclass(frozen=True, slots=True)
class Spec:
    """What to measure beside the basic sums.

    Attributes:
        atol, rtol: an element is mismatched when ``|e| > atol + rtol * |golden|``; with ``either``, when it passes both.
        equal_nan, equal_inf: whether matching NaN, and matching Inf, are no mismatch. This is about the count of mismatched elements
            only; ``nonfinite_mismatch`` always compares kind and sign.
        rel_floor: relative errors divide by ``max(|golden|, rel_floor * range)``: without a floor one zero in the reference, or noise
            around zero, is the only thing they show.
        storage: precision name ULPs are counted in; None: the actual tensor's own type.
        rows: top-k along the class axis also for tensors of four and more dimensions, where it costs most and, but for outputs,
            means least. Tensors of up to three dimensions, and rows that are probabilities, are always looked at.
        tolerances: the least tolerances that would pass (``--smallest-tolerance``).
        worst: how many of the worst elements are kept.
    """

    atol: float = 0.0
    rtol: float = 0.0
    either: bool = False
    equal_nan: bool = True
    equal_inf: bool = True
    rel_floor: float = 1e-3
    storage: str | None = None
    rows: bool = False
    tolerances: bool = False
    worst: int = 5
    input_id: str = ""


class Workspace:
    """Scratch arrays, kept from tensor to tensor: allocating them anew would cost more than some of the metrics."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, Any], Array] = {}

    def take(self, name: str, dtype: Any, count: int) -> Array:
        key = (name, dtype)
        held = self._arrays.get(key)
        if held is None or held.size < count:
            held = self._arrays[key] = np.empty(max(count, BLOCK), dtype)
        return held[:count]


def measure(actual: Readable, golden: Readable, spec: Spec | None = None, workspace: Workspace | None = None) -> Sums:
    """Sums of one pair of tensors of equal shape. Each side is read in order, at most twice, ``WINDOW`` elements at a time.

    Types may differ: float32 work for types float32 holds exactly, float64 for others; 64-bit integers are subtracted exactly and
    never wrap; bools count as 0 and 1; complex numbers as two elements; text is equal (0) or not (1, against a range of 0).

    Raises:
        ValueError: the shapes differ (comparing them is the caller's decision, not a number).
    """
    if actual.shape != golden.shape:
        raise ValueError(f"shapes differ: {actual.shape} and {golden.shape}")
    with np.errstate(all="ignore"):  # overflow and NaN are what is being measured
        return _Measurement(actual, golden, spec or Spec(), workspace or Workspace()).run()


def survey(golden: Readable) -> tuple[float, Sentinels]:
    """The range of a golden tensor, and where its sentinels begin, as ``measure`` finds them."""
    with np.errstate(all="ignore"):
        one = _Measurement(golden, golden, Spec(), Workspace())
        range_ = one.survey_golden()
    return range_, one.sentinels


class _Measurement:
    def __init__(self, actual: Readable, golden: Readable, spec: Spec, workspace: Workspace) -> None:
        self.actual, self.golden, self.spec, self.space = actual, golden, spec, workspace
        self.exact = work_type(actual.dtype, golden.dtype)
        self.layout = layout_of(actual.shape, complex_pairs=self.exact is Exact.COMPLEX)
        self.sums = Sums(count=self.layout.count, worst_kept=spec.worst)
        self.storage = spec.storage or actual.dtype
        if kind_of(actual.dtype) == "float" and kind_of(golden.dtype) == "float":
            self.sums.ulps = LogHistogram()
        # one slot per row of the layout: maxima of |e| and |golden|, folded into items and channels at the end
        self.row_error = np.zeros(self.layout.rows)
        self.row_range = np.zeros(self.layout.rows)
        self.channel_error = np.zeros(self.layout.last_channels)
        self.channel_range = np.zeros(self.layout.last_channels)
        self.sentinels = Sentinels()
        self.floor = 0.0
        self.rows_wanted = self.layout.classes > 1 and self.exact is not Exact.TEXT
        self.kl_wanted: bool | None = None  # decided by the first window

    def run(self) -> Sums:
        range_ = self.survey_golden()
        self.floor = self.spec.rel_floor * range_
        for start, a, g in self._windows():
            if self.rows_wanted:
                self._rows(start, a, g)
            for low, high in self.layout.blocks(start, start + a.size, BLOCK):
                self._block(low, a[low - start : high - start], g[low - start : high - start])
        self._finish()
        return self.sums

    def survey_golden(self) -> float:
        """Range of golden and where its sentinels begin: known before the sums, because they run over the rest."""
        absmax, negative_infinity = 0.0, False
        for start, stop in self.layout.windows(WINDOW):
            block = as_numbers(self._read(self.golden, start, stop), self.exact)
            low, high = (float(block.min()), float(block.max())) if block.size else (0.0, 0.0)
            if not (math.isfinite(low) and math.isfinite(high)):
                negative_infinity |= bool(np.isneginf(block).any())
                block = block[np.isfinite(block)]
                low, high = (float(block.min()), float(block.max())) if block.size else (0.0, 0.0)
            absmax = max(absmax, abs(low), abs(high))
        if absmax < LEAST or self.exact is Exact.TEXT or kind_of(self.golden.dtype) != "float":
            if negative_infinity:
                self.sentinels = Sentinels(boundary=max(absmax * math.sqrt(1e3), LEAST))
            return absmax
        histogram = LogHistogram()
        for start, stop in self.layout.windows(BLOCK):
            block = as_numbers(self._read(self.golden, start, stop), self.exact)
            histogram.add(np.abs(block[np.isfinite(block)]))
        self.sentinels, range_ = find_sentinels(histogram, absmax)
        if negative_infinity and not self.sentinels.any_finite:
            self.sentinels = replace(self.sentinels, boundary=max(absmax * math.sqrt(1e3), LEAST))
        return range_

    def _read(self, side: Readable, start: int, stop: int) -> Array:
        width = 2 if self.exact is Exact.COMPLEX else 1
        window = side.window(start // width, stop // width)
        return window.view(window.real.dtype) if width == 2 and window.dtype.kind == "c" else window

    def _windows(self) -> Iterator[tuple[int, Array, Array]]:
        for start, stop in self.layout.windows(WINDOW):
            yield start, self._read(self.actual, start, stop), self._read(self.golden, start, stop)

    def _rows(self, start: int, a: Array, g: Array) -> None:
        if a.size % self.layout.class_span:
            return  # a row longer than a window: rows stay 0 and the metrics None
        a, g = as_numbers(a, self.exact), as_numbers(g, self.exact)
        if self.kl_wanted is None:
            self.kl_wanted = looks_like_probabilities(g, self.layout)
            if not (self.kl_wanted or self.spec.rows or len(self.layout.shape) <= 3):
                self.rows_wanted = False
                return
        add_rows(self.sums, a, g, self.layout, kl=self.kl_wanted)

    def _block(self, start: int, raw_a: Array, raw_g: Array) -> None:
        a, g = as_numbers(raw_a, self.exact), as_numbers(raw_g, self.exact)
        error = self.space.take("error", a.dtype, a.size)
        absolute_difference(raw_a, raw_g, a, g, self.exact, out=error)
        largest = float(error.max())
        excluded = 0
        if not math.isfinite(largest) or self.sentinels.any_finite:
            a, g, aside = self._set_aside(a, g)
            excluded = int(aside.sum())
            error = np.abs(a - g) if self.exact is not Exact.INT64 else error
            largest = float(error.max())
            self._extremes(a[~aside], g[~aside])
        else:
            self._extremes(a, g)
        magnitude = np.abs(g, out=self.space.take("magnitude", g.dtype, g.size))
        self._relative(error, magnitude)
        self._double_sums(a, g, error)
        self._worst(start, a, g, error, largest)
        self.sums.errors.add(error)
        self.sums.errors.forget_zeros(excluded)
        self.sums.compared += a.size - excluded
        self.sums.max_abs = max(self.sums.max_abs, largest)
        self._maxima(start, error, magnitude)
        if self.sums.ulps is not None:
            self._ulps(a, g, excluded)

    def _set_aside(self, a: Array, g: Array) -> tuple[Array, Array, Array]:
        """Count non-finite elements and sentinels by class; return copies with zeros in their place, and where."""
        sums = self.sums
        # Beyond float32's range a difference of finite numbers is infinite: such a block is worked on in float64.
        a, g = a.astype(np.float64), g.astype(np.float64)
        finite_a, finite_g = np.isfinite(a), np.isfinite(g)
        nan_a, nan_g = np.isnan(a), np.isnan(g)
        masked = np.isneginf(g) | (np.abs(g) >= self.sentinels.threshold) & finite_g
        same = (nan_a & nan_g) | (a == g)
        # By class: the same sign, and large enough to be no data. An Inf that golden lacks stays a mismatch.
        with np.errstate(invalid="ignore"):
            same |= masked & finite_a & (np.abs(a) >= self.sentinels.boundary) & (np.sign(a) == np.sign(g))
        nonfinite = ~(finite_a & finite_g)
        sums.nan_actual += int(nan_a.sum())
        sums.nan_golden += int(nan_g.sum())
        sums.inf_actual += int((~finite_a & ~nan_a).sum())
        sums.inf_golden += int((~finite_g & ~nan_g).sum())
        sums.nonfinite_mismatch += int((nonfinite & ~same).sum())
        if masked.any():
            self._sentinel_values(a, g, masked & finite_g, masked & finite_a & finite_g & same)
            sums.sentinels += int(masked.sum())
            sums.sentinel_mismatch += int((masked & ~same).sum())
            if np.isneginf(g).any():
                sums.sentinel_value = -math.inf
        aside = nonfinite | masked
        wrong = aside & ~same
        if not self.spec.equal_nan:
            wrong |= nan_a & nan_g
        if not self.spec.equal_inf:
            wrong |= np.isinf(a) & np.isinf(g)
        sums.mismatched += int(wrong.sum())
        a[aside] = 0
        g[aside] = 0
        return a, g, aside

    def _sentinel_values(self, a: Array, g: Array, finite: Array, alike: Array) -> None:
        sums = self.sums
        if finite.any():
            values = g[finite]
            sums.sentinel_value = max(float(values[np.abs(values).argmax()]), sums.sentinel_value, key=abs)
        doubtful = alike & (np.abs(g) < SURE)
        if doubtful.any():
            drift = np.abs(a[doubtful] - g[doubtful]) / np.abs(g[doubtful])
            sums.sentinel_error = max(sums.sentinel_error, float(drift.max()))

    def _extremes(self, a: Array, g: Array) -> None:
        sums = self.sums
        if not a.size:
            return
        low, high = float(g.min()), float(g.max())
        sums.golden_min, sums.golden_max = min(sums.golden_min, low), max(sums.golden_max, high)
        sums.actual_min = min(sums.actual_min, float(a.min()))
        sums.actual_max = max(sums.actual_max, float(a.max()))
        sums.range = max(sums.range, abs(low), abs(high))

    def _relative(self, error: Array, magnitude: Array) -> None:
        sums, spec = self.sums, self.spec
        if error.dtype == np.float32 and self.floor < np.finfo(np.float32).tiny:
            error, magnitude = error.astype(np.float64), magnitude.astype(np.float64)  # a subnormal floor has few bits
        scratch = self.space.take("relative", error.dtype, error.size)
        floor = error.dtype.type(self.floor)
        if floor > 0:
            np.maximum(magnitude, floor, out=scratch)
            np.divide(error, scratch, out=scratch)
        else:
            _divide(error, magnitude, out=scratch)
        sums.max_rel = max(sums.max_rel, float(scratch.max()))
        sums.rel_error += _sum(scratch)
        np.multiply(magnitude, error.dtype.type(spec.rtol), out=scratch)
        if spec.either:
            np.maximum(scratch, error.dtype.type(spec.atol), out=scratch)
        else:
            scratch += error.dtype.type(spec.atol)
        sums.mismatched += int(np.count_nonzero(error > scratch))
        if spec.tolerances:
            _divide(error, magnitude, out=scratch)
            sums.needed_rtol = max(sums.needed_rtol, float(scratch.max()))
            sums.needed_both = max(sums.needed_both, float((error / (1 + magnitude)).max()))

    def _double_sums(self, a: Array, g: Array, error: Array) -> None:
        sums = self.sums
        for low in range(0, a.size, DOUBLE):
            part = slice(low, low + DOUBLE)
            a64 = self._double("a64", a[part])
            g64 = self._double("g64", g[part])
            if self.exact in (Exact.TEXT, Exact.INT64):
                e64 = self._double("e64", error[part])
            else:  # cheaper than converting, and the difference is exact
                e64 = np.subtract(a64, g64, out=self.space.take("e64", np.float64, a64.size))
                np.abs(e64, out=e64)
            sums.abs_error += float(e64.sum())
            sums.squared_error += float(e64 @ e64)
            sums.golden_squared += float(g64 @ g64)
            sums.actual_squared += float(a64 @ a64)
            sums.dot += float(a64 @ g64)

    def _double(self, name: str, part: Array) -> Array:
        if part.dtype == np.float64:
            return part
        wide = self.space.take(name, np.float64, part.size)
        np.copyto(wide, part)
        return wide

    def _worst(self, start: int, a: Array, g: Array, error: Array, largest: float) -> None:
        kept, limit = self.sums.worst, self.spec.worst
        if limit == 0:
            return
        least = kept[-1].error if len(kept) == limit else 0.0
        if largest <= least:
            return
        # Most often the upper half of the error's range holds enough of them; sorting out a whole block costs more than the sums.
        places = np.flatnonzero(error > max(least, largest / 2))
        if places.size < limit:
            places = np.flatnonzero(error > least)
        if places.size > limit:
            places = places[np.argpartition(error[places], -limit)[-limit:]]
        found = [
            Worst(float(error[i]), self.layout.index(start + int(i)), float(a[i]), float(g[i]), self.spec.input_id)
            for i in places
        ]
        self.sums.worst = sorted((*kept, *found), reverse=True)[:limit]

    def _maxima(self, start: int, error: Array, magnitude: Array) -> None:
        layout = self.layout
        if layout.rows:
            layout.row_maxima(start, error, into=self.row_error)
            layout.row_maxima(start, magnitude, into=self.row_range)
        if layout.last_channels:
            for values, into in ((error, self.channel_error), (magnitude, self.channel_range)):
                np.maximum(into, values.reshape(-1, layout.last_channels).max(axis=0), out=into)

    def _ulps(self, a: Array, g: Array, excluded: int) -> None:
        assert self.sums.ulps is not None
        distance = ulp_distance(a, g, self.storage)
        if distance is None:
            self.sums.ulps = None
            return
        self.sums.ulps.add(distance)
        self.sums.ulps.forget_zeros(excluded)
        self.sums.ulp_max = max(self.sums.ulp_max, float(distance.max()))

    def _finish(self) -> None:
        layout, sums = self.layout, self.sums
        if layout.rows:
            errors, ranges = layout.by_item(self.row_error), layout.by_item(self.row_range)
            relative = _divided(errors, ranges)
            sums.item = int(relative.argmax()) if relative.size else None
            sums.item_rel = float(relative.max()) if relative.size else 0.0
        axis = layout.channel_axis
        if axis is not None and layout.last_channels:
            sums.channels = ChannelMaxima(axis, self.channel_error, self.channel_range)
        elif axis is not None and layout.rows:
            sums.channels = ChannelMaxima(axis, layout.by_channel(self.row_error), layout.by_channel(self.row_range))


def storage_of(precision: str | None, dtype: str) -> str:
    """Type name ULPs are counted in: the recorded precision's, else the tensor's own."""
    return PRECISIONS[precision].dtype if precision in PRECISIONS else dtype


def _divide(error: Array, magnitude: Array, *, out: Array) -> None:
    """error / magnitude with 0 / 0 = 0 and x / 0 = Inf."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        np.divide(error, magnitude, out=out)
    out[(error == 0) & (magnitude == 0)] = 0


def _divided(error: Array, magnitude: Array) -> Array:
    result = np.empty_like(error)
    _divide(error, magnitude, out=result)
    return result


def _sum(block: Array) -> float:
    """Sum of a block: numpy adds float32 pairwise, which is good to 1e-6 over 2^17 elements; float64 when that overflows."""
    with np.errstate(over="ignore"):
        total = float(block.sum())
    return total if math.isfinite(total) else float(block.sum(dtype=np.float64))
