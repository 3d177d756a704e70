"""What a golden says where ONNX Runtime saturates products of uint8 and int8; processors of both kinds, made up."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import probe
from probe.runners import saturation
from probe.runners.ort import OrtRunner
from tests.model import builders as b

U8, I8, I32 = TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32
SAID = "saturates sums of uint8 x int8 products"


@pytest.fixture(params=[True, False], ids=["saturates", "exact"])
def processor(request, monkeypatch):
    monkeypatch.setattr(saturation, "saturates", lambda: request.param)
    return request.param


def products(kind: int = I8, count: int = 1) -> onnx.ModelProto:
    """x -> quantised -> ``count`` products with a weight of 8 bits -> float."""
    weight = np.ones((4, 4), onnx.helper.tensor_dtype_to_np_dtype(kind))
    nodes = [b.node("DynamicQuantizeLinear", ["x"], ["q", "s", "zero"])]
    for at in range(count):
        nodes += [
            b.node("MatMulInteger", ["q", "w", "zero"], [f"sums{at}"], name=f"product_{at}"),
            b.node("Cast", [f"sums{at}"], [f"y{at}"], to=TensorProto.FLOAT),
        ]
    outputs = [b.value(f"y{at}", (2, 4)) for at in range(count)]
    return b.model(nodes, [b.value("x", (2, 4))], outputs, [b.weight("w", weight)])


def notes_of(proto, tmp_path) -> list[str]:
    made = saturation.saturation_note(probe.load(b.save(proto, tmp_path / "m.onnx")))
    return [made] if made else []


def test_only_uint8_on_the_left_of_int8(tmp_path, processor):
    assert bool(notes_of(products(I8), tmp_path)) is processor
    assert not notes_of(products(U8), tmp_path)
    assert not notes_of(b.mlp(), tmp_path)


def test_names_three_and_counts_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(saturation, "saturates", lambda: True)
    [said] = notes_of(products(count=5), tmp_path)
    assert SAID in said
    assert "product_0, product_1, product_2 and 2 more may be wrong" in said


def test_in_bodies_and_functions(tmp_path, monkeypatch):
    monkeypatch.setattr(saturation, "saturates", lambda: True)
    one = b.node("MatMulInteger", ["a", "w"], ["t"], name="inside")
    branches = [
        b.graph([one if at else b.node("Identity", ["old"], ["t"])], [], [b.value("t", None, I32)]) for at in (0, 1)
    ]
    proto = b.model(
        [b.node("If", ["c"], ["y"], then_branch=branches[1], else_branch=branches[0])],
        [b.value("a", (2, 3), U8), b.value("c", (), TensorProto.BOOL), b.value("old", (2, 3), I32)],
        [b.value("y", (2, 3), I32)],
        [b.weight("w", np.ones((3, 3), np.int8))],
    )
    assert "inside may be wrong" in notes_of(proto, tmp_path)[0]
    function = onnx.helper.make_function(
        "mine", "F", ["a", "w"], ["t"], [b.node("MatMulInteger", ["a", "w"], ["t"])], [onnx.helper.make_opsetid("", 17)]
    )
    proto = b.model(
        [b.node("F", ["a", "w"], ["y"], domain="mine")], [b.value("a", (2, 3), U8)], [b.value("y", (2, 3), I32)],
        [b.weight("w", np.ones((3, 3), np.int8))], domains=["mine"], functions=[function],
    )  # fmt: skip
    assert "MatMulInteger in function F may be wrong" in notes_of(proto, tmp_path)[0]


def test_asked_only_where_there_is_such_a_product(tmp_path, monkeypatch):
    monkeypatch.setattr(saturation, "saturates", lambda: pytest.fail("asked"))
    assert not notes_of(products(U8), tmp_path)


def test_the_processor_is_judged_by_the_arithmetic_it_does(tmp_path):
    """What is said of this processor is true of it."""
    path = b.save(
        b.model(
            [b.node("MatMulInteger", ["a", "w"], ["y"])], [b.value("a", (1, 64), U8)], [b.value("y", (1, 16), I32)],
            [b.weight("w", np.full((64, 16), 127, np.int8))],
        ),
        tmp_path / "m.onnx",
    )  # fmt: skip
    a = np.full((1, 64), 255, np.uint8)
    runner = OrtRunner(probe.load(path))
    [made] = [tensor.array for tensor in runner.run({"a": a}, "one") if tensor.info.name == "y"]
    assert made is not None
    exact = np.array_equal(made, np.full((1, 16), 64 * 255 * 127))
    assert exact is not saturation.saturates()
    assert any(SAID in note for note in runner.header.notes) is not exact


def test_in_what_every_command_returns(tmp_path, processor):
    path = b.save(products(), tmp_path / "m.onnx")
    feeds = {"x": np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)}
    probe.dump(path, tmp_path / "golden", inputs=feeds)
    results = [
        probe.open_recording(tmp_path / "golden").header,
        probe.run(path, inputs=feeds, accept=["range_rel<=0.5"]),
        probe.run(path, golden=tmp_path / "golden", accept=["range_rel<=0.5"]),
        probe.check(path, inputs=feeds),
        probe.find(path, inputs=feeds, accept=["range_rel<=0.5"]),
        probe.convert(path, tmp_path / "out.onnx", inputs=feeds, accept=["range_rel<=0.5"]),
    ]
    for result in results:
        assert sum(SAID in note for note in result.notes) == processor, result
