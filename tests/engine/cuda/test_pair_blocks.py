"""Pairs that many blocks sum up: rows of every length, which end anywhere in what a thread, a warp and a block take at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest

from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.sums import pairs as summing
from probe.engine.device.cuda.sums.pairs import Pairs, measure
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, Format
from probe.engine.device.cuda.tensors.tensor import host_tensor
from probe.engine.device.pairs import Measure, Rows
from probe.precision import round_to
from tests.engine.cuda.test_pairs_last import agree, both_ways

THRESHOLD, FLOOR = 1e6, 3e-3
ODD = {"actual": (np.nan, np.inf, -np.inf), "golden": (np.nan, np.inf, -np.inf, -3e38, 2e6)}
SUMMED = ("abs_error", "squared_error", "golden_squared", "actual_squared", "dot")


@pytest.fixture(params=[1, 6])
def short(monkeypatch, request):
    """Blocks of so few turns, so that few elements are many blocks; more of them than are on their way at a time."""
    monkeypatch.setattr(summing, "_TURNS", request.param)
    cuts = summing._cut, summing._cut_last
    for one in cuts:
        one.cache_clear()
    yield
    for one in cuts:
        one.cache_clear()


def made(size: int, stored: Format, *, odd: bool) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(size)
    golden = (random.standard_normal(size) * 3).astype(np.float32)
    actual = golden + (random.standard_normal(size) * 1e-2).astype(np.float32)
    if odd:
        for array, values in ((actual, ODD["actual"]), (golden, ODD["golden"])):
            places = random.integers(0, size, max(1, size // 50))
            array[places] = random.choice(values, places.size)
    if stored is F32:
        return actual, golden
    with np.errstate(all="ignore"):
        return round_to(actual, {"f16": "fp16", "bf16": "bf16"}[stored.name]), golden


def hold(backend, rows: Rows, cols: int, stored: Format, *, odd: bool) -> None:
    actual, golden = made(rows.count * cols, stored, odd=odd)
    queue = Queue(backend, 18)
    x = queue.convert(host_tensor(actual), stored)
    found = measure(queue, x, host_tensor(golden), Measure(THRESHOLD, THRESHOLD, FLOOR, 1e-2, 1e-3), rows)
    with np.errstate(invalid="ignore", over="ignore"):
        there = np.isfinite(actual) & (np.abs(golden) < THRESHOLD)
        error = np.where(there, np.abs(actual - golden), np.float32(0))
    reach = np.where(there, np.abs(golden), np.float32(0))
    x, y = actual[there].astype(np.float64), golden[there].astype(np.float64)
    assert (found.compared, found.max_abs) == (x.size, error.max())
    if x.size:
        assert (found.golden_min, found.golden_max, found.actual_min, found.actual_max) == (y.min(), y.max(), x.min(), x.max())  # fmt: skip
    sums = np.abs(x - y).sum(), ((x - y) ** 2).sum(), (y * y).sum(), (x * x).sum(), (x * y).sum()
    np.testing.assert_allclose([getattr(found, name) for name in SUMMED], sums, rtol=1e-12)
    relative = error[there].astype(np.float64) / np.maximum(np.abs(y), FLOOR)
    np.testing.assert_allclose((found.rel_error, found.max_rel), (relative.sum(), relative.max(initial=0)), rtol=1e-6)
    if rows.count > 1:
        items, channels = (one.reshape(rows.items, rows.channels, cols) for one in (error, reach))
        np.testing.assert_array_equal((found.item_error, found.item_range), (items.max((1, 2)), channels.max((1, 2))))
        if rows.channels > 1:
            kept = found.channel_error, found.channel_range
            np.testing.assert_array_equal(kept, (items.max((0, 2)), channels.max((0, 2))))


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("cols", [1, 3, 7, 8, 9, 16, 49, 56, 127, 128, 129, 136, 196, 255, 256, 257, 264, 513, 784, 2049])  # fmt: skip
def test_rows_of_every_length(backend, short, cols, odd):
    for stored, rows in ((F16, Rows(2, max(1, 5000 // cols))), (F32, Rows(3, max(2, 1500 // cols))), (BF16, Rows(5))):
        hold(backend, rows, cols, stored, odd=odd)


@pytest.mark.parametrize("size", [1, 5, 8, 31, 255, 256, 257, 2047, 2049, 2056, 16384, 30001])
def test_one_row_of_every_length(backend, short, size):
    for stored in (F16, F32, BF16):
        hold(backend, Rows(), size, stored, odd=size % 2 > 0)


@pytest.mark.parametrize("values", [3, 400])
def test_largest_errors_of_many_blocks(backend, short, values):
    """Of few values many are equal, and lie in more blocks than are walked again: the first ones are found."""
    random = np.random.default_rng(values)
    golden = random.integers(-8, 8, 50001).astype(np.float32)
    error = random.integers(0, values, golden.size).astype(np.float32)
    queue, pairs = Queue(backend, 18), Pairs(Queue(backend, 18), most=5)
    x, y = queue.convert(host_tensor(golden + error), F16), host_tensor(golden)
    pairs.add(x, y, Measure(floor=1.0), worst=True)
    _, worst = pairs.fetch()[0]
    first = np.lexsort((np.arange(golden.size), -error))[:5]
    found = [(one.place, one.error, one.golden) for one in sorted(worst, key=lambda one: (-one.error, one.place))]
    assert found == [(int(at), error[at], golden[at]) for at in first]


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("shape", [(3, 8, 40, 41), (2, 96, 7, 7), (2, 2048, 7, 7), (1, 1100, 5, 9), (5, 256, 3, 3)])
def test_channels_last_in_many_blocks(backend, short, shape, odd):
    """Blocks that begin and end within an image, parts of channels that are walked one after the other."""
    for stored in (F16, F32):
        actual, golden = (one.reshape(shape) for one in made(math.prod(shape), stored, odd=odd))
        how = Measure(THRESHOLD, THRESHOLD, FLOOR, 1e-2, 1e-3)
        expected, found, places, others = both_ways(backend, actual, golden, stored, how)
        agree(found, expected)
        assert places == others
