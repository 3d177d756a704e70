"""BERT-base at real sizes with seeded random weights, written as torch's TorchScript exporter writes it: LayerNormalization, erf GELU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HIDDEN, HEADS, INNER = 768, 12, 3072


class _Graph:
    def __init__(self, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(seed)

    def node(self, op: str, *inputs: str, name: str, **attributes) -> str:
        output = f"{name}_output_0"
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=name, **attributes))
        return output

    def weight(self, name: str, *shape: int, scale: float = 0.02, mean: float = 0.0) -> str:
        values = self._random.standard_normal(shape, np.float32) * np.float32(scale) + np.float32(mean)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def constant(self, name: str, value) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def linear(self, x: str, name: str, rows: int, columns: int) -> str:
        product = self.node("MatMul", x, self.weight(f"{name}.weight", rows, columns), name=f"{name}/MatMul")
        return self.node("Add", self.weight(f"{name}.bias", columns), product, name=f"{name}/Add")

    def norm(self, x: str, name: str) -> str:
        scale = self.weight(f"{name}.weight", HIDDEN, scale=0.05, mean=1.0)
        bias = self.weight(f"{name}.bias", HIDDEN)
        return self.node(
            "LayerNormalization", x, scale, bias, name=f"{name}/LayerNormalization", axis=-1, epsilon=1e-12
        )


def write_bert_base(path: Path, layers: int = 12, vocabulary: int = 30522, seed: int = 0) -> Path:
    """``input_ids`` int64 [batch, sequence], ``attention_mask`` int64 [batch, sequence] -> ``last_hidden_state`` float32 [batch,
    sequence, 768]. About 110 M parameters with the defaults."""
    g = _Graph(seed)
    words = g.node("Gather", g.weight("embeddings.word", vocabulary, HIDDEN), "input_ids", name="/embeddings/Gather")
    shape = g.node("Shape", "input_ids", name="/Shape")
    length = g.node("Gather", shape, g.constant("one", np.int64(1)), name="/Gather")
    end = g.node("Unsqueeze", length, g.constant("axis0", np.array([0], np.int64)), name="/Unsqueeze")
    positions = g.node(
        "Slice", g.weight("embeddings.position", 512, HIDDEN), g.constant("zero1", np.array([0], np.int64)), end,
        g.constant("axes0", np.array([0], np.int64)), name="/embeddings/Slice",
    )  # fmt: skip
    x = g.norm(g.node("Add", words, positions, name="/embeddings/Add"), "/embeddings/LayerNorm")
    mask = g.node("Unsqueeze", "attention_mask", g.constant("axes12", np.array([1, 2], np.int64)), name="/Unsqueeze_1")
    mask = g.node("Cast", mask, name="/Cast", to=TensorProto.FLOAT)
    mask = g.node("Sub", g.constant("onef", np.float32(1)), mask, name="/Sub")
    mask = g.node("Mul", mask, g.constant("masked", np.float32(-10000.0)), name="/Mul")
    heads = g.constant("heads", np.array([0, 0, HEADS, HIDDEN // HEADS], np.int64))
    merged = g.constant("merged", np.array([0, 0, HIDDEN], np.int64))
    eighth = g.constant("scale", np.float32((HIDDEN / HEADS) ** 0.5))
    root2, one, half = (g.constant(n, np.float32(v)) for n, v in (("root2", 2**0.5), ("one_f", 1.0), ("half", 0.5)))
    for i in range(layers):
        at = f"/encoder/layer.{i}"
        q, k, v = (
            g.node("Transpose", g.node("Reshape", g.linear(x, f"{at}/{n}", HIDDEN, HIDDEN), heads, name=f"{at}/{n}/Reshape"),
                   name=f"{at}/{n}/Transpose", perm=[0, 2, 3, 1] if n == "key" else [0, 2, 1, 3])
            for n in ("query", "key", "value")
        )  # fmt: skip
        scores = g.node("Div", g.node("MatMul", q, k, name=f"{at}/MatMul"), eighth, name=f"{at}/Div")
        scores = g.node("Softmax", g.node("Add", scores, mask, name=f"{at}/Add"), name=f"{at}/Softmax", axis=-1)
        context = g.node("MatMul", scores, v, name=f"{at}/MatMul_1")
        context = g.node("Transpose", context, name=f"{at}/Transpose", perm=[0, 2, 1, 3])
        context = g.node("Reshape", context, merged, name=f"{at}/Reshape")
        attended = g.linear(context, f"{at}/attention/output", HIDDEN, HIDDEN)
        x = g.norm(g.node("Add", attended, x, name=f"{at}/attention/Add"), f"{at}/attention/LayerNorm")
        inner = g.linear(x, f"{at}/intermediate", HIDDEN, INNER)
        erf = g.node("Erf", g.node("Div", inner, root2, name=f"{at}/act/Div"), name=f"{at}/act/Erf")
        gelu = g.node("Mul", inner, g.node("Add", erf, one, name=f"{at}/act/Add"), name=f"{at}/act/Mul")
        gelu = g.node("Mul", gelu, half, name=f"{at}/act/Mul_1")
        x = g.norm(
            g.node("Add", g.linear(gelu, f"{at}/output", INNER, HIDDEN), x, name=f"{at}/Add_1"), f"{at}/LayerNorm"
        )
    g.nodes[-1].output[0] = "last_hidden_state"
    ids = [
        helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "sequence"])
        for n in ("input_ids", "attention_mask")
    ]
    out = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "sequence", HIDDEN])
    graph = helper.make_graph(g.nodes, "bert_base", ids, [out], g.weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
