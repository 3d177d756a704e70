"""Memory that Python drops goes back to the GPU when somebody allocates next, on the stream that it was used on."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import pytest

from probe.engine.device.cuda.tensors.tensor import Buffer

bindings = pytest.importorskip("probe.engine.device.cuda.driver", reason="cuda-python is not installed")


class Fake:
    """What ``Driver`` asks of the driver to allocate and to give back."""

    def __init__(self, monkeypatch):
        self.given_back = []
        calls = SimpleNamespace(
            CUresult=bindings.driver.CUresult,
            cuMemAllocAsync=lambda nbytes, stream: (bindings.driver.CUresult.CUDA_SUCCESS, 0x1000 + nbytes),
            cuMemFreeAsync=self._free,
        )
        monkeypatch.setattr(bindings, "driver", calls)
        bindings._dropped.clear()
        self.driver = object.__new__(bindings.Driver)
        self.driver.stream, self.driver.lender = "a stream", None

    def _free(self, address, stream):
        self.given_back.append((address, stream))
        return (bindings.driver.CUresult.CUDA_SUCCESS,)


def test_dropped_memory_waits_for_the_next_allocation(monkeypatch):
    fake = Fake(monkeypatch)
    held = Buffer(fake.driver, 64)
    address = held.address
    ring = [held]
    ring.append(ring)  # only the garbage collector finds it
    del held, ring
    gc.collect()
    assert fake.given_back == []  # the collector may run in any thread: nothing is asked of the driver there
    kept = Buffer(fake.driver, 128)
    assert fake.given_back == [(address, "a stream")]
    del kept
    assert len(bindings._dropped) == 1
    bindings._give_back()
    assert len(fake.given_back) == 2 and not bindings._dropped
