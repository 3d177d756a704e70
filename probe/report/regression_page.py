"""A ``RegressionResult`` as terminal text: what got worse, what got better, what came and went."""

from __future__ import annotations

import math
from collections.abc import Sequence

from probe.report.numbers import count, number
from probe.report.text import Column, Page, elide, escape, table, wrap
from probe.report.words import WORDS, sentence, verdict_lines
from probe.results.diff import RegressionResult, TensorChange


def regression_page(result: RegressionResult, page: Page, *, rows: int = 10, verbose: bool = False) -> list[str]:
    """The whole page. ``rows`` bounds each table, ``verbose`` lifts the bound."""
    rows = len(result.changes) if verbose else rows
    lines = verdict_lines(result.verdict, regression_sentence(result), page)
    for reason in result.reasons[1:6]:
        lines += wrap(sentence(reason), page.width, first="  and     ")
    for status, title in (("worse", "got worse"), ("better", "got better")):
        changes = sorted((c for c in result.changes if c.status == status), key=largest_change, reverse=True)
        if changes:
            lines += ["", *_table(title, changes, page, rows)]
    for status, title in (("only_before", "only before"), ("only_after", "only after")):
        gone = [c for c in result.changes if c.status == status]
        if gone:
            lines += ["", page.paint(f"{title}: {count(len(gone), 'tensor')}", "bold")]
            lines += ["  " + elide(c.name, page.width - 2) for c in gone[:rows]]
            lines += [f"  and {len(gone) - rows} more (-v)"] if len(gone) > rows else []
    same = sum(1 for c in result.changes if c.status == "same")
    facts = [
        ("tensors", f"{count(same)} as before, {count(len(result.changes) - same)} changed"),
        ("before", f"{escape(result.before)}: {WORDS[result.verdict_before].lower()}"),
        ("after", f"{escape(result.after)}: {WORDS[result.verdict_after].lower()}"),
        (
            "worse means",
            f"range_rel more than {result.worse_factor:g} times larger (--worse-factor), or a worse verdict",
        ),
    ]
    lines.append("")
    return lines + [line for label, text in facts for line in wrap(text, page.width, first=f"{label:<12}")]


def regression_sentence(result: RegressionResult) -> str:
    """What decided, or how many tensors moved."""
    if result.reasons:
        return sentence(result.reasons[0])
    worse = sum(1 for c in result.changes if c.status == "worse")
    better = sum(1 for c in result.changes if c.status == "better")
    return f"{count(worse, 'tensor')} worse, {better} better than before"


def largest_change(change: TensorChange) -> tuple[bool, float, float]:
    """Sort key, descending, within one status: outputs, then the largest change for the worse (or the better), then the error itself."""
    ratio = change.ratio if change.ratio is not None and not math.isnan(change.ratio) else math.inf
    size = change.after if change.after is not None and not math.isnan(change.after) else math.inf
    return (change.role == "output", -ratio if change.status == "better" else ratio, size)


def _table(title: str, changes: Sequence[TensorChange], page: Page, rows: int) -> list[str]:
    named = title if len(changes) <= rows else f"{title} ({rows} of {len(changes)})"
    columns = [
        Column(named, 0, "<"),
        Column("before", 9),
        Column("after", 9),
        Column("ratio", 9),
        Column("verdict", 17, "<"),
    ]
    cells = []
    for c in changes[:rows]:
        verdict = "" if c.verdict_after is None else c.verdict_after.replace("_", " ")
        if c.verdict_before is not None and c.verdict_before != c.verdict_after and c.verdict_after is not None:
            verdict = f"{c.verdict_before.replace('_', ' ')}>{verdict}"
        cells.append((c.name, number(c.before), number(c.after), number(c.ratio), verdict))
    return table(columns, cells, page)
