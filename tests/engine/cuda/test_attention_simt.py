"""Attention in FP32 as one kernel: against the CPU device and node by node, tapped and not; registers on every architecture."""

from __future__ import annotations

import os

import numpy as np
import pytest

from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers.attention_run import AttentionRun
from probe.engine.device.cuda.layers.layer_run import LayerRun
from probe.engine.device.cuda.ops.attention import attention, attention_simt
from probe.engine.device.cuda.ops.attention.attention_simt import Warps
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.formats import F32
from tests.engine.cuda.assembled import assembled
from tests.engine.cuda.attention_cases import CASES
from tests.engine.cuda.attention_problem import Problem, run, shapes
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.cuda.test_attention import engine_of, near, rows, tapped
from tests.engine.cuda.test_attention_compile import ARCHS, SPILLED
from tests.engine.cuda.test_attention_wgmma import error_of

TAKEN = [name for name, case in CASES.items() if max(case.sizes) <= 128]
ON_HOST = ("ragged", "vit", "where", "rows without keys", "long")
OFF = 4e-6  # of the largest: sums of FP32 in another order


@pytest.mark.parametrize(("place", "name"), rows(TAKEN, ON_HOST))
def test_one_kernel_computes_what_many_do(request, tmp_path, monkeypatch, place, name):
    backend, at = request.getfixturevalue(place), TAKEN.index(name)
    engine, device, feeds = engine_of(tmp_path, name, "fp32", backend)
    monkeypatch.setattr(attention, "choose_warps", lambda *_, **__: Warps(1 << at % 3, 16 << at % 2))
    golden = [tapped(engine, feeds)]
    engine.device = device
    one, taps = engine(feeds), tapped(engine, feeds)
    assert not device.queue.apart and device.queue.launches["attention_simt"], device.queue.apart
    assert all(np.array_equal(taps[key], array, equal_nan=True) for key, array in one.items()), "looking changes bits"
    if place == "gpu":
        monkeypatch.setattr(AttentionRun, "run", LayerRun.run)
        engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
        golden.append(tapped(engine, feeds))
    for other in golden:
        assert taps.keys() == other.keys()
        for key, array in other.items():
            near(taps[key], array, OFF)


@pytest.mark.parametrize(("place", "name"), rows(TAKEN, ON_HOST))
def test_warps_that_share_queries_compute_what_many_do(request, tmp_path, monkeypatch, place, name):
    """Of two and of four; the fewest that hold all keys."""
    backend, at = request.getfixturevalue(place), TAKEN.index(name)
    engine, device, feeds = engine_of(tmp_path, name, "fp32", backend)
    split = 2 if CASES[name].keys <= 128 and at % 2 else 4 if CASES[name].keys <= 256 else 8
    shared = Warps(1 + at // 2 % 2, 16 << at // 4 % 2 * (split < 8), split, apart=split < 8 and at % 3 == 0)
    monkeypatch.setattr(attention, "choose_warps", lambda *_, **__: shared)
    golden = tapped(engine, feeds)
    engine.device = device
    one = engine(feeds)
    assert not device.queue.apart and device.queue.launches["attention_simt_split"], device.queue.apart
    taps = tapped(engine, feeds)
    assert all(np.array_equal(taps[key], array, equal_nan=True) for key, array in one.items()), "looking changes bits"
    assert taps.keys() == golden.keys()
    for key, array in golden.items():
        near(taps[key], array, OFF)


@pytest.mark.parametrize("precision", ["fp16", "tf32"])
def test_a_layer_that_is_kept(host, tmp_path, precision):
    """In FP32 among others: what it reads of them is widened, what they read of it they round."""
    engine, device, feeds = engine_of(tmp_path, "bert", precision, host)
    (layer,) = (one.name for one in engine.top_layers if one.kind == "attention")
    assignment = engine.assignment.keeping(layers=[layer])
    golden = engine.run(feeds, assignment)["y"]
    engine.device = device
    found = engine.run(feeds, assignment)["y"]
    assert device.queue.launches["attention_simt"], device.queue.apart
    near(found, golden, OFF)


@pytest.mark.parametrize(
    ("problem", "rows"),
    [((4, 16, 1024, 1024, 64, 0), 32), ((4, 16, 1024, 1024, 128, 0), 16), ((16, 12, 197, 197, 64, 0), 16)],
)
def test_long_rows_have_32_queries_a_warp(problem: Problem, rows):
    backend = NullBackend()
    queue = Queue(backend, 18)
    run(queue, [queue.empty(one, F32) for one in shapes(problem)], problem)
    ((source, _),) = backend.launched
    assert dict(source.defines)["ACROSS"] == 256 // rows


@pytest.mark.gpu
@pytest.mark.parametrize("problem", [(2, 9, 200, 333, 64, 1), (2, 5, 130, 1000, 128, 0)], ids=str)
@pytest.mark.parametrize("variant", [Warps(1), Warps(4), Warps(2, 32), Warps(4, 32)], ids=str)
def test_long_rows(gpu, problem: Problem, variant):
    assert error_of(gpu, problem, F32, variant, rounds=True) < 1e-6


@pytest.mark.gpu
@pytest.mark.parametrize("variant", [Warps(1, split=4), Warps(2, split=4, apart=True), Warps(1, 32, 4)], ids=str)
def test_few_queries(gpu, variant):
    for problem in ((1, 7, 200, 256, 64, 1), (2, 5, 100, 170, 64, 0), (1, 3, 33, 129, 40, 1)):
        assert error_of(gpu, problem, F32, variant, rounds=True) < 1e-6


@pytest.mark.parametrize(
    ("problem", "chosen"),
    [
        ((1, 12, 256, 256, 64, 1), Warps(2, split=4, apart=True)), ((2, 12, 256, 256, 64, 1), Warps(2, split=4)), ((8, 12, 128, 128, 64, 1), Warps(2, split=2)),
        ((4, 12, 128, 128, 64, 1), Warps(2, split=2, apart=True)), ((16, 12, 197, 197, 64, 0), Warps(4)), ((1, 12, 512, 512, 64, 1), None),
        ((1, 12, 1024, 1024, 64, 1), None), ((1, 16, 1024, 1024, 64, 1), Warps(2)), ((1, 12, 10, 256, 64, 1), None), ((1, 12, 256, 256, 128, 1), None),
    ],
)  # fmt: skip
def test_what_is_chosen(monkeypatch, problem: Problem, chosen):
    """Warps share queries where all blocks have room at once; values lie apart where they then still have."""
    queue = Queue(NullBackend(), 18)
    x = [queue.empty(one, F32) for one in shapes(problem)]
    launched = []
    monkeypatch.setattr(attention_simt, "launch", lambda *given, **_: launched.append(given[-1]))
    if chosen is None:
        with pytest.raises(Unsupported, match="few queries"):
            run(queue, x, problem)
    else:
        run(queue, x, problem)
        assert launched == [chosen]


@pytest.mark.parametrize(
    "arch", ["sm_90a", *(pytest.param(one, marks=pytest.mark.slow) for one in ARCHS if one != "sm_90a")]
)
def test_attention_is_within_its_budget(nvrtc, arch):
    every = arch == "sm_90a" or os.environ.get("PROBE_ALL_KERNELS")
    variants = ((64, Warps(4)), (64, Warps(1, split=4)), (64, Warps(4, 32)), (128, Warps(4)), (128, Warps(1, split=4)))
    for size, variant in variants[: 5 if every else 2]:
        backend = NullBackend()
        queue, problem = Queue(backend, 18), (8, 12, 197, 197, size, 1)
        run(queue, [queue.empty(one, F32) for one in shapes(problem)], problem, variant)
        ((source, _),) = backend.launched
        _, used = assembled(source, arch)
        assert used.spilled_bytes <= SPILLED + 16 and used.registers <= 255, used
