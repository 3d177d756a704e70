"""A result as one HTML file: nothing is fetched, nothing in a name runs, and without scripts it still reads."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

from probe.errors import InputError
from probe.report.html.element import Markup, Section, element
from probe.report.text import elide

REPORTED = (  # schemas with a page
    "probe.run/1",
    "probe.find/1",
    "probe.diff/1",
    "probe.check/1",
    "probe.bench/1",
    "probe.regression/1",
    "probe.convert/1",
    "probe.tactics/1",
    "probe.tactics-record/1",
    "probe.tactics-replay/1",
    "probe.tactics-log/1",
    "probe.tactics-diff/1",
    "probe.tactics-bisect/1",
    "probe.tactics-table/1",
    "probe.builds/1",
)


def html_page(result: Any, *, version: str = "") -> str:
    """The whole file of a saved result.

    Args:
        version: of the probe that writes the page, for its foot.

    Raises:
        InputError: a kind of result that has no page.
    """
    parts = [part for part in _parts_of(result) if part is not None]
    head, *rest = parts
    title = f"{_word(result)} {elide(_subject(result), 80)}"
    style, script = _asset("style.css"), _asset("script.js")
    return "".join(
        (
            "<!DOCTYPE html>\n",
            '<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            element("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
            '\n<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<link rel="icon" href="data:,">\n',
            element("title", title),
            f"\n<style>{style}</style>\n</head>\n<body>\n",
            element("a", "Skip to the verdict", href="#verdict", class_="skip"),
            "\n",
            _bar(rest),
            "\n",
            element("main", head, *(Markup(f"\n{part}") for part in rest), id="verdict"),
            "\n",
            element("footer", f"Made by probe {version}".strip()),
            f"\n<script>{script}</script>\n</body>\n</html>\n",
        )
    )


def _parts_of(result: Any) -> list[Markup | None]:
    """By the schema a result names: its module is imported when it is needed."""
    made: Callable[[Any], list[Markup | None]]
    match getattr(result, "schema", None):
        case "probe.run/1":
            from probe.report.html.run_parts import run_parts as made
        case "probe.find/1":
            from probe.report.html.find_parts import find_parts as made
        case "probe.bench/1":
            from probe.report.html.bench_parts import bench_parts as made
        case "probe.check/1":
            from probe.report.html.check_parts import check_parts as made
        case "probe.diff/1":
            from probe.report.html.diff_parts import diff_parts as made
        case "probe.regression/1":
            from probe.report.html.pair_parts import pair_parts as made
        case "probe.convert/1":
            from probe.report.html.convert_parts import convert_parts as made
        case "probe.tactics/1":
            from probe.report.html.tactics_parts import file_parts as made
        case "probe.tactics-record/1":
            from probe.report.html.tactics_parts import record_parts as made
        case "probe.tactics-replay/1":
            from probe.report.html.tactics_parts import replay_parts as made
        case "probe.tactics-log/1":
            from probe.report.html.tactics_parts import log_parts as made
        case "probe.tactics-diff/1":
            from probe.report.html.blame_parts import tactics_diff_parts as made
        case "probe.tactics-bisect/1":
            from probe.report.html.blame_parts import tactics_bisect_parts as made
        case "probe.tactics-table/1":
            from probe.report.html.blame_parts import tactics_table_parts as made
        case "probe.builds/1":
            from probe.report.html.blame_parts import builds_parts as made
        case other:
            raise no_page(other)
    return made(result)


def no_page(schema: object) -> InputError:
    """The error for results that no report is made of."""
    return InputError(
        f"there is no report of a {schema}",
        hint=f"reports are made of {', '.join(REPORTED)}; probe inspect shows the others",
    )


def _word(result: Any) -> str:
    """The verdict, or the status, for the title; what has neither is called by its kind."""
    verdict = (
        getattr(result, "verdict", None) or getattr(result, "status", None) or getattr(_run(result), "verdict", None)
    )
    return (verdict or result.schema.removeprefix("probe.").split("/")[0]).replace("_", " ").upper()


def _subject(result: Any) -> str:
    """The model, where one is known; else the file, or the kind of result."""
    known = (getattr(_run(result), "model", ""), getattr(result, "after", ""), getattr(result, "log", ""))
    return next((one for one in known if one), result.schema.removeprefix("probe.").split("/")[0])


def _run(result: Any) -> Any:
    """What was run: the result itself, or the run inside of a recorded or replayed one."""
    return getattr(result, "run", result)


def _bar(parts: list[Markup]) -> Markup:
    """Links to the parts; the script adds the choice of light and dark."""
    links = [element("a", part.heading, href=f"#{part.identity}") for part in parts if isinstance(part, Section)]
    return element("nav", element("div", links, class_="links"), class_="bar", aria_label="Parts of this report")


def _policy(style: str, script: str) -> str:
    """Only this style and this script; no request to anywhere. A second lock behind the escaping of names."""
    return f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; img-src data:; base-uri 'none'; form-action 'none'"


def _digest(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


@cache
def _asset(file: str) -> str:
    return files("probe.report.html").joinpath(file).read_text(encoding="utf-8").strip()
