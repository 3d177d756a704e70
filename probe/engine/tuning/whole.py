"""``settle``: what was chosen layer by layer is timed on the whole network; what makes that slower is ``exact`` again."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from probe.engine.assignment import EXACT, Assignment
from probe.engine.device.protocol import Tunes
from probe.errors import InputError

if TYPE_CHECKING:
    from probe.engine.engine import Engine
    from probe.engine.tuning.choose import Choices, Chosen
    from probe.engine.tuning.timing import Timings

_NOISE = 0.997  # of the time: less faster than that says nothing
_WORTH = 0.995  # of exact's time that all tactics together must reach
SLOWER = "the whole network, which is no faster with it"

Group = tuple[str, str]  # problem and tactic


def settle(
    engine: Engine,
    inputs: Mapping[str, Any],
    choices: Choices,
    base: Assignment,
    timings: Timings,
    progress: Callable[[str], None] | None = None,
) -> Choices:
    """Times of layers by themselves do not know how their neighbours hand tensors over: lying in another order, or computed together.

    All tactics that were taken instead of ``exact`` are put back, one problem's at a time, and stay back where the network is faster so; all
    of them, where together they bring less than half a percent. So what comes back is not slower than ``exact``. Layers for which exact was
    refused stay as they are. Times are kept with the others, so that the same file chooses the same.

    Args:
        base: precisions.

    Returns:
        ``choices`` as they are on devices that do not measure by themselves, and where nothing can be timed.
    """
    device = engine.device
    groups: dict[Group, list[str]] = {}
    for name, one in choices.layers.items():
        if one.candidate.tactic != EXACT and _exact(one) is not None:
            groups.setdefault((one.context.problem, one.candidate.tactic), []).append(name)
    if not groups or not isinstance(device, Tunes):
        return choices
    feeds, problem, told = engine.feeds(inputs), _problem(engine, choices, base), 0

    def seconds(kept: Sequence[Group]) -> float:
        nonlocal told
        told += 1
        if progress is not None:
            progress(f"the whole network, {told} of {len(groups) + 2}")
        tried = _without(choices, groups, kept)

        def measured() -> float:
            return device.whole(feeds, engine.plans(tried.assignment(base)))

        try:
            return timings.whole(problem, _name(tried), measured)
        except InputError:  # a tactic that does not compute what its neighbours hand over
            return math.inf

    left: list[Group] = list(groups)
    best = seconds(left)
    for group in groups:
        without = [one for one in left if one != group]
        if without and (time := seconds(without)) < best * _NOISE:
            left, best = without, time
    plain = seconds(())
    if math.isinf(plain):
        return choices
    return _without(choices, groups, left if best < plain * _WORTH else ())


def _exact(one: Chosen) -> Any:
    """The candidate ``exact``; None where somebody refused it."""
    return next((c for c in one.candidates if c.tactic == EXACT and not c.wrong and EXACT not in one.refused), None)


def _without(choices: Choices, groups: Mapping[Group, Iterable[str]], kept: Sequence[Group]) -> Choices:
    """``choices`` with exact in the layers of all groups but some."""
    layers = dict(choices.layers)
    for group, names in groups.items():
        for name in () if group in kept else names:
            one = layers[name]
            layers[name] = replace(one, candidate=_exact(one), refused={**one.refused, group[1]: SLOWER})
    return replace(choices, layers=layers)


def _problem(engine: Engine, choices: Choices, base: Assignment) -> str:
    """A network as times of it are kept under: its model, how it was compiled, and all that its layers compute."""
    told = (engine.model.sha256, engine.settings, sorted(base.kept), *(one.context.problem for one in choices))
    digest = hashlib.sha256("\n".join(map(str, told)).encode()).hexdigest()
    return f"network of {len(engine.layers)} layers {digest[:16]}"


def _name(choices: Choices) -> str:
    """Of all tactics together."""
    others = [f"{name} {tactic}" for name, tactic in choices.tactics.items() if tactic != EXACT]
    digest = hashlib.sha256("\n".join(others).encode()).hexdigest()
    return f"{len(others)} not exact {digest[:16]}" if others else EXACT
