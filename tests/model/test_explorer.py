"""Ids of nodes as Model Explorer's ONNX adapter gives them; where the adapter is installed, compared with what it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from probe.model import load
from probe.model.explorer import explorer_ids
from tests.model import builders as b


def ids_of(proto: onnx.ModelProto, folder: Path) -> dict[str, tuple[str, str]]:
    return explorer_ids(load(b.save(proto, folder / "m.onnx")))


def test_names_are_ids_and_those_without_are_counted(tmp_path: Path) -> None:
    nodes = [
        onnx.helper.make_node(op, [source], [made], name=name)
        for op, source, made, name in (
            ("Neg", "x", "a", ""), ("Abs", "a", "b", "twice"), ("Exp", "b", "c", "twice"), ("Relu", "c", "d", ""), ("Neg", "d", "y", "node_1"),
        )
    ]  # fmt: skip
    proto = b.model(nodes, [b.value("x")], [b.value("y")])
    proto.graph.name = "main graph"
    assert ids_of(proto, tmp_path) == {
        "Neg(a)": ("main graph", "node"), "Abs(b)": ("main graph", "twice"), "Exp(c)": ("main graph", "twice_1"),
        "Relu(d)": ("main graph", "node_1"), "node_1": ("main graph", "node_1_1"),
    }  # fmt: skip


def test_branches_of_an_if_are_drawn_inside_and_bodies_of_loops_apart(tmp_path: Path) -> None:
    for build in (b.if_else, b.nested_if, b.loop, b.if_in_loop, b.loop_in_if, b.scan):
        model = load(b.save(build(), tmp_path / "m.onnx"))
        found = explorer_ids(model)
        top = {node.identity for node in model.nodes if not node.body}
        assert top <= found.keys()
        assert len(set(found.values())) == len(found)
        for node in model.nodes:
            owner = node.body.rpartition("/")[0]
            if node.body and owner in found:
                graph, called = found[node.identity]
                inside = next(one.op for one in model.nodes if one.identity == owner) == "If"
                branch = f"{found[owner][1]}/{node.body.rpartition('/')[2]}"
                assert (called.rpartition("/")[0], graph) == (branch, found[owner][0]) if inside else graph == branch


def test_bodies_inside_of_loops_and_nodes_that_make_nothing_are_not_drawn(tmp_path: Path) -> None:
    inner = b.loop().graph.node[0]
    body = b.graph(
        [inner, onnx.helper.make_node("Identity", ["going"], ["more"], name="more")],
        [b.value("j", (), onnx.TensorProto.INT64), b.value("going", (), onnx.TensorProto.BOOL), b.value("x")],
        [b.value("more", (), onnx.TensorProto.BOOL), b.value("y")],
    )
    outer = onnx.helper.make_node("Loop", ["n", "", "start"], ["end"], name="outer", body=body)
    silent = onnx.helper.make_node("Neg", ["start"], [""], name="silent")
    inputs = [b.value("start"), b.value("n", (), onnx.TensorProto.INT64)]
    proto = b.model([outer, silent], inputs, [b.value("end")])
    proto.graph.name = "main"
    assert ids_of(proto, tmp_path) == {
        "outer": ("main", "outer"), "loop": ("outer/body", "loop"), "more": ("outer/body", "more"),
    }  # fmt: skip


def drawn_by_the_adapter(path: Path) -> dict[tuple[str, str], Any]:
    main = pytest.importorskip("model_explorer_onnx.main")
    graphs = main.ONNXAdapter.__new__(main.ONNXAdapter).convert(str(path), {})["graphs"]
    return {(graph.id, node.id): node for graph in graphs for node in graph.nodes}


@pytest.mark.parametrize("name", ["mnist", "silero_vad", "gtcrn_simple"])
def test_real_models_get_the_ids_of_the_adapter(name: str, models: Path) -> None:
    path = models / "models" / f"{name}.onnx"
    drawn = drawn_by_the_adapter(path)
    model = load(path)
    ids = explorer_ids(model)
    assert len(ids) == len(model.nodes) == len(set(ids.values()))
    for node in model.nodes:
        theirs = drawn[ids[node.identity]]
        assert theirs.label.split("::")[-1] == node.op
