"""From the answer of a search to a result: the answer again in an engine compiled anew, lighter cures, the export, held-out inputs, the cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from probe.compare.diff import diff_sources, environment, source_info
from probe.culprits.answer import describe, evaluated, in_model_order, need
from probe.culprits.check_program import name_of_check
from probe.culprits.cures import lighter_cures
from probe.culprits.proof import export, judged_source, prove_typed
from probe.debug.convert_model import ConvertOptions
from probe.debug.goldens import open_golden
from probe.debug.run import device_in_words
from probe.errors import InputError
from probe.model.mixed import check_precision
from probe.results.find import (
    Baselines,
    Compensating,
    Culprits,
    Evaluated,
    Exported,
    FindResult,
    HeldOut,
    Suspect,
    TacticSwitch,
    Voting,
)
from probe.runners.protocol import RunnerOptions
from probe.store.feeds import input_infos

if TYPE_CHECKING:
    from probe.culprits.find import Found, Work
    from probe.culprits.judge import Judge, Judged
    from probe.engine.engine import Engine
    from probe.results.convert_result import ExportProof
    from probe.search.oracle import Verdict
    from probe.store.feeds import InputSet

SUSPECTS_SHOWN = 50
_NAMED = 16  # names that an error may hold
_OF_OUTPUT = "range_rel @ "  # how evaluations name the metric of an output
PROVED = ("nothing_needed", "found", "found_not_minimal")  # statuses with an answer that was certified


def finish(work: Work, found: Found, held_out: Sequence[InputSet], notes: tuple[str, ...]) -> FindResult:
    """Prove and describe. What a budget or Ctrl-C left unfinished is exported and proved all the same, and nothing else tried.

    Raises:
        InputError: the export cannot be made or written, or the golden of held-out inputs not made.
    """
    return _Finish(work, found, held_out, notes).run()


def seen_before(held_out: Sequence[InputSet], searched: Sequence[InputSet]) -> list[str]:
    """A note of held-out inputs that prove nothing: the search saw the same values."""
    known = {one.sha256 for one in searched}
    same = [one.id for one in held_out if one.sha256 in known]
    if not same:
        return []
    are = "is one" if len(same) == 1 else "are some"
    return [f"{len(same)} of {len(held_out)} held-out inputs {are} that the search saw: {', '.join(same[:5])}"]


class _Finish:
    def __init__(self, work: Work, found: Found, held_out: Sequence[InputSet], notes: tuple[str, ...]) -> None:
        self.work, self.found, self.held_out, self.notes = work, found, held_out, list(notes)
        self.result = found.result
        self.members = found.result.members
        self.known = found.result.keep is not None  # a passing set

    def run(self) -> FindResult:
        work, result = self.work, self.result
        options = work.options
        rerun = lighter = exported = held = None
        try:
            if self.known and result.status in PROVED:
                with work.phase("again"):
                    rerun = self._again()
            if options.lighter and result.status in ("found", "found_not_minimal", "unreachable"):
                with work.phase("other cures") as tell:
                    lighter = lighter_cures(options.precision, work.compile, self._nothing_kept, tell=tell)
            if self.known:
                exported, held = self._export()
            if self.known and self.held_out and held is None:
                held = self._held_out(None)
        except KeyboardInterrupt:  # what the search found is not lost, and not called proved
            reason = f"interrupted after the search, before all proofs were made: {result.reason}"
            self.result = replace(result, status="interrupted", reason=reason)
        cost = work.costs.of(self.members, by_layer=self.found.space.by_layer) if self.known else None
        return self._result(rerun, lighter or (), cost, exported, held)

    # --- proofs

    def _again(self) -> Evaluated:
        """The answer from scratch: another engine, the same inputs."""
        work = self.work
        oracle = work.make_oracle(work.compile(), work.sets, work.judge, self.found.space)
        return self._as_evaluated(self._settled(lambda: oracle.of(self.members)))

    def _nothing_kept(self, engine: Engine) -> Judged:
        work = self.work
        return work.make_oracle(engine, work.sets, work.judge, self.found.space).of(frozenset())

    def _export(self) -> tuple[Exported | None, HeldOut | None]:
        work, options = self.work, self.work.options
        try:
            check_precision(work.model, options.precision)
        except InputError as error:  # with -o this was refused before the search
            self.notes.append(f"no model was made for a proof: {error.what}")
            return None, None
        by_layer = self.found.space.by_layer
        nodes = [n for name in self.members if by_layer for n in work.engine.layer(name).origin]
        layers = [name for name, choice in work.base.layers.items() if choice.precision == "fp32"]
        settings = ConvertOptions(
            precision=options.precision,  # type: ignore[arg-type] - tf32 has no ONNX type, and does not come here
            keep_tensors=tuple(in_model_order(work.engine, {*work.base.kept, *(() if by_layer else self.members)})),
            keep_nodes=tuple(dict.fromkeys([*nodes, *(n for name in layers for n in work.engine.layer(name).origin)])),
            convert_io=options.convert_io, golden=work.golden, acceptance=options.acceptance, preset=options.preset,
            judge=self._judge_source if options.check is not None or options.aggregate != "worst" else None,
            threads=options.threads, custom_op_libs=options.custom_op_libs, overwrite=options.overwrite, command=options.command,
        )  # fmt: skip
        with work.phase("export"):
            try:
                exported, held = export(
                    work.model, options.out, work.sets, settings,
                    then=lambda path: self._held_out(path) if self.held_out else None, progress=work.tell,
                )  # fmt: skip
            except InputError as error:  # a full disk must not take the answer along
                names = (*settings.keep_tensors, *settings.keep_nodes)
                rest = "" if len(names) <= _NAMED else f" and {len(names) - _NAMED} more (--log FILE keeps all)"
                answer = f"keep {', '.join(names[:_NAMED])}{rest}" if names else "nothing has to be kept"
                hint = f"the search had ended: {answer}; probe convert makes a model of that"
                raise InputError(
                    error.what, where=error.where, hint="; ".join(filter(None, (error.hint, hint)))
                ) from error
        return exported, held

    def _judge_source(self, source: Any) -> tuple[Any, tuple[str, ...]]:
        judged = self._settled(lambda: judged_source(source, self.work.judge))
        return judged.verdict, judged.reasons

    def _settled(self, ask: Callable[[], Judged]) -> Judged:
        """Asked once; where the judge contradicted itself in the search, until votes decide, as they did there."""
        judged = ask()
        voting = self.result.voting
        if voting is None:
            return judged
        votes = [judged]
        while len(votes) < voting.most:
            passes = sum(one.passed for one in votes)
            decided = voting.decide(passes, len(votes) - passes)
            if decided is not None:
                return next((one for one in votes if one.passed == decided), judged)
            votes.append(ask())
        return next((one for one in votes if not one.passed), judged)

    def _held_out(self, path: Any) -> HeldOut:
        """The answer on inputs that the search did not see: in the engine, and as the model that was written."""
        work, options = self.work, self.work.options
        with work.phase("held out") as tell:
            golden = work.make_golden(self.held_out, tell)
            self.notes += seen_before(self.held_out, work.sets)
            judge: Judge = work.make_judge(golden, self.held_out)
            oracle = work.make_oracle(work.engine, self.held_out, judge, self.found.space)
            judged = self._settled(lambda: oracle.of(self.members))
            proof: ExportProof | None = None
            if path is not None:
                settings = RunnerOptions(as_is=True, threads=options.threads, custom_op_libs=options.custom_op_libs)
                proof = prove_typed(
                    path,
                    self.held_out,
                    settings,
                    lambda outputs, failures: self._settled(lambda: judge(outputs, failures)),
                )
        return HeldOut(judged.verdict, self._as_evaluated(judged), input_infos(self.held_out), proof)

    # --- what it comes to

    def _result(
        self, rerun: Evaluated | None, lighter: Any, cost: Any, exported: Any, held: HeldOut | None
    ) -> FindResult:
        work, result, found = self.work, self.result, self.found
        options, notebook = work.options, work.notebook
        baselines = result.baselines
        rerun = rerun or self._measured(baselines.answer_rerun, self.members)
        needs = {one.unit: self._need(one) for one in result.certificates}
        kept = in_model_order(work.engine, self.members) if self.known else []
        judge = work.judge
        return FindResult(
            status=result.status,
            reason=result.reason,
            model=str(work.model.path),
            model_sha256=work.model.sha256,
            precision=options.precision,
            device=device_in_words(work.engine.settings.device, options.precision, tactics=options.tactics is not None),
            granularity=options.granularity,
            objective=options.objective,
            keep=describe(
                work.engine, kept, by_layer=found.space.by_layer, unit_of=found.unit_of, needs=needs,
                suspicion=found.suspicion, shapes=work.shapes, reaches=work.reaches,
            ),
            oracle=Baselines(
                all_low=self._measured(baselines.all_low, frozenset()),
                all_fp32=self._measured(baselines.all_fp32, self.found.space.members),
                answer=self._measured(baselines.answer, self.members),
                answer_rerun=rerun,
                noise_floor=self._noise_floor(),
                float64_floor=self._float64_floor() if result.status == "unreachable" else {},
            ),
            evaluations={**notebook.counts, "cached": found.cached, **({"tactics": work.evaluated_tactics} if options.tactics else {})},
            acceptance=judge.acceptance,
            units=len(found.space.units),
            groups=tuple(Culprits(g.unit, tuple(sorted(g.units)), g.alternatives) for g in found.groups),
            compensating=tuple(Compensating(tuple(sorted(one.units))) for one in result.merged),
            violations=len(result.violations),
            voting=Voting(result.voting.noise, result.voting.confidence) if result.voting is not None else None,
            lighter=lighter,
            tactics=str(options.tactics or ""),
            switches=tuple(TacticSwitch(one.layer, one.before, one.after, one.cost_us) for one in work.switches),
            cost=cost,
            held_out=held,
            exported=exported,
            aggregate=options.aggregate,
            check=name_of_check(options.check),
            steps=notebook.steps(),
            suspects=tuple(
                Suspect(unit.id, unit.score, unit.flagged)
                for unit in sorted(found.space.units, key=lambda one: (not one.flagged, -one.score))[:SUSPECTS_SHOWN]
            ),
            findings=found.causes,
            golden=source_info(work.golden),
            interior=options.interior,
            passes=options.passes,
            fusion=options.fusion,
            inputs=input_infos(work.sets),
            log=str(options.log or ""),
            notes=(*self.notes, *work.notes, *work.golden.header.notes),
            environment={**environment(), **(work.golden.header.environment or {})},
            command=options.command,
            seconds=work.seconds,
        )  # fmt: skip

    def _measured(self, verdict: Verdict | None, members: frozenset[str]) -> Evaluated | None:
        last = self.work.notebook.last(members)
        return evaluated(verdict, last.measured if last is not None else {})

    def _need(self, certificate: Any) -> Any:
        without = self.members - frozenset(n for n, unit in self.found.unit_of.items() if unit == certificate.unit)
        last = self.work.notebook.last(without)
        return need(certificate, self.work.notebook.place(without), last.measured if last is not None else {})

    def _as_evaluated(self, judged: Judged) -> Evaluated:
        margin = None if judged.margin != judged.margin else judged.margin
        return Evaluated(judged.passed, margin, judged.worst, judged.reasons, judged.failing_inputs)

    def _noise_floor(self) -> dict[str, float]:
        last = self.work.notebook.last(self.found.space.members)
        named = (last.measured if last is not None else {}).items()
        return {key.removeprefix(_OF_OUTPUT): value for key, value in named if key.startswith(_OF_OUTPUT)}

    def _float64_floor(self) -> dict[str, float]:
        """How far the golden itself is from float64: what no precision can do better than."""
        work = self.work
        try:
            with work.phase("float64") as tell:
                exact = open_golden("fp64", work.model, work.sets, work.opened, outputs_only=True, progress=tell)
                diff = diff_sources(work.golden, exact, precision="fp32")
        except InputError as error:
            self.notes.append(f"the float64 floor is not known: {error.what}")
            return {}
        metrics = {t.name: t.metrics for t in diff.outputs}
        return {
            name: float("inf") if m.nonfinite_mismatch else m.range_rel for name, m in metrics.items() if m is not None
        }
