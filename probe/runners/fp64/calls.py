"""What a kernel is given: the node's attributes, float64 where the model has floats, its operator-set version, its outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import InputError
from probe.model.elements import BFLOAT16, DOUBLE, FLOAT, FLOAT16, element_name
from probe.precision import numpy_dtype
from probe.runners.protocol import Array

if TYPE_CHECKING:
    import onnx

WIDENED = (
    "float32",
    "float16",
    "bfloat16",
)  # types that become float64; 8-bit and 4-bit floats are what a model quantises to
_WIDENED_ELEMENTS = (FLOAT, FLOAT16, BFLOAT16)
_TYPE_ATTRIBUTES = frozenset(("to", "dtype", "output_dtype", "output_datatype"))
_STANDARD = ("", "ai.onnx")

Value = Any  # an array, a list of arrays (a sequence), or None (an optional without a value, an omitted input)


@dataclass(frozen=True, slots=True)
class Call:
    """A node as its kernel sees it.

    Attributes:
        op: operator, by name.
        version: of the operator set the node belongs to.
        attributes: by name, defaults of the operator filled in. Floats are the stored float32 numbers, exactly; tensors are widened;
            attributes that name an element type hold its number, that of float64 where the model has float32, float16 or bfloat16.
        outputs: which of the listed outputs have a name.
        node: as in the file.
    """

    op: str
    version: int
    attributes: Mapping[str, Any]
    outputs: tuple[bool, ...]
    node: onnx.NodeProto

    def __getitem__(self, name: str) -> Any:
        return self.attributes[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The attribute, or ``default`` where neither the node nor the operator's definition gives a value."""
        return self.attributes.get(name, default)

    def wants(self, index: int) -> bool:
        """Whether anybody can read the output."""
        return index < len(self.outputs) and self.outputs[index]


Kernel = Callable[..., Value]  # (call, *inputs) -> the output, or a tuple of all outputs


def plain(functions: Mapping[str, Callable[..., Value]]) -> dict[str, Kernel]:
    """Kernels of functions that need no attribute."""

    def kernel(function: Callable[..., Value]) -> Kernel:
        return lambda _call, *inputs: function(*inputs)

    return {name: kernel(function) for name, function in functions.items()}


def read_call(node: onnx.NodeProto, version: int, tensor: Callable[[onnx.TensorProto], Array]) -> Call:
    """Decode a node.

    Args:
        version: of its operator set.
        tensor: value of a tensor attribute.

    Raises:
        InputError: the operator is not in this version of its operator set, or lacks an attribute it must have.
    """
    import onnx

    attributes: dict[str, Any] = {}
    domain = "" if node.domain in _STANDARD else node.domain
    if onnx.defs.has(node.op_type, version, domain):
        for name, definition in onnx.defs.get_schema(node.op_type, version, domain).attributes.items():
            default = definition.default_value
            if default.type != onnx.AttributeProto.UNDEFINED and default.name:
                attributes[name] = _read(default, tensor)
    for attribute in node.attribute:
        if attribute.type not in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            attributes[attribute.name] = _read(attribute, tensor)
    return Call(node.op_type, version, attributes, tuple(bool(name) for name in node.output), node)


def _read(attribute: onnx.AttributeProto, tensor: Callable[[onnx.TensorProto], Array]) -> Any:
    import onnx

    kind = onnx.AttributeProto
    match attribute.type:
        case kind.FLOAT:
            return attribute.f  # protobuf hands out the float32 number, widened
        case kind.FLOATS:
            return list(attribute.floats)
        case kind.INT:
            return widened_element(attribute.i) if attribute.name in _TYPE_ATTRIBUTES else attribute.i
        case kind.INTS:
            return list(attribute.ints)
        case kind.STRING:
            return attribute.s.decode()
        case kind.STRINGS:
            return [text.decode() for text in attribute.strings]
        case kind.TENSOR:
            return None if attribute.t.data_type == 0 else widen(tensor(attribute.t))
        case kind.SPARSE_TENSOR:
            return dense(attribute.sparse_tensor, tensor)
        case kind.TYPE_PROTO:
            return attribute.tp
    raise InputError(f"attribute {attribute.name!r} has a type that fp64 does not evaluate", hint="--golden ort")


def dense(sparse: onnx.SparseTensorProto, tensor: Callable[[onnx.TensorProto], Array]) -> Array:
    """A sparse tensor in full, widened. Indices are linear, or a row of coordinates an element."""
    values, indices = widen(tensor(sparse.values)), tensor(sparse.indices)
    full = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 2:
        full[tuple(indices.T)] = values
    else:
        full.reshape(-1)[indices] = values
    return full


def widened_element(number: int) -> int:
    """The element type that stands for ``number`` in float64."""
    return DOUBLE if number in _WIDENED_ELEMENTS else number


def widen(array: Array) -> Array:
    """The array in float64 if it is float32, float16 or bfloat16 (exact), else as it is."""
    return array.astype(np.float64) if array.dtype.name in WIDENED else array


def numpy_type(number: int) -> np.dtype[Any]:
    """numpy's type for an element type as ``Call`` holds it.

    Raises:
        InputError: a number no ONNX release has given out.
    """
    name = element_name(number)
    if name is None:
        raise InputError(f"there is no element type {number}")
    return np.dtype(np.float64) if name in WIDENED else numpy_dtype(name)
