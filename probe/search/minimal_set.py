"""From a ranking to a set of which nothing can be left out: galloping prefix, grouped elimination, certificates.

Everything here works on items: sets of unit ids that are kept or demoted as one. ``passes`` answers for a set of unit ids.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from probe.search.oracle import Inquiry, Kept, Verdict

Item = frozenset[str]
Passes = Callable[[Kept], bool]


def union(items: Iterable[Item]) -> Kept:
    """All units of several items."""
    return frozenset().union(*items)


def smallest_prefix(passes: Passes, items: Sequence[Item], start: int = 1) -> int:
    """A length such that this many of the first items pass and one less does not: the smallest such, where more is never worse.

    Doubles from ``start`` until it passes, then halves: 2 log2 of the answer. All items together are known to pass, none known to
    fail; neither is asked.

    Args:
        items: from most to least suspect.
        start: first length tried, from what is known already.
    """
    low, high = 0, min(max(start, 1), len(items))
    while high < len(items) and not passes(union(items[:high])):
        low, high = high, min(2 * high, len(items))
    while high - low > 1:
        middle = (low + high) // 2
        if passes(union(items[:middle])):
            high = middle
        else:
            low = middle
    return high


def eliminate(passes: Passes, kept: Kept, items: Sequence[Item], most: int | None = None) -> Kept:
    """Demote what can be demoted, in the order given; each step starts from a set that passes, so the answer passes.

    Group testing with adaptive blocks (Hwang 1972): a block that can go as a whole goes in one evaluation; of one that cannot, halving
    finds the first item that must stay, and the next block is as long as that gap was. About k log2(len / k) questions for k items
    that stay. Where more is never worse, none of them can be left out afterwards; elsewhere the certificates say.

    Args:
        kept: passes, and contains all items.
        items: from least to most worth keeping.
        most: give up once more items than this must stay.

    Returns:
        ``kept`` without the items that went.
    """
    todo = list(items)
    size, stay = len(todo), 0
    while todo:
        block = todo[:size]
        if passes(kept - union(block)):
            kept, todo = kept - union(block), todo[len(block) :]
            size = 2 * len(block)
            continue
        low, high = 0, len(block)
        while high - low > 1:
            middle = (low + high) // 2
            if passes(kept - union(block[:middle])):
                low = middle
            else:
                high = middle
        kept, todo = kept - union(block[:low]), todo[high:]
        size = high
        stay += 1
        if most is not None and stay > most:
            return kept
    return kept


def bundles(items: Sequence[Item], group_of: Callable[[Item], str]) -> list[Item]:
    """Items of one group as one, at the place of its last: what repeats is eliminated as a whole first.

    Args:
        items: from least to most worth keeping, so that a bundle stands where its most suspect item does.
        group_of: name of an item's group; empty for one that stands alone.
    """
    together: dict[str, Item] = {}
    for index, item in enumerate(items):
        name = group_of(item) or f"\0{index}"
        together[name] = together.pop(name, frozenset()) | item
    return list(together.values())


@dataclass(frozen=True, slots=True)
class Certificate:
    """A failing evaluation that shows a unit is needed: the answer, everything as in it, but this unit low.

    Attributes:
        unit: id.
        evaluation: its index in the log (the last, where several voted).
        verdict: fails. Not ``decided``: the votes did not reach the confidence, and the unit is not shown to be needed.
    """

    unit: str
    evaluation: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Certified:
    """What fresh evaluations said of a set: a certificate for each unit, or the first unit that is not needed."""

    certificates: tuple[Certificate, ...]
    needless: str | None = None


def certify(inquiry: Inquiry, kept: Kept, order: Sequence[str]) -> Certified:
    """Demote one unit at a time, each in a fresh evaluation; stops at the first that is not needed.

    Args:
        order: units of ``kept``, from least to most worth keeping: what is least likely to be needed is tried first.

    Raises:
        BudgetSpentError, ContradictionError: as ``Inquiry.ask``.
    """
    certificates: list[Certificate] = []
    for name in order:
        verdict = inquiry.ask(kept - {name}, "proof", f"without {name}", fresh=True)
        if verdict.passed:
            return Certified(tuple(certificates), name)
        certificates.append(Certificate(name, inquiry.total - 1, verdict))
    return Certified(tuple(certificates))


def margin_lost(answer: Verdict, certificate: Certificate) -> float:
    """What demoting the unit costs of the answer's margin; Inf where it ends in NaN or Inf, NaN where margins are not known."""
    lost = answer.margin - certificate.verdict.margin
    return math.inf if certificate.verdict.margin == -math.inf else lost
