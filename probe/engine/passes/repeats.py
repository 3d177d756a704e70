"""Repeats: a function applied to its own result, where once is enough."""

from __future__ import annotations

import numpy as np

from probe import ir
from probe.engine.passes.edit import Edit, can_bypass
from probe.engine.passes.reading import alive, all_nodes, is_op, real
from probe.engine.passes.weights import FLOATS, INTEGERS, stored

_ONCE = ("Relu", "Abs", "Ceil", "Floor", "Round", "Sign")  # f(f(x)) is f(x), NaN and Inf included


def remove_repeats(edit: Edit) -> None:
    """Level safe: not a bit changes. Relu after Relu, and so on; Clip after a Clip within its bounds. Relu after Clip is left alone:
    runtimes differ in what they make of NaN there."""
    for node in all_nodes(edit.network):
        if not alive(node) or not node.inputs or node.inputs[0] is None:
            continue
        source = node.inputs[0]
        before = source.producer()
        if before is None or before.op_type != node.op_type or not can_bypass(node.outputs[0], source):
            continue
        if not is_op(before, *_ONCE, "Clip") or not is_op(node, *_ONCE, "Clip"):
            continue
        if is_op(node, "Clip") and not _covers(node, before):
            continue
        if edit.take(f"removes {node.name}: {before.name} is the same {node.op_type} before it", [node, before]):
            edit.bypass(node.outputs[0], source)


def _covers(outer: ir.Node, inner: ir.Node) -> bool:
    """Whether what ``inner`` lets through lies within the bounds of ``outer``."""
    low, high, inner_low, inner_high = (*_bounds(outer), *_bounds(inner))
    if low is None or high is None or inner_low is None or inner_high is None:
        return False
    return low <= inner_low <= inner_high <= high


def _bounds(clip: ir.Node) -> tuple[float | None, float | None]:
    """Least and largest value; None where one is computed. A bound that is left out is the type's own: Inf is clipped too."""
    dtype = clip.outputs[0].dtype
    if dtype is None or dtype not in FLOATS | INTEGERS or dtype == ir.DataType.BFLOAT16:
        return None, None
    limits = np.finfo(dtype.numpy()) if dtype in FLOATS else np.iinfo(dtype.numpy())
    return _bound(clip, 1, "min", float(limits.min)), _bound(clip, 2, "max", float(limits.max))


def _bound(clip: ir.Node, index: int, attribute: str, absent: float) -> float | None:
    if index >= len(clip.inputs) or clip.inputs[index] is None:
        return real(clip, attribute, absent)
    values = stored(clip.inputs[index])
    return float(values.reshape(-1)[0]) if values is not None and values.size == 1 else None
