"""``find`` over chosen tactics: more accurate ones before FP32, fast ones given back, and what does not fit refused."""

from __future__ import annotations

from pathlib import Path

import pytest

import probe
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
    saved.save(result, tmp_path / "r.json")
    assert probe.load_result(tmp_path / "r.json") == result


def test_tactics_that_pass_are_left_alone(folder: Path) -> None:
    result = probe.find(folder / "m.onnx", inputs=folder / "in.npz", tactics=folder / "exact.tactics", lighter=False)
    assert (result.status, result.keep, result.switches) == ("nothing_needed", (), ())


def test_where_tactics_are_not_enough_tensors_are_kept_too(folder: Path) -> None:
    """A bound below what FP16 itself costs: exact everywhere fails, so FP32 it is; then fast tactics come back where they may."""
    base = probe.run(folder / "m.onnx", inputs=folder / "in.npz", layers="(?!)", try_cure=False)
    error = max(one.metrics.range_rel for one in base.outputs.values() if one.metrics is not None)
    result = probe.find(
        folder / "m.onnx",
        inputs=folder / "in.npz",
        tactics=folder / "fast.tactics",
        accept=[f"range_rel<={error / 4}"],
        lighter=False,
    )
    assert result.status == "found", result.reason
    assert result.keep
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
