"""Attention in one kernel against the same layer node by node, which the CPU device holds to account elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.attention_run import AttentionRun
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.layer_run import LayerRun
from probe.engine.device.cuda.ops import attention
from probe.engine.device.cuda.ops.attention import Variant
from probe.model import load
from probe.precision import PRECISIONS
from tests.engine.cuda.attention_cases import CASES

TWICE = Variant(1, 64, 2, 0)


def engine_of(folder, name: str, precision: str, backend):
    feeds = CASES[name].save(folder / "m.onnx")
    engine = compile_model(load(folder / "m.onnx"), precision=precision)
    device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    engine.device = device
    return engine, device, feeds


def tapped(engine, feeds) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    outputs = engine.run(feeds, tap=lambda t: found.__setitem__(t.name, t.array))
    assert all(np.array_equal(found[key], array, equal_nan=True) for key, array in outputs.items())
    return found


def near(actual: np.ndarray, golden: np.ndarray, allowed: float) -> None:
    finite = np.isfinite(golden)
    assert np.array_equal(actual[~finite], golden[~finite], equal_nan=True)
    off = np.abs(actual[finite].astype(np.float64) - golden[finite])
    assert off.max(initial=0.0) <= allowed * np.abs(golden[finite]).max(initial=0.0), off.max()


def check(backend, folder, monkeypatch, name: str, precision: str, variant: Variant | None = None) -> None:
    engine, device, feeds = engine_of(folder, name, precision, backend)
    if variant is not None:
        monkeypatch.setattr(attention, "choose", lambda *_: variant)
    one = engine(feeds)
    assert not device.queue.apart and device.queue.launches["attention"], device.queue.apart
    taps = tapped(engine, feeds)
    assert all(np.array_equal(taps[key], array, equal_nan=True) for key, array in one.items()), "looking changes bits"
    monkeypatch.setattr(AttentionRun, "run", LayerRun.run)
    engine.device = nodes = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    apart = tapped(engine, feeds)
    assert "attention" not in nodes.queue.launches and apart.keys() == taps.keys()
    for key, golden in apart.items():
        near(taps[key], golden, 3 * PRECISIONS[precision].roundoff)


@pytest.mark.parametrize("name", CASES)
def test_one_kernel_computes_what_many_do(tmp_path, backend, monkeypatch, name):
    precisions = ("fp16", "bf16") if backend.name != "host" else (("fp16", "bf16")[list(CASES).index(name) % 2],)
    for precision in precisions:
        with monkeypatch.context() as patched:
            check(backend, tmp_path, patched, name, precision)
