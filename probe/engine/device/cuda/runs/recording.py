"""``Recording``: what one run did, in terms that do not depend on where its tensors lay or what its inputs held.

Values on the host that may differ from run to run have a number each (``hosts``); memory allocated in the run has a number each
(``slots``). Everything else - weights, shapes, index lists made from shapes - is the same in every run and stands in the recording itself.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from probe.engine.device.cuda.backend import Argument, Kernel, Launch, Shape
from probe.engine.device.cuda.tensors.formats import Format
from probe.engine.device.cuda.tensors.tensor import Tensor
from probe.engine.plan.memory import Lifetime

if TYPE_CHECKING:
    from probe.engine.layers import Layer
    from probe.engine.rounding import Plan

Array = np.ndarray[Any, Any]


# --- where a tensor is ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same in every run."""

    tensor: Tensor


@dataclass(frozen=True, slots=True)
class Hosted:
    """On the host, under another shape perhaps."""

    host: int
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """In memory of the run, ``offset`` bytes behind its slot's beginning."""

    slot: int
    offset: int
    shape: tuple[int, ...]
    format: Format


Place = Fixed | Hosted | Stored


# --- what was done -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)  # not frozen, which takes three times as long to make: a run is hundreds of these
class Launched:
    """A kernel; nobody changes one.

    Attributes:
        pointers: which arguments point into memory of the run: position, slot, offset in bytes.
        stage: launches of one stage run one behind the other; memory allocated in a stage is written by no other.
    """

    source: Kernel
    shape: Shape
    arguments: tuple[Argument, ...]
    pointers: tuple[tuple[int, int, int], ...]
    what: str
    stage: int

    @property
    def slots(self) -> Iterator[int]:
        return (slot for _, slot, _ in self.pointers)

    def bound(self, addresses: list[int]) -> Launch:
        """The launch with its slots at ``addresses``."""
        arguments = list(self.arguments)
        for position, slot, offset in self.pointers:
            moved = getattr(
                arguments[position], "moved", ctypes.c_void_p
            )  # an address that says more than where (maps.py)
            arguments[position] = moved(addresses[slot] + offset)
        return Launch(self.source, self.shape, arguments, self.what)


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A host value was copied into a slot."""

    host: int
    slot: int

    @property
    def slots(self) -> Iterator[int]:
        yield self.slot


@dataclass(frozen=True, slots=True)
class Downloaded:
    """Memory of the run was copied into a new host value."""

    place: Stored
    host: int

    @property
    def slots(self) -> Iterator[int]:
        yield self.place.slot


@dataclass(frozen=True, slots=True)
class Compared:
    """What was launched afterwards holds only while a host value is this one."""

    host: int
    expected: Array
    slots = ()


@dataclass(frozen=True, slots=True)
class Computed:
    """A layer was computed on the host.

    Attributes:
        reads: by ``id`` of the value.
        made: ``id`` of the value, host value, and the tensor of the recorded run, for its shape.
        interior: what stays inside the layer is made, too.
    """

    layer: Layer
    plan: Plan
    reads: tuple[tuple[int, Fixed | Hosted], ...]
    made: tuple[tuple[int, int, Tensor], ...]
    interior: bool = False
    slots = ()


Step = Launched | Uploaded | Downloaded | Compared | Computed


@dataclass(slots=True)
class Recording:
    """One run.

    Attributes:
        slots: bytes of each piece of memory that the run allocated.
        makers: the stage in which it did.
        hosts: how many host values there are.
        fed: the network's inputs: name -> host value.
        outputs: of the network, by name.
        watched: tensors that are handed out: where they lie nothing else does, to the end.
        within: slots that lie inside others: the other, bytes from its beginning.
        kept: tensors that launches read and no run makes.
        checks_faults: kernels may have found an index out of range.
        release: gives back what is held for the recording.
    """

    slots: list[int] = field(default_factory=list)
    makers: list[int] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    hosts: int = 0
    fed: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, Place] = field(default_factory=dict)
    watched: list[Place] = field(default_factory=list)
    within: dict[int, tuple[int, int]] = field(default_factory=dict)
    kept: list[Tensor] = field(default_factory=list)
    checks_faults: bool = False
    release: Callable[[], None] | None = None

    def __del__(self) -> None:
        if self.release is not None:
            self.release()

    @property
    def launches(self) -> int:
        return sum(isinstance(step, Launched) for step in self.steps)

    def pieces(self) -> list[list[Launched] | Uploaded | Downloaded | Compared | Computed]:
        """The steps in order, launches between two steps on the host together; without what is done before everything else: feeding, and
        looking at what is fed."""
        fed = set(self.fed.values())
        found: list[list[Launched] | Uploaded | Downloaded | Compared | Computed] = []
        for step in self.steps:
            if isinstance(step, Launched):
                if not found or not isinstance(found[-1], list):
                    found.append([])
                found[-1].append(step)  # pyright: ignore[reportAttributeAccessIssue] - a list, as was just seen to
            elif not (isinstance(step, (Uploaded, Compared)) and step.host in fed):
                found.append(step)
        return found

    def root(self, slot: int) -> int:
        """The slot that one lies in and that lies in no other: itself, mostly."""
        while slot in self.within:
            slot = self.within[slot][0]
        return slot

    def lifetimes(self, moments: Mapping[int, int]) -> dict[int, Lifetime]:
        """Of every slot that is used and lies in no other, which lives as long as any that lies in it. Inputs live from the beginning to the end, so that a run can be repeated on them; outputs, and what is handed
        out, to the end.

        Args:
            moments: when a step happens, by its ``id``; 0 where it is not named.
        """
        fed, end = set(self.fed.values()), max(moments.values(), default=0) + 1
        whole = {step.slot for step in self.steps if isinstance(step, Uploaded) and step.host in fed}
        first: dict[int, int] = dict.fromkeys(whole, 0)
        last: dict[int, int] = {}
        for step in self.steps:
            moment = moments.get(id(step), 0)
            for slot in map(self.root, step.slots):
                first[slot] = min(first.get(slot, moment), moment)
                last[slot] = max(last.get(slot, moment), moment)
        last.update(dict.fromkeys(whole, end))
        places = (*self.outputs.values(), *self.watched)
        last.update({self.root(place.slot): end for place in places if isinstance(place, Stored)})
        return {slot: Lifetime(self.slots[slot], first[slot], last[slot]) for slot in first}
