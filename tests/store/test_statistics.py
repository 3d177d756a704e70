"""Range statistics against plain float64 numpy, over every type and the numbers that break sums."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.precision import ML_DTYPES, NUMPY_NATIVE
from probe.store import statistics
from probe.store.statistics import range_statistics
from tests.store.arrays import Array, numeric

REAL = sorted(name for name in NUMPY_NATIVE | ML_DTYPES if not name.startswith("complex"))


def reference(array: Array) -> dict[str, Any]:
    """The same numbers the slow way. Integers are exact Python integers, so that float64 rounds them once."""
    native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    if native.dtype.kind in "iu":
        values = [int(x) for x in native.reshape(-1)]
    else:
        with np.errstate(invalid="ignore"):
            values = [float(x) for x in native.astype(np.float64).reshape(-1)]
    finite = [x for x in values if not isinstance(x, float) or math.isfinite(x)]
    nonzero = [abs(x) for x in finite if x]
    return {
        "min": float(min(finite)) if finite else None,
        "max": float(max(finite)) if finite else None,
        "absmax_finite": float(max(abs(x) for x in finite)) if finite else None,
        "min_abs_nonzero": float(min(nonzero)) if nonzero else None,
        "mean": float(sum(map(Fraction, finite)) / len(finite)) if finite else None,
        "magnitude": float(sum(abs(Fraction(x)) for x in finite) / len(finite)) if finite else 0.0,
        "nan": sum(1 for x in values if isinstance(x, float) and math.isnan(x)),
        "inf": sum(1 for x in values if isinstance(x, float) and math.isinf(x)),
    }


def check(array: Array) -> None:
    found, expected = dict(range_statistics(array)), reference(array)
    mean, magnitude = expected.pop("mean"), expected.pop("magnitude")
    found_mean = found.pop("mean")
    assert found == expected
    assert (found_mean is None) == (mean is None)
    if mean is not None:
        assert found_mean == pytest.approx(mean, abs=max(2e-6 * magnitude, 1e-45))


@settings(max_examples=300)
@given(numeric(names=REAL))
def test_any_bits_of_any_type(array: Array) -> None:
    check(array)


@given(st.lists(st.floats(width=64), max_size=20))
def test_any_doubles(values: list[float]) -> None:
    check(np.array(values, np.float64))


F32 = np.finfo(np.float32)
F64 = np.finfo(np.float64)


@pytest.mark.parametrize(
    "array",
    [
        np.array([], np.float32),
        np.array(3.0, np.float32),
        np.array([0.0, -0.0], np.float32),
        np.array([np.nan, np.nan], np.float32),
        np.array([np.inf, -np.inf, np.nan], np.float64),
        np.array([np.inf, 1, -np.inf], np.float16),
        np.array([F32.smallest_subnormal, -F32.smallest_subnormal * 3, 0], np.float32),
        np.array([F64.smallest_subnormal, 1], np.float64),
        np.array([F32.max, F32.max, -F32.max], np.float32),
        np.array([F64.max] * 3),
        np.array([F64.max, -F64.max, F64.max, np.nan, np.inf]),
        np.array([-F64.max] * 2 + [1.0]),
        np.array([6e-8, 65504], np.float16),
        np.array([np.iinfo(np.int64).min, np.iinfo(np.int64).max, 0, 1]),
        np.array([np.iinfo(np.int32).min, 0, 7], np.int32),
        np.array([-128, 127, 0], np.int8),
        np.array([np.iinfo(np.uint64).max, 0], np.uint64),
        np.array([(1 << 53) + 1, 3], np.int64),
        np.array([True, False, True]),
        np.array([False]),
        np.array([1.0, -2, 0], ml_dtypes.bfloat16),
        np.array([0.0625, -448], ml_dtypes.float8_e4m3fn),
        np.array([-8, 7, 0], ml_dtypes.int4),
        np.array([1.0, 2, 3, -0.5, 0], ">f4"),
        np.array([1e300, 2, 3, -1e-300], ">f8"),
        np.array([256, 1, -65536], ">i4"),
    ],
    ids=lambda a: f"{a.dtype}{a.reshape(-1)[:3].tolist()}",
)
def test_corners(array: Array) -> None:
    check(array)
    check(array[None].repeat(2, 0).T)  # not contiguous


@pytest.mark.parametrize("block", [1, 2, 7, 64])
def test_blocks_change_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "BLOCK", block)
    rng = np.random.default_rng(0)
    array = rng.standard_normal((5, 13)).astype(np.float32)
    array[1, 3:9] = np.nan
    array[2] = np.inf
    array[4, 12] = -1e30
    check(array)
    check(np.full(9, F64.max))
    check(np.full(9, np.nan))


def test_a_mean_of_many_float32_is_good_to_one_in_a_million() -> None:
    array = (1000 + np.random.default_rng(0).standard_normal(3_000_000)).astype(np.float32)
    exact = math.fsum(array.tolist()) / array.size
    found = range_statistics(array)["mean"]
    assert found is not None and abs(found / exact - 1) < 1e-6


@pytest.mark.parametrize(
    "array",
    [np.array(["a"]), np.array([b"a"]), np.array(["a", None], object), np.array([1j, np.nan], np.complex64)],
    ids=lambda a: str(a.dtype),
)
def test_text_and_complex_numbers_have_no_range(array: Array) -> None:
    assert set(range_statistics(array).values()) == {None, 0}


def test_the_tensor_is_not_touched() -> None:
    array = np.array([1, -2, 0, np.nan], np.float32)
    before = array.tobytes()
    array.flags.writeable = False
    range_statistics(array)
    assert array.tobytes() == before
