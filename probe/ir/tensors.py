"""Constants of a graph, wherever their values lie: in an array, in a message, in a file, or with whoever makes them when asked."""

from __future__ import annotations

import math
import mmap
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from probe.ir.types import DataType, Shape

Array = np.ndarray[Any, Any]


class Tensor:
    """A constant. Subclasses say how its values are come by."""

    __slots__ = ("dtype", "name", "shape")

    def __init__(self, dtype: DataType, shape: Shape, name: str | None) -> None:
        self.dtype = dtype
        self.shape = shape
        self.name = name

    @property
    def size(self) -> int:
        """Elements."""
        return math.prod(self.shape.numpy())

    @property
    def nbytes(self) -> int:
        """Bytes of raw data; of strings their text."""
        return math.ceil(self.dtype.itemsize * self.size)

    def numpy(self) -> Array:
        """The values; byte strings for text. Types that numpy has not are ml_dtypes', one element a byte at least."""
        raise NotImplementedError

    def tobytes(self) -> bytes:
        """The values as raw data of ONNX: little-endian, elements below a byte packed.

        Raises:
            ValueError: text has no raw data.
        """
        if self.dtype is DataType.STRING:
            raise ValueError(f"{self.name!r} is text, which has no raw data")
        return packed(self.numpy(), self.dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}<{self.dtype},{self.shape}>(name={self.name!r})"


class ArrayTensor(Tensor):
    """A constant in memory.

    Args:
        array: of the type's numpy type, or its bits as unsigned integers.
    """

    __slots__ = ("_array",)

    def __init__(
        self, array: Array, dtype: DataType | None = None, *, shape: Shape | None = None, name: str | None = None
    ) -> None:
        dtype = DataType.from_numpy(array.dtype) if dtype is None else dtype
        super().__init__(dtype, Shape(array.shape) if shape is None else shape, name)
        wanted = None if dtype is DataType.STRING else dtype.numpy()
        if wanted is not None and array.dtype != wanted:
            if array.dtype.kind != "u" or array.dtype.itemsize != wanted.itemsize:
                raise TypeError(f"{array.dtype} is no array of {dtype}")
            array = array.view(wanted)
        self._array = array

    def numpy(self) -> Array:
        return self._array

    @property
    def nbytes(self) -> int:
        return sum(map(len, strings_of(self))) if self.dtype is DataType.STRING else super().nbytes


class MessageTensor(Tensor):
    """A constant in a TensorProto, which must not be changed afterwards."""

    __slots__ = ("proto",)

    def __init__(self, proto: onnx.TensorProto) -> None:
        super().__init__(DataType(proto.data_type), Shape(proto.dims), proto.name)
        self.proto = proto

    @property
    def nbytes(self) -> int:
        return sum(map(len, self.proto.string_data)) if self.dtype is DataType.STRING else super().nbytes

    def numpy(self) -> Array:
        dims = tuple(self.proto.dims)
        if self.dtype is DataType.STRING:
            return np.array(list(self.proto.string_data), object).reshape(dims)
        return unpacked(self.tobytes(), self.dtype, dims)

    def tobytes(self) -> bytes:
        proto = self.proto
        if proto.HasField("raw_data"):
            return proto.raw_data
        if self.dtype is DataType.STRING:
            return super().tobytes()
        for field, typed in _TYPED_FIELDS.items():
            held = getattr(proto, field)
            if held:  # an element for each of the tensor's, or two for a complex one; below a byte as many as are packed into one
                array = np.array(held, typed)
                target = _TARGETS.get(self.dtype)
                if target is None:  # kept as bits in int32_data
                    target = "<u2" if self.dtype.bitwidth == 16 else "<u1"
                return array.astype(target).tobytes()
        return b""


_TYPED_FIELDS = {
    "float_data": "<f4",
    "int32_data": "<i4",
    "int64_data": "<i8",
    "double_data": "<f8",
    "uint64_data": "<u8",
}
_TARGETS = {
    DataType.FLOAT: "<f4", DataType.COMPLEX64: "<f4", DataType.DOUBLE: "<f8", DataType.COMPLEX128: "<f8", DataType.INT32: "<i4",
    DataType.INT64: "<i8", DataType.UINT32: "<u4", DataType.UINT64: "<u8",
}  # fmt: skip


class ExternalTensor(Tensor):
    """A constant in a file beside the model, mapped when it is first read.

    Args:
        location: of the file, from ``base_dir``.
        offset, length: of the data in the file, in bytes; 0 and all that the type and shape need unless they are given.
    """

    __slots__ = ("_array", "_base_dir", "length", "location", "offset")

    def __init__(
        self,
        location: str,
        offset: int | None,
        length: int | None,
        dtype: DataType,
        shape: Shape,
        name: str,
        base_dir: Path,
    ) -> None:
        super().__init__(dtype, shape, name)
        self.location, self.offset, self.length = location, offset, length
        self._base_dir = base_dir
        self._array: Array | None = None

    def numpy(self) -> Array:
        """As every tensor's.

        Raises:
            OSError: the file is gone.
            ValueError: the file lies outside the model's folder, or is too short.
        """
        if self._array is None:
            self._array = unpacked(self._mapped(), self.dtype, self.shape.numpy())
        return self._array

    def _mapped(self) -> memoryview:
        folder, real = os.path.realpath(self._base_dir), os.path.realpath(self._base_dir / self.location)
        if not Path(real).is_relative_to(folder):  # checked when the model was loaded; a link may be another one since
            raise ValueError(f"the data of {self.name!r} lies outside the model's folder: {self.location}")
        begin, count = self.offset or 0, self.nbytes
        if not count:
            return memoryview(b"")
        with open(real, "rb") as file:
            whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        if begin + count > len(whole):
            raise ValueError(f"the file of {self.name!r} is too short: {self.location}")
        return whole[begin : begin + count]


class LazyTensor(Tensor):
    """A constant whose values are made anew each time they are asked for, so that nobody holds what nobody uses."""

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[], Tensor], dtype: DataType, shape: Shape, name: str) -> None:
        super().__init__(dtype, shape, name)
        self._read = read

    def numpy(self) -> Array:
        return self._read().numpy()

    def tobytes(self) -> bytes:
        return self._read().tobytes()


def tensor(value: Any, dtype: DataType | None = None, *, name: str | None = None) -> ArrayTensor:
    """A constant of an array, a number, or a list of numbers: without ``dtype`` integers are int64 and floats float32."""
    if not isinstance(value, (np.ndarray, np.generic)):
        found = np.array(value, None if dtype is None else dtype.numpy())
        narrowed = np.float32 if dtype is None and found.dtype == np.float64 else found.dtype
        value = found.astype(narrowed)
    return ArrayTensor(np.asarray(value), dtype, name=name)


def strings_of(text: Tensor) -> Sequence[bytes]:
    """The elements of a text constant."""
    return [one if isinstance(one, bytes) else str(one).encode() for one in text.numpy().ravel().tolist()]


def packed(array: Array, dtype: DataType) -> bytes:
    """Raw data of an array of a type's numpy type."""
    if dtype.bitwidth >= 8:
        little = array if sys.byteorder == "little" else array.astype(array.dtype.newbyteorder("<"))
        return little.tobytes()
    each = 8 // dtype.bitwidth
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8) & np.uint8((1 << dtype.bitwidth) - 1)
    rows = np.pad(flat, (0, -len(flat) % each)).reshape(-1, each)
    shifts = np.arange(each, dtype=np.uint8) * np.uint8(dtype.bitwidth)
    return np.bitwise_or.reduce(rows << shifts, axis=1).astype(np.uint8).tobytes()


def unpacked(raw: bytes | memoryview, dtype: DataType, shape: tuple[int, ...]) -> Array:
    """An array of raw data, a view of it where elements are whole bytes."""
    kind = dtype.numpy()
    if not len(raw):
        return np.zeros(shape, kind)
    if dtype.bitwidth >= 8:
        return np.frombuffer(raw, kind if sys.byteorder == "little" else kind.newbyteorder("<")).reshape(shape)
    each = 8 // dtype.bitwidth
    shifts = np.arange(each, dtype=np.uint8) * np.uint8(dtype.bitwidth)
    bits = (np.frombuffer(raw, np.uint8)[:, None] >> shifts) & np.uint8((1 << dtype.bitwidth) - 1)
    flat = bits.reshape(-1)[: math.prod(shape)]
    if dtype in (DataType.INT4, DataType.INT2):  # ml_dtypes keeps them sign-extended
        high = np.uint8(1 << (dtype.bitwidth - 1))
        flat = (flat ^ high) - high
    return flat.astype(np.uint8).view(kind).reshape(shape)
