"""``find``: the whole search. Baselines, ranking, prefix, elimination, certificates, improvement, explanation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from probe.search.improve import Improver
from probe.search.minimal_set import Certified, Item, bundles, certify, eliminate, smallest_prefix, union
from probe.search.oracle import BudgetSpentError, ContradictionError, Entry, Inquiry, Kept, Oracle, Verdict
from probe.search.ranking import Objective, rank, rank_by_effect
from probe.search.result import Baselines, SearchResult, Status
from probe.search.units import Unit, check_units
from probe.search.voting import CALIBRATION, HIGHEST_NOISE, Voting, noise_of

GROUP_TRIALS = 2  # first suspects whose repeated structure is tried by itself before the ranking is galloped
ATTEMPTS = 4  # searches under voting whose answer a fresh vote may contradict


@dataclass(frozen=True, slots=True)
class Options:
    """How to search.

    Attributes:
        objective: what is kept little of: units ("count") or their cost.
        probes: first evaluate each unit low by itself, and rank by what that costs: one evaluation a unit, for cheap oracles.
        baseline_repeats: evaluations of all-low and all-FP32 each; a second one shows an oracle that does not repeat itself.
        reruns: fresh evaluations of the answer, or of all-low or all-FP32 where that ends the search: what passes by accident once in
            three times does so six times in a row once in 700.
        effort: nothing more is improved or explained once all questions, with the certificates of what that may find, would exceed
            effort k log2 n (k units kept of n); single-unit probes are not counted.
        confidence: of a question decided by votes.
        max_evaluations, max_seconds: budget; None: none.
        settled: ids known to be needed of an answer that is everything: elimination starts there and asks of the others only, and
            nothing is improved or explained. Certificates are made for all. None: a whole search.
    """

    objective: Objective = "count"
    probes: bool = False
    baseline_repeats: int = 2
    reruns: int = 5
    effort: float = 4.0
    confidence: float = 0.995
    max_evaluations: int | None = None
    max_seconds: float | None = None
    settled: frozenset[str] | None = None


def find(
    units: Sequence[Unit],
    oracle: Oracle,
    options: Options | None = None,
    *,
    log: Iterable[Entry] = (),
    on_entry: Callable[[Entry], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> SearchResult:
    """A set of units that passes when kept in high precision and of which none can be left out.

    Deterministic: the same units, options and answers give the same questions, so that a search resumed from any prefix of its log
    goes on where that ended, and asks nothing twice. Interrupting it (KeyboardInterrupt) ends it with the best passing set.

    Args:
        units: in model order.
        oracle: evaluates a set of members; what it raises ends the search, and the log has what was learnt.
        log: entries of an earlier search over the same members.
        on_entry: called with every new evaluation, in order.
        clock: seconds, for ``max_seconds`` and the result.

    Raises:
        InputError: units that cannot be told apart, or an unknown objective.
    """
    return _Search(units, oracle, options or Options(), log, on_entry, clock).run()


@dataclass
class _Search:
    units: Sequence[Unit]
    oracle: Oracle
    options: Options
    log: Iterable[Entry]
    on_entry: Callable[[Entry], None] | None
    clock: Callable[[], float]
    baselines: Baselines = field(default_factory=Baselines)
    probed: int = 0  # questions that ranked the units: the effort does not count them
    answer: Kept | None = None
    certified: Certified = field(default_factory=lambda: Certified(()))

    def __post_init__(self) -> None:
        check_units(self.units)
        self.order = rank(self.units, self.options.objective)
        self.inquiry = Inquiry(
            self.oracle,
            self.units,
            max_evaluations=self.options.max_evaluations,
            max_seconds=self.options.max_seconds,
            clock=self.clock,
            log=self.log,
            on_entry=self.on_entry,
            objective=self.options.objective,
        )
        self.everything = self.inquiry.everything
        self.group = {unit.id: unit.group for unit in self.units}
        self.improver = self._improver()

    def _improver(self) -> Improver:
        return Improver(self.inquiry, {unit.id: unit for unit in self.units}, self.options.objective, self.order)

    def run(self) -> SearchResult:
        try:
            status, reason = self._until_consistent()
        except BudgetSpentError:
            status, reason = "budget", ""
        except KeyboardInterrupt:
            status, reason = "interrupted", ""
        keep = None if status == "flaky" else self.inquiry.best()
        if status in ("nothing_needed", "found", "found_not_minimal"):
            keep = self.answer
        same = keep is not None and keep == self.answer
        if not reason:
            reason = "the budget is spent" if status == "budget" else "interrupted"
            if keep is None:
                reason += ": no passing set is known yet"
            else:
                reason += f": the best passing set keeps {len(keep)} of {len(self.units)} units"
                reason += ", and without any one of them it fails" if same else ""
        by_id = {unit.id: unit for unit in self.units}
        return SearchResult(
            status=status,
            reason=reason,
            keep=None if keep is None else tuple(unit.id for unit in self.units if unit.id in keep),
            members=frozenset().union(*(by_id[name].members for name in keep or ())),
            baselines=self.baselines if same else replace(self.baselines, answer=None, answer_rerun=None),
            certificates=self.certified.certificates if same else (),
            groups=self.improver.culprit_groups(keep) if same and keep else (),
            merged=tuple(self.improver.merged),
            violations=tuple(self.inquiry.violations),
            history=tuple(self.inquiry.history),
            evaluations=dict(self.inquiry.counts),
            seconds=self.inquiry.seconds,
            voting=self.inquiry.voting,
        )

    # --- an oracle that may contradict itself ------------------------------------------------------------------------

    def _until_consistent(self) -> tuple[Status, str]:
        for attempt in range(ATTEMPTS):
            try:
                return self._attempt()
            except ContradictionError:
                self.answer, self.certified, self.baselines = None, Certified(()), Baselines()
                self.order = rank(self.units, self.options.objective)
                self.improver = self._improver()
                # A contradiction under voting says that the noise was taken too low: it is measured for longer.
                if (ended := self._start_voting(CALIBRATION << attempt)) is not None:
                    return ended
        return "flaky", f"{ATTEMPTS} searches in a row met an answer that another vote contradicted"

    def _start_voting(self, votes: int) -> tuple[Status, str] | None:
        """Measure how often all-FP32 fails, and let votes decide from now on; or why they cannot."""
        why = "all FP32, to measure the noise"
        passes, fails = self.inquiry.more_votes(self.everything, votes, why)
        if noise_of(passes, fails) > HIGHEST_NOISE and passes > fails:
            passes, fails = self.inquiry.more_votes(self.everything, 4 * votes, why)
        noise = noise_of(passes, fails)
        failed = f"all-FP32 failed {fails} times of {passes + fails}"
        self.baselines = Baselines(all_fp32=Verdict(False, math.nan, passes, fails))
        if fails >= 0.9 * (passes + fails):
            return "unreachable", failed
        if noise > HIGHEST_NOISE:
            return "flaky", f"{failed}: no set can be told from a failing one"
        self.inquiry.start_voting(Voting(noise, self.options.confidence))
        return None

    # --- one search --------------------------------------------------------------------------------------------------

    def _attempt(self) -> tuple[Status, str]:
        nothing: Kept = frozenset()
        ask = self.inquiry.ask
        low = ask(nothing, why="all low")
        self.baselines = Baselines(all_low=low)
        if low.passed:
            rerun = low
            for _ in range(1 if self.inquiry.voting else self.options.reruns):
                rerun = ask(nothing, "proof", "all low, again", fresh=True)
            self.baselines, self.answer = Baselines(low, None, low, rerun), nothing
            return "nothing_needed", "all-low passes"
        high = ask(self.everything, why="all FP32")
        self.baselines = Baselines(low, high)
        for _ in range(0 if self.inquiry.voting else self.options.baseline_repeats - 1):
            low = ask(nothing, why="all low, again", fresh=True)
            high = ask(self.everything, why="all FP32, again", fresh=True)
        if not high.passed:
            for _ in range(0 if self.inquiry.voting else self.options.reruns):
                ask(self.everything, "proof", "all FP32, again", fresh=True)
            return "unreachable", "all-FP32 fails: nothing that is kept can make this pass"
        kept = self._bracket(high) if self.options.settled is None else self.everything
        while True:
            kept = self._reduce(kept)
            certified = self._prove(kept)
            if certified.needless is not None:
                kept -= {certified.needless}
                continue
            if self.options.settled is not None:
                break
            better = self.improver.improve(kept, certified, self._rerun(), self._allowance(kept)) or self.inquiry.best()
            if better is None or self.inquiry.weight(better) >= self.inquiry.weight(kept):
                break
            kept = better
        open_ones = [one.unit for one in certified.certificates if not one.verdict.decided]
        if open_ones:
            return "found_not_minimal", f"votes on {len(open_ones)} of {len(kept)} certificates stayed undecided"
        return "found", f"passes with {len(kept)} of {len(self.units)} kept, and without any one of them it fails"

    def _rerun(self) -> Verdict:
        assert self.baselines.answer_rerun is not None
        return self.baselines.answer_rerun

    def _allowance(self, kept: Kept) -> int:
        """Questions left for improving: what has been asked, and the proof of a better answer, belong to the effort."""
        effort = self.options.effort * len(kept) * math.log2(max(2, len(self.units)))
        asked = self.inquiry.questions - self.probed
        return int(effort) - asked - len(kept) - self.options.reruns

    def _passes(self, why: str) -> Callable[[Kept], bool]:
        return lambda kept: self.inquiry.ask(kept, why=f"{why}: keep {len(kept)}").passed

    def _bracket(self, high: Verdict) -> Kept:
        """A passing set that begins with the most suspect units."""
        start = 1
        if self.options.probes:
            start = self._probe(high)
        for group in self._first_groups():
            if self.inquiry.ask(group, why=f"one structure: keep {len(group)}").passed:
                return group
        items = [frozenset({name}) for name in self.order]
        return union(items[: smallest_prefix(self._passes("prefix"), items, start)])

    def _probe(self, high: Verdict) -> int:
        """Rank by each unit low alone; returns how many of these fail, at least 1."""
        effects: dict[str, float] = {}
        failing: set[str] = set()
        before = self.inquiry.questions
        for name in self.order:
            alone = self.inquiry.ask(self.everything - {name}, "probes", f"{name} low alone")
            lost = high.margin - alone.margin
            effects[name] = math.inf if alone.margin == -math.inf else (0.0 if math.isnan(lost) else lost)
            if not alone.passed:
                failing.add(name)
        self.probed += self.inquiry.questions - before
        by_id = {unit.id: unit for unit in self.units}
        self.order = rank_by_effect(effects, frozenset(failing), self.order, by_id, self.options.objective)
        self.improver.order = self.order
        return max(1, len(failing))

    def _first_groups(self) -> list[Kept]:
        """Repeated structures that the most suspect units belong to."""
        names = dict.fromkeys(self.group[name] for name in self.order[:GROUP_TRIALS] if self.group[name])
        groups = [frozenset(name for name in self.order if self.group[name] == group) for group in names]
        return [group for group in groups if 1 < len(group) < len(self.units)]

    def _reduce(self, kept: Kept) -> Kept:
        """Eliminate by repeated structures, then by items."""
        passes = self._passes("demote")
        items = self.improver.items(kept)[::-1]

        def open_items(kept: Kept) -> list[Item]:
            # An item that was seen to be needed with exactly this set kept is left to its certificate.
            settled = self.options.settled or frozenset()
            verdicts = (
                (item, self.inquiry.known(kept - item)) for item in items if item <= kept and not item <= settled
            )
            return [item for item, verdict in verdicts if verdict is None or verdict.passed]

        together = bundles(open_items(kept), lambda item: self.group[next(iter(item))] if len(item) == 1 else "")
        if len(together) < len(open_items(kept)):
            kept = eliminate(passes, kept, together)
        return eliminate(passes, kept, open_items(kept))

    def _prove(self, kept: Kept) -> Certified:
        """Fresh evaluations of the answer, then of each unit's certificate."""
        self.answer, self.certified = None, Certified(())
        first = rerun = self.inquiry.known(kept)
        assert first is not None, "elimination ends at a set it has asked for"
        for _ in range(1 if self.inquiry.voting else self.options.reruns):
            rerun = self.inquiry.ask(kept, "proof", "the answer again", fresh=True)
        if self.inquiry.voting is None:
            # Margins that scatter as widely as the answer is inside the acceptance: it may fail one day, so it is asked for longer.
            margins = self.inquiry.margins(kept)
            for _ in range(CALIBRATION if min(margins) < max(margins) - min(margins) else 0):
                rerun = self.inquiry.ask(kept, "proof", "the answer again, at the limit", fresh=True)
        certified = certify(self.inquiry, kept, [name for name in reversed(self.order) if name in kept])
        if certified.needless is None:
            self.answer, self.certified = kept, certified
            self.baselines = replace(self.baselines, answer=first, answer_rerun=rerun)
        return certified
