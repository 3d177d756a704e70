"""``find_network``: what must stay FP32 for a network to pass, found by evaluating it, proved, and written as a model to deploy."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from probe.compare.diff import diff_sources
from probe.culprits.answer import Notebook
from probe.culprits.costs import Costs
from probe.culprits.finish import finish
from probe.culprits.judge import Judge
from probe.culprits.oracle import EngineOracle
from probe.culprits.space import search_space
from probe.culprits.suspicion import Suspicion, suspect, vanishing
from probe.culprits.with_tactics import Legal, as_recorded, given_back, switched, with_file, with_tactics
from probe.debug.compiling import compile_as
from probe.debug.convert_model import check_export
from probe.debug.goldens import Golden, golden_kind, open_golden
from probe.debug.instrument import instrument
from probe.debug.phases import Progress, timed_phase
from probe.debug.resident import tape_for
from probe.debug.run import kept_names
from probe.engine.build import resolve_keep
from probe.engine.tuning.menu import prepare_menu
from probe.errors import InputError
from probe.model.mixed import check_precision
from probe.search.find import Options
from probe.search.find import find as search
from probe.search.oracle import Entry, Evaluation
from probe.store.tape import DEFAULT_LIMIT

if TYPE_CHECKING:
    from probe.culprits.log import EvaluationLog
    from probe.culprits.space import Space
    from probe.culprits.tactic_cure import Switch
    from probe.engine.assignment import Assignment
    from probe.engine.engine import Engine
    from probe.model.model import Model
    from probe.results.diff import Criterion, DiffResult
    from probe.results.find import FindResult
    from probe.results.run import RunFinding
    from probe.results.tactics import TacticFile
    from probe.search.groups import CulpritGroup
    from probe.search.result import SearchResult
    from probe.search.units import Unit
    from probe.store.feeds import InputSet
    from probe.store.source import TensorSource

Granularity = Literal["tensor", "layer", "block"]
Goal = Literal["count", "latency", "bytes"]
Check = str | Callable[[Mapping[str, Any]], bool | float]

PROBE_SECONDS = 15.0  # single-unit probes are made when all of them together take no longer
FEW = 5  # suspects up to which a search ends before what its first run costs to be held pays
INSTRUMENTED = 4  # inputs of a dataset of which every tensor is looked at: the worst ones
ALL_LOW: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class FindOptions:
    """What the user asked of a search.

    Attributes:
        granularity: what is kept or not: tensors of the ONNX graph, layers, or blocks that repeat.
        objective: what is kept little of: units, modelled latency, or bytes.
        golden: ``ort``, ``fp64``, a recording, or arrays by output name.
        aggregate: how values of several inputs are joined: ``worst``, ``mean``, ``quantile:Q``.
        check: judges in place of the acceptance: a command with ``{dump}`` in it, or a function of the outputs.
        keep: patterns of what stays FP32 whatever the search says.
        interior, passes, fusion: how the engine is compiled that is searched. As the file has it by default, for the export is the file
            with Casts; with others the search speaks of a runtime that fuses, and the export is proved all the same.
        probes: evaluate each unit low alone first; None: when that is cheap.
        max_evaluations, max_seconds: budget of the search.
        log: evaluations are appended to this file; ``resume`` takes up what it holds.
        out: where the mixed-precision model goes; None: it is made for the proof, and gone.
        lighter: also try other cures than FP32.
        tactics: a tactic file: the network runs with its choices, compiled as it says. More accurate tactics are tried before anything
            stays FP32, and fast ones are given back where the answer passes with them.
    """

    precision: str = "fp16"
    device: str = "cpu"
    granularity: Granularity = "tensor"
    objective: Goal = "count"
    golden: Golden = "ort"
    acceptance: tuple[Criterion, ...] = ()
    preset: str | None = None
    aggregate: str = "worst"
    check: Check | None = None
    keep: tuple[re.Pattern[str], ...] = ()
    interior: Literal["storage", "fp32"] = "storage"
    passes: Literal["none", "safe", "all"] = "none"
    fusion: Literal["none", "safe", "full"] = "none"
    probes: bool | None = None
    max_evaluations: int | None = None
    max_seconds: float | None = None
    confidence: float = 0.995
    log: Path | None = None
    resume: bool = False
    out: Path | None = None
    overwrite: bool = False
    convert_io: bool = False
    lighter: bool = True
    tactics: Path | None = None
    threads: int = 0
    custom_op_libs: tuple[Path, ...] = ()
    memory_limit: int = DEFAULT_LIMIT
    command: str = ""


def find_network(
    model: Model,
    sets: Sequence[InputSet],
    options: FindOptions | None = None,
    *,
    held_out: Sequence[InputSet] = (),
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> FindResult:
    """Find a 1-minimal set of tensors, layers or blocks to keep in FP32, prove it, and write the model that says so.

    Order: golden, engine, all-low; where that fails one instrumented run for the ranking; the search with its baselines and
    certificates; the answer in an engine compiled anew; lighter cures; the export and its proofs; held-out inputs.

    Args:
        sets: the inputs that the search sees; several make a dataset.
        held_out: inputs that only the answer sees.
        notes: what was noticed while the inputs were made.

    Raises:
        InputError: the model cannot be compiled, the golden cannot be made or read, an option names nothing, the log is of another
            search, or the export cannot be written.
    """
    options = options or FindOptions()
    golden_kind(options.golden)
    if options.precision not in ("fp16", "bf16", "tf32"):
        raise InputError(
            f"nothing needs to be kept in {options.precision}", where="--precision", hint="fp16, bf16 or tf32"
        )
    options, file = with_file(options)
    if options.out is not None:
        check_precision(model, options.precision)
        check_export(options.out, model, overwrite=options.overwrite)
    with ExitStack() as opened:
        work = Work(model, sets, options, progress or (lambda _phase, _name: None), opened, tactic_file=file)
        return finish(work, work.search(), held_out, tuple(notes))


@dataclass(frozen=True, slots=True)
class Found:
    """What the search ended with.

    Attributes:
        space: the units it decided over.
        result: its answer; its units are single tensors after the refinement.
        unit_of: member -> unit of ``result``.
        groups: of the search over all units.
        causes: of the instrumented all-low run.
        cached: questions that needed no evaluation.
    """

    space: Space
    oracle: EngineOracle
    result: SearchResult
    unit_of: Mapping[str, str]
    groups: tuple[CulpritGroup, ...]
    suspicion: Suspicion
    causes: tuple[RunFinding, ...]
    cached: int


@dataclass
class Work:
    """One search: what its phases share, and the phases up to the answer."""

    model: Model
    sets: Sequence[InputSet]
    options: FindOptions
    tell: Progress
    opened: ExitStack
    seconds: dict[str, float] = field(default_factory=dict)
    notebook: Notebook = field(default_factory=Notebook)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)  # of tensors, as run
    reaches: dict[str, float] = field(default_factory=dict)  # largest finite magnitude of tensors in the golden
    log: EvaluationLog | None = None
    notes: list[str] = field(default_factory=list)  # of the search, for the result
    tactic_file: TacticFile | None = None
    switches: tuple[Switch, ...] = ()  # tactics that had to be more accurate than the tactic file says
    suspicious_tactics: dict[str, float] | None = (
        None  # layer -> how much its tactic changes what it makes; None: not measured
    )
    ended: Literal["interrupted", "budget"] | None = None  # the search for tactics, before its end
    evaluated_tactics: int = 0  # to find which tactics must be more accurate, and which need not be
    evaluated: int = 0  # in this run; what an earlier one's log answers is not counted
    seconds_searching: float = 0.0
    seconds_evaluating: float = 0.0  # of these

    def phase(self, name: str) -> AbstractContextManager[Callable[[str], None]]:
        """Time a phase, and tell of it."""
        return timed_phase(self.seconds, self.tell, name)

    def compile(self, **changed: Any) -> Engine:
        return compile_as(self.model, self.options, **changed)

    def search(self) -> Found:
        """Baselines, the instrumented run, the search, and its refinement to single tensors."""
        options = self.options
        with self.phase("golden") as tell:
            self.golden = self.make_golden(self.sets, tell)
        with self.phase("compile"):
            self.engine = self.compile()
            self.kept = kept_names(self.engine, options.keep)
            self.base = with_tactics(self, self.keeping(self.engine))
        self.judge = self.make_judge(self.golden, self.sets)
        self.judge.require_criteria()
        self.log = self._open_log()
        space, suspicion, causes = self._space(Suspicion()), Suspicion(), ()
        with self.phase("all low"):
            oracle = self.make_oracle(self.engine, self.sets, self.judge, space)
            low = self._all_low(oracle)
        fast = self.base
        if not low.passed and options.tactics is not None:
            with self.phase("tactics"):
                self.base, self.switches = switched(self, oracle, fast)
            self.notebook.entries.clear()  # they are of other tactics
            oracle = self.make_oracle(self.engine, self.sets, self.judge, space)
            low = self._all_low(oracle)
        if not low.passed and self.ended is None:
            prepare_menu(self.engine, self.sets[0].feeds, self.base, tell=partial(self.tell, "menu"))
            suspicion, causes = self._instrument()
            space = self._space(suspicion)
        with self.phase("search") as tell:
            oracle.space = space
            probes = not low.passed and self.ended is None and self._probes(oracle, space)
            if options.tactics is None and (probes or sum(unit.flagged for unit in space.units) > FEW):
                oracle = self.make_oracle(self.engine, self.sets, self.judge, space, reuse=self._tracing())
            result = self._ask(space.units, oracle, tell, probes=probes)
            cached = result.evaluations["cached"]
            found = Found(space, oracle, result, _unit_of(space.units), result.groups, suspicion, causes, cached)
            found = self._refine(found, tell)
        if self.switches and found.result.status == "found":
            with self.phase("tactics"):
                self.base, self.switches = given_back(self, found, fast)
        return found

    # --- what phases are made of

    def make_golden(
        self, sets: Sequence[InputSet], tell: Callable[[str], None], *, every_tensor: bool = False
    ) -> TensorSource:
        """Graph outputs, or every tensor; what a recording does not hold is made by ONNX Runtime."""
        options = self.options
        kind = options.golden
        if every_tensor and golden_kind(kind) == "file":
            kind = "ort"
        return open_golden(
            kind, self.model, sets, self.opened, threads=options.threads, custom_op_libs=options.custom_op_libs,
            outputs_only=not every_tensor, memory_limit=options.memory_limit, progress=tell,
        )  # fmt: skip

    def make_judge(self, golden: TensorSource, sets: Sequence[InputSet]) -> Judge:
        options = self.options
        return Judge(
            golden, [port.name for port in self.model.outputs], sets, acceptance=options.acceptance,
            precision=options.precision, preset=options.preset, over=options.aggregate, check=options.check,
        )  # fmt: skip

    def make_oracle(
        self, engine: Engine, sets: Sequence[InputSet], judge: Judge, space: Space, reuse: Any = None
    ) -> EngineOracle:
        if self.options.tactics is None:
            return EngineOracle(engine, space, self.keeping(engine), sets, judge, reuse=reuse)
        chosen = {name: choice.tactic for name, choice in self.base.layers.items()} if self.alike(engine) else {}
        return EngineOracle(engine, Legal(engine, space), self.keeping(engine).with_tactics(chosen), sets, judge)

    def alike(self, engine: Engine) -> bool:
        """Whether an engine has the layers, and the precision, of the one that is searched."""
        return engine.settings == self.engine.settings

    def _tracing(self) -> Callable[[InputSet, Assignment], Mapping[str, Any] | None]:
        """Runs that compute only what lies downstream of a change, where that is known to pay."""
        limit = self.options.memory_limit // (2 * len(self.sets))
        traces = {one.id: self.engine.trace(one.feeds, self.base, limit=limit) for one in self.sets}

        def resume(one: InputSet, assignment: Assignment) -> Mapping[str, Any] | None:
            trace = traces[one.id]
            return None if trace is None else self.engine.run_from(trace, assignment)

        return resume

    def keeping(self, engine: Engine) -> Assignment:
        """All low but for what the user, or the tactic file, keeps in any case."""
        return as_recorded(self, engine, resolve_keep(engine.assignment, self.kept, engine.layers, engine.network))

    def _space(self, suspicion: Suspicion) -> Space:
        options = self.options
        self.costs = Costs(self.engine, self.shapes, options.precision)
        return search_space(
            self.engine, options.granularity, suspicion, self.costs, options.objective, already=self.base
        )

    def _open_log(self) -> EvaluationLog | None:
        options = self.options
        if options.log is None:
            if options.resume:
                raise InputError("there is no log to resume", where="--resume", hint="name it: --log FILE")
            return None
        from probe.culprits.log import EvaluationLog, fingerprint

        made = fingerprint(
            self.model, self.sets, precision=options.precision, granularity=options.granularity, objective=options.objective,
            acceptance=options.acceptance, preset=options.preset, aggregate=options.aggregate, check=options.check,
            golden=options.golden if options.golden in ("ort", "fp64") else self.judge.golden_sha256, kept=self.kept, settings=self.engine.settings,
        )  # fmt: skip
        log = self.opened.enter_context(EvaluationLog(options.log, made, resume=options.resume))
        self.notebook.entries.extend(log.entries)
        return log

    def _note(self, entry: Entry) -> None:
        self.evaluated += 1
        self.notebook.entries.append(entry)
        if self.log is not None:
            self.log.append(entry)

    def _all_low(self, oracle: EngineOracle) -> Evaluation:
        """The first question: where it passes nothing else is looked at."""
        known = self.notebook.last(ALL_LOW)
        if known is None:
            known = oracle(ALL_LOW)
            self._note(Entry(0, "search", "all low", ALL_LOW, known))
        return known

    def _instrument(self) -> tuple[Suspicion, tuple[RunFinding, ...]]:
        """Look at every tensor of the inputs that fail all-low."""
        last = self.notebook.last(ALL_LOW)
        failing = set(last.measured.get("failing_inputs", ())) if last is not None else set()
        worst = sorted(self.sets, key=lambda one: one.id not in failing)[:INSTRUMENTED]
        with self.phase("every tensor") as tell:
            golden = self.make_golden(worst, tell, every_tensor=True)
        with closing(tape_for(self.engine, memory_limit=self.options.memory_limit)) as tape:
            seen = instrument(self.engine, self.base, golden, worst, tape, judge=self._diff, phase=self.phase)
            with self.phase("causes"):
                causes = tuple(seen.explained.causes())
        for row in golden.rows():
            self.shapes[row.name] = tuple(row.shape)
            if row.absmax_finite is not None:
                self.reaches[row.name] = max(row.absmax_finite, self.reaches.get(row.name, 0.0))
        suspicion = suspect(seen.layers, causes, self._alone())
        return suspicion.with_flags(vanishing(self.engine, golden.rows(), self.options.precision)), causes

    def _alone(self) -> dict[str, list[str]]:
        """Layer -> weights and graph inputs that it rounds itself."""
        found: dict[str, list[str]] = {}
        for layer in self.engine.layers:
            sites = self.engine.rounding.sites(layer, self.options.precision)
            edge = [value for value in sites.reads if id(value) in sites.at_edge]
            found[layer.name] = [value.name or "" for value in (*edge, *sites.weights)]
        return found

    def _diff(self, actual: TensorSource, golden: TensorSource) -> DiffResult:
        options = self.options
        return diff_sources(
            actual, golden, acceptance=options.acceptance, precision=options.precision, preset=options.preset
        )

    def _probes(self, oracle: EngineOracle, space: Space) -> bool:
        """Whether each unit is evaluated alone first: as asked for; as in the search that is gone on with; else where the units that
        causes were found at are not enough, and it is cheap."""
        asked = self.options.probes
        if asked is not None or self.evaluated < len(self.notebook.entries):
            return asked if asked is not None else self.notebook.counts["probes"] > 0
        flagged: frozenset[str] = frozenset().union(*(unit.members for unit in space.units if unit.flagged))
        everything = space.members
        begin = time.perf_counter()
        self._note(Entry(1, "search", "all FP32", everything, oracle(everything)))
        seconds = time.perf_counter() - begin
        if flagged:
            enough = oracle(flagged)
            self._note(Entry(2, "search", f"where causes were found: keep {len(flagged)}", flagged, enough))
            if enough.passed:
                return False
        return seconds * len(space.units) <= PROBE_SECONDS

    def evaluations_left(self) -> int | None:
        """Of the budget; None: there is none."""
        if self.ended is not None:
            return 0
        limit = self.options.max_evaluations
        return None if limit is None else max(0, limit - self.evaluated)

    def _ask(
        self,
        units: Sequence[Unit],
        oracle: EngineOracle,
        tell: Callable[[str], None],
        *,
        probes: bool,
        settled: frozenset[str] | None = None,
    ) -> SearchResult:
        """Search; what the notebook holds is not evaluated again."""
        options = self.options
        begun, spent, before = time.perf_counter(), self.seconds_searching, oracle.seconds
        settings = Options(
            objective="count" if options.objective == "count" else "cost", probes=probes, confidence=options.confidence,
            max_evaluations=self.evaluations_left(), max_seconds=None if options.max_seconds is None else max(0.0, options.max_seconds - spent),
            settled=settled,
        )  # fmt: skip

        def note(entry: Entry) -> None:
            self._note(replace(entry, index=len(self.notebook.entries)))
            tell(f"{entry.why}: {'passes' if entry.evaluation.passed else 'fails'}")

        try:
            result = search(units, oracle, settings, log=list(self.notebook.entries), on_entry=note)
            if self.ended == "interrupted" and result.status == "budget":
                result = replace(
                    result, status="interrupted", reason=result.reason.replace("the budget is spent", "interrupted")
                )
            return result
        finally:
            self.seconds_searching += time.perf_counter() - begun
            self.seconds_evaluating += oracle.seconds - before

    def _refine(self, found: Found, tell: Callable[[str], None]) -> Found:
        """Units of several tensors are taken apart: of the answer's tensors none can be left out either."""
        first = found.result
        units = found.space.singletons(first.members)
        if first.status not in ("found", "found_not_minimal") or found.space.granularity != "tensor":
            return found
        if len(units) == len(first.keep or ()):
            return found
        alone = frozenset(unit.id for unit in found.space.units if len(unit.members) == 1)
        second = self._ask(units, found.oracle, tell, probes=False, settled=alone & {unit.id for unit in units})
        cached = found.cached + second.evaluations["cached"]
        if second.status not in ("found", "found_not_minimal"):
            return replace(found, cached=cached)
        return replace(
            found, result=second, unit_of={name: unit.id for unit in units for name in unit.members}, cached=cached
        )


def _unit_of(units: Sequence[Unit]) -> dict[str, str]:
    return {name: unit.id for unit in units for name in unit.members}
