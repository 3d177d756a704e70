"""What a comparison means for a compiled network: a status for every golden tensor, the layers where error first appears."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from probe.metrics.acceptance import default_acceptance
from probe.results.diff import Criterion, DiffResult, TensorDiff
from probe.results.tensors import TensorInfo

if TYPE_CHECKING:
    from probe.debug.evidence import Evidence
    from probe.engine.engine import Engine
    from probe.results.run import LayerError
    from probe.store.source import TensorSource

_BREAKS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.gt, "<": operator.ge, ">=": operator.lt, ">": operator.le, "==": operator.ne,
}  # fmt: skip
_FALLBACK = {"fp32": 1e-3}  # range_rel of layers when no acceptance has a bound on it
_COARSE = 0.05


def with_statuses(
    diff: DiffResult,
    engine: Engine,
    actual: TensorSource,
    golden: TensorSource,
    precision: str,
    aliases: Mapping[str, Sequence[str]],
) -> DiffResult:
    """``diff`` with a status for every golden tensor: what was not handed out is interior, folded, equivalent, not run or missing.

    The verdict stays: it is of outputs, and an output that is missing has failed already. Tensors inside that no criterion speaks of
    are held to the default of ``precision``, so that the first divergence has a meaning whatever the outputs are judged by.
    """
    rows = {row.name: row for row in actual.rows() if row.role != "input"}
    wanted = {row.name: row for row in golden.rows() if row.role != "input"}
    held_by = {alias: name for name, others in aliases.items() for alias in others}
    return replace(
        diff,
        tensors=tuple(
            _with_status(t, engine, rows.get(t.name), wanted.get(t.name), precision, held_by.get(t.name))
            for t in diff.tensors
        ),
    )


def _with_status(
    t: TensorDiff,
    engine: Engine,
    actual: TensorInfo | None,
    golden: TensorInfo | None,
    precision: str,
    held_by: str | None,
) -> TensorDiff:
    if actual is not None:
        t = replace(
            t, precision=actual.precision or t.precision, layer=actual.layer or t.layer, nodes=t.nodes or actual.nodes
        )
    if t.status == "compared":
        if t.role == "internal" and t.verdict == "not_judged":
            t = replace(t, beyond=_is_beyond(t, precision))
        if held_by is not None:
            t = replace(t, status="equivalent", reasons=(*t.reasons, f"the values of {held_by}"))
        return t
    if t.status != "not_recorded" or golden is None:
        return t
    if golden.status == "not_run":
        return replace(t, status="not_run", verdict="passed", reasons=(golden.note,))
    status, detail = engine.fate(t.name)
    match status:
        case "interior":
            return replace(t, status="interior", layer=detail, reasons=(f"inside layer {detail}",))
        case "folded":
            return replace(t, status="folded", reasons=(f"by {detail}",))
        case "equivalent":
            return replace(t, status="equivalent", reasons=(f"the values of {detail}, which is not handed out",))
        case "made":
            return replace(t, status="not_run", layer=detail, reasons=(f"layer {detail} did not run",))
    return replace(t, status="missing", reasons=("not a tensor of this network",))


def _is_beyond(t: TensorDiff, precision: str) -> bool:
    m = t.metrics
    if m is None:
        return False
    bounds = default_acceptance(precision, t.dtype_actual or "float32", t.dtype_golden or "float32")
    return m.nonfinite_mismatch > 0 or any(
        c.level == "fail" and _BREAKS[c.op](getattr(m, c.metric), c.threshold) for c in bounds
    )


def threshold_of(acceptance: Sequence[Criterion], precision: str) -> float:
    """range_rel beyond which an output fails: the strictest bound on it, else the default of the precision."""
    bounds = [c.threshold for c in acceptance if c.metric == "range_rel" and c.level == "fail" and c.op in ("<=", "<")]
    return min((b for b in bounds if b > 0), default=_FALLBACK.get(precision, _COARSE))


def diverging(evidence: Evidence, layers: Sequence[LayerError]) -> tuple[str, ...]:
    """Layers beyond the acceptance of outputs all of whose inputs are within it, in execution order.

    Inputs that were not compared are looked through to what they are made from.
    """
    makers = {name: step.layer.name for name, step in evidence.steps.items()}
    by_name = {layer.name: layer for layer in layers}

    def reads_bad(layer: LayerError) -> bool:
        pending, seen = list(layer.reads), set[str]()
        while pending:
            one = pending.pop()
            if one in seen:
                continue
            seen.add(one)
            t = evidence.tensor(one)
            if t is not None and t.metrics is not None:
                if t.beyond:
                    return True
            elif one in makers:
                pending.extend(by_name[makers[one]].reads)
        return False

    return tuple(layer.name for layer in layers if layer.beyond and not reads_bad(layer))
