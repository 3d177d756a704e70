"""The network of the demonstration: a vision transformer with outlier channels as trained ones have, and one square that FP16 cannot hold.

In trained transformers a few channels of the residual stream are hundreds of times larger than the rest ("massive activations": Sun et al.,
2024, arXiv 2402.17762; outlier features: Dettmers et al., 2022, arXiv 2208.07339). Biases make them, later layers take them back, and the
weights of the normalisations keep them small where they are read. FP16 holds them with ease: they are far below 65504. Their squares, which
an RMS normalisation takes, may not be. Then the square is infinite, so is the root of its mean, the division by it gives zero, and the
branch behind the normalisation loses its input. Everything after that is finite, of a believable size, and wrong.

Weights are not trained but drawn from a seeded generator; what training leaves behind, the outliers, is put in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

IMAGE = 32  # pixels a side
WIDTH = 64  # channels of a token
HEADS = 4
TOKENS = (IMAGE // 4) ** 2
BLOCKS = 3
CLASSES = 10

# Root mean square of ordinary channels of the residual stream at first, and of what an attention or an MLP adds to them.
ORDINARY, BRANCH = 0.2, 0.2
# Outlier channel -> its mean in that stream. The MLP of block 0 writes them.
OUTLIERS = {23: 100.0, 41: -80.0, 58: 60.0}
# In block 2 one of them grows once more: its attention adds, its MLP takes back. Only the normalisation between them sees about 290.
SURGE_CHANNEL, ADDED, TAKEN_BACK = 23, 190.0, 220.0
# Block -> what its attention, and what its MLP, writes to outlier channels.
WRITTEN: dict[int, tuple[dict[int, float], dict[int, float]]] = {
    0: ({}, OUTLIERS),
    2: ({SURGE_CHANNEL: ADDED}, {SURGE_CHANNEL: -TAKEN_BACK}),
}
SPREAD = 0.1  # part of what is written to an outlier channel that differs from token to token
OUTLIER_WEIGHT = 0.02  # of outlier channels in the weights of normalisations: they are not to drown what reads them
ATTENTION_GAIN, MLP_GAIN = 0.24, 0.56  # of their last layers

OVERFLOWING_NODE = "/blocks.2/norm2/Pow"
OVERFLOWING_TENSOR = f"{OVERFLOWING_NODE}_output_0"  # the only tensor that FP16 cannot hold
FAULTY_NODE = "/blocks.2/norm2/ReduceMean"  # whose kernel is bad in the faulty model
FAULTY_TENSOR = f"{FAULTY_NODE}_output_0"

PRODUCER = "probe demo"
_ENGINE_DOMAIN = "demo.engine"
_SEED = 2


def build_demo_model() -> bytes:
    """The network, serialised ONNX in FP32: ``image`` [1, 3, 32, 32] -> ``logits`` [1, 10]."""
    return _build(faulty=False).SerializeToString()


def build_faulty_model() -> bytes:
    """The same in FP32 as an engine with one bad kernel computes it: same nodes, same names, the arithmetic of ``FAULTY_NODE`` differs."""
    return _build(faulty=True).SerializeToString()


def _build(*, faulty: bool) -> onnx.ModelProto:
    from onnx import TensorProto, helper

    network = _Network(faulty=faulty)
    logits = network.classifier(network.encoder(network.stem("image")))
    network.nodes[-1].output[0] = "logits"
    assert logits.startswith("/head")
    graph = helper.make_graph(
        network.nodes,
        "vision_transformer",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, IMAGE, IMAGE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])],
        network.weights,
    )
    opsets = [helper.make_opsetid("", 17)]
    if not faulty:
        return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name=PRODUCER)
    return helper.make_model(
        graph, opset_imports=[*opsets, helper.make_opsetid(_ENGINE_DOMAIN, 1)], functions=[_bad_kernel()],
        ir_version=8, producer_name=PRODUCER,
    )  # fmt: skip


def _bad_kernel() -> onnx.FunctionProto:
    """ReduceMean over the last axis with the sum in FP16, which the mean of 64 squares fits and their sum does not.

    The pair of Casts is what ONNX Runtime's CPU provider rounds at; FP16 arithmetic it would do in FP32.
    """
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["sum"], keepdims=1),
        helper.make_node("Cast", ["sum"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["half"], ["rounded"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["rounded", "count"], ["mean"]),
    ]
    return helper.make_function(
        _ENGINE_DOMAIN, "ReduceMean", ["x", "axes", "count"], ["mean"], nodes, [helper.make_opsetid("", 17)]
    )


def _parameter(module: str, name: str) -> str:
    """Weight names have dots where node names have slashes: ``blocks.0.norm1.weight`` of ``/blocks.0/norm1/Mul``."""
    return f"{module}/{name}".replace("/", ".")


class _Network:
    """Writes nodes named as PyTorch's exporter names them; weights come from one seeded generator, so both builds get the same."""

    def __init__(self, *, faulty: bool) -> None:
        self.faulty = faulty
        self.random = np.random.default_rng(_SEED)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._constants: set[str] = set()
        # The residual stream so far: the size of ordinary channels, and outlier channels with their means.
        self.ordinary = ORDINARY
        self.outliers: dict[int, float] = {}

    # --- pieces

    def node(self, name: str, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = f"{name}_output_0"
        self.nodes.append(helper.make_node(op, inputs, [output], name, domain=domain, **attributes))
        return output

    def drawn(self, *shape: int, variance: float, centred: tuple[int, ...] = ()) -> np.ndarray[Any, Any]:
        """Normal numbers. ``centred`` axes have mean zero, so that a constant in the input leaves none in the output: features differ
        from image to image, as trained ones do."""
        values = self.random.standard_normal(shape, dtype=np.float32) * np.float32(variance**0.5)
        return values - values.mean(centred, keepdims=True) if centred else values

    def constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        if name not in self._constants:
            self._constants.add(name)
            self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def linear(
        self, name: str, x: str, n: int, k: int, *, gain: float = 1.0, outliers: Mapping[int, float] | None = None
    ) -> str:
        """[.., n] -> [.., k], nodes MatMul and Add.

        Args:
            gain: how many times larger than its input the output is.
            outliers: output channel -> its bias, to which the input adds ``SPREAD`` of that.
        """
        weight, bias = self.drawn(n, k, variance=gain**2 / n, centred=(0,)), self.drawn(k, variance=1e-4)
        for channel, size in (outliers or {}).items():
            bias[channel] = size
            weight[:, channel] *= SPREAD * abs(size) / gain
        product = self.node(f"/{name}/MatMul", "MatMul", x, self.constant(_parameter(name, "weight"), weight))
        return self.node(f"/{name}/Add", "Add", self.constant(_parameter(name, "bias"), bias), product)

    def rms_norm(self, name: str, x: str) -> str:
        """Over channels, as exporters write it: Pow, ReduceMean, Add, Sqrt, Div, Mul. The weight makes ordinary channels about 1 again."""
        squares = self.node(f"/{name}/Pow", "Pow", x, self.constant(f"/{name}/Constant_output_0", np.float32(2)))
        mean = f"/{name}/ReduceMean"
        if self.faulty and mean == FAULTY_NODE:
            last = self.constant("last_axis", np.array([-1], np.int64))
            count = self.constant("width", np.float32(WIDTH))
            mean = self.node(mean, "ReduceMean", squares, last, count, domain=_ENGINE_DOMAIN)
        else:
            mean = self.node(mean, "ReduceMean", squares, axes=[-1], keepdims=1)
        epsilon = self.constant(f"/{name}/Constant_1_output_0", np.float32(1e-5))
        root = self.node(f"/{name}/Sqrt", "Sqrt", self.node(f"/{name}/Add", "Add", mean, epsilon))
        unit = self.node(f"/{name}/Div", "Div", x, root)
        root_mean_square = (self.ordinary**2 + sum(size**2 for size in self.outliers.values()) / WIDTH) ** 0.5
        weight = np.float32(root_mean_square / self.ordinary) * (1 + self.drawn(WIDTH, variance=0.01))
        weight[list(self.outliers)] = OUTLIER_WEIGHT
        return self.node(f"/{name}/Mul", "Mul", unit, self.constant(_parameter(name, "weight"), weight))

    # --- the network

    def stem(self, image: str) -> str:
        """[1, 3, 32, 32] -> tokens [1, 64, WIDTH]: two strided convolutions."""
        x, channels = image, 3
        for i, (width, gain) in enumerate(((WIDTH // 2, 2.8), (WIDTH, 1.1))):
            weight = self.drawn(width, channels, 3, 3, variance=gain**2 / (channels * 9), centred=(1, 2, 3))
            weight, bias = self.constant(f"stem.{i}.weight", weight), self.drawn(width, variance=1e-4)
            bias = self.constant(f"stem.{i}.bias", bias)
            x = self.node(f"/stem.{i}/Conv", "Conv", x, weight, bias, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
            x = self.node(f"/stem.{i}/Relu", "Relu", x)
            channels = width
        flat = self.node("/tokens/Reshape", "Reshape", x, self.constant("tokens.shape", np.array([1, WIDTH, TOKENS])))
        tokens = self.node("/tokens/Transpose", "Transpose", flat, perm=[0, 2, 1])
        position = self.constant("position", self.drawn(1, TOKENS, WIDTH, variance=0.003))
        return self.node("/tokens/Add", "Add", tokens, position)

    def encoder(self, x: str) -> str:
        for i in range(BLOCKS):
            block, (by_attention, by_mlp) = f"blocks.{i}", WRITTEN.get(i, ({}, {}))
            read = self.rms_norm(f"{block}/norm1", x)
            x = self.node(f"/{block}/Add", "Add", x, self.attention(block, read, by_attention))
            self.written(by_attention)
            read = self.rms_norm(f"{block}/norm2", x)
            x = self.node(f"/{block}/Add_1", "Add", x, self.mlp(block, read, by_mlp))
            self.written(by_mlp)
        return self.rms_norm("norm", x)

    def written(self, outliers: Mapping[int, float]) -> None:
        """A branch has been added to the residual stream."""
        self.ordinary = (self.ordinary**2 + BRANCH**2) ** 0.5
        for channel, size in outliers.items():
            self.outliers[channel] = self.outliers.get(channel, 0.0) + size

    def attention(self, block: str, x: str, outliers: Mapping[int, float]) -> str:
        size = WIDTH // HEADS
        split = self.constant("heads.shape", np.array([1, TOKENS, HEADS, size]))
        parts = {}
        for part, perm in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
            y = self.linear(f"{block}/attention/{part}", x, WIDTH, WIDTH)
            y = self.node(f"/{block}/attention/{part}/Reshape", "Reshape", y, split)
            parts[part] = self.node(f"/{block}/attention/{part}/Transpose", "Transpose", y, perm=perm)
        name = f"/{block}/attention"
        scores = self.node(f"{name}/MatMul", "MatMul", parts["query"], parts["key"])
        scaled = self.node(f"{name}/Mul", "Mul", scores, self.constant("scale", np.float32(size**-0.5)))
        weights = self.node(f"{name}/Softmax", "Softmax", scaled, axis=-1)
        mixed = self.node(f"{name}/MatMul_1", "MatMul", weights, parts["value"])
        joined = self.node(f"{name}/Transpose", "Transpose", mixed, perm=[0, 2, 1, 3])
        shape = self.constant("join.shape", np.array([1, TOKENS, WIDTH]))
        flat = self.node(f"{name}/Reshape", "Reshape", joined, shape)
        return self.linear(f"{block}/attention/output", flat, WIDTH, WIDTH, gain=ATTENTION_GAIN, outliers=outliers)

    def mlp(self, block: str, x: str, outliers: Mapping[int, float]) -> str:
        """GELU between two layers."""
        name = f"/{block}/mlp"
        wide = self.linear(f"{block}/mlp/up", x, WIDTH, 2 * WIDTH)
        scaled = self.node(f"{name}/Div", "Div", wide, self.constant("sqrt2", np.float32(2**0.5)))
        erf = self.node(f"{name}/Erf", "Erf", scaled)
        gate = self.node(f"{name}/Add", "Add", erf, self.constant("one", np.float32(1)))
        gelu = self.node(f"{name}/Mul", "Mul", wide, gate)
        half = self.node(f"{name}/Mul_1", "Mul", gelu, self.constant("half", np.float32(0.5)))
        return self.linear(f"{block}/mlp/down", half, 2 * WIDTH, WIDTH, gain=MLP_GAIN, outliers=outliers)

    def classifier(self, x: str) -> str:
        pooled = self.node("/pool/ReduceMean", "ReduceMean", x, axes=[1], keepdims=0)
        weight = self.constant("head.weight", self.drawn(WIDTH, CLASSES, variance=16 / WIDTH))
        bias = self.constant("head.bias", self.drawn(CLASSES, variance=0.01))
        return self.node("/head/Gemm", "Gemm", pooled, weight, bias)
