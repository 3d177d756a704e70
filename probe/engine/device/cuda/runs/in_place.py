"""Concatenations in place: a tensor that is only copied whole into a stretch of a larger one is made there, and not copied."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.runs.recording import Launched, Uploaded
from probe.engine.device.cuda.runs.staged import Staged, laid_out, staged
from probe.engine.device.cuda.tensors.copies import UNITS
from probe.engine.plan.memory import ALIGNMENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from probe.engine.device.cuda.runs.recording import Recording, Step
    from probe.engine.plan.memory import Layout

_BYTES = {name: count for count, name in UNITS.items()}
Within = dict[int, tuple[int, int]]  # slot -> slot that it lies in, bytes from that one's beginning


def in_place(recording: Recording) -> tuple[list[Step], Within]:
    """The steps of a recording without the copies that are not needed, and which slots then lie inside others.

    A slot may lie in another if the other is made by copies alone, each of a whole slot or a part of one, into stretches that do not touch;
    if nothing writes to it once it is copied; and if it begins there where a slot may begin. Memory that is allocated in a stage is written by no
    other stage, so that the stages in which both were made tell.
    """
    copies: dict[
        int, list[tuple[Launched, int, int, int, int]]
    ] = {}  # made by copies -> copy, from where, to where, bytes
    others: set[int] = set()  # touched otherwise in the stage that makes them
    fed = {step.slot for step in recording.steps if isinstance(step, Uploaded)}
    for step in recording.steps:
        if not isinstance(step, Launched):
            continue
        nbytes = _plain_copy(step)
        for position, slot, offset in step.pointers:
            if step.stage != recording.makers[slot]:
                continue
            if nbytes and position == 1 and step.pointers[0][1] != slot:
                (_, origin, begin), _ = step.pointers
                copies.setdefault(slot, []).append((step, origin, begin, offset, nbytes))
            else:
                others.add(slot)
    gone: set[int] = set()
    within: Within = {}
    for target, found in copies.items():
        if target in others or target in fed or _touch([(to, nbytes) for *_, to, nbytes in found]):
            continue
        for step, origin, begin, to, nbytes in found:
            whole = begin == 0 and nbytes == recording.slots[origin] and to % ALIGNMENT == 0
            earlier = recording.makers[origin] < recording.makers[target]
            if whole and earlier and origin not in fed and origin not in within:
                within[origin] = target, to
                gone.add(id(step))
    return [step for step in recording.steps if id(step) not in gone], within


def planned(
    recording: Recording, *, side_by_side: bool
) -> tuple[list[Staged | Any], tuple[Layout, dict[int, int], bool]]:
    """The steps of a recording, launches by stages, and where its memory lies (``laid_out``): in place where that takes no more of it.

    A tensor that is kept for long takes more room inside the one that it becomes part of: then everything stays as it was recorded. So it does
    where stages run side by side, which are told apart by who makes which slot.
    """
    plain = _pieces(recording)
    layout = laid_out(recording, plain, side_by_side=side_by_side)
    before = recording.steps, recording.within
    steps, within = ([], {}) if side_by_side else in_place(recording)
    if not within:
        return plain, layout
    recording.steps, recording.within = steps, within
    pieces = _pieces(recording)
    found = laid_out(recording, pieces, side_by_side=False)
    if found[0].nbytes > layout[0].nbytes:
        recording.steps, recording.within = before
        return plain, layout
    return pieces, found


def _pieces(recording: Recording) -> list[Staged | Any]:
    return [staged(piece, recording) if isinstance(piece, list) else piece for piece in recording.pieces()]


def root_of(slot: int, within: Within) -> tuple[int, int]:
    """The slot that one lies in and that lies in no other, and bytes from its beginning."""
    offset = 0
    while slot in within:
        slot, more = within[slot]
        offset += more
    return slot, offset


def _plain_copy(step: Launched) -> int:
    """Bytes that a launch copies from one stretch of memory of the run to another, as they are; 0 for other launches."""
    source = step.source
    if not isinstance(source, Source) or source.entry != "copy_strided" or [at for at, *_ in step.pointers] != [0, 1]:
        return 0
    macros = dict(source.defines)
    _, _, count, axes = step.arguments
    if "UNIT" not in macros or macros["RANK"] != 1 or tuple(axes)[1:] != (1, 1):  # without a unit it changes types
        return 0
    return int(count.value) * _BYTES[str(macros["UNIT"])]


def _touch(stretches: Sequence[tuple[int, int]]) -> bool:
    ordered = sorted(stretches)
    return any(begin + nbytes > later for (begin, nbytes), (later, _) in pairwise(ordered))
