"""Products of uint8 and int8 written as uint8 and uint8: the same integers, which ONNX Runtime computes exactly on every processor.

(b - zero) = (b + 128) - (zero + 128), and b + 128 is uint8. Done on all processors, so that all run the same graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from probe import ir
from probe.engine.device.cpu.casts import constant_node, make
from probe.ort.saturation import mixed_factors

SHIFTED = "uint8"  # in the place of a precision: an int8 weight, 128 added
_HALF = 128


def shifted(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """int8 as uint8, 128 added."""
    return np.asarray(array.view(np.uint8) ^ np.uint8(_HALF))


def write_unsigned(
    node: ir.Node, proto: onnx.NodeProto, fresh: Callable[[], str], weight: Callable[[ir.Value], str] | None = None
) -> list[onnx.NodeProto]:
    """Make ``proto``, a copy of ``node``, read uint8 where it would multiply uint8 by int8; the nodes that it then needs before it.

    Args:
        weight: names an initialiser in its shifted form; None where weights are fed like everything else.
    """
    factors = mixed_factors(node.domain, node.op_type, lambda at: _element(node, at))
    if factors is None or factors.zero is None:
        return []
    made: list[onnx.NodeProto] = []
    proto.input.extend([""] * (factors.zero + 1 - len(proto.input)))
    for at in (factors.right, factors.zero):
        value = node.inputs[at] if at < len(node.inputs) else None
        if value is not None and value.is_initializer() and weight is not None:
            proto.input[at] = weight(value)
            continue
        name, proto.input[at] = proto.input[at], fresh()
        if value is None:
            made.append(constant_node(proto.input[at], np.uint8(_HALF)))
            continue
        half, wide, total = fresh(), fresh(), fresh()
        made += [
            constant_node(half, np.int32(_HALF)),
            make("Cast", [name], [wide], to=onnx.TensorProto.INT32),
            make("Add", [wide, half], [total]),
            make("Cast", [total], [proto.input[at]], to=onnx.TensorProto.UINT8),
        ]
    return made


def _element(node: ir.Node, at: int) -> int | None:
    value = node.inputs[at] if at < len(node.inputs) else None
    if value is None:
        return None
    if value.dtype is None and value.const_value is not None:
        return int(value.const_value.dtype)
    return int(value.dtype) if value.dtype is not None else None
