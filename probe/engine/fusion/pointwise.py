"""Pointwise regions: connected elementwise nodes that one kernel can compute, each element from the same element of its inputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from probe import ir
from probe.engine.fusion.grouping import Group
from probe.engine.fusion.kinds import ACTIVATIONS, BINARY, UNARY, is_float, is_standard
from probe.engine.fusion.matcher import Matcher
from probe.engine.fusion.rule import Verdict, no, yes
from probe.engine.fusion.shapes import growth

_OPS = (UNARY | ACTIVATIONS | BINARY | {"Cast", "Where"}) - {"Mod"}
_NAMED = 4  # parts a region may have to be named after all of them


@dataclass(frozen=True, slots=True, eq=False)
class _Unit:
    """A pointwise node, or an activation function already grouped. Its last node makes its only output."""

    name: str
    nodes: tuple[ir.Node, ...]

    @property
    def output(self) -> ir.Value:
        return self.nodes[-1].outputs[0]


def fuse_pointwise(matcher: Matcher) -> None:
    """Join pointwise nodes into regions with one output.

    A node joins the one that reads it if nobody else reads it and its elements are not repeated by broadcasting. Since only the last
    node of a region is read outside, nothing can leave a region and come back to it.
    """
    unit_of = {node: unit for unit in _units(matcher) for node in unit.nodes}
    done: set[_Unit] = set()
    for unit in sorted(set(unit_of.values()), key=lambda one: matcher.position(one.nodes[-1]), reverse=True):
        if unit not in done:
            region = _grow(unit, unit_of, done, matcher)
            done.update(region)
            if len(region) > 1:
                _add(region, matcher)


def _units(matcher: Matcher) -> list[_Unit]:
    units = [_Unit(group.pattern, group.nodes) for group in matcher.groups if group.kind == "pointwise"]
    units += [
        _Unit(node.op_type.lower(), (node,))
        for node in matcher.graph
        if node not in matcher.taken and _is_pointwise(node)
    ]
    return units


def _is_pointwise(node: ir.Node) -> bool:
    """Whether each float of the output comes from one element of each input: floats, and the condition of a Where."""
    if node.op_type not in _OPS or not is_standard(node) or is_float(node.outputs[0]) is not True:
        return False
    read = node.inputs[1:] if node.op_type == "Where" else node.inputs
    return all(value is None or is_float(value) is True for value in read)


def _grow(root: _Unit, unit_of: dict[ir.Node, _Unit], done: set[_Unit], matcher: Matcher) -> dict[_Unit, None]:
    region, nodes = {root: None}, set(root.nodes)
    refused: dict[_Unit, tuple[_Unit, Verdict]] = {}
    grown = True
    while grown:  # a unit read twice in the region joins once both readers are in
        grown = False
        refused.clear()
        for reader in tuple(region):
            for unit in _feeding(reader, unit_of):
                if unit in region or unit in done:
                    continue
                verdict = _may_join(unit, nodes, matcher)
                if verdict:
                    region[unit] = None
                    nodes |= set(unit.nodes)
                    grown = True
                else:
                    refused[unit] = (reader, verdict)
    for unit, (reader, verdict) in refused.items():
        if unit not in region:
            matcher.refuse("pointwise", (*unit.nodes, *reader.nodes), verdict)
    return region


def _feeding(reader: _Unit, unit_of: dict[ir.Node, _Unit]) -> list[_Unit]:
    makers = (value.producer() for node in reader.nodes for value in node.inputs if value is not None)
    found = (unit_of.get(maker) for maker in makers if maker is not None)
    return [unit for unit in found if unit is not None and unit is not reader]


def _may_join(unit: _Unit, nodes: set[ir.Node], matcher: Matcher) -> Verdict:
    value = unit.output
    verdict = matcher.read_only_by(value, nodes)
    if not verdict:
        return verdict
    for node in value.consumers():
        reason = growth(value, node)
        if reason:
            return no(reason)
    return yes


def _add(region: Iterable[_Unit], matcher: Matcher) -> None:
    units = sorted(region, key=lambda unit: matcher.position(unit.nodes[-1]))
    names = [unit.name for unit in units]
    if len(names) > _NAMED:
        names = [*names[:2], "...", names[-1]]
    size = f" [{len(units)}]" if len(units) > _NAMED else ""
    merged = {node for unit in units for node in unit.nodes}
    matcher.groups[:] = [group for group in matcher.groups if not _inside(group, merged)]
    matcher.add(f"pointwise({', '.join(names)}){size}", "pointwise", merged)


def _inside(group: Group, nodes: set[ir.Node]) -> bool:
    return group.nodes[0] in nodes
