"""Reports in a real browser: no console message, no request, and what scripts promise works."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from probe.report.html.page import html_page
from probe.results.publish import example_layer, example_run, examples
from tests.bench.report import result_of
from tests.report.test_detail import RESULT as JUDGED

ROWS = "[...document.querySelectorAll('#layers-table tbody tr')].filter(r => !r.hidden)"


def layered() -> Any:
    errors = [1e-4, 2e-3, 0.2, 0.01, None, math.inf, 0.5, 0.03]
    layers = tuple(
        example_layer(f"/block.{i}/MatMul", accumulated=e, injected=None, nodes=(f"/block.{i}/a", f"/block.{i}/b"), beyond=i == 2,
                      nonfinite=int(e == math.inf))
        for i, e in enumerate(errors)
    )  # fmt: skip
    return replace(example_run(), layers=layers, first_divergence=("/block.2/MatMul",))


def test_a_tensor_in_detail_opens_from_its_links_and_by_itself(show: Any, until: Any) -> None:
    page = show(example_run())
    drill = page.locator(".drill")
    assert drill.count() == 1 and drill.get_attribute("open") is None
    page.locator("#layers-table-1 summary").first.click()
    page.locator("#layers-table-1 a[href^='#detail-']").click()
    until(page, "document.querySelector('.drill').open")
    assert page.evaluate("document.activeElement.closest('.drill') !== null")
    drill.locator("summary").press("Enter")
    assert drill.get_attribute("open") is None, "by keyboard, too"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_tensor_in_detail_fits_and_its_pictures_load(width: int, scheme: str, show: Any, until: Any) -> None:
    page = show(JUDGED, width, scheme)
    for link in page.locator("#outputs-table a[href^='#detail-']").all():
        link.evaluate("a => { a.closest('details').open = true; a.click(); }")
    until(page, "[...document.querySelectorAll('.drill')].every(d => d.open)")
    assert page.locator(".drill").count() == 4
    assert page.evaluate("document.documentElement.scrollWidth") == width
    until(page, "[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.evaluate("[...document.images].map(i => [i.naturalWidth, i.naturalHeight])") == [[60, 40]] * 3
    cut = "svg => { const b = svg.getBBox(), v = svg.viewBox.baseVal; return b.x < -1 || b.y < -1 || b.x + b.width > v.width + 1; }"
    assert not any(svg.evaluate(cut) for svg in page.locator(".pane svg[role=img]").all()), "no word leaves its picture"


def test_a_script_that_got_in_would_be_refused(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(
        html_page(example_run()).replace(
            "</main>", "<script>window.ran = 1</script><img src=x onerror='window.ran = 2'></main>"
        )
    )
    page = browser.new_page()
    page.goto(file.as_uri())
    assert page.evaluate("window.ran") is None
    page.close()


def test_tables_sort_with_nan_largest_and_unknown_last(show: Any) -> None:
    page = show(layered())
    accumulated = f"{ROWS}.map(r => r.cells[4].textContent)"
    before = page.evaluate(accumulated)
    heading = page.locator("#layers-table th button").nth(4)
    heading.click()
    assert page.evaluate(accumulated) == ["inf", "0.5", "0.2", "0.03", "0.01", "0.002", "0.0001", "-"]
    assert page.locator("#layers-table th").nth(4).get_attribute("aria-sort") == "descending"
    heading.click()
    assert page.evaluate(accumulated) == ["0.0001", "0.002", "0.01", "0.03", "0.2", "0.5", "inf", "-"]
    heading.click()
    assert page.evaluate(accumulated) == before


def test_tables_filter_by_what_stands_in_them(show: Any) -> None:
    page = show(layered())
    search, shown = page.locator("[data-filter=layers-table]"), page.locator("[data-shown=layers-table]")
    search.fill("BLOCK.3/a")  # a node, which stands behind the name
    assert page.evaluate(f"{ROWS}.map(r => r.id)") == ["layers-table-3"]
    assert shown.text_content() == "1 of 8 shown"
    page.locator("[data-choose=layers-table]").select_option("first")
    assert page.evaluate(f"{ROWS}.length") == 0
    search.fill("")
    assert page.evaluate(f"{ROWS}.map(r => r.id)") == ["layers-table-2"]


def test_the_picture_is_walked_through_by_keyboard_and_leads_to_the_table(show: Any) -> None:
    page = show(layered())
    page.locator("[data-filter=layers-table]").fill("nothing")  # what is filtered away comes back
    stage = page.locator("[data-plot]")
    stage.focus()
    page.keyboard.press("End")
    assert "/block.7/MatMul" in stage.get_attribute("aria-valuetext")
    for _ in range(5):
        page.keyboard.press("ArrowLeft")
    assert stage.get_attribute("aria-valuenow") == "3"
    assert (
        "/block.2/a" in page.locator("#error-picture .tip").inner_text()
        and "Flag first" in page.locator("#error-picture .tip").inner_text()
    )
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.closest('tr').id") == "layers-table-2"
    assert page.locator("#layers-table-2 details").get_attribute("open") is not None
    assert not page.locator("#error-picture .tip").is_visible()


def test_pointing_tells_and_clicking_leads(show: Any) -> None:
    page = show(layered())
    page.locator("[data-plot] svg").scroll_into_view_if_needed()
    box = page.locator("[data-plot] svg").bounding_box()
    x = box["x"] + box["width"] * (62 + 5.5 * (946 - 62) / 8) / 960
    page.mouse.move(x, box["y"] + 100)
    assert "/block.5/MatMul" in page.locator("#error-picture .tip").inner_text()
    page.mouse.click(x, box["y"] + 100)
    assert page.evaluate("document.querySelector('tr.chosen').id") == "layers-table-5"


def test_a_link_opens_its_row_and_the_colours_change(show: Any, until: Any) -> None:
    page = show(layered())
    page.locator(".starts a").first.click()
    until(page, "document.querySelector('#layers-table-2 details').open")
    colour = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(colour)
    page.get_by_role("button", name="Switch to dark colours").click()
    assert page.evaluate(colour) != before


# --- the layer graph


def branched() -> Any:
    """Four layers: the second and the third read the first, the fourth reads both."""
    reads = (("x",), ("t0",), ("t0",), ("t1", "t2"))
    layers = tuple(
        example_layer(f"/block.{i}/MatMul", accumulated=10.0 ** (i - 4), reads=r, outputs=(f"t{i}",), nodes=(f"/block.{i}/a",))
        for i, r in enumerate(reads)
    )  # fmt: skip
    return replace(example_run(), layers=layers, first_divergence=("/block.2/MatMul",))


AT = "document.activeElement.getAttribute('href')"


def test_the_layer_graph_is_one_tab_stop_and_arrows_walk_along_its_lines(show: Any) -> None:
    page = show(branched())
    assert page.evaluate("document.querySelectorAll('#graph a.node[tabindex=\"0\"]').length") == 1
    page.locator("#graph a.node").first.focus()
    walked = []
    for key in ("ArrowDown", "ArrowRight", "ArrowDown", "ArrowUp", "End", "Home", "ArrowUp"):
        page.keyboard.press(key)
        walked.append(page.evaluate(AT).rsplit("-", 1)[-1])
    assert walked == ["1", "2", "3", "1", "3", "0", "0"]
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("/block.0/MatMul, accumulated")
    tip = page.locator("#graph-picture .tip")
    assert "/block.0/a" in tip.inner_text()
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.closest('tr').id") == "layers-table-1"


def test_a_box_tells_its_layer_lights_its_lines_and_leads_to_its_row(show: Any) -> None:
    for width in (1280, 390):
        page = show(branched(), width)
        node = page.locator("#graph a.node").nth(3)
        node.scroll_into_view_if_needed()
        node.hover()
        tip = page.locator("#graph-picture .tip")
        assert "/block.3/MatMul" in tip.inner_text() and "Accumulated 0.1" in tip.inner_text()
        assert page.evaluate("document.querySelectorAll('#graph .edge.lit').length") == 2
        box, around = tip.bounding_box(), page.locator("#graph").bounding_box()
        assert box["x"] >= around["x"] and box["x"] + box["width"] <= around["x"] + around["width"] + 1
        node.click()
        assert page.evaluate("document.querySelector('tr.chosen').id") == "layers-table-3"
        assert not tip.is_visible()


def test_without_script_the_graph_is_links_with_titles(show: Any) -> None:
    page = show(branched(), scripts=False)
    node = page.locator("#graph a.node").nth(2)
    assert (node.locator("title").text_content() or "").startswith(
        "/block.2/MatMul, accumulated 0.01, first divergence"
    )
    node.click()
    assert page.url.endswith("#layers-table-2")


def test_two_results_are_walked_through_filtered_and_opened(show: Any) -> None:
    page = show(examples()["diff-results"])
    rows = "[...document.querySelectorAll('#parts-table tbody tr')].filter(r => !r.hidden).map(r => r.id)"
    stage = page.locator("[data-plot=parts-table]")
    stage.focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    assert "Change worse, by itself; starts" in stage.get_attribute("aria-valuetext")
    assert "/norm/ReduceMean" in page.locator("#pair-picture .tip").inner_text()
    page.keyboard.press("Enter")
    opened = page.locator("#parts-table-1 details[open]")
    assert "fused as rms_norm" in opened.inner_text() and "compared at" in opened.inner_text()
    page.locator("#parts-table th button").nth(4).click()
    assert page.evaluate(rows) == ["parts-table-1", "parts-table-2", "parts-table-0"]  # by ratio


def test_a_long_table_is_laid_out_when_it_is_needed_and_rows_are_found_in_it(show: Any) -> None:
    page = show(result_of(100))
    stage = page.locator("[data-plot]")
    stage.focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    row = page.locator("#layers-table-99")
    assert row.evaluate("r => r.contains(document.activeElement)")
    box = row.bounding_box()
    assert box["y"] >= 0 and box["y"] + box["height"] <= 900, "in view"
    page.emulate_media(media="print")
    assert page.locator("#layers-table").bounding_box()["height"] > 100 * 12, "on paper, all of it"
