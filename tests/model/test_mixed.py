"""Mixed-precision models: which Casts, which weights, which types, graph by graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from probe.engine import rounding
from probe.engine.fusion import kinds
from probe.model import load, movement
from probe.model.mixed import convert_mixed
from tests.model.builders import BFLOAT16, FLOAT, FLOAT16, INT64, model, node, save, value, weight
from tests.model.conversions import CHAIN, W, converted, ops, types
from tests.versions import needs_opset

CASES: list[tuple[str, list[onnx.NodeProto], dict[str, Any], list[tuple[str, str]]]] = [
    ("all low: a Cast at each port", CHAIN, {}, [("y_fp16", "fp32"), ("x", "fp16")]),
    ("ports converted: no Cast at all", CHAIN, {"convert_io": True}, []),
    (
        "a kept tensor: what enters its producer and what leaves its consumer",
        CHAIN, {"keep_tensors": ["b"]}, [("c_fp32", "fp16"), ("y_fp16", "fp32"), ("x", "fp16"), ("a", "fp32")],
    ),
    (
        "a kept node: what it makes is rounded by its reader",
        CHAIN, {"keep_nodes": ["B"]}, [("y_fp16", "fp32"), ("x", "fp16"), ("a", "fp32"), ("b", "fp16")],
    ),
    (
        "neighbours kept together share no Cast",
        CHAIN, {"keep_nodes": ["B", "C"]}, [("y_fp16", "fp32"), ("x", "fp16"), ("a", "fp32"), ("c", "fp16")],
    ),
    (
        "a tensor between two lifted nodes is rounded, as it was when that answer was found",
        CHAIN, {"keep_tensors": ["a", "c"]},
        [("b_fp32", "fp16"), ("y_fp32", "fp16"), ("y_fp16", "fp32"), ("x", "fp16"), ("x_fp16", "fp32"), ("b", "fp32")],
    ),
    ("everything kept: nothing changes", CHAIN, {"keep_nodes": ["A", "B", "C", "D"]}, []),
    (
        "one Cast serves all readers",
        [node("Relu", ["x"], ["a"]), node("Exp", ["x"], ["b"]), node("Add", ["a", "b"], ["y"])], {},
        [("y_fp16", "fp32"), ("x", "fp16")],
    ),
    (
        "movement of an input is cast before it, once",
        [node("Transpose", ["x"], ["t"]), node("Relu", ["t"], ["a"]), node("Exp", ["t"], ["b"]), node("MatMul", ["a", "b2"], ["m"]),
         node("Transpose", ["b"], ["b2"]), node("Relu", ["m"], ["y"])], {},
        [("y_fp16", "fp32"), ("x", "fp16")],
    ),
    (
        "movement stays FP32 where a kept node reads it",
        [node("Transpose", ["x"], ["t"]), node("Relu", ["t"], ["a"], "R"), node("Exp", ["t"], ["y"])], {"keep_nodes": ["R"]},
        [("y_fp16", "fp32"), ("t", "fp16")],
    ),
    (
        "a view of a kept tensor is kept",
        [node("Exp", ["x"], ["a"], "A"), node("Transpose", ["a"], ["t"], "T"), node("Sqrt", ["t"], ["y"], "S")], {"keep_tensors": ["a"]},
        [("y_fp32", "fp16"), ("y_fp16", "fp32"), ("x", "fp16"), ("x_fp16", "fp32")],
    ),
    (
        "an integer in between changes nothing",
        [node("Exp", ["x"], ["a"]), node("Cast", ["a"], ["i"], to=INT64), node("Cast", ["i"], ["f"], to=FLOAT), node("Relu", ["f"], ["y"])], {},
        [("y_fp16", "fp32"), ("x", "fp16")],
    ),
    (
        "Shape takes any type",
        [node("Exp", ["x"], ["a"], "A"), node("Shape", ["a"], ["s"]), node("ConstantOfShape", ["s"], ["z"]), node("Add", ["a", "z"], ["y"])],
        {"keep_nodes": ["A"]}, [("y_fp16", "fp32"), ("a", "fp16")],
    ),
    (
        "a graph input that is returned is left alone",
        [node("Identity", ["x"], ["y"])], {}, [],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("nodes", "how", "casts"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_casts_are_these_and_no_others(
    tmp_path: Path, nodes: list[onnx.NodeProto], how: dict[str, Any], casts: list[tuple[str, str]]
) -> None:
    weights = [W] if any("w" in n.input for n in nodes) else []
    mixed, made = converted(tmp_path, nodes, weights=weights, **how)
    assert sorted(mixed.casts) == sorted(casts)
    original = sum(n.op_type == "Cast" for n in nodes)
    assert sum(n.op_type == "Cast" for n in made.graph.node) == len(casts) + original
    for cast in (n for n in made.graph.node if n.op_type == "Cast"):
        (to,) = [a.i for a in cast.attribute]
        assert types(made)[cast.input[0]] != to or cast.name in {n.name for n in nodes}


def test_a_kept_tensor_in_full(tmp_path: Path) -> None:
    mixed, made = converted(tmp_path, CHAIN, keep_tensors=["b"])
    assert ops(made) == [
        "Cast x -> x_fp16", "MatMul x_fp16 w -> a", "Cast a -> a_fp32", "Exp a_fp32 -> b", "Sqrt b -> c_fp32", "Cast c_fp32 -> c",
        "Relu c -> y_fp16", "Cast y_fp16 -> y",
    ]  # fmt: skip
    found = types(made)
    assert {name: found[name] for name in ("x", "a", "a_fp32", "b", "c", "w", "y")} == {
        "x": FLOAT, "a": FLOAT16, "a_fp32": FLOAT, "b": FLOAT, "c": FLOAT16, "w": FLOAT16, "y": FLOAT,
    }  # fmt: skip
    assert mixed.lifted == ("B", "C")
    assert mixed.kept_tensors == ("b",)
    assert mixed.in_fp32 == ("B", "C")
    assert mixed.low_nodes == 2
    assert len({n.name for n in made.graph.node}) == len(made.graph.node)


# --- weights


def test_a_weight_read_in_both_types_is_there_twice(tmp_path: Path) -> None:
    third = weight("w", np.full((3, 3), 1 / 3, np.float32))
    nodes = [node("MatMul", ["x", "w"], ["a"], "A"), node("MatMul", ["a", "w"], ["y"], "B")]
    _, made = converted(tmp_path, nodes, weights=[third], keep_nodes=["B"])
    arrays = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    assert arrays["w"].dtype == np.float16
    assert arrays["w_fp32"].dtype == np.float32
    assert np.all(arrays["w_fp32"] == np.float32(1 / 3))


def test_weights_of_lifted_nodes_are_rounded_and_need_no_cast(tmp_path: Path) -> None:
    third = weight("w", np.full((3, 3), 1 / 3, np.float32))
    nodes = [node("MatMul", ["x", "w"], ["a"], "A"), node("Exp", ["a"], ["y"], "B")]
    mixed, made = converted(tmp_path, nodes, weights=[third], keep_tensors=["a"])
    (array,) = [numpy_helper.to_array(t) for t in made.graph.initializer]
    assert array.dtype == np.float32
    assert np.all(array == np.float32(np.float16(1 / 3)))
    assert "w" not in {tensor for tensor, _ in mixed.casts}
    _, kept = converted(tmp_path, nodes, weights=[third], keep_tensors=["a", "w"])
    assert np.all(numpy_helper.to_array(kept.graph.initializer[0]) == np.float32(1 / 3))


@pytest.mark.parametrize(
    ("number", "said"),
    [(1e-12, "1e-12 becomes 0"), (-3.4e38, "-3.4e+38 becomes -Inf"), (65519.0, ""), (65520.0, "65520 becomes Inf")],
)
def test_constants_that_rounding_destroys_are_named_not_clipped(tmp_path: Path, number: float, said: str) -> None:
    nodes = [node("Max", ["x", "eps"], ["a"], "A"), node("Log", ["a"], ["y"], "B")]
    mixed, made = converted(tmp_path, nodes, weights=[weight("eps", np.float32(number))])
    assert [note for note in mixed.notes if "eps" in note] == ([f"constant eps: {said} in fp16"] if said else [])
    with np.errstate(over="ignore"):
        assert numpy_helper.to_array(made.graph.initializer[0]) == np.float16(number)
    # A node that runs in FP32 is not given the ruin.
    mixed, made = converted(tmp_path, nodes, weights=[weight("eps", np.float32(number))], keep_tensors=["a"])
    assert mixed.spared == (("eps",) if said else ())
    expected = np.float32(number) if said else np.float32(np.float16(number))
    assert numpy_helper.to_array(made.graph.initializer[0]) == expected


def test_constant_nodes_are_converted_where_they_stand(tmp_path: Path) -> None:
    nodes = [
        node("Constant", [], ["k"], value_float=0.1), node("Mul", ["x", "k"], ["a"], "A"), node("Mul", ["a", "k"], ["y"], "B"),
    ]  # fmt: skip
    _, made = converted(tmp_path, nodes, weights=(), keep_nodes=["B"])
    constants = {
        n.output[0]: numpy_helper.to_array(n.attribute[0].t) for n in made.graph.node if n.op_type == "Constant"
    }
    assert {name: (a.dtype.name, a.shape, float(a)) for name, a in constants.items()} == {
        "k": ("float16", (), float(np.float16(0.1))), "k_fp32": ("float32", (), float(np.float32(0.1))),
    }  # fmt: skip


def test_weights_that_are_graph_inputs_of_old_models(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["a"], "A"), node("MatMul", ["a", "w"], ["y"], "B")]
    inputs = [value("x"), value("w", (3, 3))]
    mixed, made = converted(tmp_path, nodes, inputs, opset=9, ir=3, keep_nodes=["B"])
    assert made.ir_version == 4  # an initialiser of its own need not be an input from here on
    assert types(made)["w"] == FLOAT16
    assert not any("w" in tensor for tensor, _ in mixed.casts)


# --- types that stay


def test_what_no_schema_allows_stays_fp32(tmp_path: Path) -> None:
    nodes = [node("CumSum", ["x", "axis"], ["a"], "S"), node("Relu", ["a"], ["y"], "R")]
    axis = weight("axis", np.array(0, np.int64))
    mixed, made = converted(tmp_path, nodes, weights=[axis], opset=13)
    assert mixed.without_low == {"S": "CumSum has no float16 in opset 13; it has from opset 14"}
    assert ops(made)[:3] == ["CumSum x axis -> a", "Cast a -> a_fp16", "Relu a_fp16 -> y_fp16"]
    assert not convert_mixed(
        load(save(model(nodes, [value("x")], [value("y", None)], [axis], opset=14), tmp_path / "m.onnx")), "fp16"
    ).without_low


def test_bf16_takes_what_its_opset_knows(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "k"], ["a"], "C"),
        node("Conv", ["a", "k"], ["b"], "C2"),
        node("Relu", ["b"], ["y"], "R"),
    ]
    kernel = weight("k", np.ones((2, 2, 1, 1), np.float32))
    x = [value("x", (1, 2, 4, 4))]
    mixed, made = converted(tmp_path, nodes, x, weights=[kernel], precision="bf16")
    assert list(mixed.without_low) == ["C", "C2"]
    assert types(made)["k"] == FLOAT
    assert sorted(mixed.casts) == [("b", "bf16"), ("y_bf16", "fp32")]
    mixed, made = converted(tmp_path, nodes, x, weights=[kernel], precision="bf16", opset=22, ir=10)
    assert not mixed.without_low
    assert types(made)["k"] == BFLOAT16


def test_parameters_of_resize_and_shapes_stay(tmp_path: Path) -> None:
    nodes = [
        node("Shape", ["x"], ["s"]), node("Slice", ["s", "two", "four"], ["hw"]), node("Cast", ["hw"], ["hwf"], "toF", to=FLOAT),
        node("Mul", ["hwf", "half"], ["small"], "M"), node("Floor", ["small"], ["whole"], "F"), node("Cast", ["whole"], ["sizes"], "toI", to=INT64),
        node("Concat", ["nc", "sizes"], ["size4"], axis=0), node("Resize", ["x", "", "", "size4"], ["r"], mode="linear"),
        node("Resize", ["r", "", "scales"], ["y"], mode="linear"),
    ]  # fmt: skip
    weights = [
        weight("two", np.array([2], np.int64)), weight("four", np.array([4], np.int64)), weight("half", np.float32(0.3)),
        weight("nc", np.array([1, 1], np.int64)), weight("scales", np.array([1, 1, 1.3, 1.3], np.float32)),
    ]  # fmt: skip
    mixed, made = converted(tmp_path, nodes, [value("x", (1, 1, "h", "w"))], weights=weights)
    found = types(made)
    assert {name: found[name] for name in ("hwf", "half", "small", "scales", "r")} == {
        "hwf": FLOAT, "half": FLOAT, "small": FLOAT, "scales": FLOAT, "r": FLOAT16,
    }  # fmt: skip
    assert set(mixed.shape_nodes) == {"toF", "M", "F", "toI"}
    assert sorted(mixed.casts) == [("x", "fp16"), ("y_fp16", "fp32")]


def test_quantisation_stays(tmp_path: Path) -> None:
    nodes = [
        node("Relu", ["x"], ["a"], "R"), node("QuantizeLinear", ["a", "s", "z"], ["q"], "Q"), node("DequantizeLinear", ["q", "s", "z"], ["d"], "DQ"),
        node("Exp", ["d"], ["y"], "E"),
    ]  # fmt: skip
    mixed, made = converted(
        tmp_path, nodes, weights=[weight("s", np.float32(0.1)), weight("z", np.int8(0))], opset=21, ir=10
    )
    assert types(made)["s"] == FLOAT
    assert list(mixed.without_low) == ["Q", "DQ"]
    assert sorted(mixed.casts) == [("a", "fp32"), ("d", "fp16"), ("x", "fp16"), ("y_fp16", "fp32")]


@needs_opset(26)
def test_bits_stay(tmp_path: Path) -> None:
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("BitCast", ["a"], ["i"], "B", to=TensorProto.INT32),
        node("BitCast", ["i"], ["f"], to=FLOAT),
        node("Exp", ["f"], ["y"]),
    ]
    mixed, _ = converted(tmp_path, nodes, weights=(), opset=26, ir=13)
    assert list(mixed.without_low) == ["B", "BitCast(f)"]
    assert sorted(mixed.casts) == [("a", "fp32"), ("f", "fp16"), ("x", "fp16"), ("y_fp16", "fp32")]


def test_sequences_stay_fp32(tmp_path: Path) -> None:
    nodes = [
        node("Relu", ["x"], ["a"]), node("SequenceConstruct", ["a", "x"], ["s"]), node("SequenceAt", ["s", "i"], ["b"]), node("Exp", ["b"], ["y"]),
    ]  # fmt: skip
    mixed, _ = converted(tmp_path, nodes, weights=[weight("i", np.array(1, np.int64))])
    assert sorted(mixed.casts) == [("a", "fp32"), ("b", "fp16"), ("x", "fp16"), ("y_fp16", "fp32")]


def test_statistics_whose_type_an_attribute_fixes(tmp_path: Path) -> None:
    nodes = [node("LayerNormalization", ["x", "g"], ["n", "mean"], "LN"), node("Add", ["n", "mean"], ["y"])]
    mixed, made = converted(tmp_path, nodes, weights=[weight("g", np.ones(3, np.float32))])
    assert ("mean_fp32", "fp16") in mixed.casts
    assert types(made)["mean"] == FLOAT16


def test_types_named_by_attributes(tmp_path: Path) -> None:
    nodes = [
        node("Shape", ["x"], ["s"]), node("ConstantOfShape", ["s"], ["z"], value=weight("v", np.array([2.5], np.float32))),
        node("RandomNormalLike", ["x"], ["r"]), node("Add", ["z", "r"], ["y"]),
    ]  # fmt: skip
    _, made = converted(tmp_path, nodes, weights=())
    assert types(made)["z"] == types(made)["r"] == FLOAT16


def test_the_engine_has_the_same_tables() -> None:
    assert kinds.is_movement is movement.is_movement is rounding.is_movement
    assert rounding.parameters is movement.parameters
