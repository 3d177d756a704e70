"""The tables of a diff page: outputs, the worst tensors inside, every metric, tolerances."""

from __future__ import annotations

import math
from collections.abc import Sequence

from probe.report.numbers import cosine, count, number, shape
from probe.report.text import Column, Page, cells, elide, table, wrap
from probe.report.words import nonfinite, why_not_compared
from probe.results.diff import DiffResult, TensorDiff


def severity(tensor: TensorDiff) -> tuple[float, float, float]:
    """Sort key, worst first when descending: NaN and Inf the golden lacks, then range_rel, then the angle."""
    m = tensor.metrics
    if m is None:
        return (-1.0, 0.0, 0.0)
    error = math.inf if math.isnan(m.range_rel) else m.range_rel
    angle = 1.0 if math.isnan(m.cosine) else 1.0 - m.cosine
    return (float(m.nonfinite_mismatch > 0), error, angle)


def flag(tensor: TensorDiff) -> str:
    """One word: what is wrong with a compared tensor, most serious first."""
    m = tensor.metrics
    if m is not None and m.nonfinite_mismatch:
        return "NaN" if m.nan_actual > m.nan_golden else "Inf" if m.inf_actual > m.inf_golden else "finite"
    if tensor.verdict == "failed":
        return "FAIL"
    if tensor.verdict == "warned":
        return "warn"
    if tensor.beyond:
        return "over"
    return "mask" if m is not None and m.sentinels else ""


def tables(result: DiffResult, page: Page, rows: int) -> list[str]:
    """Outputs with remarks, then the worst tensors inside; ``rows`` bounds each."""
    compared = sorted((t for t in result.tensors if t.metrics is not None), key=severity, reverse=True)
    outputs = [t for t in compared if t.role == "output"]
    inside = [t for t in compared if t.role != "output"]
    lines: list[str] = []
    broken = [
        t for t in result.tensors if t.role == "output" and t.metrics is None and t.status not in ("extra", "missing")
    ]
    if outputs or broken:
        what = "outputs" if result.roles_known else "tensors"
        lines += _table(_titled(what, outputs, rows), outputs[:rows], page)
        for tensor in broken[:rows]:
            lines += wrap(f"{elide(tensor.name, 48)}: {why_not_compared(tensor)}", page.width, first="  ", rest="    ")
        for tensor in outputs[:rows]:
            lines += _remarks(tensor, page, {f.kind for f in result.findings if f.tensor == tensor.name})
    if inside:
        lines += [*([""] if lines else []), *_table(_titled("tensors inside", inside, rows), inside[:rows], page)]
    return lines


def _titled(what: str, tensors: Sequence[TensorDiff], rows: int) -> str:
    return what if len(tensors) <= rows else f"worst {rows} of {len(tensors):,} {what.removeprefix('tensors ')}"


def _table(title: str, tensors: Sequence[TensorDiff], page: Page) -> list[str]:
    columns = [
        Column(title, 0, "<"),
        Column("range_rel", 9),
        Column("cosine", 9),
        Column("max_abs", 9),
        Column("p99.9", 9),
        Column("flag", 6, "<"),
    ]
    rows = []
    for t in tensors:
        m = t.metrics
        assert m is not None
        rows.append((t.name, number(m.range_rel), cosine(m.cosine), number(m.max_abs), number(m.p999), flag(t)))
    lines = table(columns, rows, page)
    styles = {
        "FAIL": ("red",),
        "NaN": ("red",),
        "Inf": ("red",),
        "finite": ("red",),
        "warn": ("yellow",),
        "over": ("yellow",),
    }
    for position, t in enumerate(tensors, start=1):
        lines[position] = page.paint(lines[position], *styles[flag(t)]) if flag(t) in styles else lines[position]
    return lines


def _remarks(tensor: TensorDiff, page: Page, found: set[str]) -> list[str]:
    """What neither a row of numbers nor a finding about this tensor (of the kinds ``found``) says."""
    m = tensor.metrics
    assert m is not None
    said: list[str] = []
    if m.nonfinite_mismatch:
        said.append(nonfinite(tensor))
    if m.sentinels and "sentinels" not in found:
        matched = "all match" if not m.sentinel_mismatch else f"{count(m.sentinel_mismatch)} do not match"
        said.append(
            f"{count(m.sentinels, 'mask value')} up to {number(m.sentinel_value)} kept out of the range; {matched}"
        )
    if tensor.inputs > 1 and tensor.worst_input is not None and "failing_inputs" not in found:
        failing = f"; fails on {len(tensor.failing_inputs)} of {tensor.inputs} inputs" if tensor.failing_inputs else ""
        said.append(f"worst input {elide(tensor.worst_input, 40)}{failing}")
    if tensor.verdict in ("failed", "warned"):
        if m.range_rel_item is not None and m.range_rel_item > m.range_rel:
            said.append(f"batch item {m.item} alone: range_rel {number(m.range_rel_item)}")
        for element in tensor.worst[:1]:
            on = f" (input {elide(element.input_id, 24)})" if element.input_id and tensor.inputs > 1 else ""
            at = "[" + ",".join(map(str, element.index)) + "]"
            said.append(f"worst element {at}: {element.actual:.6g}, golden {element.golden:.6g}{on}")
    name = elide(tensor.name, 32)
    return [line for text in said for line in wrap(f"{name}: {text}", page.width, first="    ", rest="      ")]


_METRICS = (
    "range_rel", "range_rel_item", "range", "max_abs", "mean_abs", "rmse", "max_rel", "mean_rel", "nmse", "sqnr_db", "psnr_db", "cosine",
    "p50", "p90", "p99", "p999", "ulp_max", "ulp_p99", "ulp_over_1", "mismatched", "mismatch_fraction", "kl", "kl_max", "top1", "top5",
    "channel_worst", "channel", "max_steps", "nonfinite_mismatch", "sentinels", "actual_min", "actual_max", "golden_min", "golden_max",
)  # fmt: skip


def all_metrics_blocks(result: DiffResult, page: Page, rows: int) -> list[str]:
    """Every metric of the worst ``rows`` tensors, outputs first, with their worst elements."""
    compared = sorted((t for t in result.tensors if t.metrics is not None), key=severity, reverse=True)
    chosen = [t for t in compared if t.role == "output"] + [t for t in compared if t.role != "output"]
    lines: list[str] = []
    for tensor in chosen[:rows]:
        m = tensor.metrics
        assert m is not None
        over = f", {count(tensor.inputs, 'input')}" if tensor.inputs > 1 else ""
        about = f"{tensor.dtype_golden or '?'} {shape(tensor.shape)}, {count(m.compared)} of {count(m.count)} elements{over}"
        lines.append(page.paint(elide(tensor.name, page.width - cells(about) - 2), "bold") + "  " + about)
        pairs = [
            (n, cosine(m.cosine) if n == "cosine" else number(getattr(m, n)))
            for n in _METRICS
            if getattr(m, n) is not None
        ]
        width = max(36, (page.width - 2) // 2)
        half = (len(pairs) + 1) // 2
        for position in range(half):
            both = [pairs[position], *pairs[position + half : position + half + 1]]
            lines.append(("  " + "".join(f"{n:<19}{v:>10}".ljust(width) for n, v in both)).rstrip())
        for element in tensor.worst:
            at = "[" + ",".join(map(str, element.index)) + "]"
            on = f", input {elide(element.input_id, 24)}" if element.input_id and tensor.inputs > 1 else ""
            text = f"{at}: {element.actual:.7g}, golden {element.golden:.7g}, error {number(element.error)}{on}"
            lines += wrap(text, page.width, first="  worst at ", rest="    ")
    return lines


def tolerance_table(result: DiffResult, page: Page, rows: int) -> list[str]:
    """Smallest tolerances that would pass; empty unless they were asked for."""
    known = [t for t in result.tensors if t.metrics is not None and t.metrics.smallest_atol is not None]
    if not known:
        return []
    known.sort(key=lambda t: (t.role != "output", *(-x for x in severity(t))))
    columns = [
        Column("smallest tolerance that passes", 0, "<"),
        Column("atol alone", 11),
        Column("rtol alone", 11),
        Column("atol = rtol", 11),
    ]
    cells_of = [
        (t.name, number(m.smallest_atol), number(m.smallest_rtol), number(m.smallest_both))
        for t in known[:rows]
        if (m := t.metrics) is not None
    ]
    lines = table(columns, cells_of, page)
    return lines if len(known) <= rows else [*lines, f"  and {len(known) - rows} more (-v)"]
