"""``tactics_table``: every candidate of every layer, how fast, how wrong, and what becomes of the network when this one choice flips."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from probe.blame.choosing import Progress, TacticOptions, Work
from probe.blame.describing import about
from probe.blame.exact_layer import ExactLayer
from probe.blame.fronts import dominated, network_points
from probe.blame.run_files import RunTactics
from probe.blame.switching import of_judged
from probe.culprits.distance import Distance
from probe.culprits.judge import Judge
from probe.culprits.oracle import EngineOracle
from probe.debug.goldens import open_golden
from probe.engine.activations import activations
from probe.engine.assignment import Choice
from probe.engine.tuning.choose import choose, problems_of, shapes_of
from probe.engine.tuning.replay import Replay
from probe.engine.tuning.tactic_file import base_of
from probe.errors import InputError
from probe.results.blame import FrontPoint, MeasuredTactic, TacticsOfLayer, TacticsTableResult

if TYPE_CHECKING:
    from probe.engine.assignment import Assignment
    from probe.engine.tuning.choose import Problem
    from probe.engine.tuning.context import Candidate
    from probe.model.model import Model
    from probe.store.feeds import InputSet

Key = tuple[str, str]  # layer, tactic
POINTS = 8  # networks between the most accurate and the fastest that are evaluated


@dataclass(frozen=True, slots=True)
class TableOptions:
    """What the user asked of a table.

    Attributes:
        layers: only layers that it is found in (name, nodes, tensors).
        tactics: only candidates whose whole name it matches; exact is measured in any case.
        measure: time the candidates.
        flip: run the network with each single choice changed.
        max_seconds: for the flips; those of the layers with the largest errors come first. None: no limit.
    """

    run: TacticOptions
    layers: re.Pattern[str] | None = None
    tactics: re.Pattern[str] | None = None
    measure: bool = True
    flip: bool = True
    max_seconds: float | None = None


def tactics_table(
    model: Model,
    sets: Sequence[InputSet],
    options: TableOptions,
    *,
    start: RunTactics | None = None,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> TacticsTableResult:
    """Measure every candidate of every layer.

    Args:
        sets: the inputs; errors are merged over all, times are of the first.
        start: a tactic file: what other layers run while one is flipped, and its settings; None: exact.

    Raises:
        InputError: the model cannot be compiled or run in FP32, the file does not fit it, an option names nothing.
    """
    run = options.run
    if start is not None:
        if start.file is None:
            raise InputError("a replay file of Polygraphy says nothing about tactics here", where=start.path)
        file = start.file
        run = replace(run, precision=file.precision, passes=file.passes, fusion=file.fusion, interior=file.interior)
    with ExitStack() as opened:
        work = Work(model, sets, run, progress or (lambda _phase, _what: None), opened)
        return _Table(work, options, start).run(notes)


@dataclass
class _Table:
    work: Work
    options: TableOptions
    start: RunTactics | None
    errors: dict[Key, Distance] = field(default_factory=dict)
    notes_of: dict[str, str] = field(default_factory=dict)  # layer or "layer tactic" -> why there is no number

    def run(self, notes: Sequence[str]) -> TacticsTableResult:
        work, run = self.work, self.work.options
        self.engine = engine = work.compile()
        self.base = self._base()
        with work.phase("golden") as tell:
            golden = open_golden(
                run.golden, work.model, work.sets, work.opened, threads=run.threads, outputs_only=True,
                custom_op_libs=run.custom_op_libs, memory_limit=run.memory_limit, progress=tell,
            )  # fmt: skip
        with work.phase("candidates"):
            problems = self._problems()
        timings = None
        if self.options.measure:
            with work.phase("measure") as tell:
                timings = work.timings(engine)
                wanted = [(one.layer, one.context, one.candidates) for one in problems]
                feeds = work.sets[0].feeds
                shapes = shapes_of(engine, feeds) if engine.tuner is not None else None
                try:
                    times = timings.measure(engine, feeds, wanted, shapes=shapes, progress=tell)
                finally:
                    work.save(timings)
                problems = [_timed(one, times) for one in problems]
                self.notes_of |= {f"{name} {one.tactic}": one.wrong for (name, _), one in times.items() if one.wrong}
        with work.phase("float64") as tell:
            self._measure_errors(problems, tell)
        judge = Judge(
            golden, [port.name for port in work.model.outputs], work.sets, acceptance=run.acceptance,
            precision=run.precision, preset=run.preset,
        )  # fmt: skip
        self.oracle = EngineOracle(engine, _NoSpace(), self.base, work.sets, judge)
        base = of_judged(self.oracle.evaluate(self.base))
        with work.phase("flip") as tell:
            flips = self._flips(problems, tell) if self.options.flip else {}
        layers = tuple(self._layer(one, flips) for one in problems)
        with work.phase("front") as tell:
            front = self._front(layers, tell)
        return TacticsTableResult(
            layers=layers, base=base, front=front, acceptance=judge.acceptance, evaluations=self.oracle.evaluated,
            timing_cache=str(run.timing_cache or "") if timings is not None else "",
            notes=(*notes, *(timings.notes if timings is not None else ()), *golden.header.notes), **about(work, engine, golden),
        )  # fmt: skip

    # --- layers and candidates

    def _base(self) -> Assignment:
        """What the network runs while one choice is flipped."""
        if self.start is None:
            return self.engine.assignment
        assert self.start.file is not None
        self.engine.assignment = base_of(self.start.file, self.engine)
        replay = Replay(self.start.file, engine=self.engine, edited=self.start.edited, source=self.start.path)
        return choose(self.engine, self.work.sets[0].feeds, [replay]).assignment(self.engine.assignment)

    def _problems(self) -> list[Problem]:
        found = list(problems_of(self.engine, self.work.sets[0].feeds, self.base))
        if (pattern := self.options.layers) is not None:
            found = [one for one in found if any(map(pattern.search, _names(one)))]
            if not found:
                raise InputError(f"no layer with a choice matches {pattern.pattern!r}", where="--layers")
        if (pattern := self.options.tactics) is not None:
            if not any(pattern.fullmatch(c.tactic) for one in found for c in one.candidates):
                raise InputError(f"no candidate is called {pattern.pattern!r}", where="--tactics")
            found = [
                replace(one, candidates=tuple(c for at, c in enumerate(one.candidates) if at == 0 or pattern.fullmatch(c.tactic)))
                for one in found
            ]  # fmt: skip
        return found

    # --- errors against float64

    def _measure_errors(self, problems: Sequence[Problem], tell: Callable[[str], None]) -> None:
        by_name = {one.layer.name: one for one in problems}
        exact: dict[str, ExactLayer] = {}
        for sets in self.work.sets:
            for layer, reads in activations(self.engine, sets.feeds, [one.layer for one in problems]):
                tell(layer.name)
                one = by_name[layer.name]
                try:
                    if layer.name not in exact:
                        exact[layer.name] = ExactLayer(self.engine, layer, one.context.precision, self.base.kept)
                    reference = exact[layer.name](reads)
                except InputError as error:
                    self.notes_of[layer.name] = f"no reference in float64: {error.what}"
                    continue
                for candidate in one.candidates:
                    self._add(one, candidate, reads, reference)
        for one in problems:
            if one.layer.name not in exact and one.layer.name not in self.notes_of:
                self.notes_of[one.layer.name] = "what it reads was not made, or is a sequence"

    def _add(self, one: Problem, candidate: Candidate, reads: Mapping[str, Any], reference: Mapping[str, Any]) -> None:
        key = (one.layer.name, candidate.tactic)
        try:
            choice = Choice(one.context.precision, candidate.tactic)
            made = self.engine.evaluate(one.layer, reads, choice, kept=self.base.kept)
        except InputError as error:
            self.notes_of[" ".join(key)] = error.what
            return
        self.errors.setdefault(key, Distance()).add(made, reference)

    # --- the network

    def _flips(self, problems: Sequence[Problem], tell: Callable[[str], None]) -> dict[Key, tuple[Any, float | None]]:
        """Each choice changed by itself: the judgement, and how far the outputs move. Layers with the largest errors first."""
        found: dict[Key, tuple[Any, float | None]] = {}
        plain = {one.id: self.engine.run(one.feeds, self.base) for one in self.work.sets}
        keys = [
            (one.layer.name, c.tactic)
            for one in problems
            for c in one.candidates
            if c.tactic != self.base.of(one.layer.name).tactic
        ]
        end = None if self.options.max_seconds is None else time.perf_counter() + self.options.max_seconds
        for key in sorted(keys, key=lambda key: -(self._rms(key) or 0.0)):
            if end is not None and time.perf_counter() > end:
                self.notes_of.setdefault(" ".join(key), f"not flipped: --max-seconds {self.options.max_seconds:g}")
                continue
            tell(f"{key[0]}: {key[1]}")
            assignment = self.base.with_tactics({key[0]: key[1]})
            judged = self.oracle.evaluate(assignment)
            moved = Distance()
            for one in self.work.sets:
                try:
                    moved.add(self.engine.run(one.feeds, assignment), plain[one.id])
                except InputError:  # the judgement has the reason
                    break
            found[key] = (of_judged(judged), moved.range_rel)
        return found

    def _rms(self, key: Key) -> float | None:
        return self.errors[key].rms if key in self.errors else None

    def _front(self, layers: Sequence[TacticsOfLayer], tell: Callable[[str], None]) -> tuple[FrontPoint, ...]:
        points = []
        for one in network_points(layers, POINTS):
            tell(one.words)
            judged = self.oracle.evaluate(self.base.with_tactics(one.tactics))
            odd = {name: tactic for name, tactic in one.tactics.items() if tactic != "exact"}
            points.append(FrontPoint(one.words, odd, one.layers_us, of_judged(judged)))
        return tuple(points)

    # --- rows

    def _layer(self, one: Problem, flips: Mapping[Key, tuple[Any, float | None]]) -> TacticsOfLayer:
        name = one.layer.name
        rows = [self._candidate(name, candidate, flips) for candidate in one.candidates]
        rows = [replace(row, front=not dominated(row, rows)) for row in rows]
        rows.sort(key=lambda row: (row.median_us is None, row.median_us or 0.0))
        return TacticsOfLayer(
            name, one.context.outputs, one.context.kind, one.context.precision, one.context.problem,
            self.base.of(name).tactic, tuple(rows), self.notes_of.get(name, ""),
        )  # fmt: skip

    def _candidate(
        self, layer: str, candidate: Candidate, flips: Mapping[Key, tuple[Any, float | None]]
    ) -> MeasuredTactic:
        key = (layer, candidate.tactic)
        distance = self.errors.get(key)
        flipped, changed = flips.get(key, (None, None))
        return MeasuredTactic(
            candidate.tactic, candidate.numerics, candidate.deterministic, candidate.median_us,
            distance.range_rel if distance is not None else None, distance.rms if distance is not None else None,
            front=False, flipped=flipped, changed=changed, note=self.notes_of.get(" ".join(key), ""),
        )  # fmt: skip


class _NoSpace:
    """Assignments are given whole."""

    def assignment(self, base: Assignment, members: Iterable[str], /) -> Assignment:
        del members
        return base


def _timed(one: Problem, times: Mapping[Key, Candidate]) -> Problem:
    return replace(one, candidates=tuple(times.get((one.context.layer, c.tactic), c) for c in one.candidates))


def _names(one: Problem) -> tuple[str, ...]:
    return (one.context.layer, *one.context.nodes, *one.context.outputs)
