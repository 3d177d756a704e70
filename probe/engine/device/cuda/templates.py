"""``Template``: what a layer launched once, to be launched again in other memory: a new assignment plans anew only the layers that it changes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from probe.engine.device.cuda.formats import Format
from probe.engine.device.cuda.recording import Launched, Stored
from probe.engine.device.cuda.tensor import Buffer, Tensor

if TYPE_CHECKING:
    from probe.engine.device.cuda.queue import Queue
    from probe.engine.device.cuda.tape import Mark, Tape
    from probe.engine.layers import Layer
    from probe.engine.rounding import Plan

Values = dict[int, Tensor]
_SMALL = 1 << 10  # bytes of a constant that stands in a key


@dataclass(frozen=True, slots=True)
class Template:
    """Launches of a layer on reads of given shapes and formats.

    Attributes:
        memory: bytes of each piece that the layer allocates.
        launches: their slots count pieces from 0 on, and reads downwards from -1.
        made: what comes out, by ``id`` of the value: shape, format and, counted alike, where it lies.
        may_fault: a kernel may find an index out of range.
    """

    memory: tuple[int, ...]
    launches: tuple[Launched, ...]
    made: tuple[tuple[int, tuple[int, ...], Format, int], ...]
    may_fault: bool

    def run(self, tape: Tape, queue: Queue, reads: Mapping[int, Tensor], layer: str) -> Values:
        """The tensors it makes of other reads of the same kind."""
        held = [Buffer(tape, nbytes) for nbytes in self.memory]
        given = list(reads.values())
        slots: dict[int, int] = {}
        for at, buffer in enumerate(held):
            slots[at] = tape.slot(buffer.address)
        for at, tensor in enumerate(given):
            place = tape.place(tensor)
            if isinstance(place, Stored):
                slots[-1 - at] = place.slot
        queue.layer = layer
        queue.may_fault |= self.may_fault
        for one in self.launches:
            queue.launches[one.source.entry] = queue.launches.get(one.source.entry, 0) + 1
            pointers = tuple((position, slots[slot], offset) for position, slot, offset in one.pointers)
            tape.launch_again(replace(one, pointers=pointers))
        return {
            key: Tensor(shape, form, buffer=held[at]) if at >= 0 else given[-1 - at].view(shape)
            for key, shape, form, at in self.made
        }


def template_key(tape: Tape, layer: Layer, plan: Plan, reads: Mapping[int, Tensor]) -> Hashable | None:
    """What a layer's launches depend on; None where they depend on more than shapes, formats and small constants."""
    seen: list[Hashable] = []
    for tensor in reads.values():
        if tensor.is_late or tensor.kept:
            return None  # in another order, too: which one is read shows only in the layer
        constant = tensor.constant
        if constant is not None:
            if constant.nbytes > _SMALL or constant.dtype.kind not in "biuf":
                return None
            seen.append((constant.dtype.str, tensor.shape, constant.tobytes()))
        elif tensor.format is None or not isinstance(tape.place(tensor), Stored):
            return None
        else:
            seen.append((tensor.format, tensor.shape))
    return layer.name, plan, tuple(seen)


def template_of(
    tape: Tape, mark: Mark, reads: Mapping[int, Tensor], made: Values, *, may_fault: bool
) -> Template | None:
    """What was launched since ``mark``; None when it was more than launches, or used memory that goes with the recording."""
    since = tape.since(mark)
    if since is None:
        return None
    steps, first, memory = since
    places = [tape.place(tensor) for tensor in reads.values()]
    numbers = {place.slot: -1 - at for at, place in reversed(list(enumerate(places))) if isinstance(place, Stored)}
    numbers.update({first + at: at for at in range(len(memory))})
    launches = []
    for step in steps:
        if not isinstance(step, Launched) or any(slot not in numbers for _, slot, _ in step.pointers):
            return None
        pointers = tuple((position, numbers[slot], offset) for position, slot, offset in step.pointers)
        launches.append(replace(step, pointers=pointers))
    out = []
    for key, tensor in made.items():
        if tensor.is_late or tensor.kept:
            return None
        place = tape.place(tensor) if tensor.origin is None and tensor.held is None and tensor.opaque is None else None
        if not isinstance(place, Stored) or place.slot not in numbers or place.offset:
            return None
        out.append((key, tensor.shape, place.format, numbers[place.slot]))
    return Template(tuple(memory), tuple(launches), tuple(out), may_fault)
