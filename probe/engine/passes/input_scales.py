"""Scales and batch normalisation in front of a convolution or product, folded into its weights.

W (a x + c) + b becomes (W a) x + (W c + b), in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from probe import ir
from probe.engine.passes.affine import BATCH_NORM, SCALES, Affine, affine
from probe.engine.passes.edit import Edit, only_reader
from probe.engine.passes.linear import Linear, linear
from probe.engine.passes.reading import alive, all_nodes, dims, integer, integers, is_op, text

Array = np.ndarray[Any, Any]


def fold_input_scales(edit: Edit) -> None:
    """Level all: the sum is then over what was not centred, W x + W c instead of W (x + c). Where x is large and x + c small that
    cancels, and in low precision it costs digits.

    Into Conv, Gemm and MatMul. An offset needs a bias, and a convolution without padding: padding adds zeros after the offset.
    """
    for node in all_nodes(edit.network):
        while alive(node) and _fold_before(edit, node):
            pass


def _fold_before(edit: Edit, node: ir.Node) -> bool:
    target = linear(node) if is_op(node, "Conv", "Gemm", "MatMul") else None
    value = node.inputs[0] if target is not None else None
    before = value.producer() if value is not None else None
    if target is None or value is None or before is None or only_reader(value) is not node:
        return False
    place = _input_channels(target)
    if place is None or before.op_type not in (*SCALES, *BATCH_NORM):
        return False
    axis, channels = place
    source, link = _link(before, axis, channels, target.rank)
    if source is None or link is None or (link.shifts and not (target.has_bias and _pads_nothing(node))):
        return False
    weights = target.weights_times(target.per_input(link.scale))
    bias = target.bias + _offset(target, link.shift) if link.shifts else None
    if not target.takes(weights, bias):
        edit.note(f"{before.name} is not folded into {node.name}: a weight would not be finite")
        return False
    if not edit.take(f"folds {before.name} into the weights of {node.name} after it", [before, node]):
        return False
    target.give(edit, weights, bias)
    edit.skip(node, 0, source)
    return True


def _link(before: ir.Node, axis: int, channels: int, rank: int) -> tuple[ir.Value | None, Affine | None]:
    """What is scaled, and how; its shape must be that of the result."""
    for source in before.inputs[:2] if is_op(before, *SCALES) else before.inputs[:1]:
        known = dims(source) if source is not None and not source.is_initializer() else None
        if source is not None and known is not None and len(known) == rank and known[axis] == channels:
            found = affine(before, source, axis, channels, rank)
            if found is not None:
                return source, found
    return None, None


def _input_channels(target: Linear) -> tuple[int, int] | None:
    """Axis and number of the channels a node sums over."""
    node, shape = target.node, target.shape
    if node.op_type == "Conv":
        return 1, shape[1] * integer(node, "group", 1)
    read = dims(node.inputs[0])
    if read is None or len(read) != target.rank or len(shape) != 2 or integer(node, "transA", 0):
        return None
    return target.rank - 1, shape[1] if integer(node, "transB", 0) else shape[0]


def _offset(target: Linear, shift: Array) -> Array:
    """[outputs]: the product of the weights with an input of ``shift`` everywhere."""
    spread = target.weights_times(target.per_input(shift))
    if target.node.op_type == "Conv":
        return spread.reshape(target.outputs, -1).sum(1)
    transposed = integer(target.node, "transB", 0)
    alpha = target.node.attributes.get("alpha")
    return spread.sum(1 if transposed else 0) * (1.0 if alpha is None else alpha.as_float())


def _pads_nothing(node: ir.Node) -> bool:
    if node.op_type != "Conv":
        return True
    return text(node, "auto_pad", "NOTSET") in ("NOTSET", "VALID") and not any(integers(node, 9, "pads") or ())
