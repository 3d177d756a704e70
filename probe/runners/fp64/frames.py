"""The state of one running graph or body, and what walking it says."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from probe.model.scopes import Scope, Step
from probe.runners.fp64.calls import Value


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why a tensor cannot be handed out."""

    reason: str


@dataclass(frozen=True, slots=True)
class Made:
    """A tensor that was made; of a loop's body: all iterations stacked."""

    name: str  # recorded name
    value: Value | Unfit


@dataclass(frozen=True, slots=True)
class Idle:
    """A branch that is not taken."""

    body: Scope
    taken: Scope  # the other one: names both make are recorded there


Event = Made | Idle
Walk = Generator[Event, None, list[Value]]  # tells of tensors as they are made, returns outputs


@dataclass(slots=True)
class Frame:
    """Values of one scope while it runs. Names it does not have are its parent's.

    Attributes:
        returns: what is asked for at the end: of a body its outputs, of the network the weights and constants it returns, since
            everything else has been handed out by then.
    """

    scope: Scope
    opsets: Mapping[str, int]
    values: dict[str, Value]
    returns: Sequence[str]
    parent: Frame | None = None

    def inside(self, body: Scope, values: dict[str, Value]) -> Frame:
        """A frame for a body of one of this frame's nodes."""
        return Frame(body, self.opsets, values, body.outputs, self)

    def enclosing(self) -> Iterator[Frame]:
        """This frame, then the ones around it, innermost first."""
        frame: Frame | None = self
        while frame is not None:
            yield frame
            frame = frame.parent


class Walker(Protocol):
    """What control flow asks of the evaluator."""

    def walk(self, frame: Frame) -> Walk:
        """Run all nodes of a frame's scope."""
        ...

    def inputs(self, step: Step, frame: Frame) -> list[Value]:
        """Values of a node's inputs, None for omitted ones."""
        ...

    def shown(self, scope: Scope, name: str, /) -> str | None:
        """Recorded name of a tensor; None where nobody asked for it."""
        ...


def in_order(scope: Scope) -> Iterator[Step]:
    """All nodes of a scope and of the bodies below it as recordings list them: bodies before their owner, then-branches first."""
    for step in scope.steps:
        for body in sorted(step.bodies, key=lambda body: body.branch == "else_branch"):
            yield from in_order(body)
        yield step


def last_uses(scope: Scope, kept: Sequence[str]) -> list[tuple[str, ...]]:
    """For each node the names of its scope, besides ``kept``, that nobody reads after it."""
    last: dict[str, int] = dict.fromkeys(scope.inputs, 0)
    for index, step in enumerate(scope.steps):
        last.update(dict.fromkeys((*step.inputs, *step.captured, *step.outputs), index))
    drops: list[list[str]] = [[] for _ in scope.steps]
    for name, index in last.items():
        if name not in kept and (name in scope.producers or name in scope.inputs) and drops:
            drops[index].append(name)
    return [tuple(names) for names in drops]
