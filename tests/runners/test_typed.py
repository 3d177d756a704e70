"""The typed runner: every tensor rounded to the type it declares, which ONNX Runtime does not do by itself; names and rows as the model has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from probe.errors import InputError
from probe.model import load
from probe.model.mixed import convert_mixed
from probe.runners.ort import OrtRunner
from probe.runners.protocol import RunnerOptions, RunnerTensor
from probe.runners.typed import TypedRunner
from tests.model.builders import BFLOAT16, BOOL, FLOAT, FLOAT16, INT64, graph, model, node, save, untyped, value, weight
from tests.versions import needs_opset

X = np.array([[1, 300, 3], [0.1, 2049, -4]], np.float32)


def rows(
    tmp_path: Path, proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray], **options: Any
) -> dict[str, RunnerTensor]:
    runner = TypedRunner(load(save(proto, tmp_path / "m.onnx")), RunnerOptions(**options))
    found = {tensor.info.name: tensor for tensor in runner.run(feeds, "one")}
    runner.close()
    return found


def typed(
    nodes: list[onnx.NodeProto], half: int = FLOAT16, weights: tuple[onnx.TensorProto, ...] = ()
) -> onnx.ModelProto:
    return model(nodes, [value("x", (2, 3), half)], [value("y", None, half)], weights)


def array(made: dict[str, RunnerTensor], name: str) -> np.ndarray:
    found = made[name].array
    assert found is not None
    return found


SQUARE = [node("Mul", ["x", "x"], ["q"], "Q"), node("Sqrt", ["q"], ["y"], "S")]


def test_what_overflows_overflows(tmp_path: Path) -> None:
    """The case that ONNX Runtime's CPU provider gets wrong: it computes FP16 graphs in FP32."""
    made = rows(tmp_path, typed(SQUARE), {"x": X})
    assert np.isinf(array(made, "q")[0, 1]) and np.isinf(array(made, "y")[0, 1])
    as_is = OrtRunner(load(tmp_path / "m.onnx"), RunnerOptions(as_is=True))
    assert array({t.info.name: t for t in as_is.run({"x": X}, "one")}, "y")[0, 1] == 300


@pytest.mark.parametrize(
    ("half", "dtype", "said"), [(FLOAT16, np.float16, "fp16"), (BFLOAT16, ml_dtypes.bfloat16, "bf16")]
)
def test_every_tensor_is_rounded_once(tmp_path: Path, half: int, dtype: type, said: str) -> None:
    nodes = [node("Mul", ["x", "w"], ["a"], "A"), node("Exp", ["a"], ["b"], "B"), node("Identity", ["b"], ["y"], "I")]
    w = weight("w", np.array([[0.3, 0.01, 0.7]]).astype(dtype))
    made = rows(tmp_path, typed(nodes, half, (w,)), {"x": X})

    def rounded(numbers: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return numbers.astype(dtype).astype(np.float32)

    a = rounded(rounded(X) * np.array([[0.3, 0.01, 0.7]]).astype(dtype).astype(np.float32))
    assert np.array_equal(array(made, "a"), a)
    assert np.array_equal(array(made, "y"), array(made, "b"))
    assert np.allclose(array(made, "b"), rounded(np.exp(a)), rtol=0.01)
    assert np.array_equal(array(made, "b"), rounded(array(made, "b")))
    assert [t.info.name for t in made.values()] == ["a", "b", "y"]
    info = made["b"].info
    assert (info.dtype, info.precision, info.nodes, info.reads, info.role) == (
        "float32",
        said,
        ("B",),
        ("a",),
        "internal",
    )


def test_fp32_parts_stay_fp32(tmp_path: Path) -> None:
    nodes = [
        node("Cast", ["x"], ["wide"], "up", to=FLOAT), node("Mul", ["wide", "wide"], ["q"], "Q"), node("Sqrt", ["q"], ["r"], "S"),
        node("Cast", ["r"], ["y"], "down", to=FLOAT16),
    ]  # fmt: skip
    made = rows(tmp_path, typed(nodes), {"x": X})
    assert array(made, "q")[0, 1] == 90000
    assert made["q"].info.precision is None
    assert array(made, "y")[0, 1] == 300
    assert made["y"].info.precision == "fp16"


def test_bodies_are_typed_too(tmp_path: Path) -> None:
    then = graph([node("Mul", ["x", "x"], ["q"], "Q"), node("Sqrt", ["q"], ["t"], "S")], outputs=[untyped("t")])
    other = graph([node("Identity", ["x"], ["e"], "E")], outputs=[untyped("e")])
    body = graph(
        [node("Mul", ["h", "h"], ["n"], "N"), node("Identity", ["go"], ["go2"])], [value("i", (), INT64), value("go", (), BOOL), value("h", (2, 3), FLOAT16)],
        [untyped("go2"), untyped("n")],
    )  # fmt: skip
    nodes = [
        node("If", ["c"], ["o"], "I", then_branch=then, else_branch=other), node("Loop", ["m", "", "o"], ["y"], "L", body=body),
    ]  # fmt: skip
    ports = [value("x", (2, 3), FLOAT16), value("c", (), BOOL)], [value("y", (2, 3), FLOAT16)]
    proto = model(nodes, *ports, [weight("m", np.array(2, np.int64))])
    small = np.full((2, 3), 20, np.float32)
    made = rows(tmp_path, proto, {"x": X, "c": np.array(True)})
    assert np.isinf(array(made, "o")[0, 1])
    assert np.isinf(array(made, "q")[0, 1])
    made = rows(tmp_path, proto, {"x": small, "c": np.array(False)})
    assert np.isinf(array(made, "y")).all()  # 20 ** 4
    assert array(made, "n").shape == (2, 2, 3)
    assert not any("unrounded" in name or "|" in name for name in made)


def test_nothing_typed_low_is_said(tmp_path: Path) -> None:
    proto = model(SQUARE, [value("x")], [value("y", None)])
    runner = TypedRunner(load(save(proto, tmp_path / "m.onnx")))
    assert array({t.info.name: t for t in runner.run({"x": X}, "one")}, "y")[0, 1] == 300
    assert runner.header.notes == ("the model declares no FP16 or BF16 tensor: nothing is rounded",)


def test_local_functions(tmp_path: Path) -> None:
    body = [helper.make_node("Mul", ["a", "a"], ["q"]), helper.make_node("Sqrt", ["q"], ["b"])]
    function = helper.make_function("own", "Norm", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    ports = [value("x", (2, 3), FLOAT16)], [value("y", (2, 3), FLOAT16)]
    proto = model([node("Norm", ["x"], ["y"], "N", domain="own")], *ports, domains=["own"], functions=[function])
    assert np.isinf(array(rows(tmp_path, proto, {"x": X}), "y")[0, 1])


def test_the_header_and_select(tmp_path: Path) -> None:
    made = rows(tmp_path, typed(SQUARE), {"x": X}, select=lambda name: name == "q")
    assert list(made) == ["q"]
    header = TypedRunner(load(tmp_path / "m.onnx")).header
    assert (header.runner, header.precision) == ("typed", "as typed")
    assert header.notes == ()


def test_inputs_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="overflow"):
        rows(tmp_path, typed(SQUARE), {"x": X * 1e6})
    with pytest.raises(InputError, match="no data for input 'x'"):
        rows(tmp_path, typed(SQUARE), {})


@needs_opset(26)
def test_bits_cannot_be_widened(tmp_path: Path) -> None:
    nodes = [node("BitCast", ["x"], ["i"], "B", to=TensorProto.INT16), node("Cast", ["i"], ["y"], to=FLOAT16)]
    proto = typed(nodes)
    proto.opset_import[0].version = 26
    proto.ir_version = 11
    with pytest.raises(InputError, match="bits of half-precision numbers"):
        rows(tmp_path, proto, {"x": X})


def test_a_converted_model_needs_no_file(tmp_path: Path) -> None:
    source = load(save(model(SQUARE, [value("x")], [value("y", None)]), tmp_path / "m.onnx"))
    bad, good = convert_mixed(source, "fp16"), convert_mixed(source, "fp16", keep_tensors=["q"])
    outputs = [{t.info.name: t for t in TypedRunner(mixed.model()).run({"x": X}, "one")} for mixed in (bad, good)]
    assert np.isinf(array(outputs[0], "y")[0, 1])
    assert array(outputs[1], "y")[0, 1] == 300
