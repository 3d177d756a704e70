"""VGG19, Inception v3 and ResNet-152, node for node as torchvision's models are exported with their batch normalisations kept.

Topologies are those of torchvision.models (vgg19, inception_v3 with ``transform_input``, resnet152). Weights are seeded noise. ``width``
divides every number of channels but the first and the last, which changes no node: at 1 the shapes are the real ones (VGG19: 574 MB).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 1000


class _Builder:
    def __init__(self, width: int, seed: int) -> None:
        self.width = width
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.channels: dict[str, int] = {"x": 3}

    def weight(self, name: str, shape: tuple[int, ...], value: float | None = None) -> str:
        if value is None:
            data = self.random.standard_normal(shape, dtype=np.float32) * np.float32((2 / np.prod(shape[1:])) ** 0.5)
        else:
            data = np.full(shape, value, np.float32)
        self.weights.append(numpy_helper.from_array(data, name))
        return name

    def node(self, op: str, inputs: list[str], channels: int | None = None, **attributes: Any) -> str:
        number = sum(node.op_type == op for node in self.nodes)
        name = f"{op}_{number}"
        self.nodes.append(helper.make_node(op, inputs, [f"{name}_output"], name, **attributes))
        self.channels[f"{name}_output"] = self.channels.get(inputs[0], 0) if channels is None else channels
        return f"{name}_output"

    def conv(
        self,
        x: str,
        out: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        pad: int | tuple[int, int] = 0,
        *,
        bias: bool = False,
    ) -> str:
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        pads = (pad, pad) if isinstance(pad, int) else pad
        out = max(1, out // self.width)
        at = sum(node.op_type == "Conv" for node in self.nodes)
        inputs = [x, self.weight(f"conv{at}.weight", (out, self.channels[x], height, width))]
        if bias:
            inputs.append(self.weight(f"conv{at}.bias", (out,), 0.01))
        return self.node(
            "Conv",
            inputs,
            out,
            kernel_shape=[height, width],
            strides=[stride, stride],
            pads=[*pads, *pads],
            group=1,
            dilations=[1, 1],
        )

    def conv_bn(
        self,
        x: str,
        out: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        pad: int | tuple[int, int] = 0,
        *,
        relu: bool = True,
    ) -> str:
        y = self.conv(x, out, kernel, stride, pad)
        parts = (("weight", 1.0), ("bias", 0.1), ("running_mean", 0.05), ("running_var", 1.0))
        at = sum(node.op_type == "BatchNormalization" for node in self.nodes)
        values = [self.weight(f"bn{at}.{name}", (self.channels[y],), value) for name, value in parts]
        y = self.node("BatchNormalization", [y, *values], epsilon=1e-3)
        return self.node("Relu", [y]) if relu else y

    def max_pool(self, x: str, kernel: int, stride: int, pad: int = 0) -> str:
        return self.node("MaxPool", [x], kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, ceil_mode=0)

    def concat(self, *branches: str) -> str:
        return self.node("Concat", list(branches), sum(self.channels[branch] for branch in branches), axis=1)

    def gemm(self, x: str, features: int, out: int) -> str:
        at = sum(node.op_type == "Gemm" for node in self.nodes)
        inputs = [x, self.weight(f"fc{at}.weight", (out, features)), self.weight(f"fc{at}.bias", (out,), 0.0)]
        return self.node("Gemm", inputs, out, alpha=1.0, beta=1.0, transB=1)

    def model(self, name: str, size: int, batch: int) -> onnx.ModelProto:
        self.nodes[-1].output[0] = "logits"
        graph = helper.make_graph(
            self.nodes, name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, size, size])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])],
            self.weights,
        )  # fmt: skip
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def vgg19(*, width: int = 1, batch: int = 1, seed: int = 0) -> onnx.ModelProto:
    """16 convolutions with bias, 5 poolings, 3 Gemms. Input ``x`` [batch, 3, 224, 224], output ``logits`` [batch, 1000]."""
    b = _Builder(width, seed)
    x = "x"
    for channels, convs in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(convs):
            x = b.node("Relu", [b.conv(x, channels, 3, pad=1, bias=True)])
        x = b.max_pool(x, 2, 2)
    # adaptive pooling to 7 x 7 of what is 7 x 7
    x = b.node("AveragePool", [x], kernel_shape=[1, 1], strides=[1, 1])
    features, hidden = b.channels[x] * 49, 4096 // width
    x = b.node("Flatten", [x], axis=1)
    x = b.node("Relu", [b.gemm(x, features, hidden)])
    x = b.node("Relu", [b.gemm(x, hidden, hidden)])
    b.gemm(x, hidden, CLASSES)
    return b.model("vgg19", 224, batch)


def resnet152(*, width: int = 1, batch: int = 1, seed: int = 0) -> onnx.ModelProto:
    """Bottleneck blocks 3, 8, 36, 3. Input ``x`` [batch, 3, 224, 224], output ``logits`` [batch, 1000]."""
    b = _Builder(width, seed)
    x = b.max_pool(b.conv_bn("x", 64, 7, 2, 3), 3, 2, 1)
    for stage, (channels, blocks) in enumerate(((64, 3), (128, 8), (256, 36), (512, 3))):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            y = b.conv_bn(x, channels, 1)
            y = b.conv_bn(y, channels, 3, stride, 1)
            y = b.conv_bn(y, channels * 4, 1, relu=False)
            if not block:
                x = b.conv_bn(x, channels * 4, 1, stride, relu=False)
            x = b.node("Relu", [b.node("Add", [y, x])])
    x = b.node("GlobalAveragePool", [x])
    features = b.channels[x]
    b.gemm(b.node("Flatten", [x], axis=1), features, CLASSES)
    return b.model("resnet152", 224, batch)


def inception_v3(*, width: int = 1, batch: int = 1, seed: int = 0) -> onnx.ModelProto:
    """94 convolutions in 11 mixed blocks. Input ``x`` [batch, 3, 299, 299], output ``logits`` [batch, 1000]."""
    b = _Builder(width, seed)
    x = _transformed(b)
    for channels, kernel, stride, pad in ((32, 3, 2, 0), (32, 3, 1, 0), (64, 3, 1, 1)):
        x = b.conv_bn(x, channels, kernel, stride, pad)
    x = b.max_pool(x, 3, 2)
    x = b.conv_bn(b.conv_bn(x, 80, 1), 192, 3)
    x = b.max_pool(x, 3, 2)
    for pooled in (32, 64, 64):
        x = _mixed_a(b, x, pooled)
    x = _mixed_b(b, x)
    for inner in (128, 160, 160, 192):
        x = _mixed_c(b, x, inner)
    x = _mixed_d(b, x)
    for _ in range(2):
        x = _mixed_e(b, x)
    x = b.node("GlobalAveragePool", [x])
    features = b.channels[x]
    b.gemm(b.node("Flatten", [x], axis=1), features, CLASSES)
    return b.model("inception_v3", 299, batch)


def _transformed(b: _Builder) -> str:
    """From one convention of scaling images to another, channel by channel."""
    planes = []
    for channel, (scale, shift) in enumerate(((0.458, -0.03), (0.448, -0.088), (0.45, -0.188))):
        index = f"channel{channel}"
        b.weights.append(numpy_helper.from_array(np.array(channel, np.int64), index))
        axes = f"axes{channel}"
        b.weights.append(numpy_helper.from_array(np.array([1], np.int64), axes))
        plane = b.node("Unsqueeze", [b.node("Gather", ["x", index], axis=1), axes], 1)
        plane = b.node("Mul", [plane, b.weight(f"scale{channel}", (), scale)], 1)
        planes.append(b.node("Add", [plane, b.weight(f"shift{channel}", (), shift)], 1))
    return b.concat(*planes)


def _pooled(b: _Builder, x: str) -> str:
    return b.node("AveragePool", [x], kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1], count_include_pad=1)


def _mixed_a(b: _Builder, x: str, pooled: int) -> str:
    one = b.conv_bn(x, 64, 1)
    five = b.conv_bn(b.conv_bn(x, 48, 1), 64, 5, pad=2)
    three = b.conv_bn(b.conv_bn(b.conv_bn(x, 64, 1), 96, 3, pad=1), 96, 3, pad=1)
    return b.concat(one, five, three, b.conv_bn(_pooled(b, x), pooled, 1))


def _mixed_b(b: _Builder, x: str) -> str:
    three = b.conv_bn(x, 384, 3, 2)
    twice = b.conv_bn(b.conv_bn(b.conv_bn(x, 64, 1), 96, 3, pad=1), 96, 3, 2)
    return b.concat(three, twice, b.max_pool(x, 3, 2))


def _mixed_c(b: _Builder, x: str, inner: int) -> str:
    one = b.conv_bn(x, 192, 1)
    seven = b.conv_bn(b.conv_bn(b.conv_bn(x, inner, 1), inner, (1, 7), pad=(0, 3)), 192, (7, 1), pad=(3, 0))
    twice = b.conv_bn(x, inner, 1)
    for out, kernel, pad in (
        (inner, (7, 1), (3, 0)),
        (inner, (1, 7), (0, 3)),
        (inner, (7, 1), (3, 0)),
        (192, (1, 7), (0, 3)),
    ):
        twice = b.conv_bn(twice, out, kernel, pad=pad)
    return b.concat(one, seven, twice, b.conv_bn(_pooled(b, x), 192, 1))


def _mixed_d(b: _Builder, x: str) -> str:
    three = b.conv_bn(b.conv_bn(x, 192, 1), 320, 3, 2)
    seven = b.conv_bn(b.conv_bn(b.conv_bn(x, 192, 1), 192, (1, 7), pad=(0, 3)), 192, (7, 1), pad=(3, 0))
    return b.concat(three, b.conv_bn(seven, 192, 3, 2), b.max_pool(x, 3, 2))


def _mixed_e(b: _Builder, x: str) -> str:
    one = b.conv_bn(x, 320, 1)
    three = b.conv_bn(x, 384, 1)
    three = b.concat(b.conv_bn(three, 384, (1, 3), pad=(0, 1)), b.conv_bn(three, 384, (3, 1), pad=(1, 0)))
    twice = b.conv_bn(b.conv_bn(x, 448, 1), 384, 3, pad=1)
    twice = b.concat(b.conv_bn(twice, 384, (1, 3), pad=(0, 1)), b.conv_bn(twice, 384, (3, 1), pad=(1, 0)))
    return b.concat(one, three, twice, b.conv_bn(_pooled(b, x), 192, 1))


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model to ``path``."""
    onnx.save(model, str(path))
    return path
