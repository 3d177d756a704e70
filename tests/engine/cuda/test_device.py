"""``CudaDevice`` as a device: assignments, kept tensors, tactics, fallbacks, branches, evaluation; bit for bit where only rounding differs."""

from __future__ import annotations

import gc

import numpy as np
import onnx
import pytest

from probe.engine.assignment import FP32, Assignment, Choice
from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.guard import find_gpu
from probe.errors import InputError
from probe.model import load

MLP = """<ir_version: 8, opset_import: ["" : 18]>
g (float[n,16] x) => (float[n,8] y)
<float[16,24] w, float[24] b, float[24,8] v>
{ h = MatMul (x, w)  i = Add (h, b)  r = Relu (i)  t = Mul (r, r)  o = MatMul (t, v)  y = Abs (o) }"""
BRANCHES = """<ir_version: 8, opset_import: ["" : 18]>
g (float[4] x, bool c) => (float[4] y)
{ a = Mul (x, x)
  y = If (c) <then_branch = t () => (float[4] p) { p = Add (a, x) }, else_branch = e () => (float[4] q) { h = Neg (a) q = Exp (h) }> }"""


def model(tmp_path, text: str, **weights: np.ndarray):
    made = onnx.parser.parse_model(text)
    for name, array in weights.items():
        for tensor in [one for one in made.graph.initializer if one.name == name]:
            made.graph.initializer.remove(tensor)
        made.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(made, tmp_path / "m.onnx")
    return load(tmp_path / "m.onnx")


@pytest.fixture
def mlp(tmp_path, backend):
    """Small integers: every product and sum is exact, so both devices must agree bit for bit in every assignment."""
    random = np.random.default_rng(3)
    weights = {
        name: random.integers(-3, 4, shape).astype(np.float32) / 8
        for name, shape in (("w", (16, 24)), ("b", (24,)), ("v", (24, 8)))
    }
    loaded = model(tmp_path, MLP.replace("\n<float[16,24] w, float[24] b, float[24,8] v>", ""), **weights)
    engine = compile_model(loaded, precision="fp16", fusion="none", passes="none")
    feeds = {"x": random.integers(-40, 41, (5, 16)).astype(np.float32) / 3}
    return engine, CudaDevice(engine.network, engine.top_layers, engine.rounding, backend), feeds


def assignments(engine):
    names = [layer.name for layer in engine.layers]
    yield engine.assignment
    yield Assignment(FP32)
    yield engine.assignment.keeping(layers=names[:2])
    yield engine.assignment.keeping(layers=names[2:4])
    yield engine.assignment.keeping(tensors=["h", "t"])
    yield engine.assignment.keeping(tensors=["x", "w"])
    yield engine.assignment.keeping(tensors=["b", "r"], layers=names[4:])
    yield Assignment(Choice("bf16"), {names[0]: FP32, names[3]: Choice("fp16")})
    yield Assignment(Choice("tf32"), {names[4]: Choice("bf16")})


def test_assignments_bit_for_bit(mlp):
    engine, device, feeds = mlp
    cpu = engine.device
    for assignment in assignments(engine):
        golden, actual = {}, {}
        engine.device = cpu
        expected = engine.run(feeds, assignment, tap=lambda t, into=golden: into.update({t.name: t.array}))
        engine.device = device
        found = engine.run(feeds, assignment, tap=lambda t, into=actual: into.update({t.name: t.array}))
        assert list(golden) == list(actual)
        assert np.array_equal(found["y"], expected["y"])
        # tf32 products of x are not exact in another order; rounded tensors are
        for name, array in golden.items():
            assert actual[name].dtype == array.dtype
            assert np.allclose(actual[name], array, rtol=1e-6), name
        assert np.array_equal(engine.run(feeds, assignment)["y"], found["y"])
    assert not device.fallen


def test_tensors_are_stored_low(mlp):
    engine, device, _ = mlp
    engine.device = device
    made = device._run_layer(
        engine.layers[2], {id(v): device.queue.convert(_tensor(np.ones((5, 24), np.float32)), _low()) for v in engine.layers[2].reads},
        engine._plans(engine.assignment)[engine.layers[2].name], device.queue, wants_interior=False,
    )  # fmt: skip
    (tensor,) = made.values()
    assert tensor.format is not None and (tensor.format.name, tensor.nbytes) == ("f16", 240)


def _low():
    from probe.engine.device.cuda.tensors.formats import F16

    return F16


def _tensor(array):
    from probe.engine.device.cuda.tensors.tensor import host_tensor

    return host_tensor(array)


def test_evaluate_rounds_what_is_read(mlp):
    engine, device, feeds = mlp
    cpu = engine.device
    reads = {"x": feeds["x"]}
    for choice, read_as in ((Choice("fp16"), None), (FP32, "fp16"), (FP32, None), (Choice("bf16"), None)):
        engine.device = cpu
        expected = engine.evaluate(engine.layers[0], reads, choice, read_as=read_as)
        engine.device = device
        actual = engine.evaluate(engine.layers[0], reads, choice, read_as=read_as)
        assert actual.keys() == expected.keys()
        assert np.allclose(actual["h"], expected["h"], rtol=1e-6)


def test_acc16_overflows_where_fp16_sums_do(tmp_path, backend):
    """Partial sums beyond 65504: exact sums come back, an FP16 accumulator does not."""
    w = np.ones((64, 8), np.float32)
    engine = compile_model(
        model(
            tmp_path,
            '<ir_version: 8, opset_import: ["" : 18]>\ng (float[n,64] x) => (float[n,8] y) { y = MatMul (x, w) }',
            w=w,
        ),
        precision="fp16",
    )
    x = np.zeros((16, 64), np.float32)
    x[:, :32], x[:, 32:] = 4000, -4000
    x[1] = np.random.default_rng(0).standard_normal(64).astype(np.float16)
    feeds, name = {"x": x}, engine.layers[0].name
    cpu, device = engine.device, CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    results = {}
    for tactic in ("exact", "acc16"):
        assignment = engine.assignment.with_tactics({name: tactic})
        engine.device = cpu
        expected = engine.run(feeds, assignment)["y"]
        engine.device = device
        results[tactic] = engine.run(feeds, assignment)["y"]
        finite = np.isfinite(expected)
        assert np.array_equal(np.isfinite(results[tactic]), finite)
        assert np.abs(results[tactic][finite] - expected[finite]).max() <= 2.0**-7  # units of FP16 at 8
    assert np.isfinite(results["exact"]).all() and not np.isfinite(results["acc16"][0]).any()
    assert not device.fallen and device.supports(engine.layers[0], "fp16", "acc16") is None


def test_compile_model_takes_the_device_by_name(tmp_path):
    loaded = model(tmp_path, BRANCHES)
    with pytest.raises(InputError, match="unknown device 'tpu'") as caught:
        compile_model(loaded, device="tpu")
    assert "cpu, cuda" in caught.value.hint
    if not find_gpu():
        with pytest.raises(InputError, match="no CUDA device"):
            compile_model(loaded, device="cuda")


@pytest.mark.gpu
def test_an_engine_on_the_gpu(tmp_path, gpu):
    engine = compile_model(model(tmp_path, BRANCHES), device="cuda")
    assert engine.device.name == "cuda" and engine({"x": np.ones(4, np.float32), "c": np.array(True)})[
        "y"
    ].tolist() == [2, 2, 2, 2]


def test_branches_run_where_the_condition_says(tmp_path, backend):
    engine = compile_model(model(tmp_path, BRANCHES), precision="fp16")
    cpu, device = engine.device, CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    for taken in (True, False):
        feeds = {"x": np.array([0.1, -2, 3, 0.5], np.float32), "c": np.array(taken)}
        engine.device = cpu
        expected, golden = engine(feeds), []
        engine.run(feeds, tap=golden.append)
        engine.device = device
        actual, taps = engine(feeds), []
        engine.run(feeds, tap=taps.append)
        assert np.allclose(actual["y"], expected["y"], rtol=2e-3)
        assert [(t.name, t.status, t.note) for t in taps] == [(t.name, t.status, t.note) for t in golden]


def test_what_has_no_kernel_runs_on_the_cpu_and_is_listed(tmp_path, backend):
    text = """<ir_version: 8, opset_import: ["" : 18]>
g (float[3,5] x) => (float[3,5] z, int64[2] n)
{ s = Einsum <equation = "ij->ij"> (x)  n = Shape (s)  z = Mul (s, x) }"""
    engine = compile_model(model(tmp_path, text), precision="fp16")
    device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    feeds = {"x": np.arange(15, dtype=np.float32).reshape(3, 5) / 7}
    expected = engine(feeds)
    engine.device = device
    actual = engine(feeds)
    assert all(np.array_equal(actual[name], expected[name]) for name in expected)
    (name,) = device.fallen
    assert device.fallen == {name: "no kernel for Einsum"} and device.falls[name] == 1
    assert device.supports(engine.layer(name), "fp16", "exact") == "no kernel for Einsum"
    assert [(f.layer, f.op, f.reason, f.by) for f in engine.fallbacks] == [
        (name, "Einsum", "no kernel for Einsum", "cpu")
    ]
    engine(feeds)
    assert device.falls[name] == 2


def test_shapes_are_dynamic_and_may_be_empty(mlp):
    engine, device, feeds = mlp
    cpu = engine.device
    for rows in (1, 7, 0, 3):
        x = np.resize(feeds["x"], (rows, 16))
        engine.device = cpu
        expected = engine({"x": x})["y"]
        engine.device = device
        actual = engine({"x": x})["y"]
        assert actual.shape == expected.shape == (rows, 8) and np.array_equal(actual, expected)


def test_memory_is_given_back(mlp, request):
    engine, device, feeds = mlp
    if request.node.callspec.params["backend"] != "host":
        pytest.skip("counts the host's allocations")
    engine.device = device
    for _ in range(2):  # the second run makes ready what later ones repeat
        engine(feeds)
    gc.collect()  # what earlier tests hold in cycles
    held = len(device.backend._memory)
    for _ in range(3):
        engine(feeds)
    assert len(device.backend._memory) == held
