"""Tensors that are rounded by who reads them - to TF32 by the copies that bring them to the tensor cores, images of few channels while they are
packed: the bits of a pass that rounds them first."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.layers import layer_run
from probe.engine.device.cuda.ops.products.matmul import product
from probe.engine.device.cuda.ops.products.product import Matrices
from probe.engine.device.cuda.queue import Queue
from probe.engine.device.cuda.tensors.copies import lying_of, placed, rounded_late
from probe.engine.device.cuda.tensors.formats import F32
from probe.engine.device.cuda.tensors.tensor import host_tensor
from probe.model import load
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.cuda.test_wgmma import HopperOnHost

HEAD = '<ir_version: 8, opset_import: ["" : 18]>\n'
NETWORKS = {
    "linear": """g (float[2,9,16] x) => (float[9,2,24] y) <int64[2] flat = {18, 32}>
{ n = Neg (x)  t = Transpose <perm = [1, 0, 2]> (n)  p = MatMul (t, w)  a = Relu (p)  f = Reshape (a, flat)  q = Gemm (f, v, c)
  y = Reshape (q, s) }""",
    "stem": """g (float[2,3,11,13] x) => (float[2,16,6,7] y) { y = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, k, b) }""",
    "patches": """g (float[2,3,24,36] x) => (float[2,16,2,3] y) { y = Conv <strides = [12, 12]> (x, k, b) }""",
    "depthwise": """g (float[2,16,7,9] x) => (float[2,16,7,9] y)
{ n = Neg (x)  y = Conv <group = 16, pads = [1, 1, 1, 1]> (n, k, b) }""",
    "images": """g (float[2,16,7,9] x) => (float[2,24,7,9] y)
{ n = Neg (x)  p = Conv <pads = [1, 1, 1, 1]> (n, k, b)  q = Relu (p)  y = Conv (q, m) }""",
}
WEIGHTS = {
    "linear": {"w": (16, 32), "v": (32, 24), "c": (24,)},
    "stem": {"k": (16, 3, 3, 3), "b": (16,)},
    "patches": {"k": (16, 3, 12, 12), "b": (16,)},
    "depthwise": {"k": (16, 1, 3, 3), "b": (16,)},
    "images": {"k": (16, 16, 3, 3), "b": (16,), "m": (24, 16, 1, 1)},
}
SHAPES = {
    "linear": (2, 9, 16),
    "stem": (2, 3, 11, 13),
    "patches": (2, 3, 24, 36),
    "depthwise": (2, 16, 7, 9),
    "images": (2, 16, 7, 9),
}


@pytest.fixture(scope="session")
def hopper(request):
    """The host, which takes kernels of sm_90a."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile kernels for the host")
    return HopperOnHost(request.config.cache.mkdir("kernels-hopper"))


def engine_of(folder, network: str, precision: str = "tf32"):
    made = onnx.parser.parse_model(HEAD + NETWORKS[network])
    random = np.random.default_rng(5)
    for name, shape in WEIGHTS[network].items():
        array = random.standard_normal(shape).astype(np.float32)
        made.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    if network == "linear":
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.array([9, 2, 24]), "s"))
    onnx.save(made, folder / "m.onnx")
    x = random.standard_normal(SHAPES[network]).astype(np.float32)
    return compile_model(load(folder / "m.onnx"), precision=precision), {"x": x}


def launched(engine, backend, feeds) -> list[str]:
    engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    engine.device.replays.enabled = False
    engine(feeds)
    backend.launched.clear()
    engine(feeds)
    return [source.entry for source, _ in backend.launched]


@pytest.mark.parametrize("network", NETWORKS)
def test_nothing_is_rounded_by_a_pass_of_its_own(tmp_path, network):
    engine, feeds = engine_of(tmp_path, network)
    backend = NullBackend()
    backend.arch = "sm_90a"
    once = int(network not in ("stem", "patches"))  # Neg
    assert launched(engine, backend, feeds).count("chain") == once
    backend.arch = "sm_80"
    assert launched(engine, backend, feeds).count("chain") > once


@pytest.mark.parametrize(
    ("network", "by", "kernel"), [("stem", "pack_channels", "conv_image"), ("patches", "copy_strided", "matmul_wgmma")]
)
def test_images_are_brought_together_and_rounded_at_once(tmp_path, network, by, kernel):
    engine, feeds = engine_of(tmp_path, network, "fp16")
    backend = NullBackend()
    backend.arch = "sm_90a"
    assert launched(engine, backend, feeds) == [by, kernel, "transpose"]


@pytest.mark.parametrize(
    ("network", "precision"), [*((one, "tf32") for one in NETWORKS), ("stem", "fp16"), ("patches", "fp16")]
)
@pytest.mark.parametrize("place", ["hopper", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_the_bits_are_those_of_a_pass(request, tmp_path, monkeypatch, place, network, precision):
    backend = request.getfixturevalue(place)
    engine, feeds = engine_of(tmp_path, network, precision)
    found = []
    for late in (True, False):
        if not late:
            monkeypatch.setattr(layer_run, "rounded_late", lambda queue, *given: queue.convert(*given))
        engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
        taps: dict[str, np.ndarray | None] = {}
        outputs = engine.run(feeds, tap=lambda t, into=taps: into.__setitem__(t.name, t.array))
        found.append({**taps, **{f"{name} untapped": array for name, array in engine(feeds).items()}, **outputs})
    assert found[0].keys() == found[1].keys()
    assert all(np.array_equal(array, found[1][name]) for name, array in found[0].items())


@pytest.mark.parametrize("network", ["linear", "images", "stem"])
@pytest.mark.parametrize("place", ["hopper", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_repeated_runs_read_what_is_new(request, tmp_path, place, network):
    """What copies read is the tensor before it is rounded: other inputs, kept layers and back again."""
    backend = request.getfixturevalue(place)
    engine, feeds = engine_of(tmp_path, network)
    device = engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    product = next(layer.name for layer in engine.layers if layer.kind in ("conv", "matmul", "gemm"))
    for scale, assignment in enumerate(
        (engine.assignment, engine.assignment, engine.assignment.keeping(layers=[product])) * 2, 1
    ):
        given = {"x": feeds["x"] * np.float32(scale)}
        device.replays.enabled = True
        found = engine.run(given, assignment)
        device.replays.enabled = False
        for name, array in engine.run(given, assignment).items():
            assert np.array_equal(found[name], array), (scale, name)


def extremes() -> np.ndarray:
    """Ties, near-ties, subnormals, what has no neighbour above; signs; random patterns."""
    ones = [
        0x3F801000,
        0x3F803000,
        0x3F800FFF,
        0x3F801001,
        0x00000001,
        0x00001000,
        0x00001001,
        0x00003000,
        0x007FFFFF,
        0x7F7FEFFF,
        0x7F7FE000,
    ]
    drawn = np.random.default_rng(7).integers(0, 0x7F000000, 53, dtype=np.uint32)
    bits = np.concatenate([np.array(ones, np.uint32), drawn])
    return np.concatenate([bits, bits | 0x80000000]).astype(np.uint32).view(np.float32)


def test_passes_round_to_nearest_even_and_cut_what_would_overflow(backend):
    queue = Queue(backend, 18)
    beyond = np.array([0x7F7FFFFF, 0x7F7FF000, 0x7F7FF001, 0x7F7FE001, 0x7F7FEFFF, 0x7F800000], np.uint32).view(
        np.float32
    )
    values = np.concatenate([extremes(), beyond, -beyond, np.zeros(1, np.float32), np.array([-0.0], np.float32)])
    bits = values.view(np.uint32)
    rounded = (bits + 0xFFF + (bits >> 13 & 1)) & 0xFFFFE000
    cut = (rounded & 0x7F800000) == 0x7F800000
    expected = np.where(cut, bits & 0xFFFFE000, rounded).astype(np.uint32)
    found = queue.convert(host_tensor(values), F32, "tf32").array(backend)
    np.testing.assert_array_equal(found.view(np.uint32), expected)
    missing = queue.convert(
        host_tensor(np.array([0x7FC00000, 0xFFC01234, 0x7F800001], np.uint32).view(np.float32)), F32, "tf32"
    )
    assert np.isnan(missing.array(backend)).all()


@pytest.mark.parametrize("place", ["hopper", pytest.param("gpu", marks=pytest.mark.gpu)])
def test_extreme_values_are_rounded_alike(request, place):
    backend = request.getfixturevalue(place)
    queue, values = Queue(backend, 18), extremes()
    array = np.zeros((len(values), 32), np.float32)
    array[np.arange(len(values)), np.arange(len(values)) % 32] = values  # each alone in its row
    x, one = host_tensor(array), host_tensor(np.eye(32, dtype=np.float32))
    made = []
    for a in (rounded_late(queue, x, F32, "tf32"), queue.convert(x, F32, "tf32")):
        y = queue.empty(array.shape, F32)
        product(queue, Matrices(a, (), 32, 1), Matrices(one, (), 1, 32), y, 32, tf32=True)
        made.append(y.array(backend))
    assert queue.launches == {"matmul_wgmma": 2, "chain": 1}
    assert np.array_equal(*made)
    np.testing.assert_array_equal(made[1], queue.convert(x, F32, "tf32").array(backend))


def test_asking_for_the_address_rounds(backend):
    queue = Queue(backend, 18)
    array = np.random.default_rng(1).standard_normal((6, 4, 8), dtype=np.float32)
    x = host_tensor(array)
    expected = queue.convert(x, F32, "tf32").array(backend)
    assert not np.array_equal(expected, array)
    late = rounded_late(queue, x, F32, "tf32")
    shown = late.view((24, 8))
    assert late.unrounded is x and shown.unrounded is not None
    np.testing.assert_array_equal(shown.array(backend), expected.reshape(24, 8))
    np.testing.assert_array_equal(late.array(backend), expected)
    assert late.unrounded is None and shown.unrounded is None  # they are rounded now
    turned = rounded_late(queue, placed(queue, lying_of(queue, x).permuted((1, 0, 2))), F32, "tf32")
    assert turned.lies is not None and turned.lies.base.unrounded is not None
    np.testing.assert_array_equal(turned.array(backend), expected.transpose(1, 0, 2))
