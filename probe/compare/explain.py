"""From numbers to words: where error or NaN first appears, what masks did, how close a verdict was."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from probe.compare.pair import Compared
from probe.precision import PRECISIONS, precision_of
from probe.results.diff import Finding, TensorDiff, Verdict
from probe.results.tensors import TensorInfo

Rows = Mapping[str, Mapping[str, TensorInfo]]


def first_divergence(diffs: Sequence[TensorDiff], reads: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Names of every tensor beyond the acceptance whose inputs are all within it, in recorded order.

    Inputs that were not compared are looked through to what they read. Without recorded reads nothing is known about the graph, and
    the first tensor beyond in recorded order is all that can be said.
    """
    beyond = [
        t for t in diffs if t.beyond and t.status in ("compared", "shape_mismatch", "kind_mismatch", "stats_only")
    ]
    if not any(reads.values()):
        return tuple(t.name for t in beyond[:1])
    bad = {t.name for t in beyond}
    known = {t.name for t in diffs if t.status == "compared"}
    return tuple(t.name for t in beyond if not reads_any(t.name, bad, known.__contains__, _read_by(reads)))


def _read_by(reads: Mapping[str, tuple[str, ...]]) -> Callable[[str], tuple[str, ...]]:
    return lambda name: reads.get(name, ())


def reads_any(
    name: str, bad: Collection[str], known: Callable[[str], bool], reads: Callable[[str], Iterable[str]]
) -> bool:
    """Whether what makes a tensor reads one of ``bad``, looking through tensors that are not ``known``."""
    pending, seen = list(reads(name)), {name}
    while pending:
        one = pending.pop()
        if one in seen:
            continue
        seen.add(one)
        if one in bad:
            return True
        if not known(one):
            pending.extend(reads(one))
    return False


def explain(compared: Sequence[Compared], rows_a: Rows, rows_g: Rows, verdict: Verdict) -> Iterator[Finding]:
    """Findings about values; those about inputs come from ``align``."""
    yield from _first_nonfinite(compared, rows_a, rows_g, verdict)
    for one in compared:
        t, m = one.diff, one.diff.metrics
        if t.role != "output":
            continue
        if m is not None and m.sentinels:
            yield Finding(
                "sentinels",
                f"{m.sentinels} of {m.count} golden elements are masks ({m.sentinel_value:.3g}): compared by class, "
                f"{m.sentinel_mismatch} differ; errors are over the rest, of range {m.range:.3g}",
                tensor=t.name,
                fatal=m.sentinel_mismatch > 0,
            )
        if one.near:
            yield Finding("near_threshold", f"{t.name}: {'; '.join(one.near)}: within a factor of two", tensor=t.name)
        if t.dtype_actual is not None and t.dtype_golden is not None and t.dtype_actual != t.dtype_golden:
            yield Finding("dtype_differs", f"actual is {t.dtype_actual}, golden {t.dtype_golden}", tensor=t.name)
        if t.failing_inputs:
            shown = ", ".join(t.failing_inputs[:5]) + (", ..." if len(t.failing_inputs) > 5 else "")
            yield Finding(
                "failing_inputs",
                f"{len(t.failing_inputs)} of {t.inputs} inputs fail: {shown}; the worst is {t.worst_input}",
                tensor=t.name,
                fatal=True,
            )
        if m is not None and m.max_steps is not None:
            yield Finding(
                "quantisation", f"the largest error of {t.name} is {m.max_steps:.3g} quantisation steps", tensor=t.name
            )


def _first_nonfinite(compared: Sequence[Compared], rows_a: Rows, rows_g: Rows, verdict: Verdict) -> Iterator[Finding]:
    """Where NaN or Inf that golden lacks first appears: tensors that have it although nothing they read does."""
    bad = {c.diff.name for c in compared if c.diff.metrics is not None and c.diff.metrics.nonfinite_mismatch}
    known = {c.diff.name for c in compared if c.diff.status == "compared"}
    reads = {name: next(iter(rows.values())).reads for name, rows in rows_g.items()}
    for one in compared:
        t = one.diff
        if t.name not in bad or reads_any(t.name, bad, known.__contains__, _read_by(reads)):
            continue
        m = t.metrics
        assert m is not None
        what = " and ".join(f"{n} {word}" for n, word in ((m.nan_actual, "NaN"), (m.inf_actual, "Inf")) if n) or "none"
        limit = _limit(t)
        recorded = [row.absmax_finite for row in rows_g[t.name].values() if row.absmax_finite is not None]
        reach = max(recorded, default=m.range)
        message = f"NaN or Inf first appears here: actual has {what}, golden reaches {reach:.4g}"
        cure = ""
        if limit is not None and reach > limit[1]:
            message += f", beyond the largest {limit[0]} ({limit[1]:g})"
            cure = "keep this tensor in FP32, scale before the operation, or use bf16"
        yield Finding(
            "first_nonfinite", message + _operands(rows_a, t), tensor=t.name,
            node=t.nodes[0] if t.nodes else None, cure=cure, fatal=verdict == "failed",
        )  # fmt: skip
        if not any(reads.values()):
            return  # without a graph only the first in recorded order can be called first


def _operands(rows_a: Rows, t: TensorDiff) -> str:
    parts = []
    for name in t.reads[:3]:
        row = next(iter(rows_a.get(name, {}).values()), None)
        if row is not None and row.absmax_finite is not None:
            parts.append(f"{name} (largest {row.absmax_finite:.4g})")
    return f"; it reads {', '.join(parts)}" if parts else ""


def _limit(t: TensorDiff) -> tuple[str, float] | None:
    precision = t.precision or precision_of(t.dtype_actual or "")
    return (precision, PRECISIONS[precision].max) if precision in PRECISIONS else None
