"""``Improver``: from a set of which nothing can be left out to a lighter one, and what each of its units is needed for.

Three ways, none of which a one-by-one elimination sees: units that compensate each other go together; where error accumulates, the
measured effects of the units around the answer correct the ranking; where small groups of culprits explain the failures, the lightest
set with one of each is tried.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from probe.search.groups import (
    MOST_PARTNERS,
    CulpritGroup,
    Merged,
    compensating_candidates,
    culprit_group,
    lightest_hitting_set,
)
from probe.search.minimal_set import Certified, Item, Passes, eliminate, margin_lost, union
from probe.search.oracle import Inquiry, Kept, Verdict
from probe.search.ranking import Objective, rank_by_effect, weight
from probe.search.units import Unit


class Improver:
    """Knows what the search has learnt about units that belong together.

    Args:
        order: ids from most to least suspect.

    Attributes:
        merged: units found to compensate each other.
        facts: culprit groups, as sets of ids.
        alternatives: (kept unit, unit in its place) that passed, with the set they were found for.
    """

    def __init__(self, inquiry: Inquiry, units: Mapping[str, Unit], objective: Objective, order: list[str]) -> None:
        self.inquiry, self.units, self.order = inquiry, units, order
        self.objective: Objective = objective
        self.merged: list[Merged] = []
        self.facts: list[frozenset[str]] = []
        self.alternatives: dict[tuple[Kept, str], list[str]] = {}
        self._accumulates = False

    def items(self, names: Kept) -> list[Item]:
        """What is kept or demoted as one, from most to least suspect; merged units ride together."""
        taken: set[str] = set()
        found: list[Item] = []
        for name in self.order:
            if name in names and name not in taken:
                item = next((one.units for one in self.merged if name in one.units and one.units <= names), None)
                found.append(item or frozenset({name}))
                taken |= found[-1]
        return found

    def improve(self, kept: Kept, certified: Certified, answer: Verdict, allowance: int) -> Kept | None:
        """A lighter passing set; None when none was found within ``allowance`` questions. The groups are known then, as far as that went.

        Args:
            kept: passes; 1-minimal by ``certified``.
            answer: verdict on it.

        Raises:
            BudgetSpentError, ContradictionError: as ``Inquiry.ask``.
        """
        lost = {frozenset({one.unit}): margin_lost(answer, one) for one in certified.certificates}
        left = self.inquiry.questions + allowance
        # Compensating units are part of every answer that splits them, so a few tries are made whatever was asked before.
        better = self._without_compensating(kept, lost, max(len(kept), allowance))
        if better is None:
            with self.inquiry.allowance(left - self.inquiry.questions):
                better = self._exchanged(kept)
        if better is None:
            with self.inquiry.allowance(left - self.inquiry.questions):
                better = self._reranked(kept, lost, answer)
        if better is None:
            with self.inquiry.allowance(left - self.inquiry.questions):
                self._find_alternatives(kept)
        return better

    def culprit_groups(self, kept: Kept) -> tuple[CulpritGroup, ...]:
        """The groups of an answer, one a unit at most, in the order of suspicion."""
        found = []
        for name in self.order:
            group = self._group_of(kept, name) if name in kept else None
            if group is not None:
                found.append(CulpritGroup(name, group, tuple(self.alternatives.get((kept, name), ()))))
        return tuple(found)

    def _passes(self, why: str) -> Passes:
        return lambda kept: self.inquiry.ask(kept, why=f"{why}: keep {len(kept)}").passed

    # --- compensating units ------------------------------------------------------------------------------------------

    def _without_compensating(self, kept: Kept, lost: Mapping[Item, float], allowance: int) -> Kept | None:
        place = {name: index for index, name in enumerate(self.units)}
        items = sorted(self.items(kept), key=lambda item: min(place[name] for name in item))
        known = {item: lost.get(item, math.nan) for item in items}
        now = kept
        passes = self._passes("without both")
        # All pairs of a few; of many, those most alike.
        with self.inquiry.allowance(allowance):
            for few in compensating_candidates(items, known, max(10, len(items))):
                if few < now and passes(now - few):
                    now -= few
                    split = frozenset({min(few, key=place.__getitem__)})
                    self.merged.append(Merged(few, kept - split, now))
        return now if now != kept else None

    # --- culprit groups ----------------------------------------------------------------------------------------------

    def _group_of(self, kept: Kept, name: str) -> frozenset[str] | None:
        return next((one for one in self.facts if one & kept == {name}), None)

    def _exchanged(self, kept: Kept) -> Kept | None:
        """Explain each kept unit; then the lightest set that has one of every group, where it is lighter."""
        everything = self.inquiry.everything
        passes = self._passes("culprits")
        for name in self.order:
            if name not in kept or self._group_of(kept, name) is not None:
                continue
            if self._accumulates:
                if not passes(everything - {name}):
                    self.facts.append(frozenset({name}))
                continue
            group = culprit_group(passes, everything, name, self.items(everything - kept)[::-1])
            if group is None:
                self._accumulates = True
            else:
                self.facts.append(group)
        if any(self._group_of(kept, name) is None for name in kept):
            return None
        while True:
            hitting = lightest_hitting_set(self.facts, self._weight, self.order)
            if self.inquiry.weight(hitting) >= self.inquiry.weight(kept):
                return None
            if passes(hitting):
                return hitting
            # It fails, so a group is not hit yet.
            low = everything - hitting
            items = self.items(low)[::-1]
            group = eliminate(lambda few: not passes(everything - few), low, items, MOST_PARTNERS + 1)
            if sum(item <= group for item in items) > MOST_PARTNERS + 1:
                return None
            self.facts.append(group)

    def _find_alternatives(self, kept: Kept) -> None:
        for name in [one for one in self.order if one in kept]:
            group = self._group_of(kept, name)
            for other in [one for one in self.order if group and one in group and one != name]:
                if self.inquiry.ask((kept - {name}) | {other}, why=f"{other} in place of {name}").passed:
                    self.alternatives.setdefault((kept, name), []).append(other)

    def _weight(self, name: str) -> float:
        return weight(self.units[name], self.objective)

    # --- accumulated error -------------------------------------------------------------------------------------------

    def _reranked(self, kept: Kept, lost: Mapping[Item, float], answer: Verdict) -> Kept | None:
        """Measure the units that come next in the ranking, and eliminate again in the order of what units do."""
        finite = sorted(one for one in lost.values() if math.isfinite(one))
        # One unit can replace two, or with costs one dearer unit: as much as they lose must be won by what is lifted.
        replaced = finite[: 1 if self.objective == "cost" else 2]
        if not math.isfinite(answer.margin) or len(replaced) < (1 if self.objective == "cost" else 2):
            return None
        outside = self.items(self.inquiry.everything - kept)
        effects = {name: lost.get(frozenset({name}), math.inf) for name in kept}
        useful: list[Item] = []
        for start in range(0, len(outside), 2 * len(kept) + 2):
            near = outside[start : start + 2 * len(kept) + 2]
            together = self.inquiry.ask(kept | union(near), "probes", f"with {len(near)} more")
            if not together.passed or not together.margin - answer.margin >= math.fsum(replaced) - answer.margin:
                break
            new = [item for item in near if self._effect(kept, item, answer, effects) > replaced[0]]
            if not new:
                break
            useful += new
        pool = kept | union(useful)
        if not useful or not self.inquiry.ask(pool, "probes", f"with {len(useful)} more").passed:
            return None
        order = rank_by_effect(effects, frozenset(), [n for n in self.order if n in pool], self.units, self.objective)
        place = {name: index for index, name in enumerate(order)}
        items = sorted(self.items(pool), key=lambda item: min(place[name] for name in item))
        found = eliminate(self._passes("demote, measured order"), pool, items[::-1])
        return found if self.inquiry.weight(found) < self.inquiry.weight(kept) else None

    def _effect(self, kept: Kept, item: Item, answer: Verdict, effects: dict[str, float]) -> float:
        """Margin won by keeping an item too; NaN, from margins that are not known, counts as nothing."""
        won = self.inquiry.ask(kept | item, "probes", "with " + " and ".join(sorted(item))).margin - answer.margin
        won = 0.0 if math.isnan(won) else won
        effects.update(dict.fromkeys(item, won))
        return won
