"""What is good enough: expressions, presets, defaults."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.errors import InputError
from probe.metrics.acceptance import default_acceptance, parse_criterion
from tests.compare.recorder import diff


@pytest.mark.parametrize(
    ("preset", "error", "verdict"),
    [
        ("numpy", 0.9e-5, "passed"),
        ("numpy", 3e-5, "failed"),
        ("torch", 1e-6, "passed"),
        ("torch", 3e-5, "failed"),
        ("polygraphy", 0.9e-5, "passed"),
        ("polygraphy", 3e-5, "failed"),
        ("trtexec", 3e-5, "not_judged"),
    ],
)
def test_presets(recorder: Any, preset: str, error: float, verdict: str) -> None:
    golden = np.ones(10, np.float32)
    assert diff(recorder, {"y": golden * np.float32(1 + error)}, {"y": golden}, preset=preset).verdict == verdict


def test_polygraphy_lets_either_tolerance_suffice_and_numpy_adds_them(recorder: Any) -> None:
    golden = np.float32([1e-6, 100])
    actual = np.float32([9e-6, 100.0009])
    assert diff(recorder, {"y": actual}, {"y": golden}, preset="polygraphy").verdict == "passed"
    one = diff(recorder, {"y": np.float32([9e-6, 100])}, {"y": golden}, preset="numpy")
    assert one.verdict == "failed"


@pytest.mark.parametrize(
    ("text", "metric", "op", "threshold", "output"),
    [
        ("range_rel<=0.01", "range_rel", "<=", 0.01, None),
        (" cosine >= .999 @ logits", "cosine", ">=", 0.999, "logits"),
        ("max_abs<1e-3 @ a @ b", "max_abs", "<", 1e-3, "a @ b"),
        ("top1==1", "top1", "==", 1.0, None),
    ],
)
def test_acceptance_expressions(text: str, metric: str, op: str, threshold: float, output: str | None) -> None:
    c = parse_criterion(text)
    assert (c.metric, c.op, c.threshold, c.output, c.source) == (metric, op, threshold, output, "user")


@pytest.mark.parametrize("text", ["", "cosine", "cosine=>1", "cosin>=0.9", "cosine>=nan", "cosine>=x", "@", "<=1 @ y"])
def test_bad_acceptance_expressions(text: str) -> None:
    with pytest.raises(InputError):
        parse_criterion(text)


@given(st.text(max_size=40))
def test_no_text_breaks_the_acceptance_parser(text: str) -> None:
    with contextlib.suppress(InputError):
        parse_criterion(text)


def test_types_without_a_default_are_not_judged() -> None:
    assert default_acceptance(None, "float8_e4m3fn", "float32") == ()
    assert default_acceptance(None, "complex64", "complex64") == ()
