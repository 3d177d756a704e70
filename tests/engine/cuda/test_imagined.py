"""Runs that are only planned leave nothing behind that a kernel could be launched on: every pointer of every launch is memory of the device."""

from __future__ import annotations

import ctypes
from bisect import bisect_right
from itertools import islice

import numpy as np
import onnx
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.tuning.menu import keeping, lifted
from probe.model import load
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.cuda.test_models import EXPORTS, MODELS, feeds_of
from tests.engine.cuda.test_templates import FEEDS, engine, on  # noqa: F401 - a fixture

_OWN, _BEYOND = 1 << 44, 1 << 57  # its addresses lie between; imagined ones do not


class Watched(NullBackend):
    """An H200 that computes nothing, and looks at every pointer."""

    arch = "sm_90a"

    def __init__(self):
        super().__init__()
        self._next, self.live, self.launches = _OWN, {}, 0

    def allocate(self, nbytes):
        address = super().allocate(nbytes)
        self.live[address] = nbytes
        return address

    def free(self, address):
        del self.live[address]

    def launch(self, source, shape, arguments, what):
        for one in arguments:
            if isinstance(one, ctypes.c_void_p) and one.value is not None:
                assert _OWN <= one.value < _BEYOND, f"{what}: {source.entry} on memory that there is not"
        self.launches += 1


def planned_and_run(made, backend, feeds) -> None:
    """Planned under mixtures, then run under those and others, twice each: recorded and repeated."""
    made.device = device = CudaDevice(made.network, made.top_layers, made.rounding, backend)
    mixtures = [
        made.assignment,
        *islice(lifted(made, made.assignment, 3), 1, 4),
        *islice(keeping(made, made.assignment, 3), 1),
    ]
    for mixture in mixtures:
        device.learn(made.feeds(feeds), made.plans(mixture))
    for mixture in (*mixtures, *islice(lifted(made, made.assignment, 4), 4, 6)):
        for _ in range(2):
            made.run(feeds, mixture)


def test_a_small_network(engine):  # noqa: F811 - the fixture
    backend = Watched()
    planned_and_run(engine, backend, FEEDS)
    assert backend.launches > 100


# what the host computes of a device whose memory is all zeros is no number, or of no shape
_BY_VALUE = ("silero_vad", "convtasnet_cln")


@pytest.mark.parametrize("name", [one for one in (*MODELS, *EXPORTS) if one not in _BY_VALUE])
def test_real_models(request, name):
    folder = request.getfixturevalue("models" if name in MODELS else "exports")
    made = compile_model(load(folder / "models" / f"{name}.onnx"), precision="fp16")
    backend = Watched()
    planned_and_run(made, backend, feeds_of(folder, name))
    assert backend.launches


class Placed(Watched):
    """Its memory begins where that of a GPU does, and it knows what each pointer of a launch points into."""

    def __init__(self):
        super().__init__()
        self._next, self.pointed = 0x302000000, []

    def free(self, address):
        pass

    def launch(self, source, shape, arguments, what):
        begins = sorted(self.live)
        for one in arguments:
            if isinstance(one, ctypes.c_void_p) and one.value is not None:
                begin = begins[bisect_right(begins, one.value) - 1]
                self.pointed.append((source.entry, self.live[begin], one.value - begin))


WIDE = """<ir_version: 8, opset_import: ["" : 18]>
g (float[n,1,1,1] x) => (float[n,8,a,b] y) {
    wide = Mul (x, c) p = Conv <pads = [1, 1, 1, 1]> (wide, v) r = Relu (p) y = GlobalAveragePool (r)
}"""


def test_more_is_imagined_than_lies_below_a_gpus_memory(tmp_path):
    """Imagined tensors of 17 GB: an address of a weight is not taken for one of them."""
    made = onnx.parser.parse_model(WIDE)
    random = np.random.default_rng(3)
    for key, shape in {"c": (1, 8, 64, 65), "v": (8, 8, 3, 3)}.items():
        made.graph.initializer.append(onnx.numpy_helper.from_array(random.random(shape, np.float32), key))
    onnx.save(made, tmp_path / "wide.onnx")
    found = []
    for ahead in (False, True):
        wide = compile_model(load(tmp_path / "wide.onnx"), precision="fp32")
        backend = Placed()
        wide.device = device = CudaDevice(wide.network, wide.top_layers, wide.rounding, backend)
        fed, plans = device._fed({"x": np.zeros((65_600, 1, 1, 1), np.float32)}), wide.plans(wide.assignment)
        if ahead:
            device.learn({"x": fed["x"].array(backend)}, plans)
        backend.pointed.clear()
        device._record(fed, plans)
        found.append(backend.pointed)
    assert found[0] == found[1]
    assert any(entry.startswith("conv") and nbytes == 8 * 8 * 9 * 4 for entry, nbytes, _ in found[0])
