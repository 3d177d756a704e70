"""``WatchedRuns``: runs whose tensors are handed out, repeated as they were recorded: every tensor at a place of its own until nobody holds it."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from probe.engine.device.cuda.errors import OutOfMemory
from probe.engine.device.cuda.runs.prepared import Compute, Diverged, Prepared
from probe.engine.device.cuda.runs.recording import Place, Recording, Stored
from probe.engine.device.cuda.runs.shared import SharedMemory
from probe.engine.device.cuda.tensors.channels_last import dense_when_asked, lying_last
from probe.engine.device.cuda.tensors.tensor import Buffer, Tensor

if TYPE_CHECKING:
    from probe.engine.device.cuda.backend import Backend, Event
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.runs.tape import Tape
    from probe.engine.device.protocol import Tapped

_MOST = 8  # recordings held
_PATIENCE = 3  # recordings that may go wrong before every run is made anew
_SHARE = 4  # of the device's free memory that tensors may take which are all there at once, and stay there: a quarter
UNDER_WAY = "another run of these tensors is under way"
NO_ROOM = "tensors of the run before are still held, and there is no room to move them to"


@dataclass(frozen=True, slots=True)
class Handed:
    """A tensor that a run hands out: what is said of it, without the tensor; where it is, None where there is none; whether its channels are
    contiguous there."""

    tapped: Tapped
    place: Place | None
    last: bool


class Noted:
    """What a run hands out while it is recorded."""

    def __init__(self, tape: Tape, queue: Queue) -> None:
        """
        Args:
            queue: that records nothing.
        """
        self._tape, self._queue = tape, queue
        self.handed: list[Handed] = []
        self.why = ""

    def shown(self, tensor: Tensor) -> Tensor:
        """The same values, dense or with contiguous channels, whichever they are; the recording is not told of who reads them."""
        lying = self._lying(tensor)
        if lying is not None:
            lying.address(self._tape)
            return dense_when_asked(
                self._queue, Tensor(lying.shape, lying.format, buffer=lying.memory, begins=lying.begins)
            )
        if tensor.opaque is not None:
            return tensor.of(None)
        if tensor.held is not None:
            return Tensor(tensor.shape, tensor.format, array=tensor.held)
        tensor.address(self._tape)
        return Tensor(tensor.shape, tensor.format, buffer=tensor.memory, begins=tensor.begins)

    def note(self, tapped: Tapped, tensor: Tensor | None) -> None:
        """That it was handed out; None: it is no tensor."""
        if tensor is not None and tensor.opaque is not None:
            self.why = f"{tapped.name} is no tensor"
            return
        lying = self._lying(tensor) if tensor is not None else None
        there = tensor if lying is None else lying
        place = self._tape.place(there) if there is not None else None
        self.handed.append(Handed(replace(tapped, held=None), place, lying is not None))

    def _lying(self, tensor: Tensor) -> Tensor | None:
        """[images, rows, columns, channels] of an image that was made so, where nothing has to be done for that."""
        made = lying_last(tensor) if tensor.before is None else None
        return made if made is not None and made.before is None else None


class Lent(Buffer):
    """Memory of a prepared run, for tensors that are handed out: all of them move together."""

    __slots__ = ("__weakref__", "_of")

    def __init__(self, arena: Buffer, nbytes: int, backend: Backend) -> None:
        self._of, self._backend = arena, backend
        self.address, self.nbytes, self.imagined = arena.address, nbytes, arena.imagined

    def move_out(self) -> None:
        """To memory of its own, behind what was asked for so far.

        Raises:
            OutOfMemory: there is none.
        """
        made = Buffer(self._backend, self.nbytes)
        self._backend.copy(made.address, self.address, self.nbytes)
        self._of, self.address = made, made.address

    def __del__(self) -> None:
        """The prepared run gives it back."""


@dataclass(slots=True)
class Watched:
    """What is known of runs with inputs of the same shapes under the same plans, of which the same tensors are handed out.

    Attributes:
        diverged: how often a recording did not fit the next inputs.
        given_up: they are launched one by one from now on.
        why: why the last one was; "" when it was repeated, or the first.
    """

    recording: Recording | None = None
    handed: list[Handed] = field(default_factory=list)
    prepared: Prepared | None = None
    diverged: int = 0
    given_up: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Repeated:
    """A run that was launched again. Whoever hands its tensors out holds it until its outputs were read.

    Attributes:
        handed: what it hands out: without its tensor; with it, as it lies; whether that is [images, rows, columns, channels] of an image.
        over: when its outputs are back.
    """

    prepared: Prepared
    handed: tuple[tuple[Tapped, Tensor | None, bool], ...]
    over: Event

    def outputs(self) -> dict[str, Tensor]:
        """What it made, on the host; waits for it, and not for what was launched since.

        Raises:
            CudaError: a kernel failed.
        """
        self.over.wait()
        return self.prepared.fetched()


class WatchedRuns:
    """The first run of its kind is recorded while its tensors are handed out, the second prepares the recording, later ones repeat it.

    All share one block of memory. Tensors that somebody still holds when the next run begins are moved out of it before.
    """

    def __init__(self, backend: Backend, compute: Compute) -> None:
        self._backend, self._compute = backend, compute
        self._known: OrderedDict[Hashable, Watched] = OrderedDict()
        self._memory = SharedMemory(backend)
        self._over: Event | None = None
        self._lent: weakref.ref[Lent] | None = None
        self._last: weakref.ref[Repeated] | None = None

    def of(self, key: Hashable) -> Watched:
        """What is known of a run."""
        if key not in self._known:
            self._known[key] = Watched()
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    def repeat(self, known: Watched, fed: Mapping[str, Tensor]) -> Repeated | None:
        """Launch a recorded run again; None where it is to be made anew.

        Raises:
            CudaError: a kernel failed.
        """
        if known.recording is None:
            return None
        if self._last is not None and self._last() is not None:
            known.why = UNDER_WAY
            return None
        try:
            lent = self._lent() if self._lent is not None else None
            if lent is not None:
                lent.move_out()
        except OutOfMemory:
            known.why = NO_ROOM
            return None
        known.why = ""
        try:
            prepared = known.prepared = known.prepared or self._prepared(known.recording)
            self._backend.synchronize()  # what an earlier run sent from pinned memory has arrived
            prepared.feed(fed)
            prepared.replay()
            prepared.fetch()
            over = self._over = self._over or self._backend.event()
            over.note()
        except Diverged as error:
            known.recording = known.prepared = None
            known.diverged += 1
            known.given_up, known.why = known.diverged > _PATIENCE, str(error)
            return None
        except OutOfMemory as full:
            known.recording, known.given_up = None, True
            known.why = f"no room for all tensors at once: {full.what}"
            return None
        lent = Lent(prepared.arena, prepared.layout.nbytes, self._backend)
        handed = tuple((one.tapped, prepared.tensor(one.place, lent), one.last) for one in known.handed)
        found = Repeated(prepared, handed, over)
        self._lent, self._last = weakref.ref(lent), weakref.ref(found)
        return found

    def _prepared(self, recording: Recording) -> Prepared:
        most = self._backend.room() // _SHARE
        slots = {place.slot for place in recording.watched if isinstance(place, Stored)}
        nbytes = sum(recording.slots[slot] for slot in slots)
        if nbytes > most:
            raise OutOfMemory(nbytes, most, most, self._backend.name)
        return Prepared(recording, self._backend, self._compute, self._memory.block, staging=self._memory.pinned)

    def learn(self, known: Watched, recording: Recording, noted: Noted) -> None:
        """Take over a run that was recorded, if it can be repeated."""
        if noted.why:
            known.given_up, known.why = True, noted.why
            return
        recording.watched = [one.place for one in noted.handed if one.place is not None]
        known.recording, known.handed = recording, noted.handed

    def wanted(self, known: Watched) -> bool:
        """Whether a run that is made now is worth recording."""
        return known.recording is None and not known.given_up

    @property
    def notes(self) -> tuple[str, ...]:
        """Why runs are not repeated, or not as graphs; each reason once."""
        return tuple(dict.fromkeys(note for one in self._known.values() for note in _notes(one)))


def _notes(one: Watched) -> Iterator[str]:
    if one.why:
        yield one.why
    elif one.prepared is not None and one.prepared.note:
        yield one.prepared.note
