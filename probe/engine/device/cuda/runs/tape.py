"""``Tape``: a backend that does what it is asked and notes it down, so that the run can be repeated without asking again."""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cuda.backend import Argument, Backend, Kernel, Shape
from probe.engine.device.cuda.passing import Passing
from probe.engine.device.cuda.runs.recording import (
    Compared,
    Computed,
    Downloaded,
    Fixed,
    Hosted,
    Launched,
    Place,
    Recording,
    Step,
    Stored,
    Uploaded,
)
from probe.engine.device.cuda.tensors.formats import U8, unpacked
from probe.engine.device.cuda.tensors.tensor import Tensor

if TYPE_CHECKING:
    from probe.engine.layers import Layer
    from probe.engine.rounding import Plan

Array = np.ndarray[Any, Any]
Values = dict[int, Tensor]


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a recording: steps, slots and constants so far."""

    steps: int
    slots: int
    kept: int


class _Origin:
    """A host value of a recording."""

    __slots__ = ("host", "tape")

    def __init__(self, tape: Tape, host: int) -> None:
        self.tape, self.host = tape, host

    def read(self) -> None:
        self.tape.compared(self.host)

    def uploaded(self, address: int) -> None:
        self.tape.uploaded(self.host, address)


class Tape(Passing):
    """Records one run.

    Memory that an upload of constant values fills is kept for as long as the recording lives; all other memory is the run's own.

    Args:
        backend: what really does it.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._made: Recording | None = Recording()
        self._live: dict[int, int] = {}  # address -> slot, of memory that is allocated now
        self._starts: list[int] | None = None  # the addresses, sorted; None when out of date
        self._arrays: dict[int, Array] = {}  # of host values that may be looked at
        self._looked: set[int] = set()
        self._kept: set[int] = set()  # addresses held for the recording
        self._orphans: list[int] = []  # those that nobody else holds any more
        self._stage = 0
        self._addresses: list[int] = []  # of all slots

    def finish(self, outputs: Mapping[str, Place], *, checks_faults: bool) -> Recording:
        """The recording; from here on nothing is noted."""
        recording, self._made = self._recording, None
        recording.outputs, recording.checks_faults = dict(outputs), checks_faults
        recording.release = self._release
        self._live.clear()
        self._arrays.clear()
        return recording

    def begin(self) -> None:
        """What comes next is another stage: it writes no memory that was allocated before."""
        self._stage += 1

    def mark(self) -> Mark:
        """Where the recording is now."""
        return Mark(len(self._recording.steps), len(self._recording.slots), len(self._kept))

    def since(self, mark: Mark) -> tuple[list[Step], int, list[int]] | None:
        """What was noted since a mark: steps, the first slot, bytes of all new slots; None when constants were copied to the device meanwhile,
        which go with this recording."""
        if len(self._kept) != mark.kept:
            return None
        return self._recording.steps[mark.steps :], mark.slots, self._recording.slots[mark.slots :]

    def slot(self, address: int) -> int:
        """The slot of memory that begins there."""
        return self._live[address]

    def launch_again(self, step: Launched, pointers: tuple[tuple[int, int, int], ...]) -> None:
        """A launch as it was recorded before, its pointers now into slots of this recording."""
        made = Launched(step.source, step.shape, step.arguments, pointers, step.what, self._stage)
        one = made.bound(self._addresses)
        self.backend.launch(one.source, one.shape, one.arguments, one.what)
        self._recording.steps.append(made)

    def abandon(self) -> None:
        """The run broke off: nothing is noted or held any more."""
        self._made = None
        self._release()

    def _release(self) -> None:
        self._kept.clear()
        for address in self._orphans:
            self.backend.free(address)
        self._orphans.clear()

    @property
    def _recording(self) -> Recording:
        assert self._made is not None, "the recording is finished"
        return self._made

    def fixed(self, tensors: Iterable[Tensor]) -> bool:
        """Whether tensors are the same in every run with inputs of these shapes."""
        known = [tensor.lies.base if tensor.lies is not None else tensor for tensor in tensors]
        return all(not tensor.is_late and isinstance(self.place(tensor), Fixed) for tensor in known)

    def keep(self, tensors: Iterable[Tensor]) -> None:
        """Tensors made outside the recording, which its launches read."""
        self._recording.kept += tensors

    # --- values on the host ------------------------------------------------------------------------------------------

    def fed(self, name: str, tensor: Tensor) -> Tensor:
        """An input of the network."""
        made = self._hosted(tensor)
        self._recording.fed[name] = self._recording.hosts - 1
        return made

    def _hosted(self, tensor: Tensor) -> Tensor:
        host = self._recording.hosts
        self._recording.hosts += 1
        if tensor.held is not None:
            self._arrays[host] = tensor.held
        return tensor.of(_Origin(self, host))

    def compared(self, host: int) -> None:
        """An operator looked at a host value."""
        if self._made is not None and host not in self._looked:
            self._looked.add(host)
            self._made.steps.append(Compared(host, self._arrays[host].copy()))

    def uploaded(self, host: int, address: int) -> None:
        """A host value was copied to the device."""
        if self._made is not None:
            self._kept.discard(address)
            self._made.steps.append(Uploaded(host, self._live[address]))

    def place(self, tensor: Tensor) -> Place:
        """Where a tensor is."""
        if tensor.origin is not None:
            assert isinstance(tensor.origin, _Origin)
            return Hosted(tensor.origin.host, tensor.shape)
        if tensor.held is not None or tensor.opaque is not None:
            return Fixed(tensor)
        found = self._found(tensor.address(self))
        if found is None or tensor.format is None:
            return Fixed(tensor)
        return Stored(*found, tensor.shape, tensor.format)

    def host_step(
        self, layer: Layer, plan: Plan, reads: Values, compute: Callable[[Values], Values], *, interior: bool = False
    ) -> Values:
        """A layer that is computed on the host.

        Args:
            interior: what stays inside the layer is made, too.
            compute: what it makes, on the host, from tensors on the host.
        """
        places = tuple((key, self._on_host(tensor)) for key, tensor in reads.items())
        made = compute({key: self._given(place, reads[key]) for key, place in places})
        handed = {key: self._hosted(tensor) for key, tensor in made.items()}
        first = self._recording.hosts - len(made)
        noted = tuple((key, first + at, tensor) for at, (key, tensor) in enumerate(made.items()))
        self._recording.steps.append(Computed(layer, plan, places, noted, interior))
        return handed

    def _on_host(self, tensor: Tensor) -> Fixed | Hosted:
        place = self.place(tensor)
        if not isinstance(place, Stored):
            return place
        raw = np.empty(tensor.nbytes, np.uint8)
        self.backend.download(raw, tensor.address(self))
        host = self._recording.hosts
        self._hosted(Tensor(place.shape, place.format, array=unpacked(raw, place.format, place.shape)))
        self._recording.steps.append(Downloaded(place, host))
        return Hosted(host, place.shape)

    def _given(self, place: Fixed | Hosted, tensor: Tensor) -> Tensor:
        if isinstance(place, Fixed):
            return place.tensor
        if tensor.opaque is not None:
            return tensor.of(None)
        array = self._arrays[place.host].reshape(place.shape)
        return Tensor(place.shape, tensor.format, array=array)

    # --- as a backend ------------------------------------------------------------------------------------------------

    def allocate(self, nbytes: int) -> int:
        """As ``Backend.allocate``."""
        address = self.backend.allocate(nbytes)
        if self._made is not None:
            self._live[address] = len(self._made.slots)
            self._made.slots.append(nbytes)
            self._made.makers.append(self._stage)
            self._addresses.append(address)
            self._starts = None
        return address

    def free(self, address: int) -> None:
        """As ``Backend.free``; what the recording holds is kept until it goes."""
        if address in self._kept:
            self._orphans.append(address)
            return
        if self._live.pop(address, None) is not None:
            self._starts = None
        self.backend.free(address)

    def upload(self, address: int, array: Array) -> None:
        """As ``Backend.upload``. Constant values, unless ``uploaded`` says otherwise."""
        self.backend.upload(address, array)
        if self._made is not None and address in self._live:
            self._kept.add(address)

    def download(self, array: Array, address: int, *, wait: bool = True) -> None:
        """As ``Backend.download``. Somebody looks: what follows holds while the same bytes are there."""
        self.backend.download(array, address, wait=wait)
        found = self._found(address) if self._made is not None else None
        if found is not None:
            host = self._recording.hosts
            raw = array.reshape(-1).view(np.uint8)
            self._hosted(Tensor(raw.shape, U8, array=raw))
            self._recording.steps.append(Downloaded(Stored(*found, raw.shape, U8), host))
            self.compared(host)

    def launch(self, source: Kernel, shape: Shape, arguments: Sequence[Argument], what: str) -> None:
        """As ``Backend.launch``."""
        self.backend.launch(source, shape, arguments, what)
        if self._made is None:
            return
        pointers = []
        for position, one in enumerate(arguments):
            if isinstance(one, ctypes.c_void_p) and one.value is not None:
                found = self._found(one.value)
                if found is not None:
                    pointers.append((position, *found))
        self._made.steps.append(Launched(source, shape, tuple(arguments), tuple(pointers), what, self._stage))

    def _found(self, address: int) -> tuple[int, int] | None:
        """Slot and offset of an address in memory of the run; None for all other memory."""
        start = address
        if start not in self._live:
            if self._starts is None:
                self._starts = sorted(self._live)
            at = bisect_right(self._starts, address) - 1
            if at < 0:
                return None
            start = self._starts[at]
        slot = self._live[start]
        if start in self._kept or address >= start + max(self._recording.slots[slot], 1):
            return None
        return slot, address - start
