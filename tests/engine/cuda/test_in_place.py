"""Concatenations in place: what is only copied whole into a larger tensor is made there; the same bits, fewer launches, no more memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.model import load

HEAD = '<ir_version: 8, opset_import: ["" : 18]>\n'
SMALL = "(float[1,16,8,8] x) => (float[1,a,8,8] y)"
# network -> copies that a run launches, and a repeated one
NETWORKS = {
    "all parts": (SMALL + "{ a = Exp (x)  b = Sin (x)  c = Concat <axis = 1> (a, b)  y = Abs (c) }", 2, 0),
    "one inside another": (
        SMALL + "{ a = Exp (x)  b = Sin (x)  c = Concat <axis = 1> (a, b)  d = Cos (b)  e = Concat <axis = 1> (d, c)  f = Abs (e)  y = Neg (f) }", 4, 0,
    ),
    "an input": (SMALL + "{ a = Exp (x)  c = Concat <axis = 1> (x, a)  y = Abs (c) }", 2, 1),
    "twice the same": (SMALL + "{ a = Exp (x)  c = Concat <axis = 1> (a, a)  y = Abs (c) }", 2, 1),
    "in two": (SMALL + "{ a = Exp (x)  b = Sin (x)  c = Concat <axis = 1> (a, b)  d = Concat <axis = 1> (b, a)  y = Sub (c, d) }", 4, 2),
    "read by others": (SMALL + "{ a = Exp (x)  b = Sin (x)  c = Concat <axis = 1> (a, b)  d = Concat <axis = 1> (b, c)  e = Mul (a, b)  y = Concat <axis = 1> (d, e) }", 6, 1),
    "across": ("(float[2,16,8,8] x) => (float[2,a,8,8] y) { a = Exp (x)  b = Sin (x)  c = Concat <axis = 1> (a, b)  y = Abs (c) }", 2, 2),
    "a place that no slot has": ("(float[1,3,5,5] x) => (float[1,6,5,5] y) { a = Exp (x)  b = Sin (x)  c = Concat <axis = 1> (a, b)  y = Abs (c) }", 2, 1),
    "another type": ("(float[1,16,8,8] x) => (float[1,32,8,8] y) { a = Exp (x)  k = Cos (x)  b = Sin (a)  c = Concat <axis = 1> (k, b)  y = Abs (c) }", 2, 2),
    "an output": (SMALL[:-1] + ", float[1,16,8,8] a) { a = Exp (x)  b = Sin (x)  c = Concat <axis = 1> (a, b)  y = Abs (c) }", 2, 0),
    "scattered into": (
        "(float[4,64] x) => (float[4,64] y) <int64[1,1] i = {2}, int64[1] i0 = {0}> { a = Exp (x)  s = ReduceMax <keepdims = 1> (x, i0)  b = Cos (s) \
        c = ScatterND (a, i, b)  y = Abs (c) }", 1, 1,
    ),
    "kept for long": (
        "(float[1,16,8,8] x) => (float[1,64,8,8] y) <int64[4] s = {8, 16, 8, 8}, int64[1] i0 = {0}> { a = Exp (x)  p = Expand (x, s)  q = Sin (p)  r = Cos (q) \
        t = ReduceMax (r, i0)  u = Abs (t)  v = Neg (u)  y = Concat <axis = 1> (a, t, u, v) }", 4, 4,
    ),
}  # fmt: skip


def device_of(backend, folder, text, precision="fp32"):
    model = onnx.parser.parse_model(HEAD + "g " + text)
    random = np.random.default_rng(5)
    onnx.save(model, folder / "m.onnx")
    engine = compile_model(load(folder / "m.onnx"), precision=precision, passes="none", fusion="none")
    shape = tuple(one.dim_value for one in model.graph.input[0].type.tensor_type.shape.dim)
    feeds = [{"x": random.standard_normal(shape).astype(np.float32)} for _ in range(3)]
    engine.device = device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    return engine, device, feeds


def copies(prepared) -> int:
    return sum(one.source.entry == "copy_strided" for piece in prepared._pieces for one in piece.in_order)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_copied_whole_is_made_in_its_place(backend, tmp_path, name):
    text, recorded, repeated = NETWORKS[name]
    engine, device, feeds = device_of(backend, tmp_path, text, "fp16" if name == "another type" else "fp32")
    if name == "another type":
        engine.assignment = engine.assignment.keeping(tensors=["k"])
    device.replays.enabled = False
    expected = [engine(one) for one in feeds]
    assert device.queue.launches.get("copy_strided", 0) == recorded * len(feeds)
    device.replays.enabled = True
    for one, golden in zip([*feeds, *feeds], [*expected, *expected], strict=True):
        made = engine(one)
        assert all(np.array_equal(made[key], golden[key]) for key in golden)
    (known,) = device.replays._known.values()
    assert copies(known.prepared) == repeated


@pytest.mark.parametrize("name", ["one inside another", "read by others"])
def test_tensors_that_are_handed_out_lie_there_too(backend, tmp_path, name):
    engine, _, feeds = device_of(backend, tmp_path, NETWORKS[name][0])
    seen: list[dict[str, Any]] = []
    for one in [*feeds, *feeds]:
        seen.append({})
        engine.run(one, tap=lambda tapped: seen[-1].__setitem__(tapped.name, tapped.array))
    for first, again in zip(seen[:3], seen[3:], strict=True):
        assert first.keys() == again.keys()
        for key, array in first.items():
            np.testing.assert_array_equal(array, again[key], strict=True)


def test_side_by_side_nothing_lies_in_another(backend, tmp_path):
    engine, device, feeds = device_of(backend, tmp_path, NETWORKS["all parts"][0])
    plans = engine.rounding.plan(engine.assignment)
    prepared = [device.prepare(feeds[0], plans, side_by_side=beside) for beside in (False, True)]
    assert [copies(one) for one in prepared] == [0, 2]
    for one in prepared:
        one.replay()
    beside, behind = (one.outputs()["y"].held for one in prepared)
    assert beside is not None and behind is not None and np.array_equal(beside, behind)
    assert prepared[0].layout.nbytes <= prepared[1].layout.nbytes
