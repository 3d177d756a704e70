"""Which units belong together: culprits that break the output by themselves or jointly, and units that only ride together.

A **culprit group** is a set of units that fails when it alone is low and everything else is kept, and of which each single one,
kept too, cures it. A set of kept units passes only if it contains one of every group (a hitting set), so the groups say what could
be kept instead. Where error accumulates over many units the groups are large, and say nothing to a reader: they are not searched for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from probe.search.minimal_set import Item, Passes, eliminate, union
from probe.search.oracle import Kept

MOST_PARTNERS = 3  # a larger group is called accumulation
EXACT_HITTING_SET = 10  # groups of several units, up to which the lightest hitting set is searched for exhaustively


@dataclass(frozen=True, slots=True)
class CulpritGroup:
    """Units that break the output when they alone are low.

    Attributes:
        unit: the kept one of them, which cures it.
        units: all, ``unit`` among them. Alone: it breaks the output by itself.
        alternatives: those of them that pass in its place, with the rest of the answer unchanged; each was evaluated.
    """

    unit: str
    units: frozenset[str]
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Merged:
    """Units that pass when all are low and when all are kept, and fail in between: they compensate each other.

    Attributes:
        units: they ride together from then on.
        failing: units kept in an evaluation that split them and failed.
        passing: units kept in the evaluation without any of them, which passed.
    """

    units: frozenset[str]
    failing: Kept
    passing: Kept


def culprit_group(passes: Passes, everything: Kept, unit: str, low: Sequence[Item]) -> frozenset[str] | None:
    """The group that makes ``unit`` needed.

    Args:
        unit: the answer fails without it: it and all of ``low`` being low fails.
        low: the other items that are then low, from least to most suspect: the group keeps the most suspect.

    Returns:
        Its units; None when more than ``MOST_PARTNERS`` partners are needed.
    """
    if not passes(everything - {unit}):
        return frozenset({unit})
    start = union(low) | {unit}
    found = eliminate(lambda few: not passes(everything - few), start, low, MOST_PARTNERS)
    partners = sum(item <= found for item in low)
    return found if partners <= MOST_PARTNERS else None


def lightest_hitting_set(
    groups: Iterable[frozenset[str]], weight: Callable[[str], float], order: Sequence[str]
) -> Kept:
    """A set with a unit of every group, the lightest; by greedy choice where groups of several units are more than a few.

    Args:
        groups: not empty.
        order: units from most to least suspect; decides ties.
    """
    sets = set(groups)
    chosen = frozenset().union(*(one for one in sets if len(one) == 1))
    left = sorted((one for one in sets if not one & chosen), key=lambda one: (len(one), sorted(one)))
    place = {name: index for index, name in enumerate(order)}
    if len(left) > EXACT_HITTING_SET:
        while left:
            hits = {name: sum(name in one for one in left) for name in union(left)}
            best = min(hits, key=lambda name: (weight(name) / hits[name], place[name]))
            chosen |= {best}
            left = [one for one in left if best not in one]
        return chosen
    found, lightest = chosen, math.inf

    def extend(taken: Kept, open_groups: list[frozenset[str]], heavy: float) -> None:
        nonlocal found, lightest
        if heavy >= lightest:
            return
        if not open_groups:
            found, lightest = taken, heavy
            return
        for name in sorted(open_groups[0], key=place.__getitem__):
            extend(taken | {name}, [one for one in open_groups if name not in one], heavy + weight(name))

    extend(chosen, left, 0.0)
    return found


def compensating_candidates(items: Sequence[Item], lost: Mapping[Item, float], most: int) -> list[Kept]:
    """Sets of items worth demoting together though none can be demoted alone, most promising first.

    Demoting one half of a compensating pair leaves the error of the other half, whichever it was, so the margins lost are alike: pairs
    of similar loss come first, and runs of three or more alike before them.

    Args:
        items: of a set from which no item can go alone; in model order, neighbours decide ties.
        lost: margin lost by each; NaN where not known.
        most: how many to return.
    """
    finite = sorted((item for item in items if math.isfinite(lost[item])), key=lost.__getitem__)
    runs: list[list[Item]] = []
    for item in finite:
        if runs and lost[item] - lost[runs[-1][-1]] <= 0.05 * abs(lost[item]):
            runs[-1].append(item)
        else:
            runs.append([item])
    alike = [union(run) for run in runs if 2 < len(run) < len(items)]
    place = {item: index for index, item in enumerate(items)}

    def unlike(pair: tuple[Item, Item]) -> tuple[float, int]:
        first, second = lost[pair[0]], lost[pair[1]]
        apart = abs(first - second) / max(abs(first), abs(second), 1e-300)
        return (apart if math.isfinite(apart) else math.inf), abs(place[pair[0]] - place[pair[1]])

    # A pair that is the whole set would leave nothing kept, which is known to fail.
    pairs = [] if len(items) < 3 else sorted(combinations(items, 2), key=unlike)
    nearest: dict[Item, tuple[Item, Item]] = {}
    for pair in pairs:
        for item in pair:
            nearest.setdefault(item, pair)
    # Many culprits may lose the same; two that are each other's nearest come before further pairs among those.
    mutual = [pair for pair in pairs if nearest[pair[0]] == pair == nearest[pair[1]]]
    first = set(mutual)
    others = [pair for pair in pairs if pair not in first]
    return [*alike, *(union(pair) for pair in (*mutual, *others))][:most]
