"""Two saved results, before and after: what got better or worse, by name, and whether CI should stop."""

from __future__ import annotations

import math

from probe.results.diff import DiffResult, RegressionResult, TensorChange, TensorDiff, Verdict

NOISE = 1e-6  # range_rel below this is summation order: it neither improves nor worsens

_RANK: tuple[Verdict, ...] = ("passed", "warned", "not_judged", "failed")


def diff_results(
    before: DiffResult, after: DiffResult, *, worse_factor: float = 2.0, names: tuple[str, str] = ("before", "after")
) -> RegressionResult:
    """Compare two diffs against the same golden.

    An output regresses when its verdict worsens, when its range_rel grows by more than ``worse_factor`` (and beyond ``NOISE``), or when it
    is gone. Interior tensors are listed and do not count: a changed fusion moves error without changing the answer.
    """
    old = {t.name: t for t in before.tensors if t.status != "not_recorded"}
    new = {t.name: t for t in after.tensors if t.status != "not_recorded"}
    changes = [_change(old.get(name), new.get(name), worse_factor) for name in dict.fromkeys((*old, *new))]
    reasons = [_reason(c) for c in changes if c.role == "output" and c.status in ("worse", "only_before")]
    if _RANK.index(after.verdict) > _RANK.index(before.verdict):
        reasons.insert(0, f"the verdict went from {before.verdict} to {after.verdict}")
    return RegressionResult(
        verdict="failed" if reasons else "passed",
        reasons=tuple(reasons),
        before=names[0],
        after=names[1],
        verdict_before=before.verdict,
        verdict_after=after.verdict,
        changes=tuple(changes),
        worse_factor=worse_factor,
    )


def _change(old: TensorDiff | None, new: TensorDiff | None, factor: float) -> TensorChange:
    one = new or old
    assert one is not None
    first, second = _error(old), _error(new)
    if old is None or new is None:
        status = "only_before" if new is None else "only_after"
    elif _RANK.index(new.verdict) > _RANK.index(old.verdict) or _grew(first, second, factor):
        status = "worse"
    elif _RANK.index(new.verdict) < _RANK.index(old.verdict) or _grew(second, first, factor):
        status = "better"
    else:
        status = "same"
    ratio = second / first if first and second is not None and math.isfinite(first) else None
    return TensorChange(
        one.name, status, one.role, first, second, ratio, old.verdict if old else None, new.verdict if new else None
    )


def _error(t: TensorDiff | None) -> float | None:
    """range_rel; Inf where NaN or Inf differ, whatever the finite elements say, and where it is NaN itself."""
    if t is None or t.metrics is None:
        return None
    unknown = t.metrics.nonfinite_mismatch or math.isnan(t.metrics.range_rel)
    return math.inf if unknown else t.metrics.range_rel


def _grew(first: float | None, second: float | None, factor: float) -> bool:
    if second is None or first is None:
        return False
    if math.isinf(second):
        return not math.isinf(first)
    return second > max(first, NOISE) * factor


def _reason(change: TensorChange) -> str:
    if change.status == "only_before":
        return f"{change.name} is gone"
    if change.verdict_before != change.verdict_after:
        return f"{change.name} went from {change.verdict_before} to {change.verdict_after}"
    return f"{change.name}: range_rel {_shown(change.before)} -> {_shown(change.after)}"


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"
