"""Launches of a recording as stages: what may run side by side, and where memory lies so that it can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from probe.engine.device.cuda.backend import Batch
from probe.engine.device.cuda.runs.recording import Launched, Recording
from probe.engine.plan.memory import Layout, plan_memory
from probe.engine.plan.schedule import Stage, depths, lanes, waits

_MORE = 1.25  # times the memory of one stage behind the other that running side by side may take
_LITTLE = 1 << 20  # bytes that are always given


@dataclass(frozen=True, slots=True)
class Staged:
    """Launches between two steps on the host.

    Attributes:
        order: in which stages are issued: by depth.
    """

    launches: tuple[tuple[Launched, ...], ...]
    stages: tuple[Stage, ...]
    depth: tuple[int, ...]
    order: tuple[int, ...]

    @property
    def in_order(self) -> list[Launched]:
        """All launches as they were recorded."""
        return [one for launches in self.launches for one in launches]

    def batches(
        self, addresses: list[int], ranges: Mapping[int, tuple[int, int]], *, side_by_side: bool
    ) -> list[Batch]:
        """The launches with their memory at ``addresses``.

        Args:
            ranges: of each slot, from the beginning of the block.
        """
        bound = [tuple(one.bound(addresses) for one in launches) for launches in self.launches]
        if not side_by_side:
            return [Batch(tuple(one for launches in bound for one in launches))]
        waited, before = waits(self.stages, self.order, ranges)
        lane = lanes(self.order, waited, before)
        place = {at: position for position, at in enumerate(self.order)}
        return [
            Batch(bound[at], lane[at], tuple(place[other] for other in waited[at] if lane[other] != lane[at]))
            for at in self.order
        ]


@dataclass(frozen=True, slots=True)
class InUse:
    """Bytes while a layer runs.

    Attributes:
        alive: of all tensors that are needed then or later, workspace included.
        workspace: of what no other layer reads or writes.
    """

    alive: int
    workspace: int


def staged(launches: Sequence[Launched], recording: Recording) -> Staged:
    """Launches by stages."""
    grouped: dict[int, list[Launched]] = {}
    for one in launches:
        grouped.setdefault(one.stage, []).append(one)
    stages = []
    for stage, own in grouped.items():
        uses = frozenset(slot for one in own for slot in one.slots)
        stages.append(Stage(uses, frozenset(slot for slot in uses if recording.makers[slot] == stage)))
    depth = depths(stages)
    order = sorted(range(len(stages)), key=lambda at: (depth[at], at))
    return Staged(tuple(map(tuple, grouped.values())), tuple(stages), tuple(depth), tuple(order))


def in_use(recording: Recording, pieces: Sequence[Staged | Any]) -> dict[str, InUse]:
    """Memory of a run while each layer runs, by its name, one launch behind the other."""
    steps = [one for piece in pieces for one in (piece.in_order if isinstance(piece, Staged) else [piece])]
    lifetimes = recording.lifetimes({id(step): moment for moment, step in enumerate(steps, 1)})
    alive, change = 0, [0] * (len(steps) + 3)
    for one in lifetimes.values():
        change[one.first] += one.nbytes
        change[one.last + 1] -= one.nbytes
    found: dict[str, InUse] = {}
    moments: dict[str, tuple[int, int]] = {}  # of a layer: first, last
    alive = change[0]
    for moment, step in enumerate(steps, 1):
        alive += change[moment]
        if isinstance(step, Launched):
            before = found.get(step.what, InUse(0, 0))
            found[step.what] = InUse(max(before.alive, alive), 0)
            moments[step.what] = (moments.get(step.what, (moment, moment))[0], moment)
    for layer, (first, last) in moments.items():
        own = sum(one.nbytes for one in lifetimes.values() if first <= one.first and one.last <= last)
        found[layer] = InUse(found[layer].alive, own)
    return found


def laid_out(
    recording: Recording, pieces: Sequence[Staged | Any], *, side_by_side: bool
) -> tuple[Layout, dict[int, int], bool]:
    """Where the memory of a run lies: the layout, the offset of each slot, and whether stages may run side by side in it, which is never when
    nobody wants them to."""
    behind: dict[int, int] = {}
    beside: dict[int, int] = {}
    now = base = 0
    for piece in pieces:
        if isinstance(piece, Staged):
            for own, depth in zip(piece.launches, piece.depth, strict=True):
                for one in own:
                    now += 1
                    behind[id(one)], beside[id(one)] = now, base + depth
            base += max(piece.depth)
        else:
            now, base = now + 1, base + 1
            behind[id(piece)], beside[id(piece)] = now, base
    found = recording.lifetimes(behind)
    layout, wide = plan_memory(list(found.values())), False
    if side_by_side and any(isinstance(piece, Staged) and len(set(piece.depth)) < len(piece.depth) for piece in pieces):
        other = recording.lifetimes(beside)
        larger = plan_memory(list(other.values()))
        if larger.nbytes <= _MORE * layout.nbytes + _LITTLE:
            found, layout, wide = other, larger, True
    return layout, dict(zip(found, layout.offsets, strict=True)), wide
