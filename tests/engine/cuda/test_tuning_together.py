"""Tactics chosen for the least total of a network, what turning images between layers costs included; on a clock of our own."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from probe.engine.assignment import Choice
from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.ops.products.wgmma_family import WgmmaFamily
from probe.engine.device.cuda.tuning.rig import Rig
from probe.engine.tuning.choose import choose
from probe.engine.tuning.fingerprint import fingerprint_of
from probe.engine.tuning.orders import FIRST, LAST
from probe.engine.tuning.selector import Deny
from probe.engine.tuning.timing import Timings
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.cuda.test_tuning_names import network

NET = """<ir_version: 8, opset_import: ["" : 18]>
g (float[2,16,6,6] x) => (float[2,24,6,6] y)
{ a = Conv <pads = [1,1,1,1]> (x, u)  r = Relu (a)  p = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1]> (r)
  c = Conv <pads = [1,1,1,1]> (p, v)  y = Add (c, p) }"""
WEIGHTS = {"u": (24, 16, 3, 3), "v": (24, 24, 3, 3)}
FEEDS = {"x": np.zeros((2, 16, 6, 6), np.float32)}


class Clock(NullBackend):
    """An H200 that computes nothing, in a time said beforehand: of a launch, in microseconds."""

    arch = "sm_90a"

    def __init__(self, turning, **costs):
        super().__init__()
        self.costs = {
            "matmul_wgmma": 2.0,
            "conv_image": 2.0,
            "conv_mma": 3.0,
            "conv_simt": 9.0,
            "conv_direct": 9.0,
            "transpose": turning,
            "copy_strided": turning,
        } | costs

    def capture(self, batches, *, timed=False):
        graph = super().capture(batches, timed=timed)
        cost = self.cost([one.source.entry for batch in batches for one in batch.launches])

        def launch():
            self.spent += cost * 1e-6

        graph.launch = launch
        return graph

    def cost(self, kernels):
        return sum(self.costs.get(one, 0.1) for one in kernels)

    def seconds(self, work):
        self.spent = 0.0
        work()
        return self.spent


@pytest.fixture
def engine(tmp_path):
    return compile_model(network(tmp_path, NET, **WEIGHTS), precision="fp16")


def chosen(engine, turning, *selectors, clock=Clock, **costs):
    engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, clock(turning, **costs))
    timings = Timings(fingerprint_of(engine))
    choices = choose(engine, FEEDS, selectors, timings=timings)
    convolutions = [one.name for one in engine.layers if one.kind == "conv"]
    return [choices[name].candidate.tactic for name in convolutions], timings


def test_the_orders_of_layers(engine):
    device = CudaDevice(engine.network, engine.top_layers, engine.rounding, Clock(1.0))
    engine.device = device
    first, pool, second = engine.layers
    shapes = {"x": (2, 16, 6, 6), "r": (2, 24, 6, 6), "p": (2, 24, 6, 6)}

    def orders(layer, tactic):
        return engine.tuner.orders(layer, Choice("fp16", tactic), shapes)

    assert orders(first, "wgmma_64x64") == {(LAST, LAST)} and orders(first, "exact") == {(LAST, LAST)}
    assert orders(first, "mma_64x64") == orders(second, "conv_direct") == {(FIRST, FIRST)}
    assert (LAST, LAST) in orders(pool, "exact") and (FIRST, FIRST) in orders(pool, "exact")
    assert orders(first, "mma_1x1") == frozenset()


def test_turning_is_counted(engine):
    """In and out, the network's own images are channels first: two turns that nothing saves but a slower kernel."""
    cheap, timings = chosen(engine, 0.1)
    assert (timings.measured, timings.reused) == (len(timings), 0)
    assert all(name.startswith(("wgmma", "exact")) for name in cheap)
    dear, _ = chosen(engine, 1.5)
    assert all(name.startswith(("mma", "acc16")) for name in dear), "3 + 3 beside 2 + 2 + 1.5 + 1.5"
    turned = [line for line in timings.text().splitlines() if '"channels_last"' in line]
    assert len(turned) == 2 and "fp32[2,16,6,6]" in turned[1] and '"median_us": 0.1' in turned[0]


def test_what_is_denied_is_not_counted_on(engine):
    """Only one of two may read channels last: then it is not worth turning for."""
    second = engine.layers[2].name
    names, _ = chosen(engine, 0.6, Deny(f"wgmma.*|exact @ {re.escape(second)}"))
    assert names[1].startswith(("mma", "acc16")) and names[0].startswith(("mma", "acc16"))
    free, _ = chosen(engine, 0.6)
    assert all(name.startswith(("wgmma", "exact")) for name in free)


def test_a_layer_by_itself_decides_where_nothing_is_turned(engine):
    names, _ = chosen(engine, 0.1, conv_mma=1.0)
    assert all(name.startswith(("mma", "acc16")) for name in names)


@pytest.mark.parametrize(("time", "taken"), [(1.97, "exact"), (1.9, "wgmma_64x64")])
def test_a_tactic_is_taken_where_it_is_worth_it(engine, monkeypatch, time, taken):
    """By a hundredth it may be noise."""
    launch = WgmmaFamily.launch

    def faster(self, queue, problem, name):
        made = launch(self, queue, problem, name)
        if name == "wgmma_64x64" and isinstance(queue.backend, Rig) and queue.backend._made:
            source = queue.backend._made[-1].source
            queue.backend._made[-1] = replace(queue.backend._made[-1], source=replace(source, entry="faster"))
        return made

    monkeypatch.setattr(WgmmaFamily, "launch", faster)
    monkeypatch.setattr("probe.engine.tuning.choose.settle", lambda _engine, _inputs, choices, *_: choices)
    names, _ = chosen(engine, 0.1, faster=time)
    assert set(names) == {taken}


class Crowded(Clock):
    """Kernels of ``conv_mma`` are slow beside a pooling kernel: in the network, not by themselves."""

    def cost(self, kernels):
        pools = any(one.startswith("pool") for one in kernels)
        return super().cost(kernels) + 20.0 * pools * kernels.count("conv_mma")


def test_what_slows_the_network_down_is_not_taken(engine):
    """Whatever layers take by themselves: the choice is timed on the whole network, and not slower than exact there."""
    alone, _ = chosen(engine, 0.1, conv_mma=1.0)
    assert all(name.startswith(("mma", "acc16")) for name in alone)
    together, timings = chosen(engine, 0.1, clock=Crowded, conv_mma=1.0)
    assert together == ["exact", "exact"]
    lines = [line for line in timings.text().splitlines() if '"network of ' in line]
    assert [line for line in lines if '"exact"' in line] and len(lines) >= 3
    again = Timings(fingerprint_of(engine), timings._known)
    choose(engine, FEEDS, timings=again)
    assert (again.measured, again.reused) == (0, len(timings)), "the file alone chooses the same"


def test_only_what_slows_it_down_is_put_back(engine):
    """One of two convolutions."""
    second = engine.layers[2].name

    class Half(Clock):
        def cost(self, kernels):
            return super().cost(kernels) + (20.0 if kernels.count("conv_mma") > 1 else 0.0)

    names, _ = chosen(engine, 0.1, clock=Half, conv_mma=1.0)
    assert sorted(name.startswith(("mma", "acc16")) for name in names) == [False, True]
    denied, _ = chosen(engine, 0.1, Deny(f"exact|wgmma.* @ {re.escape(second)}"), clock=Half, conv_mma=1.0)
    assert denied[1].startswith(("mma", "acc16")), "nobody may put back what is refused"
