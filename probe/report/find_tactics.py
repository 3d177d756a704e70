"""The part of a find page that is about tactics: which choices of the tactic file had to be more accurate."""

from __future__ import annotations

from probe.report.numbers import count, number
from probe.report.text import Column, Page, table, wrap
from probe.results.find import FindResult


def tactics_lines(result: FindResult, page: Page, rows: int) -> list[str]:
    """Empty where no tactic file was given."""
    if not result.tactics:
        return []
    if not result.switches:
        return wrap("every choice of the tactic file stays", page.width, first="tactics      ")
    shown = result.switches[:rows]
    columns = [
        Column("more accurate tactics", 0, "<"),
        Column("from", 14, "<"),
        Column("to", 14, "<"),
        Column("us more", 9),
    ]
    lines = table(columns, [(one.layer, one.before, one.after, number(one.cost_us)) for one in shown], page)
    if len(result.switches) > len(shown):
        lines.append(f"  and {count(len(result.switches) - len(shown), 'more layer')} (-v)")
    return lines
