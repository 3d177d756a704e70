"""Scaled dot-product attention (Vaswani et al., arXiv:1706.03762) in single nodes: two products and the softmax between."""

from __future__ import annotations

from probe import ir
from probe.engine.fusion.norms import same_axes
from probe.engine.fusion.pattern import Either, Pattern, either, hole, let, op, repeated, scalar
from probe.engine.fusion.rule import Fusion, Match, Verdict, no
from probe.engine.fusion.shapes import extents
from probe.engine.fusion.terms import Add, Div, MatMul, Mul, Sub, Tanh, cast, softmax, transposed
from probe.engine.network import constant

_STEPS = 5  # a scale, masks (T5 adds a position bias and padding), a cap before them
_Where, _Softmax, _IsNaN = op("Where"), op("Softmax"), op("IsNaN")


def _keeps_last(node: ir.Node) -> bool:
    """Whether a Transpose leaves rows in one piece."""
    order = node.attributes.get_ints("perm", None)
    return order is not None and list(order)[-1] == len(order) - 1


def _scaled(x: Pattern) -> Either:
    """A number may multiply the queries, the keys or both, before or after the keys are transposed."""
    inner = transposed(x)
    return either(
        Mul(inner, scalar()), Div(inner, scalar()),
        op("Transpose")(Mul(x, scalar())), op("Transpose")(Div(x, scalar())), inner,
    )  # fmt: skip


def _between(scores: Pattern) -> tuple[Pattern, ...]:
    """What may happen to the products of queries and keys before the softmax."""
    return (
        Mul(scores, scalar()), Div(scores, scalar()),
        Tanh(scores),  # a cap: c tanh(x / c)
        Add(scores, hole()), Sub(scores, hole()),
        _Where(hole(), scores, hole()), _Where(hole(), hole(), scores),
    )  # fmt: skip


_Heads = op("Transpose", when=_keeps_last)  # heads beside one another again


def _attention() -> Either:
    products = MatMul(_scaled(hole("q")), _scaled(hole("k")), name="products")
    scores = let("scores", repeated(_between, products, _STEPS))
    weights = let("weights", either(_Softmax(cast(scores)), softmax(scores)))
    safe = _Where(_IsNaN(weights), scalar(0), weights)  # torch: rows without a key become zero
    values = transposed(hole("v"))
    attended = either(MatMul(cast(safe), values), MatMul(cast(weights), values))
    return either(_Heads(attended), attended)


def _two_products_of_activations(m: Match) -> Verdict:
    for role, name in (("k", "keys"), ("v", "values")):
        if constant(m[role]) is not None:
            return no(f"the {name} are stored ({m[role].name}): a product with weights, not attention")
    for node in m.all("Softmax"):
        shape = extents(node.outputs[0])
        axis = node.attributes.get_int("axis", -1 if m.opset >= 13 else 1)
        if axis != -1 and (shape is None or axis != len(shape) - 1):
            return no(f"{node.name} is over axis {axis}, not over the keys")
    return same_axes(m)


ATTENTION = (Fusion("attention", "attention", _attention(), _two_products_of_activations),)
