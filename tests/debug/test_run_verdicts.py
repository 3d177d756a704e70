"""Verdicts and errors of every model and data set are those of the manifests, which others made by rounding every tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import probe
from probe.results.run import RunResult

WORD = {"PASS": "passed", "WARN": "warned", "FAIL": "failed"}
BF16_WARNS = 0.03  # the manifests warn at 0.01 in every precision, probe in BF16 at 0.03

EXPORTS = [
    "bert_mini", "gpt2_mini", "llama_gqa_mini", "t5_encoder_mini", "vit_mini", "unet_attn_mini", "lstm_gru_tagger", "convtasnet_cln",
    "scripted_loop_if", "nonzero_boxes",
]  # fmt: skip
MODELS = [
    "silero_vad", "gtcrn_simple", "dtln_1", "dnsmos_sig_bak_ovr", "magika_standard_v3_3", "magika_fast_v2_1", "mnist", "squeezenet_fp16",
    "occ_image_classifier32", "ultraface_slim_320", "ultraface_slim_320_qdq", "osf_landmarks", "fns_candy", "superres_core",
]  # fmt: skip
QUICK = frozenset(("silero_vad", "dtln_1", "mnist", "occ_image_classifier32", "superres_core"))


def judge(folder: Path, name: str, tag: str, precision: str) -> RunResult:
    return probe.run(
        folder / "models" / f"{name}.onnx", inputs=folder / "data" / f"{name}__{tag}.npz", precision=precision, passes="none",
        fusion="none", layers="(?!)", try_cure=False,
    )  # fmt: skip


def entry(folder: Path, name: str) -> dict[str, Any]:
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    return next(one for one in manifest["models"] if one["name"] == name)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("name", EXPORTS)
def test_exports(name: str, precision: str, exports: Path) -> None:
    for tag, wanted in entry(exports, name)["results"].items():
        result = judge(exports, name, tag, precision)
        expected = wanted[precision]["verdict"]
        error = wanted[precision]["error"]
        if expected == "WARN" and precision == "bf16" and error < BF16_WARNS:
            expected = "PASS"
        assert result.verdict == WORD[expected], (tag, result.reasons)
        worst = max(one.metrics.range_rel for one in result.outputs.values() if one.metrics is not None)
        if isinstance(error, float):
            # FP32 sums in another order, on another processor or by another ONNX Runtime, flip roundings
            assert worst == pytest.approx(error, rel=0.2), tag
        else:
            assert any(one.metrics is not None and one.metrics.nonfinite_mismatch for one in result.outputs.values()), (
                tag
            )


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in MODELS])
def test_models(name: str, models: Path) -> None:
    for data in entry(models, name)["data"]:
        result = judge(models, name, data["tag"], "fp16")
        wanted = data["fp16"]
        if wanted["verdict"] not in WORD:  # stored in FP16 already, or Q/DQ: not graded there
            assert result.verdict == ("not_judged" if name.endswith("qdq") else "passed")
            continue
        assert result.verdict == WORD[wanted["verdict"]], (data["tag"], result.reasons)
        for output in wanted["outputs"]:
            metrics = result.outputs[output["name"]].metrics
            assert metrics is not None
            if not output["nan_inf"]:
                assert metrics.max_abs == pytest.approx(output["max_abs"], rel=0.02), output["name"]
