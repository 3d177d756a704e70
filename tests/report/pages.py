"""Results with known pages. ``python -m tests.report.pages`` rewrites ``pages/*.txt`` after a wanted change: read the difference."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from probe.report.terminal import render
from probe.results.diff import Criterion, DiffResult, Finding, SourceInfo, Suggestion, TensorDiff, WorstElement
from probe.results.publish import example_metrics as metrics
from probe.results.publish import example_tensor as tensor
from probe.results.publish import examples
from probe.results.tensors import InputInfo
from tests.report import run_pages

FOLDER = Path(__file__).parent / "pages"

FP16 = (
    Criterion("range_rel", "<=", 0.05, source="default fp16"),
    Criterion("cosine", ">=", 0.995, source="default fp16"),
    Criterion("range_rel", "<=", 0.01, level="warn", source="default fp16"),
)


def side(path: str, *inputs: InputInfo, **known: str) -> SourceInfo:
    return SourceInfo(path, "dump", inputs=inputs, **known)


def diff(verdict: str, tensors: tuple[TensorDiff, ...], *reasons: str, **changed: Any) -> DiffResult:
    one = InputInfo("input", "aa" * 32, "file cat.npz")
    result = DiffResult(
        verdict=verdict,  # type: ignore[arg-type]
        reasons=reasons,
        actual=side("runs/fp16", one, runner="python:engine.run", precision="fp16"),
        golden=side("runs/gold", one, runner="ort", model="model.onnx", model_sha256="9f86d081" * 8, golden="as_is"),
        acceptance=FP16,
        tensors=tensors,
        first_divergence=(),
        findings=(),
        suggestions=(),
        seconds=0.21,
    )
    return replace(result, **changed)


def inside(name: str, **changed: Any) -> TensorDiff:
    return tensor(name, role="internal", verdict="not_judged", **changed)


def passed() -> DiffResult:
    return diff(
        "passed",
        (
            inside("conv1_out", nodes=("conv1",), metrics=metrics(range_rel=0.002, cosine=0.9999)),
            tensor("logits"),
            tensor("boxes"),
        ),
    )


def identical() -> DiffResult:
    """Outputs equal; the actual side recorded nothing else, which is no fault and not worth a list."""
    equal = metrics(max_abs=0.0, range_rel=0.0, cosine=1.0, p999=0.0)
    rest = tuple(inside(f"conv{i}", status="not_recorded", actual_name=None, metrics=None, inputs=0) for i in range(30))
    return diff("passed", (*rest, tensor("logits", metrics=equal)))


def warned() -> DiffResult:
    seed = InputInfo("seed0", "bb" * 32, "seed 0")
    masked = metrics(range_rel=0.021, sentinels=12, sentinel_value=-3.4028234663852886e38, range_rel_item=0.034, item=3)
    return diff(
        "warned",
        (tensor("scores", verdict="warned", metrics=masked, worst=(WorstElement((3, 7), 1.25, 1.5, 0.25),)),),
        "scores: range_rel 0.021 > 0.01",
        actual=side("runs/fp16", seed, runner="ort", precision="fp16"),
        golden=side("runs/gold", seed, runner="ort", model="model.onnx"),
        findings=(Finding("near_threshold", "scores: within 2x of the threshold 0.05 in emulation", "scores"),),
    )


def failed_with_nan() -> DiffResult:
    inf = metrics(
        range_rel=math.inf, max_abs=math.inf, cosine=math.nan, nonfinite_mismatch=4, inf_actual=4, range_rel_item=None
    )
    nan = metrics(
        range_rel=math.nan, max_abs=math.nan, cosine=math.nan, p999=math.nan, nonfinite_mismatch=1000, nan_actual=1000
    )
    return diff(
        "failed",
        (
            inside("norm/x2", beyond=True, nodes=("Pow(norm/x2)",), reads=("hidden",), layer="Pow(norm/x2) + ReduceMean(m)", metrics=inf),
            inside("hidden", metrics=metrics(range_rel=0.003)),
            tensor("logits", verdict="failed", beyond=True, reads=("norm/x2",), metrics=nan),
        ),
        "logits: 1000 NaN where golden has none",
        "logits: cosine nan, not >= 0.995",
        first_divergence=("norm/x2",),
        findings=(
            Finding("harmless", "a mask of -1e9 goes to -Inf before a softmax", "mask", "mask_add"),
            Finding("first_nan", "norm/x2 is the first tensor with Inf; golden reaches 91204, float16 ends at 65504", "norm/x2",
                    "Pow(norm/x2)", "keep norm/x2 in fp32", fatal=True),
        ),
    )  # fmt: skip


def missing_output() -> DiffResult:
    return diff(
        "failed",
        (
            tensor("logits"),
            tensor(
                "boxes", status="missing", verdict="failed", actual_name=None, dtype_actual=None, metrics=None, inputs=0
            ),
            tensor(
                "labels", status="shape_mismatch", verdict="failed", metrics=None, shape=(1, 100), shape_actual=(1, 300)
            ),
            tensor("ids", status="kind_mismatch", verdict="failed", metrics=None, dtype_actual="int64"),
            tensor("anchors", role="internal", status="stats_only", verdict="not_judged", metrics=None),
        ),
        "boxes: missing in runs/fp16",
        "labels: shape [1, 300], golden [1, 100]",
    )


def names_not_matching() -> DiffResult:
    gone = [
        tensor(n, status="missing", verdict="failed", metrics=None, inputs=0, actual_name=None)
        for n in ("/fc/Gemm_output_0", "/relu")
    ]
    ours = [
        tensor(n, status="extra", verdict="not_judged", metrics=None, inputs=0, dtype_golden=None)
        for n in ("fc.out", "it's")
    ]
    return diff(
        "failed",
        (*gone, *ours),
        "/fc/Gemm_output_0: missing in fp16.npz",
        actual=SourceInfo("fp16.npz", "npz"),
        roles_known=False,
        suggestions=(
            Suggestion("fc.out", "/fc/Gemm_output_0", 0.52, same_shape=True),
            Suggestion("it's", "/relu", 0.31, same_shape=False),
        ),
    )


def many_inputs() -> DiffResult:
    sets = tuple(InputInfo(f"img_{i}", f"{i:064x}", "folder data") for i in range(8))
    bad = metrics(range_rel=0.31, cosine=0.981, max_abs=6.6, top1=0.75)
    worst = (WorstElement((0, 281), 14.75, 21.35, 6.6, "img_5"), WorstElement((0, 282), 3.0, 1.0, 2.0, "img_1"))
    return diff(
        "failed",
        (tensor("logits", verdict="failed", beyond=True, inputs=8, worst_input="img_5", failing_inputs=("img_5", "img_1"),
                metrics=bad, worst=worst),),
        "logits: range_rel 0.31 > 0.05 on input img_5",
        actual=side("runs/fp16", *sets, runner="ort", precision="fp16"),
        golden=side("runs/gold", *sets[:7], runner="ort"),
        strict_layers=True,
    )  # fmt: skip


def smallest() -> DiffResult:
    tolerant = metrics(smallest_atol=0.0086, smallest_rtol=0.012, smallest_both=0.0011)
    return diff("not_judged", (tensor("logits", verdict="not_judged", metrics=tolerant),), acceptance=())


RESULTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "passed": (passed(), {}),
    "passed_quiet": (passed(), {"quiet": True}),
    "identical": (identical(), {}),
    "warned": (warned(), {}),
    "failed_with_nan": (failed_with_nan(), {}),
    "failed_with_nan_one_row": (failed_with_nan(), {"rows": 1}),
    "missing_output": (missing_output(), {}),
    "missing_output_verbose": (missing_output(), {"verbose": True}),
    "names_not_matching": (names_not_matching(), {}),
    "many_inputs": (many_inputs(), {}),
    "many_inputs_all_metrics": (many_inputs(), {"all_metrics": True}),
    "not_judged_smallest": (smallest(), {}),
    **{f"example_{name}": (result, {}) for name, result in examples().items()},
    **run_pages.RESULTS,
}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, (result, options) in RESULTS.items():
        (FOLDER / f"{name}.txt").write_text(render(result, **options), encoding="utf-8")
