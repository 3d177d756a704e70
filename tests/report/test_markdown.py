"""Reports as Markdown: short, and no name is ever markup, a mention, or the end of a table's cell."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probe.errors import InputError
from probe.report.markdown import code, markdown, prose
from probe.results.publish import example_diff, example_metrics, example_run, example_tensor, examples
from tests.report.test_html import HOSTILE, KINDS
from tests.report.test_pages import _renamed


def outside_code(page: str) -> str:
    """What Markdown would interpret: fenced blocks and code spans taken out, as GitHub reads them."""
    page = re.sub(r"^(`{3,})sh\n.*?^\1$", "", page, flags=re.MULTILINE | re.DOTALL)
    page = re.sub(
        r"^(<details><summary>[A-Z][A-Za-z0-9,: ]*</summary>|</details>)$", "", page, flags=re.MULTILINE
    )  # our own
    return re.sub(r"(?<!`)(`+)(?!`)(.*?)(?<!`)\1(?!`)", "CODE", page)


@pytest.mark.parametrize("kind", KINDS)
def test_a_comment_begins_with_the_verdict_and_is_short(kind: str) -> None:
    page = markdown(examples()[kind])
    assert re.match(r"### [A-Z ]+: ", page)
    assert len(page.splitlines()) < 50 and page.endswith("\n") and not page.endswith("\n\n")


def test_a_run_has_verdict_outputs_and_what_to_do() -> None:
    page = markdown(example_run())
    assert page.startswith("### FAILED: fp16: logits: 1000 NaN where golden has none\n")
    assert "| `logits` | inf | nan | inf | NaN |" in page
    assert "Keep 1 tensor in FP32: tried, it passes.\n\n```sh\nprobe run model.onnx" in page


def test_before_and_after_list_what_changed_worst_first() -> None:
    page = markdown(examples()["diff-results"])
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows[0] == "| `logits` | 0.0004 | 0.008 | 20 | passed, then warned | worse |"
    assert not any("| same |" in row for row in rows)
    assert (
        page.index("worse, by itself")
        < page.index("worse, arrives")
        < page.index("<details>")
        < page.index("better, by itself")
    )
    assert "- **Not comparable in part:** the inputs are not the same" in page


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_names_are_code(hostile: str) -> None:
    for kind, old in (("run", "logits"), ("run", "/norm/Pow_output_0"), ("run", "model.onnx"), ("find", "/norm/Pow_output_0"),
                      ("find", "mixed.onnx"), ("diff", "logits"), ("diff", "golden"), ("check", "/layer.3/norm/Pow_output_0"),
                      ("diff-results", "logits")):  # fmt: skip
        page = markdown(_renamed(examples()[kind], old, hostile))
        rest = outside_code(page)
        assert not re.search(r"[<>\[\]`~\\@]|://|www\.", rest.replace("\\|", "")), f"{kind}: {old}\n{rest}"
        assert (
            len({line.count("|") for line in rest.splitlines() if line.startswith("|")}) <= 2
        )  # tables keep their columns
        assert page.isprintable() or all(c == "\n" or c.isprintable() for c in page)


@given(st.text(alphabet=st.characters(exclude_categories=("C", "Z")) | st.sampled_from("`|<@* "), min_size=1))
def test_a_name_is_one_code_span(name: str) -> None:
    assert outside_code(code(name)) == "CODE"
    assert not set(outside_code(prose(name))) & set("`<>@*_[]|\\")


def test_bars_do_not_end_a_cell() -> None:
    result = replace(example_diff(), tensors=(example_tensor("a|b", metrics=example_metrics()),))
    (row,) = [line for line in markdown(result).splitlines() if line.startswith("| `")]
    assert "`a\\|b`" in row
    assert len(re.findall(r"(?<!\\)\|", row)) == 6


def test_of_many_kept_tensors_the_rest_is_counted() -> None:
    convert = replace(examples()["convert"], keep=tuple(f"asked{i}" for i in range(30)), kept_tensors=("x", "y"))
    assert re.findall(r"- stays FP32: `(.*)`", markdown(convert)) == ["x", "y"] and " more" not in markdown(convert)
    many = markdown(replace(convert, kept_tensors=tuple(f"x{i}" for i in range(2000))))
    assert many.count("- stays FP32: ") == 10 and "- and 1,990 more" in many
    assert "- and 20 more" in markdown(replace(convert, kept_tensors=()))


def test_kinds_without_a_page_are_refused() -> None:
    with pytest.raises(InputError, match="there is no report"):
        markdown(examples()["dump"])
