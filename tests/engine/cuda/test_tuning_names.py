"""Tactics by name: what a name promises, that it is computed so and by nothing else, and what is said where it cannot be."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.engine.assignment import FP32, Assignment, Choice
from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.ops.products.wgmma_family import name_of
from probe.engine.device.cuda.ops.products.wgmma_tactics import TACTICS
from probe.engine.tactics import is_known, tactic_of
from probe.engine.tactics.kernels import kernel_tactic
from probe.errors import InputError
from probe.model import load
from tests.engine.cuda.test_wgmma import hopper  # noqa: F401 - a fixture

NET = """<ir_version: 8, opset_import: ["" : 18]>
g (float[2,16,6,6] x) => (float[2,24] y)
<float[24,16,1,1] a, float[24] b, float[32,24,3,3] c, float[16,1,3,3] d, float[32,24] e>
{ dw = Conv <group = 16, pads = [1,1,1,1]> (x, d)
  h = Conv (dw, a, b)  r = Relu (h)
  g = Conv <pads = [1,1,1,1]> (r, c)
  m = GlobalAveragePool (g)  f = Flatten (m)  o = MatMul (f, e)  y = Abs (o) }"""


def network(tmp_path, text: str, keep: tuple[str, ...] = (), **drawn: tuple[int, ...]):
    """A model with random weights, beside those that its text gives and ``keep`` names."""
    made, random = onnx.parser.parse_model(text), np.random.default_rng(3)
    given = [one for one in made.graph.initializer if one.name in keep]
    del made.graph.initializer[:]
    made.graph.initializer.extend(given)
    for name, shape in drawn.items():
        array = (random.standard_normal(shape) / np.sqrt(max(np.prod(shape[1:]), 1))).astype(np.float32)
        made.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(made, tmp_path / "m.onnx")
    return load(tmp_path / "m.onnx")


@pytest.fixture
def engine(tmp_path):
    weights = {"a": (24, 16, 1, 1), "b": (24,), "c": (32, 24, 3, 3), "d": (16, 1, 3, 3), "e": (32, 24)}
    return compile_model(
        network(tmp_path, NET.partition("<float[24")[0] + NET[NET.index("{ dw") :], **weights), precision="fp16"
    )


FEEDS = {"x": np.random.default_rng(0).standard_normal((2, 16, 6, 6)).astype(np.float32)}


def on(engine, backend) -> CudaDevice:
    engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    return engine.device


def layers_of(engine) -> dict[str, str]:
    """Letter of the weight -> layer."""
    return {one.weights[0].name: one.name for one in engine.layers if one.weights and one.kind in ("conv", "matmul")}


NAMED = [
    ("a", "mma_64x64", "matmul_mma"), ("a", "mma_128x128_acc16", "matmul_mma"), ("a", "simt_32x32", "matmul_simt"), ("a", "conv_direct", "conv_direct"),
    ("c", "mma_64x64", "conv_mma"), ("c", "mma_64x64_acc16", "conv_mma"), ("c", "simt_64x64", "conv_simt"), ("c", "conv_direct", "conv_direct"),
    ("d", "conv_direct", "conv_direct"), ("e", "mma_64x64", "matmul_mma"), ("e", "simt_128x128", "matmul_simt"),
]  # fmt: skip


@pytest.mark.parametrize(("weight", "tactic", "kernel"), NAMED)
def test_a_name_is_computed_by_its_kernel(engine, backend, weight, tactic, kernel):
    device, layer = on(engine, backend), layers_of(engine)[weight]
    expected = engine.run(FEEDS)["y"]
    engine.run(FEEDS, engine.assignment.with_tactics({layer: tactic}))
    before = device.queue.launches.get(kernel, 0)
    actual = engine.run(FEEDS, engine.assignment.with_tactics({layer: tactic}))["y"]
    off = np.abs(actual - expected).max() / np.abs(expected).max()
    assert off < (0.02 if "acc16" in tactic else 4e-3) and not device.fallen
    device.queue.launches.clear()
    device.replays.enabled = False
    again = engine.run(FEEDS, engine.assignment.with_tactics({layer: tactic}))["y"]
    assert device.queue.launches.get(kernel), (before, device.queue.launches)
    assert np.array_equal(actual, again)


ON_HOPPER = [("a", "wgmma_64x64"), ("a", "wgmma_128x64"), ("c", "wgmma_64x64"), ("c", "wgmma_64x128_turns2"), ("e", "wgmma_64x64"),
             ("d", "conv_depthwise")]  # fmt: skip


@pytest.mark.parametrize(("weight", "tactic"), ON_HOPPER)
def test_names_of_hopper(engine, hopper, weight, tactic):  # noqa: F811 - the fixture
    device, layer = on(engine, hopper), layers_of(engine)[weight]
    expected = engine.run(FEEDS)["y"]
    device.queue.launches.clear()
    device.replays.enabled = False
    actual = engine.run(FEEDS, engine.assignment.with_tactics({layer: tactic}))["y"]
    assert np.abs(actual - expected).max() < 4e-3 * np.abs(expected).max()
    # what exact takes there, too: whatever the tile, each sum is one in the order of k
    assert np.array_equal(actual, expected)


REFUSED = [
    ("c", "wgmma_64x64", "wgmma is of sm_90a"), ("c", "mma_32x64", "there are no such tiles"), ("a", "conv_depthwise", "wgmma is of"),
    ("e", "conv_direct", "conv_direct is for Conv"), ("c", "wgmma_64x64_nchw", "a window of more than a pixel"), ("d", "mma_64x64", None),
]  # fmt: skip


@pytest.mark.parametrize(("weight", "tactic", "reason"), REFUSED)
def test_a_name_that_does_not_fit_is_refused_and_nothing_else_runs(engine, host, weight, tactic, reason):
    device, layer = on(engine, host), layers_of(engine)[weight]
    assignment = engine.assignment.with_tactics({layer: tactic})
    if reason is None:
        engine.run(FEEDS, assignment)
        return
    with pytest.raises(InputError, match=reason) as error:
        engine.run(FEEDS, assignment)
    assert layer in error.value.what and not device.fallen


def test_what_a_kept_tensor_leaves_wide_is_multiplied_exactly(engine, host):
    on(engine, host)
    layer = layers_of(engine)["c"]
    for name in ("r", "g", "c"):  # read, made, and a weight
        kept = engine.assignment.keeping(tensors=[name])
        expected = engine.run(FEEDS, kept)["y"]
        assert np.array_equal(engine.run(FEEDS, kept.with_tactics({layer: "mma_64x64_acc16"}))["y"], expected), name
    other = engine.run(FEEDS, engine.assignment.with_tactics({layer: "mma_64x64_acc16"}))["y"]
    assert not np.array_equal(other, engine.run(FEEDS)["y"]), "it would show"


def test_the_cpu_refuses_them(engine):
    layer = layers_of(engine)["c"]
    with pytest.raises(InputError, match="mma_64x64 is a tactic of the cuda device"):
        engine.run(FEEDS, engine.assignment.with_tactics({layer: "mma_64x64"}))
    with pytest.raises(InputError, match="is a tactic of the cuda device"):
        engine.evaluate(layer, {"r": np.zeros((2, 24, 6, 6), np.float32)}, Choice("fp16", "mma_64x64"))
    assert engine.device.supports(engine.layer(layer), "fp16", "mma_64x64")


def test_precisions(engine, host):
    """A name exists for what its numerics say: FP16 accumulation for FP16 alone, FMA for FP32 too."""
    on(engine, host)
    layer = layers_of(engine)["c"]
    engine.run(FEEDS, Assignment(FP32, {layer: Choice("fp32", "simt_32x32")}))
    engine.run(FEEDS, Assignment(Choice("tf32"), {layer: Choice("tf32", "mma_64x64")}))
    for precision, tactic in (("fp32", "mma_64x64"), ("bf16", "mma_64x64_acc16"), ("fp32", "wgmma_64x64")):
        with pytest.raises(InputError, match=f"{tactic} exists for .*, not for {precision}"):
            engine.run(FEEDS, Assignment(FP32, {layer: Choice(precision, tactic)}))


def test_every_variant_has_a_name_and_every_name_one_meaning():
    names = [name_of(one) for one in TACTICS]
    assert len(set(names)) == len(names)
    for one, name in zip(TACTICS, names, strict=True):
        row = tactic_of(name)
        assert (row.name, row.splits, row.device, row.accumulator) == (name, one.splits, "cuda", "fp32")
        assert f"{one.m} x {one.n}" in row.numerics and row.deterministic


@pytest.mark.parametrize(
    "name", ["wgmma", "wgmma_0x64", "wgmma_64x64_pair1", "wgmma_064x64", "wgmma_64x64_splitk4_pair2", "wgmma_64x64 ", "mma_64x64_acc32",
             "simt_64", "conv", "wgmma_６4x64", "wgmma_64x64_splitk1", "mma_64x64_splitk2", "ffma_64x64_splitk1", "ffma_64", ""],
)  # fmt: skip
def test_what_is_no_name(name):
    assert not is_known(name) and kernel_tactic(name) is None


@pytest.mark.parametrize("weight", ["a", "c", "e"])
def test_tiles_of_fp32(engine, backend, weight):
    device, layer = on(engine, backend), layers_of(engine)[weight]
    device.replays.enabled = False
    expected = engine.run(FEEDS, Assignment(FP32))["y"]
    device.queue.launches.clear()
    found = engine.run(FEEDS, Assignment(FP32, {layer: Choice("fp32", "ffma_64x64")}))["y"]
    assert device.queue.launches["matmul_ffma"] and np.allclose(found, expected, rtol=1e-4, atol=1e-5)
    if backend.name == "host":
        with pytest.raises(InputError, match="blocks of host do not read each other's shared memory"):
            engine.run(FEEDS, Assignment(FP32, {layer: Choice("fp32", "ffma_64x64_splitk2")}))


def test_a_range_of_fp32_is_named():
    row = tactic_of("ffma_64x128_splitk4")
    assert (row.splits, row.order, row.precisions, row.device) == (4, "splits", ("fp32",), "cuda")
    assert tactic_of("ffma_64x128").order == "sequential"


@given(st.integers(1, 99999), st.integers(1, 99999), st.integers(2, 9), st.sampled_from(["", "_nchw"]))
def test_names_read_back(m, n, splits, end):
    name = f"wgmma_{m}x{n}_splitk{splits}{end}"
    assert tactic_of(name).name == name and tactic_of(name).splits == splits
    assert tactic_of(name).operators == ("Conv",) if end else "MatMul" in tactic_of(name).operators
