"""``Layer``: the nodes that are computed together. The unit of precision, tactic and report."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from probe import ir
from probe.engine.fusion.kinds import is_movement, kind_of
from probe.engine.network import Network, bodies_of, origin

if TYPE_CHECKING:
    from probe.engine.fusion import Group, Grouping

_NAMED_WHOLE = 4  # nodes a layer may have to be named after all of them


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """Nodes of one graph that are computed together.

    Attributes:
        name: after its ONNX nodes: ``conv1 + relu1``; over four ``a + ... + z [n]``. Unique, stable under unrelated edits.
        kind: conv, matmul, gemm, pointwise, reduce, norm, softmax, attention, pool, recurrent, move, shape, if, loop, quantise, other.
        pattern: the fusion that made it; "" for a single node.
        nodes: in execution order.
        origin: identities of the ONNX nodes it computes, more than ``nodes`` where passes merged some.
        reads: tensors from outside, graph inputs included, each once; also what bodies read from around them.
        weights: initialisers it reads, each once.
        outputs: tensors read outside it, or returned.
        interior: tensors nobody outside reads.
        scope: "" at the top, ``OWNER/then_branch`` inside an If.
        branches: of an If: its layers by attribute. Bodies of Loop and Scan run as part of their layer.
    """

    name: str
    kind: str
    pattern: str
    nodes: tuple[ir.Node, ...]
    origin: tuple[str, ...]
    reads: tuple[ir.Value, ...]
    weights: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]
    interior: tuple[ir.Value, ...]
    scope: str = ""
    branches: dict[str, tuple[Layer, ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Layer({self.name!r}, {self.kind})"

    @property
    def moves(self) -> bool:
        """Data movement: takes its inputs' precision, has no error of its own, is no search unit."""
        return all(is_movement(node) for node in self.nodes)

    @property
    def tensors(self) -> tuple[ir.Value, ...]:
        """What its nodes make, in execution order."""
        return tuple(value for node in self.nodes for value in node.outputs if value.name)


def tensor_names(layers: Iterable[Layer]) -> dict[str, None]:
    """Names of all tensors that layers read, hold and make, those in the bodies of Loop and Scan included."""
    values = (
        v for layer in layers for v in (*layer.reads, *layer.weights, *layer.tensors, *_made_in_bodies(layer.nodes))
    )
    return {value.name: None for value in values if value.name}


def _made_in_bodies(nodes: Iterable[ir.Node]) -> Iterator[ir.Value]:
    for node in nodes:
        for body in bodies_of(node).values():
            yield from (*body.inputs, *body.initializers.values(), *(value for one in body for value in one.outputs))
            yield from _made_in_bodies(body)


def form_layers(network: Network, grouping: Grouping) -> tuple[Layer, ...]:
    """The layers of the top-level graph in execution order; those of If branches hang below their If."""
    return _Forming(network, grouping).form(network.graph, "")


def all_layers(layers: Sequence[Layer]) -> Iterator[Layer]:
    """Layers and those of their branches in execution order: branches stand before the If that holds them."""
    for layer in layers:
        for branch in layer.branches.values():
            yield from all_layers(branch)
        yield layer


class _Forming:
    """What forming the layers of nested graphs shares."""

    def __init__(self, network: Network, grouping: Grouping) -> None:
        self._groups = {id(node): group for group in grouping.groups for node in group.nodes}
        self._returned = {id(value) for graph in network.graphs() for value in graph.outputs}
        self._owners = dict(_owners(network.graph))
        self._names: Counter[str] = Counter()

    def form(self, graph: ir.Graph, scope: str) -> tuple[Layer, ...]:
        return tuple(self._layer(graph, scope, *unit) for unit in _in_order(graph, self._groups))

    def _layer(self, graph: ir.Graph, scope: str, nodes: tuple[ir.Node, ...], pattern: str, kind: str) -> Layer:
        sources = tuple(dict.fromkeys(identity for node in nodes for identity in origin(node)))
        name = _name(sources)
        self._names[name] += 1
        if self._names[name] > 1:
            name = f"{name} #{self._names[name]}"
        inside = {id(value) for node in nodes for value in node.outputs}
        used = {id(value): value for node in nodes for value in _used(node) if id(value) not in inside}
        tensors = [value for node in nodes for value in node.outputs if value.name]
        outer = {id(value) for value in tensors if self._is_read_outside(value, graph, nodes)}
        branches = {}
        if kind == "if":
            branches = {
                attribute: self.form(body, f"{name}/{attribute}") for attribute, body in bodies_of(nodes[0]).items()
            }
        return Layer(
            name, kind, pattern, nodes, sources,
            reads=tuple(value for value in used.values() if not value.is_initializer()),
            weights=tuple(value for value in used.values() if value.is_initializer()),
            outputs=tuple(value for value in tensors if id(value) in outer),
            interior=tuple(value for value in tensors if id(value) not in outer),
            scope=scope, branches=branches,
        )  # fmt: skip

    def _is_read_outside(self, value: ir.Value, graph: ir.Graph, nodes: tuple[ir.Node, ...]) -> bool:
        members = {id(node) for node in nodes}
        readers = (_top(reader, graph, self._owners) for reader in value.consumers())
        return id(value) in self._returned or any(id(reader) not in members for reader in readers)


def _in_order(graph: ir.Graph, groups: dict[int, Group]) -> Iterator[tuple[tuple[ir.Node, ...], str, str]]:
    """The groups of a graph in an order they can run in, the file's where it is free: by their last nodes."""
    position = {id(node): at for at, node in enumerate(graph)}
    units: dict[int, tuple[tuple[ir.Node, ...], str, str]] = {}  # position of the last node -> unit
    unit_of: dict[int, int] = {}
    for node in graph:
        group = groups.get(id(node))
        nodes = group.nodes if group is not None else (node,)
        key = max(position[id(one)] for one in nodes)
        unit_of[id(node)] = key
        units[key] = (
            tuple(sorted(nodes, key=lambda one: position[id(one)])),
            group.pattern if group is not None else "",
            group.kind if group is not None else kind_of(node),
        )
    needs: dict[int, set[int]] = {key: set() for key in units}
    feeds: dict[int, set[int]] = {key: set() for key in units}
    for key, (nodes, _, _) in units.items():
        for node in nodes:
            for value in _used(node):
                maker = value.producer()
                source = unit_of.get(id(maker)) if maker is not None else None
                if source is not None and source != key:
                    needs[key].add(source)
                    feeds[source].add(key)
    ready = [key for key, sources in needs.items() if not sources]
    heapq.heapify(ready)
    done = 0
    while ready:
        key = heapq.heappop(ready)
        done += 1
        yield units[key]
        for reader in feeds[key]:
            needs[reader].discard(key)
            if not needs[reader]:
                heapq.heappush(ready, reader)
    assert done == len(units), "a fused group is not convex: it waits for itself"


def _used(node: ir.Node) -> Iterator[ir.Value]:
    """What a node reads: its inputs, and what its bodies read or return from around them."""
    yield from (value for value in node.inputs if value is not None)
    for body in bodies_of(node).values():
        yield from captured(body)


def captured(body: ir.Graph) -> Iterator[ir.Value]:
    """Values of the graphs around a body that it reads or returns, each once."""
    own = {id(value) for value in (*body.inputs, *(value for node in body for value in node.outputs))}
    seen: set[int] = set()
    for value in (*(value for node in body for value in _used(node)), *body.outputs):
        if id(value) not in own and id(value) not in seen:
            seen.add(id(value))
            yield value


def _top(node: ir.Node, graph: ir.Graph, owners: dict[int, ir.Node]) -> ir.Node:
    """The node of ``graph`` that holds ``node`` in one of its bodies, or ``node`` itself."""
    while node.graph is not graph and id(node.graph) in owners:
        node = owners[id(node.graph)]
    return node


def _owners(graph: ir.Graph) -> Iterator[tuple[int, ir.Node]]:
    for node in graph:
        for body in bodies_of(node).values():
            yield id(body), node
            yield from _owners(body)


def _name(identities: Sequence[str]) -> str:
    if len(identities) <= _NAMED_WHOLE:
        return " + ".join(identities)
    return f"{identities[0]} + ... + {identities[-1]} [{len(identities)}]"
