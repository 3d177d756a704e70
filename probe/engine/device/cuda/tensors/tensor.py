"""``Tensor``: a tensor of a run, on the device, on the host or both. Copies are made when someone asks for the other side."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from probe.engine.device.cuda.errors import Missing
from probe.engine.device.cuda.tensors.formats import F32, Format, format_of_array, packed, unpacked

if TYPE_CHECKING:
    from probe.engine.device.cuda.backend import Backend
    from probe.engine.device.cuda.tensors.lying import Lying

Array = np.ndarray[Any, Any]


class Buffer:
    """Device memory; given back when nobody holds it.

    Attributes:
        imagined: there is none: it is of a run that is only planned.
    """

    __slots__ = ("_backend", "address", "imagined", "nbytes")

    def __init__(self, backend: Backend, nbytes: int) -> None:
        self._backend, self.nbytes, self.imagined = backend, nbytes, backend.imagined
        self.address = backend.allocate(nbytes)

    def __del__(self) -> None:
        if hasattr(self, "address"):
            self._backend.free(self.address)


class Origin(Protocol):
    """Told by a tensor on the host, while a run is recorded, what its values are used for (``tape.Tape``)."""

    def read(self) -> None:
        """Somebody looked at the values, and what is launched next may depend on them."""
        ...

    def uploaded(self, address: int) -> None:
        """The values were copied to the device."""
        ...


class Tensor:
    """A tensor whose values never change.

    Attributes:
        shape: elements per axis.
        format: in device memory; None for what stays on the host whatever happens (sequences, strings, float64).
        opaque: an ONNX Runtime value, for what is no array.
        origin: of values on the host that another run of the same shapes may have otherwise, while a run is recorded.
        kept: the same values in other orders, made once by whoever reads them so.
        before: the same values before they are rounded, for whoever rounds what it reads; asking for the address rounds. None: they have been.
        lies: where its elements lie in the memory of another tensor; None: in dense order in its own. Stays when it is brought into dense order,
            so that what reads it does not depend on who asked for that before.
    """

    __slots__ = (
        "_array",
        "_before",
        "_buffer",
        "_from",
        "_late",
        "format",
        "kept",
        "lies",
        "opaque",
        "origin",
        "shape",
    )

    def __init__(
        self,
        shape: tuple[int, ...],
        format: Format | None,  # noqa: A002 - the word of the room
        *,
        buffer: Buffer | None = None,
        array: Array | None = None,
        opaque: Any = None,
        origin: Origin | None = None,
        late: Callable[[], Tensor] | None = None,
        lies: Lying | None = None,
        begins: int = 0,
        before: Tensor | None = None,
    ) -> None:
        """
        Args:
            late: brings the values into dense order, or rounds them, when someone first asks for them.
            begins: at this byte of ``buffer``.
        """
        self.shape, self.format, self.opaque, self.origin = shape, format, opaque, origin
        self._buffer, self._array, self._late, self._from, self.lies = buffer, array, late, begins, lies
        self.kept: dict[str, Tensor] | None = None
        self._before = before

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

    @property
    def memory(self) -> Buffer | None:
        """On the device, in dense order; None while it is not there."""
        return self._buffer

    @property
    def begins(self) -> int:
        """At which byte of its memory."""
        return self._from

    @property
    def is_late(self) -> bool:
        """Whether asking for its address would launch something."""
        return self._buffer is None and self._late is not None

    @property
    def before(self) -> Tensor | None:
        return self._before if self._buffer is None else None

    @property
    def unrounded(self) -> Tensor | None:
        """``before``, where what is rounded is stored alike: TF32."""
        return self.before if self.before is not None and self.before.format is self.format else None

    def address(self, backend: Backend) -> int:
        """Where it lies on the device; copies it there first if need be, and anew where it only was to lie so far.

        Raises:
            Missing: it is of a run that is only planned, and a kernel is to read it.
        """
        self._settle()
        if self._buffer is not None and self._buffer.imagined and not backend.imagined:
            if self._array is None:
                raise Missing("a tensor that was only planned")
            self._buffer, self._from = None, 0
        if self._buffer is None:
            assert self._array is not None and self.format is not None
            self._buffer = Buffer(backend, self.nbytes)
            backend.upload(self._buffer.address, packed(self._array, self.format))
            if self.origin is not None:
                self.origin.uploaded(self._buffer.address)
        return self._buffer.address + self._from

    def _settle(self) -> None:
        if self.is_late and self._late is not None:
            made = self._late()
            self._buffer, self._from = made.memory, made.begins

    def settle(self, dense: Tensor) -> None:
        """In dense order it lies there: somebody has brought it there already."""
        self._buffer, self._from = dense.memory, dense.begins

    def array(self, backend: Backend) -> Array:
        """Its values; floats of any storage as float32. Nobody may write to them.

        Raises:
            CudaError: a kernel launched before failed.
        """
        if self._array is None:
            self._settle()
            assert self._buffer is not None and self.format is not None
            raw = np.empty(self.nbytes, np.uint8)
            backend.download(raw, self._buffer.address + self._from)
            self._array = unpacked(raw, self.format, self.shape)
        elif self.origin is not None:
            self.origin.read()
        return self._array

    def detached(self, backend: Backend) -> Tensor:
        """The same values on the host, of which no recording knows.

        Raises:
            CudaError: a kernel launched before failed.
        """
        if self.opaque is not None:
            return self.of(None)
        array = self._array if self._array is not None else self.array(backend)
        return Tensor(self.shape, self.format, array=array)

    @property
    def constant(self) -> Array | None:
        """Its values, if they lie on the host and are the same in every run with inputs of these shapes; else None."""
        return self._array if self.origin is None else None

    @property
    def held(self) -> Array | None:
        """Its values, if they lie on the host, whoever else may have put others there; for recording alone."""
        return self._array

    def of(self, origin: Origin | None) -> Tensor:
        """The same values on the host, from somewhere else."""
        return Tensor(self.shape, self.format, array=self._array, opaque=self.opaque, origin=origin)

    def view(self, shape: tuple[int, ...]) -> Tensor:
        """The same bytes under another shape of as many elements."""
        lies = self.lies.reshaped(shape) if self.lies is not None else None
        if lies is not None:
            return lying(lies, self.format, lambda: self.settled().view(shape))
        if self.before is not None:
            return Tensor(shape, self.format, late=lambda: self.settled().view(shape), before=self.before.view(shape))
        self._settle()
        array = None if self._array is None else self._array.reshape(shape)
        return Tensor(shape, self.format, buffer=self._buffer, array=array, origin=self.origin, begins=self._from)

    def settled(self) -> Tensor:
        """In dense order, whatever it was."""
        self._settle()
        return Tensor(self.shape, self.format, buffer=self._buffer, begins=self._from)

    def part(self, shape: tuple[int, ...], nbytes: int) -> Tensor:
        """What lies in dense order so many bytes behind the beginning of a dense tensor."""
        if self.before is not None:
            assert self.format is not None and self.before.format is not None
            before = self.before.part(shape, nbytes // self.format.bytes * self.before.format.bytes)
            return Tensor(shape, self.format, late=lambda: self.settled().part(shape, nbytes), before=before)
        assert self._buffer is not None
        return Tensor(shape, self.format, buffer=self._buffer, begins=self._from + nbytes)


def lying(lies: Lying, format: Format | None, late: Callable[[], Tensor]) -> Tensor:  # noqa: A002
    """A tensor that lies in the memory of another one: at its place if it lies there in dense order.

    Args:
        late: brings it into dense order.
    """
    if lies.in_order:
        return lies.base.part(lies.shape, lies.shifted_bytes)
    return Tensor(lies.shape, format, late=late, lies=lies)


def host_tensor(array: Array, format: Format | None = None) -> Tensor:  # noqa: A002
    """A tensor of an array; on the device it will lie in ``format``, the array's own when left out."""
    own = format_of_array(array)
    if own is F32 and format is not None:
        own = format
    return Tensor(array.shape, own, array=array)
