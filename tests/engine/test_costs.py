"""Costs against numbers worked out by hand, and against sums that papers report."""

from __future__ import annotations

from pathlib import Path

import pytest

from probe.engine.costs import Cost, cost_of, flops_of
from probe.engine.fusion import group
from probe.engine.layers import Layer, form_layers
from probe.engine.network import read_network
from probe.model.load import load
from tests.engine import networks
from tests.engine.fusion.drawing import network

IMAGE = "float[2,8,10,10] x"
ROWS = "float[2,8,96] x"

FLOPS = {
    "y = Conv(x, %16x8x3x3)": (IMAGE, 2 * 16 * 8 * 8 * (2 * 8 * 9)),
    "y = Conv(x, %16x8x3x3, %16)": (IMAGE, 2 * 16 * 8 * 8 * (2 * 8 * 9 + 1)),
    "y = Conv<group=8>(x, %8x1x3x3)": (IMAGE, 2 * 8 * 8 * 8 * (2 * 9)),
    "y = Conv<strides=[2,2],pads=[1,1,1,1]>(x, %4x8x3x3)": (IMAGE, 2 * 4 * 5 * 5 * (2 * 8 * 9)),
    "y = ConvTranspose<strides=[2,2]>(x, %8x4x2x2)": (IMAGE, 2 * 8 * 100 * (2 * 4 * 4)),
    "y = MatMul(x, %96x32)": (ROWS, 2 * 2 * 8 * 32 * 96),
    "y = Gemm<transA=1>(x, %5x7, %7)": ("float[5,3] x", 3 * 7 * (2 * 5 + 1)),
    "y = Gemm<alpha=0.5>(x, %5x7)": ("float[3,5] x", 3 * 7 * (2 * 5 + 1)),
    "y = Relu(x)": (ROWS, 2 * 8 * 96),
    "y = Mul(x, %96)": (ROWS, 2 * 8 * 96),
    "y = Max(x, x, x)": (ROWS, 2 * 2 * 8 * 96),
    "y = Softmax(x)": (ROWS, 5 * 2 * 8 * 96),
    "y = LayerNormalization(x, %96)": (ROWS, 7 * 2 * 8 * 96),
    "y = ReduceMean<axes=[-1]>(x)": (ROWS, 2 * 8 * 96),
    "y = MaxPool<kernel_shape=[2,2],strides=[2,2]>(x)": (IMAGE, 2 * 8 * 25 * 4),
    "y = AveragePool<kernel_shape=[2,2],strides=[2,2]>(x)": (IMAGE, 2 * 8 * 25 * 5),
    "y = GlobalAveragePool(x)": (IMAGE, 2 * 8 * 100),
    "y = Transpose(x)": (ROWS, 0),
    "y = Reshape(x, $i[-1])": (ROWS, 0),
    # 3 steps, 2 sequences: products with [64, 4] and [64, 16] for four gates, biases, 15 an element of the state
    "y = LSTM<hidden_size=16>(x, %1x64x4, %1x64x16, %1x128)": ("float[3,2,4] x", 3 * 2 * (2 * 64 * 20 + 2 * 64 + 15 * 16)),
    "y = GRU<hidden_size=16>(x, %1x48x4, %1x48x16)": ("float[3,2,4] x", 3 * 2 * (2 * 48 * 20 + 12 * 16)),
    "y = Attention(x, k, v)": ("float[2,3,4,8] x, float[2,3,6,8] k, float[2,3,6,10] v", 2 * 3 * 4 * 6 * (2 * 8 + 2 * 10 + 6)),
    "y = Attention<q_num_heads=4,kv_num_heads=2>(x, k, v)": ("float[2,5,32] x, float[2,6,16] k, float[2,6,20] v", 2 * 4 * 5 * 6 * (2 * 8 + 2 * 10 + 6)),
    "y = NonMaxSuppression(x, s)": ("float[1,5,4] x, float[1,1,5] s", None),
    "y = MatMul(x, %8x4 )": ("float[n,8] x", None),
}  # fmt: skip


@pytest.mark.parametrize("drawing", FLOPS)
def test_operations_of_a_node(drawing: str) -> None:
    inputs, wanted = FLOPS[drawing]
    opset = 23 if "Attention" in drawing else 17
    node = next(iter(network(drawing, inputs=inputs, outputs="y", opset=opset).graph))  # the output's shape is inferred
    assert flops_of(node) == wanted


def test_actual_shapes_replace_symbolic_ones() -> None:
    node = next(iter(network("y = MatMul(x, %8x4)", inputs="float[n,8] x", outputs="float[n,4] y").graph))
    assert flops_of(node) is None
    assert flops_of(node, {"x": (3, 8), "y": (3, 4)}) == 2 * 3 * 4 * 8


def _cost(layer: Layer, **options: object) -> Cost:
    return cost_of(layer.nodes, reads=layer.reads, weights=layer.weights, outputs=layer.outputs, **options)  # pyright: ignore[reportArgumentType]


def test_bytes_cross_the_edge_of_a_layer_once() -> None:
    drawn = network("m = MatMul(x, %96x32) n = Add(m, %32) y = Relu(n)", outputs="float[2,8,32] y")
    (layer,) = form_layers(drawn, group(drawn))
    assert _cost(layer) == Cost(
        2 * 2 * 8 * 32 * 96 + 2 * 2 * 8 * 32, 4 * 2 * 8 * 96, 4 * 2 * 8 * 32, 4 * (96 * 32 + 32)
    )
    assert _cost(layer, float_bytes=2).bytes == 2 * (2 * 8 * 96 + 2 * 8 * 32 + 96 * 32 + 32)


def test_what_is_not_known_is_none_and_does_not_hide_the_rest() -> None:
    drawn = network("y = MatMul(x, %8x4)", inputs="float[n,8] x", outputs="float[n,4] y")
    (layer,) = form_layers(drawn, group(drawn))
    assert _cost(layer) == Cost(None, None, None, 4 * 32)
    assert _cost(layer).bytes is None


@pytest.mark.slow
@pytest.mark.parametrize(("name", "gflops"), [("resnet152", 11.51), ("inception_v3", 5.71), ("vgg19", 19.63)])
def test_multiplications_that_torchvision_reports(tmp_path: Path, name: str, gflops: float) -> None:
    """torchvision's documentation counts a multiplication with its addition once, of convolutions and matrix products."""
    path = networks.save(getattr(networks, name)(), tmp_path / f"{name}.onnx")
    graph = read_network(load(path)).graph
    found = [flops_of(node) for node in graph if node.op_type in {"Conv", "Gemm"}]
    assert sum(count or 0 for count in found) / 2e9 == pytest.approx(gflops, rel=0.01)
