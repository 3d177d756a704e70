"""``Template``: what a layer launched once, to be launched again in other memory: a new assignment plans anew only the layers that it changes.

What a layer launches depends on how its reads lie: dense, as a view of another tensor, with copies in other orders beside. ``Seen`` says that
of all reads of a layer. A layer may bring a read into another order, which is there for whoever reads it next: a template does so, too.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.runs.recording import Launched, Stored
from probe.engine.device.cuda.tensors.copies import placed
from probe.engine.device.cuda.tensors.formats import Format
from probe.engine.device.cuda.tensors.lying import Axis, Lying
from probe.engine.device.cuda.tensors.tensor import Buffer, Tensor

if TYPE_CHECKING:
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.runs.tape import Mark, Tape
    from probe.engine.layers import Layer
    from probe.engine.rounding import Plan

Values = dict[int, Tensor]
_SMALL = 1 << 10  # bytes of a constant that stands in a key
_DENSE, _BASE = (
    "",
    "base",
)  # of a read: its own memory, that of the tensor it is a view of; else a key of ``Tensor.kept``


@dataclass(frozen=True, slots=True)
class Piece:
    """A dense tensor in memory that a template knows by number.

    Attributes:
        at: pieces that the layer allocates count from 0 on, those it is given downwards from -1.
        offset: bytes from the beginning of the piece.
    """

    at: int
    offset: int
    shape: tuple[int, ...]
    format: Format


@dataclass(frozen=True, slots=True)
class View:
    """Where a tensor lies in the memory of another one."""

    base: Piece
    first: int
    axes: tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a layer reads.

    Attributes:
        key: equal for reads that the same launches serve.
        slots: the memory of all of them, each piece once, in order.
        places: of each read, what there is of it: its own memory, its base, what is kept of it.
    """

    key: Hashable
    slots: tuple[int, ...]
    places: tuple[Mapping[str, Stored], ...]


@dataclass(frozen=True, slots=True)
class Template:
    """Launches of a layer on reads of given shapes and formats, lying as they did.

    Attributes:
        memory: bytes of each piece that the layer allocates.
        launches: their slots are numbers of pieces.
        made: what comes out, by ``id`` of the value, and what is kept of it in other orders.
        left: what the layer leaves of its reads for the next: read, ``_DENSE`` or what it is kept as, where.
        may_fault: a kernel may find an index out of range.
        needs_given: something that comes out, or is left, lies in memory of the reads.
    """

    memory: tuple[int, ...]
    launches: tuple[Launched, ...]
    made: tuple[tuple[int, Piece | View], ...]
    left: tuple[tuple[int, str, Piece], ...]
    may_fault: bool
    needs_given: bool

    def run(self, tape: Tape, queue: Queue, seen: Seen, reads: Mapping[int, Tensor], layer: str) -> Values:
        """The tensors it makes of other reads of the same kind."""
        held = [Buffer(tape, nbytes) for nbytes in self.memory]
        slots = {at: tape.slot(buffer.address) for at, buffer in enumerate(held)}
        slots |= {-1 - at: slot for at, slot in enumerate(seen.slots)}
        queue.layer = layer
        queue.may_fault |= self.may_fault
        for one in self.launches:
            queue.launches[one.source.entry] = queue.launches.get(one.source.entry, 0) + 1
            if isinstance(one.source, Source):
                queue.sources.add(one.source)
            tape.launch_again(one, tuple([(position, slots[slot], offset) for position, slot, offset in one.pointers]))
        given = list(reads.values())
        found: dict[int, Buffer] = dict(enumerate(held))
        if self.needs_given:
            found |= {-1 - at: buffer for at, buffer in enumerate(_buffers(tape, seen, given))}
        for at, label, piece in self.left:
            tensor = _tensor(piece, found)
            if label == _DENSE:
                given[at].settle(tensor)
            else:
                given[at].kept = {**(given[at].kept or {}), label: tensor}
        return {key: self._made(queue, what, found) for key, what in self.made}

    @staticmethod
    def _made(queue: Queue, what: Piece | View, found: Mapping[int, Buffer]) -> Tensor:
        if isinstance(what, Piece):
            return _tensor(what, found)
        return placed(queue, Lying(_tensor(what.base, found), what.first, what.axes))


def _tensor(piece: Piece, found: Mapping[int, Buffer]) -> Tensor:
    return Tensor(piece.shape, piece.format, buffer=found[piece.at], begins=piece.offset)


def _buffers(tape: Tape, seen: Seen, given: list[Tensor]) -> list[Buffer]:
    """The memory of reads, in the order of ``Seen.slots``."""
    by_slot: dict[int, Buffer] = {}
    for tensor in given:
        for one in _parts(tensor).values():
            if one.memory is not None:
                by_slot.setdefault(tape.slot(one.memory.address), one.memory)
    return [by_slot[slot] for slot in seen.slots]


def _parts(tensor: Tensor) -> dict[str, Tensor]:
    """All dense tensors that hold the values of one."""
    found = {_DENSE: tensor} if tensor.lies is None or tensor.memory is not None else {}
    if tensor.lies is not None:
        found[_BASE] = tensor.lies.base
    return found | {key: one for key, one in (tensor.kept or {}).items() if one.lies is None}


def _places(tape: Tape, tensor: Tensor) -> dict[str, Stored] | None:
    """Where all of them are; None where one is not in memory of the run."""
    if any(one.lies is not None for one in (tensor.kept or {}).values()):
        return None  # a view of something else again
    found = {}
    for label, one in _parts(tensor).items():
        place = tape.place(one) if not one.is_late else None
        if not isinstance(place, Stored):
            return None
        found[label] = place
    return found


def seen(tape: Tape, layer: Layer, plan: Plan, reads: Mapping[int, Tensor], *, interior: bool = False) -> Seen | None:
    """What a layer's launches depend on; None where they depend on more than shapes, formats, how reads lie, and small constants. The order of
    the reads is that of the layer.

    Args:
        interior: what stays inside the layer is stored, too.
    """
    keys: list[Hashable] = []
    slots: dict[int, int] = {}
    places: list[Mapping[str, Stored]] = []
    for tensor in reads.values():
        constant = tensor.constant
        if constant is not None:
            if tensor.kept or constant.nbytes > _SMALL or constant.dtype.kind not in "biuf":
                return None
            keys.append((constant.dtype.str, tensor.shape, constant.tobytes()))
            places.append({})
            continue
        own = None if tensor.format is None or tensor.origin is not None else _places(tape, tensor)
        if own is None:
            return None
        lies = (tensor.lies.first, tensor.lies.axes) if tensor.lies is not None else None
        where = tuple(
            (label, slots.setdefault(one.slot, len(slots)), one.offset, one.shape, one.format)
            for label, one in own.items()
        )
        keys.append((tensor.format, tensor.shape, lies, where))
        places.append(own)
    return Seen((layer.name, plan, tuple(keys), interior), tuple(slots), tuple(places))


def template_of(
    tape: Tape, mark: Mark, before: Seen, reads: Mapping[int, Tensor], made: Values, *, may_fault: bool
) -> Template | None:
    """What was launched since ``mark``; None when it was more than launches, or used memory that goes with the recording.

    Args:
        before: of the reads as they were then.
    """
    since = tape.since(mark)
    if since is None:
        return None
    steps, first, memory = since
    numbers = {slot: -1 - at for at, slot in enumerate(before.slots)}
    numbers |= {first + at: at for at in range(len(memory))}
    launches = []
    for step in steps:
        if not isinstance(step, Launched) or any(slot not in numbers for _, slot, _ in step.pointers):
            return None
        pointers = tuple((position, numbers[slot], offset) for position, slot, offset in step.pointers)
        launches.append(replace(step, pointers=pointers))
    left = _left(tape, before, reads, numbers)
    out = [(key, _described(tape, tensor, numbers)) for key, tensor in made.items()]
    if left is None or any(what is None for _, what in out):
        return None
    known = tuple((key, what) for key, what in out if what is not None)
    pieces = [what.base if isinstance(what, View) else what for _, what in known] + [piece for _, _, piece in left]
    needs_given = any(piece.at < 0 for piece in pieces)
    return Template(tuple(memory), tuple(launches), known, left, may_fault, needs_given)


def _left(
    tape: Tape, before: Seen, reads: Mapping[int, Tensor], numbers: Mapping[int, int]
) -> tuple[tuple[int, str, Piece], ...] | None:
    """What was not there of the reads before; None where it cannot be said."""
    found = []
    for at, (tensor, known) in enumerate(zip(reads.values(), before.places, strict=True)):
        if tensor.constant is not None:
            if tensor.kept or tensor.memory is not None:
                return None  # a copy on the device, which goes with the recording
            continue
        now = _places(tape, tensor)
        if now is None:
            return None
        for label, place in now.items():
            if label in known:
                continue
            if place.slot not in numbers:
                return None
            found.append((at, label, Piece(numbers[place.slot], place.offset, place.shape, place.format)))
    return tuple(found)


def _described(tape: Tape, tensor: Tensor, numbers: Mapping[int, int]) -> Piece | View | None:
    """Where something made lies; None where it cannot be said."""
    if tensor.origin is not None or tensor.held is not None or tensor.opaque is not None or tensor.kept:
        return None
    if tensor.lies is not None and tensor.memory is not None:
        return None  # brought into dense order already
    if tensor.lies is None and tensor.is_late:
        return None
    place = tape.place(tensor.lies.base if tensor.lies is not None else tensor)
    if not isinstance(place, Stored) or place.slot not in numbers:
        return None
    piece = Piece(numbers[place.slot], place.offset, place.shape, place.format)
    return piece if tensor.lies is None else View(piece, tensor.lies.first, tensor.lies.axes)
