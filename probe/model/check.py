"""Is this a network that can run? Every rule a broken file can break, in the order a reader would ask; nothing is repaired.

Errors name the node by its identity and the tensor by its ONNX name, and say what to try. Shape conflicts: ``shapes.py``; sizes of
stored tensors: ``weights.py``.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from probe.errors import InputError
from probe.model.scopes import Scope, Step, is_constant

if TYPE_CHECKING:
    import onnx

_REEXPORT = "export the model again"


def check_text(root: Scope, functions: Iterable[onnx.FunctionProto], path: str) -> None:
    """Check that all names are text. protobuf hands a string field back as bytes when it is not valid UTF-8.

    Raises:
        InputError: a name is not valid UTF-8.
    """
    for scope in root.walk():
        for values in (scope.graph.input, scope.graph.output, scope.graph.value_info):
            for value in values:
                require_text(value.name, "a tensor name", path)
        for name in scope.initialisers:
            require_text(name, "an initialiser's name", path)
        for step in scope.steps:
            _check_node_text(step.node, path)
    for function in functions:
        for text in (function.name, function.domain, *function.input, *function.output):
            require_text(text, "a name in a local function", path)
        for node in function.node:
            _check_node_text(node, path)


def _check_node_text(node: onnx.NodeProto, path: str) -> None:
    for text in (node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute)):
        require_text(text, "a name in a node", path)


def check_names(root: Scope, path: str) -> None:
    """Check that every tensor is made once, and known where it is read.

    Raises:
        InputError: a tensor made twice, a tensor that is read and never made, a graph output nobody makes.
    """
    for scope in root.walk():
        _check_made_once(scope, path)
        visible: set[str] = set()
        for outer in scope.enclosing():
            visible.update(outer.producers, outer.initialisers, outer.inputs)
        for step in scope.steps:
            for name in step.inputs:
                if name not in visible:
                    _raise_dangling(name, f"{path}, node {step.identity}", f"node {step.identity} reads", visible, root)
        for name in scope.outputs:
            if name not in visible:
                reader = f"body {scope.path} returns" if scope.path else "the graph returns"
                _raise_dangling(name, path, reader, visible, root)


def require_text(text: object, what: str, where: str) -> None:
    if not isinstance(text, str):
        raise InputError(
            f"{what} is not valid UTF-8: {text!r}", where=where, hint="the file is damaged; copy or export it again"
        )


def _check_made_once(scope: Scope, path: str) -> None:
    where = f"{path}, body {scope.path}" if scope.path else path
    makers: dict[str, str] = {}
    stored = [*(t.name for t in scope.graph.initializer), *(s.values.name for s in scope.graph.sparse_initializer)]
    fed = {value.name for value in scope.graph.input}  # before IR version 4 every initialiser is listed here too
    made = [
        *((value.name, "a graph input") for value in scope.graph.input),
        *((name, "an initialiser") for name in stored if name not in fed),
        *((name, f"node {step.identity}") for step in scope.steps for name in step.outputs),
    ]
    if len(set(stored)) < len(stored):
        twice = next(name for name in stored if stored.count(name) > 1)
        raise InputError(f"two initialisers are named {twice!r}", where=where, hint=_REEXPORT)
    for name, maker in made:
        if name in makers:
            what = f"tensor {name!r} is made twice: by {makers[name]} and by {maker}"
            raise InputError(what, where=where, hint="names must be unique (SSA); " + _REEXPORT)
        makers[name] = maker


def _raise_dangling(name: str, where: str, reader: str, visible: set[str], root: Scope) -> None:
    elsewhere = next((s for s in root.walk() if s.path and s.defines(name)), None)
    if elsewhere is not None:
        hint = f"it exists only inside body {elsewhere.path}, which other graphs cannot see"
    else:
        near = difflib.get_close_matches(name, sorted(visible)[:20_000], 3, 0.6)
        hint = f"nearest names: {', '.join(near)}" if near else "the node that made it was removed; " + _REEXPORT
    raise InputError(f"{reader} tensor {name!r}, which nothing makes", where=where, hint=hint)


def order_nodes(root: Scope, path: str) -> list[str]:
    """Sort the nodes of the protobuf graph, bodies included, so that each tensor is made before it is read; stable.

    Where anything moved, ``root`` is stale: build it again.

    Returns:
        A note naming the graphs that were out of order; empty when nothing moved.

    Raises:
        InputError: a cycle; its nodes are named.
    """
    changed = []
    for scope in root.walk():
        position = {id(step): i for i, step in enumerate(scope.steps)}
        needs = [
            {position[id(scope.producers[n])] for n in _reads(step) if n in scope.producers} for step in scope.steps
        ]
        if all(max(before, default=-1) < i for i, before in enumerate(needs)):
            continue
        order = _topological(needs)
        if len(order) < len(needs):
            _raise_cycle(scope, needs, set(order), path)
        scope.steps = [scope.steps[i] for i in order]
        changed.append(scope)
    # Innermost first: a body must be in order before the node that holds it is copied to its own new place.
    for scope in reversed(changed):
        nodes = [type(step.node).FromString(step.node.SerializeToString()) for step in scope.steps]
        del scope.graph.node[:]
        scope.graph.node.extend(nodes)
    if not changed:
        return []
    names = [f"body {scope.path}" if scope.path else "the graph" for scope in changed[:3]]
    shown = ", ".join(names) + (" ..." if len(changed) > 3 else "")
    return [f"the nodes of {shown} were not in the order of execution and were sorted"]


def check_shadowing(root: Scope, path: str) -> None:
    """Check that no body makes a tensor whose name is already taken where the body runs. To be called on sorted scopes.

    A name that a graph around it gives out only later, or to the owner's own output, is no clash: ONNX Runtime agrees.

    Raises:
        InputError: a name is made again.
    """
    for scope in root.walk():
        for outer, owner in _surroundings(scope):
            position = {id(step): i for i, step in enumerate(outer.steps)}
            for name in scope.producers:
                maker = outer.producers.get(name)
                if maker is not None and position[id(maker)] >= position[id(owner)]:
                    continue
                if outer.defines(name):
                    raise InputError(
                        f"tensor {name!r} is made by node {scope.producers[name].identity} and already exists in the graph around it",
                        where=f"{path}, body {scope.path}",
                        hint="names must be unique (SSA); " + _REEXPORT,
                    )


def _surroundings(scope: Scope) -> Iterator[tuple[Scope, Step]]:
    """Every scope around this one, with the node there that holds it."""
    for inner in scope.enclosing():
        if inner.owner is not None:
            yield inner.owner.scope, inner.owner


def _reads(step: Step) -> Iterator[str]:
    yield from step.inputs
    yield from step.captured


def _topological(needs: list[set[int]]) -> list[int]:
    """Kahn's algorithm; of the nodes that are ready, the one that came first in the file goes first."""
    waiting = [len(before) for before in needs]
    readers: list[list[int]] = [[] for _ in needs]
    for i, before in enumerate(needs):
        for j in before:
            readers[j].append(i)
    ready = [i for i, count in enumerate(waiting) if count == 0]
    order = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for reader in readers[i]:
            waiting[reader] -= 1
            if waiting[reader] == 0:
                heapq.heappush(ready, reader)
    return order


def _raise_cycle(scope: Scope, needs: list[set[int]], done: set[int], path: str) -> None:
    at = next(i for i in range(len(needs)) if i not in done)
    trail: list[int] = []
    while at not in trail:  # every node that is left waits for another one that is left
        trail.append(at)
        at = min(j for j in needs[at] if j not in done)
    indices = list(reversed(trail[trail.index(at) :]))
    first = indices.index(min(indices))
    cycle = [scope.steps[i].identity for i in (*indices[first:], *indices[:first])]
    shown = " -> ".join([*cycle[:8], *(["..."] if len(cycle) > 8 else []), cycle[0]])
    where = f"{path}, body {scope.path}" if scope.path else path
    raise InputError(f"the graph has a cycle of {len(cycle)} nodes: {shown}", where=where, hint=_REEXPORT)


def check_loops(root: Scope, path: str) -> None:
    """Check that no Loop runs for ever: without a trip count, its body has to compute a condition. To be called on sorted scopes.

    Raises:
        InputError: a body hands its condition on unchanged; names the node.
    """
    for step in root.in_execution_order():
        node = step.node
        is_loop = node.op_type == "Loop" and node.domain in ("", "ai.onnx")
        counted = bool(node.input and node.input[0])
        if is_loop and not counted and any(_keeps_its_condition(body) for body in step.bodies):
            raise InputError(
                f"node {step.identity} (Loop) never ends: it has no trip count, and its body hands the condition on unchanged",
                where=path,
                hint="give the loop a trip count, or compute its condition; " + _REEXPORT,
            )


def _keeps_its_condition(body: Scope) -> bool:
    if not body.outputs or len(body.graph.input) < 2:
        return False
    name = body.outputs[0]
    while (maker := body.producers.get(name)) is not None and maker.node.op_type == "Identity" and maker.inputs:
        name = maker.inputs[0]
    return name == body.graph.input[1].name or (maker is not None and _is_true(maker))


def _is_true(step: Step) -> bool:
    """Whether a node is the constant True."""
    if not is_constant(step):
        return False
    values = [attribute.t for attribute in step.node.attribute if attribute.name == "value"]
    return any(value.raw_data == b"\x01" or list(value.int32_data) == [1] for value in values)
