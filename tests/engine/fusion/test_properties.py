"""Whatever the graph: groups do not overlap, and the layers they make can be put in an order."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from probe import ir
from probe.engine.fusion import Grouping, group
from probe.engine.layers import form_layers
from probe.engine.network import Network
from tests.engine.fusion.drawing import network

UNARY = ("Relu", "Sigmoid", "Exp", "Neg", "Tanh", "Sqrt", "Softmax", "Identity")
BINARY = ("Add", "Mul", "Sub", "Div", "Max", "MatMul")
# formulas over a value, so that whole patterns occur inside random surroundings
FORMULAS = (
    "{0}s = Sigmoid({1}) {0} = Mul({1}, {0}s)",
    "{0}a = Mul({1}, $0.70710677) {0}b = Erf({0}a) {0}c = Add({0}b, $1.0) {0}d = Mul({1}, {0}c) {0} = Mul({0}d, $0.5)",
    "{0}m = ReduceMax<axes=[-1]>({1}) {0}a = Sub({1}, {0}m) {0}e = Exp({0}a) {0}t = ReduceSum({0}e, $i[-1]) {0} = Div({0}e, {0}t)",
    "{0}p = Pow({1}, $2.0) {0}m = ReduceMean<axes=[-1]>({0}p) {0}a = Add({0}m, $1e-5) {0}q = Sqrt({0}a) {0} = Div({1}, {0}q)",
    "{0}m = MatMul({1}, %8x8) {0} = Add({0}m, %8)",
    "{0}t = Transpose({1}) {0}s = MatMul({1}, {0}t) {0}w = Softmax({0}s) {0} = MatMul({0}w, {1})",
    "{0}a = MatMul({1}, %8x8) {0}b = MatMul({1}, %8x8) {0} = Add({0}a, {0}b)",
)


@st.composite
def drawings(draw: st.DrawFn) -> tuple[str, str]:
    """A random graph of float[8,8] tensors; every value may be read again, and some are outputs."""
    values, lines = ["x"], []
    for at in range(draw(st.integers(2, 14))):
        name = f"v{at}_"
        pick = st.sampled_from(values[-5:])
        form = draw(st.sampled_from(("unary", "binary", "scalar", "formula")))
        if form == "unary":
            lines.append(f"{name} = {draw(st.sampled_from(UNARY))}({draw(pick)})")
        elif form == "binary":
            lines.append(f"{name} = {draw(st.sampled_from(BINARY))}({draw(pick)}, {draw(pick)})")
        elif form == "scalar":
            lines.append(f"{name} = {draw(st.sampled_from(BINARY[:5]))}({draw(pick)}, $0.5)")
        else:
            lines.append(draw(st.sampled_from(FORMULAS)).format(name, draw(pick)))
        values.append(name)
    outputs = draw(st.lists(st.sampled_from(values[1:]), min_size=1, max_size=3, unique=True))
    return "\n".join(lines), ", ".join(f"float[8,8] {name}" for name in outputs)


def readers(node: ir.Node) -> list[ir.Node]:
    return list(dict.fromkeys(after for value in node.outputs for after in value.consumers()))


def _reachable(start: ir.Node) -> Iterator[ir.Node]:
    front, seen = readers(start), set()
    while front:
        node = front.pop()
        if node not in seen:
            seen.add(node)
            yield node
            front += readers(node)


def _check(drawn: Network, found: Grouping) -> None:
    owner = {}
    for one in found.groups:
        assert len(one.nodes) > 1 or one.pattern == "mean_over_image"
        for node in one.nodes:
            assert node not in owner, "a node in two groups"
            owner[node] = one
    for one in found.groups:
        inside = set(one.nodes)
        leaving = {after for node in inside for after in readers(node) if after not in inside}
        assert not any(inside & set(_reachable(node)) for node in leaving), f"{one} is left and entered again"
    layers = form_layers(drawn, found)  # asserts an order
    done: set[int] = {id(value) for value in drawn.graph.inputs}
    for layer in layers:
        assert all(id(value) in done for value in layer.reads), "a layer before what it reads"
        done |= {id(value) for value in layer.outputs}
    assert sum(len(layer.nodes) for layer in layers) == len(list(drawn.graph))


@settings(max_examples=150)
@given(drawings(), st.sampled_from(("none", "safe", "full")))
def test_groups_are_disjoint_convex_and_in_order(drawing: tuple[str, str], level: str) -> None:
    nodes, outputs = drawing
    drawn = network(nodes, inputs="float[8,8] x", outputs=outputs)
    before = [(node.op_type, [value and value.name for value in node.inputs]) for node in drawn.graph]
    found = group(drawn, level)  # pyright: ignore[reportArgumentType]
    _check(drawn, found)
    assert before == [(node.op_type, [value and value.name for value in node.inputs]) for node in drawn.graph], (
        "rewritten"
    )
    assert level != "none" or not found.groups
    if level == "safe":
        for layer in form_layers(drawn, found):
            assert len(layer.outputs) <= 1 or len(layer.nodes) == 1


@settings(max_examples=50)
@given(drawings())
def test_grouping_is_the_same_every_time(drawing: tuple[str, str]) -> None:
    nodes, outputs = drawing
    first, second = (group(network(nodes, inputs="float[8,8] x", outputs=outputs), "full") for _ in range(2))
    assert [(one.pattern, [node.name for node in one.nodes]) for one in first.groups] == [
        (one.pattern, [node.name for node in one.nodes]) for one in second.groups
    ]
    assert first.refusals == second.refusals
