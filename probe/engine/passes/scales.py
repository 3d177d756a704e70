"""Scales: Mul, Div, Add and Sub by constants, uniform or one a channel, folded into the weights of the node before them.

y = a (W x + b) + c becomes (a W) x + (a b + c), in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from probe import ir
from probe.engine.passes.affine import SCALES, Affine, affine
from probe.engine.passes.edit import Edit, only_reader
from probe.engine.passes.linear import Linear, linear
from probe.engine.passes.reading import alive, all_nodes

Array = np.ndarray[Any, Any]


def fold_scales(edit: Edit) -> None:
    """Level safe: every runtime does it; outputs move by the rounding of the new weights.

    Into Conv, ConvTranspose and Gemm, and factors into MatMul, which has no bias to take an offset. Not where the result between is
    read by others or is an output, and not where a new weight would overflow.
    """
    fold_followers(edit, SCALES)


def fold_followers(edit: Edit, operators: tuple[str, ...]) -> None:
    """Fold every chain of ``operators`` into the linear node it follows, one change a link."""
    for node in all_nodes(edit.network):
        while alive(node) and _fold_next(edit, node, operators):
            pass


def _fold_next(edit: Edit, node: ir.Node, operators: tuple[str, ...]) -> bool:
    value = node.outputs[0] if node.outputs else None
    follower = only_reader(value) if value is not None else None
    if value is None or follower is None or follower.op_type not in operators:
        return False
    target = linear(node)
    link = affine(follower, value, target.axis, target.outputs, target.rank) if target is not None else None
    if target is None or link is None or (link.shifts and not target.has_bias):
        return False
    weights, bias = _scaled(target, link)
    if not target.takes(target.weights if weights is None else weights, bias):
        edit.note(f"{follower.name} is not folded into {node.name}: a weight would not be finite")
        return False
    if not edit.take(f"folds {follower.name} into the weights of {node.name}", [node, follower]):
        return False
    target.give(edit, weights, bias)
    edit.absorb(value, follower.outputs[0])
    return True


def _scaled(target: Linear, link: Affine) -> tuple[Array | None, Array | None]:
    """New weights and bias; None where they stay as they are."""
    scales = bool((link.scale != 1).any())
    weights = target.weights_times(target.per_output(link.scale)) if scales else None
    bias = target.bias * link.scale + link.shift
    adds = len(target.node.inputs) > 2 and target.node.inputs[2] is not None
    return weights, bias if link.shifts or (scales and adds) else None
