"""A run of real models holds the drill-down of its output, of where error starts, and a picture where the output is one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import probe
from probe.results.json import dumps
from probe.results.run import RunResult


def run(models: Path, name: str) -> RunResult:
    return probe.run(
        models / "models" / f"{name}.onnx",
        precision="fp16",
        inputs=models / "data" / f"{name}__main.npz",
    )


@pytest.mark.parametrize("name", ["mnist", "dtln_1"])
def test_outputs_are_detailed_within_the_limits(name: str, models: Path) -> None:
    result = run(models, name)
    detailed = [t for t in result.tensors if t.detail is not None]
    assert {t.name for t in result.tensors if t.role == "output"} <= {t.name for t in detailed}
    assert 1 < len(detailed) <= 24
    for tensor in detailed:
        assert tensor.detail is not None and tensor.metrics is not None
        found = tensor.detail.golden
        assert found.nan == tensor.metrics.nan_golden and tensor.detail.limits is not None
        assert (
            sum(found.positive) + sum(found.negative) + found.zeros + found.below + found.above
            == tensor.detail.elements
        )
        largest = max((e for e in tensor.detail.error_max if e is not None), default=0.0)
        assert max(largest, tensor.detail.error_at_zero or 0.0) <= tensor.metrics.max_abs * (1 + 1e-5)
        if tensor.detail.elements == tensor.detail.count:
            assert max(largest, tensor.detail.error_at_zero or 0.0) == pytest.approx(tensor.metrics.max_abs, rel=1e-5)


def test_an_image_is_shown_and_a_detail_stays_small(models: Path) -> None:
    result = run(models, "superres_core")
    (output,) = [t for t in result.tensors if t.role == "output"]
    assert output.detail is not None and output.detail.images is not None
    images = output.detail.images
    assert (images.height, images.width, images.reduced) == (*output.shape[2:], 5)
    assert len(images.golden) + len(images.actual) + len(images.difference) < 200_000
    for tensor in json.loads(dumps(result))["tensors"]:
        if tensor["detail"] is not None:
            assert len(json.dumps({**tensor["detail"], "images": None})) < 8000
