"""A model's message without its weights, for whoever makes a graph of it: each large tensor becomes a place to put something.

Parsing a whole ONNX file keeps every byte of it in memory as long as one tensor of it lives (protobuf frees messages, not fields), and
reading a tensor copies it again. Graphs are made of the outline instead, and each large tensor reads its own bytes when asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from probe.model.elements import element_name, type_name
from probe.model.wire import Payload, payload_of, read_outline, refill
from probe.precision import NUMPY_NATIVE

if TYPE_CHECKING:
    from probe.model.model import Model

_RAW_DATA = 9  # field of TensorProto
_PLACE = "probe.place"


def with_places(model: Model) -> tuple[onnx.ModelProto, dict[str, onnx.TensorProto]]:
    """A model's message, in which tensors whose data lies in the model's file claim external data at a location that is no file; and what
    they were, by that location. Values that are maps have no type in it: no graph has one for them.

    Raises:
        InputError: the file was changed since it was loaded.
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
    return proto, places


def read_place(tensor: onnx.TensorProto, model: Model) -> np.ndarray[Any, Any] | onnx.TensorProto:
    """What was taken out of a message: an array of its own, or the whole tensor where its data is no plain array.

    Raises:
        InputError: the file was changed since it was loaded.
    """
    payload, name = payload_of(tensor), element_name(tensor.data_type)
    assert isinstance(payload, Payload)
    with model.data() as view:
        if payload.field != _RAW_DATA or name not in NUMPY_NATIVE:
            return refill(tensor, view)
        flat = np.frombuffer(view[payload.offset : payload.offset + payload.length], np.dtype(name))
        # Copied: a file that is cut while it is mapped would take the process down.
        return flat.reshape(tuple(tensor.dims)).copy()


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
