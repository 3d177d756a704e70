"""The operators the engine knows, or those of a model, as terminal text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from probe.report.numbers import count
from probe.report.text import Column, Page, elide, escape, fitted, table, wrap
from probe.results.ops import FallbackReport, OpReport, OpsResult

_RUNS = {
    "kernel": "kernel",
    "function": "function body",
    "reference": "onnx reference",
    "weight": "a weight",
    "none": "nothing",
}

_COUNTED = {
    "kernel": "with a kernel",
    "function": "by function body",
    "reference": "on onnx's reference implementation",
    "weight": "made a weight",
    "none": "that nothing runs",
}


_BY = {
    "reference": "runs on onnx's reference implementation, slowly",
    "cpu": "runs on the CPU",
    "nothing": "cannot run",
}


def ops_page(result: OpsResult, page: Page, *, rows: int = 40, verbose: bool = False) -> list[str]:
    """The table of operators; for a model first what falls back, with the reason. ``rows`` bounds each table, ``verbose`` lifts the bound."""
    rows = 1 << 30 if verbose else rows
    if not result.model:
        rows = 1 << 30  # it is the table that was asked for
    of = f" of {escape(result.model)}" if result.model else f" of the ONNX standard at opset {result.opset}"
    lines = [page.paint(f"{count(len(result.ops), 'operator')}{of}", "bold")]
    lines += wrap(f"{escape(result.device)}; {_summary(result)}", page.width, first=f"{'runs on':<12}")
    if result.model:
        lines += ["", *_fallbacks(result.fallbacks, page, rows)]
    lines += ["", *_operators(result.ops, page, rows, of_model=bool(result.model))]
    return lines


def _summary(result: OpsResult) -> str:
    counts = Counter(one.runs for one in result.ops)
    return ", ".join(f"{count(counts[runs])} {said}" for runs, said in _COUNTED.items() if counts[runs])


def _fallbacks(fallbacks: Sequence[FallbackReport], page: Page, rows: int) -> list[str]:
    if not fallbacks:
        return ["every layer has a kernel"]
    lines = [page.paint(f"{count(len(fallbacks), 'layer')} without a kernel", "yellow", "bold")]
    for one in fallbacks[:rows]:
        by = _BY[one.by]
        lines += wrap(f"{elide(one.layer, 48)}: {by}: {escape(one.reason)}", page.width, first="  ", rest="    ")
    return lines if len(fallbacks) <= rows else [*lines, f"  and {len(fallbacks) - rows} more (-v)"]


def _operators(ops: Sequence[OpReport], page: Page, rows: int, *, of_model: bool) -> list[str]:
    cells_of = [
        (
            one.op if not one.domain else f"{one.domain}.{one.op}",
            *((str(one.nodes),) if of_model else ()),
            str(one.since or ""),
            one.kind,
            one.numerics,
            _RUNS[one.runs],
            ", ".join(one.tactics),
        )
        for one in ops
    ]
    titles = ("nodes",) if of_model else ()
    columns = [Column("operator", 0, "<")]
    for at, title in enumerate((*titles, "since", "kind", "numerics", "run by", "tactics"), 1):
        right = title in ("nodes", "since")
        columns.append(fitted(title, (row[at] for row in cells_of), align=">" if right else "<", most=20))
    lines = table(columns, cells_of[:rows], page)
    return lines if len(ops) <= rows else [*lines, f"  and {len(ops) - rows} more (-v)"]
