"""Pairs of images whose channels are contiguous, compared where they lie: what is found is what is found of the same images in order."""

from __future__ import annotations

import math

import numpy as np
import pytest

from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.sums.comparing import Comparing, Held
from probe.engine.device.cuda.sums.pairs import Pairs
from probe.engine.device.cuda.tensors.channels_last import channels_last, dense_when_asked, lies_last
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32
from probe.engine.device.cuda.tensors.tensor import Tensor, host_tensor
from probe.engine.device.pairs import Asked, Measure, PairSums, Rows
from probe.metrics.measure import InMemory, survey
from tests.engine.cuda.test_pairs import pair

STORED = {"f32": F32, "f16": F16, "bf16": BF16}
EXACT = (
    "count", "compared", "nan_actual", "inf_actual", "nan_golden", "inf_golden", "nonfinite_mismatch", "sentinels", "sentinel_mismatch",
    "sentinel_error", "mismatched", "max_abs", "max_rel", "golden_min", "golden_max", "actual_min", "actual_max",
)  # fmt: skip
SUMMED = {
    "abs_error": 1e-12,
    "squared_error": 1e-12,
    "golden_squared": 1e-12,
    "actual_squared": 1e-12,
    "dot": 1e-11,
    "rel_error": 1e-6,
}
MAXIMA = ("item_error", "item_range", "channel_error", "channel_range")
# Several items a block, several blocks an item, threads left over, more channels than a block's threads take at once
SHAPES = [(5, 8, 3, 3), (2, 12, 1, 7), (1, 4, 90, 91), (3, 1100, 2, 3), (2, 2048, 1, 2), (2, 64, 23, 24)]


def turned(queue: Queue, tensor: Tensor) -> Tensor:
    """The same values, channels last."""
    return dense_when_asked(queue, channels_last(queue, tensor))


def both_ways(
    backend, actual: np.ndarray, golden: np.ndarray, stored, how: Measure
) -> tuple[PairSums, PairSums, tuple, tuple]:
    queue, rows = Queue(backend, 18), Rows(*actual.shape[:2])
    x, y = queue.convert(host_tensor(actual), stored), host_tensor(golden)
    assert Pairs.takes_last(actual.shape, rows)
    pairs = Pairs(queue)
    pairs.add(x, y, how, rows, worst=True)
    pairs.add(channels_last(queue, x), channels_last(queue, y), how, rows, worst=True, last=True)
    (expected, places), (found, others) = pairs.fetch()
    return expected, found, places, others


def agree(found: PairSums, expected: PairSums) -> None:
    """To the bit, but for sums, whose order differs."""
    for name in EXACT:
        assert getattr(found, name) == getattr(expected, name), name
    for name, near in SUMMED.items():
        assert math.isclose(getattr(found, name), getattr(expected, name), rel_tol=near), name
    for name in MAXIMA:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)


@pytest.mark.parametrize("kind", ["plain", "odd"])
@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("shape", SHAPES)
def test_order_changes_no_answer(backend, shape, stored, kind):
    actual, golden = pair(shape, kind)
    range_, masks = survey(InMemory(golden))
    how = Measure(masks.threshold, masks.boundary, 1e-3 * range_, 1e-2, 1e-3)
    expected, found, places, others = both_ways(backend, actual, golden, STORED[stored], how)
    agree(found, expected)
    assert others == places and len(places) == 5


def test_of_equal_errors_the_first_in_order(backend):
    golden = np.zeros((2, 8, 5, 5), np.float32)
    golden[0, 0, 0, 0] = 1
    actual = golden.copy()
    for place in ((0, 2, 4, 4), (0, 7, 0, 0), (0, 1, 3, 3), (1, 0, 0, 0), (0, 2, 0, 1), (0, 3, 0, 0), (1, 5, 2, 2)):
        actual[place] += 0.5
    _, _, places, others = both_ways(backend, actual, golden, F32, Measure(floor=1e-3))
    first = [
        int(np.ravel_multi_index(at, golden.shape))
        for at in ((0, 1, 3, 3), (0, 2, 0, 1), (0, 2, 4, 4), (0, 3, 0, 0), (0, 7, 0, 0))
    ]
    assert [one.place for one in others] == first[::-1] and others == places


@pytest.mark.parametrize("channels", [8, 12])
def test_where_all_errors_are_equal_the_first_are_named(backend, channels):
    golden = np.ones((1, channels, 20, 20), np.float32)
    _, _, places, others = both_ways(backend, golden + np.float32(0.5), golden, F32, Measure(floor=1e-3))
    assert [one.place for one in others] == [4, 3, 2, 1, 0] and others == places


def test_golden_is_turned_once(host):
    """Whatever the order of what it is compared with, and what is handed out of it stays as it was."""
    queue = Queue(host, 18)
    actual, golden = pair((2, 8, 6, 5), "plain")
    asked = Asked(Measure(floor=1e-3), Rows(2, 8), ulps="float16", worst=True)
    dense = Held(queue.convert(host_tensor(actual), F16), host)
    last = Held(turned(queue, dense.tensor), host)
    twin = Comparing(queue, 5).hold(golden)
    assert twin is not None
    found = []
    for one in (dense, last, last, dense, last):
        comparing = Comparing(queue, 5)
        before = queue.launches.get("transpose", 0) + queue.launches.get("copy_strided", 0)
        assert comparing.add(one, twin, asked) == 0
        moved = queue.launches.get("transpose", 0) + queue.launches.get("copy_strided", 0) - before
        found.append((*comparing.answers(), moved, lies_last(twin.tensor)))
    answers, moves, order = zip(*found, strict=True)
    assert moves == (0, 1, 0, 1, 0) and order == (False, True, True, True, True)
    for one in answers:
        assert one.counts is not None and one.worst == answers[0].worst
        assert one.counts.ulp_max == answers[0].counts.ulp_max
        assert all(
            np.array_equal(a, b)
            for mine, other in (
                (one.counts.errors, answers[0].counts.errors),
                (one.counts.ulps, answers[0].counts.ulps),
            )
            for a, b in zip(mine, other, strict=True)
        )
    assert queue.launches["pairs_last"] == 3
    np.testing.assert_array_equal(twin.array(), golden)
    np.testing.assert_array_equal(last.window(7, 31), dense.array().reshape(-1)[7:31])


@pytest.mark.parametrize(
    ("shape", "rows", "taken"),
    [
        ((2, 64, 7, 7), Rows(2, 64), True),
        ((2, 3, 7, 7), Rows(2, 3), False),
        ((2, 4096, 7, 7), Rows(2, 4096), False),
        ((2, 64, 1, 1), Rows(2, 64), False),
        ((2, 64, 7, 7), Rows(), False),
    ],
)
def test_what_is_taken(shape, rows, taken):
    assert Pairs.takes_last(shape, rows) == taken
