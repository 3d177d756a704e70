"""Concatenations that cost nothing, because their inputs are written where the output lies."""

from __future__ import annotations

from collections.abc import Iterable

from probe import ir
from probe.engine.fusion.kinds import is_float, is_movement, is_standard
from probe.engine.fusion.shapes import extents


def written_in_place(graph: ir.Graph, returned: Iterable[ir.Value]) -> tuple[ir.Node, ...]:
    """The Concat nodes of a graph whose inputs can all be written into the output.

    The rule: every extent before the axis of concatenation is 1, so that each input is one contiguous piece of the output and its
    readers need to know nothing; each input is made by a node of the same graph that computes it (no view, no movement but another
    Concat written in place), is not returned by the graph, and goes into one Concat once: a tensor lies in one place. Of two Concats
    that want a tensor the first in the graph has it.
    """
    kept = {id(value) for value in returned}
    placed: set[int] = set()
    found: list[ir.Node] = []
    for node in graph:
        if node.op_type != "Concat" or not is_standard(node) or is_float(node.outputs[0]) is not True:
            continue
        inputs = [value for value in node.inputs if value is not None]
        if not _pieces_are_contiguous(node) or len({id(value) for value in inputs}) < len(inputs):
            continue
        if all(_can_be_placed(value, graph, found) and id(value) not in placed | kept for value in inputs):
            found.append(node)
            placed |= {id(value) for value in inputs}
    return tuple(found)


def _pieces_are_contiguous(node: ir.Node) -> bool:
    shape = extents(node.outputs[0])
    if shape is None:
        return False
    axis = node.attributes.get_int("axis", 0) % max(len(shape), 1)
    return all(extent == 1 for extent in shape[:axis])


def _can_be_placed(value: ir.Value, graph: ir.Graph, in_place: list[ir.Node]) -> bool:
    maker = value.producer()
    if maker is None or maker.graph is not graph:
        return False
    return maker in in_place or not is_movement(maker)
