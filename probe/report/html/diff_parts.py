"""The page of a diff: where it starts, what was noticed, outputs, every tensor."""

from __future__ import annotations

from probe.report.diff_facts import diff_facts
from probe.report.diff_page import headline
from probe.report.diff_tables import severity
from probe.report.html.detail_parts import details
from probe.report.html.element import Child, Markup, bullets, element, name, section
from probe.report.html.parts import (
    MOST_ROWS,
    TENSOR_COLUMNS,
    TENSOR_FILTERS,
    cut_short,
    facts,
    names,
    outputs,
    provenance,
    tensor_rows,
    to_do,
    verdict,
)
from probe.report.html.tables import Column, Row, data_table
from probe.report.numbers import count, number
from probe.report.steps import next_steps, unmatched
from probe.report.words import NOT_COMPARED, WORDS, nonfinite
from probe.results.diff import DiffResult, TensorDiff


def diff_parts(result: DiffResult) -> list[Markup | None]:
    """The parts in their order on the page."""
    own = [t for t in result.tensors if t.role == "output"] if result.roles_known else list(result.tensors)
    inside = [t for t in result.tensors if t.role != "output"] if result.roles_known else []
    ordered = sorted(inside, key=severity, reverse=True)
    table = data_table("tensors-table", count(min(len(ordered), MOST_ROWS), "tensor"), TENSOR_COLUMNS, tensor_rows(ordered[:MOST_ROWS]),
                       filters=TENSOR_FILTERS)  # fmt: skip
    sides = (f"{result.actual.path} against {result.golden.path}", result.actual.precision)
    model = result.golden.model_sha256 or result.actual.model_sha256
    return [
        verdict(result.verdict, WORDS[result.verdict], headline(result), result.reasons[1:], ("probe diff", *sides)),
        to_do(next_steps(result)),
        _starts(result),
        section("noticed", "Findings", _findings(result)),
        outputs(own, "Outputs" if result.roles_known else "Tensors"),
        section("tensors", "Tensors inside", table if inside else None, cut_short(len(inside)), about="Worst first; open a row for its nodes, "
                "ranges and worst elements."),
        details(result.tensors, result.acceptance),
        section("names", "Names without a partner", _unmatched(result)),
        provenance(diff_facts(result), model, result.command, result.environment),
    ]  # fmt: skip


def _starts(result: DiffResult) -> Markup | None:
    """The first divergences with what made them and what they read."""
    there = {t.name: t for t in result.tensors}
    items = []
    for one in result.first_divergence[:6]:
        tensor = there.get(one)
        reads = [there[r] for r in tensor.reads if r in there] if tensor is not None else []
        said: list[tuple[str, Child]] = [
            ("made by", names(tensor.nodes, 6) if tensor is not None else None),
            ("reads", bullets([name(r.name, 72), ": ", _error(r)] for r in reads[:6])),
        ]
        items.append([name(one), ": " if tensor is not None else "", _error(tensor), facts(said)])
    left = len(result.first_divergence) - len(items)
    more = element("p", f"and {count(left, 'more place')} where error arises") if left else None
    return section("starts", "Where error starts", bullets(items, class_="findings"), more)


def _error(tensor: TensorDiff | None) -> str:
    if tensor is None:
        return ""
    if tensor.metrics is None:
        return NOT_COMPARED.get(tensor.status, tensor.status)
    odd = nonfinite(tensor)
    return f"range_rel {number(tensor.metrics.range_rel)}{f', {odd}' if odd else ''}"


def _findings(result: DiffResult) -> Markup | None:
    ordered = sorted(result.findings, key=lambda f: not f.fatal)
    return bullets(
        (
            [
                element("p", element("strong", "fatal: ") if one.fatal else None, one.message),
                facts([("tensor", name(one.tensor) if one.tensor and one.tensor not in one.message else None),
                       ("node", name(one.node) if one.node and one.node not in one.message else None), ("try", one.cure)]),
            ]
            for one in ordered
        ),
        class_="findings",
    )  # fmt: skip


def _unmatched(result: DiffResult) -> list[Child]:
    missing, extra = unmatched(result)
    said: list[tuple[str, Child]] = [
        ("only in golden", names([t.name for t in missing])),
        ("only in actual", names([t.name for t in extra])),
    ]
    columns = (Column("Golden"), Column("Actual"), Column("Similar", numeric=True), Column("Shape"))
    rows = [
        Row((name(s.golden, 72), name(s.actual, 72), f"{s.similarity:.0%}", "same" if s.same_shape else "differs"))
        for s in result.suggestions[:MOST_ROWS]
    ]
    alike = (
        data_table("alike-table", "Names that look alike; nothing was paired by these", columns, rows) if rows else None
    )
    return [facts(said) if missing or extra else None, alike]
