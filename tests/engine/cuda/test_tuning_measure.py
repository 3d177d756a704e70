"""What the device offers for a layer, and how its tactics are checked and timed: on the host's clock, or one of our own."""

from __future__ import annotations

from itertools import count
from types import MethodType

import numpy as np
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.ops.products.tiled_family import TiledFamily
from probe.engine.device.cuda.tuning import rig, tuner
from probe.engine.device.cuda.tuning.planning import Planning
from probe.engine.tactics import tactic_of
from probe.engine.tuning.budget import budget
from probe.engine.tuning.choose import choose, problems_of
from probe.engine.tuning.fingerprint import fingerprint_of
from probe.engine.tuning.selector import Allow
from probe.engine.tuning.timing import Timings
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.cuda.test_tuning_names import network

NET = """<ir_version: 8, opset_import: ["" : 18]>
g (float[6,40] x) => (float[6,24] y)
{ h = MatMul (x, a)  i = Add (h, b)  r = Relu (i)  o = MatMul (r, c)  y = Add (o, r) }"""
WEIGHTS = {"a": (40, 24), "b": (24,), "c": (24, 24)}
FEEDS = {"x": np.random.default_rng(0).standard_normal((6, 40)).astype(np.float32)}
NAMES = ("exact", "mma_64x64", "simt_32x32")


@pytest.fixture
def engine(tmp_path):
    return compile_model(network(tmp_path, NET, **WEIGHTS), precision="fp16")


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Kernels that run on the host are repeated twice: nobody looks at what they take."""
    for name, value in (("MOST_COPIES", 2), ("LEAST", 2)):
        monkeypatch.setattr(rig, name, value)
    monkeypatch.setattr(tuner, "ROUNDS", 2)


def on(engine, backend) -> CudaDevice:
    engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    return engine.device


class Hopper(NullBackend):
    """Plans as on an H200."""

    arch = "sm_90a"


def test_what_is_offered_is_what_kernels_take(engine):
    on(engine, Hopper())
    first = engine.layers[0]
    shapes = {"x": (6, 40), "r": (6, 24)}
    names = engine.tuner.offered(first, "fp16", shapes)
    assert {"mma_64x64", "mma_128x128"} <= set(names) and names[0].startswith("wgmma_")
    assert not any(name.startswith("simt") for name in names), "worth no try where tensor cores multiply"
    assert all(tactic_of(name).device == "cuda" for name in names)
    wide = engine.tuner.offered(first, "fp32", shapes)
    assert "ffma_32x32" in wide and all(name.startswith(("ffma_", "few_")) for name in wide)
    assert engine.tuner.offered(first, "fp16", {}) == (), "a shape that is not known"


def test_candidates_are_offered_where_precision_and_kept_tensors_allow(engine):
    on(engine, Hopper())
    first = problems_of(engine, FEEDS)[0]
    names = [one.tactic for one in first.candidates]
    assert names[:2] == ["exact", "acc16"] and "wgmma_64x64" in names and len(set(names)) == len(names)
    asked = choose(engine, FEEDS, (Allow("exact|simt_32x32|wgmma_1x1"),))
    assert "simt_32x32" in [one.tactic for one in asked[engine.layers[0].name].candidates], "asked for by name"
    kept = problems_of(engine, FEEDS, engine.assignment.keeping(tensors=["x"]))[0]
    names = [one.tactic for one in kept.candidates]
    assert names[0] == "exact" and "few_4" in names, "it runs in FP32 and in FP16"
    assert all(name.startswith("few_") for name in names[1:]), "no other family has one name in both"


def test_the_cpu_offers_none_of_them(engine):
    assert engine.tuner is None
    assert not any(tactic_of(one.tactic).device for problem in problems_of(engine, FEEDS) for one in problem.candidates)


def reads_of(engine, layer):
    found: dict[str, np.ndarray] = dict(FEEDS)
    engine.run(FEEDS, tap=lambda tapped: found.__setitem__(tapped.name, tapped.array))
    return {value.name: found[value.name] for value in layer.reads}


def budgets(layer):
    return {name: budget(tactic_of(name), layer, "fp16") for name in NAMES}


def test_candidates_are_checked_and_timed(engine, backend):
    on(engine, backend)
    layer = engine.layers[0]
    found = engine.tuner.measure(layer, reads_of(engine, layer), "fp16", budgets(layer))
    assert list(found) == list(NAMES) and all(one.seconds > 0 and one.runs and not one.wrong for one in found.values())


def test_memory_is_given_back(engine, host):
    on(engine, host)
    layer = engine.layers[1]
    reads, before = reads_of(engine, layer), len(host._memory)
    engine.tuner.measure(layer, reads, "fp16", budgets(layer))
    assert len(host._memory) <= before + 1, "but for the sums' own"


def test_a_wrong_kernel_is_found_and_is_no_candidate(engine, host, monkeypatch):
    """One of 144 results is off by a hundredth of the largest."""
    device = on(engine, host)
    launch = TiledFamily.launch

    def broken(self, queue, problem, name):
        made = launch(self, queue, problem, name)
        if name == "simt_32x32" and not isinstance(queue.backend, Planning):
            backend = queue.backend
            array = made[0].array(backend).copy()
            array.flat[77] += 0.02 * np.abs(array).max()
            backend.upload(made[0].address(backend), array.astype(np.float16))
            made[0]._array = None
        return made

    monkeypatch.setattr(TiledFamily, "launch", broken)
    layer = engine.layers[0]
    found = engine.tuner.measure(layer, reads_of(engine, layer), "fp16", budgets(layer))
    assert found["simt_32x32"].seconds is None and "the largest error is 0.02" in found["simt_32x32"].wrong
    assert found["mma_64x64"].seconds is not None
    timings = Timings(fingerprint_of(engine))
    only = Allow("exact|simt_32x32")
    monkeypatch.setattr(engine.tuner, "offered", lambda *_: ())
    choices = choose(engine, FEEDS, (only,), timings=timings)
    one = choices[layer.name]
    assert one.candidate.tactic == "exact" and one.refused["simt_32x32"].startswith(
        "the check against exact: the largest"
    )
    assert one.candidates[-1].tactic == "simt_32x32" and one.candidates[-1].median_us is None
    assert any("simt_32x32 is no candidate of" in note for note in timings.notes)
    text = timings.text()
    assert '"median_us": null, "runs": 0, "wrong": "the largest error' in text
    assert not device.fallen


class Clock:
    """A tuner's backend whose time is what a launch of each kernel is said to take."""

    def __init__(self, backend, costs):
        self._backend, self._costs, self.runs, self.spent = backend, costs, count(), 0.0

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def capture(self, batches, *, timed=False):
        graph = self._backend.capture(batches, timed=timed)
        graph.cost = sum(self._costs.get(one.source.entry, 1e-9) for batch in batches for one in batch.launches)
        graph.size = sum(len(batch.launches) for batch in batches)
        graph.launch = MethodType(self.launched, graph)
        return graph

    def launched(self, graph):
        type(graph).launch(graph)
        self.spent += graph.cost

    def seconds(self, work):
        next(self.runs)
        if hasattr(work, "__self__"):  # of one layer: told without computing
            return work.__self__.cost
        self.spent = 0.0
        work()
        return self.spent


def test_the_fastest_on_the_devices_clock_is_taken(engine, host, tmp_path):
    costs = {"matmul_mma": 3e-6, "matmul_simt": 1e-6, "chain": 1e-9}
    clock = Clock(host, costs)
    on(engine, clock)
    timings = Timings(fingerprint_of(engine))
    chosen = choose(engine, FEEDS, (Allow("exact|mma_64x64|simt_32x32|simt_64x64"),), timings=timings)
    assert set(chosen.tactics.values()) <= {"simt_32x32", "simt_64x64"}
    one = chosen[engine.layers[0].name]
    assert one.candidate.median_us == pytest.approx(1.0)
    path = tmp_path / "times.json"
    path.write_text(timings.text())
    before = next(clock.runs)
    cached = Timings.load(path, fingerprint_of(engine))
    again = choose(engine, FEEDS, (Allow("exact|mma_64x64|simt_32x32|simt_64x64"),), timings=cached)
    assert again.tactics == chosen.tactics and next(clock.runs) == before + 1 and cached.measured == 0
    engine.run(FEEDS, chosen.assignment(engine.assignment))


def test_repetitions_read_copies_and_make_the_same(engine, host, monkeypatch):
    """Each repetition computes from a copy of its own: as many as fill a cache, with the same contents."""
    monkeypatch.setattr(rig, "MOST_COPIES", 5)
    seen: list[int] = []
    capture = host.capture

    def counted(batches, *, timed=False):
        seen.append(sum(len(batch.launches) for batch in batches))
        (batch,) = batches
        firsts = {one.arguments[0].value for one in batch.launches}
        assert len(firsts) == 5, "copies of what is read"
        for one in batch.launches[:3]:
            host.launch(one.source, one.shape, one.arguments, one.what)
        return capture(batches, timed=timed)

    backend = Clock(host, {"matmul_mma": 3e-6, "matmul_simt": 1e-6})
    backend.capture = lambda batches, timed=False: (g := counted(batches), setattr(g, "cost", 1e-6))[0]
    on(engine, backend)
    layer = engine.layers[0]
    engine.tuner.measure(layer, reads_of(engine, layer), "fp16", {"simt_32x32": 1.0})
    assert seen == [5]


def test_budgets_tell_a_kernel_that_skips_a_term_from_one_that_rounds(engine):
    layer = engine.layers[0]
    exact, low = (budget(tactic_of(name), layer, "fp16") for name in ("mma_64x64", "mma_64x64_acc16"))
    assert 2 * 2**-11 < exact < 0.01 and exact < low < 0.05
    assert budget(tactic_of("simt_64x64"), layer, "fp32") < 1e-3
