"""Verdicts of whole recordings: what must break one, what must not, and what is said about it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from probe.compare.diff import diff_sources
from probe.compare.explain import first_divergence
from probe.errors import InputError
from probe.metrics.acceptance import BLANK, parse_criterion
from probe.results.diff import TensorDiff
from probe.results.tensors import RunHeader
from probe.store.opening import open_source
from tests.compare.recorder import GOLDEN, Array, diff


@pytest.mark.parametrize(
    ("error", "precision", "verdict"),
    [
        (0.0, None, "passed"),
        (5e-4, None, "passed"),
        (2e-3, None, "failed"),
        (0.005, "fp16", "passed"),
        (0.02, "fp16", "warned"),
        (0.06, "fp16", "failed"),
        (0.02, "tf32", "warned"),
        (0.02, "bf16", "passed"),
        (0.04, "bf16", "warned"),
        (0.06, "bf16", "failed"),
    ],
)
def test_default_acceptance(recorder: Any, error: float, precision: str | None, verdict: str) -> None:
    actual = GOLDEN.copy()
    actual[0, 0] += error * np.abs(GOLDEN).max()
    result = diff(recorder, {"y": actual}, {"y": GOLDEN}, precision=precision)
    # the item's own range is smaller than the tensor's, which may turn passed into warned
    assert result.verdict == verdict or (verdict == "passed" and "batch item" in result.reasons[0])
    assert bool(result) == (result.verdict in ("passed", "warned"))
    assert all(c.source == "default" for c in result.acceptance)


@pytest.mark.parametrize(
    ("actual", "golden", "status"),
    [
        ({}, {"y": GOLDEN}, "missing"),
        ({"y": GOLDEN, "z": GOLDEN}, {"y": GOLDEN}, "extra"),
        ({"y": GOLDEN.T}, {"y": GOLDEN}, "shape_mismatch"),
        ({"y": GOLDEN.reshape(8, 4)}, {"y": GOLDEN}, "shape_mismatch"),
        ({"y": GOLDEN.astype(np.int32)}, {"y": GOLDEN}, "kind_mismatch"),
    ],
)
def test_what_was_not_compared_never_passes(recorder: Any, actual: Any, golden: Any, status: str) -> None:
    result = diff(recorder, actual or {"unrelated": GOLDEN}, golden)
    assert result.verdict == "failed"
    assert status in {t.status for t in result.tensors}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_that_golden_lacks_fail_whatever_the_acceptance(recorder: Any, value: float) -> None:
    actual = GOLDEN.copy()
    actual[1, 1] = value
    result = diff(recorder, {"y": actual}, {"y": GOLDEN}, acceptance=[parse_criterion("max_abs<=inf")])
    assert result.verdict == "failed"
    assert "first_nonfinite" in {f.kind for f in result.findings}


def test_matching_nan_and_inf_pass(recorder: Any) -> None:
    golden = GOLDEN.copy()
    golden[0, :3] = [np.nan, np.inf, -np.inf]
    assert diff(recorder, {"y": golden}, {"y": golden}).verdict == "passed"


@pytest.mark.parametrize(
    ("values", "how", "verdict"),
    [
        ([np.nan, np.nan], {}, "not_judged"),
        ([np.nan, np.inf], {"acceptance": [parse_criterion("range_rel<=0.01")]}, "not_judged"),
        ([np.inf, np.inf], {"preset": "numpy"}, "passed"),  # which takes equal infinities for equal
        ([-np.inf, -np.inf], {}, "passed"),  # masks
        ([], {}, "passed"),
    ],
)
def test_a_golden_without_numbers_says_nothing(
    recorder: Any, values: list[float], how: dict[str, Any], verdict: str
) -> None:
    """One NaN in an input becomes NaN everywhere, on both sides: no precision fails then."""
    golden = np.array(values, np.float32)
    result = diff(recorder, {"y": golden}, {"y": golden}, **how)
    assert result.verdict == verdict
    assert result.reasons == (() if verdict == "passed" else (f"y: {BLANK}",))


@pytest.mark.parametrize("change", [(0, "passed"), (1, "failed")])
def test_integers_must_be_equal(recorder: Any, change: tuple[int, str]) -> None:
    golden = np.arange(6, dtype=np.int64)
    actual = golden.copy()
    actual[-1] += change[0]
    assert diff(recorder, {"y": actual}, {"y": golden}).verdict == change[1]


def test_wrapping_integers_fail(recorder: Any) -> None:
    for dtype in (np.int32, np.int64, np.uint64):
        ends = np.iinfo(dtype)
        assert (
            diff(recorder, {"y": np.array([ends.max], dtype)}, {"y": np.array([ends.min], dtype)}).verdict == "failed"
        )


def test_text(recorder: Any) -> None:
    words = np.array(["cat", "dog"], dtype=object)
    assert diff(recorder, {"y": words}, {"y": words}).verdict == "passed"
    assert diff(recorder, {"y": words[::-1]}, {"y": words}).verdict == "failed"


def test_float16_beside_float32_is_compared_as_fp16_and_said(recorder: Any) -> None:
    result = diff(recorder, {"y": GOLDEN.astype(np.float16)}, {"y": GOLDEN})
    assert result.verdict == "passed"
    assert "dtype_differs" in {f.kind for f in result.findings}
    assert {c.metric for c in result.acceptance} == {"range_rel", "cosine"}


def test_quantised_models_are_not_judged_without_an_acceptance(recorder: Any) -> None:
    golden = recorder().add("y", GOLDEN, "output", step=0.1)
    golden.header = RunHeader(golden="qdq kept")
    actual = recorder().add("y", GOLDEN + np.float32(0.1), "output")
    a, g = actual.open(), golden.open()
    assert diff_sources(a, g).verdict == "not_judged"
    judged = diff_sources(a, g, acceptance=[parse_criterion("max_steps<=1.5")])
    assert judged.verdict == "passed"
    assert judged.tensors[0].metrics is not None
    assert judged.tensors[0].metrics.max_steps == pytest.approx(1.0, rel=1e-3)


def test_empty_outputs_compare(recorder: Any) -> None:
    empty = np.zeros((0, 4), np.float32)
    assert diff(recorder, {"y": empty}, {"y": empty}).verdict == "passed"
    assert diff(recorder, {"y": empty}, {"y": np.zeros((1, 4), np.float32)}).verdict == "failed"


def test_interior_tensors_are_findings_unless_layers_are_strict(recorder: Any) -> None:
    actual = recorder().add("h", GOLDEN * 2).add("y", GOLDEN, "output").open()
    golden = recorder().add("h", GOLDEN).add("y", GOLDEN, "output", reads=("h",)).open()
    loose = diff_sources(actual, golden)
    assert (loose.verdict, loose.first_divergence) == ("passed", ("h",))
    assert diff_sources(actual, golden, strict_layers=True).verdict == "failed"


def test_interior_tensors_of_golden_need_not_be_recorded(recorder: Any) -> None:
    golden = recorder().add("h", GOLDEN).add("y", GOLDEN, "output").open()
    actual = recorder().add("y", GOLDEN, "output").open()
    result = diff_sources(actual, golden)
    assert result.verdict == "passed"
    assert {t.name: t.status for t in result.tensors} == {"h": "not_recorded", "y": "compared"}


def test_without_roles_every_tensor_is_an_output(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", h=GOLDEN * 2, y=GOLDEN)
    np.savez(tmp_path / "g.npz", h=GOLDEN, y=GOLDEN)
    result = diff_sources(open_source(tmp_path / "a.npz"), open_source(tmp_path / "g.npz"))
    assert (result.verdict, result.roles_known) == ("failed", False)


def test_roles_of_a_dump_hold_for_an_npz_beside_it(recorder: Any, tmp_path: Path) -> None:
    golden = recorder().add("h", GOLDEN).add("y", GOLDEN, "output").open()
    np.savez(tmp_path / "a.npz", h=GOLDEN * 2, y=GOLDEN, debug=GOLDEN)
    result = diff_sources(open_source(tmp_path / "a.npz"), golden)
    assert result.verdict == "passed"
    assert {t.name: t.role for t in result.tensors} == {"h": "internal", "y": "output", "debug": "internal"}


def test_outputs_left_out_by_the_selection_are_not_passed(recorder: Any) -> None:
    result = diff(recorder, {"x": GOLDEN, "y": GOLDEN}, {"x": GOLDEN, "y": GOLDEN}, select=re.compile("x"))
    assert result.verdict == "not_judged"
    assert "y" in result.reasons[-1]


def test_first_divergences_are_those_whose_inputs_are_within(recorder: Any) -> None:
    # a -> b -> c (bad) -> d (bad), and e (bad) from a: c and e are first, d is not
    reads = {"a": (), "b": ("a",), "c": ("b",), "d": ("c",), "e": ("a",)}
    bad = {"c", "d", "e"}
    sides = []
    for wrong in (bad, set()):
        side = recorder()
        for name, read in reads.items():
            side.add(name, GOLDEN * (2 if name in wrong else 1), "output" if name == "d" else "internal", reads=read)
        sides.append(side.open())
    assert diff_sources(*sides).first_divergence == ("c", "e")


def test_first_divergence_looks_through_what_was_not_recorded() -> None:
    def tensor(name: str, beyond: bool, status: Any = "compared") -> TensorDiff:
        return TensorDiff(
            name, name, status, "internal", "failed" if beyond else "passed", None, None, (), beyond=beyond
        )

    tensors = [tensor("a", True), tensor("b", False, "not_recorded"), tensor("c", True)]
    assert first_divergence(tensors, {"b": ("a",), "c": ("b",)}) == ("a",)
    assert first_divergence([tensor("a", False), *tensors[1:]], {"b": ("a",), "c": ("b",)}) == ("c",)


def test_first_nan_names_its_operands(recorder: Any) -> None:
    square = np.float32([[1e6, 4.0]])
    golden = recorder().add("s", square, nodes=("Mul_1",), reads=("x",)).add("y", square[:, 1:], "output", reads=("s",))
    actual = recorder().add("s", np.float32([[np.inf, 4.0]]), precision="fp16").add("y", square[:, 1:], "output")
    finding = next(f for f in diff_sources(actual.open(), golden.open()).findings if f.kind == "first_nonfinite")
    assert (finding.tensor, finding.node, finding.fatal) == ("s", "Mul_1", False)
    assert "65504" in finding.message
    assert finding.cure


def test_statistics_alone_prove_identity_and_nothing_else(recorder: Any) -> None:
    def side(array: Array) -> Any:
        one = recorder().add("y", array, "output")
        one.stats_only = True
        return one.open()

    nan = GOLDEN.copy()
    nan[0, 0] = np.nan
    assert diff_sources(side(GOLDEN), side(GOLDEN)).verdict == "passed"
    assert diff_sources(side(GOLDEN + 1), side(GOLDEN)).verdict == "not_judged"
    assert diff_sources(side(nan), side(GOLDEN)).verdict == "failed"


def test_branches_that_did_not_run(recorder: Any) -> None:
    golden = recorder().add("t", None, status="not_run", note="else branch").add("y", GOLDEN, "output").open()
    actual = recorder().add("t", None, status="not_run", note="else branch").add("y", GOLDEN, "output").open()
    result = diff_sources(actual, golden)
    assert result.verdict == "passed"
    assert result.tensors[0].status == "not_run"


def test_close_calls_are_said(recorder: Any) -> None:
    actual = GOLDEN.copy()
    actual[0] += 0.0008 * np.abs(GOLDEN).max()
    assert "near_threshold" in {f.kind for f in diff(recorder, {"y": actual}, {"y": GOLDEN}).findings}


def test_an_acceptance_for_no_output_is_refused(recorder: Any) -> None:
    with pytest.raises(InputError, match="names no output"):
        diff(recorder, {"y": GOLDEN}, {"y": GOLDEN}, acceptance=[parse_criterion("cosine>=0.9 @ yy")])


def test_an_undefined_metric_leaves_the_output_not_judged(recorder: Any) -> None:
    result = diff(recorder, {"y": GOLDEN}, {"y": GOLDEN}, acceptance=[parse_criterion("kl<=0.1")])
    assert result.verdict == "not_judged"


def test_softmax_outputs_warn_when_the_answer_changes(recorder: Any) -> None:
    golden = np.float32([[0.501, 0.499], [0.9, 0.1]])
    actual = np.float32([[0.499, 0.501], [0.9, 0.1]])
    result = diff(recorder, {"y": actual}, {"y": golden}, precision="fp16")
    assert result.verdict == "warned"
    assert "top1" in " ".join(result.reasons)


def test_inputs_that_one_side_knows_are_not_compared(recorder: Any, tmp_path: Path) -> None:
    """A file without roles may hold the network's inputs beside its outputs, as a recording written as .safetensors does."""
    dump = recorder().add("x", GOLDEN, "input").add("y", GOLDEN, "output").open()
    np.savez(tmp_path / "all.npz", x=GOLDEN, y=GOLDEN)
    plain = open_source(tmp_path / "all.npz")
    for actual, golden in ((dump, plain), (plain, dump)):
        result = diff_sources(actual, golden, acceptance=[parse_criterion("max_abs<=0")])
        assert result.verdict == "passed"
        assert [t.name for t in result.tensors] == ["y"]
