"""Layers launched again as they were before: the bits of a run never depend on what was launched earlier."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.cuda.test_tuning_names import network
from tests.engine.cuda.test_wgmma import hopper  # noqa: F401 - a fixture

# views, parts of one tensor, something read dense and in another order, a residual, an image read by what wants it dense
NET = """<ir_version: 8, opset_import: ["" : 18]>
g (float[2,8,6,6] x) => (float[2,36,12] y, float[2,8] z)
{ a = Conv <pads = [1,1,1,1]> (x, w)  r = Relu (a)
  c = Conv (r, v)  s = Add (c, r)
  h = Reshape (s, three)  t = Transpose <perm = [0,2,1]> (h)
  q = MatMul (t, m)
  k, l = Split <axis = 2, num_outputs = 2> (q)
  kt = Transpose <perm = [0,2,1]> (k)
  o = MatMul (l, kt)  e = Softmax (o)  u = MatMul (e, l)  y = Add (u, k)
  p = GlobalAveragePool (s)  z = Flatten (p) }"""
WEIGHTS = {"w": (8, 8, 3, 3), "v": (8, 8, 1, 1), "m": (8, 24)}
FEEDS = {"x": np.random.default_rng(1).standard_normal((2, 8, 6, 6)).astype(np.float32)}


@pytest.fixture
def engine(tmp_path):
    text = NET.replace("{ a", "<int64[3] three = {2, 8, 36}> { a")
    return compile_model(network(tmp_path, text, keep=("three",), **WEIGHTS), precision="fp16", fusion="none")


def on(engine, backend) -> CudaDevice:
    return CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)


def drawn(engine, random: Random):
    names = [layer.name for layer in engine.layers]
    kept = random.sample(["r", "s", "q", "e", "t"], random.randint(0, 2))
    return engine.assignment.keeping(layers=random.sample(names, random.randint(0, len(names))), tensors=kept)


@pytest.mark.parametrize("place", ["host", "hopper", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_bits_do_not_depend_on_earlier_assignments(request, engine, place):
    backend = request.getfixturevalue(place)
    used, random = on(engine, backend), Random(0)
    again = 0
    for at in range(9):
        plans = engine._plans(drawn(engine, random))
        before = len(used._templates)
        found = used.run(FEEDS, plans)
        again += len(used._templates) - before < len(engine.layers)
        fresh = on(engine, backend)
        fresh.replays.enabled = False
        expected = fresh.run(FEEDS, plans)
        for name, array in expected.items():
            assert np.array_equal(found[name], array), (at, name)
        repeated = used.run(FEEDS, plans)
        assert all(np.array_equal(repeated[name], array) for name, array in expected.items())
    assert again > 4


class Counted(NullBackend):
    """Counts what is planned anew."""

    arch = "sm_90a"


def test_most_layers_have_templates(engine):
    """Views, images with channels last and reads that share memory included: the second time nothing is planned anew."""
    device = on(engine, Counted())
    plans = engine._plans(engine.assignment)
    device.run(FEEDS, plans)
    device.replays._known.clear()
    anew: list[str] = []
    run = device._run_anew
    device._run_anew = lambda layer, *rest, **more: (anew.append(layer.name), run(layer, *rest, **more))[1]
    device.run(FEEDS, plans)
    assert len(anew) <= 2, anew  # what reads the network's input, which lies on the host
