"""Constant folding: every operator as ONNX Runtime computes it, chains in float64 and rounded once, and what must not be folded."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidGraph, RuntimeException
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

from probe.engine.passes.foldable import FOLDABLE
from probe.engine.passes.shapes import infer_shapes
from probe.errors import InputError
from tests.engine.passes.judge import Before, apply, judge, network_of, ops, run
from tests.engine.passes.operators import DIFFERS, EVALUATED, f32, i64
from tests.model.builders import BOOL, FLOAT, INT64, graph, model, node, untyped, value, weight

INT32 = 6


def constant_node(op, constants, attributes, opset=17):
    """One node on constants whose outputs something reads, beside a network that is fed."""
    names = [f"c{i}" for i in range(len(constants))]
    count = 2 if op in ("TopK", "Split") else 1
    nodes = [node(op, names, [f"r{i}" for i in range(count)], name="constant", **attributes)]
    nodes += [node("Identity", [f"r{i}"], [f"y{i}"], name=f"read{i}") for i in range(count)]
    nodes.append(node("Neg", ["x"], ["y"], name="neg"))
    outputs = [onnx.ValueInfoProto(name=f"y{i}") for i in range(count)]
    return model(
        nodes,
        [value("x")],
        [value("y"), *outputs],
        [weight(n, c) for n, c in zip(names, constants, strict=True)],
        opset=opset,
    )


@pytest.mark.parametrize(
    ("op", "constants", "attributes"), EVALUATED, ids=[f"{i}-{c[0]}" for i, c in enumerate(EVALUATED)]
)
def test_as_onnx_runtime_computes_it(tmp_path, op, constants, attributes):
    """At every opset that has the operator in this form; what it means changes with some."""
    tried = 0
    for opset in (7, 11, 13, 18):
        try:
            network = network_of(constant_node(op, constants, attributes, opset), tmp_path)
            before = Before.of(network)
        except (InputError, Fail, InvalidGraph, RuntimeException, NoKernel):
            continue  # another form at this opset, or a type that ONNX Runtime has no kernel for
        tried += 1
        fuel = apply("constant_folding", network)
        if op.endswith("Softmax") and opset < 13:  # see DIFFERS
            continue
        assert not fuel.notes
        assert "constant" not in [node.name for node in network.graph]
        assert network.fate("r0").by == "constant_folding" and "r0" in network.graph.initializers
        judge(network, before, tolerance=5e-7)
    assert tried


@pytest.mark.parametrize(
    ("op", "constants", "attributes", "opset"), DIFFERS, ids=[f"{i}-{c[0]}" for i, c in enumerate(DIFFERS)]
)
def test_where_the_reference_and_runtimes_differ_the_node_stays(tmp_path, op, constants, attributes, opset):
    network = network_of(constant_node(op, constants, attributes, opset), tmp_path)
    fuel = apply("constant_folding", network)
    assert "constant" in [node.name for node in network.graph]
    assert [
        note
        for note in fuel.notes
        if note.startswith("constant_folding: constant depends on constants only and stays: ")
    ]


def test_every_foldable_operator_has_a_case():
    assert {op for op, _, _ in EVALUATED} == FOLDABLE


@pytest.mark.parametrize(
    ("op", "constants", "attributes"),
    [("Squeeze", [f32(1, 3)], {"axes": [0]}), ("Unsqueeze", [f32(3)], {"axes": [0]}), ("Slice", [f32(3)], {"starts": [1], "ends": [3]}),
     ("Pad", [f32(3)], {"pads": [1, 0]}), ("Clip", [f32(3)], {"min": 0.0}), ("ReduceSum", [f32(2, 3)], {"axes": [1]})],
)  # fmt: skip
def test_as_older_opsets_write_it(tmp_path, op, constants, attributes):
    network = network_of(constant_node(op, constants, attributes, opset=9), tmp_path)
    before = Before.of(network)
    apply("constant_folding", network)
    assert ops(network) == ["Identity", "Neg"]
    judge(network, before, tolerance=5e-7)


def read_by_add(nodes, weights, opset=17, **types):
    """Nodes that make ``r`` of constants, which is added to x."""
    return model([*nodes, node("Add", ["x", "r"], ["y"], name="add")], [value("x", (1,))], [value("y", None)], weights, opset=opset)  # fmt: skip


def test_a_chain_is_one_evaluation(tmp_path):
    """(a / 3) * 3 - a: float32 a node would leave a residue or lose it; float64 rounded once gives what is left of float64."""
    a = np.float32([1.1, 2.2, 3.3, 1e-3])
    nodes = [node("Div", ["a", "three"], ["t0"]), node("Exp", ["t0"], ["t1"]), node("Log", ["t1"], ["r"])]
    network = network_of(read_by_add(nodes, [weight("a", a), weight("three", np.float32(3))]), tmp_path)
    apply("constant_folding", network)
    wide = np.log(np.exp(a.astype(np.float64) / 3)).astype(np.float32)
    stepwise = np.log(np.exp(a / np.float32(3)))
    assert not np.array_equal(wide, stepwise), "the case shows nothing"
    assert np.array_equal(network.graph.initializers["r"].const_value.numpy(), wide)


def test_what_stands_between_and_is_read_is_rounded_for_its_reader(tmp_path):
    nodes = [node("Div", ["a", "three"], ["t0"]), node("Mul", ["t0", "three"], ["r"]), node("Mul", ["x", "t0"], ["z"])]
    proto = read_by_add(nodes, [weight("a", f32(1)), weight("three", np.float32(3))])
    proto.graph.output.append(value("z", None))
    network = network_of(proto, tmp_path)
    before = Before.of(network)
    apply("constant_folding", network)
    assert set(network.graph.initializers) == {"t0", "r"}
    judge(network, before)


@pytest.mark.parametrize(("middle", "back"), [("Exp", "Log"), ("Mul", "Div")])
def test_folding_heals_no_overflow(tmp_path, middle, back):
    """What float32 cannot hold at run time is Inf after folding too, and what it flushes to zero is zero."""
    a = np.float32([200, 1, -200]) if middle == "Exp" else np.float32([1e30, 1, 1e-30])
    factor = [weight("f", np.float32([1e30, 1, 1e-30]))]
    others = ["f"] if middle == "Mul" else []
    nodes = [node(middle, ["a", *others], ["t0"]), node(back, ["t0", *others], ["r"])]
    network = network_of(read_by_add(nodes, [weight("a", a), *factor]), tmp_path)
    before = Before.of(network)
    apply("constant_folding", network)
    assert ops(network) == ["Add"]
    judge(network, before)


@settings(max_examples=60)
@example(scale=float(np.float32(0.7)), size=10)  # 6.99999988, which rounds to 7
@given(scale=st.floats(0.0078125, 20, width=32), size=st.integers(1, 4096))
def test_a_length_made_in_float_is_that_of_the_runtime(tmp_path_factory, scale, size):
    """floor(size * scale): the product is rounded before it is floored, as at run time."""
    nodes = [
        node("Cast", ["size"], ["t0"], to=FLOAT), node("Mul", ["t0", "scale"], ["t1"]), node("Floor", ["t1"], ["t2"]),
        node("Cast", ["t2"], ["r"], to=INT64), node("Neg", ["r"], ["y"]), node("Neg", ["x"], ["z"]),
    ]  # fmt: skip
    proto = model(
        nodes,
        [value("x")],
        [value("y", None, INT64), value("z")],
        [weight("size", i64(size)), weight("scale", np.float32(scale))],
    )
    network = network_of(proto, tmp_path_factory.mktemp("length"))
    before = Before.of(network)
    apply("constant_folding", network)
    assert int(network.graph.initializers["r"].const_value.numpy()[0]) == math.floor(
        np.float32(size) * np.float32(scale)
    )
    judge(network, before, exact=True)


STAYS = {
    "random": ([node("RandomNormal", [], ["r"], shape=[1])], []),
    "random like a constant": ([node("RandomUniformLike", ["c"], ["r"])], [f32(1)]),
    "custom": ([node("Twice", ["c"], ["r"], domain="own")], [f32(1)]),
    "dequantised weight": ([node("DequantizeLinear", ["c", "s"], ["r"])], [np.int8([3])]),
    "quantised and back": ([node("QuantizeLinear", ["c", "s"], ["q"]), node("DequantizeLinear", ["q", "s"], ["r"])], [f32(1)]),
    "integer division by zero": ([node("Div", ["c", "c"], ["d"]), node("Cast", ["d"], ["r"], to=FLOAT)], [i64(0)]),
    "cast of what does not fit": ([node("Cast", ["c"], ["d"], to=INT32), node("Cast", ["d"], ["r"], to=FLOAT)], [np.float32([3e9])]),
    "text": ([node("Cast", ["c"], ["d"], to=8), node("Cast", ["d"], ["r"], to=FLOAT)], [f32(1)]),
}  # fmt: skip


@pytest.mark.parametrize("why", STAYS)
def test_stays(tmp_path, why):
    nodes, constants = STAYS[why]
    weights = [weight("c", array) for array in constants] + [weight("s", np.float32(0.1))]
    proto = read_by_add(nodes, weights)
    proto.opset_import.append(onnx.helper.make_opsetid("own", 1))
    network = network_of(proto, tmp_path)
    apply("constant_folding", network)
    assert [n.op_type for n in network.graph][: len(nodes)] == [n.op_type for n in nodes]


@pytest.mark.parametrize(
    ("op", "constants", "attributes"),
    [("Expand", [f32(1), i64(1 << 20)], {}), ("Tile", [f32(64), i64(1 << 14)], {}), ("ConstantOfShape", [i64(1 << 10, 1 << 10)], {}),
     ("Range", [np.int64(0), np.int64(1 << 20), np.int64(1)], {}), ("Add", [f32(2048, 1), f32(1, 2048)], {})],
)  # fmt: skip
def test_what_would_blow_up_stays(tmp_path, op, constants, attributes):
    network = network_of(constant_node(op, constants, attributes), tmp_path)
    apply("constant_folding", network)
    assert op in ops(network)


def test_a_graph_output_is_made_by_a_node(tmp_path):
    proto = model(
        [node("Neg", ["c"], ["y"]), node("Neg", ["x"], ["z"])],
        [value("x")],
        [value("y"), value("z")],
        [weight("c", f32(2, 3))],
    )
    network = network_of(proto, tmp_path)
    assert not apply("constant_folding", network).changes


def test_shapes_that_are_known_become_numbers(tmp_path):
    """x [batch, 3, 8]: its channels and length are constants, its batch is not; the target of the Reshape stays, and is typed."""
    nodes = [
        node("Shape", ["x"], ["s"], name="shape"),
        node("Gather", ["s", "one"], ["channels"], name="channels"),
        node("Slice", ["s", "two", "three"], ["length"], name="length"),
        node("Gather", ["s", "zero"], ["batch"], name="batch"),
        node("Unsqueeze", ["channels", "axes"], ["channels1"], name="unsqueeze"),
        node("Unsqueeze", ["batch", "axes"], ["batch1"], name="unsqueeze0"),
        node("Mul", ["channels1", "length"], ["both"], name="mul"),
        node("Concat", ["batch1", "both"], ["target"], name="concat", axis=0),
        node("Reshape", ["x", "target"], ["y"], name="reshape"),
    ]  # fmt: skip
    constants = {"one": np.int64(1), "two": i64(2), "three": i64(3), "zero": np.int64(0), "axes": i64(0)}
    proto = model(
        nodes, [value("x", ("batch", 3, 8))], [value("y", None)], [weight(k, v) for k, v in constants.items()]
    )
    network = network_of(proto, tmp_path)
    before = Before.of(network)
    from probe.engine.passes import run_passes

    run_passes(network)
    assert ops(network) == ["Concat", "Gather", "Reshape", "Shape", "Unsqueeze"]
    assert list(network.graph.outputs[0].shape)[1] == 24
    judge(network, before, exact=True)


def test_a_zero_in_a_computed_target_copies(tmp_path):
    nodes = [
        node("Shape", ["x"], ["s"], end=1),
        node("Concat", ["s", "rest"], ["target"], axis=0),
        node("Reshape", ["x", "target"], ["y"]),
    ]
    proto = model(nodes, [value("x", ("batch", 3, 2, 4))], [untyped("y")], [weight("rest", i64(0, -1))])
    network = network_of(proto, tmp_path)
    infer_shapes(network)
    assert [size if isinstance(size, int) else None for size in network.graph.outputs[0].shape] == [None, 3, None]


@pytest.mark.parametrize("condition", [True, False])
def test_bodies_are_folded_and_see_outer_constants(tmp_path, condition):
    then = graph(
        [node("Mul", ["c", "c"], ["sq"], name="square"), node("Add", ["x", "sq"], ["t"], name="add")],
        [],
        [value("t", None)],
    )
    other = graph(
        [node("Sqrt", ["c"], ["rt"], name="root"), node("Mul", ["x", "rt"], ["e"], name="mul")], [], [value("e", None)]
    )
    proto = model([node("If", ["p"], ["y"], name="if", then_branch=then, else_branch=other)],
                  [value("x"), value("p", (), BOOL)], [value("y", None)], [weight("c", np.float32([2]))])  # fmt: skip
    network = network_of(proto, tmp_path)
    feeds = {"x": f32(2, 3), "p": np.array(condition)}
    before = Before.of(network, feeds)
    fuel = apply("constant_folding", network)
    assert ops(network) == ["Add", "If", "Mul"] and len(fuel.changes) == 2
    judge(network, before, tolerance=5e-7)


def test_a_constant_too_large_for_float64_copies_is_moved_as_it_is(tmp_path):
    """A transposed weight keeps its bits and its type; no float64 copy stays behind."""
    w = np.float32([[np.nan, -0.0], [np.inf, 1e-45]])
    network = network_of(
        read_by_add([node("Transpose", ["w"], ["t"]), node("ReduceSum", ["t"], ["r"])], [weight("w", w)]), tmp_path
    )
    from probe.engine.passes.edit import Fuel
    from tests.engine.passes.judge import BY_NAME

    BY_NAME["constant_folding"].run(network, Fuel(1))
    moved = network.graph.initializers["t"]
    assert moved.const_value.numpy().tobytes() == w.T.tobytes() and not moved.meta
    assert run(network, {"x": f32(1)})
