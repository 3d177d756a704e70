"""Types of what onnx has no definition of: without them nothing is rounded, and no layer after them runs alone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from probe import ir
from probe.engine.build import compile_model
from probe.engine.device.cpu.types import complete_types
from probe.engine.network import read_network
from probe.model import load
from probe.precision import round_to

CONTRIB = """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> g (float[n,4] x) => (float[n,4] y)
{ a = com.microsoft.Gelu (x)  b = Sigmoid (a)  y = com.microsoft.QuickGelu (b) }"""
IN_A_BRANCH = """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]> g (bool c, float[n,4] x) => (float[n,4] y)
{ a = If (c) <then_branch = t () => (float[n,4] p) { p = com.microsoft.Gelu (x) }, else_branch = e () => (float[n,4] q) { q = Neg (x) }>
  y = Exp (a) }"""
X = np.array([[0.1, 0.2, -0.3, 5.0]], np.float32)


def saved(tmp_path, text):
    onnx.save(onnx.parser.parse_model(text), tmp_path / "m.onnx")
    return load(tmp_path / "m.onnx")


def types_of(network):
    return {v.name: v.dtype for graph in network.graphs() for node in graph for v in node.outputs}


@pytest.mark.parametrize("text", [CONTRIB, IN_A_BRANCH])
def test_every_tensor_has_a_type(tmp_path, text):
    network = read_network(saved(tmp_path, text))
    complete_types(network)
    assert set(types_of(network).values()) == {ir.DataType.FLOAT}


def test_what_nobody_knows_stays_without(tmp_path):
    text = CONTRIB.replace("com.microsoft.Gelu", "my.domain.Foo").replace(
        '"com.microsoft"', '"my.domain" : 1, "com.microsoft"'
    )
    network = read_network(saved(tmp_path, text))
    complete_types(network)
    assert types_of(network) == {"a": None, "b": None, "y": ir.DataType.FLOAT}


@pytest.mark.parametrize("text", [CONTRIB, IN_A_BRANCH])
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_what_custom_operators_make_is_rounded_and_both_executors_agree(tmp_path, text, precision):
    engine = compile_model(saved(tmp_path, text), precision=precision, passes="none", fusion="none")
    feeds = {"x": X} | ({"c": np.bool_(True)} if text is IN_A_BRANCH else {})
    taps = {}
    outputs = engine.run(feeds, tap=lambda one: taps.setdefault(one.name, one.array))
    assert all(np.array_equal(array, round_to(array, precision)) for array in taps.values() if array is not None)
    assert outputs["y"].tobytes() == engine.run(feeds)["y"].tobytes()


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_the_standard_domain_by_either_name(tmp_path, domain):
    text = f'<ir_version: 8, opset_import: ["{domain}" : 12]> g (float[2] x) => (float[2] y) {{ y = Sigmoid (x) }}'
    engine = compile_model(saved(tmp_path, text), precision="bf16")
    assert engine.network.opset == 12
    y = engine.run({"x": X[0, :2]})["y"]
    assert np.array_equal(y, round_to(y, "bf16"))
