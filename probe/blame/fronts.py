"""Accuracy against speed: which candidates nothing beats in both, and networks between the most accurate and the fastest. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from probe.results.blame import ALIKE, MeasuredTactic, TacticsOfLayer


@dataclass(frozen=True, slots=True)
class Point:
    """A tactic for every layer.

    Attributes:
        tactics: layer -> tactic.
        layers_us: sum of the times measured.
    """

    words: str
    tactics: dict[str, str]
    layers_us: float | None


def dominated(one: MeasuredTactic, others: Sequence[MeasuredTactic]) -> bool:
    """Whether another candidate is as fast and as accurate, errors within ``ALIKE`` being the same, and better in one of both. What was not
    measured is on no front."""
    if one.median_us is None or one.rms is None:
        return True
    return any(
        other.median_us <= one.median_us
        and other.rms <= ALIKE * one.rms
        and (other.median_us < one.median_us or ALIKE * other.rms < one.rms)
        for other in others
        if other.median_us is not None and other.rms is not None
    )


def network_points(layers: Sequence[TacticsOfLayer], most: int) -> list[Point]:
    """Networks from the most accurate to the fastest, at most ``most`` of them.

    Begins with the most accurate candidate of each layer. Steps to faster ones along the fronts of the layers are ordered by what they save
    for the error power they add, the best bargain first, and the order is cut into equal parts. Only sums are modelled: what a point is worth
    an evaluation says.
    """
    fronts = {one.layer: _front(one) for one in layers}
    fronts = {name: front for name, front in fronts.items() if front}
    if not fronts:
        return []
    now = {name: front[0] for name, front in fronts.items()}
    steps: list[tuple[float, int, str, MeasuredTactic]] = []
    for at, (name, front) in enumerate(fronts.items()):
        bargain = math.inf
        for before, after in pairwise(front):
            # Along one front the steps must be taken in order, so a step is no better a bargain than the one before it.
            bargain = min(bargain, _bargain(before, after))
            steps.append((-bargain, at, name, after))
    steps.sort(key=lambda step: step[:2])
    cuts = sorted({round(part * len(steps) / (most - 1)) for part in range(most)}) if steps else [0]
    points = []
    for at in range(len(steps) + 1):
        if at:
            now[steps[at - 1][2]] = steps[at - 1][3]
        if at in cuts:
            words = (
                "most accurate" if at == 0 else "fastest" if at == len(steps) else f"{at} of {len(steps)} steps faster"
            )
            total = math.fsum(one.median_us or 0.0 for one in now.values())
            points.append(Point(words, {name: one.tactic for name, one in now.items()}, total))
    return points


def _front(layer: TacticsOfLayer) -> list[MeasuredTactic]:
    """From the most accurate to the fastest: on a front the slower one is clearly the more accurate."""
    return sorted(
        (one for one in layer.candidates if one.front), key=lambda one: (-(one.median_us or 0.0), one.rms or 0.0)
    )


def _bargain(before: MeasuredTactic, after: MeasuredTactic) -> float:
    """Microseconds saved for error power added; what makes NaN or Inf is no bargain."""
    assert before.median_us is not None and after.median_us is not None
    assert before.rms is not None and after.rms is not None
    added = after.rms**2 - before.rms**2
    if not math.isfinite(added):
        return 0.0
    return (before.median_us - after.median_us) / added if added > 0 else math.inf
