"""Inputs and outputs that lie on the device, on the caller's stream: the bits of runs from and to the host."""

from __future__ import annotations

import gc
from typing import Any, cast

import numpy as np
import onnx
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.runs.given import DeviceArray, given, handle_of
from probe.engine.device.cuda.tensors.tensor import host_tensor
from probe.errors import InputError
from probe.model import load
from tests.engine.cuda.test_replays import CHAIN, HEAD, HOST, LOOKUP, SIZES, engine_of

BOTH = "g (float[n,16] x, float[n,16] w) => (float[n,16] y, float[n,16] z) { a = Mul (x, w)  y = Softmax (a)  z = Relu (w) }"


class There:
    """An array on the backend's device, as others hand one over."""

    def __init__(self, backend, array: np.ndarray, stream: int | None = None) -> None:
        self._tensor, self._backend, self._like = host_tensor(np.ascontiguousarray(array)), backend, array
        self.__cuda_array_interface__ = {
            "version": 3, "shape": array.shape, "typestr": array.dtype.str, "strides": None,
            "data": (self._tensor.address(backend), False), "stream": stream,
        }  # fmt: skip

    def read(self) -> np.ndarray:
        raw = np.empty(self._like.shape, self._like.dtype)
        self._backend.synchronize()
        self._backend.download(raw.reshape(-1).view(np.uint8), self._tensor.address(self._backend))
        return raw


def host_of(value) -> np.ndarray:
    return value.array() if isinstance(value, DeviceArray) else value


def inputs_of(text: str, at: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(at)
    if text is SIZES:
        return {"x": np.arange(3, dtype=np.float32) / (8 + at), "s": np.array([1 + at // 3])}
    x = random.standard_normal({CHAIN: (2 + at % 2, 16), BOTH: (3, 16), HOST: (5, 8), LOOKUP: (9, 4)}[text])
    found: dict[str, np.ndarray] = {"x": x.astype(np.float32)}
    if text is LOOKUP:
        found["i"] = random.integers(-8, 9, 4)
    return found | ({"w": np.tanh(found["x"])} if text is BOTH else {})


@pytest.mark.parametrize("text", [CHAIN, BOTH, HOST, LOOKUP, SIZES], ids=["chain", "both", "host", "lookup", "sizes"])
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
@pytest.mark.parametrize("borrowed", [False, True])
def test_the_same_bits_without_copies_to_the_host(tmp_path, backend, text, precision, borrowed):
    engine, device = engine_of(tmp_path, text, backend, precision, **({"k": np.array(-1)} if text is LOOKUP else {}))
    context = engine.context(stream=backend.handle if borrowed else None)
    for at in range(6):
        feeds = inputs_of(text, at)
        there: dict[str, Any] = {name: There(backend, array) for name, array in feeds.items()}
        backend.synchronize()
        if text is BOTH and at % 2:
            there["w"] = feeds["w"]  # one of them from the host
        made = context.on_device(there)
        expected = engine.run(feeds)
        assert made.keys() == expected.keys()
        for name, array in expected.items():
            found = host_of(made[name])
            assert found.dtype == array.dtype and found.tobytes() == array.tobytes(), (name, at)
        if text in (CHAIN, BOTH):
            assert all(isinstance(one, DeviceArray) for one in made.values())
    assert not device.fallen or text is HOST


def test_outputs_are_copied_where_they_are_wanted(tmp_path, backend):
    engine, _ = engine_of(tmp_path, BOTH, backend)
    context, feeds = engine.context(), inputs_of(BOTH, 0)
    out = There(backend, np.zeros((3, 16), np.float32))
    backend.synchronize()
    for _ in range(2):
        made = context.on_device(feeds, {"z": out})
        assert made["z"] is out and isinstance(made["y"], DeviceArray)
    assert out.read().tobytes() == engine.run(feeds)["z"].tobytes()
    for wrong, said in (
        ({"q": out}, "no output is called 'q'"),
        ({"z": There(backend, np.zeros((3, 15), np.float32))}, r"is float32\[3, 16\]; out is float32\[3, 15\]"),
        ({"z": There(backend, np.zeros((3, 16), np.int32))}, "out is int32"),
        ({"z": np.zeros((3, 16), np.float32)}, "lie on the device"),
    ):
        with pytest.raises(InputError, match=said):
            context.on_device(feeds, wrong)


def test_outputs_outlive_later_runs_and_the_context(tmp_path, backend):
    engine, _ = engine_of(tmp_path, CHAIN, backend)
    context = engine.context()
    first, second = inputs_of(CHAIN, 0), inputs_of(CHAIN, 2)
    kept = [context.on_device(one) for one in (first, second)]
    expected = [engine.run(one) for one in (first, second)]
    del context
    gc.collect()
    for made, one in zip(kept, expected, strict=True):
        assert all(made[name].array().tobytes() == array.tobytes() for name, array in one.items())


def test_who_wrote_an_input_is_waited_for(tmp_path, host):
    engine, _ = engine_of(tmp_path, CHAIN, host)
    x = inputs_of(CHAIN, 0)["x"]
    own, lent = engine.context(), engine.context(stream=5)
    for context in (own, lent):
        context.on_device({"x": There(host, x)})
        context.on_device({"x": There(host, x, stream=9)})
    waited = [cast("Any", context._device)._backend.waited for context in (own, lent)]
    assert waited == [[1, 9], [9]], "without a stream of its own, the default stream; on the caller's, that is enough"
    for context in (own, lent):  # what outputs are copied over is written before, too
        context.on_device({"x": x}, {"y": There(host, np.zeros((2, 16), np.float32), stream=11)})
        assert cast("Any", context._device)._backend.waited[-1] == 11
    assert lent.on_device({"x": x})["y"].__cuda_array_interface__["stream"] == 5


def test_what_does_not_fit_is_said(tmp_path, host):
    engine, _ = engine_of(tmp_path, CHAIN, host)
    context, x = engine.context(), np.ones((2, 16), np.float32)
    for feeds, said in (
        ({}, "no data for input 'x'"),
        ({"x": There(host, x[:, :15])}, "declared"),
        ({"x": There(host, x), "v": x}, "v"),
    ):
        with pytest.raises(InputError, match=said):
            context.on_device(feeds)
    engine, _ = engine_of(tmp_path, LOOKUP, host, k=np.array(-1))
    with pytest.raises(InputError, match="'i' on the device is int32; the network reads int64"):
        engine.context().on_device({"x": np.ones((9, 4), np.float32), "i": There(host, np.array([1, 2], np.int32))})
    turned = There(host, x)
    turned.__cuda_array_interface__["strides"] = (4, 8)
    with pytest.raises(InputError, match="C order"):
        given("x", turned, 7)
    turned.__cuda_array_interface__["strides"] = (64, 4)
    assert given("x", turned, 7) is not None and given("x", x, 7) is None


def test_streams_of_others():
    class Core:
        def __cuda_stream__(self) -> tuple[int, int]:
            return 0, 11

    class Later(Core):
        def __cuda_stream__(self) -> tuple[int, int]:
            return 1, 11

    class Torch:
        cuda_stream = 12

    assert [handle_of(one) for one in (Core(), Torch(), 13)] == [11, 12, 13]
    for one, said in ((Later(), "version 1"), ("a", "not a CUDA stream: str")):
        with pytest.raises(InputError, match=said):
            handle_of(one)


def test_the_cpu_has_no_streams(tmp_path):
    onnx.save(onnx.parser.parse_model(HEAD + CHAIN), tmp_path / "m.onnx")
    engine = compile_model(load(tmp_path / "m.onnx"), precision="fp32")
    with pytest.raises(InputError, match="streams are of GPUs"):
        engine.context(stream=1)
    with pytest.raises(InputError, match="no memory of its own"):
        engine.context().on_device(inputs_of(CHAIN, 0))
    assert engine.context()(inputs_of(CHAIN, 0)).keys() == {"y", "x2"}


@pytest.mark.gpu
def test_torch_tensors_on_its_stream(tmp_path, gpu):
    torch = pytest.importorskip("torch")
    engine, _ = engine_of(tmp_path, BOTH, gpu)
    stream = torch.cuda.Stream()
    context, feeds = engine.context(stream=stream), inputs_of(BOTH, 1)
    expected, tensors = engine.run(feeds), {}
    for _ in range(3):
        with torch.cuda.stream(stream):
            tensors = {name: torch.from_numpy(array).cuda(non_blocking=True) * 2 / 2 for name, array in feeds.items()}
            into = torch.empty(3, 16, device="cuda")
            made = context.on_device(tensors, {"z": into})
            y, z = torch.as_tensor(made["y"], device="cuda") + 0, into + 0
        stream.synchronize()
        assert made["z"] is into
        assert y.cpu().numpy().tobytes() == expected["y"].tobytes()
        assert z.cpu().numpy().tobytes() == expected["z"].tobytes()
    with pytest.raises(InputError, match="contiguous"):
        context.on_device({**tensors, "x": torch.zeros(16, 3, device="cuda").T})


@pytest.mark.gpu
def test_streams_of_cuda_core(tmp_path, gpu):
    core = pytest.importorskip("cuda.core")
    core = core if hasattr(core, "Device") else pytest.importorskip("cuda.core.experimental")
    device = core.Device()
    device.set_current()
    stream = device.create_stream()
    engine, _ = engine_of(tmp_path, CHAIN, gpu)
    context, feeds = engine.context(stream=stream), inputs_of(CHAIN, 1)
    expected, made = engine.run(feeds), {}
    for _ in range(3):
        made = context.on_device(feeds)
        stream.sync()
        assert all(made[name].array().tobytes() == array.tobytes() for name, array in expected.items())
    del context, made
    gc.collect()
    stream.sync()
