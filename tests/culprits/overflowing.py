"""A network that fails in FP16 in places that are known: squares that pass 65504 where the scale is large."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from probe.culprits.judge import Judge
from probe.culprits.oracle import EngineOracle
from probe.debug.record import record
from probe.engine.assignment import Assignment
from probe.engine.build import compile_model
from probe.engine.engine import Engine
from probe.model.load import load
from probe.runners.protocol import RunnerOptions, open_runner
from probe.search.units import Unit
from probe.store.feeds import InputSet
from probe.store.tape import Tape

WIDTH = 8


class Tensors:
    """Every tensor that layers store is a unit."""

    def __init__(self, engine: Engine) -> None:
        names = dict.fromkeys(value.name or "" for layer in engine.layers for value in layer.outputs)
        self.units = [Unit(name, frozenset({name})) for name in names]

    def assignment(self, base: Assignment, members: Iterable[str]) -> Assignment:
        return base.keeping(tensors=members)


def save(path: Path, scales: tuple[float, ...]) -> Path:
    """y = a chain of x / rms(x): with a scale of 300 the square of x overflows, with 1 it does not."""
    random = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def node(op: str, *reads: str, out: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, reads, [out], f"node {out}", **attributes))
        return out

    def weight(name: str, value: Any) -> str:
        weights.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    x = "x"
    for number, scale in enumerate(scales):
        fed = node("MatMul", x, weight(f"w{number}", random.normal(size=(WIDTH, WIDTH))), out=f"fed{number}")
        big = node("Mul", fed, weight(f"scale{number}", scale), out=f"big{number}")
        square = node("Mul", big, big, out=f"square{number}")
        mean = node("ReduceMean", square, out=f"mean{number}", axes=[-1], keepdims=1)
        x = node("Div", big, node("Sqrt", mean, out=f"root{number}"), out=f"norm{number}")
    node("Identity", x, out="y")
    shape = ["batch", WIDTH]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)], weights,
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def sets(**scales: float) -> list[InputSet]:
    made = []
    for number, (key, scale) in enumerate(scales.items()):
        x = np.random.default_rng(number).normal(size=(3, WIDTH)) * scale
        made.append(InputSet(key, {"x": x.astype(np.float32)}, "test"))
    return made


def oracle_of(path: Path, inputs: list[InputSet], *, how: dict[str, Any] | None = None, **judging: Any) -> EngineOracle:
    """An oracle whose ``space`` is ``Tensors``; ``how`` goes to it, the rest to its judge."""
    model = load(path)
    engine = compile_model(model, precision="fp16", passes="none", fusion="none")
    golden = Tape()
    with golden:
        record(open_runner("ort", model, RunnerOptions()), inputs, golden)
    judge = Judge(golden, ["y"], inputs, precision="fp16", **judging)
    return EngineOracle(engine, Tensors(engine), engine.assignment, inputs, judge, **(how or {}))
