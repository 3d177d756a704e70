"""Sums against naive float64 references, over types, shapes, block boundaries, NaN, Inf, masks."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from probe.metrics import measure as module
from probe.metrics.formulas import METRICS, metrics_of, worst_elements
from probe.metrics.measure import InMemory, Spec, measure
from probe.metrics.sums import Sums
from tests.metrics.reference import order_statistic, reference, ulps

Array = np.ndarray[Any, Any]

FLOATS = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn]
SHAPES = [(), (1,), (7,), (3, 5), (2, 3, 5), (2, 3, 4, 5), (1, 4, 1, 1), (4, 2, 3, 2, 2), (0,), (3, 0, 2)]


def sums_of(actual: Any, golden: Any, **spec: Any) -> Sums:
    return measure(InMemory(np.asarray(actual)), InMemory(np.asarray(golden)), Spec(**spec))


def pair(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    golden = rng.standard_normal(shape)
    return (golden + 0.01 * rng.standard_normal(shape)).astype(dtype), golden.astype(dtype)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: np.dtype(d).name)
def test_sums_match_the_reference_for_every_float_type_and_shape(shape: tuple[int, ...], dtype: Any) -> None:
    actual, golden = pair(shape, dtype)
    found = metrics_of(sums_of(actual, golden))
    expected = reference(actual, golden)
    assert found.count == golden.size == found.compared
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=2e-6, abs=1e-30), name


@pytest.mark.parametrize("shape", [(5, 7, 3, 3), (11, 13), (4, 6, 5), (997,)], ids=str)
@pytest.mark.parametrize(("block", "window"), [(16, 64), (30, 100), (1 << 17, 1 << 22)])
def test_cutting_into_blocks_changes_nothing(
    shape: tuple[int, ...], block: int, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    actual, golden = pair(shape, np.float32)
    golden.flat[golden.size // 2] = np.nan
    actual.flat[golden.size // 2] = np.nan
    whole = metrics_of(sums_of(actual, golden, rows=True))
    monkeypatch.setattr(module, "BLOCK", block)
    monkeypatch.setattr(module, "WINDOW", window)
    monkeypatch.setattr(module, "DOUBLE", 8)
    cut = metrics_of(sums_of(actual, golden, rows=True))
    for name in whole.__dataclass_fields__:
        one, other = getattr(whole, name), getattr(cut, name)
        if name in ("top1", "top5") and other is None:
            continue  # a class span longer than a window is not looked at
        assert other == pytest.approx(one, rel=1e-6, nan_ok=True) if isinstance(one, float) else other == one, name


finite = st.floats(-9e3, 9e3, width=32)  # below 1e4 no cluster is a sentinel
arrays = hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=4, max_side=5), elements=finite)


@given(arrays, st.randoms(use_true_random=False))
def test_metrics_match_the_reference(golden: Array, random: Any) -> None:
    scale = 10.0 ** random.randint(-8, 2)
    noise = np.array([random.uniform(-1, 1) for _ in range(golden.size)]).reshape(golden.shape)
    actual = (golden + scale * noise).astype(np.float32)
    found = metrics_of(sums_of(actual, golden))
    for name, value in reference(actual, golden).items():
        assert getattr(found, name) == pytest.approx(value, rel=2e-6, abs=1e-37), name


@given(arrays, arrays)
def test_cosine_and_decibels_match_scipy_and_the_definition(one: Array, other: Array) -> None:
    count = min(one.size, other.size)
    actual, golden = one.ravel()[:count], other.ravel()[:count]
    found = metrics_of(sums_of(actual, golden))
    a, g = actual.astype(np.float64), golden.astype(np.float64)
    if a.any() and g.any():
        assert found.cosine == pytest.approx(float(a @ g / math.sqrt(a @ a) / math.sqrt(g @ g)), abs=1e-12)
    else:
        assert found.cosine == (1.0 if not a.any() and not g.any() else 0.0)
    noise = float(((a - g) ** 2).sum())
    if noise and g.any():
        assert found.sqnr_db == pytest.approx(10 * math.log10(float((g**2).sum()) / noise), abs=1e-4)
        assert found.psnr_db == pytest.approx(10 * math.log10(float(np.abs(g).max()) ** 2 / (noise / count)), abs=1e-4)
    elif not noise:
        assert found.sqnr_db == math.inf
    else:
        assert found.sqnr_db == -math.inf


@given(hnp.arrays(np.float32, st.integers(1, 300), elements=finite), st.sampled_from([0.5, 0.9, 0.99, 0.999]))
def test_quantiles_are_never_too_small_and_within_one_bin(error: Array, q: float) -> None:
    exact = order_statistic(error, np.zeros_like(error), q)
    found = sums_of(error, np.zeros_like(error))
    value = {0.5: "p50", 0.9: "p90", 0.99: "p99", 0.999: "p999"}[q]
    got = getattr(metrics_of(found), value)
    if exact < 2.0**-133:  # the zero bin
        assert got <= 2.0**-133
    else:
        assert exact <= got * (1 + 1e-6)
        assert got <= exact * (1 + 1 / 128 + 1e-6) or exact < 2.0**-126  # subnormals have fewer bins


special = st.one_of(finite, st.sampled_from([math.nan, math.inf, -math.inf]))


@given(hnp.arrays(np.float32, (4, 6), elements=special), hnp.arrays(np.float32, (4, 6), elements=special))
def test_nonfinite_elements_are_counted_by_kind_and_sign(actual: Array, golden: Array) -> None:
    s = sums_of(actual, golden)
    assert s.nan_actual == np.isnan(actual).sum()
    assert s.inf_actual == np.isinf(actual).sum()
    assert s.nan_golden == np.isnan(golden).sum()
    assert s.inf_golden == np.isinf(golden).sum()
    differs = ~((np.isnan(actual) & np.isnan(golden)) | (actual == golden)) & ~(
        np.isfinite(actual) & np.isfinite(golden)
    )
    largest = np.abs(golden[np.isfinite(golden)]).max(initial=0)
    clipped_mask = np.isneginf(golden) & np.isfinite(actual) & (actual <= -max(largest * math.sqrt(1e3), 1e4))
    assert s.nonfinite_mismatch == (differs & ~clipped_mask).sum()
    keep = np.isfinite(actual) & np.isfinite(golden)
    assert s.compared == keep.sum()
    if keep.any():
        assert s.max_abs == pytest.approx(float(np.abs(actual[keep].astype(np.float64) - golden[keep]).max()), rel=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=lambda d: np.dtype(d).name)
@settings(max_examples=50)
@given(data=st.data())
def test_ulp_distance_counts_representable_numbers(dtype: Any, data: st.DataObject) -> None:
    bits = hnp.arrays(np.uint16, 40)
    one, other = data.draw(bits).view(dtype), data.draw(bits).view(dtype)
    with np.errstate(invalid="ignore"):
        keep = np.isfinite(one.astype(np.float64)) & np.isfinite(other.astype(np.float64))
    actual, golden = one[keep].astype(np.float32), other[keep].astype(np.float32)
    limit = 9.9e3  # masks aside
    small = (np.abs(actual) < limit) & (np.abs(golden) < limit)
    actual, golden = actual[small], golden[small]
    if not actual.size:
        return
    expected = ulps(actual, golden, dtype)
    s = sums_of(actual, golden, storage=np.dtype(dtype).name)
    assert s.ulp_max == expected.max()
    m = metrics_of(s)
    assert m.ulp_over_1 == (expected > 1).sum()
    exact = np.sort(expected)[max(1, math.ceil(0.99 * expected.size)) - 1]
    assert m.ulp_p99 == pytest.approx(exact, rel=1 / 128)


@pytest.mark.parametrize(
    ("actual", "golden", "distance"),
    [
        (1.0, np.nextafter(np.float32(1), np.float32(2)), 1),
        (0.0, -0.0, 0),
        (np.float32(1e-45), -np.float32(1e-45), 2),
        (np.float32(3.4028235e38), -np.float32(3.4028235e38), 2 * 0x7F7FFFFF),
    ],
)
def test_float32_ulps(actual: Any, golden: Any, distance: int) -> None:
    s = measure(InMemory(np.float32([actual])), InMemory(np.float32([golden])))
    if abs(golden) < 1e30:
        assert s.ulp_max == distance


def test_ulps_of_the_rounded_golden_are_zero() -> None:
    golden = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    for storage in ("float16", "bfloat16"):
        dtype = np.float16 if storage == "float16" else ml_dtypes.bfloat16
        s = sums_of(golden.astype(dtype).astype(np.float32), golden, storage=storage)
        assert s.ulp_max == 0
        assert s.max_abs > 0


INTEGERS = [np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64]


@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda d: np.dtype(d).name)
def test_integer_differences_never_wrap(dtype: Any) -> None:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    s = sums_of(np.array([low, high, high], dtype), np.array([high, low, high], dtype))
    assert s.max_abs == pytest.approx(float(high) - float(low))
    assert s.errors.counts[0] == 1
    near = sums_of(np.array([high], dtype), np.array([high - 1], dtype))
    assert near.max_abs == 1  # float64 alone would say 0 for 64-bit integers


@given(
    hnp.arrays(st.sampled_from([np.int64, np.uint64, np.int32, np.uint8]), 5),
    hnp.arrays(st.sampled_from([np.int64, np.uint64, np.int16]), 5),
)
def test_integer_distances_are_exact(actual: Array, golden: Array) -> None:
    exact = [abs(int(a) - int(g)) for a, g in zip(actual, golden, strict=True)]
    s = sums_of(actual, golden)
    assert s.max_abs == pytest.approx(float(max(exact)), rel=1e-15)
    assert (s.max_abs == 0) == (max(exact) == 0)


def test_bools_count_differences_and_text_is_equal_or_not() -> None:
    s = metrics_of(sums_of([True, False, True], [True, True, True]))
    assert (s.max_abs, s.mean_abs, s.mismatched) == (1.0, pytest.approx(1 / 3), 1)
    words = np.array(["a", "b"], dtype=object)
    assert metrics_of(sums_of(words, words)).range_rel == 0
    assert metrics_of(sums_of(words, words[::-1])).range_rel == math.inf


def test_complex_numbers_count_as_two() -> None:
    golden = np.array([1 + 2j, 3 - 4j], np.complex64)
    s = sums_of(golden + np.complex64(0.5j), golden)
    assert (s.max_abs, s.count) == (0.5, 4)
    assert worst_elements(s)[0].index in {(0,), (1,)}


def test_one_zero_in_the_reference_does_not_rule_the_relative_error() -> None:
    golden = np.linspace(0, 1, 1001, dtype=np.float32)
    actual = golden + np.float32(1e-6)
    assert metrics_of(sums_of(actual, golden)).max_rel < 2e-3


def test_psnr_does_not_depend_on_the_sign() -> None:
    up = metrics_of(sums_of(np.float32([101]), np.float32([100])))
    down = metrics_of(sums_of(np.float32([-101]), np.float32([-100])))
    assert up.psnr_db == down.psnr_db == pytest.approx(40.0)


def test_cosine_of_tiny_opposite_vectors_is_minus_one() -> None:
    tiny = np.full(8, 1e-30, np.float32)
    assert metrics_of(sums_of(-tiny, tiny)).cosine == pytest.approx(-1)


@given(arrays)
def test_identical_tensors_have_a_cosine_of_exactly_one(golden: Array) -> None:
    assert metrics_of(sums_of(golden, golden)).cosine == 1.0


def test_golden_all_zero() -> None:
    zero = np.zeros(4, np.float32)
    assert metrics_of(sums_of(zero, zero)).range_rel == 0
    assert metrics_of(sums_of(zero + 1, zero)).range_rel == math.inf


def test_empty_tensors_have_no_nan_metrics_that_could_pass() -> None:
    m = metrics_of(sums_of(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)))
    assert (m.count, m.range_rel, m.cosine, m.mean_abs) == (0, 0.0, 1.0, 0.0)


class TestMasks:
    """One -3.4e38 must not make garbage elsewhere pass."""

    LOWEST = float(np.finfo(np.float32).min)

    def masked(self, fill: float, seed: int = 0) -> Array:
        golden = np.random.default_rng(seed).uniform(-5, 5, (4, 16)).astype(np.float32)
        golden[1, 8:] = fill
        return golden

    @pytest.mark.parametrize("fill", [LOWEST, -1e9, -65504.0, -math.inf])
    def test_garbage_beside_a_mask_is_seen(self, fill: float) -> None:
        golden = self.masked(fill)
        actual = np.where(golden > -1e4, golden + 5, golden)
        m = metrics_of(sums_of(actual, golden))
        assert m.range_rel == pytest.approx(1.0, rel=0.1)
        assert (m.sentinels, m.sentinel_mismatch, m.nonfinite_mismatch) == (8, 0, 0)
        assert m.range <= 5

    def test_a_mask_clipped_by_fp16_is_still_a_mask(self) -> None:
        golden = self.masked(self.LOWEST)
        m = metrics_of(sums_of(np.maximum(golden, -65504), golden))
        assert (m.sentinel_mismatch, m.range_rel) == (0, 0.0)

    def test_a_mask_that_became_data_is_a_mismatch(self) -> None:
        golden = self.masked(self.LOWEST)
        m = metrics_of(sums_of(np.maximum(golden, -5), golden))
        assert m.sentinel_mismatch == 8

    def test_inf_for_a_finite_mask_is_an_inf_golden_lacks(self) -> None:
        golden = self.masked(self.LOWEST)
        m = metrics_of(sums_of(np.where(golden < -1e4, -np.inf, golden), golden))
        assert m.nonfinite_mismatch == 8

    def test_a_large_true_activation_is_compared_by_its_own_size(self) -> None:
        golden = self.masked(20000.0)
        actual = np.where(golden > 1e4, golden * np.float32(0.7), golden)
        assert metrics_of(sums_of(actual, golden)).range_rel == pytest.approx(0.3, rel=1e-3)

    def test_zeros_below_large_values_are_data(self) -> None:
        m = metrics_of(sums_of(np.float32([0, 0, 15000]), np.float32([0, 0, 20000])))
        assert (m.sentinels, m.range_rel) == (0, 0.25)

    def test_an_additive_mask_of_zeros_and_lowest(self) -> None:
        golden = np.float32([0, 0, self.LOWEST])
        assert metrics_of(sums_of(golden, golden)).range_rel == 0
        assert metrics_of(sums_of(np.float32([5, 0, self.LOWEST]), golden)).range_rel == math.inf

    def test_a_smooth_wide_range_has_no_sentinels(self) -> None:
        golden = np.logspace(-6, 9, 400, dtype=np.float32)
        assert metrics_of(sums_of(golden * np.float32(1.01), golden)).sentinels == 0


def test_a_loud_item_does_not_hide_a_quiet_one() -> None:
    golden = np.ones((3, 2, 4, 4), np.float32)
    golden[0] *= 1000
    actual = golden.copy()
    actual[2, 1, 0, 0] += 0.5
    m = metrics_of(sums_of(actual, golden))
    assert (m.range_rel, m.range_rel_item, m.item) == (pytest.approx(5e-4), pytest.approx(0.5), 2)


@pytest.mark.parametrize("shape", [(2, 5, 3, 3), (4, 5), (2, 3, 5)], ids=str)
def test_the_worst_channel_is_named(shape: tuple[int, ...]) -> None:
    axis = 1 if len(shape) >= 4 else len(shape) - 1
    golden = np.random.default_rng(1).uniform(0.5, 1, shape).astype(np.float32)
    actual = golden.copy()
    place = [0] * len(shape)
    place[axis] = 3
    golden[tuple(slice(None) if i != axis else 3 for i in range(len(shape)))] *= 0.01
    actual = golden.copy()
    actual[tuple(place)] += 0.01
    m = metrics_of(sums_of(actual, golden))
    assert (m.channel, m.channel_axis) == (3, axis)
    assert m.channel_worst is not None and m.channel_worst > 0.9 > m.range_rel


@given(hnp.arrays(np.float32, (3, 4, 5), elements=finite), st.integers(0, 6))
def test_worst_elements_are_the_worst(golden: Array, kept: int) -> None:
    actual = np.random.default_rng(0).permutation(golden.ravel()).reshape(golden.shape)
    error = np.abs(actual.astype(np.float64) - golden)
    found = worst_elements(sums_of(actual, golden, worst=kept))
    expected = np.sort(error[error > 0])[::-1][:kept]
    assert [w.error for w in found] == pytest.approx(expected.tolist(), rel=1e-6)
    for w in found:
        assert (w.actual, w.golden) == (actual[w.index], golden[w.index])


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("shape", [(6, 10), (2, 3, 10), (2, 4, 5, 5)], ids=str)
def test_kl_matches_scipy(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    golden, actual = softmax(rng.standard_normal(shape)), softmax(rng.standard_normal(shape))
    m = metrics_of(sums_of(actual, golden))
    expected = [
        stats.entropy(g.astype(np.float64), a.astype(np.float64))
        for g, a in zip(golden.reshape(-1, shape[-1]), actual.reshape(-1, shape[-1]), strict=True)
    ]
    assert m.kl == pytest.approx(np.mean(expected), rel=1e-4)
    assert m.kl_max == pytest.approx(np.max(expected), rel=1e-4)


def test_kl_is_for_probabilities_only() -> None:
    actual, golden = pair((4, 10), np.float32)
    assert metrics_of(sums_of(actual, golden)).kl is None


def test_top_k_agreement() -> None:
    golden = np.eye(8, dtype=np.float32)[[0, 1, 2, 3]] + 0.1
    actual = golden.copy()
    actual[0, 5] = 2  # golden's choice is second here
    actual[1, :] = np.arange(8)[::-1]
    actual[1, 1] = -1  # ... and last here
    actual[2, :] = np.nan
    m = metrics_of(sums_of(actual, golden))
    assert (m.top1, m.top5) == (0.25, 0.5)
    tied = np.float32([[1, 1, 0]])
    assert metrics_of(sums_of(np.float32([[0, 1, 0]]), tied)).top1 == 1  # both of golden's best are right


def test_top1_of_a_segmentation_map_looks_along_the_channels() -> None:
    golden = np.random.default_rng(3).standard_normal((2, 5, 4, 4)).astype(np.float32)
    actual = golden.copy()
    actual[0, :, 0, 0] = golden[0, :, 0, 0][::-1] - 10 * (np.arange(5) == 2)
    disagree = (actual.argmax(1) != golden.argmax(1)).sum()
    assert metrics_of(sums_of(actual, golden, rows=True)).top1 == pytest.approx(1 - disagree / 32)
    assert metrics_of(sums_of(actual, golden)).top1 is None


@given(arrays)
def test_smallest_tolerances_just_pass(golden: Array) -> None:
    actual = (golden * np.float32(1.25) + np.float32(0.5)).astype(np.float32)
    m = metrics_of(sums_of(actual, golden, tolerances=True), tolerances=True)
    a, g = actual.astype(np.float64), golden.astype(np.float64)
    assert m.smallest_atol is not None and m.smallest_rtol is not None and m.smallest_both is not None
    slack = 1 + 1e-5
    assert np.allclose(a, g, rtol=0, atol=m.smallest_atol * slack + 1e-30)
    assert np.allclose(a, g, rtol=m.smallest_both * slack, atol=m.smallest_both * slack)
    if math.isfinite(m.smallest_rtol):
        assert np.allclose(a, g, rtol=m.smallest_rtol * slack, atol=0)


@given(st.lists(hnp.arrays(np.float32, (2, 3), elements=special), min_size=2, max_size=4))
def test_merging_equals_measuring_together(goldens: list[Array]) -> None:
    actuals = [g + np.float32(0.25) for g in goldens]
    parts = [sums_of(a, g) for a, g in zip(actuals, goldens, strict=True)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merge(part)
    together = sums_of(np.concatenate(actuals), np.concatenate(goldens))
    if any(p.sentinels for p in (*parts, together)):
        return  # what is a mask is decided tensor by tensor
    for name in ("count", "compared", "nan_actual", "inf_golden", "nonfinite_mismatch", "range"):
        assert getattr(merged, name) == getattr(together, name), name
    for name in ("max_abs", "squared_error", "golden_squared", "dot", "abs_error"):
        assert getattr(merged, name) == pytest.approx(getattr(together, name), rel=1e-6, abs=1e-12), name
    assert merged.errors.total == together.errors.total
    assert [w.error for w in merged.worst] == pytest.approx([w.error for w in together.worst], rel=1e-6)


def test_merging_commutes() -> None:
    one, other = sums_of(*pair((2, 3, 4, 4), np.float32, 1)), sums_of(*pair((2, 3, 4, 4), np.float32, 2))
    left, right = metrics_of(one.merge(other)), metrics_of(other.merge(one))
    assert left == right


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        sums_of(np.zeros(3), np.zeros(4))


def test_every_formula_says_what_it_is() -> None:
    for metric in METRICS:
        assert metric.value.__doc__, f"{metric.name} has no docstring"


def test_mixed_float_types_compare_in_the_wider_one() -> None:
    golden = np.float64([1.0 + 1e-12])
    assert sums_of(np.float32([1.0]), golden).max_abs == pytest.approx(1e-12, rel=1e-3)


def test_a_difference_beyond_float32_is_not_taken_for_infinity() -> None:
    s = sums_of(np.float32([3e38, 1]), np.float32([-3e38, 2e38]))
    assert s.nonfinite_mismatch == 0
    assert s.max_abs == pytest.approx(6e38, rel=1e-6)
