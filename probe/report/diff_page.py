"""A ``DiffResult`` as terminal text: verdict, what to do, first divergence, findings, the worst tensors, where it all came from."""

from __future__ import annotations

import math
from collections.abc import Sequence

from probe.report.diff_facts import diff_facts, fact_lines, not_compared, unmatched_names
from probe.report.diff_tables import all_metrics_blocks, tables, tolerance_table
from probe.report.numbers import count, number
from probe.report.steps import next_steps, step_lines
from probe.report.text import Page, cells, elide, sections, wrap
from probe.report.words import NOT_COMPARED, more_reasons, nonfinite, sentence, verdict_lines
from probe.results.diff import Criterion, DiffResult, TensorDiff
from probe.results.numbers import beside


def diff_page(
    result: DiffResult, page: Page, *, rows: int = 10, all_metrics: bool = False, verbose: bool = False
) -> list[str]:
    """The whole page. ``rows`` bounds each table, ``verbose`` lifts the bound; ``all_metrics`` adds a block an output."""
    rows = len(result.tensors) if verbose else rows
    return sections(
        [*verdict_lines(result.verdict, headline(result), page), *more_reasons(result.reasons, page)],
        step_lines(next_steps(result), page),
        _first_divergence(result, page),
        _findings(result, page),
        tables(result, page, rows),
        all_metrics_blocks(result, page, rows) if all_metrics else [],
        tolerance_table(result, page, rows),
        unmatched_names(result, page, rows),
        not_compared(result, page) if verbose else [],
        fact_lines(diff_facts(result), page),
    )


# --- verdict


def headline(result: DiffResult) -> str:
    """The verdict's reason in one sentence, with numbers."""
    if result.reasons:
        return sentence(result.reasons[0])
    judged = [t for t in result.tensors if t.role == "output" and t.metrics is not None]
    outputs = count(len(judged), "output")
    if (
        judged
        and all(t.metrics is not None and t.metrics.max_abs == 0 and not t.metrics.sentinels for t in judged)
        and result.verdict == "passed"
    ):
        return f"{outputs} equal to the golden in every element"
    if result.verdict == "not_judged":
        return f"{outputs} compared, but no acceptance applies"
    closest = _closest(result.acceptance, judged)
    if closest is None:
        return f"{outputs} within the acceptance"
    tensor, criterion, value = closest
    left, right = beside(value, criterion.threshold)
    name = elide(tensor.name, 40)
    return f"{outputs} within the acceptance; closest to a limit: {name}: {criterion.metric} {left} (limit {right})"


def _closest(
    acceptance: Sequence[Criterion], outputs: Sequence[TensorDiff]
) -> tuple[TensorDiff, Criterion, float] | None:
    best: tuple[float, TensorDiff, Criterion, float] | None = None
    for tensor in outputs:
        for criterion in acceptance:
            if criterion.output not in (None, tensor.name) or criterion.level != "fail":
                continue
            value = getattr(tensor.metrics, criterion.metric, None)
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                continue
            used = _share_of_limit(float(value), criterion)
            if best is None or used > best[0]:
                best = (used, tensor, criterion, float(value))
    return best[1:] if best else None


def _share_of_limit(value: float, criterion: Criterion) -> float:
    """0 far from the limit, 1 at it. For ``>=`` bounds of quantities that are best at 1 (cosine, top1), the distance from 1."""
    limit = criterion.threshold
    if criterion.op in ("<=", "<"):
        return value / limit if limit > 0 else float(value > 0)
    if limit < 1 and value <= 1:
        return (1 - value) / (1 - limit)
    return limit / value if value > 0 else math.inf


# --- what to do, where it starts, what was noticed


def _first_divergence(result: DiffResult, page: Page) -> list[str]:
    if not result.first_divergence:
        return []
    by_name = {t.name: t for t in result.tensors}
    known = any(by_name[n].reads for n in result.first_divergence if n in by_name)
    title = "first divergence" + (": beyond the threshold, all it reads within" if known else "")
    lines = [page.paint(title, "bold")]
    for name in result.first_divergence[:3]:
        tensor = by_name.get(name)
        if tensor is None:
            lines.append("  " + elide(name, page.width - 2))
            continue
        lines.append("  " + _with_number(tensor, page.width - 2))
        if tensor.nodes:
            nodes = ", ".join(elide(n, 60) for n in tensor.nodes[:4]) + (", ..." if len(tensor.nodes) > 4 else "")
            layer = f" in layer {elide(tensor.layer, 40)}" if tensor.layer and tensor.layer not in tensor.nodes else ""
            lines += wrap(f"made by {nodes}{layer}", page.width, first="    ", rest="      ")
        reads = [by_name[r] for r in tensor.reads if r in by_name]
        for read in reads[:4]:
            lines.append("    reads " + _with_number(read, page.width - 10))
        if len(reads) > 4:
            lines.append(f"    and {len(reads) - 4} more")
    if len(result.first_divergence) > 3:
        lines.append(f"  and {count(len(result.first_divergence) - 3, 'more place')} where error arises")
    return lines


def _with_number(tensor: TensorDiff, width: int) -> str:
    """``name  range_rel 0.31, 4 NaN`` in ``width`` cells, the name giving way."""
    said = (
        f"range_rel {number(tensor.metrics.range_rel)}"
        if tensor.metrics
        else NOT_COMPARED.get(tensor.status, tensor.status)
    )
    odd = nonfinite(tensor)
    said += f", {odd}" if odd else ""
    return elide(f"{elide(tensor.name, max(8, width - cells(said) - 2))}  {said}", width)


def _findings(result: DiffResult, page: Page) -> list[str]:
    if not result.findings:
        return []
    lines = [page.paint("findings", "bold")]
    for finding in sorted(result.findings, key=lambda f: not f.fatal)[:12]:
        label = "  fatal  " if finding.fatal else "  note   "
        where = f" (node {elide(finding.node, 48)})" if finding.node and finding.node not in finding.message else ""
        of = f"{elide(finding.tensor, 48)}: " if finding.tensor and finding.tensor not in finding.message else ""
        lines += wrap(of + sentence(finding.message) + where, page.width, first=label)
        if finding.cure:
            lines += wrap(sentence(finding.cure), page.width, first="         try ")
    if len(result.findings) > 12:
        lines.append(f"  and {count(len(result.findings) - 12, 'more finding')} (--json FILE)")
    return lines
