"""The network of a saved engine: the graph that layers were formed of, as an ONNX model whose large weights are sections of the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx

from probe import ir
from probe.engine.network import Fate, Network, bodies_of, set_origin
from probe.engine.saved.original import refer, referred
from probe.errors import InputError
from probe.precision import NUMPY_NATIVE

if TYPE_CHECKING:
    from probe.engine.saved.container import Writer
    from probe.model.model import Model

_LARGE = 8192  # bytes; smaller weights are kept in the graph, as those of the model are


def write_network(network: Network, writer: Writer) -> None:
    """Write a network: its large weights, and all else as the section ``network``.

    Raises:
        InputError: the graph cannot be written, or the engine cannot be written.
    """
    built, graph = network.ir, network.graph
    proto = onnx.ModelProto(ir_version=built.ir_version, producer_name="probe")
    for domain, version in built.opset_imports.items():
        proto.opset_import.append(onnx.helper.make_opsetid(domain, version))
    proto.graph.name = graph.name or "network"
    try:
        for values, protos in ((graph.inputs, proto.graph.input), (graph.outputs, proto.graph.output)):
            protos.extend(ir.value_proto(value) for value in values)
        for value in graph.initializers.values():
            _write_weight(value, proto.graph.initializer.add(), writer)
        ends = {value.name for value in (*graph.inputs, *graph.outputs)}
        inner = (*graph.initializers.values(), *(value for node in graph for value in node.outputs))
        proto.graph.value_info.extend(
            ir.value_proto(value)
            for value in inner
            if value.name and value.name not in ends and (value.type is not None or value.shape is not None)
        )
        for node in graph:
            made = ir.node_proto(node)
            _all_outputs(made, node)
            proto.graph.node.append(made)
    except (TypeError, ValueError) as error:
        raise InputError(f"the network cannot be written: {error}", where=str(network.model.path)) from error
    writer.section("network", proto.SerializeToString(deterministic=True))


def _write_weight(value: ir.Value, proto: onnx.TensorProto, writer: Writer) -> None:
    tensor = value.const_value
    assert tensor is not None, f"the initialiser {value.name!r} has no value"
    if tensor.dtype == ir.DataType.STRING or tensor.nbytes <= _LARGE:
        # What lies in another file is read in: the engine is one file.
        inside = ir.tensor(tensor.numpy()) if isinstance(tensor, ir.ExternalTensor) else tensor
        proto.CopyFrom(ir.tensor_proto(inside))
    else:
        try:
            section = writer.weight(_raw(tensor))
        except OSError as error:
            raise InputError(f"cannot read a weight: {error}", where=f"weight {value.name}") from error
        proto.data_type = int(tensor.dtype)
        proto.dims.extend(tensor.shape.numpy())
        refer(proto, section)
    proto.name = value.name or ""


def _raw(tensor: ir.Tensor) -> bytes | memoryview:
    """A tensor's data, little-endian; not copied where it is an array."""
    if _numpy_name(tensor.dtype) not in NUMPY_NATIVE:
        return tensor.tobytes()
    array = np.ascontiguousarray(tensor.numpy())
    return array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data


def _numpy_name(dtype: ir.DataType) -> str:
    name = dtype.name.lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _all_outputs(proto: onnx.NodeProto, node: ir.Node) -> None:
    """Put back the unnamed outputs at a node's end, which are not written; in bodies, too."""
    proto.output.extend([""] * (len(node.outputs) - len(proto.output)))
    bodies = (one for a in proto.attribute for one in ([a.g] if a.HasField("g") else a.graphs))
    for written, body in zip(bodies, bodies_of(node).values(), strict=True):
        for inner, own in zip(written.node, body, strict=True):
            _all_outputs(inner, own)


def read_graph(
    content: memoryview,
    weights: Mapping[str, memoryview],
    model: Model,
    origins: Sequence[Sequence[str]],
    fates: Mapping[str, Fate],
) -> Network:
    """The network that ``write_network`` wrote. Large weights are views of the file, not copies.

    Args:
        weights: sections of the file.
        model: as the network's inputs and outputs are.
        origins: of the nodes of all graphs, in their order.

    Raises:
        Exception: of any kind, where it is not what ``write_network`` wrote.
    """
    proto = onnx.ModelProto()
    proto.ParseFromString(bytes(content))
    stored = {}
    for tensor in proto.graph.initializer:
        section = referred(tensor)
        if section is not None:
            stored[tensor.name] = (weights[section], tensor)
    built = ir.read_model(proto)
    for name, (data, tensor) in stored.items():
        built.graph.initializers[name].const_value = _tensor(data, tensor)
    network = Network(built, model, dict(fates))
    nodes = nodes_of(network)
    for node, origin in zip(nodes, origins, strict=True):
        set_origin(node, *origin)
    return network


def nodes_of(network: Network) -> list[ir.Node]:
    """All nodes: graph by graph, a body after the graphs around it."""
    return [node for graph in network.graphs() for node in graph]


def _tensor(data: memoryview, proto: onnx.TensorProto) -> ir.Tensor:
    dtype = ir.DataType(proto.data_type)
    if _numpy_name(dtype) in NUMPY_NATIVE:
        array = np.frombuffer(data, np.dtype(_numpy_name(dtype)).newbyteorder("<")).reshape(tuple(proto.dims))
        return ir.ArrayTensor(array, dtype, name=proto.name)
    whole = onnx.TensorProto(name=proto.name, data_type=proto.data_type, dims=proto.dims, raw_data=bytes(data))
    return ir.read_tensor(whole)
