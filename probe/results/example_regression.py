"""The example of ``probe.regression/1`` that is published beside its schema."""

from __future__ import annotations

import math
from typing import Any

from probe.results.diff import Criterion
from probe.results.regression import (
    FindingChange,
    PartChange,
    PartLayer,
    RegressionResult,
    ResultSide,
    SettingChange,
    TensorChange,
)
from probe.results.tensors import InputInfo

_STEM, _SQUARE, _MEAN, _HEAD = "/stem/MatMul", "/norm/Pow", "/norm/ReduceMean", "/head/MatMul"
_NORM = f"{_SQUARE} + {_MEAN}"


def example_regression(model_sha256: str, given: InputInfo, environment: dict[str, str]) -> RegressionResult:
    """A normalisation that was one fused layer is two now, and the square between them overflows: an output is 20 times worse."""
    sides = tuple(_side(*words, model_sha256, given, environment) for words in (
        ("monday.json", "passed", "full", 3), ("tuesday.json", "warned", "none", 4)
    ))  # fmt: skip
    return RegressionResult(
        verdict="failed",
        reasons=("logits went from passed to warned: range_rel 0.0004 before, 0.008 now", "the verdict went from passed to warned"),
        before="monday.json",
        after="tuesday.json",
        verdict_before="passed",
        verdict_after="warned",
        changes=(
            TensorChange("stem_out", "better", "internal", 0.0002, 0.00008, 0.4),
            TensorChange("norm_out", "worse", "internal", 0.0003, 0.011, 11 / 0.3),
            TensorChange("square", "only_after", "internal", None, math.inf, None),
            TensorChange("logits", "worse", "output", 0.0004, 0.008, 20.0, "passed", "warned"),
            TensorChange("cache", "same", "output", 0.001, 0.001, 1.0, "passed", "passed"),
        ),
        worse_factor=2.0,
        parts=(
            PartChange(_STEM, "better", "better", ("stem_out",), 0.0002, 0.00008, 0.4, 0.0002, 0.00008,
                       (_layer(_STEM, "winograd_f4", 0.0002),), (_layer(_STEM, "exact", 0.00008),), ("tactic",)),
            PartChange(_NORM, "worse", "worse", ("norm_out",), 0.0003, 0.011, 11 / 0.3, 0.0001, math.inf,
                       (_layer(_NORM, "exact", 0.0001, (_SQUARE, _MEAN), "rms_norm"),),
                       (_layer(_SQUARE, "exact", math.inf), _layer(_MEAN, "exact", 0.0001)), ("fusion",), starts_after=True),
            PartChange(_HEAD, "worse", "same", ("logits",), 0.0004, 0.008, 20.0, 0.0002, 0.0002,
                       (_layer(_HEAD, "exact", 0.0002),), (_layer(_HEAD, "exact", 0.0002),)),
        ),
        findings=(
            FindingChange("only_after", "overflow", "square overflows: golden reaches 91204, fp16 ends at 65504", fatal=False,
                          tensor="square", node=_SQUARE),
        ),
        first_after=(_SQUARE,),
        settings=(SettingChange("fusion", "full", "none"),),
        warnings=("the inputs are not the same: 2, then 1, 1 in common",),
        sides=sides,
    )  # fmt: skip


def _layer(name: str, tactic: str, error: float, nodes: tuple[str, ...] = (), pattern: str = "") -> PartLayer:
    return PartLayer(name, nodes or (name,), "fp16", tactic, pattern, "", error, error, error)


def _side(
    path: str, verdict: Any, fusion: str, layers: int, model: str, given: InputInfo, environment: dict[str, str]
) -> ResultSide:
    again = InputInfo("dog", "0a" * 32, "file dog.npz")
    return ResultSide(
        path, "probe.run/1", verdict, "model.onnx", model, "fp16", "cpu: FP16 storage, FP32 accumulation, emulated", "safe", fusion, "storage",
        "ort", (Criterion("range_rel", "<=", 0.05, source="default fp16"),), (given, *((again,) if fusion == "full" else ())), (), layers,
        environment, f"probe run model.onnx --precision fp16 --fusion {fusion} --inputs cat.npz --json {path}",
    )  # fmt: skip
