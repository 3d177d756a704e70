"""Two results as pages: parts side by side, the picture, what to do, what is not comparable; on any medium."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.compare.regression import diff_results
from probe.report.html.page import html_page
from probe.report.markdown import markdown
from probe.report.regression_facts import (
    change_of,
    how_changed,
    largest_change,
    layer_in_words,
    next_steps,
    ordered,
    regression_facts,
    regression_sentence,
    start_sentence,
)
from probe.report.terminal import render
from probe.report.text import Page
from probe.results.diff import Criterion
from probe.results.publish import example_layer, example_run, examples
from probe.results.regression import KeptChange, PartChange, PartLayer, RegressionResult, TensorChange
from probe.results.tensors import InputInfo
from tests.report.test_html import HOSTILE, Tree, _shape
from tests.report.test_markdown import outside_code
from tests.report.test_pages import _renamed, assert_readable


def pair() -> RegressionResult:
    result = examples()["diff-results"]
    assert isinstance(result, RegressionResult)
    return result


NAMES = (
    "/norm/Pow + /norm/ReduceMean",
    "/stem/MatMul",
    "stem_out",
    "winograd_f4",
    "monday.json",
    "model.onnx",
    "square overflows",
)


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_names_change_nothing_but_words(hostile: str) -> None:
    for old in NAMES:
        result = _renamed(pair(), old, hostile)
        if hostile:
            assert _shape(html_page(result)) == _shape(html_page(_renamed(pair(), old, "harmless"))), old
        assert_readable(render(result, Page(80), verbose=True))
        rest = outside_code(markdown(result))
        assert not re.search(
            r"[<>\[\]`~\\@]|://|www\.", rest.replace("\\|", "").replace("&gt;", "").replace("&lt;", "")
        ), rest


def test_a_file_of_an_older_version_still_has_its_pages() -> None:
    old = replace(pair(), parts=(), findings=(), first_before=(), first_after=(), settings=(), warnings=(), sides=())
    tree = Tree(html_page(old))
    assert "changes-table-0" in tree.values("id") and tree.values("data-plot") == ["changes-table"]
    assert "logits" in markdown(old) and render(old).startswith("FAILED  logits went")


def test_parts_are_named_with_what_computes_them_on_either_side() -> None:
    page = html_page(pair())
    tree = Tree(page)
    assert "1 layer -> 2" in tree.text and "tactic winograd_f4 -> exact" in tree.text
    assert "fp16, exact, fused as rms_norm, accumulated 0.0001" in tree.text
    assert tree.values("data-plot") == ["parts-table"] and tree.values("data-places") == ["3"]
    assert "#parts-table-1" in tree.values("href")  # where error starts now
    rows = {a["id"]: a for tag, a in tree.tags if tag == "tr" and "id" in a}
    assert [rows[f"parts-table-{i}"].get("class") for i in range(3)] == [None, "failed", "warned"]
    assert (rows["parts-table-1"]["data-tags"] or "").split() == ["worse", "own_worse", "fusion", "starts"]
    assert (
        page.count('class="dots worse"') == 2 and page.count('class="dots better"') == 2
    )  # one each, and in the legend


def test_what_is_not_comparable_is_loud_on_every_medium() -> None:
    said = "the inputs are not the same: 2, then 1, 1 in common"
    result = replace(pair(), verdict="passed", reasons=())
    head = html_page(result).split("</header>")[0]
    assert f"not comparable in part: {said}" in head
    assert f"  NOTE    {said}" in render(result).split("\n\n")[0]
    assert f"**Not comparable in part:** {said}" in markdown(result)


def test_what_to_do_follows_from_what_happened() -> None:
    steps = next_steps(pair())
    assert [s.words[:3] for s in steps] == [("probe", "run", "model.onnx")] * 3
    again, look, like = (shlex.join(s.words) for s in steps)
    assert again.endswith("--fusion full --json again.json") and "--fusion none" in look and "--fusion full" in like
    assert "--layers '^(/norm/Pow|/norm/ReduceMean)$' -v" in look
    assert not next_steps(replace(pair(), verdict="passed", warnings=()))
    tactic = replace(pair().parts[1], changed=("tactic",))
    words = [s.words[:3] for s in next_steps(replace(pair(), parts=(tactic,), warnings=(), settings=()))]
    assert ("probe", "tactics", "bisect") in words


def test_commands_do_the_same_run_again() -> None:
    before, after = pair().sides
    user = Criterion("cosine", ">=", 0.999, source="user")
    after = replace(after, passes="none", interior="fp32", keep=("a.b", "c"), golden="fp64", acceptance=(user,),
                    inputs=(InputInfo("made up", "0" * 64, "seed 7"),), command="")  # fmt: skip
    look = shlex.join(next_steps(replace(pair(), sides=(before, after), warnings=()))[0].words)
    for words in (
        "--seed 7",
        "--passes none",
        "--interior fp32",
        "--keep '^(a\\.b|c)$'",
        "--golden fp64",
        "--accept 'cosine>=0.999'",
    ):
        assert words in look, look


def test_what_cannot_be_run_again_has_a_reason_and_no_command() -> None:
    sides = tuple(replace(side, schema="probe.diff/1") for side in pair().sides)
    (step,) = next_steps(replace(pair(), sides=sides))
    assert "not made from the same" in step.why and step.words == ()
    page = render(replace(pair(), sides=sides))
    assert f"{step.why.split('.')[0]}." in " ".join(page.split()) and "again.json" not in page


def test_commands_hold_what_was_typed_and_no_result_holds() -> None:
    before, after = pair().sides
    typed = "probe run model.onnx --input-shapes 'x:[2,3]' --keep @names.txt --json after.json"
    after = replace(after, keep=("a", "b"), command=typed, verdict="failed", golden="fp64")
    steps = next_steps(replace(pair(), sides=(before, after), warnings=()))
    look, search = shlex.join(steps[0].words), shlex.join(steps[-1].words)
    assert "--input-shapes 'x:[2,3]'" in look and "--keep @names.txt" in look and "'^(a|b)$'" not in look
    assert search.startswith("probe find model.onnx --precision fp16") and "--golden fp64" in search
    assert "--input-shapes 'x:[2,3]'" in search and "--json" not in search


def test_what_is_not_known_of_a_side_is_not_said() -> None:
    told = dict(regression_facts(pair()))
    assert "golden ort" in told["before"] and "input set" in told["before"]
    bare = tuple(replace(side, golden="", inputs=(), fusion="", model="") for side in pair().sides)
    told = dict(regression_facts(replace(pair(), sides=bare)))
    assert not any(word in told["before"] for word in ("golden", "input set", "fusion", "model"))
    layer = PartLayer("a", ("a",), "fp16", "exact")
    assert layer_in_words(layer) == "fp16, exact"
    assert layer_in_words(replace(layer, fallback="numpy: no kernel")) == "fp16, exact, falls back: numpy: no kernel"


def test_without_a_regression_it_says_how_much_moved() -> None:
    calm = replace(pair(), verdict="passed", reasons=(), parts=(part("a", status="same"), part("b", status="same")))
    assert regression_sentence(calm) == "no output got worse, and none of 2 parts"
    moved = replace(calm, parts=(*calm.parts, part("c"), part("d", status="better")))
    assert regression_sentence(moved) == "no output got worse; inside, 1 of 4 parts did, and 1 got better"
    assert regression_sentence(replace(calm, parts=(), changes=())) == "no output got worse"


@pytest.mark.parametrize(
    ("before", "after", "kept", "said"),
    [
        ("passed", "passed", ("same",), "the same must stay FP32"),
        ("passed", "passed", ("same", "only_before"), "no more must stay FP32 than before"),
        ("passed", "passed", (), "nothing must stay FP32, as before"),
        ("failed", "passed", ("only_after",), "the search ends well now and did not before: 1 must stay FP32"),
        ("failed", "passed", (), "the search ends well now and did not before: nothing must stay FP32"),
        ("failed", "failed", (), "the search ended well neither before nor now"),
        ("failed", "failed", ("same",), "the search ended well neither before nor now"),
    ],
)
def test_two_searches_in_a_sentence(before: Any, after: Any, kept: tuple[Any, ...], said: str) -> None:
    sides = tuple(replace(side, schema="probe.find/1") for side in pair().sides)
    result = replace(
        pair(), verdict="passed", reasons=(), verdict_before=before, verdict_after=after, changes=(), parts=(), sides=sides,
        kept=tuple(KeptChange(f"x{i}", status) for i, status in enumerate(kept)),
    )  # fmt: skip
    assert regression_sentence(result) == said
    assert "more must stay FP32" in dict(regression_facts(result))["worse means"]


def part(name: str, **changed: Any) -> PartChange:
    return replace(PartChange(name, "worse", "same", (), 1e-3, 2e-3, 2.0, 1e-4, 1e-4, (), ()), **changed)


def test_what_errs_by_itself_comes_before_what_error_passes_through() -> None:
    listed = (
        part("through", after=0.9),
        part("source", own="worse", own_after=0.01),
        part("nan", own="worse", own_after=math.inf, after=math.inf),
        part("healed", status="better"),
        part("hidden", status="same", own="worse", own_after=0.001),
    )
    assert [one.name for one in ordered(listed, "worse")] == ["nan", "source", "hidden", "through"]
    assert [one.name for one in ordered(listed, "better")] == ["healed"]
    assert change_of(part("as before", status="same")) == "same"
    assert [change_of(one) for one in listed] == ["worse, arrives", "worse, by itself", "worse, by itself", "better, arrives",
                                                  "same; worse by itself"]  # fmt: skip


def test_the_largest_change_comes_first_in_either_direction() -> None:
    changes = [TensorChange(str(ratio), "worse", "internal", 1e-3, ratio * 1e-3, ratio) for ratio in (3.0, 9.0, 5.0)]
    order = sorted(changes, key=largest_change, reverse=True)
    assert [one.name for one in order] == ["9.0", "5.0", "3.0"]
    healed = [replace(one, status="better", ratio=1 / (one.ratio or 1.0)) for one in changes]
    assert [one.name for one in sorted(healed, key=largest_change, reverse=True)] == ["9.0", "5.0", "3.0"]
    output = replace(changes[0], name="output", role="output")
    assert max([*changes, output], key=largest_change) is output


def test_a_precision_that_changed_everywhere_is_said_once() -> None:
    before = replace(example_run(), precision="fp16")
    after = replace(before, precision="bf16", layers=tuple(replace(x, precision="bf16") for x in before.layers))
    result = diff_results(before, after)
    assert all(one.changed == ("precision",) and not how_changed(one, result) for one in result.parts)
    one = replace(after, layers=(replace(after.layers[0], precision="fp32"), *after.layers[1:]))
    result = diff_results(before, one)
    assert [how_changed(p, result) for p in result.parts][:2] == [["precision fp16 -> fp32"], []]


def test_where_error_starts_is_told_only_when_it_moved() -> None:
    assert start_sentence(pair()) == "error beyond the acceptance starts in /norm/Pow now, and started nowhere before"
    parts = tuple(replace(one, starts_before=one.starts_after) for one in pair().parts)
    assert start_sentence(replace(pair(), parts=parts, first_before=("fused",))) == ""
    gone = tuple(replace(one, starts_before=one.starts_after, starts_after=False) for one in pair().parts)
    told = start_sentence(replace(pair(), parts=gone, first_before=("a", "b", "c", "d"), first_after=()))
    assert told == "error started in a, b, c and 1 more before, and starts nowhere now"


def test_two_searches_list_what_must_stay() -> None:
    kept = (KeptChange("new", "only_after"), KeptChange("old", "only_before"), KeptChange("both", "same"))
    result = replace(pair(), kept=kept, changes=(), parts=(), reasons=("2 must stay FP32, 1 before",))
    assert "must stay FP32 now, not before: 1\n  new" in render(result)
    said = Tree(html_page(result)).text
    assert said.index("newnow, not before") < said.index("oldno more") < said.index("bothas before")
    assert "- must stay FP32 now: `new`" in markdown(result)


error = st.floats(min_value=0) | st.just(math.nan) | st.none()


@given(
    st.lists(
        st.tuples(error, error, st.sampled_from(["same", "better", "worse", "only_before", "only_after"])), max_size=20
    )
)
def test_any_errors_are_drawn_inside_the_picture(errors: list[tuple[float | None, float | None, Any]]) -> None:
    parts = tuple(part(f"p{i}", before=a, after=b, status=status) for i, (a, b, status) in enumerate(errors))
    page = html_page(replace(pair(), parts=parts))
    for drawn in re.findall(r'<path d="(M[^"]*)"', page):
        for x, y in re.findall(r"([\d.]+) ([\d.]+)", drawn):
            assert 0 <= float(x) <= 960 and 0 <= float(y) <= 360
    assert_readable(render(replace(pair(), parts=parts)))
    Tree(page)


def test_a_thousand_parts_stay_small() -> None:
    stem = "/encoder/layer.11/attention/self"
    layers = tuple(
        example_layer(f"{stem}/MatMul_{i}", nodes=tuple(f"{stem}/{op}_{i}" for op in ("MatMul", "Add", "Mul", "Erf")), outputs=(f"{stem}/out_{i}",))
        for i in range(1000)
    )  # fmt: skip
    before = replace(example_run(), layers=layers)
    apart = tuple(
        replace(x, name=f"{x.name}/{n}", nodes=(n,), outputs=x.outputs if at == 3 else (n,))
        for x in layers
        for at, n in enumerate(x.nodes)
    )
    result = diff_results(before, replace(before, layers=apart))
    assert len(result.parts) == 1000
    page = html_page(result)
    assert len(page.encode()) < 3_000_000
    assert len(markdown(result).splitlines()) < 60
