"""DLPack: arrays on the device of others who do not speak ``__cuda_array_interface__``, and ours for them. dmlc/dlpack, dlpack.h, versions 0.x and 1.x.

A capsule that is only looked at is not consumed: whoever made it takes back what it holds when the capsule goes, and his array keeps the memory.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

CUDA, CUDA_MANAGED = 2, 13  # DLDeviceType
_READ_ONLY = 1  # DLPACK_FLAG_BITMASK_READ_ONLY
_OLD, _NEW = b"dltensor", b"dltensor_versioned"  # what a capsule is called before it is consumed
_KINDS = {0: "i", 1: "u", 2: "f", 5: "c", 6: "b"}  # DLDataTypeCode
_CODES = {kind: code for code, kind in _KINDS.items()}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64),
    )  # fmt: skip


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64), ("tensor", _Tensor),
    )  # fmt: skip


_api = ctypes.pythonapi
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(("PyCapsule_New", _api))
# Of a capsule that is going: nobody may hold a reference to it any more.
_going_is = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_going_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))

_lent: dict[int, Any] = {}  # address of a struct -> what must live until somebody deletes it


@dataclass(frozen=True, slots=True)
class Described:
    """What a capsule says.

    Attributes:
        strides: in elements; None for C order.
        keeps: the capsule; what it says holds as long as this.
    """

    device_type: int
    device: int
    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None
    dtype: np.dtype[Any]
    read_only: bool
    keeps: Any


def lies_on(value: Any) -> tuple[int, int] | None:
    """Type and number of the device that an array with ``__dlpack__`` lies on; None for what has none."""
    said = getattr(value, "__dlpack_device__", None)
    if isinstance(value, np.ndarray) or said is None:
        return None
    kind, number = said()
    return int(kind), int(number)


def described(name: str, value: Any, stream: int | None) -> Described:
    """What ``value.__dlpack__()`` says. Whoever wrote it is waited for on ``stream``, by its producer; None: not on a device.

    Raises:
        InputError: the producer does not hand it out, or its type has no name in numpy.
    """
    try:
        try:
            capsule = value.__dlpack__(stream=stream, max_version=(1, 0))
        except TypeError:  # of before version 1
            capsule = value.__dlpack__(stream=stream)
    except (BufferError, RuntimeError) as error:
        raise InputError(f"{name!r} is not handed out by its __dlpack__: {error}") from error
    if _is_valid(capsule, _NEW):
        held = _Versioned.from_address(_pointer(capsule, _NEW))
        if held.major != 1:
            raise InputError(f"{name!r}: version {held.major} of DLPack is not known", hint="update probe")
        read_only = bool(held.flags & _READ_ONLY)
    elif _is_valid(capsule, _OLD):
        held, read_only = _Managed.from_address(_pointer(capsule, _OLD)), False
    else:
        raise InputError(f"{name!r}: its __dlpack__ gives no DLPack capsule")
    tensor = held.tensor
    if tensor.code not in _KINDS or tensor.lanes != 1 or tensor.bits % 8:
        raise InputError(
            f"{name!r} has elements that numpy has no name for (DLPack code {tensor.code}, {tensor.bits} bits)"
        )
    kind = _KINDS[tensor.code]
    return Described(
        tensor.device_type, tensor.device_id, (tensor.data or 0) + tensor.byte_offset, tuple(tensor.shape[: tensor.ndim]),
        tuple(tensor.strides[: tensor.ndim]) if tensor.strides else None,
        np.dtype(np.bool_) if kind == "b" else np.dtype(f"{kind}{tensor.bits // 8}"), read_only, capsule,
    )  # fmt: skip


def capsule_of(
    owner: Any,
    address: int,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    *,
    versioned: bool,
    device: tuple[int, int] = (CUDA, 0),
) -> Any:
    """A capsule of memory in C order; ``owner`` lives until its consumer is done with it.

    Args:
        versioned: as consumers of version 1 take it.
    """
    extents = (ctypes.c_int64 * max(len(shape), 1))(*shape)
    steps = [1] * len(shape)
    for axis in reversed(range(len(shape) - 1)):
        steps[axis] = steps[axis + 1] * shape[axis + 1]
    strides = (ctypes.c_int64 * max(len(shape), 1))(*steps)
    tensor = _Tensor(
        address, *device, len(shape), _CODES[dtype.kind], 8 * dtype.itemsize, 1, ctypes.cast(extents, ctypes.POINTER(ctypes.c_int64)),
        ctypes.cast(strides, ctypes.POINTER(ctypes.c_int64)), 0,
    )  # fmt: skip
    deleter = ctypes.cast(_delete, ctypes.c_void_p)
    held = _Versioned(1, 0, None, deleter, 0, tensor) if versioned else _Managed(tensor, None, deleter)
    where = ctypes.addressof(held)
    _lent[where] = held, extents, strides, owner
    return _new(where, _NEW if versioned else _OLD, ctypes.cast(_let_go, ctypes.c_void_p))


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _delete(where: int) -> None:
    _lent.pop(where, None)


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _let_go(capsule: int) -> None:
    """A capsule that nobody consumed is going."""
    for name in (_NEW, _OLD):
        if _going_is(capsule, name):
            _lent.pop(_going_pointer(capsule, name), None)
