"""Common sub-expressions and dead code."""

from __future__ import annotations

import numpy as np
import pytest

from probe.engine.network import origin
from tests.engine.passes.judge import Before, apply, judge, network_of, ops
from tests.model.builders import BOOL, graph, model, node, untyped, value, weight


def pair(op, inputs, others=None, attributes=None, other_attributes=None, *, outputs=1, weights=(), opset=17):
    """Two nodes side by side, each read by an Abs of its own."""
    nodes, made = [], []
    for at, (read, given) in enumerate([(inputs, attributes), (others or inputs, other_attributes or attributes)]):
        names = [f"t{at}{i}" for i in range(outputs)]
        nodes.append(node(op, read, names, name=f"node{at}", **(given or {})))
        nodes += [node("Abs", [name], [f"y{name}"], name=f"abs{name}") for name in names]
        made += [untyped(f"y{name}") for name in names]
    return model(nodes, [value("x"), value("z")], made, weights, opset=opset)


SAME = {
    "unary": pair("Neg", ["x"]),
    "with attributes": pair("Softmax", ["x"], attributes={"axis": 1}),
    "several outputs": pair(
        "TopK", ["x", "k"], attributes={"axis": 1}, outputs=2, weights=[weight("k", np.int64([2]))]
    ),
    "constants of one content": pair(
        "Mul", ["x", "c0"], ["x", "c1"], weights=[weight(f"c{i}", np.float32([3])) for i in range(2)]
    ),
}
DIFFERENT = {
    "inputs": pair("Neg", ["x"], ["z"]),
    "order of inputs": pair("Sub", ["x", "z"], ["z", "x"]),
    "attributes": pair("Softmax", ["x"], attributes={"axis": 0}, other_attributes={"axis": 1}),
    "constants": pair("Mul", ["x", "c0"], ["x", "c1"], weights=[weight(f"c{i}", np.float32([i + 3])) for i in range(2)]),
    "zeros of another sign": pair("Mul", ["x", "c0"], ["x", "c1"], weights=[weight(f"c{i}", np.float32([sign])) for i, sign in enumerate((0.0, -0.0))]),
    "random": pair("RandomNormalLike", ["x"], attributes={"seed": 1.0}),
    "dropout in training": pair("Dropout", ["x", "r", "t"], weights=[weight("r", np.float32(0.5)), weight("t", np.array(True))]),
}  # fmt: skip


@pytest.mark.parametrize("what", SAME)
def test_same(tmp_path, what):
    network = network_of(SAME[what], tmp_path)
    before = Before.of(network)
    fuel = apply("common_subexpressions", network)
    # The readers become one as well, but for their being outputs: both names must be made.
    assert [change.nodes for change in fuel.changes] == [("node0", "node1")]
    first = next(iter(network.graph))
    assert origin(first) == ("node0", "node1")
    assert network.fate("t10").to == "t00"
    judge(network, before, exact=True)


@pytest.mark.parametrize("what", DIFFERENT)
def test_different(tmp_path, what):
    network = network_of(DIFFERENT[what], tmp_path)
    assert not apply("common_subexpressions", network).changes


def test_chains_merge_from_the_front(tmp_path):
    """One downsample used three times, written three times."""
    nodes, w = [], weight("w", np.random.default_rng(0).standard_normal((4, 3, 1, 1)).astype(np.float32))
    for i in range(3):
        nodes += [
            node("Conv", ["x", "w"], [f"c{i}"], name=f"conv{i}"),
            node("Relu", [f"c{i}"], [f"r{i}"], name=f"relu{i}"),
        ]
    nodes.append(node("Sum", ["r0", "r1", "r2"], ["y"], name="sum"))
    network = network_of(model(nodes, [value("x", (1, 3, 4, 4))], [value("y", None)], [w]), tmp_path)
    before = Before.of(network)
    fuel = apply("common_subexpressions", network)
    assert ops(network) == ["Conv", "Relu", "Sum"] and len(fuel.changes) == 4
    judge(network, before, exact=True)


def test_an_output_gives_its_name(tmp_path):
    nodes = [
        node("Neg", ["x"], ["a"], name="first"),
        node("Abs", ["a"], ["z"], name="abs"),
        node("Neg", ["x"], ["y"], name="second"),
    ]
    network = network_of(model(nodes, [value("x")], [value("y"), value("z")]), tmp_path)
    before = Before.of(network)
    apply("common_subexpressions", network)
    assert ops(network) == ["Abs", "Neg"] and network.fate("a").to == "y"
    judge(network, before, exact=True)


@pytest.mark.parametrize("condition", [True, False])
def test_bodies_share_within_themselves_only(tmp_path, condition):
    """The Neg of x stands outside and in both branches, twice in one: that one becomes one."""
    then = graph(
        [
            node("Neg", ["x"], ["n1"], name="n1"),
            node("Neg", ["x"], ["n2"], name="n2"),
            node("Add", ["n1", "n2"], ["t"], name="add"),
        ],
        [],
        [value("t", None)],
    )
    other = graph([node("Neg", ["x"], ["e"], name="n3")], [], [value("e", None)])
    nodes = [
        node("Neg", ["x"], ["z"], name="n0"),
        node("If", ["p"], ["y"], name="if", then_branch=then, else_branch=other),
    ]
    network = network_of(model(nodes, [value("x"), value("p", (), BOOL)], [value("y", None), value("z")]), tmp_path)
    feeds = {"x": np.float32([[1, 2, 3], [4, 5, 6]]), "p": np.array(condition)}
    before = Before.of(network, feeds)
    apply("common_subexpressions", network)
    assert ops(network) == ["Add", "If", "Neg", "Neg", "Neg"]
    judge(network, before, exact=True)


def test_dead_code(tmp_path):
    """A chain that nothing reads, an If with what it alone reads, constants; a node of two outputs of which one is read stays."""
    body = graph([node("Mul", ["captured", "w"], ["b"], name="inner")], [], [value("b", None)])
    nodes = [
        node("Abs", ["x"], ["captured"], name="captured by dead code"),
        node("If", ["p"], ["d0"], name="if", then_branch=body, else_branch=graph([node("Neg", ["x"], ["e"], name="else")], [], [value("e", None)])),
        node("Relu", ["d0"], ["d1"], name="end of the chain"),
        node("TopK", ["x", "k"], ["values", "indices"], name="topk"),
        node("Neg", ["values"], ["y"], name="neg"),
    ]  # fmt: skip
    weights = [weight("w", np.float32([2])), weight("unread", np.zeros(5, np.float32)), weight("k", np.int64([1]))]
    network = network_of(model(nodes, [value("x"), value("p", (), BOOL)], [value("y", None)], weights), tmp_path)
    feeds = {"x": np.float32([[1, 2, 3], [4, 5, 6]]), "p": np.array(True)}
    before = Before.of(network, feeds)
    fuel = apply("dead_code", network)
    assert ops(network) == ["Neg", "TopK"]
    assert list(network.graph.initializers) == ["k"]
    assert [change.nodes for change in fuel.changes] == [("end of the chain",), ("if",), ("captured by dead code",), ()]
    assert {network.fate(name).by for name in ("captured", "d0", "d1", "w", "unread")} == {"dead_code"}
    judge(network, before, exact=True)


def test_an_unread_initialiser_that_old_models_list_as_an_input_is_not_asked_for(tmp_path):
    proto = model(
        [node("Neg", ["x"], ["y"])],
        [value("x"), value("w")],
        [value("y")],
        [weight("w", np.ones((2, 3), np.float32))],
        opset=7,
        ir=3,
    )
    network = network_of(proto, tmp_path)
    before = Before.of(network)
    apply("dead_code", network)
    assert [port.name for port in network.graph.inputs] == ["x"]
    judge(network, before, exact=True)
