"""Reports in a real browser: no console message, no request, and what scripts promise works. Skipped without Playwright and a Chromium."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from probe.report.html.page import html_page
from probe.results.publish import example_layer, example_run, examples
from tests.report.test_html import HOSTILE
from tests.report.test_pages import _renamed

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = os.environ.get("PROBE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium: install one, or name it in PROBE_CHROMIUM", allow_module_level=True)

ROWS = "[...document.querySelectorAll('#layers-table tbody tr')].filter(r => !r.hidden)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Open a result as a page; whatever it says on the console or asks the network for fails the test."""
    noticed: list[str] = []
    contexts: list[Any] = []

    def opened(result: Any, width: int = 1280, scheme: str = "light") -> Any:
        file = tmp_path / "page.html"
        file.write_text(html_page(result), encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: noticed.append(message.text))
        page.on("pageerror", lambda error: noticed.append(str(error)))
        page.on("dialog", lambda dialog: noticed.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: noticed.append(request.url) if request.url != file.as_uri() else None)
        page.goto(file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert noticed == []


def layered() -> Any:
    errors = [1e-4, 2e-3, 0.2, 0.01, None, math.inf, 0.5, 0.03]
    layers = tuple(
        example_layer(f"/block.{i}/MatMul", accumulated=e, injected=None, nodes=(f"/block.{i}/a", f"/block.{i}/b"), beyond=i == 2,
                      nonfinite=int(e == math.inf))
        for i, e in enumerate(errors)
    )  # fmt: skip
    return replace(example_run(), layers=layers, first_divergence=("/block.2/MatMul",))


@pytest.mark.parametrize("kind", ["run", "find", "diff", "check", "diff-results"])
def test_pages_fit_wide_and_narrow_screens_in_both_colours(kind: str, show: Any) -> None:
    for width, scheme in ((1280, "light"), (390, "dark")):
        page = show(examples()[kind], width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        red, green, blue = page.evaluate(
            "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
        )
        assert (red + green + blue > 600) == (scheme == "light")


def test_hostile_names_do_not_run(show: Any) -> None:
    for hostile in HOSTILE.values():
        page = show(_renamed(example_run(), "/norm/Pow_output_0", hostile))
        assert page.evaluate("document.querySelectorAll('script').length") == 1
        assert "owned" not in page.title()


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
    assert "/block.2/a" in page.locator(".tip").inner_text() and "Flag first" in page.locator(".tip").inner_text()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.closest('tr').id") == "layers-table-2"
    assert page.locator("#layers-table-2 details").get_attribute("open") is not None
    assert not page.locator(".tip").is_visible()


def test_pointing_tells_and_clicking_leads(show: Any) -> None:
    page = show(layered())
    box = page.locator("[data-plot] svg").bounding_box()
    x = box["x"] + box["width"] * (62 + 5.5 * (946 - 62) / 8) / 960
    page.mouse.move(x, box["y"] + 100)
    assert "/block.5/MatMul" in page.locator(".tip").inner_text()
    page.mouse.click(x, box["y"] + 100)
    assert page.evaluate("document.querySelector('tr.chosen').id") == "layers-table-5"


def test_a_link_opens_its_row_and_the_colours_change(show: Any) -> None:
    page = show(layered())
    page.locator(".starts a").first.click()
    page.wait_for_function("document.querySelector('#layers-table-2 details').open")
    colour = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(colour)
    page.get_by_role("button", name="Switch to dark colours").click()
    assert page.evaluate(colour) != before
