"""How far inside an acceptance values are, and one value for many inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.culprits.judge import Judge
from probe.culprits.margins import aggregate_of, margin_of
from probe.errors import InputError
from probe.metrics.acceptance import OPERATORS, parse_criterion
from probe.results.diff import Criterion
from tests.culprits.recordings import Outputs

ONE = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


def criteria(*texts: str) -> list[Criterion]:
    return [parse_criterion(text) for text in texts]


# --- many inputs as one


def values(*errors: float) -> Outputs:
    return {f"i{number}": {"y": (ONE + np.float32(error))} for number, error in enumerate(errors)}


@pytest.mark.parametrize(
    ("over", "errors", "verdict", "value", "failing"),
    [
        ("worst", (0.0, 0.1, 0.3), "failed", 0.3, ("i2",)),
        ("mean", (0.0, 0.1, 0.3), "passed", 0.4 / 3, ("i2",)),
        ("mean", (0.3, 0.1, 0.3), "failed", 0.7 / 3, ("i0", "i2")),
        ("quantile:0.6", (0.0, 0.3, 0.1), "passed", 0.1, ("i1",)),
        ("quantile:0.5", (0.3, 0.3, 0.0, 0.1), "passed", 0.1, ("i0", "i1")),
        ("quantile:0.51", (0.3, 0.3, 0.0, 0.1), "failed", 0.3, ("i0", "i1")),
        ("quantile:1", (0.0, 0.1, 0.3), "failed", 0.3, ("i2",)),
    ],
)
def test_aggregates(over: str, errors: Sequence[float], verdict: str, value: float, failing: tuple[str, ...]) -> None:
    judge = Judge(values(*(0.0,) * len(errors)), acceptance=criteria("range_rel<=0.2"), over=over)
    judged = judge(values(*errors))
    assert (judged.verdict, judged.failing_inputs) == (verdict, failing)
    assert judged.metrics["y"]["range_rel"] == pytest.approx(value, rel=1e-5)
    assert judged.margin == pytest.approx(1 - value / 0.2, rel=1e-5)
    assert judged.worst == pytest.approx(max(errors), rel=1e-5)
    assert judged.verdict == "passed" or judged.reasons


def test_what_is_better_when_it_is_larger_has_quantiles_too() -> None:
    judge = Judge(values(0, 0, 0), acceptance=criteria("sqnr_db>=20"), over="quantile:0.66")
    judged = judge(values(0.01, 0.01, 0.5))
    assert judged.passed and judged.failing_inputs == ("i2",)
    assert judged.metrics["y"]["sqnr_db"] > 30


@pytest.mark.parametrize("over", ["mean", "quantile:0.1"])
def test_nan_is_not_averaged_away(over: str) -> None:
    actual = {key: dict(named) for key, named in values(0, 0, 0).items()}
    broken = ONE.copy()
    broken[0, 0] = math.nan
    actual["i1"]["y"] = broken
    judged = Judge(values(0, 0, 0), acceptance=criteria("range_rel<=0.2"), over=over)(actual)
    assert (judged.verdict, judged.margin, judged.failing_inputs) == ("failed", -math.inf, ("i1",))
    assert "input i1" in judged.reasons[0] and judged.worst == math.inf


@pytest.mark.parametrize(("over", "value"), [("mean", 0.3), ("quantile:0.5", 0.3)])
def test_a_golden_without_numbers_is_not_averaged_as_no_error(over: str, value: float) -> None:
    blank = {f"b{number}": {"y": np.full_like(ONE, math.nan)} for number in range(2)}
    golden, actual = {**values(0), **blank}, {**values(0.3), **blank}
    judged = Judge(golden, acceptance=criteria("range_rel<=0.2"), over=over)(actual)
    assert (judged.verdict, judged.failing_inputs) == ("failed", ("i0",))
    assert judged.metrics["y"]["range_rel"] == pytest.approx(value, rel=1e-5)
    alone = Judge(blank, acceptance=criteria("range_rel<=0.2"), over=over)(blank)
    assert alone.verdict == "not_judged" and "NaN or Inf in every element" in alone.reasons[0]


@pytest.mark.parametrize("over", ["mean", "quantile:0.5"])
def test_what_is_not_defined_is_not_judged(over: str) -> None:
    judged = Judge(values(0, 0), acceptance=criteria("kl<=0.2"), over=over)(values(0, 0))
    assert (judged.verdict, judged.reasons) == ("not_judged", ("y: kl is not defined for this tensor",))


@pytest.mark.parametrize(
    "text", ["median", "quantile", "quantile:", "quantile:0", "quantile:1.5", "quantile:nan", "Mean", ""]
)
def test_unknown_aggregates(text: str) -> None:
    with pytest.raises(InputError, match="cannot join"):
        aggregate_of(text)


# --- margins


@pytest.mark.parametrize(
    ("text", "value", "margin"),
    [
        ("range_rel<=0.01", 0.0, 1.0), ("range_rel<=0.01", 0.005, 0.5), ("range_rel<=0.01", 0.01, 0.0), ("range_rel<=0.01", 0.02, -1.0),
        ("range_rel<=0.01", math.inf, -math.inf), ("range_rel<=0.01", math.nan, -math.inf),
        ("cosine>=0.99", 1.0, 1.0), ("cosine>=0.99", 0.99, 0.0), ("cosine>=0.99", 0.97, -2.0), ("cosine>=1", 1.0, 1.0),
        ("cosine>=1", 0.75, -0.25), ("sqnr_db>=40", 60.0, 0.5), ("sqnr_db>=40", 20.0, -0.5), ("sqnr_db>=40", math.inf, math.inf),
        ("max_abs<=0", 0.0, 1.0), ("max_abs<=0", 3.0, -3.0), ("max_abs<0", 0.0, 0.0), ("sqnr_db>=-10", -20.0, -1.0),
        ("max_abs==0", 0.0, 1.0), ("max_abs==0", 2.0, -2.0), ("max_abs<=inf", 5.0, math.inf), ("max_abs<=inf", math.inf, 0.0),
    ],
)  # fmt: skip
def test_margins(text: str, value: float, margin: float) -> None:
    assert margin_of(parse_criterion(text), value) == pytest.approx(margin)


@given(
    st.sampled_from(["range_rel<=0.01", "rmse<0.3", "cosine>=0.995", "top1>0.9", "sqnr_db>=-3", "sqnr_db>=40", "max_abs<=0"]),
    st.floats(0, 1), st.floats(0, 1),
)  # fmt: skip
def test_margins_are_ordered_as_the_values_are(text: str, one: float, other: float) -> None:
    criterion = parse_criterion(text)
    better, worse = sorted((one, other), reverse=criterion.op in (">=", ">"))
    margins = [margin_of(criterion, value) for value in (better, worse)]
    assert margins[0] >= margins[1]
    for value, margin in zip((better, worse), margins, strict=True):
        assert margin >= 0 if OPERATORS[criterion.op](value, criterion.threshold) else margin <= 0


def test_the_least_margin_of_all_outputs_counts() -> None:
    golden = {"i": {"y": ONE, "z": ONE, "n": np.arange(4)}}
    judge = Judge(golden, acceptance=criteria("range_rel<=0.1 @ y", "range_rel<=0.5 @ z", "max_abs<=0 @ n"))

    def margin(y: float, z: float) -> float:
        return judge({"i": {"y": ONE + np.float32(y), "z": ONE + np.float32(z), "n": np.arange(4)}}).margin

    assert margin(0.05, 0.1) == pytest.approx(0.5, rel=1e-5)
    assert margin(0.01, 0.4) == pytest.approx(0.2, rel=1e-5)
    assert margin(0.2, 0.1) == pytest.approx(-1, rel=1e-5)
    assert margin(math.nan, 0.1) == -math.inf
