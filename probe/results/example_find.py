"""The example file of ``probe find``: the network of ``example_run``, searched."""

from __future__ import annotations

import math
from dataclasses import replace

from probe.results.convert_result import ConvertResult, ExportProof
from probe.results.find import (
    Baselines,
    Cost,
    Culprits,
    Evaluated,
    Exported,
    FindResult,
    HeldOut,
    Keep,
    LighterCure,
    Need,
    SearchStep,
    Suspect,
)
from probe.results.run import RunFinding
from probe.results.tensors import InputInfo


def example_find(conversion: ConvertResult, findings: tuple[RunFinding, ...]) -> FindResult:
    """One tensor found, proved, exported; held-out inputs pass.

    Args:
        conversion: of the answer.
        findings: of the all-low run.
    """
    tensor, nodes = conversion.kept_tensors[0], conversion.lifted
    digest = conversion.inputs[0].sha256
    broken = ("logits: 1000 elements differ in NaN or Inf: actual has 1000 NaN, golden none",)
    low = Evaluated(passed=False, margin=-math.inf, metric=math.inf, reasons=broken, failing_inputs=("cat",))
    good = Evaluated(passed=True, margin=0.976, metric=0.0012)
    return FindResult(
        status="found", reason="passes with 1 of 93 kept, and without any one of them it fails", model=conversion.model,
        model_sha256=conversion.model_sha256, precision="fp16", device="cpu: FP16 storage, FP32 accumulation, emulated",
        granularity="tensor", objective="count",
        keep=(Keep(tensor, "/norm/Pow", nodes, tensor, Need(9, -math.inf, math.inf, ("cat",)), (1, 64, 64), "activation",
                   "overflow: 3 of 4,096 elements exceed 65504", 90_000.0),),
        oracle=Baselines(low, Evaluated(passed=True, margin=0.9999, metric=3.1e-7), good, good, {"logits": 3.1e-7}),
        evaluations={"search": 6, "probes": 93, "proof": 6, "cached": 4}, acceptance=conversion.acceptance, units=93,
        groups=(Culprits(tensor, (tensor,)),),
        lighter=(
            LighterCure("fused_interior", "fp16 with nothing kept, where the runtime fuses and keeps what is inside fused layers in FP32",
                        "passed", 0.0011),
            LighterCure("bf16", "bf16 with nothing kept", "warned", 0.034, ("logits: range_rel 0.034 > 0.03",)),
        ),
        cost=Cost(181_000_000, 24_600, 16_384, 4, 49_152, 1.0004, 1.93, "a nominal GPU: FP16 products at twice the FP32 rate"),
        held_out=HeldOut("passed", replace(good, metric=0.0014), (InputInfo("dog", digest, "file dog.npz"),),
                         ExportProof("typed", fp16_honoured=True, verdict="passed", metric=0.0014, passed=True)),
        exported=Exported("mixed.onnx", conversion.proofs, passed=True, conversion=conversion),
        steps=(SearchStep(0, "search", "all low", 0, passed=False, margin=-math.inf), SearchStep(1, "search", "all FP32", 93, True, 0.9999),
               SearchStep(8, "search", "prefix: keep 1", 1, True, 0.976), SearchStep(9, "proof", f"without {tensor}", 0, False, -math.inf)),
        suspects=(Suspect(tensor, math.inf, flagged=True), Suspect("/head/MatMul_output_0", 0.0006, flagged=False)),
        findings=findings, golden=conversion.golden, inputs=conversion.inputs, log="mixed.find.jsonl", environment=conversion.environment,
        command="probe find model.onnx --inputs cat.npz --held-out dog.npz -o mixed.onnx --log mixed.find.jsonl",
        seconds={"golden": 0.05, "compile": 0.21, "all low": 0.01, "every tensor": 0.12, "local error": 0.31, "search": 0.64, "again": 0.2,
                 "other cures": 0.9, "export": 0.41, "held out": 0.12},
    )  # fmt: skip
