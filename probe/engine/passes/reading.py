"""Reading nodes: attributes, constants that later opsets made inputs, shapes that are known."""

from __future__ import annotations

import math

from probe import ir
from probe.engine.network import Network, bodies_of
from probe.engine.passes.weights import INTEGERS, stored

# A node of one of these gives another value each time, or keeps something between runs.
_RANDOM = frozenset("RandomNormal RandomNormalLike RandomUniform RandomUniformLike Multinomial Bernoulli".split())


def is_op(node: ir.Node | None, *ops: str) -> bool:
    """Whether a node is one of these standard operators."""
    return node is not None and node.op_type in ops and is_standard(node)


def is_standard(node: ir.Node) -> bool:
    """Whether the ONNX standard says what a node does."""
    return node.domain in ("", "ai.onnx")


def is_pure(node: ir.Node) -> bool:
    """Whether a node makes the same from the same inputs, always: standard, not random, without bodies, not training."""
    training = is_op(node, "Dropout", "BatchNormalization") and not _is_inference(node)
    return is_standard(node) and node.op_type not in _RANDOM and not bodies_of(node) and not training


def _is_inference(node: ir.Node) -> bool:
    if node.op_type == "BatchNormalization":
        return integer(node, "training_mode", 0) == 0
    mode = node.inputs[2] if len(node.inputs) > 2 else None
    known = stored(mode)
    return mode is None or (known is not None and not known.any())


def integer(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def real(node: ir.Node, name: str, default: float) -> float:
    """A floating-point attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()


def text(node: ir.Node, name: str, default: str) -> str:
    """A text attribute."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_string()


def given(node: ir.Node, index: int, attribute: str = "") -> bool:
    """Whether an optional input, or the attribute that older opsets have in its place, is there."""
    return (index < len(node.inputs) and node.inputs[index] is not None) or attribute in node.attributes


def integers(node: ir.Node, index: int, attribute: str = "") -> tuple[int, ...] | None:
    """Integers given as a constant input or, in older opsets, as an attribute; None when absent or computed."""
    if attribute in node.attributes:
        return tuple(node.attributes[attribute].as_ints())
    values = stored(node.inputs[index]) if index < len(node.inputs) else None
    if values is None or node.inputs[index].dtype not in INTEGERS:  # type: ignore[union-attr]
        return None
    return tuple(int(number) for number in values.reshape(-1))


def static_shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of a value whose every dimension is a known number."""
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return tuple(int(dim) for dim in value.shape.dims)  # type: ignore[arg-type]


def dims(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """The dimensions of a value, None where one is not known; None alone when not even their number is."""
    if value is None or value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else None for dim in value.shape.dims)


def same_shape(one: ir.Value, other: ir.Value) -> bool:
    """Whether two values with equally many elements are certain to have one shape: every dimension known and equal, or all but one,
    which the count then fixes."""
    first, second = dims(one), dims(other)
    if first is None or second is None or len(first) != len(second):
        return False
    open_axes = [axis for axis, pair in enumerate(zip(first, second, strict=True)) if None in pair]
    known = [pair for axis, pair in enumerate(zip(first, second, strict=True)) if axis not in open_axes]
    if any(left != right for left, right in known) or len(open_axes) > 1:
        return False
    return not open_axes or math.prod(left or 0 for left, _ in known) > 0


def all_nodes(network: Network) -> list[ir.Node]:
    """Nodes of every graph, those of a body before the node that owns it; a snapshot, so that passes may change graphs meanwhile."""

    def walk(graph: ir.Graph) -> list[ir.Node]:
        found: list[ir.Node] = []
        for node in graph:
            for body in bodies_of(node).values():
                found += walk(body)
            found.append(node)
        return found

    return walk(network.graph)


def alive(node: ir.Node) -> bool:
    """Whether a node of a snapshot is still in the network."""
    return node.graph is not None
