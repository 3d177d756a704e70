"""Rows of layers on a device that is not there: roofline by hand, lifetimes against brute force."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest

from probe.engine.assignment import Assignment, Choice
from probe.engine.build import compile_model
from probe.engine.device.timeline import Moments
from probe.engine.layers import all_layers
from probe.model import load
from probe.results.bench import Ceilings, LayerTime
from probe.timing.layers import ports_of, rows_of, time_layers, with_roofline
from probe.timing.loop import Amount
from probe.timing.memory import plan_of
from tests.debug import faulty
from tests.model import builders

ROOFS = Ceilings(100.0, 10.0, "by hand")  # ridge at ten operations a byte


def layer(**known: Any) -> LayerTime:
    return LayerTime("a", "conv", "", ("a",), ("y",), "fp32", "exact", 3, min=1.0, mean=1.0, **known)


ROOFLINE = {
    # flops, bytes, median -> floor, roofline, bound
    "compute-bound": ((1000, 50, 20.0), (10.0, 0.5, "compute")),
    "memory-bound": ((10, 50, 20.0), (5.0, 0.25, "memory")),
    "on the ridge": ((1000, 100, 10.0), (10.0, 1.0, "compute")),
    "faster than memory": ((0, 100, 2.0), (10.0, 5.0, "memory")),
    "nothing to do": ((0, 0, 2.0), (0.0, 0.0, "")),
    "no time at all": ((1000, 50, 0.0), (10.0, None, "compute")),
    "flops not known": ((None, 50, 2.0), (None, None, "")),
    "bytes not known": ((10, None, 2.0), (None, None, "")),
    "not run": ((10, 50, None), (None, None, "")),
}


@pytest.mark.parametrize(("given", "expected"), ROOFLINE.values(), ids=ROOFLINE)
def test_the_roofline(given: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    flops, moved, median = given
    row = with_roofline(layer(flops=flops, bytes=moved, median=median), ROOFS)
    assert (row.floor, row.roofline, row.bound) == expected


def test_without_ceilings_nothing_is_said() -> None:
    row = layer(flops=10, bytes=5, median=1.0)
    assert with_roofline(row, None) == row


class FakeTimeline:
    """Every layer takes as many seconds as its place."""

    executor, layerwise, one_at_a_time = "fake", False, ""

    def __init__(self, names: list[str]) -> None:
        self.names, self.now, self.passes = names, 0.0, 0

    def clock(self) -> float:
        return self.now

    def context(self) -> FakeTimeline:
        return self

    def run(self, feeds: Mapping[str, Any]) -> Moments:
        self.now += 10.0
        return Moments(self.now - 10.0, self.now - 9.0, self.now - 1.0, self.now)

    def layers(self, feeds: Mapping[str, Any]) -> dict[str, float]:
        self.passes += 1
        times = {name: float(at + 1) for at, name in enumerate(self.names)}
        self.now += sum(times.values())
        return times

    def shapes(self, feeds: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        return {}

    def call_seconds(self) -> float:
        return 0.0

    def ceilings(self) -> Ceilings:
        return ROOFS


@pytest.mark.parametrize(("passes", "seconds", "sets", "expected"), [(5, 0.0, 1, 5), (1, 39.0, 1, 3), (1, 0.0, 4, 4)])
def test_passes_over_layers(passes: int, seconds: float, sets: int, expected: int) -> None:
    """A pass and the whole network after it take 13 s here; one pass an input before does not count."""
    timeline = FakeTimeline(["a", "b"])
    found = time_layers(timeline, [{}] * sets, Amount(passes, seconds, 0.0), timeline.clock)
    assert found.layers == {"a": [1.0] * expected, "b": [2.0] * expected}
    assert found.whole == [8.0] * expected
    assert timeline.passes == expected + sets


@pytest.fixture
def engine(tmp_path):
    return compile_model(load(faulty.build(tmp_path / "m.onnx")), precision="fp32")


def shapes_of(engine, feeds: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    shapes = {name: array.shape for name, array in feeds.items()}
    engine.run(feeds, tap=lambda tapped: shapes.update({tapped.name: tapped.array.shape}))
    return shapes


def test_rows_are_the_layers_with_their_costs(engine) -> None:
    shapes = shapes_of(engine, faulty.feeds())
    spent = {one.name: [2.0, 1.0, 3.0] for one in engine.layers}
    rows = rows_of(engine, engine.assignment, spent, shapes, live={}, ceilings=ROOFS)
    assert [row.name for row in rows] == [one.name for one in engine.layers]
    assert sum(row.share or 0.0 for row in rows) == pytest.approx(1.0)
    first = rows[0]  # x [4, 32] times [32, 32] and bias, then relu
    assert (first.min, first.median, first.mean, first.runs) == (1.0, 2.0, 2.0, 3)
    assert first.flops == 2 * 4 * 32 * 32 + 2 * 4 * 32
    assert first.bytes == 4 * (2 * 4 * 32 + 32 * 32 + 32)
    assert first.flops_per_second == first.flops / 2.0 and first.bytes_per_second == first.bytes / 2.0
    assert first.reads == ("x",) and first.outputs == ("act1_out",)


def test_layers_that_did_not_run_have_no_time(engine) -> None:
    rows = rows_of(engine, engine.assignment, {engine.layers[0].name: [1.0]}, {}, live={}, ceilings=ROOFS)
    assert rows[0].share == 1.0
    assert all((row.runs, row.median, row.share, row.roofline) == (0, None, None, None) for row in rows[1:])


def test_low_precision_moves_half_the_bytes(engine) -> None:
    shapes = shapes_of(engine, faulty.feeds())
    spent = {one.name: [1.0] for one in engine.layers}
    wide, low = (
        rows_of(engine, Assignment(Choice(one)), spent, shapes, live={}, ceilings=None) for one in ("fp32", "fp16")
    )
    assert all((two.bytes or 0) * 2 == one.bytes and two.flops == one.flops for one, two in zip(wide, low, strict=True))


def brute_force(engine, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Bytes alive at each layer, tensor by tensor: made at or before it, and read at or after it (or returned)."""
    layers = list(all_layers(engine.top_layers))
    returned = {value.name for value in engine.network.graph.outputs}
    tensors = {value.name: -1 for value in engine.network.graph.inputs}
    tensors |= {value.name: at for at, one in enumerate(layers) for value in one.outputs}
    alive = {}
    for at, one in enumerate(layers):
        held = [
            name
            for name, made in tensors.items()
            if max(made, 0) <= at
            and (made == at or name in returned or any(v.name == name for later in layers[at:] for v in later.reads))
        ]
        alive[one.name] = sum(4 * math.prod(shapes[name]) for name in held)
    return alive


def test_what_is_alive_is_what_brute_force_finds(engine) -> None:
    shapes = shapes_of(engine, faulty.feeds())
    plan, live = plan_of(engine, engine.assignment, shapes, frozenset(one.name for one in engine.layers))
    assert live == brute_force(engine, shapes)
    assert plan is not None and plan.peak_live == max(live.values()) == live[plan.peak_layer]
    assert (
        plan.arena >= plan.peak_live and plan.unknown == 0 and plan.note.startswith("ONNX Runtime allocates by itself")
    )
    assert plan.weights == sum(
        4 * math.prod(v.shape.numpy()) for v in {v.name: v for one in engine.layers for v in one.weights}.values()
    )


def test_low_precision_holds_half_and_kept_tensors_stay_whole(engine) -> None:
    shapes = shapes_of(engine, faulty.feeds())
    ran = frozenset(one.name for one in engine.layers)
    _, wide = plan_of(engine, engine.assignment, shapes, ran)
    low = Assignment(Choice("fp16"))
    _, half = plan_of(engine, low, shapes, ran)
    _, kept = plan_of(engine, low.keeping(tensors=["act1_out"]), shapes, ran)
    inside = engine.layers[2].name
    assert half[inside] * 2 == wide[inside]
    assert kept[engine.layers[0].name] - half[engine.layers[0].name] == 2 * 4 * 32
    stored = {port.name: port.dtype for port in ports_of(engine, low.keeping(tensors=["act1_out"]), shapes)}
    assert (stored["x"], stored["act1_out"], stored["scores"]) == ("float32", "float32", "float16")


def test_a_branch_that_was_not_taken_holds_nothing(tmp_path) -> None:
    onnx.save(builders.if_else(), tmp_path / "m.onnx")
    engine = compile_model(load(tmp_path / "m.onnx"), precision="fp32", fusion="none")
    feeds = {"x": np.ones((2, 3), np.float32), "c": np.array(True)}
    shapes = {name: array.shape for name, array in feeds.items()} | {"negated": (2, 3), "then_y": (2, 3), "y": (2, 3)}
    taken = frozenset(one.name for one in engine.layers if one.scope.endswith("then_branch"))
    plan, live = plan_of(engine, engine.assignment, shapes, taken)
    assert plan is not None and plan.unknown == 0
    assert taken <= live.keys() and not any(
        one.name in live for one in engine.layers if one.scope.endswith("else_branch")
    )
    assert [one.name for one in engine.layers if one.kind == "if"] == [name for name in live if name not in taken]


def test_sequences_count_all_their_elements_and_strings_are_of_unknown_size(tmp_path) -> None:
    onnx.save(builders.sequence(), tmp_path / "sequence.onnx")
    engine = compile_model(load(tmp_path / "sequence.onnx"), precision="fp32", fusion="none")
    shapes = {"x": (2, 3), "s[0]": (2, 3), "s[1]": (2, 3), "y": (4, 3)}
    plan, live = plan_of(engine, engine.assignment, shapes, frozenset(one.name for one in engine.layers))
    assert plan is not None and (plan.tensors, plan.unknown) == (3, 0)
    assert live == {"construct": 4 * (6 + 12), "concat": 4 * (12 + 12)}
    onnx.save(builders.strings(), tmp_path / "strings.onnx")
    engine = compile_model(load(tmp_path / "strings.onnx"), precision="fp32", fusion="none", passes="none")
    shapes = {"x": (2,), "both": (3,), "y": (3,)}
    plan, live = plan_of(engine, engine.assignment, shapes, frozenset(one.name for one in engine.layers))
    assert plan is not None and (plan.tensors, plan.unknown, plan.peak_live) == (1, 2, 3 * 8)
    assert live["concat"] == 0


def test_nothing_ran_nothing_planned(engine) -> None:
    assert plan_of(engine, engine.assignment, {}, frozenset()) == (None, {})
