"""The sums that most acceptances ask for, bit for bit those of ``measure`` and several times as fast, where golden has no NaN, Inf or
masks. What depends on golden alone is computed once for all that is compared with it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache, cached_property
from typing import Any

import numpy as np

from probe.metrics.histogram import LogHistogram
from probe.metrics.layout import Layout, layout_of
from probe.metrics.measure import BLOCK, DOUBLE, WINDOW, Spec, _divided
from probe.metrics.numbers import Exact, as_numbers, work_type
from probe.metrics.rows import add_rows, looks_like_probabilities
from probe.metrics.sentinels import LEAST, find_sentinels
from probe.metrics.sums import Sums
from probe.precision import dtype_name, kind_of

Array = np.ndarray[Any, Any]
Parts = frozenset[str]

# Which sums a metric needs beside the largest error. What is not here needs ``measure``.
_PARTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("range_rel", "max_abs", "linf", "max_steps"), ()),
    "range_rel_item": ("items",),
    **dict.fromkeys(("mean_abs", "l1"), ("absolute",)),
    **dict.fromkeys(("rmse", "l2", "nmse", "sqnr_db", "sqnr", "psnr_db", "psnr"), ("power",)),
    **dict.fromkeys(("cosine", "cos"), ("power", "products")),
    **dict.fromkeys(("mismatch_fraction", "mismatch", "l0"), ("mismatched",)),
    **dict.fromkeys(("top1", "top5", "kl", "kl_max"), ("rows",)),
}  # fmt: skip


class _NotCounted(LogHistogram):
    """The empty histogram, shared: clearing its 32 thousand counts anew would cost more than small sums."""

    def __init__(self) -> None:
        super().__init__()
        self.counts.setflags(write=False)

    def merge(self, other: LogHistogram) -> LogHistogram:
        return other


_NOT_COUNTED = _NotCounted()


def parts_of(metrics: Iterable[str]) -> Parts | None:
    """What ``Plain.sums`` must compute for metrics, by their names in an acceptance; None: one of them needs ``measure``."""
    found: set[str] = set()
    for name in metrics:
        if name not in _PARTS:
            return None
        found.update(_PARTS[name])
    return frozenset(found)


class Reference:
    """A golden tensor that several are compared with."""

    def __init__(self, golden: Array) -> None:
        self.array = golden
        self._plain: dict[np.dtype[Any], Plain | None] = {}

    def plain(self, actual: np.dtype[Any]) -> Plain | None:
        """Golden as numbers, for an actual tensor of this type; None where ``measure`` is needed: NaN, Inf or masks in golden, text,
        complex numbers, no elements."""
        if actual not in self._plain:
            self._plain[actual] = _plain(self.array, actual)
        return self._plain[actual]


def plain_sums(actual: Array, golden: Array, parts: Parts = frozenset()) -> Sums | None:
    """``Plain.sums`` of arrays of one shape; None where ``measure`` is needed."""
    plain = _plain(golden, actual.dtype)
    return plain.sums(actual, parts) if plain is not None else None


class Plain:
    """Golden as flat numbers of the type a pair is compared in, finite and without masks."""

    def __init__(self, golden: Array, numbers: Array, exact: Exact, range_: float) -> None:
        self._golden, self._numbers, self._exact, self._range = golden, numbers, exact, range_
        self._bounds: dict[tuple[float, float, bool], Array] = {}

    @cached_property
    def _layout(self) -> Layout:
        return layout_of(self._golden.shape)

    @cached_property
    def _windows(self) -> list[tuple[int, int]]:
        return list(self._layout.windows(WINDOW))

    @cached_property
    def _blocks(self) -> list[tuple[int, int]]:
        """Those of ``measure``, so that float64 sums have the same order."""
        if self._numbers.size <= BLOCK:
            return [(0, self._numbers.size)]
        return [block for start, stop in self._windows for block in self._layout.blocks(start, stop, BLOCK)]

    @cached_property
    def probabilities(self) -> bool:
        """Whether its rows are distributions, as ``measure`` decides it: by the first window."""
        (start, stop), layout = self._windows[0], self._layout
        whole = layout.classes > 1 and (stop - start) % layout.class_span == 0
        return whole and looks_like_probabilities(self._numbers[start:stop], layout)

    def sums(self, actual: Array, parts: Parts = frozenset(), spec: Spec | None = None) -> Sums | None:
        """Count, range, the largest error and ``parts`` of the sums; other fields keep their defaults.

        Args:
            actual: of golden's shape, and of the type this was made for.
            parts: of ``parts_of``: ``items``, ``absolute``, ``power`` (sums of e^2 and r^2), ``products`` (of x^2 and x r),
                ``mismatched``, ``rows``.
            spec: tolerances, and whether rows of four-dimensional tensors are looked at, as for ``measure``.

        NaN and Inf, which golden has not, are counted and left out, as ``measure`` does; of tensors of several blocks the largest error is
        then computed in float64 where ``measure`` uses float32 in those that have none.

        Returns:
            None where ``measure`` is needed: a difference beyond the type, integers of 64 bits that differ, tolerances that need float64.
        """
        spec = spec or Spec()
        if "mismatched" in parts and self._floor_is_subnormal(spec):
            return None
        raw = np.ascontiguousarray(actual).reshape(-1)
        if self._exact is Exact.INT64 and not np.array_equal(raw, self._golden.reshape(-1)):
            return None
        numbers = as_numbers(raw, self._exact)
        with np.errstate(over="ignore", invalid="ignore"):
            found = self._sums(numbers, parts - {"rows"}, spec) or self._finite_sums(numbers, parts - {"rows"}, spec)
            if found is not None and "rows" in parts:
                self._add_rows(found, numbers, spec)
        return found

    def _finite_sums(self, a: Array, parts: Parts, spec: Spec) -> Sums | None:
        """The sums over what is finite, in float64: what is not is 0 on both sides, so that everything keeps its place."""
        finite = np.isfinite(a)
        shape, lost = self._golden.shape, a.size - int(np.count_nonzero(finite))
        if not lost:
            return None
        a64, g64 = np.where(finite, a, 0).astype(np.float64), np.where(finite, self._numbers, 0).astype(np.float64)
        rest = Plain(g64.reshape(shape), g64, self._exact, float(np.abs(g64).max()))
        sums = rest._sums(a64, parts, spec)
        if sums is None:
            return None
        sums.compared -= lost
        sums.nonfinite_mismatch = lost
        sums.nan_actual = int(np.count_nonzero(np.isnan(a)))
        sums.inf_actual = lost - sums.nan_actual
        sums.mismatched += lost
        return sums

    def _sums(self, a: Array, parts: Parts, spec: Spec) -> Sums | None:
        sums = Sums(count=a.size, compared=a.size, range=self._range, worst_kept=spec.worst, errors=_NOT_COUNTED)
        items = "items" in parts and self._layout.rows > 0
        row_error = np.zeros(self._layout.rows) if items and self._layout.shape[0] > 1 else None
        doubles = not parts.isdisjoint(("absolute", "power", "products"))
        for start, stop in self._blocks:
            g = self._numbers[start:stop]
            error = a[start:stop] - g
            largest = max(-float(error.min()), float(error.max()))
            if not math.isfinite(largest):
                return None
            sums.max_abs = max(sums.max_abs, largest)
            if row_error is not None:
                self._layout.row_maxima(start, np.abs(error), into=row_error)
            if "mismatched" in parts:
                sums.mismatched += int(np.count_nonzero(np.abs(error) > self._bound(spec)[start:stop]))
            if doubles:
                _add_doubles(sums, a[start:stop], g, parts)
        if "power" in parts:
            sums.golden_squared = self._squared
        if items:
            self._add_items(sums, row_error)
        return sums

    def _add_items(self, sums: Sums, row_error: Array | None) -> None:
        if row_error is None:
            sums.item, sums.item_rel = (
                0,
                0.0 if sums.max_abs == 0 else sums.max_abs / sums.range if sums.range else math.inf,
            )
            return
        relative = _divided(self._layout.by_item(row_error), self._item_range)
        sums.item, sums.item_rel = int(relative.argmax()), float(relative.max())

    def _add_rows(self, sums: Sums, a: Array, spec: Spec) -> None:
        layout = self._layout
        if layout.classes <= 1 or not (self.probabilities or spec.rows or len(layout.shape) <= 3):
            return
        for start, stop in self._windows:
            if (stop - start) % layout.class_span == 0:
                add_rows(sums, a[start:stop], self._numbers[start:stop], layout, kl=self.probabilities)

    # --- what depends on golden alone

    @cached_property
    def _squared(self) -> float:
        total = 0.0
        for start, stop in self._blocks:
            for low in range(start, stop, DOUBLE):
                g64 = self._numbers[low : min(low + DOUBLE, stop)].astype(np.float64, copy=False)
                total += float(g64 @ g64)
        return total

    @cached_property
    def _item_range(self) -> Array:
        ranges = np.zeros(self._layout.rows)
        for start, stop in self._blocks:
            self._layout.row_maxima(start, np.abs(self._numbers[start:stop]), into=ranges)
        return self._layout.by_item(ranges)

    def _bound(self, spec: Spec) -> Array:
        """What |e| of each element may be: atol + rtol |golden|, or the larger of both."""
        key = (spec.atol, spec.rtol, spec.either)
        if key not in self._bounds:
            kind = self._numbers.dtype.type
            relative, atol = np.abs(self._numbers) * kind(spec.rtol), kind(spec.atol)
            self._bounds[key] = np.maximum(relative, atol) if spec.either else relative + atol
        return self._bounds[key]

    def _floor_is_subnormal(self, spec: Spec) -> bool:
        """Then ``measure`` counts mismatches in float64."""
        single = self._numbers.dtype == np.float32
        return single and spec.rel_floor * self._range < float(np.finfo(np.float32).tiny)


@cache
def _arithmetic(actual: np.dtype[Any], golden: np.dtype[Any]) -> tuple[Exact, bool]:
    """Of a pair of types, and whether golden's is a float."""
    name = dtype_name(golden)
    return work_type(dtype_name(actual), name), kind_of(name) == "float"


def _plain(golden: Array, actual: np.dtype[Any]) -> Plain | None:
    exact, is_float = _arithmetic(actual, golden.dtype)
    if exact in (Exact.COMPLEX, Exact.TEXT) or not golden.size:
        return None
    golden = np.asarray(golden, order="C")  # and not ascontiguousarray, which gives a scalar an axis
    numbers = as_numbers(golden.reshape(-1), exact)
    range_ = max(abs(float(numbers.min())), abs(float(numbers.max())))
    if not math.isfinite(range_):
        return None
    if is_float and range_ >= LEAST:
        histogram = LogHistogram()
        for start in range(0, numbers.size, BLOCK):
            histogram.add(np.abs(numbers[start : start + BLOCK]))
        if find_sentinels(histogram, range_)[0].any_finite:
            return None
    return Plain(golden, numbers, exact, range_)


def _add_doubles(sums: Sums, a: Array, g: Array, parts: Parts) -> None:
    for low in range(0, a.size, DOUBLE):
        a64 = a[low : low + DOUBLE].astype(np.float64, copy=False)
        g64 = g[low : low + DOUBLE].astype(np.float64, copy=False)
        e64 = a64 - g64
        if "absolute" in parts:
            sums.abs_error += float(np.abs(e64).sum())
        if "power" in parts:
            sums.squared_error += float(e64 @ e64)
        if "products" in parts:
            sums.actual_squared += float(a64 @ a64)
            sums.dot += float(a64 @ g64)
