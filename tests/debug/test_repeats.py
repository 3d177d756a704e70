"""``--repeat N --bitwise``: the same bits every time, or the first tensor that differs is named, with its layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from probe import api
from probe.debug import run as running
from probe.debug.repeats import check_repeats, check_runs
from probe.engine.build import compile_model
from probe.errors import InputError
from probe.model import load
from probe.store.feeds import InputSet
from tests.debug import faulty


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return faulty.build(tmp_path_factory.mktemp("repeats") / "m.onnx")


class Unsteady:
    """A device of which one tensor, from some run on, is not what it was. What reads it is unharmed: only that tensor is to blame."""

    def __init__(self, device, tensor: str, since: int) -> None:
        self._device, self._tensor, self._since, self.runs = device, tensor, since, 0

    def __getattr__(self, name):
        return getattr(self._device, name)

    def stream(self, feeds, plans, *, interior):
        self.runs += 1
        running = self._device.stream(feeds, plans, interior=interior)
        while True:
            try:
                tapped = next(running)
            except StopIteration as done:
                return done.value
            if tapped.name == self._tensor and self.runs >= self._since:
                changed = tapped.array.copy()
                changed.reshape(-1)[3] = np.nextafter(changed.reshape(-1)[3], np.float32(np.inf))
                tapped = replace(tapped, held=changed)
            yield tapped


class Served:
    """A device that gives other outputs when nobody looks inside, as a graph with a race would."""

    def __init__(self, device) -> None:
        self._device, self.runs = device, 0

    def __getattr__(self, name):
        return getattr(self._device, name)

    def run(self, feeds, plans):
        self.runs += 1
        outputs = dict(self._device.run(feeds, plans))
        outputs["boxes"] = outputs["boxes"] + np.float32(self.runs == 2)
        return outputs


def unsteady(device: Any, tensor: str, since: int) -> Any:
    return Unsteady(device, tensor, since)


def sets(count: int = 1):
    return [InputSet(f"in{k}", faulty.feeds(k), "made") for k in range(count)]


def test_the_same_bits(path):
    engine = compile_model(load(path))
    check = check_repeats(engine, engine.assignment, sets(2), 3)
    assert check.identical and check.runs == 3 and check.first is None and check.differing == 0
    assert check.tensors >= 2 * len(engine.layers)


@pytest.mark.parametrize(("tensor", "since"), [("gated_out", 2), ("gated_out", 3), ("scores", 2)])
def test_the_first_tensor_is_named(path, tensor, since):
    engine = compile_model(load(path))
    engine.device = unsteady(engine.device, tensor, since)
    check = check_repeats(engine, engine.assignment, sets(), 3)
    assert not check.identical and check.differing == 1 and check.first is not None
    layer = engine.layer_of(tensor)
    assert layer is not None
    assert (check.first.tensor, check.first.layer, check.first.run) == (tensor, layer.name, since)
    assert (check.first.elements, check.first.tapped) == (1, True) and check.first.max_abs > 0


def test_runs_without_taps_are_compared_too(path):
    engine = compile_model(load(path))
    engine.device = cast("Any", Served(engine.device))
    check = check_repeats(engine, engine.assignment, sets(), 3)
    assert check.first is not None and not check.first.tapped
    assert (check.first.tensor, check.first.run, check.differing) == ("boxes", 3, 1)


def test_a_run_says_so(path, monkeypatch):
    asked = {"inputs": faulty.feeds(), "try_cure": False}
    steady = api.run(path, bitwise=True, **asked)
    assert steady and steady.repeats is not None and steady.repeats.identical and steady.repeats.runs == 3
    compile_as = running.compile_as

    def altered(*given, **named):
        engine = compile_as(*given, **named)
        engine.device = unsteady(engine.device, "gated_out", 3)
        return engine

    monkeypatch.setattr(running, "compile_as", altered)
    told = api.run(path, repeat=4, bitwise=True, **asked)
    assert not told and told.verdict == "passed", "the verdict is of the outputs; the exit code is not 0 all the same"
    assert told.findings[0].kind == "not_repeatable" and told.findings[0].tensor == "gated_out"
    assert "gated_out" in told.findings[0].message and str(told.findings[0].layer) in told.findings[0].message


def test_what_cannot_be_asked():
    assert check_runs(None, bitwise=False) == 0 and check_runs(None, bitwise=True) == 3
    with pytest.raises(InputError, match="--bitwise what for"):
        check_runs(5, bitwise=False)
    with pytest.raises(InputError, match="nothing"):
        check_runs(1, bitwise=True)
