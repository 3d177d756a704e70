"""Runs that are repeated from a recording: the same bits as a run that launches anew, whatever the inputs, the branches, the host steps."""

from __future__ import annotations

import gc
import itertools
import time

import numpy as np
import onnx
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.errors import CudaError, OutOfMemory
from probe.engine.device.cuda.passing import Passing
from probe.engine.device.cuda.runs.prepared import Prepared
from probe.engine.device.cuda.runs.recording import Launched
from probe.engine.device.cuda.tensors.tensor import Buffer
from probe.engine.plan.memory import NEAR
from probe.errors import InputError
from probe.model import load
from tests.engine.cuda.host_backend import HostBackend
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.cuda.test_models import feeds_of

HEAD = '<ir_version: 8, opset_import: ["" : 18]>\n'
CHAIN = "g (float[n,16] x) => (float[n,16] y, float[n,16] x2) { a = Softmax (x)  b = Mul (a, x)  x2 = Relu (x)  y = Add (b, x2) }"
HOST = """g (float[n,8] x) => (float[n,8] y, int64[2,m] z)
{ a = Mul (x, x)  e = Einsum <equation = "ii"> (a2)  a2 = MatMul (t, a)  t = Transpose <perm = [1, 0]> (a)  b = Add (a, e)  z = NonZero (f)  f = Relu (x)  y = Exp (b) }"""
BRANCHES = """g (float[4] x, bool c) => (float[4] y)
{ a = Mul (x, x)
  y = If (c) <then_branch = t () => (float[4] p) { p = Add (a, x) }, else_branch = e () => (float[4] q) { h = Neg (a) q = Exp (h) }> }"""
LOOKUP = "g (float[9,4] x, int64[n] i) => (float[n,4] y, float[n,4] z) { a = Neg (x)  y = Gather (a, j)  j = Add (i, k)  z = Gather (x, i) }"
CONSTANT = "g (float[3,4] x) => (float[3,4] y) { w = DequantizeLinear (q, s)  v = Abs (w)  y = Mul (x, v) }"
LANES = """g (float[8,8] x) => (float[8,8] y)
{ a = Softmax (x)  q = Exp (a)  k = Neg (a)  v = Softmax <axis = 0> (a)  p = Mul (q, k)  s = Softmax (p)  y = Add (s, v) }"""
PADDED = (
    'g (float[9] x) => (float[14] y) { a = Exp (x)  b = Pad <mode = "reflect"> (a, p)  c = Neg (b)  y = Mul (c, b) }'
)
SIZES = "g (float[n] x, int64[1] s) => (float[m] y) { a = Exp (x)  y = Tile (a, s) }"


def engine_of(folder, text: str, backend, precision: str = "fp16", **weights: np.ndarray):
    made = onnx.parser.parse_model(HEAD + text)
    made.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in weights.items())
    onnx.save(made, folder / "m.onnx")
    engine = compile_model(load(folder / "m.onnx"), precision=precision, passes="none", fusion="none")
    engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    return engine, engine.device


def anew(engine, feeds, assignment=None):
    """Outputs of a run that launches everything anew, tensors tapped."""
    replays, engine.device.replays.enabled = engine.device.replays.enabled, False
    try:
        return engine.run(feeds, assignment, tap=lambda tapped: None)
    finally:
        engine.device.replays.enabled = replays


def same(actual, expected) -> bool:
    return actual.keys() == expected.keys() and all(
        actual[k].dtype == v.dtype and np.array_equal(actual[k], v, equal_nan=v.dtype.kind == "f")
        for k, v in expected.items()
    )


def state(device) -> tuple[int, int, int]:
    """Recordings, those made ready, graphs in them."""
    known = device.replays._known.values()
    ready = [one.prepared for one in known if one.prepared is not None]
    return sum(one.recording is not None for one in known), len(ready), sum(one.graphs for one in ready)


def test_later_runs_repeat_the_first(tmp_path, backend):
    engine, device = engine_of(tmp_path, CHAIN, backend)
    random = np.random.default_rng(0)
    for at in range(4):
        feeds = {"x": random.standard_normal((3, 16)).astype(np.float32)}
        assert same(engine(feeds), anew(engine, feeds))
        assert state(device) == ((1, 0, 0) if at == 0 else (1, 1, 1))
    before = dict(device.queue.launches)
    engine({"x": np.ones((3, 16), np.float32)})
    assert device.queue.launches == before, "a repeated run launches nothing by itself"
    assert not device.replays.notes


def test_other_shapes_and_assignments_have_recordings_of_their_own(tmp_path, backend):
    engine, device = engine_of(tmp_path, CHAIN, backend)
    names = [layer.name for layer in engine.layers]
    random = np.random.default_rng(1)
    choices = [engine.assignment, engine.assignment.keeping(layers=names), engine.assignment.keeping(tensors=["b"])]
    for _, (rows, assignment) in itertools.product(range(3), itertools.product((1, 4), choices)):
        feeds = {"x": random.standard_normal((rows, 16)).astype(np.float32)}
        assert same(engine.run(feeds, assignment), anew(engine, feeds, assignment))
    assert state(device) == (6, 6, 6)


def test_layers_on_the_host_lie_between_graphs(tmp_path, backend):
    engine, device = engine_of(tmp_path, HOST, backend, "fp32")
    x = np.random.default_rng(2).standard_normal((5, 8)).astype(np.float32)
    for scale in (1, -1, -0.5, -2):
        feeds = {"x": x * np.float32(scale)}
        assert same(engine(feeds), anew(engine, feeds))
    assert "no kernel for Einsum" in device.fallen.values()
    (known,) = device.replays._known.values()
    assert known.diverged == 1, "NonZero made another shape for -x"
    assert known.prepared is not None and known.prepared.graphs > 1


def test_what_never_stays_the_same_is_not_repeated(tmp_path, backend):
    engine, device = engine_of(tmp_path, SIZES, backend, "fp32")
    for times in (1, 2, 3, 4, 5, 6, 7, 2, 3):
        feeds = {"x": np.arange(3, dtype=np.float32) / 8, "s": np.array([times])}
        assert same(engine(feeds), anew(engine, feeds)) and engine(feeds)["y"].shape == (3 * times,)
    assert device.replays.notes == ("values that decide on shapes or places have changed",)


def test_branches_are_recorded_as_taken(tmp_path, backend):
    engine, _ = engine_of(tmp_path, BRANCHES, backend)
    for taken, scale in itertools.product((True, True, False, False, True), (1, 3)):
        feeds = {"x": np.array([0.1, -2, 3, 0.5], np.float32) * np.float32(scale), "c": np.array(taken)}
        assert same(engine(feeds), anew(engine, feeds))


def test_indices_may_change(tmp_path, backend):
    engine, device = engine_of(tmp_path, LOOKUP, backend, k=np.array(-1))
    x = np.random.default_rng(3).standard_normal((9, 4)).astype(np.float32)
    for indices in ([0, 3, 8], [1, 1, 1], [-8, 5, 0], [7, 2, 6]):
        feeds = {"x": x, "i": np.array(indices)}
        assert same(engine(feeds), anew(engine, feeds))
        assert np.array_equal(engine(feeds)["y"], engine(feeds)["y"])
    assert state(device)[:2] == (1, 1) and not device.fallen
    for wrong in ([0, 9, 8], [-10, 0, 0], [0, 0, -9]):  # the last one through j = i - 1
        with pytest.raises(InputError, match=r"out of|indices"):
            engine({"x": x, "i": np.array(wrong)})
        feeds = {"x": x, "i": np.array([0, 1, 2])}
        assert same(engine(feeds), anew(engine, feeds)), "an error leaves nothing behind"


def test_what_never_changes_is_computed_once(tmp_path, backend):
    stored = np.arange(-6, 6, dtype=np.int8).reshape(3, 4)
    engine, device = engine_of(tmp_path, CONSTANT, backend, q=stored, s=np.array(0.25, np.float32))
    for scale in (1, 3, -2):
        feeds = {"x": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4) * np.float32(scale)}
        assert same(engine(feeds), anew(engine, feeds))
    (known,) = device.replays._known.values()
    assert known.recording is not None
    computed = {step.what for step in known.recording.steps if isinstance(step, Launched)}
    assert computed == {engine.layers[-1].name} and len(engine.layers) == 3


def test_what_is_remembered_of_layers_outlives_recordings(tmp_path, backend, monkeypatch):
    """An index list is copied to the device for a recording and goes with it: the layer that reads it is launched anew."""
    engine, device = engine_of(tmp_path, PADDED, backend, p=np.array([3, 2]))
    x = np.random.default_rng(8).standard_normal(9).astype(np.float32)
    names, faulted = [layer.name for layer in engine.layers], device._faulted
    monkeypatch.setattr(device, "_faulted", lambda: faulted() and pytest.fail("an index list was overwritten"))
    for kept in ([], names[:1], names[1:], names[::2], names):
        assignment = engine.assignment.keeping(layers=kept)
        for _ in range(2):
            assert same(engine.run({"x": x}, assignment), anew(engine, {"x": x}, assignment))
        device.replays._known.clear()
        gc.collect()
        junk = [
            Buffer(backend, nbytes) for nbytes in (40, 112) for _ in range(8)
        ]  # what takes the place of what was given back
        for one in junk:
            backend.upload(one.address, np.full(one.nbytes // 4, 1 << 20, np.int32))
    assert any(names[-1] in key for key in device._templates if isinstance(key, tuple))


def test_lanes_change_nothing(tmp_path, backend):
    engine, device = engine_of(tmp_path, LANES, backend)
    feeds = {"x": np.random.default_rng(6).standard_normal((8, 8)).astype(np.float32)}
    plans = engine._plans(engine.assignment)
    beside, behind = (device.prepare(feeds, plans, side_by_side=one) for one in (True, False))
    assert (beside.side_by_side, behind.side_by_side) == (True, False)
    expected = anew(engine, feeds)
    for prepared in (behind, *[beside] * 8):  # on the host each time in another order
        prepared.replay()
        assert same({k: t.array(backend) for k, t in prepared.outputs().items()}, expected)


def test_prepared_runs_stay_on_the_device(tmp_path, backend):
    engine, device = engine_of(tmp_path, CHAIN, backend)
    x = np.random.default_rng(4).standard_normal((2, 3, 16)).astype(np.float32)
    first, second = ({"x": one} for one in x)
    prepared = device.prepare(first, engine._plans(engine.assignment))
    expected = anew(engine, first)
    engine(second)
    engine(second)  # through memory of its own
    for _ in range(2):
        prepared.replay()
        assert same({k: t.array(backend) for k, t in prepared.outputs().items()}, expected)
    assert prepared.address("x") != prepared.address("y")
    assert prepared.time(2, rounds=2) > 0
    assert set(prepared.timed_layers(time.perf_counter)()) >= {layer.name for layer in engine.layers}


def test_what_cannot_be_captured_is_launched(tmp_path, host, monkeypatch):
    def refuse(batches, *, timed=False):
        raise CudaError("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED ending a capture")

    monkeypatch.setattr(host, "capture", refuse)
    engine, device = engine_of(tmp_path, CHAIN, host)
    feeds = {"x": np.ones((3, 16), np.float32)}
    for _ in range(3):
        assert same(engine(feeds), anew(engine, feeds))
    assert device.replays.notes == ("not captured: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED ending a capture",)


def prepared_of(path, feeds, precision: str) -> Prepared:
    engine = compile_model(load(path), precision=precision)
    device = CudaDevice(engine.network, engine.top_layers, engine.rounding, NullBackend())
    return device.prepare(engine._feeds(feeds), engine._plans(engine.assignment))


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize(
    "name", ["dnsmos_sig_bak_ovr", "squeezenet_fp16", "ultraface_slim_320_qdq", "superres_core", "gtcrn_simple"]
)
def test_memory_of_public_models_is_near_the_least(models, name, precision):
    layout = prepared_of(models / "models" / f"{name}.onnx", feeds_of(models, name), precision).layout
    assert layout.nbytes <= NEAR * layout.peak_bytes


@pytest.mark.parametrize("name", ["bert_mini", "vit_mini", "unet_attn_mini", "gpt2_mini", "llama_gqa_mini"])
def test_memory_of_exports_is_near_the_least(exports, name):
    layout = prepared_of(exports / "models" / f"{name}.onnx", feeds_of(exports, name), "fp16").layout
    assert layout.nbytes <= NEAR * layout.peak_bytes


@pytest.mark.parametrize(
    "name",
    [
        "lstm_gru_tagger", "scripted_loop_if", pytest.param("bert_mini", marks=pytest.mark.slow),
        pytest.param("nonzero_boxes", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_exports_repeat_bit_for_bit(exports, backend, name):
    if name in ("bert_mini", "nonzero_boxes") and isinstance(backend, HostBackend):
        pytest.skip("half a minute on the host; the GPU runs it")
    engine = compile_model(load(exports / "models" / f"{name}.onnx"), precision="fp16")
    device = engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    feeds = feeds_of(exports, name)
    expected = anew(engine, feeds)
    for assignment in (engine.assignment, engine.assignment.keeping(layers=[engine.layers[0].name])):
        expected = anew(engine, feeds, assignment)
        for _ in range(3):
            assert same(engine.run(feeds, assignment), expected)
    assert state(device)[1] == 2 and not device.replays.notes


class Small(Passing):
    """Has so much memory and no more."""

    def __init__(self, backend, room):
        super().__init__(backend)
        self._left, self._sizes = room, {}
        self.upload, self.download, self.launch = backend.upload, backend.download, backend.launch

    def allocate(self, nbytes):
        if nbytes > self._left:
            raise OutOfMemory(nbytes, self._left, 0, self.name)
        address = self.backend.allocate(nbytes)
        self._left, self._sizes[address] = self._left - nbytes, nbytes
        return address

    def free(self, address):
        self._left += self._sizes.pop(address)
        self.backend.free(address)


def test_runs_made_ready_before_give_way(tmp_path, host):
    """Each larger than the one before: the blocks of all of them together are more than there is, that of the largest and a run of it are not."""
    usual, _ = engine_of(tmp_path, CHAIN, host, "fp32")
    engine, _ = engine_of(tmp_path, CHAIN, Small(host, 1 << 16), "fp32")
    random = np.random.default_rng(0)
    feeds = [{"x": random.standard_normal((rows, 16)).astype(np.float32)} for rows in (40, 60, 80, 100, 120, 140)]
    for one in (*feeds, *feeds[::-1]):
        expected = usual(one)
        for _ in range(3):
            assert same(engine(one), expected)
    with pytest.raises(OutOfMemory, match="free"):
        engine({"x": np.ones((2000, 16), np.float32)})
    assert same(engine(feeds[0]), usual(feeds[0]))
