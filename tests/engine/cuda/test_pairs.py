"""Sums made on the device against those that numpy makes: the same counts and extremes, sums to the last digits of float64."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from probe.engine.device.cuda.errors import OutOfMemory, Unsupported
from probe.engine.device.cuda.passing import Passing
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.runs.shared import Desks
from probe.engine.device.cuda.sums import pairs as summing
from probe.engine.device.cuda.sums.pairs import Pairs, measure
from probe.engine.device.cuda.tensors.formats import BF16, F16, F32, I64
from probe.engine.device.cuda.tensors.tensor import host_tensor
from probe.engine.device.pairs import Measure, Rows
from probe.metrics.measure import InMemory, Spec, survey
from probe.metrics.measure import measure as on_host
from probe.precision import round_to

STORED = (F32, F16, BF16)
# Rows that end inside what a thread takes at a time, rows shorter than that, more rows than a block's table holds
CASES = [
    *itertools.product(((1,), (7, 5), (2, 3, 1111), (2, 5, 7, 7)), STORED, ("plain", "odd")),
    *itertools.product(((3, 4096), (5, 8191), (2, 3, 24, 32)), (F16,), ("plain", "odd")),
    ((40000,), F32, "plain"), ((40000,), F16, "odd"), ((2, 2100, 1, 1), F16, "odd"),
    *(((40, 1, 300), stored, "zeros") for stored in STORED), ((5, 6, 7, 7), F16, "zeros"),
]  # fmt: skip
COUNTED = (
    "count", "compared", "nan_actual", "inf_actual", "nan_golden", "inf_golden", "nonfinite_mismatch", "sentinels", "sentinel_mismatch",
    "mismatched",
)  # fmt: skip
EXTREMES = ("max_abs", "golden_min", "golden_max", "actual_min", "actual_max")
SUMMED = {"abs_error": 1e-12, "squared_error": 1e-12, "golden_squared": 1e-12, "actual_squared": 1e-12, "dot": 1e-11, "max_rel": 1e-6,
          "rel_error": 1e-5, "sentinel_error": 1e-6}  # fmt: skip


def pair(shape: tuple[int, ...], kind: str) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(len(shape) * 7 + shape[-1])
    golden = random.standard_normal(shape).astype(np.float32) * 3
    actual = golden + random.standard_normal(shape).astype(np.float32) * np.float32(1e-2)
    if kind == "zeros":  # of both signs, as GELU leaves them of what is far below zero; +0 is the larger one
        golden[..., : shape[-1] * 3 // 4] *= 0.0
        golden[: shape[0] // 2, ..., : shape[-1] // 2] = -0.0
    if kind == "odd" and golden.size > 40:
        flat, other = golden.reshape(-1), actual.reshape(-1)
        other[[0, 3, 8]] = np.nan, np.inf, -np.inf
        flat[[3, 8, 20, 21]] = np.inf, np.inf, np.nan, np.nan
        other[21] = np.nan
        flat[30:34] = -3.4e38, -3.4e38, -np.inf, 2e6
        other[30:34] = -65504, 1.0, -np.inf, 1.9e6
    return actual, golden


@pytest.mark.parametrize(
    ("shape", "stored", "kind"), CASES, ids=[f"{shape}-{stored.name}-{kind}" for shape, stored, kind in CASES]
)
def test_sums_are_numpys(backend, shape, stored, kind):
    actual, golden = pair(shape, kind)
    if stored is not F32:
        with np.errstate(over="ignore"):
            actual = round_to(actual, {"f16": "fp16", "bf16": "bf16"}[stored.name])
    expected = on_host(InMemory(actual), InMemory(golden), Spec(atol=1e-2, rtol=1e-3))
    range_, masks = survey(InMemory(golden))
    floor = 1e-3 * range_
    assert masks.any_finite == (kind == "odd" and golden.size > 40)
    how = Measure(masks.threshold, masks.boundary, floor, 1e-2, 1e-3)
    queue, rows = Queue(backend, 18), rows_of(shape)
    x, y = queue.convert(host_tensor(actual), stored), host_tensor(golden)
    found = measure(queue, x, y, how, rows)
    for name in (*COUNTED, *EXTREMES):
        assert getattr(found, name) == getattr(expected, name), name
    for name, near in SUMMED.items():
        assert math.isclose(getattr(found, name), getattr(expected, name), rel_tol=near), name
    if rows.items > 1:
        if kind != "odd":
            np.testing.assert_array_equal(found.item_range, np.abs(golden).reshape(len(golden), -1).max(1))
        assert math.isclose(float(ratio(found.item_error, found.item_range).max()), expected.item_rel, rel_tol=1e-6)
    if rows.channels > 1:
        assert expected.channels is not None
        np.testing.assert_allclose(found.channel_error, expected.channels.max_abs, rtol=1e-6)
        np.testing.assert_array_equal(found.channel_range, expected.channels.range)
    again = measure(queue, x, y, how, rows)
    assert again.abs_error == found.abs_error and again.dot == found.dot, "the same bits every time"


def rows_of(shape: tuple[int, ...]) -> Rows:
    if len(shape) < 4:
        return Rows(shape[0]) if len(shape) > 1 else Rows()
    return Rows(shape[0], shape[1])


def ratio(error, extent):
    return np.divide(error, extent, out=np.zeros_like(error), where=error > 0)


@pytest.mark.parametrize(("either", "equal_nan", "equal_inf"), [(True, True, True), (False, False, False)])
def test_tolerances_as_presets_have_them(host, either, equal_nan, equal_inf):
    actual, golden = pair((3, 700), "odd")
    spec = Spec(atol=1e-2, rtol=5e-3, either=either, equal_nan=equal_nan, equal_inf=equal_inf)
    actual[0, 5] = golden[0, 5] = np.inf
    range_, masks = survey(InMemory(golden))
    floor = 1e-3 * range_
    how = Measure(masks.threshold, masks.boundary, floor, 1e-2, 5e-3, either, equal_nan, equal_inf)
    found = measure(Queue(host, 18), host_tensor(actual), host_tensor(golden), how)
    assert found.mismatched == on_host(InMemory(actual), InMemory(golden), spec).mismatched


def test_what_no_float_reaches_is_no_limit(host):
    actual, golden = pair((3, 700), "odd")
    queue = Queue(host, 18)
    found = [
        measure(
            queue, host_tensor(actual), host_tensor(golden), Measure(limit, limit, 1e-3, rtol=limit, equal_nan=False)
        )
        for limit in (np.inf, 1e300)
    ]
    assert repr(found[0]) == repr(found[1]) and found[0].sentinels < np.isneginf(golden).sum() + 3


def test_many_pairs_are_fetched_together(host):
    """More than one launch joins, with maxima of many channels among them."""
    queue, pairs = Queue(host, 18), Pairs(Queue(host, 18))
    expected = []
    for k in range(70):
        shape = (2, 1 + k % 3, 3, 3) if k % 3 else (11 + k,)
        actual, golden = pair(shape, "plain")
        x, y = host_tensor(actual * (1 + k)), host_tensor(golden)
        expected.append((float(np.abs(actual * (1 + k) - golden).max()), shape))
        assert pairs.add(x, y, Measure(floor=1e-3), rows_of(shape)) == k
        del x, y
    found = [one for one, _ in pairs.fetch()]
    assert [one.max_abs for one in found] == pytest.approx([most for most, _ in expected])
    assert [one.channel_error.size for one in found] == [s[1] if len(s) > 1 and s[1] > 1 else 0 for _, s in expected]
    assert queue.launches == {}


def test_sums_come_back_while_others_are_made(backend, monkeypatch):
    """Through memory that later comparisons use again, without a trace in what was read from it."""
    monkeypatch.setattr(summing, "_HELD", 2000)  # launched two by two
    desks, pinned, found = Desks(backend), backend.pinned, []
    taken: list[int] = []
    monkeypatch.setattr(backend, "pinned", lambda nbytes: taken.append(nbytes) or pinned(nbytes), raising=False)
    for times in (1, 2, 3):
        ahead, behind = Pairs(Queue(backend, 18), desks=desks), Pairs(Queue(backend, 18))
        for k in range(5):
            actual, golden = pair((2, 3, 5, 5), "plain")
            given = host_tensor(actual * (times + k)), host_tensor(golden), Measure(floor=1e-3), Rows(2, 3)
            ahead.add(*given, worst=True)
            behind.add(*given, worst=True)
        found.append((ahead.fetch(), behind.fetch()))
    assert len(taken) == 3 + 9, "of the first of three that have memory in common, of all that have their own"
    for sent, fetched in found:
        for (one, places), (other, expected) in zip(sent, fetched, strict=True):
            assert repr(one) == repr(other) and places == expected


def test_what_is_not_summed_says_why(host):
    queue = Queue(host, 18)
    x = host_tensor(np.ones(6, np.float32))
    with pytest.raises(Unsupported, match="other than floats"):
        measure(queue, host_tensor(np.ones(6, np.int64)), x, Measure())
    with pytest.raises(Unsupported, match="in 4 rows"):
        measure(queue, x, x, Measure(), Rows(4))
    assert host_tensor(np.ones(6, np.int64)).format is I64


class Full(Passing):
    """Has no room for one of the pieces of memory that it is asked for."""

    def __init__(self, backend, left):
        super().__init__(backend)
        self._left = left
        self.free, self.upload, self.download, self.launch = (
            backend.free,
            backend.upload,
            backend.download,
            backend.launch,
        )

    def allocate(self, nbytes):
        self._left -= 1
        if not self._left:
            raise OutOfMemory(nbytes, 0, 0, self.name)
        return self.backend.allocate(nbytes)


@pytest.mark.parametrize("left", range(1, 24, 2))
def test_where_there_is_no_room_no_sums_are_made_up(host, left, monkeypatch):
    """Memory that nobody wrote to was fetched as the sums of all pairs that wait together."""
    monkeypatch.setattr(summing, "_HELD", 600)  # launched two by two
    pairs, asked = Pairs(Queue(Full(host, left), 18)), {}
    for k in range(5):
        actual, golden = pair((50,), "plain")
        try:
            at = pairs.add(host_tensor(actual * (1 + k)), host_tensor(golden), Measure(floor=1e-3), worst=True)
            asked[at] = float(np.abs(actual * (1 + k) - golden).max())
        except OutOfMemory:
            continue
    try:
        found = pairs.fetch()
    except OutOfMemory:
        found = pairs.fetch()
    assert {at: found[at][0].max_abs for at in asked} == pytest.approx(asked)
    assert {at: found[at][1][0].error for at in asked} == pytest.approx(asked)
