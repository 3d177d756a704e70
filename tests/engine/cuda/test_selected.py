"""What is selected by its value: every case of the table, on both devices; runs that are repeated while what is selected changes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.device.cuda.ops import selected
from probe.model import load
from tests.engine.cuda.assembled import assembled
from tests.engine.cuda.compared import check, table
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.cuda.selected_cases import SELECTED

PICKED = """<ir_version: 8, opset_import: ["" : 18]>
g (float[n] x) => (float[m] y, int64[1,m] i) { a = Abs (x)  r = Relu (x)  i = NonZero (r)  t = Transpose <perm = [1, 0]> (i)  p = GatherND (a, t)  y = Sqrt (p) }"""


@pytest.mark.parametrize(("place", "case", "precision"), table(*SELECTED))
def test_selected(request, tmp_path, place, case, precision):
    check(request.getfixturevalue(place), case, precision, tmp_path)


@pytest.mark.parametrize("spans", [(64,), (128, 64)])
@pytest.mark.parametrize("name", ["classes", "ties", "centres", "all"])
def test_boxes_are_compared_a_span_at_a_time(tmp_path, backend, monkeypatch, name, spans):
    monkeypatch.setattr(selected, "_SPANS", spans)
    case = next(case for case in SELECTED if str(case) == f"NonMaxSuppression_{name}")
    check(backend, case, "fp32", tmp_path)


def test_a_repeated_run_follows_how_much_is_selected(tmp_path, backend):
    onnx.save(onnx.parser.parse_model(PICKED), tmp_path / "m.onnx")
    engine = compile_model(load(tmp_path / "m.onnx"), precision="fp32")
    cpu, device = engine.device, CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    for seed in (1, 1, 1, 2, 2, 3, 1, 4, 5, 5):
        feeds = {"x": np.random.default_rng(seed).standard_normal(500).astype(np.float32)}
        engine.device = cpu
        expected = engine.run(feeds)
        engine.device = device
        found = engine.run(feeds)
        assert all(np.array_equal(found[name], array) for name, array in expected.items())
    assert not device.fallen


class Finds(NullBackend):
    """Whose memory is all ones, so that something is found."""

    def download(self, array: np.ndarray, address: int, *, wait: bool = True) -> None:
        array.view(np.int32).fill(1)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("op", ["NonZero", "NonMaxSuppression"])
def test_what_is_launched_once_something_is_found_compiles(tmp_path, op, arch):
    pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-python is not installed")
    path, feeds = next(case for case in SELECTED if case.op == op).save(tmp_path)
    engine = compile_model(load(path), precision="fp32", passes="none", fusion="none")
    backend = Finds()
    engine.device = CudaDevice(engine.network, engine.top_layers, engine.rounding, backend)
    engine(feeds)
    (last,) = [source for source, _ in backend.launched if source.entry.endswith("_place")]
    _, used = assembled(last, arch)
    assert used.registers <= 48 and not used.spilled_bytes
