"""Pages of conversions and tactics: what the terminal says stands on them, and what it has no room for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from probe.report.html.page import html_page
from probe.report.markdown import markdown
from probe.report.terminal import render
from probe.results.blame import BuildsResult, TacticsBisectResult, TacticsTableResult
from probe.results.convert_result import ConvertResult
from probe.results.publish import examples
from probe.results.tactics import TacticsReplayResult
from tests.report.test_html import HOSTILE, TACTICS, Tree, _order, _shape
from tests.report.test_markdown import outside_code
from tests.report.test_pages import _renamed

RENAMED = {
    "convert": ("logits", "/norm/Pow", "mixed.onnx", "model.onnx"),
    "tactics": ("conv1 + relu1", "winograd_f4"),
    "tactics-record": ("conv1 + relu1", "logits", "good.tactics"),
    "tactics-replay": ("/head/Gemm", "splitk4", "cat"),
    "tactics-log": ("matMul1", "good.log", "0x665ded9abbf88"),
    "tactics-diff": ("conv1 + relu1", "monday.tactics", "winograd_f4"),
    "tactics-bisect": ("conv1 + relu1", "bad.tactics", "relu1_output"),
    "tactics-table": ("conv1 + relu1", "winograd_f4", "relu1_output"),
    "builds": ("conv1 + relu1", "exact"),
}


@pytest.mark.parametrize("kind", TACTICS)
def test_the_verdict_is_that_of_the_terminal(kind: str) -> None:
    result = examples()[kind]
    first = render(result).splitlines()[0].split()[:2]
    tree = Tree(html_page(result))
    head = tree.text[tree.text.index("Skip to the verdict") :]
    assert " ".join(first) in head or first[0] in head
    assert markdown(result).startswith("### ")


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_names_are_shown_and_never_markup(hostile: str) -> None:
    for kind, names in RENAMED.items():
        for old in names:
            page = html_page(_renamed(examples()[kind], old, hostile))
            plain = html_page(_renamed(examples()[kind], old, "harmless"))
            assert not hostile or _shape(page) == _shape(plain), f"{kind}: {old}"
            rest = outside_code(markdown(_renamed(examples()[kind], old, hostile)))
            assert not set("<>[]`~@") & set(rest.replace("&gt;", "").replace("&lt;", "")), f"{kind}: {old}\n{rest}"


def test_the_parts_stand_in_the_order_one_reads_them() -> None:
    orders = {
        "convert": ["outputs", "proofs", "keep", "hand-over", "casts", "provenance"],
        "tactics": ["layers", "provenance"],
        "tactics-record": ["to-do", "outputs", "layers", "provenance"],
        "tactics-replay": ["to-do", "misses", "differing", "outputs", "layers", "provenance"],
        "tactics-log": ["differences", "operators", "provenance"],
        "tactics-diff": ["to-do", "suspects", "provenance"],
        "tactics-bisect": ["to-do", "guilty", "flipped", "path", "differences", "provenance"],
        "tactics-table": ["to-do", "costs", "front", "candidates", "provenance"],
        "builds": ["to-do", "pins", "builds", "flips", "provenance"],
    }
    assert {kind: _order(html_page(examples()[kind])) for kind in TACTICS} == orders


def test_a_conversion_says_why_each_name_stays_fp32() -> None:
    result: ConvertResult = examples()["convert"]
    said = Tree(html_page(replace(result, shape_nodes=("/Shape",), spared=("eps",), fp32_nodes=("/Softmax",)))).text
    for words in ("/norm/Pow_output_0kept tensor", "/norm/Powmakes or reads a kept tensor", "/Softmaxkept node", "/Shapecomputes extents",
                  "/pos/Rangecannot be low: Range has no float16 in opset 17", "epsrounding would destroy it"):  # fmt: skip
        assert words in said, words
    failed = replace(result, verdict="failed", reasons=("logits: range_rel 0.2 > 0.05",))
    assert "probe run model.onnx --precision fp16" in Tree(html_page(failed)).text


def test_a_replay_that_passes_with_other_bits_is_not_green() -> None:
    result: TacticsReplayResult = examples()["tactics-replay"]
    assert 'class="verdict warned"' in html_page(result)
    assert 'class="verdict passed"' in html_page(replace(result, identical=True, differing=()))
    assert 'class="verdict failed"' in html_page(replace(result, strict=True))


def test_every_candidate_is_listed_with_its_effect() -> None:
    result: TacticsTableResult = examples()["tactics-table"]
    tree = Tree(html_page(result))
    rows = [a for tag, a in tree.tags if tag == "tr" and "data-tags" in a]
    assert [(a["data-tags"], a.get("class")) for a in rows] == [
        ("front breaks", "failed"),
        ("used front", None),
        ("breaks", "failed"),
    ]
    assert "14x less accurate than exact" in tree.text
    assert "--deny 'winograd_f4 @ ^relu1_output$'" in tree.text
    assert "--deny" not in Tree(html_page(replace(result, base=replace(result.base, passed=False)))).text


def test_pins_become_a_command_while_they_fit() -> None:
    result: BuildsResult = examples()["builds"]
    assert "--allow 'exact @ ^relu1_output$' -o pinned.tactics" in " ".join(
        Tree(html_page(result)).text.replace("\\\n", " ").split()
    )
    assert 'id="to-do"' not in html_page(replace(result, pins=result.pins * 9))
    unpinned = replace(result, pins=(), pins_for_bits=(), pinned_passes=False)
    assert "No choice of what flips makes every build pass." in Tree(html_page(unpinned)).text


def test_a_bisection_shows_evidence_and_path() -> None:
    result: TacticsBisectResult = examples()["tactics-bisect"]
    tree = Tree(html_page(result))
    assert "the good run with this one choice of the bad one fails" in tree.text
    assert tree.values("data-plot") == ["path-table"]


@pytest.mark.parametrize("kind", TACTICS)
def test_titles_name_the_verdict_and_what_it_is_about(kind: str) -> None:
    page = html_page(examples()[kind])
    title = page[page.index("<title>") + 7 : page.index("</title>")]
    expected: dict[str, Any] = {
        "convert": "PASSED model.onnx", "tactics": "PASSED tactics", "tactics-record": "PASSED model.onnx", "tactics-replay": "PASSED model.onnx",
        "tactics-log": "TACTICS-LOG good.log", "tactics-diff": "TACTICS-DIFF tactics-diff", "tactics-bisect": "FOUND model.onnx",
        "tactics-table": "TACTICS-TABLE model.onnx", "builds": "FAILED model.onnx",
    }  # fmt: skip
    assert title == expected[kind]
