"""NVTX ranges: opened and closed in pairs, around inferences and, kernel by kernel, around layers."""

from __future__ import annotations

import time

import numpy as np
import pytest

from probe.engine.device.cuda import ranges
from probe.engine.device.cuda.ranges import Ranges
from probe.errors import InputError
from probe.timing.bench import timeline_of
from tests.engine.cuda.null_backend import NullBackend
from tests.engine.cuda.test_replays import CHAIN, engine_of


class Library:
    """Notes what is pushed and popped."""

    def __init__(self) -> None:
        self.told: list[str] = []

        def push(name: bytes) -> int:
            self.told.append(name.decode())
            return 0

        def pop() -> int:
            self.told.append(">")
            return 0

        self.nvtxRangePushA, self.nvtxRangePop = push, pop


@pytest.fixture
def told(monkeypatch):
    library = Library()
    monkeypatch.setattr(ranges, "_library", lambda: library)
    return library.told


def test_layers_lie_inside_inferences(tmp_path, told):
    engine, _ = engine_of(tmp_path, CHAIN, NullBackend())
    context = timeline_of(engine, engine.assignment, time.perf_counter, graphs=False, ranges=True).context()
    context.run({"x": np.ones((3, 16), np.float32)})
    layers = [layer.name for layer in engine.layers]
    assert told == ["inference", *(part for name in (*layers, "outputs") for part in (name, ">")), ">"]


def test_graphs_have_no_layers(tmp_path, told):
    engine, _ = engine_of(tmp_path, CHAIN, NullBackend())
    context = timeline_of(engine, engine.assignment, time.perf_counter, ranges=True).context()
    for _ in range(2):
        context.run({"x": np.ones((3, 16), np.float32)})
    assert told == ["inference", ">"] * 2


def test_ranges_end_where_a_run_breaks_off(told):
    ours = Ranges()

    def broken():
        with ours.range("inference"):
            ours.layer("a")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert told == ["inference", "a", ">", ">"]


def test_without_a_library_it_is_said(monkeypatch):
    monkeypatch.setattr(ranges, "_NAMES", ("libnothing_of_this_name.so.1",))
    with pytest.raises(InputError, match="no NVTX library") as caught:
        Ranges()
    assert caught.value.where == "--nvtx" and "nvidia-nvtx" in caught.value.hint


@pytest.mark.gpu
def test_the_library_takes_names(gpu):
    assert gpu.name
    try:
        ours = Ranges()
    except InputError as error:
        pytest.skip(error.what)
    with ours.range("ünïcode"):
        ours.layer("layer/1")
