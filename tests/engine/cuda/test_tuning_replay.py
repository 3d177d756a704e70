"""Choices of a GPU's own tactics saved and replayed: strictly on one, read everywhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from probe.engine.build import compile_model
from probe.engine.device.cuda.device import CudaDevice
from probe.engine.tuning.choose import choose
from probe.engine.tuning.fingerprint import fingerprint_of
from probe.engine.tuning.replay import Replay
from probe.engine.tuning.selector import Deny, Random
from probe.engine.tuning.tactic_file import parse_tactic_file, tactic_file_of, text_of, with_tactics
from probe.engine.tuning.timing import Timings
from probe.errors import InputError
from tests.engine.cuda.test_tuning_names import network
from tests.engine.cuda.test_tuning_together import FEEDS, NET, WEIGHTS, Clock


@pytest.fixture
def engine(tmp_path):
    found = compile_model(network(tmp_path, NET, **WEIGHTS), precision="fp16")
    found.device = CudaDevice(found.network, found.top_layers, found.rounding, Clock(0.1))
    found.settings = replace(found.settings, device="cuda")
    return found


def recorded(engine, *selectors):
    choices = choose(engine, FEEDS, selectors, timings=Timings(fingerprint_of(engine)))
    return choices, parse_tactic_file(text_of(tactic_file_of(engine, choices, (), "not_judged")))


def test_choices_are_replayed(engine):
    choices, file = recorded(engine, Random(3))
    assert file.fingerprint.device == "cuda sm_90a" and any(
        name.startswith("wgmma") for name in choices.tactics.values()
    )
    again = choose(engine, FEEDS, [Replay(file, engine=engine)])
    assert again.tactics == choices.tactics
    engine.run(FEEDS, again.assignment(engine.assignment))


def test_a_tactic_that_is_not_offered_any_more_is_replayed(engine):
    """What is offered follows a model of times, which may change; what a name computes does not."""
    _, file = recorded(engine, Random(3))
    layer = next(line for line in file.layers if line.kind == "conv")
    offered = engine.tuner.offered(engine.layer(layer.layer), "fp16", {"x": (2, 16, 6, 6)})
    unusual = "wgmma_64x64_splitk2" if "wgmma_64x64_splitk2" not in offered else "wgmma_256x128"
    assert unusual not in offered
    changed = with_tactics(file, {(layer.outputs, layer.layer): unusual})
    assert choose(engine, FEEDS, [Replay(changed, engine=engine)]).tactics[layer.layer] == unusual
    for wrong in ("wgmma_1x1", "conv_depthwise", "wgmma_64x64_splitk8"):
        changed = with_tactics(file, {(layer.outputs, layer.layer): wrong})
        with pytest.raises(InputError, match=f"{wrong} is no candidate"):
            choose(engine, FEEDS, [Replay(changed, engine=engine)])


def test_elsewhere_a_file_is_read_and_refused(engine):
    _, file = recorded(engine, Deny("exact|acc16|mma.* @ Conv"))
    other = compile_model(engine.model, precision="fp16")
    with pytest.raises(InputError, match="recorded on another device: cuda sm_90a, this is cpu"):
        choose(other, FEEDS, [Replay(file, engine=other)])
    lenient = Replay(file, strict=False, engine=other)
    assert set(choose(other, FEEDS, [lenient]).tactics.values()) == {"exact"}
    told = [miss.message for miss in lenient.misses if miss.kind == "unsupported_tactic"]
    assert told and all(message.startswith("wgmma") for message in told)


def test_times_of_another_gpu_or_driver_are_not_taken(engine, tmp_path):
    timings = Timings(fingerprint_of(engine))
    choose(engine, FEEDS, (), timings=timings)
    path = tmp_path / "times.json"
    path.write_text(timings.text())
    assert len(Timings.load(path, fingerprint_of(engine))) == len(timings) > 20
    for field in ("device", "processor", "driver", "sources"):
        assert not len(Timings.load(path, replace(fingerprint_of(engine), **{field: "another"})))
    assert np.isfinite([one.median_us for one in timings._known.values()]).all()
