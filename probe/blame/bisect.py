"""``bisect_tactics``: which of the choices that two builds differ in are guilty, found by switching them, confirmed by flipping them both ways.

The search is the one of ``probe find``: kept means "as in the good build". It answers with choices of which none need be pinned less; each
comes with the small group that breaks the good build by itself, where there is one, so that choices that interact are named together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from probe.blame.choosing import TacticOptions, Work, check_new
from probe.blame.run_files import RunTactics
from probe.blame.switching import (
    Switching,
    by_suspicion,
    differences,
    measure_changes,
    of_evaluation,
    units_of,
)
from probe.culprits.answer import Notebook
from probe.culprits.judge import Judge
from probe.culprits.oracle import EngineOracle, measured
from probe.debug.goldens import open_golden
from probe.engine.tactics import tactic_of
from probe.engine.tuning.choose import Choices, choose
from probe.engine.tuning.replay import Replay
from probe.engine.tuning.rules import Rule, write_rules
from probe.engine.tuning.tactic_file import base_of, text_of, with_tactics
from probe.errors import InputError
from probe.results.blame import GuiltyChoice, TacticDifference, TacticsBisectResult
from probe.results.json import write_text
from probe.results.tactics import RecordedOutputs, TacticFile
from probe.search.find import Options
from probe.search.find import find as search
from probe.search.groups import culprit_group
from probe.search.oracle import Entry, Evaluation
from probe.store.feeds import hash_feeds

if TYPE_CHECKING:
    from probe.engine.assignment import Assignment
    from probe.engine.engine import Engine
    from probe.model.model import Model
    from probe.results.find import Evaluated
    from probe.search.result import SearchResult
    from probe.store.feeds import InputSet
    from probe.store.source import TensorSource

Progress = Callable[[str, str], None]
Members = frozenset[str]
ENDED = ("found", "found_not_minimal")


@dataclass(frozen=True, slots=True)
class Blamed:
    """Which of the differences of two builds are guilty.

    Attributes:
        found: the differences, measured.
        guilty: what is to be pinned, in execution order.
        confirmed: flipping the guilty choices breaks the good build and cures the bad one.
    """

    search: SearchResult
    found: tuple[TacticDifference, ...]
    guilty: tuple[GuiltyChoice, ...]
    good_run: Evaluated | None
    bad_run: Evaluated | None
    good_with_guilty: Evaluated | None
    bad_without_guilty: Evaluated | None
    confirmed: bool
    evaluations: Mapping[str, int]
    notebook: Notebook


def blame(
    oracle: EngineOracle,
    found: Sequence[TacticDifference],
    *,
    max_evaluations: int | None = None,
    reruns: int = 1,
    progress: Callable[[str], None] | None = None,
) -> Blamed:
    """Find the guilty among the differences.

    Args:
        oracle: whose base is the bad build, and whose space switches layers to the good one.
        found: in execution order.
        max_evaluations: budget of the search; what confirms its answer comes on top.
        reruns: fresh evaluations of the answer; more where tactics are not deterministic.
    """
    return _Blaming(oracle, found, reruns, progress or (lambda _what: None)).run(max_evaluations)


@dataclass
class _Blaming:
    oracle: EngineOracle
    found: Sequence[TacticDifference]
    reruns: int
    tell: Callable[[str], None]
    notebook: Notebook = field(default_factory=Notebook)
    confirming: int = 0

    def run(self, max_evaluations: int | None) -> Blamed:
        units = units_of(self.found)
        options = Options(reruns=self.reruns, max_evaluations=max_evaluations)
        result = search(units, self.oracle, options, on_entry=self._note)
        self.everything: Members = frozenset(one.layer for one in self.found)
        self.keep: Members = result.members
        by_layer = {one.layer: one for one in self.found}
        guilty: tuple[GuiltyChoice, ...] = ()
        flipped = cured = None
        if result.status in ENDED and self.keep:
            groups = self._groups(result)
            guilty = tuple(self._guilty(one, groups, by_layer, result) for one in self.found if one.layer in self.keep)
            together = self.keep.union(*(one for one in groups.values() if one is not None))
            flipped = self._ask(self.everything - together, "confirm: the good run with the guilty choices")
            cured = self._ask(self.keep, "confirm: the bad run with the guilty choices pinned")
        confirmed = bool(guilty) and cured is not None and cured.passed
        if confirmed and all(one.group for one in guilty):
            # Choices that break things only together with many others are shown by their certificates alone.
            confirmed = flipped is not None and not flipped.passed
            confirmed = confirmed and not any(one.flipped.passed for one in guilty if one.flipped is not None)
        return Blamed(
            search=result, found=tuple(self.found), guilty=guilty,
            good_run=of_evaluation(self.notebook.last(self.everything)), bad_run=of_evaluation(self.notebook.last(frozenset())),
            good_with_guilty=of_evaluation(flipped), bad_without_guilty=of_evaluation(cured), confirmed=confirmed,
            evaluations=self._counts(), notebook=self.notebook,
        )  # fmt: skip

    def _counts(self) -> dict[str, int]:
        """Evaluations by kind; those that confirm stand in the notebook as proofs."""
        counts = self.notebook.counts
        return {**counts, "proof": counts["proof"] - self.confirming, "confirm": self.confirming}

    def _note(self, entry: Entry) -> None:
        # The search speaks of precision: kept is what it knows.
        why = entry.why.replace("all low", "all bad").replace("all FP32", "all good").replace("keep ", "good ")
        entry = replace(entry, why=why.replace("low alone", "bad alone"))
        self.notebook.add(entry)
        self.tell(f"{entry.why}: {'passes' if entry.evaluation.passed else 'fails'}")

    def _ask(self, kept: Members, why: str) -> Evaluation:
        """A fresh evaluation beyond the search."""
        judged = self.oracle.of(kept)
        evaluation = Evaluation(judged.passed, judged.margin, measured(judged))
        self._note(Entry(len(self.notebook.entries), "proof", why, kept, evaluation))
        self.confirming += 1
        return evaluation

    def _passes(self, kept: Members) -> bool:
        known = self.notebook.last(kept)
        return (known if known is not None else self._ask(kept, f"what belongs together: {len(kept)} good")).passed

    def _groups(self, result: SearchResult) -> dict[str, Members | None]:
        """Guilty layer -> the small group that breaks the good build, itself included; None where only many together do."""
        known = {one.unit: one.units for one in result.groups}
        suspects = [one.layer for one in by_suspicion(self.found)]
        low = [frozenset({name}) for name in reversed(suspects) if name not in self.keep]
        found: dict[str, Members | None] = {}
        for name in suspects:
            if name in self.keep:
                group = known.get(name) or culprit_group(self._passes, self.everything, name, low)
                found[name] = None if group is None else self._shrunk(group, name)
        return found

    def _shrunk(self, group: Members, guilty: str) -> Members:
        """Without members that the good run fails without, too: the group is what is accused, and nobody is accused for riding along."""
        for name in sorted(group - {guilty}):
            if not self._passes(self.everything - (group - {name})):
                group -= {name}
        return group

    def _guilty(
        self,
        one: TacticDifference,
        groups: Mapping[str, Members | None],
        by_layer: Mapping[str, TacticDifference],
        result: SearchResult,
    ) -> GuiltyChoice:
        group = groups[one.layer]
        certificate = self.notebook.place(self.keep - {one.layer})
        instead = next((known.alternatives for known in result.groups if known.unit == one.layer), ())
        if group is None:
            return GuiltyChoice(one, (), certificate, None, instead)
        kept = self.everything - group
        shown = self.notebook.last(kept) or self._ask(kept, f"the good run with {' and '.join(sorted(group))} as bad")
        members = tuple(by_layer[name] for name in by_layer if name in group)
        return GuiltyChoice(one, members, certificate, of_evaluation(shown), instead)


# --- files, a model, inputs ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BisectOptions:
    """What the user asked of a bisection.

    Attributes:
        run: how it is judged; precision, passes, fusion and interior are those of the files.
        pinned: where the tactic file goes with which the bad run passes; None: none is written.
        denied: where the deny-list goes.
    """

    run: TacticOptions
    pinned: Path | None = None
    denied: Path | None = None
    max_evaluations: int | None = None


def bisect_tactics(
    good: RunTactics,
    bad: RunTactics,
    model: Model,
    sets: Sequence[InputSet],
    options: BisectOptions,
    *,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> TacticsBisectResult:
    """Find which of the choices that two tactic files differ in make the bad run fail.

    Args:
        good, bad: read from tactic files of this model; both must fit it strictly.
        sets: the inputs; an evaluation runs all of them.

    Raises:
        InputError: files that were edited, of another model, device or other settings, with everything that does not fit; equal choices;
            files that cannot be written.
    """
    fine, wrong = _file_of(good), _file_of(bad)
    run = replace(
        options.run, precision=wrong.precision, passes=wrong.passes, fusion=wrong.fusion, interior=wrong.interior
    )
    for target in (options.pinned, options.denied):
        if target is not None:
            check_new(target, run, model)
    with ExitStack() as opened:
        work = Work(model, sets, run, progress or (lambda _phase, _what: None), opened)
        engine = work.compile()
        base = engine.assignment = base_of(wrong, engine)
        with work.phase("replay"):
            chosen = [
                choose(engine, sets[0].feeds, [Replay(file, engine=engine, edited=one.edited, source=one.path)])
                for file, one in ((fine, good), (wrong, bad))
            ]
        found = differences(*chosen)
        if not found:
            raise InputError("both files choose the same", where=f"{good.path} and {bad.path}", hint="diff them first")
        golden = _golden(work)
        with work.phase("measure") as tell:
            found = measure_changes(engine, found, sets, progress=tell)
        judge = Judge(
            golden, [port.name for port in model.outputs], sets, acceptance=run.acceptance, precision=run.precision, preset=run.preset
        )  # fmt: skip
        space = Switching({one.layer: one.good for one in found})
        oracle = EngineOracle(engine, space, chosen[1].assignment(base), sets, judge)
        with work.phase("search") as tell:
            steady = all(tactic_of(name).deterministic for one in found for name in (one.good, one.bad))
            blamed = blame(
                oracle, found, max_evaluations=options.max_evaluations, reruns=1 if steady else 5, progress=tell
            )
        if blamed.confirmed:
            _write(options, engine, work.sets, wrong, blamed, oracle, chosen[1])
        return _result(blamed, work, engine, good, bad, golden, judge, options, notes)


def _file_of(run: RunTactics) -> TacticFile:
    if run.file is None:
        raise InputError(
            "a replay file of Polygraphy names tactics of TensorRT, which mean nothing here", where=run.path,
            hint="probe tactics diff compares such files",
        )  # fmt: skip
    return run.file


def _golden(work: Work) -> TensorSource:
    options = work.options
    with work.phase("golden") as tell:
        return open_golden(
            options.golden, work.model, work.sets, work.opened, threads=options.threads, outputs_only=True,
            custom_op_libs=options.custom_op_libs, memory_limit=options.memory_limit, progress=tell,
        )  # fmt: skip


def _write(
    options: BisectOptions,
    engine: Engine,
    sets: Sequence[InputSet],
    wrong: TacticFile,
    blamed: Blamed,
    oracle: EngineOracle,
    choices: Choices,
) -> None:
    """The bad file with the guilty choices pinned, run and recorded; and the deny-list."""
    pins = [one.choice for one in blamed.guilty]
    if options.pinned is not None:
        pinned = with_tactics(wrong, {(one.outputs, one.layer): one.good for one in pins})
        assignment = oracle.space.assignment(oracle.base, frozenset(one.layer for one in pins))
        recorded, verdict = _recorded(engine, sets, assignment), oracle.evaluate(assignment).verdict
        write_text(text_of(replace(pinned, recorded=recorded, verdict=verdict)), options.pinned)
    if options.denied is not None:
        rules = [Rule.of(choices[one.layer].context, one.bad, [c.context for c in choices]) for one in pins]
        said = "Tactics found guilty by probe tactics bisect. For: probe tactics record MODEL --deny @FILE"
        write_text(write_rules(rules, said), options.denied)


def _recorded(engine: Engine, sets: Sequence[InputSet], assignment: Assignment) -> tuple[RecordedOutputs, ...]:
    return tuple(RecordedOutputs(one.id, one.sha256, hash_feeds(engine.run(one.feeds, assignment))) for one in sets)


def _result(
    blamed: Blamed,
    work: Work,
    engine: Engine,
    good: RunTactics,
    bad: RunTactics,
    golden: TensorSource,
    judge: Judge,
    options: BisectOptions,
    notes: Sequence[str],
) -> TacticsBisectResult:
    from probe.blame.describing import about

    wrote = blamed.confirmed
    return TacticsBisectResult(
        status=blamed.search.status, reason=_in_words(blamed), good=good.path, bad=bad.path,
        differences=by_suspicion(blamed.found), guilty=blamed.guilty, good_run=blamed.good_run, bad_run=blamed.bad_run,
        good_with_guilty=blamed.good_with_guilty, bad_without_guilty=blamed.bad_without_guilty, confirmed=blamed.confirmed,
        evaluations=dict(blamed.evaluations), sweep=len(blamed.found) + 2, layers=len(bad.choices),
        acceptance=judge.acceptance, steps=blamed.notebook.steps(),
        pinned=str(options.pinned or "") if wrote else "", denied=str(options.denied or "") if wrote else "",
        notes=(*notes, *golden.header.notes), **about(work, engine, golden),
    )  # fmt: skip


def _in_words(blamed: Blamed) -> str:
    status = blamed.search.status
    several = len(blamed.found) != 1
    if status == "nothing_needed":
        return "the bad run passes here: its tactics are not to blame, or its inputs and acceptance were others"
    if status == "unreachable":
        return "the good run fails here, too: these choices are not what makes the difference"
    if status in ENDED:
        which = f"{len(blamed.guilty)} of {len(blamed.found)} differences" if several else "the only difference"
        return f"{which} must be pinned" + ("" if blamed.confirmed else ", but flipping them did not confirm it")
    return blamed.search.reason
