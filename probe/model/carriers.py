"""Tiny models that do what ONNX Runtime's Python interface cannot: make values of text and sequences, take sequences apart, show how it multiplies bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_IR_VERSION, _OPSET = 8, 17


def text_model(array: Array) -> bytes:
    """A model without inputs whose output ``y`` is the text of ``array``."""
    import onnx

    flat = [x if isinstance(x, bytes) else str(x).encode("utf-8", "surrogatepass") for x in array.reshape(-1)]
    constant = onnx.TensorProto(name="c", data_type=onnx.TensorProto.STRING, dims=array.shape, string_data=flat)
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.STRING, list(array.shape))
    return _serialised([onnx.helper.make_node("Identity", ["c"], ["y"])], [], [output], [constant])


def sequence_model(element: int, count: int) -> bytes:
    """A model that makes the sequence ``y`` of the tensors ``x0``, ``x1``, ...; ``element`` is their ONNX type."""
    import onnx

    names = [f"x{i}" for i in range(count)]
    node = (
        onnx.helper.make_node("SequenceConstruct", names, ["y"])
        if count
        else onnx.helper.make_node("SequenceEmpty", [], ["y"], dtype=element)
    )
    inputs = [onnx.helper.make_tensor_value_info(name, element, None) for name in names]
    return _serialised([node], inputs, [onnx.helper.make_tensor_sequence_value_info("y", element, None)])


def sequence_length(element: int) -> bytes:
    """A model whose output ``n`` is the length of the sequence ``s``."""
    import onnx

    output = onnx.helper.make_tensor_value_info("n", onnx.TensorProto.INT64, [])
    node = onnx.helper.make_node("SequenceLength", ["s"], ["n"])
    return _serialised([node], [onnx.helper.make_tensor_sequence_value_info("s", element, None)], [output])


def sequence_at(element: int) -> bytes:
    """A model whose output ``y`` is element ``i`` of the sequence ``s``."""
    import onnx

    inputs = [
        onnx.helper.make_tensor_sequence_value_info("s", element, None),
        onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, []),
    ]
    output = onnx.helper.make_tensor_value_info("y", element, None)
    return _serialised([onnx.helper.make_node("SequenceAt", ["s", "i"], ["y"])], inputs, [output])


def element_number(name: str) -> int:
    """The ONNX number of a type name, the inverse of ``elements.element_name``.

    Raises:
        KeyError: no ONNX type has this name.
    """
    from probe.model.elements import element_name

    for number in range(1, 64):
        if element_name(number) == name:
            return number
    raise KeyError(name)


def byte_product_model() -> bytes:
    """``a`` uint8 times ``b`` int8 as int32."""
    import onnx

    ends = [
        onnx.helper.make_tensor_value_info(name, kind, None)
        for name, kind in (("a", onnx.TensorProto.UINT8), ("b", onnx.TensorProto.INT8), ("y", onnx.TensorProto.INT32))
    ]
    return _serialised([onnx.helper.make_node("MatMulInteger", ["a", "b"], ["y"])], ends[:2], ends[2:])


def _serialised(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any] | None = None) -> bytes:
    import onnx

    graph = onnx.helper.make_graph(nodes, "carrier", inputs, outputs, constants)
    model = onnx.helper.make_model(graph, ir_version=_IR_VERSION, opset_imports=[onnx.helper.make_opsetid("", _OPSET)])
    return model.SerializeToString()
