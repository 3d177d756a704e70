"""Two saved results, before and after: what got better or worse, by name and by part of the network, and whether CI should stop."""

from __future__ import annotations

import math
from collections.abc import Mapping

from probe.compare.regression_parts import layers_of, parts_of, ratio_of
from probe.compare.regression_sides import SavedResult, differing, side_of, warnings_of
from probe.errors import InputError
from probe.results.diff import DiffResult, Finding, TensorDiff, Verdict
from probe.results.find import FindResult
from probe.results.regression import (
    ChangeStatus,
    FindingChange,
    KeptChange,
    RegressionResult,
    TensorChange,
)
from probe.results.run import RunFinding, RunResult

NOISE = 1e-6  # range_rel below this is summation order: it neither improves nor worsens

_RANK: tuple[Verdict, ...] = ("passed", "warned", "not_judged", "failed")


def diff_results(
    before: SavedResult, after: SavedResult, *, worse_factor: float = 2.0, names: tuple[str, str] = ("before", "after")
) -> RegressionResult:
    """Compare two results of run or diff, or two of find.

    An output regresses when its verdict worsens, when its range_rel grows by more than ``worse_factor`` (and beyond ``NOISE``, or the
    smaller of its two noise floors), or when it is gone. What happens inside is listed and does not count: a changed fusion moves error
    without changing the answer. A search regresses when it no longer ends well, or when more must stay FP32.

    Raises:
        InputError: a search and something else.
    """
    if isinstance(before, FindResult) and isinstance(after, FindResult):
        return _searches(before, after, worse_factor, names)
    if isinstance(before, FindResult) or isinstance(after, FindResult):
        raise InputError(
            f"{names[0]} holds a {before.schema}, {names[1]} a {after.schema}",
            hint="compare two runs or diffs, or two searches",
        )
    old, new = _tensors(before), _tensors(after)
    floors = _floors(before, after)
    listed = dict.fromkeys((*old, *new))
    changes = [_change(name, old.get(name), new.get(name), worse_factor, floors.get(name, NOISE)) for name in listed]
    decisive = [c for c in changes if c.role == "output" and c.status in ("worse", "only_before")]
    reasons = [_reason(c) for c in sorted(decisive, key=_gravity, reverse=True)]
    if _RANK.index(after.verdict) > _RANK.index(before.verdict):
        reasons.append(f"the verdict went from {_word(before.verdict)} to {_word(after.verdict)}")
    sides = (side_of(before, names[0]), side_of(after, names[1]))
    return RegressionResult(
        verdict="failed" if reasons else "passed",
        reasons=tuple(reasons),
        before=names[0],
        after=names[1],
        verdict_before=before.verdict,
        verdict_after=after.verdict,
        changes=tuple(changes),
        worse_factor=worse_factor,
        noise=NOISE,
        parts=parts_of(
            layers_of(before),
            layers_of(after),
            (_errors(old), _errors(new)),
            (before.first_divergence, after.first_divergence),
            lambda first, second: judged(first, second, worse_factor, NOISE),
        ),
        findings=_findings(before, after),
        first_before=before.first_divergence,
        first_after=after.first_divergence,
        settings=differing(*sides),
        warnings=warnings_of(*sides, _golden_ranges(old, new)),
        sides=sides,
    )


def judged(before: float | None, after: float | None, factor: float, noise: float) -> ChangeStatus:
    """``better``, ``worse`` or ``same`` of an error; what is not known on one side is ``same``."""
    if _grew(before, after, factor, noise):
        return "worse"
    return "better" if _grew(after, before, factor, noise) else "same"


# --- tensors


def _tensors(result: RunResult | DiffResult) -> dict[str, TensorDiff]:
    return {t.name: t for t in result.tensors if t.status != "not_recorded"}


def _change(name: str, old: TensorDiff | None, new: TensorDiff | None, factor: float, noise: float) -> TensorChange:
    first, second = _error(old), _error(new)
    known = [t for t in (new, old) if t is not None]
    worsened = old is not None and new is not None and _RANK.index(new.verdict) > _RANK.index(old.verdict)
    improved = old is not None and new is not None and _RANK.index(new.verdict) < _RANK.index(old.verdict)
    status: ChangeStatus
    if new is None or (second is None and first is not None and not worsened):
        status = "only_before"
    elif old is None or (first is None and second is not None and not worsened):
        status = "only_after"
    elif worsened or _grew(first, second, factor, noise):  # worse in one respect is worse
        status = "worse"
    elif improved or _grew(second, first, factor, noise):
        status = "better"
    else:
        status = "same"
    return TensorChange(
        name, status, "output" if any(t.role == "output" for t in known) else known[0].role, first, second, ratio_of(first, second),
        old.verdict if old else None, new.verdict if new else None,
    )  # fmt: skip


def _error(t: TensorDiff | None) -> float | None:
    """range_rel; Inf where NaN or Inf differ, whatever the finite elements say, and where it is NaN itself."""
    if t is None or t.metrics is None:
        return None
    unknown = t.metrics.nonfinite_mismatch or math.isnan(t.metrics.range_rel)
    return math.inf if unknown else t.metrics.range_rel


def _errors(tensors: Mapping[str, TensorDiff]) -> dict[str, float]:
    return {name: error for name, t in tensors.items() if (error := _error(t)) is not None}


def _grew(first: float | None, second: float | None, factor: float, noise: float) -> bool:
    if second is None or first is None:
        return False
    if math.isinf(second):
        return not math.isinf(first)
    return second > max(first, noise) * factor


def _floors(*results: RunResult | DiffResult) -> dict[str, float]:
    """Output -> the smaller of the two noise floors, where both are known: a floor that rose is itself a regression."""
    floors = [result.golden.noise_floor if isinstance(result, RunResult) else {} for result in results]
    common = set.intersection(*map(set, floors))
    lowest = {name: min(floor[name] for floor in floors) for name in common}
    return {name: max(NOISE, value) for name, value in lowest.items() if math.isfinite(value)}


def _golden_ranges(old: Mapping[str, TensorDiff], new: Mapping[str, TensorDiff]) -> tuple[str, ...]:
    """Tensors whose goldens reach elsewhere: the two sides were not judged by the same numbers."""
    apart = []
    for name, first in old.items():
        second = new.get(name)
        if second is None or first.metrics is None or second.metrics is None:
            continue
        if first.metrics.compared != second.metrics.compared:  # the range runs over what was compared
            continue
        a, b = first.metrics.range, second.metrics.range
        if math.isfinite(a) and math.isfinite(b) and abs(a - b) > 0.01 * max(abs(a), abs(b)):
            apart.append(name)
    return tuple(apart)


def _gravity(change: TensorChange) -> tuple[bool, int, float]:
    """Gone outputs first, then by the verdict they have now, then by their error."""
    now = _RANK.index(change.verdict_after) if change.verdict_after is not None else 0
    return change.status == "only_before", now, change.after if change.after is not None else 0.0


def _reason(change: TensorChange) -> str:
    if change.status == "only_before":
        return f"{change.name} is gone" if change.verdict_after is None else f"{change.name} is no longer compared"
    moved = ""
    if change.verdict_before != change.verdict_after:
        moved = f" went from {_word(change.verdict_before)} to {_word(change.verdict_after)}"
    if change.before is None or change.after is None:
        return f"{change.name}{moved}"
    return f"{change.name}{moved}: range_rel {change.before:.3g} before, {change.after:.3g} now"


def _word(verdict: Verdict | None) -> str:
    return (verdict or "nothing").replace("_", " ")


# --- findings


def _findings(before: RunResult | DiffResult, after: RunResult | DiffResult) -> tuple[FindingChange, ...]:
    """Those that came, fatal ones first, then those that went, then those that stayed."""
    old = {_identity(one): one for one in reversed(before.findings)}
    new = {_identity(one): one for one in reversed(after.findings)}
    came = [_finding(one, None) for key, one in reversed(new.items()) if key not in old]
    went = [_finding(None, one) for key, one in reversed(old.items()) if key not in new]
    stayed = [_finding(one, old[key]) for key, one in reversed(new.items()) if key in old]
    return (*sorted(came, key=lambda one: not one.fatal), *sorted(went, key=lambda one: not one.fatal), *stayed)


def _identity(one: RunFinding | Finding) -> tuple[str, str | None, str | None, str | None]:
    """What it is about. Names of layers change with the fusion: they tell findings apart only where nothing else does."""
    layer = getattr(one, "layer", None) if one.tensor is None and one.node is None else None
    return (one.kind, one.tensor, one.node, layer)


def _finding(after: RunFinding | Finding | None, before: RunFinding | Finding | None) -> FindingChange:
    one = after or before
    assert one is not None
    return FindingChange(
        "only_before" if after is None else "only_after" if before is None else "same", one.kind, one.message, one.fatal,
        before is not None and before.fatal, one.tensor, one.node,
    )  # fmt: skip


# --- two searches


def _searches(before: FindResult, after: FindResult, worse_factor: float, names: tuple[str, str]) -> RegressionResult:
    sides = (side_of(before, names[0]), side_of(after, names[1]))
    old, new = ({one.tensor or one.layer: None for one in side.keep} for side in (before, after))
    kept = tuple(
        KeptChange(name, "only_before" if name not in new else "only_after" if name not in old else "same")
        for name in dict.fromkeys((*new, *old))
    )
    reasons: list[str] = []
    if before and not after:
        reasons.append(f"the search went from {_word_of(before)} to {_word_of(after)}: {after.reason}")
    elif before and len(new) > len(old):
        reasons.append(f"{len(new)} must stay FP32, {len(old)} before")
    return RegressionResult(
        verdict="failed" if reasons else "passed",
        reasons=tuple(reasons),
        before=names[0],
        after=names[1],
        verdict_before=sides[0].verdict,
        verdict_after=sides[1].verdict,
        changes=(),
        worse_factor=worse_factor,
        noise=NOISE,
        kept=kept,
        settings=differing(*sides),
        warnings=warnings_of(*sides),
        sides=sides,
    )


def _word_of(result: FindResult) -> str:
    return result.status.replace("_", " ")
