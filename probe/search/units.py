"""``Unit``: what the search keeps or demotes as a whole; and the merging of units that cannot differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from probe.errors import InputError


@dataclass(frozen=True, slots=True)
class Unit:
    """One decision of the search: kept in high precision, or not.

    Attributes:
        id: unique among the units.
        members: what the oracle is asked to keep: tensor names. Never shared by two units.
        cost: of keeping it, in any one unit (bytes, seconds); what ``objective="cost"`` adds up.
        group: name of the repeated structure that it is an instance of; its members are tried together before each by itself.
        score: how suspect it is (``probe.search.ranking.score``); only the order matters. NaN counts as infinite.
        flagged: something is known to break here (an overflow, a NaN source): suspected before any score.
    """

    id: str
    members: frozenset[str]
    cost: float = 1.0
    group: str = ""
    score: float = 0.0
    flagged: bool = False


def check_units(units: Sequence[Unit]) -> None:
    """Refuse units that the search cannot tell apart.

    Raises:
        InputError: two units of one id, a unit without members, a member of two units, or a cost that is negative or not a number.
    """
    for name, count in Counter(unit.id for unit in units).items():
        if count > 1:
            raise InputError(f"{count} units are called {name!r}")
    owner: dict[str, str] = {}
    for unit in units:
        if not unit.members:
            raise InputError(f"unit {unit.id!r} has no members")
        if not unit.cost >= 0 or math.isinf(unit.cost):
            raise InputError(f"unit {unit.id!r} costs {unit.cost}", hint="a cost is finite and at least 0")
        for member in sorted(unit.members):
            if member in owner:
                raise InputError(
                    f"{member!r} is a member of two units",
                    where=f"{owner[member]!r} and {unit.id!r}",
                    hint="merge_units joins units that share a member",
                )
            owner[member] = unit.id


def merge_units(units: Sequence[Unit], together: Iterable[Iterable[str]] = ()) -> list[Unit]:
    """Join units that cannot differ: those that share a member, and those named together.

    Args:
        units: in model order; ids unique.
        together: sets of unit ids that must be kept or demoted as one (views of one tensor, inputs of one kernel).

    Returns:
        Units in the order of their first part. A merged unit has all members, the sum of the costs, the largest score, the group if all
        parts have the same, and is flagged if a part is.

    Raises:
        InputError: ``together`` names a unit that is not there.
    """
    parent = {unit.id: unit.id for unit in units}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    owner: dict[str, str] = {}
    for unit in units:
        for member in unit.members:
            parent[root(unit.id)] = root(owner.setdefault(member, unit.id))
    for names in together:
        first, *others = [*dict.fromkeys(names)] or [""]
        for name in (first, *others):
            if name and name not in parent:
                raise InputError(f"no unit is called {name!r}")
        for name in others:
            parent[root(name)] = root(first)
    parts: dict[str, list[Unit]] = {}
    for unit in units:
        parts.setdefault(root(unit.id), []).append(unit)
    return [_joined(few) for few in parts.values()]


def _joined(parts: list[Unit]) -> Unit:
    if len(parts) == 1:
        return parts[0]
    groups = {unit.group for unit in parts}
    return Unit(
        id=joined_name([unit.id for unit in parts]),
        members=frozenset().union(*(unit.members for unit in parts)),
        cost=sum(unit.cost for unit in parts),
        group=groups.pop() if len(groups) == 1 else "",
        score=max(math.inf if math.isnan(unit.score) else unit.score for unit in parts),
        flagged=any(unit.flagged for unit in parts),
    )


def joined_name(names: Sequence[str]) -> str:
    """``a + b``; over four names ``a + ... + z [n]``, as fused layers are called."""
    return " + ".join(names) if len(names) <= 4 else f"{names[0]} + ... + {names[-1]} [{len(names)}]"
