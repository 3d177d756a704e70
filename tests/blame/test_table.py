"""The table of candidates: errors against float64, times, fronts, flips, what a user reads."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.blame.choosing import TacticOptions, record_tactics
from probe.blame.exact_layer import ExactLayer
from probe.blame.fronts import dominated, network_points
from probe.blame.run_files import read_run
from probe.blame.table import TableOptions, tactics_table
from probe.engine.activations import activations
from probe.engine.build import compile_model
from probe.engine.tuning.fingerprint import fingerprint_of
from probe.engine.tuning.selector import Allow
from probe.engine.tuning.timing import Timings
from probe.errors import InputError
from probe.model.load import load
from probe.precision import round_to
from probe.report.terminal import render
from probe.results.blame import MeasuredTactic, TacticsOfLayer
from probe.results.json import dumps, loads
from probe.store.feeds import InputSet, read_input_sets
from tests.blame.planted import chain, engine_of

CONV = """<ir_version: 8, opset_import: ["" : 17]>
g (float[1,6,12,12] x) => (float[1,8,12,12] y) {
  a = Conv <pads = [1,1,1,1]> (x, w, b)
  s = Sigmoid (a)
  y = Mul (a, s)
}"""


def conv_model(folder: Path, seed: int = 0) -> tuple[Path, InputSet]:
    rng = np.random.default_rng(seed)
    model = onnx.parser.parse_model(CONV)
    arrays = {"w": rng.standard_normal((8, 6, 3, 3)), "b": rng.standard_normal(8)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items())
    path = folder / "conv.onnx"
    onnx.save(model, path)
    return path, InputSet("x", {"x": rng.standard_normal((1, 6, 12, 12)).astype(np.float32)}, "test")


def table_of(path: Path, *sets: InputSet, **changed: Any):
    start = changed.pop("start", None)
    run = TacticOptions(**changed.pop("run", {}))
    return tactics_table(load(path), sets, TableOptions(run, **changed), start=start)


# --- the reference -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_the_reference_is_float64_of_what_is_rounded(tmp_path: Path, precision: str) -> None:
    path, given_ = conv_model(tmp_path)
    engine = compile_model(load(path), precision=precision)
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}
    x, w, b = (
        (a if precision == "fp32" else round_to(a, precision)).astype(np.float64)
        for a in (given_.feeds["x"], weights["w"], weights["b"])
    )
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    conv = sum(
        np.einsum("oc,nchw->nohw", w[:, :, i, j], padded[:, :, i : i + 12, j : j + 12])
        for i in range(3)
        for j in range(3)
    ) + b[:, None, None]  # fmt: skip
    expected = conv / (1 + np.exp(-conv)) if len(engine.layers) == 1 else conv
    (layer, reads), *_ = activations(engine, given_.feeds, engine.layers)
    made = ExactLayer(engine, layer, precision)(reads)
    (found,) = [array for name, array in made.items() if name in {v.name for v in layer.outputs}]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_activations_are_those_of_a_run_in_fp32(tmp_path: Path) -> None:
    made = chain(tmp_path / "c.onnx", 6, {})
    engine = engine_of(made.path)
    seen = dict(activations_by_name(engine, made.sets[0].feeds))
    assert list(seen) == [layer.name for layer in engine.layers]
    tapped: dict[str, Any] = dict(made.sets[0].feeds)
    from probe.engine.assignment import FP32, Assignment

    engine.run(made.sets[0].feeds, Assignment(FP32), lambda one: tapped.update({one.name: one.array}))
    for layer in engine.layers:
        assert seen[layer.name].keys() == {value.name for value in layer.reads}
        assert all(np.array_equal(array, tapped[name]) for name, array in seen[layer.name].items())


def activations_by_name(engine: Any, feeds: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(layer.name, reads) for layer, reads in activations(engine, feeds, engine.layers)]


# --- the table -------------------------------------------------------------------------------------------------------


def test_winograd_beside_exact(tmp_path: Path) -> None:
    path, given_ = conv_model(tmp_path)
    found = table_of(path, given_, run={"fusion": "none"})
    layer = next(one for one in found.layers if one.kind == "conv")
    rows = {one.tactic: one for one in layer.candidates}
    assert {"exact", "acc16", "splitk2", "winograd_f2", "winograd_f4"} <= rows.keys()
    # Storing in FP16 adds about 2^-11 / sqrt(3) of a value; FP16 transforms come on top, those of F(4x4) about six times as much.
    assert rows["exact"].rms == pytest.approx(2**-11 / math.sqrt(3), rel=0.5)
    assert rows["splitk2"].rms == pytest.approx(rows["exact"].rms, rel=0.1)
    assert rows["winograd_f4"].rms > 4 * rows["exact"].rms > rows["winograd_f2"].rms > rows["exact"].rms
    times = [one.median_us for one in layer.candidates]
    assert times == sorted(times) and all(us > 0 for us in times)
    assert rows["exact"].flipped is None and all(rows[name].flipped for name in rows if name != "exact")
    assert rows["winograd_f4"].changed > 0 and rows["winograd_f4"].flipped.passed
    assert loads(dumps(found)) == found and "rms err" in render(found)


def test_what_a_user_reads_where_the_fastest_is_wrong(tmp_path: Path) -> None:
    """With a timing cache of a machine on which Winograd wins, the line says what that costs."""
    path, given_ = conv_model(tmp_path)
    cache = tmp_path / "times.json"
    table_of(path, given_, run={"timing_cache": cache, "fusion": "none"}, flip=False)
    timings = Timings.load(cache, fingerprint_of(compile_model(load(path), fusion="none")))
    text = timings.text()
    for name, us in (("exact", 400.0), ("winograd_f4", 100.0)):
        text = re.sub(rf'("tactic": "{name}", "median_us": )[\d.]+', rf"\g<1>{us}", text)
    cache.write_text(re.sub(r'("tactic": "(?:splitk\d|acc16|winograd_f2)", "median_us": )[\d.]+', r"\g<1>900.0", text))
    found = table_of(path, given_, run={"timing_cache": cache, "fusion": "none"}, layers=re.compile("Conv"))
    (layer,) = found.layers
    assert [one.tactic for one in layer.candidates][:2] == ["winograd_f4", "exact"]
    assert {one.tactic for one in layer.candidates if one.front} == {"winograd_f4", "exact"}
    assert layer.cost_of_fastest == pytest.approx(
        next(c.rms for c in layer.candidates if c.tactic == "winograd_f4") / min(c.rms for c in layer.candidates)
    )
    text = " ".join(render(found).split())
    assert re.search(
        r"the fastest choice here, winograd_f4, is [\d.]+x less accurate than exact, and 4.0x as fast", text
    )
    assert [one.words for one in found.front] == ["most accurate", "fastest"]
    assert (
        found.front[1].tactics == {layer.layer: "winograd_f4"} and found.front[1].run.metric > found.front[0].run.metric
    )


def test_a_flip_that_breaks_the_network(tmp_path: Path) -> None:
    made = chain(tmp_path / "c.onnx", 8, {2: 0.2, 5: 0.02})
    found = table_of(made.path, *made.sets, measure=False, tactics=re.compile("acc16|splitk4"))
    assert found and found.base.passed
    broken = {
        (layer.layer, one.tactic) for layer in found.layers for one in layer.candidates if one.flipped and not one.flipped.passed
    }  # fmt: skip
    assert broken == {("product 2", "acc16")}
    moved = {layer.layer: c.changed for layer in found.layers for c in layer.candidates if c.tactic == "acc16"}
    assert moved["product 2"] == pytest.approx(0.2, abs=0.01) and moved["product 5"] == pytest.approx(0.02, abs=0.01)
    assert {c.tactic for layer in found.layers for c in layer.candidates} == {"exact", "acc16", "splitk4"}
    assert "1 of 16 single flips break it, first acc16 on product 2" in " ".join(render(found).split())


def test_from_a_bad_file_flips_cure(tmp_path: Path) -> None:
    made = chain(tmp_path / "c.onnx", 8, {2: 0.2})
    record_tactics(load(made.path), made.sets, tmp_path / "bad", selectors=[Allow("acc16")], measure=False)
    found = table_of(
        made.path, *made.sets, measure=False, start=read_run(tmp_path / "bad"), layers=re.compile("product [123]")
    )
    assert not found and {one.tactic for one in found.layers} == {"acc16"}
    cures = {layer.layer for layer in found.layers for one in layer.candidates if one.flipped and one.flipped.passed}
    assert cures == {"product 2"} and "cure it" in render(found)


def test_a_layer_without_a_reference_says_why(tmp_path: Path) -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
    g (float[4,3] x, bool c) => (float[4,3] y) {
      y = If (c) <then_branch = t () => (float[4,3] a) { a = Sin (x) }, else_branch = e () => (float[4,3] b) { h = Cos (x)  b = Sin (h) }>
    }""")
    onnx.save(model, tmp_path / "if.onnx")
    given_ = InputSet("x", {"x": np.ones((4, 3), np.float32), "c": np.array(True)}, "test")
    found = table_of(tmp_path / "if.onnx", given_, measure=False, run={"fusion": "none"})
    notes = {one.outputs[0]: one.note for one in found.layers}
    assert notes == {"a": "", "h": "", "b": "what it reads was not made, or is a sequence"}
    assert "was not made" in render(found)


def test_names_that_match_nothing(tmp_path: Path) -> None:
    made = chain(tmp_path / "c.onnx", 2, {})
    with pytest.raises(InputError, match="no layer with a choice matches 'conv'"):
        table_of(made.path, *made.sets, layers=re.compile("conv"))
    with pytest.raises(InputError, match="no candidate is called 'magic'"):
        table_of(made.path, *made.sets, tactics=re.compile("magic"))


def test_what_is_kept_is_rounded_on_neither_side(tmp_path: Path) -> None:
    """All tensors kept: what is left is the order of FP32 sums."""
    path, given_ = conv_model(tmp_path)
    found = table_of(path, given_, run={"fusion": "none", "keep": (re.compile(""),)}, measure=False, flip=False)
    conv = next(one for one in found.layers if one.kind == "conv")
    assert {one.precision for one in found.layers} == {"fp32"}
    assert all(one.rms is not None and one.rms < 1e-6 for one in conv.candidates)
    some = table_of(
        path, given_, run={"fusion": "none", "keep": (re.compile("^[xwba]$"),)}, measure=False, flip=False, layers=re.compile("Conv")
    )  # fmt: skip
    exact = some.layers[0].candidates[0]
    assert some.layers[0].precision == "fp16" and exact.rms is not None and exact.rms < 1e-6


def test_no_time_for_flips_is_said(tmp_path: Path) -> None:
    made = chain(tmp_path / "c.onnx", 2, {})
    found = table_of(made.path, *made.sets, measure=False, max_seconds=0.0)
    assert all("not flipped" in c.note for one in found.layers for c in one.candidates if c.tactic != "exact")


def test_winograd_on_a_real_network(models: Path) -> None:
    """Real activations: F(4x4) is worse than exact on every convolution it applies to."""
    sets = read_input_sets(min((models / "data").glob("ultraface_slim_320__*.npz")))[:1]
    found = table_of(
        models / "models" / "ultraface_slim_320.onnx", *sets, measure=False, flip=False, tactics=re.compile("winograd_f4")
    )  # fmt: skip
    pairs = [
        (one.candidates[0], one.candidates[1]) for one in found.layers if len(one.candidates) == 2
    ]  # fmt: skip
    assert pairs and all(exact.tactic == "exact" and fast.rms >= exact.rms for exact, fast in pairs)
    assert not [one.note for one in found.layers if one.note]


def layer_of(*errors: tuple[str, float, float]) -> TacticsOfLayer:
    rows = [MeasuredTactic(name, "", True, us, rms, rms, front=False) for name, us, rms in errors]
    rows = [replace(one, front=not dominated(one, rows)) for one in sorted(rows, key=lambda one: one.median_us or 0)]
    return TacticsOfLayer("layer", ("y",), "conv", "fp16", "", "exact", tuple(rows))


def test_a_tie_of_two_roundings_is_no_front() -> None:
    """What is slower by far and more accurate in the fifth digit is no choice that anybody has."""
    layer = layer_of(("exact", 100.0, 2.0001e-4), ("splitk2", 900.0, 2.0e-4), ("winograd_f4", 50.0, 12e-4))
    assert [one.tactic for one in layer.candidates if one.front] == ["winograd_f4", "exact"]
    assert [point.tactics for point in network_points([layer], 4)] == [{"layer": "exact"}, {"layer": "winograd_f4"}]


@pytest.mark.parametrize(
    ("fast", "best", "cost"),
    [(4e-4, 2e-4, 2.0), (0.0, 0.0, 1.0), (1e-3, 0.0, math.inf), (math.inf, 1e-3, math.inf), (math.inf, math.inf, 1.0)],
)
def test_what_the_fastest_costs(fast: float, best: float, cost: float) -> None:
    assert layer_of(("exact", 100.0, best), ("acc16", 50.0, fast)).cost_of_fastest == pytest.approx(cost)


def test_the_fastest_is_compared_with_the_fastest_that_is_as_accurate_as_any(tmp_path: Path) -> None:
    layer = layer_of(("exact", 150.0, 2.0e-4), ("sum_pairwise", 90.0, 2.01e-4), ("sum_acc16", 85.0, 28e-4))
    assert layer.fastest and layer.fastest.tactic == "sum_acc16"
    assert layer.most_accurate and layer.most_accurate.tactic == "sum_pairwise"
    made = chain(tmp_path / "c.onnx", 2, {})
    page = render(replace(table_of(made.path, *made.sets, measure=False, flip=False), layers=(layer,)))
    said = "the fastest choice here, sum_acc16, is 14x less accurate than sum_pairwise, and 1.1x as fast"
    assert said in " ".join(page.split())
    assert layer_of().fastest is None and layer_of().most_accurate is None and layer_of().cost_of_fastest is None


def test_layers_are_told_apart_on_the_page(tmp_path: Path) -> None:
    """Names that begin and end alike, and times of seconds, stand there whole."""
    made = chain(tmp_path / "c.onnx", 2, {})
    found = table_of(made.path, *made.sets, measure=False, flip=False)
    names = [f"Conv(/model/backbone/stage{at}/block/conv3x3/Conv) + Relu(/model/backbone/relu)" for at in range(2)]
    layers = tuple(
        replace(one, layer=name, candidates=tuple(replace(c, median_us=722000.0) for c in one.candidates))
        for one, name in zip(found.layers, names, strict=True)
    )
    page = render(replace(found, layers=layers))
    assert all(name in " ".join(page.split()) for name in names)
    assert "7.22e+05" in page and max(map(len, page.splitlines())) <= 80


# --- fronts ----------------------------------------------------------------------------------------------------------

VALUES = st.one_of(st.none(), st.integers(1, 6).map(float))


@given(st.lists(st.tuples(VALUES, st.one_of(VALUES, st.just(math.inf))), min_size=1, max_size=6))
def test_a_front_holds_what_nothing_beats(values: list[tuple[float | None, float | None]]) -> None:
    rows = [MeasuredTactic(f"t{at}", "", True, us, 0.0, rms, front=False) for at, (us, rms) in enumerate(values)]
    front = [one for one in rows if not dominated(one, rows)]
    known = [one for one in rows if one.median_us is not None and one.rms is not None]
    assert bool(front) == bool(known)
    for one in known:
        better = [
            o
            for o in known
            if o.median_us <= one.median_us and o.rms <= one.rms and (o.median_us, o.rms) != (one.median_us, one.rms)
        ]
        assert (one in front) != bool(better)


@given(
    st.lists(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=4), min_size=1, max_size=5)
)
def test_points_go_from_the_most_accurate_to_the_fastest(layers: list[list[tuple[int, int]]]) -> None:
    tables = []
    for at, values in enumerate(layers):
        rows = [
            MeasuredTactic(f"t{i}", "", True, float(us), 0.0, float(rms), front=False)
            for i, (us, rms) in enumerate(values)
        ]
        rows = [MeasuredTactic(r.tactic, "", True, r.median_us, 0.0, r.rms, front=not dominated(r, rows)) for r in rows]
        tables.append(TacticsOfLayer(f"layer {at}", (), "conv", "fp16", "", "exact", tuple(rows)))
    points = network_points(tables, 5)
    assert 1 <= len(points) <= 5
    totals = [one.layers_us for one in points]
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] == sum(min(us for us, _ in values) for values in layers)
    first = {one.layer: min(c.rms for c in one.candidates) for one in tables}
    rms = {(one.layer, c.tactic): c.rms for one in tables for c in one.candidates}
    assert all(rms[name, tactic] == first[name] for name, tactic in points[0].tactics.items())
