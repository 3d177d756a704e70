"""``convert_network``: write a mixed-precision model, prove it as a runtime that honours its types would run it, and list what to hand over."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from probe.compare.diff import diff_sources, environment
from probe.debug.goldens import Golden, golden_kind, open_golden
from probe.debug.handover import autocast_patterns, layer_precisions, named_and_unnamed
from probe.debug.phases import Progress, timed_phase
from probe.debug.record import record
from probe.errors import InputError
from probe.model.load import load
from probe.model.mixed import LowPrecision, Mixed, convert_mixed
from probe.model.names import TensorNames
from probe.results.convert_result import CastAdded, ConvertResult, ExportProof, HandOver
from probe.results.diff import Criterion, DiffResult, SourceInfo, TensorDiff, Verdict
from probe.results.run import OutputVerdict
from probe.runners.protocol import RunnerOptions, open_runner
from probe.runners.saturation import saturation_note
from probe.store.feeds import input_infos
from probe.store.tape import Tape

if TYPE_CHECKING:
    from probe.model.model import Model
    from probe.runners.protocol import Runner
    from probe.store.feeds import InputSet
    from probe.store.source import TensorSource

_NO_KERNEL = "Could not find an implementation"


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """What the user asked of a conversion.

    Attributes:
        keep: patterns; tensors and nodes whose name one is found in stay FP32.
        keep_tensors, keep_nodes: the same by exact names.
        convert_io: graph inputs and outputs get the low type, too.
        prove: run the result and judge it.
        golden: ``ort``, ``fp64``, a recording, arrays by output name, or an open source.
        judge: what decides in place of the acceptance: outputs as a source -> verdict and reasons.
    """

    precision: LowPrecision = "fp16"
    keep: tuple[re.Pattern[str], ...] = ()
    keep_tensors: tuple[str, ...] = ()
    keep_nodes: tuple[str, ...] = ()
    convert_io: bool = False
    prove: bool = True
    golden: Golden = "ort"
    acceptance: tuple[Criterion, ...] = ()
    preset: str | None = None
    judge: Callable[[TensorSource], tuple[Verdict, tuple[str, ...]]] | None = None
    threads: int = 0
    custom_op_libs: tuple[Path, ...] = ()
    overwrite: bool = False
    command: str = ""


@dataclass(slots=True)
class _Proving:
    """What the proofs of one conversion share."""

    model: Model
    sets: Sequence[InputSet]
    options: ConvertOptions
    golden: TensorSource

    def judge(self, runner: Runner) -> DiffResult:
        """The graph outputs of a runner against the golden.

        Raises:
            InputError: it does not run.
        """
        options = self.options
        outputs = {port.name for port in self.model.outputs}
        with closing(Tape(runner.name)) as tape:
            with tape:
                record(runner, self.sets, tape, select=lambda name: _base(name, outputs) in outputs)
            judged = diff_sources(
                tape, self.golden, acceptance=options.acceptance, precision=options.precision, preset=options.preset,
                select=_exactly(outputs), command=options.command,
            )  # fmt: skip
            if options.judge is None:
                return judged
            verdict, reasons = options.judge(tape)
            return replace(judged, verdict=verdict, reasons=reasons)

    def open(self, name: str, model: Model) -> Runner:
        outputs = {port.name for port in model.outputs}
        options = RunnerOptions(
            as_is=True,
            select=lambda one: one in outputs,
            threads=self.options.threads,
            custom_op_libs=self.options.custom_op_libs,
        )
        return open_runner(name, model, options)


def convert_network(
    model: Model,
    out: str | Path,
    sets: Sequence[InputSet],
    options: ConvertOptions | None = None,
    *,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> ConvertResult:
    """Convert a model, write it, and prove what was written.

    The proof is the typed runner's: ONNX Runtime's CPU provider does not round, so it shows that the model is valid and loads, and is labelled so.
    The keep-list is proved in both forms it is handed over in: by tensors, and by nodes.

    Args:
        sets: inputs for the proof; not used without one.
        notes: what was noticed while the inputs were made.

    Raises:
        InputError: the model cannot be converted, a pattern matches nothing, the target exists or cannot be written, or the golden cannot be made.
    """
    options = options or ConvertOptions()
    tell = progress or (lambda _phase, _name: None)
    seconds: dict[str, float] = {}
    path = Path(out)
    check_export(path, model, overwrite=options.overwrite)
    if options.prove:
        golden_kind(options.golden)
    with timed_phase(seconds, tell, "convert"):
        tensors, nodes = resolve_keep(model, options)
        mixed = convert_mixed(
            model, options.precision, keep_tensors=tensors, keep_nodes=nodes, convert_io=options.convert_io
        )
    with ExitStack() as opened:
        proving: _Proving | None = None
        if options.prove:  # before anything is written: a golden that cannot be made leaves nothing behind
            with timed_phase(seconds, tell, "golden"):
                golden = open_golden(
                    options.golden, model, sets, opened, threads=options.threads, custom_op_libs=options.custom_op_libs,
                    outputs_only=True,
                )  # fmt: skip
            proving = _Proving(model, sets, options, golden)
        files = mixed.save(path)
        try:
            written = load(path)
            result = _described(model, mixed, written, options, (*tensors, *nodes))
            if proving is not None:
                with timed_phase(seconds, tell, "proof"):
                    result = _proved(result, proving, written)
                # What is true of the golden's numbers, and of those of the proof where the golden was recorded elsewhere.
                said = (*result.notes, *notes, *proving.golden.header.notes, saturation_note(written))
                result = replace(result, notes=tuple(dict.fromkeys(filter(None, said))))
                if mixed.lifted or mixed.fp32_nodes:
                    with timed_phase(seconds, tell, "hand-over"):
                        result = replace(result, handed_over=_hand_over(proving, mixed, result))
                result = replace(result, inputs=input_infos(sets))
        except BaseException:  # Ctrl-C too: what was not proved is not left to be deployed
            for one in files:
                one.unlink(missing_ok=True)
            raise
    return replace(result, environment=environment(), seconds=seconds)


def resolve_keep(model: Model, options: ConvertOptions) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Tensors and nodes to keep. A name that both a tensor and a node have means the tensor, the finer unit.

    Raises:
        InputError: a pattern that is found in no name.
    """
    names = TensorNames(model.root)
    tensors: dict[str, None] = dict.fromkeys(port.name for port in model.inputs)
    for scope in model.root.walk():
        tensors.update(dict.fromkeys(scope.initialisers))
    for step in model.root.in_execution_order():
        tensors.update(dict.fromkeys(names.of(step.scope, name) for name in step.outputs))
    nodes = dict.fromkeys(node.identity for node in model.nodes if node.op != "Constant")
    kept_tensors, kept_nodes = dict.fromkeys(options.keep_tensors), dict.fromkeys(options.keep_nodes)
    for pattern in options.keep:
        by_tensor = [name for name in tensors if pattern.search(name)]
        by_node = [name for name in nodes if pattern.search(name) and name not in tensors]
        if not by_tensor and not by_node:
            raise InputError(
                f"nothing to keep matches {pattern.pattern!r}", where="--keep",
                hint="names of tensors or nodes: probe inspect MODEL -v lists them",
            )  # fmt: skip
        kept_tensors.update(dict.fromkeys(by_tensor))
        kept_nodes.update(dict.fromkeys(by_node))
    return tuple(kept_tensors), tuple(kept_nodes)


def check_export(path: Path, model: Model, *, overwrite: bool) -> None:
    """Refuse a place that a converted model could not be written to. Commands ask before they work for minutes.

    Raises:
        InputError: another suffix, no such folder, the model itself, or a file that is there.
    """
    if path.suffix != ".onnx":
        raise InputError(f"{path}: a converted model is written as .onnx", where="-o")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: its folder does not exist", where="-o")
    if path.exists():
        if path.is_dir() or path.samefile(model.path):
            raise InputError(
                f"cannot write {path}: it is {'a folder' if path.is_dir() else 'the model itself'}", where="-o"
            )
        if not overwrite:
            raise InputError(f"{path} exists", where="-o", hint="--overwrite replaces it")


def _described(
    model: Model, mixed: Mixed, written: Model, options: ConvertOptions, keep: tuple[str, ...]
) -> ConvertResult:
    listed, unnamed = named_and_unnamed(model, (*mixed.lifted, *mixed.fp32_nodes))
    return ConvertResult(
        verdict="not_judged", reasons=("nothing was proved: --no-proof",), model=str(model.path), model_sha256=model.sha256,
        path=str(written.path), precision=options.precision, keep=keep, kept_tensors=mixed.kept_tensors, lifted=mixed.lifted,
        fp32_nodes=mixed.fp32_nodes, without_low=mixed.without_low, spared=mixed.spared, shape_nodes=mixed.shape_nodes,
        low_nodes=mixed.low_nodes, casts=tuple(CastAdded(*cast) for cast in mixed.casts), bytes_before=_bytes(model),
        bytes_after=_bytes(written), convert_io=options.convert_io, autocast=autocast_patterns(listed),
        trtexec=layer_precisions(listed), unnamed=unnamed, notes=mixed.notes, command=options.command,
    )  # fmt: skip


def _proved(result: ConvertResult, proving: _Proving, written: Model) -> ConvertResult:
    typed, judged = _proof("typed", proving, written)
    ort, _ = _proof("ort", proving, written)
    reasons = typed.reasons if typed.verdict != "passed" else ()
    verdict: Verdict = typed.verdict
    if not ort.passed:
        verdict, reasons = "failed", (*reasons, *ort.reasons)
    outputs: Iterable[TensorDiff] = judged.outputs if judged is not None else ()
    return replace(
        result, verdict=verdict, reasons=reasons, proofs=(typed, ort),
        outputs={t.name: OutputVerdict(t.verdict, t.metrics, None, t.reasons) for t in outputs},
        golden=judged.golden if judged is not None else SourceInfo("", ""),
        acceptance=judged.acceptance if judged is not None else proving.options.acceptance,
    )  # fmt: skip


def _proof(name: str, proving: _Proving, written: Model) -> tuple[ExportProof, DiffResult | None]:
    """The written model in one runner. ONNX Runtime passes when it takes and runs the model: what it computes is FP32."""
    honoured = name == "typed"
    try:
        with closing(proving.open(name, written)) as runner:
            judged = proving.judge(runner)
    except InputError as error:
        said = f"{name}: {error.what}"
        if not honoured and _NO_KERNEL in f"{error.what} {error.__cause__}":
            said = f"{name}: the types are valid; this build has no kernel to run it ({error.what})"
            return ExportProof(
                name, fp16_honoured=False, verdict="not_judged", metric=None, passed=True, reasons=(said,)
            ), None
        return ExportProof(name, honoured, "failed", None, passed=False, reasons=(said,)), None
    passed = bool(judged) if honoured else True
    return ExportProof(name, honoured, judged.verdict, _worst(judged), passed, judged.reasons), judged


def _hand_over(proving: _Proving, mixed: Mixed, result: ConvertResult) -> tuple[HandOver, ...]:
    """The list in both its forms. By tensors it is what was written, unless nodes were kept, too."""
    nodes = (*mixed.lifted, *mixed.fp32_nodes)
    lists: list[HandOver] = []
    if mixed.kept_tensors and not mixed.fp32_nodes:
        typed = result.proofs[0]
        lists.append(HandOver("tensors", mixed.kept_tensors, typed.verdict, typed.metric, typed.reasons))
    by_node = convert_mixed(proving.model, mixed.precision, keep_nodes=nodes, convert_io=proving.options.convert_io)
    with tempfile.TemporaryDirectory(prefix="probe-convert-") as folder:
        target = Path(folder) / "nodes.onnx"
        by_node.save(target)
        proof, _ = _proof("typed", proving, load(target))
    return (*lists, HandOver("nodes", nodes, proof.verdict, proof.metric, proof.reasons))


def _worst(judged: DiffResult) -> float | None:
    values = [
        float("inf") if t.metrics.nonfinite_mismatch else t.metrics.range_rel
        for t in judged.outputs
        if t.metrics is not None
    ]
    return max(values, default=None)


def _base(name: str, outputs: set[str]) -> str:
    """An output's name without the index of an element of a sequence."""
    return name if name in outputs else name.rpartition("[")[0]


def _exactly(names: Iterable[str]) -> re.Pattern[str]:
    """Matches outputs, and the elements of those that are sequences."""
    return re.compile("^(?:" + "|".join(re.escape(name) for name in names) + r")(?:\[\d+\])?\Z")


def _bytes(model: Model) -> int:
    return sum(path.stat().st_size for path in (model.path, *model.external_files))
