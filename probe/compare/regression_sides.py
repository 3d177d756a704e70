"""Whether two results can be compared at all: what each was made from, what differs in that, and what should not."""

from __future__ import annotations

from collections.abc import Sequence

from probe.results.diff import DiffResult, Verdict
from probe.results.find import FindResult
from probe.results.regression import ResultSide, SettingChange
from probe.results.run import RunResult

SavedResult = RunResult | DiffResult | FindResult

_SETTINGS = ("precision", "device", "passes", "fusion", "interior")
_KEPT = "kept in FP32"
_NAMED = 4  # names that a sentence lists


def side_of(result: SavedResult, path: str) -> ResultSide:
    """What a result says of itself."""
    match result:
        case RunResult():
            source = result.golden.source
            golden = (source.runner or source.kind) if result.golden.kind == "file" else result.golden.kind
            return ResultSide(
                path, result.schema, result.verdict, result.model, result.model_sha256, result.precision, result.device, result.passes,
                result.fusion, result.interior, golden, result.acceptance, result.inputs, result.keep, len(result.layers),
                result.environment, result.command,
            )  # fmt: skip
        case DiffResult():
            one, other = result.actual, result.golden
            return ResultSide(
                path, result.schema, result.verdict, one.model or other.model, other.model_sha256 or one.model_sha256, one.precision,
                one.runner, golden=other.runner or other.kind, acceptance=result.acceptance, inputs=other.inputs or one.inputs,
                environment=result.environment, command=result.command,
            )  # fmt: skip
        case FindResult():
            verdict: Verdict = "passed" if result else "failed"
            golden = (result.golden.runner or result.golden.kind) if result.golden is not None else ""
            return ResultSide(
                path, result.schema, verdict, result.model, result.model_sha256, result.precision, result.device, result.passes,
                result.fusion, result.interior, golden, result.acceptance, result.inputs, environment=result.environment, command=result.command,
            )  # fmt: skip


def differing(before: ResultSide, after: ResultSide) -> tuple[SettingChange, ...]:
    """Settings that are not the same: what may explain a change. What one side does not say is not compared."""
    pairs = [(name, getattr(before, name), getattr(after, name)) for name in _SETTINGS]
    pairs.append((_KEPT, _named(before.keep), _named(after.keep)))
    pairs.append(("warns", _limits(before, "warn"), _limits(after, "warn")))
    versions = dict.fromkeys((*before.environment, *after.environment))
    pairs += [(name, before.environment.get(name, ""), after.environment.get(name, "")) for name in versions]
    return tuple(
        SettingChange(name, old or "nothing", new or "nothing")
        for name, old, new in pairs
        if old != new and (name == _KEPT or (old and new))
    )


def warnings_of(before: ResultSide, after: ResultSide, apart: Sequence[str] = ()) -> tuple[str, ...]:
    """What makes the two incomparable in part, each as a sentence. ``apart``: tensors whose goldens have another range."""
    said: list[str] = []
    hashes = (before.model_sha256, after.model_sha256)
    if all(hashes) and hashes[0] != hashes[1]:
        said.append(
            f"the models are not the same ({hashes[0][:8]}, then {hashes[1][:8]}): each was compared with its own golden"
        )
    old, new = (sorted(one.sha256 for one in side.inputs) for side in (before, after))
    if old and new and old != new:
        shared = len(set(old) & set(new))
        common = f"{shared} in common" if shared else "none in common"
        said.append(f"the inputs are not the same: {len(old)}, then {len(new)}, {common}")
    if before.golden and after.golden and before.golden != after.golden:
        said.append(f"the goldens were made differently: {before.golden}, then {after.golden}")
    if apart:
        more = f" and {len(apart) - _NAMED} more" if len(apart) > _NAMED else ""
        said.append(f"the goldens are not the same numbers: the range differs of {', '.join(apart[:_NAMED])}{more}")
    if _limits(before, "fail") != _limits(after, "fail"):
        said.append(f"judged by other limits: {_limits(before, 'fail')}, then {_limits(after, 'fail')}")
    if before.schema != after.schema:
        said.append(f"one is a {before.schema}, the other a {after.schema}")
    return tuple(said)


def _limits(side: ResultSide, level: str) -> str:
    shown = [str(one) for one in side.acceptance if one.level == level]
    return (" and ".join(shown[:_NAMED]) + (" ..." if len(shown) > _NAMED else "")) or "none"


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
