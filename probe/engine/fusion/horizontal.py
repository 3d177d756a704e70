"""Siblings: products of one input with weights of their own and otherwise alike, computed as one product with the weights side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator

from probe import ir
from probe.engine.fusion.grouping import Group
from probe.engine.fusion.kinds import Kind, is_standard
from probe.engine.fusion.matcher import Matcher
from probe.engine.network import constant

_PRODUCTS: dict[str, Kind] = {"Conv": "conv", "MatMul": "matmul", "Gemm": "gemm"}


def fuse_siblings(matcher: Matcher) -> None:
    """Join 1x1 convolutions, matrix products and Gemms of one input that have stored weights, the same attributes and the same epilogue.

    The joined group has an output a member. It cannot wait for itself: all its members read but the one input and weights, so that
    nothing made from one of them is needed by another.
    """
    families: defaultdict[Hashable, list[Group]] = defaultdict(list)
    for group in _members(matcher):
        key = _key(group)
        if key is not None:
            families[key].append(group)
    for family in families.values():
        if len(family) > 1:
            nodes = {node for group in family for node in group.nodes}
            matcher.groups[:] = [group for group in matcher.groups if group not in family]
            matcher.add(f"horizontal({family[0].pattern} x{len(family)})", family[0].kind, nodes)


def _members(matcher: Matcher) -> Iterator[Group]:
    """Groups around a product, and products alone, in the order of the graph."""
    group_of = {node: group for group in matcher.groups for node in group.nodes}
    for node in matcher.graph:
        if node.op_type in _PRODUCTS and is_standard(node):
            kind = _PRODUCTS[node.op_type]
            group = group_of.get(node)
            if group is None:
                yield Group(kind, kind, (node,), matcher.graph)
            elif group.kind == kind and sum(one.op_type in _PRODUCTS for one in group.nodes) == 1:
                yield group


def _key(group: Group) -> Hashable | None:
    """What siblings share; None for a group that can be no sibling."""
    product = next(node for node in group.nodes if node.op_type in _PRODUCTS)
    x, weight = product.inputs[:2]
    tensor = constant(weight)
    if x is None or tensor is None or constant(x) is not None or any(node.op_type == "Pad" for node in group.nodes):
        return None
    shape = tuple(int(extent) for extent in tensor.shape.numpy())
    columns = product.op_type == "MatMul" or (product.op_type == "Gemm" and not product.attributes.get_int("transB", 0))
    inner = shape[:-1] if columns else shape[1:]
    if product.op_type == "Conv" and (
        any(extent != 1 for extent in shape[2:]) or product.attributes.get_int("group", 1) != 1
    ):
        return None
    made = {id(value) for node in group.nodes for value in node.outputs}
    for node in group.nodes:  # a residual of its own makes a group no sibling
        for value in node.inputs:
            if value is not None and value is not x and id(value) not in made and not value.is_initializer():
                return None
    return id(x), group.pattern, inner, tuple((node.op_type, _attributes(node)) for node in group.nodes)


def _attributes(node: ir.Node) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, str(attribute.value)) for name, attribute in node.attributes.items()))
