"""ONNX element types: the enum's numbers, probe's names and their size in bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

# TensorProto.DataType -> (name in probe.precision, bits an element takes in raw data). Strings have no fixed size.
_ELEMENTS: dict[int, tuple[str, int]] = {
    1: ("float32", 32),
    2: ("uint8", 8),
    3: ("int8", 8),
    4: ("uint16", 16),
    5: ("int16", 16),
    6: ("int32", 32),
    7: ("int64", 64),
    8: ("string", 0),
    9: ("bool", 8),
    10: ("float16", 16),
    11: ("float64", 64),
    12: ("uint32", 32),
    13: ("uint64", 64),
    14: ("complex64", 64),
    15: ("complex128", 128),
    16: ("bfloat16", 16),
    17: ("float8_e4m3fn", 8),
    18: ("float8_e4m3fnuz", 8),
    19: ("float8_e5m2", 8),
    20: ("float8_e5m2fnuz", 8),
    21: ("uint4", 4),
    22: ("int4", 4),
    23: ("float4_e2m1fn", 4),
    24: ("float8_e8m0fnu", 8),
    25: ("uint2", 2),
    26: ("int2", 2),
}

FLOAT, STRING, FLOAT16, DOUBLE, BFLOAT16 = 1, 8, 10, 11, 16
UNKNOWN = "unknown"

_INVENTED = "unk__"  # onnx's shape inference numbers the extents it knows nothing about


def element_name(number: int) -> str | None:
    """probe's name of an ONNX element type; None for 0 (undefined) and numbers no ONNX release has given out."""
    known = _ELEMENTS.get(number)
    return known[0] if known else None


def stored_bytes(number: int, count: int) -> int | None:
    """Bytes that ``count`` elements take as raw data (4-bit and 2-bit types are packed); None for strings."""
    bits = _ELEMENTS[number][1]
    return (count * bits + 7) // 8 if bits else None


def type_name(proto: onnx.TypeProto) -> str:
    """A value's type in words: ``float32``, ``seq(float32)``, ``optional(seq(int64))``, ``map(int64,float32)``; ``unknown``."""
    which = proto.WhichOneof("value")
    if which in ("tensor_type", "sparse_tensor_type"):
        name = element_name(getattr(proto, which).elem_type) or UNKNOWN
        return name if which == "tensor_type" else f"sparse({name})"
    if which == "sequence_type":
        return f"seq({type_name(proto.sequence_type.elem_type)})"
    if which == "optional_type":
        return f"optional({type_name(proto.optional_type.elem_type)})"
    if which == "map_type":
        return f"map({element_name(proto.map_type.key_type) or UNKNOWN},{type_name(proto.map_type.value_type)})"
    return f"opaque({proto.opaque_type.name})" if which == "opaque_type" else UNKNOWN


def elements_of(proto: onnx.TypeProto) -> Iterator[int]:
    """Element types that occur in a type, as numbers of the ONNX enum: one for tensors, also inside sequences, optionals and maps."""
    which = proto.WhichOneof("value")
    if which in ("tensor_type", "sparse_tensor_type"):
        yield getattr(proto, which).elem_type
    elif which in ("sequence_type", "optional_type"):
        yield from elements_of(getattr(proto, which).elem_type)
    elif which == "map_type":
        yield from elements_of(proto.map_type.value_type)


def shape_of(proto: onnx.TypeProto) -> tuple[int | str | None, ...] | None:
    """Extents of a tensor, or of the tensors in a sequence or optional: a number, a symbol's name, or None where nothing is known
    (some exporters write -1). None alone where not even the rank is known, and for maps.
    """
    which = proto.WhichOneof("value")
    if which in ("sequence_type", "optional_type"):
        return shape_of(getattr(proto, which).elem_type)
    if which != "tensor_type" or not proto.tensor_type.HasField("shape"):
        return None
    return tuple(_extent(dim) for dim in proto.tensor_type.shape.dim)


def _extent(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    which = dim.WhichOneof("value")
    if which == "dim_value":
        return dim.dim_value if dim.dim_value >= 0 else None
    if which != "dim_param" or dim.dim_param.startswith(_INVENTED):
        return None
    return dim.dim_param or None
