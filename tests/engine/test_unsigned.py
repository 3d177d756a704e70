"""Products of 8-bit integers on the CPU device: numpy's int32, whatever the processor; every mix of signs, values at their ends."""

from __future__ import annotations

from itertools import product

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from probe.engine.assignment import Assignment, Choice
from probe.engine.build import compile_model
from probe.engine.device.cpu.device import CpuDevice
from probe.engine.engine import Engine
from probe.model import load
from tests.model import builders as b

U8, I8 = np.uint8, np.int8
MIXES = list(product((U8, I8), repeat=2))
RANDOM = np.random.default_rng(8)


def ends(kind: type, *shape: int) -> np.ndarray:
    """Both ends of a type, the upper one more often: pairs of them do not fit 16 bits."""
    info = np.iinfo(kind)
    return RANDOM.choice([info.max, info.min, info.max - 1], shape, p=[0.6, 0.2, 0.2]).astype(kind)


def engine_of(
    tmp_path, op, inputs, constant, out, *, domain="", precision="fp16", **attributes
) -> tuple[Engine, dict[str, np.ndarray]]:
    """An engine of one node (and a Relu of another layer beside it); inputs named in ``constant`` are weights."""
    given = {name: np.asarray(array) for name, array in inputs.items() if array is not None}
    ports = [
        b.value(name, list(array.shape), onnx.helper.np_dtype_to_tensor_dtype(array.dtype))
        for name, array in given.items() if name not in constant
    ]  # fmt: skip
    names = [name if name in given else "" for name in inputs]
    proto = b.model(
        [b.node(op, names, ["y"], domain=domain, **attributes), b.node("Relu", ["f"], ["z"])],
        [*ports, b.value("f")],
        [b.value("y", None, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(out))), b.value("z")],
        [numpy_helper.from_array(given[name], name) for name in constant if name in given],
        domains=["com.microsoft"] if domain else (),
    )
    feeds = {name: array for name, array in given.items() if name not in constant}
    return compile_model(load(b.save(proto, tmp_path / "m.onnx")), precision=precision, passes="none"), feeds | {
        "f": np.ones((2, 3), np.float32)
    }


def all_executors(engine: Engine, feeds) -> list[np.ndarray | None]:
    """y of the gated session, of a session a layer, of a single layer, and of nodes one by one."""
    layered: dict[str, np.ndarray | None] = {}
    engine.run(feeds, tap=lambda tapped: layered.update({tapped.name: tapped.array}))
    [layer] = [one for one in engine.layers if any(value.name == "y" for value in one.outputs)]
    plan = engine.rounding.plan(Assignment(Choice("fp32")))[layer.name]
    assert isinstance(engine.device, CpuDevice)
    host = engine.device.layered
    reads = {id(value): feeds[value.name] for value in layer.reads}
    inputs = [
        None if v is None else host._weights.array(v) if v.is_initializer() else feeds[v.name]
        for v in layer.nodes[0].inputs
    ]
    return [
        engine.run(feeds)["y"], layered["y"], host.evaluate(layer, reads, plan)["y"], host._run_node(layer, layer.nodes[0], inputs)[0],
    ]  # fmt: skip


def check(engine, feeds, expected) -> None:
    for made in all_executors(engine, feeds):
        assert made is not None and made.dtype == expected.dtype
        assert np.array_equal(made, expected)


def convolved(x, w, x_zero, w_zero, group, pad) -> np.ndarray:
    """Cross-correlation in int32; pads stand for the zero point."""
    x = np.pad(x.astype(np.int32) - x_zero, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    w = w.astype(np.int32) - w_zero
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], (2, 3))
    each, made = w.shape[1], w.shape[0] // group
    parts = [
        np.einsum("nchwij,mcij->nmhw", windows[:, g * each : (g + 1) * each], w[g * made : (g + 1) * made])
        for g in range(group)
    ]
    return np.concatenate(parts, 1)


def quantised(sums, scale, zero, kind) -> np.ndarray:
    info = np.iinfo(kind)
    return np.clip(np.rint(sums * np.float64(scale)) + zero, info.min, info.max).astype(kind)


# The zero points of b: omitted, one, one a column; a large weight is handed over in memory, a small one written into the graph.
ZEROS = (None, -128, "columns")


@pytest.mark.parametrize("zero", ZEROS, ids=str)
@pytest.mark.parametrize("constant", [(), ("b",), ("b", "b_zero")], ids=str)
@pytest.mark.parametrize(("left", "right"), MIXES)
def test_matmul_integer(tmp_path, left, right, constant, zero):
    a, w = ends(left, 7, 130), ends(right, 130, 33)
    zeros = None if zero is None else np.arange(33).astype(right) if zero == "columns" else right(np.iinfo(right).min)
    inputs = {"a": a, "b": w, "a_zero": None if zero is None else left(9), "b_zero": zeros}
    engine, feeds = engine_of(tmp_path, "MatMulInteger", inputs, constant, np.int32)
    shift = 0 if zero is None else 9
    expected = (a.astype(np.int32) - shift) @ (w.astype(np.int32) - (0 if zeros is None else zeros.astype(np.int32)))
    check(engine, feeds, expected)


@pytest.mark.parametrize("constant", [(), ("b", "b_zero")], ids=str)
@pytest.mark.parametrize(("left", "right"), [(U8, U8), (U8, I8), (I8, I8)])
def test_qlinear_matmul(tmp_path, left, right, constant):
    a, w = ends(left, 6, 64), ends(right, 64, 5)
    zeros = np.arange(5).astype(right)
    inputs = {
        "a": a, "a_scale": np.float32(1), "a_zero": left(3), "b": w, "b_scale": np.ones(5, np.float32), "b_zero": zeros,
        "y_scale": np.float32(16384), "y_zero": left(4),
    }  # fmt: skip
    engine, feeds = engine_of(tmp_path, "QLinearMatMul", inputs, constant, left)
    sums = (a.astype(np.int32) - 3) @ (w.astype(np.int32) - zeros.astype(np.int32))
    check(engine, feeds, quantised(sums, 1 / 16384, 4, left))


GROUPS = [(8, 16, 1), (8, 8, 2), (16, 16, 16), (1, 16, 1), (4, 8, 4)]


@pytest.mark.parametrize(("channels", "made", "group"), GROUPS)
@pytest.mark.parametrize("constant", [(), ("w", "w_zero")], ids=str)
@pytest.mark.parametrize(("image", "weight"), MIXES)
def test_conv_integer(tmp_path, image, weight, constant, channels, made, group):
    x, w = ends(image, 2, channels, 6, 6), ends(weight, made, channels // group, 3, 3)
    for zeros in (True, False):
        inputs = {"x": x, "w": w} | ({"x_zero": image(50), "w_zero": weight(0)} if zeros else {})
        engine, feeds = engine_of(tmp_path, "ConvInteger", inputs, constant, np.int32, group=group, pads=[1, 1, 1, 1])
        check(engine, feeds, convolved(x, w, 50 if zeros else 0, 0, group, 1).astype(np.int32))


@pytest.mark.parametrize(("channels", "made", "group"), GROUPS)
@pytest.mark.parametrize("constant", [(), ("w", "w_zero")], ids=str)
@pytest.mark.parametrize(("image", "weight"), [(U8, U8), (U8, I8), (I8, I8)])
def test_qlinear_conv(tmp_path, image, weight, constant, channels, made, group):
    x, w = ends(image, 1, channels, 6, 6), ends(weight, made, channels // group, 3, 3)
    inputs = {
        "x": x, "x_scale": np.float32(1), "x_zero": image(7), "w": w, "w_scale": np.ones(made, np.float32),
        "w_zero": np.full(made, 2, weight), "y_scale": np.float32(8192), "y_zero": image(4),
    }  # fmt: skip
    engine, feeds = engine_of(tmp_path, "QLinearConv", inputs, constant, image, group=group, pads=[1, 1, 1, 1])
    check(engine, feeds, quantised(convolved(x, w, 7, 2, group, 1), 1 / 8192, 4, image))


@pytest.mark.parametrize("constant", [(), ("b", "b_zero")], ids=str)
@pytest.mark.parametrize("op", ["DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QGemm"])
def test_products_of_onnx_runtimes_own(tmp_path, op, constant):
    a, w, one = ends(U8, 6, 64), ends(I8, 64, 5), np.float32(1)
    a[0, 0], a[0, 1] = 0, 255  # so that quantising them again changes nothing
    inputs = {
        "DynamicQuantizeMatMul": {"a": a.astype(np.float32), "b": w, "b_scale": one, "b_zero": I8(-2)},
        "MatMulIntegerToFloat": {"a": a, "b": w, "a_scale": one, "b_scale": one, "a_zero": U8(0), "b_zero": I8(-2)},
        "QGemm": {"a": a, "a_scale": one, "a_zero": U8(0), "b": w, "b_scale": one, "b_zero": I8(-2)},
    }[op]
    engine, feeds = engine_of(
        tmp_path,
        op,
        inputs,
        (*constant, "b_scale", "a_scale", "a_zero"),
        np.float32,
        domain="com.microsoft",
        precision="fp32",
    )
    check(engine, feeds, (a.astype(np.int32) @ (w.astype(np.int32) + 2)).astype(np.float32))
