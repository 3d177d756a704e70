"""Siblings: products of one tensor with weights of their own, computed as one."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import onnx
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.layers.siblings import families
from probe.engine.device.cuda.ops.products.wgmma import ARCH
from probe.model import load
from tests.engine.cuda.host_backend import HostBackend

TEXT = """<ir_version: 8, opset_import: ["" : 18]>
g (float[2,40,64] given) => (float[2,40,32] a, float[2,40,32] b, float[2,40,32] c, float[2,40,24] d, float[2,40,32] e)
{{ x = Relu (given) p = MatMul (x, w0) a = Add (p, b0) q = MatMul (x, w1) {second} r = MatMul (x, w2) c = Add (b2, r) d = MatMul (x, w3)
   s = MatMul (x, w4) t = Add (s, b4) e = Relu (t) }}"""
SECOND = {
    "alike": "b = Add (q, b1)",
    "turned": "b = Add (b1, q)",
    "without": "b = Identity (q)",
    "other": "b = Mul (q, b1)",
}

FEWER = {
    **{(second, "none"): 2 for second in SECOND},
    ("alike", "safe"): 4,
    ("turned", "safe"): 4,
    ("without", "safe"): 5,
    ("other", "safe"): 5,
}


class WithWgmma(HostBackend):
    """The host, taken for a GPU of sm_90a."""

    arch, multiprocessors = ARCH, 1  # fewer than any cluster has blocks


@pytest.fixture(params=["host", pytest.param("gpu", marks=pytest.mark.gpu)])
def wgmma(request):
    if request.param == "host":
        if shutil.which("g++") is None:
            pytest.skip("no g++ to compile kernels for the host")
        return WithWgmma(request.config.cache.mkdir("kernels-hopper"))
    gpu = request.getfixturevalue("gpu")
    if gpu.arch != ARCH:
        pytest.skip(f"wgmma is of {ARCH}")
    return gpu


def model(path, second: str):
    made = onnx.parser.parse_model(TEXT.format(second=SECOND[second]))
    random = np.random.default_rng(0)
    for at, (rows, cols) in enumerate(((64, 32), (64, 32), (64, 32), (64, 24), (64, 32))):
        weight = random.standard_normal((rows, cols), dtype=np.float32) / 8
        bias = random.standard_normal(cols, dtype=np.float32)
        made.graph.initializer.append(onnx.numpy_helper.from_array(weight, f"w{at}"))
        made.graph.initializer.append(onnx.numpy_helper.from_array(bias, f"b{at}"))
    onnx.save(made, path)
    return path, {"given": random.standard_normal((2, 40, 64), dtype=np.float32)}


def ran(
    path, feeds, backend, *, alone: bool, fusion: Any, interior: bool = False, precision: str = "fp16"
) -> tuple[dict[str, Any], int]:
    """What a device makes, and how many products it launched."""
    engine = compile_model(load(path), precision=precision, passes="none", fusion=fusion)
    device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    device.replays.enabled = False
    if alone:
        device._siblings._families.clear()
    plans = engine._plans(engine.assignment)
    found = {tap.name: tap.array for tap in device.stream(feeds, plans, interior=True)} if interior else {}
    if not interior:
        found = device.run(feeds, plans)
    return found, device.queue.launches["matmul_wgmma"]


@pytest.mark.parametrize("fusion", ["none", "safe"])
@pytest.mark.parametrize("second", SECOND)
def test_siblings_keep_their_bits(tmp_path, wgmma, second, fusion):
    path, feeds = model(tmp_path / "m.onnx", second)
    expected, alone = ran(path, feeds, wgmma, alone=True, fusion=fusion)
    found, together = ran(path, feeds, wgmma, alone=False, fusion=fusion)
    assert {name: array.tobytes() for name, array in found.items()} == {k: v.tobytes() for k, v in expected.items()}
    assert alone == 5 and together == FEWER[second, fusion]
    tapped, _ = ran(path, feeds, wgmma, alone=False, fusion=fusion, interior=True)
    for name, array in expected.items():
        assert tapped[name].tobytes() == array.tobytes()
    assert {"p", "q", "r", "s", "t"} <= tapped.keys()


def test_siblings_that_round_what_they_read(tmp_path, wgmma):
    """In TF32, each by itself: they read the same all the same."""
    path, feeds = model(tmp_path / "m.onnx", "alike")
    expected, alone = ran(path, feeds, wgmma, alone=True, fusion="safe", precision="tf32")
    found, together = ran(path, feeds, wgmma, alone=False, fusion="safe", precision="tf32")
    assert {name: array.tobytes() for name, array in found.items()} == {k: v.tobytes() for k, v in expected.items()}
    assert alone == 5 and together == FEWER["alike", "safe"]


def test_families(tmp_path):
    path, _ = model(tmp_path / "m.onnx", "alike")
    engine = compile_model(load(path), precision="fp16", passes="none", fusion="safe")
    (found,) = families(engine.top_layers).values()
    assert [[node.outputs[0].name for node in layer.nodes][-1] for layer in found] == ["a", "b"]


def test_what_is_recorded_is_what_is_streamed(tmp_path, wgmma):
    path, feeds = model(tmp_path / "m.onnx", "alike")
    engine = compile_model(load(path), precision="fp16")
    device = CudaDevice(engine.network, engine.top_layers, engine.rounding, wgmma)
    plans = engine._plans(engine.assignment)
    runs = [device.run(feeds, plans) for _ in range(3)]
    kept = engine.assignment.keeping(layers=[engine.layers[1].name])
    device.run(feeds, engine._plans(kept))  # siblings of two precisions are none
    runs.append(device.run(feeds, plans))
    for one in runs[1:]:
        assert {name: array.tobytes() for name, array in one.items()} == {k: v.tobytes() for k, v in runs[0].items()}
