"""``Oracle``: the question a search asks; ``Inquiry``: asks it once a set, counts, votes, keeps to a budget and resumes from a log."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal, Protocol

from probe.search.ranking import Objective, weight
from probe.search.units import Unit
from probe.search.voting import Voting

Kind = Literal["search", "probes", "proof"]
Kept = frozenset[str]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one evaluation of an assignment said.

    Attributes:
        passed: the verdict; the search decides by nothing else.
        margin: how far inside the acceptance, 1 - value / limit: 0 at the limit, negative beyond, -Inf for NaN or Inf in the outputs;
            NaN where it is not known. Used to order what is tried, never as a verdict.
        measured: values for the reader of a log, by metric; the search does not look at them.
    """

    passed: bool
    margin: float = math.nan
    measured: Mapping[str, Any] = field(default_factory=dict)


class Oracle(Protocol):
    """Runs the network with ``kept`` (members of units) in high precision and everything else low, and judges the outputs."""

    def __call__(self, kept: frozenset[str], /) -> Evaluation: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One evaluation, as a log holds it. Appended in order, never changed; a search resumes from any prefix.

    Attributes:
        index: of the evaluation, from 0.
        kind: what it was made for.
        why: the same in words, such as "prefix 8" or "without conv1".
        kept: members in high precision.
    """

    index: int
    kind: Kind
    why: str
    kept: frozenset[str]
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class Verdict:
    """Answer to a question, from one evaluation or several.

    Attributes:
        passed: False also where votes stayed undecided.
        margin: of the evaluation, the median where several voted; NaN where not known.
        passes, fails: votes.
        decided: False where the most votes allowed did not reach the confidence.
    """

    passed: bool
    margin: float
    passes: int
    fails: int
    decided: bool = True


@dataclass(frozen=True, slots=True)
class Violation:
    """``passing`` passes and ``failing``, which keeps more, fails: more in high precision is not always better here."""

    passing: Kept
    failing: Kept


@dataclass(frozen=True, slots=True)
class Milestone:
    """A passing set better than those before it, found at evaluation ``index``."""

    index: int
    kept: Kept
    weight: float


class BudgetSpentError(Exception):
    """No further evaluation is allowed; the search ends here with what it has."""


class ContradictionError(Exception):
    """The oracle answered the same question differently."""

    def __init__(self, kept: Kept, before: Verdict, after: Verdict) -> None:
        super().__init__(f"{len(kept)} units kept: {before} and then {after}")
        self.kept, self.before, self.after = kept, before, after


class AllowanceSpentError(Exception):
    """An optional phase has asked as much as it may."""


RECHECKS = 2  # violations of monotonicity that are asked again to tell a flaky oracle from a network that behaves so


class Inquiry:
    """Asks the oracle, once a set unless asked afresh.

    Args:
        oracle: asked with members of units.
        units: all of them.
        max_evaluations, max_seconds: budget of this call; what the log answers is free. None: no limit.
        clock: seconds, from any origin.
        log: entries of an earlier search over the same members: answers are taken from it, a set's in their order, before the
            oracle is asked.
        on_entry: called with every new entry.
        objective: what the best passing set is light in.

    Attributes:
        counts: evaluations by kind, those that the log answered included; "cached": questions answered without one.
        questions: that needed at least one evaluation.
        violations: of monotonicity, the first of each failing set.
    """

    def __init__(
        self,
        oracle: Oracle,
        units: Sequence[Unit],
        *,
        max_evaluations: int | None = None,
        max_seconds: float | None = None,
        clock: Callable[[], float] | None = None,
        log: Iterable[Entry] = (),
        on_entry: Callable[[Entry], None] | None = None,
        objective: Objective = "count",
    ) -> None:
        self._oracle = oracle
        self._units = {unit.id: unit for unit in units}
        self.everything: Kept = frozenset(self._units)
        self._objective: Objective = objective
        self._max_evaluations, self._max_seconds = max_evaluations, max_seconds
        self._clock = clock or (lambda: 0.0)
        self._started = self._clock()
        self._recorded: dict[frozenset[str], deque[Entry]] = {}
        for entry in log:
            self._recorded.setdefault(entry.kept, deque()).append(entry)
        self._on_entry = on_entry
        self._votes: dict[Kept, list[Evaluation]] = {}
        self._known: dict[Kept, Verdict] = {}
        self._rechecks = 0
        self._allowed: int | None = None
        self.voting: Voting | None = None
        self.counts: dict[str, int] = {"search": 0, "probes": 0, "proof": 0, "cached": 0}
        self.evaluated = 0  # evaluations of this call, without those the log answered
        self.questions = 0
        self.violations: list[Violation] = []
        self.history: list[Milestone] = []

    @property
    def seconds(self) -> float:
        """Since the search began."""
        return self._clock() - self._started

    @property
    def total(self) -> int:
        """Evaluations, those that the log answered included."""
        return self.counts["search"] + self.counts["probes"] + self.counts["proof"]

    def weight(self, kept: Kept) -> float:
        """Of a set, in the objective."""
        return math.fsum(weight(self._units[name], self._objective) for name in kept)

    def best(self) -> Kept | None:
        """The lightest set known to pass, of equal ones the one found first; None when none is known."""
        passing = [kept for kept, verdict in self._known.items() if verdict.passed]
        return min(passing, key=lambda kept: (self.weight(kept), len(kept)), default=None)

    def known(self, kept: Kept) -> Verdict | None:
        """What was answered before, without asking."""
        return self._known.get(kept)

    def ask(self, kept: Kept, kind: Kind = "search", why: str = "", *, fresh: bool = False) -> Verdict:
        """Does ``kept`` (ids of units) pass?

        Args:
            fresh: evaluate again, and judge by the new evaluations alone. They join those before them.

        Raises:
            BudgetSpentError: what was learnt stays.
            ContradictionError: the oracle contradicts an earlier answer.
            AllowanceSpentError: an optional phase asks too much.
        """
        before = self._known.get(kept)
        if before is not None and not fresh:
            self.counts["cached"] += 1
            return before
        if self._allowed is not None and self.questions >= self._allowed:
            raise AllowanceSpentError
        self.questions += 1
        verdict = self._poll(kept, kind, why)
        if before is not None and verdict.passed != before.passed:
            self._learn(kept, self._pooled(kept))
            raise ContradictionError(kept, before, verdict)
        # In a second poll of the same outcome the margins of both count; undecided stays undecided.
        self._learn(kept, verdict)
        self._check_monotone(kept, verdict)
        return verdict

    def more_votes(self, kept: Kept, count: int, why: str) -> tuple[int, int]:
        """Evaluate until ``kept`` has ``count`` evaluations; passes and fails among all it has.

        Raises:
            BudgetSpentError: as ``ask``.
        """
        while len(self._votes.get(kept, ())) < count:
            self._evaluate(kept, "search", why)
        passes = sum(one.passed for one in self._votes[kept])
        return passes, len(self._votes[kept]) - passes

    def margins(self, kept: Kept) -> list[float]:
        """Of all evaluations of a set."""
        return [one.margin for one in self._votes.get(kept, ())]

    def start_voting(self, voting: Voting) -> None:
        """From now on several evaluations decide a question. Earlier verdicts are void; their evaluations count as votes."""
        self.voting = voting
        self._known = {}
        self.history.clear()
        self.violations.clear()

    @contextmanager
    def allowance(self, questions: int) -> Iterator[None]:
        """A phase that may be left out: inside, ``ask`` raises after so many questions, and the block ends there without an error."""
        outer = self._allowed
        limit = self.questions + max(0, questions)
        self._allowed = limit if outer is None else min(outer, limit)
        try:
            yield
        except AllowanceSpentError:
            if outer is not None and self.questions >= outer:
                raise
        finally:
            self._allowed = outer

    # --- one evaluation ----------------------------------------------------------------------------------------------

    def _poll(self, kept: Kept, kind: Kind, why: str) -> Verdict:
        if self.voting is None:
            one = self._evaluate(kept, kind, why)
            return Verdict(one.passed, one.margin, int(one.passed), int(not one.passed))
        # A set never asked by vote brings the evaluations it already has.
        votes = [] if kept in self._known else list(self._votes.get(kept, ()))
        while (verdict := self._counted(votes)).decided is False and len(votes) < self.voting.most:
            votes.append(self._evaluate(kept, kind, why))
        return verdict

    def _counted(self, votes: Sequence[Evaluation]) -> Verdict:
        assert self.voting is not None
        passes = sum(one.passed for one in votes)
        decision = self.voting.decide(passes, len(votes) - passes)
        margins = [one.margin for one in votes if not math.isnan(one.margin)]
        return Verdict(
            bool(decision),
            median(margins) if margins else math.nan,
            passes,
            len(votes) - passes,
            decided=decision is not None,
        )

    def _pooled(self, kept: Kept) -> Verdict:
        """By all evaluations of a set; failing while they do not agree and there is no voting."""
        votes = self._votes[kept]
        if self.voting is not None:
            return self._counted(votes)
        passes = sum(one.passed for one in votes)
        return Verdict(passes == len(votes), votes[-1].margin, passes, len(votes) - passes)

    def _evaluate(self, kept: Kept, kind: Kind, why: str) -> Evaluation:
        members = frozenset().union(*(self._units[name].members for name in kept))
        recorded = self._recorded.get(members)
        if recorded:
            evaluation = recorded.popleft().evaluation
            self.counts[kind] += 1
        else:
            if self._max_evaluations is not None and self.evaluated >= self._max_evaluations:
                raise BudgetSpentError
            if self._max_seconds is not None and self.seconds >= self._max_seconds:
                raise BudgetSpentError
            evaluation = self._oracle(members)
            entry = Entry(self.total, kind, why, members, evaluation)
            self.counts[kind] += 1
            self.evaluated += 1
            if self._on_entry is not None:
                self._on_entry(entry)
        self._votes.setdefault(kept, []).append(evaluation)
        return evaluation

    # --- what answers say together -----------------------------------------------------------------------------------

    def _learn(self, kept: Kept, verdict: Verdict) -> None:
        self._known[kept] = verdict
        if not verdict.passed:
            self.history = [one for one in self.history if one.kept != kept]
            return
        found = Milestone(self.total - 1, kept, self.weight(kept))
        if not self.history or found.weight < self.history[-1].weight:
            self.history.append(found)

    def _check_monotone(self, kept: Kept, verdict: Verdict) -> None:
        for other, theirs in self._known.items():
            if theirs.passed == verdict.passed:
                continue
            passing, failing = (kept, other) if verdict.passed else (other, kept)
            if not passing < failing:
                continue
            if any(one.failing == failing for one in self.violations):
                return
            if self.voting is None and self._rechecks < RECHECKS:
                self._rechecks += 1
                self._recheck(passing)
                self._recheck(failing)
            self.violations.append(Violation(passing, failing))
            return

    def _recheck(self, kept: Kept) -> None:
        before = self._known[kept]
        again = self._poll(kept, "search", "again: keeping more was worse")
        if again.passed != before.passed:
            self._learn(kept, self._pooled(kept))
            raise ContradictionError(kept, before, again)
