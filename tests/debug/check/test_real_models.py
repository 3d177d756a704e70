"""The planted and known faults of real models are named, and models that pass have no error. FP16 unless said otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from probe import api
from probe.results.check import CheckResult

# model, input, precision, tensor that has to stay FP32, whether what is predicted for the output is that of the tensor rounded alone
FRAGILE = [
    ("models", "dnsmos_sig_bak_ovr", "muted", "fp16", "mos_estimator_logpow/Maximum_max0", False),
    ("models", "magika_standard_v3_3", "main", "fp16", "jax2tf_get_logits_/pjit_get_logits_/MagikaV2/LayerNorm_1/Sum_1:0", False),
    ("exports", "bert_mini", "emptyrow", "fp16", "/m/Constant_29_output_0", True),
    ("exports", "bert_mini", "emptyrow", "bf16", "/m/Constant_29_output_0", True),
    ("exports", "llama_gqa_mini", "main", "fp16", "pow_5", True),
    ("exports", "t5_encoder_mini", "main", "fp16", "/m/encoder/block.1/layer.1/DenseReluDense/wo/MatMul_output_0", True),
    ("exports", "unet_attn_mini", "main", "fp16", "mul_109", True),
    ("exports", "convtasnet_cln", "long", "fp16", "cumsum_1", False),
]  # fmt: skip
SOUND = [
    ("models", "dnsmos_sig_bak_ovr", "main"), ("models", "gtcrn_simple", "main"), ("models", "magika_fast_v2_1", "main"),
    ("models", "mnist", "main"), ("models", "occ_image_classifier32", "main"), ("models", "osf_landmarks", "main"),
    ("models", "silero_vad", "main"), ("models", "squeezenet_fp16", "main"), ("models", "superres_core", "main"),
    ("models", "ultraface_slim_320", "main"), ("models", "dtln_1", "main"), ("models", "fns_candy", "main"),
    ("exports", "bert_mini", "main"), ("exports", "gpt2_mini", "main"), ("exports", "vit_mini", "main"),
    ("exports", "lstm_gru_tagger", "main"), ("exports", "convtasnet_cln", "short"), ("exports", "scripted_loop_if", "main"),
    ("exports", "nonzero_boxes", "main"),
]  # fmt: skip


def check(folder: Path, name: str, tag: str, precision: str = "fp16") -> CheckResult:
    return api.check(
        folder / "models" / f"{name}.onnx", precision=precision, inputs=folder / "data" / f"{name}__{tag}.npz"  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("where", "name", "tag", "precision", "tensor", "predicted"), FRAGILE, ids=lambda x: str(x)[:24]
)
def test_a_known_fault_is_among_the_first_three(
    where: str, name: str, tag: str, precision: str, tensor: str, predicted: bool, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(where)
    result = check(folder, name, tag, precision)
    named = [f for f in result.findings[:3] if tensor in (f.tensor, *f.like)]
    assert named, [(f.level, f.rule, f.tensor) for f in result.findings]
    assert named[0].level == "error" and result.verdict == "errors"
    known = json.loads((folder / "KNOWN_FRAGILE.json").read_text())[name]
    wanted = set(known["fp32_set_found"])
    if precision == "fp16":
        assert wanted <= set(named[0].keep), f"{wanted - set(named[0].keep)} would have to stay FP32, too"
    if predicted:
        solo = next(
            (m["error_if_only_this_is_rounded"] for m in known["members"] if m["tensor"] == named[0].tensor), None
        )
        assert named[0].output_error == pytest.approx(float("inf") if solo == "NaN/Inf" else solo, rel=0.1)


@pytest.mark.parametrize(("where", "name", "tag"), SOUND, ids=lambda x: str(x)[:24])
def test_a_model_that_passes_has_no_error(where: str, name: str, tag: str, request: pytest.FixtureRequest) -> None:
    result = check(request.getfixturevalue(where), name, tag)
    assert result and not result.of("error"), [(f.rule, f.tensor, f.downstream) for f in result.of("error")]
    assert result.tensors > 5


def test_gelu_of_gpt2_overflows_and_does_no_harm(exports: Path) -> None:
    found = {f.tensor: f for f in check(exports, "gpt2_mini", "main").findings}
    assert found["pow_1"].level == "warning" and "it ends in node_tanh (Tanh)" in found["pow_1"].downstream


def test_a_dataset_names_the_failing_clip(models: Path) -> None:
    """The muted clip alone makes the floor vanish; the finding says so."""
    result = api.check(
        models / "models" / "dnsmos_sig_bak_ovr.onnx",
        inputs=[models / "data" / f"dnsmos_sig_bak_ovr__{tag}.npz" for tag in ("main", "muted")],
    )
    (finding,) = result.of("error")
    assert finding.tensor == "mos_estimator_logpow/Maximum_max0" and "muted" in finding.input_id and finding.inputs == 1


def test_bf16_of_magika_cancels_in_its_first_normalisation(models: Path) -> None:
    (finding,) = check(models, "magika_standard_v3_3", "main", "bf16").of("error")
    assert (finding.rule, finding.op) == ("cancellation", "Sub") and "LayerNorm_0/Sub" in (finding.tensor or "")
