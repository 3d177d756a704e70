"""Timing with the kernel choices of a tactic file: they are what runs, and nothing is guessed where file and user disagree."""

from __future__ import annotations

import re

import numpy as np
import pytest

from probe.api.tactics import record_tactics
from probe.errors import InputError
from probe.model import load
from probe.results.bench import Ceilings
from probe.store.feeds import InputSet
from probe.timing.bench import BenchOptions, bench_network
from probe.timing.loop import Amount
from tests.debug import faulty

FEW = Amount(2, 0.0, 0.0)


@pytest.fixture(autouse=True)
def _known_ceilings(monkeypatch):
    monkeypatch.setattr(
        "probe.engine.device.cpu.timeline.measure_ceilings", lambda threads: Ceilings(1e11, 2e10, "by a test")
    )


@pytest.fixture
def recorded(tmp_path):
    """A model, and a tactic file of it in which some product is not exact."""
    faulty.build(tmp_path / "m.onnx")
    np.savez(tmp_path / "x.npz", x=faulty.feeds()["x"])
    for seed in range(10):
        made = record_tactics(
            tmp_path / "m.onnx",
            tmp_path / "t.json",
            choose="random",
            choose_seed=seed,
            inputs=tmp_path / "x.npz",
            overwrite=True,
        )
        if any(line.tactic != "exact" for line in made.run.layers):
            return tmp_path
    raise AssertionError("no seed draws another tactic than exact")


def bench(folder, **options):
    sets = [InputSet("a", faulty.feeds(), "test")]
    return bench_network(
        load(folder / "m.onnx"), sets, BenchOptions(amount=FEW, layers=FEW, tactics=folder / "t.json", **options)
    )


def test_the_file_decides(recorded) -> None:
    result = bench(recorded)
    assert (result.precision, result.tactics) == ("fp16", str(recorded / "t.json"))
    assert {layer.tactic for layer in result.layers} > {"exact"}
    assert result.executor.startswith("layer by layer")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "fp32"}, "recorded with --precision fp16, not fp32"),
        ({"passes": "all"}, "recorded with --passes safe, not all"),
        ({"fusion": "none"}, "recorded with --fusion safe, not none"),
        ({"interior": "fp32"}, "recorded with --interior storage, not fp32"),
        ({"keep": (re.compile("act1"),)}, "says itself what is kept"),
        ({"streams": 2}, "it has tactics other than exact"),
    ],
)
def test_what_contradicts_the_file_is_refused(recorded, options, said) -> None:
    with pytest.raises(InputError) as found:
        bench(recorded, **options)
    assert said in str(found.value)


def test_what_says_the_same_is_not(recorded) -> None:
    assert bench(recorded, precision="fp16", passes="safe").tactics


def test_an_edited_file_is_refused(recorded) -> None:
    file = recorded / "t.json"
    file.write_text(file.read_text().replace('"exact"', '"split_k"', 1))
    with pytest.raises(InputError, match="edited"):
        bench(recorded)
