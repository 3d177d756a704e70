"""Two runs of a real model, before and after: precisions and fusions differ, and the parts still meet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from probe.api import run
from probe.compare.regression import diff_results
from probe.report.html.page import html_page
from probe.report.markdown import markdown
from probe.report.terminal import render
from probe.results.run import RunResult


@pytest.fixture(scope="module")
def llama(exports: Path) -> dict[tuple[str, str], RunResult]:
    """(precision, fusion) -> run of a model whose squares overflow in FP16 and not in BF16."""

    def made(precision: str, fusion: Any) -> RunResult:
        return run(
            exports / "models" / "llama_gqa_mini.onnx", precision=precision, fusion=fusion,
            inputs=exports / "data" / "llama_gqa_mini__main.npz",
        )  # fmt: skip

    return {
        (precision, fusion): made(precision, fusion)
        for precision, fusion in (("fp16", "none"), ("fp16", "full"), ("bf16", "full"))
    }


def test_from_bf16_to_fp16_the_squares_get_worse_whatever_is_fused(llama: dict[tuple[str, str], RunResult]) -> None:
    result = diff_results(llama["bf16", "full"], llama["fp16", "none"])
    assert not result and result.reasons[0].startswith("logits went from passed to failed")
    assert not result.warnings and {s.name for s in result.settings} >= {"precision", "fusion"}
    worse = [one for one in result.parts if one.status == one.own == "worse"]
    assert [[layer.pattern for layer in one.layers_before] for one in worse] == [["rms_norm"], ["rms_norm"]]
    assert all(len(one.layers_after) == 7 and one.starts_after and not one.starts_before for one in worse)
    assert {one.tensor for one in result.findings if one.status == "only_after" and one.fatal} == {"pow_4", "pow_5"}
    better = [one for one in result.parts if one.status == "better"]
    assert len(better) > 50, "BF16 has fewer digits everywhere else"


def test_a_fusion_alone_changes_no_verdict(llama: dict[tuple[str, str], RunResult]) -> None:
    before, after = llama["fp16", "none"], llama["fp16", "full"]
    result = diff_results(before, after)
    assert result and len(result.parts) == len(after.layers) < len(before.layers)
    assert {one.status for one in result.changes if one.role == "output"} == {"same"}
    fused = [one for one in result.parts if one.changed]
    assert fused and all(one.changed == ("fusion",) for one in fused)
    assert [s.name for s in result.settings] == ["fusion"]


def test_its_pages_are_short_enough_to_read(llama: dict[tuple[str, str], RunResult]) -> None:
    result = diff_results(llama["bf16", "full"], llama["fp16", "none"])
    assert len(render(result).splitlines()) < 100
    assert len(markdown(result).splitlines()) < 70
    assert len(html_page(result).encode()) < 400_000
