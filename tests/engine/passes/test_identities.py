"""Nodes that hand on what they read are removed; those that only look so stay."""

from __future__ import annotations

import numpy as np
import pytest

from tests.engine.passes.judge import Before, apply, judge, network_of, ops
from tests.model.builders import BOOL, FLOAT, INT64, model, node, value, weight

INT32, DOUBLE = 6, 11


def f32(*numbers, shape=None):
    return np.array(numbers, np.float32).reshape(shape if shape is not None else (len(numbers),))


def i64(*numbers):
    return np.array(numbers, np.int64)


# what, op, further inputs, attributes, shape of x, opset
GOES = [
    ("Identity", "Identity", [], {}, (2, 3), 17),
    ("Dropout before it had a training mode", "Dropout", [], {"ratio": 0.4}, (2, 3), 11),
    ("Dropout in inference", "Dropout", [f32(0.4, shape=()), np.array(False)], {}, (2, 3), 17),
    ("Cast to its own type", "Cast", [], {"to": FLOAT}, ("n", "m"), 17),
    ("Reshape to its own shape", "Reshape", [i64(2, 3)], {}, (2, 3), 17),
    ("Reshape that copies open dimensions", "Reshape", [i64(0, 0, 3)], {}, ("n", "m", 3), 17),
    ("Reshape with one open dimension", "Reshape", [i64(-1, 3)], {}, ("n", 3), 17),
    ("Flatten of a matrix", "Flatten", [], {}, (2, 3), 17),
    ("Squeeze of nothing", "Squeeze", [], {}, (2, 3), 17),
    ("Transpose that keeps the axes", "Transpose", [], {"perm": [0, 1, 2]}, ("n", "m", 3), 17),
    ("Expand by ones", "Expand", [i64(1, 1, 3)], {}, ("n", "m", 3), 17),
    ("Expand to fewer axes", "Expand", [i64(3)], {}, ("n", 3), 17),
    ("Tile once", "Tile", [i64(1, 1)], {}, ("n", 3), 17),
    ("Pad by nothing", "Pad", [i64(0, 0, 0, 0)], {}, ("n", 3), 17),
    ("Pad by nothing, as an attribute", "Pad", [], {"pads": [0, 0, 0, 0]}, ("n", 3), 10),
    ("Slice of everything", "Slice", [i64(0), i64(2**63 - 1), i64(0)], {}, ("n", 3), 17),
    ("Slice up to the size", "Slice", [i64(0, -3), i64(2, 3)], {}, (2, 3), 17),
    ("Slice with attributes", "Slice", [], {"starts": [0], "ends": [3], "axes": [1]}, ("n", 3), 9),
    ("Concat of one", "Concat", [], {"axis": 0}, ("n", 3), 17),
    ("Max of one", "Max", [], {}, ("n", 3), 17),
    ("Split into one", "Split", [i64(3)], {"axis": 1}, ("n", 3), 17),
    ("Mean over one element", "ReduceMean", [], {"axes": [1]}, (2, 1), 17),
    ("Largest over all axes, of one element", "ReduceMax", [], {}, (1, 1), 17),
    ("times one", "Mul", [f32(1, shape=())], {}, ("n", 3), 17),
    ("times ones a channel", "Mul", [f32(1, 1, 1, shape=(1, 3))], {}, ("n", 3), 17),
    ("divided by one", "Div", [f32(1)], {}, ("n", 3), 17),
    ("to the power of one", "Pow", [f32(1)], {}, ("n", 3), 17),
    ("minus zero", "Sub", [f32(0)], {}, ("n", 3), 17),
    ("plus minus zero", "Add", [f32(-0.0)], {}, ("n", 3), 17),
]  # fmt: skip
STAYS = [
    ("Dropout in training", "Dropout", [f32(0.0, shape=()), np.array(True)], {}, (2, 3), 17),
    ("Cast to double", "Cast", [], {"to": DOUBLE}, (2, 3), 17),
    ("Reshape of two open dimensions", "Reshape", [i64(2, -1)], {}, ("n", "m"), 17),
    ("Flatten of open dimensions", "Flatten", [], {}, ("n", "m", 3), 17),
    ("Transpose of the axes", "Transpose", [], {}, (2, 2), 17),
    ("Expand of a one", "Expand", [i64(4, 3)], {}, (1, 3), 17),
    ("Expand to more axes", "Expand", [i64(1, 2, 3)], {}, (2, 3), 17),
    ("Tile twice", "Tile", [i64(2, 1)], {}, (2, 3), 17),
    ("Pad", "Pad", [i64(0, 1, 0, 0)], {}, (2, 3), 17),
    ("Slice from one", "Slice", [i64(1), i64(9), i64(0)], {}, (2, 3), 17),
    ("Slice to a number that may be less than all", "Slice", [i64(0), i64(2), i64(0)], {}, ("n", 3), 17),
    ("Slice backwards", "Slice", [i64(-1), i64(-9), i64(0), i64(-1)], {}, (2, 3), 17),
    ("Clip without bounds, which clips Inf", "Clip", [], {}, (2, 3), 17),
    ("Clip", "Clip", [f32(0.0, shape=())], {}, (2, 3), 17),
    ("Mean over two elements", "ReduceMean", [], {"axes": [1]}, (1, 2), 17),
    ("Mean that drops the axis", "ReduceMean", [], {"axes": [1], "keepdims": 0}, (2, 1), 17),
    ("times one, broadcast", "Mul", [f32(1, 1, shape=(2, 1, 1))], {}, (2, 3), 17),
    ("times ones that widen", "Mul", [f32(1, 1, 1)], {}, (2, 1), 17),
    ("times one of open size", "Mul", [f32(1, 1, 1)], {}, (2, "m"), 17),
    ("times nearly one", "Mul", [f32(1.0000001)], {}, (2, 3), 17),
    ("minus minus zero", "Sub", [f32(-0.0)], {}, (2, 3), 17),
    ("plus zero", "Add", [f32(0)], {}, (2, 3), 17),
    ("plus zeros of both signs", "Add", [f32(-0.0, 0.0, -0.0)], {}, (2, 3), 17),
]  # fmt: skip


def between(op, others, attributes, shape, opset, dtype=FLOAT):
    """x -> Neg -> op -> Neg -> y."""
    names = [f"c{i}" for i in range(len(others))]
    out = DOUBLE if attributes.get("to") == DOUBLE else dtype
    return model(
        [
            node("Neg", ["x"], ["a"], name="first"),
            node(op, ["a", *names], ["b"], name="middle", **attributes),
            node("Neg", ["b"], ["y"], name="last"),
        ],
        [value("x", shape, dtype)],
        [value("y", None, out)],
        [weight(name, array) for name, array in zip(names, others, strict=True)],
        opset=opset,
    )


@pytest.mark.parametrize(
    ("op", "others", "attributes", "shape", "opset"), [c[1:] for c in GOES], ids=[c[0] for c in GOES]
)
def test_goes(tmp_path, op, others, attributes, shape, opset):
    proto = between(op, others, attributes, shape, opset)
    network = network_of(proto, tmp_path)
    feeds = {"x": np.full([size if isinstance(size, int) else 3 for size in shape], -0.0, np.float32)}
    feeds["x"].flat[-2:] = [np.nan, np.inf]
    before = Before.of(network, feeds)
    fuel = apply("identities", network)
    assert ops(network) == ["Neg", "Neg"]
    assert [change.nodes for change in fuel.changes] == [("middle",)]
    fate = network.fate("b")
    assert (fate.status, fate.by, fate.to) == ("equivalent", "identities", "a")
    judge(network, before, exact=True)


@pytest.mark.parametrize(
    ("op", "others", "attributes", "shape", "opset"), [c[1:] for c in STAYS], ids=[c[0] for c in STAYS]
)
def test_stays(tmp_path, op, others, attributes, shape, opset):
    network = network_of(between(op, others, attributes, shape, opset), tmp_path)
    apply("identities", network)
    assert len(ops(network)) == 3
    assert network.fate("b") is None


@pytest.mark.parametrize(
    ("op", "constant"), [("Add", 0), ("Sub", 0), ("Mul", 1), ("Div", 1)]
)  # fmt: skip
def test_integers_have_one_zero(tmp_path, op, constant):
    proto = between(op, [i64(constant)], {}, ("n", 3), 17, INT64)
    network = network_of(proto, tmp_path)
    before = Before.of(network)
    apply("identities", network)
    assert ops(network) == ["Neg", "Neg"]
    judge(network, before, exact=True)


def test_adding_zero_goes_only_at_level_all(tmp_path):
    """-0.0 + 0.0 is 0.0: the sign of a zero moves, nothing else."""
    network = network_of(between("Add", [f32(0)], {}, (2, 3), 17), tmp_path)
    before = Before.of(network)
    apply("zero_additions", network)
    assert ops(network) == ["Neg", "Neg"]
    judge(network, before)


def test_a_graph_output_keeps_its_name(tmp_path):
    proto = model([node("Neg", ["x"], ["a"], name="neg"), node("Identity", ["a"], ["y"], name="last"), node("Abs", ["a"], ["z"], name="abs")],
                  [value("x")], [value("y"), value("z")])  # fmt: skip
    network = network_of(proto, tmp_path)
    before = Before.of(network)
    apply("identities", network)
    assert ops(network) == ["Abs", "Neg"]
    assert network.fate("a").to == "y"
    judge(network, before, exact=True)


@pytest.mark.parametrize("source", ["x", "w", "a"])
def test_an_output_that_only_an_identity_can_make(tmp_path, source):
    """An input, a constant and another output cannot be renamed: the Identity stays."""
    proto = model([node("Neg", ["x"], ["a"], name="neg"), node("Identity", [source], ["y"], name="last")],
                  [value("x")], [value("a"), value("y")], [weight("w", np.ones((2, 3), np.float32))])  # fmt: skip
    network = network_of(proto, tmp_path)
    before = Before.of(network)
    apply("identities", network)
    assert ops(network) == ["Identity", "Neg"]
    judge(network, before, exact=True)


def test_the_mask_of_a_dropout_has_a_fate(tmp_path):
    proto = model([node("Neg", ["x"], ["a"]), node("Dropout", ["a"], ["b", "mask"]), node("Neg", ["b"], ["y"])], [value("x")], [value("y")], opset=11)  # fmt: skip
    network = network_of(proto, tmp_path)
    before = Before.of(network)
    apply("identities", network)
    assert network.fate("mask").status == "folded"
    judge(network, before, exact=True)


def test_a_mask_that_is_read_keeps_its_dropout(tmp_path):
    proto = model([node("Dropout", ["x"], ["b", "mask"]), node("Neg", ["b"], ["y"])], [value("x")], [value("y"), value("mask", dtype=BOOL)], opset=13)  # fmt: skip
    network = network_of(proto, tmp_path)
    apply("identities", network)
    assert ops(network) == ["Dropout", "Neg"]
