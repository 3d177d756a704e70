"""Finding declared fusions in one graph: patterns from the result backwards, chains from their beginning forwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from probe import ir
from probe.engine.fusion.grouping import LEVELS, Group, Level, Refusal
from probe.engine.fusion.kinds import Kind, kind_of
from probe.engine.fusion.pattern import Ground, State
from probe.engine.fusion.rule import Fusion, Match, Step, Verdict, no, yes
from probe.engine.network import origin

REGIONS = frozenset(("pointwise",))  # what is found by growing and not by a pattern


class Matcher:
    """The groups of one graph and what was refused in it."""

    def __init__(self, graph: ir.Graph, returned: Iterable[ir.Value], opset: int, level: Level) -> None:
        """
        Args:
            returned: what this graph or a body inside it returns: always read from outside.
        """
        self.graph = graph
        self.groups: list[Group] = []
        self._refused: dict[tuple[str, tuple[ir.Node, ...], str], None] = {}
        self.taken: set[ir.Node] = set()
        self._position = {node: at for at, node in enumerate(graph)}
        self._returned = {id(value) for value in returned}
        self._opset = opset
        self._level = LEVELS.index(level)
        self._reaches: dict[int, tuple[int, frozenset[str]]] = {}  # steps live as long as the program
        self._by_op: dict[str, list[ir.Node]] = {}
        for node in graph:
            self._by_op.setdefault(node.op_type, []).append(node)

    def apply(self, fusion: Fusion) -> None:
        """Make every group that a fusion finds among the nodes not taken yet."""
        if LEVELS.index(fusion.level) > self._level:
            return
        # A chain starts at its first node. Anything else is matched from its result: the last node first, or the part of a
        # normalisation before its scale and shift would be taken alone.
        for node in self._nodes(fusion.pattern.roots(), backwards=not fusion.then):
            if node not in self.taken:
                self._apply_at(fusion, node)

    def _nodes(self, ops: frozenset[str], *, backwards: bool) -> list[ir.Node]:
        found = [node for op in ops for node in self._by_op.get(op, ())]
        return sorted(found, key=self._position.__getitem__, reverse=backwards)

    def _apply_at(self, fusion: Fusion, node: ir.Node) -> None:
        ground = Ground(self.graph, self.taken)
        found = self._first(fusion.name, fusion, node.outputs[0], State(), ground, node)
        if found is None:
            return
        nodes, current, names = set(found.nodes), node, list[str]()
        whole, through = set(nodes), list[str]()  # up to the last step that is more than passing
        for place in fusion.then:
            taken = self._follow(fusion, place, current, node, nodes)
            if taken is not None:
                step, more = taken
                nodes |= set(more.nodes)
                current = more.root
                through.append(step.name)
                if not step.passing:
                    whole, names = set(nodes), list(through)
        nodes = whole
        if len(nodes) > 1 or fusion.alone:
            parts = [
                part for op, part in fusion.parts if any(one.op_type == op for one in found.nodes if one is not node)
            ]
            first = fusion.name if fusion.kind is not None else node.op_type.lower()
            self.add(" + ".join((*parts, first, *names)), fusion.kind or _kind(node), nodes)

    def _first(
        self,
        name: str,
        rule: Fusion | Step,
        value: ir.Value,
        state: State,
        ground: Ground,
        anchor: ir.Node,
        also: tuple[ir.Node, ...] = (),
    ) -> Match | None:
        """The first way in which a rule fits that nothing forbids. What forbade an earlier one is kept as one refusal."""
        for at, fit in enumerate(rule.pattern.match(value, state, ground)):
            root = value.producer()
            assert root is not None, "a rule's pattern ends in a node"
            match = Match(fit.bound, self.ordered(fit.nodes), root, anchor, self._opset)
            verdict = self.enclosed({*fit.nodes, *also}, root) and rule.when(match)
            if verdict:
                return match
            worth_a_word = isinstance(rule, Fusion) or not rule.passing
            if at == 0 and worth_a_word and len(fit.nodes) + len(also) > 1:
                self.refuse(name, {*fit.nodes, *also}, verdict)
        return None

    def _follow(
        self, fusion: Fusion, place: tuple[Step, ...], current: ir.Node, anchor: ir.Node, nodes: set[ir.Node]
    ) -> tuple[Step, Match] | None:
        """The first step of a place that continues a chain whose last node is ``current``."""
        value = current.outputs[0]
        ground = Ground(self.graph, self.taken | nodes)
        for step in place:
            if LEVELS.index(step.level) > self._level:
                continue
            for root in self._downstream(value, step, ground):
                name, state = f"{fusion.name} + {step.name}", State({"y": value})
                found = self._first(name, step, root.outputs[0], state, ground, anchor, (current,))
                if found is not None:
                    return step, found
        return None

    def _downstream(self, value: ir.Value, step: Step, ground: Ground) -> Iterator[ir.Node]:
        """Nodes that read a value, or what is made of it, no further away than the step is long."""
        seen: dict[ir.Node, None] = {}
        front = [value]
        depth, ops = self._reach(step)
        for _ in range(depth):
            readers = [
                node
                for one in front
                for node in one.consumers()
                if node.graph is self.graph and node not in ground.taken
            ]
            seen.update(dict.fromkeys(readers))
            front = [output for node in readers for output in node.outputs]
        yield from (node for node in seen if node.op_type in ops)

    def _reach(self, step: Step) -> tuple[int, frozenset[str]]:
        """How long a step is and what it may end in; asked at every node, and found by walking its pattern."""
        if id(step) not in self._reaches:
            self._reaches[id(step)] = (step.pattern.depth(), step.pattern.roots())
        return self._reaches[id(step)]

    def ordered(self, nodes: Iterable[ir.Node]) -> tuple[ir.Node, ...]:
        """Nodes in the order of the graph."""
        return tuple(sorted(nodes, key=self._position.__getitem__))

    def enclosed(self, nodes: set[ir.Node], root: ir.Node) -> Verdict:
        """Whether nothing but what the last node makes is read outside a set of nodes."""
        for node in self.ordered(nodes):
            if node is root:
                continue
            for value in node.outputs:
                verdict = self.read_only_by(value, nodes)
                if not verdict:
                    return verdict
        return yes

    def read_only_by(self, value: ir.Value, nodes: set[ir.Node]) -> Verdict:
        """Whether a value is read by these nodes and nobody else."""
        if id(value) in self._returned:
            return no(f"{value.name} is a graph output")
        reader = next((one for one in value.consumers() if one not in nodes), None)
        return yes if reader is None else no(f"{value.name} is also read by {reader.name or reader.op_type}")

    def position(self, node: ir.Node) -> int:
        """Where a node stands in the graph."""
        return self._position[node]

    def refuse(self, pattern: str, nodes: Iterable[ir.Node], verdict: Verdict) -> None:
        """Keep why a fusion was not made."""
        self._refused.setdefault((pattern, self.ordered(nodes), verdict.reason))

    def refusals(self) -> tuple[Refusal, ...]:
        """What was refused and did not come about in another way, with the last node in another group of that name."""
        group_of = {node: group for group in self.groups for node in group.nodes}
        found: dict[Refusal, None] = {}
        for pattern, nodes, reason in self._refused:
            group = group_of.get(nodes[-1])
            joined = group is not None and group is group_of.get(nodes[0])
            if group is not None and pattern not in REGIONS and nodes[-1] is not group.nodes[0]:
                joined = joined or pattern.split(" + ")[-1] in group.pattern.split(" + ")
            if not joined:
                names = dict.fromkeys(name for node in nodes for name in origin(node))
                found.setdefault(Refusal(pattern, tuple(names), reason))
        return tuple(found)

    def add(self, pattern: str, kind: Kind, nodes: set[ir.Node]) -> None:
        self.groups.append(Group(pattern, kind, self.ordered(nodes), self.graph))
        self.taken |= nodes


def _kind(node: ir.Node) -> Any:
    """The kind of a quantised operator: what moves data is quantised data that moves."""
    kind = kind_of(node)
    return "quantise" if kind in {"move", "other"} else kind
