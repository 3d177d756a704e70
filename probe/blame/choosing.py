"""Networks run with chosen tactics: choose, run once, judge, and write what was chosen."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from probe.blame.describing import tactic_device_in_words
from probe.compare.diff import diff_sources, environment
from probe.debug.compiling import compile_as
from probe.debug.goldens import Golden, golden_kind, open_golden
from probe.debug.instrument import with_failure
from probe.debug.observe import record_outputs
from probe.debug.phases import Progress, timed_phase
from probe.debug.run import kept_names
from probe.engine.build import resolve_keep
from probe.engine.tuning.choose import Choices, choose
from probe.engine.tuning.fingerprint import fingerprint_of
from probe.engine.tuning.tactic_file import tactic_file_of, text_of
from probe.engine.tuning.timing import Timings
from probe.errors import InputError
from probe.results.json import check_target, write_text
from probe.results.run import GoldenInfo, OutputVerdict
from probe.results.tactics import CandidateReport, LayerChoice, RecordedOutputs, TacticRun, TacticsRecordResult
from probe.store.feeds import hash_feeds, input_infos
from probe.store.tape import DEFAULT_LIMIT, Tape

if TYPE_CHECKING:
    from probe.engine.engine import Engine
    from probe.engine.tuning.selector import Selector
    from probe.model.model import Model
    from probe.results.diff import Criterion
    from probe.store.feeds import InputSet


@dataclass(frozen=True, slots=True)
class TacticOptions:
    """How a network is compiled, run and judged.

    Attributes:
        golden: ``ort``, ``fp64``, a recording, or arrays by output name.
        keep: patterns; tensors, layers and ONNX nodes whose name one is found in stay FP32.
        timing_cache: file of measured times, made where it is not there; None: none is kept.
    """

    precision: str = "fp16"
    device: str = "cpu"
    golden: Golden = "ort"
    acceptance: tuple[Criterion, ...] = ()
    preset: str | None = None
    keep: tuple[re.Pattern[str], ...] = ()
    interior: Literal["storage", "fp32"] = "storage"
    passes: Literal["none", "safe", "all"] = "safe"
    fusion: Literal["none", "safe", "full"] = "safe"
    threads: int = 0
    custom_op_libs: tuple[Path, ...] = ()
    timing_cache: Path | None = None
    overwrite: bool = False
    memory_limit: int = DEFAULT_LIMIT
    command: str = ""


def record_tactics(
    model: Model,
    sets: Sequence[InputSet],
    out: str | Path,
    options: TacticOptions | None = None,
    *,
    selectors: Sequence[Selector] = (),
    measure: bool = True,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> TacticsRecordResult:
    """Choose a tactic for every layer, run once with them, judge, and write the tactic file, whatever the verdict.

    Args:
        sets: the inputs. Times are measured on the activations of the first; all are run.
        out: the tactic file.
        selectors: asked in this order, behind ``Fastest``.
        measure: time the candidates; without, the selectors see no times, and what none of them reorders is exact.

    Raises:
        InputError: the model cannot be compiled or run, an option names nothing, nothing is left of a layer, the file is there or cannot be
            written. Nothing but the timing cache is written then.
    """
    options = options or TacticOptions()
    check_new(out, options, model)
    with ExitStack() as opened:
        work = Work(model, sets, options, progress or (lambda _phase, _what: None), opened)
        engine = work.compile()
        with work.phase("choose") as tell:
            timings = work.timings(engine) if measure else None
            try:
                choices = choose(engine, sets[0].feeds, selectors, timings=timings, progress=tell)
            finally:
                work.save(
                    timings
                )  # also where it was interrupted, or nothing is left of a layer: what was measured need not be again
        made = work.run(
            engine, choices, notes=(*notes, *noted(selectors), *(timings.notes if timings is not None else ()))
        )
        file = tactic_file_of(engine, choices, made.recorded, made.verdict)
        write_text(text_of(file), out)
    return TacticsRecordResult(
        run=made, file=str(out), selectors=("fastest", *(one.name for one in selectors)),
        timing_cache=str(options.timing_cache or "") if timings is not None else "",
        measured=timings.measured if timings is not None else 0, reused=timings.reused if timings is not None else 0,
        command=options.command,
    )  # fmt: skip


def noted(selectors: Sequence[Selector]) -> tuple[str, ...]:
    """What selectors have to say once they were asked: rules about nothing."""
    return tuple(note for one in selectors for note in getattr(one, "notes", ()))


def check_new(out: str | Path, options: TacticOptions, model: Model) -> None:
    """Refuse places that files could not be written to, before any work is done.

    Raises:
        InputError: says which.
    """
    check_target(out)
    if Path(out).resolve() == Path(model.path).resolve():
        raise InputError(f"{str(out)!r} is the model")
    if Path(out).exists() and not options.overwrite:
        raise InputError(f"{str(out)!r} exists", where="-o", hint="choose another -o, or pass --overwrite")
    if options.timing_cache is not None:
        check_target(options.timing_cache)
        if options.timing_cache.resolve() == Path(out).resolve():
            raise InputError("the tactic file and the timing cache are two files", where="--timing-cache")


@dataclass(slots=True)
class Work:
    """What recording and replaying share."""

    model: Model
    sets: Sequence[InputSet]
    options: TacticOptions
    tell: Progress
    opened: ExitStack
    seconds: dict[str, float] = field(default_factory=dict)

    def phase(self, name: str) -> AbstractContextManager[Callable[[str], None]]:
        """Time a phase, and tell of it."""
        return timed_phase(self.seconds, self.tell, name)

    def compile(self) -> Engine:
        """The network, with what is kept in its assignment."""
        with self.phase("compile"):
            engine = compile_as(self.model, self.options)
            engine.assignment = resolve_keep(engine.assignment, kept_names(engine, self.options.keep), engine.layers)
        return engine

    def timings(self, engine: Engine) -> Timings:
        """Times of this device, those of the cache included."""
        fingerprint = fingerprint_of(engine)
        path = self.options.timing_cache
        return Timings.load(path, fingerprint) if path is not None else Timings(fingerprint)

    def save(self, timings: Timings | None) -> None:
        """Write the cache where something was measured."""
        if timings is not None and timings.measured and self.options.timing_cache is not None:
            write_text(timings.text(), self.options.timing_cache)

    def run(self, engine: Engine, choices: Choices, *, notes: Sequence[str] = ()) -> TacticRun:
        """Run all inputs with the choices, and judge.

        Raises:
            InputError: it does not run for any input, or the golden cannot be made or read.
        """
        options = self.options
        with self.phase("golden") as tell:
            golden = open_golden(
                options.golden, self.model, self.sets, self.opened, threads=options.threads, outputs_only=True,
                custom_op_libs=options.custom_op_libs, memory_limit=options.memory_limit, progress=tell,
            )  # fmt: skip
        tape = self.opened.enter_context(closing(Tape("outputs", memory_limit=options.memory_limit)))
        with self.phase("run"), tape:
            outputs, failure = record_outputs(engine, choices.assignment(engine.assignment), self.sets, tape)
        if not outputs:
            raise InputError(f"the network does not run with these tactics: {failure}", where=str(self.model.path))
        with self.phase("judge"):
            diff = diff_sources(
                tape, golden, acceptance=options.acceptance, precision=options.precision, preset=options.preset, worst=1,
                command=options.command,
            )  # fmt: skip
            diff = with_failure(diff, failure)
        settings = engine.settings
        return TacticRun(
            verdict=diff.verdict, reasons=diff.reasons, model=str(self.model.path), fingerprint=fingerprint_of(engine),
            precision=settings.precision, device=tactic_device_in_words(engine), golden=GoldenInfo(golden_kind(options.golden), diff.golden),
            acceptance=diff.acceptance,
            outputs={t.name: OutputVerdict(t.verdict, t.metrics, None, t.reasons) for t in diff.outputs},
            layers=tuple(map(_layer_choice, choices)),
            recorded=tuple(
                RecordedOutputs(one.id, one.sha256, hash_feeds(outputs[one.id])) for one in self.sets if one.id in outputs
            ),
            passes=settings.passes, fusion=settings.fusion, interior=settings.interior, kept=tuple(sorted(engine.assignment.kept)),
            inputs=input_infos(self.sets),
            notes=(*notes, *golden.header.notes), environment={**environment(), **(golden.header.environment or {})},
            seconds=self.seconds,
        )  # fmt: skip


def _layer_choice(one: Any) -> LayerChoice:
    context = one.context
    return LayerChoice(
        layer=context.layer, kind=context.kind, precision=context.precision, nodes=context.nodes, reads=context.reads,
        outputs=context.outputs, problem=context.problem, tactic=one.candidate.tactic,
        candidates=tuple(
            CandidateReport(c.tactic, c.numerics, c.workspace, c.formats, c.deterministic, c.median_us, one.refused.get(c.tactic, ""))
            for c in one.candidates
        ),
    )  # fmt: skip
