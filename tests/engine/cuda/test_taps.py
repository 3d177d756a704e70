"""Looking at a run changes nothing: outputs have the same bits, layers run the same kernels, and what was handed out says the same whenever
it is read."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.protocol import Tapped
from probe.model import load
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.cuda.test_models import EXPORTS, MODELS, feeds_of

# Whether attention's product is stored behind a conversion is where it writes, not how it computes.
_WHERE = {"PLAIN_AFTER"}
_COMPUTE = ("matmul", "conv", "attention", "softmax", "norm", "reduce", "recurrent")
SMALL = ("bert_mini", "vit_mini", "unet_attn_mini", "lstm_gru_tagger")


class Hopper(NullBackend):
    """Remembers which layer launched what, choosing as on the GPU that has the most tactics."""

    arch = "sm_90a"

    def __init__(self) -> None:
        super().__init__()
        self.by_layer: Counter = Counter()

    def launch(self, source, shape, arguments, what):
        if source.entry.startswith(_COMPUTE):
            defines = tuple(one for one in source.defines if one[0] not in _WHERE)
            self.by_layer[what, source.entry, defines, shape] += 1


def network(folder, name: str, backend, precision: str = "fp16"):
    engine = compile_model(load(folder / "models" / f"{name}.onnx"), precision=precision)
    device = engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    return engine, device, feeds_of(folder, name)


@pytest.mark.parametrize("name", SMALL)
def test_tactics_are_the_same(exports, name):
    backend = Hopper()
    engine, device, feeds = network(exports, name, backend)
    device.replays.enabled = False
    engine.run(feeds)  # weights are brought into their order once
    backend.by_layer.clear()
    engine.run(feeds)
    plain = backend.by_layer.copy()
    backend.by_layer.clear()
    seen: list[Tapped] = []
    engine.run(feeds, tap=seen.append)
    assert plain and backend.by_layer == plain
    assert {t.choice.tactic for t in seen} == {engine.assignment.default.tactic}


def check(folder, name: str, precision: str, backend) -> None:
    engine, _, feeds = network(folder, name, backend, precision)
    plain, again = engine.run(feeds), engine.run(feeds)  # recorded, then repeated
    late: list[Tapped] = []
    early: dict[str, np.ndarray] = {}
    first = engine.run(feeds, tap=late.append)  # read when everything has run

    def read(tapped: Tapped) -> None:
        if tapped.array is not None:
            early.setdefault(tapped.name, tapped.array.copy())

    second = engine.run(feeds, tap=read)
    for key, array in plain.items():
        for other in (again, first, second):
            assert array.tobytes() == other[key].tobytes(), key
    stored = {v.name for layer in engine.top_layers for v in layer.tensors if layer.kind not in ("if", "loop")}
    assert {t.name for t in late} >= stored, "every materialised tensor is handed out"
    seen = set()
    for t in late:
        if t.array is not None and t.name not in seen:
            seen.add(t.name)
            assert t.array.tobytes() == early[t.name].tobytes(), t.name
            half = t.array.size // 2
            if t.resident is not None:
                assert t.resident.window(half, half + 3).tobytes() == t.array.reshape(-1)[half : half + 3].tobytes()


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize(("folder", "name"), [("models", n) for n in MODELS] + [("exports", n) for n in EXPORTS])
def test_real_models(request, gpu, folder, name, precision):
    check(request.getfixturevalue(folder), name, precision, gpu)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nonzero_boxes", "scripted_loop_if"])
def test_on_the_host(exports, name, host):
    check(exports, name, "fp16", host)


def test_nan_keeps_its_bits_whoever_looks(tmp_path, backend):
    """What is widened on the device is so, too, when somebody has read it on the host before: a NaN shows who did it."""
    path = tmp_path / "m.onnx"
    text = """<ir_version: 8, opset_import: ["" : 18]> g (float[3,8] x) => (float[3,8] y) { a = Sqrt (x)  y = Softmax (a) }"""
    onnx.save(onnx.parser.parse_model(text), path)
    engine = compile_model(load(path), precision="fp16")
    engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    feeds = {"x": np.linspace(-1, 3, 24, dtype=np.float32).reshape(3, 8)}
    plain = engine.run(feeds)["y"]
    assert np.isnan(plain[0]).all() and not np.isnan(plain[1:]).any()
    assert engine.run(feeds, tap=lambda tapped: np.sum(tapped.array))["y"].tobytes() == plain.tobytes()
