"""``Tensor``: a tensor of a run, on the device, on the host or both. Copies are made when someone asks for the other side."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cuda.formats import F32, Format, format_of_array, packed, unpacked

if TYPE_CHECKING:
    from probe.engine.device.cuda.backend import Backend

Array = np.ndarray[Any, Any]


class Buffer:
    """Device memory; given back when nobody holds it."""

    __slots__ = ("_backend", "address", "nbytes")

    def __init__(self, backend: Backend, nbytes: int) -> None:
        self._backend, self.nbytes = backend, nbytes
        self.address = backend.allocate(nbytes)

    def __del__(self) -> None:
        if hasattr(self, "address"):
            self._backend.free(self.address)


class Tensor:
    """A tensor whose values never change.

    Attributes:
        shape: elements per axis.
        format: in device memory; None for what stays on the host whatever happens (sequences, strings, float64).
        opaque: an ONNX Runtime value, for what is no array.
    """

    __slots__ = ("_array", "_buffer", "format", "opaque", "shape")

    def __init__(
        self,
        shape: tuple[int, ...],
        format: Format | None,  # noqa: A002 - the word of the room
        *,
        buffer: Buffer | None = None,
        array: Array | None = None,
        opaque: Any = None,
    ) -> None:
        self.shape, self.format, self.opaque = shape, format, opaque
        self._buffer, self._array = buffer, array

    def __repr__(self) -> str:
        place = "+".join(side for side, held in (("device", self._buffer), ("host", self._array)) if held is not None)
        return f"Tensor({self.format.name if self.format else 'opaque'}{list(self.shape)}, {place})"

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """On the device."""
        return self.size * self.format.bytes if self.format else 0

    @property
    def on_host(self) -> bool:
        return self._array is not None

    def address(self, backend: Backend) -> int:
        """Where it lies on the device; copies it there first if need be."""
        if self._buffer is None:
            assert self._array is not None and self.format is not None
            self._buffer = Buffer(backend, self.nbytes)
            backend.upload(self._buffer.address, packed(self._array, self.format))
        return self._buffer.address

    def array(self, backend: Backend) -> Array:
        """Its values; floats of any storage as float32. Nobody may write to them.

        Raises:
            CudaError: a kernel launched before failed.
        """
        if self._array is None:
            assert self._buffer is not None and self.format is not None
            raw = np.empty(self.nbytes, np.uint8)
            backend.download(raw, self._buffer.address)
            self._array = unpacked(raw, self.format, self.shape)
        return self._array

    def view(self, shape: tuple[int, ...]) -> Tensor:
        """The same bytes under another shape of as many elements."""
        array = None if self._array is None else self._array.reshape(shape)
        return Tensor(shape, self.format, buffer=self._buffer, array=array)


def host_tensor(array: Array, format: Format | None = None) -> Tensor:  # noqa: A002
    """A tensor of an array; on the device it will lie in ``format``, the array's own when left out."""
    own = format_of_array(array)
    if own is F32 and format is not None:
        own = format
    return Tensor(array.shape, own, array=array)
