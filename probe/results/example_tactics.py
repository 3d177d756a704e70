"""The examples of ``probe.tactics/1`` and of the results of ``probe tactics record``, ``replay`` and ``log``, published beside their schemas."""

from __future__ import annotations

from typing import Any

from probe.results.diff import Criterion, Metrics, SourceInfo
from probe.results.run import GoldenInfo, OutputVerdict
from probe.results.tactics import (
    CandidateReport,
    Fingerprint,
    LayerChoice,
    RecordedOutputs,
    TacticFile,
    TacticLine,
    TacticMiss,
    TacticRun,
    TacticsLogResult,
    TacticsRecordResult,
    TacticsReplayResult,
    TrtDifference,
    TrtOp,
    TrtTactic,
)
from probe.results.tensors import InputInfo

_PROBLEMS = {
    "conv1 + relu1": "Conv(fp16[1,3,224,224], fp16[64,3,3,3], fp16[64]){group=1, pads=[1,1,1,1]} + Relu(.) -> fp16[1,64,224,224]",
    "/head/Gemm": "Gemm(fp16[1,2048], fp16[1000,2048], fp16[1000]){transB=1} -> fp16[1,1000]",
}
_NUMERICS = {
    "exact": "products and sums in FP32",
    "splitk2": "the sum is cut into 2 contiguous ranges; each is summed in FP32, then p0 + p1 in FP32",
    "winograd_f4": "convolution by Winograd's F(4x4, 3x3), transforms rounded to FP16",
}


def examples_of_tactics(
    model_sha256: str, given: InputInfo, metrics: Metrics, environment: dict[str, str]
) -> dict[str, Any]:
    """File stem -> result."""
    here = Fingerprint(model_sha256, "cpu x86_64", "AMD EPYC 9654", "onnxruntime 1.31.1", model_sha256)
    recorded = (RecordedOutputs(given.id, given.sha256, model_sha256),)
    choices = (
        _choice(
            "conv1 + relu1",
            "conv",
            ("conv1", "relu1"),
            "x",
            "relu1_out",
            (("winograd_f4", 410.5), ("exact", 1603.2)),
            "splitk2",
        ),
        _choice("/head/Gemm", "gemm", ("/head/Gemm",), "pooled", "logits", (("exact", 118.0), ("splitk2", 131.4)), ""),
    )
    run = TacticRun(
        verdict="passed", reasons=(), model="model.onnx", fingerprint=here, precision="fp16",
        device="cpu: FP16 storage, each layer computed as its tactic says, emulated",
        golden=GoldenInfo("ort", SourceInfo("made now by ort", "tape", "ort", "model.onnx", model_sha256, "", "as_is", (given,))),
        acceptance=(Criterion("range_rel", "<=", 0.05, source="default fp16"), Criterion("cosine", ">=", 0.995, source="default fp16")),
        outputs={"logits": OutputVerdict("passed", metrics)}, layers=choices, recorded=recorded, inputs=(given,),
        environment=environment, seconds={"compile": 0.21, "choose": 1.4, "golden": 0.11, "run": 0.3, "judge": 0.01},
    )  # fmt: skip
    file = TacticFile(
        fingerprint=here, precision="fp16", passes="safe", fusion="safe", interior="storage",
        layers=tuple(TacticLine(one.tactic, one.precision, one.layer, one.kind, one.outputs, one.reads, one.problem) for one in choices),
        recorded=recorded, verdict="passed",
    )  # fmt: skip
    return {
        "tactics": file,
        "tactics-record": TacticsRecordResult(
            run=run, file="good.tactics", selectors=("fastest", "deny splitk2 @ ^conv1"), timing_cache="times.json", measured=3, reused=2,
            command="probe tactics record model.onnx --inputs cat.npz --deny 'splitk2 @ ^conv1' --timing-cache times.json -o good.tactics",
        ),
        "tactics-replay": TacticsReplayResult(
            run=run, file="good.tactics", kind="probe", strict=False, identical=False, compared=1, differing=(given.id,),
            misses=(
                TacticMiss("other_device", "recorded on another device: cuda sm_90a, this is cpu x86_64"),
                TacticMiss("unsupported_tactic", "splitk4 is no candidate; there is exact, splitk2", "/head/Gemm", "splitk4", "exact"),
            ),
            command="probe tactics replay model.onnx good.tactics --lenient --inputs cat.npz",
        ),
        "tactics-log": _log(),
    }  # fmt: skip


def _choice(
    layer: str,
    kind: str,
    nodes: tuple[str, ...],
    read: str,
    made: str,
    timed: tuple[tuple[str, float], ...],
    refused: str,
) -> LayerChoice:
    """A layer that takes the first of ``timed``; ``refused`` is a candidate that was not allowed."""
    formats = ("fp16", "fp16")
    candidates = [
        CandidateReport(name, _NUMERICS[name], 0, formats, deterministic=True, median_us=us) for name, us in timed
    ]
    if refused:
        candidates.append(
            CandidateReport(
                refused,
                _NUMERICS[refused],
                25690112,
                formats,
                deterministic=True,
                median_us=1950.1,
                refused_by="deny splitk2 @ ^conv1",
            )
        )
    return LayerChoice(layer, kind, "fp16", nodes, (read,), (made,), _PROBLEMS[layer], timed[0][0], tuple(candidates))


def _log() -> TacticsLogResult:
    kernels = (
        "sm80_xmma_gemm_f32f32_tf32f32_f32_nn_n_tilesize32x32x64",
        "sm80_xmma_gemm_f32f32_tf32f32_f32_nn_n_tilesize64x32x64",
    )
    rows = (
        TrtTactic(3, 0.011264, 1.0, 0.50673, kernels[0], "0x665ded9abbf88"),
        TrtTactic(5, 0.0118784, 1.05455, 0.51157, kernels[1], "0x393e4ef8ad243"),
    )
    op = TrtOp(
        "matMul1", "0x1814870c44ff0f8574df6e3dda04cbd7", "[ONNX Layer: matMul1]", rows, "0x665ded9abbf88", 0.011264
    )
    flip = TrtDifference(
        "matMul1", "choice", "both were candidates; the first one costs 1.02 times the second's there", "0x665ded9abbf88", "0x393e4ef8ad243",
        *kernels, cost_of_first=1.02,
    )  # fmt: skip
    return TacticsLogResult("good.log", (op,), "bad.log", (flip,), 0, command="probe tactics log good.log bad.log")
