"""Exposed models compute what they computed before, and hand out the right tensors."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from probe.model import load
from probe.model.expose import expose
from tests.model import builders as b
from tests.model import ort

X = np.array([[1.5, -2, 3], [-0.25, 0.5, 4]], np.float32)
FEEDS = {
    "mlp": {"x": X}, "old_ir": {"x": X}, "omitted_inputs": {"x": X.reshape(1, 1, 2, 3)}, "sequence": {"x": X},
    "optional_input": {"x": X}, "map_output": {"x": X}, "strings": {"x": np.array(["a", "b"], object)},
    "local_function": {"x": X}, "qdq": {"x": X}, "if_else": {"x": X, "c": np.array(True)},
    "nested_if": {"x": np.abs(X), "c": np.array(True)}, "loop": {"x": X * 0.1, "n": np.array(3)},
    "growing_loop": {"x": X, "n": np.array(1)}, "if_in_loop": {"x": X, "n": np.array(3)},
    "loop_in_if": {"x": X, "n": np.array(2), "c": np.array(True)}, "scan": {"start": np.zeros(3, np.float32), "x": np.eye(4, 3, dtype=np.float32)},
    "half": {"x": np.eye(2, dtype=np.float16), "c": np.array(True)},
}  # fmt: skip


@pytest.fixture
def exposed(tmp_path):
    def of(proto: onnx.ModelProto, **options):
        return expose(load(b.save(proto, tmp_path / "model.onnx")), **options)

    return of


@pytest.mark.parametrize("name", FEEDS)
def test_outputs_keep_every_bit(exposed, name):
    proto = b.GOOD[name]()
    exposure = exposed(proto)
    for node in proto.graph.node:
        node.name = ""  # ONNX Runtime refuses node names that occur twice; the exposed model it takes
    _, fetched, _ = ort.run_exposed(exposure, FEEDS[name])
    for output, before in ort.run(proto.SerializeToString(), FEEDS[name]).items():
        assert ort.same_bits(before, fetched[output])


@pytest.mark.parametrize("name", b.GOOD)
def test_every_tensor_is_exposed_or_accounted_for(exposed, tmp_path, name):
    exposure = exposed(b.GOOD[name]())
    model = load(tmp_path / "model.onnx")
    made = {output for node in model.nodes if node.op != "Constant" for output in node.outputs if output}
    names = [tensor.name for tensor in exposure.tensors]
    assert len(set(names)) == len(names)
    assert {*names, *(name for name, _ in exposure.not_exposed if not name.startswith("local function"))} == made
    assert {t.name for t in exposure.tensors if t.role == "output"} == {p.name for p in model.outputs}
    identities = {node.identity for node in model.nodes}
    for position, tensor in enumerate(exposure.tensors):
        assert set(tensor.nodes) <= identities
        known = {*names[:position], *(p.name for p in model.inputs), *(name for name, _ in exposure.not_exposed)}
        assert set(tensor.reads) <= known, tensor  # in execution order


def test_values_at_the_top_level(exposed):
    proto = b.mlp()
    w1, b1, w2 = (onnx.numpy_helper.to_array(t) for t in proto.graph.initializer)
    values, _, _ = ort.run_exposed(exposed(proto), {"x": X})
    hidden = np.maximum(X @ w1 + b1, 0)
    np.testing.assert_allclose(values["layer 1/add"], X @ w1 + b1, rtol=1e-5)
    np.testing.assert_allclose(values["hidden"], hidden, rtol=1e-5)
    np.testing.assert_allclose(values["y"], hidden @ w2, rtol=1e-4, atol=1e-5)


def test_reads_leave_out_weights_constants_and_omitted_inputs(exposed):
    reads = {t.name: t.reads for t in exposed(b.omitted_inputs()).tensors}
    assert reads == {"c": ("x",), "y": ("c",)}
    assert {t.name: t.reads for t in exposed(b.qdq()).tensors}["xd"] == ("xq",)


def test_steps_travel_with_their_tensors(exposed):
    exposure = exposed(b.qdq())
    assert {t.name: t.step for t in exposure.tensors} == {
        "xq": None,
        "xd": pytest.approx(0.05),
        "wd": pytest.approx(0.04),
        "y": None,
    }


def test_select(exposed):
    exposure = exposed(b.nested_if(), select=lambda name: name in ("deep_else", "y"))
    assert [t.name for t in exposure.tensors] == ["deep_else", "y"]
    assert exposure.not_exposed == ()
    values, _, idle = ort.run_exposed(exposure, {"x": np.abs(X), "c": np.array(True)})
    assert set(values) == {"y"}
    assert idle == {"deep_else"}
    only_inside = exposed(b.nested_if(), select=lambda name: name == "total")
    assert [t.name for t in only_inside.tensors] == ["total"]  # graph outputs, too, are left out when not selected
    assert exposed(b.mlp(), select=lambda name: False).tensors == ()


def test_constants_on_request(exposed):
    assert "sx" not in {t.name for t in exposed(b.qdq()).tensors}
    exposure = exposed(b.qdq(), constants=True)
    values, _, _ = ort.run_exposed(exposure, {"x": X})
    assert values["sx"] == np.float32(0.05)


def test_outputs_that_no_node_makes(exposed):
    proto = b.mlp()
    proto.graph.output.extend([b.value("x"), b.value("b1", (64,))])
    exposure = exposed(proto)
    assert ("x", "a graph input passed through; recorded as an input") in exposure.not_exposed
    values, _, _ = ort.run_exposed(exposure, {"x": X})
    assert np.array_equal(values["b1"], np.ones(64))


def test_models_out_of_order_run(exposed):
    proto = b.if_else()
    for attribute in proto.graph.node[0].attribute:
        nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in reversed(attribute.g.node)]
        del attribute.g.node[:]
        attribute.g.node.extend(nodes)
    with pytest.raises(Exception, match="topologically sorted"):
        ort.session(proto.SerializeToString())
    for options in ({}, {"bodies": False}):
        values, _, _ = ort.run_exposed(exposed(proto, **options), {"x": X, "c": np.array(True)})
        assert np.array_equal(values["y"], np.maximum(-X, 0))


def test_a_large_model_costs_one_copy_of_its_bytes(exposed, tmp_path):
    proto = b.mlp(hidden=100_000)
    exposure = exposed(proto)
    original = (tmp_path / "model.onnx").read_bytes()
    # Node names occur twice, so this one is written anew; with unique names the bytes are the original's and a few more
    for node in proto.graph.node:
        node.name = ""
    exposure = exposed(proto)
    original = (tmp_path / "model.onnx").read_bytes()
    assert exposure.model_bytes.startswith(original)
    assert len(exposure.model_bytes) - len(original) < 200
