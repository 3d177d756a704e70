"""Times: measured on what arrives at a layer, once a problem, kept in a file that may be damaged, edited or of another machine."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from probe.engine.build import compile_model
from probe.engine.engine import Engine
from probe.engine.tuning.choose import choose
from probe.engine.tuning.fingerprint import fingerprint_of
from probe.engine.tuning.timing import RUNS, Timing, Timings
from probe.engine.tuning.turns import turn_order
from probe.errors import InputError
from probe.model import load

Feeds = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def measured(engine: Engine, feeds: Feeds) -> Timings:
    timings = Timings(fingerprint_of(engine))
    choose(engine, feeds, timings=timings)
    return timings


def test_candidates_have_their_times_and_the_fastest_is_taken(engine: Engine, feeds: Feeds, measured: Timings) -> None:
    choices = choose(engine, feeds, timings=measured)
    for one in choices:
        times = [c.median_us for c in one.candidates]
        if len(times) == 1:
            assert times == [None], "where there is nothing to choose nothing is measured"
            continue
        assert all(t is not None and t > 0 for t in times) and times == sorted(t for t in times if t is not None)
        assert one.candidate == one.candidates[0]


def test_a_problem_is_measured_once_however_many_layers_have_it(measured: Timings, engine: Engine) -> None:
    problems = {
        json.loads(line.rstrip(","))["problem"] for line in measured.text().splitlines() if line.startswith('{"p')
    }
    assert len(problems) == 6  # of fc1 .. fc5, of which fc3 and fc4 are the same, norm and softmax
    assert measured.measured == len(measured) == 4 * 5 + 2 * 4


def test_what_arrives_at_a_layer_is_what_the_network_makes(
    engine: Engine, feeds: Feeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Feeds] = {}
    evaluate = engine.evaluate
    monkeypatch.setattr(
        engine,
        "evaluate",
        lambda layer, reads, choice: (seen.setdefault(layer.name, dict(reads)), evaluate(layer, reads, choice))[1],
    )
    choose(engine, feeds, timings=Timings(fingerprint_of(engine)))
    made: Feeds = dict(feeds)
    from probe.engine.assignment import FP32, Assignment

    engine.run(feeds, Assignment(FP32), lambda tapped: made.__setitem__(tapped.name, tapped.array))  # type: ignore[arg-type]
    assert {"norm", "softmax", "fc2/MatMul + fc2/Add"} <= seen.keys()
    for reads in seen.values():
        for name, array in reads.items():
            np.testing.assert_array_equal(array, made[name])


def test_the_slower_one_is_not_taken(engine: Engine, feeds: Feeds, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = engine.evaluate
    runs: dict[str, int] = {}

    def slowed(layer: Any, reads: Any, choice: Any) -> Any:
        key = f"{layer.name} {choice.tactic}"
        runs[key] = runs.get(key, 0) + 1
        if choice.tactic != "splitk4":
            time.sleep(0.004)
        return evaluate(layer, reads, choice)

    monkeypatch.setattr(engine, "evaluate", slowed)
    choices = choose(engine, feeds, timings=Timings(fingerprint_of(engine)))
    assert choices["fc2/MatMul + fc2/Add"].candidate.tactic == "splitk4"
    assert runs["fc2/MatMul + fc2/Add splitk4"] == RUNS + 1, "and the first, which sets things up"
    assert runs["fc2/MatMul + fc2/Add acc16"] < RUNS, "one far behind is not measured again and again"


def test_a_cache_is_reused(
    engine: Engine, feeds: Feeds, measured: Timings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "times.json"
    path.write_text(measured.text())
    loaded = Timings.load(path, fingerprint_of(engine))
    assert loaded.text() == measured.text() and not loaded.notes
    monkeypatch.setattr(engine, "evaluate", lambda *_: pytest.fail("measured again"))
    choices = choose(engine, feeds, timings=loaded)
    assert (loaded.measured, loaded.reused) == (0, len(measured))
    assert choices.tactics == choose(engine, feeds, timings=measured).tactics


COMPUTED = """<ir_version: 8, opset_import: ["" : 18]>
g (float[8,16] x, float[16,4] w) => (float[8,4] y) <float[16,4] v = {%s}> { a = MatMul (x, w)  b = MatMul (x, v)  c = Add (a, b)  y = Relu (c) }"""


def test_times_of_other_circumstances_are_not_taken(tmp_path: Path) -> None:
    """Interiors in FP32 launch other kernels, weights are laid out once, and threads are threads."""
    onnx.save(onnx.parser.parse_model(COMPUTED % ", ".join(["0.5"] * 64)), tmp_path / "m.onnx")
    feeds = {"x": np.ones((8, 16), np.float32), "w": np.ones((16, 4), np.float32)}

    def timed(**given: Any) -> tuple[Timings, set[str]]:
        engine = compile_model(load(tmp_path / "m.onnx"), fusion=given.pop("fusion", "none"), **given)
        timings = Timings.load(tmp_path / "times.json", fingerprint_of(engine))
        known = {problem for problem, _ in timings._known}
        choose(engine, feeds, timings=timings)
        (tmp_path / "times.json").write_text(timings.text())
        return timings, {problem for problem, _ in timings._known} - known

    first, problems = timed()
    product = "MatMul(fp16[8,16], fp16[16,4]) -> fp16[8,4]"
    assert problems == {product, f"{product} [operands computed]"} and first.reused == 0
    assert timed()[0].measured == 0
    assert timed(threads=1)[1] == {f"{product} [threads 1]", f"{product} [operands computed, threads 1]"}
    _, fused = timed(fusion="safe")
    _, wide = timed(fusion="safe", interior="fp32")
    assert fused and wide and all("interior fp32" in one for one in wide)


def test_an_edited_time_decides(engine: Engine, feeds: Feeds, measured: Timings, tmp_path: Path) -> None:
    """What TensorRT's users do with its editable cache."""
    tree = json.loads(measured.text())
    for one in tree["times"]:
        one["median_us"] = 1.0 if one["tactic"] == "splitk8" else 2.0
    path = tmp_path / "times.json"
    path.write_text(json.dumps(tree))
    choices = choose(engine, feeds, timings=Timings.load(path, fingerprint_of(engine)))
    assert choices["fc2/MatMul + fc2/Add"].candidate.tactic == "splitk8"


@pytest.mark.parametrize("field", ["device", "processor", "driver", "sources"])
def test_times_of_elsewhere_are_not_taken(engine: Engine, measured: Timings, tmp_path: Path, field: str) -> None:
    path = tmp_path / "times.json"
    path.write_text(measured.text())
    elsewhere = replace(fingerprint_of(engine), **{field: "another"})
    loaded = Timings.load(path, elsewhere)
    assert not len(loaded)
    (note,) = loaded.notes
    assert f"{len(measured)} times in {path} are of another " in note


def test_another_model_shares_times(engine: Engine, measured: Timings, tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    path.write_text(measured.text())
    assert len(Timings.load(path, replace(fingerprint_of(engine), model_sha256="0" * 64))) == len(measured)


def test_lines_are_in_a_stable_order(engine: Engine) -> None:
    rows = {("b", "x"): Timing(2.0, 3), ("a", "y"): Timing(1.0, 3), ("a", "x"): Timing(4.0, 3)}
    here = fingerprint_of(engine)
    turned = dict(reversed(list(rows.items())))
    assert Timings(here, rows).text() == Timings(here, turned).text()
    lines = [line for line in Timings(here, rows).text().splitlines() if line.startswith('{"p')]
    assert [(json.loads(x.rstrip(","))["problem"], json.loads(x.rstrip(","))["tactic"]) for x in lines] == sorted(rows)


def test_a_cache_that_is_not_there_is_empty(engine: Engine, tmp_path: Path) -> None:
    assert not len(Timings.load(tmp_path / "none.json", fingerprint_of(engine)))


def test_a_cache_is_a_file(engine: Engine) -> None:
    """Reading /dev/full would take all memory there is."""
    with pytest.raises(InputError, match="it is no file"):
        Timings.load("/dev/null", fingerprint_of(engine))


BAD = ["", "{}", "[]", "null", '{"schema": "probe.run/1"}', '{"schema": "probe.timings/1", "times": 3}', "[" * 10000,
       '{"schema": "probe.timings/1", "times": [{"problem": "p", "tactic": "t", "median_us": NaN, "runs": 1}]}',
       '{"schema": "probe.timings/1", "times": [{"problem": "p", "tactic": "t", "median_us": -1, "runs": 1}]}',
       '{"schema": "probe.timings/1", "times": [{"problem": "p", "tactic": "t", "median_us": "1", "runs": 1}]}',
       '{"schema": "probe.timings/1", "times": [{"problem": [], "tactic": "t", "median_us": 1, "runs": 1}]}',
       '{"schema": "probe.timings/1", "times": [{"problem": "p", "tactic": "t", "median_us": 1%s, "runs": 1}]}' % ("0" * 400)]  # fmt: skip


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_what_is_no_cache(engine: Engine, tmp_path: Path, text: str) -> None:
    path = tmp_path / "times.json"
    path.write_text(text)
    with pytest.raises(InputError):
        Timings.load(path, fingerprint_of(engine))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_an_error_or_gives_times_that_are_some(
    engine: Engine, measured: Timings, tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(measured.text().encode())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] = data.draw(st.integers(0, 255))
    else:
        del content[at : at + data.draw(st.integers(1, 400))]
    path = tmp_path / "times.json"
    path.write_bytes(content)
    try:
        loaded = Timings.load(path, fingerprint_of(engine))
    except InputError:
        return
    path.write_text(loaded.text())
    assert Timings.load(path, fingerprint_of(engine)).text() == loaded.text(), (
        "what was read is not what would be written"
    )


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6])
def test_turns_differ_in_their_order(count: int) -> None:
    """Whatever runs before a candidate is not always the same one: what that leaves behind would be timed with it."""
    names = [f"t{at}" for at in range(count)]
    turns = [turn_order(names, turn) for turn in range(RUNS - 1)]
    assert all(sorted(one) == names for one in turns)
    ran = [name for one in turns for name in one]
    before = {name: {first for first, second in pairwise(ran) if second == name and first != name} for name in names}
    assert all(len(others) >= min(2, count - 1) for others in before.values())
    assert len({one[0] for one in turns}) >= min(count, 4)
