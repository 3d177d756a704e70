"""``Fusion``: one declared way to join nodes; ``Step``: what may follow it; ``Verdict``: whether a condition holds, or why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from probe import ir
from probe.engine.fusion.kinds import Kind
from probe.engine.fusion.pattern import Pattern


@dataclass(frozen=True, slots=True)
class Verdict:
    """True when a condition holds; the reason when it does not."""

    reason: str = ""

    def __bool__(self) -> bool:
        return not self.reason


yes = Verdict()


def no(reason: str) -> Verdict:
    """A condition does not hold, because."""
    return Verdict(reason)


@dataclass(frozen=True, slots=True)
class Match:
    """A pattern that fits, before its condition is asked.

    Attributes:
        bound: what the holes and lets of the pattern stand for.
        nodes: those matched, in the order of the graph.
        root: the last node.
        anchor: of a step, the node that its chain began with; of anything else the root.
        opset: version of the standard operators.
    """

    bound: Mapping[str, ir.Value]
    nodes: tuple[ir.Node, ...]
    root: ir.Node
    anchor: ir.Node
    opset: int

    def __getitem__(self, name: str) -> ir.Value:
        return self.bound[name]

    def all(self, *ops: str) -> tuple[ir.Node, ...]:
        """The matched nodes of these operators."""
        return tuple(node for node in self.nodes if node.op_type in ops)


Condition = Callable[[Match], Verdict]


def always(_: Match) -> Verdict:
    """The pattern says it all."""
    return yes


@dataclass(frozen=True, slots=True)
class Step:
    """What may follow in a chain. The hole ``y`` of its pattern is what the chain made so far; all readers of that must lie in the step.

    Attributes:
        passing: taken only if another step follows it; its refusals are not worth a word.
    """

    name: str
    pattern: Pattern
    when: Condition = always
    level: Literal["safe", "full"] = "safe"
    passing: bool = False


@dataclass(frozen=True, slots=True)
class Fusion:
    """One declared way to join nodes.

    Attributes:
        name: begins the name of the group.
        kind: of the group; None: the kind of the pattern's last node.
        pattern: what the last node computes.
        when: what the pattern cannot say.
        level: the lowest level that makes it.
        then: what may follow, each place in order: the first of its steps that fits is taken, or none.
        parts: names that come before ``name`` when the pattern matched a node of that operator: ``pad + conv``.
        alone: whether a single node is a group too, because its kind is not the operator's.
    """

    name: str
    kind: Kind | None
    pattern: Pattern
    when: Condition = always
    level: Literal["safe", "full"] = "safe"
    then: tuple[tuple[Step, ...], ...] = ()
    parts: tuple[tuple[str, str], ...] = ()
    alone: bool = False
