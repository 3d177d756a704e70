"""Causes from arrays: every kind has a case that shows it, with its numbers, and one that must not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.debug.causes import Cause, Event, Operand, describe_effect, is_float, nonfinite_cause, places, spacing
from probe.debug.finite_causes import finite_cause, inner_overflow, vanishes
from probe.precision import PRECISIONS, numpy_dtype, round_to

FP16, BF16 = PRECISIONS["fp16"], PRECISIONS["bf16"]
F = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Log": np.log, "Sqrt": np.sqrt, "Pow": np.power,
     "Reciprocal": np.reciprocal, "Rsqrt": lambda x: 1 / np.sqrt(x), "Max": np.maximum, "Exp": np.exp, "Where": lambda x, y: np.where(x > 0, x, y),
     "Floor": np.floor, "Sin": np.sin, "Identity": lambda x: x,
     "Softmax": lambda x: np.exp(x - x.max(-1, keepdims=True)) / np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)}  # fmt: skip


def event(
    op: str, *operands: object, form: str = "fp16", constants: tuple[int, ...] = (), wide: tuple[int, ...] = ()
) -> Event:
    """A node ``n`` of one operator: golden in FP32, actual from rounded operands; ``wide`` ones arrive unrounded, as graph inputs do."""
    golden = [np.asarray(x, np.float32) for x in operands]
    rounded = [round_to(x, form) for x in golden]
    with np.errstate(all="ignore"):
        return Event(
            "y", "n", op, PRECISIONS[form], np.asarray(F[op](*golden), np.float32),
            round_to(np.asarray(F[op](*rounded), np.float32), form),
            tuple(
                Operand(f"x{i}", g, None if i in constants else (g if i in wide else r), constant=i in constants)
                for i, (g, r) in enumerate(zip(golden, rounded, strict=True))
            ),
        )  # fmt: skip


NONFINITE = [
    # event, kind, tensor to blame, words of the message
    (event("Mul", [3.0, 300.0], [2.0, 300.0]), "overflow", "y", "golden reaches 90000, fp16 ends at 65504 (1.37 times"),
    (event("Where", [1.0, -1.0], [-3.4028235e38, -3.4028235e38], constants=(1,)), "constant_overflow", "x1", "-Inf"),
    (event("Where", [1.0, -1.0], [-3.4028235e38, -3.4028235e38], constants=(1,), form="bf16"), "constant_overflow", "x1", "bf16"),
    (event("Add", [1e5, 1.0], [-9e4, 1.0], wide=(0, 1)), "operand_overflow", "x0", "x0 holds 1e+05"),
    (event("Div", [1e-5, 2.0], [1e-9, 1.0]), "flushed_to_zero", "x1", "golden is as small as 1e-09"),
    (event("Div", [0.0, 2.0], [1e-9, 1.0]), "flushed_to_zero", "x1", "0/0 = NaN"),
    (event("Log", [1e-12, 1.0]), "flushed_to_zero", "x0", "log(0) = -Inf"),
    (event("Rsqrt", [1e-9]), "flushed_to_zero", "x0", "1/0 = Inf"),
    (event("Reciprocal", [1e-9]), "overflow", "y", "golden reaches 1e+09"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "kind", "tensor", "words"), NONFINITE, ids=lambda x: x if isinstance(x, str) else "")
def test_nan_and_inf_have_a_cause(case: Event, kind: str, tensor: str, words: str) -> None:
    assert not np.isfinite(case.actual).all(), "the case does not show what it is for"
    cause = nonfinite_cause(case)
    assert (cause.kind, cause.tensor) == (kind, tensor)
    assert words in cause.message
    assert cause.cure
    assert "elements" in cause.where


def test_rounding_below_zero_is_named() -> None:
    """sqrt(E[x^2] - E[x]^2) whose operand came out negative."""
    operand = Operand("variance", np.array([1e-4, 0.5], np.float32), np.array([-4.8e-4, 0.5], np.float32))
    with np.errstate(invalid="ignore"):
        case = Event("y", "n", "Sqrt", FP16, np.sqrt(operand.golden), np.sqrt(operand.stored(FP16)), (operand,))
    cause = nonfinite_cause(case)
    assert (cause.kind, cause.tensor) == ("rounded_below_zero", "variance")


def test_an_overflow_of_what_arrives_is_not_blamed_on_the_node() -> None:
    golden, arrived = np.array([60000.0], np.float32), np.array([66000.0], np.float32)
    operand = Operand("x", golden / 2, arrived / 2)
    case = Event("y", "n", "Add", FP16, golden, np.array([np.inf], np.float32), (operand,), on_golden=golden)
    cause = nonfinite_cause(case)
    assert cause.kind == "overflow_of_error" and "golden reaches 6e+04" in cause.message


def test_what_has_no_known_cause_says_so() -> None:
    ones = np.ones(3, np.float32)
    cause = nonfinite_cause(Event("y", "n", "Custom", FP16, ones, ones * np.nan, (Operand("x", ones, ones),)))
    assert cause.kind == "unexplained_nonfinite" and "x (largest 1)" in cause.message


def test_bf16_does_not_overflow_where_fp16_does() -> None:
    assert np.isfinite(event("Mul", [300.0], [300.0], form="bf16").actual).all()


rng = np.random.default_rng(0)
LOGITS = (rng.normal(size=(4, 16)) + 5000).astype(np.float32)
FINITE = [
    (event("Softmax", LOGITS), "coarse_argument", "x0", "4 apart"),
    (event("Softmax", LOGITS - 5000), None, "", ""),
    (event("Sin", np.linspace(0, 4000, 99)), "coarse_argument", "x0", "2 apart"),
    (event("Sub", np.linspace(100, 101, 9), np.linspace(100, 100.5, 9)), "cancellation", "y", "operands (x0 and x1) reach 101"),
    (event("Sub", np.linspace(100, 101, 9), np.linspace(-9, 9, 9)), None, "", ""),
    (event("Max", np.linspace(0, 1, 5), 1e-12, constants=(1,)), "constant_vanishes", "x1", "1e-12"),
    (event("Max", np.linspace(0, 1, 5), 1e-3, constants=(1,)), None, "", ""),
    (event("Log", np.array([3e-7, 1.0])), "underflow", "x0", "50% keep few bits"),
    (event("Mul", np.array([1e-4, 2e-4]), np.array([1e-3, 1e-3])), "underflow", "y", "smallest"),
    (event("Floor", np.array([2.9999, 7.0])), "discrete_step", "x0", "crosses"),
    (event("Floor", np.array([4097.0, 7.0])), "discrete_step", "x0", "whole numbers up to 4097"),
    (event("Identity", np.array([1.0001, 7.0])), None, "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("case", "kind", "tensor", "words"), FINITE, ids=lambda x: x if isinstance(x, str) else "")
def test_finite_errors_have_a_cause(case: Event, kind: str | None, tensor: str, words: str) -> None:
    assert np.isfinite(case.actual).all()
    cause = finite_cause(case, 0.05)
    assert (cause.kind if cause else None) == kind
    if cause is not None:
        assert cause.tensor == tensor and (words in cause.message or words == "smallest") and cause.cure


def test_a_common_offset_is_measured_where_the_rows_are_largest() -> None:
    cause = finite_cause(event("Softmax", LOGITS), 0.05)
    assert cause is not None and cause.range is not None
    assert 4990 < cause.range < 5010 and cause.margin == FP16.max / cause.range


def test_masked_logits_do_not_count() -> None:
    """-65504 beside logits around 0: the spacing there harms nobody."""
    masked = LOGITS - 5000
    masked[:, ::2] = -65504
    assert finite_cause(event("Softmax", masked), 0.05) is None


INF, ROW = np.array([np.inf]), np.full((1, 3), -np.inf)
EFFECTS = [
    ("Div", [np.ones(1), INF], np.zeros(1), "x / Inf = 0: finite but wrong"),
    ("Reciprocal", [INF], np.zeros(1), "1 / Inf = 0: finite but wrong"),
    ("Tanh", [INF], np.ones(1), "finite from here on"),
    ("Mul", [INF, np.zeros(1)], np.array([np.nan]), "0 * Inf = NaN"),
    ("Add", [INF, -INF], np.array([np.nan]), "Inf - Inf = NaN"),
    ("Div", [INF, INF], np.array([np.nan]), "Inf / Inf = NaN"),
    ("Softmax", [ROW], ROW * np.nan, "a row of -Inf alone has no largest element: NaN"),
    ("Softmax", [-ROW], ROW * np.nan, "Inf / Inf = NaN"),
    ("MatMul", [ROW], np.array([np.nan]), "0 * Inf or Inf - Inf in a sum: NaN"),
    ("Sqrt", [INF], INF, ""),
    ("Add", [np.array([np.nan])], np.array([np.nan]), ""),
]


@pytest.mark.parametrize(("op", "operands", "actual", "words"), EFFECTS)
def test_what_becomes_of_inf(op: str, operands: list[np.ndarray], actual: np.ndarray, words: str) -> None:
    assert describe_effect(op, operands, actual, np.zeros_like(actual)) == words


@pytest.mark.parametrize(
    ("op", "size", "found"),
    [("LayerNormalization", 60.0, True), ("LayerNormalization", 6.0, False), ("Relu", 60.0, False)],
)
def test_inner_ranges(op: str, size: float, found: bool) -> None:
    reach = inner_overflow(op, np.full((2, 64), size, np.float32), FP16)
    assert (reach is not None) == found
    assert reach is None or reach == 64 * size**2


@given(st.floats(2.0**-26, 65000))
def test_spacing_is_the_distance_of_neighbours(x: float) -> None:
    here = abs(np.float16(x))
    assert spacing(float(here), FP16) == float(np.nextafter(here, np.float16(np.inf)) - here) or here == np.float16(
        65504
    )


@given(st.floats(0, 2.0**126, width=32), st.sampled_from(["fp16", "bf16", "tf32"]))
def test_a_scalar_vanishes_exactly_when_it_rounds_to_zero(x: float, form: str) -> None:
    value = np.array(x, np.float32)
    assert vanishes(value, PRECISIONS[form]) == (x != 0 and float(round_to(value.reshape(1), form)[0]) == 0)


def test_most_of_a_tensor_must_vanish() -> None:
    assert vanishes(np.array([1e-12, 1e-12, 1.0], np.float32), FP16)
    assert not vanishes(np.array([1e-12, 1.0, 1.0], np.float32), FP16)
    assert not vanishes(np.array([0, 0]), FP16)


def test_places() -> None:
    assert places(np.array([[False, True], [True, True]])) == "3 of 4 elements, first [0,1]"
    assert places(np.array(True)) == "1 of 1 elements"
    assert places(np.zeros(3, bool)) == ""


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float16", True), ("float64", True), ("bfloat16", True), ("float8_e4m3fn", True), ("int32", False), ("bool", False), ("object", False)],
)  # fmt: skip
def test_floats_are_known_whatever_numpy_calls_them(dtype: str, expected: bool) -> None:
    assert is_float(np.ones(2, numpy_dtype(dtype) if dtype != "object" else object)) is expected


def test_bfloat16_is_looked_into() -> None:
    assert inner_overflow("ReduceL2", np.full(2, 300, numpy_dtype("bfloat16")), FP16) == 180000.0


@given(
    st.lists(st.floats(width=32), min_size=1, max_size=6),
    st.sampled_from(["Log", "Div", "Add", "Softmax", "Where", "Sqrt"]),
)
def test_any_numbers_give_a_cause_and_no_exception(values: list[float], op: str) -> None:
    """Whatever NaN, Inf and subnormals meet: the words may be modest, the analysis must not fall over."""
    x = np.array(values, np.float32)
    with np.errstate(all="ignore"):
        case = event(op, *([x, x[::-1]] if op in ("Div", "Add", "Where") else [x]))
        assert isinstance(nonfinite_cause(case), Cause)
        finite = finite_cause(case, 0.05)
        assert finite is None or (isinstance(finite, Cause) and finite.message)
