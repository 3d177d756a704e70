"""Small networks drawn in ONNX's text form, with constants written where they are read.

``$0.5`` is a float constant of rank 0, ``$[0.5]`` one of shape [1], ``$i[-1]`` integers, ``%96`` and ``%1x96x1`` weights of a shape.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

from probe.engine.fusion import Grouping, group
from probe.engine.network import Network, read_network
from probe.model.load import read_model

_CONSTANT = re.compile(r"\$(i?)(\[[^\]]*\]|-?inf|-?[0-9.e+-]+)|%([0-9x]+)")


def network(
    nodes: str, *, inputs: str = "float[2,8,96] x", outputs: str = "float[2,8,96] y", opset: int = 17
) -> Network:
    """A network of nodes such as ``y = Mul(x, $0.5)``, one a line."""
    data = _model(nodes, inputs, outputs, opset).SerializeToString()
    return read_network(read_model(Path("drawn.onnx"), memoryview(data), content=data))


def _model(nodes: str, inputs: str, outputs: str, opset: int) -> onnx.ModelProto:
    weights: list[onnx.TensorProto] = []
    random = np.random.default_rng(0)

    def constant(found: re.Match[str]) -> str:
        integers, text, shape = found.groups()
        if shape is not None:
            array = random.standard_normal(tuple(int(extent) for extent in shape.split("x"))).astype(np.float32)
        else:
            numbers = [float(number) for number in text.strip("[]").split(",") if number]
            array = np.array(numbers if text.startswith("[") else numbers[0], np.int64 if integers else np.float32)
        weights.append(numpy_helper.from_array(array, f"constant{len(weights)}"))
        return weights[-1].name

    body = _CONSTANT.sub(constant, nodes)
    text = f'<ir_version: 8, opset_import: ["" : {opset}]> drawn ({inputs}) => ({outputs}) {{ {body} }}'
    model = parser.parse_model(text)
    model.graph.initializer.extend(weights)
    for node in model.graph.node:
        node.name = "".join(node.output[:1])
    return model


def grouped(nodes: str, level: str = "safe", **drawing: object) -> Grouping:
    """The groups of a drawn network."""
    return group(network(nodes, **drawing), level)  # pyright: ignore[reportArgumentType]


def patterns(found: Grouping) -> list[str]:
    """Names of the groups, in the order of their last nodes."""
    return [one.pattern for one in found.groups]


def members(found: Grouping) -> dict[str, list[str]]:
    """What each group holds: pattern -> nodes."""
    return {one.pattern: [node.name or "" for node in one.nodes] for one in found.groups}
