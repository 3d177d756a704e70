"""Plain sums are those of ``measure``, bit for bit; and where they are not all there is to say, they say so."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from probe.metrics import measure as measure_module
from probe.metrics import plain as module
from probe.metrics.acceptance import _NAMES
from probe.metrics.measure import BLOCK, InMemory, Spec, measure
from probe.metrics.plain import Reference, parts_of, plain_sums
from probe.metrics.sums import Sums

Array = np.ndarray[Any, Any]

EVERY = frozenset(("items", "absolute", "power", "products", "mismatched", "rows"))
FIELDS = """count compared range max_abs item item_rel abs_error squared_error golden_squared actual_squared dot mismatched
    rows top1 rows5 top5 kl_rows kl kl_max nonfinite_mismatch nan_actual inf_actual sentinels sentinel_mismatch
    sentinel_error""".split()
FAST = [name for name in _NAMES if parts_of([name]) is not None]


def plain_of(actual: Array, golden: Array, spec: Spec, parts: Any = EVERY) -> Sums | None:
    plain = Reference(golden).plain(actual.dtype)
    return plain and plain.sums(actual, parts, spec)


def differing(actual: Array, golden: Array, spec: Spec) -> list[tuple[str, Any, Any]]:
    quick = plain_of(actual, golden, spec)
    assert quick is not None
    full = measure(InMemory(actual), InMemory(golden), spec)
    return [
        (name, getattr(quick, name), getattr(full, name))
        for name in FIELDS
        if getattr(quick, name) != getattr(full, name)
    ]


SHAPES = [(), (7,), (1, 5), (3, 5), (1, 2, 3), (4, 2, 7), (1, 3, 4, 4), (2, 3, 4, 4), (3, 2, 1, 1, 6)]
TYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int8, np.uint8, np.int32, np.bool_]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=lambda d: np.dtype(d).name)
def test_every_sum_is_that_of_measure(shape: tuple[int, ...], dtype: Any) -> None:
    rng = np.random.default_rng(len(shape))
    golden = np.asarray(1 + 3 * rng.random(shape)).astype(dtype)
    actual = np.asarray(golden.astype(np.float64) + 0.3 * rng.standard_normal(shape)).astype(dtype)
    for spec in (Spec(atol=0.01, rtol=0.1, rows=True), Spec(atol=0.01, rtol=0.1, either=True)):
        assert not differing(actual, golden, spec)


numbers = st.floats(-9e3, 9e3, width=32) | st.sampled_from([0.0, -0.0, 1e-45, 1.0])
shapes = hnp.array_shapes(min_dims=0, max_dims=4, max_side=5)


@given(shapes.flatmap(lambda shape: st.tuples(*[hnp.arrays(np.float32, shape, elements=numbers)] * 2)), st.booleans())
def test_every_sum_is_that_of_measure_whatever_the_numbers(pair: tuple[Array, Array], rows: bool) -> None:
    spec = Spec(atol=1e-5, rtol=1e-3, rows=rows)
    quick = plain_of(*pair, spec)
    if quick is None:  # mismatches against a subnormal floor are counted in float64
        assert np.abs(pair[1]).max() * spec.rel_floor < np.finfo(np.float32).tiny
        quick = plain_of(*pair, spec, EVERY - {"mismatched"})
        assert quick is not None
        return
    assert not differing(*pair, spec)


@pytest.mark.parametrize("shape", [(3, 60001), (2, 3, 211, 211), (1, 300001), (5, 40001)], ids=str)
def test_blocks_and_windows_are_cut_as_measure_cuts_them(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    golden = rng.random(shape).astype(np.float32)
    golden /= golden.sum(axis=-1, keepdims=True)  # probabilities
    actual = golden + np.float32(1e-7) * rng.standard_normal(shape).astype(np.float32)
    assert not differing(actual, golden, Spec(rows=True))
    for one in (module, measure_module):
        monkeypatch.setattr(one, "WINDOW", 1 << 18)
    assert not differing(actual, golden, Spec(rows=True))


@pytest.mark.parametrize("place", [0, BLOCK - 1, BLOCK, 3 * BLOCK])
def test_every_block_is_looked_at(place: int) -> None:
    golden = np.ones(3 * BLOCK + 1, np.float32)
    actual = golden.copy()
    actual[place] = 1.5
    sums = plain_sums(actual, golden, frozenset(("power",)))
    assert sums is not None
    assert sums.max_abs == 0.5 and sums.squared_error == 0.25 and sums.golden_squared == golden.size


special = numbers | st.sampled_from([math.nan, math.inf, -math.inf, 3e38])


@given(
    shapes.flatmap(
        lambda shape: st.tuples(
            hnp.arrays(np.float32, shape, elements=special), hnp.arrays(np.float32, shape, elements=numbers)
        )
    ),
    st.booleans(),
)
def test_nan_and_inf_that_golden_lacks_are_counted_and_left_out(pair: tuple[Array, Array], rows: bool) -> None:
    spec = Spec(atol=1e-5, rtol=1e-3, rows=rows)
    if plain_of(*pair, spec) is not None:
        assert not differing(*pair, spec)


def test_of_large_tensors_too() -> None:
    rng = np.random.default_rng(0)
    golden = rng.standard_normal((2, 3, 128, BLOCK // 128)).astype(np.float32)
    actual = golden + np.float32(0.01) * rng.standard_normal(golden.shape).astype(np.float32)
    actual[0, 0, 5, 5], actual[1, 2, 0, 0] = math.nan, math.inf
    found = differing(actual, golden, Spec(rows=True))
    assert all(quick == pytest.approx(full, rel=1e-6) for _, quick, full in found)
    assert {name for name, *_ in found} <= {"max_abs", "item_rel", "mismatched"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2e4, -3.4e38])
def test_golden_with_nan_inf_or_masks_is_left_to_measure(value: float) -> None:
    golden, actual = np.ones(4, np.float32), np.ones(4, np.float32)
    golden[2] = value
    assert plain_sums(actual, golden) is None
    sums = plain_sums(golden, actual)
    assert sums is not None and sums.nonfinite_mismatch == (not math.isfinite(value))


def test_large_numbers_without_a_gap_are_no_masks() -> None:
    golden = np.geomspace(1, 1e6, 64, dtype=np.float32).reshape(4, 16)
    assert not differing(golden * np.float32(1.01), golden, Spec(rows=True))


def test_a_difference_beyond_the_type_is_left_to_measure() -> None:
    golden = np.geomspace(1, 3e38, 4000, dtype=np.float32)
    assert plain_sums(-golden, golden) is None
    assert plain_sums(golden, golden) is not None


def test_64_bit_integers_are_plain_where_they_are_equal() -> None:
    golden = np.array([[2**53 + 1, 3, -7]])
    assert not differing(golden.copy(), golden, Spec())
    assert plain_sums(golden + 1, golden) is None, "float64 cannot tell them apart"


@pytest.mark.parametrize("golden", [np.zeros((0, 3), np.float32), np.array(["a"]), np.ones(2, np.complex64)])
def test_what_has_no_plain_sums(golden: Array) -> None:
    assert plain_sums(golden, golden) is None


@pytest.mark.parametrize("name", FAST)
def test_a_metric_of_the_parts_it_asks_for_is_that_of_all_sums(name: str) -> None:
    rng = np.random.default_rng(3)
    golden = rng.random((4, 9)).astype(np.float32)
    golden /= golden.sum(axis=1, keepdims=True)
    actual = np.abs(golden + np.float32(0.02) * rng.standard_normal((4, 9)).astype(np.float32))
    spec = Spec(atol=0.01)
    quick = plain_of(actual, golden, spec, parts_of([name]))
    assert quick is not None
    value = _NAMES[name](quick)
    assert value == _NAMES[name](measure(InMemory(actual), InMemory(golden), spec))
    assert value not in (None, 0.0)


def test_metrics_of_histograms_need_measure() -> None:
    assert {name for name in _NAMES if name not in FAST} == set(
        "max_rel mean_rel ulp_max ulp_p99 ulp_over_1 p50 p90 p99 p999 channel_worst".split()
    )
    assert parts_of(["range_rel", "p99"]) is None
    assert parts_of(["max_steps", "cosine"]) == {"power", "products"}
