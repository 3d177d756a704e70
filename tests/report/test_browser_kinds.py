"""Every kind of page in a real browser: it fits, reads, prints, is walked through by keyboard, and shows hostile names without obeying them."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from probe.report.html.page import html_page
from probe.results.publish import examples
from tests.report.conftest import WIDTHS
from tests.report.test_detail import RESULT as JUDGED
from tests.report.test_html import HOSTILE, KINDS

LOOKS = (Path(__file__).parent / "browser_looks.js").read_text(encoding="utf-8")
PAPER = 718  # CSS pixels of A4 between margins of 1 cm
RESULTS = {**{kind: examples()[kind] for kind in KINDS}, "pictures": JUDGED}
HOSTILE_ALL = "".join(one for key, one in HOSTILE.items() if key not in ("300", "long", "combining")) + "x" * 300


def look(page: Any, what: str) -> Any:
    """One of the functions of ``browser_looks.js``."""
    return page.evaluate(f"{LOOKS.strip()}.{what}()")


def open_all(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")


@pytest.mark.parametrize("kind", RESULTS)
def test_a_page_fits_and_is_legible_in_both_colours(kind: str, show: Any) -> None:
    for width, scheme in WIDTHS:
        page = show(RESULTS[kind], width, scheme)
        for opened in (False, True):
            if opened:
                open_all(page)
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert look(page, "faint") == []
            whole = "[...document.querySelectorAll('.command pre')].every(p => p.scrollWidth <= p.clientWidth)"
            assert page.evaluate(whole), "one reads a command without scrolling sideways"
        assert look(page, "unnamed") == []
        red, green, blue = page.evaluate(
            "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
        )
        assert (red + green + blue > 600) == (scheme == "light")


@pytest.mark.parametrize("kind", RESULTS)
def test_a_printed_page_loses_nothing(kind: str, show: Any) -> None:
    page = show(RESULTS[kind], PAPER, "dark")
    open_all(page)
    page.emulate_media(media="print", color_scheme="dark")
    assert look(page, "cut") == []
    assert look(page, "faint") == []
    page.emulate_media(media="print", color_scheme="light")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


@pytest.mark.parametrize("kind", RESULTS)
def test_the_tab_key_stops_at_everything_once_in_the_order_of_the_page(kind: str, show: Any) -> None:
    page = show(RESULTS[kind])
    expected = look(page, "stops")
    seen = []
    for _ in range(expected):
        page.keyboard.press("Tab")
        place, ringed = page.evaluate(
            "(() => { const e = document.activeElement, s = getComputedStyle(e);"
            " return [[...document.querySelectorAll('*')].indexOf(e), s.outlineStyle !== 'none' || e.matches('.skip, .node')]; })()"
        )
        assert ringed, "one sees where one is"
        seen.append(place)
    assert seen == sorted(set(seen)), "in order, none twice"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement === document.body || document.activeElement.matches('.skip')"), (
        "and out"
    )


@pytest.mark.parametrize("kind", RESULTS)
def test_every_table_sorts_by_every_column_and_filters(kind: str, show: Any) -> None:
    page = show(RESULTS[kind])
    open_all(page)
    assert look(page, "unsorted") == []
    for search in page.locator("[data-filter]").all():
        identity = search.get_attribute("data-filter")
        search.fill("\u2603 stands nowhere")
        assert page.evaluate(f"[...document.querySelectorAll('#{identity} tbody tr')].every(r => r.hidden)")
        assert (page.locator(f"[data-shown={identity}]").text_content() or "").startswith("0 of ")
        search.fill("")
        assert page.evaluate(f"[...document.querySelectorAll('#{identity} tbody tr')].every(r => !r.hidden)")


def poisoned(value: Any, hint: Any, hostile: str, field: str = "") -> Any:
    """The same result with every free text made hostile; words of a fixed vocabulary stay, else it would not be a result."""
    if field in FIXED or get_origin(hint) is Literal:
        return value
    if isinstance(value, str):
        return value and value + hostile  # the empty one says that there is nothing
    if isinstance(value, tuple):
        inner = [one for one in get_args(hint) if one is not Ellipsis]
        return tuple(poisoned(one, inner[0] if len(inner) == 1 else None, hostile) for one in value)
    if isinstance(value, dict):
        return {poisoned(k, str, hostile): poisoned(v, None, hostile) for k, v in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        hints = get_type_hints(type(value))
        changed = {f.name: poisoned(getattr(value, f.name), hints[f.name], hostile, f.name) for f in fields(value)}
        return replace(value, **changed)
    return value


FIXED = frozenset(("schema", "images", "format"))


@pytest.mark.parametrize("kind", RESULTS)
def test_hostile_text_everywhere_is_shown_and_does_not_run(kind: str, show: Any) -> None:
    plain = RESULTS[kind]
    tags = ("script", "img", "iframe", "style", "section", "table", "form")
    calm = html_page(plain)
    for width, scheme in WIDTHS:
        page = show(poisoned(plain, type(plain), HOSTILE_ALL), width, scheme)
        counted = page.evaluate("tags => tags.map(t => document.querySelectorAll(t).length)", tags)
        assert counted == [len(re.findall(rf"<{tag}[ >]", calm)) for tag in tags]
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(
            "[...document.querySelectorAll('*')].every(e => [...e.attributes].every(a => !a.name.startsWith('on')))"
        )
        assert "<script>document.title='owned'</script>" in page.locator("main").text_content()
        assert page.title() != "owned"
