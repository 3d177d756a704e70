"""What a typed ONNX model computes in FP32, whatever tool wrote it: nodes, FLOPs, Casts. Types and shapes as the neutral evaluator finds them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from tests.bench.neutral import HALVES, TypedModel

Array = np.ndarray[Any, Any]
# They hand on what they get, make constants, or change types: nothing is computed.
NO_WORK = frozenset(
    """
    Cast CastLike Constant ConstantOfShape Identity Reshape Transpose Squeeze Unsqueeze Flatten Slice Concat Split Gather GatherElements
    GatherND Expand Tile Pad Dropout Shape Size DepthToSpace SpaceToDepth ScatterND ScatterElements Trilu Range
    """.split()
)


@dataclass(frozen=True, slots=True)
class MixedCost:
    """
    Attributes:
        nodes: that compute on floats; ``nodes_fp32`` of them in FP32: an input or output that is data is declared FP32.
        flops: of all of them, two a multiplication and addition of products, one an element of the output otherwise.
        casts: between float types, in the file.
    """

    nodes: int
    nodes_fp32: int
    flops: int
    flops_fp32: int
    casts: int


def cost_of(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> MixedCost:
    """Count by one run of the model.

    Raises:
        neutral.UnsupportedError: see ``neutral.TypedModel``.
    """
    typed = TypedModel(model)
    values, types = typed.run(inputs), typed.types
    floats = {TensorProto.FLOAT, *HALVES}
    nodes = nodes_fp32 = flops = flops_fp32 = casts = 0
    for node in model.graph.node:
        made = [name for name in node.output if name]
        kinds = {types[name] for name in made} & floats
        if node.op_type == "Cast":
            casts += types.get(node.input[0]) in floats and bool(kinds)
        if node.op_type in NO_WORK or not kinds:
            continue
        work = _flops(node, values)
        wide = TensorProto.FLOAT in kinds
        nodes, flops = nodes + 1, flops + work
        nodes_fp32, flops_fp32 = nodes_fp32 + wide, flops_fp32 + work * wide
    return MixedCost(nodes, nodes_fp32, flops, flops_fp32, casts)


def _flops(node: onnx.NodeProto, values: Mapping[str, Array]) -> int:
    out = values[next(name for name in node.output if name)]
    shapes: list[tuple[int, ...]] = [values[name].shape if name else () for name in node.input]
    if node.op_type == "MatMul":
        return 2 * out.size * shapes[0][-1]
    if node.op_type == "Gemm":
        transposed = any(one.name == "transA" and one.i for one in node.attribute)
        return 2 * out.size * shapes[0][0 if transposed else 1]
    if node.op_type == "Conv":
        return 2 * out.size * math.prod(shapes[1][1:])
    if node.op_type == "ConvTranspose":
        return 2 * math.prod(shapes[0]) * math.prod(shapes[1][1:])
    return max(out.size, *(math.prod(shape) for shape in shapes), 1) if shapes else out.size
