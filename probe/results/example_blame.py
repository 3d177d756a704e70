"""The examples of the results about guilty tactics that are published beside their schemas."""

from __future__ import annotations

import math
from typing import Any

from probe.results.blame import (
    Build,
    BuildsResult,
    FlipEffect,
    FlippingLayer,
    FrontPoint,
    GuiltyChoice,
    MeasuredTactic,
    Pin,
    RunFile,
    TacticDifference,
    TacticsBisectResult,
    TacticsDiffResult,
    TacticsOfLayer,
    TacticsTableResult,
    TacticSuspect,
)
from probe.results.diff import Criterion, SourceInfo
from probe.results.find import Evaluated, SearchStep
from probe.results.run import GoldenInfo
from probe.results.tensors import InputInfo

_CONV, _FC = "conv1 + relu1", "fc"
_DEVICE = "cpu: FP16 storage, each layer computed as its tactic says, emulated"
_ACCEPTANCE = (Criterion("range_rel", "<=", 0.05, source="default fp16"),)
_PASSES = Evaluated(True, 0.93, 0.0034)
_FAILS = Evaluated(False, -2.4, 0.17, ("logits: range_rel 0.17 > 0.05",), ("cat",))
_PRIOR = "one choice is to blame with 90%, or something else with 10%"


def examples_of_blame(model_sha256: str, given: InputInfo, environment: dict[str, str]) -> dict[str, Any]:
    """File stem -> result."""
    shared: dict[str, Any] = {
        "model": "model.onnx", "model_sha256": model_sha256, "precision": "fp16", "device": _DEVICE,
        "golden": GoldenInfo("ort", SourceInfo("made now by ort", "tape", "ort", "model.onnx", model_sha256, "", "as_is", (given,))),
        "acceptance": _ACCEPTANCE, "inputs": (given,), "environment": environment,
    }  # fmt: skip
    return {
        "tactics-diff": _diff(), "tactics-bisect": _bisect(shared), "tactics-table": _table(shared), "builds": _builds(shared)
    }  # fmt: skip


def _diff() -> TacticsDiffResult:
    """Two good runs, two bad ones: one choice is in all bad ones and no good one, another in half of both."""
    files = [("monday.tactics", False), ("tuesday.tactics", False), ("friday.tactics", True), ("sunday.tactics", True)]
    runs = [RunFile(path, bad, 2) for path, bad in files]
    return TacticsDiffResult(
        good=tuple(runs[:2]), bad=tuple(runs[2:]),
        suspects=(
            TacticSuspect(_CONV, ("relu1_output",), "winograd_f4", 2, 0, 2, 2, 1 / 6, 0.71, instead={"exact": 1, "splitk2": 1}),
        ),
        unexplained=0.03, prior=_PRIOR, layers=2, same=1,
        command="probe tactics diff --good monday.tactics --good tuesday.tactics --bad friday.tactics --bad sunday.tactics",
    )  # fmt: skip


def _bisect(shared: dict[str, Any]) -> TacticsBisectResult:
    """One guilty choice of two differences."""
    guilty = TacticDifference(_CONV, ("relu1_output",), "conv", "fp16", "exact", "winograd_f4", 0.21)
    innocent = TacticDifference(_FC, ("logits",), "gemm", "fp16", "exact", "splitk2", 1.1e-7)
    return TacticsBisectResult(
        status="found", reason="1 of 2 differences must be pinned", good="good.tactics", bad="bad.tactics",
        differences=(guilty, innocent), guilty=(GuiltyChoice(guilty, (guilty,), 6, _FAILS),), good_run=_PASSES, bad_run=_FAILS,
        good_with_guilty=_FAILS, bad_without_guilty=_PASSES, confirmed=True,
        evaluations={"search": 5, "probes": 0, "proof": 4, "confirm": 2}, sweep=4, layers=7,
        steps=(SearchStep(0, "search", "all low", 0, False, -2.4), SearchStep(1, "search", "all FP32", 2, True, 0.93)),
        pinned="pinned.tactics", denied="deny.txt", seconds={"compile": 0.2, "search": 0.9},
        command="probe tactics bisect good.tactics bad.tactics model.onnx -o pinned.tactics --deny-list deny.txt", **shared,
    )  # fmt: skip


def _table(shared: dict[str, Any]) -> TacticsTableResult:
    """A convolution whose fastest candidate is 14 times less accurate, and one that makes Inf."""
    exact = MeasuredTactic("exact", "products and sums in FP32", True, 410.2, 0.00034, 0.00021, front=True)
    fast = MeasuredTactic(
        "winograd_f4", "F(4x4, 3x3), transforms in FP16", True, 151.0, 0.0081, 0.00294, front=True, flipped=_FAILS, changed=0.17
    )  # fmt: skip
    broken = MeasuredTactic(
        "acc16", "sums of 16 products in FP32, added in FP16", True, 702.5, math.inf, math.inf, front=False, flipped=_FAILS, changed=math.inf
    )  # fmt: skip
    return TacticsTableResult(
        layers=(
            TacticsOfLayer(_CONV, ("relu1_output",), "conv", "fp16", "Conv(fp16[1,3,8,8], fp16[4,3,3,3]) + Relu(.) -> fp16[1,4,8,8]",
                           "exact", (fast, exact, broken)),
            TacticsOfLayer("norm", ("norm_output",), "norm", "fp16", "Custom(fp16[1,4,8,8]) -> fp16[1,4,8,8]", "exact", (),
                           "no reference in float64: no such operator"),
        ),
        base=_PASSES,
        front=(FrontPoint("most accurate", {}, 410.2, _PASSES), FrontPoint("fastest", {_CONV: "winograd_f4"}, 151.0, _FAILS)),
        evaluations=5, seconds={"measure": 0.4, "flip": 0.3}, command="probe tactics table model.onnx --inputs cat.npz", **shared,
    )  # fmt: skip


def _builds(shared: dict[str, Any]) -> BuildsResult:
    """Three builds, one of them bad."""
    return BuildsResult(
        verdict="failed",
        builds=(Build("a1" * 32, "c3" * 32, _PASSES, 612.0), Build("a1" * 32, "c3" * 32, _PASSES, 609.1), Build("b2" * 32, "d4" * 32, _FAILS, 388.7)),
        layers=2,
        flipping=(
            FlippingLayer(
                _CONV, ("relu1_output",), "conv",
                (FlipEffect("exact", 2, (410.2, 405.0, 431.9), _PASSES, 0.0), FlipEffect("winograd_f4", 1, (415.0, 411.3, 402.2), _FAILS, 0.17)), 1,
            ),
        ),
        pins=(Pin(_CONV, ("relu1_output",), "exact"),), pins_for_bits=(Pin(_CONV, ("relu1_output",), "exact"),), pinned_passes=True,
        evaluations=3, command="probe run model.onnx --builds 3 --inputs cat.npz", **shared,
    )  # fmt: skip
