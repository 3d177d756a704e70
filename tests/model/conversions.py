"""Convert a graph of a few nodes, check the result with onnx's own checker, and look at it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from probe.model import load
from probe.model.mixed import Mixed, convert_mixed
from tests.model.builders import model, node, save, value, weight

W = weight("w", np.ones((3, 3), np.float32))
CHAIN = [
    node("MatMul", ["x", "w"], ["a"], "A"),
    node("Exp", ["a"], ["b"], "B"),
    node("Sqrt", ["b"], ["c"], "C"),
    node("Relu", ["c"], ["y"], "D"),
]


def converted(
    tmp_path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto] = (value("x"),),
    outputs: Sequence[onnx.ValueInfoProto] = (value("y", None),),
    weights: Sequence[onnx.TensorProto] = (W,),
    *,
    opset: int = 17,
    ir: int = 8,
    precision: Any = "fp16",
    **how: Any,
) -> tuple[Mixed, onnx.ModelProto]:
    """Convert a graph; the result is checked by onnx's own checker, types and all."""
    source = save(model(nodes, inputs, outputs, weights, opset=opset, ir=ir), tmp_path / "in.onnx")
    mixed = convert_mixed(load(source), precision, **how)
    mixed.save(tmp_path / "out.onnx")
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)
    made = onnx.load(str(tmp_path / "out.onnx"))
    load(tmp_path / "out.onnx")
    return mixed, made


def types(made: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor at the top level."""
    g = made.graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*g.value_info, *g.input, *g.output)}
    return found | {t.name: t.data_type for t in g.initializer}


def ops(made: onnx.ModelProto) -> list[str]:
    return [f"{n.op_type} {' '.join(n.input)} -> {' '.join(n.output)}" for n in made.graph.node]
