"""``layers_sha256``: one hash of everything that decides how an engine's layers run, weights' bytes apart.

Two engines with the same hash, weights, settings and assignment are the same program. Saving compares what was written with what is read
back by it, and loading with what was saved: a file format that forgets something, or a program that forms other layers, is told.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from probe import ir
from probe.engine.network import bodies_of, origin

if TYPE_CHECKING:
    from probe.engine.layers import Layer
    from probe.engine.network import Network


def layers_sha256(network: Network, layers: Iterable[Layer]) -> str:
    """The hash of a network's layers.

    Args:
        layers: top-level; branches are found below them.
    """
    digest = hashlib.sha256()
    for line in description(network, layers):
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def description(network: Network, layers: Iterable[Layer]) -> Iterator[str]:
    """What is hashed, a line an item: opsets, inputs, weights, layers with their nodes, fates."""
    told = _Told()
    yield _line("opsets", sorted(network.ir.opset_imports.items()))
    yield _line("inputs", [told.value(value) for value in network.graph.inputs])
    for value in network.graph.initializers.values():
        tensor = value.const_value
        stored = None if tensor is None else (tensor.dtype.name, list(tensor.shape.numpy()))
        yield _line("weight", told.value(value), stored)
    yield from told.layers(layers)
    yield _line("outputs", [told.value(value) for value in network.graph.outputs])
    for name, fate in sorted(network.fates.items()):
        yield _line("fate", name, fate.status, fate.by, fate.to)


def _line(*parts: Any) -> str:
    return json.dumps(parts, separators=(",", ":"))


class _Told:
    """Values are numbered as they are met: an edge is an identity, and not a name that two values may share."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}

    def value(self, value: ir.Value | None) -> Any:
        """A value's number; where it is met first also its name, type and shape."""
        if value is None:
            return None
        if id(value) in self._numbers:
            return self._numbers[id(value)]
        self._numbers[id(value)] = len(self._numbers)
        return [
            self._numbers[id(value)],
            value.name or "",
            _type(value.type),
            _shape(value.shape),
            value.is_initializer(),
        ]

    def layers(self, layers: Iterable[Layer]) -> Iterator[str]:
        for layer in layers:
            yield _line("layer", layer.name, layer.kind, layer.pattern, layer.scope, layer.origin)
            for node in layer.nodes:
                yield from self.node(node)
            for branch, inner in layer.branches.items():
                yield _line("branch", branch)
                yield from self.layers(inner)
            ports = (layer.reads, layer.weights, layer.outputs, layer.interior)
            yield _line("ports", [[self.value(value) for value in some] for some in ports])

    def node(self, node: ir.Node) -> Iterator[str]:
        yield _line("node", node.domain, node.op_type, node.overload, node.name or "", origin(node))
        yield _line("reads", [self.value(value) for value in node.inputs])
        bodies = bodies_of(node)
        for name, attribute in node.attributes.items():
            if attribute.is_ref() or attribute.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
                yield _line("attribute", name, _attribute(attribute))
        for name, body in bodies.items():
            yield _line("body", name, [self.value(value) for value in body.inputs])
            for inner in body:
                yield from self.node(inner)
            yield _line("returns", [self.value(value) for value in body.outputs])
        yield _line("makes", [self.value(value) for value in node.outputs])


def _attribute(attribute: ir.Attr) -> str:
    if attribute.is_ref():
        return f"ref {attribute.ref_attr_name}"
    return hashlib.sha256(ir.attribute_proto(attribute).SerializeToString(deterministic=True)).hexdigest()


def _type(kind: ir.Type | None) -> str:
    return "" if kind is None else repr(kind)


def _shape(shape: ir.Shape | None) -> list[Any] | None:
    return (
        None if shape is None else [one if isinstance(one, int) else getattr(one, "value", str(one)) for one in shape]
    )
