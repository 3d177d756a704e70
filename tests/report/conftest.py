"""A real browser for pages of reports. Its tests are skipped without Playwright and a Chromium ($PROBE_CHROMIUM, or on PATH)."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from probe.report.html.page import html_page

WIDTHS = ((1280, "light"), (390, "dark"))  # the screens that pages are looked at on


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = os.environ.get("PROBE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium: install one, or name it in PROBE_CHROMIUM")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def contexts(browser: Any) -> dict[tuple[int, str, bool], Any]:
    """Browser windows by width, colours and whether scripts run: opening one takes longer than opening a page in it."""
    return {}


@pytest.fixture
def show(browser: Any, contexts: dict[Any, Any], tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Open a result, or a whole page, in a window of this width; whatever it says on the console or asks the network for fails the test."""
    noticed: list[str] = []
    pages: list[Any] = []

    def opened(result: Any, width: int = 1280, scheme: str = "light", *, scripts: bool = True) -> Any:
        file = tmp_path / f"page-{len(pages)}.html"
        file.write_text(result if isinstance(result, str) else html_page(result), encoding="utf-8")
        key = (width, scheme, scripts)
        if key not in contexts:
            contexts[key] = browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=scripts
            )
        page = contexts[key].new_page()
        pages.append(page)
        page.on("console", lambda message: noticed.append(message.text))
        page.on("pageerror", lambda error: noticed.append(str(error)))
        page.on("dialog", lambda dialog: noticed.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: noticed.append(request.url) if request.url != file.as_uri() else None)
        page.goto(file.as_uri())
        return page

    yield opened
    for page in pages:
        page.close()
    assert noticed == []


@pytest.fixture
def until() -> Callable[[Any, str], None]:
    """Wait until an expression holds. Playwright's own waiting evaluates text inside the page, which the page's policy forbids."""

    def waited(page: Any, expression: str) -> None:
        end = time.monotonic() + 10
        while not page.evaluate(expression):
            assert time.monotonic() < end, f"never: {expression}"
            time.sleep(0.02)

    return waited
