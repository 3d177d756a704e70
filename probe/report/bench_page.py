"""A ``BenchResult`` as terminal text: latency and throughput, what to know first, where the time goes, memory, where it comes from."""

from __future__ import annotations

from collections.abc import Sequence

from probe.report.bench_facts import (
    STATISTICS,
    STYLES,
    WORDS,
    bench_facts,
    bench_sentence,
    caveats,
    duration,
    next_steps,
    percent,
    phases,
    rate,
    slowest,
    three_digits,
)
from probe.report.diff_facts import fact_lines
from probe.report.numbers import count
from probe.report.steps import step_lines
from probe.report.text import Column, Page, fitted, sections, table, wrap
from probe.report.words import headed_lines, sentence
from probe.results.bench import BenchResult, LayerTime


def bench_page(result: BenchResult, page: Page, *, rows: int = 10, verbose: bool = False) -> list[str]:
    """The whole page. ``rows`` bounds the table of layers, ``verbose`` lists all in execution order."""
    return sections(
        bench_headline(result, page),
        _caveats(result, page),
        _times(result, page),
        _layers(result, page, len(result.layers) if verbose else rows, ordered=verbose),
        step_lines(next_steps(result), page),
        fact_lines(bench_facts(result), page),
    )


def bench_headline(result: BenchResult, page: Page) -> list[str]:
    """Median, tail and throughput in one sentence."""
    return headed_lines(WORDS[result.status], STYLES[result.status], bench_sentence(result), page)


def _caveats(result: BenchResult, page: Page) -> list[str]:
    found = caveats(result)
    lines = [page.paint("before these numbers are used", "bold")] if found else []
    for one in found:
        lines += wrap(sentence(one), page.width, first="  - ")
    return lines


def _times(result: BenchResult, page: Page) -> list[str]:
    """In one unit, so that columns can be compared at a glance."""
    scale, unit = (1e3, "ms") if result.latency.median >= 1e-3 else (1e6, "us")
    rows, without = [], []
    for label, spread, why in phases(result):
        if spread is None:
            without += wrap(f"{label}: {why}", page.width, first="  ")
        else:
            rows.append((label, *(three_digits(getattr(spread, one) * scale) for one in STATISTICS)))
    columns = [
        Column(f"times in {unit}", 0, "<"),
        *(fitted(one, [row[at] for row in rows], least=7) for at, one in enumerate(STATISTICS, start=1)),
    ]
    return [*table(columns, rows, page), *without]


def _layers(result: BenchResult, page: Page, rows: int, *, ordered: bool) -> list[str]:
    chosen: Sequence[LayerTime] = slowest(result)
    ran = len(chosen)
    if not ran:
        return []
    chosen = result.layers if ordered else chosen[:rows]
    title = f"{count(len(chosen), 'layer')}, in order" if ordered else (
        f"{len(chosen)} slowest of {count(ran, 'layer')}" if len(chosen) < ran else f"{count(ran, 'layer')}, slowest first"
    )  # fmt: skip
    columns = [
        Column(title, 0, "<"), Column("share", 6), Column("median", 8), Column("GFLOP/s", 7), Column("GB/s", 6), Column("of roof", 7),
        Column("bound", 7, "<"),
    ]  # fmt: skip
    return table(columns, [_row(layer) for layer in chosen], page)


def _row(layer: LayerTime) -> tuple[str, ...]:
    if not layer.runs:
        return (layer.name, "", "not run", "", "", "", "")
    return (
        layer.name, percent(layer.share), duration(layer.median), rate(layer.flops_per_second), rate(layer.bytes_per_second),
        percent(layer.roofline), layer.bound,
    )  # fmt: skip
