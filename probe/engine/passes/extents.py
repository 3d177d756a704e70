"""Lengths that are known although a tensor's shape is not known in full: integers followed from Shape through what picks and joins them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from probe import ir
from probe.engine.passes.reading import dims, given, integer, integers, is_op
from probe.engine.passes.weights import INTEGERS, stored

Known = np.ndarray[Any, Any]  # of int, and None where not known; dtype object

FOLLOWED = frozenset("Shape Size Gather Slice Concat Squeeze Unsqueeze Reshape Cast Identity".split())
_DEEPEST = 20  # nodes from the Shape; more than exporters write


def known_integers(value: ir.Value | None, depth: int = 0) -> Known | None:
    """The integers a tensor holds, None for each that depends on what is fed; None alone where even their number is not known.

    Followed are Shape, Size, Gather, Slice, Concat, Squeeze, Unsqueeze, Reshape and Cast, which is what exporters make targets of Reshape from.
    """
    if value is None or depth > _DEEPEST:
        return None
    values = stored(value)
    if values is not None:
        return values.astype(object) if value.dtype in INTEGERS else None
    node = value.producer()
    if node is None or not is_op(node, *FOLLOWED) or value.dtype not in INTEGERS:
        return None
    if node.op_type in ("Shape", "Size"):
        return _extents(node)
    parts = [known_integers(part, depth + 1) for part in (node.inputs if node.op_type == "Concat" else node.inputs[:1])]
    have = [part for part in parts if part is not None]
    if len(have) < len(parts):
        return None
    try:
        return _move(node, have)
    except (ValueError, IndexError):  # axes or indices out of range, in a branch that never runs
        return None


def _extents(node: ir.Node) -> Known | None:
    shape = dims(node.inputs[0])
    if shape is None:
        return None
    if node.op_type == "Size":
        sizes = [size for size in shape if size is not None]
        return None if len(sizes) < len(shape) else np.array(math.prod(sizes), object)
    return np.array(shape[slice(integer(node, "start", 0), integer(node, "end", len(shape)))], object)


def _move(node: ir.Node, parts: list[Known]) -> Known | None:
    values = parts[0]
    if node.op_type == "Concat":
        return np.concatenate(parts, axis=integer(node, "axis", 0))
    if node.op_type in ("Cast", "Identity"):
        return values
    if node.op_type == "Gather":
        picked = stored(node.inputs[1])
        return None if picked is None else np.asarray(np.take(values, picked, axis=integer(node, "axis", 0)), object)
    if node.op_type == "Slice":
        return _slice(node, values)
    if node.op_type == "Reshape":
        target = integers(node, 1)
        return None if target is None or 0 in target else values.reshape(target)
    axes = integers(node, 1, "axes")
    if node.op_type == "Squeeze":
        return values.squeeze(axes) if axes is not None or not given(node, 1, "axes") else None
    return None if axes is None else np.expand_dims(values, axes)


def _slice(node: ir.Node, values: Known) -> Known | None:
    starts, ends = integers(node, 1, "starts"), integers(node, 2, "ends")
    axes = integers(node, 3, "axes") if given(node, 3, "axes") else (0,)
    steps = integers(node, 4) if given(node, 4) else (1,)
    if values.ndim != 1 or axes not in ((0,), (-1,)) or steps is None or not (starts and ends):
        return None
    if steps[0] < 1:  # backwards, -1 would mean something else to Python
        return None
    return values[starts[0] : ends[0] : steps[0]]
