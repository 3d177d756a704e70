"""In which order units are suspected: by scores given from outside, or by what single-unit probes measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from probe.errors import InputError
from probe.search.units import Unit

Objective = Literal["count", "cost"]
OBJECTIVES: tuple[Objective, ...] = ("count", "cost")


def score(local_error: float, gain: float = 1.0) -> float:
    """First-order estimate of what a unit adds to the error of the outputs: its local error times the gain on the way there.

    Args:
        local_error: noise-to-signal ratio of the unit by itself on golden inputs, a ratio of amplitudes.
        gain: factor by which what follows the unit multiplies that ratio; 1 where it is not known.

    Returns:
        The product. Inf where a factor is NaN: a unit that cannot be judged by itself is suspect.
    """
    product = abs(local_error) * abs(gain)
    return math.inf if math.isnan(product) else product


def weight(unit: Unit, objective: Objective) -> float:
    """What keeping a unit adds to the objective: 1, or its cost."""
    return unit.cost if objective == "cost" else 1.0


def worth(effect: float, unit: Unit, objective: Objective) -> float:
    """Error that keeping a unit saves, per weight. What costs nothing is worth keeping at any effect."""
    if math.isnan(effect):
        return math.inf
    divisor = weight(unit, objective)
    return effect / divisor if divisor > 0 else math.inf


def rank(units: Sequence[Unit], objective: Objective = "count") -> list[str]:
    """Ids from most to least worth keeping: flagged units first, then by score (per cost). Ties keep the given order, the model's.

    Raises:
        InputError: an objective that does not exist.
    """
    if objective not in OBJECTIVES:
        raise InputError(f"unknown objective {objective!r}", hint=", ".join(OBJECTIVES))

    def key(unit: Unit) -> tuple[bool, float, float]:
        # Among flagged units of equal score, such as none, the cheap one is tried first.
        return not unit.flagged, -worth(unit.score, unit, objective), weight(unit, objective)

    return [unit.id for unit in sorted(units, key=key)]


def rank_by_effect(
    effects: Mapping[str, float],
    failing: frozenset[str],
    order: Sequence[str],
    units: Mapping[str, Unit],
    objective: Objective,
) -> list[str]:
    """Ids from most to least worth keeping by measurement.

    Args:
        effects: unit id -> margin lost by demoting it alone (or won by keeping it); Inf where that ended in NaN or Inf.
        failing: units whose demotion alone fails: before all others.
        order: the ranking so far; decides ties, and gives the ids.
    """

    def key(name: str) -> tuple[bool, float]:
        return name not in failing, -worth(effects[name], units[name], objective)

    return sorted(order, key=key)
