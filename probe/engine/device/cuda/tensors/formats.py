"""How tensors lie in device memory: a format for every element type that kernels know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from probe import ir

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Format:
    """An element type in memory.

    Attributes:
        name: the C type of kernels/types.cuh.
        bytes: of an element.
        register: C type that holds one while computing.
        dtype: numpy type of the array that stands for it outside: float32 for every float.
    """

    name: str
    bytes: int
    register: str
    dtype: np.dtype[Any]

    @property
    def is_float(self) -> bool:
        return self.register == "float"


F32 = Format("float", 4, "float", np.dtype(np.float32))
F16 = Format("f16", 2, "float", np.dtype(np.float32))
BF16 = Format("bf16", 2, "float", np.dtype(np.float32))
I64 = Format("i64", 8, "i64", np.dtype(np.int64))
I32 = Format("i32", 4, "i32", np.dtype(np.int32))
U8 = Format("u8", 1, "u8", np.dtype(np.uint8))
I8 = Format("i8", 1, "i8", np.dtype(np.int8))
B8 = Format("b8", 1, "bool", np.dtype(np.bool_))

FLOATS = (F32, F16, BF16)
_OF_DTYPE = {
    ir.DataType.FLOAT: F32, ir.DataType.INT64: I64, ir.DataType.INT32: I32, ir.DataType.UINT8: U8,
    ir.DataType.INT8: I8, ir.DataType.BOOL: B8,
}  # fmt: skip
_OF_NUMPY = {known.dtype: known for known in (F32, I64, I32, U8, I8, B8)}


def format_of(value: ir.Value) -> Format | None:
    """The format of a tensor as the network declares it, floats wide; None for types that kernels do not know."""
    if value.dtype is None or not isinstance(value.type, ir.TensorType):
        return None
    return _OF_DTYPE.get(value.dtype)


def format_of_array(array: Array) -> Format | None:
    return _OF_NUMPY.get(array.dtype)


def storage_of(precision: str) -> Format:
    """What tensors of a precision are stored in; TF32 is FP32 that products read with fewer bits."""
    return {"fp16": F16, "bf16": BF16}.get(precision, F32)


def packed(array: Array, format: Format) -> Array:  # noqa: A002 - the word of this module
    """An array as it lies in memory. Floats must be representable already: nothing is rounded here but what does not fit."""
    if format is F16:
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(array, np.float32).astype(np.float16)
    if format is BF16:
        return (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return np.ascontiguousarray(array, format.dtype)


def unpacked(raw: Array, format: Format, shape: tuple[int, ...]) -> Array:  # noqa: A002
    """The array that bytes in memory stand for; floats as float32."""
    if format is F16:
        return raw.view(np.float16).astype(np.float32).reshape(shape)
    if format is BF16:
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return raw.view(format.dtype).reshape(shape)
