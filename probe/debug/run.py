"""``run_network``: compile, run in low precision with every tensor tapped, judge against the golden, and say why."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from probe.compare.diff import diff_sources, environment
from probe.debug.compiling import compile_as
from probe.debug.cures import Judged, Trial, weigh
from probe.debug.goldens import Golden, golden_kind, open_golden
from probe.debug.instrument import instrument, with_failure
from probe.debug.observe import Outputs, check_observer, record_outputs
from probe.debug.phases import Progress, timed_phase
from probe.debug.repeats import check_repeats, of_repeats
from probe.debug.resident import ResidentTape, tape_for
from probe.debug.whole_run import failed_to_run, observed, of_baseline, of_golden
from probe.engine.assignment import FP32, Assignment
from probe.engine.build import require_device, resolve_keep
from probe.engine.device.protocol import Tells
from probe.engine.layers import tensor_names
from probe.engine.rounding import is_float
from probe.errors import InputError
from probe.results.diff import Criterion, DiffResult
from probe.results.run import (
    AsWritten,
    CureTried,
    Fallback,
    GoldenInfo,
    LayerError,
    OtherInterior,
    OutputVerdict,
    RunFinding,
    RunResult,
)
from probe.store.feeds import input_infos
from probe.store.tape import DEFAULT_LIMIT, Tape

if TYPE_CHECKING:
    from probe.engine.engine import Engine
    from probe.model.model import Model
    from probe.store.feeds import InputSet
    from probe.store.source import TensorSource

NO_LAYER = "(?!)"  # the regular expression that nothing matches: who writes it wants the verdict alone


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the user asked of a run.

    Attributes:
        golden: ``ort``, ``fp64``, a recording, or arrays by output name.
        keep: patterns; tensors, layers and ONNX nodes whose name one is found in stay FP32.
        layers: only layers that it is found in (name, nodes, tensors) are measured by themselves.
        interior: of fused layers: ``storage`` rounds what is inside, ``fp32`` does not.
        both_interiors: also give the verdict with the other interior, and that of the graph as it is written, where passes changed it.
        try_cure: run again with what the fatal findings would keep in FP32.
        observe: run again without taps and compare.
        repeats: runs of which every tensor must have the same bits; 0: they are not compared.
        worst: elements with the largest error kept of each tensor.
        details: tensors with distributions, channels and pictures for a drill-down, at most.
        memory_limit: bytes of tensors a recording holds in memory.
        engine: the network compiled before, as the other options say; it runs with its own assignment.
    """

    precision: str = "fp16"
    device: str = "cpu"
    golden: Golden = "ort"
    acceptance: tuple[Criterion, ...] = ()
    preset: str | None = None
    keep: tuple[re.Pattern[str], ...] = ()
    layers: re.Pattern[str] | None = None
    interior: Literal["storage", "fp32"] = "storage"
    both_interiors: bool = True
    passes: Literal["none", "safe", "all"] = "safe"
    fusion: Literal["none", "safe", "full"] = "safe"
    passes_limit: int | None = None
    threads: int = 0
    custom_op_libs: tuple[Path, ...] = ()
    observe: bool = False
    repeats: int = 0
    try_cure: bool = True
    strict_layers: bool = False
    worst: int = 5
    details: int = 24
    memory_limit: int = DEFAULT_LIMIT
    engine: Engine | None = None
    command: str = ""


@dataclass(slots=True)
class _Run:
    """What the phases of one run share."""

    model: Model
    sets: Sequence[InputSet]
    options: RunOptions
    tell: Progress
    opened: ExitStack
    seconds: dict[str, float] = field(default_factory=dict)

    def phase(self, name: str) -> AbstractContextManager[Callable[[str], None]]:
        """Time a phase, and tell of it."""
        return timed_phase(self.seconds, self.tell, name)

    def compile(self, **changed: Any) -> Engine:
        if self.options.engine is not None and not changed:
            return self.options.engine
        return compile_as(self.model, self.options, **{"passes_limit": self.options.passes_limit, **changed})

    def tape(self, name: str) -> Tape:
        return self.opened.enter_context(closing(Tape(name, memory_limit=self.options.memory_limit)))

    def tape_of(self, engine: Engine) -> Tape | ResidentTape:
        """For everything a run makes: on the device, where that compares."""
        options = self.options
        made = tape_for(engine, worst=options.worst, memory_limit=options.memory_limit)
        return self.opened.enter_context(closing(made))

    def judge(
        self, actual: TensorSource, golden: TensorSource, precision: str | None = None, details: int = 0
    ) -> DiffResult:
        options = self.options
        return diff_sources(
            actual, golden, acceptance=options.acceptance, precision=precision or options.precision, preset=options.preset,
            strict_layers=options.strict_layers, worst=options.worst, details=details, command=options.command,
        )  # fmt: skip

    def judge_outputs(self, engine: Engine, assignment: Assignment, golden: TensorSource, **how: Any) -> Judged:
        """The verdict of a run without taps."""
        with closing(Tape("outputs", memory_limit=self.options.memory_limit)) as tape:
            with tape:
                made, failure = record_outputs(engine, assignment, self.sets, tape)
            if not made:
                return Judged("failed", (f"it does not run: {failure}",))
            diff = with_failure(self.judge(tape, golden, **how), failure)
            return Judged(diff.verdict, diff.reasons, diff.outputs)


def run_network(
    model: Model,
    sets: Sequence[InputSet],
    options: RunOptions | None = None,
    *,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> RunResult:
    """Judge a network in low precision.

    Order: golden, engine, FP32 baseline (the noise floor of each output), the run with taps, comparison, the error of each layer on
    golden inputs, causes; then, as far as asked for, the other interior, the cure, the run without taps.

    Args:
        sets: the inputs; several make a dataset, whose sums are merged and whose worst input is named.
        notes: what was noticed while the inputs were made.

    Raises:
        InputError: the model cannot be compiled or run in FP32, the golden cannot be made or read, an option names nothing.
    """
    options = options or RunOptions()
    kind = golden_kind(options.golden)
    if options.engine is None:
        require_device(options.device)
    with ExitStack() as opened:
        run = _Run(model, sets, options, progress or (lambda _phase, _name: None), opened)
        with run.phase("golden") as tell:
            golden = open_golden(
                options.golden, model, sets, opened, threads=options.threads, custom_op_libs=options.custom_op_libs,
                memory_limit=options.memory_limit, progress=tell,
            )  # fmt: skip
        with run.phase("compile"):
            engine = run.compile()
            named = kept_names(engine, options.keep)
            assignment = resolve_keep(engine.assignment, named, engine.layers)
            kept = (*kept_in(engine), *named)
            notes = (*notes, *computed_away(engine, options.keep))
        with run.phase("baseline"):
            baseline = run.judge_outputs(engine, Assignment(FP32), golden, precision="fp32")
            if not baseline.outputs:
                raise InputError(f"the network does not run in FP32: {baseline.reasons[0]}", where=str(model.path))
        tape = run.tape_of(engine)
        found = instrument(
            engine, assignment, golden, sets, tape,
            judge=partial(run.judge, details=options.details), phase=run.phase, measured=_selected(engine, options.layers), strict=options.strict_layers,
        )  # fmt: skip
        diff, explained = found.diff, found.explained
        with run.phase("causes"):
            causes, cure = explained.causes(), None
        if options.try_cure and diff.verdict == "failed" and options.precision != "fp32":
            with run.phase("cure"):
                causes, cure = weigh(causes, _trial(run, engine, assignment, golden))
        causes = sorted(causes, key=lambda f: not f.fatal)
        findings = (
            *failed_to_run(found.failure, options.precision),
            *of_baseline(baseline),
            *causes,
            *of_golden(golden, model),
            *explained.notes(diff.findings),
        )
        if isinstance(tape, ResidentTape):
            notes = (*notes, *filter(None, [tape.note]))
        if isinstance(engine.device, Tells):
            notes = (*notes, *engine.device.notes)
        return _finish(
            run, engine, assignment, golden, diff, found.layers,
            first=found.first, findings=findings, cure=cure, kept=kept, outputs=found.outputs, baseline=baseline, kind=kind, notes=notes,
        )  # fmt: skip


def _finish(
    run: _Run,
    engine: Engine,
    assignment: Assignment,
    golden: TensorSource,
    diff: DiffResult,
    layers: Sequence[LayerError],
    *,
    first: tuple[str, ...],
    findings: tuple[RunFinding, ...],
    cure: CureTried | None,
    kept: tuple[str, ...],
    outputs: Outputs,
    baseline: Judged,
    kind: Literal["ort", "fp64", "file"],
    notes: Sequence[str],
) -> RunResult:
    options = run.options
    other = observer = written = None
    if options.both_interiors and options.precision != "fp32" and _has_interior(engine):
        with run.phase("other interior"):
            other = _other_interior(run, engine, assignment, golden, diff)
    if options.both_interiors and options.precision != "fp32" and engine.report.changes:
        with run.phase("as written"):
            written = _as_written(run, engine, golden, diff)
    if options.observe:
        with run.phase("observe"):
            observer = check_observer(engine, assignment, run.sets, outputs)
            findings = (*observed(observer), *findings)
    repeats = None
    if options.repeats:
        with run.phase("repeat") as tell:
            repeats = check_repeats(
                engine, assignment, run.sets, options.repeats, memory_limit=options.memory_limit, progress=tell
            )
            findings = (*of_repeats(repeats), *findings)
    floors = {t.name: _floor(t) for t in baseline.outputs if t.metrics is not None}
    return RunResult(
        verdict=diff.verdict,
        reasons=diff.reasons,
        model=str(run.model.path),
        model_sha256=run.model.sha256,
        precision=options.precision,
        device=device_in_words(engine.settings.device, options.precision),
        golden=GoldenInfo(
            kind, diff.golden, floors, "the engine in FP32 against this golden, with the same passes and fusion"
        ),
        acceptance=diff.acceptance,
        outputs={t.name: OutputVerdict(t.verdict, t.metrics, floors.get(t.name), t.reasons) for t in diff.outputs},
        layers=tuple(layers),
        tensors=diff.tensors,
        first_divergence=first,
        findings=findings,
        interior=engine.settings.interior,
        other_interior=other,
        as_written=written,
        passes=engine.settings.passes,
        fusion=engine.settings.fusion,
        keep=kept,
        fallbacks=tuple(Fallback(one.layer, one.op, one.reason, one.by) for one in engine.fallbacks),
        cure=cure,
        observer=observer,
        repeats=repeats,
        inputs=input_infos(run.sets),
        notes=(*notes, *golden.header.notes),
        environment={**environment(), **(golden.header.environment or {})},
        command=options.command,
        strict_layers=options.strict_layers,
        seconds=run.seconds,
    )


def device_in_words(device: str, precision: str, *, tactics: bool = False) -> str:
    """What a verdict of this device stands for.

    Args:
        tactics: layers run with chosen tactics, which have accumulators of their own: only what is stored is said of all.
    """
    if device == "cuda":
        from probe.engine.device.cuda.guard import find_gpu

        stored = "FP32 storage" if precision in ("fp32", "tf32") else f"{precision.upper()} storage"
        summed = "each layer computed as its tactic says" if tactics else "FP32 accumulation"
        operands = ", operands of products rounded to TF32" if precision == "tf32" else ""
        return f"cuda: {find_gpu().name or 'no GPU here'}, {stored}{operands}, {summed}"
    if tactics:
        stored = "FP32 storage" if precision in ("fp32", "tf32") else f"{precision.upper()} storage"
        operands = ", operands of products rounded to TF32" if precision == "tf32" else ""
        return f"cpu: {stored}{operands}, each layer computed as its tactic says, emulated"
    stored = {
        "fp32": "FP32, nothing rounded",
        "tf32": "FP32 storage, operands of products rounded to TF32, FP32 accumulation, emulated",
    }
    return f"cpu: {stored.get(precision, f'{precision.upper()} storage, FP32 accumulation, emulated')}"


# --- phases


def kept_in(engine: Engine) -> tuple[str, ...]:
    """What the engine's own assignment keeps in FP32: tensors, and the ONNX nodes of layers."""
    low = engine.assignment.default != FP32
    layers = [name for name, choice in engine.assignment.layers.items() if low and choice.precision == "fp32"]
    nodes = (identity for name in layers for identity in engine.layer(name).origin)
    return tuple(dict.fromkeys((*sorted(engine.assignment.kept), *nodes)))


def kept_names(engine: Engine, patterns: Sequence[re.Pattern[str]]) -> tuple[str, ...]:
    """Tensors, layers and nodes that a pattern is found in: of a tensor that a pass gave another name, that name.

    What a pass computed away is never rounded, so there is nothing to keep of it (``computed_away``).

    Raises:
        InputError: a pattern that is found in none, not in what was computed away either.
    """
    nodes = {identity: None for layer in engine.layers for identity in layer.origin}
    there = tensor_names(engine.layers) | {layer.name: None for layer in engine.layers} | nodes
    names = there | dict.fromkeys(engine.network.fates)
    kept: dict[str, None] = {}
    for pattern in patterns:
        matching = [name for name in names if name and pattern.search(name)]
        if not matching:
            raise InputError(
                f"nothing to keep matches {pattern.pattern!r}", where="--keep",
                hint="names of tensors, layers or ONNX nodes: probe inspect MODEL -v lists them",
            )  # fmt: skip
        living = (name if name in there else _living(engine, name) for name in matching)
        kept.update(dict.fromkeys(name for name in living if name in there))
    return tuple(kept)


def computed_away(engine: Engine, patterns: Sequence[re.Pattern[str]]) -> tuple[str, ...]:
    """A note of the tensors that patterns would keep and a pass computed away; none where there are none."""
    gone = [
        name for name in engine.network.fates if any(one.search(name) for one in patterns) and not _living(engine, name)
    ]
    if not gone:
        return ()
    listed = ", ".join(gone[:3]) + (f" and {len(gone) - 3} more" if len(gone) > 3 else "")
    return (f"nothing to keep of {listed}: clean-up of the graph computed it away (--passes none leaves it)",)


def _living(engine: Engine, name: str) -> str:
    """The tensor that holds the values of one that a pass removed; "" where it was computed away."""
    fate = engine.network.fate(name)
    return fate.to if fate is not None and fate.status == "equivalent" else ""


def _selected(engine: Engine, pattern: re.Pattern[str] | None) -> Callable[[Any], bool] | None:
    if pattern is None:
        return None
    found = {
        layer.name
        for layer in engine.layers
        if any(map(pattern.search, (layer.name, *layer.origin, *(value.name or "" for value in layer.tensors))))
    }
    if not found and pattern.pattern != NO_LAYER:
        raise InputError(
            f"no layer matches {pattern.pattern!r}", where="--layers",
            hint="names of layers, ONNX nodes or tensors: probe inspect MODEL -v lists them",
        )  # fmt: skip
    return lambda layer: layer.name in found


def _has_interior(engine: Engine) -> bool:
    """Whether the two interiors differ at all: a fused layer with a float tensor inside."""
    return any(is_float(value) for layer in engine.layers if len(layer.nodes) > 1 for value in layer.interior)


def _other_interior(
    run: _Run, engine: Engine, assignment: Assignment, golden: TensorSource, diff: DiffResult
) -> OtherInterior:
    interior = "fp32" if run.options.interior == "storage" else "storage"
    judged = run.judge_outputs(engine.with_interior(interior), assignment, golden)
    return OtherInterior(interior, judged.verdict, judged.verdict != diff.verdict, judged.reasons)


def _as_written(run: _Run, engine: Engine, golden: TensorSource, diff: DiffResult) -> AsWritten:
    plain = run.compile(passes="none", fusion="none", interior="storage")
    there = {value.name for layer in plain.layers for value in (*layer.reads, *layer.weights, *layer.tensors)}
    there |= {identity for layer in plain.layers for identity in layer.origin}
    kept = (*(name for name in kept_in(engine) if name in there), *kept_names(plain, run.options.keep))
    judged = run.judge_outputs(plain, resolve_keep(plain.assignment, kept, plain.layers), golden)
    worst = max((_floor(t) for t in judged.outputs if t.metrics is not None), default=0.0)
    by = tuple(dict.fromkeys(change.by for change in engine.report.changes))
    differs = judged.verdict != diff.verdict
    return AsWritten(judged.verdict, differs, len(engine.report.changes), by, worst, judged.reasons)


def _trial(run: _Run, engine: Engine, assignment: Assignment, golden: TensorSource) -> Trial:
    def trial(keep: tuple[str, ...]) -> Judged:
        return run.judge_outputs(engine, resolve_keep(assignment, keep, engine.layers), golden)

    return trial


def _floor(tensor: Any) -> float:
    return float("inf") if tensor.metrics.nonfinite_mismatch else tensor.metrics.range_rel
