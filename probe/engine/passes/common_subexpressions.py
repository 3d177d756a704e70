"""Common sub-expressions: several nodes that do the same to the same become one.

onnx-ir has such a pass; it cannot stop after N changes, renames what it keeps and does not say what became of which tensor.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable

from probe import ir
from probe.engine.network import bodies_of, constant, set_origin
from probe.engine.passes.edit import Edit, can_stand_for
from probe.engine.passes.reading import alive, is_pure
from probe.engine.passes.weights import stored

_SMALL = 1 << 16  # bytes: constants up to here are compared by content; exporters write one for each node that reads it


def merge_common_subexpressions(edit: Edit) -> None:
    """Level safe: not a bit changes. Within one graph only: what a body computes may never run, or run many times.

    Random operators, custom ones, and those with bodies are left alone, and two nodes that both make outputs of the network.
    """
    _merge(edit, edit.network.graph)


def _merge(edit: Edit, graph: ir.Graph) -> None:
    known: dict[Hashable, ir.Node] = {}
    for node in tuple(graph):
        for body in bodies_of(node).values():
            _merge(edit, body)
        if not alive(node) or not is_pure(node) or not node.outputs:
            continue
        key = _key(node)
        first = known.setdefault(key, node)
        if first is node or not all(can_stand_for(*pair) for pair in zip(first.outputs, node.outputs, strict=True)):
            continue
        if edit.take(f"removes {node.name}, which computes what {first.name} computes", [first, node]):
            set_origin(first, first, node)
            edit.merge_outputs(first, node)


def _key(node: ir.Node) -> Hashable:
    attributes = tuple(sorted((name, _attribute(attribute)) for name, attribute in node.attributes.items()))
    present = tuple(bool(value.name) for value in node.outputs)
    return (node.op_identifier(), tuple(_input(value) for value in node.inputs), attributes, present)


def _input(value: ir.Value | None) -> Hashable:
    """Identity of what is read: the content of a small constant, else the tensor itself."""
    tensor = None if value is None or value.is_graph_output() else constant(value)
    values = stored(value) if tensor is not None and tensor.nbytes <= _SMALL else None
    if value is None or values is None:
        return id(value) if value is not None else None
    return (value.dtype, values.shape, values.tobytes())


def _attribute(attribute: ir.Attr) -> str:
    if attribute.type in (ir.AttributeType.TENSOR, ir.AttributeType.SPARSE_TENSOR):
        return hashlib.sha256(ir.attribute_proto(attribute).SerializeToString()).hexdigest()
    return repr((attribute.type, attribute.value))
