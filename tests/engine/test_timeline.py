"""What the CPU device tells of time, on a clock that counts its readings: every layer once, every inference in order, shapes as tapped."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest

from probe.engine.assignment import Assignment, Choice
from probe.engine.build import compile_model
from probe.model import load
from probe.timing.bench import timeline_of
from tests.debug import faulty
from tests.model import builders


def ticking():
    ticks = itertools.count()
    return lambda: float(next(ticks))


@pytest.fixture
def engine(tmp_path):
    return compile_model(load(faulty.build(tmp_path / "m.onnx")), precision="fp16")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_layer_takes_its_own_time_in_each_pass(engine, precision):
    timeline = timeline_of(engine, Assignment(Choice(precision)), ticking())
    for _ in range(3):  # the first builds sessions; times of one pass are not added to those of the next
        assert timeline.layers(faulty.feeds()) == {layer.name: 1.0 for layer in engine.layers}


def test_a_pass_over_layers_leaves_the_device_as_it_was(engine):
    timeline = timeline_of(engine, engine.assignment, ticking())
    before = engine.run(faulty.feeds())
    built = engine.device.layered.sessions
    timeline.layers(faulty.feeds())
    assert engine.device.layered.sessions == built
    after = engine.run(faulty.feeds())
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)


def test_shapes_are_those_of_every_tensor_made(engine):
    expected = {}
    engine.run(faulty.feeds(), tap=lambda tapped: expected.update({tapped.name: tapped.array.shape}))
    assert timeline_of(engine, engine.assignment, ticking()).shapes(faulty.feeds()) == expected
    assert expected["fc1/MatMul_out"] == (4, 32), "inside a fused layer, too"


def test_an_inference_has_its_moments_in_order_and_no_queue(engine):
    context = timeline_of(engine, engine.assignment, ticking()).context()
    moments = context.run(faulty.feeds())
    assert (moments.begin, moments.fed, moments.computed, moments.end) == (0.0, 1.0, 2.0, 3.0)
    assert moments.enqueued is None


def test_contexts_run_side_by_side(engine):
    timeline = timeline_of(engine, engine.assignment, ticking())
    assert timeline.one_at_a_time == "" and timeline.executor.startswith("one session")
    assert timeline.context() is not timeline.context()


def test_branches_that_do_not_run_take_no_time(tmp_path):
    onnx.save(builders.nested_if(), tmp_path / "m.onnx")
    engine = compile_model(load(tmp_path / "m.onnx"), precision="fp32", fusion="none", passes="none")
    timeline = timeline_of(engine, engine.assignment, ticking())
    feeds = {"x": np.ones((2, 3), np.float32), "c": np.array(True)}
    assert set(timeline.layers(feeds)) == {"sum", "greater", "neg", "sqrt", "last"}
    assert set(timeline.layers({**feeds, "c": np.array(False)})) == {"abs", "last"}


def test_calling_a_layer_takes_a_tick(engine):
    assert timeline_of(engine, engine.assignment, ticking()).call_seconds() == 1.0
