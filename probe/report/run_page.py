"""A ``RunResult`` as terminal text: verdict, why, what to do, outputs, the layers where error arises, where it all came from."""

from __future__ import annotations

from collections.abc import Sequence

from probe.report.diff_facts import fact_lines
from probe.report.diff_page import headline
from probe.report.diff_tables import tables
from probe.report.numbers import count, number
from probe.report.run_facts import run_facts
from probe.report.run_steps import next_steps
from probe.report.steps import step_lines
from probe.report.text import Column, Page, elide, escape, sections, table, wrap
from probe.report.words import more_reasons, verdict_lines, why_not_compared
from probe.results.diff import DiffResult
from probe.results.run import LayerError, RunFinding, RunResult

_FATAL_SHOWN = 6
_NOTES_SHOWN = 5
_TIGHT = 4.0  # a format's maximum over the range: with less headroom it is worth saying
_LONG = 120  # cells of a word that a finding shows whole: names are what one copies from it


def run_page(result: RunResult, page: Page, *, rows: int = 10, verbose: bool = False) -> list[str]:
    """The whole page. ``rows`` bounds each table, ``verbose`` lifts the bound and adds what was not compared."""
    rows = max(len(result.layers), len(result.tensors)) if verbose else rows
    return sections(
        [*run_headline(result, page), *more_reasons(result.reasons, page, 4)],
        _causes(result, page, verbose=verbose),
        step_lines(next_steps(result), page),
        tables(as_diff(result), page, rows),
        _layers(result, page, rows),
        _notes(result, page, verbose=verbose),
        _not_compared(result, page) if verbose else [],
        fact_lines(run_facts(result), page),
    )


def run_headline(result: RunResult, page: Page) -> list[str]:
    """The verdict in one sentence."""
    return verdict_lines(result.verdict, run_sentence(result), page)


def run_sentence(result: RunResult) -> str:
    """Why the verdict is what it is, with numbers."""
    return f"{result.precision}: {headline(as_diff(result))}"


def as_diff(result: RunResult) -> DiffResult:
    """The outputs of a run as a diff: what pages of diffs show of outputs holds for runs, too."""
    return DiffResult(
        verdict=result.verdict, reasons=result.reasons, actual=result.golden.source, golden=result.golden.source,
        acceptance=result.acceptance, tensors=tuple(t for t in result.tensors if t.role == "output"), first_divergence=(),
        findings=(), suggestions=(),
    )  # fmt: skip


# --- why


def _causes(result: RunResult, page: Page, *, verbose: bool) -> list[str]:
    fatal = [f for f in result.findings if f.fatal]
    shown = fatal if verbose else fatal[:_FATAL_SHOWN]
    lines = [page.paint("why", "bold")] if fatal else []
    for position, finding in enumerate(shown, start=1):
        lines += _finding(finding, page, f"  {position}. ")
    if len(fatal) > len(shown):
        lines.append(f"  and {count(len(fatal) - len(shown), 'more cause')} (-v)")
    return lines


def _finding(finding: RunFinding, page: Page, label: str) -> list[str]:
    lines = wrap(_whole(finding.message), page.width, first=label)
    indent = " " * len(label)
    if where := where_found(finding):
        lines += wrap(_whole(where), page.width, first=f"{indent}where ", rest=indent + "      ")
    if finding.cure:
        lines += wrap(_whole(finding.cure), page.width, first=f"{indent}try   ", rest=indent + "      ")
    return lines


def where_found(finding: RunFinding) -> str:
    """Elements, headroom and layer of a finding, as far as they are known."""
    facts = [finding.where] if finding.where else []
    if finding.margin is not None and 1 <= finding.margin < _TIGHT:  # below 1, the message has both numbers
        facts.append(f"its range is {number(1 / finding.margin)} of the largest number of the format")
    if finding.layer and finding.layer != finding.node:
        facts.append(f"in layer {finding.layer}")
    return "; ".join(facts)


def _whole(text: str) -> str:
    return " ".join(elide(word, _LONG) if word else "" for word in escape(text).split(" "))


def _notes(result: RunResult, page: Page, *, verbose: bool) -> list[str]:
    harmless = [f for f in result.findings if not f.fatal]
    shown = harmless if verbose else harmless[:_NOTES_SHOWN]
    lines = [page.paint("also noticed", "bold")] if harmless else []
    for finding in shown:
        lines += wrap(("harmless: " if finding.keep else "") + _whole(finding.message), page.width, first="  - ")
        if verbose and finding.cure:
            lines += wrap(_whole(finding.cure), page.width, first="    try ")
    if len(harmless) > len(shown):
        lines.append(f"  and {count(len(harmless) - len(shown), 'more note')} (-v)")
    return lines


# --- layers


def _layers(result: RunResult, page: Page, rows: int) -> list[str]:
    candidates = [layer for layer in result.layers if layer.note != "not selected"]
    measured = [layer for layer in candidates if layer.accumulated is not None or layer.injected is not None]
    if not measured:
        return []
    chosen = _chosen(result, measured, rows)
    title = (
        "layers, in order" if len(chosen) == len(measured) else f"{len(chosen)} of {len(measured):,} layers, in order"
    )
    columns = [
        Column(title, 0, "<"), Column("accum.", 9), Column("injected", 9), Column("local", 9), Column("gain", 7), Column("flag", 7, "<"),
    ]  # fmt: skip
    first = set(result.first_divergence)
    cells = [
        (
            x.name,
            number(x.accumulated),
            number(x.injected),
            number(x.local),
            number(x.gain),
            layer_flag(x, result, first),
        )
        for x in chosen
    ]
    lines = table(columns, cells, page)
    for position, layer in enumerate(chosen, start=1):
        if layer.name in first or layer.nonfinite:
            lines[position] = page.paint(lines[position], "red" if layer.name in first else "yellow")
    return lines


def layer_flag(layer: LayerError, result: RunResult, first: set[str]) -> str:
    """One word: where it starts, what it lets through, or what else is special about it."""
    if layer.name in first:
        return "first"
    if layer.beyond:
        return "NaN/Inf" if layer.nonfinite else "over"
    return layer.precision if layer.precision != result.precision else ""


def _chosen(result: RunResult, layers: Sequence[LayerError], rows: int) -> list[LayerError]:
    """The first divergences with the layers they read from, then the largest contributions, then outputs; in execution order."""
    if len(layers) <= rows:
        return list(layers)
    by_name = {layer.name: layer for layer in layers}
    makers = {output: layer.name for layer in layers for output in layer.outputs}
    wanted: dict[str, None] = {}
    for name in result.first_divergence[:3]:
        if name in by_name:
            before = [makers[read] for read in by_name[name].reads if read in makers]
            wanted.update(dict.fromkeys([name, *before[:2]]))
    if not result.first_divergence:
        outputs = [makers[name] for name in result.outputs if name in makers]
        wanted.update(dict.fromkeys(outputs[:2]))
    for layer in sorted(layers, key=lambda x: -(x.injected or 0.0)):
        wanted[layer.name] = None
    names = set(list(wanted)[:rows])
    return [layer for layer in layers if layer.name in names]


# --- the foot


def _not_compared(result: RunResult, page: Page) -> list[str]:
    rest = [t for t in result.tensors if t.metrics is None and t.status not in ("compared", "extra")]
    lines = [page.paint("not compared", "bold")] if rest else []
    for tensor in rest:
        text = f"{elide(tensor.name, 40)}: {tensor.status.replace('_', ' ')}, {why_not_compared(tensor)}"
        lines += wrap(text, page.width, first="  ", rest="    ")
    return lines
