"""What tactics ask of a node: how many terms a sum has, what window a convolution slides, what that takes in memory. From shapes alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from probe import ir
from probe.engine.costs import Shapes, shape_of

if TYPE_CHECKING:
    from probe.engine.costs import Shape

_KERNEL = (3, 3)
_VERSIONED = frozenset(("Softmax", "LogSoftmax", "GroupNormalization"))  # later opsets mean something else


def element_type_refusal(node: ir.Node) -> str | None:
    """Tactics compute float32 (what is stored lower arrives as float32); integers and float64 are left to exact."""
    value = node.inputs[0] if node.inputs else None
    if value is None or value.dtype in (None, ir.DataType.FLOAT):
        return None
    return f"it computes float32, and {value.name} is {value.dtype.name.lower()}"


def opset_of(node: ir.Node) -> int | None:
    """Version of the standard operators where a node stands; None: not known, as in a body of an If."""
    return node.graph.opset_imports.get("") if node.graph is not None else None


def opset_refusal(node: ir.Node) -> str | None:
    """Why it cannot be said which axes a node sums over."""
    if node.op_type not in _VERSIONED or node.graph is None or opset_of(node) is not None:
        return None
    return f"what {_name(node)} sums depends on the opset, which is not known inside a branch"


def terms_of(node: ir.Node, shapes: Shapes | None = None) -> int | None:
    """k, the products that each result of a MatMul, Gemm, Conv or ConvTranspose sums; None: not known."""
    left, right = (_shape(node, at, shapes) for at in range(2))
    match node.op_type:
        case "MatMul" | "Gemm":
            if left:
                return left[0 if node.attributes.get_int("transA", 0) else -1]
            if right:
                return right[-1 if node.attributes.get_int("transB", 0) else max(len(right) - 2, 0)]
        case "Conv" if right:
            return math.prod(right[1:])
        case "ConvTranspose" if right:
            return right[0] // node.attributes.get_int("group", 1) * math.prod(right[2:])
    return None


def split_refusal(node: ir.Node, splits: int, shapes: Shapes | None) -> str | None:
    """Why a sum cannot be cut into ranges that hold a product each."""
    terms = terms_of(node, shapes)
    if terms is None or terms >= splits:
        return None
    return f"{_name(node)} sums {terms} products, which cannot be cut into {splits} ranges"


def splits_workspace(node: ir.Node, splits: int, shapes: Shapes | None) -> int | None:
    """Bytes of the partial sums, FP32."""
    made = shape_of(node.outputs[0], shapes)
    return None if made is None else 4 * splits * math.prod(made)


def winograd_refusal(node: ir.Node, shapes: Shapes | None) -> str | None:
    """Why a convolution is not one that F(m x m, 3x3) computes."""
    kernel = kernel_of(node, _shape(node, 1, shapes))
    name = _name(node)
    if kernel is not None and kernel != _KERNEL:
        return f"{name} has a kernel of {'x'.join(map(str, kernel))}, Winograd is for 3x3"
    for attribute, word in (("strides", "strides"), ("dilations", "dilations")):
        values = node.attributes.get_ints(attribute, (1, 1))
        if any(value != 1 for value in values):
            return f"{name} has {word} of {'x'.join(map(str, values))}, Winograd is for 1x1"
    groups = node.attributes.get_int("group", 1)
    return f"{name} has {groups} groups, Winograd is for 1" if groups != 1 else None


def winograd_workspace(node: ir.Node, tile: int, shapes: Shapes | None) -> int | None:
    """Bytes of the transformed kernels and inputs in FP16 and of the products in FP32."""
    weights, made = _shape(node, 1, shapes), shape_of(node.outputs[0], shapes)
    if weights is None or made is None or len(made) != 4 or len(weights) != 4:
        return None
    outputs, channels = weights[:2]
    images, _, height, width = made
    tiles = images * math.ceil(height / tile) * math.ceil(width / tile)
    points = (tile + _KERNEL[0] - 1) ** 2
    return points * (2 * outputs * channels + 2 * channels * tiles + 4 * outputs * tiles)


def kernel_of(node: ir.Node, weights: Sequence[int] | None) -> tuple[int, ...] | None:
    """Extents of a convolution's kernel; None: not known."""
    if weights is not None:
        return tuple(weights[2:])
    declared = node.attributes.get_ints("kernel_shape", ())
    return tuple(declared) or None


def _shape(node: ir.Node, at: int, shapes: Shapes | None) -> Shape | None:
    return shape_of(node.inputs[at], shapes) if at < len(node.inputs) else None


def _name(node: ir.Node) -> str:
    return node.name or f"{node.op_type}({node.outputs[0].name})"
