"""Details of a pair against plain numpy over whole arrays: histograms, errors by magnitude, channels, limits, thumbnails."""

from __future__ import annotations

import base64
import io
import math
import struct
import zlib
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from probe.metrics.detail import MOST_BINS, PROFILE, channel_errors, detail_of
from probe.metrics.measure import InMemory, Spec, measure
from probe.metrics.thumbnails import MOST_SIDE, images_of, picture_in, png
from probe.results.detail import Detail, Histogram, Images
from tests.metrics.reference import compared

Array = np.ndarray[Any, Any]
FLOATS = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int8, np.int64]


def detail(actual: Any, golden: Any, precision: str | None = None) -> Detail:
    a, g = np.asarray(actual), np.asarray(golden)
    sums = measure(InMemory(a), InMemory(g), Spec())
    return detail_of(a.ravel(), g.ravel(), sums, count=g.size, precision=precision)


def edges(found: Detail) -> Array:
    return 2.0 ** (found.lowest + found.octaves * np.arange(len(found.error_max) + 1))


def counted(side: Array, found: Detail) -> Histogram:
    """The histogram of one side, by numpy."""
    x = side.astype(np.float64).ravel()
    finite = x[np.isfinite(x)]
    bins = edges(found)
    signs = [
        np.histogram(np.abs(part), bins)[0] if bins.size > 1 else np.zeros(0)
        for part in (finite[finite > 0], finite[finite < 0])
    ]
    # numpy's last bin is closed on the right
    at_end = [
        int((part == sign * bins[-1]).sum()) if bins.size > 1 else 0 for sign, part in ((1, finite), (-1, finite))
    ]
    for counts, n in zip(signs, at_end, strict=True):
        if n:
            counts[-1] -= n
    rows = [tuple(int(n) for n in counts) if counts.any() else () for counts in signs]
    magnitude = np.abs(finite[finite != 0])
    below = int((magnitude < bins[0]).sum()) if bins.size > 1 else 0
    above = int((magnitude >= bins[-1]).sum()) if bins.size > 1 else magnitude.size
    return Histogram(
        rows[0], rows[1], int((x == 0).sum()), below, above, int(np.isnan(x).sum()), int(np.isinf(x).sum())
    )


NUMBERS = st.one_of(
    st.floats(width=32, allow_subnormal=False),
    st.floats(-100, 100, width=32, allow_subnormal=False),
    st.sampled_from([0.0, -0.0, 1.0, 2.0, 4.0, math.nan, math.inf, -math.inf, -3.4028234663852886e38, 65504.0, 2.0**-30]),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(hnp.arrays(np.float32, st.integers(1, 40), elements=NUMBERS), st.data())
def test_histograms_are_those_of_numpy(golden: Array, data: st.DataObject) -> None:
    actual = data.draw(hnp.arrays(np.float32, golden.shape, elements=NUMBERS))
    found = detail(actual, golden)
    assert len(found.error_max) <= MOST_BINS
    assert found.golden == counted(golden, found)
    assert found.actual == counted(actual, found)


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: np.dtype(d).name)
def test_every_element_is_somewhere(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    golden = (20 * rng.standard_normal((3, 7, 11))).astype(dtype)
    actual = (golden + rng.standard_normal(golden.shape).astype(dtype)).astype(dtype)
    found = detail(actual, golden)
    for side, histogram in ((golden, found.golden), (actual, found.actual)):
        assert histogram == counted(side, found)
        listed = (histogram.zeros, histogram.below, histogram.above, histogram.nan, histogram.inf)
        assert sum(histogram.positive) + sum(histogram.negative) + sum(listed) == side.size


@settings(max_examples=200, deadline=None)
@given(
    hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-1000, 1000, width=32, allow_subnormal=False)),
    st.integers(0, 99),
)
def test_errors_by_magnitude_are_those_of_numpy(golden: Array, seed: int) -> None:
    actual = (golden + np.random.default_rng(seed).standard_normal(golden.size) * 0.01).astype(np.float32)
    found = detail(actual, golden)
    g, error, bins = np.abs(golden), np.abs(actual - golden), edges(found)
    for i, (largest, median) in enumerate(zip(found.error_max, found.error_median, strict=True)):
        inside = np.sort(error[(g >= bins[i]) & (g < bins[i + 1]) & (g > 0)])
        if not inside.size:
            assert largest is None and median is None
            continue
        exact = float(inside[(inside.size + 1) // 2 - 1])
        assert largest == pytest.approx(float(inside[-1]), rel=1e-5)
        assert exact * (1 - 1e-5) <= (median or 0.0) <= max(exact * 1.2501, 2.0**-126)
    zero = error[golden == 0]
    assert found.error_at_zero == (pytest.approx(float(zero.max()), rel=1e-5) if zero.size else None)


def test_a_mask_does_not_stretch_the_bins() -> None:
    golden = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    golden[::10] = -3.4028234663852886e38
    actual = golden.copy()
    actual[::10] = -65504
    found = detail(actual, golden)
    assert found.golden.above == found.actual.above == 100
    assert found.octaves == 1 and edges(found)[-1] <= 8
    assert max(e or 0.0 for e in found.error_max) == 0


def test_bins_widen_only_where_many_elements_would_be_left_out() -> None:
    golden = np.geomspace(1e-12, 1e12, 5000).astype(np.float32)  # 80 octaves
    wide = detail(golden * np.float32(1.001), golden)
    assert wide.octaves == 2 and wide.golden.below == 0
    golden = np.append(np.linspace(0.1, 1, 5000), 1e-30).astype(np.float32)
    lone = detail(golden * np.float32(1.001), golden)
    assert lone.octaves == 1 and lone.golden.below == 1


@pytest.mark.parametrize(
    ("precision", "held"),
    [("fp16", (3, 2, 2)), ("bf16", (0, 0, 0)), ("fp32", (0, 0, 0)), ("tf32", (0, 0, 0)), (None, None)],
)
def test_what_a_format_cannot_hold_is_counted(precision: str | None, held: tuple[int, int, int] | None) -> None:
    golden = np.array(
        [0, 1, -65504, 65505, -1e6, 3e38, 2.0**-14, 2.0**-15, -(2.0**-24), 2.0**-25, -1e-9, np.nan, np.inf], np.float32
    )
    found = detail(golden, golden, precision).limits
    assert (None if found is None else (found.overflow, found.subnormal, found.vanishing)) == held


@pytest.mark.parametrize("shape", [(2, 5, 3, 3), (4, 5), (1, 200, 2, 2), (1, 1000)], ids=str)
def test_channels_are_those_of_numpy(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    golden = rng.standard_normal(shape).astype(np.float32)
    actual = (golden + 0.1 * rng.standard_normal(shape)).astype(np.float32)
    axis = 1 if len(shape) == 4 else len(shape) - 1
    others = tuple(i for i in range(len(shape)) if i != axis)
    error, extent = np.abs(actual - golden).max(axis=others), np.abs(golden).max(axis=others)
    found = channel_errors(measure(InMemory(actual), InMemory(golden)).channels)
    assert found is not None and (found.axis, found.count) == (axis, shape[axis])
    assert [w.channel for w in found.worst] == list(np.argsort(-error, kind="stable")[:8])
    for one in found.worst:
        assert one.error == pytest.approx(float(error[one.channel]), rel=1e-5)
        assert one.range == pytest.approx(float(extent[one.channel]), rel=1e-5)
    assert len(found.error) == len(found.range) <= PROFILE
    groups = [error[i : i + found.per_place].max() for i in range(0, error.size, found.per_place)]
    assert found.error == pytest.approx(groups, rel=1e-5)
    assert max(found.range) == pytest.approx(float(extent.max()), rel=1e-5)


def test_what_overflows_in_actual_is_seen_in_golden() -> None:
    golden = np.array([1e5, 2e5, 4e5], np.float32)
    found = detail(np.full(3, np.inf, np.float16), golden, "fp16")
    assert sum(found.golden.positive) == 3 and found.golden.above == 0 and found.actual.inf == 3
    assert found.limits is not None and found.limits.overflow == 3
    assert edges(found)[-1] == 2.0**19


def test_nothing_comparable_still_has_a_detail() -> None:
    found = detail(np.full(5, np.nan, np.float32), np.ones(5, np.float32))
    assert found.actual.nan == 5 and sum(found.golden.positive) + found.golden.above == 5
    assert all(e is None for e in found.error_max)
    assert compared(np.full(5, np.nan), np.ones(5))[0].size == 0


# --- thumbnails


def decoded(file: str) -> Array:
    """A PNG of 8 bits, by the standard: chunks, then lines of filter 1."""
    data = io.BytesIO(base64.b64decode(file))
    assert data.read(8) == b"\x89PNG\r\n\x1a\n"
    chunks: dict[bytes, bytes] = {}
    while head := data.read(8):
        length, kind = struct.unpack(">I4s", head)
        body = data.read(length)
        assert zlib.crc32(kind + body) == struct.unpack(">I", data.read(4))[0]
        chunks[kind] = body
    assert list(chunks) == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour, *_ = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    channels = {0: 1, 2: 3}[colour]
    assert depth == 8
    lines = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + width * channels)
    assert (lines[:, 0] == 1).all()
    return np.cumsum(lines[:, 1:].reshape(height, width, channels), axis=1, dtype=np.uint8)


def pictures(actual: Array, golden: Array, item: int = 0) -> Images:
    found = images_of(InMemory(actual), InMemory(golden), item)
    assert found is not None
    return found


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))))
def test_png_holds_its_pixels(pixels: Array) -> None:
    assert np.array_equal(decoded(base64.b64encode(png(pixels)).decode()), pixels)


@pytest.mark.parametrize(
    ("shape", "held"),
    [((1, 3, 32, 48), (32, 48, 3)), ((2, 1, 16, 16), (16, 16, 1)), ((1, 20, 30, 3), (20, 30, 3)), ((1, 64, 56, 56), None),
     ((1, 3, 8, 8), None), ((3, 32, 32), None), ((0, 3, 32, 32), None), ((1, 1000), None)],
    ids=str,
)  # fmt: skip
def test_what_is_a_picture(shape: tuple[int, ...], held: tuple[int, int, int] | None) -> None:
    found = picture_in(shape)
    assert (found and (found.height, found.width, found.channels)) == held


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("last", [False, True], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("side", [(16, 40), (170, 33), (333, 401)], ids=str)
def test_thumbnails_are_means_and_the_largest_error(
    channels: int, last: bool, side: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("probe.metrics.thumbnails._STRIP", 5000)
    rng = np.random.default_rng(0)
    golden = rng.uniform(-1, 3, (2, channels, *side)).astype(np.float32)
    actual = (golden + rng.uniform(-0.01, 0.01, golden.shape)).astype(np.float32)
    found = pictures(np.moveaxis(actual, 1, -1) if last else actual, np.moveaxis(golden, 1, -1) if last else golden, 1)
    step = found.reduced
    assert step == -(-max(side) // MOST_SIDE)

    def squares(image: Array, how: Any) -> Array:
        return np.array(
            [
                [how(image[:, y : y + step, x : x + step]) for x in range(0, side[1], step)]
                for y in range(0, side[0], step)
            ]
        )

    means = squares(golden[1].astype(np.float64), lambda s: s.mean(axis=(1, 2)))
    assert found.low == pytest.approx(means.min()) and found.high == pytest.approx(means.max())
    scaled = (means - found.low) / (found.high - found.low) * 255
    assert np.abs(decoded(found.golden).astype(float) - scaled).max() <= 0.51
    worst = squares(np.abs(actual[1].astype(np.float64) - golden[1]), lambda s: s.max())
    shown = np.clip(worst * found.amplification / (found.high - found.low), 0, 1) * 255
    assert np.abs(decoded(found.difference)[:, :, 0].astype(float) - shown).max() <= 0.51
    assert found.amplification > 10 and worst.max() * found.amplification <= found.high - found.low


def test_nan_is_magenta_and_equal_pictures_have_a_black_difference() -> None:
    golden = np.linspace(0, 1, 20 * 20, dtype=np.float32).reshape(1, 1, 20, 20)
    broken = golden.copy()
    broken[0, 0, 3, 4] = np.nan
    found = pictures(broken, golden)
    for file in (found.actual, found.difference):
        magenta = np.argwhere((decoded(file) == (255, 0, 255)).all(axis=2))
        assert magenta.tolist() == [[3, 4]]
    same = pictures(golden, golden)
    assert same.amplification == 1 and not decoded(same.difference).any()
    assert images_of(InMemory(golden), InMemory(np.full_like(golden, np.nan)), 0) is None


def test_a_wrong_picture_is_not_amplified_below_one() -> None:
    golden = np.zeros((1, 1, 16, 16), np.float32)
    golden[0, 0, 0, 0] = 1
    found = pictures(golden + 5, golden)
    assert found.amplification == 1 and decoded(found.difference).min() == 255
