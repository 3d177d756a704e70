"""The whole of ``find`` on small networks with known faults: statuses, proofs, budgets, logs, and every way it can be asked wrongly."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import probe
from probe.culprits import finish
from probe.model.load import load
from probe.report.terminal import render
from probe.results import json as saved
from probe.results.find import FindResult
from tests.culprits.networks import inputs, looped, norms

FAULTS = (1.0, 600.0, 1.0, 600.0)
SQUARES = ("norm1.square", "norm3.square")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("find")
    norms(made / "faulty.onnx", FAULTS)
    norms(made / "healthy.onnx", (1.0, 1.0))
    norms(made / "large.onnx", (600.0, 1.0))  # overflows only where its input is large
    inputs(made)
    inputs(made, "tiny", seed=1, scale=1e-3)
    return made


@pytest.fixture(scope="module")
def found(folder: Path) -> FindResult:
    return probe.find(folder / "faulty.onnx", folder / "mixed.onnx", inputs=folder / "in.npz", log=folder / "log.jsonl")


def test_keeps_what_overflows_and_nothing_else(found: FindResult) -> None:
    """The square overflows and so does its mean: both of each normalisation are needed, and the root of the mean is small again."""
    assert found.status == "found"
    assert found
    assert set(SQUARES) <= set(found.tensors)
    assert {name.partition(".")[0] for name in found.tensors} == {"norm1", "norm3"}
    assert all(one.certificate is not None and one.certificate.decided for one in found.keep)
    assert all(one.why for one in found.keep), "the instrumented pass knows why"


def test_an_export_that_cannot_be_written_does_not_take_the_answer_along(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise probe.InputError("cannot write full.onnx: No space left on device")

    monkeypatch.setattr(finish, "export", full)
    with pytest.raises(probe.InputError, match="No space left") as refused:
        probe.find(folder / "faulty.onnx", folder / "full.onnx", inputs=folder / "in.npz")
    assert all(name in refused.value.hint for name in SQUARES)


def test_each_certificate_is_a_failing_evaluation_of_the_log(found: FindResult) -> None:
    for one in found.keep:
        assert one.certificate is not None
        step = found.steps[one.certificate.evaluation]
        assert not step.passed
        assert step.kind == "proof"
        assert step.kept == len(found.keep) - 1


def test_the_answer_passes_and_no_part_of_it_can_go(found: FindResult, folder: Path) -> None:
    """Asked of ``run``, which shares nothing with the search but the engine."""

    def verdict(keep: tuple[str, ...]) -> str:
        names = [f"^{name}$" for name in keep]
        return probe.run(
            folder / "faulty.onnx",
            inputs=folder / "in.npz",
            keep=names,
            passes="none",
            fusion="none",
            layers="(?!)",
            try_cure=False,
        ).verdict

    assert verdict(found.tensors) == "passed"
    for one in found.tensors:
        assert verdict(tuple(name for name in found.tensors if name != one)) == "failed", one


def test_the_export_is_there_and_says_the_same(found: FindResult, folder: Path) -> None:
    assert found.exported is not None
    assert found.exported.passed
    typed = next(proof for proof in found.exported.proofs if proof.runner == "typed")
    assert typed.fp16_honoured
    assert typed.metric == pytest.approx(found.oracle.answer.metric if found.oracle.answer else math.nan)
    assert load(folder / "mixed.onnx").outputs[0].name == "y"
    assert set(found.exported.conversion.lifted) == set(found.nodes)


def test_the_result_survives_json_and_has_a_page(found: FindResult, tmp_path: Path) -> None:
    saved.save(found, tmp_path / "r.json")
    again = probe.load_result(tmp_path / "r.json")
    assert again == found
    text = render(again, verbose=True)
    assert all(name in text for name in found.tensors)
    assert found.frame().height == len(found.steps)


def test_nothing_needed(folder: Path) -> None:
    result = probe.find(folder / "healthy.onnx", inputs=folder / "in.npz")
    assert result.status == "nothing_needed"
    assert result
    assert result.keep == ()
    assert result.evaluations["probes"] == 0
    assert result.exported is not None
    assert result.exported.passed


def test_unreachable_says_how_far_fp32_is_from_float64(folder: Path) -> None:
    golden = {"y": np.zeros((4, 16), np.float32)}
    golden["y"][0, 0] = 1.0
    result = probe.find(folder / "faulty.onnx", inputs=folder / "in.npz", golden=golden)
    assert result.status == "unreachable"
    assert not result
    assert result.keep == ()
    assert result.oracle.float64_floor["y"] > 0.1
    assert result.oracle.all_fp32 is not None
    assert not result.oracle.all_fp32.passed
    assert "probe run" in render(result)


@pytest.mark.parametrize("most", [2, 3, 5, 8])
def test_a_budget_is_kept_and_gives_the_best_so_far(folder: Path, most: int) -> None:
    result = probe.find(folder / "faulty.onnx", inputs=folder / "in.npz", max_evaluations=most, probes=False)
    asked = sum(result.evaluations[kind] for kind in ("search", "probes", "proof"))
    assert asked <= most + 2, "the two baselines may come before the search"
    assert result.status == "budget"
    assert not result
    if result.keep:
        assert set(SQUARES) <= set(result.tensors)


def test_ctrl_c_gives_the_best_so_far(folder: Path) -> None:
    seen = 0

    def interrupt(phase: str, name: str) -> None:
        nonlocal seen
        seen += phase == "search" and "prefix" in name
        if seen == 3:
            seen += 1
            raise KeyboardInterrupt

    result = probe.find(folder / "faulty.onnx", inputs=folder / "in.npz", progress=interrupt, probes=False)
    assert result.status == "interrupted"
    assert set(SQUARES) <= set(result.tensors), "a passing set was known"
    assert result.exported is not None
    assert result.exported.passed
    assert not result


def test_resumed_from_any_prefix_it_ends_the_same(found: FindResult, folder: Path, tmp_path: Path) -> None:
    lines = (folder / "log.jsonl").read_text().splitlines(keepends=True)
    for count in (1, 2, 4, len(lines) // 2, len(lines)):
        log = tmp_path / f"{count}.jsonl"
        log.write_text("".join(lines[:count]))
        again = probe.find(
            folder / "faulty.onnx",
            inputs=folder / "in.npz",
            log=log,
            resume=True,
            lighter=False,
            probes=found.evaluations["probes"] > 0,
        )
        assert again.tensors == found.tensors
        if count == len(lines):
            assert log.read_text() == "".join(lines), "nothing was asked again"


def test_held_out_inputs_that_fail_are_told(folder: Path, tmp_path: Path) -> None:
    """On tiny inputs nothing overflows, so nothing is kept; the inputs that were held out do."""
    result = probe.find(
        folder / "large.onnx", tmp_path / "m.onnx", inputs=folder / "tiny.npz", held_out=folder / "in.npz"
    )
    assert result.status == "nothing_needed"
    assert result.held_out is not None
    assert not result.held_out.evaluated.passed
    assert result.held_out.evaluated.failing_inputs == ("in",)
    assert result.held_out.exported is not None
    assert not result.held_out.exported.passed
    assert not result
    assert "held-out inputs fail" in " ".join(render(result).split())


def test_a_dataset_names_the_input_that_fails(folder: Path) -> None:
    result = probe.find(folder / "large.onnx", inputs=[folder / "tiny.npz", folder / "in.npz"], lighter=False)
    assert result.oracle.all_low is not None
    assert result.oracle.all_low.failing_inputs == ("in",)
    assert "norm0.square" in result.tensors


def test_split_holds_out_part_of_the_inputs(folder: Path, tmp_path: Path) -> None:
    files = [inputs(tmp_path, f"i{n}", seed=n) for n in range(5)]
    result = probe.find(folder / "faulty.onnx", inputs=files, split=0.4, lighter=False)
    assert result.held_out is not None
    assert len(result.held_out.inputs) == 2
    assert len(result.inputs) == 3
    assert not {one.id for one in result.inputs} & {one.id for one in result.held_out.inputs}
    assert result


@pytest.mark.parametrize("granularity", ["tensor", "layer", "block"])
@pytest.mark.parametrize("objective", ["count", "bytes", "latency"])
def test_every_granularity_and_objective_finds_a_set_that_passes(
    folder: Path, granularity: Any, objective: Any
) -> None:
    result = probe.find(
        folder / "faulty.onnx", inputs=folder / "in.npz", granularity=granularity, objective=objective, lighter=False
    )
    assert result.status == "found", result.reason
    assert result
    assert result.exported is not None
    assert result.exported.passed
    assert all(one.why for one in result.keep), "each says what was found at it"


def test_a_function_judges(folder: Path) -> None:
    """It accepts whatever is finite and keeps its size, so fewer tensors are needed than for closeness."""

    def finite(outputs: dict[str, Any]) -> bool:
        (y,) = outputs.values()
        return bool(np.isfinite(y).all() and np.abs(y).max() > 1.5)

    result = probe.find(folder / "faulty.onnx", inputs=folder / "in.npz", check=finite, lighter=False)
    assert result.status in ("found", "nothing_needed")
    assert "finite" in result.check


def test_what_the_user_keeps_stays_and_is_no_unit(found: FindResult, folder: Path) -> None:
    first = found.tensors[0]
    result = probe.find(folder / "faulty.onnx", inputs=folder / "in.npz", keep=[f"^{first}$"], lighter=False)
    assert result.status == "found"
    assert set(result.tensors) == set(found.tensors) - {first}
    assert result.exported is not None
    assert result.exported.passed, "the export keeps both"
    assert first in result.exported.conversion.keep


def test_other_precisions(folder: Path) -> None:
    assert probe.find(folder / "faulty.onnx", inputs=folder / "in.npz", precision="bf16", accept=["range_rel<=0.05"]).status in (
        "nothing_needed", "found",
    )  # fmt: skip
    tf32 = probe.find(folder / "faulty.onnx", inputs=folder / "in.npz", precision="tf32", accept=["range_rel<=0.0002"])
    assert tf32.exported is None
    assert any("tf32" in note for note in tf32.notes)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"precision": "fp32"}, "nothing needs to be kept in fp32"),
        ({"resume": True}, "no log to resume"),
        ({"accept": ["range_rel<=0.1 @ z"]}, "names no output"),
        ({"aggregate": "median"}, "median"),
        ({"keep": ["nothing_like_it"]}, "nothing to keep matches"),
        ({"split": 0.5}, "cannot be split"),
        ({"golden": "nowhere"}, "there is no golden"),
    ],
)
def test_asked_wrongly(folder: Path, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(probe.InputError, match=said):
        probe.find(folder / "healthy.onnx", inputs=folder / "in.npz", **asked)


def test_targets_are_refused_before_the_search(folder: Path, tmp_path: Path) -> None:
    def never(phase: str, name: str) -> None:
        raise AssertionError(phase)

    for out in (tmp_path / "m.txt", tmp_path / "no" / "m.onnx", folder / "faulty.onnx"):
        with pytest.raises(probe.InputError):
            probe.find(folder / "faulty.onnx", out, inputs=folder / "in.npz", progress=never)


@pytest.mark.parametrize(("share", "statuses"), [(0.1, ("found", "found_not_minimal")), (0.5, ("flaky",))])
def test_a_judge_that_contradicts_itself_votes_or_is_called_flaky(
    folder: Path, share: float, statuses: tuple[str, ...]
) -> None:
    """A judge that rejects a share of what is good: seldom, and votes see through it; every other time, and nothing can be told."""
    random = np.random.default_rng(3)
    right = np.asarray(
        next(
            iter(
                probe.compile(folder / "faulty.onnx", precision="fp32")(
                    probe.open_recording(folder / "in.npz")
                ).values()
            )
        )
    )

    def judge(outputs: dict[str, Any]) -> bool:
        close = bool(np.abs(outputs["y"] - right).max() <= 0.02 * np.abs(right).max())
        return close and random.random() >= share

    result = probe.find(folder / "faulty.onnx", inputs=folder / "in.npz", check=judge, lighter=False)
    assert result.status in statuses, result.reason
    if result.status != "flaky":
        assert result, "the proofs vote, too"
        assert result.voting is not None
        assert 0.02 < result.voting.noise < 0.35
        assert set(SQUARES) <= set(result.tensors)
        assert "contradicted itself" in " ".join(render(result).split())
    else:
        assert not result
        assert result.keep == ()


def test_what_is_kept_inside_a_loop_is_told_and_can_be_kept_again(folder: Path, tmp_path: Path) -> None:
    model = looped(tmp_path / "looped.onnx")
    found = probe.find(model, inputs=folder / "in.npz")
    assert found
    assert set(found.tensors) == {"square", "mean"}
    told = {one.tensor: (one.kind, one.nodes_fp32) for one in found.keep}
    assert told["mean"] == ("activation", ("n/mean", "n/root"))
    assert told["square"] == ("activation", ("n/square", "n/mean"))
    assert probe.run(model, inputs=folder / "in.npz", keep=["^(mean|square)$"])
    assert not probe.run(model, inputs=folder / "in.npz", keep=["^mean$"])
    engine = probe.compile(model, keep=found.tensors)
    assert engine.assignment.kept == {"mean", "square"}


def test_held_out_inputs_that_the_search_saw_are_said(folder: Path) -> None:
    same = probe.find(folder / "healthy.onnx", inputs=folder / "in.npz", held_out=folder / "in.npz")
    assert "1 of 1 held-out inputs is one that the search saw: in" in same.notes
    other = probe.find(folder / "healthy.onnx", inputs=folder / "in.npz", held_out=folder / "tiny.npz")
    assert not any("held-out" in note for note in other.notes)


def test_what_nothing_judges_is_not_searched(models: Path) -> None:
    """Q/DQ models have no default acceptance: a search would look for identical outputs."""
    model = models / "models" / "ultraface_slim_320_qdq.onnx"
    with pytest.raises(probe.InputError, match="nothing says what is good enough for output 'boxes'") as caught:
        probe.find(model)
    assert "Q/DQ" in caught.value.hint
    with pytest.raises(probe.InputError, match="good enough for output 'scores'"):
        probe.find(model, accept="range_rel<=0.1 @ boxes")


def test_a_golden_without_numbers_is_not_searched_for(folder: Path) -> None:
    """All-FP32 would "fail" by it, which sounds like a fault of the engine."""
    with np.load(folder / "in.npz") as file:
        blank = {name: array * np.float32(math.nan) for name, array in file.items()}
    with pytest.raises(probe.InputError, match="golden is NaN or Inf in every element"):
        probe.find(folder / "healthy.onnx", inputs=blank)
    assert probe.find(folder / "healthy.onnx", inputs=blank, check=lambda _: True).status == "nothing_needed"


@pytest.mark.parametrize("during", ["again", "other cures", "export"])
def test_ctrl_c_after_the_search_keeps_what_was_found(folder: Path, tmp_path: Path, during: str) -> None:
    """Nothing is lost, and nothing is called proved that was not."""

    def watch(phase: str, _name: str) -> None:
        if phase == during:
            raise KeyboardInterrupt

    out = tmp_path / "mixed.onnx"
    found = probe.find(folder / "faulty.onnx", out, inputs=folder / "in.npz", log=tmp_path / "l.jsonl", progress=watch)
    assert (found.status, bool(found), found.exported) == ("interrupted", False, None)
    assert set(SQUARES) <= set(found.tensors)
    assert "interrupted after the search" in render(found)
    assert not out.exists()
    again = probe.find(folder / "faulty.onnx", out, inputs=folder / "in.npz", log=tmp_path / "l.jsonl", resume=True)
    assert again.tensors == found.tensors
    assert again
