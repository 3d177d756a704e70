"""What fusing says: groups of nodes that become one layer, and the fusions that were refused, with reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from probe import ir
from probe.engine.fusion.kinds import Kind

Level = Literal["none", "safe", "full"]
LEVELS: tuple[Level, ...] = ("none", "safe", "full")


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Nodes of one graph to compute together.

    Attributes:
        pattern: the fusion that found it, from its parts: ``conv + bias + relu``, ``layer_norm``, ``pointwise(mul, add)``.
        kind: what a device may compute it as.
        nodes: in topological order.
        graph: the graph that holds them.
    """

    pattern: str
    kind: Kind
    nodes: tuple[ir.Node, ...]
    graph: ir.Graph

    def __repr__(self) -> str:
        return f"Group({self.pattern!r}, {[node.name for node in self.nodes]})"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A fusion whose pattern was there and that was not made."""

    pattern: str
    nodes: tuple[str, ...]  # identities of the ONNX nodes it would have joined, in topological order
    reason: str


@dataclass(frozen=True, slots=True)
class Grouping:
    """How the nodes of a network are fused; nodes in no group stay alone."""

    groups: tuple[Group, ...]
    refusals: tuple[Refusal, ...]
    in_place: tuple[ir.Node, ...] = ()  # Concat nodes whose inputs are written where their output lies
