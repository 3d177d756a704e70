"""Pages of a measurement on every medium: known words, hostile names, 80 columns, closed HTML, pictures at their edges; trtexec's files."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.report import trtexec_files as layouts
from probe.report.bench_facts import (
    caveats,
    duration,
    memory_in_words,
    next_steps,
    percent,
    rate,
    sum_against_whole,
    three_digits,
)
from probe.report.html.bench_plots import _ticks, latency_plot, memory_plot, roofline_plot, time_plot
from probe.report.html.page import html_page
from probe.report.markdown import markdown
from probe.report.terminal import render
from probe.report.text import Page
from probe.results.bench import BenchResult, LayerTime
from probe.results.example_bench import example_layer_time
from probe.results.publish import examples
from tests.report.test_html import HOSTILE, Tree
from tests.report.test_markdown import outside_code
from tests.report.test_pages import _renamed, assert_readable


@pytest.fixture
def result() -> BenchResult:
    made = examples()["bench"]
    assert isinstance(made, BenchResult)
    return made


def many(result: BenchResult, count: int) -> BenchResult:
    layers = tuple(
        example_layer_time(f"/blocks.{at}/MatMul + /blocks.{at}/Add", "matmul", 1e-5 * (1 + at % 7), flops=10**6 * (1 + at), moved=10**5,
                           live_bytes=1000 * (at + 1), share=1 / count)
        for at in range(count)
    )  # fmt: skip
    return replace(result, layers=layers)


NUMBERS = {
    duration: {None: "-", 0.0: "0 us", 3.21e-9: "0.00321 us", 9.996e-7: "1.00 us", 1.5e-5: "15.0 us", 0.9996e-3: "1.00 ms", 0.00748: "7.48 ms",
               0.99951: "1.00 s", 12.345: "12.3 s", 4321.0: "4320 s"},
    percent: {None: "-", 0.0: "0.0 %", 0.042: "4.2 %", 0.0996: "10 %", 0.53: "53 %", 2.71: "271 %"},
    rate: {None: "-", 0.0: "0.000", 2.66e5: "0.000", 4.3e6: "0.004", 1.5e8: "0.150", 5.61e10: "56.1", 1.2e13: "12000"},
    three_digits: {0.0: "0", 134.2: "134", 33.87: "33.9", 7.475: "7.47", 1234.0: "1230", 0.0312: "0.0312", math.inf: "inf"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("how", "value", "words"), [(how, value, words) for how, table in NUMBERS.items() for value, words in table.items()]
)
def test_numbers(how: Any, value: float | None, words: str) -> None:
    assert how(value) == words


def test_the_terminal_page(result: BenchResult) -> None:
    text = render(result)
    assert text.startswith("UNSTABLE  fp32: median 7.48 ms, p99 7.64 ms; 134 inferences a second\n")
    for words in ("machine was busy", "n/a: the host computes itself", "conv1 + relu1", "4.12 ms", "37 % compute", "--duration 10",
                  "4 % more than the 7.44 ms of the whole network", "which is the least possible", "one session for the whole network"):  # fmt: skip
        assert words in " ".join(text.split()), words
    assert "If_1/else_branch/Mul_2" not in text and "not run" in render(result, verbose=True)
    assert render(result, quiet=True).splitlines() == text.splitlines()[:1]


@pytest.mark.parametrize("width", [72, 80, 132])
def test_it_fits(width: int, result: BenchResult) -> None:
    for one in (result, replace(result, precision="bf16", emulated=True), many(result, 300)):
        assert_readable(render(one, Page(width)), width)


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_names(hostile: str, result: BenchResult) -> None:
    for old in ("conv1 + relu1", "model.onnx", "image", "If_1/else_branch"):
        changed = _renamed(result, old, hostile)
        assert_readable(render(changed))
        tree = Tree(html_page(changed))
        assert [tag for tag, _ in tree.tags].count("script") == 1
        assert not [a for _, attributes in tree.tags for a in attributes if a.startswith("on")]
        page = outside_code(markdown(changed))
        assert "<script" not in page and "<img" not in page
        json.loads(layouts.layers_text(changed))


def test_emulation_is_said_loudly_and_first(result: BenchResult) -> None:
    low = replace(
        result, precision="fp16", emulated=True, command="probe bench m.onnx --precision=fp16 --json x.json -v"
    )
    assert "EMULATED" in caveats(low)[0] and "say nothing of how fast a GPU" in caveats(low)[0]
    for page in (render(low), html_page(low), markdown(low)):
        head = " ".join(re.sub("<[^>]*>", "", page.split("<main", 1)[-1]).split())[:900]
        assert head.index("EMULATED, see below") < head.index("FP16 is EMULATED")
    assert next_steps(low)[0].words == ("probe", "bench", "m.onnx", "-v", "--precision", "fp32")
    assert "emulated" not in render(result).lower()


STEPS = {
    "stable": ({"status": "stable"}, []),
    "unstable": ({}, ["probe bench model.onnx --inputs cat.npz --duration 10"]),
    "measured for long": ({"measured_seconds": 20.2}, ["probe bench model.onnx --inputs cat.npz --duration 41"]),
    "no command known": ({"command": ""}, ["probe bench model.onnx --duration 10"]),
    "files are not written twice": (
        {"command": "probe bench m --table a.csv --export-times t.json --duration=3 --streams 2"},
        ["probe bench m --streams 2 --duration 10"],
    ),
}


@pytest.mark.parametrize(("changed", "commands"), STEPS.values(), ids=STEPS)
def test_what_to_do(changed: dict[str, Any], commands: list[str], result: BenchResult) -> None:
    assert [" ".join(step.words) for step in next_steps(replace(result, **changed))] == commands


def test_a_ceiling_that_layers_exceed_is_doubted(result: BenchResult) -> None:
    fast = example_layer_time("c", "conv", 1e-3, flops=10**9, moved=100, live_bytes=1, share=1.0)
    assert any("ceiling is too low" in one for one in caveats(replace(result, layers=(fast,))))
    assert not any("ceiling is too low" in one for one in caveats(result))


def test_what_is_not_measured_as_one_program_is_said(result: BenchResult) -> None:
    apart = replace(result, executor="layer by layer, a session each", layerwise=True)
    assert any(one.startswith("latency is of the network run layer by layer") for one in caveats(apart))
    assert caveats(replace(result, executor="one recorded graph")) == [*result.warnings]


def test_what_is_not_known_is_left_out_or_counted(result: BenchResult) -> None:
    assert "calling a layer takes" in sum_against_whole(result)
    assert "calling a layer takes" not in sum_against_whole(replace(result, call_seconds=None))
    assert result.memory is not None and "unknown size" not in memory_in_words(result)
    lacking = replace(result, memory=replace(result.memory, unknown=2))
    assert "2 tensors of unknown size left out" in memory_in_words(lacking)
    assert memory_in_words(replace(result, memory=None)) == ""


# --- HTML


def test_a_page_is_well_formed_and_its_references_lead_somewhere(result: BenchResult) -> None:
    tree = Tree(html_page(result))
    counted = Counter(tree.values("id"))
    assert max(counted.values()) == 1
    assert {value[1:] for value in tree.values("href") if value.startswith("#")} <= counted.keys()
    for attribute in ("aria-labelledby", "data-filter", "data-choose", "data-plot"):
        assert {one for value in tree.values(attribute) for one in value.split()} <= counted.keys()
    order = [attributes["id"] for tag, attributes in tree.tags if tag == "section"]
    assert order == ["caveats", "to-do", "times", "time-by-layer", "roofline", "memory", "layers", "provenance"]


def test_parts_without_content_are_left_out(result: BenchResult) -> None:
    bare = replace(
        result, layers=(), layers_sum=None, ceilings=None, memory=None, status="stable", warnings=(), times=()
    )
    order = [attributes["id"] for tag, attributes in Tree(html_page(bare)).tags if tag == "section"]
    assert order == ["times", "provenance"]
    assert "ceilings" not in render(bare) and markdown(bare).startswith("### STABLE: ")


def test_a_thousand_layers_are_a_page_of_modest_size(result: BenchResult) -> None:
    page = html_page(many(result, 1000))
    assert len(page) < 3e6
    assert page.count("<circle") == 1000 + 2  # and two in the legend
    Tree(page)


ALONE: dict[str, LayerTime] = {
    "one layer": example_layer_time("a", "conv", 1e-3, flops=10**6, moved=10**6, live_bytes=10**6, share=1.0),
    "no operations": example_layer_time("a", "move", 1e-3, flops=0, moved=10**6, live_bytes=10**6, share=1.0),
    "no bytes": example_layer_time("a", "shape", 1e-3, flops=0, moved=0, live_bytes=0, share=1.0),
    "no time": example_layer_time("a", "conv", 1e-12, flops=10**6, moved=10**6, live_bytes=1, share=0.0),
    "tiny": example_layer_time("a", "conv", 1e-9, flops=1, moved=1, live_bytes=1, share=1e-9),
    "huge": example_layer_time("a", "conv", 1e4, flops=10**18, moved=10**15, live_bytes=10**15, share=1.0),
    "not run": example_layer_time("a", "conv", None, flops=10**6, moved=10**6, live_bytes=None, share=None),
}


@pytest.mark.parametrize("layer", ALONE.values(), ids=ALONE)
def test_pictures_at_their_edges(layer: LayerTime, result: BenchResult) -> None:
    alone = replace(result, layers=(layer,), layers_sum=layer.median)
    pictures = [time_plot(alone, "t"), memory_plot(alone, "t"), roofline_plot(alone, "t"), latency_plot(alone)]
    for picture in pictures:
        assert "nan" not in (picture or "") and "inf" not in re.sub("inference", "", picture or "")
    assert (pictures[0] is None) == (layer.median is None)
    assert (pictures[2] is None) == (not layer.flops or not layer.runs)
    Tree(html_page(alone))
    render(alone)
    markdown(alone)


@given(st.floats(1e-12, 1e18))
def test_ticks_are_few_and_reach_the_top(top: float) -> None:
    ticks = _ticks(top)
    assert 3 <= len(ticks) <= 6 and ticks[0] == 0.0 and ticks[-1] >= top * (1 - 1e-6) and ticks[-2] < top * (1 + 1e-6)


def test_the_tallest_bar_stays_inside(result: BenchResult) -> None:
    drawn = time_plot(many(result, 50), "t") or ""
    paths = re.findall(r'd="([^"]*)" class="timebar', drawn.split("<figcaption")[0])
    heights = [float(one) for path in paths for one in re.findall(r"V([\d.]+)", path)]
    assert len(heights) == 50 and all(26 <= height < 316 for height in heights)


# --- trtexec's files


def test_the_profile(result: BenchResult) -> None:
    count, *rows = json.loads(layouts.profile_text(result))
    assert count == {"count": 10}
    assert [row["name"] for row in rows] == ["conv1 + relu1", "pool1", "fc + softmax"], "what did not run has no time"
    assert all(set(row) == {"name", "timeMs", "averageMs", "medianMs", "percentage"} for row in rows)
    assert sum(row["percentage"] for row in rows) == pytest.approx(100)
    assert rows[0]["medianMs"] == pytest.approx(4.12) and rows[0]["timeMs"] == pytest.approx(10 * rows[0]["averageMs"])


def test_the_layers(result: BenchResult) -> None:
    tree = json.loads(layouts.layers_text(result))
    assert tree["Bindings"] == ["image", "softmax_out"]
    first, *_, idle = tree["Layers"]
    assert (first["Name"], first["LayerType"], first["TacticName"]) == ("conv1 + relu1", "Convolution", "exact")
    assert first["Inputs"] == [
        {
            "Name": "image",
            "Location": "Host",
            "Dimensions": [1, 3, 224, 224],
            "Format/Datatype": "Row major linear FP32",
        }
    ]
    assert first["Metadata"].split("\x1e") == ["[ONNX Layer: conv1]", "[ONNX Layer: relu1]"]
    assert idle["Outputs"][0]["Dimensions"] is None


def test_the_times(result: BenchResult) -> None:
    rows = json.loads(layouts.times_text(result))
    assert len(rows) == len(result.times)
    assert all(row["startEnqMs"] is None and row["endEnqMs"] is None for row in rows), "there is no queue"
    assert rows[1]["latencyMs"] == pytest.approx(7.45)
    assert rows[1]["latencyMs"] == pytest.approx(rows[1]["h2dMs"] + rows[1]["computeMs"] + rows[1]["d2hMs"])
    queued = replace(result.times[0], enqueued=0.001)
    assert json.loads(layouts.times_text(replace(result, times=(queued,))))[0]["endEnqMs"] == pytest.approx(1.0)


def test_scripts_that_read_trtexec_s_profile(result: BenchResult, tmp_path: Path) -> None:
    """As trex does: drop the count, one row a layer, sum of averages."""
    (tmp_path / "p.json").write_text(layouts.profile_text(result))
    rows = [row for row in json.loads((tmp_path / "p.json").read_text()) if "count" not in row]
    assert sum(row["averageMs"] for row in rows) == pytest.approx(1e3 * 1.01 * (result.layers_sum or 0.0))
