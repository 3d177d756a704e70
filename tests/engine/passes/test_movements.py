"""Transposes and reshapes that follow each other, pads in front of convolutions and pools, functions applied twice."""

from __future__ import annotations

import numpy as np
import pytest

from probe.engine.network import origin
from tests.engine.passes.judge import Before, apply, judge, network_of, ops
from tests.model.builders import model, node, value, weight

INF = np.float32(np.inf)


def i64(*numbers):
    return np.array(numbers, np.int64)


def two(first, second, shape, *, opset=17, then="Neg"):
    """x -> Neg -> first -> second -> ``then`` -> y; each (op, constants, attributes)."""
    nodes, weights, read = [node("Neg", ["x"], ["a"], name="neg")], [], "a"
    for name, (op, constants, attributes) in (("first", first), ("second", second)):
        names = [f"{name}{i}" for i in range(len(constants))]
        weights += [weight(n, c) for n, c in zip(names, constants, strict=True)]
        nodes.append(node(op, [read, *names], [f"{name} out"], name=name, **attributes))
        read = f"{name} out"
    nodes.append(node(then, [read], ["y"], name="last"))
    return model(nodes, [value("x", shape)], [value("y", None)], weights, opset=opset)


def transpose(*perm):
    return ("Transpose", [], {"perm": list(perm)} if perm else {})


def reshape(*sizes, **attributes):
    return ("Reshape", [i64(*sizes)], attributes)


# first, second, shape of x, what is left between the two Neg
MOVEMENTS = {
    "transposes that cancel": (transpose(0, 2, 3, 1), transpose(0, 3, 1, 2), ("n", 2, 3, 4), []),
    "transposes that reverse twice": (transpose(), transpose(), (2, 3), []),
    "transposes that compose": (transpose(0, 2, 1), transpose(1, 0, 2), ("n", 2, 3), ["Transpose"]),
    "reshapes": (reshape(6, -1), reshape(3, 8), (2, 3, 4), ["Reshape"]),
    "reshape and back": (reshape(6, -1), reshape(2, 3, 4), (2, 3, 4), []),
    "reshape and back, batch open": (reshape(-1, 12), reshape(-1, 3, 4), ("n", 3, 4), []),
    "squeeze and unsqueeze": (("Squeeze", [i64(1)], {}), ("Unsqueeze", [i64(1)], {}), ("n", 1, 4), []),
    "unsqueeze and reshape": (("Unsqueeze", [i64(0)], {}), reshape(-1, 2), ("n", 4), ["Reshape"]),
    "flatten and reshape": (("Flatten", [], {"axis": 2}), reshape(-1, 2), ("n", 2, 4), ["Reshape"]),
    "a zero copies what is there": (reshape(4, 6), reshape(0, 2, -1), (2, 3, 4), ["Reshape", "Reshape"]),
    "transpose and reshape": (transpose(0, 2, 1), reshape(-1, 6), (2, 3, 4), ["Reshape", "Transpose"]),
    "two open dimensions": (("Flatten", [], {"axis": 1}), ("Unsqueeze", [i64(0)], {}), ("n", "m"), ["Flatten", "Unsqueeze"]),
}  # fmt: skip


@pytest.mark.parametrize("what", MOVEMENTS)
def test_movements(tmp_path, what):
    first, second, shape, left = MOVEMENTS[what]
    network = network_of(two(first, second, shape), tmp_path)
    before = Before.of(network)
    fuel = apply("transposes", network)
    assert ops(network) == sorted([*left, "Neg", "Neg"])
    if len(left) == 1:
        (moved,) = [n for n in network.graph if n.op_type == left[0]]
        assert origin(moved) == ("first", "second") and moved.outputs[0].name == "second out"
    if len(left) < 2:
        assert [change.nodes for change in fuel.changes] == [("first", "second")]
        assert network.fate("first out").by == "transposes"
    judge(network, before, exact=True)


def test_a_transpose_that_others_read_stays_for_them(tmp_path):
    proto = two(transpose(1, 0), transpose(1, 0), (2, 3))
    proto.graph.node.append(node("Abs", ["first out"], ["z"], name="abs"))
    proto.graph.output.append(value("z", None))
    network = network_of(proto, tmp_path)
    before = Before.of(network)
    apply("transposes", network)
    assert ops(network) == ["Abs", "Neg", "Neg", "Transpose"]
    judge(network, before, exact=True)


@pytest.mark.parametrize("source", ["neg", "input"])
def test_transposes_that_cancel_before_an_output(tmp_path, source):
    """What is in front takes the output's name; an input cannot, and there the second Transpose stays."""
    nodes = [
        node("Transpose", ["a" if source == "neg" else "x"], ["t"], name="first"),
        node("Transpose", ["t"], ["y"], name="second"),
    ]
    nodes = [node("Neg", ["x"], ["a"], name="neg"), *nodes] if source == "neg" else nodes
    network = network_of(model(nodes, [value("x")], [value("y")]), tmp_path)
    before = Before.of(network)
    apply("transposes", network)
    assert ops(network) == (["Neg"] if source == "neg" else ["Transpose"])
    judge(network, before, exact=True)


CONV = ("Conv", [np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)], {"kernel_shape": [3, 3]})
MAXPOOL = ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2]})
AVERAGE = ("AveragePool", [], {"kernel_shape": [3, 3]})
SPATIAL = i64(0, 0, 1, 2, 0, 0, 0, 1)
CENTRE = i64(0, 0, 1, 1, 0, 0, 1, 1)

# pad, what reads it, what is in front, pads afterwards or None where it stays, opset
PADS = {
    "conv": (("Pad", [SPATIAL], {}), CONV, "Neg", [1, 2, 0, 1], 17),
    "conv with pads of its own": (("Pad", [SPATIAL], {}), (*CONV[:2], {"pads": [1, 0, 1, 0]}), "Neg", [2, 2, 1, 1], 17),
    "conv that says it pads nothing": (("Pad", [SPATIAL], {}), (*CONV[:2], {"auto_pad": "VALID"}), "Neg", [1, 2, 0, 1], 17),
    "pads as an attribute": (("Pad", [], {"pads": [0, 0, 1, 1, 0, 0, 1, 1]}), CONV, "Neg", [1, 1, 1, 1], 9),
    "axes of its own": (("Pad", [i64(1, 2), np.float32(0), i64(-1)], {}), CONV, "Neg", [0, 1, 0, 2], 18),
    "average that counts padding": (("Pad", [CENTRE], {}), (*AVERAGE[:2], AVERAGE[2] | {"count_include_pad": 1}), "Neg", [1, 1, 1, 1], 17),
    "average without padding of its own": (("Pad", [CENTRE], {}), AVERAGE, "Neg", [1, 1, 1, 1], 17),
    "largest of what is never negative": (("Pad", [CENTRE], {}), MAXPOOL, "Relu", [1, 1, 1, 1], 17),
    "largest, padded by -Inf": (("Pad", [CENTRE, -INF], {}), MAXPOOL, "Neg", [1, 1, 1, 1], 17),
    "largest of what may be negative": (("Pad", [CENTRE], {}), MAXPOOL, "Neg", None, 17),
    "windows of padding alone": (("Pad", [i64(0, 0, 3, 3, 0, 0, 3, 3)], {}), MAXPOOL, "Relu", None, 17),
    "average that does not count its own": (("Pad", [CENTRE], {}), (*AVERAGE[:2], AVERAGE[2] | {"pads": [1, 1, 1, 1]}), "Neg", None, 17),
    "rounded up": (("Pad", [CENTRE], {}), (*MAXPOOL[:2], MAXPOOL[2] | {"ceil_mode": 1}), "Relu", None, 17),
    "by one": (("Pad", [SPATIAL, np.float32(1)], {}), CONV, "Neg", None, 17),
    "reflected": (("Pad", [SPATIAL], {"mode": "reflect"}), CONV, "Neg", None, 17),
    "cut": (("Pad", [i64(0, 0, -1, 0, 0, 0, 0, 0)], {}), CONV, "Neg", None, 17),
    "channels": (("Pad", [i64(0, 0, 0, 0, 0, 0, 1, 0)], {}), CONV, "Neg", None, 17),
    "same": (("Pad", [SPATIAL], {}), (*CONV[:2], {"auto_pad": "SAME_UPPER"}), "Neg", None, 17),
}  # fmt: skip
PADS["channels"] = (("Pad", [i64(0, 1, 0, 0, 0, 0, 0, 0)], {}), CONV, "Neg", None, 17)


@pytest.mark.parametrize("what", PADS)
def test_pads(tmp_path, what):
    pad, reader, front, pads, opset = PADS[what]
    proto = two(pad, reader, (2, 2 if what == "channels" else 3, 7, 7), opset=opset)
    proto.graph.node[0].op_type = front
    network = network_of(proto, tmp_path)
    before = Before.of(network)
    fuel = apply("pad_into_conv", network)
    judge(network, before)
    if pads is None:
        assert not fuel.changes and "Pad" in ops(network)
        return
    assert "Pad" not in ops(network)
    (found,) = [n for n in network.graph if n.op_type == reader[0]]
    assert list(found.attributes["pads"].as_ints()) == pads
    assert origin(found) == ("first", "second") and network.fate("first out").by == "pad_into_conv"


def test_a_pad_that_others_read_stays_for_them(tmp_path):
    proto = two(("Pad", [SPATIAL], {}), CONV, (2, 3, 7, 7))
    proto.graph.node.append(node("Abs", ["first out"], ["z"], name="abs"))
    proto.graph.output.append(value("z", None))
    network = network_of(proto, tmp_path)
    before = Before.of(network)
    apply("pad_into_conv", network)
    assert "Pad" in ops(network) and network.fate("first out") is None
    judge(network, before)


def clip(low, high):
    return ("Clip", [np.float32(low), np.float32(high)], {})


REPEATS = {
    **{op: ((op, [], {}), (op, [], {}), True, 17) for op in "Relu Abs Ceil Floor Round Sign".split()},
    "Clip again": (clip(0, 6), clip(0, 6), True, 17),
    "Clip within": (clip(0, 1), clip(-1, 2), True, 17),
    "Clip within, as attributes": (("Clip", [], {"min": 0.0, "max": 1.0}), ("Clip", [], {"min": 0.0}), True, 9),
    "Clip further": (clip(0, 6), clip(1, 6), False, 17),
    "Clip that leaves Inf": (("Clip", [np.float32(0), INF], {}), ("Clip", [np.float32(0)], {}), False, 17),
    "another function": (("Relu", [], {}), ("Sigmoid", [], {}), False, 17),
    "no function to apply once": (("Neg", [], {}), ("Neg", [], {}), False, 17),
}  # fmt: skip


@pytest.mark.parametrize("what", REPEATS)
def test_repeats(tmp_path, what):
    first, second, goes, opset = REPEATS[what]
    network = network_of(two(first, second, (3, 4), opset=opset, then="Exp"), tmp_path)
    feeds = {"x": np.float32([[0.0, -0.0, 1.5, -1.5], [np.inf, -np.inf, np.nan, 7], [0.5, -0.5, 3, 1e-30]])}
    before = Before.of(network, feeds)
    apply("repeats", network)
    assert len(ops(network)) == (3 if goes else 4)
    judge(network, before, exact=True)
