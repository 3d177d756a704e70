"""Weights that are zero throughout: the product is zero, and only the bias is left."""

from __future__ import annotations

import numpy as np

from probe import ir
from probe.engine.passes.edit import Edit
from probe.engine.passes.linear import linear
from probe.engine.passes.reading import alive, all_nodes, is_op, static_shape
from probe.engine.passes.weights import FLOATS, stored


def remove_zero_weights(edit: Edit) -> None:
    """Level all: 0 * NaN and 0 * Inf are NaN, so a product with zeros shows a NaN of its input and the bias alone hides it.

    Conv, ConvTranspose, Gemm, MatMul and Mul, where the shape of the result is known: an Expand of the bias takes their place.
    """
    if edit.network.opset < 8:  # no Expand
        return
    for node in all_nodes(edit.network):
        if not alive(node):
            continue
        bias = _bias_alone(node)
        shape = static_shape(node.outputs[0]) if bias is not None else None
        value = node.outputs[0] if node.outputs else None
        if bias is None or shape is None or value is None or value.dtype is None or value.dtype not in FLOATS:
            continue
        if not edit.take(f"replaces {node.name} by its bias: its weights are all zero", [node]):
            continue
        source = edit.weight(f"{node.name}/bias", bias, value.dtype)
        target = edit.weight(f"{node.name}/shape", np.array(shape, np.int64), ir.DataType.INT64)
        made = edit.insert(node, "Expand", [source, target], [node])
        edit.substitute(value, made.outputs[0])


def _bias_alone(node: ir.Node) -> np.ndarray | None:
    """What a node makes whatever it reads, to be broadcast to the shape of its result."""
    if is_op(node, "Mul"):
        return np.zeros(()) if any(_is_zero(value) for value in node.inputs) else None
    target = linear(node)
    if target is None or not _is_zero(node.inputs[1]):
        return None
    return target.bias.reshape(-1, *[1] * (target.rank - 1 - target.axis))


def _is_zero(value: ir.Value | None) -> bool:
    values = stored(value)
    if (
        values is None or values.size == 0 or values.flat[0] != 0
    ):  # a look at the first spares reading hundreds of megabytes
        return False
    return not values.any()
