"""The onnx-ir graph of a model whose weights stay in the file until somebody asks for their values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir import external_data, serde

from probe.errors import InputError
from probe.model.outline import read_place, with_places

if TYPE_CHECKING:
    from probe.model.model import Model


def build_ir(model: Model) -> ir.Model:
    """A new ``onnx_ir.Model`` that the caller may change. Values that are maps have no type in it: onnx-ir knows none.

    Raises:
        InputError: onnx-ir cannot represent the model, or the file was changed since it was loaded.
    """
    proto, places = with_places(model)
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
    def read() -> ir.TensorProtocol:
        found = read_place(tensor, model)
        return ir.Tensor(found, name=tensor.name) if isinstance(found, np.ndarray) else serde.deserialize_tensor(found)

    return ir.LazyTensor(read, dtype=ir.DataType(tensor.data_type), shape=ir.Shape(tensor.dims), name=tensor.name)
