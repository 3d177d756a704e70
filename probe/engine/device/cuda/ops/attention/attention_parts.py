"""Which node of an attention layer (probe/engine/fusion/attention.py) does what."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from probe import ir
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.expressions import is_pointwise


@dataclass(frozen=True, slots=True)
class Way:
    """What is done to a tensor from outside before it is multiplied: transposed, scaled.

    Attributes:
        source: the tensor.
        nodes: in order.
    """

    source: ir.Value
    nodes: tuple[ir.Node, ...]


@dataclass(frozen=True, slots=True)
class Parts:
    """The nodes of a layer by what they do.

    Attributes:
        product: of queries and keys.
        between: pointwise nodes from there to the softmax; ``after``: from there to the product with the values.
        output: that product.
        move: of its result: a Transpose, or nothing.
    """

    q: Way
    k: Way
    v: Way
    product: ir.Node
    between: tuple[ir.Node, ...]
    softmax: ir.Node
    after: tuple[ir.Node, ...]
    output: ir.Node
    move: ir.Node | None


def parts_of(nodes: Sequence[ir.Node]) -> Parts:
    """The parts of an attention layer.

    Args:
        nodes: of the layer, in order.

    Raises:
        Unsupported: it is put together otherwise, for example with a softmax of single nodes.
    """
    inside = {id(node) for node in nodes}
    move = nodes[-1] if nodes[-1].op_type == "Transpose" else None
    output = _maker(nodes[-1].inputs[0], inside) if move is not None else nodes[-1]
    softmax = next((node for node in nodes if node.op_type == "Softmax"), None)
    if output is None or output.op_type != "MatMul" or softmax is None:
        raise Unsupported("an attention of other nodes than two products and a Softmax")
    after = _up_to(output.inputs[0], softmax, nodes)
    product = next((node for node in nodes if node.op_type == "MatMul"), output)
    between = _up_to(softmax.inputs[0], product, nodes)
    q, k, v = _way(product.inputs[0], inside), _way(product.inputs[1], inside), _way(output.inputs[1], inside)
    known = [
        *q.nodes,
        *k.nodes,
        *v.nodes,
        product,
        *between,
        softmax,
        *after,
        output,
        *([move] if move is not None else []),
    ]
    if {id(node) for node in known} != inside or len(known) != len(inside):
        raise Unsupported("an attention whose parts are entangled")
    if any(node.op_type != "Transpose" for node in v.nodes):
        raise Unsupported("values that are scaled")
    return Parts(q, k, v, product, between, softmax, after, output, move)


def _maker(value: ir.Value | None, inside: Container[int]) -> ir.Node | None:
    """The node of the layer that makes a value."""
    node = value.producer() if value is not None else None
    return node if node is not None and id(node) in inside else None


def _up_to(value: ir.Value | None, first: ir.Node, nodes: Sequence[ir.Node]) -> tuple[ir.Node, ...]:
    """The pointwise nodes through which a value comes from ``first``, in order."""
    inside, found, waiting = {id(node) for node in nodes}, set[int](), [value]
    while waiting:
        node = _maker(waiting.pop(), inside)
        if node is None or node is first or id(node) in found:
            continue
        if not is_pointwise(node):
            raise Unsupported(f"{node.op_type} on the way to a softmax or behind it")
        found.add(id(node))
        waiting += node.inputs
    return tuple(node for node in nodes if id(node) in found)


def _way(value: ir.Value | None, inside: Container[int]) -> Way:
    nodes: list[ir.Node] = []
    node = _maker(value, inside)
    while node is not None:
        nodes.insert(0, node)
        data = [one for one in node.inputs if one is not None and not one.is_initializer()]
        if len(data) != 1 or not (node.op_type == "Transpose" or is_pointwise(node)):
            raise Unsupported(f"{node.op_type} before a product")
        value = data[0]
        node = _maker(value, inside)
    if value is None:
        raise Unsupported("a product without an operand")
    return Way(value, tuple(nodes))
