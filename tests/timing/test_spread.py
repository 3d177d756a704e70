"""Statistics against numpy and the standard library; what is called unstable, as tables."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.errors import InputError
from probe.timing.spread import few_runs, spread_of, unsteady

STEADY = [0.010 + 0.0001 * (at % 3) for at in range(90)]


@given(st.lists(st.floats(1e-7, 1e3), min_size=2, max_size=60))
def test_a_spread_is_numpy_s(times: list[float]) -> None:
    spread = spread_of(times)
    assert spread.runs == len(times)
    assert (spread.min, spread.max) == (min(times), max(times))
    assert spread.median == pytest.approx(statistics.median(times))
    assert spread.mean == pytest.approx(statistics.fmean(times))
    assert spread.std == pytest.approx(statistics.stdev(times), rel=1e-6, abs=1e-9 * spread.mean)
    assert [spread.p90, spread.p95, spread.p99] == [float(one) for one in np.percentile(times, (90, 95, 99))]
    assert spread.cv == pytest.approx(np.std(times, ddof=1) / np.mean(times))


def test_known_percentiles() -> None:
    spread = spread_of([float(at) for at in range(1, 102)][::-1])
    assert (spread.min, spread.median, spread.p90, spread.p95, spread.p99, spread.max) == (1, 51, 91, 96, 100, 101)


def test_no_time_at_all_has_no_variation() -> None:
    assert spread_of([0.0, 0.0]).cv == 0.0


@pytest.mark.parametrize("times", [[], [0.01]])
def test_fewer_than_two_are_refused(times: list[float]) -> None:
    with pytest.raises(InputError, match="say nothing of how they vary"):
        spread_of(times)


CASES = {
    "steady": (STEADY, 0.0, []),
    "steady, load not known": (STEADY, None, []),
    "a little load": (STEADY, 0.2, []),
    "busy": (STEADY, 0.9, ["machine was busy: other programs kept 0.9 of 4 cores"]),
    "varies": ([0.010, 0.014] * 40, 0.0, ["vary by 17 % (coefficient of variation; up to 10 % is stable)"]),
    "one interruption of many": ([*STEADY, 0.011], 0.0, []),
    "one long interruption": ([*STEADY, 0.1], 0.0, ["vary by"]),
    "drifts slower": ([0.010 + 0.00001 * at for at in range(90)], 0.0, ["got slower", "1.06 times"]),
    "drifts faster": ([0.0109 - 0.00001 * at for at in range(90)], 0.0, ["got faster"]),
    "just enough to drift": ([0.010 + 0.00003 * at for at in range(30)], 0.0, ["got slower"]),
    "too few to drift": ([0.0100, 0.0102, 0.0104, 0.0106], 0.0, []),
    "all of it": ([0.010] * 45 + [0.020] * 45, 2.0, ["vary by", "got slower", "2.00 times", "machine was busy"]),
}


@pytest.mark.parametrize(("times", "load", "said"), CASES.values(), ids=CASES)
def test_what_is_unstable(times: list[float], load: float | None, said: list[str]) -> None:
    found = " | ".join(unsteady(times, load, cores=4))
    assert bool(found) == bool(said), found
    assert all(words in found for words in said), found


def test_many_cores_bear_more_load() -> None:
    assert unsteady(STEADY, 2.0, cores=64) == []
    assert unsteady(STEADY, 7.0, cores=64)


@pytest.mark.parametrize(("runs", "warned"), [(2, True), (9, True), (10, False), (1000, False)])
def test_percentiles_of_few_runs_are_said_to_be_that(runs: int, warned: bool) -> None:
    assert bool(few_runs(runs)) == warned
    times = sorted(float(at) for at in range(runs))
    if warned:  # and it is true
        spread = spread_of(times)
        assert times[-2] <= spread.p90 <= spread.p99 <= times[-1]
        assert not math.isnan(spread.p99)
