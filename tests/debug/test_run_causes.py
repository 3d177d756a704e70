"""The first cause is named right, on real models that fail in FP16, and curing it cures the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

import probe
from probe.results.run import RunResult
from tests.thorough import longest


def run_real(folder: Path, name: str, tag: str, **options: Any) -> RunResult:
    return probe.run(folder / "models" / f"{name}.onnx", inputs=folder / "data" / f"{name}__{tag}.npz", **options)


FRAGILE = [
    # folder, model, tag, first fatal finding: kind, tensor; in its message
    ("exports", "bert_mini", "emptyrow", "constant_overflow", "/m/Constant_29_output_0", "a row of -Inf alone has no largest element: NaN"),
    ("exports", "llama_gqa_mini", "main", "overflow", "pow_4", "finite but wrong"),
    ("exports", "t5_encoder_mini", "main", "overflow", "/m/encoder/block.1/layer.1/DenseReluDense/wo/MatMul_output_0", "0 * Inf = NaN"),
    ("exports", "unet_attn_mini", "main", "coarse_argument", "mul_109", "0.5 apart"),
    ("exports", "convtasnet_cln", "long", "overflow", "cumsum_1", "finite but wrong"),
    ("models", "dnsmos_sig_bak_ovr", "muted", "flushed_to_zero", "mos_estimator_logpow/Maximum_max0", "log(0) = -Inf"),
    ("models", "magika_standard_v3_3", "main", "overflow", "LayerNorm_1/Sum_1:0", "finite but wrong"),
]  # fmt: skip


SLOW = ("dnsmos_sig_bak_ovr",)


def marks(case: tuple[str, ...], level: str) -> Any:
    slow = [pytest.mark.slow] if case[0] == "models" and (level == "safe" or case[1] in SLOW) else []
    return [*slow, longest] if case[1] in SLOW else slow


LEVELS = [(case, level) for level in ("none", "safe") for case in FRAGILE]


@pytest.mark.parametrize(
    ("case", "level"),
    [
        pytest.param(
            case,
            level,
            id=f"{case[1]}-{level}",
            marks=marks(case, level),
        )
        for case, level in LEVELS
    ],
)
def test_the_first_cause(case: tuple[str, ...], level: Any, request: pytest.FixtureRequest) -> None:
    """And keeping what the fatal findings name in FP32 makes the run pass: they tell the whole story."""
    kind, name, tag, cause, tensor, words = case
    folder = request.getfixturevalue(kind)
    result = run_real(folder, name, tag, passes=level, fusion=level)
    assert result.verdict == "failed"
    first = result.findings[0]
    assert (first.kind, first.fatal) == (cause, True)
    assert first.tensor is not None and first.tensor.endswith(tensor)
    assert words in first.message
    assert result.cure is not None and result.cure.verdict == "passed"
    known = json.loads((folder / "KNOWN_FRAGILE.json").read_text())[name]["fp32_set_found"]
    present = {v.name for layer in probe.compile(folder / "models" / f"{name}.onnx", passes=level, fusion=level).layers
               for v in (*layer.tensors, *layer.weights)}  # fmt: skip
    missing = {k for k in known if k in present} - set(result.cure.keep)
    assert not missing, "a tensor that is known to be needed is not among those kept"
    assert len(result.cure.keep) <= len(known) + 1
    if cause == "overflow":
        assert first.range is not None and first.margin is not None
        assert first.margin == pytest.approx(65504 / first.range) and first.margin < 1


@pytest.mark.parametrize(
    ("name", "tag", "tensor"), [("gpt2_mini", "main", "pow_1"), ("bert_mini", "main", "/m/Constant_29_output_0")]
)
def test_inf_that_harms_nobody(name: str, tag: str, tensor: str, exports: Path) -> None:
    result = run_real(exports, name, tag)
    assert result.verdict == "passed"
    assert not [f for f in result.findings if f.fatal]
    assert tensor in [f.tensor for f in result.findings]
    strict = run_real(exports, name, tag, strict_layers=True)
    assert strict.verdict == "failed" and any(f.fatal and f.tensor == tensor for f in strict.findings)


def test_an_answer_that_changes_is_not_called_a_large_error(models: Path) -> None:
    """One answer of 4,420 changes in FP16; the errors are a fourteenth of the limit."""
    result = run_real(models, "ultraface_slim_320", "main", precision="fp16")
    assert result.verdict == "warned"
    (found,) = [one for one in result.findings if one.kind == "accumulated"]
    assert "errors are small (0.0035" in found.message and "near or beyond" not in found.message


def test_inputs_of_bfloat16_are_floats_and_may_be_to_blame(tmp_path: Path) -> None:
    """numpy counts bfloat16 among the types that are no numbers."""
    text = '<ir_version: 8, opset_import: ["" : 18]> g (bfloat16[4] x) => (bfloat16[4] y) { y = Neg (x) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    feeds = {"x": np.array([1e6, 1.0, 2.0, 3.0], ml_dtypes.bfloat16)}
    cause = probe.run(tmp_path / "model.onnx", inputs=feeds).findings[0]
    assert (cause.kind, cause.tensor) == ("operand_overflow", "x") and "holds 9.9942e+05" in cause.message
