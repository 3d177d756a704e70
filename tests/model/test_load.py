"""What ``load`` says about sound models."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
import pytest

from probe.errors import InputError
from probe.model import load
from probe.model.quantised import steps
from tests.model import builders as b


@pytest.fixture
def loaded(tmp_path):
    def of(proto: onnx.ModelProto):
        return load(b.save(proto, tmp_path / "model.onnx"))

    return of


@pytest.mark.parametrize("name", b.GOOD)
def test_every_feature_loads(loaded, name):
    proto = b.GOOD[name]()
    model = loaded(proto)
    fed = {tensor.name for tensor in proto.graph.initializer}
    assert [port.name for port in model.inputs] == [v.name for v in proto.graph.input if v.name not in fed]
    assert [port.name for port in model.outputs] == [v.name for v in proto.graph.output]
    assert model.proto_bytes() == proto.SerializeToString()
    assert model.sha256 == hashlib.sha256(proto.SerializeToString()).hexdigest()
    assert len({node.identity for node in model.nodes}) == len(model.nodes)


@pytest.mark.parametrize("name", sorted(set(b.GOOD)))
def test_onnx_ir_takes_every_feature(loaded, name):
    model = loaded(b.GOOD[name]())
    assert sum(1 for _ in model.ir.graph.all_nodes()) == len(model.nodes)


@pytest.mark.parametrize(
    ("build", "numerics", "half"),
    [
        (b.mlp, "float32", ""),
        (b.half, "float16", "float16"),
        (lambda: b.half(b.BFLOAT16, opset=22), "bfloat16", "bfloat16"),
        (b.qdq, "qdq", ""),
        (b.strings, "float32", ""),
    ],
)
def test_numerics(loaded, build, numerics, half):
    model = loaded(build())
    assert (model.numerics, model.half) == (numerics, half)


def test_float64_needs_the_majority_of_weights(loaded):
    def with_weights(kind, size):
        return b.model(
            [b.node("Cast", ["x"], ["d"], to=onnx.TensorProto.DOUBLE), b.node("Add", ["d", "w"], ["y"])],
            [b.value("x", (2, 1))],
            [b.untyped("y")],
            [b.weight("w", np.ones((1, size), np.float64)), b.weight("unused", np.ones(100, kind))],
        )

    assert loaded(with_weights(np.float32, 3)).numerics == "float32"
    assert loaded(with_weights(np.float64, 3)).numerics == "float64"


def test_types_and_shapes_of_ports(loaded):
    model = loaded(b.sequence())
    assert [(p.name, p.dtype, p.shape, p.is_tensor) for p in model.outputs] == [
        ("y", "float32", (4, 3), True),
        ("s", "seq(float32)", (2, 3), False),
    ]
    assert loaded(b.map_output()).outputs[0].dtype == "seq(map(int64,float32))"
    assert loaded(b.optional_input()).inputs[0].dtype == "optional(float32)"
    assert loaded(b.strings()).inputs[0].dtype == "string"


def test_dynamic_extents(loaded):
    proto = b.model([b.node("Relu", ["x"], ["y"])], [b.value("x", ("batch", None, 3))], [b.untyped("y")])
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = -1  # what some exporters write for "dynamic"
    model = loaded(proto)
    assert model.inputs[0].shape == ("batch", None, 3)
    assert model.outputs[0].dtype == "float32"
    assert model.outputs[0].shape is not None
    assert model.outputs[0].shape[0] == "batch"
    unranked = b.model([b.node("Relu", ["x"], ["y"])], [b.value("x", None)], [b.value("y", None)])
    assert loaded(unranked).inputs[0].shape is None


def test_initialisers_listed_as_inputs_are_constants(loaded):
    assert [p.name for p in loaded(b.old_ir()).inputs] == ["x"]


def test_identities(loaded):
    model = loaded(b.mlp())
    assert [n.identity for n in model.nodes] == ["MatMul(a:0)", "add", "Relu(hidden)", "MatMul(y)"]
    assert [n.name for n in model.nodes] == ["", "add", "twice", "twice"]
    assert any("twice" in note for note in model.notes)


def test_identities_and_bodies_of_nested_nodes(loaded):
    nodes = {n.identity: n for n in loaded(b.nested_if()).nodes}
    assert nodes["last"].body == ""
    assert nodes["sqrt"].body == "outer_if/then_branch"
    assert nodes["neg"].body == "inner_if/then_branch"
    order = list(nodes)
    assert order.index("neg") < order.index("inner_if") < order.index("outer_if") < order.index("last")


def test_identities_of_sibling_bodies_that_reuse_names(loaded):
    proto = b.if_else(share_names=True)
    for attribute in proto.graph.node[0].attribute:
        for node in attribute.g.node:
            node.name = ""
            node.op_type = "Neg" if node.op_type == "Exp" else node.op_type
    identities = [n.identity for n in loaded(proto).nodes]
    assert "choose/then_branch/Neg(inner)" in identities
    assert "choose/else_branch/Neg(inner)" in identities
    assert len(set(identities)) == len(identities)


def test_unsorted_nodes_are_sorted(loaded):
    proto = b.nested_if()
    nodes = list(reversed(proto.graph.node))
    body = next(a.g for node in nodes for a in node.attribute if a.name == "then_branch")
    inner = list(reversed(body.node))
    del body.node[:]
    body.node.extend(inner)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    model = loaded(proto)
    order = [n.identity for n in model.nodes]
    assert order == [n.identity for n in loaded(b.nested_if()).nodes]
    assert any("sorted" in note for note in model.notes)
    assert model.needs_rewrite


def test_sorted_nodes_stay_where_they_are(loaded):
    nodes = [b.node("Relu", ["x"], [f"r{i}"], name=f"r{i}") for i in (3, 1, 2)]
    model = loaded(b.model(nodes, [b.value("x")], [b.value("r1")]))
    assert [n.identity for n in model.nodes] == ["r3", "r1", "r2"]
    assert model.notes == ()


def test_custom_domains_are_listed(loaded):
    assert loaded(b.custom_domain()).custom_domains == ("my.ops",)
    assert loaded(b.local_function()).custom_domains == ()


@pytest.mark.parametrize("op", ["SimplifiedLayerNormalization", "LayerNormalization"])
def test_operators_only_onnx_runtime_has_in_the_standard_domain(loaded, op):
    proto = b.model(
        [b.node(op, ["x", "w"], ["y"])],
        [b.value("x")],
        [b.value("y")],
        [b.weight("w", np.ones(3, np.float32))],
        opset=13,
    )
    assert loaded(proto).custom_domains == ()


def test_wrong_declared_shapes_are_noted_and_ignored(loaded):
    proto = b.mlp()
    proto.graph.value_info.append(b.value("hidden", (7, 64)))
    proto.graph.output[0].CopyFrom(b.value("y", (5, 4)))
    model = loaded(proto)
    assert any("declared shapes" in note for note in model.notes)
    assert model.root.types["hidden"].tensor_type.shape.dim[0].dim_value == 2


def test_operators_whose_inference_would_crash_are_inferred_once_their_inputs_are_known(loaded):
    """onnx's inference of EyeLike reads the type of its input unasked. The second one's input is known only after the first."""
    nodes = [
        b.node("Mystery", ["x"], ["m"], domain="my.ops"),
        b.node("EyeLike", ["m"], ["of_unknown"]),
        b.node("EyeLike", ["x"], ["first"]),
        b.node("Relu", ["first"], ["between"]),
        b.node("EyeLike", ["between"], ["second"]),
        b.node("Abs", ["second"], ["y"]),
    ]
    proto = b.model(nodes, [b.value("x")], [b.untyped("y"), b.untyped("of_unknown")], domains=("my.ops",))
    model = loaded(proto)
    assert [p.dtype for p in model.outputs] == ["float32", "unknown"]
    assert model.outputs[0].shape == (2, 3)
    stale = b.model(nodes[2:], [b.value("x")], [b.untyped("y")])
    stale.graph.value_info.append(b.value("between", (9, 9)))
    model = loaded(stale)
    assert len(model.notes) == 1
    assert model.outputs[0].shape == (2, 3)


@pytest.mark.parametrize("opset", [7, 11, 13, 21, onnx.defs.onnx_opset_version()])
@pytest.mark.parametrize("ir", [3, 4, 10, 99])
def test_opsets_and_ir_versions(loaded, opset, ir):
    proto = b.model([b.node("Relu", ["x"], ["y"])], [b.value("x")], [b.value("y")], opset=opset, ir=ir)
    assert loaded(proto).opset == {"": opset}


def test_the_standard_domain_may_be_spelled_out(loaded):
    proto = b.model([b.node("Relu", ["x"], ["y"], domain="ai.onnx")], [b.value("x")], [b.value("y")])
    proto.opset_import[0].domain = "ai.onnx"
    model = loaded(proto)
    assert model.opset == {"": 17}
    assert model.nodes[0].domain == ""


def test_values_of_weights(loaded, tmp_path):
    proto = b.mlp(hidden=4096)
    model = loaded(proto)
    for empty, whole in zip(model.proto.graph.initializer, proto.graph.initializer, strict=True):
        assert np.array_equal(model.tensor(empty), onnx.numpy_helper.to_array(whole))
    other = load(b.external(tmp_path))
    assert np.array_equal(other.tensor(other.proto.graph.initializer[0]), np.arange(4096, dtype=np.float32))


def test_external_data_enters_the_hash_and_the_list(tmp_path):
    model = load(b.external(tmp_path))
    assert model.external_files == (tmp_path / "weights.bin",)
    assert model.sha256 != hashlib.sha256(model.path.read_bytes()).hexdigest()
    before = model.sha256
    data = bytearray((tmp_path / "weights.bin").read_bytes())
    data[100] ^= 1
    (tmp_path / "weights.bin").write_bytes(data)
    assert load(model.path).sha256 != before


def test_a_model_that_changes_under_us_is_told(loaded, tmp_path):
    model = loaded(b.mlp())
    b.save(b.old_ir(), model.path)
    with pytest.raises(InputError, match="changed while"):
        model.proto_bytes()
    model.path.unlink()
    with pytest.raises(InputError, match="cannot read"):
        model.proto_bytes()


def test_quantisation_steps(loaded):
    assert steps(loaded(b.qdq())) == pytest.approx({"x": 0.05, "xd": 0.05, "wd": 0.04})
    assert steps(loaded(b.mlp())) == {}


def test_quantisation_steps_of_many_channels(loaded):
    scales = np.linspace(1e-3, 2e-3, 5000, dtype=np.float32)  # more than the outline keeps
    proto = b.model(
        [b.node("DequantizeLinear", ["q", "s"], ["y"], axis=0)],
        [],
        [b.untyped("y")],
        [b.weight("q", np.ones((5000, 1), np.int8)), b.weight("s", scales)],
    )
    assert steps(loaded(proto)) == pytest.approx({"y": 2e-3})


@pytest.mark.parametrize("declared", [(2, 3, 4, 5), None])
def test_mean_variance_normalization_without_axes(loaded, declared):
    nodes = [b.node("MeanVarianceNormalization", ["x"], ["n"]), b.node("Relu", ["n"], ["y"])]
    model = loaded(b.model(nodes, [b.value("x", (2, 3, 4, 5))], [b.value("y", declared)], []))
    assert [d.dim_value for d in model.root.types["n"].tensor_type.shape.dim] == [2, 3, 4, 5]
    assert not model.proto.graph.node[0].attribute  # the model itself stays as it is
