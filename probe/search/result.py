"""``SearchResult``: what a search found, how it knows, and what it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from probe.search.groups import CulpritGroup, Merged
from probe.search.minimal_set import Certificate
from probe.search.oracle import Milestone, Verdict, Violation
from probe.search.voting import Voting

Status = Literal["nothing_needed", "found", "found_not_minimal", "unreachable", "flaky", "interrupted", "budget"]


@dataclass(frozen=True, slots=True)
class Baselines:
    """What brackets the answer; None where it was not asked.

    Attributes:
        all_low: nothing kept.
        all_fp32: everything kept.
        answer: the final set, when the search met it.
        answer_rerun: the same in fresh evaluations.
    """

    all_low: Verdict | None = None
    all_fp32: Verdict | None = None
    answer: Verdict | None = None
    answer_rerun: Verdict | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Outcome of a search.

    Attributes:
        status: ``nothing_needed``: all-low passes. ``found``: ``keep`` passes and is 1-minimal: without any one of its units it fails, as
            the certificates show; a smaller set of other units may exist. ``found_not_minimal``: ``keep`` passes, but not every
            certificate was decided. ``unreachable``: all-FP32 fails. ``flaky``: the oracle contradicts itself too much to be believed.
            ``interrupted``, ``budget``: ended early; ``keep`` is the best passing set known.
        reason: the same in a sentence.
        keep: ids of units in model order; None when no passing set is known.
        members: of the kept units.
        certificates: one a kept unit when ``found``.
        groups: which units break the output with each kept one, for those where a small group was found.
        merged: units found to compensate each other.
        violations: evaluations where keeping more was worse.
        history: passing sets, each better than the one before.
        evaluations: by kind: search, probes, proof; cached: questions that needed none. What a log answered is counted.
        seconds: of this call.
        voting: how questions were decided, when the oracle contradicted itself; its confidence is that of each question.
    """

    status: Status
    reason: str
    keep: tuple[str, ...] | None
    members: frozenset[str]
    baselines: Baselines
    certificates: tuple[Certificate, ...]
    groups: tuple[CulpritGroup, ...]
    merged: tuple[Merged, ...]
    violations: tuple[Violation, ...]
    history: tuple[Milestone, ...]
    evaluations: Mapping[str, int]
    seconds: float
    voting: Voting | None = None

    def __bool__(self) -> bool:
        """A passing set is known."""
        return self.keep is not None
