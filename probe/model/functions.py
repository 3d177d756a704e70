"""Local functions: operators a model defines for itself. They are checked to end when inlined; nothing else is asked of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from probe.errors import InputError
from probe.model.scopes import Scope

if TYPE_CHECKING:
    import onnx

Key = tuple[str, str, str]  # domain, name, overload

_MAX_NODES = 1_000_000
_MAX_DEPTH = 100


def check_functions(functions: Sequence[onnx.FunctionProto], root: Scope, path: str) -> None:
    """Check that local functions end when inlined: no recursion, no doubling without bound.

    Raises:
        InputError: two functions of one name, or functions that call each other in a circle, more than 100 deep, or expand to more than a million nodes.
    """
    calls = {(f.domain, f.name, f.overload): list(_calls(f.node)) for f in functions}
    if not calls:
        return
    if len(calls) < len(functions):
        raise InputError("two local functions have the same name", where=path, hint="export the model again")
    sizes: dict[Key, int] = {}  # nodes after inlining everything
    for key in calls:
        _measure(key, calls, sizes, (), path)
    top = sum(sizes.get(_key(step.node), 1) for step in root.in_execution_order())
    total = max(top, *sizes.values())
    if total > _MAX_NODES:
        hint = "export the model without local functions"
        raise InputError(f"local functions expand to {total:.3g} nodes", where=path, hint=hint)


def _measure(key: Key, calls: dict[Key, list[Key]], sizes: dict[Key, int], chain: tuple[Key, ...], path: str) -> int:
    if key in chain or len(chain) > _MAX_DEPTH:
        names = " -> ".join(name for _, name, _ in (*chain[-8:], key))
        what = "in a circle" if key in chain else f"more than {_MAX_DEPTH} deep"
        raise InputError(f"local functions call each other {what}: {names}", where=path, hint="export the model again")
    if key not in sizes:
        sizes[key] = sum(
            _measure(called, calls, sizes, (*chain, key), path) if called in calls else 1 for called in calls[key]
        )
    return sizes[key]


def _key(node: onnx.NodeProto) -> Key:
    return node.domain, node.op_type, node.overload


def _calls(nodes: Iterable[onnx.NodeProto]) -> Iterator[Key]:
    """Operators of all nodes, those in bodies included."""
    for node in nodes:
        yield _key(node)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _calls(attribute.g.node)
            for graph in attribute.graphs:
                yield from _calls(graph.node)
