"""``EngineOracle``: the question of a search, answered by running the engine on every input and judging its outputs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from probe.errors import InputError
from probe.search.oracle import Evaluation

if TYPE_CHECKING:
    from probe.culprits.judge import Judge, Judged, Looked
    from probe.engine.assignment import Assignment
    from probe.engine.engine import Engine
    from probe.store.feeds import InputSet

Array = np.ndarray[Any, Any]
Outputs = Mapping[str, Array]
Reuse = Callable[["InputSet", "Assignment"], "Outputs | None"]


class Assigns(Protocol):
    """What the oracle needs of a search space."""

    def assignment(self, base: Assignment, members: frozenset[str], /) -> Assignment:
        """``base`` with members kept in FP32."""
        ...


class EngineOracle:
    """Runs the engine with some members kept and everything else as ``base`` says; nothing is built between evaluations.

    Args:
        engine: compiled once.
        space: turns members into an assignment; may be exchanged while the members mean the same.
        base: what is kept and chosen whatever the members are.
        sets: every input, by the ids the judge knows.
        judge: of the outputs.
        reuse: runs one input where something cheaper than the whole network is known to give the same bits; None where it is not. What is
            asked a second time runs whole: it is asked again to see whether the answer repeats itself.
        stop_early: end an evaluation at the first input that fails it, those first that failed before. What fails then has no margin
            (NaN), whichever input it was, so that a search resumed from a log goes the same way.

    Attributes:
        last: what the last evaluation was judged.
        evaluated: how many there were.
        seconds: of all of them; ``network_seconds`` running, ``judge_seconds`` judging.
    """

    def __init__(
        self,
        engine: Engine,
        space: Assigns,
        base: Assignment,
        sets: Sequence[InputSet],
        judge: Judge,
        *,
        reuse: Reuse | None = None,
        stop_early: bool = False,
    ) -> None:
        self.engine, self.space, self.base, self.judge = engine, space, base, judge
        self._sets = list(sets)
        self._reuse, self._stop_early = reuse, stop_early
        self._seen: set[Assignment] = set()
        self._failed: dict[str, int] = {one.id: 0 for one in sets}
        self.last: Judged | None = None
        self.evaluated = 0
        self.seconds = self.network_seconds = self.judge_seconds = 0.0

    def __call__(self, members: frozenset[str], /) -> Evaluation:
        """Evaluate with ``members`` kept. A network that does not run under this assignment fails with the reason.

        Raises:
            InputError: the check cannot judge, or members that are none of the space.
        """
        judged = self.of(members)
        margin = math.nan if self._stop_early and not judged.passed else judged.margin
        return Evaluation(judged.passed, margin, measured(judged))

    def of(self, members: frozenset[str]) -> Judged:
        """Evaluate with ``members`` kept, and the whole judgement of it."""
        return self.evaluate(self.space.assignment(self.base, members))

    def evaluate(self, assignment: Assignment) -> Judged:
        """Run every input under an assignment and judge what comes out."""
        begin = time.perf_counter()
        looked: dict[str, Looked] = {}
        failures: dict[str, str] = {}
        reuse = self._reuse if assignment not in self._seen else None
        self._seen.add(assignment)
        for one in self._order():
            outputs = self._run(one, assignment, reuse, failures)
            if outputs is not None:
                before = time.perf_counter()
                looked[one.id] = self.judge.look(one.id, outputs)
                self.judge_seconds += time.perf_counter() - before
            if self._stop_early and (outputs is None or self.judge.fails_alone(looked[one.id])):
                break
        before = time.perf_counter()
        judged = self.judge.decide(looked, failures)
        for key in judged.failing_inputs:
            self._failed[key] += 1
        now = time.perf_counter()
        self.judge_seconds += now - before
        self.seconds += now - begin
        self.evaluated += 1
        self.last = judged
        return judged

    def _order(self) -> Sequence[InputSet]:
        return sorted(self._sets, key=lambda one: -self._failed[one.id]) if self._stop_early else self._sets

    def _run(
        self, one: InputSet, assignment: Assignment, reuse: Reuse | None, failures: dict[str, str]
    ) -> Outputs | None:
        begin = time.perf_counter()
        try:
            found = reuse(one, assignment) if reuse is not None else None
            return found if found is not None else self.engine.run(one.feeds, assignment)
        except InputError as error:
            failures[one.id] = error.what + (f" ({error.where})" if error.where else "")
            return None
        finally:
            self.network_seconds += time.perf_counter() - begin


def measured(judged: Judged) -> dict[str, Any]:
    """What a log says of an evaluation beyond its verdict: ``range_rel`` of the worst output, the deciding value of each criterion as
    ``METRIC @ OUTPUT``, reasons, and the inputs that fail."""
    found: dict[str, Any] = {"range_rel": judged.worst}
    found |= {f"{metric} @ {name}": v for name, values in judged.metrics.items() for metric, v in values.items()}
    if judged.reasons:
        found["reasons"] = list(judged.reasons)
    if judged.failing_inputs:
        found["failing_inputs"] = list(judged.failing_inputs)
    return found
