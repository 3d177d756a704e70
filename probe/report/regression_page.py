"""A ``RegressionResult`` as terminal text: what got worse, what got better, what is computed otherwise, what came and went."""

from __future__ import annotations

from collections.abc import Sequence

from probe.report.diff_facts import fact_lines
from probe.report.numbers import count, number
from probe.report.regression_facts import (
    change_of,
    finding_in_words,
    how_changed,
    largest_change,
    moved_findings,
    next_steps,
    ordered,
    regression_facts,
    regression_sentence,
    start_sentence,
)
from probe.report.steps import step_lines
from probe.report.text import Column, Page, elide, fitted, sections, table, wrap
from probe.report.words import more_reasons, sentence, verdict_lines
from probe.results.regression import PartChange, RegressionResult, TensorChange


def regression_page(result: RegressionResult, page: Page, *, rows: int = 10, verbose: bool = False) -> list[str]:
    """The whole page. ``rows`` bounds each table, ``verbose`` lifts the bound and lists tensors beside parts."""
    rows = max(len(result.changes), len(result.parts), len(result.kept), len(result.findings)) if verbose else rows
    shown = [c for c in result.changes if c.role == "output" or verbose or not result.parts]
    return sections(
        _headline(result, page),
        step_lines(next_steps(result), page),
        *_tensors(shown, page, rows, noun="output" if result.parts and not verbose else ""),
        *(_parts(result, status, page, rows) for status in ("worse", "better")),
        _findings(result, page, rows),
        _kept(result, page, rows),
        _settings(result, page),
        fact_lines(regression_facts(result), page),
    )


def _headline(result: RegressionResult, page: Page) -> list[str]:
    lines = verdict_lines(result.verdict, regression_sentence(result), page)
    for warning in result.warnings:
        lines += wrap(sentence(warning), page.width, first="  NOTE    ")
    lines += more_reasons(result.reasons, page)
    start = start_sentence(result)
    return lines + (wrap(start, page.width, first="  and     ") if start else [])


# --- tables


def _tensors(changes: Sequence[TensorChange], page: Page, rows: int, *, noun: str) -> list[list[str]]:
    parts: list[list[str]] = []
    for status, title in (("worse", "got worse"), ("better", "got better")):
        chosen = sorted((c for c in changes if c.status == status), key=largest_change, reverse=True)
        if chosen:
            named = f"{noun}s that {title}" if noun else title
            parts.append(_table(named, chosen, page, rows))
    for status, title in (("only_before", "only before"), ("only_after", "only after")):
        gone = [c for c in changes if c.status == status]
        if gone:
            lines = [page.paint(f"{title}: {count(len(gone), noun or 'tensor')}", "bold")]
            lines += ["  " + elide(c.name, page.width - 2) for c in gone[:rows]]
            parts.append(lines + ([f"  and {len(gone) - rows} more (-v)"] if len(gone) > rows else []))
    return parts


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


def _parts(result: RegressionResult, status: str, page: Page, rows: int) -> list[str]:
    """Errors at the tensors that both sides write, what the layers add by themselves, and what they are computed with otherwise."""
    chosen = ordered(result.parts, status)
    if not chosen:
        return []
    many = f" ({rows} of {len(chosen)})" if len(chosen) > rows else ""
    cells = [
        (one.name, number(one.before), number(one.after), number(one.own_before), number(one.own_after), change_of(one))
        for one in chosen[:rows]
    ]
    columns = [
        Column(f"got {status}{many}", 0, "<"), Column("before", 8), Column("after", 8), Column("own", 8), Column("own now", 8),
        fitted("", (row[5] for row in cells), align="<", most=18),
    ]  # fmt: skip
    lines = table(columns, cells, page)
    grouped: dict[str, list[PartChange]] = {}
    for one in chosen[:rows]:
        grouped.setdefault("; ".join(how_changed(one, result)), []).append(one)
    for how, which in grouped.items():
        if how:
            who = "all" if len(which) == len(cells) else ", ".join(elide(one.name, 40) for one in which[:3])
            more = f" and {len(which) - 3} more" if who != "all" and len(which) > 3 else ""
            lines += wrap(f"{how}: {who}{more}", page.width, first="  ", rest="    ")
    return lines


def _findings(result: RegressionResult, page: Page, rows: int) -> list[str]:
    lines: list[str] = []
    for title, findings in zip(("noticed now, not before", "no longer noticed"), moved_findings(result), strict=True):
        if findings:
            lines.append(page.paint(title, "bold"))
            lines += [line for one in findings[:rows] for line in wrap(finding_in_words(one), page.width, first="  - ")]
            lines += [f"  and {len(findings) - rows} more (-v)"] if len(findings) > rows else []
    return lines


def _kept(result: RegressionResult, page: Page, rows: int) -> list[str]:
    lines: list[str] = []
    for status, title in (("only_after", "must stay FP32 now, not before"), ("only_before", "need not stay FP32 any more"),
                          ("same", "must stay FP32 as before")):  # fmt: skip
        names = [one.name for one in result.kept if one.status == status]
        if names:
            lines.append(page.paint(f"{title}: {count(len(names))}", "bold"))
            lines += ["  " + elide(name, page.width - 2) for name in names[:rows]]
            lines += [f"  and {len(names) - rows} more (-v)"] if len(names) > rows else []
    return lines


def _settings(result: RegressionResult, page: Page) -> list[str]:
    lines = [page.paint("not the same on both sides", "bold")] if result.settings else []
    for one in result.settings:
        lines += wrap(f"{sentence(one.name)}: {sentence(one.before)} -> {sentence(one.after)}", page.width, first="  ")
    return lines
