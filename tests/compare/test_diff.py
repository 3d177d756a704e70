"""Verdicts of whole recordings: what must break one, what must not, and what is said about it."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.compare.align import match_names, read_map, suggest
from probe.compare.diff import diff_sources
from probe.compare.explain import first_divergence
from probe.compare.regression import diff_results
from probe.errors import InputError
from probe.metrics.acceptance import default_acceptance, parse_criterion
from probe.results.diff import DiffResult, TensorDiff
from probe.results.tensors import InputInfo, Role, RunHeader, TensorInfo
from probe.store.opening import open_source
from probe.store.writer import DumpWriter

Array = np.ndarray[Any, Any]
GOLDEN = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)


class Recorder:
    """Builds a dump: tensors are (name, array) with role, reads and input as keywords."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[tuple[TensorInfo, Array | None]] = []
        self.header = RunHeader()
        self.stats_only = False

    def add(self, name: str, array: Any, role: Role = "internal", input_id: str = "", **more: Any) -> Recorder:
        data = None if array is None else np.asarray(array)
        kind = more.pop("dtype", "float32" if data is None else "")
        self.rows.append((TensorInfo(name, kind, (), input_id, role, **more), data))
        return self

    def open(self) -> Any:
        with DumpWriter(self.path, self.header, stats_only=self.stats_only) as writer:
            for info, array in self.rows:
                writer.add(info, array)
        return open_source(self.path)


@pytest.fixture
def recorder(tmp_path: Path) -> Callable[[], Recorder]:
    made: list[Recorder] = []

    def make() -> Recorder:
        made.append(Recorder(tmp_path / f"dump-{len(made)}"))
        return made[-1]

    return make


def diff(make: Callable[[], Recorder], actual: dict[str, Any], golden: dict[str, Any], **options: Any) -> DiffResult:
    """Diff of outputs given as arrays."""
    sides = []
    for arrays in (actual, golden):
        side = make()
        for name, array in arrays.items():
            side.add(name, array, "output")
        sides.append(side.open())
    return diff_sources(*sides, **options)


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


def test_names_are_never_paired_by_position(recorder: Any) -> None:
    result = diff(recorder, {"final": GOLDEN}, {"reformat_7": GOLDEN})
    assert result.verdict == "failed"
    assert {t.status for t in result.tensors} == {"missing", "extra"}


def test_names_that_nearly_match_are_suggested_and_mapped_only_by_the_user(recorder: Any) -> None:
    names = {"decoder/logits:0": GOLDEN, "decoder/state:0": GOLDEN.T}
    renamed = {"decoder.logits": GOLDEN, "decoder.state": GOLDEN.T}
    result = diff(recorder, renamed, names)
    assert result.verdict == "failed"
    assert {(s.actual, s.golden) for s in result.suggestions} == set(zip(renamed, names, strict=True))
    mapped = diff(recorder, renamed, names, name_map=dict(zip(renamed, names, strict=True)))
    assert mapped.verdict == "passed"
    assert [t.actual_name for t in mapped.tensors] == list(renamed)


def test_a_map_that_names_nothing_is_refused(recorder: Any) -> None:
    with pytest.raises(InputError, match="no tensor of actual"):
        diff(recorder, {"y": GOLDEN}, {"y": GOLDEN}, name_map={"yy": "y"})
    with pytest.raises(InputError, match="no tensor of golden"):
        diff(recorder, {"y": GOLDEN}, {"y": GOLDEN}, name_map={"y": "x"})


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


def dataset(make: Callable[[], Recorder], arrays: dict[str, Array], order: list[str] | None = None) -> Any:
    side = make()
    side.header = RunHeader(inputs=tuple(InputInfo(k, f"sha-{k}", f"file {k}") for k in order or arrays))
    for key in order or arrays:
        side.add("y", arrays[key], "output", key)
    return side.open()


def test_datasets_merge_sums_and_name_the_inputs_that_fail(recorder: Any) -> None:
    golden = {k: GOLDEN * scale for k, scale in (("a", 1), ("b", 1000), ("c", 1))}
    actual = {**golden, "c": golden["c"] + np.float32(1)}
    result = diff_sources(dataset(recorder, actual, ["c", "a", "b"]), dataset(recorder, golden))
    tensor = result.outputs[0]
    assert tensor.metrics is not None
    assert tensor.metrics.count == 3 * GOLDEN.size
    assert tensor.metrics.range_rel == pytest.approx(1 / float(np.abs(GOLDEN).max()) / 1000, rel=1e-5)
    # 0.04 % of the loud input's range, but the quiet input is wrong by a third
    assert (result.verdict, tensor.worst_input, tensor.failing_inputs) == ("failed", "c", ("c",))
    assert any("c" in f.message for f in result.findings if f.kind == "failing_inputs")
    assert tensor.worst[0].input_id == "c"


def test_statistics_of_a_dataset_are_judged_over_the_whole(recorder: Any) -> None:
    golden = {f"i{k}": np.eye(4, dtype=np.float32)[[k % 4]] for k in range(10)}
    actual = {**golden, "i3": golden["i3"][:, ::-1]}
    sides = dataset(recorder, actual), dataset(recorder, golden)
    assert diff_sources(*sides, acceptance=[parse_criterion("top1>=0.9")]).verdict == "passed"
    assert diff_sources(*sides, acceptance=[parse_criterion("top1>0.9")]).verdict == "failed"


def test_inputs_are_paired_by_content(recorder: Any) -> None:
    golden = dataset(recorder, {"a": GOLDEN, "b": GOLDEN * 2})
    renamed = recorder()
    renamed.header = RunHeader(inputs=(InputInfo("first", "sha-b", ""), InputInfo("second", "sha-a", "")))
    renamed.add("y", GOLDEN * 2, "output", "first").add("y", GOLDEN, "output", "second")
    assert diff_sources(renamed.open(), golden).verdict == "passed"


def test_different_inputs_are_said(recorder: Any) -> None:
    sides = []
    for sha in ("one", "other"):
        side = recorder().add("y", GOLDEN, "output", "x")
        side.header = RunHeader(inputs=(InputInfo("x", sha, "seed 0"),))
        sides.append(side.open())
    kinds = {f.kind for f in diff_sources(*sides).findings}
    assert {"inputs_differ", "random_inputs"} <= kinds


def test_no_common_input_is_an_error(recorder: Any) -> None:
    with pytest.raises(InputError, match="no input in common"):
        diff_sources(dataset(recorder, {"a": GOLDEN, "b": GOLDEN}), dataset(recorder, {"c": GOLDEN, "d": GOLDEN}))


def test_an_output_missing_for_one_input_fails(recorder: Any) -> None:
    golden = dataset(recorder, {"a": GOLDEN, "b": GOLDEN})
    short = recorder().add("y", GOLDEN, "output", "a").add("h", GOLDEN, "internal", "b")
    short.header = golden.header
    assert diff_sources(short.open(), golden).verdict == "failed"


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


def test_an_acceptance_for_no_output_is_refused(recorder: Any) -> None:
    with pytest.raises(InputError, match="names no output"):
        diff(recorder, {"y": GOLDEN}, {"y": GOLDEN}, acceptance=[parse_criterion("cosine>=0.9 @ yy")])


def test_an_undefined_metric_leaves_the_output_not_judged(recorder: Any) -> None:
    result = diff(recorder, {"y": GOLDEN}, {"y": GOLDEN}, acceptance=[parse_criterion("kl<=0.1")])
    assert result.verdict == "not_judged"


def test_types_without_a_default_are_not_judged() -> None:
    assert default_acceptance(None, "float8_e4m3fn", "float32") == ()
    assert default_acceptance(None, "complex64", "complex64") == ()


def test_softmax_outputs_warn_when_the_answer_changes(recorder: Any) -> None:
    golden = np.float32([[0.501, 0.499], [0.9, 0.1]])
    actual = np.float32([[0.499, 0.501], [0.9, 0.1]])
    result = diff(recorder, {"y": actual}, {"y": golden}, precision="fp16")
    assert result.verdict == "warned"
    assert "top1" in " ".join(result.reasons)


class TestMaps:
    def test_a_map_file(self, tmp_path: Path) -> None:
        path = tmp_path / "map.json"
        path.write_text(json.dumps({"a": "b"}))
        assert read_map(path) == {"a": "b"}

    @pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', '{"a": "x", "b": "x"}', "{", "\x00"])
    def test_bad_map_files(self, content: str, tmp_path: Path) -> None:
        path = tmp_path / "map.json"
        path.write_text(content)
        with pytest.raises(InputError):
            read_map(path)

    def test_the_map_wins_over_equal_names(self) -> None:
        assert match_names(["a", "b"], ["a", "b"], {"a": "b"}) == {"b": "a"}

    @given(
        st.lists(st.text(max_size=6), unique=True, max_size=12), st.lists(st.text(max_size=6), unique=True, max_size=12)
    )
    def test_only_equal_names_match(self, actual: list[str], golden: list[str]) -> None:
        assert match_names(actual, golden) == {name: name for name in golden if name in actual}

    @given(
        st.lists(st.text(max_size=8), unique=True, max_size=8), st.lists(st.text(max_size=8), unique=True, max_size=8)
    )
    def test_a_name_is_suggested_once(self, actual: list[str], golden: list[str]) -> None:
        found = suggest(
            [TensorInfo(n, "float32", (2,)) for n in actual], [TensorInfo(n, "float32", (2,)) for n in golden]
        )
        assert len({s.actual for s in found}) == len({s.golden for s in found}) == len(found)


class TestRegression:
    def result(self, recorder: Any, **errors: float) -> DiffResult:
        golden = dict.fromkeys(errors, GOLDEN)
        actual = {name: GOLDEN + np.float32(error) for name, error in errors.items()}
        return diff(recorder, actual, golden, precision="fp16")

    @pytest.mark.parametrize(
        ("before", "after", "verdict", "status"),
        [
            (1e-3, 1e-3, "passed", "same"),
            (1e-3, 1.5e-3, "passed", "same"),
            (1e-3, 5e-3, "failed", "worse"),
            (5e-3, 1e-3, "passed", "better"),
            (1e-3, 1.0, "failed", "worse"),
            (1e-3, math.nan, "failed", "worse"),
            (math.nan, 1e-3, "passed", "better"),
            (0.0, 1e-7, "passed", "same"),
        ],
    )
    def test_outputs(self, recorder: Any, before: float, after: float, verdict: str, status: str) -> None:
        found = diff_results(self.result(recorder, y=before), self.result(recorder, y=after))
        assert (found.verdict, found.changes[0].status, bool(found)) == (verdict, status, verdict == "passed")

    def test_an_output_that_is_gone_is_a_regression(self, recorder: Any) -> None:
        found = diff_results(self.result(recorder, y=0.0, z=0.0), self.result(recorder, y=0.0))
        assert (found.verdict, found.reasons) == ("failed", ("z is gone",))
