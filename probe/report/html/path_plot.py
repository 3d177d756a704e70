"""The path of a search: every evaluation, how far its error was from the limit, and how much was kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

from probe.report.html.element import Markup, element
from probe.report.html.parts import MOST_ROWS, cut_short
from probe.report.html.plot import dots, frame, limit_line, picture, scale_for
from probe.report.html.tables import Column, Row, data_table
from probe.report.numbers import count, number
from probe.results.find import SearchStep

_COLUMNS = (
    Column("Evaluation"),
    Column("#", numeric=True, about="its place in the evaluation log"),
    Column("Kind"),
    Column("Kept", numeric=True, about="how many stay in FP32"),
    Column("Verdict"),
    Column("Margin", numeric=True, about="1 - error / limit: negative where it fails"),
    Column("Error / limit", numeric=True),
)
_FILTERS = {
    "passed": "those that pass",
    "failed": "those that fail",
    "search": "search",
    "probes": "probes",
    "proof": "proof",
}


def path_plot(steps: Sequence[SearchStep]) -> Markup | None:
    """The picture with its legend, above the table of evaluations it stands for."""
    if not steps:
        return None
    said = cut_short(len(steps), "first")
    steps = steps[:MOST_ROWS]
    table = data_table("path-table", count(len(steps), "evaluation"), _COLUMNS, [_row(s) for s in steps], filters=_FILTERS,
                       numbered=True)  # fmt: skip
    listed = element("details", element("summary", f"All {count(len(steps), 'evaluation')}"), table)
    shares = [_share(s) for s in steps]
    if all(share is None for share in shares):
        return element("div", listed, said)  # a program judged, and says yes or no
    scale = scale_for([s for s in shares if s is not None], len(steps), [1.0])
    parts = [*frame(scale, "evaluation, in order"), *limit_line(scale, 1.0, "limit", "fail")]
    for style, passed in (("passes", True), ("fails", False)):
        chosen = [(i, share) for i, (s, share) in enumerate(zip(steps, shares, strict=True)) if s.passed == passed]
        parts.append(dots(scale, chosen, style))
    passing = sum(s.passed for s in steps)
    described = f"{count(len(steps), 'evaluation')} in order, {passing} of which pass: error as a multiple of the limit, logarithmic."
    drawn = picture(
        "path-picture", "Path of the search", described, parts, rows="path-table", scale=scale, noun="evaluation"
    )
    return element("div", element("figure", drawn, element("figcaption", _legend())), listed, said)


def _share(step: SearchStep) -> float | None:
    """Error over limit; Inf for NaN or Inf."""
    return None if step.margin is None else max(0.0, 1.0 - step.margin) if not math.isnan(step.margin) else math.inf


def _row(step: SearchStep) -> Row:
    verdict = "passes" if step.passed else "fails"
    cells = (step.why, str(step.index), step.kind, str(step.kept), verdict, number(step.margin), number(_share(step)))
    return Row(cells, ("passed" if step.passed else "failed", step.kind), "" if step.passed else "failed")


def _legend() -> Markup:
    said = (("passes", "passes: error below the limit"), ("fails", "fails"))
    items = [
        element("li", element("svg", element("path", d="M13 8h0", class_=f"dots {style}"), viewBox="0 0 26 16", class_="sample",
                              aria_hidden="true"), words)
        for style, words in said
    ]  # fmt: skip
    return element("ul", items, class_="legend")
