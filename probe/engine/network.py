"""``Network``: the graph the compiler works on, and what became of every tensor the ONNX file names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import onnx_ir as ir

from probe.model.graphs import adopt_type, bodies_of, graphs_of, nodes_with_steps, sort_as_loaded
from probe.model.names import TensorNames

if TYPE_CHECKING:
    from probe.model.model import Model
    from probe.model.scopes import Scope

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
    """An onnx-ir graph of our own to change: local functions inlined, Constant nodes made initialisers, bodies' tensors named as
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
        yield from graphs_of(self.graph)

    def fold(self, value: ir.Value, by: str) -> None:
        """Note that ``by`` computed a tensor away."""
        if value.name:
            self.fates[value.name] = Fate("folded", by)

    def merge(self, value: ir.Value, into: ir.Value, by: str) -> None:
        """Note that ``into`` holds the same values as ``value``, which ``by`` removes."""
        if value.name and value.name != into.name:
            self.fates[value.name] = Fate("equivalent", by, into.name or "")

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


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initialiser; None for anything computed, fed or omitted."""
    return value.const_value if value is not None and value.is_initializer() else None


def read_network(model: Model) -> Network:
    """The network of a model, ready for passes. A model typed FP16 or BF16 is upcast first: precision is the engine's to choose.

    Raises:
        InputError: onnx-ir cannot represent the model.
    """
    if model.half:
        from probe.model.upcast import upcast

        model = upcast(model)
    built = model.build_ir()
    if "ai.onnx" in built.opset_imports:  # onnx-ir writes the nodes' domain as "", but not this one
        built.opset_imports[""] = built.opset_imports.pop("ai.onnx")
    _adopt(built.graph, model.root, TensorNames(model.root), {})
    network = Network(built, model)
    _inline(network)
    # A model of ai.onnx.ml or custom operators alone imports no standard ones; casts and passes bring some.
    network.ir.opset_imports.setdefault("", _DEFAULT_OPSET)
    _lift_constants(network)
    return network


def _adopt(graph: ir.Graph, scope: Scope, names: TensorNames, around: Mapping[str, ir.Value]) -> None:
    """Give nodes their identities, tensors their recorded names and inferred types, in this graph and its bodies.

    Args:
        around: what the graphs around this one define, by the name in the file.
    """
    nodes = nodes_with_steps(graph, scope)
    for value in (*graph.inputs, *(value for _, node in nodes for value in node.outputs)):
        adopt_type(value, scope)
    visible = {**around, **{value.name: value for value in values_of(graph) if value.name}}
    _return_outer_values(graph, visible)
    for step, node in nodes:
        if step is None:  # makes nothing that anyone could read
            node.meta[_ORIGIN] = (node.name or node.op_type,)
            continue
        node.meta[_ORIGIN] = (step.identity,)
        for body, inner in zip(bodies_of(node).values(), step.bodies, strict=True):
            _adopt(body, inner, names, visible)
        node.name = step.identity
    sort_as_loaded(graph, scope, [node for _, node in nodes])
    if scope.owner is not None:
        for _, node in nodes:
            for value in node.outputs:
                if value.name:
                    value.name = names.of(scope, value.name)


def _return_outer_values(graph: ir.Graph, visible: Mapping[str, ir.Value]) -> None:
    """A body may return a tensor of the graphs around it. onnx-ir reads that as a value nobody makes; here an Identity makes it."""
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


def _inline(network: Network) -> None:
    """Replace calls of local functions by what they hold. The nodes inside are no nodes of the file's graph: they go by their own names."""
    if not network.ir.functions:
        return
    from onnx_ir.passes.common import InlinePass, ShapeInferencePass

    network.ir = InlinePass()(network.ir).model
    network.ir = ShapeInferencePass(check_type=False, strict_mode=False)(network.ir).model
    for graph in network.graphs():
        for node in graph:
            if not origin(node):
                first = next((value.name for value in node.outputs if value.name), "")
                node.meta[_ORIGIN] = (node.name or f"{node.op_type}({first})",)


def _lift_constants(network: Network) -> None:
    """Make initialisers of Constant nodes, and move those of bodies to the top, where weights are shared; names made unique."""
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    network.ir = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(network.ir).model
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
