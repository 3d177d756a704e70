"""Local, injected, floor and gain against the definitions, computed here with numpy and nothing of the engine."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import probe
from probe.precision import round_to
from probe.results.run import LayerError, RunResult

RNG = np.random.default_rng(1)
W = RNG.normal(size=(16, 16)).astype(np.float32)
V = RNG.normal(size=(16, 16)).astype(np.float32)
X = RNG.normal(size=(8, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x -> MatMul a -> Reshape -> MatMul y, and the indices of a's largest elements."""
    path = tmp_path_factory.mktemp("local") / "model.onnx"
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["a"], "first"),
        helper.make_node("Reshape", ["a", "shape"], ["b"], "view"),
        helper.make_node("MatMul", ["b", "V"], ["y"], "second"),
        helper.make_node("ArgMax", ["a"], ["best"], "best", axis=1),
    ]
    weights = [
        numpy_helper.from_array(W, "W"),
        numpy_helper.from_array(V, "V"),
        numpy_helper.from_array(np.array([2, 4, 16]), "shape"),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [8, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None), helper.make_tensor_value_info("best", TensorProto.INT64, None)],
        weights,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def layers_of(result: RunResult) -> dict[str, LayerError]:
    return {layer.name: layer for layer in result.layers}


def rel(actual: np.ndarray, golden: np.ndarray) -> float:
    return float(np.abs(actual.astype(np.float64) - golden).max() / np.abs(golden).max())


def nsr(actual: np.ndarray, golden: np.ndarray) -> float:
    error = actual.astype(np.float64) - golden
    return float((error**2).sum() / (golden.astype(np.float64) ** 2).sum())


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_definitions(model: Path, precision: str) -> None:
    def rounded(x: np.ndarray) -> np.ndarray:
        return round_to(x, precision)

    found = layers_of(probe.run(model, inputs={"x": X}, precision=precision, passes="none", fusion="none"))
    a, running_a = X @ W, rounded(rounded(X) @ rounded(W))
    first, second = found["first"], found["second"]
    near = {"rel": 0.02}  # ONNX Runtime adds in another order than numpy, which flips a rounding here and there
    assert first.local == pytest.approx(rel(rounded(rounded(X) @ rounded(W)), rounded(X) @ rounded(W)), **near)
    assert first.injected == pytest.approx(rel(running_a, a), **near)
    assert first.accumulated == first.injected, "the first layer reads what the golden reads"
    assert first.gain is None, "nothing arrives with an error"
    b = a.reshape(2, 4, 16)
    low = rounded(rounded(b) @ rounded(V))
    assert second.local == pytest.approx(rel(low, rounded(b) @ rounded(V)), **near)
    assert second.injected == pytest.approx(rel(low, b @ V), **near)
    arrived = running_a.reshape(2, 4, 16)
    assert second.gain == pytest.approx(nsr(arrived @ V, b @ V) / nsr(arrived, b), rel=0.05)
    assert second.floor is not None and second.floor < 1e-6
    assert second.accumulated == pytest.approx(rel(rounded(arrived @ rounded(V)), b @ V), **near)


def test_layers_that_have_no_error_of_their_own(model: Path) -> None:
    found = layers_of(probe.run(model, inputs={"x": X}, passes="none", fusion="none"))
    view = found["view"]
    assert (view.local, view.injected, view.floor, view.gain) == (None, None, None, None)
    assert "moves data" in view.note and view.accumulated == found["first"].accumulated


def test_fp32_adds_nothing(model: Path) -> None:
    for layer in layers_of(probe.run(model, inputs={"x": X}, precision="fp32", passes="none", fusion="none")).values():
        assert layer.local in (0.0, None) and layer.accumulated == 0.0 and layer.injected == layer.floor


def test_only_selected_layers_are_measured(model: Path) -> None:
    found = layers_of(probe.run(model, inputs={"x": X}, passes="none", fusion="none", layers="^second$"))
    assert found["second"].local is not None
    assert (
        found["first"].local is None
        and found["first"].note == "not selected"
        and found["first"].accumulated is not None
    )
    assert found["view"].note == "not selected", "what only moves data is no exception"


def test_what_the_golden_lacks_is_said(model: Path, tmp_path: Path) -> None:
    golden = probe.dump(model, tmp_path / "golden.npz", inputs={"x": X}, select="^(y|best)$")
    golden.close()
    found = layers_of(probe.run(model, golden=tmp_path / "golden.npz", passes="none", fusion="none"))
    assert found["second"].local is None and found["second"].note == "reads b, which the golden does not have"
    assert found["first"].local is not None and found["first"].injected is None, "its input is there, its output is not"
    assert found["second"].accumulated is not None


def test_inf_is_an_infinite_error(model: Path) -> None:
    found = layers_of(probe.run(model, inputs={"x": X * np.float32(3e4)}, passes="none", fusion="none"))
    first = found["first"]
    assert (first.accumulated, first.injected, first.local) == (math.inf, math.inf, math.inf)
    assert first.nonfinite > 0 and first.beyond
    assert found["second"].gain is None, "no ratio of infinite noise"
