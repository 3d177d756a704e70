"""``choose``: asks selectors which tactic each layer runs. Candidates are measured on the activations that the inputs make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from probe.engine.assignment import FP32, Assignment, Choice
from probe.engine.tuning.context import Candidate, LayerContext, candidates_of, chosen_layers, context_of, on_one_line
from probe.engine.tuning.selector import Allow, Begins, Deny, Fastest, Names, PreferDeterministic, Selector
from probe.engine.tuning.together import Together
from probe.engine.tuning.whole import settle
from probe.errors import InputError

if TYPE_CHECKING:
    from probe.engine.engine import Engine
    from probe.engine.layers import Layer
    from probe.engine.tuning.timing import Timings

_FASTEST = (Allow, Deny, PreferDeterministic)  # selectors that leave the fastest of what they allow
_SHOWN = 12  # layers that an error describes one by one


@dataclass(frozen=True, slots=True)
class Chosen:
    """What came of one layer.

    Attributes:
        candidate: the one taken.
        candidates: all there were, the fastest first; those that were not measured in the order declared.
        refused: tactic -> name of the selector that did not allow it, or what was found wrong with it.
    """

    context: LayerContext
    candidate: Candidate
    candidates: tuple[Candidate, ...]
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Choices:
    """The tactic of every layer that computes, by layer name, in execution order."""

    layers: Mapping[str, Chosen]

    def __getitem__(self, layer: str) -> Chosen:
        return self.layers[layer]

    def __iter__(self) -> Iterator[Chosen]:
        return iter(self.layers.values())

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def tactics(self) -> dict[str, str]:
        """Layer name -> tactic."""
        return {name: one.candidate.tactic for name, one in self.layers.items()}

    def assignment(self, base: Assignment) -> Assignment:
        """``base`` with these tactics; layers whose tactic it has already stay as they are there."""
        changed = {name: tactic for name, tactic in self.tactics.items() if base.of(name).tactic != tactic}
        return base.with_tactics(changed)


def choose(
    engine: Engine,
    inputs: Mapping[str, Any],
    selectors: Sequence[Selector] = (),
    *,
    timings: Timings | None = None,
    precision: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Choices:
    """Choose a tactic for every layer that computes.

    The network runs once in FP32, for shapes; where times are asked for, layers with several candidates are measured on the activations
    of that run. Then the selectors are asked: each sees the candidates that those before it left, first of all ``Fastest``; on a device that
    measures by itself ``Together``, which also counts what turning images between layers costs. Where none wants anything but the fastest, what comes
    of it is then timed on the whole network (``settle``).

    Args:
        inputs: of one inference, by name.
        selectors: in the order they are asked; none: the fastest is taken, and without ``timings`` the first, which is exact.
        timings: measured times; missing ones are measured and added. None: nothing is measured.
        precision: of every layer; None: as in ``engine.assignment``, where layers may be kept in FP32.
        progress: called with the name of each layer before it is measured.

    Raises:
        InputError: layers for which nothing is left, each with its candidates and who refused them; a selector that takes what it was not
            offered; inputs that do not fit; the network does not run in FP32.
    """
    base = engine.assignment if precision is None else Assignment(Choice(precision))
    shapes = shapes_of(engine, inputs)
    problems = _problems(engine, shapes, base, selectors)
    if timings is not None:
        wanted = [(one.layer, one.context, one.candidates) for one in problems if len(one.candidates) > 1]
        times = timings.measure(engine, inputs, wanted, shapes=shapes, progress=progress)
        problems = [
            replace(one, candidates=tuple(times.get((one.context.layer, c.tactic), c) for c in one.candidates))
            for one in problems
        ]
    first = Fastest()
    if timings is not None and engine.tuner is not None:
        first = Together(engine, engine.tuner, shapes, base, timings.turning(engine.tuner), selectors)
    asked = (first, *selectors)
    choices = _select(problems, asked)
    if timings is not None and engine.tuner is not None and all(isinstance(one, _FASTEST) for one in selectors):
        choices = settle(engine, inputs, choices, base, timings, progress)
    for one in choices:
        for selector in asked:
            selector.chosen(one.context, one.candidate)
    return choices


@dataclass(frozen=True, slots=True)
class Problem:
    """A layer with its candidates."""

    layer: Layer
    context: LayerContext
    candidates: tuple[Candidate, ...]


def problems_of(engine: Engine, inputs: Mapping[str, Any], base: Assignment | None = None) -> tuple[Problem, ...]:
    """Every layer that computes with its candidates, not measured. The network runs once in FP32, for shapes.

    Args:
        base: precisions; the engine's own assignment when left out.

    Raises:
        InputError: inputs that do not fit, or the network does not run in FP32.
    """
    return tuple(_problems(engine, shapes_of(engine, inputs), base or engine.assignment))


def shapes_of(engine: Engine, inputs: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Of all tensors, by name, from one run in FP32.

    Raises:
        InputError: inputs that do not fit, or the network does not run in FP32.
    """
    shapes = {name: tuple(getattr(value, "shape", ())) for name, value in inputs.items()}

    def tap(tapped: Any) -> None:
        if tapped.array is not None:
            shapes[tapped.name] = tuple(tapped.array.shape)

    engine.run(inputs, Assignment(FP32), tap)
    return shapes


def _problems(
    engine: Engine, shapes: Mapping[str, tuple[int, ...]], base: Assignment, selectors: Sequence[Selector] = ()
) -> list[Problem]:
    found = []
    for layer in chosen_layers(engine):
        precision = base.of(layer.name).precision
        context = context_of(layer, precision, shapes)
        named = [name for one in selectors if isinstance(one, Names) for name in one.named(context)]
        found.append(Problem(layer, context, candidates_of(engine, layer, precision, shapes, base.kept, named)))
    return found


# --- asking ----------------------------------------------------------------------------------------------------------


def _select(problems: Sequence[Problem], selectors: Sequence[Selector]) -> Choices:
    for selector in selectors:
        if isinstance(selector, Begins):
            selector.begin([(one.context, one.candidates) for one in problems])
    decided: dict[str, Chosen] = {}
    failures: list[InputError] = []
    for problem in problems:
        try:
            decided[problem.context.layer] = _ask(problem, selectors)
        except InputError as error:
            failures.append(error)
    if failures:
        hint = next((one.hint for one in failures if one.hint), "allow more, or deny less")
        raise InputError(_together([on_one_line(one.what) for one in failures]), hint=hint)
    return Choices(decided)


def _ask(problem: Problem, selectors: Sequence[Selector]) -> Chosen:
    """One layer.

    Raises:
        InputError: nothing is left of it.
    """
    wrong = [one for one in problem.candidates if one.wrong]
    refused: dict[str, str] = {one.tactic: f"the check against exact: {one.wrong}" for one in wrong}
    left: Sequence[Candidate] = [one for one in problem.candidates if not one.wrong]
    ordered = problem.candidates
    for at, selector in enumerate(selectors):
        allowed = list(selector.select(problem.context, tuple(left)))
        foreign = [one.tactic for one in allowed if one not in left]
        if foreign:
            raise InputError(
                f"layer {problem.context.layer}: {selector.name} takes {', '.join(foreign)}, which it was not offered"
            )
        names = {one.tactic for one in allowed}
        refused |= {one.tactic: selector.name for one in left if one.tactic not in names}
        left = list(dict.fromkeys(allowed))
        if at == 0:
            ordered = (*left, *wrong)
    if not left:
        told = "; ".join(f"{one.tactic} refused by {refused[one.tactic]}" for one in ordered) or "it has no candidates"
        raise InputError(f"layer {problem.context.layer}: no tactic is left: {told}")
    return Chosen(problem.context, left[0], ordered, refused)


def _together(failures: Sequence[str]) -> str:
    if len(failures) == 1:
        return failures[0]
    lines = [f"  {one}" for one in failures[:_SHOWN]]
    lines += [f"  and {len(failures) - _SHOWN} more layers"] if len(failures) > _SHOWN else []
    return "\n".join([f"no tactic can be chosen for {len(failures)} layers", *lines])
