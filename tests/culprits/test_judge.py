"""The judge of a search says what ``diff_sources`` says of the same outputs, and its margins are ordered as the values are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probe.compare.diff import diff_sources
from probe.culprits.judge import Judge, Judged
from probe.errors import InputError
from probe.metrics.acceptance import parse_criterion
from probe.results.diff import Criterion, DiffResult
from probe.results.tensors import InputInfo, RunHeader, TensorInfo
from probe.store.feeds import InputSet
from probe.store.memory import Arrays
from probe.store.tape import Tape
from tests.culprits.recordings import Outputs, tape_of

Array = np.ndarray[Any, Any]
ONE = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


def criteria(*texts: str) -> list[Criterion]:
    return [parse_criterion(text) for text in texts]


# --- as diff does

SHAPES = [(), (5,), (1, 6), (3, 4), (2, 3, 2), (1, 3, 2, 2), (2, 2, 2, 2), (0,), (0, 3)]
DTYPES = [np.float32, np.float32, np.float32, np.float16, np.float64, np.int64, np.int32, np.int8, np.bool_]
SPECIAL = [math.nan, math.inf, -math.inf, -3.4e38, 3.4e38, 2e5, 0.0, 1e-40]
ACCEPTANCES: list[tuple[str, ...]] = [
    (), (), (),
    ("range_rel<=0.01",), ("cosine>=0.999",), ("max_abs<=0.1", "cosine>=0.9"), ("mean_abs<=0.01",), ("p99<=0.05",), ("rmse<0.02",),
    ("top1>=0.9",), ("sqnr_db>=30",), ("mismatch_fraction<=0.1",), ("ulp_max<=64",), ("kl<=0.01",), ("channel_worst<=0.02",),
    ("range_rel<=0.01 @ a",), ("range_rel<=0.01 @ a", "cosine>=0.99 @ b"), ("range_rel_item<=0.02",), ("max_rel<=0.5", "l2<=0.001"),
    ("cosine==1",), ("max_abs<=0",), ("psnr>=20", "cos<=0.01"), ("max_steps<=1",),
]  # fmt: skip
PRESETS = [None, None, None, None, "torch", "numpy", "trtexec", "polygraphy"]


@st.composite
def cases(draw: st.DrawFn) -> tuple[Outputs, Outputs, dict[str, Any]]:
    """Actual and golden outputs of one to four inputs, and how they are judged."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = ["a", "b", "c"][: draw(st.integers(1, 3))]
    kinds = {name: (draw(st.sampled_from(SHAPES)), draw(st.sampled_from(DTYPES))) for name in names}
    softmax = draw(st.booleans())
    keys = [f"input-{number}" for number in range(draw(st.integers(1, 4)))]
    actual: dict[str, dict[str, Array]] = {key: {} for key in keys}
    golden: dict[str, dict[str, Array]] = {key: {} for key in keys}
    for key in keys:
        for name, (shape, dtype) in kinds.items():
            g = np.asarray(rng.standard_normal(shape) * draw(st.sampled_from([1, 1, 1000, 1e-3, 0])))
            if softmax and shape and g.size and dtype != np.bool_:
                g = np.exp(g - g.max(axis=-1, keepdims=True))
                g /= g.sum(axis=-1, keepdims=True)
            a = g + rng.standard_normal(shape) * draw(st.sampled_from([0, 0, 1e-4, 0.02, 0.3])) * (
                np.abs(g).max(initial=0) or 1
            )
            if dtype is np.int64 and draw(st.booleans()):
                g, a = g * 2**40, a * 2**40
            if np.dtype(dtype).kind == "f" and g.size and draw(st.integers(0, 9)) == 0:
                place, value = int(rng.integers(g.size)), draw(st.sampled_from(SPECIAL))
                g.reshape(-1)[place] = value
                a.reshape(-1)[place] = draw(st.sampled_from([value, value, -65504.0, math.nan]))
            if np.dtype(dtype).kind == "f" and a.size and draw(st.integers(0, 19)) == 0:
                a.reshape(-1)[int(rng.integers(a.size))] = draw(st.sampled_from(SPECIAL))
            if np.dtype(dtype).kind == "f" and draw(st.integers(0, 14)) == 0:  # no number in golden
                g, a = (np.full_like(x, draw(st.sampled_from([math.nan, math.inf]))) for x in (g, a))
            with np.errstate(all="ignore"):
                golden[key][name], actual[key][name] = np.asarray(g).astype(dtype), np.asarray(a).astype(dtype)
    oddity = draw(st.sampled_from([*[""] * 14, "missing", "absent", "extra", "shape", "kind", "type"]))
    key, name = keys[-1], names[-1]
    if oddity == "missing":
        for named in actual.values():
            del named[name]
    elif oddity == "absent":
        del actual[key][name]
    elif oddity == "extra":
        actual[key]["more"] = ONE
    elif oddity == "shape":
        actual[key][name] = np.ones((7, 1), actual[key][name].dtype)
    elif oddity in ("kind", "type"):
        for named in actual.values():
            with np.errstate(all="ignore"):
                named[name] = named[name].astype(np.int16 if oddity == "kind" else np.float64)
    texts = draw(st.sampled_from(ACCEPTANCES))
    texts = tuple(text for text in texts if text.partition(" @ ")[2] in ("", *names))
    options: dict[str, Any] = {
        "acceptance": criteria(*texts), "precision": draw(st.sampled_from(["fp16", "bf16", "fp32", "tf32", None])),
        "preset": draw(st.sampled_from(PRESETS)),
    }  # fmt: skip
    return {key: named for key, named in actual.items() if named}, golden, options


def both(actual: Outputs, golden: Outputs, options: dict[str, Any]) -> tuple[Judged, DiffResult]:
    source = tape_of(golden)
    diff = diff_sources(tape_of(actual), source, **options)
    return Judge(source, inputs=list(actual), **options)(actual), diff


def said(diff: DiffResult) -> tuple[str, ...]:
    """All reasons of the outputs that the verdict comes from, in the order of ``diff.reasons``."""
    return tuple(
        f"{t.name}: {reason}"
        for t in diff.tensors
        if t.role == "output" and t.verdict == diff.verdict != "passed"
        for reason in t.reasons
    )


@settings(max_examples=250)
@given(cases())
def test_the_verdict_is_that_of_diff(case: tuple[Outputs, Outputs, dict[str, Any]]) -> None:
    actual, golden, _ = case
    if not actual:
        return
    judged, diff = both(*case)
    assert (judged.verdict, judged.reasons) == (diff.verdict, said(diff))
    assert judged.passed == bool(diff)
    if all(t.status == "compared" for t in diff.outputs):
        if len(actual) == 1:
            expected = tuple(actual) if diff.verdict == "failed" else ()
        else:
            expected = tuple(key for key in golden if any(key in t.failing_inputs for t in diff.outputs))
        assert judged.failing_inputs == expected
        nonfinite = any(t.metrics.nonfinite_mismatch for t in diff.outputs if t.metrics)
        assert (judged.worst == math.inf) >= nonfinite
        if len(actual) == 1 and not nonfinite:
            assert judged.worst == max(t.metrics.range_rel for t in diff.outputs if t.metrics)
    else:
        assert judged.worst is None
    assert_margin(judged)


def assert_margin(judged: Judged) -> None:
    if judged.passed:
        assert judged.margin >= 0
    elif judged.verdict == "failed":
        assert judged.margin <= 0
    else:
        assert math.isnan(judged.margin)


def probabilities(*shape: int) -> Array:
    """Rows along axis 1, whose two largest classes lie within a percent of each other."""
    found = np.moveaxis(np.random.default_rng(1).random(shape).astype(np.float32), 1, -1).copy()
    found[..., 0], found[..., 1] = 1.0, 1.001
    return np.moveaxis(found / found.sum(axis=-1, keepdims=True), -1, 1).copy()


def swapped(rows: Array) -> Array:
    """The two largest classes of the first row change places, by next to nothing."""
    found = np.moveaxis(rows, 1, -1).copy()
    row = found.reshape(-1, found.shape[-1])[0]
    second, first = np.argsort(row)[-2:]
    row[second] = row[first] + np.float32(1e-5)
    return np.ascontiguousarray(np.moveaxis(found, -1, 1))


LOUD = np.stack([1000 * ONE, ONE])
TABLE: dict[str, tuple[Array, Array, dict[str, Any], str]] = {
    "another class of a softmax": (swapped(probabilities(3, 8)), probabilities(3, 8), {}, "warned"),
    "along channels": (swapped(probabilities(2, 5, 3, 3)), probabilities(2, 5, 3, 3), {}, "warned"),
    "of no softmax": (swapped(3 * probabilities(3, 8)), 3 * probabilities(3, 8), {}, "passed"),
    "under an acceptance of the user": (swapped(probabilities(3, 8)), probabilities(3, 8), {"acceptance": criteria("max_abs<=1")}, "passed"),
    "top1 of four axes": (swapped(3 * probabilities(2, 5, 3, 3)), 3 * probabilities(2, 5, 3, 3), {"acceptance": criteria("top1>=1")}, "failed"),
    "a quiet item of a batch": (LOUD + np.float32(0.1), LOUD, {}, "warned"),
    "every item alike": (LOUD * np.float32(1.005), LOUD, {}, "passed"),
    "either tolerance": (np.ones(4, np.float32) + np.float32(1.5e-5), np.ones(4, np.float32), {"preset": "polygraphy"}, "failed"),
    "one of two tolerances": (2 + ONE + np.float32(9e-6), 2 + ONE, {"preset": "polygraphy"}, "passed"),
    "their sum": (2 + ONE + np.float32(2.2e-5), 2 + ONE, {"preset": "numpy"}, "failed"),
    "their sum suffices": (2 + ONE + np.float32(9e-6), 2 + ONE, {"preset": "torch"}, "passed"),
    "ULP of the storage": (ONE + np.float32(1e-3), ONE, {"acceptance": criteria("ulp_max<=1000")}, "passed"),
    "ULP of the type": (ONE + np.float32(1e-3), ONE, {"acceptance": criteria("ulp_max<=1000"), "precision": "fp32"}, "failed"),
    "a mask that was clipped": (np.array([1, 2, -65504], np.float32), np.array([1, 2, -3.4e38], np.float32), {}, "passed"),
    "a mask that is none": (np.array([1, 2, -20], np.float32), np.array([1, 2, -3.4e38], np.float32), {}, "failed"),
    "a mask hides nothing": (np.array([1, 3, -3e38], np.float32), np.array([1, 2, -3.4e38], np.float32), {}, "failed"),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_table(name: str) -> None:
    actual, golden, options, verdict = TABLE[name]
    judged, diff = both({"i": {"y": actual}}, {"i": {"y": golden}}, {"precision": "fp16", **options})
    assert (judged.verdict, judged.reasons) == (diff.verdict, said(diff))
    assert judged.verdict == verdict
    assert_margin(judged)


def test_of_several_inputs_worst_cases_are_judged_one_by_one_and_statistics_together() -> None:
    golden = {f"i{number}": {"y": np.eye(4, dtype=np.float32)[[number % 4]]} for number in range(10)}
    actual = {**golden, "i3": {"y": golden["i3"]["y"][:, ::-1]}}
    for text, verdict in (
        ("top1>=0.9", "passed"),
        ("top1>0.9", "failed"),
        ("cosine>=0.5", "failed"),
        ("nmse<=0.3", "passed"),
    ):
        judged, diff = both(actual, golden, {"acceptance": criteria(text)})
        assert judged.verdict == diff.verdict == verdict, text
        assert judged.failing_inputs == (("i3",) if text.startswith("cosine") else ())


@settings(max_examples=80)
@given(cases())
def test_the_same_judge_judges_again_alike(case: tuple[Outputs, Outputs, dict[str, Any]]) -> None:
    actual, golden, options = case
    judge = Judge(tape_of(golden), inputs=list(actual), **options)
    if actual:
        first = judge(actual)
        judge(golden if len(actual) == len(golden) else {key: golden[key] for key in actual})
        assert repr(judge(actual)) == repr(first)


@pytest.mark.parametrize("text", [t for texts in ACCEPTANCES for t in texts if " @ " not in t and "steps" not in t])
def test_metrics_are_those_of_diff(text: str) -> None:
    rng = np.random.default_rng(0)
    golden = np.exp(rng.standard_normal((8, 5))).astype(np.float32)
    golden /= golden.sum(axis=1, keepdims=True)
    actual = (golden + 0.02 * rng.standard_normal(golden.shape)).astype(np.float32)
    options = {"acceptance": criteria(text), "precision": "fp16"}
    judged, diff = both({"i": {"y": actual}}, {"i": {"y": golden}}, options)
    metrics = diff.outputs[0].metrics
    assert metrics is not None
    (value,) = judged.metrics["y"].values()
    assert value > 0
    if hasattr(metrics, options["acceptance"][0].metric):
        assert value == getattr(metrics, options["acceptance"][0].metric)


def test_a_quiet_input_fails_beside_a_loud_one() -> None:
    golden = {"loud": {"y": 1000 * ONE}, "quiet": {"y": ONE}}
    actual = {"loud": {"y": 1000 * ONE}, "quiet": {"y": ONE + np.float32(0.5)}}
    judged = Judge(tape_of(golden), acceptance=criteria("range_rel<=0.05"))(actual)
    assert (judged.verdict, judged.failing_inputs, judged.worst) == ("failed", ("quiet",), 0.5)
    assert judged.metrics["y"]["range_rel"] == 0.5, "of the input that decides, and not of all together"
    assert judged.margin == pytest.approx(1 - 0.5 / 0.05)
    assert any("input quiet" in reason for reason in judged.reasons)


def test_quantised_goldens_have_no_default_acceptance() -> None:
    golden = tape_of({"i": {"y": ONE}}, golden="as_is, qdq kept")
    actual = {"i": {"y": ONE + np.float32(1e-6)}}
    assert Judge(golden, precision="fp16")(actual).verdict == "not_judged"
    assert diff_sources(tape_of(actual), golden, precision="fp16").verdict == "not_judged"
    assert Judge(golden, acceptance=criteria("range_rel<=0.1"))(actual).passed


def test_steps_come_from_the_golden() -> None:
    golden = Tape(header=RunHeader())
    with golden:
        golden.add(TensorInfo("y", "float32", (3, 4), "i", role="output", step=0.25), ONE)
    judge = Judge(golden, acceptance=criteria("max_steps<=1"))
    assert judge({"i": {"y": ONE + np.float32(0.25)}}).metrics["y"]["max_steps"] == pytest.approx(1, rel=1e-6)
    assert not judge({"i": {"y": ONE + np.float32(0.5)}}).passed


# --- what did not run


def test_an_input_that_does_not_run_fails() -> None:
    golden = {key: {"y": ONE} for key in "abc"}
    judged = Judge(tape_of(golden))({"a": {"y": ONE}, "c": {"y": ONE + np.float32(1)}}, {"b": "shapes differ"})
    assert (judged.verdict, judged.margin, judged.failing_inputs) == ("failed", -math.inf, ("b", "c"))
    assert judged.reasons[0] == "it does not run: shapes differ (input b)" and judged.worst is None
    alone = Judge(tape_of({"a": {"y": ONE}}))({}, {"a": "shapes differ"})
    assert (alone.verdict, alone.reasons, alone.failing_inputs) == (
        "failed",
        ("it does not run: shapes differ",),
        ("a",),
    )


def test_inputs_that_were_not_run_are_not_judged() -> None:
    judge = Judge(tape_of({"a": {"y": ONE}, "b": {"y": ONE}}))
    partly = judge({"a": {"y": ONE}})
    assert (partly.verdict, partly.passed) == ("not_judged", False) and math.isnan(partly.margin)
    assert partly.reasons == ("1 of 2 inputs were not run",)
    assert judge({"a": {"y": -ONE}}).verdict == "failed", "which no further input can change"
    assert judge({}).verdict == "not_judged"


# --- goldens of every kind


def test_goldens_by_content_whatever_they_call_the_input() -> None:
    sets = [InputSet(key, {"x": np.full(3, value, np.float32)}, "test") for key, value in (("m", 1), ("n", 2))]
    golden = Tape(header=RunHeader(inputs=tuple(InputInfo(f"their-{one.id}", one.sha256, "") for one in sets[::-1])))
    with golden:
        for one in sets:
            golden.add(TensorInfo("y", "float32", (), f"their-{one.id}", role="output"), one.feeds["x"] * ONE.max())
    judge = Judge(golden, inputs=sets)
    assert judge.ids == ("m", "n")
    right = {one.id: {"y": one.feeds["x"]} for one in sets}
    assert judge(right).passed
    assert not judge({"m": right["n"], "n": right["m"]}).passed


def test_goldens_are_told_apart_by_their_values() -> None:
    one = Judge({"i": {"y": ONE}}).golden_sha256
    assert one == Judge(tape_of({"i": {"y": ONE.copy()}})).golden_sha256
    others = [{"i": {"y": ONE + 1}}, {"i": {"z": ONE}}, {"j": {"y": ONE}}, {"i": {"y": ONE.astype(np.float64)}}]
    assert len({one, *(Judge(other).golden_sha256 for other in others)}) == 5


def test_a_golden_without_roles_is_told_which_tensors_are_outputs() -> None:
    golden = Arrays({"hidden": ONE, "y": ONE, "list[0]": ONE, "list[1]": ONE})
    actual = {"i": {"y": ONE, "list[0]": ONE, "list[1]": ONE}}
    assert Judge(golden, ["y", "list"], ["i"])(actual).verdict == "passed"
    assert Judge(golden, inputs=["i"])(actual).reasons == ("hidden: not in actual",)
    with pytest.raises(InputError, match="no outputs"):
        Judge(golden, ["z"], ["i"])


def test_an_output_that_is_an_input_is_not_judged_nor_missed() -> None:
    sets = [InputSet("i", {"x": ONE}, "test")]
    judged = Judge({"i": {"y": ONE}}, inputs=sets)({"i": {"x": ONE, "y": ONE}})
    assert judged.verdict == "passed"


def test_text_and_odd_types_are_judged() -> None:
    words = np.array(["one", "two"], dtype=object)
    judge = Judge({"i": {"words": words, "z": np.ones(2, np.complex64)}})
    assert judge({"i": {"words": words.astype(str), "z": np.ones(2, np.complex64)}}).verdict == "passed"
    wrong = judge({"i": {"words": words[::-1], "z": np.ones(2, np.complex64)}})
    assert (wrong.verdict, wrong.margin) == ("failed", -1.0)


@pytest.mark.parametrize(
    ("golden", "how", "match"),
    [
        ({"i": {"y": ONE}}, {"inputs": ["i", "j"]}, "no recording of input 'j'"),
        ({"i": {"y": ONE}, "k": {"y": ONE}}, {"inputs": ["j"]}, "no input in common"),
        ({"i": {"y": ONE}}, {"acceptance": criteria("cosine>=1 @ z")}, "names no output"),
        ({"i": {"y": ONE}}, {"over": "median"}, "cannot join"),
        ({"i": {"y": ONE}}, {"check": "judge.py"}, "where the outputs are"),
    ],
)
def test_what_cannot_be_judged_is_said_at_once(golden: Outputs, how: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        Judge(golden, **how)


def test_goldens_without_values() -> None:
    golden = Tape()
    with golden:
        golden.add(TensorInfo("y", "float32", (3, 4), "i", role="output", status="stats_only"), None)
    with pytest.raises(InputError, match="no values of output 'y'"):
        Judge(golden)
    odd = Tape()
    with odd:
        odd.add(TensorInfo("y", "unknown", (), "i", role="output", status="unsupported", note="a map"), None)
        odd.add(TensorInfo("z", "float32", (), "i", role="output"), ONE)
    actual = {"i": {"y": ONE, "z": ONE}}
    judged = Judge(odd)(actual)
    assert (judged.verdict, judged.reasons) == ("not_judged", ("y: a map",))
    assert diff_sources(tape_of(actual), odd).verdict == "not_judged"


# --- what nothing judges


@pytest.mark.parametrize(
    ("how", "refused"),
    [
        ({}, ""),
        ({"acceptance": criteria("range_rel<=0.1 @ a")}, "b"),
        ({"acceptance": criteria("range_rel<=0.1 @ a", "cosine>=0.9 @ b")}, ""),
        ({"acceptance": criteria("range_rel<=0.1")}, ""),
        ({"acceptance": criteria("range_rel<=0.1 @ a"), "check": lambda _: True}, ""),
        ({"acceptance": (), "preset": "torch"}, ""),
    ],
)
def test_an_output_that_nothing_is_said_of_is_refused(how: dict[str, Any], refused: str) -> None:
    """It would pass only where it is identical, and a search would look for just that."""
    judged = Judge({"x": {"a": ONE, "b": ONE}}, precision="fp16", **how)
    if not refused:
        judged.require_criteria()
        return
    with pytest.raises(InputError, match=f"good enough for output '{refused}'"):
        judged.require_criteria()


@pytest.mark.parametrize("over", ["worst", "mean"])
@pytest.mark.parametrize("accepts", [True, False])
def test_a_check_judges_what_no_criterion_is_of(over: str, accepts: bool) -> None:
    how: Any = {"acceptance": criteria("range_rel<=0.1 @ a"), "check": lambda _: accepts, "over": over}
    judged = Judge({"x": {"a": ONE, "b": ONE}}, precision="fp16", **how)({"x": {"a": ONE, "b": ONE + 1}})
    assert judged.verdict == ("passed" if accepts else "failed")
