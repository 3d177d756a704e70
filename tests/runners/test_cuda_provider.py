"""ONNX Runtime's CUDA provider as a runner: asked for, active, recorded, and in agreement with the CPU golden."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import probe
from probe.demo import build_demo_model
from probe.runners.protocol import RunnerOptions

pytestmark = pytest.mark.gpu
CUDA = RunnerOptions(providers=("cuda",))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "demo.onnx"
    path.write_bytes(build_demo_model())
    return path


def test_every_tensor_is_recorded_from_the_gpu_and_agrees_with_the_cpu(model: Path, tmp_path: Path) -> None:
    probe.dump(model, tmp_path / "cpu", seed=3).close()
    with probe.dump(model, tmp_path / "cuda", seed=3, options=CUDA) as recorded:
        assert recorded.header.device.startswith("CUDAExecutionProvider")
    result = probe.diff(tmp_path / "cuda", tmp_path / "cpu", strict_layers=True)
    assert result.verdict == "passed", result.reasons
    assert {t.status for t in result.tensors} == {"compared"}
    # Other kernels: were every tensor bit-identical, the CPU would have computed them.
    assert max(t.metrics.max_abs for t in result.tensors if t.metrics is not None) > 0


def test_goldens_on_the_gpu_are_fp32_and_not_tf32(model: Path, tmp_path: Path) -> None:
    probe.dump(model, tmp_path / "cpu", seed=3)
    probe.dump(model, tmp_path / "cuda", seed=3, options=CUDA)
    worst = max(t.metrics.range_rel for t in probe.diff(tmp_path / "cuda", tmp_path / "cpu").tensors if t.metrics)
    assert worst < 2e-5  # TF32's roundoff alone is 5e-4
    assert np.isfinite(worst)
