"""The page of a check: what breaks, what may, advice, each with what becomes of it and its cure."""

from __future__ import annotations

from probe.report.check_page import WORDS, check_facts, check_sentence, next_steps, where_seen
from probe.report.html.element import Child, Markup, element, name, section
from probe.report.html.parts import MOST_ROWS, behind, facts, names, provenance, to_do, verdict
from probe.report.html.tables import Column, Row, data_table
from probe.report.numbers import count, number
from probe.report.words import sentence
from probe.results.check import CheckFinding, CheckResult

_COLUMNS = (
    Column("Finding"),
    Column("Level"),
    Column("Rule"),
    Column("Margin", numeric=True, about="the format's maximum over the largest magnitude: below 1 it overflows"),
    Column("At output", numeric=True, about="error it alone makes at an output, over that output's range"),
    Column("Alike", numeric=True, about="how many more are like it", optional=True),
)
_LEVELS = {"error": "breaks", "warning": "may break", "lint": "advice"}
_MARKS = {"error": "failed", "warning": "warned", "lint": ""}
_VERDICTS = {"clean": "passed", "warnings": "warned", "errors": "failed"}


def check_parts(result: CheckResult) -> list[Markup | None]:
    """The parts in their order on the page."""
    several = len(result.inputs) > 1
    rows = [_row(one, several=several) for one in result.findings[:MOST_ROWS]]
    table = data_table("findings-table", count(len(rows), "finding"), _COLUMNS, rows, filters=_LEVELS)
    return [
        verdict(_VERDICTS[result.verdict], WORDS[result.verdict], check_sentence(result), (),
                ("probe check", result.model, result.precision)),
        to_do(next_steps(result)),
        section("findings", "Findings", table if rows else None,
                about="Open one for where it is, what becomes of it downstream, and what to try."),
        provenance(check_facts(result), result.model_sha256, result.command, result.environment),
    ]  # fmt: skip


def _row(one: CheckFinding, *, several: bool) -> Row:
    said: list[tuple[str, Child]] = [
        ("where", where_seen(one, several=several)),
        ("then", one.downstream),
        ("try", one.cure),
        ("tensor", name(one.tensor) if one.tensor else None),
        ("node", [name(one.node), f" ({one.op})" if one.op else ""] if one.node else None),
        ("keep", names(one.keep)),
        ("like it", names(one.like)),
    ]
    alike = str(len(one.like)) if one.like else ""
    error = number(one.output_error) if one.output_error is not None else ""
    margin = number(one.margin) if one.margin is not None else ""
    opened = behind(element("span", sentence(one.message)), facts(said))
    return Row(
        (opened, _LEVELS[one.level], one.rule.replace("_", " "), margin, error, alike), (one.level,), _MARKS[one.level]
    )
