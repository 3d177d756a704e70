"""Which launches may run side by side: what waits for what, when memory is shared by what is not alive together. Pure.

A stage is a few launches that run one behind the other (a layer's). It waits for the stages that make what it uses, and for the stages that
still use memory it is about to overwrite. Stages are ordered by their depth (the longest way to them from the inputs), so that memory planned
by depth is never shared by two stages of one depth, and nobody waits for somebody behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stage:
    """Buffers that a stage touches, and those of them that it makes."""

    uses: frozenset[int]
    makes: frozenset[int]


def depths(stages: Sequence[Stage]) -> list[int]:
    """Of every stage, given in an order in which they could run: one more than the deepest that makes what it uses."""
    maker: dict[int, int] = {}
    found: list[int] = []
    for stage in stages:
        depth = 1 + max((maker[one] for one in stage.uses - stage.makes if one in maker), default=0)
        found.append(depth)
        maker.update(dict.fromkeys(stage.makes, depth))
    return found


def waits(
    stages: Sequence[Stage], order: Sequence[int], ranges: Mapping[int, tuple[int, int]]
) -> tuple[list[tuple[int, ...]], list[int]]:
    """What each stage has to wait for.

    Args:
        order: in which stages are issued, by depth.
        ranges: first byte of each buffer and the first behind it.

    Returns:
        of every stage those it waits for, without those that they wait for in turn; and the set of all stages before it, as bits.
    """
    maker: dict[int, int] = {}
    lying: list[tuple[int, int, set[int]]] = []  # a range of memory and the stages that use what lies there
    users: dict[int, set[int]] = {}
    direct: list[set[int]] = [set() for _ in stages]
    for at in order:
        stage = stages[at]
        for one in stage.uses - stage.makes:
            if one in maker:
                direct[at].add(maker[one])
            if one not in users:  # made before all stages
                users[one] = set()
                lying.append((*ranges[one], users[one]))
            users[one].add(at)
        for one in stage.makes:
            begin, end = ranges[one]
            kept = []
            for low, high, others in lying:
                if low < end and begin < high:
                    direct[at] |= others
                    if begin <= low and high <= end:
                        continue  # covered: who comes later waits for this stage
                kept.append((low, high, others))
            maker[one], users[one] = at, {at}
            lying = [*kept, (begin, end, users[one])]
        direct[at].discard(at)
    before = [0] * len(stages)
    found: list[tuple[int, ...]] = [()] * len(stages)
    for at in order:
        indirect = 0
        for other in direct[at]:
            indirect |= before[other]
        found[at] = tuple(sorted(other for other in direct[at] if not indirect >> other & 1))
        before[at] = indirect | sum(1 << other for other in found[at])
    return found, before


def lanes(order: Sequence[int], waited: Sequence[Sequence[int]], before: Sequence[int], most: int = 4) -> list[int]:
    """A lane for every stage; those of one lane run one behind the other. A stage goes on where one that it waits for ended, if it can."""
    tails: list[int] = []
    found = [0] * len(order)
    issued = {at: position for position, at in enumerate(order)}
    for at in order:
        behind = [lane for lane, tail in enumerate(tails) if tail in waited[at]]
        behind = behind or [lane for lane, tail in enumerate(tails) if before[at] >> tail & 1]
        if behind:
            lane = behind[0]
        elif len(tails) < most:
            lane = len(tails)
            tails.append(at)
        else:
            lane = min(range(most), key=lambda one: issued[tails[one]])
        tails[lane], found[at] = at, lane
    return found
