"""Guilty tactics that were planted: found, and nothing else accused; confirmed by flipping; pinned and denied in files that replay."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from probe.blame.bisect import BisectOptions, Blamed, bisect_tactics, blame
from probe.blame.choosing import TacticOptions, record_tactics
from probe.blame.replaying import replay_tactics
from probe.blame.run_files import read_run
from probe.blame.switching import measure_changes
from probe.engine.tuning.rules import read_rules
from probe.engine.tuning.selector import Allow, Deny, PreferAccurate, Random
from probe.engine.tuning.tactic_file import read_tactic_file, text_of, with_tactics
from probe.errors import InputError
from probe.model.load import load
from probe.report.terminal import render
from probe.store.feeds import read_input_sets
from tests.blame.planted import Chain, chain, engine_of, faulty, oracle_of, switched
from tests.thorough import longest

ALONE, HALF = 0.2, 0.035  # of the output's range, at a limit of 0.05: fails alone; fails with another


def bisected(made: Chain, *, seed: int = 0, measured: bool = True, **changed: Any) -> Blamed:
    """A bad build with acc16 where it is planted and on half of the other layers, splitk2 on the rest, against all exact."""
    engine = engine_of(made.path)
    rng = random.Random(seed)
    bad = {name: "acc16" if name in made.planted or rng.random() < 0.5 else "splitk2" for name in made.layers}
    found = switched(engine, bad)
    if measured:
        found = measure_changes(engine, found, made.sets)
    return blame(oracle_of(engine, made.sets, found), found, **changed)


def names(blamed: Blamed) -> list[tuple[str, ...]]:
    """The groups of the guilty, in execution order."""
    return [tuple(one.layer for one in guilty.group) for guilty in blamed.guilty]


@pytest.mark.parametrize(
    ("length", "planted", "groups"),
    [
        (40, {17: ALONE}, [(17,)]),
        (200, {70: ALONE}, [(70,)]),
        pytest.param(200, {5: ALONE, 90: ALONE, 170: ALONE}, [(5,), (90,), (170,)], marks=pytest.mark.slow),
        pytest.param(200, {40: HALF, 150: HALF}, [(40, 150)], marks=pytest.mark.slow),
        (40, {3: ALONE, 20: HALF, 30: HALF}, [(3,), (20, 30)]),
    ],
    ids=["one", "one of 200", "three of 200", "a pair of 200", "one and a pair"],
)
def test_planted_choices_are_found_and_confirmed(
    tmp_path: Path, length: int, planted: dict[int, float], groups: list[tuple[int, ...]]
) -> None:
    blamed = bisected(chain(tmp_path / "c.onnx", length, planted))
    assert blamed.search.status == "found" and blamed.confirmed
    assert names(blamed) == [tuple(f"product {at}" for at in group) for group in groups]
    assert blamed.good_run and blamed.good_run.passed and blamed.bad_run and not blamed.bad_run.passed
    assert blamed.good_with_guilty and not blamed.good_with_guilty.passed
    assert blamed.bad_without_guilty and blamed.bad_without_guilty.passed
    assert all(one.flipped is not None and not one.flipped.passed and one.certificate >= 0 for one in blamed.guilty)
    if length == 200:
        assert sum(blamed.evaluations.values()) <= 40  # a sweep takes 202


def test_a_pair_names_what_could_be_pinned_instead(tmp_path: Path) -> None:
    (guilty,) = bisected(chain(tmp_path / "c.onnx", 40, {8: HALF, 31: HALF})).guilty
    assert not guilty.alone
    assert {guilty.choice.layer, *guilty.alternatives} == {"product 8", "product 31"}


def test_without_measured_changes_it_finds_the_same(tmp_path: Path) -> None:
    """The ranking only saves evaluations: by what tactics promise, too, the planted ones come out."""
    blamed = bisected(chain(tmp_path / "c.onnx", 40, {11: ALONE, 25: HALF, 33: HALF}), measured=False)
    assert names(blamed) == [("product 11",), ("product 25", "product 33")] and blamed.confirmed


@pytest.mark.parametrize("seed", range(12))
def test_nobody_else_is_accused(tmp_path: Path, seed: int) -> None:
    """tests/bench/tactics_bisect.py runs a hundred of these."""
    rng = random.Random(seed)
    count = seed % 4
    places = rng.sample(range(24), 4)
    planted = dict.fromkeys(places[:count], ALONE) | (dict.fromkeys(places[2:], HALF) if seed % 2 else {})
    blamed = bisected(chain(tmp_path / "c.onnx", 24, planted, seed), seed=seed)
    accused = {name for group in names(blamed) for name in group} | {one.choice.layer for one in blamed.guilty}
    assert accused == {f"product {at}" for at in planted}
    assert blamed.confirmed == bool(planted) and (planted or blamed.search.status == "nothing_needed")


def test_many_small_errors_are_not_laid_on_one(tmp_path: Path) -> None:
    """Eight choices that fail only together: the answer is certified, and says that errors add up."""
    planted = dict.fromkeys(range(2, 18, 2), 0.009)
    blamed = bisected(chain(tmp_path / "c.onnx", 20, planted))
    assert blamed.search.status == "found" and blamed.confirmed
    assert {one.choice.layer for one in blamed.guilty} <= {f"product {at}" for at in planted}
    assert all(one.group == () and one.flipped is None for one in blamed.guilty)


def test_a_good_build_that_fails_is_said(tmp_path: Path) -> None:
    made = chain(tmp_path / "c.onnx", 12, {3: ALONE, 7: ALONE})
    engine = engine_of(made.path)
    found = switched(engine, {name: "acc16" for name in made.layers if name != "product 7"})
    oracle = oracle_of(engine, made.sets, found)
    oracle.base = oracle.base.with_tactics({"product 7": "acc16"})
    blamed = blame(oracle, found)
    assert blamed.search.status == "unreachable" and not blamed.guilty and not blamed.confirmed


def test_a_budget_ends_the_search(tmp_path: Path) -> None:
    blamed = bisected(chain(tmp_path / "c.onnx", 40, {8: HALF, 31: HALF}), max_evaluations=4)
    assert blamed.search.status == "budget" and not blamed.confirmed and not blamed.guilty


@pytest.mark.parametrize(
    ("name", "places", "sizes", "groups"),
    [
        ("ultraface_slim_320", (4,), (1.0,), [(4,)]),
        pytest.param("fns_candy", (3,), (1.0,), [(3,)], marks=longest),
        pytest.param("squeezenet_fp16", (2, 9, 20), (1.0, 1.0, 1.0), [(2,), (9,), (20,)], marks=pytest.mark.slow),
        ("mnist", (0, 2), (0.02, 0.02), [(0, 2)]),
    ],
)
def test_faults_in_kernels_of_real_networks(
    models: Path, name: str, places: tuple[int, ...], sizes: tuple[float, ...], groups: list[tuple[int, ...]]
) -> None:
    """A kernel that is off, on some layers of a real network with real inputs. The limit is put between what the faults do by themselves
    and what they do together, or below each, as the case wants it."""
    engine = engine_of(models / "models" / f"{name}.onnx")
    sets = read_input_sets(min((models / "data").glob(f"{name}__*.npz")))[:1]
    layers = [layer.name for layer in engine.layers if "splitk2" in engine.candidates(layer)]
    faulty(engine, {(layers[at], "splitk2"): size for at, size in zip(places, sizes, strict=True)})
    found = measure_changes(engine, switched(engine, dict.fromkeys(layers, "splitk2")), sets)
    oracle = oracle_of(engine, sets, found)
    effects = [
        _worst(oracle, {one.layer for one in found} - {layers[at] for at in group}) for group in ([p] for p in places)
    ]
    together = _worst(oracle, {one.layer for one in found} - {layers[at] for at in places})
    floor = _worst(oracle, {one.layer for one in found})
    limit = (max(effects) + together) / 2 if len(groups) < len(places) else (floor + min(effects)) / 2
    assert floor < limit < together, "the faults do not act as the case wants it"
    strict = oracle_of(engine, sets, found, acceptance=_within(limit))
    blamed = blame(strict, found)
    assert names(blamed) == [tuple(layers[at] for at in group) for group in groups] and blamed.confirmed


def _worst(oracle: Any, good: set[str]) -> float:
    worst = oracle.of(frozenset(good)).worst
    assert worst is not None
    return worst


def _within(limit: float) -> tuple[Any, ...]:
    from probe.metrics.acceptance import parse_criterion

    return (parse_criterion(f"range_rel<={limit!r}"),)


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Chain, Path, Path]:
    """A good and a bad run, recorded."""
    made = chain(tmp_path / "c.onnx", 16, {4: ALONE, 9: HALF, 13: HALF})
    model = load(made.path)
    for name, selectors in (("good", [Deny("acc16"), PreferAccurate()]), ("bad", [Allow("acc16")])):
        record_tactics(model, made.sets, tmp_path / name, TacticOptions(), selectors=selectors, measure=False)
    return made, tmp_path / "good", tmp_path / "bad"


def bisect_files(made: Chain, good: Path, bad: Path, **changed: Any):
    options = BisectOptions(TacticOptions(), **changed)
    return bisect_tactics(read_run(good), read_run(bad), load(made.path), made.sets, options)


def test_files_are_bisected_pinned_and_denied(tmp_path: Path, recorded: tuple[Chain, Path, Path]) -> None:
    made, good, bad = recorded
    pinned, denied = tmp_path / "pinned", tmp_path / "denied"
    found = bisect_files(made, good, bad, pinned=pinned, denied=denied)
    assert found and found.status == "found" and (len(found.differences), found.sweep) == (16, 18)
    assert [tuple(one.layer for one in guilty.group) for guilty in found.guilty] == [
        ("product 4",), ("product 9", "product 13"),
    ]  # fmt: skip
    assert found.differences[0].layer == "product 4"  # the most suspect first
    pins = {one.choice.outputs for one in found.guilty}
    before, after = read_tactic_file(bad)[0], read_tactic_file(pinned)
    assert after[1] and {line.outputs for line in after[0].layers if line.tactic != "acc16"} == pins
    assert len(before.layers) == len(after[0].layers)
    again = replay_tactics(load(made.path), made.sets, pinned, TacticOptions())
    assert again and again.strict and again.identical
    rules = read_rules([f"@{denied}"], "--deny")
    assert len(rules) == len(pins)
    third = record_tactics(
        load(made.path),
        made.sets,
        tmp_path / "third",
        TacticOptions(),
        selectors=[Deny(*rules), Random(3)],
        measure=False,
    )
    assert third.run.verdict in ("passed", "warned")


def test_nothing_is_written_where_nothing_is_confirmed(tmp_path: Path, recorded: tuple[Chain, Path, Path]) -> None:
    made, good, bad = recorded
    found = bisect_files(made, bad, good, pinned=tmp_path / "pinned", denied=tmp_path / "denied")
    assert not found and found.status == "nothing_needed" and "passes here" in found.reason
    assert not (tmp_path / "pinned").exists() and not (tmp_path / "denied").exists() and found.pinned == ""
    assert "\nwritten " not in render(found)


def test_files_that_do_not_fit_are_refused(tmp_path: Path, recorded: tuple[Chain, Path, Path]) -> None:
    made, good, bad = recorded
    with pytest.raises(InputError, match="choose the same"):
        bisect_files(made, good, good)
    other = chain(tmp_path / "other.onnx", 16, {2: ALONE}, seed=5)
    with pytest.raises(InputError, match="recorded of another model"):
        bisect_files(replace(made, path=other.path), good, bad)
    file, _ = read_tactic_file(bad)
    lacking = tmp_path / "lacking"
    lacking.write_text(text_of(replace(file, layers=file.layers[1:])))
    with pytest.raises(InputError, match="says nothing of the layer that makes t1"):
        bisect_files(made, good, lacking)
    unknown = tmp_path / "unknown"
    unknown.write_text(text_of(with_tactics(file, {(("t1",), ""): "magic"})))
    with pytest.raises(InputError, match="no tactic is called 'magic'"):
        bisect_files(made, good, unknown)
    with pytest.raises(InputError, match="exists"):
        bisect_files(made, good, bad, pinned=bad)
    assert read_tactic_file(bad)[0] == file
