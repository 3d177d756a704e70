"""Which tensors of a diff get a detail, that it is bounded, and that it survives being saved."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from probe.compare import details as module
from probe.compare.diff import diff_sources
from probe.results.diff import DiffResult
from probe.results.json import dumps, loads
from tests.compare.recorder import GOLDEN, Recorder, dataset, diff

Make = Callable[[], Recorder]


def network(recorder: Make, inside: int = 40, **options: Any) -> DiffResult:
    """Tensors t0, t1, ... with error that grows from t10 on, and an output that is right."""
    sides = []
    for actual in (True, False):
        side = recorder()
        for i in range(inside):
            wrong = np.float32(0.01 * i * actual * (i >= 10))
            side.add(f"t{i}", GOLDEN + wrong, reads=(f"t{i - 1}",))
        sides.append(side.add("y", GOLDEN, "output").open())
    return diff_sources(*sides, precision="fp16", **options)


def detailed(result: DiffResult) -> list[str]:
    return [t.name for t in result.tensors if t.detail is not None]


def test_outputs_first_divergences_and_the_worst_have_a_detail(recorder: Make) -> None:
    result = network(recorder, details=6)
    first = result.first_divergence
    assert first and set(first) | {"y"} < set(detailed(result)), "an output even where nothing is wrong"
    assert detailed(result) == [*first, "t36", "t37", "t38", "t39", "y"]
    assert len(detailed(network(recorder, details=100))) == 31, "the output and those that differ"
    assert detailed(network(recorder)) == []


def test_what_is_read_again_is_bounded(recorder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ELEMENTS", 200)
    monkeypatch.setattr(module, "PIECES", 4)
    found = [t.detail for t in network(recorder, details=24).tensors if t.detail is not None]
    assert len(found) == 24 and sum(d.elements for d in found) <= 200
    for one in found:
        assert 1 <= one.elements < one.count == 32
        assert sum(one.golden.positive) + sum(one.golden.negative) + one.golden.zeros + one.golden.below == one.elements


def test_an_output_may_take_four_times_as_much(recorder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ELEMENTS", 60)
    monkeypatch.setattr(module, "PIECES", 1)
    found = {t.role: t.detail.elements for t in network(recorder, details=7).tensors if t.detail is not None}
    assert found == {"output": 24, "internal": 6}


def test_a_sample_is_spread_evenly(recorder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECES", 8)
    seen: list[np.ndarray[Any, Any]] = []
    whole = module.detail_of
    monkeypatch.setattr(
        module, "detail_of", lambda a, g, *rest, **more: (seen.append(g), whole(a, g, *rest, **more))[1]
    )
    values = np.arange(1000, dtype=np.float32).reshape(10, 100)
    for most in (1, 7, 64, 999, 1000, 5000):
        monkeypatch.setattr(module, "ELEMENTS", most)
        diff(recorder, {"y": values}, {"y": values}, details=1)
        sample = seen[-1]
        assert sample.size <= most and np.array_equal(np.unique(sample), sample)
        assert np.mean(sample) == pytest.approx(499.5, abs=10)
        parts = np.bincount((sample // (1000 / min(8, most))).astype(int), minlength=min(8, most))
        assert parts.max() == parts.min(), "as many from each part"


def test_of_a_dataset_the_worst_input_is_shown(recorder: Make) -> None:
    golden = {"a": GOLDEN, "b": 2 * GOLDEN}
    result = diff_sources(
        dataset(recorder, {"a": GOLDEN, "b": 2.5 * GOLDEN}), dataset(recorder, golden), precision="fp16", details=1
    )
    (tensor,) = result.tensors
    assert tensor.detail is not None and tensor.detail.input_id == "b" == tensor.worst_input
    assert sum(tensor.detail.golden.positive) == int((GOLDEN > 0).sum())


def test_statistics_text_and_bools_have_none(recorder: Make) -> None:
    sides = [recorder().add("y", GOLDEN, "output"), recorder().add("y", GOLDEN, "output")]
    sides[0].stats_only = True
    result = diff_sources(*(side.open() for side in sides), details=5)
    assert result.verdict == "passed" and detailed(result) == []
    assert detailed(diff(recorder, {"y": np.array([True])}, {"y": np.array([False])}, details=5)) == []
    assert detailed(diff(recorder, {"y": np.array(["a"])}, {"y": np.array(["b"])}, details=5)) == []
    assert detailed(diff(recorder, {"y": np.zeros((0, 3))}, {"y": np.zeros((0, 3))}, details=5)) == []
    assert detailed(diff(recorder, {"y": np.array([1, 2])}, {"y": np.array([1, 3])}, details=5)) == ["y"]


def test_pictures_show_the_worst_item_and_take_bounded_space(recorder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    golden = {f"y{i}": rng.uniform(0, 1, (3, 3, 64, 64)).astype(np.float32) for i in range(3)}
    actual = {name: value.copy() for name, value in golden.items()}
    for value in actual.values():
        value[2, 1, 5, 5] += 0.25
    found = [t.detail.images for t in diff(recorder, actual, golden, details=9).tensors if t.detail is not None]
    assert [one.item if one is not None else None for one in found] == [2, 2, 2]
    monkeypatch.setattr(module, "_PICTURES", 1000)
    found = [t.detail.images for t in diff(recorder, actual, golden, details=9).tensors if t.detail is not None]
    assert sum(one is not None for one in found) == 1, "no more once the space is used"


def test_a_detail_comes_back_from_a_file_and_old_files_have_none(recorder: Make) -> None:
    result = network(recorder, details=3)
    text = dumps(result)
    assert dumps(loads(text)) == text
    assert detailed(loads(text)) == detailed(result)
    old = dumps(replace(result, tensors=tuple(replace(t, detail=None) for t in result.tensors)))
    assert detailed(loads(re.sub(r',\s*"detail": null', "", old))) == []


def test_many_tensors_are_written_a_line_each(recorder: Make) -> None:
    result = network(recorder, inside=60, details=24)
    many = replace(result, tensors=tuple(replace(t, name=f"{t.name}.{k}") for k in range(20) for t in result.tensors))
    text = dumps(many)
    assert dumps(loads(text)) == text and len(text) < 3e6
    assert sum(line.startswith('{"name":"') for line in text.splitlines()) == len(many.tensors)
