"""Operators that are graphs: local functions of a model, and those ONNX defines by others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import InputError
from probe.model.elements import DOUBLE
from probe.model.scopes import Scope, build_scopes
from probe.runners.fp64.calls import Call, Value

if TYPE_CHECKING:
    import onnx

Key = tuple[str, str, str]  # domain, name, overload


@dataclass(frozen=True, slots=True)
class Body:
    """A function with the attributes of one call filled in."""

    scope: Scope
    opsets: Mapping[str, int]


class Functions:
    """Bodies of function calls, built once for each set of attributes."""

    def __init__(self, local: Iterable[onnx.FunctionProto]) -> None:
        self._local: dict[Key, onnx.FunctionProto] = {(f.domain, f.name, f.overload): f for f in local}
        self._bodies: dict[tuple[object, ...], Body] = {}

    def local(self, node: onnx.NodeProto) -> Body | None:
        """The function of the model that a node calls; None where it calls none."""
        key = (node.domain, node.op_type, node.overload)
        if key not in self._local:
            return None
        given = {attribute.name: attribute for attribute in node.attribute}
        call = (*key, *(given[name].SerializeToString(deterministic=True) for name in sorted(given)))
        if call not in self._bodies:
            self._bodies[call] = _bind(self._local[key], given)
        return self._bodies[call]

    def of_definition(self, call: Call, values: Sequence[Value]) -> Body:
        """The function by which ONNX defines an operator, for inputs of these types.

        Raises:
            InputError: it has none for this operator-set version.
        """
        import onnx

        types = [_type_of(value) for value in values]
        key = (id(call), *(one.SerializeToString(deterministic=True) for one in types))
        if key not in self._bodies:
            proto = onnx.FunctionProto()
            proto.ParseFromString(_definition(call, types))
            given = {attribute.name: attribute for attribute in call.node.attribute}
            schema = onnx.defs.get_schema(call.op, call.version, "")
            for name, attribute in schema.attributes.items():
                if name not in given and attribute.default_value.name:
                    given[name] = attribute.default_value
            self._bodies[key] = _bind(proto, given)
        return self._bodies[key]


def _definition(call: Call, types: Sequence[onnx.TypeProto]) -> bytes:
    import onnx

    schema: Any = onnx.defs.get_schema(call.op, call.version, "")  # its bindings are not described to type checkers
    by_types = schema.has_context_dependent_function
    versions = schema.context_dependent_function_opset_versions if by_types else schema.function_opset_versions
    fitting = [version for version in versions if version <= call.version]
    if not fitting:
        raise InputError(f"ONNX defines no function for {call.op} of opset {call.version}", hint="--golden ort")
    if not by_types:
        return schema.get_function_with_opset_version(max(fitting))
    node, serialised = call.node.SerializeToString(), [one.SerializeToString() for one in types]
    return schema.get_context_dependent_function_with_opset_version(max(fitting), node, serialised)


def _type_of(value: Value) -> onnx.TypeProto:
    import onnx

    if not isinstance(value, np.ndarray):
        return onnx.TypeProto()
    element = DOUBLE if value.dtype == np.float64 else onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
    return onnx.helper.make_tensor_type_proto(element, value.shape)


def _bind(function: onnx.FunctionProto, given: Mapping[str, onnx.AttributeProto]) -> Body:
    """Its graph, with attributes that refer to the function's own replaced by their values, defaults included."""
    import onnx

    values = {attribute.name: attribute for attribute in function.attribute_proto} | dict(given)
    graph = onnx.GraphProto(name=function.name, node=function.node)
    graph.input.extend(onnx.ValueInfoProto(name=name) for name in function.input)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in function.output)
    _fill(graph, values)
    opsets = {"" if one.domain == "ai.onnx" else one.domain: one.version for one in function.opset_import}
    return Body(build_scopes(graph), opsets)


def _fill(graph: onnx.GraphProto, values: Mapping[str, onnx.AttributeProto]) -> None:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _fill(attribute.g, values)
            elif attribute.ref_attr_name in values:
                name = attribute.name
                attribute.CopyFrom(values[attribute.ref_attr_name])
                attribute.name = name
        # What refers to an attribute nobody gave has the operator's own default.
        for index in reversed([i for i, attribute in enumerate(node.attribute) if attribute.ref_attr_name]):
            del node.attribute[index]
