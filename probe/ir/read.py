"""ONNX messages as graphs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

from probe.ir.attributes import Attr, TypeAndShape
from probe.ir.graph import Graph, Model, Node, Value
from probe.ir.tensors import ExternalTensor, MessageTensor, Tensor
from probe.ir.types import (
    AttributeType,
    DataType,
    OptionalType,
    SequenceType,
    Shape,
    SparseTensorType,
    SymbolicDim,
    TensorType,
    Type,
)


class NotReadable(Exception):  # noqa: N818 - says what, not that
    """A message that has no graph: sparse tensors and maps, names that are made twice, unknown numbers."""


def read_model(proto: onnx.ModelProto, base_dir: Path = Path()) -> Model:
    """The graph of a model without functions. Constants keep parts of the message.

    Args:
        base_dir: of external data.

    Raises:
        NotReadable: see there.
    """
    reader = _Reader(base_dir)
    try:
        graph = reader.graph(proto.graph, [])
    except (ValueError, TypeError, KeyError) as error:
        raise NotReadable(str(error)) from error
    if proto.graph.sparse_initializer:
        raise NotReadable("stored sparse tensors")
    graph.opset_imports = {one.domain: one.version for one in proto.opset_import}
    return Model(graph, ir_version=proto.ir_version)


def read_node(proto: onnx.NodeProto) -> Node:
    """A node alone, whose inputs nobody makes."""
    own = {name: Value(name=name) for name in proto.output if name}
    return _Reader(Path()).node(proto, [own], own)


def read_type(proto: onnx.TypeProto) -> Type | None:
    """The type a message tells; None where it tells none.

    Raises:
        NotReadable: a map, or a sequence of nobody knows what.
    """
    which, denotation = proto.WhichOneof("value"), proto.denotation or None
    if which in ("tensor_type", "sparse_tensor_type"):
        told = proto.tensor_type if which == "tensor_type" else proto.sparse_tensor_type
        if not told.HasField("elem_type"):
            return None
        kind = TensorType if which == "tensor_type" else SparseTensorType
        return kind(DataType(told.elem_type), denotation=denotation)
    if which in ("sequence_type", "optional_type"):
        inner = read_type(getattr(proto, which).elem_type)
        if inner is None:
            raise NotReadable("a sequence or optional whose elements have no type")
        return (SequenceType if which == "sequence_type" else OptionalType)(inner, denotation=denotation)
    if which == "map_type":
        raise NotReadable("a map")
    return None


def read_shape(proto: onnx.TypeProto) -> Shape | None:
    """The shape a message tells, of what is inside for sequences and optionals; None where it tells none."""
    which = proto.WhichOneof("value")
    if which in ("sequence_type", "optional_type"):
        return read_shape(getattr(proto, which).elem_type)
    if which not in ("tensor_type", "sparse_tensor_type"):
        return None
    told = getattr(proto, which)
    return Shape([_extent(dim) for dim in told.shape.dim]) if told.HasField("shape") else None


def _extent(dim: onnx.TensorShapeProto.Dimension) -> int | SymbolicDim:
    which = dim.WhichOneof("value")
    if which == "dim_value":
        return dim.dim_value
    return SymbolicDim(dim.dim_param if which == "dim_param" else None)


def read_tensor(proto: onnx.TensorProto, base_dir: Path = Path()) -> Tensor:
    """The constant of a message, which it keeps."""
    if proto.data_location != onnx.TensorProto.EXTERNAL:
        return MessageTensor(proto)
    told = {entry.key: entry.value for entry in proto.external_data}
    begin, count = (int(told[key]) if key in told else None for key in ("offset", "length"))
    return ExternalTensor(
        told.get("location", ""), begin, count, DataType(proto.data_type), Shape(proto.dims), proto.name, base_dir
    )


class _Reader:
    def __init__(self, base_dir: Path) -> None:
        self._base_dir = base_dir

    def graph(self, proto: onnx.GraphProto, around: list[Mapping[str, Value]]) -> Graph:
        """A graph, in which names are looked up from inside to outside.

        Args:
            around: what the graphs around it define, outer first.
        """
        known = {info.name: info for info in proto.value_info}
        values: dict[str, Value] = {}
        inputs = [_describe(Value(name=info.name), info) for info in proto.input]
        values.update((value.name or "", value) for value in inputs)
        stored = [self._stored(one, values, known) for one in proto.initializer if one.name]
        for made in proto.node:  # first all of them: a body may read what stands behind it
            for name in made.output:
                if name in values:
                    raise NotReadable(f"two tensors of a graph are called {name!r}")
                if name:
                    values[name] = Value(name=name)
                    if name in known:
                        _describe(values[name], known[name])
        scopes = [*around, values]
        nodes = [self.node(one, scopes, values) for one in proto.node]
        outputs = [_describe(values.get(info.name) or Value(name=info.name), info) for info in proto.output]
        return Graph(inputs, outputs, nodes=nodes, initializers=stored, name=proto.name or None)

    def _stored(
        self, proto: onnx.TensorProto, values: dict[str, Value], known: Mapping[str, onnx.ValueInfoProto]
    ) -> Value:
        tensor = read_tensor(proto, self._base_dir)
        value = values.get(proto.name)
        if value is None:
            value = Value(name=proto.name, type=TensorType(tensor.dtype), shape=tensor.shape)
            if proto.name in known:
                _describe(value, known[proto.name])
            values[proto.name] = value
        value.const_value = tensor
        return value

    def node(self, proto: onnx.NodeProto, scopes: list[Mapping[str, Value]], own: dict[str, Value]) -> Node:
        inputs: list[Value | None] = []
        for name in proto.input:
            found = next((scope[name] for scope in reversed(scopes) if name in scope), None) if name else None
            if name and found is None:
                found = own[name] = Value(name=name)  # nobody makes it, which whoever checks the graph will say
            inputs.append(found)
        made = Node(
            proto.domain, proto.op_type, inputs, [self.attribute(one, scopes) for one in proto.attribute],
            outputs=[own[name] if name else Value(name="") for name in proto.output], name=proto.name or None,
            overload=proto.overload,
        )  # fmt: skip
        if proto.metadata_props:
            made.metadata_props = {entry.key: entry.value for entry in proto.metadata_props}
        return made

    def attribute(self, proto: onnx.AttributeProto, scopes: list[Mapping[str, Value]]) -> Attr:
        kind = AttributeType(proto.type)
        if proto.ref_attr_name:
            return Attr(proto.name, kind, None, proto.ref_attr_name)
        return Attr(proto.name, kind, self._held(proto, kind, scopes))

    def _held(self, proto: onnx.AttributeProto, kind: AttributeType, scopes: list[Mapping[str, Value]]) -> object:
        match kind:
            case AttributeType.INT:
                return proto.i
            case AttributeType.FLOAT:
                return proto.f
            case AttributeType.STRING:
                return _text(proto.s)
            case AttributeType.INTS:
                return tuple(proto.ints)
            case AttributeType.FLOATS:
                return tuple(proto.floats)
            case AttributeType.STRINGS:
                return tuple(_text(one) for one in proto.strings)
            case AttributeType.TENSOR:
                return read_tensor(proto.t, self._base_dir)
            case AttributeType.TENSORS:
                return tuple(read_tensor(one, self._base_dir) for one in proto.tensors)
            case AttributeType.GRAPH:
                return self.graph(proto.g, scopes)
            case AttributeType.GRAPHS:
                return tuple(self.graph(one, scopes) for one in proto.graphs)
            case AttributeType.TYPE_PROTO:
                return _type_and_shape(proto.tp)
            case AttributeType.TYPE_PROTOS:
                return tuple(map(_type_and_shape, proto.type_protos))
            case AttributeType.UNDEFINED:
                return None
        raise NotReadable(f"the attribute {proto.name!r} is of type {kind}")


def _text(held: bytes) -> str | bytes:
    try:
        return held.decode()
    except UnicodeDecodeError:  # custom operators keep data there
        return held


def _type_and_shape(proto: onnx.TypeProto) -> TypeAndShape:
    return TypeAndShape(read_type(proto), read_shape(proto))


def _describe(value: Value, info: onnx.ValueInfoProto) -> Value:
    value.type, value.shape = read_type(info.type), read_shape(info.type)
    return value
