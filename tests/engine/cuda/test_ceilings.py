"""The roofs of a GPU: measured once, by our kernel or by a library's where that is faster, and named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from probe.engine.device.cuda import ceilings, library
from probe.engine.device.cuda.ceilings import measure_ceilings
from probe.engine.device.cuda.errors import Unsupported
from probe.engine.device.cuda.ops.products import named
from tests.engine.cuda.null_backend import NullBackend


class Clocked(NullBackend):
    """A launch takes a microsecond; ``fast`` nothing but what is added by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def launch(self, source: Any, shape: Any, arguments: Any, what: str) -> None:
        self.now += 1e-6

    def seconds(self, work: Callable[[], None]) -> float:
        before = self.now
        work()
        return self.now - before


class Library:
    prefixes = ("fast", "slow", "cannot")

    def __init__(self, backend: Clocked) -> None:
        self._backend = backend
        self.asked: list[str] = []

    def offered(self, queue, problem):
        return ("cannot_1", "fast_1", "slow_1")

    def refusal(self, queue, problem, name):
        return None

    def launch(self, queue, problem, name):
        self.asked.append(name)
        if name.startswith("cannot"):
            raise Unsupported("no")
        self._backend.now += 5e-7
        return list(problem.ending.stored)


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch):
    monkeypatch.setattr(ceilings, "_known", {})


def test_our_kernels_are_the_roof_without_a_library(monkeypatch):
    monkeypatch.setattr(library, "families", tuple)
    found = measure_ceilings(Clocked(), ("fp16", "fp32", "fp16"), side=64, copied=1 << 10)
    assert set(found.by_precision) == {"fp16", "fp32"} and found.flops_per_second == found.by_precision["fp16"]
    assert (
        found.flops_in("fp32") == pytest.approx(2 * 64**3 / 1e-6) and found.flops_in("tf32") == found.flops_per_second
    )
    assert found.bytes_per_second == pytest.approx(8 * 1024 / 1e-6)
    assert "FP16 0.524 by probe's own kernel" in found.method and "64 x 64" in found.method


def test_a_faster_library_is_the_roof_and_named(monkeypatch):
    backend = Clocked()
    fast = Library(backend)
    monkeypatch.setattr(library, "families", lambda: (fast,))
    monkeypatch.setattr(named, "families", lambda: (fast,))
    found = measure_ceilings(backend, ("fp16",), side=64, copied=1 << 10)
    assert found.flops_per_second == pytest.approx(2 * 64**3 / 5e-7) and "by fast_1" in found.method
    assert "slow_1" not in fast.asked, "the most promising alone"
    asked = len(fast.asked)
    assert measure_ceilings(backend, ("fp16",), side=64, copied=1 << 10) == found and len(fast.asked) == asked
