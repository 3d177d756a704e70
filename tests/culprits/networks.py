"""Small networks with one known fault each, for the whole of ``find``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 16


class Writer:
    """Nodes and weights of one graph."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(seed)

    def node(self, op: str, *inputs: str, out: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [out], f"n/{out}", **attributes))
        return out

    def constant(self, name: str, value: Any) -> str:
        if all(weight.name != name for weight in self.weights):
            self.weights.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def linear(self, x: str, out: str, n: int = WIDTH, k: int = WIDTH) -> str:
        weight = self.constant(f"{out}.w", self.random.normal(size=(n, k)) * n**-0.5)
        return self.node("MatMul", x, weight, out=out)

    def rms_norm(self, x: str, name: str, scale: float) -> str:
        """x scaled up, squared, averaged, divided by the root: with a large scale the square overflows in FP16, and the result is finite."""
        big = self.node("Mul", x, self.constant(f"{name}.scale", scale), out=f"{name}.big")
        square = self.node("Mul", big, big, out=f"{name}.square")
        mean = self.node("ReduceMean", square, out=f"{name}.mean", axes=[-1], keepdims=1)
        root = self.node("Sqrt", mean, out=f"{name}.root")
        return self.node("Div", big, root, out=f"{name}.out")

    def save(self, path: Path, outputs: list[str], width: int = WIDTH) -> Path:
        graph = helper.make_graph(
            self.nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs], self.weights,
        )  # fmt: skip
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        return path


def norms(path: Path, scales: tuple[float, ...]) -> Path:
    """A chain of linear layers and normalisations; a scale of 300 makes a mean of squares pass 65504, one of 1 none."""
    made = Writer()
    x = "x"
    for number, scale in enumerate(scales):
        x = made.rms_norm(made.linear(x, f"fc{number}"), f"norm{number}", scale)
    made.node("Add", made.linear(x, "head"), made.constant("bias", np.linspace(-1, 1, WIDTH)), out="y")
    return made.save(path, ["y"])


def inputs(folder: Path, name: str = "in", seed: int = 0, scale: float = 1.0) -> Path:
    path = folder / f"{name}.npz"
    np.savez(path, x=(np.random.default_rng(seed).normal(size=(4, WIDTH)) * scale).astype(np.float32))
    return path


def looped(path: Path) -> Path:
    """A normalisation in the body of a Loop: its square and their mean overflow in FP16."""
    inner = Writer()
    inner.node("Mul", "state", "state", out="square")
    inner.node("ReduceMean", "square", out="mean", axes=[-1], keepdims=1)
    inner.node("Sqrt", "mean", out="root")
    inner.node("Div", "state", "root", out="unit")
    inner.node("Mul", "unit", inner.constant("big", 600.0), out="next")
    inner.node("Identity", "going", out="go_on")
    scalar = {"i": TensorProto.INT64, "going": TensorProto.BOOL, "go_on": TensorProto.BOOL}
    typed = [helper.make_tensor_value_info(name, kind, []) for name, kind in scalar.items()]
    state, after = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("state", "next"))
    body = helper.make_graph(inner.nodes, "body", [*typed[:2], state], [typed[2], after], inner.weights)
    made = Writer()
    made.node("Mul", "x", made.constant("scale", 600.0), out="start")
    made.weights.append(numpy_helper.from_array(np.array(2, np.int64), "times"))
    made.nodes.append(helper.make_node("Loop", ["times", "", "start"], ["end"], "n/loop", body=body))
    made.linear("end", "y")
    return made.save(path, ["y"])
