"""``find`` over chosen tactics: more accurate ones before FP32, fast ones given back, and what does not fit refused."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

import probe
from probe.culprits.oracle import EngineOracle
from probe.report.find_steps import next_steps
from probe.report.terminal import render
from probe.results import json as saved
from tests.blame.planted import chain

ALONE = 0.2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain of products of which one loses its sum in FP16, and tactic files of it: all acc16 where that is possible, and all exact."""
    made = tmp_path_factory.mktemp("with_tactics")
    planted = chain(made / "m.onnx", 8, {5: ALONE})
    for one in planted.sets:
        import numpy as np

        np.savez(made / "in.npz", **{name: np.asarray(value) for name, value in one.feeds.items()})
    for name, allow in (("fast", "acc16"), ("exact", "exact")):
        probe.tactics.record_tactics(
            made / "m.onnx", made / f"{name}.tactics", inputs=made / "in.npz", allow=[allow], measure=False
        )
    return made


def test_a_more_accurate_tactic_comes_before_fp32(folder: Path, tmp_path: Path) -> None:
    result = probe.find(folder / "m.onnx", inputs=folder / "in.npz", tactics=folder / "fast.tactics", lighter=False)
    assert result.status == "nothing_needed", result.reason
    assert result
    assert [(one.layer, one.before, one.after) for one in result.switches] == [("product 5", "acc16", "exact")]
    assert result.switches[0].cost_us is not None
    assert result.oracle.answer_rerun is not None
    assert result.oracle.answer_rerun.passed
    page = render(result)
    assert "product 5" in page
    assert "acc16" in page
    assert "passes with nothing kept and 1 more accurate tactic" in " ".join(page.split())
    assert "each layer computed as its tactic says" in result.device
    assert result.evaluations["tactics"] > 0 and f"{result.evaluations['tactics']} tactics" in page
    saved.save(result, tmp_path / "r.json")
    assert probe.load_result(tmp_path / "r.json") == result


def test_tactics_that_pass_are_left_alone(folder: Path) -> None:
    result = probe.find(folder / "m.onnx", inputs=folder / "in.npz", tactics=folder / "exact.tactics", lighter=False)
    assert (result.status, result.keep, result.switches) == ("nothing_needed", (), ())


@pytest.mark.parametrize(("share", "given_back"), [(4, False), (1.1, True)])
def test_where_tactics_are_not_enough_tensors_are_kept_too(folder: Path, share: float, given_back: bool) -> None:
    """A bound below what FP16 itself costs: exact everywhere fails, so FP32 it is; then fast tactics come back where they may. The
    certificates are older than that, and the result says so."""
    base = probe.run(folder / "m.onnx", inputs=folder / "in.npz", layers="(?!)", try_cure=False)
    error = max(one.metrics.range_rel for one in base.outputs.values() if one.metrics is not None)
    result = probe.find(
        folder / "m.onnx",
        inputs=folder / "in.npz",
        tactics=folder / "fast.tactics",
        accept=[f"range_rel<={error / share}"],
        lighter=False,
    )
    assert result.status == "found", result.reason
    assert result.keep
    said = "certificate is an evaluation with the most accurate tactics everywhere"
    assert any(said in note for note in result.notes) is given_back
    assert (said in " ".join(render(result).split())) is given_back
    assert result.oracle.answer_rerun is not None
    assert result.oracle.answer_rerun.passed


def test_what_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    edited = tmp_path / "edited.tactics"
    edited.write_text((folder / "fast.tactics").read_text().replace("acc16", "exact", 1))
    chain(tmp_path / "other.onnx", 4, {})
    for model, file, more, said in (
        (folder / "m.onnx", edited, {}, "edited"),
        (folder / "m.onnx", folder / "fast.tactics", {"precision": "bf16"}, "of fp16"),
        (folder / "m.onnx", folder / "fast.tactics", {"log": tmp_path / "l.jsonl"}, "keeps no log"),
        (tmp_path / "other.onnx", folder / "fast.tactics", {}, "fit|model"),
    ):
        with pytest.raises(probe.InputError, match=said):
            probe.find(model, inputs=folder / "in.npz", tactics=file, **more)


def test_the_cure_can_be_had_as_a_tactic_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that the page gives, run."""
    from tests.cli.program import probe as run

    monkeypatch.chdir(tmp_path)
    result = probe.find(folder / "m.onnx", inputs=folder / "in.npz", tactics=folder / "fast.tactics", lighter=False)
    (step, *_) = next_steps(result)
    done = run(*step.words[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr + shlex.join(step.words)
    cured = probe.tactics.replay_tactics(folder / "m.onnx", tmp_path / "cured.tactics", inputs=folder / "in.npz")
    assert cured and cured.identical
    assert {one.layer for one in cured.run.layers if one.tactic == "exact"} == {"product 5"}


def test_what_the_file_keeps_stays_kept(folder: Path, tmp_path: Path) -> None:
    """A tensor and a layer in FP32: part of what was recorded, and so of what is searched and exported."""
    path = tmp_path / "kept.tactics"
    probe.tactics.record_tactics(
        folder / "m.onnx",
        path,
        inputs=folder / "in.npz",
        allow=["acc16 @ ^product [0146]$", "acc16 @ ^product 5$"],
        measure=False,
        keep=["^t3$", "^product 7$"],
    )
    result = probe.find(folder / "m.onnx", inputs=folder / "in.npz", tactics=path, lighter=False)
    assert (result.status, result.keep) == ("nothing_needed", ())
    assert [one.layer for one in result.switches] == ["product 5"]
    assert result.exported is not None
    assert "product 7" in str(result.exported) and "t3" in str(result.exported)


@pytest.mark.parametrize("most", [1, 3, 6])
def test_a_budget_ends_the_search_for_tactics_too(folder: Path, most: int) -> None:
    result = probe.find(
        folder / "m.onnx",
        inputs=folder / "in.npz",
        tactics=folder / "fast.tactics",
        lighter=False,
        max_evaluations=most,
    )
    assert result.status == "budget", result.reason
    spent = {kind: n for kind, n in result.evaluations.items() if kind in ("tactics", "search", "probes")}
    assert sum(spent.values()) <= most + 2, spent  # all-low is asked in any case, before and after


def test_ctrl_c_ends_it_with_the_switches_that_are_known(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate, asked = EngineOracle.evaluate, []

    def interrupted(self: EngineOracle, assignment: Any) -> Any:
        asked.append(assignment)
        if len(asked) == 8:
            raise KeyboardInterrupt
        return evaluate(self, assignment)

    monkeypatch.setattr(EngineOracle, "evaluate", interrupted)
    result = probe.find(folder / "m.onnx", inputs=folder / "in.npz", tactics=folder / "fast.tactics", lighter=False)
    assert result.status == "interrupted", result.reason
    assert not result
    assert len(asked) <= 12
