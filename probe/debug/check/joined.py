"""From hits to findings: the same on several inputs joined, the same in repeated blocks grouped, the worst first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from probe.debug.check.hits import Hit
from probe.results.check import CheckFinding, CheckVerdict, Level

_RANKS: dict[Level, int] = {"error": 0, "warning": 1, "lint": 2}


class Joined:
    """Hits of one input after the other."""

    def __init__(self) -> None:
        self._worst: dict[tuple[str, str], Hit] = {}

    def level(self, hit: Hit) -> Level | None:
        """The level that the same has on an earlier input; None where it was not noticed."""
        known = self._worst.get(hit.key)
        return known.level if known is not None else None

    def add(self, hit: Hit) -> None:
        """Take a settled hit; of the same on several inputs the worst stays, and knows how many they are."""
        known = self._worst.get(hit.key)
        if known is None:
            self._worst[hit.key] = hit
        elif known.input_id == hit.input_id:  # two suspicions about one tensor
            self._worst[hit.key] = min(known, hit, key=_badness)
        else:
            worst = min(known, hit, key=_badness)
            worst.inputs = known.inputs + 1
            self._worst[hit.key] = worst

    def findings(self) -> tuple[CheckFinding, ...]:
        """Errors, then warnings, then lint, each in execution order of the first of a group."""
        hits = _without_repetition(list(self._worst.values()))
        groups: dict[tuple[str, str, str], list[Hit]] = {}
        for hit in sorted(hits, key=lambda one: one.position):
            alone = hit.alike or f"{hit.tensor} {hit.node}"
            groups.setdefault((hit.rule, hit.level, alone), []).append(hit)
        ordered = sorted(groups.values(), key=lambda group: (_RANKS[group[0].level], group[0].position))
        return tuple(_finding(group) for group in ordered)


def verdict_of(findings: Iterable[CheckFinding]) -> CheckVerdict:
    """``errors`` or ``warnings`` where there is one of that level; lint alone is ``clean``."""
    levels = {one.level for one in findings}
    return "errors" if "error" in levels else "warnings" if "warning" in levels else "clean"


def _badness(hit: Hit) -> tuple[int, float, float]:
    """To sort the worst first."""
    return _RANKS[hit.level], -(hit.output_error or 0.0), -hit.severity


def _without_repetition(hits: Sequence[Hit]) -> list[Hit]:
    """Where a pole reads what is too small, that says it all: also for the tensor as such, and the constant that should have kept it away."""
    poles = [hit for hit in hits if hit.rule == "pole"]
    said = {("underflow", hit.tensor) for hit in poles} | {
        ("constant_vanishes", name) for hit in poles for name in hit.keep[1:]
    }
    return [hit for hit in hits if (hit.rule, hit.tensor) not in said]


def _finding(group: Sequence[Hit]) -> CheckFinding:
    hit = min(group, key=_badness)
    others = [one for one in group if one is not hit]
    known = hit.range
    return CheckFinding(
        rule=hit.rule, level=hit.level, message=hit.message, tensor=hit.tensor, node=hit.node, op=hit.op,
        low=known.low if known is not None else None, high=known.high if known is not None else None,
        absmax=known.absmax if known is not None else None,
        margin=hit.margin if hit.margin is None or math.isfinite(hit.margin) else None,
        input_id=hit.input_id, inputs=hit.inputs if hit.input_id else 0, index=hit.index, elements=hit.elements,
        downstream=hit.downstream, output=hit.output, output_error=hit.output_error, cure=hit.cure,
        keep=tuple(dict.fromkeys(name for one in (hit, *others) for name in one.keep)),
        like=tuple(dict.fromkeys(one.tensor or one.node or "" for one in others)),
    )  # fmt: skip
