"""What ONNX's operator schemas say of types: which inputs and outputs of a node may be FP16 or BF16 at the model's opset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import onnx
import onnx_ir as ir

from probe.model.movement import STANDARD, is_standard, parameters

FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE)
_TYPE_NAMES = {ir.DataType.FLOAT16: "tensor(float16)", ir.DataType.BFLOAT16: "tensor(bfloat16)"}

# Operators whose first output has the type that an attribute names.
TYPE_ATTRIBUTES = {
    "Cast": "to", "ConstantOfShape": "value", "RandomNormal": "dtype", "RandomUniform": "dtype", "RandomNormalLike": "dtype",
    "RandomUniformLike": "dtype", "EyeLike": "dtype", "Bernoulli": "dtype", "HannWindow": "output_datatype",
    "HammingWindow": "output_datatype", "BlackmanWindow": "output_datatype", "MelWeightMatrix": "output_datatype",
}  # fmt: skip
# Outputs whose type an attribute fixes that says something else, too: the precision LayerNormalization computes statistics in.
_FIXED_OUTPUTS = {"LayerNormalization": (1, 2)}
# What stays although its schema knows low types.
_STAYS = {
    ("", "QuantizeLinear"): "quantisation scales stay FP32",  # and have the data's type
    ("", "DequantizeLinear"): "quantisation scales stay FP32",
    ("", "MeanVarianceNormalization"): "MeanVarianceNormalization is a function with constants in FP32",
    ("", "BitCast"): "BitCast uses the bits of FP32 numbers",
    ("ai.onnx.ml", "TreeEnsemble"): "TreeEnsemble compares with thresholds that are attributes, of its input's type",
}


@dataclass(frozen=True, slots=True)
class Ports:
    """Which float inputs (data only) and outputs of a node may have the low type. ``reason`` says why none may; "" if some may."""

    inputs: tuple[bool, ...]
    outputs: tuple[bool, ...]
    reason: str = ""


def is_float(value: ir.Value | None) -> bool:
    """Whether a value is a float32 or float64 tensor: what a conversion may store otherwise."""
    return value is not None and isinstance(value.type, ir.TensorType) and value.type.dtype in FLOATS


def low_ports(node: ir.Node, low: ir.DataType, opsets: Mapping[str, int]) -> Ports:
    """Where a node can take and make tensors of type ``low``, by the type constraints of its schema."""
    domain = "" if is_standard(node) else node.domain
    version = opsets.get(domain, 0)
    schema = _schema(node.op_type, version, domain)
    nothing = (False,) * len(node.inputs), (False,) * len(node.outputs)
    if schema is None:
        return Ports(*nothing, f"no schema is known of {node.domain or 'ai.onnx'}.{node.op_type}")
    if (domain, node.op_type) in _STAYS:
        return Ports(*nothing, _STAYS[domain, node.op_type])
    allowed = _allowed(schema, _TYPE_NAMES[low])
    spared = parameters(node)
    fixed = _FIXED_OUTPUTS.get(node.op_type, ()) if domain == "" else ()
    inputs = tuple(
        is_float(value) and at not in spared and allowed.get(_type_of(schema.inputs, at), False)
        for at, value in enumerate(node.inputs)
    )
    outputs = tuple(
        is_float(value) and at not in fixed and allowed.get(_type_of(schema.outputs, at), False)
        for at, value in enumerate(node.outputs)
    )
    if any(inputs) or any(outputs):
        return Ports(inputs, outputs)
    since = _first_with(node.op_type, domain, low, version)
    hint = f"; it has from opset {since}" if since else ""
    name = _TYPE_NAMES[low].removeprefix("tensor(").rstrip(")")
    return Ports(inputs, outputs, f"{node.op_type} has no {name} in opset {version}{hint}")


@cache
def _schema(op: str, version: int, domain: str) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op, version, domain)
    except onnx.defs.SchemaError:
        return None


def _allowed(schema: onnx.defs.OpSchema, type_name: str) -> dict[str, bool]:
    """Type variable, or type spelt out -> whether it may be ``type_name``."""
    found = {one.type_param_str: type_name in one.allowed_type_strs for one in schema.type_constraints}
    found[type_name] = True
    return found


def _type_of(formal: Sequence[onnx.defs.OpSchema.FormalParameter], position: int) -> str:
    """Type variable of a position; the last parameter of a variadic operator stands for all that follow."""
    return formal[min(position, len(formal) - 1)].type_str if formal else ""


@cache
def _first_with(op: str, domain: str, low: ir.DataType, after: int) -> int:
    """The first opset above ``after`` in which an operator takes the type anywhere; 0 for none."""
    if domain not in STANDARD:
        return 0
    for version in range(after + 1, onnx.defs.onnx_opset_version() + 1):
        schema = _schema(op, version, domain)
        if (
            schema is not None
            and schema.since_version == version
            and any(_allowed(schema, _TYPE_NAMES[low]).get(one.type_str) for one in (*schema.inputs, *schema.outputs))
        ):
            return version
    return 0
