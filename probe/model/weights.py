"""Are the tensors stored in a model what they claim to be? Type known, dims sane, as much data as type and dims need."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from probe.errors import InputError
from probe.model.elements import STRING, element_name, stored_bytes
from probe.model.external import ExternalFiles, is_external
from probe.model.scopes import Scope
from probe.model.wire import Payload, payload_of

if TYPE_CHECKING:
    import onnx

_RAW_DATA = 9
# Fields of TensorProto with a fixed number of bytes a value; the others hold varints.
_FIXED_BYTES = {4: 4, 10: 8}
_FIELD_NAMES = {4: "float_data", 5: "int32_data", 7: "int64_data", 10: "double_data", 11: "uint64_data"}
# Element type -> (field that holds it, values an element); every other type uses int32_data.
_VALUE_FIELD = {1: (4, 1), 14: (4, 2), 7: (7, 1), 11: (10, 1), 15: (10, 2), 12: (11, 1), 13: (11, 1)}
_INT32_DATA = 5
_BYTE_OR_MORE = 8  # bits; narrower elements share a value, in ways that changed between ONNX releases
_DAMAGED = "export the model again, or copy it again: the file is damaged"
# More elements than any file can hold; also keeps the arithmetic below in machine integers.
_MAX_ELEMENTS = 2**62


def check_tensors(
    root: Scope, functions: Iterable[onnx.FunctionProto], files: ExternalFiles, data: memoryview, path: str
) -> None:
    """Check initialisers and tensor attributes of all scopes and functions; external ones through ``files``.

    Args:
        data: the bytes of the model file, for tensors whose payload was left there.

    Raises:
        InputError: unknown type, negative or absurd dims, or data that does not match them.
    """
    for tensor, place in stored_tensors(root, functions):
        _check(tensor, files, data, f"{path}, {place}" if place else path)


def stored_tensors(root: Scope, functions: Iterable[onnx.FunctionProto]) -> Iterator[tuple[onnx.TensorProto, str]]:
    for scope in root.walk():
        place = f"body {scope.path}" if scope.path else ""
        for tensor in scope.graph.initializer:
            yield tensor, place
        for sparse in scope.graph.sparse_initializer:
            yield sparse.values, place
            yield sparse.indices, place
        for step in scope.steps:
            yield from ((tensor, f"node {step.identity}") for tensor in _attribute_tensors(step.node))
    for function in functions:
        for node in function.node:
            yield from ((tensor, f"local function {function.name}") for tensor in _attribute_tensors(node))


def _attribute_tensors(node: onnx.NodeProto) -> Iterator[onnx.TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors


def _check(tensor: onnx.TensorProto, files: ExternalFiles, data: memoryview, where: str) -> None:
    number, name = tensor.data_type, tensor.name
    kind = element_name(number)
    if kind is None:
        what = f"tensor {name!r} has the element type {number}, which the installed onnx does not know"
        raise InputError(what, where=where, hint="upgrade onnx if the model is newer; otherwise the file is damaged")
    if any(extent < 0 for extent in tensor.dims):
        raise InputError(f"tensor {name!r} has a negative extent: {list(tensor.dims)}", where=where, hint=_DAMAGED)
    if tensor.HasField("segment"):
        what = f"tensor {name!r} is split into segments, which no runtime reads"
        raise InputError(what, where=where, hint="export the model again")
    count = math.prod(tensor.dims)
    if count > _MAX_ELEMENTS:
        raise InputError(
            f"tensor {name!r} claims {count:.3g} elements: {list(tensor.dims)}", where=where, hint=_DAMAGED
        )
    nbytes = stored_bytes(number, count)
    if is_external(tensor):
        files.check(tensor, nbytes, where)
        return
    stored, needed, unit = _measure(tensor, count, nbytes, payload_of(tensor), data)
    if stored is not None and stored != needed:
        what = f"tensor {name!r} holds {stored} {unit}; {kind}{list(tensor.dims)} needs {needed}"
        raise InputError(what, where=where, hint=_DAMAGED)


def _measure(
    tensor: onnx.TensorProto, count: int, nbytes: int | None, payload: Payload | None, data: memoryview
) -> tuple[int | None, int, str]:
    """``(stored, needed, unit)`` of a tensor held in the model file; stored is None where it cannot be told."""
    if tensor.data_type == STRING:
        return len(tensor.string_data), count, "strings"
    if payload is not None and payload.field == _RAW_DATA:
        return payload.length, nbytes or 0, "bytes"
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data), nbytes or 0, "bytes"
    field, values_an_element = _VALUE_FIELD.get(tensor.data_type, (_INT32_DATA, 1))
    needed = count * values_an_element
    if (stored_bytes(tensor.data_type, _BYTE_OR_MORE) or 0) < _BYTE_OR_MORE:
        return None, needed, "values"
    if payload is None:
        return len(getattr(tensor, _FIELD_NAMES[field])), needed, "values"
    if payload.field != field:
        return 0, needed, "values"
    if field in _FIXED_BYTES:
        return payload.length // _FIXED_BYTES[field], needed, "values"
    content = np.frombuffer(data[payload.offset : payload.offset + payload.length], np.uint8)
    return int(np.count_nonzero(content < 0x80)), needed, "values"  # a varint ends at its first byte below 0x80
