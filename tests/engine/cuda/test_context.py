"""Contexts side by side: the bits of one run at a time, whatever the inputs, on threads of their own; and what a GPU tells of time."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.ceilings import measure_ceilings
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.errors import CudaError, OutOfMemory
from probe.errors import EXIT_INPUT, InputError
from probe.model import load
from probe.store.feeds import InputSet
from probe.timing.bench import BenchOptions, bench_network, timeline_of
from probe.timing.loop import Amount
from tests.engine.cuda.host_backend import Noted
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.cuda.test_replays import BRANCHES, CHAIN, HEAD, HOST, LOOKUP, SIZES, anew, engine_of, same

THREADS = 4


def inputs_of(name: str, at: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(at)
    x = random.standard_normal({"chain": (2 + at % 2, 16), "host": (5, 8), "lookup": (9, 4)}[name]).astype(np.float32)
    return {"x": x, "i": random.integers(-8, 9, 4)} if name == "lookup" else {"x": x}


@pytest.mark.parametrize(
    ("name", "text", "precision"), [("chain", CHAIN, "fp16"), ("host", HOST, "fp32"), ("lookup", LOOKUP, "fp16")]
)
@pytest.mark.parametrize("graphs", [True, False])
def test_threads_side_by_side_compute_the_same_bits(tmp_path, backend, name, text, precision, graphs):
    weights = {"k": np.array(-1)} if name == "lookup" else {}
    engine, device = engine_of(tmp_path, text, backend, precision, **weights)
    feeds = [inputs_of(name, at) for at in range(6)]
    expected = [anew(engine, one) for one in feeds]
    contexts = [device.context(engine._plans(engine.assignment), graphs=graphs) for _ in range(THREADS)]
    wrong, ready = [], threading.Barrier(THREADS + 1)

    def work(own: int) -> None:
        ready.wait()
        for at in range(own, own + 2 * len(feeds)):
            made = contexts[own].run(feeds[at % len(feeds)])
            if not same(made, expected[at % len(feeds)]):
                wrong.append((own, at))

    threads = [threading.Thread(target=work, args=(own,)) for own in range(THREADS)]
    for thread in threads:
        thread.start()
    ready.wait()
    for one, golden in zip(feeds, expected, strict=True):  # and the device's own runs meanwhile
        assert same(engine(one), golden)
    for thread in threads:
        thread.join()
    assert not wrong
    assert (
        all(one.note == ("" if graphs or name == "host" else "graphs are switched off") for one in contexts)
        or not graphs
    )


@pytest.mark.parametrize("where", ["cpu", "device"])
@pytest.mark.parametrize("kept", [(), ("b",)])
def test_an_engine_has_contexts_wherever_it_runs(tmp_path, backend, where, kept):
    engine, _ = engine_of(tmp_path, CHAIN, backend)
    if where == "cpu":
        engine.device = compile_model(engine.model, passes="none", fusion="none").device
    assignment = engine.assignment.keeping(tensors=kept)
    contexts = [engine.context(assignment) for _ in range(2)]
    feeds = [inputs_of("chain", at) for at in range(8)]
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda at: contexts[at % 2](feeds[at]), range(len(feeds))))
    assert all(same(one, engine.run(fed, assignment)) for one, fed in zip(made, feeds, strict=True))
    with pytest.raises(InputError, match="x"):
        engine.context()({"other": feeds[0]["x"]})


def test_an_index_out_of_range_is_told_where_it_happened(tmp_path, backend):
    engine, device = engine_of(tmp_path, LOOKUP, backend, k=np.array(-1))
    first, second = (device.context(engine._plans(engine.assignment)) for _ in range(2))
    x = np.random.default_rng(3).standard_normal((9, 4)).astype(np.float32)
    good = {"x": x, "i": np.array([0, 1, 2])}
    expected = anew(engine, good)
    for _ in range(2):
        assert same(first.run(good), expected)
        assert same(second.run(good), expected)
        with pytest.raises(InputError, match=r"out of|indices"):
            first.run({"x": x, "i": np.array([0, 9, 8])})


def test_branches_and_sizes_that_change_are_followed(tmp_path, backend):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    engine, device = engine_of(tmp_path / "a", BRANCHES, backend)
    context = device.context(engine._plans(engine.assignment))
    for taken in (True, False, False, True, True):
        feeds = {"x": np.array([0.1, -2, 3, 0.5], np.float32), "c": np.array(taken)}
        assert same(context.run(feeds), anew(engine, feeds))
    engine, device = engine_of(tmp_path / "b", SIZES, backend, "fp32")
    context = device.context(engine._plans(engine.assignment))
    for times in (1, 2, 3, 4, 5, 6, 2, 3):
        feeds = {"x": np.arange(3, dtype=np.float32), "s": np.array([times])}
        assert same(context.run(feeds), anew(engine, feeds))


def test_a_run_that_breaks_off_leaves_the_context_usable(tmp_path, backend, monkeypatch):
    engine, device = engine_of(tmp_path, CHAIN, backend)
    context = device.context(engine._plans(engine.assignment))
    feeds = {"x": np.ones((3, 16), np.float32)}
    expected = context.run(feeds)
    prepared = context.prepared

    def interrupted():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepared, "fetch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            context.run(feeds)
    assert same(context.run(feeds), expected) and context.prepared is prepared
    assert not context._lock.locked()


def test_contexts_outlive_each_other(tmp_path, backend):
    engine, device = engine_of(tmp_path, CHAIN, backend)
    feeds = {"x": np.ones((3, 16), np.float32)}
    expected = anew(engine, feeds)
    for _ in range(3):
        contexts = [device.context(engine._plans(engine.assignment)) for _ in range(2)]
        assert all(same(one.run(feeds), expected) for one in contexts)
        del contexts[0]
        gc.collect()
        assert same(contexts[0].run(feeds), expected)


# --- what is told of time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("graphs", [True, False])
def test_moments_come_in_their_order(tmp_path, backend, graphs):
    engine, _ = engine_of(tmp_path, CHAIN, backend)
    timeline = timeline_of(engine, engine.assignment, time.perf_counter, graphs=graphs)
    context, feeds = timeline.context(), {"x": np.ones((3, 16), np.float32)}
    for _ in range(3):
        one = context.run(feeds)
        assert one.sent is not None and one.back is not None and one.issuing is not None and one.enqueued is not None
        assert one.begin <= one.sent <= one.fed <= one.computed <= one.back <= one.end
        assert one.begin <= one.issuing <= one.enqueued <= one.end
    assert timeline.layerwise is not graphs
    assert ("one CUDA graph of" in timeline.executor) is graphs, timeline.executor


def test_layers_shapes_and_memory_are_those_of_the_run(tmp_path, backend):
    engine, _ = engine_of(tmp_path, HOST, backend, "fp32")
    timeline = timeline_of(engine, engine.assignment, time.perf_counter)
    feeds = inputs_of("host", 0)
    expected = {}
    engine.run(feeds, tap=lambda tapped: expected.update({tapped.name: getattr(tapped.array, "shape", None)}))
    assert timeline.shapes(feeds) == expected
    spent = {}
    for _ in range(2):
        spent = timeline.layers(feeds)
        assert {"Mul(a)", "Einsum(e)", "NonZero(z)", "Exp(y)"} <= set(spent), "those on the host, too"
        assert all(one >= 0 for one in spent.values())
    assert timeline.layers(inputs_of("host", 3)).keys() == spent.keys(), "other values, and other sizes of NonZero"
    assert timeline.call_seconds() >= 0 and timeline.held() is None
    timeline.context().run(feeds)
    held = timeline.held()
    assert held is not None and held.arena >= held.peak_live > 0 and held.pinned > 0
    assert max(held.live.values()) <= held.peak_live and set(held.live) <= {*spent, "outputs"}


@pytest.mark.parametrize("rows", ["3", "n"])
def test_shapes_inside_fused_layers_need_no_kernels_where_they_are_declared(tmp_path, rows):
    text = f"g (float[{rows},16] x) => (float[{rows},16] y) {{ a = Exp (x)  b = Mul (a, a)  y = Softmax (b) }}"
    backend = NullBackend()
    onnx.save(onnx.parser.parse_model(HEAD + text), tmp_path / "m.onnx")
    engine = compile_model(load(tmp_path / "m.onnx"), precision="fp16")
    device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    plans, feeds = engine._plans(engine.assignment), {"x": np.ones((3, 16), np.float32)}
    assert len(engine.layers) < 3, "fused"
    device.run(feeds, plans)
    before = {source for source, _ in backend.launched}
    assert device.shapes(feeds, plans) == dict.fromkeys("aby", (3, 16))
    if rows == "3":
        assert {source for source, _ in backend.launched} == before


def test_bench_on_the_device(tmp_path, backend, monkeypatch):
    engine, _ = engine_of(tmp_path, CHAIN, backend)
    small = measure_ceilings(backend, ("fp16", "fp32"), side=64, copied=1 << 12)
    monkeypatch.setattr("probe.engine.device.cuda.timeline.measure_ceilings", lambda *_: small)
    few = Amount(6, 0.0, 0.0)
    feeds = [{"x": np.ones((3, 16), np.float32)}, {"x": np.zeros((3, 16), np.float32)}]
    sets = [InputSet(f"set{at}", one, f"set {at}") for at, one in enumerate(feeds)]
    result = bench_network(engine.model, sets, BenchOptions(engine=engine, amount=few, layers=few, streams=2))
    assert result.streams == 2 and result.enqueue is not None and not result.emulated and not result.layerwise
    assert {one.stream for one in result.times} == {0, 1} and all(one.back is not None for one in result.times)
    assert all(layer.runs and layer.floor for layer in result.layers) and result.memory is not None
    assert result.memory.arena and "As allocated" in result.memory.note
    assert max(layer.live_bytes or 0 for layer in result.layers) <= result.memory.peak_live
    assert result.ceilings is not None and set(result.ceilings.by_precision) == {"fp16", "fp32"}


# --- what goes wrong -----------------------------------------------------------------------------------------------------


class Full(NullBackend):
    """Has no memory left after so many bytes."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.unused = room

    def allocate(self, nbytes: int) -> int:
        self.unused -= nbytes
        if self.unused < 0:
            raise OutOfMemory(nbytes, 12, 1 << 34, "a small GPU")
        return super().allocate(nbytes)


@pytest.mark.parametrize("room", [500, 1500, 3000, 4500])
def test_a_full_gpu_is_said_with_bytes_and_layer(tmp_path, room):
    engine, device = engine_of(tmp_path, CHAIN, Full(room))
    context = device.context(engine._plans(engine.assignment))
    feeds = {"x": np.ones((16, 16), np.float32)}

    def until_full():
        for _ in itertools.count():
            context.run(feeds)
            engine(feeds)

    with pytest.raises(OutOfMemory) as caught:
        until_full()
    text = str(caught.value)
    assert caught.value.exit_code == EXIT_INPUT and isinstance(caught.value, CudaError)
    assert "bytes asked for, 12 bytes of 16.00 GiB" in text and "--input-shapes" in text
    layers = ("Softmax(a)", "Mul(b)", "Relu(x2)", "Add(y)", "outputs")
    assert "all tensors between layers" in text or any(f"layer {name}" in text for name in layers), text


def test_memory_along_a_run_is_what_its_tensors_take(tmp_path):
    """x is there throughout, a and b until they are read; what a layer needs for itself is workspace."""
    engine, device = engine_of(
        tmp_path,
        "g (float[64,16] x) => (float[64,16] y) { a = Exp (x)  b = Softmax (a)  y = Mul (b, b) }",
        NullBackend(),
        "fp32",
    )
    prepared = device.prepare({"x": np.ones((64, 16), np.float32)}, engine._plans(engine.assignment))
    size = 64 * 16 * 4
    used = prepared.in_use()
    assert {layer: one.alive // size for layer, one in used.items()} == {"Exp(a)": 2, "Softmax(b)": 3, "Mul(y)": 3}
    assert all(one.workspace == 0 for one in used.values())
    assert max(one.alive for one in used.values()) == prepared.layout.peak_bytes


class Entered(NullBackend):
    """Knows which threads have entered it."""

    def __init__(self) -> None:
        super().__init__()
        self.here = threading.local()

    def enter(self) -> None:
        self.here.entered = True

    def _check(self) -> None:
        assert getattr(self.here, "entered", False), "this thread has not entered the device"

    def allocate(self, nbytes: int) -> int:
        self._check()
        return super().allocate(nbytes)

    def event(self) -> Noted:
        self._check()
        return super().event()

    def launch(self, source: Any, shape: Any, arguments: Any, what: str) -> None:
        self._check()
        super().launch(source, shape, arguments, what)


@pytest.mark.parametrize("how", ["run", "measured", "engine", "device"])
def test_every_thread_enters_the_device(tmp_path, how):
    engine, device = engine_of(tmp_path, CHAIN, Entered())
    feeds = {"x": np.ones((3, 16), np.float32)}
    plans = engine._plans(engine.assignment)
    with ThreadPoolExecutor(1) as pool:  # another thread than this one
        context = pool.submit(device.context, plans).result()
    work = {
        "run": lambda: context.run(feeds), "measured": lambda: context.measured(feeds, time.perf_counter),
        "engine": lambda: engine.context()(feeds), "device": lambda: device.run(feeds, plans),
    }[how]  # fmt: skip
    with ThreadPoolExecutor(1) as pool:
        for _ in range(3):
            pool.submit(work).result()


def test_what_is_dropped_in_a_circle_gives_its_memory_back(tmp_path, backend):
    """Python finalises a circle in any order: memory may be given back after the stream's owner is gone."""
    feeds = {"x": np.ones((3, 16), np.float32)}
    for at in range(3):
        (tmp_path / str(at)).mkdir()
        engine, device = engine_of(tmp_path / str(at), CHAIN, backend.beside())
        contexts = [device.context(engine._plans(engine.assignment)) for _ in range(3)]
        assert all(np.isfinite(one.run(feeds)["y"]).all() for one in contexts)
        circle: list[Any] = [engine, contexts, device]
        circle.append(circle)
        del engine, device, contexts, circle
        gc.collect()
    engine, _ = engine_of(tmp_path, CHAIN, backend)
    assert np.isfinite(engine(feeds)["y"]).all()
