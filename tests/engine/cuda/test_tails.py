"""Products that take along the pointwise nodes behind them: the same bits as one kernel after the other, whoever looks inside."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from probe.engine.assignment import FP32, Assignment, Choice
from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.layers import layer_run
from probe.engine.device.cuda.layers.pointwise import Reading, run_steps
from probe.engine.device.cuda.ops.call import Call
from probe.engine.device.cuda.ops.products.product_shape import product_shape
from probe.engine.device.cuda.ops.table import OPS
from probe.engine.device.cuda.tensors.formats import F32
from probe.model import load
from tests.engine.cuda.null_backend import NullBackend

HEAD = '<ir_version: 8, opset_import: ["" : 18]>\n'
NETWORKS = {
    "linear": """g (float[2,m,16] x, float[2,m,24] r) => (float[2,m,24] y, float[2,m,24] a)
{ p = MatMul (x, w)  a = Add (p, b)  q = Relu (a)  y = Add (q, r) }""",
    "gelu": """g (float[m,16] x) => (float[m,24] y) <float one = {1.0}, float root = {1.414}, float half = {0.5}>
{ p = Gemm <transB = 1> (x, w, b)  d = Div (p, root)  e = Erf (d)  f = Add (e, one)  h = Mul (p, f)  y = Mul (h, half) }""",
    "block": """g (float[1,8,6,6] x) => (float[1,8,6,6] y)
{ p = Conv <pads = [1, 1, 1, 1]> (x, w, b)  q = Relu (p)  s = Conv (q, v, c)  t = Add (s, x)  y = Relu (t) }""",
    "shown": """g (float[7,16] x, float[1,7,24] r) => (float[1,7,24] y) <int64[3] s = {1, 7, 24}>
{ p = Gemm (x, w, b)  v = Reshape (p, s)  q = Add (v, r)  y = Mul (q, c) }""",
    "moved": """g (float[2,7,16] x, float[2,7,24] r) => (float[2,7,24] y) <int64[2] flat = {14, 16}, int64[3] s = {7, 2, 24}>
{ t = Transpose <perm = [1, 0, 2]> (x)  f = Reshape (t, flat)  p = Gemm (f, w, b)  v = Reshape (p, s)
  u = Transpose <perm = [1, 0, 2]> (v)  q = Add (u, r)  y = Mul (q, c) }""",
    "across": """g (float[14,16] x, float[2,7,24] r) => (float[2,7,24] y) <int64[3] s = {7, 2, 24}>
{ p = Gemm (x, w, b)  v = Reshape (p, s)  u = Transpose <perm = [1, 0, 2]> (v)  y = Add (u, r) }""",
    "wider": """g (float[1,16] x, float[5,24] r) => (float[5,24] y)
{ p = MatMul (x, w)  q = Relu (p)  y = Add (q, r) }""",
}
WEIGHTS = {
    "linear": {"w": (16, 24), "b": (24,)}, "gelu": {"w": (24, 16), "b": (24,)},
    "block": {"w": (8, 8, 3, 3), "b": (8,), "v": (8, 8, 1, 1), "c": (8,)}, "wider": {"w": (16, 24)},
    "shown": {"w": (16, 24), "b": (24,), "c": (24,)}, "moved": {"w": (16, 24), "b": (24,), "c": (24,)},
    "across": {"w": (16, 24), "b": (24,)},
}  # fmt: skip
FEEDS = {
    "linear": {"x": (2, 7, 16), "r": (2, 7, 24)}, "gelu": {"x": (7, 16)}, "block": {"x": (1, 8, 6, 6)},
    "wider": {"x": (1, 16), "r": (5, 24)}, "shown": {"x": (7, 16), "r": (1, 7, 24)},
    "moved": {"x": (2, 7, 16), "r": (2, 7, 24)}, "across": {"x": (14, 16), "r": (2, 7, 24)},
}  # fmt: skip


def standing_in(op: str, log: list[str]):
    """A ``tailed`` of two launches: the product in FP32, then the steps."""

    def tailed(queue, call: Call, readings, steps):
        shape = product_shape(call)
        (wide,) = OPS[op].compute(queue, Call(call.node, call.inputs, [F32], call.opset, call.tactic))
        assert wide is not None and wide.shape == shape
        log.append(op)
        return run_steps(queue, shape, [("sum", Reading(wide)), *readings], steps)

    return SimpleNamespace(compute=OPS[op].compute, tailed=tailed)


def refusing(op: str):
    def tailed(queue, call, readings, steps):
        raise Unsupported("not this one")

    return SimpleNamespace(compute=OPS[op].compute, tailed=tailed)


def engine_of(folder, network: str, backend):
    made = onnx.parser.parse_model(HEAD + NETWORKS[network])
    random = np.random.default_rng(5)
    for name, shape in WEIGHTS[network].items():
        array = random.standard_normal(shape).astype(np.float32) / 2
        made.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(made, folder / "m.onnx")
    engine = compile_model(load(folder / "m.onnx"), precision="fp16", fusion="full")
    engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    return engine, {name: random.standard_normal(shape).astype(np.float32) for name, shape in FEEDS[network].items()}


@pytest.mark.parametrize("network", NETWORKS)
def test_a_tail_gives_the_same_bits(tmp_path, backend, monkeypatch, network):
    engine, feeds = engine_of(tmp_path, network, backend)
    monkeypatch.setattr(layer_run, "LONG", frozenset())
    whole = network == "linear" or backend.name != "host"  # on the host a product takes a second
    choices = (engine.assignment, engine.assignment.keeping(tensors=["p"]), Assignment(FP32))[: 3 if whole else 1]
    products = ("MatMul", "Gemm", "Conv")
    log: list[str] = []
    golden: dict[Assignment, dict[str, np.ndarray | None]] = {}
    for kind in ("apart", "tailed", "refused")[: 3 if whole else 2]:
        for op in products:
            without = SimpleNamespace(compute=OPS[op].compute, tailed=None)
            row = {"apart": without, "tailed": standing_in(op, log), "refused": refusing(op)}[kind]
            monkeypatch.setitem(OPS, op, row)
        engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
        for assignment in choices:
            taps: dict[str, np.ndarray | None] = {}
            tapped = engine.run(feeds, assignment, tap=lambda t, into=taps: into.__setitem__(t.name, t.array))
            found = {**engine.run(feeds, assignment), **taps}
            assert all(np.array_equal(tapped[name], found[name]) for name in tapped)
            if kind == "apart":
                golden[assignment] = found
            assert found.keys() == golden[assignment].keys()
            for name, array in golden[assignment].items():
                assert array is not None and np.array_equal(found[name], array), (kind, name)
    assert log or network == "across"  # rows that neither operand has in that order


DEAD = """g (float[2,4,8] x, float[1,8,6,6] i) => (float[2,4,8] y) <float[8] w = {1, 2, 3, 4, 5, 6, 7, 8}>
{ y = Relu (x)  m = MatMul (x, v)  n = Neg (m)  o = Sigmoid (n)  c = Conv (i, k)  d = Relu (c)  t = Transpose <perm = [0, 2, 1]> (x)
  p = MatMul (x, t)  s = Softmax (p)  a = MatMul (s, x)  l = LayerNormalization (x, w)  q = Mul (l, w)  r = ReduceSum (q) }"""


@pytest.mark.parametrize("fusion", ["none", "full"])
@pytest.mark.parametrize("precision", ["fp16", "tf32"])
def test_what_nobody_reads_is_no_fault(tmp_path, backend, fusion, precision):
    """Nodes that no pass may remove, behind products of which then nothing is stored."""
    made, random = onnx.parser.parse_model(HEAD + DEAD), np.random.default_rng(1)
    for name, shape in (("v", (8, 8)), ("k", (4, 8, 3, 3))):
        made.graph.initializer.append(
            onnx.numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)
        )
    onnx.save(made, tmp_path / "dead.onnx")
    engine = compile_model(load(tmp_path / "dead.onnx"), precision=precision, passes="none", fusion=fusion)
    feeds = {
        name: random.standard_normal(shape).astype(np.float32)
        for name, shape in (("x", (2, 4, 8)), ("i", (1, 8, 6, 6)))
    }
    expected = engine(feeds)["y"]
    engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    taps: list[Any] = []
    for _ in range(2):
        assert np.array_equal(engine(feeds)["y"], expected) and np.array_equal(
            engine.run(feeds, tap=taps.append)["y"], expected
        )
    assert {"o", "d", "a", "r"} <= {one.name for one in taps}


@pytest.mark.parametrize("network", ["shown", "moved"])
def test_a_product_shown_otherwise_is_one_kernel(tmp_path, backend, network):
    """Under another shape; or its rows transposed, as those of what it multiplies were before."""
    engine, feeds = engine_of(tmp_path, network, backend)
    device: Any = engine.device
    device.replays.enabled = False
    before = dict(device.queue.launches)
    engine(feeds)
    made = {k: v - before.get(k, 0) for k, v in device.queue.launches.items()}
    made.pop("copy_strided", None)  # weights, once
    # x, r, weights and what is read beside are made low; the result needs not be made wide again
    assert sum(count for name, count in made.items() if name.startswith("matmul")) == 1
    assert set(made) <= {"chain", "transpose", *(name for name in made if name.startswith("matmul"))}
    tail = device.queue.launches["chain"]
    engine(feeds)
    assert device.queue.launches["chain"] - tail <= 2  # the inputs


# Attention as PyTorch exports it: queries first inside, heads beside images; images first around it
QUERIES_FIRST = """g (float[4,9,32] x) => (float[4,9,32] y) <int64[3] rows = {9, 12, 16}, int64[4] wide = {9, 4, 3, 48}, int64[4] heads = {4, 3, 9, 16},
    int64[2] all = {36, 48}, int64[3] back = {9, 4, 32}, int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2}, float third = {0.3}>
{ n = Neg (x)  t = Transpose <perm = [1, 0, 2]> (n)  m = MatMul (t, w)  l = Add (m, b)  l4 = Reshape (l, wide)
  l3 = Transpose <perm = [2, 0, 1, 3]> (l4)  q0 = Gather (l3, i0)  k0 = Gather (l3, i1)  v0 = Gather (l3, i2)
  q1 = Reshape (q0, rows)  k1 = Reshape (k0, rows)  v1 = Reshape (v0, rows)
  q2 = Transpose <perm = [1, 0, 2]> (q1)  k2 = Transpose <perm = [1, 0, 2]> (k1)  v2 = Transpose <perm = [1, 0, 2]> (v1)
  q3 = Reshape (q2, heads)  k3 = Reshape (k2, heads)  v3 = Reshape (v2, heads)  k4 = Transpose <perm = [0, 1, 3, 2]> (k3)
  p0 = MatMul (q3, k4)  p = Mul (p0, third)  s = Softmax <axis = -1> (p)  o = MatMul (s, v3)
  h = Transpose <perm = [2, 0, 1, 3]> (o)  f = Reshape (h, all)  g = Gemm <transB = 1> (f, u, c)
  r = Reshape (g, back)  e = Transpose <perm = [1, 0, 2]> (r)  z = Add (e, n)  y = Relu (z) }"""


def test_attention_that_turns_images_moves_nothing(tmp_path):
    """Rows stay in the order of the images through attention and the product behind it, so that the residual is the product's."""
    made = onnx.parser.parse_model(HEAD + QUERIES_FIRST)
    random = np.random.default_rng(5)
    for name, shape in {"w": (32, 144), "b": (144,), "u": (32, 48), "c": (32,)}.items():
        made.graph.initializer.append(
            onnx.numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)
        )
    onnx.save(made, tmp_path / "m.onnx")
    engine = compile_model(load(tmp_path / "m.onnx"), precision="fp16")
    backend = NullBackend()
    backend.arch = "sm_90a"
    engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    engine({"x": np.zeros((4, 9, 32), np.float32)})
    backend.launched.clear()
    engine({"x": np.zeros((4, 9, 32), np.float32)})
    assert [source.entry for source, _ in backend.launched] == ["chain", "matmul_wgmma", "attention", "matmul_wgmma"]


def test_long_functions_are_computed_apart(tmp_path, backend):
    """An erf GELU is cut where one tensor crosses: behind the product, not behind the division. In 16 bits it is short, and taken along."""
    engine, feeds = engine_of(tmp_path, "gelu", backend)
    device: Any = engine.device
    device.replays.enabled = False
    for assignment, chains in (
        (Assignment(FP32), 1),
        (engine.assignment, 1),
    ):  # all that is behind the product; the input
        engine.run(feeds, assignment)
        before = device.queue.launches["chain"]
        engine.run(feeds, assignment)
        assert device.queue.launches["chain"] - before == chains


def test_tf32_takes_erf_along(tmp_path, backend, monkeypatch):
    """The GELU that FP32 computes apart, with the same bits; TF32 reads and writes as much, and multiplies in a third of the time."""
    engine, feeds = engine_of(tmp_path, "gelu", backend)
    choice, found, chains = Assignment(Choice("tf32")), [], []
    for tailed in (OPS["Gemm"].tailed, None):
        monkeypatch.setitem(OPS, "Gemm", SimpleNamespace(compute=OPS["Gemm"].compute, tailed=tailed))
        engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
        device: Any = engine.device
        device.replays.enabled = False
        engine.run(feeds, choice)
        before = device.queue.launches["chain"]
        found.append(engine.run(feeds, choice)["y"])
        chains.append(device.queue.launches["chain"] - before)
    assert chains[1] == chains[0] + 1
    assert np.array_equal(*found)
