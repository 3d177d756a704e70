"""Arrays of others that lie on the device, and ours for others: by ``__cuda_array_interface__``, which torch, CuPy, Numba and JAX speak, or by
``__dlpack__``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cuda.runs import dlpack
from probe.engine.device.cuda.tensors.formats import unpacked
from probe.errors import InputError

if TYPE_CHECKING:
    from probe.engine.device.cuda.backend import Backend
    from probe.engine.device.cuda.tensors.formats import Format
    from probe.engine.device.cuda.tensors.tensor import Buffer

Array = np.ndarray[Any, Any]
DEFAULT_STREAM = 1  # handle of the stream that who names none works on


@dataclass(frozen=True, slots=True)
class Given:
    """An array of somebody else's on the device, in C order.

    Attributes:
        stream: on which it is written; None where it does not say.
        read_only: nothing may be copied there.
        keeps: what holds the memory, where the array itself does not.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: int | None
    read_only: bool = False
    keeps: Any = None

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def must_be(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Raises:
        InputError: it is of another shape or type than output ``name``, or may not be written to.
        """
        if self.read_only:
            raise InputError(f"output {name!r}: out may not be written to")
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


def given(name: str, value: Any, stream: int) -> Given | None:
    """What lies on the device; None for what lies on the host.

    Args:
        stream: on which it will be read, for a producer that speaks ``__dlpack__``: he sees to it that it is written by then.

    Raises:
        InputError: it is not in C order, masked, on another device, or not handed out.
    """
    try:
        said = getattr(value, "__cuda_array_interface__", None)
    except RuntimeError as error:  # torch, of tensors that need a gradient
        raise InputError(f"{name!r} on the device is not handed out: {error}") from error
    if said is not None:
        shape, dtype, strides = tuple(said["shape"]), np.dtype(said["typestr"]), said.get("strides")
        if said.get("mask") is not None or not in_order(shape, strides, dtype.itemsize):
            raise _out_of_order(name)
        address, read_only = said["data"]
        return Given(int(address or 0), shape, dtype, said.get("stream"), bool(read_only))
    where = dlpack.lies_on(value)
    if where is None or where[0] not in (dlpack.CUDA, dlpack.CUDA_MANAGED):
        return None
    if where[1] != 0:
        raise InputError(f"{name!r} lies on device {where[1]}; the network runs on the first")
    one = dlpack.described(name, value, stream or DEFAULT_STREAM)
    if not in_order(one.shape, one.strides, 1):
        raise _out_of_order(name)
    return Given(one.address, one.shape, one.dtype, stream or DEFAULT_STREAM, one.read_only, one.keeps)


def in_order(shape: tuple[int, ...], strides: tuple[int, ...] | None, step: int) -> bool:
    """Whether elements lie in C order, ``step`` from one to the next."""
    if strides is None or 0 in shape:
        return True
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent != 1 and stride != step:
            return False
        step *= extent
    return True


def _out_of_order(name: str) -> InputError:
    return InputError(f"{name!r} on the device is not in C order", hint="torch: TENSOR.contiguous()")


class DeviceArray:
    """An output that stays on the device, for whoever reads ``__cuda_array_interface__`` (``torch.as_tensor(it, device="cuda")``) or ``__dlpack__``
    (``torch.from_dlpack(it)``).

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
            "data": (self._buffer.address if self.nbytes else 0, False), "stream": self._backend.handle or DEFAULT_STREAM,
        }  # fmt: skip

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, 0

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule; what is asked for on ``stream`` from now on finds the values there (None: the default stream; -1: who asks has seen to it)."""
        if copy or (dl_device is not None and tuple(dl_device) != self.__dlpack_device__()):
            raise BufferError("an output on the device is handed out as it lies there")
        self._backend.enter()
        if stream != -1 and (stream or DEFAULT_STREAM) != (self._backend.handle or DEFAULT_STREAM):
            self._backend.beside(stream or DEFAULT_STREAM).wait_for(self._backend.handle)
        address = self._buffer.address if self.nbytes else 0
        return dlpack.capsule_of(
            self, address, self.shape, self.dtype, versioned=max_version is not None and max_version[0] >= 1
        )

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
