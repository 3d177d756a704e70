"""``Annotated``: an onnx-ir model of one's own to change, every node with its identity, every tensor with its type and recorded name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx_ir as ir

from probe.errors import InputError
from probe.model.graphs import adopt_type, bodies_of, graphs_of, nodes_with_steps, sort_as_loaded
from probe.model.load import read_model
from probe.model.model import Model
from probe.model.names import TensorNames

if TYPE_CHECKING:
    from probe.model.scopes import Scope


@dataclass(slots=True)
class Annotated:
    """A graph and what the model it was built from knows of it.

    Attributes:
        ir: nodes in execution order, each named by its identity; tensors typed as declared or inferred.
        model: what it was built from, local functions inlined.
        tensors: recorded name -> the values that go by it: two where both branches of an If make it.
    """

    ir: ir.Model
    model: Model
    tensors: dict[str, list[ir.Value]] = field(default_factory=dict)

    @property
    def nodes(self) -> dict[str, ir.Node]:
        """Nodes by identity, those of bodies included."""
        return {node.name or "": node for graph in graphs_of(self.ir.graph) for node in graph}


def annotate(model: Model) -> Annotated:
    """Build the graph of a model anew.

    Raises:
        InputError: onnx-ir cannot represent the model.
    """
    if model.proto.functions:
        model = _inlined(model)
    built = model.build_ir()
    if "ai.onnx" in built.opset_imports:  # onnx-ir writes the nodes' domain as "", but not this one
        built.opset_imports[""] = built.opset_imports.pop("ai.onnx")
    made = Annotated(built, model)
    _adopt(made, built.graph, model.root, TensorNames(model.root))
    return made


def values_of(graph: ir.Graph) -> Iterator[ir.Value]:
    """Everything a graph defines: inputs, initialisers, what its nodes make. Bodies not included."""
    yield from dict.fromkeys((*graph.inputs, *graph.initializers.values()))
    for node in graph:
        yield from (value for value in node.outputs if value.name)


def _adopt(made: Annotated, graph: ir.Graph, scope: Scope, names: TensorNames) -> None:
    nodes = nodes_with_steps(graph, scope)
    for value in values_of(graph):
        _set_type(value, scope)
        made.tensors.setdefault(names.of(scope, value.name or ""), []).append(value)
    for step, node in nodes:
        if step is None:
            continue  # makes nothing that anyone could read
        for body, inner in zip(bodies_of(node).values(), step.bodies, strict=True):
            _adopt(made, body, inner, names)
        node.name = step.identity
    sort_as_loaded(graph, scope, [node for _, node in nodes])


def _set_type(value: ir.Value, scope: Scope) -> None:
    if value.type is None and value.const_value is not None:
        value.type = ir.TensorType(value.const_value.dtype)
        value.shape = ir.Shape(value.const_value.shape.numpy())
    adopt_type(value, scope)


def _inlined(model: Model) -> Model:
    """The model with the calls of its local functions replaced by what they hold."""
    from onnx_ir.passes.common import InlinePass

    try:
        content = ir.to_proto(InlinePass()(model.build_ir()).model).SerializeToString()
    except (ir.serde.SerdeError, ValueError) as error:
        hint = "export the model without local functions"
        raise InputError(f"local functions cannot be inlined: {error}", where=str(model.path), hint=hint) from None
    return read_model(
        model.path,
        memoryview(content),
        content=content,
        base_dir=model.base_dir,
        origin="functions inlined",
        source=model,
    )
