"""How large the tensors of a model are for given inputs, by shape inference and without running it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.model.elements import shape_of, stored_bytes
from probe.model.expose import Exposure
from probe.model.wire import read_outline

if TYPE_CHECKING:
    import onnx

Array = np.ndarray[Any, Any]

_LONGEST_VECTOR = 1 << 16  # elements


def tensor_bytes(exposure: Exposure, feeds: Mapping[str, Array]) -> dict[str, int]:
    """Bytes of the tensors of an exposed model, by recorded name. An estimate: what inference cannot tell (data-dependent shapes, what
    loops stack up) is taken to be as large as the largest tensor it can.

    Costs milliseconds: weights are not looked at.
    """
    import onnx

    proto = onnx.ModelProto()
    proto.ParseFromString(read_outline(memoryview(exposure.model_bytes)))
    for value in proto.graph.input:
        array = feeds.get(value.name)
        if array is not None and value.type.HasField("tensor_type"):
            shape = value.type.tensor_type.shape
            del shape.dim[:]
            shape.dim.extend(onnx.TensorShapeProto.Dimension(dim_value=extent) for extent in array.shape)
    # What the exporter wrote down holds symbols, which would win over the numbers known now.
    for graph in _graphs(proto.graph):
        del graph.value_info[:]
    for value in proto.graph.output:
        value.ClearField("type")
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=False)
        # Propagating values finds shapes that are computed. It takes some 200 bytes an element of any vector, were it a waveform.
        if _longest_vector(inferred.graph) <= _LONGEST_VECTOR:
            inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return dict.fromkeys(
            (tensor.name for tensor in exposure.tensors), 0
        )  # whether it runs is ONNX Runtime's to say
    known: dict[str, int] = {}
    inside: dict[
        str, int
    ] = {}  # by the name in a body: what an If hands out may be empty, so its own shape says nothing
    for number, graph in enumerate(_graphs(inferred.graph)):
        table = inside if number else known
        for value in (*graph.value_info, *graph.output):
            size = _size(value.type)
            if size is not None:
                table[value.name] = max(size, table.get(value.name, 0))
    found = {t.name: known.get(t.output_name) for t in exposure.tensors}
    for tensor in exposure.tensors:
        if tensor.branch and not tensor.note:  # in an If and in no loop
            found[tensor.name] = inside.get(tensor.name, inside.get(tensor.name.rpartition("/")[2]))
    largest = max((size for size in found.values() if size is not None), default=0)
    return {name: largest if size is None else size for name, size in found.items()}


def _longest_vector(graph: onnx.GraphProto) -> int:
    """Elements of the longest one-dimensional tensor of a graph and its bodies, as far as they are known."""
    shapes = (
        shape_of(value.type) or () for one in _graphs(graph) for value in (*one.input, *one.value_info, *one.output)
    )
    return max((shape[0] for shape in shapes if len(shape) == 1 and isinstance(shape[0], int)), default=0)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(body)


def _size(kind: onnx.TypeProto) -> int | None:
    shape = shape_of(kind)
    if shape is None or not all(isinstance(extent, int) for extent in shape):
        return None
    count = 1
    for extent in shape:
        assert isinstance(extent, int)
        count *= extent
    element = kind.tensor_type.elem_type
    return None if not element else stored_bytes(element, count)
