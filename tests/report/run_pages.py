"""Results of ``probe run`` with known pages; ``pages.py`` writes and checks them with the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from probe.results.diff import SourceInfo
from probe.results.publish import example_layer, example_metrics, example_run, example_tensor
from probe.results.run import (
    CureTried,
    Fallback,
    GoldenInfo,
    ObservedDifference,
    ObserverCheck,
    OtherInterior,
    OutputVerdict,
    RunFinding,
    RunResult,
)
from probe.results.tensors import InputInfo

_PLAIN: dict[str, Any] = {
    "findings": (),
    "first_divergence": (),
    "cure": None,
    "other_interior": None,
    "observer": None,
    "reasons": (),
}


def passed() -> RunResult:
    """A pass on made-up inputs, with a mask that goes to -Inf and harms nobody."""
    return replace(
        example_run(),
        **_PLAIN
        | {
            "verdict": "passed",
            "layers": (example_layer("/stem/MatMul"), example_layer("/mask/Where", kind="pointwise", accumulated=float("inf"), nonfinite=12, beyond=True)),
            "tensors": (example_tensor("logits"),),
            "outputs": {"logits": OutputVerdict("passed", example_metrics(), 4e-7)},
            "inputs": (InputInfo("seed-7", "aa" * 32, "seed 7"),),
            "findings": (
                RunFinding("constant_overflow", "the constant mask.fill holds -3.4028e+38, which fp16 (ends at 65504) turns into -Inf",
                           tensor="mask.fill", node="/mask/Where", layer="/mask/Where", range=3.4e38, margin=1.9e-34, keep=("mask.fill",)),
                RunFinding("random_inputs", "the inputs were made up: random inputs hide failures that real ones show"),
            ),
        },
    )  # fmt: skip


def long() -> RunResult:
    """Three hundred layers, two first divergences, more causes than a screen wants, a difference when nobody looks."""
    layers = tuple(
        example_layer(f"/blocks.{i}/MatMul", reads=(f"/blocks.{i - 1}/MatMul_output_0",), injected=i / 1e5, accumulated=i / 1e4,
                      beyond=i in (120, 240), precision="fp32" if i == 299 else "fp16")
        for i in range(300)
    )  # fmt: skip
    causes = tuple(
        RunFinding("overflow", f"/blocks.{i}/Pow_output_0 overflows: golden reaches {7e4 + i:.0f}, fp16 ends at 65504", tensor=f"/blocks.{i}/Pow_output_0",
                   node=f"/blocks.{i}/Pow", layer=f"/blocks.{i}/MatMul", range=7e4 + i, margin=0.93, cure="keep it in FP32",
                   keep=(f"/blocks.{i}/Pow_output_0",), fatal=i % 2 == 0)
        for i in range(20)
    )  # fmt: skip
    return replace(
        example_run(),
        layers=layers,
        first_divergence=("/blocks.120/MatMul", "/blocks.240/MatMul"),
        findings=tuple(sorted(causes, key=lambda f: not f.fatal)),
        cure=CureTried(tuple(f"/blocks.{i}/Pow_output_0" for i in range(0, 40, 2)), "failed"),
        observer=ObserverCheck(
            identical=False, outputs=1, differences=(ObservedDifference("logits", "cat", 3, 1000, 0.01),)
        ),
        fallbacks=(Fallback("/resize/Resize", "Resize", "no kernel for cubic interpolation", "reference"),),
        keep=("/a", "/b", "/c", "/d", "/e"),
        passes="all",
        notes=("the model is an old opset; it was read as it is",),
    )


def fault() -> RunResult:
    """A network that is wrong in FP32, judged against a recorded golden."""
    golden = SourceInfo("runs/golden", "dump", runner="ort", model="model.onnx", golden="upcast from float16")
    return replace(
        example_run(),
        **_PLAIN
        | {
            "verdict": "failed",
            "reasons": ("logits: range_rel 0.31 > 0.001",),
            "precision": "fp32",
            "device": "cpu: FP32, nothing rounded",
            "golden": GoldenInfo("file", golden, {"logits": 0.31}, "the engine in FP32"),
            "layers": (example_layer("/stem/MatMul", precision="fp32", local=0.0, floor=0.28, injected=0.28, accumulated=0.28, beyond=True),),
            "first_divergence": ("/stem/MatMul",),
            "findings": (
                RunFinding("baseline_fails", "already in FP32 the network misses this golden", tensor="logits", fatal=True),
                RunFinding("differs_in_fp32", "layer /stem/MatMul computes something else than the golden even in FP32", tensor="/stem/MatMul_output_0",
                           node="/stem/MatMul", layer="/stem/MatMul", range=0.28, cure="compare the two models", fatal=True),
            ),
            "other_interior": OtherInterior("fp32", "failed", differs=False),
        },
    )  # fmt: skip


def not_judged() -> RunResult:
    return replace(
        example_run(),
        **_PLAIN
        | {
            "verdict": "not_judged",
            "acceptance": (),
            "tensors": (example_tensor("logits", verdict="not_judged"),),
            "reasons": ("logits: no acceptance applies",),
        },
    )


RESULTS: dict[str, tuple[RunResult, dict[str, Any]]] = {
    "run_passed": (passed(), {}),
    "run_passed_quiet": (passed(), {"quiet": True}),
    "run_passed_verbose": (passed(), {"verbose": True}),
    "run_long": (long(), {}),
    "run_failed_verbose": (example_run(), {"verbose": True}),
    "run_fault": (fault(), {}),
    "run_not_judged": (not_judged(), {}),
}
