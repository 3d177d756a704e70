"""``run_network``: what it says of real models that fail, and of small ones made for one question each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import probe
from probe.engine.engine import Engine
from probe.errors import InputError
from probe.results.run import RunResult
from tests.debug import faulty


def run_real(folder: Path, name: str, tag: str, **options: Any) -> RunResult:
    return probe.run(folder / "models" / f"{name}.onnx", inputs=folder / "data" / f"{name}__{tag}.npz", **options)


def test_both_interiors(exports: Path) -> None:
    """The square of an RMS normalisation overflows where the runtime stores it, and not where it is fused."""
    result = run_real(exports, "llama_gqa_mini", "main")
    assert (result.interior, result.verdict) == ("storage", "failed")
    assert result.other_interior is not None
    assert (result.other_interior.interior, result.other_interior.verdict, result.other_interior.differs) == (
        "fp32",
        "passed",
        True,
    )
    wide = run_real(exports, "llama_gqa_mini", "main", interior="fp32")
    assert wide.verdict == "passed" and wide.other_interior is not None and wide.other_interior.verdict == "failed"
    assert wide.statuses["interior"] > 0
    assert all(t.reasons for t in wide.tensors if t.status == "interior")
    assert run_real(exports, "llama_gqa_mini", "main", fusion="none").other_interior is None


# --- statuses, keeping, watching, goldens


STATUSES = {"compared", "interior", "folded", "equivalent", "not_run", "unsupported"}


@pytest.mark.parametrize("passes", ["none", "safe", "all"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [("models", "silero_vad"), ("models", "mnist"), ("exports", "scripted_loop_if"), ("exports", "vit_mini")],
)
def test_every_golden_tensor_has_a_status(kind: str, name: str, passes: Any, request: pytest.FixtureRequest) -> None:
    result = run_real(request.getfixturevalue(kind), name, "main", passes=passes)
    assert set(result.statuses) <= STATUSES
    for tensor in result.tensors:
        assert tensor.status == "compared" or tensor.reasons, tensor.name


def test_what_a_pass_removed_says_which(models: Path) -> None:
    folded = [
        t for t in run_real(models, "mnist", "main", passes="safe").tensors if t.status in ("folded", "equivalent")
    ]
    assert folded
    assert all(t.reasons[-1].startswith(("by ", "the values of ")) for t in folded)
    assert not [
        t for t in run_real(models, "mnist", "main", passes="none", fusion="none").tensors if t.status != "compared"
    ]


def test_keep(exports: Path, tmp_path: Path) -> None:
    cured = run_real(exports, "llama_gqa_mini", "main", keep=["^pow_[45]$"])
    assert cured.verdict == "passed" and cured.keep == ("pow_4", "pow_5")
    kept = {t.name: t.precision for t in cured.tensors if t.name in ("pow_3", "pow_4")}
    assert kept == {"pow_3": "fp16", "pow_4": "fp32"}
    half = run_real(exports, "llama_gqa_mini", "main", keep=["^pow_5$"])
    assert half.verdict == "failed" and half.findings[0].tensor == "pow_4"
    with pytest.raises(InputError, match="nothing to keep matches 'pow_77'"):
        run_real(exports, "llama_gqa_mini", "main", keep=["pow_77"])


def test_a_kept_layer_runs_in_fp32(tmp_path: Path) -> None:
    model = faulty.build(tmp_path / "model.onnx")
    result = probe.run(model, inputs=faulty.feeds(), keep=["^fc[1-5]/MatMul$"], fusion="none")
    precisions = {layer.name: layer.precision for layer in result.layers}
    assert precisions["fc1/MatMul"] == "fp32" and precisions["fc1/Add"] == "fp16"


def test_the_observer_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = faulty.build(tmp_path / "model.onnx")
    calm = probe.run(model, inputs=faulty.feeds(), observe=True)
    assert calm.observer is not None and calm.observer.identical and calm.observer.outputs == 2
    assert probe.run(model, inputs=faulty.feeds()).observer is None
    untouched = Engine.run

    def shifted(self: Engine, inputs: Any, assignment: Any = None, tap: Any = None) -> dict[str, np.ndarray]:
        outputs = untouched(self, inputs, assignment, tap)
        if tap is None and assignment is not None and assignment.default.precision == "fp16":
            outputs["boxes"] = outputs["boxes"].copy()
            outputs["boxes"][1, 2] += 0.25
        return outputs

    monkeypatch.setattr(Engine, "run", shifted)
    disturbed = probe.run(model, inputs=faulty.feeds(), observe=True)
    assert disturbed.observer is not None and not disturbed.observer.identical
    (difference,) = disturbed.observer.differences
    assert (difference.output, difference.elements, difference.count) == ("boxes", 1, 128)
    assert difference.max_abs == pytest.approx(0.25)
    assert disturbed.findings[0].kind == "observer" and "1 of 2 outputs" in disturbed.findings[0].message


def test_goldens(tmp_path: Path) -> None:
    model = faulty.build(tmp_path / "model.onnx")
    ort = probe.run(model, inputs=faulty.feeds())
    assert ort.golden.kind == "ort" and set(ort.golden.noise_floor) == {"scores", "boxes"}
    assert all(value < 1e-6 for value in ort.golden.noise_floor.values())
    probe.dump(model, tmp_path / "golden", inputs=faulty.feeds()).close()
    recorded = probe.run(model, golden=tmp_path / "golden")  # takes its inputs from there
    assert recorded.golden.kind == "file" and recorded.golden.source.path == str(tmp_path / "golden")
    assert {t.name: t.metrics and t.metrics.range_rel for t in recorded.tensors} == {
        t.name: t.metrics and t.metrics.range_rel for t in ort.tensors
    }
    with pytest.raises(InputError, match="there is no golden"):
        probe.run(model, golden="golden.txt")


def test_the_noise_floor_of_an_fp32_golden_in_fp64(tmp_path: Path) -> None:
    pytest.importorskip("probe.runners.fp64")
    model = faulty.build(tmp_path / "model.onnx")
    result = probe.run(model, inputs=faulty.feeds(), golden="fp64")
    assert result.verdict == "passed" and result.golden.kind == "fp64"
    assert all(0 < floor < 1e-5 for floor in result.golden.noise_floor.values())


def test_a_golden_made_with_other_inputs_is_said_to_be(tmp_path: Path) -> None:
    model = faulty.build(tmp_path / "model.onnx")
    probe.dump(model, tmp_path / "golden", inputs=faulty.feeds(1)).close()
    result = probe.run(model, golden=tmp_path / "golden", inputs=faulty.feeds(2))
    assert result.verdict == "failed"
    assert {"inputs_differ", "baseline_fails"} <= {f.kind for f in result.findings}


# --- datasets


def test_a_dataset_is_judged_whole_and_input_by_input(tmp_path: Path) -> None:
    model = faulty.build(tmp_path / "model.onnx")
    for number, scale in enumerate((1.0, 2e4, 1.0)):
        np.savez(tmp_path / f"set{number}.npz", x=faulty.feeds(number)["x"] * np.float32(scale))
    result = probe.run(model, inputs=sorted(tmp_path.glob("set*.npz")), passes="none", fusion="none")
    assert result.verdict == "failed" and [i.id for i in result.inputs] == ["set0", "set1", "set2"]
    output = next(t for t in result.tensors if t.name == "boxes")
    assert output.inputs == 3 and output.worst_input == "set1" and output.failing_inputs == ("set1",)
    assert result.findings[0].kind == "overflow" and result.findings[0].message.endswith("(input set1)")
    assert result.findings[0].tensor == "fc1/MatMul_out"
    quiet = probe.run(model, inputs=tmp_path / "set0.npz", passes="none", fusion="none")
    layer = {x.name: x for x in result.layers}["fc1/MatMul"]
    assert layer.local == math.inf and {x.name: x for x in quiet.layers}["fc1/MatMul"].local != math.inf


def test_the_worst_input_is_looked_at(tmp_path: Path) -> None:
    """Logits with an offset on the second input only: the numbers in the finding are of that input."""
    graph = helper.make_graph(
        [helper.make_node("Softmax", ["x"], ["y"], "softmax")], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "model.onnx"
    )
    for number, offset in enumerate((0.0, 3000.0, 0.0)):
        np.savez(tmp_path / f"set{number}.npz", x=faulty.feeds(number)["x"] + np.float32(offset))
    result = probe.run(tmp_path / "model.onnx", inputs=sorted(tmp_path.glob("set*.npz")))
    assert result.findings[0].kind == "coarse_argument" and result.findings[0].range == pytest.approx(3000, rel=0.01)
    assert result.layers[0].worst_input == "set1"


def test_one_overflow_is_one_finding(tmp_path: Path) -> None:
    """What descends from an Inf is an effect of it, not another cause."""
    model = faulty.build(tmp_path / "model.onnx")
    result = probe.run(model, inputs={"x": faulty.feeds(1)["x"] * np.float32(2e4)}, passes="none", fusion="none")
    causes = [f for f in result.findings if f.keep]
    assert [(f.kind, f.tensor) for f in causes] == [("overflow", "fc1/MatMul_out")]
    assert len([layer for layer in result.layers if layer.nonfinite]) > 5


def test_equal_tensors_are_compared_under_the_name_that_holds_them(exports: Path) -> None:
    result = run_real(exports, "vit_mini", "main", passes="safe")
    equal = [t for t in result.tensors if t.status == "equivalent" and t.metrics is not None]
    assert equal
    by_name = {t.name: t for t in result.tensors}
    for t in equal:
        holder = by_name.get(t.reasons[-1].removeprefix("the values of "))
        assert holder is None or (holder.metrics and t.metrics and holder.metrics.max_abs == t.metrics.max_abs)


def test_tapes_that_spill_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = faulty.build(tmp_path / "model.onnx")
    spill = tmp_path / "spill"
    spill.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spill))
    inside = probe.run(model, inputs=faulty.feeds())
    outside = probe.run(model, inputs=faulty.feeds(), memory_limit=1)
    assert inside.layers == outside.layers and inside.tensors == outside.tensors
    assert not list(spill.iterdir())


# --- what cannot run


def shape_in_float(path: Path) -> Path:
    """x [2049] reshaped to a length that was computed in floating point: 2049 is no FP16 number."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], "shape"),
        helper.make_node("Cast", ["shape"], ["length"], "to_float", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["length", "one"], ["scaled"], "scale"),
        helper.make_node("Cast", ["scaled"], ["back"], "to_int", to=TensorProto.INT64),
        helper.make_node("Sqrt", ["x"], ["root"], "root"),
        helper.make_node("Reshape", ["root", "back"], ["y"], "reshape"),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [numpy_helper.from_array(np.float32([1.0]), "one")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_network_that_stops_has_failed(tmp_path: Path) -> None:
    model = shape_in_float(tmp_path / "model.onnx")
    result = probe.run(model, inputs={"x": np.ones(2049, np.float32)}, passes="none", fusion="none")
    assert result.verdict == "failed"
    assert result.reasons[0].startswith("it does not run")
    assert result.findings[0].kind == "does_not_run" and result.findings[0].fatal
    assert next(t for t in result.tensors if t.name == "root").status == "compared"
    assert next(t for t in result.tensors if t.name == "y").status == "missing"
    assert probe.run(model, inputs={"x": np.ones(2048, np.float32)}, passes="none", fusion="none")


def test_an_unknown_precision_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fp15"):
        probe.run(faulty.build(tmp_path / "model.onnx"), precision="fp15")


def test_acceptance_and_random_inputs(tmp_path: Path) -> None:
    model = faulty.build(tmp_path / "model.onnx")
    strict = probe.run(model, accept=["max_abs<=1e-9 @ boxes"], seed=3)
    assert strict.verdict == "failed" and strict.acceptance[0].source == "user"
    assert "random_inputs" in {f.kind for f in strict.findings}
    assert strict.inputs[0].source == "seed 3"
    named = [f for f in strict.findings if f.kind == "accumulated"]
    assert named and named[0].fatal, "nothing is beyond the default inside, so error accumulated"


@pytest.mark.parametrize(
    ("name", "verdict", "as_written"), [("gtcrn_simple", "passed", "warned"), ("mnist", "passed", "passed")]
)
def test_a_verdict_that_clean_up_changes_says_so(models: Path, name: str, verdict: str, as_written: str) -> None:
    data = models / "data" / f"{name}__main.npz"
    result = probe.run(models / "models" / f"{name}.onnx", inputs=data)
    assert result.verdict == verdict
    assert result.as_written is not None and result.as_written.verdict == as_written
    assert result.as_written.differs is (verdict != as_written)
    assert result.as_written.changes >= 1 and result.as_written.by
    plain = probe.run(models / "models" / f"{name}.onnx", inputs=data, passes="none", fusion="none")
    assert plain.as_written is None and plain.verdict == as_written
    worst = max(one.metrics.range_rel for one in plain.outputs.values() if one.metrics is not None)
    assert result.as_written.range_rel == pytest.approx(worst)


def test_keeping_what_clean_up_removed(tmp_path: Path) -> None:
    """Values that live on under another name are kept there; what was computed away is never rounded, and that is said."""
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[2] x) => (float[2] y) <float[2] one = {1.0, 1.0}, float[2] two = {2.0, 2.0}>
    { same = Identity (x)  three = Add (one, two)  four = Add (three, one)  root = Sqrt (same)  y = Mul (root, four) }"""
    model = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(text), model)
    feeds = {"x": np.array([2.0, 3.0], np.float32)}
    assert probe.run(model, inputs=feeds, keep=["^same$"]).keep == ("x",)
    folded = probe.run(model, inputs=feeds, keep=["^three$"])
    assert folded.keep == ()
    assert "nothing to keep of three: clean-up of the graph computed it away (--passes none leaves it)" in folded.notes
    assert probe.run(model, inputs=feeds, keep=["^three$"], passes="none").keep == ("three",)


def test_one_name_is_not_a_sequence_of_its_letters(exports: Path) -> None:
    """Each letter is found in nearly every name: everything would stay FP32, and pass."""
    half = run_real(exports, "llama_gqa_mini", "main", keep="^pow_5$", accept="range_rel<=0.05")
    assert half.keep == ("pow_5",) and half.verdict == "failed"
    assert probe.compile(exports / "models" / "llama_gqa_mini.onnx", keep="pow_5").assignment.kept == {"pow_5"}
    with pytest.raises(InputError, match="is not a regular expression"):
        run_real(exports, "llama_gqa_mini", "main", keep="pow(")


def test_a_layer_is_not_called_harmless_beside_the_overflow_inside_it(exports: Path) -> None:
    result = run_real(exports, "llama_gqa_mini", "main")
    layers = {f.layer for f in result.findings if f.fatal}
    assert layers and not [f.message for f in result.findings if f.layer in layers and not f.fatal]


def test_what_was_not_measured_is_not_explained(exports: Path) -> None:
    """A golden of outputs alone says nothing of layers inside: nor that no single one of them is to blame."""
    golden = exports / "data" / "llama_gqa_mini__main.npz"
    said = " ".join(f.message for f in run_real(exports, "llama_gqa_mini", "main", golden=golden).findings)
    assert "why is not known" in said and "not by one layer" not in said


def test_what_a_layer_adds_itself_is_not_called_accumulated(exports: Path) -> None:
    """Judged by a metric whose bound is no range_rel, too."""
    result = run_real(exports, "llama_gqa_mini", "main", preset="torch")
    errors = {layer.name: layer for layer in result.layers}
    told = [f for f in result.findings if f.kind == "accumulated" and f.layer in errors]
    assert not [
        f.layer for f in told if (errors[f.layer or ""].injected or 0) > (errors[f.layer or ""].accumulated or 0) / 2
    ]
    assert any(f.kind == "rounding" and f.layer == "node_mul_64" for f in result.findings)
