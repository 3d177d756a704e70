"""``probe run --device cuda``: what the device compares is what the host would have compared; verdicts are those of the CPU device."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import onnx
import pytest

from probe import api
from probe.debug import resident
from probe.debug import run as running
from probe.engine.device.cuda import guard
from probe.engine.device.cuda.errors import CudaError
from probe.engine.device.cuda.sums.pairs import Pairs
from probe.errors import InputError
from probe.results.run import RunResult
from tests.engine.cuda.conftest import backend, gpu, host  # noqa: F401 - fixtures
from tests.engine.cuda.test_models import EXPORTS, MODELS

# Of sums whose order differs, and of the sum of relative errors, which the host adds in float32
NEAR = 3e-6
# Of noise that went through a layer in FP32: tensors of the device may lie in another order than those from the host (channels last), and so may sums
# over them. Measured: 3.5e-5 behind global pools.
FP32 = 1e-3


@pytest.fixture
def device(monkeypatch, backend):  # noqa: F811
    """The GPU, or kernels compiled for the host, as what ``--device cuda`` means."""
    monkeypatch.setattr(guard, "first_gpu", lambda: backend)
    return backend


NETWORK = """<ir_version: 8, opset_import: ["" : 18]>
g (float[2,3,9,9] x) => (float[2,7] y, int64[2,1] k, float z)
{ c = Conv <kernel_shape = [3, 3]> (x, w)  r = Relu (c)  p = GlobalAveragePool (r)  f = Flatten (p)  h = Gemm (f, v)
  y = Softmax (h)  k = ArgMax <axis = 1> (y)  n = Size (x)  s = Cast <to = 1> (n)  z = Sqrt (s) }"""


def small(folder):
    """Convolution, pooling, a softmax, integers: tensors of none to four axes, with and without rows."""
    random = np.random.default_rng(0)
    made = onnx.parser.parse_model(NETWORK)
    for name, shape in (("w", (5, 3, 3, 3)), ("v", (5, 7))):
        array = random.standard_normal(shape).astype(np.float32) / 3
        made.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(made, folder / "small.onnx")
    return folder / "small.onnx", {"x": random.standard_normal((2, 3, 9, 9)).astype(np.float32)}


def same(name: str, u, v) -> bool:
    """Equal, or as near as the order of sums allows; decibels by their own size, since they pass through zero."""
    if u == v or not isinstance(u, float) or not isinstance(v, float):
        return u == v
    near = 1e-4 if name.endswith("_db") else 1e-6 if name == "cosine" else 1e-11
    return math.isclose(u, v, rel_tol=NEAR, abs_tol=near) or (math.isnan(u) and math.isnan(v))


def alike(one: RunResult, other: RunResult) -> list[str]:
    """Where two results differ by more than the order of sums."""
    off = []
    assert [t.name for t in one.tensors] == [t.name for t in other.tensors]
    for x, y in zip(one.tensors, other.tensors, strict=True):
        if (x.status, x.verdict, x.metrics is None) != (y.status, y.verdict, y.metrics is None):
            off.append(f"{x.name}: {x.status} {x.verdict}, {y.status} {y.verdict}")
        elif x.metrics is not None and y.metrics is not None:
            for one_field in dataclasses.fields(x.metrics):
                u, v = getattr(x.metrics, one_field.name), getattr(y.metrics, one_field.name)
                if not same(one_field.name, u, v):
                    off.append(f"{x.name} {list(x.shape)} {one_field.name}: {u} {v}")
            if [w.error for w in x.worst] != pytest.approx([w.error for w in y.worst], rel=1e-6):
                off.append(f"{x.name}: worst {x.worst[:2]} {y.worst[:2]}")
    for x, y in zip(one.layers, other.layers, strict=True):
        for name in ("accumulated", "local", "injected", "floor", "gain"):
            u, v = getattr(x, name), getattr(y, name)
            near = FP32 if name == "gain" else NEAR
            if (u is None) != (v is None) or (u is not None and not math.isclose(u, v, rel_tol=near, abs_tol=1e-11)):
                off.append(f"layer {x.name} {name}: {u} {v}")
    return off


def compared_on_host(monkeypatch, *given, **named) -> RunResult:
    """The same run, every tensor copied to the host and compared there."""
    with monkeypatch.context() as patched:
        patched.setattr(running._Run, "tape_of", lambda self, _engine: self.tape("engine"))
        return api.run(*given, **named)


def test_device_compares_as_the_host_does(device, monkeypatch, tmp_path):
    path, feeds = small(tmp_path)
    found = api.run(path, inputs=feeds, device="cuda")
    assert not alike(found, compared_on_host(monkeypatch, path, inputs=feeds, device="cuda"))
    assert any("were compared on the device" in note for note in found.notes)
    assert found.verdict == "passed" and found.device.startswith("cuda")


@pytest.mark.parametrize("kind", ["double", "float16", "bfloat16"])
def test_types_of_inputs_are_read_as_the_network_reads_them(device, tmp_path, kind):
    """What comes from outside is kept as it came; layers, measured one by one on golden inputs, read FP32."""
    text = f'<ir_version: 8, opset_import: ["" : 18]> g ({kind}[4] x) => ({kind}[4] y) {{ y = Neg (x) }}'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "typed.onnx")
    found = api.run(tmp_path / "typed.onnx", device="cuda")
    assert found.verdict == "passed" and found.layers[0].local == 0.0 and found.layers[0].floor is not None


IMAGES = """<ir_version: 8, opset_import: ["" : 18]>
g (float[2,64,9,8] x) => (float[2,64,9,8] y)
{ a = Conv <pads = [1, 1, 1, 1]> (x, w)  b = Relu (a)  c = Conv (b, v)  d = Add (c, b)  y = Sigmoid (d) }"""


@pytest.mark.usefixtures("device")
def test_images_are_compared_as_they_lie(monkeypatch, tmp_path):
    """In FP32, where every device has convolutions that make them so."""
    random = np.random.default_rng(0)
    made = onnx.parser.parse_model(IMAGES)
    for name, size in (("w", 3), ("v", 1)):
        array = random.standard_normal((64, 64, size, size)).astype(np.float32) / 24
        made.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(made, tmp_path / "images.onnx")
    feeds = {"x": random.standard_normal((2, 64, 9, 8)).astype(np.float32)}
    how: list[bool] = []
    add = Pairs.add

    def spied(self, *given, last=False, **named):
        how.append(last)
        return add(self, *given, last=last, **named)

    monkeypatch.setattr(Pairs, "add", spied)
    given = {"model": tmp_path / "images.onnx", "inputs": feeds, "device": "cuda", "precision": "fp32"}
    found = api.run(**given)
    assert any(how) and not alike(found, compared_on_host(monkeypatch, **given))


def test_what_hinders_repeated_runs_is_said(host, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setattr(guard, "first_gpu", lambda: host)
    path, feeds = small(tmp_path)
    several = [tmp_path / f"{at}.npz" for at in range(3)]
    for at, one in enumerate(several):
        np.savez(one, x=feeds["x"] * np.float32(1 + at))
    repeated = api.run(path, inputs=several, device="cuda", try_cure=False)
    assert not any("kernel by kernel" in note for note in repeated.notes)

    def refuse(batches, *, timed=False):
        raise CudaError("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED ending a capture")

    monkeypatch.setattr(host, "capture", refuse)
    launched = api.run(path, inputs=several, device="cuda", try_cure=False)
    assert not alike(repeated, launched)
    (note,) = [note for note in launched.notes if "kernel by kernel" in note]
    assert "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED" in note


def test_without_room_goldens_are_copied_and_tensors_go_to_the_host(host, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setattr(guard, "first_gpu", lambda: host)
    path, feeds = small(tmp_path)
    whole = api.run(path, inputs=feeds, device="cuda", try_cure=False)
    on_device, on_host, passing = counted(whole)
    assert on_device >= 5 and passing == 0
    monkeypatch.setattr(resident, "_GOLDEN_SHARE", 1 << 40)  # no room for goldens
    copied = api.run(path, inputs=feeds, device="cuda", try_cure=False)
    assert not alike(copied, whole)
    assert counted(copied)[:2] == (on_device, on_host) and counted(copied)[2] >= on_device
    monkeypatch.setattr(host, "room", lambda: 400, raising=False)  # of tensors of the run, only the smallest
    found = api.run(path, inputs=feeds, device="cuda", try_cure=False)
    assert not alike(found, whole)
    assert 0 < counted(found)[0] < on_device and sum(counted(found)[:2]) == on_device + on_host


def counted(result: RunResult) -> tuple[int, int, int]:
    """Tensors compared on the device, on the host, goldens without room, as the result's notes say."""
    (note,) = [one for one in result.notes if "compared on the device" in one]
    numbers = [int(word) for word in note.replace(",", "").split() if word.isdigit()]
    return numbers[0], numbers[1], numbers[2] if len(numbers) > 2 else 0


def test_without_a_gpu_it_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "find_gpu", lambda: guard.Gpu(reason="no NVIDIA driver (for this test)"))
    monkeypatch.setattr(guard, "first_gpu", guard._opened.__wrapped__)
    path, feeds = small(tmp_path)
    with pytest.raises(InputError, match="no NVIDIA driver") as told:
        api.run(path, inputs=feeds, device="cuda")
    assert told.value.hint == "--device cpu"


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("folder", "name"), [("models", name) for name in MODELS] + [("exports", name) for name in EXPORTS]
)
def test_verdicts_are_the_cpus(request, monkeypatch, gpu, folder, name):  # noqa: F811
    """FP16 with the same interior on both devices: they differ by the order of sums and by functions' last bits, so a verdict may differ only
    where an output lies within a factor of two of its limit."""
    monkeypatch.setattr(guard, "first_gpu", lambda: gpu)
    root = request.getfixturevalue(folder)
    path, stored = root / "models" / f"{name}.onnx", min((root / "data").glob(f"{name}__*.npz"))
    asked = {"inputs": str(stored), "try_cure": False}
    found, cpu = api.run(path, device="cuda", **asked), api.run(path, device="cpu", **asked)
    again = compared_on_host(monkeypatch, path, device="cuda", **asked)
    off = alike(found, again)
    facts = {
        "model": name, "cuda": found.verdict, "cpu": cpu.verdict, "fallbacks": len(found.fallbacks), "note": [n for n in found.notes if "compared on" in n],
        "range_rel": {k: [m.range_rel for m in (v.metrics, cpu.outputs[k].metrics) if m is not None] for k, v in found.outputs.items()},
        "seconds": {k: round(v, 2) for k, v in found.seconds.items() if v > 0.05}, "host": {k: round(v, 2) for k, v in again.seconds.items() if v > 0.05},
    }  # fmt: skip
    print(json.dumps(facts, default=str))
    assert not off, off[:5]
    near = any(
        "within a factor of two" in f.message or f.kind == "near_threshold" for f in (*found.findings, *cpu.findings)
    )
    assert found.verdict == cpu.verdict or near, facts
