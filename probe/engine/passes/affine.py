"""What is to be folded: nodes that compute scale * x + shift with constants, uniform or one a channel. All in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from probe import ir
from probe.engine.passes.reading import integer, is_op, real
from probe.engine.passes.weights import FLOATS, exact

Array = np.ndarray[Any, Any]

SCALES = ("Mul", "Div", "Add", "Sub")
BATCH_NORM = ("BatchNormalization",)


@dataclass(frozen=True, slots=True)
class Affine:
    """y = scale * x + shift.

    Attributes:
        scale: [channels], float64.
        shift: [channels], float64.
        shifts: False where shift is 0 because nothing is added, whatever its sign.
    """

    scale: Array
    shift: Array
    shifts: bool


def affine(node: ir.Node, x: ir.Value, axis: int, channels: int, rank: int) -> Affine | None:
    """What a node does to ``x`` [.., channels, ..] of ``rank`` dimensions with the channels at ``axis``; None if that is not of this
    form or changes the shape."""
    if is_op(node, *BATCH_NORM):
        return _batch_norm(node, x, axis, channels, rank)
    if not is_op(node, *SCALES) or len(node.inputs) != 2 or node.inputs[0] is node.inputs[1]:
        return None
    at = 0 if node.inputs[0] is x else 1
    if node.inputs[at] is not x:
        return None
    constant = _per_channel(node.inputs[1 - at], axis, channels, rank)
    if constant is None:
        return None
    zero, one = np.zeros(channels), np.ones(channels)
    if node.op_type == "Mul":
        return Affine(constant, zero, shifts=False)
    if node.op_type == "Div":  # constant / x is not linear
        return Affine(1 / constant, zero, shifts=False) if at == 0 and constant.all() else None
    if node.op_type == "Add":
        return Affine(one, constant, shifts=True)
    return Affine(one, -constant, shifts=True) if at == 0 else Affine(-one, constant, shifts=True)


def _per_channel(value: ir.Value | None, axis: int, channels: int, rank: int) -> Array | None:
    """A constant that broadcasts along every axis but the channels', as [channels]."""
    values = exact(value)
    if value is None or values is None or value.dtype not in FLOATS or values.ndim > rank or values.size == 0:
        return None
    shape = (1,) * (rank - values.ndim) + values.shape
    if any(size != 1 for at, size in enumerate(shape) if at != axis) or shape[axis] not in (1, channels):
        return None
    return np.broadcast_to(values.reshape(-1), (channels,))


def _batch_norm(node: ir.Node, x: ir.Value, axis: int, channels: int, rank: int) -> Affine | None:
    """Inference: y = (x - mean) / sqrt(variance + epsilon) * scale + bias, over axis 1."""
    if axis != 1 or rank < 2 or node.inputs[0] is not x or len(node.inputs) != 5:
        return None
    if (
        integer(node, "training_mode", 0)
        or not integer(node, "spatial", 1)
        or any(v.uses() or v.is_graph_output() for v in node.outputs[1:])
    ):
        return None
    parameters = [exact(value) for value in node.inputs[1:]]
    if any(values is None or values.shape != (channels,) for values in parameters):
        return None
    scale, bias, mean, variance = parameters
    assert scale is not None and bias is not None and mean is not None and variance is not None
    spread = variance + real(node, "epsilon", 1e-5)
    if not (spread > 0).all():
        return None
    factor = scale / np.sqrt(spread)
    return Affine(factor, bias - mean * factor, shifts=True)
