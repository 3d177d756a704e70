"""Graphs and what they are made of as ONNX messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from probe.ir.attributes import Attr
from probe.ir.graph import Graph, Model, Node, Value
from probe.ir.tensors import ExternalTensor, MessageTensor, Tensor, strings_of
from probe.ir.types import AttributeType, DataType, OptionalType, SequenceType, Shape, SparseTensorType, Type


def model_proto(model: Model) -> onnx.ModelProto:
    """A model, constants included; external ones stay where they are."""
    proto = onnx.ModelProto(ir_version=model.ir_version)
    for domain, version in model.opset_imports.items():
        proto.opset_import.append(onnx.helper.make_opsetid(domain, version))
    _write_graph(proto.graph, model.graph)
    return proto


def node_proto(node: Node) -> onnx.NodeProto:
    """A node with its bodies. Outputs left out at the end are not written."""
    proto = onnx.NodeProto()
    _write_node(proto, node)
    return proto


def attribute_proto(attribute: Attr) -> onnx.AttributeProto:
    """An attribute.

    Raises:
        TypeError: of a type that cannot be written.
    """
    proto = onnx.AttributeProto()
    _write_attribute(proto, attribute)
    return proto


def value_proto(value: Value) -> onnx.ValueInfoProto:
    """Name, type and shape of a value, as far as they are known."""
    proto = onnx.ValueInfoProto(name=value.name or "")
    if value.type is not None:
        proto.type.CopyFrom(type_proto(value.type, value.shape))
    return proto


def type_proto(kind: Type, shape: Shape | None = None) -> onnx.TypeProto:
    """A type; the shape is that of the tensors inside it."""
    proto = onnx.TypeProto()
    if kind.denotation:
        proto.denotation = kind.denotation
    if isinstance(kind, (SequenceType, OptionalType)):
        told = proto.sequence_type if isinstance(kind, SequenceType) else proto.optional_type
        told.elem_type.CopyFrom(type_proto(kind.elem_type, shape))
        return proto
    told = proto.sparse_tensor_type if isinstance(kind, SparseTensorType) else proto.tensor_type
    told.elem_type = int(kind.dtype)
    if shape is not None:
        told.shape.SetInParent()  # a scalar's is empty, and known
        for extent in shape:
            dim = told.shape.dim.add()
            if isinstance(extent, int):
                dim.dim_value = extent
            elif extent.value is not None:
                dim.dim_param = extent.value
    return proto


def tensor_proto(tensor: Tensor) -> onnx.TensorProto:
    """A constant; an external one stays where it is."""
    proto = onnx.TensorProto()
    if isinstance(tensor, MessageTensor):
        proto.CopyFrom(tensor.proto)
    else:
        proto.data_type = int(tensor.dtype)
        proto.dims.extend(tensor.shape.numpy())
        if isinstance(tensor, ExternalTensor):
            proto.data_location = onnx.TensorProto.EXTERNAL
            told = {"location": tensor.location, "offset": tensor.offset, "length": tensor.length}
            for key, value in told.items():
                if value is not None:
                    proto.external_data.add(key=key, value=str(value))
        elif tensor.dtype is DataType.STRING:
            proto.string_data.extend(strings_of(tensor))
        else:
            proto.raw_data = tensor.tobytes()
    if tensor.name:
        proto.name = tensor.name
    return proto


def _write_graph(proto: onnx.GraphProto, graph: Graph) -> None:
    proto.name = graph.name or ""
    proto.input.extend(map(value_proto, graph.inputs))
    for value in graph.initializers.values():
        if not value.is_graph_input() and value.type is not None:
            proto.value_info.append(value_proto(value))
        if value.const_value is not None:
            stored = tensor_proto(value.const_value)
            stored.name = value.name or ""
            proto.initializer.append(stored)
    for node in graph:
        _write_node(proto.node.add(), node)
        for value in node.outputs:
            if value.name and value.type is not None and not value.is_graph_output():
                proto.value_info.append(value_proto(value))
    proto.output.extend(map(value_proto, graph.outputs))


def _write_node(proto: onnx.NodeProto, node: Node) -> None:
    proto.op_type = node.op_type
    if node.domain:
        proto.domain = node.domain
    if node.name:
        proto.name = node.name
    if node.overload:
        proto.overload = node.overload
    proto.input.extend("" if value is None else value.name or "" for value in node.inputs)
    made: Sequence[Value] = node.outputs
    while made and not made[-1].name:
        made = made[:-1]
    proto.output.extend(value.name or "" for value in made)
    for attribute in node.attributes.values():
        _write_attribute(proto.attribute.add(), attribute)
    for key, value in node.metadata_props.items():
        proto.metadata_props.add(key=key, value=value)


def _write_attribute(proto: onnx.AttributeProto, attribute: Attr) -> None:
    proto.name = attribute.name
    proto.type = int(attribute.type)  # type: ignore[assignment]
    if attribute.ref_attr_name is not None:
        proto.ref_attr_name = attribute.ref_attr_name
        return
    held: Any = attribute.value
    match attribute.type:
        case AttributeType.INT:
            proto.i = held
        case AttributeType.FLOAT:
            proto.f = held
        case AttributeType.STRING:
            proto.s = _bytes(held)
        case AttributeType.INTS:
            proto.ints.extend(held)
        case AttributeType.FLOATS:
            proto.floats.extend(held)
        case AttributeType.STRINGS:
            proto.strings.extend(map(_bytes, held))
        case AttributeType.TENSOR:
            proto.t.CopyFrom(tensor_proto(held))
        case AttributeType.TENSORS:
            proto.tensors.extend(map(tensor_proto, held))
        case AttributeType.GRAPH:
            _write_graph(proto.g, held)
        case AttributeType.GRAPHS:
            for graph in held:
                _write_graph(proto.graphs.add(), graph)
        case AttributeType.TYPE_PROTO:
            if held.type is not None:
                proto.tp.CopyFrom(type_proto(*held))
        case AttributeType.TYPE_PROTOS:
            proto.type_protos.extend(onnx.TypeProto() if one.type is None else type_proto(*one) for one in held)
        case _:
            raise TypeError(f"an attribute of type {attribute.type} cannot be written")


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()
