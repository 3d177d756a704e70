"""``Network``: the graph the compiler works on, and what became of every tensor the ONNX file names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from probe import ir
from probe.engine.reading import OF_FILE, read_graph
from probe.ir import bodies_of
from probe.model.elements import type_name
from probe.model.names import TensorNames

if TYPE_CHECKING:
    from probe.model.model import Model
    from probe.model.scopes import Scope, Step

_ORIGIN = "probe.origin"
_DEFAULT_OPSET = 18


@dataclass(frozen=True, slots=True)
class Fate:
    """Why the network no longer makes a tensor that the ONNX file names."""

    status: Literal["folded", "equivalent"]  # computed away | the same values under another name
    by: str  # the pass
    to: str = ""  # equivalent: the tensor that holds the values


@dataclass(slots=True)
class Network:
    """A graph of our own to change: local functions inlined, Constant nodes made initialisers, bodies' tensors named as
    recordings name them.

    Names: a tensor keeps its ONNX name for life; nodes know the identities of the ONNX nodes they came from (``origin``). Whatever a
    pass removes goes through ``drop`` or ``merge``, so that every tensor of the file has a fate.
    """

    ir: ir.Model
    model: Model  # what it was read from; for an FP16 model its upcast
    fates: dict[str, Fate] = field(default_factory=dict)

    @property
    def graph(self) -> ir.Graph:
        return self.ir.graph

    @property
    def opset(self) -> int:
        """Version of the standard operators."""
        return self.ir.opset_imports[""]

    def graphs(self) -> Iterator[ir.Graph]:
        """The top-level graph and every body, outer first."""
        yield from _graphs_of(self.graph)

    def fold(self, value: ir.Value, by: str) -> None:
        """Note that ``by`` computed a tensor away."""
        if value.name:
            self.fates[value.name] = Fate("folded", by)

    def merge(self, value: ir.Value, into: ir.Value, by: str) -> None:
        """Note that ``into`` holds the same values as ``value``, which ``by`` removes."""
        if value.name and value.name != into.name:
            self.fates[value.name] = Fate("equivalent", by, into.name or "")

    def names(self) -> frozenset[str]:
        """Of its tensors, weights and those in bodies included, and of those of the file that are gone."""
        found = set(self.fates)
        for graph in self.graphs():
            found |= {value.name for value in graph.inputs if value.name}
            found |= set(graph.initializers)
            found |= {value.name for node in graph for value in node.outputs if value.name}
        return frozenset(found)

    def fate(self, name: str) -> Fate | None:
        """What became of a tensor; an ``equivalent`` is followed to a tensor that the network still makes."""
        found = self.fates.get(name)
        seen = {name}
        while found is not None and found.status == "equivalent" and found.to in self.fates and found.to not in seen:
            seen.add(found.to)
            found = self.fates[found.to]
        return found


def origin(node: ir.Node) -> tuple[str, ...]:
    """Identities of the ONNX nodes that a node computes."""
    return node.meta.get(_ORIGIN, ())


def set_origin(node: ir.Node, *sources: ir.Node | str) -> None:
    """Give a node the origins of ``sources``, in their order, each once. Identities may be given as text."""
    named: dict[str, None] = {}
    for source in sources:
        named.update(dict.fromkeys((source,) if isinstance(source, str) else origin(source)))
    node.meta[_ORIGIN] = tuple(named)


def constant(value: ir.Value | None) -> ir.Tensor | None:
    """The tensor of an initialiser; None for anything computed, fed or omitted."""
    return value.const_value if value is not None and value.is_initializer() else None


def read_network(model: Model) -> Network:
    """The network of a model, ready for passes. A model typed FP16 or BF16 is upcast first: precision is the engine's to choose.

    Raises:
        InputError: no graph can be made of the model.
    """
    if model.half:
        from probe.model.upcast import upcast

        model = upcast(model)
    built = read_graph(model)
    if "ai.onnx" in built.opset_imports:  # nodes write the domain as "", but not this one
        built.opset_imports[""] = built.opset_imports.pop("ai.onnx")
    _Adoption(model).graph(built.graph, model.root, {})
    # A model of ai.onnx.ml or custom operators alone imports no standard ones; casts and passes bring some.
    built.opset_imports.setdefault("", _DEFAULT_OPSET)
    network = Network(built, model)
    _lift_constants(network)
    return network


def _graphs_of(graph: ir.Graph) -> Iterator[ir.Graph]:
    yield graph
    for node in graph:
        for body in bodies_of(node).values():
            yield from _graphs_of(body)


class _Adoption:
    """Gives nodes their identities, tensors their recorded names and inferred types. Nodes that came out of a function are no nodes of the
    file's graph: they go by their own names, and so do their tensors."""

    def __init__(self, model: Model) -> None:
        self._names = TensorNames(model.root)
        self._inlined = bool(model.proto.functions)

    def graph(self, graph: ir.Graph, scope: Scope, around: Mapping[str, ir.Value]) -> None:
        """Adopt a graph and its bodies.

        Args:
            around: what the graphs around this one define, by the name in the file.
        """
        steps = {step.outputs[0]: step for step in scope.steps if step.outputs}
        nodes: list[tuple[ir.Node, Step | None]] = []
        for node in graph:
            if self._inlined and OF_FILE not in node.metadata_props:
                _name_inlined(node)
                continue
            first = next((value.name for value in node.outputs if value.name), None)
            nodes.append((node, steps.get(first or "")))
        made = [value for node in graph for value in node.outputs]
        for value in (*graph.inputs, *made):
            _adopt_type(value, scope)
        visible = {**around, **{value.name: value for value in values_of(graph) if value.name}}
        _return_outer_values(graph, visible)
        for node, step in nodes:
            if step is None:  # makes nothing that anyone could read
                node.meta[_ORIGIN] = (node.name or node.op_type,)
                continue
            node.meta[_ORIGIN] = (step.identity,)
            for body, inner in zip(bodies_of(node).values(), step.bodies, strict=True):
                self.graph(body, inner, visible)
            node.name = step.identity
        order = {step.identity: at for at, step in enumerate(scope.steps)}
        places = [order[step.identity] if step is not None else -1 for _, step in nodes]
        if places != sorted(places):
            graph.sort()
        if scope.owner is not None:
            known = {name for step in scope.steps for name in step.outputs}
            for value in made:
                if value.name and value.name in known:
                    value.name = self._names.of(scope, value.name)


def _name_inlined(node: ir.Node) -> None:
    first = next((value.name for value in node.outputs if value.name), "")
    node.meta[_ORIGIN] = (node.name or f"{node.op_type}({first})",)
    for body in bodies_of(node).values():
        for inner in body:
            _name_inlined(inner)


def _adopt_type(value: ir.Value, scope: Scope) -> None:
    """Give a value the type and shape its scope has for it, where it has none itself. Maps stay without: a graph has no type for them."""
    known = scope.types.get(value.name or "")
    if known is None or "map(" in type_name(known):
        return
    if value.type is None:
        value.type = ir.read_type(known)
    if value.shape is None:
        value.shape = ir.read_shape(known)


def _return_outer_values(graph: ir.Graph, visible: Mapping[str, ir.Value]) -> None:
    """A body may return a tensor of the graphs around it, which is read as a value that nobody makes; here an Identity makes it."""
    own = {id(value) for value in values_of(graph)}
    for value in graph.outputs:
        outer = visible.get(value.name or "")
        if id(value) in own or outer is None or outer is value:
            continue
        value.type, value.shape = outer.type, outer.shape
        value.name = unused(visible, f"{value.name}'")
        node = ir.Node("", "Identity", [outer], outputs=[value])
        node.meta[_ORIGIN] = (f"Identity({value.name})",)
        graph.append(node)


def _lift_constants(network: Network) -> None:
    """Make initialisers of Constant nodes, and move those of bodies to the top, where weights are shared; names made unique."""
    for graph in list(network.graphs()):
        for node in graph:
            if node.op_type == "Constant" and not node.domain and len(node.attributes) == 1:
                _lift(graph, node)
    bodies = list(network.graphs())[1:]
    uses = Counter(value.name for graph in network.graphs() for value in values_of(graph))
    top = network.graph.initializers
    for graph in bodies:
        for name, value in list(graph.initializers.items()):
            del graph.initializers[name]
            if uses[name] > 1:  # siblings may use one name for different constants
                value.name = unused(uses, name)
                uses[value.name] += 1
            top[value.name or ""] = value


def _lift(graph: ir.Graph, node: ir.Node) -> None:
    made = node.outputs[0]
    if made.is_graph_output() or not made.name:
        return
    held = next(iter(node.attributes.values()))
    match held.name:
        case "value":
            tensor = held.as_tensor()
        case "value_int" | "value_ints":
            tensor = ir.tensor(held.value, ir.DataType.INT64)
        case "value_float" | "value_floats":
            tensor = ir.tensor(held.value, ir.DataType.FLOAT)
        case "value_string":
            tensor = ir.tensor(np.array(held.as_string().encode(), object))
        case "value_strings":
            tensor = ir.tensor(np.array([one.encode() for one in held.as_strings()], object))
        case _:
            return
    stored = ir.Value(name=made.name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor)
    made.replace_all_uses_with(stored)
    graph.remove(node)
    graph.initializers.add(stored)


def values_of(graph: ir.Graph) -> Iterator[ir.Value]:
    """Everything a graph defines: inputs, initialisers, what its nodes make. Bodies not included."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def check(network: Network, after: str) -> None:
    """Verify what every pass must leave intact: each value read is defined before it is read, names are unique in a scope, graph inputs and
    outputs are those of the model, every node has an origin.

    Raises:
        AssertionError: a pass broke the graph; ``after`` names it.
    """
    wanted = [port.name for port in network.model.outputs]
    have = [value.name for value in network.graph.outputs]
    assert wanted == have, f"{after}: graph outputs {have} instead of {wanted}"
    assert [p.name for p in network.model.inputs] == [
        value.name for value in network.graph.inputs if not value.is_initializer()
    ], f"{after}: graph inputs changed"
    _check_graph(network.graph, set(), after)


def _check_graph(graph: ir.Graph, around: set[int], after: str) -> None:
    known = around | {id(value) for value in (*graph.inputs, *graph.initializers.values())}
    names: dict[str, int] = {}
    for value in values_of(graph):
        if value.name and names.setdefault(value.name, id(value)) != id(value):
            raise AssertionError(f"{after}: two tensors are called {value.name!r}")
    for node in graph:
        for value in node.inputs:
            assert value is None or id(value) in known, (
                f"{after}: {node.name} reads {value and value.name} before it is made"
            )
        for body in bodies_of(node).values():
            _check_graph(body, known, after)
        assert origin(node), f"{after}: {node.name or node.op_type} lost its origin"
        known.update(id(value) for value in node.outputs)
    for value in graph.outputs:
        assert id(value) in known, f"{after}: graph output {value.name} is not made"


def unused(taken: Container[str | None], wanted: str) -> str:
    """``wanted``, or the first variant of it that is not taken."""
    fresh, number = wanted, 1
    while fresh in taken:
        number += 1
        fresh = f"{wanted}'{number}"
    return fresh
