"""Read an ONNX file without reading its weights.

An ONNX file is a protobuf message, and nearly all of its bytes are the payloads of large tensors. ``read_outline`` walks the
encoding, copies everything except those payloads, and leaves in each such tensor a note of where its payload lies. A 100 MB model
becomes a message of some 100 KB in milliseconds: names, types, shapes and small constants are all there, and no weight was touched.
Because every length is checked against what the file holds, a truncated or damaged file is told here, with the offset.

Protobuf in one paragraph: a message is a run of fields; a field is a varint key (number << 3 | wire type) and a value; wire type 0
is a varint, 1 is 8 bytes, 5 is 4 bytes, 2 is a varint length and that many bytes (strings, bytes, sub-messages, packed arrays).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

# Tensors up to this size stay whole: shape inference reads Reshape targets, Slice bounds and the like.
LARGE_BYTES = 8192
# Protobuf itself refuses deeper messages; a graph nested in a graph costs three levels.
_MAX_DEPTH = 100
_MARK = "probe.payload"

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Field numbers of onnx.proto; what is not named here is copied as it is.
_TENSOR_PAYLOADS = frozenset((4, 5, 7, 9, 10, 11))  # float, int32, int64, raw, double and uint64 data
_TENSOR = "TensorProto"
_INSIDE: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: _TENSOR, 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {5: _TENSOR, 6: "GraphProto", 10: _TENSOR, 11: "GraphProto", 22: "SparseTensorProto", 23: "SparseTensorProto"},
    "SparseTensorProto": {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {},
}  # fmt: skip
_MODEL_FIELDS = {1: _VARINT, 2: _BYTES, 3: _BYTES, 4: _BYTES, 5: _VARINT, 6: _BYTES, 7: _BYTES, 8: _BYTES, 14: _BYTES,
                 20: _BYTES, 25: _BYTES, 26: _BYTES}  # fmt: skip


class WireError(Exception):
    """The bytes are not a whole ONNX message. ``truncated``: a field is longer than what is left of the file."""

    def __init__(self, message: str, offset: int, *, truncated: bool = False, is_onnx: bool = True) -> None:
        super().__init__(message)
        self.offset = offset
        self.truncated = truncated
        self.is_onnx = is_onnx


@dataclass(frozen=True, slots=True)
class Payload:
    """Where the data of a large tensor lies in the file."""

    field: int  # of TensorProto: 9 is raw_data
    offset: int  # bytes from the start of the file
    length: int  # bytes


def read_outline(data: memoryview) -> bytes:
    """The same ModelProto, serialised, with the payloads of large tensors left out.

    Each tensor so emptied claims external data (so that nobody takes it for complete) and carries its ``Payload``.

    Raises:
        WireError: not an ONNX message, truncated, damaged, or nested deeper than protobuf allows.
    """
    return _copy(data, 0, len(data), "ModelProto", 0)


def payload_of(tensor: onnx.TensorProto) -> Payload | None:
    """The note ``read_outline`` left in a tensor; None for tensors it kept whole."""
    for entry in tensor.external_data:
        if entry.key == _MARK:
            field, offset, length = entry.value.split(":")
            return Payload(int(field), int(offset), int(length))
    return None


def refill(tensor: onnx.TensorProto, data: memoryview) -> onnx.TensorProto:
    """A copy of an emptied tensor with its payload, read from the file's bytes, put back."""
    payload = payload_of(tensor)
    whole = type(tensor)()
    whole.CopyFrom(tensor)
    if payload is not None:
        whole.ClearField("external_data")
        whole.ClearField("data_location")
        content = bytes(data[payload.offset : payload.offset + payload.length])
        whole.MergeFromString(_varint(payload.field << 3 | _BYTES) + _varint(len(content)) + content)
    return whole


def _copy(data: memoryview, start: int, end: int, message: str, depth: int) -> bytes:
    """One message from data[start:end], large payloads left out."""
    if depth > _MAX_DEPTH:
        raise WireError(f"messages are nested more than {_MAX_DEPTH} deep", start)
    inside = _INSIDE[message]
    pieces: list[bytes | memoryview] = []
    marks: list[bytes] = []
    copied = at = start  # everything before `copied` is in `pieces` or left out
    telling = False  # whether a field was seen that other files would hardly have
    while at < end:
        field_start = at
        key, at = _read_varint(data, at, end)
        number, wire_type = key >> 3, key & 7
        if message == "ModelProto" and _MODEL_FIELDS.get(number) != wire_type:
            what = f"no ONNX model has a field {number} of wire type {wire_type}"
            raise WireError(what, field_start, is_onnx=telling)
        telling = telling or wire_type == _BYTES
        if wire_type == _VARINT:
            _, at = _read_varint(data, at, end)
            continue
        if wire_type in (_FIXED64, _FIXED32):
            length = 8 if wire_type == _FIXED64 else 4
        elif wire_type == _BYTES:
            length, at = _read_varint(data, at, end)
        else:
            raise WireError(f"field {number} has wire type {wire_type}, which ONNX does not use", field_start)
        if length > end - at:
            # Only the outermost message ends with the file; a field that overruns an inner one is damage.
            raise WireError(
                f"a field needs {length} bytes and {end - at} are left", field_start, truncated=message == "ModelProto"
            )
        if length > LARGE_BYTES and wire_type == _BYTES:
            if message == _TENSOR and number in _TENSOR_PAYLOADS:
                pieces.append(data[copied:field_start])
                marks.append(_mark(Payload(number, at, length)))
                copied = at + length
            elif number in inside:
                pieces.append(data[copied:field_start])
                body = _copy(data, at, at + length, inside[number], depth + 1)
                pieces += (_varint(key), _varint(len(body)), body)
                copied = at + length
        at += length
    pieces.append(data[copied:end])
    return b"".join(pieces + marks)


def _mark(payload: Payload) -> bytes:
    """TensorProto fields 13 (external_data, a key and a value) and 14 (data_location = EXTERNAL)."""
    value = f"{payload.field}:{payload.offset}:{payload.length}".encode()
    entry = b"\x0a" + _varint(len(_MARK)) + _MARK.encode() + b"\x12" + _varint(len(value)) + value
    return b"\x6a" + _varint(len(entry)) + entry + b"\x70\x01"


def _read_varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    first = at
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise WireError("a number is longer than 64 bits", first)
    raise WireError("the data ends inside a number", first, truncated=end == len(data))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
