"""The onnx-ir graph of a model whose weights stay in the file until somebody asks for their values.

Parsing a whole ONNX file keeps every byte of it in memory as long as one tensor of it lives (protobuf frees messages, not fields), and
reading a tensor copies it again. Here the graph is built from the outline, and each large tensor reads its own bytes when asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir import external_data, serde

from probe.errors import InputError
from probe.model.elements import element_name, type_name
from probe.model.wire import Payload, payload_of, read_outline, refill
from probe.precision import NUMPY_NATIVE

if TYPE_CHECKING:
    from probe.model.model import Model

_RAW_DATA = 9  # field of TensorProto
_PLACE = "probe.place"


def build_ir(model: Model) -> ir.Model:
    """A new ``onnx_ir.Model`` that the caller may change. Values that are maps have no type in it: onnx-ir knows none.

    Raises:
        InputError: onnx-ir cannot represent the model, or the file was changed since it was loaded.
    """
    proto = onnx.ModelProto()
    with model.data() as view:
        proto.ParseFromString(read_outline(view))
    _drop_map_types(proto.graph)
    places: dict[str, onnx.TensorProto] = {}
    for tensor in tensors_of(proto):
        if payload_of(tensor) is not None:
            name = f"{_PLACE}.{len(places)}"
            places[name] = type(tensor)()
            places[name].CopyFrom(tensor)
            del tensor.external_data[:]
            tensor.external_data.add(key="location", value=name)
    try:
        built = ir.from_proto(proto)
        _put_back(built, places, model)
        for graph in built.graphs():
            external_data.set_base_dir(graph, model.base_dir)
    except (serde.SerdeError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"onnx-ir cannot read the model: {error}", where=str(model.path)) from None
    return built


def _put_back(built: ir.Model, places: dict[str, onnx.TensorProto], model: Model) -> None:
    def lazy(tensor: Any) -> ir.TensorProtocol | None:
        if isinstance(tensor, ir.ExternalTensor) and str(tensor.location) in places:
            return _lazy(places[str(tensor.location)], model)
        return None

    for holder in (built.graph, *built.functions.values()):
        graphs = (holder, *holder.subgraphs()) if isinstance(holder, ir.Graph) else (holder.graph, *holder.subgraphs())
        for graph in graphs:
            for value in graph.initializers.values():
                if (found := lazy(value.const_value)) is not None:
                    value.const_value = found
        for node in holder.all_nodes():
            for name, attribute in list(node.attributes.items()):
                if attribute.is_ref():
                    continue
                if attribute.type == ir.AttributeType.TENSOR and (found := lazy(attribute.value)) is not None:
                    node.attributes[name] = ir.AttrTensor(name, found)
                elif attribute.type == ir.AttributeType.TENSORS:
                    some = [lazy(one) or one for one in attribute.as_tensors()]
                    node.attributes[name] = ir.AttrTensors(name, some)


def _lazy(tensor: onnx.TensorProto, model: Model) -> ir.LazyTensor:
    payload = payload_of(tensor)
    assert payload is not None
    dtype = ir.DataType(tensor.data_type)
    read = _reader(tensor, payload, model)
    return ir.LazyTensor(read, dtype=dtype, shape=ir.Shape(tensor.dims), name=tensor.name)


def _reader(tensor: onnx.TensorProto, payload: Payload, model: Model) -> Callable[[], ir.TensorProtocol]:
    name = element_name(tensor.data_type)

    def read_array() -> ir.TensorProtocol:
        with model.data() as view:
            flat = np.frombuffer(view[payload.offset : payload.offset + payload.length], np.dtype(name))
            # Copied: a file that is cut while it is mapped would take the process down.
            return ir.Tensor(flat.reshape(tuple(tensor.dims)).copy(), name=tensor.name)

    def read_any() -> ir.TensorProtocol:
        with model.data() as view:
            return serde.deserialize_tensor(refill(tensor, view))

    return read_array if payload.field == _RAW_DATA and name in NUMPY_NATIVE else read_any


def tensors_of(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor of a model: the initialisers of its graph first, then attributes, in bodies and functions too."""
    yield from _tensors_of_graph(proto.graph)
    for function in proto.functions:
        for node in function.node:
            yield from _tensors_of_node(node)
        for attribute in function.attribute_proto:
            yield from _tensors_of_attribute(attribute)


def _tensors_of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _tensors_of_node(node)


def _tensors_of_node(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        yield from _tensors_of_attribute(attribute)


def _tensors_of_attribute(attribute: onnx.AttributeProto) -> Iterator[onnx.TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    for sparse in (
        *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
        *attribute.sparse_tensors,
    ):
        yield from (sparse.values, sparse.indices)
    for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
        yield from _tensors_of_graph(graph)


def _drop_map_types(graph: onnx.GraphProto) -> None:
    for values in (graph.input, graph.output, graph.value_info):
        for value in values:
            if "map(" in type_name(value.type):
                value.ClearField("type")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _drop_map_types(attribute.g)
