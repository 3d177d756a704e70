"""Values, nodes and graphs that know each other: who makes a value, who reads it, to which graph it belongs.

A model in the form that passes change. It says what onnx.proto says, no more: names may be missing, and nothing is checked but what would
leave the links between the objects wrong.
"""
# ruff: noqa: SLF001 - values, nodes and graphs keep each other's links

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from probe.ir.attributes import Attr, Attributes, attribute
from probe.ir.ports import Initializers, Ports
from probe.ir.sequence import Linked
from probe.ir.tensors import Tensor
from probe.ir.types import AttributeType, DataType, Shape, Type


class Usage(NamedTuple):
    """A place where a value is read."""

    node: Node
    idx: int


class Value:
    """A tensor, sequence or optional of a graph, by identity: two values are never equal.

    Attributes:
        const_value: of an initialiser.
        meta: notes of whoever works on the graph; not written.
    """

    __slots__ = (
        "_graph", "_index", "_is_initializer", "_name", "_ports_in", "_ports_out", "_producer", "_uses", "const_value", "meta",
        "shape", "type",
    )  # fmt: skip

    def __init__(
        self,
        *,
        name: str | None = None,
        type: Type | None = None,  # noqa: A002 - as onnx.proto calls it
        shape: Shape | None = None,
        const_value: Tensor | None = None,
    ) -> None:
        self._name = name
        self.type = type
        self.shape = shape
        self.const_value = const_value
        self.meta: dict[str, Any] = {}
        self._uses: dict[Usage, None] = {}
        self._producer: Node | None = None
        self._index: int | None = None
        self._graph: Graph | None = None  # whose input, output or initialiser it is
        self._ports_in = self._ports_out = 0  # how often it is an input and an output of that graph
        self._is_initializer = False

    @property
    def name(self) -> str | None:
        return self._name

    @name.setter
    def name(self, name: str | None) -> None:
        if name == self._name:
            return
        if self._is_initializer:
            assert self._graph is not None and name, f"the initialiser {self._name!r} needs a name"
            self._graph.initializers.rename(self, name)
        self._name = name
        if self.const_value is not None:
            self.const_value.name = name

    @property
    def dtype(self) -> DataType | None:
        """Element type, of the tensors inside for sequences and optionals."""
        return None if self.type is None else self.type.dtype

    @property
    def graph(self) -> Graph | None:
        """The graph that defines it."""
        if self._graph is not None or self._producer is None:
            return self._graph
        return self._producer.graph

    def producer(self) -> Node | None:
        """The node that makes it; None for what is fed or stored."""
        return self._producer

    def index(self) -> int | None:
        """Which output of its producer it is."""
        return self._index

    def uses(self) -> tuple[Usage, ...]:
        """Where nodes read it, bodies included. Graph outputs do not count."""
        return tuple(self._uses)

    def consumers(self) -> tuple[Node, ...]:
        """The nodes that read it, each once."""
        return tuple(dict.fromkeys(use.node for use in self._uses))

    def is_graph_input(self) -> bool:
        return self._ports_in > 0

    def is_graph_output(self) -> bool:
        return self._ports_out > 0

    def is_initializer(self) -> bool:
        return self._is_initializer

    def replace_all_uses_with(self, other: Value, *, replace_graph_outputs: bool = False) -> None:
        """Let everybody who reads this value read ``other``.

        Raises:
            ValueError: it is an output of a graph and these are not to be replaced.
        """
        if self.is_graph_output():
            if not replace_graph_outputs:
                raise ValueError(f"{self._name!r} is an output of its graph")
            outputs = self._graph.outputs if self._graph is not None else ()
            for at, value in enumerate(tuple(outputs)):
                if value is self:
                    outputs[at] = other  # type: ignore[index]
        for node, index in self.uses():
            node.replace_input_with(index, other)

    def _enter(self, graph: Graph) -> None:
        if self._graph is not None and self._graph is not graph:
            raise ValueError(f"{self._name!r} belongs to another graph")
        self._graph = graph

    def _leave(self) -> None:
        if not (self._ports_in or self._ports_out or self._is_initializer):
            self._graph = None

    def __repr__(self) -> str:
        return f"Value({self._name!r}, type={self.type!r}, shape={self.shape!s})"


class Node:
    """A call of an operator.

    Args:
        inputs: None for each that is left out.
        outputs: one without a name that is new, unless they are given; the name "" is an output left out.
    """

    __slots__ = (
        "_inputs",
        "_outputs",
        "attributes",
        "domain",
        "graph",
        "meta",
        "metadata_props",
        "name",
        "op_type",
        "overload",
    )

    def __init__(
        self,
        domain: str,
        op_type: str,
        inputs: Iterable[Value | None],
        attributes: Iterable[Attr] = (),
        *,
        outputs: Iterable[Value] | None = None,
        name: str | None = None,
        overload: str = "",
    ) -> None:
        self.domain = "" if domain == "ai.onnx" else domain
        self.op_type = op_type
        self.overload = overload
        self.name = name
        self.graph: Graph | None = None
        self.meta: dict[str, Any] = {}
        self.metadata_props: Mapping[str, str] = {}
        self.attributes = Attributes((one.name, one) for one in attributes)
        self._inputs = tuple(inputs)
        self._outputs = (Value(),) if outputs is None else tuple(outputs)
        for at, value in enumerate(self._outputs):
            if value._producer is not None:
                raise ValueError(f"{value.name!r} is made by another node")
            value._producer, value._index = self, at
        for at, value in enumerate(self._inputs):
            if value is not None:
                value._uses[Usage(self, at)] = None

    @property
    def inputs(self) -> Sequence[Value | None]:
        return self._inputs

    @property
    def outputs(self) -> Sequence[Value]:
        return self._outputs

    def op_identifier(self) -> tuple[str, str, str]:
        return self.domain, self.op_type, self.overload

    def replace_input_with(self, index: int, value: Value | None) -> None:
        old = self._inputs[index]
        self._inputs = (*self._inputs[:index], value, *self._inputs[index + 1 :])
        if old is not None:
            del old._uses[Usage(self, index)]
        if value is not None:
            value._uses[Usage(self, index)] = None

    def resize_inputs(self, count: int) -> None:
        """Cut inputs off the end, or add some that are left out."""
        for at in range(count, len(self._inputs)):
            self.replace_input_with(at, None)
        self._inputs = (*self._inputs[:count], *[None] * (count - len(self._inputs)))

    def __repr__(self) -> str:
        made, read = ([value and value.name for value in some] for some in (self._outputs, self._inputs))
        return f"Node({self.name!r}: {made} = {self.domain}::{self.op_type}{read})"


def node(
    op_type: str,
    inputs: Iterable[Value | None],
    attributes: Mapping[str, Any] | None = None,
    *,
    outputs: Iterable[Value] | None = None,
    name: str | None = None,
) -> Node:
    """A call of a standard operator, attributes as Python values."""
    made = [attribute(key, value) for key, value in (attributes or {}).items()]
    return Node("", op_type, inputs, made, outputs=outputs, name=name)


class Graph:
    """Nodes in order, with what is fed, stored and returned. May be changed while it is walked along, see ``Linked``."""

    def __init__(
        self,
        inputs: Iterable[Value],
        outputs: Iterable[Value],
        *,
        nodes: Iterable[Node],
        initializers: Iterable[Value] = (),
        opset_imports: dict[str, int] | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name
        self.opset_imports = opset_imports if opset_imports is not None else {}
        self.inputs = Ports(self, "_ports_in", inputs)
        self.outputs = Ports(self, "_ports_out", outputs)
        self.initializers = Initializers(self, initializers)
        self._nodes: Linked[Node] = Linked()
        self.extend(nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes)

    def __reversed__(self) -> Iterator[Node]:
        return reversed(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def append(self, node: Node) -> None:
        self.extend([node])

    def extend(self, nodes: Iterable[Node]) -> None:
        for one in nodes:
            self._own(one)
            self._nodes.extend([one])

    def insert_before(self, node: Node, new: Node) -> None:
        self._own(new)
        self._nodes.insert_before(node, new)

    def remove(self, node: Node) -> None:
        """Take out a node whose outputs nobody reads; it reads nothing any more.

        Raises:
            ValueError: it belongs to another graph, or is still read.
        """
        if node.graph is not self:
            raise ValueError(f"{node!r} belongs to another graph")
        for value in node.outputs:
            if value.is_graph_output() or value.uses():
                raise ValueError(f"{value.name!r} is still read")
        for at in range(len(node.inputs)):
            node.replace_input_with(at, None)
        node.graph = None
        self._nodes.remove(node)

    def sort(self) -> None:
        """Bring nodes, those of bodies too, into an order in which each reads what was made before; as near to the present one as can be.

        From the end: of those whose readers all have their place, the last one takes the last place left. A node stands after all
        that its bodies read.

        Raises:
            ValueError: nodes wait for each other in a ring.
        """
        nodes = list(_nodes_below(self))
        at = {id(one): index for index, one in enumerate(nodes)}
        before = [[at[id(p)] for p in _needed(one) if id(p) in at] for one in nodes]
        readers = [0] * len(nodes)
        for needed in before:
            for index in needed:
                readers[index] += 1
        ready = [-index for index, count in enumerate(readers) if not count]
        heapq.heapify(ready)
        backwards: list[Node] = []
        while ready:
            index = -heapq.heappop(ready)
            backwards.append(nodes[index])
            for needed in before[index]:
                readers[needed] -= 1
                if not readers[needed]:
                    heapq.heappush(ready, -needed)
        if len(backwards) != len(nodes):
            raise ValueError("nodes wait for each other in a ring")
        for one in reversed(backwards):
            assert one.graph is not None
            one.graph.extend([one])

    def _own(self, node: Node) -> None:
        if node.graph is not None and node.graph is not self:
            raise ValueError(f"{node!r} belongs to another graph")
        node.graph = self


def bodies_of(node: Node) -> dict[str, Graph]:
    """The graphs a node holds, by attribute: then_branch, else_branch, body."""
    found: dict[str, Graph] = {}
    for name, held in node.attributes.items():
        if held.is_ref():
            continue
        if held.type == AttributeType.GRAPH:
            found[name] = held.as_graph()
        elif held.type == AttributeType.GRAPHS:
            found.update({f"{name}[{at}]": body for at, body in enumerate(held.as_graphs())})
    return found


def _nodes_below(graph: Graph) -> Iterator[Node]:
    for one in graph:
        yield one
        for body in bodies_of(one).values():
            yield from _nodes_below(body)


def _needed(node: Node) -> Iterator[Node]:
    """The nodes that have to stand before one: what made its inputs, and the nodes of its bodies."""
    for value in node.inputs:
        made = value.producer() if value is not None else None
        if made is not None:
            yield made
    for body in bodies_of(node).values():
        yield from body


class Model:
    """A graph with what the file says of it."""

    def __init__(self, graph: Graph, *, ir_version: int) -> None:
        self.graph = graph
        self.ir_version = ir_version

    @property
    def opset_imports(self) -> dict[str, int]:
        """Versions of operator sets by domain, "" for the standard one."""
        return self.graph.opset_imports
