"""The built-in demonstration: a small vision transformer, and the same network as an engine with one bad kernel computes it.

The fault is one that engines really have. In FP16 an RMS normalisation needs the mean of squares; the mean fits FP16, the sum it is
made from does not always. A kernel that accumulates that sum in FP16 overflows to infinity; the square root stays infinite, the
division gives zero, and from there on everything is finite and wrong. The output alone does not say where.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

    from probe.results.diff import DiffResult

IMAGE = 32  # pixels a side
WIDTH = 64  # channels of a token
HEADS = 4
CLASSES = 10
TOKENS = (IMAGE // 4) ** 2

MLP_GAINS = (
    30.0,
    45.0,
    45.0,
    45.0,
)  # the residual stream grows from block to block, as it does in trained transformers

FAULTY_NODE = "/blocks.2/norm2/ReduceMean"
FAULTY_TENSOR = f"{FAULTY_NODE}_output_0"

MODEL_FILE = "model.onnx"
ENGINE_FILE = "engine.onnx"
GOLDEN = "golden"
ENGINE = "engine"


@dataclass(frozen=True, slots=True)
class Demo:
    """What ``run_demo`` left in its folder. ``commands`` are what a user would type there to do the same."""

    folder: Path
    result: DiffResult
    commands: tuple[str, ...]
    guilty_node: str  # where the fault was planted
    guilty_tensor: str

    def __bool__(self) -> bool:
        """Whether the comparison found the fault: failed, and diverged first at the guilty tensor."""
        return self.result.verdict == "failed" and self.result.first_divergence == (self.guilty_tensor,)


COMMANDS = (
    f"probe dump {MODEL_FILE} -o {GOLDEN} --seed 0",
    f"probe dump {ENGINE_FILE} -o {ENGINE} --inputs {GOLDEN}",
    f"probe diff {ENGINE} {GOLDEN} --precision fp16",
)


def run_demo(folder: str | Path) -> Demo:
    """Write both models into ``folder``, record both on the same input, compare the recordings.

    Run again, it replaces what it wrote; anything else in the folder is refused rather than touched.

    Raises:
        InputError: the folder cannot be written, or holds something that is not the demo's.
    """
    from probe import api
    from probe.errors import InputError

    folder = Path(folder)
    model, engine = folder / MODEL_FILE, folder / ENGINE_FILE
    golden, actual = folder / GOLDEN, folder / ENGINE
    try:
        if (
            folder.is_dir()
            and any(folder.iterdir())
            and not (model.is_file() and _PRODUCER.encode() in model.read_bytes())
        ):
            raise InputError(f"{folder} holds something that is not the demo's", hint="choose another folder with -o")
        folder.mkdir(parents=True, exist_ok=True)
        model.write_bytes(build_demo_model())
        engine.write_bytes(build_faulty_model())
    except OSError as error:
        raise InputError(
            f"cannot write the demo's models: {error.strerror}", where=str(folder), hint="choose another folder"
        ) from error
    api.dump(model, golden, seed=0, overwrite=True).close()
    api.dump(engine, actual, inputs=golden, overwrite=True).close()
    result = api.diff(actual, golden, precision="fp16", command=COMMANDS[-1])
    return Demo(folder, result, COMMANDS, FAULTY_NODE, FAULTY_TENSOR)


def build_demo_model() -> bytes:
    """The network as it was trained, serialised ONNX: ``image`` [1, 3, 32, 32] -> ``logits`` [1, 10]."""
    return _build(faulty=False).SerializeToString()


def build_faulty_model() -> bytes:
    """The network as the engine with the bad kernel computes it: same nodes, same names, one node's arithmetic differs."""
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
        return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name=_PRODUCER)
    return helper.make_model(
        graph, opset_imports=[*opsets, helper.make_opsetid(_ENGINE_DOMAIN, 1)], functions=[_bad_kernel()],
        ir_version=8, producer_name=_PRODUCER,
    )  # fmt: skip


_PRODUCER = "probe demo"
_ENGINE_DOMAIN = "demo.engine"


def _bad_kernel() -> onnx.FunctionProto:
    """ReduceMean over the last axis with the sum in FP16: inputs and the mean fit, the sum of 64 squares does not.

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
        self.random = np.random.default_rng(20)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._constants: set[str] = set()

    # --- pieces

    def node(self, name: str, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = f"{name}_output_0"
        self.nodes.append(helper.make_node(op, inputs, [output], name, domain=domain, **attributes))
        return output

    def weight(self, name: str, *shape: int, fan_in: int = 0) -> str:
        """A weight drawn with He's scale for ``fan_in`` inputs; zeros without."""
        scale = np.float32((2 / fan_in) ** 0.5) if fan_in else np.float32(0)
        return self.constant(name, self.random.standard_normal(shape, dtype=np.float32) * scale)

    def constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        if name not in self._constants:
            self._constants.add(name)
            self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def linear(self, name: str, x: str, n: int, k: int) -> str:
        weight, bias = (
            self.weight(_parameter(name, "weight"), n, k, fan_in=2 * n),
            self.weight(_parameter(name, "bias"), k),
        )
        return self.node(f"/{name}/Add", "Add", self.node(f"/{name}/MatMul", "MatMul", x, weight), bias)

    def rms_norm(self, name: str, x: str) -> str:
        squares = self.node(f"/{name}/Pow", "Pow", x, self.constant("two", np.float32(2)))
        mean = f"/{name}/ReduceMean"
        if self.faulty and mean == FAULTY_NODE:
            last = self.constant("last_axis", np.array([-1], np.int64))
            count = self.constant("width", np.float32(WIDTH))
            mean = self.node(mean, "ReduceMean", squares, last, count, domain=_ENGINE_DOMAIN)
        else:
            mean = self.node(mean, "ReduceMean", squares, axes=[-1], keepdims=1)
        safe = self.node(f"/{name}/Add", "Add", mean, self.constant("epsilon", np.float32(1e-5)))
        root = self.node(f"/{name}/Sqrt", "Sqrt", safe)
        unit = self.node(f"/{name}/Div", "Div", x, root)
        return self.node(
            f"/{name}/Mul", "Mul", unit, self.constant(_parameter(name, "weight"), np.ones(WIDTH, np.float32))
        )

    # --- the network

    def stem(self, image: str) -> str:
        """[1, 3, 32, 32] -> tokens [1, 64, WIDTH]: two strided convolutions."""
        x, channels = image, 3
        for i, width in enumerate((WIDTH // 2, WIDTH)):
            weight = self.weight(f"stem.{i}.weight", width, channels, 3, 3, fan_in=channels * 9)
            bias = self.weight(f"stem.{i}.bias", width)
            x = self.node(f"/stem.{i}/Conv", "Conv", x, weight, bias, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
            x = self.node(f"/stem.{i}/Relu", "Relu", x)
            channels = width
        flat = self.node("/tokens/Reshape", "Reshape", x, self.constant("tokens.shape", np.array([1, WIDTH, TOKENS])))
        tokens = self.node("/tokens/Transpose", "Transpose", flat, perm=[0, 2, 1])
        return self.node("/tokens/Add", "Add", tokens, self.weight("position", 1, TOKENS, WIDTH, fan_in=2))

    def encoder(self, x: str) -> str:
        for i, gain in enumerate(MLP_GAINS):
            block = f"blocks.{i}"
            x = self.node(f"/{block}/Add", "Add", x, self.attention(block, self.rms_norm(f"{block}/norm1", x)))
            x = self.node(f"/{block}/Add_1", "Add", x, self.mlp(block, self.rms_norm(f"{block}/norm2", x), gain))
        return self.rms_norm("norm", x)

    def attention(self, block: str, x: str) -> str:
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
        flat = self.node(
            f"{name}/Reshape", "Reshape", joined, self.constant("join.shape", np.array([1, TOKENS, WIDTH]))
        )
        return self.linear(f"{block}/attention/output", flat, WIDTH, WIDTH)

    def mlp(self, block: str, x: str, gain: float) -> str:
        """GELU between two layers, then the block's gain."""
        name = f"/{block}/mlp"
        wide = self.linear(f"{block}/mlp/up", x, WIDTH, 4 * WIDTH)
        scaled = self.node(f"{name}/Div", "Div", wide, self.constant("sqrt2", np.float32(2**0.5)))
        erf = self.node(f"{name}/Erf", "Erf", scaled)
        gate = self.node(f"{name}/Add", "Add", erf, self.constant("one", np.float32(1)))
        gelu = self.node(f"{name}/Mul", "Mul", wide, gate)
        half = self.node(f"{name}/Mul_1", "Mul", gelu, self.constant("half", np.float32(0.5)))
        narrow = self.linear(f"{block}/mlp/down", half, 4 * WIDTH, WIDTH)
        return self.node(f"{name}/Mul_2", "Mul", narrow, self.constant(f"{block}.mlp.gain", np.float32(gain)))

    def classifier(self, x: str) -> str:
        pooled = self.node("/pool/ReduceMean", "ReduceMean", x, axes=[1], keepdims=0)
        weight, bias = self.weight("head.weight", WIDTH, CLASSES, fan_in=WIDTH), self.weight("head.bias", CLASSES)
        return self.node("/head/Gemm", "Gemm", pooled, weight, bias)
