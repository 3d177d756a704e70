"""What is known of shapes: whether one tensor grows into another by broadcasting, and which axes a node works on."""

from __future__ import annotations

import math
from itertools import zip_longest

from probe import ir
from probe.engine.fusion.pattern import scalar_value
from probe.engine.network import constant

Extents = tuple[int | str, ...]


def extents(value: ir.Value | None) -> Extents | None:
    """Extents of a tensor, symbolic ones by name ("?" for none); None for an unknown rank."""
    if value is None or value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else str(dim.value or "?") for dim in value.shape)


def show(shape: Extents | None) -> str:
    """[batch, 96]"""
    return "unknown" if shape is None else f"[{', '.join(map(str, shape))}]"


def grows(shape: Extents, into: Extents) -> bool:
    """Whether broadcasting gives a tensor of one shape more elements in the other.

    Extents with different symbolic names count as equal: shape inference makes up a name a node. A device that needs to be sure compares
    the extents when they are known.
    """
    for one, other in zip_longest(reversed(shape), reversed(into), fillvalue=1):
        if one != other and (one == 1 or (isinstance(one, int) and isinstance(other, int))):
            return True
    return False


def growth(value: ir.Value, node: ir.Node) -> str:
    """Why an elementwise node may make more elements than one of its inputs has; "" if it makes as many.

    A tensor of unknown rank stays as it is beside constants that cannot be larger: those of one element.
    """
    made = node.outputs[0]
    shape, into = extents(value), extents(made)
    if shape is not None and into is not None:
        return f"{value.name} {show(shape)} is broadcast to {show(into)} by {node.name}" if grows(shape, into) else ""
    others = [one for one in node.inputs if one is not None and one is not value]
    if all(scalar_value(one) is not None for one in others):
        return ""
    return f"the shape of {(value if shape is None else made).name} is unknown"


def channel_constant(value: ir.Value, made: ir.Value, axis: int) -> str:
    """Why a stored tensor is not one number, or one for each channel, of what it is combined with; "" if it is.

    Args:
        axis: where the channels of ``made`` are, counted from the end (negative).
    """
    tensor = constant(value)
    assert tensor is not None, "the pattern asks for a stored tensor"
    shape = tuple(int(extent) for extent in tensor.shape.numpy())
    if math.prod(shape) == 1:
        return ""
    whole = extents(made)
    rank = len(whole) if whole is not None else len(shape)
    if len(shape) > rank:
        return f"{value.name} has shape {show(shape)}, more axes than {made.name}"
    if len(shape) < -axis or any(extent != 1 for at, extent in enumerate(shape) if at != len(shape) + axis):
        return f"{value.name} has shape {show(shape)}; only one number, or one for each channel, fuses"
    if whole is not None and whole[axis] == 1:
        return f"{made.name} {show(whole)} is broadcast by {value.name} {show(shape)}"
    return ""


def reduced_axes(node: ir.Node) -> tuple[int, ...] | None:
    """Axes that a reduction, a softmax or a pooling over everything works on, from 0 where the rank is known; () for all; None if computed."""
    if "axis" in node.attributes:
        axes: tuple[int, ...] = (node.attributes.get_int("axis", -1),)
    elif "axes" in node.attributes:
        axes = tuple(node.attributes.get_ints("axes", ()))
    elif len(node.inputs) > 1 and node.inputs[1] is not None:
        tensor = constant(node.inputs[1])
        if tensor is None:
            return None
        axes = tuple(int(axis) for axis in tensor.numpy().reshape(-1))
    else:
        axes = ()
    shape = extents(node.inputs[0])
    return tuple(sorted(axes if shape is None else (axis % max(len(shape), 1) for axis in axes)))
