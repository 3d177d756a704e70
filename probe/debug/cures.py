"""Which causes an output really suffers from, found by experiment: the run repeated with some of them cured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from probe.results.diff import TensorDiff, Verdict
from probe.results.run import CureTried, RunFinding


@dataclass(frozen=True, slots=True)
class Judged:
    """A run without taps, judged. ``outputs`` is empty when it stopped before any was made."""

    verdict: Verdict
    reasons: tuple[str, ...]
    outputs: tuple[TensorDiff, ...] = ()


Trial = Callable[[tuple[str, ...]], Judged]  # tensors kept in FP32 -> a run with them


def weigh(findings: Sequence[RunFinding], trial: Trial) -> tuple[list[RunFinding], CureTried | None]:
    """Findings with ``fatal`` decided by runs, and what keeping the tensors of the fatal ones gives. For a run that failed.

    With all causes cured the run must pass, else nothing can be told and the findings stay as they are. Then each is left uncured
    alone: fatal is what fails an output by itself. Where only several together do, those that were followed to an output stay fatal.
    """
    curable = [f for f in findings if f.keep]
    if not curable:
        return list(findings), None
    everything = _together(curable)
    judged = trial(everything)
    if judged.verdict == "failed":
        return list(findings), CureTried(everything, judged.verdict, judged.reasons)
    if len(curable) == 1:
        return [replace(f, fatal=True) if f.keep else f for f in findings], _tried(everything, judged)
    alone = {id(f): trial(_without(everything, f.keep)).verdict == "failed" for f in curable}
    weighed = [replace(f, fatal=alone[id(f)]) if f.keep else f for f in findings]
    keep = _together(f for f in weighed if f.fatal)
    if keep and keep != everything:
        fewer = trial(keep)
        if fewer.verdict != "failed":
            return weighed, _tried(keep, fewer)
    return (weighed if keep == everything else list(findings)), _tried(everything, judged)


def _together(findings: Iterable[RunFinding]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for f in findings for name in f.keep))


def _without(names: Sequence[str], removed: Iterable[str]) -> tuple[str, ...]:
    gone = set(removed)
    return tuple(name for name in names if name not in gone)


def _tried(keep: tuple[str, ...], judged: Judged) -> CureTried:
    return CureTried(keep, judged.verdict, judged.reasons)
