"""What older versions of the libraries that probe stands on do not do yet; ``make test-lowest`` runs the tests with the oldest allowed."""

from __future__ import annotations

import onnx
import onnxruntime
import pytest


def ort_before(version: str) -> bool:
    """Whether the installed ONNX Runtime is older than ``major.minor``."""
    return _numbers(onnxruntime.__version__) < _numbers(version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def needs_opset(opset: int) -> pytest.MarkDecorator:
    """Of a test with operators of an opset that older versions of onnx do not know."""
    known = onnx.defs.onnx_opset_version()
    return pytest.mark.skipif(known < opset, reason=f"onnx {onnx.__version__} knows opsets up to {known}")
