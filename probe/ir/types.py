"""What is known of a value: element type, kind of type, shape. Numbers and names are those of onnx.proto."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from typing import Any, Generic, SupportsInt, TypeVar, overload

import numpy as np

from probe.precision import numpy_dtype

E = TypeVar("E")


class AttributeType(enum.IntEnum):
    """What an attribute holds."""

    UNDEFINED = 0
    FLOAT = 1
    INT = 2
    STRING = 3
    TENSOR = 4
    GRAPH = 5
    FLOATS = 6
    INTS = 7
    STRINGS = 8
    TENSORS = 9
    GRAPHS = 10
    SPARSE_TENSOR = 11
    SPARSE_TENSORS = 12
    TYPE_PROTO = 13
    TYPE_PROTOS = 14

    def __repr__(self) -> str:
        return self.name

    __str__ = __repr__


class DataType(enum.IntEnum):
    """Element types."""

    UNDEFINED = 0
    FLOAT = 1
    UINT8 = 2
    INT8 = 3
    UINT16 = 4
    INT16 = 5
    INT32 = 6
    INT64 = 7
    STRING = 8
    BOOL = 9
    FLOAT16 = 10
    DOUBLE = 11
    UINT32 = 12
    UINT64 = 13
    COMPLEX64 = 14
    COMPLEX128 = 15
    BFLOAT16 = 16
    FLOAT8E4M3FN = 17
    FLOAT8E4M3FNUZ = 18
    FLOAT8E5M2 = 19
    FLOAT8E5M2FNUZ = 20
    UINT4 = 21
    INT4 = 22
    FLOAT4E2M1 = 23
    FLOAT8E8M0 = 24
    UINT2 = 25
    INT2 = 26

    @property
    def bitwidth(self) -> int:
        """Bits an element takes in raw data.

        Raises:
            TypeError: strings and undefined types have no size.
        """
        if self not in _BITS:
            raise TypeError(f"elements of type {self} have no size")
        return _BITS[self]

    @property
    def itemsize(self) -> float:
        """Bytes an element takes in raw data; half of one for 4 bits."""
        return self.bitwidth / 8

    def numpy(self) -> np.dtype[Any]:
        """The numpy type, of ml_dtypes where numpy has none; objects for strings.

        Raises:
            TypeError: the type is undefined.
        """
        if self is DataType.UNDEFINED:
            raise TypeError("an undefined type has no numpy type")
        return numpy_dtype(_NUMPY.get(self) or self.name.lower())

    @classmethod
    def from_numpy(cls, dtype: np.dtype[Any]) -> DataType:
        """The element type of a numpy type.

        Raises:
            TypeError: ONNX has none for it.
        """
        if dtype.kind in "OSU":
            return cls.STRING
        found = _OF_NUMPY.get(dtype.name)
        if found is None:
            raise TypeError(f"ONNX has no element type for numpy's {dtype}")
        return found

    def __repr__(self) -> str:
        return self.name

    __str__ = __repr__


_NUMPY = {
    DataType.FLOAT: "float32",
    DataType.DOUBLE: "float64",
    DataType.FLOAT8E4M3FN: "float8_e4m3fn",
    DataType.FLOAT8E4M3FNUZ: "float8_e4m3fnuz",
    DataType.FLOAT8E5M2: "float8_e5m2",
    DataType.FLOAT8E5M2FNUZ: "float8_e5m2fnuz",
    DataType.FLOAT4E2M1: "float4_e2m1fn",
    DataType.FLOAT8E8M0: "float8_e8m0fnu",
}  # the others are called as in ONNX
_OF_NUMPY = {_NUMPY.get(one) or one.name.lower(): one for one in DataType if one is not DataType.UNDEFINED}
_BITS = {
    one: bits
    for bits, names in {
        2: "UINT2 INT2",
        4: "UINT4 INT4 FLOAT4E2M1",
        8: "UINT8 INT8 BOOL FLOAT8E4M3FN FLOAT8E4M3FNUZ FLOAT8E5M2 FLOAT8E5M2FNUZ FLOAT8E8M0",
        16: "UINT16 INT16 FLOAT16 BFLOAT16",
        32: "FLOAT INT32 UINT32",
        64: "DOUBLE INT64 UINT64 COMPLEX64",
        128: "COMPLEX128",
    }.items()
    for one in map(DataType.__getitem__, names.split())
}


class _Of(Generic[E]):
    """A type by what its elements are. Types are values: equal ones are interchangeable, none is ever changed."""

    __slots__ = ("_elem_type", "denotation")

    def __init__(self, elem_type: E, *, denotation: str | None = None) -> None:
        self._elem_type = elem_type
        self.denotation = denotation

    @property
    def elem_type(self) -> E:
        return self._elem_type

    def __hash__(self) -> int:
        return hash(repr(self))

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._elem_type == self._elem_type

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._elem_type!r})"


class TensorType(_Of[DataType]):
    """A tensor of an element type."""

    __slots__ = ()

    @property
    def dtype(self) -> DataType:
        return self._elem_type


class SparseTensorType(TensorType):
    """A sparse tensor of an element type."""

    __slots__ = ()


class _Holder(_Of["Type"]):
    """A type made of another one."""

    __slots__ = ()

    @property
    def dtype(self) -> DataType:
        """Of the tensors inside."""
        return self._elem_type.dtype


class SequenceType(_Holder):
    """A sequence of tensors, or of what else it says."""

    __slots__ = ()


class OptionalType(_Holder):
    """Something, or nothing."""

    __slots__ = ()


Type = TensorType | SequenceType | OptionalType  # a sparse tensor's is a TensorType too


class SymbolicDim:
    """An extent that is not known: a symbol, or None where not even that. Two of one symbol are equal."""

    __slots__ = ("value",)

    def __init__(self, value: str | None) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return self.value == (other.value if isinstance(other, SymbolicDim) else other)

    def __hash__(self) -> int:
        return hash(self.value)

    def __str__(self) -> str:
        return str(self.value) if self.value is not None else "?"

    def __repr__(self) -> str:
        return f"SymbolicDim({self.value!r})"


class Shape:
    """Extents: numbers, and symbols for those that are not known. Never changed."""

    __slots__ = ("_dims",)

    def __init__(self, dims: Iterable[SupportsInt | SymbolicDim | str | None]) -> None:
        self._dims = tuple(one if type(one) is int else _extent(one) for one in dims)

    @property
    def dims(self) -> tuple[int | SymbolicDim, ...]:
        return self._dims

    def rank(self) -> int:
        return len(self._dims)

    def is_static(self) -> bool:
        """Whether every extent is a number."""
        return all(isinstance(one, int) for one in self._dims)

    def numpy(self) -> tuple[int, ...]:
        """The extents as numbers.

        Raises:
            ValueError: some are not known.
        """
        known = tuple(one for one in self._dims if isinstance(one, int))
        if len(known) < len(self._dims):
            raise ValueError(f"not every extent of {self} is a number")
        return known

    def __len__(self) -> int:
        return len(self._dims)

    def __iter__(self) -> Iterator[int | SymbolicDim]:
        return iter(self._dims)

    @overload
    def __getitem__(self, index: int) -> int | SymbolicDim: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[int | SymbolicDim, ...]: ...
    def __getitem__(self, index: int | slice) -> int | SymbolicDim | tuple[int | SymbolicDim, ...]:
        return self._dims[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Iterable) and self._dims == tuple(other)

    def __hash__(self) -> int:
        return hash(self._dims)

    def __str__(self) -> str:
        return f"[{','.join(map(str, self._dims))}]"

    def __repr__(self) -> str:
        return f"Shape({list(self._dims)!r})"


def _extent(one: SupportsInt | SymbolicDim | str | None) -> int | SymbolicDim:
    if one is None or isinstance(one, str):
        return SymbolicDim(one)
    return one if isinstance(one, SymbolicDim) else int(one)
