"""A network as nested scopes: the top-level graph and the bodies of If, Loop and Scan, each with its own names.

ONNX lets a body read every name of the graphs around it, and lets sibling bodies use the same name for different tensors. Whatever
asks "who makes this tensor" or "what does this node depend on" therefore asks a scope, never a flat dictionary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


@dataclass(slots=True, eq=False)
class Step:
    """One node in its place. ``identity`` is the name everything outside uses for it."""

    node: onnx.NodeProto
    scope: Scope
    identity: str = ""
    bodies: list[Scope] = field(default_factory=list)
    inputs: list[str] = field(init=False)  # when the scopes were built; omitted optional inputs ('') left out
    outputs: list[str] = field(init=False)
    _captured: frozenset[str] | None = None

    def __post_init__(self) -> None:
        self.inputs = [name for name in self.node.input if name]
        self.outputs = [name for name in self.node.output if name]

    @property
    def captured(self) -> frozenset[str]:
        """Names of the surrounding scopes that the node's bodies read without listing them as inputs."""
        if self._captured is None:
            self._captured = frozenset(name for body in self.bodies for name in body.captures())
        return self._captured


@dataclass(slots=True, eq=False)
class Scope:
    """A graph and what it defines. ``path`` is '' at the top, else identity of the owning node + '/' + attribute."""

    graph: onnx.GraphProto
    owner: Step | None = None
    branch: str = ""  # attribute of the owner that holds this graph: then_branch, body, ...
    path: str = ""
    steps: list[Step] = field(default_factory=list)  # execution order, once sorted
    outputs: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)  # without those that an initialiser of the same name gives a value
    initialisers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    producers: dict[str, Step] = field(default_factory=dict)
    types: dict[str, onnx.TypeProto] = field(default_factory=dict)  # declared or inferred

    @property
    def parent(self) -> Scope | None:
        return self.owner.scope if self.owner else None

    def defines(self, name: str) -> bool:
        return name in self.producers or name in self.initialisers or name in self.inputs

    def find(self, name: str) -> Scope | None:
        """The nearest scope, this one or one around it, that defines ``name``."""
        scope: Scope | None = self
        while scope is not None and not scope.defines(name):
            scope = scope.parent
        return scope

    def captures(self) -> set[str]:
        """Names read in this body, or returned by it, that it does not define itself."""
        own = self.producers.keys() | self.initialisers.keys() | set(self.inputs)
        read = {name for step in self.steps for name in (*step.inputs, *step.captured)}
        return (read | set(self.outputs)) - own

    def walk(self) -> Iterator[Scope]:
        """This scope and all bodies below it, outer first."""
        yield self
        for step in self.steps:
            for body in step.bodies:
                yield from body.walk()

    def in_execution_order(self) -> Iterator[Step]:
        """All nodes here and below: the nodes of a body come before the node that owns it, which ends after them."""
        for step in self.steps:
            for body in step.bodies:
                yield from body.in_execution_order()
            yield step

    def enclosing(self) -> Iterator[Scope]:
        """This scope, then the ones around it, innermost first."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent


def build_scopes(graph: onnx.GraphProto) -> Scope:
    """The scope tree of a graph, node identities given. Nothing is checked: names may still dangle or clash."""
    root = _build(graph, None, "")
    _identify(root)
    return root


def repeated_names(scope: Scope) -> list[Step]:
    """Nodes whose non-empty name another node of the same graph has too: no error in ONNX, but ONNX Runtime refuses it."""
    names = Counter(step.node.name for step in scope.steps)
    return [step for step in scope.steps if step.node.name and names[step.node.name] > 1]


def is_constant(step: Step) -> bool:
    return step.node.op_type == "Constant" and step.node.domain in ("", "ai.onnx")


def stored_constant(scope: Scope, name: str) -> onnx.TensorProto | None:
    """The tensor behind an initialiser or a Constant node; its data may not be read yet."""
    home = scope.find(name)
    if home is None:
        return None
    if name in home.initialisers:
        return home.initialisers[name]
    step = home.producers.get(name)
    if step is not None and is_constant(step):
        return next((a.t for a in step.node.attribute if a.name == "value"), None)
    return None


def _build(graph: onnx.GraphProto, owner: Step | None, branch: str) -> Scope:
    scope = Scope(graph, owner, branch)
    scope.initialisers = {tensor.name: tensor for tensor in graph.initializer}
    for sparse in graph.sparse_initializer:
        scope.initialisers[sparse.values.name] = sparse.values
    scope.inputs = [value.name for value in graph.input if value.name not in scope.initialisers]
    for node in graph.node:
        step = Step(node, scope)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                step.bodies.append(_build(attribute.g, step, attribute.name))
            for index, body in enumerate(attribute.graphs):
                step.bodies.append(_build(body, step, f"{attribute.name}[{index}]"))
        scope.steps.append(step)
        for name in step.outputs:
            scope.producers.setdefault(name, step)
    scope.outputs = [value.name for value in graph.output]
    for declared in (graph.value_info, graph.input, graph.output):
        for value in declared:
            if value.HasField("type"):
                scope.types[value.name] = value.type
    return scope


def _identify(root: Scope) -> None:
    """A node's identity is its name if non-empty and unique, else ``OpType(first output)``; where sibling bodies reuse that
    too, the body's path stands before it."""
    scopes = list(root.walk())
    names = Counter(step.node.name for scope in scopes for step in scope.steps)
    fallbacks = Counter(
        _fallback(step) for scope in scopes for step in scope.steps if names[step.node.name] > 1 or not step.node.name
    )
    for scope in scopes:  # outer first: a path needs the identity of the owner
        if scope.owner is not None:
            scope.path = f"{scope.owner.identity}/{scope.branch}"
        for step in scope.steps:
            name = step.node.name
            if name and names[name] == 1:
                step.identity = name
            else:
                step.identity = _fallback(step)
                if scope.path and fallbacks[step.identity] > 1:
                    step.identity = f"{scope.path}/{step.identity}"


def _fallback(step: Step) -> str:
    return f"{step.node.op_type}({next(iter(step.outputs), '')})"
