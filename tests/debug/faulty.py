"""A small network of many kinds of layers, and ways to break one of them. What ``run`` must find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 32


def build(path: Path) -> Path:
    """x [4, 32] -> two outputs of one shape: linear layers with biases, a split, a normalisation, a gate, a softmax."""
    rng = np.random.default_rng(3)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def weight(name: str, *shape: int, scale: float = 0.0) -> str:
        values = rng.normal(size=shape) * (scale or shape[0] ** -0.5)
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def node(name: str, op: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        made = [f"{name}_out{i}" if outputs > 1 else f"{name}_out" for i in range(outputs)]
        nodes.append(helper.make_node(op, inputs, made, name, **attributes))
        return made[0]

    def linear(name: str, x: str, n: int = WIDTH, k: int = WIDTH) -> str:
        product = node(f"{name}/MatMul", "MatMul", x, weight(f"{name}.weight", n, k))
        return node(f"{name}/Add", "Add", product, weight(f"{name}.bias", k, scale=0.5))

    hidden = node("act1", "Relu", linear("fc1", "x"))
    wide = linear("fc2", hidden, WIDTH, 2 * WIDTH)
    node("split", "Split", wide, outputs=2, axis=1, num_outputs=2)
    gate = node("gate", "Sigmoid", "split_out1")
    gated = node("gated", "Mul", linear("fc3", "split_out0"), gate)
    normed = node(
        "norm",
        "LayerNormalization",
        gated,
        weight("norm.weight", WIDTH, scale=1.0),
        weight("norm.bias", WIDTH, scale=0.5),
        axis=-1,
    )
    mixed = node("mixed", "Add", normed, hidden)
    nodes.append(helper.make_node("Softmax", [linear("fc4", mixed)], ["scores"], "softmax", axis=-1))
    nodes.append(helper.make_node("Tanh", [linear("fc5", mixed)], ["boxes"], "tanh"))
    graph = helper.make_graph(
        nodes, "faulty", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", WIDTH])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in ("scores", "boxes")], weights,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def feeds(seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).normal(size=(4, WIDTH)).astype(np.float32)}


# --- faults: each changes one thing, in place


def change_weight(name: str, how: Callable[[np.ndarray], np.ndarray]) -> Callable[[onnx.ModelProto], None]:
    def fault(model: onnx.ModelProto) -> None:
        (tensor,) = (t for t in model.graph.initializer if t.name == name)
        tensor.CopyFrom(numpy_helper.from_array(how(numpy_helper.to_array(tensor)).astype(np.float32), name))

    return fault


def swap_outputs(node_name: str) -> Callable[[onnx.ModelProto], None]:
    def fault(model: onnx.ModelProto) -> None:
        (node,) = (n for n in model.graph.node if n.name == node_name)
        node.output[0], node.output[1] = node.output[1], node.output[0]

    return fault


def set_attribute(node_name: str, **values: object) -> Callable[[onnx.ModelProto], None]:
    def fault(model: onnx.ModelProto) -> None:
        (node,) = (n for n in model.graph.node if n.name == node_name)
        kept = [a for a in node.attribute if a.name not in values]
        del node.attribute[:]
        node.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in values.items())])

    return fault


def break_model(path: Path, fault: Callable[[onnx.ModelProto], None], out: Path) -> Path:
    model = onnx.load(path)
    fault(model)
    onnx.checker.check_model(model)
    onnx.save(model, out)
    return out
