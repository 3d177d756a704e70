"""Windows over three axes, and what else slides over images, against the CPU device: rows of volume_cases.py, and a network that is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from probe import ir
from probe.engine.assignment import Assignment, Choice
from probe.engine.build import compile_model
from probe.engine.device.cuda.compiling.compile import Source
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.layers.chain import Step
from probe.engine.device.cuda.layers.pointwise import Reading
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.table import OPS
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.channels_last import channels_last, dense_when_asked
from probe.engine.device.cuda.tensors.formats import F16, F32
from probe.engine.device.cuda.tensors.tensor import host_tensor
from probe.model import load
from tests.engine.cuda.cases import Case
from tests.engine.cuda.compared import PRECISIONS, check, table
from tests.engine.cuda.test_wgmma import hopper  # noqa: F401 - a fixture
from tests.engine.cuda.test_wgmma_compile import fine
from tests.engine.cuda.test_wgmma_compile import hopper as hopper_null
from tests.engine.cuda.volume_cases import DEEP, MORE_POOLS, RESIZES, VOLUMES

HOST = 4  # one row in so many on the host, too


def rows(*cases: Case) -> list:
    """As ``table``, less on the host: compiling takes longest there."""
    found = table(*cases)
    here = [at for at, row in enumerate(found) if row.values[0] == "host"][::HOST]
    return [row for at, row in enumerate(found) if row.values[0] == "gpu" or at in here]


UNIT = {"fp32": 2.0**-23, "tf32": 2.0**-10, "fp16": 2.0**-10, "bf16": 2.0**-7}


@pytest.mark.parametrize(("place", "case", "precision"), rows(*VOLUMES))
def test_convolutions(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize("place", ["hopper", pytest.param("gpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32"])
@pytest.mark.parametrize("case", DEEP, ids=str)
def test_windows_that_copies_gather(request, tmp_path, case, precision, place):
    if place == "hopper" and (precision, DEEP.index(case)) not in (("fp16", 0), ("tf32", 1)):
        pytest.skip("compiling takes longest; the GPU computes all")
    backend, seen = request.getfixturevalue(place), list[Source]()
    with patch.object(backend, "launch", lambda source, *given: (seen.append(source), launch(source, *given))):
        launch = type(backend).launch.__get__(backend)
        check(backend, case, precision, tmp_path)
    assert 2 in [dict(one.defines).get("WINDOWS") for one in seen]


@pytest.mark.parametrize("case", DEEP[:2], ids=str)
def test_exact_windows_that_copies_gather(backend, tmp_path, case):
    """In FP32, by matmul_ffma."""
    seen = list[Source]()
    with patch.object(backend, "launch", lambda source, *given: (seen.append(source), launch(source, *given))):
        launch = type(backend).launch.__get__(backend)
        check(backend, case, "fp32", tmp_path)
    assert [dict(one.defines).get("AXES") for one in seen if one.entry == "matmul_ffma"]


@pytest.mark.parametrize("stored", [F16, F32], ids=str)
def test_registers_of_gathered_windows(stored):
    backend = hopper_null()
    backend.multiprocessors = 132
    queue, shape = Queue(backend, 18), (1, 64, 64, 64, 64)
    x, w, bias, beside = (queue.empty(one, stored) for one in (shape, (64, 64, 3, 3, 3), (64,), shape))
    node = ir.node("Conv", [ir.Value(name=name) for name in "xwb"], {"pads": [1] * 6})
    steps = [Step("p", "float", "sum", ""), Step("y", "float", "op_relu(float(op_add(p, x0)))", "", stored)]
    tail = OPS["Conv"].tailed
    assert tail is not None
    tail(queue, Call(node, [x, w, bias], [stored], 18, tf32=stored is F32), [("x0", Reading(beside))], steps)
    ((source, launched),) = [one for one in backend.launched if one[0].entry == "matmul_wgmma"]
    fine(source, launched.shared_bytes, 232)


@pytest.mark.parametrize(("place", "case", "precision"), rows(*MORE_POOLS))
def test_pools(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize(("place", "case", "precision"), rows(*RESIZES))
def test_resizing(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("stored", [F32, F16], ids=str)
def test_channels_last_gives_the_bits_of_planes(backend, stored, mode):
    queue = Queue(backend, 18)
    array = np.random.default_rng(4).standard_normal((2, 24, 5, 7), dtype=np.float32)
    array[0, 3, 2, 2:4], array[1, 7, 0, 0], array[1, 8, 4, 6] = np.nan, np.inf, -np.inf
    planes, other = (queue.convert(host_tensor(array), stored) for _ in range(2))
    made = []
    for one in (planes, dense_when_asked(queue, channels_last(queue, other))):
        node = ir.node("Resize", [ir.Value(name="x")], {"mode": mode})
        scales = host_tensor(np.array([1, 1, 1.7, 2], np.float32))
        (y,) = OPS["Resize"].compute(queue, Call(node, [one, None, scales], [stored], 18))
        assert y is not None
        made.append(y.array(backend))
    ran = [queue.launches.get(entry, 0) for entry in ("resize", "resize_lines", "resize_picks")]
    assert ran == ([1, 0, 1] if mode == "nearest" else [1, 1, 0])
    assert np.isnan(made[0]).any()
    np.testing.assert_array_equal(*made)


LINES = {
    "grows": ((2, 3, 5, 12), (2, 1.5)), "odd": ((3, 7, 9, 13), (1.7, 1.3)), "of volumes": ((1, 5, 4, 6, 20), (2, 1.5, 1.6)), "shrinks": ((2, 5, 9, 600), (0.7, 0.4)),
    "long": ((1, 3, 7, 300), (2, 1.1)), "short": ((4, 9, 3), (1.7,)), "twice": ((2, 3, 9, 40), (1.5, 2)),
}  # fmt: skip


@pytest.mark.parametrize("stored", [F32, F16], ids=str)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("name", LINES)
def test_lines_taken_together_change_no_bit(backend, monkeypatch, name, mode, stored):
    """Small images leave a warp a line, or few, and a thread one; on a machine that is always busy they take all that they have room for."""
    if backend.name == "host" and (stored is F16) is not (mode == "cubic"):
        pytest.skip("compiling takes longest; the GPU computes all")
    shape, scales = LINES[name]
    x = np.random.default_rng(5).standard_normal(shape, dtype=np.float32)
    made, lines = [], []
    for busy in (1 << 20, 0):
        monkeypatch.setattr("probe.engine.device.cuda.ops.together.BUSY", busy)
        queue = Queue(backend, 18)
        node = ir.node("Resize", [ir.Value(name="x")], {"mode": mode})
        given = [queue.convert(host_tensor(x), stored), None, host_tensor(np.array([1, 1, *scales], np.float32))]
        (y,) = OPS["Resize"].compute(queue, Call(node, given, [stored], 18))
        assert y is not None
        made.append(y.array(backend))
        lines += [dict(one.defines)["LINES"] for one in queue.sources if one.entry in ("resize_lines", "resize_picks")]
    assert lines[0] == 1 < lines[1]
    np.testing.assert_array_equal(*made)


def u_net(folder: Path, width: int = 8, extent: int = 8, by: str = "Resize") -> tuple[Path, dict[str, np.ndarray]]:
    """Down and up once, as nnU-Net's stages: convolutions with instance norm, a residual, a pool, what is upsampled joined with what was there."""
    random, weights, nodes = np.random.default_rng(3), [], []

    def weight(name: str, *shape: int) -> str:
        fan = max(int(np.prod(shape[1:])), 1)
        weights.append(numpy_helper.from_array((random.standard_normal(shape) / np.sqrt(fan)).astype(np.float32), name))
        return name

    def add(op: str, out: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, list(inputs), [out], out, **attributes))
        return out

    def block(x: str, name: str, channels: int, outputs: int, stride: int = 1) -> str:
        y = add(
            "Conv", f"{name}.conv", x, weight(f"{name}.w", outputs, channels, 3, 3, 3), weight(f"{name}.b", outputs),
            pads=[1] * 6, strides=[stride] * 3,
        )  # fmt: skip
        y = add("InstanceNormalization", f"{name}.norm", y, weight(f"{name}.s", outputs), weight(f"{name}.t", outputs))
        return add("LeakyRelu", f"{name}.relu", y, alpha=0.01)

    first = block("x", "in", 2, width)
    pooled = add("MaxPool", "pooled", first, kernel_shape=[2] * 3, strides=[2] * 3)
    deep = block(pooled, "deep", width, 2 * width)
    same = add(
        "Conv",
        "same.conv",
        deep,
        weight("same.w", 2 * width, 2 * width, 3, 3, 3),
        weight("same.b", 2 * width),
        pads=[1] * 6,
    )
    deep = add("Relu", "same.relu", add("Add", "same", same, deep))
    if by == "Resize":
        weights.append(numpy_helper.from_array(np.array([1, 1, 2, 2, 2], np.float32), "scales"))
        up = add("Resize", "up", deep, "", "scales", mode="linear")
        up = add("Conv", "thin", up, weight("thin.w", width, 2 * width, 1, 1, 1))
    else:
        up = add(
            "ConvTranspose",
            "up",
            deep,
            weight("up.w", 2 * width, width, 2, 2, 2),
            weight("up.b", width),
            strides=[2] * 3,
        )
    joined = add("Concat", "joined", first, up, axis=1)
    add("Conv", "y", block(joined, "out", 2 * width, width), weight("y.w", 3, width, 1, 1, 1), weight("y.b", 3))
    shape = [1, 2, extent, extent, extent + 4]
    ports = [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)]
    ends = [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "u", ports, ends, weights)
    path = folder / "u.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path, {"x": random.standard_normal(shape).astype(np.float32)}


@pytest.mark.parametrize("by", ["Resize", "ConvTranspose"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_network_of_volumes(backend, tmp_path, precision, by):
    """No layer falls back, and what is computed is as near to the CPU device's as its roundings allow, the same whether fused or looked at."""
    if backend.name == "host" and (precision != "fp32" or by != "Resize"):
        pytest.skip("compiling takes longest; the GPU computes all")
    path, feeds = u_net(tmp_path, by=by)
    engine = compile_model(load(path), precision=precision)
    cpu = engine.device
    (expected,) = engine.run(feeds).values()
    device = engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    assignment = Assignment(Choice(precision))
    (actual,) = engine.run(feeds, assignment).values()
    assert not device.fallen and device is not cpu
    off = np.abs(actual.astype(np.float64) - expected).max() / np.abs(expected).max()
    assert off <= (16 if precision == "fp32" else 4) * UNIT[precision], off
    seen: list[str] = []
    (tapped,) = engine.run(feeds, assignment, tap=lambda t: seen.append(t.name)).values()
    assert np.array_equal(tapped, actual) and len(seen) > 3
