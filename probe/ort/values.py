"""Between numpy arrays and ONNX Runtime's values, for the types its Python interface knows and for those it does not."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import InputError
from probe.model.carriers import element_number, sequence_at, sequence_length, sequence_model, text_model
from probe.model.elements import element_name
from probe.ort.session import small_session
from probe.precision import ML_DTYPES, numpy_dtype

if TYPE_CHECKING:
    import onnxruntime

    from probe.model.model import Port

Array = np.ndarray[Any, Any]

_PACKED_BITS = {"int4": 4, "uint4": 4, "int2": 2, "uint2": 2, "float4_e2m1fn": 4}
_ELEMENT = re.compile(r"(?P<name>.+)\[\d+\]", re.DOTALL)


def to_ort(ports: Iterable[Port], feeds: Mapping[str, Array]) -> dict[str, onnxruntime.OrtValue]:
    """Feeds as ONNX Runtime takes them. Numeric arrays are shared, not copied: keep them alive while running.

    Elements ``NAME[0]``, ``NAME[1]``... become the sequence NAME; an optional input that was left out stays out.

    Raises:
        InputError: an optional input was left out, which ONNX Runtime's interface cannot say.
    """
    values: dict[str, onnxruntime.OrtValue] = {}
    for port in ports:
        if port.dtype.startswith("seq("):
            elements = [
                array for key, array in feeds.items() if (m := _ELEMENT.fullmatch(key)) and m["name"] == port.name
            ]
            values[port.name] = _sequence(port.dtype.removeprefix("seq(").removesuffix(")"), elements)
        elif port.name in feeds:
            values[port.name] = to_value(feeds[port.name])
        else:
            raise InputError(
                f"no data for optional input {port.name!r}", hint="ONNX Runtime's Python interface needs a value for it"
            )
    return values


def to_value(array: Array) -> onnxruntime.OrtValue:
    import onnxruntime

    if array.dtype.kind in "OSUT":
        return small_session(text_model(array)).run_with_ort_values(None, {})[0]
    name = array.dtype.name
    if name in _PACKED_BITS:
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(_packed(array), element_number(name))
    if name in ML_DTYPES:
        raw = np.asarray(array, order="C").view(f"u{array.dtype.itemsize}")
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(raw, element_number(name))
    # ONNX Runtime reads foreign byte order as if it were native, and strides are lost.
    return onnxruntime.OrtValue.ortvalue_from_numpy(np.asarray(array, array.dtype.newbyteorder("="), order="C"))


def owned_value(array: Array) -> onnxruntime.OrtValue:
    """A numeric array as a value that owns its memory, so that the array may go."""
    import onnxruntime

    value = onnxruntime.OrtValue.ortvalue_from_shape_and_type(array.shape, array.dtype.type)
    value.update_inplace(np.ascontiguousarray(array))
    return value


def _sequence(dtype: str, elements: Sequence[Array]) -> onnxruntime.OrtValue:
    session = small_session(sequence_model(element_number(dtype), len(elements)))
    return session.run_with_ort_values(None, {f"x{i}": to_value(array) for i, array in enumerate(elements)})[0]


def _packed(array: Array) -> Array:
    """4-bit and 2-bit elements, the first in the lowest bits, in an array of the same shape (so that ONNX Runtime knows it) with the
    rest of its bytes unused."""
    bits = _PACKED_BITS[array.dtype.name]
    per_byte = 8 // bits
    codes = array.reshape(-1).view(np.uint8) & ((1 << bits) - 1)
    padded = np.zeros(-(-codes.size // per_byte) * per_byte, np.uint8)
    padded[: codes.size] = codes
    whole = np.zeros(array.size, np.uint8)
    lanes = padded.reshape(-1, per_byte)
    whole[: len(lanes)] = np.bitwise_or.reduce(lanes << (np.arange(per_byte, dtype=np.uint8) * bits), axis=1)
    return whole.reshape(array.shape)


def _unpacked(raw: Array, dtype: str, count: int) -> Array:
    bits = _PACKED_BITS[dtype]
    shifts = np.arange(8 // bits, dtype=np.uint8) * bits
    codes = ((raw[:, None] >> shifts) & ((1 << bits) - 1)).reshape(-1)[:count]
    if dtype.startswith("int"):  # ml_dtypes keeps a signed narrow integer sign-extended in its byte
        codes = np.where(codes >> (bits - 1), codes | np.uint8(0x100 - (1 << bits)), codes).astype(np.uint8)
    return codes.view(numpy_dtype(dtype))


Taken = list[tuple[str, Array | None, str]]  # (suffix of the name, array, note)


def from_ort(value: onnxruntime.OrtValue) -> Taken:
    """What a value holds: one array of a tensor; one an element of a sequence, with suffix ``[i]``; else None and the reason.

    Arrays of numpy's own types share ONNX Runtime's memory and free it when they go; others are copies.
    """
    if not value.has_value():  # first: asking an empty optional for its type crashes the process
        return [("", None, "an optional without a value")]
    if value.is_sparse_tensor():
        return [("", None, "a sparse tensor, which probe does not record")]
    if value.is_tensor():
        try:
            return [("", tensor_of(value), "")]
        except UnicodeDecodeError as error:
            return [("", None, f"text that is not UTF-8: {error.reason}")]
    if not value.is_tensor_sequence():
        return [("", None, f"{value.data_type()} is no tensor and no sequence of tensors")]
    element = value.element_type()
    length = int(_session_of(sequence_length, element).run_with_ort_values(None, {"s": value})[0].numpy())
    if not length:
        return [("", np.empty(0, numpy_dtype(element_name(element) or "float32")), "an empty sequence")]
    reader = _session_of(sequence_at, element)
    taken: Taken = []
    for i in range(length):
        (one,) = reader.run_with_ort_values(None, {"s": value, "i": _index(i)})
        taken.append((f"[{i}]", tensor_of(one), f"element {i} of {length} of a sequence"))
    return taken


def _index(i: int) -> onnxruntime.OrtValue:
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy(np.array(i, np.int64))


@cache
def _session_of(model: Callable[[int], bytes], element: int) -> onnxruntime.InferenceSession:
    return small_session(model(element))


def tensor_of(value: onnxruntime.OrtValue) -> Array:
    """The array of a tensor value."""
    name = element_name(value.element_type())
    if name not in ML_DTYPES:
        return value.numpy()
    assert name is not None
    shape = tuple(value.shape())
    count = int(np.prod(shape, dtype=np.int64))
    size = value.tensor_size_in_bytes()
    # numpy() knows none of these types (and hands float8 out as uint8): read the memory itself. Copied, since nothing would keep
    # this one value alive without the others of its run.
    raw = np.frombuffer(ctypes.string_at(value.data_ptr(), size), np.uint8) if size else np.empty(0, np.uint8)
    if name in _PACKED_BITS:
        return _unpacked(raw, name, count).reshape(shape)
    return raw.view(numpy_dtype(name)).reshape(shape)
