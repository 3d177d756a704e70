"""Arrays of others that lie on the device, and ours for others: by ``__cuda_array_interface__``, which torch, CuPy, Numba and JAX speak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cuda.tensors.formats import unpacked
from probe.errors import InputError

if TYPE_CHECKING:
    from probe.engine.device.cuda.backend import Backend
    from probe.engine.device.cuda.tensors.formats import Format
    from probe.engine.device.cuda.tensors.tensor import Buffer

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Given:
    """An array of somebody else's on the device, in C order.

    Attributes:
        stream: on which it is written; None where it does not say.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: int | None

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def must_be(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Raises:
        InputError: it is of another shape or type than output ``name``.
        """
        if (self.shape, self.dtype) != (shape, dtype):
            raise InputError(f"output {name!r} is {dtype}{list(shape)}; out is {self.dtype}{list(self.shape)}")

    def fill(self, backend: Backend, name: str, array: Array) -> None:
        """Copy an output there that was made on the host.

        Raises:
            InputError: as ``must_be``.
        """
        self.must_be(name, array.shape, array.dtype)
        backend.upload(self.address, np.ascontiguousarray(array))

    def like(self) -> Array:
        """An array of its shape and type, of zeros that take no memory."""
        return np.broadcast_to(np.zeros((), self.dtype), self.shape)


def given(name: str, value: Any) -> Given | None:
    """What lies on the device; None for what lies on the host.

    Raises:
        InputError: it is not in C order, or masked.
    """
    said = getattr(value, "__cuda_array_interface__", None)
    if said is None:
        return None
    shape, dtype = tuple(said["shape"]), np.dtype(said["typestr"])
    strides, expected = said.get("strides"), 1
    in_order = True
    for extent, stride in zip(reversed(shape), reversed(strides or ()), strict=False):
        in_order &= extent == 1 or stride == expected * dtype.itemsize
        expected *= extent
    if said.get("mask") is not None or (strides is not None and not in_order and 0 not in shape):
        raise InputError(f"{name!r} on the device is not in C order", hint="torch: TENSOR.contiguous()")
    return Given(int(said["data"][0] or 0), shape, dtype, said.get("stream"))


class DeviceArray:
    """An output that stays on the device, for whoever reads ``__cuda_array_interface__`` (``torch.as_tensor(it, device="cuda")``).

    Attributes:
        dtype: of its elements; half precision where it is stored so.
    """

    def __init__(self, buffer: Buffer, shape: tuple[int, ...], form: Format, backend: Backend) -> None:
        self._buffer, self._format, self._backend = buffer, form, backend
        self.shape, self.dtype = shape, stored_dtype(form)
        self.nbytes = int(np.prod(shape, dtype=np.int64)) * form.bytes

    @property
    def address(self) -> int:
        return self._buffer.address

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3, "shape": self.shape, "typestr": self.dtype.str, "strides": None,
            "data": (self._buffer.address if self.nbytes else 0, False), "stream": self._backend.handle or 1,
        }  # fmt: skip

    def array(self) -> Array:
        """Its values on the host; waits for them."""
        self._backend.enter()
        raw = np.empty(self.nbytes, np.uint8)
        self._backend.download(raw, self._buffer.address)
        return unpacked(raw, self._format, self.shape)


def stored_dtype(form: Format) -> np.dtype[Any]:
    """Of elements as they lie on the device; outputs are never bfloat16."""
    return np.dtype(np.float16) if form.name == "f16" else form.dtype


def handle_of(stream: Any) -> int:
    """Of a CUDA stream: an object with ``__cuda_stream__`` (cuda.core, torch), or the number itself.

    Raises:
        InputError: it is neither.
    """
    said: Any = getattr(stream, "__cuda_stream__", None)
    if said is not None:
        pair: Any = said() if callable(said) else said
        version, handle = pair
        if version != 0:
            raise InputError(f"version {version} of __cuda_stream__ is not known", hint="update probe")
        return int(handle)
    number = stream if isinstance(stream, int) else getattr(stream, "cuda_stream", None)  # torch before 2.9
    if number is None:
        raise InputError(
            f"not a CUDA stream: {type(stream).__name__}", hint="an object with __cuda_stream__, or its handle"
        )
    return int(number)
