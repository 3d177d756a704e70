"""A measurement in Markdown: the numbers one asks for first, times, the slowest layers."""

from __future__ import annotations

from probe.report.bench_facts import (
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
)
from probe.report.markdown_text import ROWS, code, prose, table, to_do, verdict
from probe.results.bench import BenchResult

_SHOWN = ("min", "median", "p90", "p99", "max")
_FACTS = ("measured", "layers", "ceilings", "memory")


def bench_parts(result: BenchResult) -> list[list[str]]:
    """The parts in their order."""
    what = f"`probe bench` of {code(result.model)}: {prose(result.device)}"
    times = [
        (label, *(duration(getattr(spread, one)) for one in _SHOWN))
        for label, spread, _ in phases(result)
        if spread is not None
    ]
    layers = slowest(result)
    rows = [
        (code(one.name), duration(one.median), percent(one.share), rate(one.flops_per_second), rate(one.bytes_per_second), percent(one.roofline))
        for one in layers[:ROWS]
    ]  # fmt: skip
    said = dict(bench_facts(result))
    return [
        verdict(WORDS[result.status], bench_sentence(result), what, caveats(result)),
        table(("phase", *_SHOWN), times, 0),
        table(("layer", "median", "share", "GFLOP/s", "GB/s", "of roof"), rows, len(layers) - len(rows)),
        [f"- {label}: {prose(said[label])}" for label in _FACTS if label in said],
        to_do(next_steps(result)),
    ]
