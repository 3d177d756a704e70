"""Choices as the units of a search: what two builds choose differently, switched from one to the other by an argument of the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from probe.culprits.distance import local_changes
from probe.engine.assignment import Choice
from probe.engine.tuning.selector import error_class
from probe.results.blame import TacticDifference
from probe.results.find import Evaluated
from probe.search.units import Unit

if TYPE_CHECKING:
    from probe.culprits.judge import Judged
    from probe.engine.assignment import Assignment
    from probe.engine.engine import Engine
    from probe.engine.tuning.choose import Choices
    from probe.search.oracle import Evaluation
    from probe.store.feeds import InputSet


@dataclass(frozen=True)
class Switching:
    """The space of a search over tactics: its members are names of layers, and a member that is kept runs the good tactic.

    Attributes:
        good: layer -> tactic when it is kept.
    """

    good: Mapping[str, str]

    def assignment(self, base: Assignment, members: Iterable[str]) -> Assignment:
        """``base``, the bad choices, with these layers switched to good ones."""
        return base.with_tactics({name: self.good[name] for name in members})


def differences(good: Choices, bad: Choices) -> list[TacticDifference]:
    """Layers that two choices compute differently, in execution order."""
    return [
        TacticDifference(
            one.context.layer, one.context.outputs, one.context.kind, one.context.precision, good[one.context.layer].candidate.tactic,
            one.candidate.tactic,
        )
        for one in bad
        if good[one.context.layer].candidate.tactic != one.candidate.tactic
    ]  # fmt: skip


def measure_changes(
    engine: Engine,
    found: Sequence[TacticDifference],
    sets: Sequence[InputSet],
    *,
    progress: Callable[[str], None] | None = None,
) -> list[TacticDifference]:
    """How much each switch changes its layer by itself, on the activations of a run in FP32: what the search is ranked by. Costs about as
    much as two runs an input."""
    choices = {one.layer: (Choice(one.precision, one.bad), Choice(one.precision, one.good)) for one in found}
    changed = local_changes(engine, choices, sets, kept=engine.assignment.kept, progress=progress)
    return [replace(one, changed=changed[one.layer]) for one in found]


def units_of(found: Sequence[TacticDifference]) -> list[Unit]:
    """A unit a difference, suspected by what it changes; those that make NaN or Inf, or were not measured and promise little, first."""
    return [
        Unit(
            one.layer, frozenset({one.layer}), score=_score(one),
            flagged=one.changed is not None and math.isinf(one.changed),
        )
        for one in found
    ]  # fmt: skip


def _score(one: TacticDifference) -> float:
    if one.changed is not None:
        return one.changed
    # Not measured: by what the tactics promise, behind nothing that was.
    promised = error_class(one.bad, one.precision) - error_class(one.good, one.precision)
    return math.inf if promised > 0 else 0.0


def by_suspicion(found: Iterable[TacticDifference]) -> tuple[TacticDifference, ...]:
    """The most suspect first."""
    return tuple(sorted(found, key=lambda one: -_score(one)))


def of_judged(judged: Judged) -> Evaluated:
    """A judgement as results tell it."""
    margin = None if math.isnan(judged.margin) else judged.margin
    return Evaluated(judged.passed, margin, judged.worst, judged.reasons, judged.failing_inputs)


def of_evaluation(evaluation: Evaluation | None) -> Evaluated | None:
    """An evaluation of the search as results tell it."""
    if evaluation is None:
        return None
    said = evaluation.measured
    margin = None if math.isnan(evaluation.margin) else evaluation.margin
    return Evaluated(
        evaluation.passed, margin, said.get("range_rel"), tuple(said.get("reasons", ())),
        tuple(said.get("failing_inputs", ())),
    )  # fmt: skip
