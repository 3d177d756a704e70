"""The failing models of the public folders: sets no larger than those that others found, within a search that stays short, and every export proved."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

import probe
from probe.results.find import FindResult
from tests.thorough import longest
from tests.versions import ort_before


@dataclass(frozen=True)
class Case:
    """``tolerance``: range_rel that the manifest judges by; ``failing``: the data sets that fail all-low."""

    folder: str
    name: str
    tags: tuple[str, ...]
    failing: tuple[str, ...]
    tolerance: float
    most: int  # tensors kept
    searching: int = 80  # evaluations

    def __str__(self) -> str:
        return self.name


CASES = [
    Case("models", "magika_standard_v3_3", ("main",), ("main",), 0.02, 1, 40),
    Case("models", "dnsmos_sig_bak_ovr", ("main", "muted"), ("muted",), 0.01, 1, 40),
    Case("exports", "llama_gqa_mini", ("main",), ("main",), 0.02, 2),
    Case("exports", "t5_encoder_mini", ("main",), ("main",), 0.02, 6),
    Case("exports", "unet_attn_mini", ("main",), ("main",), 0.02, 2),
    Case("exports", "bert_mini", ("main", "emptyrow"), ("emptyrow",), 0.02, 3),
    Case("exports", "convtasnet_cln", ("short", "long"), ("long",), 0.02, 1),
]


def find(folder: Path, name: str, tags: tuple[str, ...], **options: object) -> FindResult:
    data = [folder / "data" / f"{name}__{tag}.npz" for tag in tags]
    return probe.find(folder / "models" / f"{name}.onnx", inputs=data, lighter=False, **options)  # type: ignore[arg-type]


LONGEST = ("dnsmos_sig_bak_ovr",)


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=longest if c.name in LONGEST else (), id=str(c)) for c in CASES]
)
def test_found_proved_and_small(case: Case, request: pytest.FixtureRequest) -> None:
    if case.name == "t5_encoder_mini" and ort_before("1.31"):
        pytest.skip("this ONNX Runtime puts a Cast of the wrong type into the export, and refuses it")
    folder: Path = request.getfixturevalue(case.folder)
    result = find(folder, case.name, case.tags, accept=[f"range_rel<={case.tolerance}"])
    assert result.status == "found", result.reason
    assert result
    recorded = json.loads((folder / "KNOWN_FRAGILE.json").read_text())[case.name]
    assert len(result.keep) <= case.most
    assert case.most <= max(2, len(recorded["fp32_set_found"]))
    assert result.evaluations["search"] <= case.searching
    assert result.oracle.all_low is not None
    assert result.oracle.all_low.failing_inputs == tuple(f"{case.name}__{tag}" for tag in case.failing)
    assert result.oracle.answer_rerun is not None
    assert result.oracle.answer_rerun.passed
    assert result.exported is not None
    proofs = {proof.runner: proof for proof in result.exported.proofs}
    assert proofs["typed"].passed
    assert proofs["typed"].fp16_honoured
    assert proofs["typed"].metric is not None
    assert proofs["typed"].metric <= case.tolerance
    assert all(one.verdict == "passed" for one in result.exported.conversion.handed_over)


@pytest.mark.parametrize("name", ["gpt2_mini", "vit_mini", "lstm_gru_tagger", "scripted_loop_if", "nonzero_boxes"])
def test_exports_that_pass_keep_nothing(name: str, exports: Path) -> None:
    result = find(exports, name, ("main",))
    assert (result.status, result.keep) == ("nothing_needed", ())
    assert result, result.exported


PASSING = [
    "silero_vad", "dtln_1", "magika_fast_v2_1", "mnist", "squeezenet_fp16", "occ_image_classifier32", "osf_landmarks", "superres_core",
    "fns_candy",
]  # fmt: skip
QUICK = frozenset(("dtln_1", "mnist", "occ_image_classifier32"))


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in PASSING])
def test_models_that_pass_keep_nothing(name: str, models: Path) -> None:
    result = find(models, name, ("main",))
    assert (result.status, result.keep) == ("nothing_needed", ())
    assert result


def test_bf16_of_magika_is_solved(models: Path) -> None:
    result = find(models, "magika_standard_v3_3", ("main",), precision="bf16")
    assert result.status == "found", result.reason
    assert result
    assert len(result.keep) <= 2


@longest
def test_bf16_of_gtcrn_is_solved(models: Path) -> None:
    """Its opset has no bfloat16, so that nothing can be exported: that is said, and the answer stands."""
    result = find(models, "gtcrn_simple", ("main",), precision="bf16")
    assert result.status == "found", result.reason
    assert result.exported is None
    assert any("opset 13" in note for note in result.notes)


def test_the_proof_has_teeth(models: Path, tmp_path: Path) -> None:
    """All-low, written as ONNX: ONNX Runtime's CPU provider computes it in FP32 and finds nothing; the proof fails it."""
    name = "magika_standard_v3_3"
    result = probe.convert(
        models / "models" / f"{name}.onnx", tmp_path / "low.onnx", inputs=models / "data" / f"{name}__main.npz",
        accept=["range_rel<=0.02"],
    )  # fmt: skip
    assert not result
    typed, ort = result.proofs
    assert not typed.passed
    assert ort.verdict == "passed"
    assert not ort.fp16_honoured
