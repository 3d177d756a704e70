"""The graph of a model as its file has it, local functions in place of their calls; weights stay in the file until somebody asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from probe import ir
from probe.errors import InputError
from probe.model.outline import read_place, with_places

if TYPE_CHECKING:
    import onnx

    from probe.model.model import Model

OF_FILE = (
    "probe.file"  # a note that nodes of the file's graph have in models with functions; those of functions have none
)


def read_graph(model: Model) -> ir.Model:
    """A new graph that the caller may change.

    Raises:
        InputError: no graph can be made of the model, or the file was changed since it was loaded.
    """
    proto, places = with_places(model)
    try:
        if proto.functions:
            proto = _inlined(proto)
        built = ir.read_model(proto, model.base_dir)
    except (ir.NotReadable, ValueError, TypeError, KeyError) as error:
        raise InputError(f"no graph can be made of the model: {error}", where=str(model.path)) from error
    for graph in _graphs(built.graph):
        for value in graph.initializers.values():
            value.const_value = _lazy(value.const_value, places, model)
        for node in graph:
            for name, held in list(node.attributes.items()):
                if held.type == ir.AttributeType.TENSOR and not held.is_ref():
                    found = _lazy(held.value, places, model)
                elif held.type == ir.AttributeType.TENSORS and not held.is_ref():
                    found = tuple(_lazy(one, places, model) for one in held.value)
                else:
                    continue
                node.attributes[name] = ir.Attr(name, held.type, found)
    return built


def _graphs(graph: ir.Graph) -> Iterator[ir.Graph]:
    yield graph
    for node in graph:
        for body in ir.bodies_of(node).values():
            yield from _graphs(body)


def _lazy(tensor: ir.Tensor | None, places: dict[str, onnx.TensorProto], model: Model) -> ir.Tensor | None:
    """What stands for a tensor that was left in the file; any other one as it is."""
    if not isinstance(tensor, ir.ExternalTensor) or tensor.location not in places:
        return tensor
    proto = places[tensor.location]

    def read() -> ir.Tensor:
        found = read_place(proto, model)
        return ir.ArrayTensor(found, name=proto.name) if isinstance(found, np.ndarray) else ir.read_tensor(found)

    return ir.LazyTensor(read, ir.DataType(proto.data_type), ir.Shape(proto.dims), proto.name)


def _inlined(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the bodies of its functions in place of their calls, types inferred anew; by onnx-ir, which takes its time."""
    import onnx_ir
    from onnx_ir.passes.common import InlinePass, ShapeInferencePass

    try:
        built = onnx_ir.from_proto(proto)
        for graph in built.graphs():
            for node in graph:
                if node.op_identifier() not in built.functions:
                    node.metadata_props[OF_FILE] = "1"
        for function in built.functions.values():
            for node in function.all_nodes():
                node.metadata_props.pop(OF_FILE, None)
        inlined = ShapeInferencePass(check_type=False, strict_mode=False)(InlinePass()(built).model).model
        return onnx_ir.to_proto(inlined)
    except (onnx_ir.serde.SerdeError, onnx_ir.passes.PassError) as error:
        raise ValueError(str(error)) from error
