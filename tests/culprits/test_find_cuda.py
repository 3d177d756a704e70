"""``probe find --device cuda``: the same search over the same oracle; where every sum is exact, the same answer, evaluation by evaluation."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from probe import api
from probe.engine.device.cuda import guard
from tests.engine.cuda.conftest import backend, gpu, host  # noqa: F401 - fixtures

# `big` reaches 90000, which FP16 cannot hold, and `tiny` vanishes in it; everything else is small integers
NETWORK = """<ir_version: 8, opset_import: ["" : 18]>
g (float[2,8] x) => (float[2,8] y, float[2,8] z)
<float k = {30000.0}, float s = {0.000000001}, float m = {1000000000.0}>
{ a = Relu (x)  big = Mul (a, k)  b = Div (big, k)  y = Add (b, x)  c = Neg (x)  tiny = Mul (c, s)  z = Mul (tiny, m) }"""


def test_the_answer_is_the_cpus(backend, monkeypatch, tmp_path):  # noqa: F811
    monkeypatch.setattr(guard, "first_gpu", lambda: backend)
    path = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(NETWORK), path)
    feeds = {"x": np.random.default_rng(1).integers(-3, 4, (2, 8)).astype(np.float32)}
    found = {
        device: api.find(path, tmp_path / f"{device}.onnx", inputs=feeds, device=device) for device in ("cuda", "cpu")
    }
    kept = {device: sorted(one.tensor for one in result.keep) for device, result in found.items()}
    assert found["cuda"] and found["cuda"].status == "found", found["cuda"]
    assert kept["cuda"] == kept["cpu"] != []
    assert found["cuda"].evaluations == found["cpu"].evaluations
    with open(tmp_path / "cuda.onnx", "rb") as one, open(tmp_path / "cpu.onnx", "rb") as other:
        assert one.read() == other.read(), "the same model is written"


@pytest.mark.parametrize("command", ["find", "run"])
def test_without_a_gpu_it_says_why(command, monkeypatch, tmp_path):
    from probe.errors import InputError

    monkeypatch.setattr(guard, "find_gpu", lambda: guard.Gpu(reason="no NVIDIA driver (for this test)"))
    monkeypatch.setattr(guard, "first_gpu", guard._opened.__wrapped__)
    path = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model(NETWORK), path)
    with pytest.raises(InputError, match="no NVIDIA driver"):
        getattr(api, command)(path, device="cuda")
