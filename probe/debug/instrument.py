"""``instrument``: one run with every tensor tapped, compared with the golden, each layer measured by itself, and what that explains."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from probe.compare.align import pair_inputs
from probe.debug.evidence import Evidence
from probe.debug.findings import Findings
from probe.debug.judged import diverging, threshold_of, with_statuses
from probe.debug.local_error import layer_errors
from probe.debug.observe import Outputs, record_engine

if TYPE_CHECKING:
    from probe.debug.resident import ResidentTape
    from probe.engine.assignment import Assignment
    from probe.engine.engine import Engine
    from probe.results.diff import DiffResult
    from probe.results.run import LayerError
    from probe.store.feeds import InputSet
    from probe.store.source import TensorSource
    from probe.store.tape import Tape

Phase = Callable[[str], AbstractContextManager[Callable[[str], None]]]  # times a phase, and tells what is worked on
Judge = Callable[["TensorSource", "TensorSource"], "DiffResult"]


@dataclass(frozen=True, slots=True)
class Instrumented:
    """What one tapped run says.

    Attributes:
        diff: every golden tensor with its status; the verdict.
        layers: their errors, in execution order.
        first: layers where error first goes beyond the acceptance.
        explained: makes findings of it.
        outputs: of the run, by input.
        failure: why the engine stopped; "" when it did not.
    """

    diff: DiffResult
    evidence: Evidence
    layers: tuple[LayerError, ...]
    first: tuple[str, ...]
    explained: Findings
    outputs: Outputs
    failure: str


def instrument(
    engine: Engine,
    assignment: Assignment,
    golden: TensorSource,
    sets: Sequence[InputSet],
    tape: Tape | ResidentTape,
    *,
    judge: Judge,
    phase: Phase,
    measured: Callable[[Any], bool] | None = None,
    strict: bool = False,
) -> Instrumented:
    """Run, compare, measure, explain. ``tape`` is filled, and must stay open as long as the result is used.

    Args:
        judge: compares two recordings.
        measured: layers that are measured by themselves. All by default.
        strict: tensors inside count in the verdict as outputs do.
    """
    aliases = _aliases(engine, golden)
    with phase("run") as tell, tape:
        outputs, failure = record_engine(engine, assignment, sets, tape, aliases=aliases, progress=tell)
    with phase("compare"):
        diff = with_failure(judge(tape, golden), failure)
        diff = with_statuses(diff, engine, tape, golden, engine.settings.precision, aliases)
    with phase("local error") as tell:
        evidence = _evidence(engine, assignment, golden, tape, sets, diff)
        layers = tuple(layer_errors(evidence, measured=measured, progress=tell))
    first = diverging(evidence, layers)
    threshold = threshold_of(diff.acceptance, engine.settings.precision)
    explained = Findings(evidence, layers, first, threshold=threshold, verdict=diff.verdict, strict=strict)
    return Instrumented(diff, evidence, layers, first, explained, outputs, failure)


def with_failure(diff: DiffResult, failure: str) -> DiffResult:
    """A network that stops has failed, whatever it made before."""
    return replace(diff, verdict="failed", reasons=(f"it does not run: {failure}", *diff.reasons)) if failure else diff


def _evidence(
    engine: Engine,
    assignment: Assignment,
    golden: TensorSource,
    tape: TensorSource,
    sets: Sequence[InputSet],
    diff: DiffResult,
) -> Evidence:
    pairs, _ = pair_inputs(tape, golden)
    return Evidence(
        engine, assignment, golden, tape,
        pairs={pair.actual: pair.golden for pair in pairs},
        sets={one.id: one for one in sets},
        tensors={t.name: t for t in diff.tensors if t.status != "extra"},
    )  # fmt: skip


def _aliases(engine: Engine, golden: TensorSource) -> Mapping[str, list[str]]:
    """Tensor of the network -> golden tensors whose values it holds under its own name."""
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(row.name for row in golden.rows() if row.role != "input"):
        status, to = engine.fate(name)
        if status == "equivalent":
            found.setdefault(to, []).append(name)
    return found
