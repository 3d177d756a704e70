"""Sums made on the device against those that numpy makes: the same counts and extremes, sums to the last digits of float64."""

from __future__ import annotations

import math

import numpy as np
import pytest

from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.formats import BF16, F16, F32, I64
from probe.engine.device.cuda.pairs import Measure, measure
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensor import host_tensor
from probe.metrics.measure import InMemory, Spec, Workspace, _Measurement
from probe.metrics.measure import measure as on_host
from probe.precision import round_to

SHAPES = ((1,), (7, 5), (3, 4096), (2, 3, 1111), (40000,), (5, 8191))
COUNTED = (
    "count", "compared", "nan_actual", "inf_actual", "nan_golden", "inf_golden", "nonfinite_mismatch", "sentinels", "sentinel_mismatch",
    "mismatched",
)  # fmt: skip
EXTREMES = ("max_abs", "golden_min", "golden_max", "actual_min", "actual_max")
SUMMED = (
    "abs_error",
    "rel_error",
    "squared_error",
    "golden_squared",
    "actual_squared",
    "dot",
    "max_rel",
    "sentinel_error",
)


def pair(shape: tuple[int, ...], kind: str) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(len(shape) * 7 + shape[-1])
    golden = random.standard_normal(shape).astype(np.float32) * 3
    actual = golden + random.standard_normal(shape).astype(np.float32) * np.float32(1e-2)
    if kind == "odd" and golden.size > 40:
        flat, other = golden.reshape(-1), actual.reshape(-1)
        other[[0, 3, 8]] = np.nan, np.inf, -np.inf
        flat[[3, 8, 20, 21]] = np.inf, np.inf, np.nan, np.nan
        other[21] = np.nan
        flat[30:34] = -3.4e38, -3.4e38, -np.inf, 2e6
        other[30:34] = -65504, 1.0, -np.inf, 1.9e6
    return actual, golden


@pytest.mark.parametrize("kind", ["plain", "odd"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("stored", [F32, F16, BF16], ids=lambda one: one.name)
def test_sums_are_numpys(backend, shape, kind, stored):
    actual, golden = pair(shape, kind)
    if stored is not F32:
        with np.errstate(over="ignore"):
            actual = round_to(actual, {"f16": "fp16", "bf16": "bf16"}[stored.name])
    expected = on_host(InMemory(actual), InMemory(golden), Spec(atol=1e-2, rtol=1e-3))
    survey = _Measurement(InMemory(actual), InMemory(golden), Spec(), Workspace())
    floor = 1e-3 * survey._survey_golden()
    masks = survey.sentinels
    assert masks.any_finite == (kind == "odd" and golden.size > 40)
    how = Measure(masks.threshold, masks.boundary, floor, 1e-2, 1e-3)
    queue, rows = Queue(backend, 18), shape[0] if len(shape) > 1 else 1
    pending = measure(queue, queue.convert(host_tensor(actual), stored), host_tensor(golden), how, rows=rows)
    found = pending.result()
    for name in COUNTED:
        assert getattr(found, name) == getattr(expected, name), name
    for name in EXTREMES:
        assert getattr(found, name) == getattr(expected, name), name
    for name in SUMMED:
        assert math.isclose(
            getattr(found, name), getattr(expected, name), rel_tol=1e-5 if name == "rel_error" else 1e-6
        ), name
    if expected.worst:
        assert (
            np.unravel_index(found.place, shape) == expected.worst[0].place or found.max_abs == expected.worst[0].error
        )
    if rows > 1:
        relative = found.row_error / np.maximum(found.row_range, 1e-30)
        assert math.isclose(float(relative.max()), expected.item_rel, rel_tol=1e-6)
    again = measure(queue, queue.convert(host_tensor(actual), stored), host_tensor(golden), how, rows=rows).result()
    assert again.abs_error == found.abs_error and again.dot == found.dot, "the same bits every time"


def test_what_is_not_summed_says_why(host):
    queue = Queue(host, 18)
    x = host_tensor(np.ones(6, np.float32))
    with pytest.raises(Unsupported, match="other than floats"):
        measure(queue, host_tensor(np.ones(6, np.int64)), x, Measure())
    with pytest.raises(Unsupported, match="in 4 rows"):
        measure(queue, x, x, Measure(), rows=4)
    assert host_tensor(np.ones(6, np.int64)).format is I64
