"""Findings about a run as a whole: it stopped, it is wrong in FP32 already, looking at it changed it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from probe.debug.cures import Judged
from probe.results.run import ObserverCheck, RunFinding
from probe.store.source import TensorSource

if TYPE_CHECKING:
    from probe.model.model import Model


def failed_to_run(failure: str, precision: str) -> tuple[RunFinding, ...]:
    if not failure:
        return ()
    return (
        RunFinding(
            "does_not_run", f"the network runs in FP32 and not in {precision}: {failure}",
            cure="a length, an index or a shape is computed in floating point and was rounded: keep what makes it in FP32", fatal=True,
        ),
    )  # fmt: skip


def of_baseline(baseline: Judged) -> tuple[RunFinding, ...]:
    """In FP32 an engine has no excuse."""
    wrong = [t for t in baseline.outputs if t.verdict == "failed"]
    if not wrong:
        return ()
    return (
        RunFinding(
            "baseline_fails",
            f"already in FP32 the network misses this golden: {wrong[0].name}: {wrong[0].reasons[0] if wrong[0].reasons else wrong[0].status}; "
            "what follows is not about precision alone",
            tensor=wrong[0].name, cure="is it the golden of this model and these inputs? then see the layers that differ in FP32", fatal=True,
        ),
    )  # fmt: skip


def observed(observer: ObserverCheck) -> tuple[RunFinding, ...]:
    if observer.identical:
        return ()
    worst = max(observer.differences, key=lambda one: one.max_abs)
    return (
        RunFinding(
            "observer",
            f"looking changes the result: without taps {len(observer.differences)} of {observer.outputs} outputs are not the same bits; "
            f"{worst.output} differs in {worst.elements:,} of {worst.count:,} elements, by up to {worst.max_abs:.3g}",
            tensor=worst.output, range=worst.max_abs, cure="this is a fault of probe's engine: report it with the model", fatal=True,
        ),
    )  # fmt: skip


def of_golden(golden: TensorSource, model: Model) -> tuple[RunFinding, ...]:
    """A golden of outputs alone says whether the network fails, and not where."""
    outputs = {port.name for port in model.outputs}
    if any(row.role != "input" and row.name not in outputs for row in golden.rows()):
        return ()
    return (
        RunFinding(
            "golden_of_outputs", "the golden holds outputs only: layers inside were not judged, and what they read is not known",
            cure="record one with every tensor: probe dump MODEL -o golden",
        ),
    )  # fmt: skip
