"""Runs that are only planned leave nothing behind that a kernel could be launched on: every pointer of every launch is memory of the device."""

from __future__ import annotations

import ctypes
from itertools import islice

import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.tuning.menu import keeping, lifted
from probe.model import load
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.cuda.test_models import EXPORTS, MODELS, feeds_of
from tests.engine.cuda.test_templates import FEEDS, engine, on  # noqa: F401 - a fixture

_OWN = 1 << 44  # its addresses begin there; imagined ones are small


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
                assert one.value >= _OWN, f"{what}: {source.entry} on memory that there is not"
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
