"""Mixed-precision models: bodies, local functions, names, ports and files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from probe.errors import InputError
from probe.model import load
from probe.model.mixed import convert_mixed
from tests.model.builders import BOOL, FLOAT, FLOAT16, INT64, graph, model, node, save, untyped, value, weight
from tests.model.conversions import CHAIN, converted, types


def if_model(inside: list[onnx.NodeProto], weights: Sequence[onnx.TensorProto] = ()) -> list[onnx.NodeProto]:
    then = graph(inside, outputs=[untyped(inside[-1].output[0])], name="then", weights=weights)
    other = graph([node("Identity", ["a"], ["e"], "EI")], outputs=[untyped("e")], name="else")
    return [
        node("Relu", ["x"], ["a"], "R"), node("If", ["c"], ["o"], "I", then_branch=then, else_branch=other), node("Exp", ["o"], ["y"], "E"),
    ]  # fmt: skip


def test_an_if_returns_one_type(tmp_path: Path) -> None:
    inputs = [value("x"), value("c", (), BOOL)]
    inside = [node("Sqrt", ["a"], ["s"], "S"), node("Log", ["s"], ["t"], "L")]
    mixed, made = converted(tmp_path, if_model(inside), inputs, weights=())
    assert sorted(mixed.casts) == [("x", "fp16"), ("y_fp16", "fp32")]
    assert types(made)["o"] == FLOAT16
    mixed, made = converted(tmp_path, if_model(inside), inputs, weights=(), keep_tensors=["t"])
    assert types(made)["o"] == FLOAT  # kept in one branch, wide in the other
    assert mixed.lifted == ("L", "E") or set(mixed.lifted) == {"L", "E"}
    assert mixed.kept_tensors == ("o", "t")
    mixed, made = converted(tmp_path, if_model(inside), inputs, weights=(), keep_tensors=["s"])
    assert types(made)["o"] == FLOAT16
    assert {tensor for tensor, _ in mixed.casts} == {"x", "a", "t_fp32", "y_fp16"}


def loop_model() -> list[onnx.NodeProto]:
    body = graph(
        [node("Mul", ["h", "k"], ["p"], "P"), node("Add", ["p", "x"], ["n"], "N"), node("Identity", ["go"], ["go2"]), node("Exp", ["n"], ["e"], "E")],
        [value("i", (), INT64), value("go", (), BOOL), value("h")], [untyped("go2"), untyped("n"), untyped("e")], name="body",
    )  # fmt: skip
    return [
        node("Loop", ["m", "", "x"], ["f", "es"], "L", body=body),
        node("ReduceSum", ["es"], ["r"]),
        node("Add", ["f", "r"], ["y"]),
    ]


def test_a_loop_carries_one_type(tmp_path: Path) -> None:
    y = [value("y", ("a", "b", "c"))]
    weights = [weight("m", np.array(3, np.int64)), weight("k", np.float32(0.5))]
    mixed, made = converted(tmp_path, loop_model(), outputs=y, weights=weights)
    assert sorted(mixed.casts) == [("x", "fp16"), ("y_fp16", "fp32")]
    assert types(made)["f"] == types(made)["es"] == FLOAT16
    mixed, made = converted(tmp_path, loop_model(), outputs=y, weights=weights, keep_tensors=["n"])
    (body,) = [a.g for n in made.graph.node if n.op_type == "Loop" for a in n.attribute]
    assert body.input[2].type.tensor_type.elem_type == FLOAT
    assert types(made)["f"] == FLOAT16  # rounded when the loop is left
    assert set(mixed.lifted) == {"P", "N", "E"}
    mixed, made = converted(tmp_path, loop_model(), outputs=y, weights=weights, keep_nodes=["L"])
    assert types(made)["k"] == types(made)["f"] == FLOAT
    assert sorted(mixed.casts) == [("es", "fp16"), ("f", "fp16"), ("y_fp16", "fp32")]


def test_a_scan(tmp_path: Path) -> None:
    body = graph(
        [node("Add", ["h", "s"], ["n"], "N"), node("Exp", ["n"], ["e"], "E")], [value("h", (3,)), value("s", (3,))], [untyped("n"), untyped("e")],
        name="body",
    )  # fmt: skip
    nodes = [
        node("Scan", ["h0", "x"], ["f", "es"], "S", body=body, num_scan_inputs=1),
        node("ReduceSum", ["es"], ["r"]),
        node("Add", ["f", "r"], ["y"]),
    ]
    h0 = [weight("h0", np.zeros(3, np.float32))]
    mixed, made = converted(tmp_path, nodes, weights=h0)
    assert sorted(mixed.casts) == [("x", "fp16"), ("y_fp16", "fp32")]
    assert types(made)["h0"] == FLOAT16
    mixed, made = converted(tmp_path, nodes, weights=h0, keep_tensors=["x"])
    assert "x" not in {tensor for tensor, _ in mixed.casts}


def test_functions_are_inlined(tmp_path: Path) -> None:
    body = [helper.make_node("Mul", ["a", "a"], ["q"]), helper.make_node("Sqrt", ["q"], ["b"])]
    function = helper.make_function("own", "Norm", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    proto = model(
        [node("Norm", ["x"], ["n"], "N", domain="own"), node("Exp", ["n"], ["y"])],
        [value("x")],
        [value("y")],
        domains=["own"],
        functions=[function],
    )
    mixed = convert_mixed(load(save(proto, tmp_path / "f.onnx")), "fp16")
    mixed.save(tmp_path / "out.onnx")
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)
    assert sorted(mixed.casts) == [("x", "fp16"), ("y_fp16", "fp32")]
    assert any("inlined" in note for note in mixed.notes)


# --- names, ports, files


def test_nodes_get_names_and_names_stay_unique(tmp_path: Path) -> None:
    nodes = [
        node("Relu", ["x"], ["x_fp16"]),
        node("Exp", ["x_fp16"], ["y_fp16"], "twice"),
        node("Abs", ["y_fp16"], ["y"], "twice"),
    ]
    mixed, made = converted(tmp_path, nodes, weights=())
    assert mixed.casts == (("y_fp16_2", "fp32"), ("x", "fp16"))
    assert [n.name for n in made.graph.node] == [
        "Cast_x_fp16_2", "Relu(x_fp16)", "Exp(y_fp16)", "Abs(y)", "Cast_y"
    ]  # fmt: skip


def test_a_half_model_keeps_its_ports(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["a"], "A"), node("Exp", ["a"], ["y"], "B")]
    half = weight("w", np.ones((3, 3), np.float16))
    ports = [value("x", (2, 3), FLOAT16)], [value("y", (2, 3), FLOAT16)]
    mixed, made = converted(tmp_path, nodes, *ports, weights=[half])
    assert mixed.casts == ()
    assert types(made)["w"] == FLOAT16
    mixed, made = converted(tmp_path, nodes, *ports, weights=[half], keep_tensors=["a"])
    assert types(made)["x"] == types(made)["y"] == FLOAT16
    assert sorted(mixed.casts) == [("x", "fp32"), ("y_fp32", "fp16")]
    returned = ports[0], [*ports[1], value("x", (2, 3), FLOAT16)]  # an input that is handed back as it came
    mixed, made = converted(tmp_path, nodes, *returned, weights=[half], precision="bf16")
    assert [v.name for v in made.graph.output] == ["y", "x"]
    assert types(made)["x"] == FLOAT16
    assert types(made)["a"] == TensorProto.BFLOAT16


def test_external_weights_go_beside_the_result(tmp_path: Path) -> None:
    proto = model(
        [node("MatMul", ["x", "w"], ["y"])],
        [value("x", (2, 64))],
        [value("y", None)],
        [weight("w", np.ones((64, 64), np.float32))],
    )
    onnx.save(proto, str(tmp_path / "in.onnx"), save_as_external_data=True, location="in.bin", size_threshold=0)
    out = tmp_path / "elsewhere"
    out.mkdir()
    convert_mixed(load(tmp_path / "in.onnx"), "fp16").save(out / "out.onnx")
    assert sorted(path.name for path in out.iterdir()) == ["out.onnx", "out.onnx.data"]
    (tmp_path / "in.bin").unlink()
    (array,) = [numpy_helper.to_array(t) for t in onnx.load(str(out / "out.onnx")).graph.initializer]
    assert array.dtype == np.float16
    assert np.all(array == 1)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"precision": "bf16", "opset": 12}, "ONNX has bfloat16 from opset 13 on, and the model is of opset 12"),
        ({"precision": "fp8"}, "cannot convert to 'fp8'"),
        ({"keep_tensors": ["bb"]}, "no tensor is called 'bb'"),
        ({"keep_nodes": ["Z"]}, "no node is called 'Z'"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, how: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        converted(tmp_path, CHAIN, **how)
    assert error.value.what == message


def test_a_target_that_cannot_be_written(tmp_path: Path) -> None:
    mixed, _ = converted(tmp_path, CHAIN)
    with pytest.raises(InputError, match="cannot write"):
        mixed.save(tmp_path / "nowhere" / "out.onnx")
    assert not (tmp_path / "nowhere").exists()
