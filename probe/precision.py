"""The one table of number formats: names, limits, roundoff and numpy twins.

Type names are numpy's (``float32``, ``bfloat16``, ``float8_e4m3fn``, ``int4``, ``bool``, ``string``); precision names are the short
ones users type (``fp32 tf32 fp16 bf16``). ml_dtypes is imported only when one of its types is met.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from probe.errors import InputError

Kind = Literal["float", "int", "bool", "complex", "string"]


@dataclass(frozen=True, slots=True)
class Precision:
    """A storage format. ``roundoff`` is half the distance from 1.0 to the next number (unit roundoff, round to nearest)."""

    name: str  # what users type
    dtype: str  # numpy name of the stored type
    bits: int  # of storage
    mantissa_bits: int  # explicit
    max: float  # largest finite
    smallest_normal: float
    smallest_subnormal: float

    @property
    def roundoff(self) -> float:
        return 2.0 ** -(self.mantissa_bits + 1)


PRECISIONS: dict[str, Precision] = {
    p.name: p
    for p in (
        Precision("fp64", "float64", 64, 52, 1.7976931348623157e308, 2.0**-1022, 2.0**-1074),
        Precision("fp32", "float32", 32, 23, 3.4028234663852886e38, 2.0**-126, 2.0**-149),
        Precision("tf32", "float32", 32, 10, 3.4028234663852886e38, 2.0**-126, 2.0**-136),
        Precision("fp16", "float16", 16, 10, 65504.0, 2.0**-14, 2.0**-24),
        Precision("bf16", "bfloat16", 16, 7, 3.3895313892515355e38, 2.0**-126, 2.0**-133),
    )
}

_PRECISION_OF_DTYPE = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}

NUMPY_NATIVE = frozenset(
    "float64 float32 float16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool complex64 complex128".split()
)
ML_DTYPES = frozenset(
    "bfloat16 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn "
    "int4 uint4 int2 uint2".split()
)


def precision_of(dtype: str) -> str | None:
    """Precision name a stored type stands for (``float16`` -> ``fp16``); None for types that are not one of the five."""
    return _PRECISION_OF_DTYPE.get(dtype)


@cache
def numpy_dtype(name: str) -> np.dtype[Any]:
    """numpy dtype of a type name; ``string`` is the object dtype.

    Raises:
        InputError: the name is not a type probe stores.
    """
    if name in NUMPY_NATIVE:
        return np.dtype(name)
    if name in ML_DTYPES:
        import ml_dtypes  # 0.07 s: only when such a type is met

        return np.dtype(getattr(ml_dtypes, name))
    if name == "string":
        return np.dtype(object)
    raise InputError(
        f"unknown tensor type {name!r}", hint=f"types: {', '.join(sorted(NUMPY_NATIVE | ML_DTYPES))}, string"
    )


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The name ``numpy_dtype`` takes; object and text arrays are ``string``.

    Raises:
        InputError: structured, datetime or other types that no tensor has.
    """
    if dtype.kind in "OSUT":
        return "string"
    name = dtype.name
    if name in NUMPY_NATIVE or name in ML_DTYPES:
        return name
    raise InputError(f"a tensor cannot have the numpy type {dtype}")


def kind_of(name: str) -> Kind:
    """``float | int | bool | complex | string`` of a type name. Signed and unsigned integers are one kind."""
    if name == "bool":
        return "bool"
    if name == "string":
        return "string"
    if name.startswith("complex"):
        return "complex"
    return "int" if name.startswith(("int", "uint")) else "float"


def round_to(x: np.ndarray[Any, Any], precision: str) -> np.ndarray[Any, Any]:
    """Round a float array to nearest even into ``precision`` and return it in its own type, as ONNX Cast there and back would.

    fp16 overflow gives Inf and subnormals are kept. tf32 keeps 10 mantissa bits of float32, integers and bools are returned as they are.
    """
    if x.dtype.kind in "iub" or precision == "fp64":
        return x
    if precision == "tf32":
        return _round_mantissa_to_10_bits(x.astype(np.float32)).astype(x.dtype)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return x.astype(numpy_dtype(PRECISIONS[precision].dtype)).astype(x.dtype)


def _round_mantissa_to_10_bits(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    bits = np.atleast_1d(x).view(np.uint32).copy()
    finite = np.isfinite(x)
    odd = (bits >> 13) & 1
    rounded = (bits + 0xFFF + odd) & np.uint32(0xFFFFE000)
    # A mask of -3.4e38 must stay finite: tf32 has float32's exponent and TensorRT's conversion saturates to its largest value.
    overflows = finite & ~np.isfinite(rounded.view(np.float32))
    rounded[overflows] = bits[overflows] & 0xFFFFE000
    return np.where(finite, rounded, bits).view(np.float32).reshape(x.shape)
