"""A more accurate tactic before FP32: where a network runs with other tactics than exact, what switching some of them back cures, and what it takes.

For ``find`` with chosen tactics, in three steps (``TacticCure.status`` says where it stands):

1. ``cure_by_tactics(...)`` before the search. ``found``: these switches are the answer, nothing need stay FP32.
2. ``not_enough``: search tensors as always, over ``accurate``, every layer at its most accurate tactic.
3. ``cure_by_tactics(..., kept=assignment of that answer)``: gives fast tactics back wherever the answer passes with them.

Every layer that runs in FP32 because of a kept tensor or layer takes a tactic that exists there: ``legal``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from probe.culprits.oracle import measured
from probe.engine import tactics
from probe.engine.assignment import EXACT, Assignment
from probe.engine.tuning.context import chosen_layers, runs_in
from probe.engine.tuning.selector import error_class
from probe.search.find import Options
from probe.search.find import find as search
from probe.search.oracle import Evaluation
from probe.search.units import Unit

if TYPE_CHECKING:
    from probe.culprits.oracle import EngineOracle
    from probe.engine.engine import Engine
    from probe.engine.layers import Layer
    from probe.search.minimal_set import Certificate
    from probe.search.result import SearchResult

Times = Mapping[tuple[str, str], float]  # (layer, tactic) -> microseconds


@dataclass(frozen=True, slots=True)
class Switch:
    """One layer with a more accurate tactic.

    Attributes:
        cost_us: what it takes longer, negative where it is faster; None: not measured.
    """

    layer: str
    before: str
    after: str
    cost_us: float | None


@dataclass(frozen=True, slots=True)
class TacticCure:
    """What more accurate tactics cure.

    Attributes:
        status: ``nothing_needed``: it passes as it is. ``found``: with ``switches`` it passes, and without any one of them it fails.
            ``not_enough``: even with every layer at its most accurate tactic it fails. ``open``: the search ended early or its oracle
            contradicted itself; ``switches`` is the best passing set, if one is known.
        assignment: with the switches; where they are not enough, ``accurate``.
        accurate: every layer at its most accurate tactic.
        certificates: the failing evaluation of each switch left out.
        cost_us: of all switches; None: one was not measured.
        search: None where there was nothing to switch.
    """

    status: Literal["nothing_needed", "found", "not_enough", "open"]
    switches: tuple[Switch, ...]
    assignment: Assignment
    accurate: Assignment
    certificates: tuple[Certificate, ...] = ()
    evaluations: Mapping[str, int] | None = None
    search: SearchResult | None = None

    def __bool__(self) -> bool:
        return self.status in ("nothing_needed", "found")

    @property
    def cost_us(self) -> float | None:
        costs = [one.cost_us for one in self.switches]
        return math.fsum(one for one in costs if one is not None) if None not in costs else None


def cure_by_tactics(
    engine: Engine,
    base: Assignment,
    oracle: EngineOracle,
    *,
    kept: Assignment | None = None,
    times: Times | None = None,
    objective: Literal["count", "cost"] = "count",
    scores: Mapping[str, float] | None = None,
    max_evaluations: int | None = None,
    max_seconds: float | None = None,
) -> TacticCure:
    """Find layers of which a more accurate tactic makes the network pass, and none of which can be left out.

    Args:
        base: the assignment that fails, with its tactics.
        oracle: runs assignments on all inputs and judges them; its base and space are not looked at.
        kept: what stays FP32 on top: its ``kept`` tensors, and its layers in FP32.
        times: measured; with them switches have a cost, which ``objective="cost"`` keeps small.
        scores: layer -> how suspect its tactic is, a measured local error; by what tactics promise where it is not given.
        max_evaluations, max_seconds: budget.

    Raises:
        InputError: what ``oracle`` raises.
    """
    start = legal(engine, _with_kept(base, kept))
    switches = possible_switches(engine, start, times)
    accurate = start.with_tactics({one.layer: one.after for one in switches})
    if not switches:
        status = "nothing_needed" if oracle.evaluate(start).passed else "not_enough"
        return TacticCure(status, (), start, accurate)
    by_layer = {one.layer: one for one in switches}
    units = [_unit(one, start.of(one.layer).precision, scores or {}) for one in switches]

    def ask(members: frozenset[str], /) -> Evaluation:
        judged = oracle.evaluate(start.with_tactics({name: by_layer[name].after for name in members}))
        return Evaluation(judged.passed, judged.margin, measured(judged))

    options = Options(objective=objective, reruns=1, max_evaluations=max_evaluations, max_seconds=max_seconds)
    result = search(units, ask, options)
    chosen = tuple(one for one in switches if one.layer in result.members)
    words: dict[str, Literal["nothing_needed", "found", "not_enough"]] = {
        "nothing_needed": "nothing_needed", "found": "found", "unreachable": "not_enough",
    }  # fmt: skip
    assignment = start.with_tactics({one.layer: one.after for one in chosen})
    return TacticCure(
        words.get(result.status, "open"), chosen, accurate if result.status == "unreachable" else assignment, accurate,
        result.certificates, dict(result.evaluations), result,
    )  # fmt: skip


def possible_switches(engine: Engine, base: Assignment, times: Times | None = None) -> list[Switch]:
    """Layers whose tactic promises more error than another that exists for them, each with the most accurate such one: of equally accurate
    ones exact, if it is among them, else the fastest. In execution order."""
    found = []
    for layer in chosen_layers(engine):
        choice = base.of(layer.name)
        if choice.tactic == EXACT:
            continue
        best = _most_accurate(layer, engine, choice.precision, times)
        if error_class(choice.tactic, choice.precision) > error_class(best, choice.precision):
            found.append(Switch(layer.name, choice.tactic, best, _cost(layer.name, choice.tactic, best, times)))
    return found


def legal(engine: Engine, assignment: Assignment) -> Assignment:
    """An assignment in which no layer has a tactic that does not exist for its precision: a layer that a kept tensor makes run in FP32, or
    that was lifted to it, takes ``exact`` where its own does not exist there."""
    changed: dict[str, str] = {}
    for layer in engine.layers:
        choice = assignment.of(layer.name)
        if choice.tactic == EXACT:
            continue
        precisions = runs_in(layer, choice.precision, assignment.kept)
        if any(tactics.supports(layer, one, choice.tactic) is not None for one in precisions):
            changed[layer.name] = EXACT
    return assignment.with_tactics(changed) if changed else assignment


def _with_kept(base: Assignment, kept: Assignment | None) -> Assignment:
    """``base`` with what another assignment has in FP32; lifted layers are exact."""
    if kept is None:
        return base
    lifted = [name for name, choice in kept.layers.items() if choice.precision == "fp32"]
    return base.keeping(layers=lifted, tensors=kept.kept)


def _most_accurate(layer: Layer, engine: Engine, precision: str, times: Times | None) -> str:
    def rank(tactic: str) -> tuple[int, bool, float]:
        time = (times or {}).get((layer.name, tactic), math.inf)
        return error_class(tactic, precision), tactic != EXACT, time

    names: Sequence[str] = [
        one
        for one in tactics.candidates(layer, precision)
        if engine.device.supports(layer, precision, one) is None
    ]  # fmt: skip
    return min(names, key=rank)


def _cost(layer: str, before: str, after: str, times: Times | None) -> float | None:
    known = [(times or {}).get((layer, tactic)) for tactic in (before, after)]
    return None if known[0] is None or known[1] is None else known[1] - known[0]


def _unit(one: Switch, precision: str, scores: Mapping[str, float]) -> Unit:
    promised = float(error_class(one.before, precision) - error_class(one.after, precision))
    score = scores.get(one.layer, promised)
    cost = 1.0 if one.cost_us is None else max(0.0, one.cost_us)
    return Unit(one.layer, frozenset({one.layer}), cost, score=score, flagged=math.isinf(score))
