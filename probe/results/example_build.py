"""The example of ``probe build --json``."""

from __future__ import annotations

from collections.abc import Mapping

from probe.results.build import BuildResult
from probe.results.tactics import Fingerprint


def example_build(digest: str, environment: Mapping[str, str]) -> BuildResult:
    """A transformer's head in FP16, one tensor kept, with recorded tactics."""
    return BuildResult(
        path="engine.probe", bytes=4_310_122, probe="0.1.0", model="model.onnx",
        fingerprint=Fingerprint(digest, "cpu x86_64", "Example CPU", "onnxruntime 1.31.1", digest), precision="fp16",
        device="cpu: FP16 storage, each layer computed as its tactic says, emulated", passes="safe", fusion="safe", interior="storage",
        layers=36, low_layers=24, kept=("/norm/Pow_output_0",), tactics={"exact": 25, "acc16": 2}, tactic_file="fast.tactics", changes=12,
        weights=31, weight_bytes=4_201_216, notes=("nodes were not in topological order; sorted",), environment=dict(environment),
        command="probe build model.onnx -o engine.probe --tactics fast.tactics", seconds={"compile": 0.21, "sessions": 0.18, "tactics": 0.09,
        "save": 0.05}, load_seconds=0.03,
    )  # fmt: skip
