"""What Model Explorer calls the nodes of a model: the ids that its ONNX adapter (model-explorer-onnx 0.4) gives them.

A node's id is its name. Nodes without one, and those of a graph that share one, get ``node``, ``node_1``, ... by onnx-ir's ``NameFixPass``.
Bodies of an If are drawn inside the graph around it, as ``IF/then_branch/NAME``; those of a Loop or Scan that stands there are graphs of their
own, called ``LOOP/body``. The adapter draws no bodies inside of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from probe.model.graphs import bodies_of, nodes_with_steps
from probe.model.model import Model

if TYPE_CHECKING:
    import onnx_ir as ir

    from probe.model.scopes import Scope

NO_NAME = "<main>"  # id of a graph without a name


def explorer_ids(model: Model) -> dict[str, tuple[str, str]]:
    """Node, by identity -> (graph id, node id), of all nodes that the adapter draws.

    Raises:
        InputError: onnx-ir cannot represent the model.
    """
    from onnx_ir.passes.common import NameFixPass

    built = model.build_ir()
    identities = dict(_identities(built.graph, model.root))
    NameFixPass()(built)
    main = built.graph.name if built.graph.name is not None else NO_NAME
    return dict(_drawn(built.graph, main, "", identities, top=True))


def _identities(graph: ir.Graph, scope: Scope) -> Iterator[tuple[ir.Node, str]]:
    for step, node in nodes_with_steps(graph, scope):
        if step is None:
            continue  # makes nothing that anyone could read
        yield node, step.identity
        for body, inner in zip(bodies_of(node).values(), step.bodies, strict=True):
            yield from _identities(body, inner)


def _drawn(
    graph: ir.Graph, called: str, prefix: str, identities: dict[ir.Node, str], *, top: bool
) -> Iterator[tuple[str, tuple[str, str]]]:
    for node in graph:
        name = f"{prefix}{node.name}"
        if node in identities:
            yield identities[node], (called, name)
        for attribute, body in bodies_of(node).items():
            if node.op_type == "If" and node.domain == "":
                yield from _drawn(body, called, f"{name}/{attribute}/", identities, top=top)
            elif top:
                yield from _drawn(body, f"{name}/{attribute}", "", identities, top=False)
