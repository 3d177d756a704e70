"""Identities: nodes that hand on what they read. Movements that move nothing, casts to the own type, arithmetic with a neutral element."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from probe import ir
from probe.engine.passes.edit import Edit, can_bypass
from probe.engine.passes.reading import (
    alive,
    all_nodes,
    dims,
    given,
    integer,
    integers,
    is_pure,
    is_standard,
    same_shape,
    static_shape,
)
from probe.engine.passes.weights import FLOATS, stored


def remove_identities(edit: Edit) -> None:
    """Level safe: outputs keep every bit, NaN, Inf and the sign of zero included. Adding +0.0 is not here: it turns -0.0 into +0.0."""
    _remove(edit, IDENTITIES)


def remove_zero_additions(edit: Edit) -> None:
    """Level all: x + 0.0 is x, but for x = -0.0, which it turns into +0.0; a reciprocal tells the two apart by the sign of its Inf."""
    _remove(edit, {"Add": _adds_zero, "Sum": _adds_zero})


def _remove(edit: Edit, rules: dict[str, Callable[[ir.Node], int | None]]) -> None:
    for node in all_nodes(edit.network):
        rule = rules.get(node.op_type)
        if rule is None or not alive(node) or not is_standard(node) or not _makes_one(node):
            continue
        at = rule(node)
        source = node.inputs[at] if at is not None and at < len(node.inputs) else None
        if source is None or not can_bypass(node.outputs[0], source):
            continue
        if edit.take(f"removes {node.name}: this {node.op_type} hands on {source.name}", [node]):
            edit.bypass(node.outputs[0], source)


def _makes_one(node: ir.Node) -> bool:
    return bool(node.outputs) and not any(value.uses() or value.is_graph_output() for value in node.outputs[1:])


def _always(_: ir.Node) -> int | None:
    return 0


def _dropout(node: ir.Node) -> int | None:
    return 0 if is_pure(node) else None


def _to_own_type(_: ir.Node) -> int | None:
    return 0  # can_bypass asks for equal types, which is all there is to it


def _keeps_shape(node: ir.Node) -> int | None:
    """Flatten, Squeeze, Unsqueeze: the elements stay in order."""
    source = node.inputs[0]
    return 0 if source is not None and same_shape(source, node.outputs[0]) else None


def _reshape(node: ir.Node) -> int | None:
    source, target = node.inputs[0], integers(node, 1)
    known = dims(source)
    if target is not None and known is not None and len(target) == len(known) and target.count(-1) <= 1:
        copies = integer(node, "allowzero", 0) == 0
        if all(want == -1 or (want == 0 and copies) or want == have for want, have in zip(target, known, strict=True)):
            return 0  # -1 stands for what is left, and every other axis is kept
    return _keeps_shape(node)


def _expand(node: ir.Node) -> int | None:
    known, target = dims(node.inputs[0]), integers(node, 1)
    if known is None or target is None or len(target) > len(known):
        return None
    axes = zip(reversed(target), reversed(known), strict=False)
    return 0 if all(want in (1, have) for want, have in axes) else None


def _tile(node: ir.Node) -> int | None:
    repeats = integers(node, 1)
    return 0 if repeats is not None and all(count == 1 for count in repeats) else None


def _pad(node: ir.Node) -> int | None:
    pads = integers(node, 1, "pads")
    return 0 if pads is not None and not any(pads) else None


def _transpose(node: ir.Node) -> int | None:
    known = dims(node.inputs[0])
    perm = tuple(node.attributes["perm"].as_ints()) if "perm" in node.attributes else None
    if perm is None:  # reverses the axes
        return 0 if known is not None and len(known) <= 1 else None
    return 0 if perm == tuple(range(len(perm))) else None


def _slice(node: ir.Node) -> int | None:
    known = dims(node.inputs[0])
    starts, ends = integers(node, 1, "starts"), integers(node, 2, "ends")
    if known is None or starts is None or ends is None:
        return None
    axes = integers(node, 3, "axes") if given(node, 3, "axes") else tuple(range(len(starts)))
    steps = integers(node, 4) if given(node, 4) else (1,) * len(starts)
    if axes is None or steps is None or len({len(starts), len(ends), len(axes), len(steps)}) > 1:
        return None
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = known[axis] if -len(known) <= axis < len(known) else None
        from_first = start == 0 or (size is not None and start <= -size)
        to_last = end >= (size if size is not None else _ENDLESS)
        if step != 1 or not from_first or not to_last:
            return None
    return 0


_ENDLESS = 2**31 - 1  # exporters write this, or INT64_MAX, for "to the end"


def _single(node: ir.Node) -> int | None:
    """Concat, Sum, Max, Min, Mean of one."""
    return 0 if len(node.inputs) == 1 else None


def _split(node: ir.Node) -> int | None:
    return 0 if len(node.outputs) == 1 else None


def _reduce(node: ir.Node) -> int | None:
    """A mean or a largest element over axes of one element each, which it keeps."""
    axes = integers(node, 1, "axes")
    shape = static_shape(node.inputs[0])
    if shape is None or static_shape(node.outputs[0]) != shape:
        return None
    if axes is None:  # all of them; or constant they are not
        return None if given(node, 1, "axes") else 0 if set(shape) <= {1} else None
    return 0 if all(shape[axis] == 1 for axis in axes) else None


def _neutral(node: ir.Node, at: int, wanted: float, *, negative_zero: bool = False) -> bool:
    """Whether input ``at`` is ``wanted`` throughout and broadcasting leaves the other input's shape as it is."""
    source, value = node.inputs[1 - at], node.inputs[at]
    values, known = stored(value), dims(source)
    if source is None or value is None or values is None or known is None or values.ndim > len(known):
        return False
    if values.size == 0 or not (values == wanted).all():
        return False
    if value.dtype in FLOATS and wanted == 0 and not (np.signbit(values) == negative_zero).all():
        return False
    axes = zip(reversed(values.shape), reversed(known), strict=False)
    return all(size in (1, have) for size, have in axes)


def _operand(node: ir.Node, wanted: float, *, both: bool, negative_zero: bool = False) -> int | None:
    """Index of the input that a binary operator hands on because the other is its neutral element."""
    if len(node.inputs) != 2:
        return None
    for at in (1, 0) if both else (1,):
        if _neutral(node, at, wanted, negative_zero=negative_zero):
            return 1 - at
    return None


def _multiplies_by_one(node: ir.Node) -> int | None:
    return _operand(node, 1, both=True)


def _divides_by_one(node: ir.Node) -> int | None:  # and to the power of one
    return _operand(node, 1, both=False)


def _adds_nothing(node: ir.Node) -> int | None:
    """An integer 0; or -0.0, the neutral element of floating-point addition."""
    return _operand(node, 0, both=True, negative_zero=True)


def _adds_zero(node: ir.Node) -> int | None:
    return _operand(node, 0, both=True)


def _subtracts_nothing(node: ir.Node) -> int | None:
    return _operand(node, 0, both=False)


IDENTITIES: dict[str, Callable[[ir.Node], int | None]] = {
    "Identity": _always,
    "Dropout": _dropout,
    "Cast": _to_own_type,
    "CastLike": _to_own_type,
    "Flatten": _keeps_shape,
    "Squeeze": _keeps_shape,
    "Unsqueeze": _keeps_shape,
    "Reshape": _reshape,
    "Expand": _expand,
    "Tile": _tile,
    "Pad": _pad,
    "Transpose": _transpose,
    "Slice": _slice,
    "Concat": _single,
    "Sum": _single,
    "Max": _single,
    "Min": _single,
    "Mean": _single,
    "Split": _split,
    "ReduceMean": _reduce,
    "ReduceMax": _reduce,
    "ReduceMin": _reduce,
    "Mul": _multiplies_by_one,
    "Div": _divides_by_one,
    "Pow": _divides_by_one,
    "Add": _adds_nothing,
    "Sub": _subtracts_nothing,
}
