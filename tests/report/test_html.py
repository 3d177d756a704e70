"""Reports as HTML: well formed, closed against hostile names, self-contained, in order, of modest size."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.errors import InputError
from probe.report.html.element import Markup, element, name, text
from probe.report.html.page import html_page
from probe.report.html.plot import BOTTOM, LEFT, RIGHT, TOP, scale_for
from probe.report.text import escape
from probe.results.diff import DiffResult
from probe.results.find import Compensating, Culprits, FindResult, SearchStep, Status, TacticSwitch
from probe.results.publish import example_layer, example_run, examples
from probe.results.run import RunResult
from tests.report.test_pages import HOSTILE as HOSTILE_TO_TERMINALS
from tests.report.test_pages import _renamed, any_diff

TACTICS = (
    "convert",
    "tactics",
    "tactics-record",
    "tactics-replay",
    "tactics-log",
    "tactics-diff",
    "tactics-bisect",
    "tactics-table",
    "builds",
)
KINDS = ("run", "find", "diff", "check", "bench", "diff-results", *TACTICS)
VOID = {"meta", "link", "input", "wbr", "br", "img"}
HOSTILE = HOSTILE_TO_TERMINALS | {
    "script": "<script>document.title='owned'</script>",
    "end of script": "</script><script>alert(1)</script>",
    "end of title": "</title><img src=x onerror=alert(1)>",
    "attribute": '" onmouseover="alert(1)" x=\'y\' ',
    "comment": "<!-- --><!--",
    "cdata": "]]><![CDATA[",
    "entity": "&lt;b&gt; &amp;nbsp; &#60;",
    "svg": "<svg/onload=alert(1)>",
    "url": "javascript:alert(1)",
    "300": "x" * 300,
}


class Tree(HTMLParser):
    """A strict reader: every tag is closed in its place, every attribute stands once."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []  # text outside of style and script
        self.sources: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        assert not (tag == "p" and "p" in self._open), "a paragraph in a paragraph"
        if "p" in self._open:
            assert tag in ("code", "span", "strong", "wbr"), f"{tag} ends a paragraph"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1] == tag, f"</{tag}> inside {self._open[-3:]}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("style", "script"):
            self.sources[self._open[-1]] = self.sources.get(self._open[-1], "") + data
        else:
            self.said.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data[:40]}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data[:40]}")

    @property
    def text(self) -> str:
        return "".join(self.said)

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] or "" for _, attributes in self.tags if attribute in attributes]


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_well_formed_and_its_references_lead_somewhere(kind: str) -> None:
    tree = Tree(html_page(examples()[kind]))
    counted = Counter(tree.values("id"))
    assert counted and max(counted.values()) == 1, "ids are unique"
    links = [value for value in tree.values("href") if value.startswith("#")]
    assert {value[1:] for value in links} <= counted.keys()
    for attribute in ("aria-labelledby", "data-filter", "data-choose", "data-shown", "data-plot"):
        assert {one for value in tree.values(attribute) for one in value.split()} <= counted.keys()
    assert [tag for tag, _ in tree.tags].count("h1") == 1
    assert all("scope" in attributes for tag, attributes in tree.tags if tag == "th")
    assert len([1 for tag, _ in tree.tags if tag == "table"]) == len([1 for tag, _ in tree.tags if tag == "caption"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_asks_nobody_for_anything(kind: str) -> None:
    page = html_page(examples()[kind])
    tree = Tree(page)
    assert not re.search(r"https?:|//[a-z]", page), "no address at all"
    assert not {"img", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in tree.tags}
    assert all(value.startswith("#") or value == "data:," for value in tree.values("href"))
    assert not tree.values("src") and not tree.values("style")
    assert not [a for _, attributes in tree.tags for a in attributes if a.startswith("on")]
    (policy,) = [a["content"] for t, a in tree.tags if t == "meta" and "http-equiv" in a]
    for source in tree.sources.values():  # the browser runs these two and nothing else
        assert base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() in (policy or "")
    assert "default-src 'none'" in (policy or "")


def _shape(page: str) -> Counter[tuple[str, tuple[str, ...]]]:
    """Tags with the names of their attributes; where lines may break, and whole names of cut ones, follow the length of names."""
    tree = Tree(page)
    return Counter((tag, tuple(a for a in attributes if a != "title")) for tag, attributes in tree.tags if tag != "wbr")


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_names_are_shown_and_never_run(hostile: str) -> None:
    for kind, old in (("run", "/norm/Pow_output_0"), ("run", "logits"), ("run", "/stem/MatMul"), ("run", "model.onnx"), ("run", "cat"),
                      ("find", "/norm/Pow_output_0"), ("find", "/norm/ReduceMean"), ("find", "mixed.onnx"), ("diff", "logits"),
                      ("diff", "norm.div"), ("diff", "golden"), ("check", "/layer.3/norm/Pow_output_0"), ("check", "/mask/Where"),
                      ("diff-results", "logits")):  # fmt: skip
        plain = html_page(_renamed(examples()[kind], old, "harmless"))
        page = html_page(_renamed(examples()[kind], old, hostile))
        tree = Tree(page)
        # An empty name is left out where there is none, as for a layer that is kept instead of a tensor.
        assert not hostile or _shape(page) == _shape(plain), f"{kind}: {old} changed the structure"
        assert tree.sources == Tree(plain).sources
        assert all(c == "\n" or c.isprintable() for c in page)
        if hostile.strip():
            assert escape(hostile).strip("\\x20 ") in tree.text + " ".join(tree.values("title")), (
                f"{kind}: {old} is not shown"
            )


@given(st.text())
def test_any_text_comes_back_as_it_was_put_in(plain: str) -> None:
    visible = "".join(c if c.isprintable() else escape(c) for c in plain)
    tree = Tree(element("p", plain, title=plain))
    assert tree.text == visible
    assert tree.values("title") == [visible]
    assert Tree(name(plain)).text == escape(plain)


def test_markup_is_only_what_elements_made() -> None:
    assert element("b", "<i>") == "<b>&lt;i&gt;</b>"
    assert element("b", Markup("<i></i>")) == "<b><i></i></b>"
    assert element("input", type="search", hidden=True, disabled=False, value=None) == '<input type="search" hidden>'
    assert element("td", None, 3, ["a", ("b",)], aria_label="x", class_="y") == '<td aria-label="x" class="y">3ab</td>'
    assert text("a\u202eb") == "a\\u202eb"


def _order(page: str) -> list[str]:
    return [a["id"] or "" for tag, a in Tree(page).tags if tag == "section" and "id" in a]


def test_the_parts_stand_in_the_order_one_reads_them() -> None:
    assert _order(html_page(example_run())) == [
        "to-do",
        "why",
        "network",
        "graph",
        "outputs",
        "layers",
        "details",
        "provenance",
    ]
    assert _order(html_page(examples()["find"])) == [
        "to-do", "keep", "path", "lighter", "cost", "proofs", "hand-over", "why", "provenance",
    ]  # fmt: skip
    assert _order(html_page(examples()["diff"])) == [
        "to-do",
        "starts",
        "noticed",
        "outputs",
        "tensors",
        "details",
        "names",
        "provenance",
    ]
    assert _order(html_page(examples()["check"])) == ["to-do", "findings", "provenance"]
    assert _order(html_page(examples()["diff-results"])) == [
        "to-do", "settings", "network", "outputs", "where", "parts", "noticed", "changes", "provenance",
    ]  # fmt: skip


def test_a_run_says_what_the_terminal_says() -> None:
    result = example_run()
    said = Tree(html_page(result)).text
    assert "FAILED fp16: logits: 1000 NaN where golden has none" in said
    assert "Keep 1 tensor in FP32: tried, it passes." in said
    assert "--keep '^/norm/Pow_output_0$'" in " ".join(said.replace("\\\n", " ").split())
    assert "2 of 1,000 elements, first [0,3]; in layer /norm/Pow" in said and "margin" not in said
    assert "keep /norm/Pow_output_0 in FP32" in said
    assert result.model_sha256 in said and result.command in said
    assert "probe 0.1.0, python 3.11.9, numpy 2.4.0" in said
    harmless = tuple(replace(f, fatal=False) for f in result.findings)
    assert "harmless: /norm/Pow_output_0 overflows" in Tree(html_page(replace(result, findings=harmless))).text


def test_layers_of_branches_not_taken_say_so() -> None:
    result = example_run()
    taken, idle = (replace(one, outputs=(f"{one.name}_out",)) for one in result.layers[:2])
    rest = tuple(t for t in result.tensors if t.name not in idle.outputs)
    asleep = tuple(
        replace(result.tensors[0], name=one, status="not_run", metrics=None, detail=None) for one in idle.outputs
    )
    said = Tree(html_page(replace(result, layers=(taken, idle), tensors=(*rest, *asleep)))).text
    assert said.count("skipped") == 1
    assert "skipped" not in Tree(html_page(result)).text


def test_find_shows_certificates_groups_and_proofs() -> None:
    result = examples()["find"]
    assert isinstance(result, FindResult)
    groups = (Culprits("a", ("a", "b"), ("c",)),)
    said = Tree(html_page(replace(result, groups=groups, compensating=(Compensating(("p", "q")),)))).text
    for words in ("evaluation #9 with this alone low fails, margin -inf, on cat", "instead of it could stay", "compensate each other",
                  "typed: passed, range_rel 0.0012", "2 nodes, proved in this form", "modelopt.onnx.autocast", "1.93x",
                  "in an engine compiled anew"):  # fmt: skip
        assert words in said, words


def test_switched_tactics_are_listed_where_a_tactic_file_was_given() -> None:
    result = examples()["find"]
    assert 'id="tactics"' not in html_page(result)
    assert "Every choice of fast.tactics stays." in Tree(html_page(replace(result, tactics="fast.tactics"))).text
    switches = (TacticSwitch("/head/MatMul", "acc16", "exact", 3.25),)
    said = Tree(html_page(replace(result, tactics="fast.tactics", switches=switches))).text
    assert "1 layer of fast.tactics" in said and "/head/MatMulacc16exact3.25" in said


def test_a_search_without_margins_lists_its_evaluations_and_draws_nothing() -> None:
    result = replace(examples()["find"], steps=(SearchStep(0, "search", "all low", 0, passed=False, margin=None),))
    tree = Tree(html_page(result))
    assert "All 1 evaluation" in tree.text
    assert not tree.values("data-plot")


@given(any_diff())
def test_any_diff_is_well_formed(result: DiffResult) -> None:
    tree = Tree(html_page(result))
    assert max(Counter(tree.values("id")).values()) == 1


@pytest.mark.parametrize("status", get_args(Status))
def test_every_end_of_a_search_has_a_page(status: Status) -> None:
    result = replace(examples()["find"], status=status, keep=(), exported=None, cost=None, reason="because")
    said = Tree(html_page(result)).text
    assert "because" in said or status in ("found", "found_not_minimal", "nothing_needed")
    assert "stays FP32" not in said


# --- the picture


def _run_of(*errors: float | None, **changed: Any) -> RunResult:
    layers = tuple(
        example_layer(
            f"/block.{i}/MatMul", accumulated=error, injected=None, local=None, nonfinite=int(error == math.inf)
        )
        for i, error in enumerate(errors)
    )
    return replace(example_run(), layers=layers, first_divergence=(), **changed)


def test_places_and_heights_are_in_order() -> None:
    scale = scale_for([1e-6, 0.02, 3.0], 10, [0.05])
    assert (scale.low, scale.high) == (-6, 1)
    assert LEFT < scale.x(0) < scale.x(9) < RIGHT
    heights = [scale.y(v) for v in (math.nan, 3.0, 0.05, 0.02, 1e-6, 0.0)]
    assert heights == sorted(heights) and heights[0] > TOP and heights[-1] < BOTTOM
    assert scale.y(math.nan) == scale.y(math.inf) == scale.y(1e9)


@given(st.lists(st.floats(min_value=0) | st.just(math.nan) | st.none(), max_size=30))
def test_any_errors_are_drawn_inside_the_picture(errors: list[float | None]) -> None:
    page = html_page(_run_of(*errors))
    drawn = re.findall(r'class="(?:dots|line) accumulated"|d="(M[^"]*)"', page)
    for x, y in (pair for one in drawn for pair in re.findall(r"([\d.]+) ([\d.]+)", one)):
        assert 0 <= float(x) <= 960 and 0 <= float(y) <= 360
    assert ('id="network"' in page) == any(e is not None for e in errors)


def test_first_divergences_and_the_first_nan_are_marked_and_linked() -> None:
    result = replace(
        _run_of(1e-4, 0.2, 0.3, math.inf, math.inf), first_divergence=("/block.1/MatMul", "/block.2/MatMul")
    )
    page = html_page(result)
    tree = Tree(page)
    assert page.count('class="mark first"') == 3  # two, and the sample in the legend
    assert page.count('class="mark nonfinite"') == 2
    assert "(1)" in tree.text and "(2)" in tree.text
    assert "#layers-table-1" in tree.values("href") and "#layers-table-2" in tree.values("href")
    assert "NaN or Inf that the golden lacks first appear in /block.3/MatMul." in tree.text
    rows = {a["id"]: a for tag, a in tree.tags if tag == "tr" and "id" in a}
    assert rows["layers-table-1"]["class"] == "failed" and "first" in (rows["layers-table-1"]["data-tags"] or "")


# --- size


def _thousand() -> RunResult:
    stem = "/encoder/layer.11/attention/self"
    layers = tuple(
        example_layer(f"{stem}/MatMul_{i}", nodes=tuple(f"{stem}/{op}_{i}" for op in ("MatMul", "Add", "Mul", "Erf")), injected=i / 1e6)
        for i in range(1000)
    )  # fmt: skip
    return replace(example_run(), layers=layers, first_divergence=())


def test_a_thousand_layers_fit_into_3_mb() -> None:
    page = html_page(_thousand())
    assert page.count("<tr") > 1000
    assert len(page.encode()) < 3_000_000


def test_what_a_table_leaves_out_is_said() -> None:
    diff = examples()["diff"]
    assert isinstance(diff, DiffResult)
    inside = tuple(replace(diff.tensors[0], name=f"t{i}", detail=None) for i in range(2500))  # a page without pictures
    tree = Tree(html_page(replace(diff, tensors=(*inside, diff.tensors[2]))))
    assert "The worst 2,000 of 2,500 are listed; the JSON file has all." in tree.text
    steps = tuple(SearchStep(i, "search", "prefix", i, passed=bool(i % 2), margin=0.5) for i in range(2100))
    tree = Tree(html_page(replace(examples()["find"], steps=steps)))
    assert "The first 2,000 of 2,100 are listed" in tree.text
    assert tree.values("data-places") == ["2000"] and "path-table-1999" in tree.values("id")
    nodes = tuple(f"n{i}" for i in range(100))
    said = Tree(html_page(replace(example_run(), layers=(example_layer("many", nodes=nodes),)))).text
    assert "and 76 more, which the JSON file lists" in said


def test_kinds_without_a_page_are_refused() -> None:
    for kind in ("dump", "inspect-model"):
        with pytest.raises(InputError, match="there is no report of a probe"):
            html_page(examples()[kind])
