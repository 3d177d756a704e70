"""Walking onnx-ir graphs and their bodies, and giving their values the types that loading found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx_ir import serde

from probe.model.elements import type_name

if TYPE_CHECKING:
    from probe.model.scopes import Scope, Step


def graphs_of(graph: ir.Graph) -> Iterator[ir.Graph]:
    """A graph and the bodies of its nodes, outer first."""
    yield graph
    for node in graph:
        for body in bodies_of(node).values():
            yield from graphs_of(body)


def bodies_of(node: ir.Node) -> dict[str, ir.Graph]:
    """The graphs a node holds, by attribute: then_branch, else_branch, body."""
    found: dict[str, ir.Graph] = {}
    for name, attribute in node.attributes.items():
        if attribute.type == ir.AttributeType.GRAPH:
            found[name] = attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            found.update({f"{name}[{i}]": body for i, body in enumerate(attribute.as_graphs())})
    return found


def adopt_type(value: ir.Value, scope: Scope) -> None:
    """Give a value the type and shape its scope has for it, where it has none itself. Maps stay without: onnx-ir has no type for them."""
    known = scope.types.get(value.name or "")
    if known is None or "map(" in type_name(known):
        return
    if value.type is None:
        value.type = serde.deserialize_type_proto_for_type(known)
    if value.shape is None:
        value.shape = serde.deserialize_type_proto_for_shape(known)


def nodes_with_steps(graph: ir.Graph, scope: Scope) -> list[tuple[Step | None, ir.Node]]:
    """The nodes of a graph with the step of its scope that each is; None for one that makes nothing that anyone could read."""
    steps = {step.outputs[0]: step for step in scope.steps if step.outputs}
    nodes = []
    for node in graph:
        first = next((value.name for value in node.outputs if value.name), None)
        nodes.append((steps.get(first or ""), node))
    return nodes


def sort_as_loaded(graph: ir.Graph, scope: Scope, nodes: Sequence[ir.Node]) -> None:
    """Sort a graph where ``nodes``, those of the file, named by their identities, do not stand in the order of the scope's steps."""
    order = {step.identity: at for at, step in enumerate(scope.steps)}
    if any(order.get(node.name or "", 0) != at for at, node in enumerate(nodes)):
        graph.sort()
