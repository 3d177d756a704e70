"""Sessions of the CPU device and the weights they share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from probe.engine.build import compile_model
from probe.model import load

TEXT = """<ir_version: 8, opset_import: ["" : 17]> g (float[2,32] x) => (float[2,32] y) { y = MatMul (x, w) }"""


@pytest.mark.parametrize("folder", ["somewhere else", "/"])
def test_the_working_directory_does_not_matter(tmp_path, monkeypatch, folder):
    """A weight of 4 KB is handed to ONNX Runtime as a value; its place in the graph must pass for one that exists."""
    model = onnx.parser.parse_model(TEXT)
    w = np.random.default_rng(0).standard_normal((32, 32), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(w, "w"))
    onnx.save(model, tmp_path / "m.onnx")
    (tmp_path / "somewhere else").mkdir()
    monkeypatch.chdir(tmp_path / folder if folder != "/" else Path("/"))
    engine = compile_model(load(tmp_path / "m.onnx"), precision="fp16")
    x = np.eye(2, 32, dtype=np.float32)
    expected = w[:2].astype(np.float16).astype(np.float32)
    assert np.array_equal(engine.run({"x": x})["y"], expected)
    assert np.array_equal(engine.run({"x": x}, tap=lambda _: None)["y"], expected)
