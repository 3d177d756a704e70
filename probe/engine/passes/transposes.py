"""Movements after movements: two transposes are one, or none; a reshape does not care how its input was shaped before."""

from __future__ import annotations

from probe import ir
from probe.engine.passes.edit import Edit, can_bypass
from probe.engine.passes.reading import alive, all_nodes, dims, integer, integers, is_op, same_shape

_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


def merge_movements(edit: Edit) -> None:
    """Level safe: not a bit changes. Transpose after Transpose; Reshape after Reshape, Flatten, Squeeze or Unsqueeze; any two of these
    that restore the shape."""
    for node in all_nodes(edit.network):
        if not alive(node):
            continue
        source = node.inputs[0] if node.inputs else None
        before = source.producer() if source is not None else None
        if before is None or before.graph is not node.graph or before.inputs[0] is None:
            continue
        if is_op(node, "Transpose") and is_op(before, "Transpose"):
            _merge_transposes(edit, before, node)
        elif is_op(node, *_RESHAPES) and is_op(before, *_RESHAPES):
            _merge_reshapes(edit, before, node)


def _merge_transposes(edit: Edit, before: ir.Node, node: ir.Node) -> None:
    first, second = _permutation(before), _permutation(node)
    if first is None or second is None or len(first) != len(second):
        return
    both = [first[axis] for axis in second]
    if both == sorted(both) and _cancel(edit, before, node):
        return
    if edit.take(f"lets {node.name} transpose what {before.name} transposed before it", [before, node]):
        node.attributes["perm"] = ir.AttrInt64s("perm", both)
        edit.skip(node, 0, _source(before))


def _merge_reshapes(edit: Edit, before: ir.Node, node: ir.Node) -> None:
    if same_shape(_source(before), node.outputs[0]) and _cancel(edit, before, node):
        return
    target = integers(node, 1) if is_op(node, "Reshape") else None
    # A 0 copies a dimension of what is read, so that must stay what it is.
    if target is None or (0 in target and not integer(node, "allowzero", 0)):
        return
    if edit.take(f"lets {node.name} reshape what {before.name} reshaped before it", [before, node]):
        edit.skip(node, 0, _source(before))


def _cancel(edit: Edit, before: ir.Node, node: ir.Node) -> bool:
    """Remove the second of two that cancel, and the first with it if nobody else reads it; False if a name stands in the way."""
    made = before.outputs[0]
    if not can_bypass(node.outputs[0], _source(before)):
        return False
    if edit.take(f"removes {node.name}, which undoes {before.name}", [before, node]):
        edit.bypass(node.outputs[0], _source(before))
        edit.release(made)
    return True


def _source(node: ir.Node) -> ir.Value:
    source = node.inputs[0]
    assert source is not None
    return source


def _permutation(node: ir.Node) -> list[int] | None:
    if "perm" in node.attributes:
        return list(node.attributes["perm"].as_ints())
    known = dims(node.inputs[0])
    return None if known is None else list(reversed(range(len(known))))
