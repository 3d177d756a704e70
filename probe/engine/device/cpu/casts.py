"""Rounding as ONNX nodes, at any opset from 7.

An FP32 -> Cast -> Cast pair rounds exactly as storing in the low type would, and ONNX Runtime honours it at every optimisation level.
bfloat16 exists from opset 13 only, TF32 never; there the upper bits are split off by arithmetic (Veltkamp): with c = 2^s + 1, ``xc - (xc - x)``
is x rounded to nearest even, s bits shorter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

BF16_OPSET = 13
_CLIP_TENSORS_OPSET = 11
_FLOAT_MAX = float(np.finfo(np.float32).max)
_DOWN, _UP = 2.0**-18, 2.0**18
_TF32_BOUND = 2.0**100
make = onnx.helper.make_node


def constant_node(name: str, value: np.generic) -> onnx.NodeProto:
    """A Constant that every opset knows."""
    return make("Constant", [], [name], value=onnx.numpy_helper.from_array(np.asarray(value)))


Body = Callable[[str], list[onnx.NodeProto]]  # nodes that make the tensor of a given name


def if_node(flag: str, target: str, then: Body, otherwise: Body, fresh: Callable[[], str]) -> onnx.NodeProto:
    """``target`` made by one of two bodies, as the scalar ``flag`` says. Only that one runs."""
    node = make("If", [flag], [target])
    for attribute, body in (("then_branch", then), ("else_branch", otherwise)):
        result = fresh()
        graph = onnx.GraphProto(name=attribute, node=body(result), output=[onnx.ValueInfoProto(name=result)])
        node.attribute.append(onnx.helper.make_attribute(attribute, graph))
    return node


def rounding_nodes(
    name: str, target: str, element: int, precision: str, opset: int, fresh: Callable[[], str]
) -> list[onnx.NodeProto]:
    """Nodes that round the tensor ``name`` (float32 or float64) to ``precision`` and widen it again.

    Args:
        element: ONNX type number of the tensor.
        fresh: gives a new name at each call.
    """
    if precision == "tf32":
        return _tf32_nodes(name, target, element, opset, fresh)
    if precision == "bf16" and opset < BF16_OPSET:
        return _bf16_nodes(name, target, element, opset, fresh)
    low = fresh()
    stored = onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.BFLOAT16
    return [make("Cast", [name], [low], to=stored), make("Cast", [low], [target], to=element)]


def _bf16_nodes(name: str, target: str, element: int, opset: int, fresh: Callable[[], str]) -> list[onnx.NodeProto]:
    """Scaled down before splitting, so that the product stays finite: what rounds beyond the largest number becomes Inf on the way back, as
    it must. Exact above 2^-100 (all patterns tried); below, scaling loses bits of numbers around 1e-31."""
    number = _numbers(element)
    near, small, split, down, up = fresh(), fresh(), fresh(), fresh(), fresh()
    return [
        *_clip(name, near, _FLOAT_MAX, opset, number, fresh),
        *number(down, _DOWN),
        *number(up, _UP),
        make("Mul", [near, down], [small]),
        *_split(small, split, 16, number, fresh),
        make("Mul", [split, up], [target]),
    ]


def _tf32_nodes(name: str, target: str, element: int, opset: int, fresh: Callable[[], str]) -> list[onnx.NodeProto]:
    """TF32 has FP32's exponent and must not overflow. What lies beyond 2^100 - masks, Inf - is split off before and added again, not rounded to TF32's bits;
    below the smallest normal number bits are kept that TF32 would drop (1e-41 and less)."""
    number = _numbers(element)
    near, far, split = fresh(), fresh(), fresh()
    return [
        *_clip(name, near, _TF32_BOUND, opset, number, fresh),
        make("Sub", [name, near], [far]),
        *_split(near, split, 13, number, fresh),
        make("Add", [split, far], [target]),
    ]


Number = Callable[[str, float], list[onnx.NodeProto]]


def _numbers(element: int) -> Number:
    dtype: Any = np.float64 if element == onnx.TensorProto.DOUBLE else np.float32
    return lambda name, value: [constant_node(name, dtype(value))]


def _split(name: str, target: str, bits: int, number: Number, fresh: Callable[[], str]) -> list[onnx.NodeProto]:
    """``name`` without its last ``bits`` bits of mantissa, rounded to nearest even."""
    factor, product, rest = fresh(), fresh(), fresh()
    return [
        *number(factor, 2.0**bits + 1),
        make("Mul", [name, factor], [product]),
        make("Sub", [product, name], [rest]),
        make("Sub", [product, rest], [target]),
    ]


def _clip(
    name: str, target: str, bound: float, opset: int, number: Number, fresh: Callable[[], str]
) -> list[onnx.NodeProto]:
    if opset < _CLIP_TENSORS_OPSET:
        return [make("Clip", [name], [target], min=-bound, max=bound)]
    low, high = fresh(), fresh()
    return [*number(low, -bound), *number(high, bound), make("Clip", [name, low, high], [target])]
