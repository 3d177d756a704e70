"""Reading a model into a network: names, identities, constants, bodies; and what a broken pass would be caught by."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from probe.engine.fusion import Grouping
from probe.engine.layers import all_layers, form_layers
from probe.engine.network import Fate, check, origin, read_network, set_origin, values_of
from probe.engine.rounding import Rounding
from probe.model import load
from probe.model.names import TensorNames
from tests.model import builders


def network_of(tmp_path, text: str):
    path = tmp_path / "model.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    return read_network(load(path))


BRANCHES = """<ir_version: 8, opset_import: ["" : 17]>
g (bool c, float[2] x) => (float[2] y) {
  big = Exp (x)
  y = If (c) <
    then_branch = t () => (float[2] r) { k = Constant <value = float[2] {1.0, 2.0}> ()  r = Mul (big, k) },
    else_branch = e () => (float[2] q) { k = Constant <value = float[2] {3.0, 4.0}> ()  q = Add (x, k) }
  >
}"""


def test_constants_become_initialisers_of_the_top_each_with_its_value(tmp_path):
    network = network_of(tmp_path, BRANCHES)
    values = sorted(tuple(v.const_value.numpy().tolist()) for v in network.graph.initializers.values())
    assert values == [(1.0, 2.0), (3.0, 4.0)]  # two siblings call theirs k
    assert not any(graph.initializers for graph in list(network.graphs())[1:])
    assert not any(node.op_type == "Constant" for graph in network.graphs() for node in graph)


def test_layers_of_branches_hang_below_their_if(tmp_path):
    network = network_of(tmp_path, BRANCHES)
    layers = form_layers(network, Grouping((), ()))
    assert [layer.name for layer in layers] == ["Exp(big)", "If(y)"]
    branches = layers[1].branches
    assert {name: [layer.name for layer in some] for name, some in branches.items()} == {
        "then_branch": ["Mul(r)"],
        "else_branch": ["Add(q)"],
    }
    assert branches["then_branch"][0].scope == "If(y)/then_branch"
    assert [layer.name for layer in all_layers(layers)] == ["Exp(big)", "Mul(r)", "Add(q)", "If(y)"]
    assert {v.name for v in layers[1].reads} == {"c", "big", "x"}  # what its branches capture, too
    assert [v.name for v in branches["then_branch"][0].weights] and branches["then_branch"][0].reads[0].name == "big"


def test_every_node_keeps_its_identity_and_every_tensor_its_recorded_name(models, exports):
    for path in sorted([*(models / "models").glob("*.onnx"), *(exports / "models").glob("*.onnx")]):
        model = load(path)
        network = read_network(model)
        check(network, "reading")
        source = network.model  # the upcast of an FP16 model
        identities = {info.identity for info in source.nodes if info.op != "Constant"}
        assert {identity for graph in network.graphs() for node in graph for identity in origin(node)} == identities, (
            path.name
        )
        names = TensorNames(source.root)
        wanted = {
            names.of(step.scope, name)
            for step in source.root.in_execution_order()
            if names.counts(step)
            for name in step.outputs
        }
        made = {v.name for graph in network.graphs() for node in graph for v in node.outputs if v.name}
        assert made == wanted, path.name
        assert all(v.type is not None for graph in network.graphs() for v in values_of(graph) if v.name), path.name


def test_layers_cover_the_network_once_with_unique_names(models, exports):
    for path in sorted([*(models / "models").glob("*.onnx"), *(exports / "models").glob("*.onnx")]):
        network = read_network(load(path))
        layers = list(all_layers(form_layers(network, Grouping((), ()))))
        assert len({layer.name for layer in layers}) == len(layers)
        nodes = [id(node) for layer in layers for node in layer.nodes]
        assert len(set(nodes)) == len(nodes)
        seen = {id(v) for v in network.graph.inputs}
        for layer in layers:
            if not layer.scope:
                assert all(id(v) in seen for v in layer.reads), layer.name
                seen.update(id(v) for v in layer.tensors)


def test_local_functions_are_inlined(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
    g (float[2] x) => (float[2] y) { h = own.twice (x)  y = Relu (h) }
    <domain: "own", opset_import: ["" : 17]> twice (a) => (b) { b = Add (a, a) }"""
    network = network_of(tmp_path, text)
    assert [node.op_type for node in network.graph] == ["Add", "Relu"]
    assert [v.name for node in network.graph for v in node.outputs] == ["h", "y"]
    assert all(v.type is not None for v in values_of(network.graph))
    check(network, "inlining")


def test_an_fp16_model_is_upcast(models):
    network = read_network(load(models / "models" / "squeezenet_fp16.onnx"))
    assert not any(v.dtype is not None and v.dtype.name == "FLOAT16" for v in values_of(network.graph))


def test_fates_are_followed_to_what_is_still_made(tmp_path):
    network = network_of(tmp_path, BRANCHES)
    network.fates = {"a": Fate("equivalent", "cse", "b"), "b": Fate("equivalent", "identities", "c"), "d": Fate("equivalent", "x", "e"),
                     "e": Fate("folded", "constants")}  # fmt: skip
    assert network.fate("a") == Fate("equivalent", "identities", "c")
    assert network.fate("d") == Fate("folded", "constants")
    assert network.fate("nothing") is None
    network.fates["c"] = Fate("equivalent", "loop", "a")  # a circle ends somewhere
    assert network.fate("a") is not None


@pytest.mark.parametrize("harm", ["output", "order", "origin", "name"])
def test_a_broken_graph_is_noticed_and_the_pass_named(tmp_path, harm):
    network = network_of(tmp_path, BRANCHES)
    first = next(iter(network.graph))
    match harm:
        case "output":
            network.graph.outputs[0].name = "z"
        case "order":
            network.graph.append(first)  # moves it to the end
        case "origin":
            set_origin(first)
        case "name":
            first.outputs[0].name = "x"
    with pytest.raises(AssertionError, match="bad_pass"):
        check(network, "bad_pass")


def test_a_fused_layer_is_named_after_its_nodes(tmp_path):
    from probe.engine.fusion import Group

    chain = "\n".join(f"t{i + 1} = Relu (t{i})" for i in range(6))
    network = network_of(
        tmp_path, f'<ir_version: 8, opset_import: ["" : 17]> g (float[2] t0) => (float[2] t6) {{ {chain} }}'
    )
    nodes = tuple(network.graph)
    two = form_layers(network, Grouping((Group("chain", "pointwise", nodes[:2], network.graph),), ()))
    assert two[0].name == "Relu(t1) + Relu(t2)" and [v.name for v in two[0].interior] == ["t1"]
    six = form_layers(network, Grouping((Group("chain", "pointwise", nodes, network.graph),), ()))
    assert six[0].name == "Relu(t1) + ... + Relu(t6) [6]"
    assert [v.name for v in six[0].outputs] == ["t6"]


def test_sites_of_a_graph_input_are_at_the_edge(tmp_path):
    network = network_of(tmp_path, BRANCHES)
    layers = form_layers(network, Grouping((), ()))
    rounding = Rounding(layers)
    exp, then, other = layers[0], layers[1].branches["then_branch"][0], layers[1].branches["else_branch"][0]
    assert {v.name for v in rounding.sites(exp, "fp16").reads} == {"x"}
    assert [id(v) in rounding.sites(exp, "fp16").at_edge for v in exp.reads] == [True]
    assert [id(v) in rounding.sites(then, "fp16").at_edge for v in then.reads] == [False]  # big is stored low by Exp
    assert [id(v) in rounding.sites(other, "fp16").at_edge for v in other.reads] == [True]
    assert not rounding.sites(exp, "tf32").any


def test_builders_of_other_tests_can_be_read(tmp_path):
    path = tmp_path / "mlp.onnx"
    onnx.save(builders.mlp(), path)
    network = read_network(load(path))
    assert np.isfinite(len(list(network.graph)))


def test_a_body_may_return_a_tensor_of_the_graph_around_it(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (bool c, float[2] x) => (float[2] y) {
      big = Exp (x)
      y = If (c) <
        then_branch = t () => (float[2] big) { unused = Neg (x) },
        else_branch = e () => (float[2] q) { q = Add (x, x) }
      >
    }"""
    proto = onnx.parser.parse_model(text)
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    network = read_network(load(path))
    check(network, "reading")
