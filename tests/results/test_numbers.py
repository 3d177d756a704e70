"""Numbers in reasons and thresholds: what is shown is true, and what is pasted back means the same."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.metrics.acceptance import parse_criterion
from probe.results.diff import Criterion
from probe.results.numbers import beside

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("value", "threshold", "text"),
    [
        (0.31, 0.05, ("0.31", "0.05")),
        (0.05000001, 0.05, ("0.05000001", "0.05")),
        (math.inf, 0.05, ("inf", "0.05")),
        (0.05, 0.05, ("0.05", "0.05")),
        (0.99999, 0.9999999, ("0.99999", "0.9999999")),
        (0.9999997, 0.9999999, ("0.9999997", "0.9999999")),
        (1e-6, 0.0, ("1e-06", "0")),
    ],
)
def test_beside(value: float, threshold: float, text: tuple[str, str]) -> None:
    assert beside(value, threshold) == text


@given(FINITE, FINITE)
def test_beside_never_shows_two_numbers_as_one(value: float, threshold: float) -> None:
    left, right = beside(value, threshold)
    assert float(right) == threshold
    assert (float(left) < threshold) == (value < threshold) and (float(left) > threshold) == (value > threshold)


@pytest.mark.parametrize("threshold", [0.01, 0.9999999, 1e-05, 3.0, 65504.0, 1.00000011920929])
def test_a_criterion_is_written_as_it_was_meant(threshold: float) -> None:
    """Pages print it into commands: with six digits, cosine>=0.9999999 would be pasted as cosine>=1."""
    one = Criterion("cosine", ">=", threshold, "y")
    assert parse_criterion(str(one)).threshold == threshold


@given(FINITE)
def test_every_threshold_survives_being_written(threshold: float) -> None:
    assert parse_criterion(str(Criterion("max_abs", "<=", threshold))).threshold == threshold
