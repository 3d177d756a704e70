"""A synthetic ResNet-50: the real layer table, He-seeded weights, 175 nodes and as many tensors.

Every tensor exposed makes 37.56 M floats an image, 150.2 MB. Weights depend on nothing but ``seed``, so two machines measure the same model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STAGES = (
    (64, 3, 1),
    (128, 4, 2),
    (256, 6, 2),
    (512, 3, 2),
)  # channels inside the bottleneck, blocks, stride of the first
EXPANSION = 4
CLASSES = 1000
NODES = 175


class _Builder:
    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.convs = 0

    def weight(self, name: str, value: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(value.astype(np.float32, copy=False), name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], f"{op}_{output}", **attributes))
        return output

    def conv(self, x: str, channels_in: int, channels_out: int, kernel: int, stride: int, *, relu: bool = True) -> str:
        """Conv + BatchNormalization, and Relu unless the block adds first."""
        i, self.convs = self.convs, self.convs + 1
        he = np.float32((2 / (channels_in * kernel * kernel)) ** 0.5)
        shape = (channels_out, channels_in, kernel, kernel)
        weight = self.weight(f"conv{i}.weight", self.random.standard_normal(shape, dtype=np.float32) * he)
        bias = self.weight(f"conv{i}.bias", np.zeros(channels_out))
        y = self.node(
            "Conv", [x, weight, bias], f"conv{i}",
            kernel_shape=[kernel, kernel], strides=[stride, stride], pads=[kernel // 2] * 4,
        )  # fmt: skip
        statistics = [
            self.weight(f"bn{i}.{name}", np.full(channels_out, value))
            for name, value in (("scale", 1.0), ("bias", 0.1), ("mean", 0.0), ("var", 1.0))
        ]
        y = self.node("BatchNormalization", [y, *statistics], f"bn{i}")
        return self.node("Relu", [y], f"relu{i}") if relu else y


def build(batch: int = 1, seed: int = 0) -> onnx.ModelProto:
    """The model for inputs ``x`` [batch, 3, 224, 224]; output ``logits`` [batch, 1000]."""
    b = _Builder(seed)
    x = b.conv("x", 3, 64, 7, 2)
    x = b.node("MaxPool", [x], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels, block = 64, 0
    for width, blocks, first_stride in STAGES:
        for position in range(blocks):
            stride = first_stride if position == 0 else 1
            y = b.conv(x, channels, width, 1, 1)
            y = b.conv(y, width, width, 3, stride)
            y = b.conv(y, width, width * EXPANSION, 1, 1, relu=False)
            if position == 0:
                x = b.conv(x, channels, width * EXPANSION, 1, stride, relu=False)
            x = b.node("Relu", [b.node("Add", [y, x], f"block{block}.sum")], f"block{block}")
            channels, block = width * EXPANSION, block + 1
    x = b.node("Flatten", [b.node("GlobalAveragePool", [x], "features")], "flat")
    weight = b.weight("fc.weight", b.random.standard_normal((CLASSES, channels), dtype=np.float32) * np.float32(0.02))
    b.node("Gemm", [x, weight, b.weight("fc.bias", np.zeros(CLASSES))], "logits", transB=1)
    assert len(b.nodes) == NODES
    graph = helper.make_graph(
        b.nodes,
        "resnet50",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 224, 224])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])],
        b.weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save(path: Path, batch: int = 1) -> Path:
    """Write the model to ``path``, 102.5 MB."""
    onnx.save(build(batch), str(path))
    return path
